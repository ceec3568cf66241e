package relay

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// K10: an agent over its rate is slowed, whatever it opens beside each other; no other agent notices, and nothing is dropped.
func TestAnAgentOverItsRateOfRecordsIsSlowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p recordPace
		lines := func(n int, size int) []json.RawMessage {
			out := make([]json.RawMessage, n)
			for i := range out {
				out[i] = json.RawMessage(strings.Repeat("x", size))
			}
			return out
		}
		from := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 5 {
					if _, err := p.wait(t.Context(), "agt_rogue", 1000, lines(500, 300)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		waited, err := p.wait(t.Context(), "agt_honest", 1000, lines(50, 300))
		if err != nil || waited != 0 {
			t.Errorf("an honest agent waited %s: %v", waited, err)
		}
		wg.Wait()
		if took := time.Since(from); took < 19*time.Second || took > 21*time.Second {
			t.Errorf("20000 records at 1000 a second took %s", took)
		}
		// Long records count for what they take.
		from = time.Now()
		if _, err := p.wait(t.Context(), "agt_long", 1000, lines(1000, 10<<10)); err != nil || time.Since(from) < 10*time.Second {
			t.Errorf("%s: %v", time.Since(from), err)
		}
		// An agent that goes away ends its wait.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.wait(ctx, "agt_rogue", 1000, lines(1000, 4<<10)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if !p.tell("agt_rogue", time.Now()) || p.tell("agt_rogue", time.Now()) || !p.tell("agt_other", time.Now()) {
			t.Error("told too often or not at all")
		}
	})
}
