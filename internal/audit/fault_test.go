package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errInjected = errors.New("injected disk fault")

// faulty counts the calls to the disk and fails some. A write that fails has written half.
type faulty struct {
	mu     sync.Mutex
	calls  int
	fail   func(call int, what string) bool
	failed int
	broken map[*os.File]bool
	again  int // writes and syncs of a file that had failed
}

func (f *faulty) hit(what string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.fail != nil && f.fail(f.calls, what) {
		f.failed++
		return true
	}
	return false
}

func (f *faulty) count() int { f.mu.Lock(); defer f.mu.Unlock(); return f.calls }

func (f *faulty) failures() int { f.mu.Lock(); defer f.mu.Unlock(); return f.failed }

func (f *faulty) disk() disk {
	d, r := realDisk(), realDisk()
	f.broken = map[*os.File]bool{}
	touch := func(file *os.File, broke bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.broken[file] {
			f.again++
		}
		if broke {
			f.broken[file] = true
		}
	}
	d.open = func(path string, flag int) (*os.File, error) {
		if f.hit("open") {
			return nil, errInjected
		}
		return r.open(path, flag)
	}
	d.write = func(file *os.File, p []byte) error {
		broke := f.hit("write")
		touch(file, broke)
		if broke {
			_ = r.write(file, p[:len(p)/2])
			return errInjected
		}
		return r.write(file, p)
	}
	d.grow = func(file *os.File, from, n int64) error {
		broke := f.hit("grow")
		touch(file, false) // it takes nothing that was given to it for good
		if broke {
			_ = r.grow(file, from, n/2)
			return errInjected
		}
		return r.grow(file, from, n)
	}
	d.sync = func(file *os.File) error {
		broke := f.hit("sync")
		touch(file, broke)
		if broke {
			return errInjected
		}
		return nil // the process lives on: nothing depends on a real one, and these tests make thousands
	}
	d.rename = func(a, b string) error {
		if f.hit("rename") {
			return errInjected
		}
		return r.rename(a, b)
	}
	d.remove = func(a string) error {
		if f.hit("remove") {
			return errInjected
		}
		return r.remove(a)
	}
	d.syncDir = func(a string) error {
		if f.hit("syncDir") {
			return errInjected
		}
		return nil
	}
	return d
}

// history is what a caller knows.
type history struct {
	acked   map[uint64]string // by number, what Wait said nil for
	refused map[string]bool   // bodies that got an error
	pad     int
	disk    disk // to reopen with; zero: the real one
}

// work appends n records one after another, releasing some, and notes what it was told.
func (h *history) work(l *Log, from, n int) {
	for i := from; i < from+n; i++ {
		b := body(i)
		if h.pad > 0 {
			b = fmt.Sprintf(`{"n":%d,"pad":"%s"}`, i, strings.Repeat("x", h.pad))
		}
		tk, err := l.Append([]byte(b))
		if err == nil {
			err = tk.Wait(context.Background())
		}
		if err != nil {
			h.refused[b] = true
			continue
		}
		h.acked[tk.Seq()] = b
		if i%10 == 0 {
			l.Release(tk.Seq() - 5)
		}
	}
}

// check reopens the log and holds it against the history.
func (h *history) check(t *testing.T, cfg Config) {
	t.Helper()
	d := realDisk()
	if h.disk.open != nil {
		d = h.disk
	}
	l, err := open(cfg, d)
	if err != nil {
		t.Fatalf("reopen: %v", err)
	}
	stored := map[uint64]string{}
	for after := l.Oldest() - 1; ; {
		rs, err := l.Read(after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(rs) == 0 {
			break
		}
		for _, r := range rs {
			stored[r.Seq] = string(r.Body)
			after = r.Seq
		}
	}
	oldest := l.Oldest()
	for seq, b := range h.acked {
		if seq >= oldest && stored[seq] != b {
			t.Fatalf("record %d was acknowledged as %s and is %q", seq, b, stored[seq])
		}
	}
	head := l.Head()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(cfg.Dir, testPub(), head); err != nil {
		t.Fatal(err)
	}
}

// TestFailEachCall fails call 1 to the disk, then call 2, and so on until a whole run passes without reaching the fault: once
// with that one fault alone and once with all calls failing from there on.
func TestFailEachCall(t *testing.T) {
	for _, forever := range []bool{false, true} {
		t.Run(fmt.Sprintf("forever=%v", forever), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				step := 1
				if testing.Short() {
					step = 9
				}
				for n := 1; ; n += step {
					cfg := Config{
						Dir: t.TempDir(), Source: "agt_x", Key: testKey, SegmentBytes: 20000, MaxBytes: MinBudget,
						CheckpointEvery: 4, RetryEvery: 10 * time.Millisecond, CheckpointInterval: time.Second,
					}
					f := &faulty{fail: func(call int, _ string) bool { return call == n || forever && call > n }}
					h := &history{acked: map[uint64]string{}, refused: map[string]bool{}, pad: 5000}
					l, err := open(cfg, f.disk())
					if err == nil {
						h.work(l, 1, 30)
						time.Sleep(50 * time.Millisecond) // fake time: lets the log try to recover
						healthy := l.Status().Err == nil
						if !forever && !healthy {
							t.Fatalf("call %d failed: the log did not recover: %v", n, l.Status().Err)
						}
						if forever && f.failures() > 0 && healthy && f.count() > n+10 {
							t.Fatalf("call %d failed and all after it, yet the log is well", n)
						}
						h.work(l, 101, 20)
						_ = l.Close()
					}
					if f.again > 0 {
						t.Fatalf("call %d failed: a file that had failed was written or synced again", n)
					}
					if f.failed == 0 {
						t.Logf("%d calls failed one by one", n-1)
						if _, err := os.Stat(segmentPath(cfg.Dir, 1)); n < 100 || len(h.acked) != 50 || !errors.Is(err, os.ErrNotExist) {
							t.Fatalf("a run has %d calls and %d records, and deletes nothing: %v", n, len(h.acked), err)
						}
						return
					}
					f.fail, h.disk = nil, f.disk()
					h.check(t, cfg)
				}
			})
		})
	}
}

// TestNothingIsAcknowledgedAfterAFault: of the records that wait together when a sync fails none is acknowledged.
func TestNothingIsAcknowledgedAfterAFault(t *testing.T) {
	for _, what := range []string{"write", "sync"} {
		t.Run("Z16 "+what, func(t *testing.T) {
			var arm sync.Mutex
			armed := false
			f := &faulty{fail: func(_ int, w string) bool { arm.Lock(); defer arm.Unlock(); return armed && w == what }}
			cfg := Config{Dir: t.TempDir(), Key: testKey, RetryEvery: time.Hour, CheckpointInterval: time.Hour}
			l, err := open(cfg, f.disk())
			if err != nil {
				t.Fatal(err)
			}
			add(t, l, body(1))
			head := l.Head()
			arm.Lock()
			armed = true
			arm.Unlock()
			var tickets []*Ticket
			for i := 2; i < 50; i++ {
				tk, err := l.Append([]byte(body(i)))
				if err != nil {
					break
				}
				tickets = append(tickets, tk)
			}
			for _, tk := range tickets {
				if err := tk.Wait(t.Context()); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errInjected) {
					t.Fatalf("record %d: %v", tk.Seq(), err)
				}
			}
			if _, err := l.Append([]byte(`1`)); !errors.Is(err, ErrUnavailable) {
				t.Fatalf("append to a bad log: %v", err)
			}
			if l.Head() != head {
				t.Fatal("the head moved")
			}
			if rs, err := l.Read(0, 10); err != nil || len(rs) != 1 {
				t.Fatalf("a bad log cannot be read: %d %v", len(rs), err)
			}
			if err := l.Close(); !errors.Is(err, errInjected) {
				t.Fatalf("Close says %v", err)
			}
			(&history{acked: map[uint64]string{1: body(1)}}).check(t, cfg)
		})
	}
}

// TestRecoversByItself: the unacknowledged bytes are set aside, the numbers go on without a gap and the chain holds.
func TestRecoversByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		full := false
		f := &faulty{fail: func(_ int, w string) bool { mu.Lock(); defer mu.Unlock(); return full && w == "write" }}
		cfg := Config{Dir: t.TempDir(), Key: testKey, Source: "a"}
		l, err := open(cfg, f.disk())
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i <= 10; i++ {
			add(t, l, body(i))
		}
		before, err := os.Stat(segmentPath(cfg.Dir, 1))
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		full = true
		mu.Unlock()
		tk, err := l.Append([]byte(body(666)))
		if err == nil {
			err = tk.Wait(t.Context())
		}
		if !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if l.Status().Err == nil {
			t.Fatal("well although the disk is full")
		}
		mu.Lock()
		full = false
		mu.Unlock()
		time.Sleep(2 * time.Second) // Z14: resumes by itself within 5 s
		if seq := add(t, l, body(11)); seq != 11 {
			t.Fatalf("the next record is %d", seq)
		}
		after, err := os.Stat(segmentPath(cfg.Dir, 1))
		if err != nil || os.SameFile(before, after) {
			t.Fatalf("the segment is on the inode that failed (%v)", err)
		}
		head := l.Head()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		rep := mustVerify(t, cfg.Dir, head)
		if rep.Records != 11 || rep.SetAside != 1 {
			t.Fatalf("%+v", rep)
		}
	})
}

// TestTornTail cuts the last segment at each byte and, apart, fills its end with zeros, as a crash may.
func TestTornTail(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), CheckpointEvery: 1 << 30, CheckpointInterval: time.Hour, Source: "a"}
	fill(t, cfg, 5)
	path := segmentPath(cfg.Dir, 1)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	fifth := len(whole) - len(lines[4])
	for cut := fifth; cut < len(whole); cut++ {
		for _, tail := range [][]byte{nil, make([]byte, 37), []byte("\n"), lines[4][:9]} {
			if err := os.WriteFile(path, append(bytes.Clone(whole[:cut]), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(cfg)
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			want := uint64(4)
			if cut == len(whole)-1 && string(tail) == "\n" {
				want = 5
			}
			if l.Head().Seq != want {
				t.Fatalf("cut at %d: head %d", cut, l.Head().Seq)
			}
			add(t, l, body(5))
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if rep, err := Verify(cfg.Dir, nil); err != nil || rep.Last.Seq != want+1 {
				t.Fatalf("cut at %d: %+v %v", cut, rep, err)
			}
		}
	}
	if bad, err := filesWith(cfg.Dir, ".bad"); err != nil || len(bad) == 0 || len(bad) > maxAside {
		t.Fatalf("%d files set aside (%v)", len(bad), err)
	}
}

// TestOpenRefusesWhatWasAcknowledged: damage to records that the log itself says were durable is no torn tail.
func TestOpenRefusesWhatWasAcknowledged(t *testing.T) {
	for _, c := range []struct {
		name string
		key  bool
		hurt func(dir string, lines [][]byte) [][]byte
		seq  uint64
	}{
		{"Z17 flipped bit in the middle", false, func(_ string, l [][]byte) [][]byte { l[2][90] ^= 1; return l }, 3},
		{"Z17 zeroed line", false, func(_ string, l [][]byte) [][]byte { clear(l[2]); return l }, 3},
		{"K4 deleted line", false, func(_ string, l [][]byte) [][]byte { return slices.Delete(l, 2, 3) }, 3},
		{"K4 swapped lines", false, func(_ string, l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l }, 3},
		{"K4 cut tail, checkpoint stays", true, func(_ string, l [][]byte) [][]byte { return l[:4] }, 5},
		{"K4 all gone, checkpoint stays", true, func(dir string, _ [][]byte) [][]byte { return nil }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Dir: t.TempDir()}
			if c.key {
				cfg.Key = testKey
			}
			fill(t, cfg, 8)
			path := segmentPath(cfg.Dir, 1)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := c.hurt(cfg.Dir, bytes.SplitAfter(bytes.TrimSuffix(whole, nil), []byte("\n")))
			hurt := bytes.Join(lines, nil)
			if err := os.WriteFile(path, hurt, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(cfg)
			var te *TamperError
			if !errors.As(err, &te) || te.Seq != c.seq {
				if err == nil {
					_ = l.Close()
				}
				t.Fatalf("Open says %v, want record %d", err, c.seq)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, hurt) {
				t.Fatal("Open changed what it refused")
			}
			if now, err := Verify(cfg.Dir, nil); !errors.As(err, &te) || te.Seq != c.seq {
				t.Fatalf("Verify says %v %+v", err, now)
			}
		})
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited a minute in vain")
		}
	}
}

func dirSize(t *testing.T, dir string) int64 {
	t.Helper()
	n := int64(0)
	for _, suffix := range []string{".log", ".jsonl"} {
		files, err := filesWith(dir, suffix)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			n += f.Size()
		}
	}
	return n
}
