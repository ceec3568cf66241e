package uplink

import (
	"context"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// MaxTunnels is the most that are kept to one address: twice as many for the moment of a change is what a relay lets one agent
// have.
const MaxTunnels = 4

// slot is one of the tunnels that are kept to an address. Number 0 finds the way there; the others follow it.
type slot struct {
	addr string
	n    int
}

// way is how a slot goes to its address: number 0 by what is known and tried, the others as it went. They wait for it.
func (u *Uplink) way(ctx context.Context, at slot) string {
	if at.n == 0 {
		return u.ways.next(at.addr, u.udp(at.addr))
	}
	for {
		u.mu.Lock()
		lead, changed := u.lines[slot{at.addr, 0}], u.first[at.addr]
		if changed == nil {
			changed = make(chan struct{})
			u.first[at.addr] = changed
		}
		u.mu.Unlock()
		if lead != nil {
			return lead.way
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ""
		}
	}
}

// Settle is how long a request may take to come that chose a tunnel just before the relay was told that it drains.
const Settle = 250 * time.Millisecond

// finish waits until the last stream of a tunnel that takes no new work has ended, and none has come for a moment: the relay
// may have chosen the tunnel just before it was told. A renewal must not cost a caller an open dial. The tunnel ends by itself
// with the certificate that it was opened with; the end of ctx, too, ends the wait.
func finish(ctx context.Context, t tunnel.Tunnel, beside *lanes) {
	tick := time.NewTicker(Settle)
	defer tick.Stop()
	for quiet := false; !quiet || t.Streams() > 0 || beside.busy() > 0; {
		quiet = t.Streams() == 0 && beside.busy() == 0
		select {
		case <-ctx.Done():
			return
		case <-t.Done():
			return
		case <-tick.C:
		}
	}
}
