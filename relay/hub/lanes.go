package hub

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/internal/splice"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

const (
	ticketLife = 30 * time.Second // from the request for a lane until it must be there
	laneIdle   = 5 * time.Minute  // a lane that nobody used for so long is closed
	laneSweep  = 10 * time.Second

	// What makes a stream a heavy one: it moved so much, or, for raw bytes, it stayed so long.
	heavyBytes = 256 << 10
	heavyTime  = 250 * time.Millisecond
	// bulkBytes on one stream say that lanes pay for themselves: the pool is filled for whoever comes beside it.
	bulkBytes = 4 << 20

	light, heavy, bulk = 0, 3, 4 // weights; each light stream takes one off

	maxWeights = 4096 // kinds of requests whose weight is remembered, for each tunnel
)

// ErrTicket says that a lane showed a ticket that its agent was not given, or that has run out.
var ErrTicket = errors.New("lane without a valid ticket")

// lanes is the pool of dedicated connections of one tunnel. Heavy requests go there, others stay on the mux; what is heavy is
// learnt from the requests before of the same kind. An agent that has nothing heavy to carry has no lane and costs none. No
// request waits for a lane: when there is none the mux takes it, and the pool grows for those to come.
type lanes struct {
	live *Live
	max  int // 0: the agent knows no lanes, or the operator wants none

	mu      sync.Mutex // guards the fields below
	closed  bool
	all     []*tunnel.Lane
	idle    []idleLane // the last one was used last
	tickets map[[tunnel.TicketSize]byte]time.Time
	need    int // lanes that were missed since run asked last
	weights map[string]int
	running bool
	kick    chan struct{}
	stop    context.CancelFunc
	tasks   sync.WaitGroup
}

type idleLane struct {
	lane  *tunnel.Lane
	since time.Time
}

func newLanes(l *Live, most int) *lanes {
	return &lanes{live: l, max: most, tickets: map[[tunnel.TicketSize]byte]time.Time{}, weights: map[string]int{}, kick: make(chan struct{}, 1)}
}

// presumed is the weight of a kind of request that was not seen yet: transfers and raw bytes are heavy until they are seen
// not to be.
func presumed(key string) int {
	switch protocol.Operation(path.Base(key)) {
	case protocol.OpRead, protocol.OpWrite, protocol.OpDial:
		return 2
	}
	return 0
}

// open starts a stream for a request: on a lane if it is of a heavy kind and one is free, else on the mux. The stream is
// metered: its Close teaches the pool.
func (p *lanes) open(ctx context.Context, key string) (tunnel.Stream, error) {
	if s := p.take(key); s != nil {
		return s, nil
	}
	s, err := p.live.tunnel.Open(ctx)
	if err != nil || p.max == 0 {
		return s, err
	}
	return p.meter(s, key), nil
}

// take gives a stream on a free lane, or nil.
func (p *lanes) take(key string) tunnel.Stream {
	if p.max == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w, seen := p.weights[key]
	if !seen {
		w = presumed(key)
	}
	if p.closed || w <= light {
		return nil
	}
	for len(p.idle) > 0 {
		lane := p.idle[len(p.idle)-1].lane
		p.idle = p.idle[:len(p.idle)-1]
		s, err := lane.Open()
		if err != nil { // it ended while it was idle
			p.dropLocked(lane)
			continue
		}
		switch { // one is kept warm for the next, or for as many as may come
		case w >= bulk && len(p.all)+len(p.tickets) < p.max:
			p.wantLocked(p.max)
		case len(p.idle) == 0:
			p.wantLocked(1)
		}
		return p.meter(s, key)
	}
	if w >= bulk {
		p.wantLocked(p.max)
	} else {
		p.wantLocked(1)
	}
	return nil
}

// wantLocked has run ask the agent for n more, within the limit.
func (p *lanes) wantLocked(n int) {
	p.need += n
	if !p.running {
		ctx, stop := context.WithCancel(context.Background())
		p.running, p.stop = true, stop
		p.tasks.Go(func() { p.run(ctx) })
	}
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *lanes) dropLocked(lane *tunnel.Lane) {
	p.all = slices.DeleteFunc(p.all, func(o *tunnel.Lane) bool { return o == lane })
	p.idle = slices.DeleteFunc(p.idle, func(o idleLane) bool { return o.lane == lane })
}

// run asks for lanes and closes those that nobody needs, until the pool has been empty for a while.
func (p *lanes) run(ctx context.Context) {
	tick := time.NewTicker(laneSweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
			p.grow(ctx)
		case now := <-tick.C:
			if p.sweep(now) {
				return
			}
		}
	}
}

// grow asks the agent for as many lanes as were missed, within the limit: who sent eight files at a time will send eight more.
// The agent dials them one after the other.
func (p *lanes) grow(ctx context.Context) {
	p.mu.Lock()
	p.forgetLocked(time.Now())
	n := min(p.need, p.max-len(p.all)-len(p.tickets))
	p.need = 0
	var ask protocol.Lanes
	for range n {
		var t [tunnel.TicketSize]byte
		_, _ = rand.Read(t[:]) // never fails (crypto/rand)
		p.tickets[t] = time.Now().Add(ticketLife)
		ask.Tickets = append(ask.Tickets, t[:])
	}
	p.mu.Unlock()
	if len(ask.Tickets) == 0 {
		return
	}
	if err := p.live.post(ctx, protocol.PathLanes, ask); err != nil {
		p.live.log.Debug("the agent opens no lanes", "agent", p.live.agent, "error", err)
	}
}

// forgetLocked drops tickets that have run out and lanes that have ended.
func (p *lanes) forgetLocked(now time.Time) {
	for t, until := range p.tickets {
		if now.After(until) {
			delete(p.tickets, t)
		}
	}
	for _, lane := range slices.Clone(p.all) {
		if lane.Err() != nil {
			p.dropLocked(lane)
		}
	}
}

// sweep closes lanes that stood idle, and says whether run may end.
func (p *lanes) sweep(now time.Time) (over bool) {
	var old []*tunnel.Lane
	p.mu.Lock()
	p.forgetLocked(now)
	for _, i := range slices.Clone(p.idle) {
		if now.Sub(i.since) >= laneIdle {
			old = append(old, i.lane)
			p.dropLocked(i.lane)
		}
	}
	if over = len(p.all) == 0 && len(p.tickets) == 0 && p.need == 0; over {
		p.running = false
		p.stop()
	}
	p.mu.Unlock()
	for _, lane := range old {
		_ = lane.Close()
	}
	return over
}

// add takes a lane that shows one of our tickets.
func (p *lanes) add(ticket [tunnel.TicketSize]byte, lane *tunnel.Lane) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.tickets[ticket]
	delete(p.tickets, ticket)
	if !ok || p.closed || time.Now().After(until) || len(p.all) >= p.max {
		return false
	}
	p.all = append(p.all, lane)
	lane.OnFree(func() { p.free(lane) })
	p.idle = append([]idleLane{{lane, time.Now()}}, p.idle...)
	return true
}

// free takes a lane back. One that a cut stream took along is replaced: what needed it mostly comes again.
func (p *lanes) free(lane *tunnel.Lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || !slices.Contains(p.all, lane):
	case lane.Err() == nil:
		p.idle = append(p.idle, idleLane{lane, time.Now()})
	default:
		p.dropLocked(lane)
		if lane.Busy() {
			p.wantLocked(1)
		}
	}
}

// close ends all lanes and their streams.
func (p *lanes) close() {
	p.mu.Lock()
	p.closed = true
	all := p.all
	p.all, p.idle = nil, nil
	if p.running {
		p.stop()
	}
	p.mu.Unlock()
	for _, lane := range all {
		_ = lane.Close()
	}
	p.tasks.Wait()
}

func (p *lanes) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

// learn takes what a request turned out to be.
func (p *lanes) learn(key string, moved int64, lasted time.Duration) {
	isHeavy := moved >= heavyBytes || lasted >= heavyTime && path.Base(key) == string(protocol.OpDial)
	p.mu.Lock()
	defer p.mu.Unlock()
	w, seen := p.weights[key]
	if !seen {
		if len(p.weights) >= maxWeights {
			clear(p.weights)
		}
		w = presumed(key)
	}
	switch {
	case moved >= bulkBytes:
		w = bulk
	case isHeavy:
		w = max(w, heavy)
	case w > light:
		w--
	}
	p.weights[key] = w
}

func (p *lanes) meter(s tunnel.Stream, key string) tunnel.Stream {
	return &metered{Stream: s, p: p, key: key, since: time.Now()}
}

// metered counts what a stream moves.
type metered struct {
	tunnel.Stream
	p     *lanes
	key   string
	since time.Time
	moved atomic.Int64
	once  sync.Once
}

func (m *metered) Read(b []byte) (int, error) {
	n, err := m.Stream.Read(b)
	m.moved.Add(int64(n))
	return n, err
}

func (m *metered) Write(b []byte) (int, error) {
	n, err := m.Stream.Write(b)
	m.moved.Add(int64(n))
	return n, err
}

// AwaitRead is that of a stream of a mux (splice.Waiter); a lane has none.
func (m *metered) AwaitRead(f func()) bool {
	w, ok := m.Stream.(splice.Waiter)
	return ok && w.AwaitRead(f)
}

func (m *metered) Close() error {
	m.once.Do(func() { m.p.learn(m.key, m.moved.Load(), time.Since(m.since)) })
	return m.Stream.Close()
}

// Lane takes a lane that an agent dialled: its ticket must be one that was given to a tunnel of the same agent. On an error
// the caller closes the lane.
func (h *Hub) Lane(ticket []byte, lane *tunnel.Lane) error {
	if len(ticket) != tunnel.TicketSize {
		return ErrTicket
	}
	peer := lane.Peer()
	h.mu.Lock()
	lives := slices.Clone(h.byAgent[peer.ID])
	h.mu.Unlock()
	for _, l := range lives {
		if l.tunnel.Peer() == peer && l.lanes.add([tunnel.TicketSize]byte(ticket), lane) {
			return nil
		}
	}
	return ErrTicket
}

// post sends a control request to the agent and waits for its receipt, 5 seconds at most.
func (l *Live) post(ctx context.Context, path string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("build %s: %w", path, err)
	}
	resp, err := l.client.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("send %s to agent %s: %w", path, l.agent, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		e := &protocol.Error{}
		_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(e)
		return fmt.Errorf("agent %s answers %s with status %d: %.200s", l.agent, path, resp.StatusCode, e.Message)
	}
	return nil
}
