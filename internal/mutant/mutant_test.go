package mutant_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mutant"
)

const source = `package p

type T struct{ n int }

func (t *T) Ok(a, b int) bool {
	for i := range a {
		if i == 3 && !t.odd() {
			continue
		}
		t.n = i
	}
	switch {
	case a < b:
		return true
	}
	t.odd()
	return false
}

func (t *T) odd() bool { return t.n%2 == 1 }
`

func TestFind(t *testing.T) {
	found, err := mutant.Find("p.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range found {
		got = append(got, m.Key())
		if string(m.Apply([]byte(source))) == source {
			t.Error("changes nothing:", m.Key())
		}
	}
	slices.Sort(got)
	want := []string{
		"p.go | T.Ok | ! left out | if i == 3 && !t.odd() { | 1",
		"p.go | T.Ok | && made || | if i == 3 && !t.odd() { | 1",
		"p.go | T.Ok | < made <= | case a < b: | 1",
		"p.go | T.Ok | < made >= | case a < b: | 1",
		"p.go | T.Ok | == made != | if i == 3 && !t.odd() { | 1",
		"p.go | T.Ok | assignment left out | t.n = i | 1",
		"p.go | T.Ok | call left out | t.odd() | 1",
		"p.go | T.Ok | condition always true | case a < b: | 1",
		"p.go | T.Ok | condition always true | if i == 3 && !t.odd() { | 1",
		"p.go | T.Ok | condition never true | case a < b: | 1",
		"p.go | T.Ok | condition never true | if i == 3 && !t.odd() { | 1",
		"p.go | T.Ok | continue made break | continue | 1",
		"p.go | T.Ok | false made true | return false | 1",
		"p.go | T.Ok | true made false | return true | 1",
		"p.go | T.odd | == made != | func (t *T) odd() bool { return t.n%2 == 1 } | 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

// A test that notices kills; one that does not lets it survive; what does not compile is neither. The tree stays as it is.
func TestTry(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":    "module p\n\ngo 1.26\n",
		"p.go":      "package p\n\nfunc Small(n int) bool { return n < 10 }\n\nfunc Even(n int) bool { return n%2 == 0 }\n",
		"p_test.go": "package p\n\nimport \"testing\"\n\nfunc TestSmall(t *testing.T) {\n\tif !Small(1) || Small(20) {\n\t\tt.Fatal()\n\t}\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	src, err := os.ReadFile("p.go")
	if err != nil {
		t.Fatal(err)
	}
	found, err := mutant.Find("p.go", src)
	if err != nil {
		t.Fatal(err)
	}
	tests := mutant.Tests{Packages: []string{"."}, Limit: time.Minute}
	for _, m := range found {
		want := mutant.Survived // the boundary, and all of Even
		if m.What == "< made >=" {
			want = mutant.Killed
		}
		if got, out, err := tests.Try(t.Context(), t.TempDir(), m, src); got != want || err != nil {
			t.Errorf("%s: %s, %v\n%s", m.Key(), got, err, out)
		}
	}
	if len(found) != 3 {
		t.Error(len(found))
	}
	if after, err := os.ReadFile("p.go"); err != nil || string(after) != string(src) {
		t.Error("the tree was changed")
	}
}
