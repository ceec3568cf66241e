package tunnel

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// Mux splits one TCP port by ALPN: each protocol has its own TLS settings and its own listener, whose connections have
// their handshake done. Handshakes are bounded in number, in all and for each source, and in time; one that hangs makes
// way for one that comes. So a client that sends nothing costs no one.
//
// When more come than there is room for, they wait in line, and no more handshakes compute at a time than there are cores: a
// storm of thousands is served one after the other, as fast as can be, while what runs goes on. Who would wait for too long is
// refused before anything was computed for it.
//
// Peers on the list Config.ProxyProtocol are load balancers, which must say first whom they speak for (proxyheader.go): what is
// counted, and what RemoteAddr gives, is that address.
//
// The listeners of Conns give *tls.Conn itself, which http.Server needs to speak HTTP/2: serve the people's listener with
// srv.Serve(m.Conns("")), leave srv.TLSConfig nil, and have "h2" and "http/1.1" in NextProtos of the default settings.
// A protocol of our own that is HTTP underneath is served through HTTP1(m.Conns(name)).
type Mux struct {
	ln    net.Listener
	confs map[string]*tls.Config
	cfg   Config
	out   map[string]*conns
	done  chan struct{}
	tasks sync.WaitGroup

	turns   turns
	arrived chan struct{} // wakes usher

	mu    sync.Mutex    // guards the fields below
	hands gate          // connections whose TLS handshake is not done
	heads gate          // those of load balancers whose PROXY header is not there
	freed chan struct{} // closed and replaced when a handshake ends

	warned time.Time // of a header, last
}

// gate holds the books of one step that connections go through: who waits for it, and who is at it.
type gate struct {
	line    line
	pending *list.List // of *pending, oldest first
	sources map[netip.Prefix]*list.List
}

func newGate() gate {
	return gate{line: line{of: map[netip.Prefix][]waiting{}}, pending: list.New(), sources: map[netip.Prefix]*list.List{}}
}

type pending struct {
	conn    net.Conn
	gate    *gate
	source  netip.Prefix
	since   time.Time // when its time began to run; what it waited for us is added
	stopped time.Time // since when its time stands still; zero: it runs
	all, of *list.Element
	choose  func(*tls.ClientHelloInfo) (*tls.Config, error) // of Hand; nil: Mux.choose
}

// Listen takes over ln. confs gives TLS settings by ALPN name; "" stands for all other clients, and those without ALPN; if
// it is missing they are refused. The settings must not change later.
func Listen(ln net.Listener, confs map[string]*tls.Config, cfg Config) *Mux {
	m := &Mux{
		ln: ln, confs: confs, cfg: cfg.withDefaults(), out: map[string]*conns{}, done: make(chan struct{}),
		hands: newGate(), heads: newGate(), freed: make(chan struct{}),
		turns: turns{free: runtime.GOMAXPROCS(0)}, arrived: make(chan struct{}, 1),
	}
	for alpn, c := range confs {
		if alpn != "" && !slices.Contains(c.NextProtos, alpn) {
			panic(fmt.Sprintf("tunnel: TLS settings for ALPN %q do not name it in NextProtos", alpn))
		}
		m.out[alpn] = &conns{m: m, ch: make(chan *tls.Conn), closed: make(chan struct{})}
	}
	return m
}

// Conns is the listener of one ALPN name, or of the default (""). Close of it refuses that protocol from then on and leaves
// the rest alone. It panics for a name that Listen was not given.
func (m *Mux) Conns(alpn string) net.Listener {
	c, ok := m.out[alpn]
	if !ok {
		panic(fmt.Sprintf("tunnel: no TLS settings for ALPN %q", alpn))
	}
	return c
}

// Addr is the port's address.
func (m *Mux) Addr() net.Addr { return m.ln.Addr() }

// Serve accepts until ctx ends, then closes the port and the listeners; connections already handed out live on. It
// returns nil after ctx ended, and the error of the port otherwise.
func (m *Mux) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = m.ln.Close() })
	defer func() {
		cancel()
		stop()
		_ = m.ln.Close()
		close(m.done)
		m.abort()
		m.tasks.Wait()
	}()
	m.tasks.Go(func() { m.usher(ctx) })
	var delay time.Duration
	for {
		conn, err := m.ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept on %s: %w", m.ln.Addr(), err)
			}
			// Out of file descriptors, mostly: it passes.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			m.cfg.Logger.Warn("accept", "addr", m.ln.Addr().String(), "err", err)
			if !pause(ctx, delay) {
				return nil
			}
			continue
		}
		delay = 0
		m.arrive(conn)
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// admit finds room for the handshake of a connection that does not stand in line. When a source has used up its share, its own
// oldest makes way if it hangs, else the newcomer is refused. When all room is used up, it waits.
func (m *Mux) admit(ctx context.Context, conn net.Conn) *pending {
	p := &pending{conn: conn, gate: &m.hands, source: sourceOf(conn)}
	for {
		m.mu.Lock()
		now := time.Now()
		if of := m.hands.sources[p.source]; of != nil {
			if ok, _ := m.makeRoom(of, m.cfg.MaxHandshakesPerSource, now); !ok {
				m.mu.Unlock()
				return nil
			}
		}
		ok, in := m.makeRoom(m.hands.pending, m.cfg.MaxHandshakes, now)
		if ok {
			p.enter(now)
			m.mu.Unlock()
			return p
		}
		freed := m.freed
		m.mu.Unlock()
		t := time.NewTimer(in)
		select {
		case <-freed:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		t.Stop()
	}
}

// makeRoom reports whether one more fits into a list of handshakes, and ends one that hangs if that is what it takes: cutting
// handshakes that move would let a storm of honest agents end none. in is when one may hang that does not yet. m.mu is held.
func (m *Mux) makeRoom(l *list.List, most int, now time.Time) (ok bool, in time.Duration) {
	if l.Len() < most {
		return true, 0
	}
	in = m.cfg.HandshakeGrace
	for e := l.Front(); e != nil; e = e.Next() {
		p := e.Value.(*pending)
		if !p.stopped.IsZero() {
			continue // it waits for us
		}
		left := m.cfg.HandshakeGrace - now.Sub(p.since)
		if left <= 0 {
			m.drop(p)
			return true, 0
		}
		in = min(in, left)
	}
	return false, in
}

// enter counts a handshake. Mux.mu is held.
func (p *pending) enter(now time.Time) {
	of := p.gate.sources[p.source]
	if of == nil {
		of = list.New()
		p.gate.sources[p.source] = of
	}
	p.since = now.Add(-spent(p.conn))
	p.all, p.of = p.gate.pending.PushBack(p), of.PushBack(p)
}

// stop and resume hold a handshake's time still while it waits for us.
func (m *Mux) stop(p *pending) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.stopped = time.Now()
}

func (m *Mux) resume(p *pending) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !p.stopped.IsZero() {
		p.since = p.since.Add(time.Since(p.stopped))
		p.stopped = time.Time{}
	}
}

// until is when a handshake's time is over.
func (m *Mux) until(p *pending) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return p.since.Add(m.cfg.HandshakeTimeout)
}

// drop takes p out of the books and ends its handshake. m.mu is held.
func (m *Mux) drop(p *pending) {
	m.release(p)
	_ = p.conn.Close()
}

// release gives p's room back. m.mu is held.
func (m *Mux) release(p *pending) {
	if p.all == nil {
		return
	}
	p.gate.pending.Remove(p.all)
	of := p.gate.sources[p.source]
	of.Remove(p.of)
	if of.Len() == 0 {
		delete(p.gate.sources, p.source)
	}
	p.all, p.of = nil, nil
	close(m.freed)
	m.freed = make(chan struct{})
}

func (m *Mux) abort() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range []*gate{&m.heads, &m.hands} {
		for g.pending.Len() > 0 {
			m.drop(g.pending.Front().Value.(*pending))
		}
		for _, conn := range g.line.all() {
			_ = conn.Close()
		}
	}
}

func (m *Mux) handshake(ctx context.Context, p *pending) {
	tune(p.conn, m.cfg.Congestion)
	choose := p.choose
	if choose == nil {
		choose = m.choose
	}
	hctx, cancel := context.WithTimeout(ctx, m.cfg.HandshakeTimeout+m.cfg.HandshakeWait)
	defer cancel()
	turn := &turnConn{Conn: p.conn, m: m, p: p, done: hctx.Done()}
	batch := &batchConn{Conn: turn}
	conn := tls.Server(batch, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		conf, err := choose(hello)
		if err != nil {
			return nil, err
		}
		class := classBegun
		if slices.Contains(conf.NextProtos, protocol.ALPNTunnel) {
			class = classTunnel
		}
		turn.begun = true
		if !turn.take(class) {
			return nil, net.ErrClosed
		}
		return conf, nil
	}})
	err := conn.HandshakeContext(hctx)
	turn.give()
	if err == nil {
		batch.Conn = p.conn
		err = p.conn.SetReadDeadline(time.Time{})
	}
	m.mu.Lock()
	m.release(p)
	m.mu.Unlock()
	if err != nil {
		_ = p.conn.Close()
		m.cfg.Logger.Debug("handshake", "from", p.conn.RemoteAddr().String(), "err", err)
		return
	}
	out := m.out[conn.ConnectionState().NegotiatedProtocol]
	if out == nil {
		out = m.out[""]
	}
	select {
	case out.ch <- conn:
		return
	case <-out.closed:
	case <-hctx.Done(): // nobody takes it
	}
	_ = p.conn.Close()
}

// choose takes the first name that the client offers and we have; the default for all others.
func (m *Mux) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	for _, alpn := range hello.SupportedProtos {
		if c := m.confs[alpn]; c != nil && alpn != "" {
			return c, nil
		}
	}
	if c := m.confs[""]; c != nil {
		return c, nil
	}
	return nil, errors.New("no protocol that is spoken here was offered")
}

// sourceOf is the IPv4 address or the IPv6 /64 that a connection comes from.
func sourceOf(c net.Conn) netip.Prefix { return sourceOfAddr(c.RemoteAddr()) }

func sourceOfAddr(addr net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Prefix{}
	}
	a := ap.Addr().Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // cannot fail: bits fit the family
	return p
}

// conns is the listener of one protocol.
type conns struct {
	m      *Mux
	ch     chan *tls.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *conns) Accept() (net.Conn, error) {
	select {
	case <-c.closed:
		return nil, net.ErrClosed
	case <-c.m.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case conn := <-c.ch:
		return conn, nil
	case <-c.closed:
		return nil, net.ErrClosed
	case <-c.m.done:
		return nil, net.ErrClosed
	}
}

func (c *conns) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *conns) Addr() net.Addr { return c.m.Addr() }
