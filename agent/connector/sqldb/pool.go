package sqldb

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

var errQueue = errors.New("no free connection in time")

// session is one connection to the target, for one call at a time.
type session interface {
	// query runs st read-only and feeds its rows to out. errCut means that out has had enough.
	query(ctx context.Context, st *bound, out *stream) error
	// exec runs statements in one transaction: all take effect, or none.
	exec(ctx context.Context, sts []*bound) ([]protocol.ExecResult, error)
	schema(ctx context.Context) (*protocol.Schema, error)
	// reset makes the session as if new and reports whether it succeeded, or will: then ready tells. Many adapters cannot;
	// their sessions are closed.
	reset(ctx context.Context) bool
	// ready reports whether what reset has begun succeeded. It is called once before the session is used again.
	ready() bool
	// close ends the connection. What still runs there is cancelled at the server before close returns, within a few
	// seconds.
	close()
}

// pool bounds the connections to the target and keeps idle ones for a short time. One that has served a connection of the
// relay never serves another.
type pool struct {
	queue time.Duration // how long a call waits for a slot
	open  func(context.Context) (session, error)
	slots chan struct{} // holds one token a live session that is in use or idle

	mu      sync.Mutex // guards the fields below
	idle    []*pooled
	waiting int // calls that wait for a slot
	closed  bool
}

type pooled struct {
	session
	key  string
	born time.Time
	reap *time.Timer
}

func newPool(size int, queue time.Duration, open func(context.Context) (session, error)) *pool {
	return &pool{queue: queue, open: open, slots: make(chan struct{}, size)}
}

// get gives an idle session of the key or a new one. It waits for a free slot until the queue time-out, errQueue, or the
// end of ctx.
func (p *pool) get(ctx context.Context, key string) (*pooled, error) {
	if s := p.takeReady(key); s != nil {
		return s, nil
	}
	select {
	case p.slots <- struct{}{}:
	default:
		// All slots are taken; an idle session of another key gives way.
		if err := p.wait(ctx); err != nil {
			return nil, err
		}
		// One of this key may have come back meanwhile.
		if s := p.takeReady(key); s != nil {
			<-p.slots
			return s, nil
		}
	}
	opened := false
	defer func() {
		if !opened { // also when a driver panics
			<-p.slots
		}
	}()
	s, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	opened = true
	return &pooled{session: s, key: key, born: time.Now()}, nil
}

// takeReady takes an idle session whose reset has succeeded; those whose reset has not are closed.
func (p *pool) takeReady(key string) *pooled {
	for {
		s := p.takeIdle(key)
		if s == nil || s.isReady() {
			return s
		}
		p.drop(s)
	}
}

// isReady guards against a driver that panics: such a session is not ready.
func (s *pooled) isReady() (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return s.ready()
}

func (p *pool) takeIdle(key string) *pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.idle) - 1; i >= 0; i-- {
		if s := p.idle[i]; s.key == key && s.reap.Stop() {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return s
		}
	}
	return nil
}

// wait gets a slot: it closes the oldest idle session, or waits for one that is in use. It counts itself as waiting under
// the lock that put looks at, so that a session put back meanwhile is either seen here or closed there.
func (p *pool) wait(ctx context.Context) error {
	p.mu.Lock()
	var old *pooled
	for i, s := range p.idle {
		if s.reap.Stop() {
			old, p.idle = s, append(p.idle[:i], p.idle[i+1:]...)
			break
		}
	}
	p.waiting++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.waiting--
		p.mu.Unlock()
	}()
	if old != nil {
		p.drop(old)
	}
	limit := time.NewTimer(p.queue)
	defer limit.Stop()
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-limit.C:
		return errQueue
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drop closes a session and frees its slot.
func (p *pool) drop(s *pooled) {
	s.close()
	<-p.slots
}

// put takes a session back that has been reset. It is closed when a call waits, which may be of another key.
func (p *pool) put(s *pooled) {
	p.mu.Lock()
	if p.closed || p.waiting > 0 || time.Since(s.born) > maxAge {
		p.mu.Unlock()
		p.drop(s)
		return
	}
	s.reap = time.AfterFunc(idleTime, func() {
		p.mu.Lock()
		for i, have := range p.idle {
			if have == s {
				p.idle = append(p.idle[:i], p.idle[i+1:]...)
				break
			}
		}
		p.mu.Unlock()
		p.drop(s)
	})
	p.idle = append(p.idle, s)
	p.mu.Unlock()
}

// close drops what is idle; sessions in use are dropped when they come back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, s := range idle {
		if s.reap.Stop() {
			p.drop(s)
		}
	}
}
