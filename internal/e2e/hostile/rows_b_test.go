//go:build linux

package hostile_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
)

const foldersYAML = `
files:
  in:
    base: DIR/shares/in
    allow: [list, stat, read, write, delete, move, mkdir]
    max_size: 2MB
    timeout: 20s
    reserve_percent: 0
    reserve_bytes: 1MiB
  strict:
    base: DIR/shares/in
    allow: [list, stat, read]
    match: ["*.csv", "sub/**"]
    reject_hardlinks: always
  full:
    base: DIR/shares/full
    allow: [list, write]
    reserve_bytes: 900TB
`

// folders is a site with two shares and canaries all around them.
type folders struct {
	*site
	in, outside string
	before      map[string]string // the files outside, as they were
}

func newFolders(t testing.TB) *folders {
	t.Helper()
	f := &folders{}
	r := newRogue(t)
	f.site = newSite(t, r, foldersYAML)
	f.in, f.outside = filepath.Join(f.dir, "shares", "in"), filepath.Join(f.dir, "shares")
	for name, text := range map[string]string{"in/a.csv": "inside", "in/sub/b.txt": "inside too", "in2/canary.txt": canary, "canary.txt": canary, "out/canary.txt": canary, "out/dir/x": canary, "full/a": "a", "in/secret.txt": "no csv"} {
		name = filepath.Join(f.outside, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.before = f.snapshot(t)
	return f
}

// snapshot is all that lies outside the share.
func (f *folders) snapshot(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(f.outside, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == f.in {
			return fs.SkipDir
		}
		if d.Type().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			out[p] = string(b)
		} else {
			out[p] = d.Type().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// every tries a path with every operation that takes one; each must be refused, and nothing outside seen or touched.
func (f *folders) every(t testing.TB, path string) {
	t.Helper()
	for _, profile := range []string{"in", "strict"} {
		for _, r := range []protocol.Request{file(protocol.OpRead, profile, path), file(protocol.OpStat, profile, path), file(protocol.OpList, profile, path), file(protocol.OpWrite, profile, path),
			file(protocol.OpDelete, profile, path), file(protocol.OpMkdir, profile, path)} {
			f.nothing(t, r)
		}
	}
	to, from := file(protocol.OpMove, "in", "a.csv"), file(protocol.OpMove, "in", path)
	to.To, from.To = path, "stolen.csv"
	to.Overwrite = true
	f.nothing(t, to)
	f.nothing(t, from)
	upload := file(protocol.OpWrite, "in", path)
	upload.Upload, upload.Partial = strings.Repeat("ab", 16), true
	f.nothing(t, upload)
}

// nothing asserts that a request is refused and gives nothing away.
func (f *folders) nothing(t testing.TB, r protocol.Request) {
	t.Helper()
	body := ""
	if r.Operation == protocol.OpWrite {
		body = "pwned"
	}
	a := f.ask(t, r, body)
	if a.code() == "" {
		t.Errorf("%s %s %q -> %q went well: %d %.200s", r.Operation, r.Profile, r.Path, r.To, a.status, a.body)
	}
	if strings.Contains(a.body, canary) || strings.Contains(a.body, "root:") || strings.Contains(a.body, "/shares/") {
		t.Errorf("%s %s %q gave away: %.300s", r.Operation, r.Profile, r.Path, a.body)
	}
	f.event(t, a.id)
}

// untouched asserts that all outside the share is as it was.
func (f *folders) untouched(t testing.TB) {
	t.Helper()
	after := f.snapshot(t)
	for p, text := range after {
		if was, ok := f.before[p]; !ok || was != text {
			t.Errorf("outside the share: %s is %.80q, was %.80q", p, text, was)
		}
	}
	for p := range f.before {
		if _, ok := after[p]; !ok {
			t.Errorf("outside the share: %s is gone", p)
		}
	}
	if b, err := os.ReadFile(filepath.Join(f.in, "a.csv")); err != nil || string(b) != "inside" {
		t.Errorf("a.csv: %q, %v", b, err)
	}
}

func (f *folders) row(t *testing.T, name string, do func(t *testing.T)) {
	f.site.row(t, name, func(t *testing.T) {
		do(t)
		f.untouched(t)
	})
}

func TestRowsB(t *testing.T) {
	f := newFolders(t)
	link := func(t *testing.T, to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(f.in, name)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(filepath.Join(f.in, name)) })
	}

	f.row(t, "B0 what is allowed works", func(t *testing.T) {
		if a := f.ask(t, file(protocol.OpRead, "strict", "a.csv"), ""); a.body != "inside" {
			t.Errorf("%+v", a)
		}
		f.went(t, f.ask(t, file(protocol.OpWrite, "in", "sub/w.txt"), "written"))
		if b, err := os.ReadFile(filepath.Join(f.in, "sub/w.txt")); err != nil || string(b) != "written" {
			t.Errorf("%q, %v", b, err)
		}
	})
	f.row(t, "B1 ways out by name", func(t *testing.T) {
		for _, path := range []string{"../canary.txt", "a/../../canary.txt", "sub/../../canary.txt", `..\canary.txt`, "%2e%2e/canary.txt", "..%5ccanary.txt", "....//canary.txt", "/etc/passwd", `C:\canary.txt`, `\\srv\share\x`,
			"//srv/share/x", `\\?\C:\x`, `\??\C:\x`, "./../canary.txt", "sub/../../in2/canary.txt", "..", "../", "/", "/../canary.txt", "..\x00/canary.txt", "a.csv\x00", f.outside + "/canary.txt", "a.csv/../../canary.txt"} {
			f.every(t, path)
		}
		for _, path := range []string{"..;", "\u2025", "..\u2215canary.txt"} { // names like any other
			if a := f.ask(t, file(protocol.OpRead, "in", path), ""); a.code() != protocol.CodeNotFound {
				t.Errorf("%q: %d %.200s", path, a.status, a.body)
			}
		}
	})
	f.row(t, "B2 trailing slashes", func(t *testing.T) {
		link(t, "..", "up")
		link(t, "../out", "dir")
		for _, path := range []string{"../", "up/", "up/canary.txt", "dir/", "dir/canary.txt", "dir/dir/", "up/../", "dir//canary.txt", "dir/./canary.txt"} {
			f.every(t, path)
		}
	})
	f.row(t, "B3 symbolic links", func(t *testing.T) {
		link(t, filepath.Join(f.outside, "canary.txt"), "abs.csv")
		link(t, "../canary.txt", "rel.csv")
		link(t, "rel.csv", "chain.csv")
		link(t, "../out", "folder.csv")
		link(t, "../made-by-hostile", "dangling.csv")
		link(t, "/etc/passwd", "passwd.csv")
		link(t, "loop.csv", "loop.csv")
		for _, path := range []string{"abs.csv", "rel.csv", "chain.csv", "folder.csv/canary.txt", "folder.csv/made", "passwd.csv"} {
			for _, r := range []protocol.Request{file(protocol.OpRead, "in", path), file(protocol.OpRead, "strict", path)} {
				f.nothing(t, r)
			}
		}
		// What replaces or removes a link acts on the link itself, or is refused; never on what it leads to.
		for _, path := range []string{"abs.csv", "rel.csv", "chain.csv", "dangling.csv", "folder.csv/canary.txt", "folder.csv/made", "loop.csv"} {
			for _, op := range []protocol.Operation{protocol.OpWrite, protocol.OpStat, protocol.OpMkdir, protocol.OpDelete} {
				if a := f.ask(t, file(op, "in", path), "pwned"); strings.Contains(a.body, canary) || strings.Contains(a.body, fmt.Sprintf(`"size":%d`, len(canary))) {
					t.Errorf("%s %s: %s", op, path, a.body)
				}
			}
			r := file(protocol.OpMove, "in", path)
			r.To, r.Overwrite = "moved.csv", true
			_ = f.ask(t, r, "")
			if a := f.ask(t, file(protocol.OpRead, "in", "moved.csv"), ""); strings.Contains(a.body, canary) {
				t.Errorf("move %s: %s", path, a.body)
			}
		}
		list := file(protocol.OpList, "in", "")
		list.Recursive = true
		if a := f.ask(t, list, ""); strings.Contains(a.body, "canary.txt") {
			t.Errorf("a listing leads outside: %s", a.body)
		}
	})
	f.row(t, "B4 links swapped during every operation", func(t *testing.T) { f.swap(t) })
	f.row(t, "B5 hard links", func(t *testing.T) {
		name := filepath.Join(f.in, "hard.csv")
		if err := os.Link(filepath.Join(f.outside, "canary.txt"), name); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(name)
		f.nothing(t, file(protocol.OpWrite, "in", "hard.csv")) // rejected by default on write
		f.nothing(t, file(protocol.OpDelete, "in", "hard.csv"))
		f.nothing(t, file(protocol.OpRead, "strict", "hard.csv")) // rejected where the site says always
		to := file(protocol.OpMove, "in", "hard.csv")
		to.To = "harder.csv"
		f.nothing(t, to)
	})
	f.row(t, "B7 prefix trick", func(t *testing.T) {
		for _, path := range []string{"2/canary.txt", "../in2/canary.txt", "in2/canary.txt", "/shares/in2/canary.txt"} {
			f.nothing(t, file(protocol.OpRead, "in", path))
		}
		for _, path := range []string{"secret.txt", "sub2/b.txt", "sub", "a.csv.txt", "a.csv/", "x.csv/secret.txt", "subx", "sub/../secret.txt", "A.CSV"} { // not of the profile's patterns
			f.nothing(t, file(protocol.OpRead, "strict", path))
		}
		f.nothing(t, file(protocol.OpWrite, "strict", "a.csv"))
		f.nothing(t, file(protocol.OpDelete, "strict", "a.csv"))
	})
	f.row(t, "B8 what is no file", func(t *testing.T) {
		for name, make := range map[string]func(string) error{
			"fifo.csv":   func(p string) error { return syscall.Mkfifo(p, 0o644) },
			"socket.csv": func(p string) error { l, err := net.Listen("unix", p); keepSocket(t, l); return err },
			"folder.csv": func(p string) error { return os.Mkdir(p, 0o755) },
			"sparse.csv": func(p string) error {
				fh, err := os.Create(p)
				if err != nil {
					return err
				}
				defer fh.Close()
				return fh.Truncate(1 << 42)
			},
			"zero.csv": func(p string) error { return syscall.Mknod(p, syscall.S_IFCHR|0o666, 1<<8|5) },
		} {
			p := filepath.Join(f.in, name)
			if err := make(p); err != nil {
				if name == "zero.csv" { // only root makes devices
					continue
				}
				t.Fatal(name, err)
			}
			f.nothing(t, file(protocol.OpRead, "in", name))
			if name != "folder.csv" && name != "sparse.csv" {
				_ = f.ask(t, file(protocol.OpWrite, "in", name), "x")
			}
			os.RemoveAll(p)
		}
		link(t, "/proc/self/environ", "environ.csv")
		link(t, "/dev/zero", "devzero.csv")
		f.nothing(t, file(protocol.OpRead, "in", "environ.csv"))
		f.nothing(t, file(protocol.OpRead, "in", "devzero.csv"))
	})
	f.row(t, "B9 archives are never unpacked", func(t *testing.T) {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for _, name := range []string{"../made-by-zip", "/tmp/made-by-zip", "made-by-zip"} {
			w, err := z.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write([]byte("x"))
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		f.went(t, f.ask(t, file(protocol.OpWrite, "in", "slip.zip"), b.String()))
		defer os.Remove(filepath.Join(f.in, "slip.zip"))
		if got, err := os.ReadFile(filepath.Join(f.in, "slip.zip")); err != nil || !bytes.Equal(got, b.Bytes()) {
			t.Errorf("the archive is not what was sent: %d bytes, %v", len(got), err)
		}
		if _, err := os.Stat(filepath.Join(f.in, "made-by-zip")); err == nil {
			t.Error("it was unpacked")
		}
		_, st := f.send(t, "POST /v1/files/in/unpack?path=slip.zip HTTP/1.1\r\nHost: agent\r\n\r\n")
		st.Close()
	})
	f.row(t, "B10 listings", func(t *testing.T) { f.listings(t) })
	f.row(t, "B11 temporary names and partial uploads", func(t *testing.T) {
		up := file(protocol.OpWrite, "in", "up.csv")
		up.Upload, up.Partial = strings.Repeat("cd", 16), true
		f.went(t, f.ask(t, up, "half"))
		if a := f.ask(t, file(protocol.OpRead, "in", "up.csv"), ""); a.code() != protocol.CodeNotFound {
			t.Errorf("half an upload is visible: %s", a.body)
		}
		list := file(protocol.OpList, "in", "")
		list.Recursive = true
		if a := f.ask(t, list, ""); strings.Contains(a.body, "up.csv") || strings.Contains(a.body, "cdcd") {
			t.Errorf("a partial upload is listed: %s", a.body)
		}
		entries, _ := os.ReadDir(f.in)
		for _, e := range entries { // the agent's own temporaries are not the caller's to name
			if strings.HasPrefix(e.Name(), ".") {
				for _, op := range []protocol.Operation{protocol.OpRead, protocol.OpWrite, protocol.OpDelete} {
					f.nothing(t, file(op, "in", e.Name()))
				}
			}
		}
		for _, id := range []string{"../../etc", strings.Repeat("C", 32), "short", strings.Repeat("c", 33)} {
			r := file(protocol.OpWrite, "in", "x.csv")
			r.Upload = id
			f.nothing(t, r)
		}
	})
	f.row(t, "B16 quota", func(t *testing.T) {
		f.nothing(t, file(protocol.OpWrite, "full", "b")) // the disk's reserve is larger than the disk
		a := f.ask(t, file(protocol.OpWrite, "in", "big.csv"), strings.Repeat("x", 2_000_001))
		if a.code() != protocol.CodeTooLarge && a.code() != "cut" {
			t.Errorf("beyond max_size: %d %s", a.status, a.code())
		}
		id := nextID() // a terabyte, announced
		a, st := f.send(t, "PUT /v1/files/in/write?path=tera.csv HTTP/1.1\r\nHost: agent\r\nFairlead-Request-Id: "+id+"\r\nContent-Length: 1099511627776\r\n\r\nx")
		st.Close()
		if a.code() != protocol.CodeTooLarge {
			t.Errorf("a terabyte: %d %s %v", a.status, a.code(), a.err)
		}
		for _, name := range []string{"big.csv", "tera.csv"} {
			if _, err := os.Stat(filepath.Join(f.in, name)); err == nil {
				t.Errorf("%s was made", name)
			}
		}
	})
	f.row(t, "B19 the agent's own files inside a share", func(t *testing.T) {
		// A reload to such a file is refused; the share stays as it was.
		good, err := os.ReadFile(filepath.Join(f.dir, "agent.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.write(t, "agent.yaml", string(good))
		f.write(t, "agent.yaml", "version: 1\nfiles:\n  in: {base: "+f.dir+", allow: [list, read, write]}\n")
		testenv.Eventually(t, "the reload is refused", func() bool { return strings.Contains(f.log.String(), "the new configuration is refused") })
		for _, path := range []string{"agent.yaml", "data/identity.pem", "data/audit.key"} {
			f.nothing(t, file(protocol.OpRead, "in", path))
		}
	})
	f.row(t, "B20 line breaks in a path", func(t *testing.T) {
		for _, path := range []string{"x\r\n{\"forged\":true}", "x\",\"decision\":\"allow\"}", "x\n\n", "x\u2028y\x1b[2J", "\xff\xfe"} {
			a := f.ask(t, file(protocol.OpRead, "strict", path), "")
			ev := f.event(t, a.id)
			if ev.Decision != "deny" && ev.Code == "" || strings.ContainsAny(ev.raw, "\r\n\x1b\u2028") {
				t.Errorf("%q in the log: %s", path, ev.raw)
			}
			var again map[string]any
			if err := json.Unmarshal([]byte(ev.raw), &again); err != nil || again["forged"] != nil {
				t.Errorf("%q in the log: %v: %s", path, err, ev.raw)
			}
		}
	})
	if !t.Failed() {
		complete(t, "B")
	}
}

func keepSocket(t *testing.T, l net.Listener) {
	if l != nil {
		t.Cleanup(func() { l.Close() })
	}
}
