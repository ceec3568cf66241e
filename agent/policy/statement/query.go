package statement

import "fmt"

// checker walks the tokens of one statement. Its methods give a reason to refuse, or "".
type checker struct {
	d     Dialect
	toks  []token
	match []int
	write bool // judge as a statement of a read-write profile
	stack writeState

	insert, returning int    // index of the first of these words, len(toks) for none
	elses             []bool // T-SQL: the ELSE here belongs to a CASE
}

func newChecker(d Dialect, toks []token, match []int) *checker {
	c := &checker{d: d, toks: toks, match: match, insert: len(toks), returning: len(toks)}
	if d == SQLServer {
		c.elses = make([]bool, len(toks))
	}
	cases := make([]int, 1, 8) // open CASEs, per parenthesis
	for i := range toks {
		top := len(cases) - 1
		switch t := &toks[i]; {
		case t.is("("):
			cases = append(cases, 0)
		case t.is(")"):
			cases = cases[:top]
		case t.word("case"):
			cases[top]++
		case t.word("end"):
			cases[top] = max(0, cases[top]-1)
		case t.word("else") && c.elses != nil:
			c.elses[i] = cases[top] > 0
		case t.word("insert") || t.word("replace") || t.word("merge"):
			c.insert = min(c.insert, i)
		case t.word("returning"):
			c.returning = min(c.returning, i)
		}
	}
	return c
}

func (c *checker) word(i int, words ...string) bool {
	if i < 0 || i >= len(c.toks) {
		return false
	}
	for _, w := range words {
		if c.toks[i].word(w) {
			return true
		}
	}
	return false
}

func (c *checker) is(i int, s string) bool { return i >= 0 && i < len(c.toks) && c.toks[i].is(s) }

// verb names what the statement does.
func (c *checker) verb() string {
	i := 0
	for c.is(i, "(") {
		i++
	}
	if c.word(i, "with") {
		if main, reason := c.with(i, len(c.toks), nil); reason == "" {
			i = main
		}
	}
	if i >= len(c.toks) || c.toks[i].kind != word {
		return ""
	}
	v := c.toks[i].low
	if !knownVerb(v) {
		return "" // the word may be anything, also a secret pasted into the wrong field
	}
	if v == "create" || v == "alter" || v == "drop" {
		if o := c.object(i + 1); o != "" {
			return v + " " + o
		}
	}
	return v
}

// read judges the whole as a statement that reads.
func (c *checker) read() string {
	first := c.inner(0)
	n := len(c.toks)
	switch {
	case c.startsQuery(first):
		return c.query(0, n)
	case first > 0:
		return "the statement starts with a parenthesis that holds no query"
	case c.word(0, "show") && (c.d.isPG() || c.d == MySQL):
		return c.show()
	case c.word(0, "explain", "describe", "desc"):
		return c.explain()
	case c.word(0, "pragma") && c.d == SQLite:
		return c.pragma()
	}
	return c.notRead(0)
}

// inner gives the index of the first token at or after i that is no opening parenthesis.
func (c *checker) inner(i int) int {
	for c.is(i, "(") {
		i++
	}
	return i
}

// startsQuery tells whether the word at i starts a query in this dialect.
func (c *checker) startsQuery(i int) bool {
	return c.word(i, "select", "with") || c.word(i, "values") && c.d != SQLServer && c.d != Oracle ||
		c.word(i, "table") && (c.d == PostgreSQL || c.d == MySQL)
}

// notRead gives the reason for a first word that is no reading one.
func (c *checker) notRead(i int) string {
	if i >= len(c.toks) || c.toks[i].kind != word || !knownVerb(c.toks[i].low) {
		return "the statement does not start with a word that is allowed; a read-only statement starts with SELECT, " +
			"WITH, VALUES, SHOW or EXPLAIN"
	}
	v := c.toks[i].low
	if writeVerb(c.d, v) {
		return fmt.Sprintf("%s changes data; use a profile whose mode is read_write", upper(v))
	}
	return refusedVerb(v)
}

// query judges tokens [lo,hi) as one query expression.
func (c *checker) query(lo, hi int) string {
	i := lo
	if c.word(i, "with") {
		main, reason := c.with(i, hi, c.query)
		if reason != "" {
			return reason
		}
		i = main
	}
	switch {
	case !c.word(i, "with") && c.startsQuery(i), i < hi && c.is(i, "(") && c.startsQuery(c.inner(i)):
	case c.write && c.word(i, "insert", "update", "delete", "merge") && (i > lo || lo > 0):
		// PostgreSQL: a common table expression that writes. Elsewhere the server refuses it.
	default:
		return c.notRead(i)
	}
	return c.walk(i, hi, true)
}

// with steps over a WITH clause at i and gives the index of the word after it. body, if not nil, judges each common
// table expression.
func (c *checker) with(i, hi int, body func(lo, hi int) string) (int, string) {
	const faulty = "the WITH clause is not understood; write it as WITH name AS (query) SELECT …"
	i++
	if c.word(i, "recursive") {
		i++
	}
	for {
		if i >= hi || !c.toks[i].name() || c.word(i, "function", "procedure") {
			if c.word(i, "function", "procedure") {
				return 0, "WITH FUNCTION and WITH PROCEDURE run code and are not allowed"
			}
			return 0, faulty
		}
		i++
		if i < hi && c.is(i, "(") {
			i = c.match[i] + 1
		}
		if i >= hi || !c.word(i, "as") {
			return 0, faulty
		}
		i++
		if c.word(i, "not") {
			i++
		}
		if c.word(i, "materialized") {
			i++
		}
		if i >= hi || !c.is(i, "(") {
			return 0, faulty
		}
		end := c.match[i]
		if body != nil {
			if reason := body(i+1, end); reason != "" {
				return 0, reason
			}
		}
		i = end + 1
		if i < hi && c.is(i, ",") {
			i++
			continue
		}
		if i >= hi {
			return 0, faulty
		}
		return i, ""
	}
}

// walk judges each token of [lo,hi), going down into parentheses. start tells that a SELECT may stand at lo.
func (c *checker) walk(lo, hi int, start bool) string {
	for i := lo; i < hi; i++ {
		t := &c.toks[i]
		reason := ""
		switch {
		case t.is("("):
			reason = c.group(i)
			i = c.match[i]
		case t.word("select"):
			if !(start && i == lo) && !c.afterSetOperator(i) && !c.freeSelect(i) {
				reason = "a second SELECT starts where none can stand; send each statement by itself"
			}
		case t.word("with"):
			if !c.plainWith(i) {
				reason = "WITH stands where no common table expression can start"
			}
		default:
			reason = c.token(i)
		}
		if reason != "" {
			return reason
		}
	}
	return ""
}

// group judges the parenthesis that opens at i and what may be called by it.
func (c *checker) group(i int) string {
	if reason := c.call(i); reason != "" {
		return reason
	}
	lo, hi := i+1, c.match[i]
	if c.word(lo, "insert", "update", "delete", "merge", "create", "alter", "drop", "truncate") && !c.is(lo+1, "(") {
		return upper(c.toks[lo].low) + " stands in parentheses, where only a query can stand"
	}
	if c.word(lo, "select") || c.word(lo, "with") {
		return c.query(lo, hi)
	}
	return c.walk(lo, hi, false)
}

func (c *checker) afterSetOperator(i int) bool {
	if c.word(i-1, "all", "distinct") {
		i--
	}
	return c.word(i-1, "union", "except", "intersect") || c.word(i-1, "minus") && c.d != SQLServer
}

// plainWith tells whether the WITH at i belongs to something else than a common table expression.
func (c *checker) plainWith(i int) bool {
	switch {
	case c.word(i+1, "ties", "ordinality", "rollup", "cube", "time", "local", "wrapper", "conditional", "unconditional",
		"array", "without", "unique", "query", "data", "no", "check", "cascaded", "read"):
		return true
	case (c.d == Oracle || c.write) && c.word(i-1, "start"): // hierarchies, sequences
		return true
	case c.is(i+1, "("): // T-SQL: hints of a table, columns of OPENJSON
		for j := i + 2; j < c.match[i+1]; j++ {
			if c.word(j, "updlock", "xlock", "tablock", "tablockx", "holdlock", "serializable", "repeatableread") && !c.write {
				return false
			}
		}
		return true
	}
	// INSERT INTO t WITH … SELECT, CREATE VIEW v AS WITH … SELECT
	if c.write && c.d != SQLServer && (c.word(i-1, "as") || c.word(0, "insert", "replace")) && c.stack.freeWith == 0 {
		c.stack.freeWith = i
		_, reason := c.with(i, len(c.toks), nil)
		return reason == ""
	}
	return false
}

// token judges one token outside parentheses of its own.
func (c *checker) token(i int) string {
	t := &c.toks[i]
	switch t.kind {
	case word:
		if c.is(i-1, ".") && c.d != SQLServer {
			break // a name after a dot is a column or a table in these dialects
		}
		if c.write {
			if reason := c.writeWord(i); reason != "" {
				return reason
			}
		} else if reason := c.readWord(i); reason != "" {
			return reason
		}
	case op:
		if t.low == ":" && c.is(i+1, "=") && c.toks[i+1].glued && !c.d.isPG() {
			return ":= assigns a variable and is not allowed; compare with ="
		}
		if t.low == "@" && c.d == Oracle {
			return "a database link (@) reaches another server and is not allowed"
		}
	}
	if !t.name() && (t.kind != str || c.d != SQLite) {
		return ""
	}
	if t.low == "nextval" && c.is(i-1, ".") && !c.write {
		return "NEXTVAL changes a sequence; use a profile whose mode is read_write"
	}
	return c.namePrefix(i)
}

// namePrefix refuses names that are dangerous without being called.
func (c *checker) namePrefix(i int) string {
	low := c.toks[i].low
	switch c.d {
	case SQLite:
		if p, ok := cut(low, "pragma_"); ok && !safePragma(p) {
			return "this PRAGMA table is not on the list of those that only read the schema"
		}
		if low == "sqlite_dbpage" {
			return "sqlite_dbpage is not allowed"
		}
	case SQLServer:
		if _, ok := cut(low, "xp_"); ok {
			return "extended procedures (XP_…) reach the operating system and are not allowed"
		}
		return c.linkedServer(i)
	case Oracle:
		if _, ok := cut(low, "utl_", "owa_"); ok {
			return "the UTL_ and OWA_ packages reach files and the network and are not allowed"
		}
		if _, ok := cut(low, "dbms_"); ok && !safeOraclePackage(low, c.partAfter(i)) {
			return "this DBMS_ package is not allowed"
		}
	}
	return ""
}

func (c *checker) partAfter(i int) string {
	if c.is(i+1, ".") && i+2 < len(c.toks) {
		return c.toks[i+2].low
	}
	return ""
}

// linkedServer refuses names of four parts (server.database.schema.table), empty ones counted.
func (c *checker) linkedServer(i int) string {
	if c.is(i-1, ".") {
		return ""
	}
	dots := 0
	for j := i + 1; j < len(c.toks) && (c.toks[j].is(".") || c.toks[j].name() && c.is(j-1, ".")); j++ {
		if c.toks[j].is(".") {
			dots++
		}
	}
	if dots >= 3 {
		return "a name of four parts reaches a linked server and is not allowed"
	}
	return ""
}

// call judges what stands before the parenthesis at i.
func (c *checker) call(i int) string {
	p := i - 1
	if p < 0 {
		return ""
	}
	t := &c.toks[p]
	if t.kind == str {
		return "a string stands before a parenthesis"
	}
	if !t.name() {
		return ""
	}
	path := []string{""} // the parts before the name; "" for none
	for q := p; q >= 2 && c.is(q-1, ".") && c.toks[q-2].name(); q -= 2 {
		path = append(path, c.toks[q-2].low)
	}
	for j := range len(t.low) {
		if t.low[j] >= 0x80 {
			return "a function whose name is not plain ASCII is not allowed: servers may fold such names"
		}
	}
	noArgs, rank := c.match[i] == i+1, fnPlain
	for _, schema := range path {
		rank = max(rank, function(c.d, schema, t.low, noArgs))
	}
	switch {
	case rank == fnRefused:
		return fmt.Sprintf("the function %s is not allowed: it reaches past the tables, keeps state or runs text as SQL",
			shown(t))
	case rank == fnWrites && !c.write:
		return fmt.Sprintf("the function %s changes state; use a profile whose mode is read_write", shown(t))
	}
	return ""
}
