package policy_test

import (
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/agent/policy"
)

func TestCleanPath(t *testing.T) {
	for _, ok := range []string{"", "a", "a/b/c.csv", "…/ü", "a b", " a", ".hidden", "...x", "100%", "100%zz", "console", "com10", "nullable.txt", "lpt", "a~b", "file.~1~", "backup~1.tar.gz.old", strings.Repeat("a", 255), "a-b_c+d=e,f;g@h#i$j&k'l(m)n[o]{p}`q!r^"} {
		if got, err := policy.CleanPath(ok); err != nil || got != ok {
			t.Errorf("%q: got %q, %v", ok, got, err)
		}
	}
	for row, bad := range map[string][]string{
		"B1 way out": {"..", "../x", "a/..", "a/../../x", `..\x`, "%2e%2e/", "%2e%2e", "%2E%2e/x", "..%5c", "a%2fb", "a%5Cb", "x%00", "%252e%252e/x", "....//", "....", ".", "./a", "a/./b",
			"/etc/passwd", "/", `C:\x`, "C:/x", "c:x", `\\srv\share`, "//srv/share", `\\?\C:\`, `\??\`, "//?/C:/x", "a//b", "a/", "a\\b"},
		"B6 Windows names": {"a.txt:evil", "a.txt::$DATA", "a.", "a ", "a./b", "a /b", "CON", "con", "NUL.txt", "nul.tar.gz", "aux", "PRN", "COM1", "com9.log", "LPT1", "COM0", "COM¹", "lpt³.x", "CONIN$", "conout$", "CLOCK$",
			"NUL .txt", "x/NUL/y", "PROGRA~1", "progr~12", "REPORT~1.CSV", "a~1", "x/DOCUME~1/y", "a?b", "a*b", `a"b`, "a<b", "a>b", "a|b"},
		"control characters": {"a\x00b", "a\nb", "a\x7f", "a\u0085b", "a\u2028b", "\t"},
		"not UTF-8":          {"a\xff", "\xc0\xae\xc0\xae/x", "\xed\xa0\x80"},
		"too long":           {strings.Repeat("a", 256), strings.Repeat("a/", 2048) + "a"},
	} {
		for _, p := range bad {
			t.Run(row+" "+clip(p), func(t *testing.T) {
				if got, err := policy.CleanPath(p); err == nil {
					t.Errorf("taken as %q", got)
				}
			})
		}
	}
}

func clip(s string) string { return s[:min(len(s), 30)] }

func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"a/b", "../x", "a/..", "C:\\x", "NUL.txt", "%2e%2e/", "a~1", "....//", "\xc0\xae", "a:b", "COM¹"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := policy.CleanPath(s)
		if err != nil {
			return
		}
		if again, err := policy.CleanPath(got); err != nil || again != got {
			t.Fatalf("%q gives %q, which gives %q, %v", s, got, again, err)
		}
		if got == "" {
			return
		}
		// Joined to a base it stays below it, whoever joins: with and without cleaning, and after an unescape.
		for _, p := range []string{path.Join("/base", got), filepath.ToSlash(filepath.Join("/base", got)), path.Clean("/base/" + got)} {
			if p != "/base/"+got {
				t.Fatalf("%q leads to %q", s, p)
			}
		}
		if !filepath.IsLocal(got) || strings.ContainsAny(got, "\\:\x00") {
			t.Fatalf("%q is taken", s)
		}
	})
}

func TestGlobs(t *testing.T) {
	p := compile(t, policy.Config{Files: map[string]policy.Files{
		"csv":  {Allow: []string{"read"}, Match: []string{"*.csv"}},
		"deep": {Allow: []string{"read"}, Match: []string{"in/**/*.csv", "**/x?z", "out/[0-9]*/a"}},
		"all":  {Allow: []string{"read"}},
		"tree": {Allow: []string{"read"}, Match: []string{"data/in/**"}},
	}})
	for _, c := range []struct {
		profile, path string
		file, folder  bool
	}{
		{"csv", "a.csv", true, true}, {"csv", "a.CSV", false, false}, {"csv", "sub/a.csv", false, false}, {"csv", "", false, true},
		{"csv", "a.csv.bak", false, false}, {"csv", ".csv", true, true}, {"csv", "a.csvx", false, false},
		{"deep", "in/a.csv", true, true}, {"deep", "in/b/c/a.csv", true, true}, {"deep", "in", false, true}, {"deep", "out", false, true},
		{"deep", "a/xyz", true, true}, {"deep", "xyz", true, true}, {"deep", "out/7x/a", true, true}, {"deep", "out/x/a", false, true},
		{"all", "anything/at/all", true, true},
		{"tree", "data/in/x", true, true}, {"tree", "data", false, true}, {"tree", "data/out", false, false}, {"tree", "data/in/x/y/z", true, true},
		{"tree", "data/in2", false, false}, {"tree", "data/in2/x", false, false}, {"tree", "data/inx", false, false}, {"tree", "xdata/in/x", false, false},
	} {
		t.Run("B7 prefix trick "+c.profile+" "+c.path, func(t *testing.T) {
			g, ok := p.Globs(c.profile)
			if !ok {
				t.Fatal("no such profile")
			}
			if g.File(c.path) != c.file || g.Folder(c.path) != c.folder && c.profile != "deep" {
				t.Errorf("file %v, folder %v", g.File(c.path), g.Folder(c.path))
			}
			if g.Match(c.path, false) != g.File(c.path) || g.Match(c.path, true) != g.Folder(c.path) {
				t.Error("Match disagrees")
			}
			if g.File(c.path) && !g.Folder(c.path) {
				t.Error("a file is shown whose name as a folder is not")
			}
		})
	}
	if _, ok := p.Globs("none"); ok {
		t.Error("a profile that does not exist has globs")
	}
}

func TestHTTPPath(t *testing.T) {
	for _, ok := range []string{"/", "/a", "/a/", "/api/v1/customers/17?x=1&y=%2F..", "/a%20b", "/a;v=1", "/~x/(y)!*'$&+,=:@", "/%C3%BC", "/100%25", "/a.b/..c/c..", "/...", "/a?b?c/d"} {
		if got, _, err := policy.HTTPPath(ok); err != nil || got != ok {
			t.Errorf("%q: got %q, %v", ok, got, err)
		}
	}
	for _, bad := range []string{"", "a", "//", "//evil/", "/a//b", "/.", "/..", "/a/../b", "/a/./b", "/%2e%2e/x", "/%2E/x", "/.%2e/x", "/a%2fb", "/a%2Fb", "/a%5cb", `/a\b`, "/%252e%252e/x",
		"/a%252fb", "/a%00", "/a%0d%0aX: y", "/a\r\nb", "/a b", "/a#b", "/%zz", "/%2", "/%", "/%ff", "/%c0%ae", "/ü", "/..;/admin", "/.;x/admin", "/;x/admin", "/a/..;v=1/b", "/%2e%2e;/x",
		"http://evil/", "*", "/a?b#c", "/a?b c", "/a?\x00", "/a\x7f", "/%7f", "/%u002e", "/<x>", `/"`, "/{a}", "/a|b", "/a^b", "/`"} {
		if got, _, err := policy.HTTPPath(bad); err == nil {
			t.Errorf("%q was taken as %q", bad, got)
		}
	}
}

func FuzzHTTPPath(f *testing.F) {
	for _, s := range []string{"/a/b?c", "/%2e%2e/", "/..;/", "/a%252f", "//x", "/a%20b/", "/%c0%ae"} {
		f.Add(s)
	}
	p, faults := policy.New(policy.Config{HTTP: map[string]policy.HTTP{"x": {Host: "crm.corp", Port: 443, Allow: []policy.HTTPRule{{Methods: []string{"GET"}, Path: "/api/**"}}}}})
	if faults != nil {
		f.Fatal(faults)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, segments, err := policy.HTTPPath(s)
		if err != nil {
			return
		}
		if again, _, err := policy.HTTPPath(got); err != nil || again != got {
			t.Fatalf("%q gives %q, which gives %q, %v", s, got, again, err)
		}
		raw, _, _ := strings.Cut(got, "?")
		for _, d := range segments {
			if d == "." || d == ".." || strings.ContainsAny(d, "/\\\x00") {
				t.Fatalf("%q holds the segment %q", s, d)
			}
		}
		// However often a server unescapes and cleans, what the pattern admitted stays below /api.
		if d := p.Decide(request("x", "GET", s)); d.Allow {
			once := "/" + strings.Join(segments, "/")
			for _, form := range []string{raw, once} {
				if c := path.Clean(form); c != "/api" && !strings.HasPrefix(c, "/api/") {
					t.Fatalf("%q was admitted and leads to %q", s, c)
				}
			}
		}
	})
}
