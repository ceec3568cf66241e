package statement

import (
	"strings"
	"unicode/utf8"
)

// dashes reads what starts with --. MySQL takes it as a comment only before a blank; without one it is two minus signs
// there and a comment elsewhere, so it is refused.
func (l *lexer) dashes() {
	if c := l.at(2); l.d == MySQL && c != ' ' && c != '\t' && c != '\n' && c != '\r' && l.i+2 < len(l.s) {
		l.fail("-- needs a blank after it; write \"- -\" for two minus signs")
		return
	}
	l.lineComment()
}

// lineComment skips to the end of the line. Servers disagree on what ends a line, so anything but \n is refused.
func (l *lexer) lineComment() {
	rest := l.s[l.i:]
	end := strings.IndexByte(rest, '\n')
	if end < 0 {
		end = len(rest)
	}
	line := strings.TrimSuffix(rest[:end], "\r")
	if strings.ContainsAny(line, "\r\v\f\u0085\u2028\u2029") {
		l.fail("a comment holds a line break that servers read differently; end comments with a newline")
		return
	}
	l.i += end
	l.gap = true
}

func (l *lexer) blockComment() {
	start, depth := l.i+2, 1
	nests := l.d.isPG() || l.d == SQLServer
	if l.d == MySQL && (l.at(2) == '!' || l.at(2)|0x20 == 'm' && l.at(3) == '!') {
		l.fail("an executable comment (/*! or /*M!) is not allowed; write the statement without it")
		return
	}
	for i := start; i+1 < len(l.s); i++ {
		switch {
		case l.s[i] == '*' && l.s[i+1] == '/':
			if depth--; depth > 0 {
				i++
				continue
			}
			if body := l.s[start:i]; strings.HasPrefix(body, "+") && badHint(body) {
				l.fail("an optimizer hint that changes settings is not allowed")
				return
			}
			l.i, l.gap = i+2, true
			return
		case l.s[i] == '/' && l.s[i+1] == '*':
			if !nests {
				l.fail("a comment within a comment is not allowed in this dialect")
				return
			}
			depth++
			i++
		}
	}
	l.fail("a comment is never closed")
}

// badHint finds the hints that set variables, among them the time limit.
func badHint(body string) bool {
	low := strings.ToLower(body)
	for _, w := range []string{"set", "max_execution_time", "resource_group"} {
		if strings.Contains(low, w) {
			return true
		}
	}
	return false
}

// quote reads a quoted token whose opening is skip bytes long.
func (l *lexer) quote(skip int, closer byte, backslash bool, k kind) {
	end := l.closing(l.i+skip, closer, backslash)
	if end < 0 {
		l.fail("a quote is never closed")
		return
	}
	if k == str {
		low := ""
		if l.d == SQLite { // which takes 'pragma_optimize' for a table where it wants one
			low = strings.ToLower(strings.ReplaceAll(l.s[l.i+skip:end-1], "''", "'"))
		}
		l.emit(str, end, low)
		return
	}
	l.quotedName(skip, end, closer, k)
}

// closing gives the index after the closing quote, -1 if there is none. A doubled quote stands for itself.
func (l *lexer) closing(i int, closer byte, backslash bool) int {
	for ; i < len(l.s); i++ {
		switch {
		case backslash && l.s[i] == '\\':
			i++
		case l.s[i] == closer:
			if i+1 < len(l.s) && l.s[i+1] == closer {
				i++
				continue
			}
			return i + 1
		}
	}
	return -1
}

func (l *lexer) quotedName(skip, end int, closer byte, k kind) {
	name := l.s[l.i+skip : end-1]
	if k == quoted {
		for i := range len(name) {
			if name[i] < ' ' || name[i] == 0x7f {
				l.fail("a quoted name holds a control character")
				return
			}
		}
		if name == "" {
			l.fail("a quoted name is empty")
			return
		}
	}
	q := string(closer)
	l.emit(k, end, strings.ToLower(strings.ReplaceAll(name, q+q, q)))
}

func (l *lexer) doubleQuote() {
	switch l.d {
	case MySQL:
		l.quote(1, '"', l.m.backslash && !l.m.ansi, dual)
	case SQLServer, SQLite:
		l.quote(1, '"', false, dual)
	default:
		l.quote(1, '"', false, quoted)
	}
}

// bracket reads SQLite's [name], which has no way to hold a ].
func (l *lexer) bracket() {
	n := strings.IndexByte(l.s[l.i:], ']')
	if n < 0 {
		l.fail("a quote is never closed")
		return
	}
	l.quotedName(1, l.i+n+1, ']', quoted)
}

// stringPrefix reads a string with letters before its quote; false if there is none here.
func (l *lexer) stringPrefix() bool {
	a, b, c := l.at(0)|0x20, l.at(1), l.at(2)
	switch l.d {
	case PostgreSQL, Redshift:
		if a == 'u' && b == '&' && (c == '\'' || c == '"') {
			l.fail("U& quotes are not allowed; write the characters themselves")
			return false
		}
		if b == '\'' && a == 'e' {
			l.quote(2, '\'', true, str)
			return true
		}
		if b == '\'' && (a == 'b' || a == 'x' || a == 'n') {
			l.quote(2, '\'', l.m.backslash && a == 'n', str)
			return true
		}
	case MySQL:
		if b == '\'' && (a == 'b' || a == 'x' || a == 'n') {
			l.quote(2, '\'', l.m.backslash && a == 'n', str)
			return true
		}
	case SQLite:
		if b == '\'' && a == 'x' {
			l.quote(2, '\'', false, str)
			return true
		}
	case SQLServer:
		if b == '\'' && a == 'n' {
			l.quote(2, '\'', false, str)
			return true
		}
	case Oracle:
		switch {
		case b == '\'' && a == 'q':
			l.qQuote(2)
			return true
		case a == 'n' && b|0x20 == 'q' && c == '\'':
			l.qQuote(3)
			return true
		case b == '\'' && (a == 'n' || a == 'u'):
			l.quote(2, '\'', false, str)
			return true
		}
	}
	return false
}

// qQuote reads Oracle's q'[…]'.
func (l *lexer) qQuote(skip int) {
	r, n := utf8.DecodeRuneInString(l.s[l.i+skip:])
	closer := string(r)
	switch r {
	case '[':
		closer = "]"
	case '{':
		closer = "}"
	case '<':
		closer = ">"
	case '(':
		closer = ")"
	case ' ', '\t', '\r', '\n', utf8.RuneError:
		l.fail("a q'' quote has no delimiter")
		return
	}
	from := l.i + skip + n
	if from > len(l.s) {
		l.fail("a quote is never closed")
		return
	}
	end := strings.Index(l.s[from:], closer+"'")
	if end < 0 {
		l.fail("a quote is never closed")
		return
	}
	l.emit(str, from+end+len(closer)+1, "")
}

// dollarQuote reads PostgreSQL's $tag$…$tag$.
func (l *lexer) dollarQuote() {
	i := l.i + 1
	for i < len(l.s) && l.s[i] != '$' && (isLetter(l.s[i]) || l.s[i] == '_' || l.s[i] >= 0x80 || isDigit(l.s[i])) {
		i++
	}
	if i >= len(l.s) || l.s[i] != '$' {
		l.fail("a dollar sign has no place outside quotes")
		return
	}
	tag := l.s[l.i : i+1]
	end := strings.Index(l.s[i+1:], tag)
	if end < 0 {
		l.fail("a dollar quote is never closed")
		return
	}
	l.emit(str, i+1+end+len(tag), "")
}
