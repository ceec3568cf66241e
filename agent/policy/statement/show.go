package statement

// show judges SHOW.
func (c *checker) show() string {
	if c.d.isPG() {
		for i := 1; i < len(c.toks); i++ {
			t := &c.toks[i]
			if !t.name() && !t.is(".") && t.kind != str || i > 12 {
				return "this SHOW is not understood; write SHOW and the name of a setting"
			}
		}
		if len(c.toks) < 2 {
			return "this SHOW is not understood; write SHOW and the name of a setting"
		}
		return ""
	}
	i := 1
	for c.word(i, "full", "extended", "global", "session", "local") {
		i++
	}
	switch {
	case c.word(i, "databases", "schemas", "tables", "columns", "fields", "index", "indexes", "keys", "status", "variables",
		"warnings", "errors", "processlist", "engines", "collation", "grants", "triggers", "events", "privileges"):
	case c.word(i, "count") && c.is(i+1, "("), c.word(i, "table") && c.word(i+1, "status"),
		c.word(i, "character") && c.word(i+1, "set"), c.word(i, "function", "procedure") && c.word(i+1, "status"):
		i++
	case c.word(i, "create") && c.word(i+1, "table", "view", "database", "schema", "trigger", "event", "function",
		"procedure", "sequence"):
		i++
	default:
		return "this SHOW is not on the list of those that are allowed; query information_schema with SELECT"
	}
	return c.walk(i+1, len(c.toks), false)
}

// explain judges EXPLAIN, DESCRIBE and DESC.
func (c *checker) explain() string {
	const only = "EXPLAIN is allowed for a statement that reads, without ANALYZE"
	i, n := 1, len(c.toks)
	switch c.d {
	case Oracle, SQLServer:
		return "EXPLAIN and DESCRIBE are not allowed in this dialect: they write, or belong to the client"
	case SQLite:
		if !c.word(0, "explain") {
			return refusedVerb("describe")
		}
		if c.word(i, "query") && c.word(i+1, "plan") {
			i += 2
		}
	case MySQL:
		if c.word(i, "extended", "partitions") {
			i++
		}
		if c.word(i, "format") && c.is(i+1, "=") && i+2 < n && c.toks[i+2].kind != punct {
			i += 3
		}
		if !c.word(i, "select", "with", "values", "table") && !c.is(i, "(") {
			return c.describe(i)
		}
	default:
		if !c.word(0, "explain") {
			return refusedVerb("describe")
		}
		if c.is(i, "(") && !c.word(i+1, "select", "with", "values", "table") && !c.is(i+1, "(") {
			end := c.match[i]
			for j := i + 1; j < end; j++ {
				switch {
				case c.word(j, "verbose", "costs", "settings", "generic_plan", "buffers", "summary", "format", "memory",
					"on", "off", "true", "false", "text", "json", "xml", "yaml"), c.is(j, ","):
				default:
					return only
				}
			}
			i = end + 1
		}
		if c.word(i, "verbose") {
			i++
		}
	}
	first := i
	for c.is(first, "(") {
		first++
	}
	if !c.word(first, "select", "with", "values", "table") {
		return only
	}
	return c.query(i, n)
}

// describe judges DESCRIBE table [column].
func (c *checker) describe(i int) string {
	n := len(c.toks)
	for j := i; j < n; j++ {
		t := &c.toks[j]
		if !t.name() && !t.is(".") && t.kind != str || j > i+4 || c.word(j, "analyze", "for", "insert", "update", "delete",
			"replace", "into", "execute") {
			return "EXPLAIN and DESCRIBE are allowed for a table or a statement that reads, without ANALYZE"
		}
	}
	if i >= n {
		return "DESCRIBE names no table"
	}
	return ""
}

// pragma judges PRAGMA [schema.]name [(argument)].
func (c *checker) pragma() string {
	const no = "this PRAGMA is not on the list of those that only read; settings cannot be changed"
	i, n := 1, len(c.toks)
	if c.is(i+1, ".") {
		i += 2
	}
	if i >= n || c.toks[i].kind != word {
		return no
	}
	name := c.toks[i].low
	i++
	switch {
	case i == n && (safePragma(name) || valuePragma(name)):
		return ""
	case safePragma(name) && c.is(i, "(") && i+2 == n-1 && c.is(n-1, ")") && (c.toks[i+1].name() || c.toks[i+1].kind == str):
		return ""
	}
	return no
}
