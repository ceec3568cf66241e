package relay

import (
	"fmt"
	"testing"
	"time"
)

func TestRefusedAgentsAreToldOfOnceInAWhile(t *testing.T) {
	var f refusedAgents
	at := time.Now()
	tell := func(agent, reason string, later time.Duration, wantMore int64, want bool) {
		t.Helper()
		if more, ok := f.tell(agent, reason, at.Add(later)); ok != want || more != wantMore {
			t.Errorf("%s, %s, after %s: %d %v, want %d %v", agent, reason, later, more, ok, wantMore, want)
		}
	}
	tell("a", "disabled", 0, 0, true)
	tell("a", "disabled", time.Second, 0, false)
	tell("a", "disabled", refusedPause-1, 0, false)
	tell("b", "disabled", time.Second, 0, true)
	tell("a", "expired", time.Minute, 2, true) // another reason is news
	tell("a", "expired", time.Minute+refusedPause, 0, true)
	for i := range refusedTracked {
		f.tell(fmt.Sprint(i), "x", at.Add(2*refusedPause))
	}
	if len(f.of) > refusedTracked {
		t.Errorf("%d agents are remembered", len(f.of))
	}
	tell("late", "x", 2*refusedPause, 0, false)
	tell("late", "x", 4*refusedPause, 0, true) // the others have been quiet
}
