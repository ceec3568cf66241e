package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes text from elsewhere fit for one line on a terminal: control characters, invalid UTF-8, line separators and
// the characters that reorder text become visible escapes, so that no answer can move the cursor, rename the window or
// hide what it says (security row J11).
func Clean(s string) string {
	for i := 0; i < len(s); i++ { // most text is plain
		if c := s[i]; c < ' ' || c >= 0x7f {
			return clean(s, false)
		}
	}
	return s
}

// CleanLines is Clean for text of several lines: newline and tab stay.
func CleanLines(s string) string { return clean(s, true) }

func clean(s string, lines bool) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case lines && (r == '\n' || r == '\t'):
			b.WriteRune(r)
		default:
			cleanRune(&b, r)
		}
		i += n
	}
	return b.String()
}

func cleanRune(b *strings.Builder, r rune) {
	switch {
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r == '\t':
		b.WriteString(`\t`)
	case r < ' ' || r == 0x7f:
		fmt.Fprintf(b, `\x%02x`, r)
	case hostile(r):
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		b.WriteRune(r)
	}
}

// hostile: C1 controls, line and paragraph separators, and the bidirectional controls (CVE-2021-42574).
func hostile(r rune) bool {
	return r >= 0x80 && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f || r == 0x61c
}

// A cleanWriter passes text on as CleanLines would. A character cut by the end of a Write waits for the next one; what
// is left at the end is at most three bytes of an incomplete character and is dropped.
type cleanWriter struct {
	w    io.Writer
	rest []byte
}

func (c *cleanWriter) Write(p []byte) (int, error) {
	b := append(c.rest, p...)
	keep := 0
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if utf8.RuneStart(b[len(b)-n]) {
			if !utf8.FullRune(b[len(b)-n:]) {
				keep = n
			}
			break
		}
	}
	c.rest = append([]byte(nil), b[len(b)-keep:]...)
	if _, err := io.WriteString(c.w, CleanLines(string(b[:len(b)-keep]))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Width is how many columns a terminal gives s: two for wide East Asian characters and pictures, none for marks that
// combine.
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf && r != 0x303f, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1f64f,
		r >= 0x1f680 && r <= 0x1f6ff, r >= 0x1f900 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}
