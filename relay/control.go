package relay

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/enroll"
	"github.com/fairleadhq/fairlead/relay/hub"
)

// maxControl is how many control requests of one tunnel are worked on at a time. An honest agent has two or three; a hostile
// one that opens all its streams with bodies of the full size shall not fill the relay's memory.
const maxControl = 4

// renewPause is the least time between two renewals of one agent, on whatever tunnels: each is a signature, a write and a new snapshot.
const renewPause = 500 * time.Millisecond

// renewals knows when each agent last asked for a renewal. A tunnel that knew it itself would forget it with the next one.
type renewals struct {
	mu   sync.Mutex
	last map[string]time.Time // by agent; the hub admits only agents that are enrolled, so it does not grow beyond them
}

// admit reports whether the agent may renew now.
func (n *renewals) admit(agent string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last == nil {
		n.last = map[string]time.Time{}
	}
	if time.Since(n.last[agent]) < renewPause {
		return false
	}
	n.last[agent] = time.Now()
	return true
}

// helloTimeout is how long a tunnel may stand without its Hello.
const helloTimeout = 15 * time.Second

// acceptTunnels serves the tunnels of agents until the listener closes; each has a goroutine of its own.
func (r *Relay) acceptTunnels(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		tc, ok := conn.(*tls.Conn)
		if !ok {
			conn.Close()
			continue
		}
		r.tunnels.Go(func() {
			if t := r.takeTunnel(ctx, tc); t != nil {
				r.ServeTunnel(ctx, t)
			}
		})
	}
}

// takeTunnel makes a tunnel of a connection; nil: it was refused. It is no part of what serves the tunnel, nor are begin and
// finish: what stands below an idle goroutine costs its stack, a thousand times.
//
//go:noinline
func (r *Relay) takeTunnel(ctx context.Context, tc *tls.Conn) tunnel.Tunnel {
	t, err := tunnel.Server(ctx, tc, r.tcfg)
	if err != nil {
		r.opt.Logger.Debug("tunnel refused", "from", tc.RemoteAddr().String(), "error", err)
		return nil
	}
	return t
}

// acceptLanes gives each lane to the tunnel that asked for it.
func (r *Relay) acceptLanes(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		tc, ok := conn.(*tls.Conn)
		if !ok {
			conn.Close()
			continue
		}
		r.tunnels.Go(func() {
			l, ticket, err := tunnel.ServeLane(ctx, tc, r.tcfg)
			if err == nil {
				if err = r.outside(r.dir.Snapshot(), l.Peer().Workspace, conn.RemoteAddr()); err == nil {
					err = r.hub.Lane(ticket, l)
				}
				if err != nil {
					l.Close()
				}
			}
			if err != nil {
				r.opt.Logger.Debug("lane refused", "from", conn.RemoteAddr().String(), "error", err)
			}
		})
	}
}

// ServeTunnel serves one tunnel until it ends: the agent's control requests, and, once it has said hello, operations
// through the hub. It closes the tunnel. Tests call it with a memory tunnel.
func (r *Relay) ServeTunnel(ctx context.Context, t tunnel.Tunnel) {
	l := r.newControl(ctx, t)
	_ = l.srv.Serve(tunnel.NewListener(t)) // ends with the tunnel
	l.finish(ctx)
}

//go:noinline
func (r *Relay) newControl(ctx context.Context, t tunnel.Tunnel) *control {
	l := &control{relay: r, tunnel: t, helloed: make(chan struct{}), turns: make(chan struct{}, maxControl)}
	l.srv = &http.Server{Handler: l, ReadTimeout: time.Minute, WriteTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: r.controlLog, Protocols: new(http.Protocols)}
	l.srv.Protocols.SetHTTP1(true)
	// No goroutine waits for the tunnel beside the one that accepts: there are thousands of idle ones.
	l.late = time.AfterFunc(helloTimeout, func() {
		select {
		case <-l.helloed:
		default:
			r.opt.Logger.Warn("an agent opened a tunnel and did not say hello", "agent", t.Peer().ID)
			t.Close()
		}
	})
	l.stop = context.AfterFunc(ctx, func() { t.Close() })
	return l
}

// finish ends what belonged to the tunnel.
//
//go:noinline
func (c *control) finish(ctx context.Context) {
	c.late.Stop()
	c.stop()
	c.tunnel.Close()
	c.srv.Close()
	select {
	case <-c.helloed:
		if ctx.Err() == nil {
			c.relay.opt.Logger.Info("agent's tunnel ended", "agent", c.tunnel.Peer().ID, "reason", c.tunnel.Err())
		}
	default:
	}
	c.leave()
}

// control serves what an agent asks of the relay inside its tunnel. Who asks is the tunnel's verified peer, whatever a
// body says.
type control struct {
	relay   *Relay
	tunnel  tunnel.Tunnel
	helloed chan struct{}
	turns   chan struct{} // one for each request that is worked on
	srv     *http.Server
	late    *time.Timer // until hello
	stop    func() bool

	mu   sync.Mutex // guards the fields below
	live *hub.Live  // nil before Hello
	left bool       // the tunnel has ended: a Hello that is still under way comes too late
}

func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var handle func(*http.Request) (any, error)
	switch r.URL.Path {
	case protocol.PathHello:
		handle = c.hello
	case protocol.PathRenew:
		handle = c.renew
	case protocol.PathEvents:
		handle = c.events
	case protocol.PathStatus:
		handle = c.status
	case protocol.PathDrain:
		handle = c.drain
	default:
		writeError(w, protocol.Errorf(protocol.CodeNotFound, "no such path"))
		return
	}
	if r.Method != http.MethodPost {
		writeError(w, protocol.Errorf(protocol.CodeInvalid, "want POST"))
		return
	}
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-r.Context().Done():
		return
	}
	c.mu.Lock()
	first := c.live == nil
	c.mu.Unlock()
	if first && r.URL.Path != protocol.PathHello {
		writeError(w, protocol.Errorf(protocol.CodeInvalid, "hello comes first"))
		return
	}
	// An agent that was disabled a moment ago must not get in another word.
	p := c.tunnel.Peer()
	if err := c.admitted(); err != nil {
		writeError(w, protocol.AsError(err))
		return
	}
	answer, err := handle(r)
	if err != nil {
		e := protocol.AsError(err)
		if e.Code == protocol.CodeInternal {
			c.relay.opt.Logger.Error("control request failed", "agent", p.ID, "path", r.URL.Path, "error", err)
		}
		writeError(w, e)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// admitted asks the rules in force whether the agent may be here.
func (c *control) admitted() error {
	p := c.tunnel.Peer()
	snap := c.relay.dir.Snapshot()
	if a := snap.Agent(p.ID); a == nil || a.Disabled || a.Workspace != p.Workspace {
		return protocol.Errorf(protocol.CodeDenied, "this agent is disabled or not known")
	}
	err := c.relay.outside(snap, p.Workspace, c.tunnel.RemoteAddr())
	if err != nil {
		c.relay.refuseAgent(p, c.tunnel.PeerCertificate(), hub.AddrOf(c.tunnel.RemoteAddr()), err)
	}
	return err
}

// outside refuses an address that agents of a workspace may not come from.
func (r *Relay) outside(snap *directory.Snapshot, workspace string, from net.Addr) error {
	w, err := snap.Workspace(workspace)
	if err != nil {
		return err
	}
	if a := hub.AddrOf(from); !w.Admits(directory.Sites, a) {
		return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: w.Rule(directory.Sites), Message: "agents may not come from the address " + a.String(),
			Hint: "an admin of the workspace can add it: `fairlead allowlist set --for agents`"}
	}
	return nil
}

func decode(r *http.Request, v any) error {
	b, err := readBody(r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return notJSON(err)
	}
	return nil
}

func readBody(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, protocol.MaxControlBytes+1))
	if err != nil {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: "the body broke off", Cause: err}
	}
	if len(b) > protocol.MaxControlBytes {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "the body is longer than %d bytes", protocol.MaxControlBytes)
	}
	return b, nil
}

func notJSON(err error) error {
	return &protocol.Error{Code: protocol.CodeInvalid, Message: "the body is not the JSON that this path takes", Cause: err}
}

func (c *control) hello(r *http.Request) (any, error) {
	var h protocol.Hello
	if err := decode(r, &h); err != nil {
		return nil, err
	}
	if h.Version < protocol.MinVersion || h.MinVersion > protocol.Version {
		return nil, &protocol.Error{Code: protocol.CodeUnsupported, Message: fmt.Sprintf("agent speaks protocol version %d to %d, this relay %d to %d", h.MinVersion, h.Version, protocol.MinVersion, protocol.Version),
			Hint: "upgrade the older of the two"}
	}
	if err := bounded(&h); err != nil {
		return nil, err
	}
	p := c.tunnel.Peer()
	cursor, err := c.relay.held(r.Context(), p.Workspace, p.ID, h.Log)
	if err != nil {
		return nil, err
	}
	if cert := c.tunnel.PeerCertificate(); cert != nil {
		if err := c.relay.dir.ProveCertificate(r.Context(), p.ID, enroll.Serial(cert)); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live != nil {
		return nil, protocol.Errorf(protocol.CodeInvalid, "hello was said already")
	}
	if c.left {
		return nil, protocol.Errorf(protocol.CodeInterrupted, "the tunnel has ended")
	}
	live := c.relay.hub.Add(c.tunnel, h)
	// Asked again now that a kick would find the tunnel: one that came before Add did not.
	if err := c.admitted(); err != nil {
		c.relay.hub.Remove(live)
		return nil, err
	}
	c.live = live
	close(c.helloed)
	c.seen(h.Hostname, h.OS, h.Arch, h.AgentVersion, c.live.Info().Status)
	c.relay.note(audit.Event{Kind: audit.KindConnected, Workspace: p.Workspace, Agent: p.ID, Group: p.Group, SourceAddress: hostOf(c.tunnel.RemoteAddr()),
		Version: h.AgentVersion, Detail: map[string]string{"transport": c.tunnel.Transport(), "config_digest": h.Status.ConfigDigest}})
	c.relay.opt.Logger.Info("agent connected", "agent", p.ID, "from", c.tunnel.RemoteAddr().String(), "version", h.AgentVersion)
	return protocol.Welcome{Version: min(h.Version, protocol.Version), Relay: c.relay.id, Log: cursor, HeartbeatMs: 10_000, ServerTimeMs: time.Now().UnixMilli(), RelayRevision: c.relay.opt.Version, QUIC: c.relay.quic != nil}, nil
}

// bounded refuses a Hello that would make the relay hold more than it should: nothing in it is trusted, all of it is kept.
func bounded(h *protocol.Hello) error {
	short := func(s string, n int) bool { return len(s) <= n }
	ok := short(h.AgentVersion, 128) && short(h.Hostname, 253) && short(h.OS, 32) && short(h.Arch, 32) && short(h.Instance, 64)
	if h.Status.Profiles == nil {
		h.Status.Profiles = h.Profiles
	}
	h.Profiles = nil // the status tells, and goes on telling
	ok = ok && h.Lanes >= 0 && len(h.Constraints) <= 64 && short(h.Log.Hash, 64)
	for _, name := range h.Constraints {
		ok = ok && short(name, 64)
	}
	if !ok || !boundedStatus(&h.Status) {
		return protocol.Errorf(protocol.CodeInvalid, "a field of hello is too long")
	}
	return nil
}

func boundedStatus(s *protocol.Status) bool {
	if len(s.ConfigDigest) > 128 || len(s.Profiles) > 4096 {
		return false
	}
	if len(s.ReloadError) > 4096 {
		s.ReloadError = strings.ToValidUTF8(s.ReloadError[:4096], "") + " …"
	}
	for _, p := range s.Profiles {
		if !protocol.ValidProfile(p.Name) || len(p.Kind) > 32 || len(p.Adapter) > 32 || len(p.Operations) > 32 {
			return false
		}
		for _, op := range p.Operations {
			if len(op) > 32 {
				return false
			}
		}
	}
	return true
}

func (c *control) seen(hostname, os, arch, version string, s protocol.Status) {
	f := directory.Facts{Hostname: hostname, OS: os, Arch: arch, Version: version, ConfigDigest: s.ConfigDigest, ReloadError: s.ReloadError, Profiles: s.Profiles}
	f.SourceAddress, _ = netip.ParseAddr(hostOf(c.tunnel.RemoteAddr()))
	c.relay.dir.AgentSeen(c.tunnel.Peer().ID, f)
}

func (c *control) status(r *http.Request) (any, error) {
	var s protocol.Status
	if err := decode(r, &s); err != nil {
		return nil, err
	}
	if !boundedStatus(&s) {
		return nil, protocol.Errorf(protocol.CodeInvalid, "a field of status is too long")
	}
	c.live.SetStatus(s)
	i := c.live.Info()
	c.seen(i.Hello.Hostname, i.Hello.OS, i.Hello.Arch, i.Hello.AgentVersion, s)
	return struct{}{}, nil
}

func (c *control) drain(*http.Request) (any, error) {
	c.live.Drained()
	return struct{}{}, nil
}

func (c *control) renew(r *http.Request) (any, error) {
	var q protocol.RenewRequest
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	if _, err := c.relay.auth.checkCSR(q.CSR); err != nil { // costs neither a write nor the agent's turn
		return nil, err
	}
	p := c.tunnel.Peer()
	if !c.relay.renewals.admit(p.ID) {
		return nil, protocol.Errorf(protocol.CodeRateLimited, "one renewal at a time")
	}
	chain, cert, err := c.relay.auth.signAgent(r.Context(), q.CSR, p, time.Duration(c.relay.opt.Config.Agents.CertificateLifetime))
	if err != nil {
		return nil, err
	}
	if err := c.relay.dir.RecordCertificate(r.Context(), p.ID, cert); err != nil {
		return nil, err
	}
	c.relay.note(audit.Event{Kind: audit.KindRenewed, Workspace: p.Workspace, Agent: p.ID, Detail: map[string]string{"serial": cert.Serial, "not_after": cert.NotAfter.UTC().Format(time.RFC3339)}})
	return protocol.RenewResponse{Chain: chain}, nil
}

// leave takes the tunnel out of the hub and notes that it ended.
func (c *control) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
	if c.live == nil {
		return
	}
	c.relay.hub.Remove(c.live)
	p := c.tunnel.Peer()
	c.relay.dir.TouchAgent(p.ID)
	c.relay.note(audit.Event{Kind: audit.KindLost, Workspace: p.Workspace, Agent: p.ID, Group: p.Group})
}

// note records an event that nothing waits for.
func (r *Relay) note(ev audit.Event) {
	if _, err := r.record(ev); err != nil {
		if s := r.dir.Snapshot(); !s.Stale {
			if _, gone := s.Workspace(ev.Workspace); gone != nil {
				return // it was destroyed, and the key that its log is sealed with
			}
		}
		r.opt.Logger.Error("an event could not be recorded", "kind", string(ev.Kind), "error", err)
	}
}

// serveEnroll turns a join token into an identity. It is reached without a certificate, so everything is bounded before
// it is read.
func (r *Relay) serveEnroll(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != protocol.PathEnroll || req.Method != http.MethodPost {
		writeError(w, protocol.Errorf(protocol.CodeNotFound, "no such path"))
		return
	}
	req.Body = http.MaxBytesReader(w, req.Body, 64<<10)
	var q protocol.EnrollRequest
	if err := decode(req, &q); err != nil {
		writeError(w, protocol.AsError(err))
		return
	}
	// Only with the whole request in hand: those who send it slowly must not hold up the others.
	select { // each costs a signature check and a turn at the store's one writer
	case r.enrolling <- struct{}{}:
		defer func() { <-r.enrolling }()
	case <-req.Context().Done():
		return
	case <-time.After(5 * time.Second):
		writeError(w, &protocol.Error{Code: protocol.CodeRateLimited, Message: "too many agents enrol at the same time", Hint: "try again in a moment"})
		return
	}
	source, _ := netip.ParseAddrPort(req.RemoteAddr)
	spki, err := r.auth.checkCSR(q.CSR)
	if err != nil {
		writeError(w, protocol.AsError(err))
		return
	}
	var chain [][]byte
	a, err := r.dir.Enroll(req.Context(), secret.FromString(q.Token), directory.Enrolment{Name: q.Name, Hostname: q.Hostname, OS: q.OS, Arch: q.Arch, Version: q.Version,
		SourceAddress: source.Addr().Unmap(), SPKI: spki, LogKey: q.LogKey}, func(workspace, group, agent string) (directory.Certificate, error) {
		var cert directory.Certificate
		var err error
		chain, cert, err = r.auth.signAgent(req.Context(), q.CSR, r.auth.agent(workspace, group, agent), time.Duration(r.opt.Config.Agents.CertificateLifetime))
		return cert, err
	})
	if err != nil {
		e := protocol.AsError(err)
		r.opt.Logger.Warn("enrolment refused", "from", req.RemoteAddr, "code", string(e.Code), "reason", e.Message)
		if e.Code == protocol.CodeInternal {
			r.opt.Logger.Error("enrolment failed", "error", err)
		}
		writeError(w, e)
		return
	}
	// Recorded before the identity is given out.
	t, err := r.record(audit.Event{Kind: audit.KindEnrolled, Workspace: a.Workspace, Agent: a.ID, Group: a.Group, SourceAddress: source.Addr().Unmap().String(), Version: q.Version,
		Detail: map[string]string{"name": a.Name, "hostname": q.Hostname}})
	if err == nil {
		err = t.Wait(req.Context())
	}
	if err != nil {
		writeError(w, &protocol.Error{Code: protocol.CodeAuditUnavailable, Message: "the relay cannot write its audit log, so it enrols nobody", Cause: err})
		return
	}
	r.opt.Logger.Info("agent enrolled", "agent", a.ID, "from", req.RemoteAddr)
	writeJSON(w, http.StatusOK, protocol.EnrollResponse{Agent: a.ID, Workspace: a.Workspace, Group: a.Group, Chain: chain, Root: r.auth.root.Raw, RelayAddrs: []string{r.opt.Config.PublicAddress}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

func writeError(w http.ResponseWriter, e *protocol.Error) {
	c := *e
	if c.Origin == "" {
		c.Origin = protocol.OriginRelay
	}
	writeJSON(w, c.Code.Status(), &c)
}

func hostOf(a net.Addr) string {
	if ap, err := netip.ParseAddrPort(a.String()); err == nil {
		return ap.Addr().Unmap().String()
	}
	return ""
}
