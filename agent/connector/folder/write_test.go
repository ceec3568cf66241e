package folder

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

func TestWriteIsAtomicAndConditional(t *testing.T) {
	s := newSite(t, nil)
	r := s.write("f.txt", "one")
	if r.err != nil || r.Code != 201 || s.get("f.txt") != "one" || r.out.BytesIn != 3 {
		t.Fatalf("got %d %v %q", r.Code, r.err, s.get("f.txt"))
	}
	tag := r.Header().Get("ETag")
	if got := s.info(s.op(protocol.OpStat, "f.txt")).ETag; got != tag {
		t.Fatalf("write answers %s, stat %s", tag, got)
	}
	s.want("if-none-match * on a file", s.write("f.txt", "x", "If-None-Match", "*"), protocol.CodePrecondition)
	s.want("if-match other", s.write("f.txt", "x", "If-Match", `"other"`), protocol.CodePrecondition)
	s.want("if-match weak", s.write("f.txt", "x", "If-Match", "W/"+tag), protocol.CodePrecondition)
	s.want("if-match * on nothing", s.write("g.txt", "x", "If-Match", "*"), protocol.CodePrecondition)
	s.want("no folder", s.write("no/f", "x"), protocol.CodeNotFound)
	s.want("on a folder", s.write("", "x"), protocol.CodeInvalid)
	if s.get("f.txt") != "one" || s.leftovers() != 0 {
		t.Fatalf("a refused write left %q and %d temporary files", s.get("f.txt"), s.leftovers())
	}
	r = s.write("f.txt", "two", "If-Match", `"x", `+tag)
	if r.err != nil || r.Code != 200 || s.get("f.txt") != "two" {
		t.Fatalf("got %d %v", r.Code, r.err)
	}
	if r = s.write("new.txt", "", "If-None-Match", "*"); r.err != nil || r.Code != 201 || s.get("new.txt") != "" {
		t.Fatalf("got %d %v", r.Code, r.err)
	}
}

func TestIfMatchIsCheckedAgainWhenTheBodyHasArrived(t *testing.T) {
	s := newSite(t, nil)
	s.put("f", "old")
	tag := s.info(s.op(protocol.OpStat, "f")).ETag
	pr, pw := io.Pipe()
	done := make(chan result, 1)
	go func() {
		done <- s.do(&protocol.Request{Operation: protocol.OpWrite, Path: "f", Header: header("If-Match", tag)}, pr)
	}()
	if _, err := io.WriteString(pw, "late"); err != nil {
		t.Fatal(err)
	}
	if r := s.write("f", "newer"); r.err != nil {
		t.Fatal(r.err)
	}
	pw.Close()
	s.want("late write", <-done, protocol.CodePrecondition)
	if s.get("f") != "newer" || s.leftovers() != 0 {
		t.Fatalf("got %q", s.get("f"))
	}
}

func TestCutUploadLeavesNothingVisible(t *testing.T) {
	s := newSite(t, nil)
	s.put("f", "old")
	body := io.MultiReader(strings.NewReader("half"), iotestErr{io.ErrUnexpectedEOF})
	s.want("cut", s.do(&protocol.Request{Operation: protocol.OpWrite, Path: "f"}, body), protocol.CodeInterrupted)
	if s.get("f") != "old" || s.leftovers() != 0 {
		t.Fatalf("got %q and %d temporary files", s.get("f"), s.leftovers())
	}
	ctx, cancel := context.WithCancel(t.Context())
	body = io.MultiReader(strings.NewReader("half"), readerFunc(func([]byte) (int, error) { cancel(); return 0, io.EOF }))
	if r := s.doCtx(ctx, &protocol.Request{Operation: protocol.OpWrite, Path: "f"}, policy.Limits{}, body); !errors.Is(r.err, context.Canceled) {
		t.Fatalf("got %v", r.err)
	}
	if s.get("f") != "old" || s.leftovers() != 0 {
		t.Fatalf("got %q and %d temporary files", s.get("f"), s.leftovers())
	}
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestModeOfAFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	s := newSite(t, nil)
	s.put("old", "x")
	if err := os.Chmod(filepath.Join(s.base, "old"), 0o604); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"old", "new"} {
		if r := s.write(p, "y"); r.err != nil {
			t.Fatal(r.err)
		}
	}
	for p, want := range map[string]os.FileMode{"old": 0o604, "new": 0o640} {
		st, err := os.Stat(filepath.Join(s.base, p))
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", p, st.Mode(), want)
		}
	}
}

const upload = "00112233445566778899aabbccddeeff"

func TestResumableUpload(t *testing.T) {
	s := newSite(t, nil)
	part := func(offset int64, partial bool, body io.Reader) result {
		return s.do(&protocol.Request{Operation: protocol.OpWrite, Path: "big", Upload: upload, Offset: offset, Partial: partial}, body)
	}
	uploaded := func() int64 {
		i := s.info(s.do(&protocol.Request{Operation: protocol.OpStat, Path: "big", Upload: upload}, nil))
		if i.Uploaded == nil {
			t.Fatal("stat with an upload id tells no bytes")
		}
		return *i.Uploaded
	}
	if uploaded() != 0 {
		t.Fatal("an upload that never began has bytes")
	}
	if r := part(0, true, strings.NewReader("abc")); r.err != nil || r.Code != 202 || *s.info(r).Uploaded != 3 {
		t.Fatalf("got %d %v", r.Code, r.err)
	}
	s.want("cut part", part(3, true, io.MultiReader(strings.NewReader("de"), iotestErr{io.ErrUnexpectedEOF})), protocol.CodeInterrupted)
	if uploaded() != 5 {
		t.Fatalf("a cut part left %d bytes, want 5", uploaded())
	}
	r := part(3, true, strings.NewReader("x"))
	s.want("wrong offset", r, protocol.CodeRange)
	if d := r.err.(*protocol.Error).Detail; d != "5" {
		t.Fatalf("the right offset is told as %q", d)
	}
	s.want("too far", part(6, true, strings.NewReader("x")), protocol.CodeRange)
	s.want("temporary file is not a file of the profile", s.read(partName(upload, "big")), protocol.CodeDenied)
	if paths, _ := s.all(protocol.Request{}); len(paths) != 0 {
		t.Fatalf("listed %q", paths)
	}
	if r := part(5, false, strings.NewReader("f")); r.err != nil || r.Code != 201 || s.get("big") != "abcdef" {
		t.Fatalf("got %d %v %q", r.Code, r.err, s.get("big"))
	}
	if uploaded() != 0 || s.leftovers() != 0 {
		t.Fatal("a finished upload is still there")
	}
	// Two requests must not write one upload at the same time.
	pr, pw := io.Pipe()
	done := make(chan result, 1)
	go func() { done <- part(0, true, pr) }()
	if _, err := io.WriteString(pw, "1"); err != nil {
		t.Fatal(err)
	}
	s.wait = time.Millisecond
	s.want("second writer", part(0, true, strings.NewReader("2")), protocol.CodeConflict)
	// But one that comes while the first is on its way out gets its turn, and learns where the first ended.
	s.wait = time.Minute
	second := make(chan result, 1)
	go func() { second <- part(0, true, strings.NewReader("2")) }()
	if _, err := io.WriteString(pw, "1"); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if r := <-done; r.err != nil {
		t.Fatal(r.err)
	}
	if r := <-second; r.err == nil || r.err.(*protocol.Error).Code != protocol.CodeRange || r.err.(*protocol.Error).Detail != "2" {
		t.Fatalf("the second writer's turn: %v", r.err)
	}
	if r := part(2, false, nil); r.err != nil || s.get("big") != "11" {
		t.Fatalf("an empty last part: %v %q", r.err, s.get("big"))
	}
}

func TestUploadThatGrowsTooLargeIsDropped(t *testing.T) {
	s := newSite(t, func(c *Config) { c.MaxSize = 4 })
	w := func(offset int64, body string) result {
		return s.do(&protocol.Request{Operation: protocol.OpWrite, Path: "f", Upload: upload, Offset: offset, Partial: true}, strings.NewReader(body))
	}
	if r := w(0, "abc"); r.err != nil {
		t.Fatal(r.err)
	}
	s.want("second part", w(3, "de"), protocol.CodeTooLarge)
	if s.leftovers() != 0 {
		t.Fatal("an upload that can never end was kept")
	}
	s.want("declared", s.write("g", "12345", "Content-Length", "5"), protocol.CodeTooLarge)
	s.want("undeclared", s.write("g", "12345"), protocol.CodeTooLarge)
	if r := s.write("g", "1234"); r.err != nil || s.leftovers() != 0 {
		t.Fatal(r.err)
	}
}

func TestZ2SweepRemovesWhatAKilledAgentLeft(t *testing.T) {
	top := t.TempDir()
	if err := os.Mkdir(filepath.Join(top, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	age := func(name string, d time.Duration) string {
		p := filepath.Join(top, name)
		if err := os.WriteFile(p, []byte("x"), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, time.Time{}, time.Now().Add(-d)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	dead := []string{age("sub/.fairlead-0a.tmp", 2*time.Minute), age(".fairlead-0b.part", 25*time.Hour)}
	alive := []string{age(".fairlead-0c.part", 23*time.Hour), age("sub/f.tmp", 100*time.Hour), age(".fairlead-note", 100*time.Hour)}
	held := age(".fairlead-0d.tmp", 2*time.Minute) // of another agent with the same folder, that still writes
	h, err := os.OpenFile(held, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if ok, err := tryLock(h); !ok {
		t.Fatal(err)
	}
	f, err := New(Config{Name: "hr", Base: top}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	waitFor(t, func() bool {
		return !slices.ContainsFunc(dead, func(p string) bool { _, err := os.Stat(p); return err == nil })
	})
	for _, p := range append(alive, held) {
		if _, err := os.Stat(p); err != nil {
			t.Errorf("%v was swept", err)
		}
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 10 s")
		}
	}
}

func TestDelete(t *testing.T) {
	s := newSite(t, nil)
	s.put("d/f", "x")
	tag := s.info(s.op(protocol.OpStat, "d/f")).ETag
	s.want("full folder", s.op(protocol.OpDelete, "d"), protocol.CodeConflict)
	s.want("the base", s.op(protocol.OpDelete, ""), protocol.CodeInvalid)
	s.want("absent", s.op(protocol.OpDelete, "d/g"), protocol.CodeNotFound)
	s.want("precondition", s.do(&protocol.Request{Operation: protocol.OpDelete, Path: "d/f", Header: header("If-Match", `"x"`)}, nil), protocol.CodePrecondition)
	if r := s.do(&protocol.Request{Operation: protocol.OpDelete, Path: "d/f", Header: header("If-Match", tag)}, nil); r.err != nil || r.Code != 204 {
		t.Fatal(r.err)
	}
	if r := s.op(protocol.OpDelete, "d"); r.err != nil || r.Code != 204 {
		t.Fatal(r.err)
	}
}

func TestMove(t *testing.T) {
	s := newSite(t, nil)
	s.put("a", "A")
	s.put("b", "B")
	s.put("d/x/y", "Y")
	move := func(from, to string, overwrite bool) result {
		return s.do(&protocol.Request{Operation: protocol.OpMove, Path: from, To: to, Overwrite: overwrite}, nil)
	}
	s.want("onto a file", move("a", "b", false), protocol.CodeConflict)
	s.want("onto a folder", move("a", "d", true), protocol.CodeConflict)
	s.want("folder onto a file", move("d", "a", true), protocol.CodeConflict)
	s.want("folder into itself", move("d", "d/x/z", false), protocol.CodeInvalid)
	s.want("absent", move("nope", "z", false), protocol.CodeNotFound)
	s.want("no folder there", move("a", "nope/z", false), protocol.CodeNotFound)
	if s.get("a") != "A" || s.get("b") != "B" {
		t.Fatal("a refused move did something")
	}
	if r := move("a", "b", true); r.err != nil || s.get("b") != "A" {
		t.Fatal(r.err)
	}
	if r := move("b", "d/x/b", false); r.err != nil || s.get("d/x/b") != "A" {
		t.Fatal(r.err)
	}
	if r := move("d/x", "e", false); r.err != nil || s.get("e/y") != "Y" {
		t.Fatal(r.err)
	}
}

func TestMkdir(t *testing.T) {
	s := newSite(t, nil)
	s.put("f", "x")
	if r := s.op(protocol.OpMkdir, "a/b/c"); r.err != nil || r.Code != 201 || !s.info(r).Folder {
		t.Fatal(r.err)
	}
	if r := s.op(protocol.OpMkdir, "a/b/c"); r.err != nil || r.Code != 200 {
		t.Fatal(r.err)
	}
	s.want("on a file", s.op(protocol.OpMkdir, "f"), protocol.CodeConflict)
	s.want("below a file", s.op(protocol.OpMkdir, "f/a"), protocol.CodeConflict)
	s.want("the base", s.op(protocol.OpMkdir, ""), protocol.CodeInvalid)
}
