package tunnel

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
)

// Memory makes the two ends of a tunnel within the process: the first is the client's, whose peer is server. It has no
// goroutines and its clocks are time's, so that it works in testing/synctest bubbles. Differences to TLS: no certificate
// (PeerCertificate is nil, nothing expires), and a peer that writes to a closed stream is reset at once.
func Memory(client, server mtls.Identity, cfg Config) (Tunnel, Tunnel) {
	cfg = cfg.withDefaults()
	l := &link{}
	end := func(peer mtls.Identity, name string) *memory {
		return &memory{
			link: l, cfg: cfg, peer: peer, addr: memoryAddr(name), done: make(chan struct{}),
			streams: make(map[*memoryStream]bool), backlog: make(chan *memoryStream, cfg.Backlog),
			opens: newBucket(cfg.OpenRate, cfg.OpenBurst), room: make(chan struct{}),
		}
	}
	c, s := end(server, "client"), end(client, "server")
	c.other, s.other = s, c
	return c, s
}

// link is what both ends share: one lock for all of a tunnel.
type link struct{ mu sync.Mutex }

type memoryAddr string

func (memoryAddr) Network() string  { return "memory" }
func (a memoryAddr) String() string { return string(a) }

type memory struct {
	link  *link
	cfg   Config
	peer  mtls.Identity
	addr  memoryAddr
	other *memory
	done  chan struct{}

	// guarded by link.mu
	err      error
	streams  map[*memoryStream]bool // ours: that we opened (true) or the peer did
	backlog  chan *memoryStream
	room     chan struct{} // closed and replaced when the backlog shrinks
	opens    bucket        // of the peer
	buffered int64
}

func (m *memory) count(ours bool) (n int) {
	for _, o := range m.streams {
		if o == ours {
			n++
		}
	}
	return n
}

func (m *memory) Open(ctx context.Context) (Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	if err := m.waitForTurn(ctx); err != nil {
		return nil, err
	}
	for {
		s, room, err := m.open()
		if err != nil {
			return nil, err
		}
		if s != nil {
			return s, nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return nil, fmt.Errorf("open stream: %w", ctx.Err())
		case <-m.done:
			return nil, m.Err()
		}
	}
}

func (m *memory) waitForTurn(ctx context.Context) error {
	m.link.mu.Lock()
	d := m.other.opens.take()
	m.link.mu.Unlock()
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("open stream: %w", ctx.Err())
	case <-m.done:
		return m.Err()
	}
}

// open gives a stream, or a channel that tells when to try again.
func (m *memory) open() (*memoryStream, <-chan struct{}, error) {
	m.link.mu.Lock()
	defer m.link.mu.Unlock()
	o := m.other
	switch {
	case m.err != nil:
		return nil, nil, m.err
	case m.count(true) >= m.cfg.MaxStreams:
		return nil, nil, ErrTooManyStreams
	case len(o.backlog) == cap(o.backlog):
		return nil, o.room, nil
	}
	s, p := newMemoryStream(m), newMemoryStream(o)
	s.peer, p.peer = p, s
	if o.count(false) >= o.cfg.MaxStreams {
		s.cut = ErrReset
		return s, nil, nil
	}
	m.streams[s], o.streams[p] = true, false
	o.backlog <- p
	return s, nil, nil
}

func (m *memory) Accept() (Stream, error) { return m.accept(context.Background()) }

func (m *memory) accept(ctx context.Context) (Stream, error) {
	select {
	case s := <-m.backlog:
		m.link.mu.Lock()
		close(m.room)
		m.room = make(chan struct{})
		m.link.mu.Unlock()
		return s, nil
	case <-ctx.Done():
		return nil, net.ErrClosed
	case <-m.done:
		return nil, m.Err()
	}
}

func (m *memory) Ping(ctx context.Context) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("ping: %w", err)
	}
	if err := m.Err(); err != nil {
		return 0, err
	}
	return time.Nanosecond, nil
}

func (m *memory) Close() error {
	m.link.mu.Lock()
	defer m.link.mu.Unlock()
	m.end(ErrClosed)
	m.other.end(ErrPeerClosed)
	return nil
}

func (m *memory) end(why error) {
	if m.err != nil {
		return
	}
	m.err = why
	close(m.done)
	for s := range m.streams {
		if s.linger != nil {
			s.linger.Stop()
		}
		if s.cut == nil {
			s.cut = why
		}
		s.wake()
	}
	clear(m.streams)
}

func (m *memory) Done() <-chan struct{} { return m.done }

func (m *memory) Err() error {
	m.link.mu.Lock()
	defer m.link.mu.Unlock()
	return m.err
}

func (m *memory) Streams() int {
	m.link.mu.Lock()
	defer m.link.mu.Unlock()
	return len(m.streams)
}

func (m *memory) Peer() mtls.Identity                { return m.peer }
func (m *memory) PeerCertificate() *x509.Certificate { return nil }
func (m *memory) LocalAddr() net.Addr                { return m.addr }
func (m *memory) RemoteAddr() net.Addr               { return m.other.addr }
func (m *memory) Transport() string                  { return "memory" }
