package sqldb

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/internal/mask"
)

// lineage guesses which computed columns of a statement may hold a masked column's values. It reads words, not meaning, and
// errs to the side of masking. What it cannot see: views and functions of the database that rename a column inside.
type lineage struct {
	statistics bool // samples of any column's values may be in the result
	whole      bool // any column without an origin may hold a masked value
	clean      bool // none can
	plan       bool // the result is the plan of a query
	items      []taint
	star       int // index of the one item that stands for several columns; -1 when none
}

type taint bool

// column reports whether column i of n, which has no known origin, is masked.
func (l *lineage) column(i, n int) bool {
	switch {
	case l.whole:
		return true
	case l.clean:
		return false
	case l.star < 0:
		return i >= len(l.items) || bool(l.items[i])
	case i < l.star:
		return bool(l.items[i])
	case n-i < len(l.items)-l.star:
		return bool(l.items[len(l.items)-(n-i)])
	}
	return false // out of the star: it has its own name, which was looked at
}

type lexeme struct {
	kind  byte // w word, q quoted name, s string, n number, or the character itself
	text  string
	lower string
	pos   int    // byte where it begins
	other string // another reading of it as a name, where dialects differ: [a b], a#
}

// masked reports whether it names a masked column, in one reading or another.
func (x lexeme) masked(m *mask.Set) bool {
	return x.name() && m.ColumnPath(x.text) || x.other != "" && m.ColumnPath(x.other)
}

func (x lexeme) name() bool { return x.kind == 'w' || x.kind == 'q' }

// trace reads a statement that the classifier has admitted. hidden are names, in lower case, by which the database gives a
// masked column too.
func trace(sql string, m *mask.Set, hidden ...string) *lineage {
	l := &lineage{star: -1}
	odd := strings.ContainsAny(sql, `\`) || strings.Contains(strings.ToLower(sql), `u&`)
	mentions, selects := false, 0
	words(sql, func(w string) {
		lw := strings.ToLower(w)
		switch {
		case lw == "select" || lw == "table" || lw == "values":
			selects++
		case strings.HasPrefix(lw, "pg_stats") || strings.HasPrefix(lw, "pg_statistic") || lw == "column_stats" || lw == "column_statistics":
			l.statistics = true
		case strings.Contains(lw, "_to_xml") || lw == "dbms_xmlgen" || lw == "ts_stat":
			odd = true // runs or reads what its argument names
		case pseudoColumn(lw) || slices.Contains(hidden, lw):
			odd = true // a column without its name
		}
		mentions = mentions || m.ColumnPath(w)
	})
	toks := lex(sql)
	for i, t := range toks {
		mentions = mentions || t.masked(m)
		odd = odd || t.lower == "for" && i+1 < len(toks) && (toks[i+1].lower == "json" || toks[i+1].lower == "xml") // the whole answer in one column
	}
	l.plan = selects > 0 && len(toks) > 0 && (toks[0].lower == "explain" || toks[0].lower == "describe" || toks[0].lower == "desc")
	rel := relations(toks, m)
	if selects != 1 || odd || rel.renames || len(toks) == 0 || toks[0].lower != "select" {
		l.whole = odd || mentions || rel.renames || rel.row || star(toks)
		if l.whole {
			l.spareCounts(toks, odd)
		}
		l.clean = !l.whole
		return l
	}
	l.split(toks, rel, m)
	return l
}

// spareCounts frees a statement whose only result is count(*), which tells no value.
func (l *lineage) spareCounts(toks []lexeme, odd bool) {
	want := []string{"select", "count", "(", "*", ")"}
	if odd || len(toks) < len(want) {
		return
	}
	for i, w := range want {
		if toks[i].lower != w {
			return
		}
	}
	if len(toks) == len(want) || toks[len(want)].lower == "from" {
		depth := 0
		for _, t := range toks {
			switch {
			case t.kind == '(':
				depth++
			case t.kind == ')':
				depth--
			case depth == 0 && setOperation(t.lower):
				return
			}
		}
		l.whole = false
	}
}

func setOperation(w string) bool {
	return w == "union" || w == "intersect" || w == "except" || w == "minus"
}

// split gives each item of the one select list its own answer.
func (l *lineage) split(toks []lexeme, rel relation, m *mask.Set) {
	i, depth := 1, 0
	if i < len(toks) && (toks[i].lower == "distinct" || toks[i].lower == "all") {
		i++
		if i < len(toks) && toks[i].lower == "on" {
			l.whole = true
			return
		}
	}
	from := i
	item := func(part []lexeme) {
		if isStar(part) {
			if l.star >= 0 {
				l.whole = l.whole || anyTaint(l.items)
			}
			l.star = len(l.items)
			l.items = append(l.items, false)
			return
		}
		l.items = append(l.items, taint(tainted(part, rel, m)))
	}
	stars := 0
	for ; i <= len(toks); i++ {
		end := i == len(toks) || depth == 0 && toks[i].kind == 'w' && toks[i].lower == "from"
		if end || depth == 0 && toks[i].kind == ',' {
			if isStar(toks[from:i]) {
				stars++
			}
			item(toks[from:i])
			from = i + 1
		}
		if end {
			break
		}
		switch toks[i].kind {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		}
	}
	if stars > 1 {
		l.whole = l.whole || anyTaint(l.items)
		l.star, l.items = 0, []taint{false}
	}
	// A masked name after FROM may feed a function or a lateral item under any name.
	l.whole = l.whole || rel.fed
	for _, t := range rel.from {
		l.whole = l.whole || t.masked(m)
	}
}

// pseudoColumn lists the names by which servers give a key column whatever it is called.
func pseudoColumn(w string) bool {
	switch w {
	case "_rowid", "identitycol", "rowguidcol", "identity", "rowguid":
		return true
	}
	return false
}

// takesRow lists the functions that take a row of any table as their only argument. PostgreSQL calls them for p.concat too.
func takesRow(w string) bool {
	switch w {
	case "any_value", "array_agg", "concat", "first_value", "format", "hstore", "json_agg", "json_agg_strict", "json_build_array",
		"json_build_object", "json_object_agg", "jsonb_agg", "jsonb_agg_strict", "jsonb_build_array", "jsonb_build_object", "lag",
		"last_value", "lead", "max", "min", "mode", "quote_literal", "quote_nullable", "row_to_json", "text", "to_json", "to_jsonb", "varchar":
		return true
	}
	return strings.HasPrefix(w, "record_") || strings.HasPrefix(w, "hash_record") || strings.HasPrefix(w, "any")
}

func anyTaint(items []taint) bool {
	for _, t := range items {
		if t {
			return true
		}
	}
	return false
}

// isStar reports whether an item is * or t.*.
func isStar(part []lexeme) bool {
	n := len(part)
	return n > 0 && part[n-1].kind == '*' && (n == 1 || part[n-2].kind == '.' && part[0].name())
}

// tainted reports whether an expression names a masked column or takes a row as a whole.
func tainted(part []lexeme, rel relation, m *mask.Set) bool {
	for i, t := range part {
		next, prev := byte(0), byte(0)
		if i+1 < len(part) {
			next = part[i+1].kind
		}
		if i > 0 {
			prev = part[i-1].kind
		}
		switch {
		case t.masked(m):
			return true
		case t.name() && prev == '.' && takesRow(t.lower):
			return true
		case t.name() && rel.names[t.lower] && next != '.' && next != '(' && prev != '.':
			return true
		case t.kind == '*' && prev == '.':
			return true
		case t.kind == '*' && prev == '(' && (i < 2 || part[i-2].lower != "count"):
			return true
		}
	}
	return false
}

// relation is what stands after FROM.
type relation struct {
	names   map[string]bool // tables and their aliases, and more than those
	from    []lexeme
	renames bool // a table or a common table expression gets new names for its columns, or a set operation does so
	row     bool // a relation's name stands where a value is wanted
	fed     bool // a masked column or a row stands in parentheses after FROM: a function there gives it on under any name
}

// clause says what part of a query a lexeme stands in.
type clause struct {
	part int
	fed  bool // within parentheses after FROM
}

const (
	partOther = iota
	partFrom
	partOn // after ON or USING
)

func relations(toks []lexeme, m *mask.Set) relation {
	r := relation{names: map[string]bool{}}
	state := []clause{{}}
	inFrom, fed := make([]bool, len(toks)), make([]bool, len(toks))
	word := func(i int) string {
		if i < 0 || i >= len(toks) || toks[i].kind != 'w' {
			return ""
		}
		return toks[i].lower
	}
	for i, t := range toks {
		top := &state[len(state)-1]
		fed[i] = top.fed
		switch {
		case t.kind == '(':
			// ") name (" or "name name (" or "as name (" gives columns new names.
			if i >= 2 && toks[i-1].name() && !joinWord(word(i-1)) && top.part == partFrom && (toks[i-2].kind == ')' || toks[i-2].kind == '*' || toks[i-2].kind == 'q' ||
				toks[i-2].kind == 'w' && !joinWord(toks[i-2].lower)) {
				r.renames = true
			}
			if i >= 2 && toks[i-1].name() && (word(i-2) == "with" || word(i-2) == "recursive") {
				r.renames = true
			}
			if i >= 2 && toks[i-1].name() && toks[i-2].kind == ',' && top.part == partOther && toks[0].lower == "with" {
				r.renames = true // may be a function in a select list too
			}
			next := clause{fed: top.fed || top.part != partOther}
			if top.part == partFrom && (toks[i-1].kind == ',' || toks[i-1].kind == '(' || joinWord(word(i-1)) || word(i-1) == "only") {
				next.part = partFrom // tables in parentheses
			}
			state = append(state, next)
		case t.kind == ')':
			if len(state) > 1 {
				state = state[:len(state)-1]
			}
		case t.kind == ',' && top.part == partOn:
			top.part = partFrom
		case t.lower == "values" && t.kind == 'w' && i > 0 && toks[i-1].kind == '(' && i+1 < len(toks) && toks[i+1].kind == '(':
			top.part = partOther
			continue
		case t.kind == 'w':
			if part, ok := turn(top.part, t.lower, word(i+1), i+1 < len(toks) && (toks[i+1].kind == 'n' || strings.IndexByte("$?:@", toks[i+1].kind) >= 0)); ok {
				top.part = part
				continue
			}
			if setOperation(t.lower) {
				r.renames = true
				top.part = partOther
				continue
			}
		}
		if top.part == partFrom && t.name() {
			inFrom[i] = true
			r.names[t.lower] = true
			r.from = append(r.from, t)
		}
	}
	for i, t := range toks {
		if fed[i] {
			r.fed = r.fed || t.masked(m) || t.kind == '*' && (toks[i-1].kind == '.' || toks[i-1].kind == '(')
		}
		if !t.name() {
			continue
		}
		if i > 0 && toks[i-1].kind == '.' {
			r.row = r.row || takesRow(t.lower)
			r.fed = r.fed || fed[i] && takesRow(t.lower)
			continue
		}
		if inFrom[i] || !r.names[t.lower] || i+1 < len(toks) && (toks[i+1].kind == '.' || toks[i+1].kind == '(') {
			continue
		}
		r.row = true
		r.fed = r.fed || fed[i]
	}
	return r
}

// joinWord lists the words after which a table stands.
func joinWord(w string) bool {
	switch w {
	case "from", "join", "lateral", "straight_join", "apply":
		return true
	}
	return false
}

// turn tells to which part of a query the word w leads, if it does. next is the word after it; value says that a value
// stands there. Words that may be a table's alias somewhere count only with what follows them in their clause.
func turn(now int, w, next string, value bool) (int, bool) {
	switch w {
	case "from", "join", "straight_join", "apply":
		return partFrom, true
	case "on", "using":
		return partOn, now == partFrom
	case "where", "group", "having", "order", "select":
		return partOther, true
	case "offset", "limit":
		return partOther, value || next == "all"
	case "fetch":
		return partOther, next == "first" || next == "next"
	case "connect":
		return partOther, next == "by"
	case "for":
		return partOther, next == "update" || next == "share" || next == "no" || next == "key"
	}
	return now, false
}

// star reports whether a * stands for columns somewhere.
func star(toks []lexeme) bool {
	for i, t := range toks {
		if t.kind != '*' || i == 0 {
			continue
		}
		p := toks[i-1]
		if p.kind == '.' || p.kind == ',' || p.lower == "select" || p.lower == "distinct" || p.lower == "all" || p.kind == '(' && i > 1 && toks[i-2].lower != "count" {
			return true
		}
	}
	return false
}

// words calls f for every run of letters, digits and underscores, wherever it stands: in strings and comments too.
func words(sql string, f func(string)) {
	for i := 0; i < len(sql); {
		j := i
		for j < len(sql) && wordByte(sql[j]) {
			j++
		}
		if j > i {
			f(sql[i:j])
		}
		i = j + 1
	}
}

func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

// lex cuts a statement into lexemes. It knows no dialect: where quotes are odd the caller does not rely on it.
func lex(sql string) []lexeme {
	var out []lexeme
	at := 0
	add := func(kind byte, text string) {
		out = append(out, lexeme{kind: kind, text: text, lower: strings.ToLower(text), pos: at})
	}
	quoted := func(i int, end byte) (string, int) {
		var b strings.Builder
		for i++; i < len(sql); i++ {
			if sql[i] == end {
				if i+1 < len(sql) && sql[i+1] == end {
					i++
				} else {
					return b.String(), i + 1
				}
			}
			b.WriteByte(sql[i])
		}
		return b.String(), i
	}
	for i := 0; i < len(sql); {
		c := sql[i]
		at = i
		switch {
		case strings.HasPrefix(sql[i:], "--"):
			if n := strings.IndexByte(sql[i:], '\n'); n >= 0 {
				i += n
			} else {
				i = len(sql)
			}
		case strings.HasPrefix(sql[i:], "/*"):
			depth := 1
			for i += 2; i < len(sql) && depth > 0; i++ {
				if strings.HasPrefix(sql[i:], "*/") {
					depth--
					i++
				} else if strings.HasPrefix(sql[i:], "/*") {
					depth++
					i++
				}
			}
		case c == '\'':
			s, n := quoted(i, '\'')
			add('s', s)
			i = n
		case c == '"' || c == '`':
			s, n := quoted(i, c)
			add('q', s)
			i = n
		case wordByte(c):
			j := i
			for j < len(sql) && (wordByte(sql[j]) || sql[j] == '$') {
				j++
			}
			kind := byte('w')
			if c >= '0' && c <= '9' {
				kind = 'n'
			}
			add(kind, sql[i:j])
			i = j
			for j < len(sql) && (wordByte(sql[j]) || strings.IndexByte("$#@", sql[j]) >= 0) {
				j++
			}
			if j > i {
				out[len(out)-1].other = sql[at:j]
			}
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			i++
		default:
			add(c, string(c))
			i++
			if n := strings.IndexByte(sql[i:], ']'); c == '[' && n >= 0 {
				out[len(out)-1].other = sql[i : i+n]
			}
		}
	}
	return out
}
