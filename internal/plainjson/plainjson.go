package plainjson

import "encoding/json"

// maxDepth bounds the nesting that Value looks into; a record's is less.
const maxDepth = 8

// Value gives what is behind the first value of p. ok is true only if encoding/json takes that value and would write it exactly so,
// whether it compacts it or marshals a json.RawMessage; false says nothing of it.
func Value(p []byte) (rest []byte, ok bool) {
	i := end(p, 0, maxDepth)
	if i < 0 {
		return nil, false
	}
	return p[i:], true
}

// end gives the index behind the value that begins at i, or -1.
func end(p []byte, i, depth int) int {
	if i >= len(p) {
		return -1
	}
	switch c := p[i]; c {
	case '"':
		return endString(p, i+1)
	case '{', '[':
		last := c + 2 // of the pair, in ASCII
		if i++; i < len(p) && p[i] == last {
			return i + 1
		}
		for depth > 0 {
			if c == '{' {
				if i >= len(p) || p[i] != '"' {
					return -1
				}
				if i = endString(p, i+1); i < 0 || i >= len(p) || p[i] != ':' {
					return -1
				}
				i++
			}
			if i = end(p, i, depth-1); i < 0 || i >= len(p) {
				return -1
			}
			if i++; p[i-1] == last {
				return i
			}
			if p[i-1] != ',' {
				return -1
			}
		}
		return -1
	case 't':
		return endWord(p, i, "true")
	case 'f':
		return endWord(p, i, "false")
	default:
		return endInteger(p, i)
	}
}

func endWord(p []byte, i int, word string) int {
	if len(p)-i < len(word) || string(p[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

// endInteger knows no fractions and no exponents.
func endInteger(p []byte, i int) int {
	if p[i] == '-' {
		i++
	}
	first := i
	for i < len(p) && '0' <= p[i] && p[i] <= '9' {
		i++
	}
	if i == first || p[first] == '0' && i > first+1 || i < len(p) && (p[i] == '.' || p[i]|' ' == 'e') {
		return -1
	}
	return i
}

// endString begins behind the opening quote.
func endString(p []byte, i int) int {
	for ; i < len(p); i++ {
		if plain[p[i]] {
			continue
		}
		if p[i] == '"' {
			return i + 1
		}
		if p[i] != '\\' || i+1 == len(p) {
			return -1
		}
		i++
		switch p[i] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			if len(p)-i <= 4 {
				return -1
			}
			for _, h := range p[i+1 : i+5] {
				if (h < '0' || h > '9') && (h|' ' < 'a' || h|' ' > 'f') {
					return -1
				}
			}
			i += 4
		default:
			return -1
		}
	}
	return -1
}

// plain are the characters that stand for themselves in a string, wherever JSON is read or written.
var plain = func() (t [256]bool) {
	for c := ' '; c <= '~'; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

// Plain reports whether s is all printable ASCII without quotes, backslashes, <, > and &.
func Plain(s string) bool {
	for i := range len(s) {
		if !plain[s[i]] {
			return false
		}
	}
	return true
}

// AppendString appends s as json.Marshal writes it.
func AppendString(dst []byte, s string) []byte {
	if !Plain(s) {
		b, _ := json.Marshal(s) // a string never fails
		return append(dst, b...)
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
