package folder

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
)

// every tries each operation with the path, and move with it at either end. None may go through.
func (s *site) every(path string) {
	s.t.Helper()
	ops := []*protocol.Request{
		{Operation: protocol.OpList, Path: path}, {Operation: protocol.OpStat, Path: path}, {Operation: protocol.OpStat, Path: path, Upload: upload},
		{Operation: protocol.OpRead, Path: path}, {Operation: protocol.OpWrite, Path: path}, {Operation: protocol.OpWrite, Path: path, Upload: upload},
		{Operation: protocol.OpDelete, Path: path}, {Operation: protocol.OpMkdir, Path: path},
		{Operation: protocol.OpMove, Path: path, To: "moved"}, {Operation: protocol.OpMove, Path: "own", To: path, Overwrite: true},
	}
	for _, r := range ops {
		if res := s.do(r, strings.NewReader("evil")); res.err == nil {
			s.t.Errorf("%s of %q went through: %s", r.Operation, path, res.Body)
		}
	}
}

// snapshot tells all there is below a folder: names, kinds, contents.
func snapshot(t *testing.T, top string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, p)
		fmt.Fprintf(&b, "%s %v", filepath.ToSlash(rel), d.Type())
		if d.Type().IsRegular() {
			st, err := d.Info()
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %v %d", st.ModTime(), st.Size())
			if c, err := os.ReadFile(p); err == nil && st.Size() < 1<<20 {
				fmt.Fprintf(&b, " %q", c)
			}
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCatalogB(t *testing.T) {
	t.Run("B1 ways out by name", func(t *testing.T) {
		s := newSite(t, nil)
		s.put("own", "mine")
		s.put("a/b", "x")
		if err := os.WriteFile(filepath.Join(s.outside, "x"), []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, filepath.Dir(s.base))
		for _, p := range []string{
			"../outside/x", "a/../../outside/x", "..", "../", "a/..", "a/../own", "./own", ".", "a/./b", `..\outside\x`, `a\..\..\x`, "%2e%2e/outside/x", "..%2foutside/x", "..%5coutside", "%252e%252e/x",
			"....//outside", "//own", "a//b", "own/", "a/b/", "/etc/passwd", "/own", `C:\x`, "C:/x", "C:x", `\\srv\share`, "//srv/share", `\\?\C:\x`, `\??\C:\x`, `//?/C:/x`, "own\x00", "a/\x00/b", "\x00",
			strings.Repeat("a/", 200) + "x", strings.Repeat("x", 256), strings.Repeat("x/", 3000) + "x", "\xff\xfe", "a/\x1b[2J",
		} {
			s.every(p)
		}
		if after := snapshot(t, filepath.Dir(s.base)); after != before {
			t.Errorf("something changed:\n%s\nwas\n%s", after, before)
		}
	})
	t.Run("B6 names that mean something else on Windows", func(t *testing.T) {
		s := newSite(t, nil)
		s.put("own", "mine")
		for _, p := range []string{
			"a.txt:evil", "a.txt::$DATA", "own.", "own ", "a./b", "CON", "NUL.txt", "nul", "com1", "LPT9.log", "aux.tar.gz", "COM¹", "CONIN$", "PROGRA~1", "a/LONGNA~2.TXT", "what?", "x*", `q"`, "a<b", "a>b", "a|b",
		} {
			s.every(p)
		}
		if got := snapshot(t, s.base); strings.Count(got, "\n") != 2 {
			t.Errorf("something was made:\n%s", got)
		}
	})
	t.Run("B7 prefix trick", func(t *testing.T) {
		s := newSite(t, nil)
		if err := os.Mkdir(s.base+"2", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.base+"2", "x"), []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
		s.put("own", "")
		for _, p := range []string{"../base2/x", "2/x", s.base + "2/x", "../base2"} {
			s.every2(p)
		}
		s.globs = globs(t, "in/**")
		s.put("in2/x", "secret")
		s.put("in/x", "shown")
		s.want("in2", s.read("in2/x"), protocol.CodeDenied)
		s.want("in", s.read("in/x"), "")
		if got, _ := s.all(protocol.Request{Recursive: true}); !slices.Equal(got, []string{"in", "in/x"}) {
			t.Errorf("listed %q", got)
		}
	})
	t.Run("B10 names on the disk", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("the file system does not take such names")
		}
		s := newSite(t, nil)
		want := map[string]string{
			"line\nbreak": `line\u000abreak`, "esc\x1b[31m": `esc\u001b[31m`, "bad\xff": `bad\xff`, `back\slash`: `back\\slash`, "right\u202eleft": `right\u202eleft`, "ümlaut": "ümlaut", "cr\r": `cr\u000d`, `quote"}`: `quote"}`,
		}
		var shown []string
		for name, show := range want {
			s.put(name, "x")
			shown = append(shown, show)
		}
		for _, size := range []int{1, 3, 100} {
			got, _ := s.all(protocol.Request{PageSize: size})
			if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(shown))) {
				t.Fatalf("got %q\nwant %q", got, shown)
			}
		}
		res := s.op(protocol.OpList, "")
		if body := strings.TrimSuffix(res.Body.String(), "\n"); strings.ContainsAny(body, "\n\r\x1b") || !json.Valid(res.Body.Bytes()) {
			t.Errorf("the answer holds control characters: %q", body)
		}
	})
	t.Run("B10 a large folder, with flat memory", func(t *testing.T) { catalogB10Large(t) })
	t.Run("B16 quota", func(t *testing.T) { catalogB16(t) })
	t.Run("B19 the agent's own files", func(t *testing.T) {
		top := t.TempDir()
		base, data := filepath.Join(top, "b"), filepath.Join(top, "b", "in", "data")
		if err := os.MkdirAll(data, 0o755); err != nil {
			t.Fatal(err)
		}
		key := filepath.Join(data, "key.pem")
		if err := os.WriteFile(key, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, own := range []string{key, data, base, filepath.Join(base, "not-there-yet", "spool")} {
			if f, err := New(Config{Name: "hr", Base: base, Own: []string{own}}, quiet); err == nil {
				f.Close()
				t.Errorf("a base that holds %s was accepted", own)
			}
		}
		link := filepath.Join(top, "link")
		if err := os.Symlink(base, link); err == nil {
			for _, c := range []Config{{Name: "hr", Base: link, Own: []string{key}}, {Name: "hr", Base: base, Own: []string{filepath.Join(link, "in", "data")}}} {
				if f, err := New(c, quiet); err == nil {
					f.Close()
					t.Errorf("hidden behind a link: %+v was accepted", c)
				}
			}
		}
		f, err := New(Config{Name: "hr", Base: filepath.Join(data), Own: []string{filepath.Join(top, "agent.yaml"), filepath.Join(top, "b2")}}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
	t.Run("B20 line breaks in a path", func(t *testing.T) {
		s := newSite(t, nil)
		s.put("own", "")
		for _, p := range []string{"a\r\nEvent: x", "a\nb", "a\x85b", "a\u2028b"} {
			s.every(p)
		}
		if r := s.write(`quote"}{`, "x"); r.code() != protocol.CodeInvalid { // Windows does not take the quote
			t.Errorf("got %v", r.err)
		}
	})
	for id, why := range map[string]string{
		"B2, B3, B4, B5, B8, B11": "need links and pipes: TestCatalogBLinks, on Linux",
		"B9":                      "nothing is unpacked: an archive is a file like any other",
		"B14":                     "is of a Windows host with an SMB server; a base is a path in the site's own file, never the caller's",
		"B6 (junction, mount point, case folding)": "need a Windows host; names are checked here, links of any kind are refused by step",
	} {
		t.Logf("not run here: %s: %s", id, why)
	}
}

// every2 is every without the operations that may make new things under harmless names.
func (s *site) every2(path string) {
	s.t.Helper()
	for _, op := range []protocol.Operation{protocol.OpList, protocol.OpStat, protocol.OpRead, protocol.OpDelete} {
		if res := s.op(op, path); res.err == nil {
			s.t.Errorf("%s of %q went through", op, path)
		}
	}
}

func catalogB10Large(t *testing.T) {
	const n = 20_000
	s := newSite(t, nil)
	s.window = 3000 // seven windows of pages that end inside them
	for i := range n {
		f, err := os.OpenFile(filepath.Join(s.base, fmt.Sprintf("entry-%07d-with-a-name-of-usual-length.csv", i*7919%n)), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	seen := make([]bool, n)
	var most uint64
	r := protocol.Request{Operation: protocol.OpList, PageSize: 700}
	count, last := 0, ""
	for {
		res := s.do(&r, nil)
		if res.err != nil {
			t.Fatal(res.err)
		}
		var l protocol.FileList
		if err := json.Unmarshal(res.Body.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		for _, f := range l.Files {
			var i int
			if _, err := fmt.Sscanf(f.Path, "entry-%d-", &i); err != nil || seen[i] || f.Path <= last {
				t.Fatalf("%q is doubled, out of order or unknown", f.Path)
			}
			seen[i], last = true, f.Path
			count++
		}
		if r.Cursor = l.Cursor; r.Cursor == "" {
			break
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
	}
	if count != n {
		t.Fatalf("%d entries, want %d", count, n)
	}
	if most > 16<<20 {
		t.Errorf("%d MiB in use while listing", most>>20)
	}
	t.Logf("%d entries, at most %d KiB of heap after a page", n, most>>10)
}

func catalogB16(t *testing.T) {
	t.Run("a file over the size cap", func(t *testing.T) {
		s := newSite(t, func(c *Config) { c.MaxSize = 1 << 20 })
		endless := readerFunc(func(p []byte) (int, error) { return len(p), nil })
		s.want("endless", s.do(&protocol.Request{Operation: protocol.OpWrite, Path: "f"}, endless), protocol.CodeTooLarge)
		s.want("declared as 1 TiB", s.write("f", "x", "Content-Length", "1099511627776"), protocol.CodeTooLarge)
		if s.leftovers() != 0 || s.get("f") == "x" {
			t.Error("something is left")
		}
	})
	disk := func(change func(*space)) *site {
		s := newSite(t, func(c *Config) { c.ReserveBytes, c.ReservePercent = 1<<30, 5 })
		s.space = func(*os.File) (space, error) {
			sp := space{total: 100 << 30, free: 50 << 30, files: 1000, freeFiles: 500}
			change(&sp)
			return sp, nil
		}
		return s
	}
	for name, c := range map[string]struct {
		change func(*space)
		length string
		code   protocol.Code
	}{
		"room":                         {func(*space) {}, "10", ""},
		"below 5 percent":              {func(s *space) { s.free = 4 << 30 }, "", protocol.CodeQuota},
		"small disk below 1 GiB":       {func(s *space) { s.total, s.free = 4<<30, 1000<<20 }, "", protocol.CodeQuota},
		"declared length would eat it": {func(s *space) { s.free = 6 << 30 }, "2147483648", protocol.CodeQuota},
		"no inodes":                    {func(s *space) { s.freeFiles = 40 }, "", protocol.CodeQuota},
		"inodes are not counted":       {func(s *space) { s.files, s.freeFiles = 0, 0 }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := disk(c.change)
			var h []string
			if c.length != "" {
				h = []string{"Content-Length", c.length}
			}
			s.want(name, s.write("f", "0123456789", h...), c.code)
			if (s.get("f") == "0123456789") != (c.code == "") || s.leftovers() != 0 {
				t.Errorf("got %q, %d left", s.get("f"), s.leftovers())
			}
		})
	}
	t.Run("the disk fills while the body streams", func(t *testing.T) {
		s := disk(func(*space) {})
		looks := 0
		s.space = func(*os.File) (space, error) {
			looks++
			return space{total: 100 << 30, free: uint64(9-looks) << 30}, nil
		}
		r := s.do(&protocol.Request{Operation: protocol.OpWrite, Path: "f"}, io.LimitReader(readerFunc(func(p []byte) (int, error) { return len(p), nil }), 1<<30))
		s.want("filling", r, protocol.CodeQuota)
		if s.leftovers() != 0 || looks != 5 || r.out.BytesIn > 32<<20 {
			t.Errorf("%d looks, %d bytes taken, %d left", looks, r.out.BytesIn, s.leftovers())
		}
	})
}

func TestStreamsTwoGigabytesWithFlatMemory(t *testing.T) {
	size := int64(2 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	s := newSite(t, nil)
	f, err := os.Create(filepath.Join(s.base, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	f.Close()
	measure := func(what string, do func() result, want int64) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := do()
		runtime.ReadMemStats(&after)
		if r.err != nil || r.out.Bytes+r.out.BytesIn < want {
			t.Fatalf("%s: %+v %v", what, r.out, r.err)
		}
		grown := after.TotalAlloc - before.TotalAlloc // all that was ever allocated, freed or not
		if grown > 1<<20 {
			t.Errorf("%s of %d MiB allocated %d KiB", what, want>>20, grown>>10)
		}
		t.Logf("%s of %d MiB allocated %d KiB", what, want>>20, grown>>10)
	}
	measure("read", func() result {
		out, err := s.Do(t.Context(), call(&protocol.Request{Operation: protocol.OpRead, Path: "sparse"}, nil), discard{header()})
		return result{out: out, err: err}
	}, size)
	block := make([]byte, 64<<10)
	measure("write", func() result {
		body := io.LimitReader(readerFunc(func(p []byte) (int, error) { return copy(p, block), nil }), size/8)
		out, err := s.Do(t.Context(), call(&protocol.Request{Operation: protocol.OpWrite, Path: "written"}, body), discard{header()})
		return result{out: out, err: err}
	}, size/8)
	if st, err := os.Stat(filepath.Join(s.base, "written")); err != nil || st.Size() != size/8 {
		t.Fatal(err)
	}
}
