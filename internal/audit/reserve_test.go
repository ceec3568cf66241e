package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// crashed copies a log's folder as a crash of its writer would leave it.
func crashed(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "lock" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// Room that is kept ahead of the records is no record, for whoever looks: while the log is written, after a crash, at rest.
func TestReservedRoomIsNoRecord(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Key: testKey, Source: "a"}
	d, grown := realDisk(), make(chan struct{}, 1)
	d.grow = func(f *os.File, from, n int64) error {
		defer func() { grown <- struct{}{} }()
		return grow(f, from, n)
	}
	l, err := open(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 3; i++ {
		add(t, l, body(i))
	}
	path := segmentPath(cfg.Dir, 1)
	<-grown
	if b, err := os.ReadFile(path); err != nil || !bytes.HasSuffix(b, make([]byte, 256<<10)) {
		t.Fatalf("%v, no room is reserved", err)
	}
	if g, err := Peek(cfg.Dir); err != nil || g.Last.Seq != 3 || g.Bytes > 4096 {
		t.Errorf("%+v, %v", g, err)
	}
	image := crashed(t, cfg.Dir)
	if rep, err := Verify(image, nil, l.Head()); err != nil || rep.Records != 3 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || bytes.IndexByte(b, 0) >= 0 {
		t.Errorf("%v, a log at rest ends in %d bytes of zeros", err, len(b)-len(bytes.TrimRight(b, "\x00")))
	}

	// A line that a crash has torn stands before zeros, too.
	torn := crashed(t, image)
	b, err := os.ReadFile(segmentPath(torn, 1))
	if err != nil {
		t.Fatal(err)
	}
	end := bytes.LastIndexByte(b, '\n')
	copy(b[end+1:], `{"seq":4,"prev":"`)
	if err := os.WriteFile(segmentPath(torn, 1), b, 0o600); err != nil {
		t.Fatal(err)
	}
	var te *TamperError
	if _, err := Verify(torn, nil); !errors.As(err, &te) || !te.Torn || te.Seq != 4 {
		t.Errorf("%+v", err)
	}

	for dir, aside := range map[string]int{image: 0, torn: 1} {
		again := cfg
		again.Dir = dir
		l, err := Open(again)
		if err != nil {
			t.Fatal(err)
		}
		if seq := add(t, l, body(4)); seq != 4 {
			t.Errorf("the next record is %d", seq)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if rep := mustVerify(t, dir, l.Head()); rep.Records != 4 || rep.SetAside != aside {
			t.Errorf("%+v, want %d set aside", rep, aside)
		}
	}
}

// What an attacker hides behind zeros is found.
func TestRecordsBehindZerosAreRefused(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Source: "a"}
	fill(t, cfg, 5)
	path := segmentPath(cfg.Dir, 1)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.LastIndexByte(b[:len(b)-1], '\n') + 1
	hidden := append(append(bytes.Clone(b[:cut]), make([]byte, 100<<10)...), b[cut:]...)
	if err := os.WriteFile(path, hidden, 0o600); err != nil {
		t.Fatal(err)
	}
	var te *TamperError
	if _, err := Verify(cfg.Dir, nil); !errors.As(err, &te) || te.Torn {
		t.Errorf("%v", err)
	}
}

// Without room on the disk the log goes on.
func TestLogWithoutRoomAheadGoesOn(t *testing.T) {
	f := &faulty{fail: func(_ int, w string) bool { return w == "grow" }}
	cfg := Config{Dir: t.TempDir(), Key: testKey, Source: "a"}
	l, err := open(cfg, f.disk())
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 10; i++ {
		add(t, l, body(i))
	}
	if f.failures() != 1 || f.again != 0 {
		t.Errorf("%d attempts to reserve room, %d writes to a broken file", f.failures(), f.again)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if rep := mustVerify(t, cfg.Dir, l.Head()); rep.Records != 10 {
		t.Errorf("%+v", rep)
	}
}

// An event and a sealed one have the spelling that AppendMarshalled takes on trust.
func TestEventsAreMarshalledAsALogKeepsThem(t *testing.T) {
	e := Event{Kind: KindDenied, Reason: "a<b>&c\u2028\u2029\x00\xff\"\\\né", Detail: map[string]string{"refused": "<&>"}}
	plain, err := e.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &Recorder{Seal: func(_ string, p []byte) ([]byte, error) { return p, nil }}
	sealed, err := r.seal(&e, plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{plain, sealed} {
		if c, err := canonical(b); err != nil || !bytes.Equal(b, c) {
			t.Errorf("%s, a log keeps %s (%v)", b, c, err)
		}
	}
}
