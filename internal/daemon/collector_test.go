package daemon

import (
	"context"
	"runtime/debug"
	"testing"
)

func TestCollectorGivesSmallHeapsRoom(t *testing.T) {
	const mib = 1 << 20
	last := collectorMost
	for live := uint64(0); live < 1<<40; live = live*2 + mib {
		p := collectorPercent(live)
		if p < collectorLeast || p > collectorMost || p > last {
			t.Errorf("%d MiB: %d %%, before it was %d", live/mib, p, last)
		}
		if grows := live * uint64(p) / 100; live < collectorRoom && grows > collectorRoom {
			t.Errorf("%d MiB may grow by %d", live/mib, grows/mib)
		}
		last = p
	}
	for live, want := range map[uint64]int{0: 400, 4 * mib: 400, 8 * mib: 200, 16 * mib: 100, 2000 * mib: 100} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d MiB: %d %%, want %d", live/mib, got, want)
		}
	}
}

func TestCollectorIsGivenBack(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	t.Setenv("GOGC", "")
	runCollector(ctx)
	if got := debug.SetGCPercent(77); got != 77 {
		t.Errorf("%d %%", got)
	}
	// Whoever sets GOGC has decided.
	t.Setenv("GOGC", "50")
	runCollector(t.Context())
}
