package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

var at = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// stage makes the folder to pack; touched says when its files were made, which must not matter.
func stage(t *testing.T, touched time.Time) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "fairlead-1")
	for name, mode := range map[string]fs.FileMode{"fairlead.exe": 0o755, "b.txt": 0o600, "docs/a.md": 0o664} {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("content of "+name), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, touched, touched); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const want = `fairlead-1/b.txt 0644 content of b.txt
fairlead-1/docs/a.md 0644 content of docs/a.md
fairlead-1/fairlead.exe 0755 content of fairlead.exe
`

func TestSameContentGivesTheSameBytes(t *testing.T) {
	for _, name := range []string{"x.tar.gz", "x.zip"} {
		t.Run(name, func(t *testing.T) {
			var all [][]byte
			for i := range 2 {
				out := filepath.Join(t.TempDir(), name)
				if err := pack(out, stage(t, at.Add(time.Duration(i)*time.Hour)), at); err != nil {
					t.Fatal(err)
				}
				b, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, b)
			}
			if !bytes.Equal(all[0], all[1]) {
				t.Error("two archives of the same content differ")
			}
			got := list(t, name, all[0])
			if got != want {
				t.Errorf("the archive holds\n%swant\n%s", got, want)
			}
		})
	}
}

func list(t *testing.T, name string, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	line := func(name string, mode fs.FileMode, when time.Time, r io.Reader) {
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !when.Equal(at) {
			t.Errorf("%s has the time %v", name, when)
		}
		fmt.Fprintf(&out, "%s %04o %s\n", name, mode.Perm(), content)
	}
	if filepath.Ext(name) == ".zip" {
		z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range z.File {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			line(f.Name, f.Mode(), f.Modified, r)
			r.Close()
		}
		return out.String()
	}
	gz, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s has an owner", h.Name)
		}
		line(h.Name, fs.FileMode(h.Mode), h.ModTime, tr)
	}
}

func TestPackRefuses(t *testing.T) {
	dir := stage(t, at)
	if err := pack(filepath.Join(t.TempDir(), "x.rar"), dir, at); err == nil {
		t.Error("an unknown form was packed")
	}
	if runtime.GOOS == "windows" {
		t.Skip("links want rights there")
	}
	if err := os.Symlink("b.txt", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "x.zip")
	if err := pack(out, dir, at); err == nil {
		t.Error("a link was packed")
	}
	if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) != 0 {
		t.Errorf("a failed archive leaves %v (%v)", left, err)
	}
}
