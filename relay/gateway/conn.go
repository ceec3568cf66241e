package gateway

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/splice"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

// conn is one client's conn at a gateway.
type conn struct {
	id     string // of the request that it becomes
	port   *port
	raw    *net.TCPConn
	source netip.AddrPort // unmapped
	local  netip.AddrPort
	ctx    context.Context
	cancel context.CancelCauseFunc

	// gateway is what it was let in by; another one with the same id must still be the same door.
	gateway *directory.Gateway
	// workspace and connection are as they were when it was let in, for the record of a refusal.
	workspace  *directory.Workspace
	connection *directory.Connection

	mu    sync.Mutex // guards the following
	until time.Time  // end of the client's certificate; zero without one
	end   func()     // ends what is copied; nil before
}

// admit lets a conn in by its source and by the limits, before it costs more than a socket. nil: it was refused and is closed.
func (m *Manager) admit(ctx context.Context, p *port, raw *net.TCPConn) *conn {
	k := &conn{id: requestID(), port: p, raw: raw, source: unmapped(raw.RemoteAddr()), local: unmapped(raw.LocalAddr())}
	k.ctx, k.cancel = context.WithCancelCause(context.WithoutCancel(ctx)) // ended by cut, which gives the reason
	if err := m.enter(k); err != nil {
		if err != errStopping {
			m.refuse(k, err)
		}
		k.cut(err)
		return nil
	}
	return k
}

// enter counts a conn, or says why it may not come in.
func (m *Manager) enter(k *conn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := k.port
	k.gateway = p.gateway
	if m.draining || p.ln == nil {
		return errStopping
	}
	if err := k.look(m.cfg.Directory.Snapshot()); err != nil {
		return err
	}
	switch block := prefixOf(k.source.Addr()); {
	case len(m.conns) >= m.cfg.MaxConns:
		return tooMany("gateway.max_conns", "the gateways of this relay have all their conns open")
	case p.conns >= m.cfg.MaxConnsPerGateway:
		return tooMany("gateway.max_conns_per_gateway", "the gateway has all its conns open")
	case k.gateway.TLS == directory.GatewayPlain:
	case p.pending >= m.cfg.MaxHandshakes || p.shaking[block] >= m.cfg.MaxHandshakesPerSource:
		return tooMany("gateway.tls", "too many TLS handshakes at the gateway are not done")
	default:
		p.pending++
		p.shaking[block]++
	}
	p.conns++
	m.conns[k] = struct{}{}
	return nil
}

func tooMany(rule, message string) error {
	return &protocol.Error{Code: protocol.CodeRateLimited, Origin: protocol.OriginRelay, Rule: rule, Message: message}
}

// shaken ends the count of a handshake. It is called once for each conn whose gateway speaks TLS.
func (m *Manager) shaken(k *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	block := prefixOf(k.source.Addr())
	k.port.pending--
	if k.port.shaking[block]--; k.port.shaking[block] <= 0 {
		delete(k.port.shaking, block)
	}
}

func (m *Manager) leave(k *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k.cancel(nil)
	k.port.conns--
	delete(m.conns, k)
	if m.draining && len(m.conns) == 0 {
		select {
		case <-m.idle:
		default:
			close(m.idle)
		}
	}
}

// look holds a conn against a snapshot: its gateway is there and is the door that the conn came in by, and both allowlists
// admit its source.
func (k *conn) look(snap *directory.Snapshot) error {
	ws, err := snap.Workspace(k.gateway.Workspace)
	if err != nil {
		return dispatch.NotFound("workspace")
	}
	c, err := ws.Connection(k.gateway.Connection)
	if err != nil {
		return dispatch.NotFound("connection")
	}
	if k.connection == nil {
		k.workspace, k.connection = ws, c
	}
	g := c.Gateway
	switch {
	case g == nil || !g.SameDoor(k.gateway):
		return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: "gateway", Message: "the gateway was turned off or changed"}
	case !g.Allowlist.Contains(k.source.Addr()):
		return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: "gateway.allow", Message: "the address is not on the gateway's allowlist"}
	case !ws.Admits(directory.Ports, k.source.Addr()):
		return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: ws.Rule(directory.Ports), Message: "the address is not on the workspace's allowlist"}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.until.IsZero() && !time.Now().Round(0).Before(k.until) {
		return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: "gateway.tls", Message: "the client's certificate has expired"}
	}
	return nil
}

// recheck cuts what the snapshot no longer allows. m.mu is held.
func (m *Manager) recheck(snap *directory.Snapshot) {
	for k := range m.conns {
		if err := k.look(snap); err != nil {
			k.cut(err)
		}
	}
}

// cut ends a conn by a reset: the client must not take it for an end of the data.
func (k *conn) cut(why error) {
	k.cancel(why) // first: what is seen of it has a reason
	reset(k.raw)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.end != nil {
		go k.end() // it may have to wait for the tunnel
	}
}

// serve brings one conn from its handshake to where bytes are copied, and returns: one that is open for days shall hold no
// goroutine that began it. over is called when the conn has ended.
func (m *Manager) serve(k *conn, over func()) {
	open := false
	defer func() {
		if !open {
			m.end(k, over)
		}
	}()
	defer m.guard(k)
	tunnel.TuneConn(k.raw) // what a listener has of the congestion control is inherited, and this is not
	client, call := m.prepare(k)
	if call == nil {
		reset(k.raw)
		return
	}
	w := &watched{k: k, late: time.AfterFunc(m.cfg.DialTimeout, func() {
		k.cut(&protocol.Error{Code: protocol.CodeTimeout, Origin: protocol.OriginRelay, Message: "the agent did not answer in time"})
	})}
	dial, err := m.cfg.Dispatch.Dial(k.ctx, call)
	if err != nil {
		w.late.Stop()
		m.failed(k, err)
		return
	}
	w.Raw, open = dial.Raw, true
	// Not by k.ctx, which would hold more for it than a func: cut ends it.
	end := splice.StartBoth(context.Background(), client, w, func(in, out int64, err error) {
		defer m.end(k, over)
		defer m.guard(k)
		if w.late != nil {
			w.late.Stop()
		}
		if errors.Is(err, splice.ErrPanic) {
			m.cfg.Logger.Error("gateway conn panicked", "request_id", k.id, "error", err)
			dial.Broke(in, out)
			return
		}
		if err := dial.End(in, out); err != nil {
			m.failed(k, err)
		}
	})
	k.mu.Lock()
	k.end = end
	k.mu.Unlock()
	if k.ctx.Err() != nil { // it was cut before, or has ended
		end()
	}
}

// end closes a conn and lets go of it.
func (m *Manager) end(k *conn, over func()) {
	_ = k.raw.Close()
	m.leave(k)
	over()
}

// failed tells of a conn that was refused or cut, and has the client see it.
func (m *Manager) failed(k *conn, err error) {
	m.cfg.Logger.Info("gateway conn refused", "request_id", k.id, "gateway", k.gateway.ID, "source", k.source.Addr().String(), "error", err)
	reset(k.raw)
}

// guard is deferred: the conn fails, the relay lives.
func (m *Manager) guard(k *conn) {
	if p := recover(); p != nil {
		m.cfg.Logger.Error("gateway conn panicked", "request_id", k.id, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
		reset(k.raw)
	}
}

// prepare makes the handshake and the call; nil when the conn was refused. It is a step of its own so that a conn that is open for long
// holds no stack for it.
func (m *Manager) prepare(k *conn) (net.Conn, *dispatch.Call) {
	var client net.Conn = k.raw
	name, detail := k.gateway.Address.String(), map[string]string(nil)
	if k.gateway.TLS != directory.GatewayPlain {
		conn, leaf, err := m.handshake(k)
		m.shaken(k)
		if err != nil {
			m.deny(k, err)
			return nil, nil
		}
		client = conn
		if leaf != nil {
			name, detail = leafName(leaf), leafDetail(leaf)
		}
	}
	// What counts is what holds now. The conn stands in m.conns already: a change from here on finds it.
	snap := m.cfg.Directory.Snapshot()
	if err := k.look(snap); err != nil {
		m.deny(k, err)
		return nil, nil
	}
	call := &dispatch.Call{Snapshot: snap, Principal: authz.NewGateway(k.gateway.ID, k.gateway.Workspace, k.gateway.Connection, name), Source: k.source.Addr(),
		Workspace: k.gateway.Workspace, Connection: k.gateway.Connection, Request: protocol.Request{ID: k.id, Operation: protocol.OpDial, Header: http.Header{}}, Detail: detail}
	if k.gateway.ProxyProtocol {
		call.Request.Proxy = protocol.Proxy{Source: k.source, Destination: k.local}
	}
	return client, call
}

// watched turns an end of the stream that is no end of the data into a reset of the client's conn, and a refusal, too.
type watched struct {
	*dispatch.Raw
	k    *conn
	late *time.Timer // runs until the agent's answer has come; nil from then on
}

func (w *watched) Read(p []byte) (n int, err error) {
	good := false // of a panic, too
	defer func() { w.lost(good) }()
	if w.late != nil {
		if err := w.Admitted(); err != nil {
			return 0, err
		}
		w.late.Stop()
		w.late, good = nil, true
		return 0, nil // from here on who copies can wait for bytes without a goroutine
	}
	n, err = w.Raw.Read(p)
	switch {
	case err == nil, err == io.EOF: // itself alone: the error of a tunnel that was lost may hold one
		good = true
	case errors.Is(err, os.ErrDeadlineExceeded): // it goes to sleep; of what cannot, it is a loss
		good = w.AwaitRead(nil)
	}
	return n, err
}

func (w *watched) Write(p []byte) (n int, err error) {
	good := false
	defer func() { w.lost(good) }()
	n, err = w.Raw.Write(p)
	good = err == nil
	return n, err
}

// lost has the client see a reset when its conn is closed, unless all is good.
func (w *watched) lost(good bool) {
	if !good {
		_ = w.k.raw.SetLinger(0)
	}
}

// reset closes a conn so that the other side sees a failure.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// deny records why a conn was refused after it was let in.
func (m *Manager) deny(k *conn, err error) {
	if cut := (*protocol.Error)(nil); errors.As(context.Cause(k.ctx), &cut) {
		err = cut
	}
	m.refuse(k, err)
}

// refuse records a refusal. Nothing was done, so nobody waits for the record.
func (m *Manager) refuse(k *conn, err error) {
	e := protocol.AsError(err)
	m.refused.Add(1)
	m.cfg.Logger.Debug("gateway conn refused", "request_id", k.id, "gateway", k.gateway.ID, "source", k.source.Addr().String(), "reason", e.Message)
	if !m.refusals.Admit(k.gateway.Workspace, time.Now()) {
		return
	}
	ev := audit.Event{Kind: audit.KindDenied, Workspace: k.gateway.Workspace, RequestID: k.id, Origin: string(protocol.OriginRelay), Principal: k.gateway.ID,
		PrincipalName: k.gateway.Address.String(), SourceAddress: k.source.Addr().String(), Connection: k.gateway.Connection, Operation: string(protocol.OpDial),
		Decision: "deny", Code: string(e.Code), Rule: e.Rule, Reason: e.Message}
	if k.connection != nil {
		ev.ConnectionName, ev.Group, ev.Profile = k.connection.Name, k.connection.Group, k.connection.Profile
	}
	if _, err := m.cfg.Dispatch.Record(ev); err != nil {
		m.cfg.Logger.Warn("a refusal could not be recorded", "request_id", k.id, "error", err)
	}
}

func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return "req_" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

func unmapped(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// prefixOf is the IPv4 address or the IPv6 /64.
func prefixOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // cannot fail: bits fit the family
	return p
}
