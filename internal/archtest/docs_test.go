package archtest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// markdown reads every page of the repository, by its path relative to the root.
func markdown(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() && rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || rel == "bin" || rel == "dist") {
			return fs.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(rel, ".md") {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			pages[filepath.ToSlash(rel)] = strings.ReplaceAll(string(b), "\r\n", "\n")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 15 {
		t.Fatalf("only %d pages were found", len(pages))
	}
	return pages
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```")
	cited   = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)` \\(([a-z0-9/-]+)\\)")
)

// anchor is a heading's name in links, as GitHub makes it.
func anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(heading)) {
		switch {
		case r == ' ' || r == '-':
			b.WriteByte('-')
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_':
			b.WriteRune(r)
		}
	}
	return b.String()
}

// TestLinksLeadSomewhere follows every relative link of the documents, to the file and to the heading.
func TestLinksLeadSomewhere(t *testing.T) {
	pages := markdown(t)
	anchors := func(page string) map[string]bool {
		out := map[string]bool{}
		for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(pages[page], ""), -1) {
			out[anchor(m[1])] = true
		}
		return out
	}
	n := 0
	for page, text := range pages {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			n++
			file, part, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(page), file))
			}
			if _, err := os.Stat(filepath.Join("..", "..", target)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
				continue
			}
			if part != "" && !anchors(target)[part] {
				t.Errorf("%s links to %s: there is no such heading", page, m[1])
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d links were found", n)
	}
}

// TestPromisesNameTestsThatExist looks up the tests by which docs/security.md says that each promise is held.
func TestPromisesNameTestsThatExist(t *testing.T) {
	_, all := load(t)
	defined := map[string]bool{}
	for _, s := range all {
		if s.test {
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9]+)\(`).FindAllStringSubmatch(s.text, -1) {
				defined[s.pkg+" "+m[1]] = true
			}
		}
	}
	tests := cited.FindAllStringSubmatch(markdown(t)["docs/security.md"], -1)
	if len(tests) < 40 {
		t.Fatalf("docs/security.md names only %d tests", len(tests))
	}
	for _, m := range tests {
		if !defined[m[2]+" "+m[1]] {
			t.Errorf("docs/security.md names %s in %s, which does not exist", m[1], m[2])
		}
	}
}
