package statement

import "strings"

// maxTables bounds the names gathered from one statement.
const maxTables = 256

// lookBack bounds how many tokens may stand between EXTRACT( and its FROM.
const lookBack = 64

// tables gathers the names of the tables that a statement touches, as well as it can.
func tables(d Dialect, sql string, toks []token, match []int) []string {
	g := &gatherer{d: d, sql: sql, toks: toks, match: match, seen: map[string]bool{}, ctes: map[string]bool{}}
	for i := range toks {
		if toks[i].name() && i+1 < len(toks) && i > 0 && (toks[i-1].word("with") || toks[i-1].word("recursive") ||
			toks[i-1].is(",")) && g.isCTE(i) {
			g.ctes[toks[i].low] = true
		}
	}
	for i := range toks {
		switch {
		case toks[i].kind != word, i > 0 && toks[i-1].is("."):
		case toks[i].low == "from":
			if !g.plainFrom(i) {
				g.list(i + 1)
			}
		case toks[i].low == "join", toks[i].low == "into", toks[i].low == "table", toks[i].low == "describe",
			toks[i].low == "desc":
			g.one(i + 1)
		case toks[i].low == "update":
			if i == 0 || !toks[i-1].word("key") && !toks[i-1].word("on") && !toks[i-1].word("for") {
				g.one(i + 1)
			}
		case toks[i].low == "using":
			if toks[0].word("delete") || toks[0].word("merge") {
				g.one(i + 1)
			}
		case toks[i].low == "truncate", toks[i].low == "merge":
			if i == 0 {
				g.one(i + 1)
			}
		}
	}
	return g.out
}

type gatherer struct {
	d     Dialect
	sql   string
	toks  []token
	match []int
	seen  map[string]bool
	ctes  map[string]bool
	out   []string
}

// isCTE tells whether the name at i is followed by AS (…) or (columns) AS (…).
func (g *gatherer) isCTE(i int) bool {
	j := i + 1
	if j < len(g.toks) && g.toks[j].is("(") {
		j = g.match[j] + 1
	}
	if j >= len(g.toks) || !g.toks[j].word("as") {
		return false
	}
	for j++; j < len(g.toks) && (g.toks[j].word("not") || g.toks[j].word("materialized")); j++ {
	}
	return j < len(g.toks) && g.toks[j].is("(")
}

// plainFrom finds the FROM of EXTRACT(… FROM …), IS DISTINCT FROM and their like.
func (g *gatherer) plainFrom(i int) bool {
	if i > 0 && g.toks[i-1].word("distinct") {
		return true
	}
	for j := i - 1; j >= max(0, i-lookBack); j-- {
		if g.toks[j].is(")") {
			j = g.match[j]
			continue
		}
		if g.toks[j].word("select") {
			return false
		}
		if g.toks[j].is("(") {
			if j == 0 {
				return false
			}
			switch g.toks[j-1].low {
			case "extract", "substring", "trim", "overlay", "position", "ltrim", "rtrim":
				return g.toks[j-1].kind == word
			}
			return false
		}
	}
	return false
}

// list takes the first name and those after commas of the same depth, up to the next clause.
func (g *gatherer) list(i int) {
	i = g.one(i)
	for n := 0; i < len(g.toks); i++ {
		t := &g.toks[i]
		switch {
		case t.is("("):
			i = g.match[i]
		case t.is(")"):
			return
		case t.is(","):
			if n++; n > maxTables {
				return
			}
			i = g.one(i+1) - 1
		case t.kind == word:
			switch t.low {
			case "where", "group", "order", "having", "limit", "union", "except", "intersect", "window", "set", "for",
				"fetch", "offset", "select", "returning", "values", "from":
				return
			}
		}
	}
}

// one takes the name at i and gives the index after it.
func (g *gatherer) one(i int) int {
	for i < len(g.toks) && g.toks[i].kind == word && (i+1 >= len(g.toks) || !g.toks[i+1].is(".")) {
		switch g.toks[i].low {
		case "only", "lateral", "table", "if", "not", "exists", "ignore", "low_priority", "temp", "temporary", "unlogged",
			"concurrently", "or":
			i++
			continue
		}
		break
	}
	var parts []string
	start := i
	for i < len(g.toks) && (g.toks[i].name() || g.d == SQLite && g.toks[i].kind == str && len(parts) == 0) {
		parts = append(parts, g.plain(i))
		i++
		if i+1 < len(g.toks) && g.toks[i].is(".") && g.toks[i+1].name() {
			i++
			continue
		}
		break
	}
	if len(parts) == 0 {
		return start
	}
	switch g.toks[start].low {
	case "select", "values", "set", "where", "unnest", "from", "join", "on":
		if g.toks[start].kind == word {
			return start
		}
	}
	if i < len(g.toks) && g.toks[i].is("(") && !g.toks[0].word("insert") && !g.toks[0].word("create") &&
		!g.toks[0].word("replace") {
		return i // a function
	}
	name := strings.Join(parts, ".")
	if len(parts) == 1 && g.ctes[g.toks[start].low] || g.seen[name] || len(g.out) == maxTables {
		return i
	}
	g.seen[name] = true
	g.out = append(g.out, name)
	return i
}

// plain gives the name at i as written, without its quotes.
func (g *gatherer) plain(i int) string {
	t := &g.toks[i]
	text := g.sql[t.start:t.end]
	if t.kind == word {
		return text
	}
	q := text[len(text)-1:]
	return strings.ReplaceAll(text[1:len(text)-1], q+q, q)
}
