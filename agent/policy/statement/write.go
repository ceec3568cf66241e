package statement

// writeState remembers what has been met once already, in a dialect where statements need no semicolon between them.
type writeState struct {
	freeSelect, freeWith int // index of the SELECT or WITH that feeds an INSERT, 0 for none yet
	set, action          int
}

// writes judges the whole as a statement that a read-write profile may run.
func (c *checker) writes() string {
	n := len(c.toks)
	i := c.inner(0)
	if i > 0 || c.startsQuery(0) && !c.word(0, "with") {
		return c.query(0, n)
	}
	if c.word(0, "with") {
		main, reason := c.with(0, n, c.query)
		if reason != "" {
			return reason
		}
		i = main
		if c.startsQuery(c.inner(i)) {
			return c.walk(i, n, true)
		}
	}
	if i >= n || c.toks[i].kind != word || !writeVerb(c.d, c.toks[i].low) {
		return c.notRead(i)
	}
	v := c.toks[i].low
	if i > 0 && v != "insert" && v != "update" && v != "delete" && v != "merge" && v != "replace" {
		return c.notRead(i)
	}
	if v == "create" || v == "alter" || v == "drop" {
		if c.object(i+1) == "" {
			return upper(v) + " is allowed for tables, indexes, views and sequences; a database administrator does the rest"
		}
	}
	if reason := c.systemTarget(i); reason != "" {
		return reason
	}
	return c.walk(i+1, n, false)
}

// object names what CREATE, ALTER or DROP works on, "" if it is none of those allowed.
func (c *checker) object(i int) string {
	for c.word(i, "or", "replace", "alter", "temp", "temporary", "local", "global", "unique", "unlogged", "materialized",
		"recursive", "force", "noforce", "no", "editionable", "noneditionable", "clustered", "nonclustered", "columnstore",
		"fulltext", "spatial", "bitmap", "private") {
		i++
	}
	switch {
	case c.word(i, "table", "index", "view", "sequence"):
		return c.toks[i].low
	case c.d == PostgreSQL && c.word(i, "type", "domain"):
		return c.toks[i].low
	}
	return ""
}

// systemTarget refuses to write where the server keeps its own tables.
func (c *checker) systemTarget(i int) string {
	for i++; i < len(c.toks) && c.toks[i].kind == word && !c.is(i+1, ".") && skipWord(c.toks[i].low); i++ {
	}
	name := func(i int) bool { return c.toks[i].name() || c.d == SQLite && c.toks[i].kind == str }
	if i >= len(c.toks) || !name(i) {
		return ""
	}
	const no = "the tables of the database system itself cannot be written"
	for ; i < len(c.toks) && (name(i) || c.toks[i].is(".")); i++ {
		low := c.toks[i].low
		switch low {
		case "mysql", "sys", "pg_catalog", "information_schema", "performance_schema":
			if c.is(i+1, ".") {
				return no
			}
		case "pg_authid", "pg_proc", "pg_class", "pg_database", "pg_auth_members":
			return no
		}
		if c.d == SQLite && hasPrefix(low, "sqlite_") {
			return no
		}
		if !c.is(i+1, ".") && !c.toks[i].is(".") {
			return ""
		}
	}
	return ""
}

func skipWord(w string) bool {
	switch w {
	case "into", "from", "table", "only", "ignore", "low_priority", "delayed", "high_priority", "quick", "or", "rollback",
		"abort", "fail", "replace", "top", "if", "exists", "not", "index", "view", "sequence", "temp", "temporary", "unique",
		"overwrite":
		return true
	}
	return false
}

// writeWord judges a bare word in a statement that may write.
func (c *checker) writeWord(i int) string {
	w := c.toks[i].low
	switch w {
	case "outfile", "dumpfile", "infile":
		return "INTO OUTFILE, INTO DUMPFILE and LOAD DATA reach files of the server and are not allowed in any mode"
	case "copy":
		if c.d == MySQL { // ALTER TABLE … ALGORITHM=COPY
			return ""
		}
		return notAllowedWord(w)
	case "commit":
		if c.word(i-1, "on") {
			return ""
		}
		return notAllowedWord(w)
	case "rollback", "abort":
		if c.d == SQLite && (c.word(i-1, "or") || c.word(i-1, "conflict")) {
			return ""
		}
		if w == "abort" {
			return ""
		}
		return notAllowedWord(w)
	case "exec", "execute", "call", "grant", "revoke", "savepoint", "prepare", "deallocate", "declare", "vacuum", "attach",
		"detach", "pragma", "handler", "waitfor", "openrowset", "opendatasource", "openquery", "openxml", "unlisten":
		return notAllowedWord(w)
	case "into":
		return c.intoTarget(i)
	case "external":
		return "EXTERNAL reaches past the database and is not allowed in any mode"
	case "owner", "security", "rule", "authorization", "discard", "import", "trigger":
		if c.word(0, "alter", "create") && !c.is(i-1, "(") && !c.is(i-1, ",") && !c.word(i-1, "column", "add") {
			return notAllowedWord(w)
		}
	case "directory":
		if c.d == MySQL && c.word(i-1, "data", "index") {
			return notAllowedWord(w)
		}
	case "engine":
		return c.engine(i)
	case "connection":
		if c.d == MySQL && c.word(0, "create", "alter") && (c.is(i+1, "=") || i+1 < len(c.toks) && c.toks[i+1].kind == str) {
			return notAllowedWord(w)
		}
	}
	if c.d == SQLServer {
		return c.tsqlWriteWord(i)
	}
	return ""
}

// intoTarget allows a table as the target of INTO, no file and no variable.
func (c *checker) intoTarget(i int) string {
	const no = "INTO a file or variable is not allowed in any mode"
	if c.d == Oracle && c.returning < i && i+1 < len(c.toks) && c.toks[i+1].kind == param {
		return ""
	}
	if i+1 >= len(c.toks) || !c.toks[i+1].name() {
		return no
	}
	if c.word(0, "insert", "merge", "replace") || c.d.isPG() || c.d == SQLServer {
		return ""
	}
	if c.insert < i { // after WITH
		return ""
	}
	return no
}

// engine refuses the storage engines of MySQL that reach other servers or files.
func (c *checker) engine(i int) string {
	if c.d != MySQL || !c.word(0, "create", "alter") {
		return ""
	}
	if c.is(i+1, "=") {
		i++
	}
	if i+1 >= len(c.toks) || c.toks[i+1].kind == punct {
		return ""
	}
	switch c.toks[i+1].low {
	case "": // a string; the lexer keeps no text of those
		return "name the storage engine without quotes"
	case "federated", "federatedx", "connect", "spider", "s3", "sphinx", "csv", "oqgraph", "mroonga", "mrg_myisam", "merge":
		return "this storage engine reaches past the database and is not allowed in any mode"
	}
	return ""
}

// freeSelect allows the one SELECT that feeds an INSERT or a CREATE … AS.
func (c *checker) freeSelect(i int) bool {
	if !c.write {
		return false
	}
	if c.d != SQLServer {
		return true // a second statement needs a semicolon there
	}
	if c.stack.freeSelect == 0 && (c.word(i-1, "as") || c.insert < i) {
		c.stack.freeSelect = i
	}
	return c.stack.freeSelect == i
}

// tsqlWriteWord allows the words that start a statement in T-SQL only where they continue this one.
func (c *checker) tsqlWriteWord(i int) string {
	w := c.toks[i].low
	ok := true
	switch w {
	case "insert":
		ok = c.word(i-1, "then")
	case "update", "delete":
		ok = c.word(i-1, "then", "on")
	case "set":
		switch {
		case c.word(i-1, "on", "delete", "update", "action"): // ON DELETE SET NULL, MERGE … THEN UPDATE SET
		case c.word(0, "update", "with") && c.stack.set == 0:
			c.stack.set = i
		default:
			ok = c.stack.set == i
		}
	case "drop", "alter", "add":
		switch {
		case c.word(0, "alter") && c.stack.action == 0:
			c.stack.action = i
			ok = w != "drop" || !c.word(i+1, "table", "view", "procedure", "function", "database", "user", "login", "role")
		case c.word(0, "create") && w == "alter" && i == 2: // CREATE OR ALTER VIEW
		default:
			ok = c.stack.action == i
		}
	case "if":
		ok = c.word(i+1, "exists") && c.word(0, "drop", "alter")
	case "merge", "truncate", "create", "replace", "do", "reindex", "copy", "kill":
		ok = w == "replace" && c.is(i+1, "(")
	case "external", "trigger":
		ok = false
	default:
		return c.tsqlWord(i)
	}
	if ok {
		return ""
	}
	return notAllowedWord(w)
}
