package uplink

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// How often a relay may ask for lanes: each is a dial and a handshake, and a hostile relay shall not keep the site busy with
// them, or its proxy.
const (
	laneBurst = 2 * protocol.MaxLanes
	laneRate  = 2 // a second, for long
)

// lanes are the dedicated connections beside one tunnel. The relay asks for them; they are dialled as the tunnel was, and
// served as it is. They end with it.
type lanes struct {
	most int
	dial func(ctx context.Context, ticket []byte) (*tunnel.Lane, error)
	srv  *http.Server
	ctx  context.Context // ends with close
	stop context.CancelFunc
	log  func(msg string, args ...any)

	mu     sync.Mutex // guards the fields below
	open   map[*tunnel.Lane]struct{}
	count  int // those that are open and those that are dialled
	tokens float64
	last   time.Time
	tasks  sync.WaitGroup
}

func newLanes(ctx context.Context, most int, srv *http.Server, log func(string, ...any), dial func(context.Context, []byte) (*tunnel.Lane, error)) *lanes {
	p := &lanes{most: most, dial: dial, srv: srv, log: log, open: map[*tunnel.Lane]struct{}{}, tokens: laneBurst, last: time.Now()}
	p.ctx, p.stop = context.WithCancel(ctx)
	return p
}

// ask takes the relay's request. What goes beyond the limits is refused whole, so that the relay knows.
func (p *lanes) ask(w http.ResponseWriter, r *http.Request) {
	var in protocol.Lanes
	if r.Method != http.MethodPost || json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(&in) != nil || len(in.Tickets) > protocol.MaxLanes {
		refuse(w, protocol.Errorf(protocol.CodeInvalid, "want POST and at most %d tickets", protocol.MaxLanes))
		return
	}
	for _, t := range in.Tickets {
		if len(t) != tunnel.TicketSize {
			refuse(w, protocol.Errorf(protocol.CodeInvalid, "a ticket has %d bytes", tunnel.TicketSize))
			return
		}
	}
	if !p.admit(len(in.Tickets)) {
		refuse(w, protocol.Errorf(protocol.CodeRateLimited, "at most %d lanes, and %d a second", p.most, laneRate))
		return
	}
	p.tasks.Go(func() { // one after the other: a storm of handshakes is what lanes are to avoid
		for _, t := range in.Tickets {
			p.one(t)
		}
	})
	_, _ = w.Write([]byte("{}"))
}

// admit reserves room for n lanes. It is called by a handler of the server that close waits for.
func (p *lanes) admit(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.tokens = min(laneBurst, p.tokens+laneRate*now.Sub(p.last).Seconds())
	p.last = now
	if p.ctx.Err() != nil || p.count+n > p.most || p.tokens < float64(n) {
		return false
	}
	p.tokens -= float64(n)
	p.count += n
	return true
}

// one dials a lane and serves it in a goroutine of its own.
func (p *lanes) one(ticket []byte) {
	ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
	lane, err := p.dial(ctx, ticket)
	cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && p.ctx.Err() != nil {
		err = p.ctx.Err()
		_ = lane.Close()
	}
	if err != nil {
		p.count--
		p.log("no lane to the relay", "error", err)
		return
	}
	p.open[lane] = struct{}{}
	p.tasks.Go(func() {
		_ = p.srv.Serve(tunnel.NewListener(lane)) // ends with the lane
		_ = lane.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, lane)
		p.count--
	})
}

// busy is how many lanes have a stream.
func (p *lanes) busy() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for lane := range p.open {
		if lane.Busy() {
			n++
		}
	}
	return n
}

// wait waits until the relay has closed every stream on the lanes, and so has read all of it.
func (p *lanes) wait(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.busy() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// close ends all lanes at once, and waits for what served them.
func (p *lanes) close() {
	p.stop()
	p.mu.Lock()
	var all []*tunnel.Lane
	for lane := range p.open {
		all = append(all, lane)
	}
	p.mu.Unlock()
	for _, lane := range all {
		_ = lane.Close()
	}
	p.tasks.Wait()
}

func refuse(w http.ResponseWriter, e *protocol.Error) {
	e.Origin = protocol.OriginAgent
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(protocol.HeaderOrigin, string(e.Origin))
	w.WriteHeader(e.Code.Status())
	_ = json.NewEncoder(w).Encode(e)
}

// dialLane opens one more connection the way the tunnel to addr was opened.
func (u *Uplink) dialLane(addr, way string) func(ctx context.Context, ticket []byte) (*tunnel.Lane, error) {
	return func(ctx context.Context, ticket []byte) (*tunnel.Lane, error) {
		lane, err := tunnel.DialLane(ctx, addr, u.cfg.TLS, u.dialFunc(addr, way), ticket, u.cfg.Tunnel)
		if err != nil {
			return nil, fmt.Errorf("dial a lane: %w", err)
		}
		return lane, nil
	}
}
