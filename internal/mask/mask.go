package mask

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Masked stands where a value was.
const Masked = "[masked]"

// Limits of Compile.
const (
	MaxPatterns     = 10000
	MaxPatternBytes = 256
)

// Names of detectors.
const (
	DetectPaymentCard = "payment_card"
	DetectEmail       = "email"
)

// Detectors lists the names that Rules.Detect may hold.
func Detectors() []string { return []string{DetectPaymentCard, DetectEmail} }

// Rules is the `mask:` section of a configuration.
type Rules struct {
	// Columns are globs over dotted names: "ssn", "*.email", "hr.staff.salary", "*password*". A star stands for any run of
	// characters and a question mark for one, neither for a dot. Case does not count. A pattern of n labels is held against
	// the last n labels of a column's name, so "ssn" covers it in every table.
	Columns []string `yaml:"columns"`
	// Detect names the detectors that run over text: payment_card, email.
	Detect []string `yaml:"detect"`
}

// Set is compiled Rules. The zero value and nil mask nothing. Immutable; safe for concurrent use.
type Set struct {
	columns [][]string // folded labels, sorted, unique
	card    bool
	email   bool
}

// Compile checks and compiles the rules. The error names the pattern or detector that is wrong and what would be right.
func Compile(r Rules) (*Set, error) {
	if len(r.Columns) > MaxPatterns {
		return nil, fmt.Errorf("mask columns: %d patterns, at most %d are allowed", len(r.Columns), MaxPatterns)
	}
	s := &Set{}
	for _, p := range r.Columns {
		labels, err := parsePattern(p)
		if err != nil {
			return nil, err
		}
		s.columns = append(s.columns, labels)
	}
	s.columns = normal(s.columns)
	for _, d := range r.Detect {
		switch d {
		case DetectPaymentCard:
			s.card = true
		case DetectEmail:
			s.email = true
		default:
			return nil, fmt.Errorf("mask detector %q is not known; known are %s", d, strings.Join(Detectors(), ", "))
		}
	}
	return s, nil
}

func parsePattern(p string) ([]string, error) {
	switch {
	case p == "":
		return nil, fmt.Errorf("mask column pattern is empty")
	case len(p) > MaxPatternBytes:
		return nil, fmt.Errorf("mask column pattern of %d bytes is too long, at most %d are allowed", len(p), MaxPatternBytes)
	case !utf8.ValidString(p):
		return nil, fmt.Errorf("mask column pattern %q is not UTF-8", p)
	case strings.ContainsAny(p, `[]{}\`):
		// Other globs give these a meaning; taking them literally would mask less than was meant.
		return nil, fmt.Errorf("mask column pattern %q: only * and ? are special, and [ ] { } \\ are not allowed", p)
	case strings.TrimSpace(p) != p:
		return nil, fmt.Errorf("mask column pattern %q has space around it", p)
	}
	labels := strings.Split(fold(p), ".")
	if slices.Contains(labels, "") {
		return nil, fmt.Errorf("mask column pattern %q has an empty label; write *.email for any table", p)
	}
	return labels, nil
}

// Union masks what a or b masks. Either may be nil.
func Union(a, b *Set) *Set {
	switch {
	case a.Empty() && b.Empty():
		return nil
	case a.Empty():
		return b
	case b.Empty():
		return a
	}
	return &Set{
		columns: normal(slices.Concat(a.columns, b.columns)),
		card:    a.card || b.card,
		email:   a.email || b.email,
	}
}

func normal(cols [][]string) [][]string {
	slices.SortFunc(cols, slices.Compare)
	return slices.CompactFunc(cols, slices.Equal)
}

// Empty reports whether the set masks nothing.
func (s *Set) Empty() bool { return s == nil || len(s.columns) == 0 && !s.card && !s.email }

// HasColumns reports whether Column can be true for any name.
func (s *Set) HasColumns() bool { return s != nil && len(s.columns) > 0 }

// Detects reports whether Text can change anything.
func (s *Set) Detects() bool { return s != nil && (s.card || s.email) }

// Column reports whether a column is masked. Each name is one dotted name that the column is known by ("email",
// "users.email", "public.users.email"; the longest suffices); one match masks. Labels that a pattern has and the name lacks
// count as matched, for the table may be any.
func (s *Set) Column(names ...string) bool {
	if s == nil || len(s.columns) == 0 {
		return false
	}
	for _, n := range names {
		if s.ColumnPath(strings.Split(n, ".")...) {
			return true
		}
	}
	return false
}

// ColumnPath is Column for a name given label by label (schema, table, column), where a label may itself hold dots. Empty
// leading labels are unknown ones.
func (s *Set) ColumnPath(labels ...string) bool {
	if s == nil || len(s.columns) == 0 || len(labels) == 0 {
		return false
	}
	folded := make([]string, len(labels))
	for i, l := range labels {
		folded[i] = fold(l)
	}
	for _, p := range s.columns {
		if matchPath(p, folded) {
			return true
		}
	}
	return false
}

func matchPath(pattern, labels []string) bool {
	for i := 1; i <= len(pattern) && i <= len(labels); i++ {
		l := labels[len(labels)-i]
		if l == "" && i > 1 {
			continue
		}
		if !glob(pattern[len(pattern)-i], l) {
			return false
		}
	}
	return true
}

// glob takes at most len(pattern)·len(s) steps, and patterns are at most MaxPatternBytes long. A star gives back one character
// at a time to the last star alone: earlier ones need no second look.
func glob(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		if p < len(pattern) {
			if pattern[p] == '?' {
				p, i = p+1, i+n
				continue
			}
			if strings.HasPrefix(pattern[p:], s[i:i+n]) {
				p, i = p+n, i+n
				continue
			}
		}
		if star < 0 {
			return false
		}
		_, n = utf8.DecodeRuneInString(s[mark:])
		mark += n
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// fold maps each rune to the least rune of its simple case-folding orbit, so that equal folds mean equal names whatever the
// case (and the Kelvin sign is a k).
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			if 'a' <= r && r <= 'z' {
				return r - 'a' + 'A'
			}
			return r
		}
		least := r
		for n := unicode.SimpleFold(r); n != r; n = unicode.SimpleFold(n) {
			least = min(least, n)
		}
		return least
	}, s)
}

// Token stands for a sensitive value: the same key, class and value give the same token, and without the key a token tells
// nothing, not even of a value that could be guessed (a phone number). It is "tok_" and 22 characters of base64url: the first 16
// bytes of HMAC-SHA256. Without a key there is no safe token and Masked is returned.
func Token(key []byte, class, value string) string {
	return string(new(Tokens).Append(nil, key, class, value))
}

// Tokens makes tokens under one key, again and again: what comes of the key alone is done once. The zero Tokens is ready. Safe for
// concurrent use; not to be copied.
type Tokens struct{ pool sync.Pool } // of *tokens

type tokens struct {
	mac hash.Hash
	buf []byte
}

// Append appends Token(key, class, value). The key must be the same at each call.
func (t *Tokens) Append(dst, key []byte, class, value string) []byte {
	if len(key) == 0 {
		return append(dst, Masked...)
	}
	m, _ := t.pool.Get().(*tokens)
	if m == nil {
		m = &tokens{mac: hmac.New(sha256.New, key)}
	}
	m.mac.Reset()
	// The length in front keeps ("ab", "c") and ("a", "bc") apart.
	m.buf = binary.BigEndian.AppendUint64(m.buf[:0], uint64(len(class)))
	m.buf = append(append(m.buf, class...), value...)
	_, _ = m.mac.Write(m.buf)
	clear(m.buf)
	m.buf = m.mac.Sum(m.buf[:0])
	dst = base64.RawURLEncoding.AppendEncode(append(dst, "tok_"...), m.buf[:16])
	if cap(m.buf) <= 1<<10 {
		t.pool.Put(m)
	}
	return dst
}
