package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestBudget fills a small log, uses the reserve for one event, and goes on after a release.
func TestBudget(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Key: testKey, Source: "a", MaxBytes: MinBudget}
	l := openTest(t, cfg)
	r := &Recorder{Log: l, Source: "a"}
	var last *Ticket
	n, refused := 0, 0
	for refused < 10 {
		tk, err := r.Record(Event{Kind: KindIntent, Target: strings.Repeat("x", 500)})
		switch {
		case errors.Is(err, ErrFull) && errors.Is(err, ErrUnavailable):
			refused++
		case err != nil:
			t.Fatal(err)
		case refused > 0:
			t.Fatal("a full log took a record")
		default:
			last, n = tk, n+1
		}
	}
	if err := last.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return l.Head().Seq == uint64(n)+1 })
	rs, err := l.Read(uint64(n), 10)
	if err != nil || len(rs) != 1 || !bytes.Contains(rs[0].Body, []byte(`"kind":"audit.full"`)) {
		t.Fatalf("no event says that the log is full: %v %v", rs, err)
	}
	if !errors.Is(l.Status().Err, ErrFull) {
		t.Fatal("the status does not say that the log is full")
	}
	if got := dirSize(t, cfg.Dir); got > cfg.MaxBytes {
		t.Fatalf("%d bytes on disk, %d allowed", got, cfg.MaxBytes)
	}
	if len(segmentFiles(t, cfg.Dir)) < 4 {
		t.Fatal(segmentFiles(t, cfg.Dir))
	}
	l.Release(uint64(n))
	waitFor(t, func() bool { return l.Status().Err == nil })
	tk, err := r.Record(Event{Kind: KindIntent})
	if err != nil {
		t.Fatal(err)
	}
	if err := tk.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	rs, err = l.Read(uint64(n)+1, 10)
	if err != nil || len(rs) != 2 || !bytes.Contains(rs[0].Body, []byte(`"refused":"10"`)) {
		t.Fatalf("no event counts what was refused: %v", err)
	}
	if _, err := l.Read(0, 1); !errors.Is(err, ErrReleased) {
		t.Fatalf("reading released records: %v", err)
	}
	head := l.Head()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	rep := mustVerify(t, cfg.Dir, head)
	if rep.First.Seq == 0 || !rep.Anchored {
		t.Fatalf("what is left does not hang on a checkpoint: %+v", rep)
	}
	if l, err = Open(cfg); err != nil || l.Head() != head {
		t.Fatalf("reopen: %v", err)
	}
	_ = l.Close()
}

// TestReleaseKeepsTheRest: nothing that was not released goes, whatever the budget.
func TestReleaseKeepsTheRest(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), MaxBytes: MinBudget, SegmentBytes: 1000}
	l := openTest(t, cfg)
	for i := range 1500 {
		tk, err := l.Append([]byte(body(i)))
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%20 == 0 {
			if err := tk.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.Release(1 << 60) // more than there is: as much as there is
	waitFor(t, func() bool { return l.Status().Bytes <= cfg.MaxBytes/2 })
	l.Release(3) // goes back: no effect
	head, oldest := l.Head(), l.Oldest()
	for after := oldest - 1; after < head.Seq; {
		rs, err := l.Read(after, 100)
		if err != nil || len(rs) == 0 {
			t.Fatalf("after %d: %v", after, err)
		}
		after = rs[len(rs)-1].Seq
	}
	if size := dirSize(t, cfg.Dir); size > cfg.MaxBytes/2+4096 || size < cfg.MaxBytes/4 {
		t.Fatalf("%d bytes left", size)
	}
}

// TestENOSPC puts the log on a disk of a given size that is really full, not only over budget.
func TestENOSPC(t *testing.T) {
	dir := t.TempDir()
	r := realDisk()
	room, mu := 6000, sync.Mutex{}
	d := r
	d.write = func(f *os.File, p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		n := min(room, len(p))
		room -= n
		if err := r.write(f, p[:n]); err != nil || n == len(p) {
			return err
		}
		return &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	}
	cfg := Config{Dir: dir, Key: testKey, RetryEvery: 5 * time.Millisecond, SegmentBytes: 1500}
	l, err := open(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	h := &history{acked: map[uint64]string{}, refused: map[string]bool{}}
	h.work(l, 1, 100)
	if len(h.acked) == 0 || len(h.refused) == 0 {
		t.Fatalf("%d acknowledged, %d refused", len(h.acked), len(h.refused))
	}
	_, err = l.Append([]byte(`1`))
	if !errors.Is(err, ErrUnavailable) && err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	room = 1 << 20
	mu.Unlock()
	waitFor(t, func() bool { return l.Status().Err == nil })
	before := len(h.acked)
	h.work(l, 200, 10)
	if len(h.acked) != before+10 {
		t.Fatal("the log did not resume")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h.check(t, cfg)
}

// TestSlowDisk: callers are held back by MaxPending, and then told ErrBusy.
func TestSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, r := realDisk(), realDisk()
		d.sync = func(f *os.File) error { time.Sleep(2 * time.Second); return r.sync(f) }
		l, err := open(Config{Dir: t.TempDir(), MaxPending: 1000, AppendTimeout: 10 * time.Second}, d)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		start := time.Now()
		var mu sync.Mutex
		ok, worst := 0, time.Duration(0)
		for i := range 40 {
			wg.Go(func() {
				tk, err := l.Append([]byte(body(i)))
				if err == nil {
					err = tk.Wait(context.Background())
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					ok++
					worst = max(worst, time.Since(start))
				} else if !errors.Is(err, ErrBusy) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if ok < 20 || worst > 16*time.Second {
			t.Errorf("%d of 40 acknowledged, the last after %v", ok, worst)
		}
		if l.Head().Seq != uint64(ok) {
			t.Errorf("%d acknowledged, %d durable", ok, l.Head().Seq)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
