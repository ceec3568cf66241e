package config

import (
	"fmt"
	"sort"
	"strings"
)

// Fault is one thing wrong with a file. Path is the place in the YAML, such as database.sales.allow.mode or
// allow[0].ports[1]; a key with other characters than letters, digits, '_' and '-' stands as ["key"]. Message and Hint
// never hold a secret's value.
type Fault struct {
	File      string
	Line, Col int // from 1; 0 means unknown
	Path      string
	Message   string
	Hint      string // what would be right; may be empty
}

func (f Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
		if f.Col > 0 {
			fmt.Fprintf(&b, ":%d", f.Col)
		}
	}
	b.WriteString(": ")
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Message)
	if f.Hint != "" {
		b.WriteString("; " + f.Hint)
	}
	return b.String()
}

// Faults is every fault found in a file, in the order of lines. As an error it prints one a line.
type Faults []Fault

// maxFaults bounds what is collected: a file of 1 MiB can hold 100,000 unknown keys, and nobody reads that.
const maxFaults = 100

func (fs Faults) Error() string {
	lines := make([]string, 0, len(fs))
	for _, f := range fs {
		lines = append(lines, f.Error())
	}
	if len(fs) >= maxFaults {
		lines = append(lines, fmt.Sprintf("reading stopped after %d faults", maxFaults))
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find a Fault.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// Err returns fs sorted by line and column as an error, or nil when there are none.
func (fs Faults) Err() error {
	if len(fs) == 0 {
		return nil
	}
	sort.SliceStable(fs, func(i, j int) bool {
		if fs[i].Line != fs[j].Line {
			return fs[i].Line < fs[j].Line
		}
		return fs[i].Col < fs[j].Col
	})
	return fs
}

// Join appends a key to a YAML path.
func Join(path, key string) string {
	if !plainKey(key) {
		return fmt.Sprintf("%s[%q]", path, key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// Index appends the place in a list to a YAML path.
func Index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func plainKey(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return s != ""
}

// Nearest returns the candidate with the smallest edit distance to s, or "" when none is near enough to be meant.
func Nearest(s string, candidates []string) string {
	best, dist := "", 3 // a key is taken for a misspelling up to two edits away, short ones up to one
	if len(s) <= 4 {
		dist = 2
	}
	if len(s) > 64 {
		return ""
	}
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d < dist {
			best, dist = c, d
		}
	}
	if best == "" { // a cut or lengthened name: "pass" for "password", "address" for "addresses"
		for _, c := range candidates {
			if len(s) >= 3 && (strings.HasPrefix(c, s) || strings.HasPrefix(s, c) && len(c) >= 3) {
				return c
			}
		}
	}
	return best
}

// distance is Levenshtein's with swaps of neighbours counted as one edit.
func distance(a, b string) int {
	if d := len(a) - len(b); d > 2 || d < -2 {
		return 3
	}
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
