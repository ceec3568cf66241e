package audit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// receiver stands for the relay: it keeps what it got, in order, and remembers doubles.
type receiver struct {
	mu      sync.Mutex
	bodies  []string
	last    uint64
	doubles int
	calls   int
	limit   int // records taken of a delivery; 0: all
	err     func(call int) error
	lost    func(call int) bool // taken, but the answer is lost
}

func (r *receiver) deliver(_ context.Context, rs []Record) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.err != nil {
		if err := r.err(r.calls); err != nil {
			return 0, err
		}
	}
	for i, rec := range rs {
		if r.limit > 0 && i == r.limit {
			break
		}
		if rec.Seq <= r.last {
			r.doubles++
			continue
		}
		if rec.Seq != r.last+1 {
			return r.last, fmt.Errorf("record %d came after %d", rec.Seq, r.last)
		}
		r.last = rec.Seq
		r.bodies = append(r.bodies, string(rec.Body))
	}
	if r.lost != nil && r.lost(r.calls) {
		return 0, errors.New("the answer is lost")
	}
	return r.last, nil
}

func (r *receiver) got() uint64 { r.mu.Lock(); defer r.mu.Unlock(); return r.last }

// runFeed runs a feed until the receiver has n records.
func runFeed(t *testing.T, f *Feed, deliver func(context.Context, []Record) (uint64, error), until func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, deliver) }()
	waitFor(t, until)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func quickFeed(l *Log, file string) *Feed {
	return &Feed{Log: l, CursorFile: file, Batch: 7, MinBackoff: time.Microsecond, MaxBackoff: time.Millisecond}
}

func TestFeedDeliversAll(t *testing.T) {
	for name, r := range map[string]*receiver{
		"all well":        {},
		"some at a time":  {limit: 3},
		"errors":          {err: func(n int) error { return map[bool]error{true: errors.New("no")}[n%3 != 0] }},
		"lost answers":    {lost: func(n int) bool { return n%2 == 0 }},
		"all of it":       {limit: 5, err: func(n int) error { return map[bool]error{true: errors.New("no")}[n%5 == 0] }, lost: func(n int) bool { return n%4 == 0 }},
		"first try fails": {err: func(n int) error { return map[bool]error{true: errors.New("no")}[n == 1] }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openTest(t, Config{Dir: dir, SegmentBytes: 1500})
			for i := 1; i <= 100; i++ {
				add(t, l, body(i))
			}
			file := filepath.Join(dir, "cursor")
			runFeed(t, quickFeed(l, file), r.deliver, func() bool { return r.got() == 100 })
			for i := 101; i <= 120; i++ { // stopped and started again, and fed while it runs
				add(t, l, body(i))
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- quickFeed(l, file).Run(ctx, r.deliver) }()
			for i := 121; i <= 140; i++ {
				add(t, l, body(i))
			}
			waitFor(t, func() bool { c, _, _ := ReadCursor(file); return c.Seq == 140 })
			cancel()
			<-done
			for i, b := range r.bodies {
				if b != body(i+1) {
					t.Fatalf("record %d arrived as %s", i+1, b)
				}
			}
			c, ok, err := ReadCursor(file)
			if len(r.bodies) != 140 || err != nil || !ok || c != l.Head() {
				t.Fatalf("%d arrived, cursor %v %v", len(r.bodies), c, err)
			}
			if name == "all well" && r.doubles > 0 {
				t.Errorf("%d records were sent twice without need", r.doubles)
			}
		})
	}
}

func TestFeedPoison(t *testing.T) {
	poisoned := func(taken *[]uint64) func(context.Context, []Record) (uint64, error) {
		return func(_ context.Context, rs []Record) (uint64, error) {
			acked := rs[0].Seq - 1
			for _, r := range rs {
				if r.Seq%10 == 3 {
					return acked, fmt.Errorf("batch: %w", &PoisonError{Seq: r.Seq, Err: errors.New("too strange")})
				}
				*taken = append(*taken, r.Seq)
				acked = r.Seq
			}
			return acked, nil
		}
	}
	l := openTest(t, Config{Dir: t.TempDir()})
	for i := 1; i <= 30; i++ {
		add(t, l, body(i))
	}
	t.Run("set aside", func(t *testing.T) {
		var taken, aside []uint64
		tries := 0
		f := quickFeed(l, filepath.Join(t.TempDir(), "c"))
		f.SetAside = func(_ context.Context, r Record, reason error) error {
			if tries++; tries == 1 {
				return errors.New("nowhere to put it")
			}
			if reason.Error() != "too strange" {
				t.Error(reason)
			}
			aside = append(aside, r.Seq)
			return nil
		}
		file := f.CursorFile
		runFeed(t, f, poisoned(&taken), func() bool { c, _, _ := ReadCursor(file); return c.Seq == 30 })
		if fmt.Sprint(aside) != "[3 13 23]" || len(taken) != 27 {
			t.Errorf("%v aside, %v taken", aside, taken)
		}
	})
	t.Run("without SetAside it waits", func(t *testing.T) {
		var taken []uint64
		calls := 0
		var mu sync.Mutex
		f := quickFeed(l, filepath.Join(t.TempDir(), "c"))
		d := poisoned(&taken)
		runFeed(t, f, func(ctx context.Context, rs []Record) (uint64, error) {
			mu.Lock()
			defer mu.Unlock()
			calls++
			return d(ctx, rs)
		}, func() bool { mu.Lock(); defer mu.Unlock(); return calls > 5 })
		if fmt.Sprint(taken) != "[1 2]" {
			t.Errorf("%v", taken)
		}
	})
}

func TestFeedGoesBack(t *testing.T) {
	l := openTest(t, Config{Dir: t.TempDir()})
	for i := 1; i <= 20; i++ {
		add(t, l, body(i))
	}
	r := &receiver{}
	lost := false
	f := quickFeed(l, filepath.Join(t.TempDir(), "c"))
	f.Batch = 5
	runFeed(t, f, func(ctx context.Context, rs []Record) (uint64, error) {
		r.mu.Lock()
		if !lost && r.last == 15 { // the receiver was put back to an older state
			lost, r.last, r.bodies = true, 4, r.bodies[:4]
			r.mu.Unlock()
			return 4, nil
		}
		r.mu.Unlock()
		return r.deliver(ctx, rs)
	}, func() bool { return r.got() == 20 })
	if !lost || len(r.bodies) != 20 {
		t.Errorf("%v", r.bodies)
	}
}

// A receiver that asks for records which were released gets what is held, and does not stop the feed for good.
func TestFeedGoesBackNoFurtherThanTheLog(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), MaxBytes: MinBudget, SegmentBytes: 1000}
	l := openTest(t, cfg)
	var end *Ticket
	for i := range 1500 {
		tk, err := l.Append([]byte(body(i)))
		if errors.Is(err, ErrFull) {
			break
		}
		must(t, err)
		end = tk
		if i%20 == 0 {
			must(t, tk.Wait(t.Context()))
		}
	}
	must(t, end.Wait(t.Context())) // the head that is looked at is the last
	l.Release(1 << 60)
	waitFor(t, func() bool { return l.Status().Bytes <= cfg.MaxBytes/2 })
	oldest, head := l.Oldest(), l.Head().Seq
	if oldest < 10 {
		t.Fatalf("oldest is %d: nothing was released", oldest)
	}
	var mu sync.Mutex
	asked, first, last := 0, uint64(0), uint64(0)
	runFeed(t, quickFeed(l, filepath.Join(t.TempDir(), "c")), func(_ context.Context, rs []Record) (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		if asked++; asked == 2 || asked == 3 {
			return uint64(asked), nil // long gone
		}
		if asked == 4 {
			first = rs[0].Seq
		}
		last = rs[len(rs)-1].Seq
		return last, nil
	}, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return asked >= 4 && last == head
	})
	if first != oldest {
		t.Errorf("it went back to %d, the oldest held is %d", first, oldest)
	}
}

// What a receiver lost must not be deleted here before it has it again, although it was released once.
func TestFeedThatGoesBackTakesItsReleaseBack(t *testing.T) {
	l := openTest(t, Config{Dir: t.TempDir(), MaxBytes: MinBudget})
	for i := range 20 {
		tk, err := l.Append([]byte(body(i)))
		must(t, err)
		must(t, tk.Wait(t.Context()))
	}
	released := func() uint64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.released
	}
	f := quickFeed(l, filepath.Join(t.TempDir(), "c"))
	f.Release, f.Batch = true, 5
	var mu sync.Mutex
	var calls int
	var between uint64
	runFeed(t, f, func(_ context.Context, rs []Record) (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		switch calls++; calls {
		case 4:
			return 7, nil // it was put back to an older state
		case 5:
			between = released()
		}
		return rs[len(rs)-1].Seq, nil
	}, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return calls > 5 && released() == 20
	})
	if between != 7 {
		t.Errorf("records up to %d may be deleted, and the receiver holds 7", between)
	}
}

func TestFeedCursor(t *testing.T) {
	l := openTest(t, Config{Dir: t.TempDir()})
	for i := 1; i <= 5; i++ {
		add(t, l, body(i))
	}
	never := func(context.Context, []Record) (uint64, error) { t.Error("delivered"); return 0, nil }
	for name, content := range map[string]string{
		"behind the end": `{"seq":6,"hash":"` + l.Head().Hash + `"}`, "another record": `{"seq":4,"hash":"` + l.Head().Hash + `"}`,
		"no JSON": "{", "empty": "",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c")
			must(t, os.WriteFile(file, []byte(content), 0o600))
			if err := (&Feed{Log: l, CursorFile: file}).Run(t.Context(), never); !errors.Is(err, ErrCursor) {
				t.Error(err)
			}
		})
	}
	t.Run("acknowledges what was not sent", func(t *testing.T) {
		calls := 0
		file := filepath.Join(t.TempDir(), "c")
		var mu sync.Mutex
		runFeed(t, quickFeed(l, file), func(context.Context, []Record) (uint64, error) {
			mu.Lock()
			defer mu.Unlock()
			calls++
			return 99, nil
		}, func() bool { mu.Lock(); defer mu.Unlock(); return calls > 3 })
		if _, ok, _ := ReadCursor(file); ok {
			t.Error("the cursor moved")
		}
	})
	t.Run("log closes", func(t *testing.T) {
		l := openTest(t, Config{Dir: t.TempDir()})
		add(t, l, body(1))
		done := make(chan error, 1)
		r := &receiver{}
		go func() { done <- quickFeed(l, filepath.Join(t.TempDir(), "c")).Run(context.Background(), r.deliver) }()
		waitFor(t, func() bool { return r.got() == 1 })
		must(t, l.Close())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestFeedBackoff: pauses have full jitter, rise to the cap and stay there; success starts them anew.
func TestFeedBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(Config{Dir: t.TempDir()})
		must(t, err)
		defer func() { _ = l.Close() }()
		add(t, l, body(1))
		ctx, cancel := context.WithCancel(t.Context())
		var at []time.Time
		file := filepath.Join(t.TempDir(), "c")
		_ = (&Feed{Log: l, CursorFile: file}).Run(ctx, func(context.Context, []Record) (uint64, error) {
			if at = append(at, time.Now()); len(at) == 200 {
				cancel()
			}
			return 0, errors.New("no")
		})
		cancel()
		worst, sum := time.Duration(0), time.Duration(0)
		for i := 1; i < len(at); i++ {
			pause := at[i].Sub(at[i-1])
			worst = max(worst, pause)
			if i > 10 {
				sum += pause
			} else if pause > 500*time.Millisecond<<i {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
		if mean := sum / 189; worst > time.Minute+time.Second || mean < 20*time.Second || mean > 40*time.Second {
			t.Errorf("worst %v, mean %v", worst, mean)
		}
	})
}

// TestFeedFailEachCall fails each disk call of the cursor in turn: it is the old one or the new one, never a mixture, and all
// arrives.
func TestFeedFailEachCall(t *testing.T) {
	l := openTest(t, Config{Dir: t.TempDir()})
	for i := 1; i <= 20; i++ {
		add(t, l, body(i))
	}
	for n := 1; ; n++ {
		r, fd := &receiver{}, &faulty{fail: func(call int, _ string) bool { return call == n }}
		f := quickFeed(l, filepath.Join(t.TempDir(), "c"))
		f.disk = fd.disk()
		file := f.CursorFile
		runFeed(t, f, r.deliver, func() bool {
			c, ok, err := ReadCursor(file)
			if err != nil {
				t.Fatal(err)
			}
			return r.got() == 20 && (ok && c.Seq == 20 || fd.failures() > 0)
		})
		if len(r.bodies) != 20 {
			t.Fatal(r.bodies)
		}
		if fd.failures() == 0 {
			if n < 10 {
				t.Fatalf("only %d calls", n)
			}
			return
		}
	}
}

// TestFeedShipsABudgetedLog: a log many times its budget passes through, for the feed releases what was acknowledged.
func TestFeedShipsABudgetedLog(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Key: testKey, Source: "a", MaxBytes: MinBudget}
	l := openTest(t, cfg)
	f := quickFeed(l, filepath.Join(cfg.Dir, "cursor"))
	f.Release, f.Batch = true, 50
	r := &receiver{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, r.deliver) }()
	sent, pad := uint64(0), make([]byte, 500)
	for i := range pad {
		pad[i] = 'x'
	}
	waitFor(t, func() bool {
		var last *Ticket
		for range 20 + rand.IntN(20) {
			tk, err := l.Append(fmt.Appendf(nil, `"%s"`, pad))
			if errors.Is(err, ErrFull) {
				break
			}
			must(t, err)
			last = tk
			sent++
		}
		if last != nil {
			must(t, last.Wait(t.Context()))
		}
		return sent > 2000
	})
	waitFor(t, func() bool { return r.got() == sent })
	cancel()
	<-done
	if l.Oldest() == 1 {
		t.Error("nothing was released")
	}
	head := l.Head()
	must(t, l.Close())
	if rep := mustVerify(t, cfg.Dir, head); !rep.Anchored {
		t.Errorf("%+v", rep)
	}
}

func TestFeedPace(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, Config{Dir: dir})
	add(t, l, body(1))
	var mu sync.Mutex
	var sizes []int
	var times []time.Time
	var last uint64
	f := quickFeed(l, filepath.Join(dir, "cursor"))
	f.Pace, f.SaveEvery = 30*time.Millisecond, time.Hour
	first := make(chan struct{})
	runFeed(t, f, func(_ context.Context, rs []Record) (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		sizes, times, last = append(sizes, len(rs)), append(times, time.Now()), rs[len(rs)-1].Seq
		if len(sizes) == 1 {
			close(first)
		}
		return last, nil
	}, func() bool {
		<-first
		mu.Lock()
		n := last
		mu.Unlock()
		if n == 1 && l.Head().Seq == 1 {
			for i := 2; i <= 21; i++ { // two full batches, which wait for nothing, and six more, which wait
				add(t, l, body(i))
			}
		}
		return n == 21
	})
	for i := 1; i < len(sizes); i++ {
		if d := times[i].Sub(times[i-1]); sizes[i] < 7 && d < f.Pace-time.Millisecond {
			t.Errorf("delivery %d of %d records came %v after the one before", i, sizes[i], d)
		}
	}
	if len(sizes) > 5 {
		t.Errorf("deliveries: %v", sizes)
	}
	if c, _, err := ReadCursor(f.CursorFile); err != nil || c != l.Head() {
		t.Errorf("the end of Run left the cursor at %v, %v", c, err)
	}
}

// The cursor file lags by SaveEvery at most, also when nothing more comes, and what it does not say is not released.
func TestFeedSavesItsCursorNowAndThen(t *testing.T) {
	for name, every := range map[string]time.Duration{"soon": 20 * time.Millisecond, "never": time.Hour} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openTest(t, Config{Dir: dir, SegmentBytes: 1500, MaxBytes: MinBudget})
			for i := 1; i <= 20; i++ {
				add(t, l, body(i))
			}
			r := &receiver{}
			f := quickFeed(l, filepath.Join(dir, "cursor"))
			f.SaveEvery, f.Release = every, true
			runFeed(t, f, r.deliver, func() bool {
				c, ok, _ := ReadCursor(f.CursorFile)
				l.mu.Lock()
				released := l.released
				l.mu.Unlock()
				if released > c.Seq {
					t.Errorf("released %d, and the cursor says %d", released, c.Seq)
				}
				if every == time.Hour {
					if ok {
						t.Errorf("the cursor was saved at %d", c.Seq)
					}
					return r.got() == 20
				}
				return c.Seq == 20
			})
			if c, _, err := ReadCursor(f.CursorFile); err != nil || c.Seq != 20 {
				t.Errorf("at the end: %v, %v", c, err)
			}
		})
	}
}

// A log that is short of room has its cursor saved at once: what is acknowledged can go.
func TestFeedReleasesAtOnceWhenRoomIsShort(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, Config{Dir: dir, MaxBytes: MinBudget})
	for n := 1; !l.pressed(); n++ {
		add(t, l, body(n))
	}
	r := &receiver{}
	f := quickFeed(l, filepath.Join(dir, "cursor"))
	f.SaveEvery, f.Release, f.Batch = time.Hour, true, 500
	runFeed(t, f, r.deliver, func() bool { return l.Oldest() > 1 })
}
