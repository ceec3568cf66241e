package daemon

import (
	"testing"
	"time"
)

func TestTrimAfterABurstOnly(t *testing.T) {
	const mib = 1 << 20
	quietHeap := heap{allocated: 900 * mib, live: 20 * mib, objects: 38 * mib, free: 6 * mib}
	begin := time.Now()
	run := func(t *trimmer, h heap, rate uint64, ticks int, from time.Time) (trims int, end time.Time) {
		for range ticks {
			from = from.Add(trimTick)
			h.allocated += rate * 2 / 5 // a tick is 400 ms
			if t.due(h, from) {
				trims++
				t.trimmed(from, 20*time.Millisecond)
			}
		}
		return trims, from
	}
	for name, c := range map[string]struct {
		heap heap
		rate uint64
		want int
	}{
		"after a burst":           {quietHeap, 100 << 10, 1},
		"under load":              {quietHeap, 50 * mib, 0},
		"nothing to gain":         {heap{allocated: 900 * mib, live: 20 * mib, objects: 21 * mib, free: mib}, 100 << 10, 0},
		"little of a great heap":  {heap{allocated: 900 * mib, live: 400 * mib, objects: 430 * mib, free: 8 * mib}, 100 << 10, 0},
		"a great heap's trickle":  {heap{allocated: 900 * mib, live: 400 * mib, objects: 700 * mib, free: 8 * mib}, 8 * mib, 1},
		"live is not known to be": {heap{allocated: 900 * mib, live: 40 * mib, objects: 38 * mib, free: mib}, 100 << 10, 0},
	} {
		var tr trimmer
		if got, _ := run(&tr, c.heap, c.rate, 6, begin); got != c.want {
			t.Errorf("%s: %d times, want %d", name, got, c.want)
		}
	}
	t.Run("not again at once, nor at the cost of work", func(t *testing.T) {
		var tr trimmer
		n, now := run(&tr, quietHeap, 100<<10, 9, begin)
		if n != 1 {
			t.Fatalf("%d times within the pause", n)
		}
		tr.trimmed(now, time.Second) // a great heap
		if n, _ := run(&tr, quietHeap, 100<<10, 2*trimShare, now); n != 0 {
			t.Errorf("%d times though one takes a second", n)
		}
	})
}

func TestTrimReadsTheHeap(t *testing.T) {
	if h := readHeap(); h.allocated == 0 || h.objects == 0 {
		t.Errorf("%+v", h)
	}
}
