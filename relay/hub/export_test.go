package hub

import "time"

// LaneIdle is the age at which an idle lane is closed, TicketLife that at which a ticket is void.
const (
	LaneIdle   = laneIdle
	TicketLife = ticketLife
)

// SweepLanes looks at a tunnel's lanes as run does at its tick, at that time, and says whether run may end.
func SweepLanes(l *Live, now time.Time) bool { return l.lanes.sweep(now) }

// LanesRun reports whether run runs, and how many tickets are out.
func LanesRun(l *Live) (running bool, tickets int) {
	l.lanes.mu.Lock()
	defer l.lanes.mu.Unlock()
	return l.lanes.running, len(l.lanes.tickets)
}
