package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

// Key is the key of relay.yaml that says which addresses gateways may use.
const Key = "gateway.addresses"

// Config is what the manager stands on.
type Config struct {
	Addresses          []Range // that may be used; empty: the feature is off
	MaxConns           int     // of all gateways together
	MaxConnsPerGateway int
	HandshakeTimeout   time.Duration
	// MaxHandshakes and MaxHandshakesPerSource bound, for each gateway, the handshakes that are not done; a source is an IPv4
	// address or an IPv6 /64.
	MaxHandshakes, MaxHandshakesPerSource int
	DialTimeout                           time.Duration // until the agent has answered
	Congestion                            string        // TCP congestion control of conns, as tunnel.Config's; a port keeps what it was opened with
	// Certificate is the relay's own.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Directory   *directory.Directory
	Dispatch    *dispatch.Dispatcher
	Logger      *slog.Logger
}

// DefaultConfig holds the limits, with which nothing is open: there are no addresses.
func DefaultConfig() Config {
	return Config{MaxConns: 1024, MaxConnsPerGateway: 256, HandshakeTimeout: 10 * time.Second, MaxHandshakes: 64, MaxHandshakesPerSource: 16, DialTimeout: 30 * time.Second,
		Logger: slog.New(slog.DiscardHandler)}
}

// Manager keeps the ports that the snapshot in force names, and the conns through them. It is safe for concurrent use; Run
// must run beside it.
type Manager struct {
	cfg      Config
	wake     chan chan struct{} // to Run: do it now
	ended    chan struct{}      // closed when Run has ended
	refusals budget.Flood       // by workspace
	refused  atomic.Int64

	mu       sync.Mutex                          // guards the fields below
	ports    map[string]*port                    // by connection id
	held     map[netip.AddrPort]*net.TCPListener // opened by Reserve and not taken over yet
	conns    map[*conn]struct{}
	draining bool
	idle     chan struct{} // closed when draining and there are no conns
}

// port is one gateway's port: open, or failed.
type port struct {
	gateway *directory.Gateway
	ln      *net.TCPListener // nil: not open
	fault   string           // why not
	conns   int
	shaking map[netip.Prefix]int // handshakes that are not done, by source
	pending int                  // of all sources
}

// Status tells of one gateway's port.
type Status struct {
	Open  bool
	Fault string // why it is not open
	Conns int
}

// Counts is what the metrics tell.
type Counts struct {
	Open, Failed, Conns int
	Refused             int64
}

// New makes a manager that has nothing open.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg, wake: make(chan chan struct{}), ended: make(chan struct{}), ports: map[string]*port{}, held: map[netip.AddrPort]*net.TCPListener{},
		conns: map[*conn]struct{}{}, idle: make(chan struct{}),
		refusals: budget.Flood{Rate: refusalRate, Burst: refusalBurst}}
}

// Run keeps ports and conns as the rules say, until ctx ends; then it closes everything and waits for it.
func (m *Manager) Run(ctx context.Context) {
	defer close(m.ended)
	var tasks sync.WaitGroup
	defer m.tellRefusals()
	defer tasks.Wait()
	defer m.shut()
	tick := time.NewTicker(2 * time.Second) // certificates end without an event, and a port that was taken becomes free
	defer tick.Stop()
	for {
		changed := m.cfg.Directory.Changed()
		m.keep(ctx, &tasks)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
			m.tellRefusals()
		case done := <-m.wake:
			m.keep(ctx, &tasks)
			close(done)
		}
	}
}

// Sync returns when the snapshot in force is what the ports are by, or when ctx or Run has ended.
func (m *Manager) Sync(ctx context.Context) {
	done := make(chan struct{})
	select {
	case m.wake <- done:
	case <-ctx.Done():
		return
	case <-m.ended:
		return
	}
	select {
	case <-done:
	case <-m.ended:
	}
}

// Permit tells whether relay.yaml lets a gateway use the address.
func (m *Manager) Permit(ap netip.AddrPort) error {
	if len(m.cfg.Addresses) == 0 {
		return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: Key, Message: "this relay has no gateways",
			Hint: "the relay's operator can allow addresses and ports in relay.yaml under " + Key}
	}
	if !slices.ContainsFunc(m.cfg.Addresses, func(r Range) bool { return r.contains(ap) }) {
		return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: Key, Message: "the relay's operator does not let gateways use this address and port",
			Hint: "the relay's operator can allow it in relay.yaml under " + Key}
	}
	return nil
}

// Reserve opens the port for a connection's gateway before the gateway is written, so that a port that cannot be opened
// refuses the change as a whole. connection is "" when it is not made yet. Keep takes the port over; release closes it when
// nobody did.
func (m *Manager) Reserve(ap netip.AddrPort, connection string) (release func(), err error) {
	if err := m.Permit(ap); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.ports[connection]; p != nil && p.ln != nil && p.gateway.Address == ap {
		return func() {}, nil
	}
	if m.draining {
		return nil, &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginRelay, Message: "the relay is stopping"}
	}
	if m.held[ap] != nil {
		return nil, &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginRelay, Message: "another gateway is about to get this address and port", Hint: "choose another port"}
	}
	ln, err := m.listen(ap)
	if err != nil {
		return nil, &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginRelay, Message: "the port cannot be opened: " + fault(err), Cause: err,
			Hint: "choose another address or port; the details are in the relay's log"}
	}
	m.held[ap] = ln
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.held[ap] == ln {
			delete(m.held, ap)
			_ = ln.Close()
		}
	}, nil
}

func (m *Manager) listen(ap netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp4"
	if ap.Addr().Is6() {
		network = "tcp6" // "::" is IPv6 alone
	}
	ln, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(ap))
	if err == nil {
		tunnel.TuneListener(ln, m.cfg.Congestion) // a conn is often the longer part of the way
	}
	return ln, err
}

// fault gives a reason that may be shown; the error itself names addresses.
func fault(err error) string {
	switch {
	case inUse(err):
		return "it is in use on the relay's machine"
	case notHere(err):
		return "the address is not one of the relay's machine"
	case forbidden(err):
		return "the relay has no right to it"
	}
	return "the relay's system refuses it"
}

// Status tells of the gateway of a connection's id.
func (m *Manager) Status(connection string) Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.ports[connection]
	if p == nil {
		return Status{Fault: "the relay has not opened it yet"}
	}
	return Status{Open: p.ln != nil, Fault: p.fault, Conns: p.conns}
}

// Counts counts ports and conns.
func (m *Manager) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := Counts{Conns: len(m.conns), Refused: m.refused.Load()}
	for _, p := range m.ports {
		if p.ln != nil {
			c.Open++
		} else {
			c.Failed++
		}
	}
	return c
}

// keep closes and opens ports as the snapshot says, then cuts conns that it no longer allows.
func (m *Manager) keep(ctx context.Context, tasks *sync.WaitGroup) {
	snap := m.cfg.Directory.Snapshot()
	m.mu.Lock()
	defer m.mu.Unlock()
	want := map[string]*directory.Gateway{}
	for _, ws := range snap.Workspaces() {
		for _, c := range ws.Connections {
			if c.Gateway != nil {
				want[c.ID] = c.Gateway
			}
		}
	}
	for id, p := range m.ports {
		if g := want[id]; g == nil || g.ID != p.gateway.ID || g.Address != p.gateway.Address {
			m.closePort(p)
			delete(m.ports, id)
		}
	}
	for id, g := range want {
		p := m.ports[id]
		if p == nil {
			p = &port{shaking: map[netip.Prefix]int{}}
			m.ports[id] = p
		}
		p.gateway = g
		if p.ln == nil && !m.draining && ctx.Err() == nil {
			m.openPort(ctx, tasks, p)
		}
	}
	m.recheck(snap)
}

// openPort takes over a reserved port or opens one. It is called again for a port that failed. m.mu is held.
func (m *Manager) openPort(ctx context.Context, tasks *sync.WaitGroup, p *port) {
	ap := p.gateway.Address
	err := m.Permit(ap)
	why := "relay.yaml does not allow its address and port (" + Key + ")"
	var ln *net.TCPListener
	if err == nil {
		if ln = m.held[ap]; ln != nil {
			delete(m.held, ap)
		} else if ln, err = m.listen(ap); err != nil {
			why = fault(err)
		}
	}
	if err != nil {
		if p.fault != why {
			m.cfg.Logger.Error("a gateway's port is not open; trying on", "gateway", p.gateway.ID, "connection", p.gateway.Connection, "address", ap.String(), "error", err)
		}
		p.fault = why
		return
	}
	p.ln, p.fault = ln, ""
	m.cfg.Logger.Info("gateway open", "gateway", p.gateway.ID, "connection", p.gateway.Connection, "address", ap.String(), "tls", p.gateway.TLS)
	tasks.Go(func() { m.accept(ctx, tasks, p, ln) })
}

// closePort is called with m.mu held.
func (m *Manager) closePort(p *port) {
	if p.ln == nil {
		return
	}
	_ = p.ln.Close()
	p.ln = nil
	m.cfg.Logger.Info("gateway closed", "gateway", p.gateway.ID, "address", p.gateway.Address.String())
}

// accept takes conns until the port is closed.
func (m *Manager) accept(ctx context.Context, tasks *sync.WaitGroup, p *port, ln *net.TCPListener) {
	var delay time.Duration
	for {
		c, err := ln.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			// Out of file descriptors, mostly: it passes.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			m.cfg.Logger.Warn("accept at a gateway", "address", ln.Addr().String(), "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(delay):
			}
			continue
		}
		delay = 0
		if k := m.admit(ctx, p, c); k != nil {
			tasks.Add(1)
			go m.serve(k, tasks.Done)
		}
	}
}

// Drain closes the ports, and waits until the conns have ended or ctx has; those that are left are cut when Run ends.
func (m *Manager) Drain(ctx context.Context) {
	m.mu.Lock()
	if !m.draining {
		m.draining = true
		m.closeAll()
		if len(m.conns) == 0 {
			close(m.idle)
		}
	}
	m.mu.Unlock()
	select {
	case <-m.idle:
	case <-ctx.Done():
	case <-m.ended:
	}
}

func (m *Manager) closeAll() {
	for _, p := range m.ports {
		m.closePort(p)
	}
	for ap, ln := range m.held {
		delete(m.held, ap)
		_ = ln.Close()
	}
}

var errStopping error = &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginRelay, Message: "the relay is stopping"}

func (m *Manager) shut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.draining {
		m.draining = true
		if len(m.conns) == 0 {
			close(m.idle)
		}
	}
	m.closeAll()
	for k := range m.conns {
		k.cut(errStopping)
	}
}
