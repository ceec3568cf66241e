package sqldb

import (
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
	pos   int // byte where it begins
}

func (x lexeme) name() bool { return x.kind == 'w' || x.kind == 'q' }

// trace reads a statement that the classifier has admitted.
func trace(sql string, m *mask.Set) *lineage {
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
		}
		mentions = mentions || m.ColumnPath(w)
	})
	toks := lex(sql)
	for _, t := range toks {
		mentions = mentions || t.kind == 'q' && m.ColumnPath(t.text)
	}
	rel := relations(toks)
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
	for _, t := range rel.from {
		l.whole = l.whole || m.ColumnPath(t.text)
	}
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
		case t.name() && m.ColumnPath(t.text):
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
}

func relations(toks []lexeme) relation {
	r := relation{names: map[string]bool{}}
	const none, from, on = 0, 1, 2
	state := []int{none}
	inFrom := make([]bool, len(toks))
	for i, t := range toks {
		top := &state[len(state)-1]
		switch {
		case t.kind == '(':
			// ") name (" or "name name (" or "as name (" gives columns new names.
			if i >= 2 && toks[i-1].name() && *top == from && (toks[i-2].kind == ')' || toks[i-2].kind == 'q' ||
				toks[i-2].kind == 'w' && toks[i-2].lower != "from" && toks[i-2].lower != "join" && toks[i-2].lower != "lateral") {
				r.renames = true
			}
			if i >= 2 && toks[i-1].name() && (toks[i-2].lower == "with" || toks[i-2].lower == "recursive") {
				r.renames = true
			}
			if i >= 2 && toks[i-1].name() && toks[i-2].kind == ',' && *top == none && toks[0].lower == "with" {
				r.renames = true // may be a function in a select list too
			}
			state = append(state, none)
		case t.kind == ')':
			if len(state) > 1 {
				state = state[:len(state)-1]
			}
		case t.kind == ',' && *top == on:
			*top = from
		case t.kind == 'w':
			switch t.lower {
			case "from", "join":
				*top = from
				continue
			case "on", "using":
				if *top == from {
					*top = on
				}
				continue
			case "union", "intersect", "except", "minus":
				r.renames = true
				*top = none
				continue
			case "where", "group", "having", "order", "limit", "offset", "fetch", "window", "for", "select", "qualify", "connect":
				*top = none
				continue
			}
		}
		if *top == from && t.name() {
			inFrom[i] = true
			r.names[t.lower] = true
			r.from = append(r.from, t)
		}
	}
	for i, t := range toks {
		if !t.name() || inFrom[i] || !r.names[t.lower] {
			continue
		}
		if (i+1 < len(toks) && (toks[i+1].kind == '.' || toks[i+1].kind == '(')) || (i > 0 && toks[i-1].kind == '.') {
			continue
		}
		r.row = true
	}
	return r
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
	add := func(kind byte, text string) { out = append(out, lexeme{kind, text, strings.ToLower(text), at}) }
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
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			i++
		default:
			add(c, string(c))
			i++
		}
	}
	return out
}
