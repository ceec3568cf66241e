package mask

import (
	"strings"
	"unicode/utf8"
)

// Text replaces what the set's detectors find in t by Masked and reports whether anything was replaced. Linear in len(t).
// The text need not be UTF-8; bytes outside what was found stay as they are.
func (s *Set) Text(t string) (string, bool) {
	if !s.Detects() {
		return t, false
	}
	out := t
	if s.email {
		out = maskEmails(out)
	}
	if s.card {
		before := out
		out = maskCards(out)
		if s.email && len(out) != len(before) {
			// A card that stood right behind an address hid where the address ends. The other way round cannot happen: an
			// address ends in a letter, and a card's limits are digits.
			out = maskEmails(out)
		}
	}
	return out, out != t
}

const (
	minCard = 13
	maxCard = 19
	// minGroup is the shortest group in a card number written with separators. Shorter ones are dates and telephone numbers.
	minGroup = 3
	maxSeps  = 3 // characters between two groups, as in "4111 - 1111"
)

type group struct {
	start, end int
	chained    bool // only separators stand between the group before and this one
	fraction   bool // a digit and a point stand right before: digits of a decimal fraction
}

// maskCards replaces runs of 13 to 19 digits that pass the Luhn check and start with 2 to 6, as payment cards do: alone, or in
// groups of at least three with spaces, hyphens or points between. A run of digits is taken whole or not at all, so nothing
// inside a longer number is a card.
func maskCards(t string) string {
	if !enoughDigits(t) {
		return t
	}
	var b strings.Builder
	done := 0     // bytes of t that are in b
	var q []group // chained groups, at most maxCard digits from the first to the last but one
	flush := func(all bool) {
		for len(q) > 0 && (all || digits(q) > maxCard) {
			if n := card(t, q, done > 0 && done == prevEnd(t, q[0])); n > 0 {
				b.WriteString(t[done:q[0].start])
				b.WriteString(Masked)
				done = q[n-1].end
				q = q[n:]
			} else {
				q = q[1:]
			}
		}
	}
	last := -1 // end of the group before
	for i := 0; i < len(t); {
		if t[i] < '0' || t[i] > '9' {
			i++
			continue
		}
		g := group{start: i}
		for i < len(t) && t[i] >= '0' && t[i] <= '9' {
			i++
		}
		g.end = i
		g.chained = last >= 0 && separators(t[last:g.start])
		g.fraction = last >= 0 && t[last:g.start] == "."
		last = i
		if !g.chained {
			flush(true)
		}
		if g.end-g.start > maxCard {
			flush(true)
			continue
		}
		q = append(q, g)
		flush(false)
	}
	flush(true)
	if done == 0 {
		return t
	}
	b.WriteString(t[done:])
	return b.String()
}

// prevEnd is where the digits before g's point end.
func prevEnd(t string, g group) int {
	if g.fraction {
		return g.start - 1
	}
	return -1
}

func digits(q []group) int {
	n := 0
	for _, g := range q {
		n += g.end - g.start
	}
	return n
}

// card reports how many of the groups, from the first, make up the longest card number; 0 when none do. freed says that the
// number before the first group's point was itself masked, so that no fraction is left.
func card(t string, q []group, freed bool) int {
	if c := t[q[0].start]; c < '2' || c > '6' {
		return 0
	}
	var buf [maxCard]byte
	n, best := 0, 0
	for i, g := range q {
		size := g.end - g.start
		if n+size > maxCard || (i > 0 && size < minGroup) {
			break
		}
		n += copy(buf[n:], t[g.start:g.end])
		if n >= minCard && luhn(buf[:n]) && (i > 0 || !g.fraction || freed) {
			best = i + 1
		}
		if i == 0 && size < minGroup {
			break
		}
	}
	return best
}

func luhn(d []byte) bool {
	sum := 0
	for i := range d {
		v := int(d[len(d)-1-i] - '0')
		if i%2 == 1 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0
}

func enoughDigits(t string) bool {
	n := 0
	for i := 0; i < len(t); i++ {
		if t[i] >= '0' && t[i] <= '9' {
			if n++; n >= minCard {
				return true
			}
		}
	}
	return false
}

// separators reports whether s is what people put between the groups of a card number.
func separators(s string) bool {
	if s == "" || len(s) > maxSeps*utf8.UTFMax {
		return false
	}
	n := 0
	for _, r := range s {
		switch {
		case r == ' ', r == '-', r == '.', r == '\u00a0', r == '\u202f', r >= '\u2010' && r <= '\u2015':
		default:
			return false
		}
		n++
	}
	return n <= maxSeps
}

// maskEmails replaces addresses: local part, @ (or %40), a domain of at least two labels whose last is letters.
func maskEmails(t string) string {
	if !strings.Contains(t, "@") && !strings.Contains(t, "%40") {
		return t
	}
	var b strings.Builder
	done := 0  // bytes of t that are in b
	floor := 0 // no local part reaches back before this; keeps the whole linear
	for i := 0; i < len(t); {
		at := 0
		switch {
		case t[i] == '@':
			at = 1
		case t[i] == '%' && strings.HasPrefix(t[i:], "%40"):
			at = 3
		default:
			i++
			continue
		}
		start := localStart(t, floor, i)
		end := domainEnd(t, i+at)
		if start < i && end > 0 {
			b.WriteString(t[done:start])
			b.WriteString(Masked)
			done, floor, i = end, end, end
			continue
		}
		i += at
		floor = i
	}
	if done == 0 {
		return t
	}
	b.WriteString(t[done:])
	return b.String()
}

func localStart(t string, floor, at int) int {
	if at > floor && t[at-1] == '"' { // "quoted local"@example.com
		if q := strings.LastIndexByte(t[floor:at-1], '"'); q >= 0 {
			return floor + q
		}
		return at
	}
	i := at
	for i > floor && isLocal(t[i-1]) {
		i--
	}
	return i
}

func isLocal(c byte) bool {
	return c >= utf8.RuneSelf || isAlnum(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", c) >= 0
}

func isAlnum(c byte) bool { return c >= '0' && c <= '9' || isLetter(c) }

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf }

// domainEnd gives the end of the longest domain name that starts at i, 0 for none.
func domainEnd(t string, i int) int {
	best, labels, start, letters := 0, 0, i, true
	for ; ; i++ {
		if i < len(t) && (isAlnum(t[i]) || t[i] == '-') {
			letters = letters && isLetter(t[i])
			continue
		}
		if i == start {
			return best
		}
		labels++
		puny := len(t[start:i]) > 4 && strings.EqualFold(t[start:start+4], "xn--")
		if labels > 1 && i-start >= 2 && (letters || puny) {
			best = i
		}
		if i == len(t) || t[i] != '.' {
			return best
		}
		start, letters = i+1, true
	}
}
