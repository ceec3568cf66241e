package budget

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

func TestRateRefusesBeyondTheBurstAndSaysWhenToTryAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New("the workspace", "workspace.budget")
		b.Set(Limits{Rate: 2, Burst: 3})
		for i := range 3 {
			if _, r := Begin(b); r != nil {
				t.Fatalf("operation %d: %v", i, r)
			}
		}
		_, r := Begin(b)
		if r == nil || r.Limit != LimitRate || r.Number != 2 || r.After != 500*time.Millisecond {
			t.Fatalf("%+v", r)
		}
		time.Sleep(r.After)
		if _, r := Begin(b); r != nil {
			t.Errorf("refused after the time that it named: %v", r)
		}
		if _, r := Begin(b); r == nil {
			t.Error("one token served two operations")
		}
		if c := b.Counts(); c.Begun != 4 || c.RefusedRate != 2 || c.Running != 4 {
			t.Errorf("%+v", c)
		}
	})
}

// A refusal takes nothing from any budget, and ends count out.
func TestARefusalTakesNothing(t *testing.T) {
	narrow, wide := New("the connection", "connection.budget"), New("the workspace", "workspace.budget")
	narrow.Set(Limits{Rate: 1, Burst: 2, Concurrent: 2})
	wide.Set(Limits{Concurrent: 1})
	l, r := Begin(narrow, wide)
	if r != nil {
		t.Fatal(r)
	}
	for range 10 {
		if _, r := Begin(narrow, wide); r == nil || r.Rule != "workspace.budget" || r.Limit != LimitConcurrent {
			t.Fatalf("%+v", r)
		}
	}
	l.End()
	if l, r = Begin(narrow, wide); r != nil {
		t.Fatalf("what was refused by one budget was taken from the other: %v", r)
	}
	l.End()
	if c := narrow.Counts(); c.Running != 0 || c.Begun != 2 {
		t.Errorf("%+v", c)
	}
}

// What began before a limit was set counts in it.
func TestLimitsThatAreSetLaterCountWhatRuns(t *testing.T) {
	b := New("the profile", "files.hr.limits")
	l, _ := Begin(b)
	b.Set(Limits{Concurrent: 1})
	if _, r := Begin(b); r == nil {
		t.Error("a running operation was not counted")
	}
	l.End()
	if _, r := Begin(b); r != nil {
		t.Error(r)
	}
	b.Set(Limits{})
	for range 100 {
		if _, r := Begin(b); r != nil {
			t.Fatal(r)
		}
	}
}

func TestPeekTakesNothing(t *testing.T) {
	b := New("the workspace", "workspace.budget")
	b.Set(Limits{Rate: 1, Burst: 1, Concurrent: 1})
	for range 100 {
		if r := Peek(b); r != nil {
			t.Fatal(r)
		}
	}
	if _, r := Begin(b); r != nil {
		t.Fatal(r)
	}
	if r := Peek(b); r == nil || b.Counts().RefusedConcurrent != 1 || b.Counts().Running != 1 {
		t.Errorf("%+v %+v", r, b.Counts())
	}
}

func TestARefusalTellsWhoWhatAndWhen(t *testing.T) {
	e := (&Refusal{What: "the profile", Rule: "files.hr.limits", Limit: LimitConcurrent, Number: 7, After: time.Second}).Problem(protocol.OriginAgent)
	for _, want := range []string{"agent refuses", "the profile", "7 operations at a time"} {
		if !strings.Contains(e.Message, want) {
			t.Errorf("%q lacks %q", e.Message, want)
		}
	}
	if e.Code != protocol.CodeRateLimited || e.Rule != "files.hr.limits.concurrent" || e.RetryAfterMs != 1000 || !strings.Contains(e.Hint, "in 1s") || !strings.Contains(e.Hint, "files.hr.limits") {
		t.Errorf("%+v", e)
	}
}

// Bytes wait for their turn: over time no more leave than the limit says, and no less.
func TestEgressIsShaped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New("the profile", "")
		b.Set(Limits{Egress: 1 << 20})
		l, _ := Begin(b)
		from := time.Now()
		for range 160 {
			if err := l.Wait(t.Context(), 64<<10); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(from); took < 9800*time.Millisecond || took > 10100*time.Millisecond {
			t.Errorf("10 MiB at 1 MiB/s took %s", took)
		}
		if c := b.Counts(); c.Bytes != 10<<20 || c.Waits == 0 || c.Waited < 9*time.Second {
			t.Errorf("%+v", c)
		}
	})
}

// Streams of one budget share it evenly, whatever the size of their writes.
func TestEgressIsFairBetweenStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New("the workspace", "")
		b.Set(Limits{Egress: 1 << 20})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var sent [3]int
		var wg sync.WaitGroup
		for i, size := range []int{16 << 10, 64 << 10, 256 << 10} {
			wg.Go(func() {
				for b.Wait(ctx, size) == nil {
					sent[i] += size
				}
			})
		}
		wg.Wait()
		for i, n := range sent {
			if n < 20<<20/3*9/10 || n > 20<<20/3*11/10 {
				t.Errorf("stream %d sent %d of %d", i, n, 20<<20)
			}
		}
	})
}

// One that uses its budget up costs another nothing.
func TestOneBudgetThatIsUsedUpCostsAnotherNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k Book
		greedy, other := k.Get("ws_1", "the workspace", ""), k.Get("ws_2", "the workspace", "")
		for _, b := range []*Budget{greedy, other} {
			b.Set(Limits{Egress: 1 << 20, Rate: 10, Concurrent: 100})
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for greedy.Wait(ctx, 64<<10) == nil {
				}
			})
		}
		for range 100 {
			_, _ = Begin(greedy)
		}
		from := time.Now()
		l, r := Begin(other)
		if r != nil || l.Wait(t.Context(), 100<<10) != nil || time.Since(from) != 0 {
			t.Errorf("refused %v, waited %s", r, time.Since(from))
		}
		cancel()
		wg.Wait()
	})
}

func TestWhoWaitsGoesByTheNewLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New("the profile", "")
		b.Set(Limits{Egress: MinEgress})
		done := make(chan error)
		from := time.Now()
		go func() { done <- b.Wait(t.Context(), 10<<20) }() // ten minutes
		time.Sleep(time.Second)
		b.Set(Limits{Egress: 1 << 30})
		if err := <-done; err != nil || time.Since(from) > 1100*time.Millisecond {
			t.Errorf("%v after %s", err, time.Since(from))
		}
	})
}

// A writer that goes away leaves its place to the others.
func TestTheEndOfAWriterEndsItsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New("the profile", "")
		b.Set(Limits{Egress: MinEgress})
		_ = b.Wait(t.Context(), piece)
		why := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- b.Wait(ctx, piece) }()
		synctest.Wait()
		cancel(why)
		if err := <-done; err != why {
			t.Error(err)
		}
		from := time.Now()
		if err := b.Wait(t.Context(), piece); err != nil || time.Since(from) > 2*time.Second {
			t.Errorf("%v after %s: the place of who went away was kept", err, time.Since(from))
		}
	})
}

func TestTheDaysBytesRefuseAndComeBackTheNextDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New("the profile", "files.hr.limits")
		b.Set(Limits{EgressDay: 100 << 10})
		l, r := Begin(b)
		if r != nil {
			t.Fatal(r)
		}
		var err error
		sent := 0
		for sent = 0; err == nil; sent += 10 << 10 {
			err = l.Wait(t.Context(), 10<<10)
		}
		var over *Refusal
		if !errors.As(err, &over) || over.Limit != LimitEgressDay || sent > 120<<10 {
			t.Fatalf("%v after %d bytes", err, sent)
		}
		l.End()
		if _, r = Begin(b); r == nil || r.After <= 0 || r.After > 24*time.Hour {
			t.Fatalf("%+v", r)
		}
		// A restart does not give the bytes back.
		again := New("the profile", "files.hr.limits")
		again.Set(Limits{EgressDay: 100 << 10})
		again.Restore(b.Day())
		if r := again.begin(); r == nil {
			t.Error("a restart gave the day's bytes back")
		}
		time.Sleep(r.After)
		if _, r := Begin(b); r != nil {
			t.Errorf("the next day: %v", r)
		}
	})
}

func TestNarrowTakesTheSmallerOfEach(t *testing.T) {
	for _, c := range []struct{ a, b, want Limits }{
		{Limits{}, Limits{}, Limits{}},
		{Limits{Rate: 10}, Limits{}, Limits{Rate: 10, Burst: 10}},
		{Limits{Rate: 10, Concurrent: 5}, Limits{Rate: 20, Burst: 30, Egress: 7}, Limits{Rate: 10, Burst: 10, Concurrent: 5, Egress: 7}},
		{Limits{Rate: 10, Burst: 100}, Limits{Rate: 20, Burst: 30}, Limits{Rate: 10, Burst: 30}},
	} {
		if got := c.a.Narrow(c.b); got != c.want {
			t.Errorf("%+v with %+v: %+v", c.a, c.b, got)
		}
		if got := c.b.Narrow(c.a); got != c.want {
			t.Errorf("%+v with %+v: %+v", c.b, c.a, got)
		}
	}
}

func TestLimitsOutOfBoundsAreFound(t *testing.T) {
	for _, c := range []struct {
		l     Limits
		field string
	}{{Limits{}, ""}, {Limits{Rate: -1}, "rate"}, {Limits{Burst: 5}, "burst"}, {Limits{Concurrent: -1}, "concurrent"}, {Limits{Egress: 100}, "egress"},
		{Limits{EgressDay: -1}, "egress_day"}, {Limits{Rate: 1, Burst: 1, Concurrent: 1, Egress: MinEgress, EgressDay: 1}, ""}} {
		if field, _ := c.l.Check(); field != c.field {
			t.Errorf("%+v: %q", c.l, field)
		}
	}
}

func TestABookKeepsCountsOfWhatItForgets(t *testing.T) {
	var k Book
	b := k.Get("con_1", "the connection", "")
	b.Set(Limits{Concurrent: 1})
	l, _ := Begin(b)
	_, _ = Begin(b)
	k.Keep(func(string) bool { return false })
	if c := k.Sums("the connection"); c.Begun != 1 || c.RefusedConcurrent != 1 || c.Running != 0 {
		t.Errorf("%+v", c)
	}
	l.End()
	if k.Get("con_1", "the connection", "") == b {
		t.Error("not forgotten")
	}
}

// In a flood few facts are told one by one, and none is lost from the count.
func TestAFloodIsCountedWhole(t *testing.T) {
	f := Flood{Rate: 5, Burst: 10}
	now := time.Now()
	told := 0
	for range 1000 {
		if f.Admit("tok_1", now) {
			told++
		}
	}
	if told != 10 || !f.Admit("tok_2", now) {
		t.Errorf("%d told", told)
	}
	if n := f.Take(now)["tok_1"]; n != 990 {
		t.Errorf("%d counted", n)
	}
	if n := f.Take(now); len(n) != 0 {
		t.Errorf("told twice: %v", n)
	}
	f.Take(now.Add(time.Minute))
	if len(f.of) != 0 {
		t.Error("keys at rest are kept")
	}
}

func BenchmarkWithoutLimits(b *testing.B) {
	x, y := New("", ""), New("", "")
	for b.Loop() {
		l, _ := Begin(x, y)
		_ = l.Wait(context.Background(), 64<<10)
		l.End()
	}
}
