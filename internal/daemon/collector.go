package daemon

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Of collectorPercent.
const (
	collectorRoom  = 16 << 20 // bytes that a small heap may grow by before it is collected
	collectorMost  = 400      // percent of what lives
	collectorLeast = 100      // Go's own
	collectorTick  = 500 * time.Millisecond
)

// collectorPercent is how much a heap may grow before it is collected, in percent of what lives: a program whose heap is small
// would else be collected for every few megabytes that its requests pass through (8 % of the processor's time of a relay with
// 32 connections made at a time), and one whose heap is large must not double it many times.
func collectorPercent(live uint64) int {
	return int(min(max(collectorRoom*100/max(live, 1), collectorLeast), collectorMost))
}

// runCollector keeps the collector's percent in step with the heap until ctx ends, and gives back the old one. Whoever sets GOGC
// has decided.
func runCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	now := collectorPercent(live[0].Value.Uint64())
	old := debug.SetGCPercent(now)
	defer debug.SetGCPercent(old)
	tick := time.NewTicker(collectorTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(live)
		// Setting it stops the program for a moment: not for a trifle.
		if want := collectorPercent(live[0].Value.Uint64()); want < now*9/10 || want > now*11/10 {
			debug.SetGCPercent(want)
			now = want
		}
	}
}
