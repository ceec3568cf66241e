package statement

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind uint8

const (
	word   kind = iota // bare identifier or keyword
	quoted             // quoted identifier
	dual               // "…" where a setting decides between identifier and string
	str                // string, bit string, dollar quote
	num
	param // placeholder or variable
	op    // one character of an operator
	punct // ( ) [ ] , ; .
)

type token struct {
	kind       kind
	glued      bool // no blank or comment before it
	start, end int
	low        string // word, quoted, dual: the name in lower case, unquoted; op, punct: the character
}

// is matches operators and punctuation.
func (t *token) is(s string) bool { return (t.kind == punct || t.kind == op) && t.low == s }

// word matches bare words only: a quoted name is never a keyword.
func (t *token) word(s string) bool { return t.kind == word && t.low == s }

func (t *token) name() bool { return t.kind == word || t.kind == quoted || t.kind == dual }

// mode is what a server setting changes about where tokens end.
type mode struct {
	backslash bool // \ escapes in '…'
	ansi      bool // MySQL: "…" is an identifier, so \ escapes nothing in it
}

type lexer struct {
	d    Dialect
	m    mode
	s    string
	i    int
	gap  bool // a blank or comment stands before i
	toks []token
	err  string
}

// tokenize lexes sql under every setting the server may have. It gives a reason when the text cannot be lexed or when
// the settings disagree.
func tokenize(d Dialect, sql string) ([]token, string) {
	if len(sql) > MaxBytes {
		return nil, fmt.Sprintf("the statement is longer than %d bytes; send data as parameters", MaxBytes)
	}
	if !utf8.ValidString(sql) {
		return nil, "the statement is not valid UTF-8"
	}
	if strings.IndexByte(sql, 0) >= 0 {
		return nil, "the statement holds a NUL character"
	}
	toks, err := lex(d, mode{}, sql)
	if strings.IndexByte(sql, '\\') < 0 || (d != MySQL && !d.isPG()) {
		return toks, err
	}
	modes := []mode{{backslash: true}}
	if d == MySQL {
		modes = append(modes, mode{backslash: true, ansi: true})
	}
	for _, m := range modes {
		other, otherErr := lex(d, m, sql)
		if (err == "") != (otherErr == "") || !sameBorders(toks, other) {
			return nil, "a backslash before a quote means different things under different server settings; " +
				"double the quote ('') or send the value as a parameter"
		}
	}
	return toks, err
}

func sameBorders(a, b []token) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].start != b[i].start || a[i].end != b[i].end {
			return false
		}
	}
	return true
}

func lex(d Dialect, m mode, sql string) ([]token, string) {
	l := &lexer{d: d, m: m, s: sql, gap: true, toks: make([]token, 0, len(sql)/5+4)}
	for l.err == "" && l.i < len(sql) {
		if len(l.toks) > MaxTokens {
			l.err = fmt.Sprintf("the statement has more than %d tokens; send data as parameters", MaxTokens)
			break
		}
		l.next()
	}
	if l.err != "" {
		return nil, l.err
	}
	return l.toks, ""
}

// at gives the byte at offset n from here, 0 past the end (the text itself holds no NUL).
func (l *lexer) at(n int) byte {
	if l.i+n < len(l.s) {
		return l.s[l.i+n]
	}
	return 0
}

func (l *lexer) fail(reason string) { l.err = reason }

func (l *lexer) emit(k kind, end int, low string) {
	l.toks = append(l.toks, token{kind: k, glued: !l.gap, start: l.i, end: end, low: low})
	l.i, l.gap = end, false
}

// next consumes one token, blank or comment, or sets err.
func (l *lexer) next() {
	c := l.at(0)
	switch {
	case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		l.i++
		l.gap = true
	case c < ' ' || c == 0x7f:
		l.fail("a control character stands outside quotes")
	case c == '-' && l.at(1) == '-':
		l.dashes()
	case c == '#' && l.d == MySQL:
		l.lineComment()
	case c == '/' && l.at(1) == '*':
		l.blockComment()
	case c == '*' && l.at(1) == '/':
		l.fail("*/ stands outside a comment")
	case c == '\'':
		l.quote(1, '\'', l.m.backslash, str)
	case c == '"':
		l.doubleQuote()
	case c == '`':
		if l.d != MySQL && l.d != SQLite {
			l.fail("a backtick is no quote in this dialect; quote names with \"double quotes\"")
			return
		}
		l.quote(1, '`', false, quoted)
	case c == '[' && l.d == SQLServer:
		l.quote(1, ']', false, quoted)
	case c == '[' && l.d == SQLite:
		l.bracket()
	case isDigit(c), c == '.' && isDigit(l.at(1)):
		l.number()
	case c == '$':
		l.dollar()
	case c == '@' || c == ':' || c == '?':
		l.placeholder(c)
	case identStart(l.d, c):
		l.identifier()
	case strings.IndexByte("()[],;.", c) >= 0:
		l.emit(punct, l.i+1, l.s[l.i:l.i+1])
	case strings.IndexByte("+-*/<>=~!%^&|", c) >= 0, c == '#' && l.d.isPG():
		l.emit(op, l.i+1, l.s[l.i:l.i+1])
	default: // \ { } and whatever else means something only to clients and old escapes
		l.fail(fmt.Sprintf("the character %q has no place outside quotes", c))
	}
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func identStart(d Dialect, c byte) bool {
	return isLetter(c) || c == '_' || c >= 0x80 || c == '#' && d == SQLServer
}

func identPart(d Dialect, c byte) bool {
	switch c {
	case '$':
		return true
	case '#':
		return d == SQLServer || d == Oracle
	case '@':
		return d == SQLServer
	}
	return isLetter(c) || isDigit(c) || c == '_' || c >= 0x80
}

// identEnd gives the end of the identifier that starts at i, or a reason.
func (l *lexer) identEnd(i int) (int, string) {
	latin, other := false, false
	for i < len(l.s) {
		c := l.s[i]
		if c < 0x80 {
			if !identPart(l.d, c) {
				break
			}
			latin = latin || isLetter(c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(l.s[i:])
		if !nameRune(r) {
			return 0, fmt.Sprintf("the character U+%04X has no place outside quotes", r)
		}
		latin = latin || unicode.Is(unicode.Latin, r)
		other = other || unicode.In(r, unicode.Cyrillic, unicode.Greek, unicode.Armenian, unicode.Cherokee)
		i += n
	}
	if latin && other {
		return 0, "a name mixes letters of scripts that look alike; quote it"
	}
	return i, ""
}

// nameRune allows letters and digits of other scripts, but none that folds to an ASCII one: some servers fold before
// they compare.
func nameRune(r rune) bool {
	switch {
	case r == 0xaa, r == 0xba, r == 0x130, r == 0x131, r == 0x17f, // feminine and masculine signs, dotless i, long s
		r >= 0x2b0 && r <= 0x2ff,                               // modifier letters
		r >= 0x1d00 && r <= 0x1dbf,                             // phonetic extensions
		r >= 0x2070 && r <= 0x24ff,                             // super- and subscripts, letterlike, number forms, enclosed
		r >= 0xfb00 && r <= 0xfdff, r >= 0xfe00 && r <= 0xffff, // presentation forms, full width, specials
		r >= 0x1d400 && r <= 0x1d7ff, // mathematical letters
		r >= 0x1f000:                 // enclosed, emoji
		return r >= 0x20000 && r <= 0x3ffff && unicode.IsLetter(r) // CJK extensions
	}
	return unicode.IsLetter(r) || unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Mc, r) || unicode.Is(unicode.Nd, r)
}

func (l *lexer) identifier() {
	if l.stringPrefix() || l.err != "" {
		return
	}
	end, reason := l.identEnd(l.i)
	if reason != "" {
		l.fail(reason)
		return
	}
	l.emit(word, end, strings.ToLower(l.s[l.i:end]))
}

// number takes what every dialect reads as one number, and refuses digits that run into letters: some servers end the
// number there and start a word.
func (l *lexer) number() {
	if n := len(l.toks); l.at(0) == '.' && n > 0 && !l.gap && (l.toks[n-1].name() || l.toks[n-1].kind == num ||
		l.toks[n-1].is(")") || l.toks[n-1].is("]")) {
		l.fail("a digit follows a dot after a name")
		return
	}
	i := l.i
	digits := func(ok func(byte) bool) {
		for i < len(l.s) && (ok(l.s[i]) || l.s[i] == '_' && i+1 < len(l.s) && ok(l.s[i+1])) {
			i++
		}
	}
	isHex := func(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }
	if l.at(0) == '0' && l.at(1)|0x20 == 'x' && isHex(l.at(2)) {
		i += 2
		digits(isHex)
	} else if l.at(0) == '0' && (l.at(1)|0x20 == 'b' || l.at(1)|0x20 == 'o') && isDigit(l.at(2)) {
		i += 2
		digits(isDigit)
	} else {
		digits(isDigit)
		if i < len(l.s) && l.s[i] == '.' {
			i++
			digits(isDigit)
		}
		if i+1 < len(l.s) && l.s[i]|0x20 == 'e' {
			e := i + 1
			if l.s[e] == '+' || l.s[e] == '-' {
				e++
			}
			if e < len(l.s) && isDigit(l.s[e]) {
				i = e
				digits(isDigit)
			}
		}
		if l.d == Oracle && i < len(l.s) && (l.s[i]|0x20 == 'd' || l.s[i]|0x20 == 'f') {
			i++
		}
	}
	if i < len(l.s) && (identPart(l.d, l.s[i]) || l.s[i] == '.') {
		l.fail("a number runs into a name; put a blank between them, or quote a name that starts with a digit")
		return
	}
	l.emit(num, i, "")
}

func (l *lexer) dollar() {
	switch {
	case l.d.isPG() && isDigit(l.at(1)):
		i := l.i + 1
		for i < len(l.s) && isDigit(l.s[i]) {
			i++
		}
		if i < len(l.s) && identPart(l.d, l.s[i]) {
			l.fail("a placeholder runs into a name")
			return
		}
		l.emit(param, i, "")
	case l.d == PostgreSQL:
		l.dollarQuote()
	case l.d == SQLServer && isDigit(l.at(1)): // money
		i := l.i + 1
		for i < len(l.s) && (isDigit(l.s[i]) || l.s[i] == '.') {
			i++
		}
		if i < len(l.s) && identPart(l.d, l.s[i]) {
			l.fail("a number runs into a name")
			return
		}
		l.emit(num, i, "")
	case l.d == SQLServer && isLetter(l.at(1)): // $action, $partition
		end, reason := l.identEnd(l.i + 1)
		if reason != "" {
			l.fail(reason)
			return
		}
		l.emit(word, end, strings.ToLower(l.s[l.i:end]))
	case l.d == SQLite:
		l.variable(1)
	default:
		l.fail("a dollar sign has no place outside quotes in this dialect")
	}
}

// placeholder reads what starts with @, : or ?.
func (l *lexer) placeholder(c byte) {
	nameNext := l.i+1 < len(l.s) && (identStart(l.d, l.at(1)) || isDigit(l.at(1)))
	switch {
	case c == '?' && (l.d == MySQL || l.d == SQLite):
		i := l.i + 1
		for l.d == SQLite && i < len(l.s) && isDigit(l.s[i]) {
			i++
		}
		l.emit(param, i, "")
	case c == '@' && (l.d == MySQL || l.d == SQLServer) && l.at(1) == '@':
		if !identStart(l.d, l.at(2)) {
			l.fail("@@ has no place here")
			return
		}
		end, reason := l.identEnd(l.i + 2)
		if reason != "" {
			l.fail(reason)
			return
		}
		l.emit(word, end, strings.ToLower(l.s[l.i:end]))
	case c == '@' && l.d == MySQL && (l.at(1) == '\'' || l.at(1) == '"' || l.at(1) == '`'):
		l.fail("a quoted user variable is not allowed")
	case c == '@' && (l.d == MySQL || l.d == SQLServer || l.d == SQLite) && nameNext,
		c == ':' && (l.d == Oracle || l.d == SQLite) && nameNext:
		l.variable(1)
	default:
		l.emit(op, l.i+1, l.s[l.i:l.i+1])
	}
}

func (l *lexer) variable(skip int) {
	end, reason := l.identEnd(l.i + skip)
	switch {
	case reason != "":
		l.fail(reason)
	case end == l.i+skip:
		l.fail("a placeholder has no name")
	case l.d == SQLite && end < len(l.s) && (l.s[end] == '(' || strings.HasPrefix(l.s[end:], "::")):
		// SQLite takes what follows as part of the name, up to the closing parenthesis.
		l.fail("a placeholder runs into a parenthesis or ::; put a blank between them")
	default:
		l.emit(param, end, "")
	}
}
