package tunnel

import (
	"fmt"
	"time"
)

// The road of a lane is its own: it can die while the tunnel beside it lives, for a router on the way carries the one and not the
// other. Keep-alive finds that when nothing is on its way; while something is, the kernel sends none, and goes on sending the same
// bytes for a quarter of an hour. So a lane with a stream is looked at a few times in each Config.LaneSilence.
//
// What holds where:
//   - Linux: a lane ends when bytes had to be sent again and for so long no more of them were acknowledged; or, of a peer that does
//     not read, when for so long it did not answer whether it does. One that answers may take all the time it wants. The kernel asks
//     ever more rarely, up to every two minutes: of a peer that has not read for minutes the end is found that much later.
//   - Elsewhere, and on what is no TCP connection, nothing of that is seen, and a peer that does not read cannot be told from one
//     that is gone: a lane ends when one frame, 64 KiB at most, is not taken by the kernel for Config.LaneWrite.
//   - Who takes the bytes first is the peer's kernel, or a proxy's that carries the lane: what lies behind a proxy is the proxy's.

// laneLooks is how often a lane with a stream is looked at within the bound. It ends at the last look before it.
const laneLooks = 8

// sight is what the kernel shows of a connection.
type sight struct {
	flying bool          // bytes were sent and not acknowledged
	owed   bool          // an answer is overdue
	any    bool          // any acknowledgement is one, for the peer's window is shut; else only one of more bytes
	acked  uint64        // bytes
	quiet  time.Duration // since the last acknowledgement of any kind
}

// doubt is about a road that owes an answer.
type doubt struct {
	since time.Time
	acked uint64
}

// over reports whether nothing came for the bound. The silence counts from the first look that saw an answer owed.
func (d *doubt) over(now time.Time, s sight, bound time.Duration) bool {
	switch {
	case !s.owed:
		d.since = time.Time{}
	case d.since.IsZero() || s.acked != d.acked || s.any && now.Add(-s.quiet).After(d.since):
		d.since, d.acked = now, s.acked
	default:
		return now.Sub(d.since) >= bound
	}
	return false
}

// patrolLocked has the lane looked at from now on.
func (l *Lane) patrolLocked() {
	if l.patrols || l.err != nil {
		return
	}
	l.patrols, l.doubt, l.stuck = true, doubt{}, time.Time{}
	if l.patrol == nil {
		l.patrol = time.AfterFunc(l.lookEvery(), l.look)
		return
	}
	l.patrol.Reset(l.lookEvery())
}

func (l *Lane) lookEvery() time.Duration { return max(l.cfg.LaneSilence/laneLooks, time.Millisecond) }

// look ends the lane if its road is dead. It looks again later, unless the lane is idle and nothing is on its way.
func (l *Lane) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	now := time.Now()
	s, seen := seeTCP(l.raw)
	switch {
	case seen && l.doubt.over(now, s, l.cfg.LaneSilence-l.lookEvery()):
		l.endLocked(fmt.Errorf("%w: nothing that was sent is acknowledged", ErrLaneLost))
		return
	case !seen && l.stuckFor(now) >= l.cfg.LaneWrite:
		l.endLocked(fmt.Errorf("%w: it takes no bytes", ErrLaneLost))
		return
	}
	if l.cur == nil && !s.flying && !s.owed {
		l.patrols = false
		return
	}
	l.patrol.Reset(l.lookEvery())
}

// stuckFor is for how long the same frame was seen in the making.
func (l *Lane) stuckFor(now time.Time) time.Duration {
	n := l.frames.Load()
	if n%2 == 0 || n != l.wasFrames || l.stuck.IsZero() {
		l.wasFrames, l.stuck = n, now
		return 0
	}
	return now.Sub(l.stuck)
}
