package hub

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// Config limits a Hub. The zero value takes the defaults named.
type Config struct {
	MaxTunnelsPerAgent int // 8: two relays' worth, doubled for rotation
	MaxLanes           int // dedicated connections beside one tunnel; 0 means none
	Logger             *slog.Logger
}

// Hub is safe for concurrent use.
type Hub struct {
	cfg Config

	mu      sync.Mutex // guards the fields below
	byGroup map[string][]*Live
	byAgent map[string][]*Live
	turn    uint // where Pick begins to look
}

// Info is what is told of a live tunnel.
type Info struct {
	Agent, Workspace, Group string
	Hello                   protocol.Hello
	Status                  protocol.Status
	Connected               time.Time
	RemoteAddr              string
	Transport               string
	NotAfter                time.Time // of the certificate this tunnel was opened with
	Draining                bool
	InFlight                int
	Lanes                   int // dedicated connections beside this tunnel
}

// New makes an empty hub.
func New(cfg Config) *Hub {
	if cfg.MaxTunnelsPerAgent == 0 {
		cfg.MaxTunnelsPerAgent = 8
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Hub{cfg: cfg, byGroup: map[string][]*Live{}, byAgent: map[string][]*Live{}}
}

// Add makes t live. Identity comes from t's verified certificate, everything else from hello. The oldest tunnel of the
// same agent process is closed when there are too many, so that a flapping uplink cannot pile up. The caller calls
// Remove when the tunnel has ended.
func (h *Hub) Add(t tunnel.Tunnel, hello protocol.Hello) *Live {
	l := newLive(t, hello, h.cfg)
	h.mu.Lock()
	defer h.mu.Unlock()
	have := h.byAgent[l.agent]
	if l.ofAgent = new(atomic.Int64); len(have) > 0 {
		l.ofAgent = have[0].ofAgent
	}
	if len(have) >= h.cfg.MaxTunnelsPerAgent {
		h.cfg.Logger.Warn("closing the oldest tunnel of an agent that has too many", "agent", l.agent, "tunnels", len(have))
		// Those before it are closing already: each new one closes the next.
		old := have[len(have)-h.cfg.MaxTunnelsPerAgent]
		old.draining.Store(true)
		go old.tunnel.Close() // its lanes go with Remove
	}
	h.byAgent[l.agent] = append(h.byAgent[l.agent], l)
	h.byGroup[l.group] = append(h.byGroup[l.group], l)
	return l
}

// Remove forgets a tunnel that has ended, or is about to: it closes its lanes, and leaves the tunnel itself to the caller.
func (h *Hub) Remove(l *Live) {
	defer l.lanes.close() // not under the lock: it waits for what runs on them
	h.mu.Lock()
	defer h.mu.Unlock()
	without := func(m map[string][]*Live, k string) {
		m[k] = slices.DeleteFunc(m[k], func(o *Live) bool { return o == l })
		if len(m[k]) == 0 {
			delete(m, k)
		}
	}
	without(h.byAgent, l.agent)
	without(h.byGroup, l.group)
}

// Pick chooses a live tunnel of the group: of those that do not drain and are not in tried, one whose agent offers the
// profile if any does. Of these agents it takes the one with the fewest requests in flight on all its tunnels, and of its
// tunnels the one with the fewest; equals take turns. An agent that does not offer the profile is still asked when no other is
// there: the refusal is its to give and to record.
func (h *Hub) Pick(group, profile string, tried ...*Live) (*Live, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	lives := h.byGroup[group]
	var best *Live
	var bestOffers bool
	var bestAgent, bestTunnel int64
	for i := range lives {
		l := lives[(h.turn+uint(i))%uint(len(lives))]
		if l.draining.Load() || slices.Contains(tried, l) {
			continue
		}
		offers, mine, all := l.Offers(profile), l.inFlight.Load(), l.ofAgent.Load()
		switch {
		case best == nil:
		case offers != bestOffers:
			if !offers {
				continue
			}
		case all > bestAgent || all == bestAgent && mine >= bestTunnel:
			continue
		}
		best, bestOffers, bestAgent, bestTunnel = l, offers, all, mine
	}
	h.turn++
	if best == nil {
		return nil, &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginRelay,
			Message: "no agent of this connection's group is connected",
			Hint:    "see `fairlead agents list`; on the site, check that the agent service runs and can reach the relay"}
	}
	return best, nil
}

// Beside gives all live tunnels of l's agent, l among them.
func (h *Hub) Beside(l *Live) []*Live {
	h.mu.Lock()
	defer h.mu.Unlock()
	if all := slices.Clone(h.byAgent[l.agent]); slices.Contains(all, l) {
		return all
	}
	return []*Live{l}
}

// Kick ends every tunnel of the agent now, open streams included. It returns how many there were.
func (h *Hub) Kick(agent, reason string) int {
	h.mu.Lock()
	lives := slices.Clone(h.byAgent[agent])
	h.mu.Unlock()
	for _, l := range lives {
		h.cfg.Logger.Info("tunnel cut", "agent", agent, "reason", reason)
		l.tunnel.Close()
		l.lanes.close()
	}
	return len(lives)
}

// Outside counts the tunnels of a workspace that come, or have lanes that come, from an address that admits refuses; with cut it closes
// them.
func (h *Hub) Outside(workspace string, admits func(netip.Addr) bool, cut bool) (n int) {
	lives := h.outside(workspace, admits)
	if cut {
		for _, l := range lives {
			h.cfg.Logger.Info("tunnel cut", "agent", l.agent, "reason", "its address is not on the allowlist of agents")
			l.tunnel.Close()
			l.lanes.close()
		}
	}
	return len(lives)
}

// OutsideFrom tells of the tunnels that Outside counts: by agent, from which addresses they and their lanes come that admits refuses,
// each once, in order.
func (h *Hub) OutsideFrom(workspace string, admits func(netip.Addr) bool) map[string][]netip.Addr {
	by := map[string][]netip.Addr{}
	for _, l := range h.outside(workspace, admits) {
		by[l.agent] = append(by[l.agent], l.refused(admits)...)
	}
	for agent, from := range by {
		slices.SortFunc(from, netip.Addr.Compare)
		by[agent] = slices.Compact(from)
	}
	return by
}

func (h *Hub) outside(workspace string, admits func(netip.Addr) bool) (lives []*Live) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ls := range h.byAgent {
		for _, l := range ls {
			if l.tunnel.Peer().Workspace == workspace && len(l.refused(admits)) > 0 {
				lives = append(lives, l)
			}
		}
	}
	return lives
}

// refused gives the addresses of the tunnel and its lanes that admits does not let in.
func (l *Live) refused(admits func(netip.Addr) bool) (from []netip.Addr) {
	l.lanes.mu.Lock()
	all := slices.Clone(l.lanes.all)
	l.lanes.mu.Unlock()
	if a := AddrOf(l.tunnel.RemoteAddr()); !admits(a) {
		from = append(from, a)
	}
	for _, lane := range all {
		if a := AddrOf(lane.RemoteAddr()); !admits(a) {
			from = append(from, a)
		}
	}
	return from
}

// AddrOf is the address without its port, unmapped; invalid for what has none.
func AddrOf(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap().WithZone("")
}

// Agents calls f with the agent id and group of every live agent, for the check that each is still allowed.
func (h *Hub) Agents() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := make([]string, 0, len(h.byAgent))
	for id := range h.byAgent {
		ids = append(ids, id)
	}
	return ids
}

// Live reports whether the agent has a live tunnel.
func (h *Hub) Live(agent string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.byAgent[agent]) > 0
}

// List tells of the live tunnels of a workspace, by agent and then age.
func (h *Hub) List(workspace string) []Info {
	h.mu.Lock()
	defer h.mu.Unlock()
	var infos []Info
	for _, lives := range h.byAgent {
		for _, l := range lives {
			if l.workspace == workspace {
				infos = append(infos, l.Info())
			}
		}
	}
	sort.Slice(infos, func(i, j int) bool {
		if c := strings.Compare(infos[i].Agent, infos[j].Agent); c != 0 {
			return c < 0
		}
		return infos[i].Connected.Before(infos[j].Connected)
	})
	return infos
}

// Count is the number of live agents and tunnels.
func (h *Hub) Count() (agents, tunnels int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, lives := range h.byAgent {
		tunnels += len(lives)
	}
	return len(h.byAgent), tunnels
}

// Lanes is the number of dedicated connections beside the live tunnels.
func (h *Hub) Lanes() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, lives := range h.byAgent {
		for _, l := range lives {
			n += l.lanes.count()
		}
	}
	return n
}

// Tell sends a notice to every agent that has a live tunnel, and waits for the receipts, 5 seconds at most.
func (h *Hub) Tell(ctx context.Context, notice protocol.Notice) {
	h.each(func(l *Live) { _ = l.Notify(ctx, notice) })
}

// Drain gives out no tunnel any more, waits until no request is in flight or ctx ends, then closes all tunnels. Whoever has
// requests that are still on their way to Pick lets them come first.
func (h *Hub) Drain(ctx context.Context) {
	h.each(func(l *Live) {
		l.draining.Store(true)
		l.waitIdle(ctx)
		l.tunnel.Close()
	})
}

// each calls f for every live tunnel, all at once, and waits.
func (h *Hub) each(f func(*Live)) {
	h.mu.Lock()
	var lives []*Live
	for _, ls := range h.byAgent {
		lives = append(lives, ls...)
	}
	h.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range lives {
		wg.Go(func() { f(l) })
	}
	wg.Wait()
}
