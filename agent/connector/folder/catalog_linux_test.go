package folder

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fairleadhq/fairlead/protocol"
)

// watch asks the kernel to note everything that is done to files and folders; the function that it gives tells what was.
func watch(t *testing.T, paths ...string) func() []string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	names := map[int32]string{}
	for _, p := range paths {
		wd, err := unix.InotifyAddWatch(fd, p, unix.IN_ALL_EVENTS)
		if err != nil {
			t.Fatal(err)
		}
		names[int32(wd)] = p
	}
	return func() (seen []string) {
		buf := make([]byte, 64<<10)
		for {
			n, err := unix.Read(fd, buf)
			if n <= 0 || err != nil {
				return seen
			}
			for off := 0; off+unix.SizeofInotifyEvent <= n; {
				ev := (*unix.InotifyEvent)(unsafe.Pointer(&buf[off])) //nolint:gosec // the kernel's own layout
				name := string(buf[off+unix.SizeofInotifyEvent : off+unix.SizeofInotifyEvent+int(ev.Len)])
				seen = append(seen, fmt.Sprintf("%s/%s: %#x", names[ev.Wd], strings.TrimRight(name, "\x00"), ev.Mask))
				off += unix.SizeofInotifyEvent + int(ev.Len)
			}
		}
	}
}

// treasure puts files outside, and gives what proves afterwards that none was touched.
func (s *site) treasure() (untouched func()) {
	s.t.Helper()
	dir := filepath.Join(s.outside, "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	files := []string{filepath.Join(s.outside, "canary"), filepath.Join(dir, "f"), filepath.Join(dir, "new"), filepath.Join(dir, "own")}
	for _, f := range files {
		if err := os.WriteFile(f, []byte("canary"), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	before := snapshot(s.t, s.outside)
	seen := watch(s.t, append(files, s.outside, dir)...)
	return func() {
		s.t.Helper()
		if list := seen(); len(list) > 0 {
			s.t.Errorf("%d accesses outside the base, the first: %s", len(list), list[0])
		}
		if after := snapshot(s.t, s.outside); after != before {
			s.t.Errorf("outside changed:\n%s\nwas\n%s", after, before)
		}
	}
}

func symlink(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func TestTheWatchSeesAnAccess(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	seen := watch(t, p)
	if _, err := os.ReadFile(p); err != nil {
		t.Fatal(err)
	}
	if len(seen()) == 0 {
		t.Fatal("the oracle of these tests is blind")
	}
}

func TestCatalogBLinks(t *testing.T) {
	t.Run("B2 trailing slashes", func(t *testing.T) {
		s := newSite(t, nil)
		untouched := s.treasure()
		s.put("own", "mine")
		symlink(t, filepath.Join(s.outside, "dir"), filepath.Join(s.base, "link"))
		for _, p := range []string{"../", "link/", "link//", "own/", "../outside/"} {
			s.every(p)
		}
		// The library below must refuse these too: CVE-2025-22873, CVE-2026-39822.
		for _, p := range []string{"../", "link/", "link/f", "link/../../outside/canary"} {
			if f, err := s.root.Open(p); err == nil {
				f.Close()
				t.Errorf("os.Root opened %q", p)
			}
		}
		untouched()
	})
	t.Run("B3 symbolic links", func(t *testing.T) {
		s := newSite(t, nil)
		untouched := s.treasure()
		s.put("own", "mine")
		s.put("sub/in", "inside")
		for name, target := range map[string]string{
			"abs": filepath.Join(s.outside, "canary"), "rel": "../outside/canary", "dirabs": filepath.Join(s.outside, "dir"), "dirrel": "../outside/dir", "chain1": "chain2", "chain2": "dirrel", "chain3": "chain1/f",
			"dangling": filepath.Join(s.outside, "made"), "danglingrel": "../outside/made2", "up": "..", "root": "/", "loop": "loop", "self": ".", "inside": "sub/in", "insidedir": "sub", "sub/up": "../..",
		} {
			symlink(t, target, filepath.Join(s.base, name))
		}
		before := snapshot(t, s.base)
		for _, p := range []string{
			"abs", "rel", "dirabs", "dirrel", "dirabs/f", "dirrel/f", "dirrel/new", "chain1", "chain1/f", "chain2/f", "chain3", "dangling", "danglingrel", "dangling/x", "up", "up/outside/canary", "root/etc/passwd",
			"loop", "loop/x", "self", "self/own", "inside", "insidedir", "insidedir/in", "sub/up", "sub/up/outside/canary", "dirrel/a/b/c",
		} {
			s.every(p)
		}
		if got, _ := s.all(protocol.Request{Recursive: true}); !slices.Equal(got, []string{"own", "sub", "sub/in"}) {
			t.Errorf("listed %q", got)
		}
		if after := snapshot(t, s.base); after != before {
			t.Errorf("the base changed:\n%s\nwas\n%s", after, before)
		}
		untouched()
	})
	t.Run("B4 links swapped during every operation", func(t *testing.T) { catalogB4(t) })
	t.Run("B5 hard links", func(t *testing.T) {
		for mode, want := range map[Hardlinks]struct{ read, change protocol.Code }{
			"": {"", protocol.CodeDenied}, RejectAlways: {protocol.CodeDenied, protocol.CodeDenied}, RejectNever: {"", ""},
		} {
			s := newSite(t, func(c *Config) { c.Hardlinks = mode })
			out := filepath.Join(s.outside, "file")
			if err := os.WriteFile(out, []byte("outside"), 0o644); err != nil {
				t.Fatal(err)
			}
			s.put("own", "mine")
			for _, n := range []string{"a", "b", "c"} {
				if err := os.Link(out, filepath.Join(s.base, n)); err != nil {
					t.Fatal(err)
				}
			}
			s.want("read", s.read("a"), want.read)
			s.want("stat", s.op(protocol.OpStat, "a"), want.read)
			paths, _ := s.all(protocol.Request{})
			if slices.Contains(paths, "a") != (want.read == "") {
				t.Errorf("%q: listed %q", mode, paths)
			}
			s.want("write", s.write("a", "new"), want.change)
			s.want("delete", s.op(protocol.OpDelete, "b"), want.change)
			s.want("move", s.do(&protocol.Request{Operation: protocol.OpMove, Path: "c", To: "d"}, nil), want.change)
			if mode != RejectNever {
				s.want("move onto", s.do(&protocol.Request{Operation: protocol.OpMove, Path: "own", To: "a", Overwrite: true}, nil), want.change)
			}
			// A write replaces the name and never the bytes behind it, whatever the mode.
			if b, err := os.ReadFile(out); err != nil || string(b) != "outside" {
				t.Errorf("%q: the file outside is now %q %v", mode, b, err)
			}
		}
	})
	t.Run("B8 what is no file", func(t *testing.T) {
		s := newSite(t, func(c *Config) { c.MaxSize = 1 << 20 })
		s.put("own", "mine")
		if err := unix.Mkfifo(filepath.Join(s.base, "fifo"), 0o644); err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("unix", filepath.Join(s.base, "socket"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		paths := []string{"fifo", "socket", "environ", "zero"}
		symlink(t, "/proc/self/environ", filepath.Join(s.base, "environ"))
		symlink(t, "/dev/zero", filepath.Join(s.base, "zero"))
		if err := unix.Mknod(filepath.Join(s.base, "device"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))); err == nil {
			paths = append(paths, "device")
		} else {
			t.Logf("no device node could be made here: %v", err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, p := range paths {
				s.every(p)
			}
		}()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatal("an operation hangs on what is no file")
		}
		if got, _ := s.all(protocol.Request{}); !slices.Equal(got, []string{"own"}) {
			t.Errorf("listed %q", got)
		}
		// A pipe that is put there between look and open does not hold up the open.
		f, err := s.root.OpenFile("fifo", os.O_RDONLY|nonblock, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		big, err := os.Create(filepath.Join(s.base, "sparse"))
		if err != nil {
			t.Fatal(err)
		}
		defer big.Close()
		size := int64(1 << 62)
		for big.Truncate(size) != nil {
			size /= 2
		}
		s.want(fmt.Sprintf("a sparse file of %d GiB", size>>30), s.read("sparse"), protocol.CodeTooLarge)
		if err := os.Mkdir(filepath.Join(s.base, "dir"), 0o755); err != nil {
			t.Fatal(err)
		}
		s.want("folder as file", s.read("dir"), protocol.CodeInvalid)
		s.want("write onto a folder", s.write("dir", "x"), protocol.CodeConflict)
	})
	t.Run("B11 temporary names", func(t *testing.T) {
		s := newSite(t, nil)
		untouched := s.treasure()
		s.put("own", "mine")
		s.every(".fairlead-00.tmp")
		s.every(".FAIRLEAD-00.part")
		s.every("sub/.fairlead-x/y")
		// Somebody at the site who knows the upload's id puts a link, or a second name of a file of his, in its place.
		part := filepath.Join(s.base, partName(upload, "f"))
		for _, plant := range []func() error{
			func() error { return os.Symlink(filepath.Join(s.outside, "canary"), part) },
			func() error { return os.Symlink(filepath.Join(s.outside, "made"), part) },
			func() error { return os.Link(filepath.Join(s.base, "own"), part) },
			func() error { return unix.Mkfifo(part, 0o666) },
		} {
			if err := plant(); err != nil {
				t.Fatal(err)
			}
			for _, partial := range []bool{false, true} {
				if r := s.do(&protocol.Request{Operation: protocol.OpWrite, Path: "f", Upload: upload, Partial: partial}, strings.NewReader("evil")); r.err == nil {
					t.Error("wrote through what was planted")
				}
			}
			if err := os.Remove(part); err != nil {
				t.Fatal(err)
			}
		}
		if s.get("own") != "mine" {
			t.Error("wrote to another file by its second name")
		}
		// While a body streams its temporary file is hidden and its name cannot be guessed.
		names := map[string]bool{}
		for range 8 {
			var in []string
			body := readerFunc(func([]byte) (int, error) {
				all, _ := os.ReadDir(s.base)
				for _, e := range all {
					if reserved(e.Name()) {
						in = append(in, e.Name())
					}
				}
				if got, _ := s.all(protocol.Request{}); !slices.Equal(got, []string{"own"}) {
					t.Errorf("listed %q", got)
				}
				return 0, os.ErrClosed
			})
			s.do(&protocol.Request{Operation: protocol.OpWrite, Path: "g"}, body)
			if len(in) != 1 || names[in[0]] || len(in[0]) < 40 {
				t.Fatalf("temporary names %q", in)
			}
			names[in[0]] = true
		}
		if s.leftovers() != 0 {
			t.Error("a temporary file is left")
		}
		untouched()
	})
}

// catalogB4 runs every operation while a file, a folder, and a folder on the way turn into links to the outside and back.
func catalogB4(t *testing.T) {
	ops := 100_000
	if testing.Short() {
		ops = 5_000
	}
	s := newSite(t, nil)
	s.sync = func(*os.File) error { return nil } // a disk's patience is not what is tested
	untouched := s.treasure()
	s.put("f", "mine")
	s.put("d/f", "mine")
	s.put("p/dir/f", "mine")
	in := func(p string) string { return filepath.Join(s.base, p) }
	var stop atomic.Bool
	var swaps atomic.Int64
	swapped := make(chan struct{})
	go func() {
		defer close(swapped)
		// Each is put aside and a link to the outside takes its name, then it comes back. The names put aside are reserved,
		// so that no operation meets them. What an operation made in a gap goes.
		for i := 0; !stop.Load(); i++ {
			for _, c := range []struct{ name, target, file string }{{"f", "canary", "f"}, {"d", "dir", "d/f"}, {"p", ".", "p/dir/f"}} {
				aside, link := in(reservedPrefix+c.name), in(reservedPrefix+"link-"+c.name)
				if _, err := os.Lstat(in(c.file)); err != nil {
					_ = os.RemoveAll(in(c.name))
					_ = os.MkdirAll(filepath.Dir(in(c.file)), 0o755)
					_ = os.WriteFile(in(c.file), []byte("mine"), 0o644)
				}
				_ = os.Symlink(filepath.Join(s.outside, c.target), link)
				_ = os.Rename(in(c.name), aside)
				if os.Rename(link, in(c.name)) == nil {
					swaps.Add(1)
				}
				_ = os.RemoveAll(in(c.name)) // a link goes by itself, with nothing behind it
				_ = os.Rename(aside, in(c.name))
				_ = os.RemoveAll(aside)
			}
		}
	}()
	paths := []string{"f", "d/f", "p/dir/f", "d/new", "p/dir/new", "d"}
	done := map[protocol.Operation]int{}
	for i := range ops {
		p := paths[i%len(paths)]
		r := &protocol.Request{Path: p}
		var res result
		switch i / len(paths) % 9 {
		case 0, 1:
			r.Operation = protocol.OpRead
			res = s.do(r, nil)
			if strings.Contains(res.Body.String(), "canary") {
				t.Fatalf("read %q from outside", res.Body)
			}
		case 2, 3:
			r.Operation = protocol.OpWrite
			res = s.do(r, strings.NewReader("mine"))
		case 4:
			r.Operation = protocol.OpList
			r.Recursive = i%2 == 0
			r.Path = []string{"", "d", "p/dir"}[i%3]
			res = s.do(r, nil)
			var l protocol.FileList
			_ = json.Unmarshal(res.Body.Bytes(), &l)
			for _, f := range l.Files {
				if f.Path == "canary" || strings.HasSuffix(f.Path, "/own") {
					t.Fatalf("listed %q from outside", f.Path)
				}
			}
		case 5:
			r.Operation = protocol.OpStat
			res = s.do(r, nil)
		case 6:
			r.Operation, r.Path = protocol.OpDelete, []string{"d/new", "p/dir/new", "d/m"}[i%3]
			res = s.do(r, nil)
		case 7:
			r.Operation, r.Path, r.To, r.Overwrite = protocol.OpMove, paths[i%5], paths[(i+1)%5], true
			res = s.do(r, nil)
		case 8:
			r.Operation, r.Path = protocol.OpMkdir, []string{"d/m", "p/dir/m", "p/x/y"}[i%3]
			res = s.do(r, nil)
		}
		if res.err == nil {
			done[r.Operation]++
		}
	}
	stop.Store(true)
	<-swapped
	t.Logf("%d swaps; operations that went through: %v", swaps.Load(), done)
	if swaps.Load() < int64(ops)/50 {
		t.Errorf("only %d swaps for %d operations", swaps.Load(), ops)
	}
	for _, op := range []protocol.Operation{protocol.OpRead, protocol.OpWrite, protocol.OpList, protocol.OpStat, protocol.OpDelete, protocol.OpMove, protocol.OpMkdir} {
		if done[op] == 0 {
			t.Errorf("no %s ever went through: the race was not run", op)
		}
	}
	untouched()
}
