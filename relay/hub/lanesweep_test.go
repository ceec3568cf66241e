package hub_test

import (
	"errors"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/relay/hub"
)

// A lane that nobody uses is closed after five minutes and not before, and with the last one what kept the pool ends.
func TestIdleLaneIsClosedAndThePoolRests(t *testing.T) {
	s := newLaneSite(t, 8)
	begun := time.Now()
	lane, err := s.dial(mtlstest.Agent, s.want())
	if err != nil {
		t.Fatal(err)
	}
	served := time.Now()
	gone := make(chan struct{})
	go func() { defer close(gone); _, _ = lane.Accept() }()
	if hub.SweepLanes(s.live, begun.Add(hub.LaneIdle-time.Second)) {
		t.Error("the pool rests with a lane in it")
	}
	if n := lanesOf(s); n != 1 || lane.Err() != nil {
		t.Fatalf("%d lanes before their time is over: %v", n, lane.Err())
	}
	if running, _ := hub.LanesRun(s.live); !running {
		t.Error("nobody looks after the lane")
	}
	if !hub.SweepLanes(s.live, served.Add(hub.LaneIdle+time.Second)) {
		t.Error("the pool goes on with no lane, no ticket and no need")
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the agent still has the lane")
	}
	if n := lanesOf(s); n != 0 {
		t.Errorf("%d lanes", n)
	}
	if running, tickets := hub.LanesRun(s.live); running || tickets != 0 {
		t.Errorf("running %v, %d tickets", running, tickets)
	}
	// The next heavy request begins anew.
	if _, err := s.dial(mtlstest.Agent, s.want()); err != nil {
		t.Errorf("after a rest: %v", err)
	}
}

// A ticket that no lane showed in time is void, and holds no room for another.
func TestTicketRunsOut(t *testing.T) {
	s := newLaneSite(t, 1)
	ticket := s.want()
	asked := time.Now()
	if hub.SweepLanes(s.live, asked.Add(hub.TicketLife-time.Minute/4)) {
		t.Error("the pool rests while a lane is to come")
	}
	if _, tickets := hub.LanesRun(s.live); tickets != 1 {
		t.Fatalf("%d tickets", tickets)
	}
	if !hub.SweepLanes(s.live, time.Now().Add(hub.TicketLife+time.Second)) {
		t.Error("the pool goes on for a ticket that has run out")
	}
	if running, tickets := hub.LanesRun(s.live); running || tickets != 0 {
		t.Errorf("running %v, %d tickets", running, tickets)
	}
	if _, err := s.dial(mtlstest.Agent, ticket); !errors.Is(err, hub.ErrTicket) {
		t.Errorf("a ticket that has run out: %v", err)
	}
	if _, err := s.dial(mtlstest.Agent, s.want()); err != nil {
		t.Errorf("the next: %v", err)
	}
}
