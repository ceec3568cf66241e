package wan

import (
	"math"
	"testing"
	"time"
)

func TestALineTakesItsTimeForEachByteAndForTheWay(t *testing.T) {
	p := newPipe(Config{Delay: 20 * time.Millisecond, Rate: 1e6, Queue: 10_000}, 0)
	for i, want := range []time.Duration{21 * time.Millisecond, 22 * time.Millisecond, 23 * time.Millisecond} {
		if at, f := p.admit(0, 1000); f != carried || at != want {
			t.Errorf("packet %d of 1000 bytes at 1 MB/s arrives at %s (%v), want %s", i, at, f, want)
		}
	}
	// The line is free again after a while.
	if at, f := p.admit(time.Second, 1000); f != carried || at != time.Second+21*time.Millisecond {
		t.Errorf("after a pause: %s (%v)", at, f)
	}
}

func TestAFullQueueDropsWhatComes(t *testing.T) {
	p := newPipe(Config{Rate: 1e6, Queue: 5000}, 0)
	var fates [3]int
	for range 8 {
		_, f := p.admit(0, 1000)
		fates[f]++
	}
	if fates[carried] != 5 || fates[dropped] != 3 {
		t.Errorf("of 8 packets at once a queue of 5 carried %d and dropped %d", fates[carried], fates[dropped])
	}
	if _, f := p.admit(2*time.Millisecond, 1000); f != carried {
		t.Errorf("the queue has emptied by two packets and takes none: %v", f)
	}
}

func TestLossIsByChanceAndTheSameForTheSameSeed(t *testing.T) {
	const n, loss = 100_000, 0.01
	run := func(seed, direction uint64) (lostAt []int) {
		p := newPipe(Config{Loss: loss, Seed: seed}, direction)
		for i := range n {
			if _, f := p.admit(time.Duration(i), 100); f == lost {
				lostAt = append(lostAt, i)
			}
		}
		return lostAt
	}
	one, again, other, back := run(7, 0), run(7, 0), run(8, 0), run(7, 1)
	// Five standard deviations of n throws.
	if d := math.Abs(float64(len(one)) - n*loss); d > 5*math.Sqrt(n*loss*(1-loss)) {
		t.Errorf("%d of %d were lost, at 1 %%", len(one), n)
	}
	equal := func(a, b []int) bool {
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				return false
			}
		}
		return len(a) == len(b)
	}
	if !equal(one, again) {
		t.Error("the same seed gives other losses")
	}
	if equal(one, other) || equal(one, back) {
		t.Error("another seed, or the other direction, meets the same losses")
	}
}

func TestPacketsDoNotOvertakeWhenTheDelayShrinks(t *testing.T) {
	p := newPipe(Config{Delay: time.Second}, 0)
	first, _ := p.admit(0, 100)
	p.cfg.Delay = time.Millisecond
	if second, _ := p.admit(1, 100); second < first {
		t.Errorf("a packet that was sent later arrives at %s, before %s", second, first)
	}
}

func TestADeadLineCarriesNothing(t *testing.T) {
	p := newPipe(Config{Loss: 1}, 0)
	for range 1000 {
		if _, f := p.admit(0, 100); f != lost {
			t.Fatalf("a packet was %v", f)
		}
	}
}

func TestSettingsThatMakeNoLineAreRefused(t *testing.T) {
	for name, c := range map[string]Config{"negative delay": {Delay: -1}, "loss above 1": {Loss: 1.5}, "rate without a queue": {Rate: 1}, "negative rate": {Rate: -1}} {
		if c.check() == nil {
			t.Errorf("%s is taken: %+v", name, c)
		}
	}
	if err := WAN().check(); err != nil {
		t.Error(err)
	}
}
