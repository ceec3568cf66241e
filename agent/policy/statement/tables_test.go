package statement

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var dialects = []Dialect{PostgreSQL, Redshift, MySQL, SQLite, SQLServer, Oracle}

// lines reads one of the statement files, blank lines left out, with the characters it names put in.
func lines(t testing.TB, path ...string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join(append([]string{"testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chars := strings.NewReplacer("{LF}", "\n", "{CR}", "\r", "{NUL}", "\x00", "{BOM}", "\ufeff", "{VT}", "\v", "{FF}", "\f",
		"{NBSP}", "\u00a0", "{LS}", "\u2028", "{ZWSP}", "\u200b", "{RLO}", "\u202e", "{FW;}", "\uff1b",
		"{PAD}", strings.Repeat(" ", 900_000))
	var out []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if s.Text() != "" {
			out = append(out, chars.Replace(s.Text()))
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// reads gives every statement that a read-only profile of d must run.
func reads(t testing.TB, d Dialect) []string {
	return append(lines(t, "read", "all.txt"), lines(t, "read", string(d)+".txt")...)
}

// bypasses gives the lines (id, mark, statement) of d.
func bypasses(t testing.TB, d Dialect) [][3]string {
	var out [][3]string
	for _, l := range append(lines(t, "bypass", "all.txt"), lines(t, "bypass", string(d)+".txt")...) {
		p := strings.SplitN(l, " ", 3)
		if len(p) != 3 || p[1] != "!" && p[1] != "." {
			t.Fatalf("faulty line %q", l)
		}
		out = append(out, [3]string(p))
	}
	return out
}

// TestReadOnlyRefusesBypasses: P3, no statement of the catalog passes as one that reads.
func TestReadOnlyRefusesBypasses(t *testing.T) {
	n := 0
	for _, d := range dialects {
		for i, b := range bypasses(t, d) {
			n++
			t.Run(fmt.Sprintf("%s/%s %d", d, b[0], i+1), func(t *testing.T) {
				a := Analyze(d, b[2])
				if a.Class == ClassRead {
					t.Fatalf("passes as a read: %.300q", b[2])
				}
				if b[1] == "!" && a.Class != ClassRefused {
					t.Errorf("class %s, want refused in every mode: %.300q", a.Class, b[2])
				}
				if a.Reason == "" {
					t.Errorf("no reason: %.300q", b[2])
				}
			})
		}
	}
	t.Logf("%d bypass statements", n)
	if n < 300 {
		t.Errorf("only %d statements", n)
	}
}

// TestReadWriteRunsWhatItMay: the statements marked "." of the catalog are writes that a read-write profile runs.
func TestReadWriteRunsWhatItMay(t *testing.T) {
	for _, d := range dialects {
		for _, b := range lines(t, "bypass", string(d)+".txt") {
			p := strings.SplitN(b, " ", 3)
			if a := Analyze(d, p[2]); p[1] == "." && a.Class != ClassWrite {
				t.Errorf("%s: class %s (%s): %s", d, a.Class, a.Reason, p[2])
			}
		}
	}
}

// TestEverydayReadsAreAllowed: what people do every day must not be refused.
func TestEverydayReadsAreAllowed(t *testing.T) {
	n := 0
	for _, d := range dialects {
		for _, sql := range reads(t, d) {
			n++
			if a := Analyze(d, sql); a.Class != ClassRead {
				t.Errorf("%s: %s\n\t%s", d, sql, a.Reason)
			} else if a.Reason != "" || a.Verb == "" {
				t.Errorf("%s: reason %q verb %q: %s", d, a.Reason, a.Verb, sql)
			}
		}
	}
	t.Logf("%d statements", n)
}

func TestAnalyzeUnknownDialect(t *testing.T) {
	for _, d := range []Dialect{"", "mssql", "PostgreSQL"} {
		if a := Analyze(d, "select 1"); a.Class != ClassRefused || a.Reason == "" {
			t.Errorf("%q: %+v", d, a)
		}
	}
}

// TestEverydayWritesAreWrites: what people do every day with a read-write profile.
func TestEverydayWritesAreWrites(t *testing.T) {
	for _, d := range dialects {
		for _, sql := range append(lines(t, "write", "all.txt"), lines(t, "write", string(d)+".txt")...) {
			if a := Analyze(d, sql); a.Class != ClassWrite {
				t.Errorf("%s: class %s: %s\n\t%s", d, a.Class, sql, a.Reason)
			} else if a.Reason == "" || a.Verb == "" {
				t.Errorf("%s: reason %q verb %q: %s", d, a.Reason, a.Verb, sql)
			}
		}
	}
}
