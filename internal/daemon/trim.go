package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// trimmer gives memory back to the system once a burst is over. After one, the collector's heap may grow to twice of what
// lives before it runs again, and an idle process allocates so little that this takes hours: thousands of idle tunnels and
// streams would hold what their beginning took. So when little is allocated for a while, and much could be given back, the heap
// is collected and its free pages are returned. It never runs under load, and bounds its own share of the CPU.
type trimmer struct {
	quiet   int // samples in a row with little allocated
	allocs  uint64
	sampled time.Time
	after   time.Time // not before
}

// Of the trimmer.
const (
	trimTick     = 400 * time.Millisecond
	trimQuiet    = 3               // ticks
	trimPause    = 5 * time.Second // between two, at least
	trimShare    = 50              // and so many times what the last one took
	trimLeast    = 4 << 20         // bytes that are worth it, or an eighth of the heap
	trimTrickle  = 1 << 20         // bytes a second that count as little, or a 32nd of the heap
	trimFraction = 8
)

// heap is what the trimmer looks at.
type heap struct {
	allocated   uint64 // since the start
	live        uint64 // after the last collection
	objects     uint64 // live ones, and what was not collected yet
	free, holes uint64 // pages that are free and not returned; room between objects
}

func readHeap() heap {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64(), s[4].Value.Uint64()}
}

// due takes a sample and reports whether to trim now.
func (t *trimmer) due(h heap, now time.Time) bool {
	passed, allocated := now.Sub(t.sampled), h.allocated-t.allocs
	first := t.sampled.IsZero()
	t.sampled, t.allocs = now, h.allocated
	little := float64(max(trimTrickle, h.objects/32)) * passed.Seconds()
	if first || float64(allocated) > little {
		t.quiet = 0
		return false
	}
	if t.quiet++; t.quiet < trimQuiet || now.Before(t.after) {
		return false
	}
	garbage := h.objects - min(h.live, h.objects)
	return garbage+h.free >= max(trimLeast, (h.objects+h.free)/trimFraction)
}

// trimmed notes how long it took.
func (t *trimmer) trimmed(now time.Time, took time.Duration) {
	t.quiet, t.after = 0, now.Add(max(trimPause, trimShare*took))
}

// runTrim trims until ctx ends.
func runTrim(ctx context.Context) {
	tick := time.NewTicker(trimTick)
	defer tick.Stop()
	for t := (trimmer{}); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if begin := time.Now(); t.due(readHeap(), begin) {
			runtime.GC() // twice: pools and grown stacks go in two steps
			debug.FreeOSMemory()
			now := time.Now()
			t.trimmed(now, now.Sub(begin))
		}
	}
}
