package statement

import (
	"strings"
	"unicode"
)

// maxQuotedName bounds a quoted name in a fingerprint: it is text that the caller chose.
const maxQuotedName = 128

// piece is one part of a fingerprint.
type piece struct {
	text  string
	lit   bool // stands for a literal
	op    bool // one character of an operator
	glued bool // operator character that continues the one before
	word  bool
}

// fingerprint writes the tokens in one line with a fixed spacing and without any literal. Written this way, the
// fingerprint of a fingerprint is itself, unless it was cut.
func fingerprint(d Dialect, sql string, toks []token) string {
	out := make([]piece, 0, len(toks))
	for i := range toks {
		out = push(out, pieceOf(d, sql, toks, i))
	}
	var b strings.Builder
	for i := range out {
		if i > 0 && spaced(out[i-1], out[i]) {
			b.WriteByte(' ')
		}
		b.WriteString(out[i].text)
		if b.Len() > MaxFingerprint {
			break
		}
	}
	s := b.String()
	if len(s) <= MaxFingerprint {
		return s
	}
	return strings.ToValidUTF8(s[:MaxFingerprint-4], "") + " ..."
}

func pieceOf(d Dialect, sql string, toks []token, i int) piece {
	t := &toks[i]
	switch t.kind {
	case str, num, param:
		return piece{text: "?", lit: true}
	case word:
		return piece{text: t.low, word: true}
	case dual:
		if !namePlace(toks, i) {
			return piece{text: "?", lit: true}
		}
		fallthrough
	case quoted:
		text := sql[t.start:t.end]
		// A name with a line break in it would break the record's line; nobody names a column so.
		if len(text) > maxQuotedName || strings.ContainsFunc(text, unicode.IsControl) {
			return piece{text: "?", lit: true}
		}
		return piece{text: text, word: true}
	case op:
		glued := t.glued && i > 0 && toks[i-1].kind == op
		if t.low == "?" && !glued { // this may be a fingerprint
			return piece{text: "?", lit: true}
		}
		return piece{text: t.low, op: true, glued: glued}
	}
	return piece{text: t.low}
}

// namePlace tells whether "…" at i can only be a name, where a server setting could make it a string elsewhere.
func namePlace(toks []token, i int) bool {
	if i > 0 {
		switch p := &toks[i-1]; {
		case p.is("."):
			return true
		case p.kind == word && (p.low == "from" || p.low == "join" || p.low == "into" || p.low == "update" ||
			p.low == "table"):
			return true
		}
	}
	return i+1 < len(toks) && toks[i+1].is(".")
}

// push adds p, folding signs into literals, lists of literals into one, and repeated rows into one.
func push(out []piece, p piece) []piece {
	n := len(out)
	switch {
	case p.lit:
		for n > 0 && out[n-1].op && (out[n-1].text == "-" || out[n-1].text == "+") && (n == 1 ||
			signPlace(out[n-2]) && (!out[n-1].glued || strings.Contains("=<>*/+-", out[n-2].text))) {
			n--
			out, p.glued = out[:n], false
		}
		if n >= 2 && out[n-1].text == "," && out[n-2].lit && (n == 2 || !out[n-3].op) {
			return out[:n-1]
		}
	case p.text == ")":
		if n >= 6 && out[n-1].lit && out[n-2].text == "(" && out[n-3].text == "," && out[n-4].text == ")" &&
			out[n-5].lit && out[n-6].text == "(" {
			return out[:n-3]
		}
	}
	return append(out, p)
}

// signPlace tells whether a minus after p is a sign rather than a subtraction.
func signPlace(p piece) bool {
	if p.op {
		return true
	}
	switch p.text {
	case "(", ",", "[":
		return true
	case "select", "where", "and", "or", "not", "then", "else", "when", "between", "limit", "offset", "in", "like",
		"values", "by", "case", "top", "distinct", "all", "as", "set", "default", "return", "on", "having", "is":
		return true
	}
	return false
}

func spaced(a, b piece) bool {
	switch {
	case b.op && b.glued:
		return false
	case a.word && strings.HasSuffix(a.text, "]") && b.text == "]":
		return true // T-SQL's [name] and a bracket behind it: "]]" would be one within the name
	case b.op && b.text == "*" && (a.text == "(" || a.text == "."), a.op && a.text == "*" && (b.text == ")" || b.text == ","):
		return false // count(*), t.*
	case a.op || b.op || a.lit && b.lit:
		return true
	case a.text == "(" || a.text == "[" || a.text == ".":
		return false
	case b.text == ")" || b.text == "]" || b.text == "," || b.text == ";" || b.text == "." || b.text == "[":
		return false
	case b.text == "(":
		return !a.word || keywordBeforeParen(a.text)
	}
	return true
}

func keywordBeforeParen(w string) bool {
	switch w {
	case "in", "as", "and", "or", "not", "from", "where", "select", "exists", "on", "using", "over", "any", "all", "values",
		"union", "except", "intersect", "by", "having", "join", "then", "else", "when", "case", "between", "like", "set":
		return true
	}
	return false
}
