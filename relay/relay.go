package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/api"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/certificate"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/dispatch"
	"github.com/fairleadhq/fairlead/relay/enroll"
	"github.com/fairleadhq/fairlead/relay/gateway"
	"github.com/fairleadhq/fairlead/relay/hub"
	"github.com/fairleadhq/fairlead/relay/mail"
	"github.com/fairleadhq/fairlead/relay/pages"
	"github.com/fairleadhq/fairlead/relay/passkey"
	"github.com/fairleadhq/fairlead/relay/password"
)

// DrainTime is how long running requests may take to finish after the relay was told to stop.
const DrainTime = 30 * time.Second

// serverLifetime of the relay's own certificate: a stolen one is of no use for long.
const serverLifetime = 24 * time.Hour

// Options say what to run.
type Options struct {
	Config  Config
	Version string
	Logger  *slog.Logger
	// Listener replaces the listener of Config.Listen, for tests.
	Listener net.Listener
	// Drain replaces DrainTime.
	Drain time.Duration
}

// Relay is one relay. Make it with New, run it once.
type Relay struct {
	opt      Options
	id       string
	dir      *directory.Directory
	acme     *certificate.Manager // nil: no certificates are got
	leaked   *password.Leaked     // nil: none
	mail     *mail.Outbox         // nil: no e-mail
	logs     *audit.Logs
	hub      *hub.Hub
	api      *api.API
	dispatch *dispatch.Dispatcher
	gateways *gateway.Manager
	auth     *authority
	server   *mtls.Reloader
	mux      *tunnel.Mux
	quic     *tunnel.QUICListener // nil: none
	tcfg     tunnel.Config
	// controlLog is of the HTTP servers of all tunnels.
	controlLog *log.Logger
	metrics    *metrics
	ingest     ingest
	pace       recordPace
	refusals   refusedAgents
	ready      chan struct{}
	stopping   chan struct{}
	tunnels    sync.WaitGroup
	requests   inFlight
	renewals   renewals
	// enrolling has one for each enrolment under way.
	enrolling chan struct{}
}

// maxEnrolling enrolments are worked on at a time: they come from anybody.
const maxEnrolling = 8

// New opens the state and takes the port. On an error nothing is left open.
func New(ctx context.Context, o Options) (r *Relay, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Drain == 0 {
		o.Drain = DrainTime
	}
	c := directoryConfig(o.Config, o.Logger)
	c.Quota, c.Quotas = o.Config.Quota.of(), o.Config.quotas() // not for commands on the relay's own host: who is at a quota must get in all the same
	if o.Config.SignIn.LeakedPasswords != "" {
		if c.Leaked, err = password.OpenLeaked(o.Config.SignIn.LeakedPasswords); err != nil {
			return nil, fmt.Errorf("sign_in.leaked_passwords: %w", err)
		}
	}
	dir, err := directory.Open(ctx, c)
	if err != nil {
		return nil, errors.Join(err, c.Leaked.Close())
	}
	r = &Relay{opt: o, dir: dir, leaked: c.Leaked, controlLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug), ready: make(chan struct{}), stopping: make(chan struct{}), enrolling: make(chan struct{}, maxEnrolling)}
	opened := r // "return nil, err" has emptied r when the deferred function runs
	defer func() {
		if err != nil {
			err = errors.Join(err, opened.close())
		}
	}()
	snap := dir.Snapshot()
	if len(snap.Relays) == 0 {
		return nil, errors.New("the state names no relay; run `fairlead-relay init`")
	}
	r.id = snap.Relays[0].ID
	if r.auth, err = openAuthority(ctx, dir, snap.Installation); err != nil {
		return nil, err
	}
	if err := r.makeAuthorities(ctx); err != nil {
		return nil, err
	}
	r.server = mtls.NewReloader(nil)
	if err := r.renewServer(); err != nil {
		return nil, err
	}
	key, err := auditKey(ctx, dir)
	if err != nil {
		return nil, err
	}
	r.logs = &audit.Logs{Config: audit.Config{Dir: filepath.Join(o.Config.Data, "audit"), Source: r.id, MaxBytes: int64(o.Config.Audit.MaxSize), Key: key, Logger: o.Logger},
		Masker: r.masker, Seal: dir.SealEvent}
	r.hub = hub.New(hub.Config{MaxTunnelsPerAgent: o.Config.Agents.MaxTunnels, MaxLanes: o.Config.Agents.MaxLanes, Logger: o.Logger})
	authenticator, err := authn.New(authn.DefaultConfig())
	if err != nil {
		return nil, err
	}
	peopleConf := authn.DefaultPeopleConfig()
	if k := o.Config.SignIn.Passkeys; k != nil {
		if peopleConf.Passkeys, err = passkey.New(passkey.DefaultConfig(k.ID, k.Origins)); err != nil {
			return nil, err
		}
	}
	signIn, err := authn.NewPeople(dir, peopleConf)
	if err != nil {
		return nil, err
	}
	r.dispatch = &dispatch.Dispatcher{Hub: r.hub, Record: r.record, Logger: o.Logger, Limits: o.Config.Budget.limits(), LimitsOf: o.Config.budgets(), DeniedRate: o.Config.Audit.DeniedRate,
		DeniedBurst: 10 * o.Config.Audit.DeniedRate}
	for name := range o.Config.Workspaces {
		if _, err := snap.Workspace(name); err != nil {
			o.Logger.Warn("relay.yaml sets limits of a workspace that is not there", "workspace", name)
		}
	}
	r.dispatch.Sync(snap)
	gc := o.Config.gateways()
	gc.Certificate, gc.Directory, gc.Dispatch, gc.Logger, gc.Congestion = r.server.GetCertificate, dir, r.dispatch, o.Logger, o.Config.Congestion
	r.gateways = gateway.New(gc)
	certs, err := newSupplied(o.Config.API.Certificates, r.server.GetCertificate, o.Logger)
	if err != nil {
		return nil, err
	}
	conf := api.Config{Domains: o.Config.API.Domains, HTTP10: o.Config.API.MinHTTP == "1.0", DomainHTTP10: o.Config.API.DomainMinHTTP == "1.0", Certificate: certs.of, Directory: dir, Authn: authenticator, People: signIn, Hub: r.hub, Dispatch: r.dispatch, Gateways: r.gateways, Log: r.logs.Get, LogKey: key.Public().(ed25519.PublicKey),
		JoinToken: r.joinToken, TrustedProxies: prefixes(o.Config.TrustedProxies), Version: o.Version, Logger: o.Logger}
	if o.Config.Agents.WebSocket {
		conf.Tunnel = r.serveWebSocket
	}
	if o.Config.API.Pages {
		if conf.Pages, err = pages.New(pages.Config{Passkeys: o.Config.SignIn.Passkeys != nil}); err != nil {
			return nil, err
		}
	}
	if r.mail, err = newMail(o.Config.Mail, o.Logger); err != nil {
		return nil, err
	}
	conf.Mail = r.mail
	r.api = api.New(conf)
	r.tcfg = tunnel.DefaultConfig()
	agents := mtls.NewVerifier(r.auth.roots, mtls.RoleAgent)
	r.tcfg.Identify = agents.Identity
	r.tcfg.Logger, r.tcfg.Congestion = o.Logger, o.Config.Congestion
	r.tcfg.ProxyProtocol = prefixes(o.Config.ProxyProtocol)
	r.tcfg.Backlog = 256 // room for it is held in each of thousands of idle tunnels
	if err := tunnel.CheckCongestion(o.Config.Congestion); err != nil {
		o.Logger.Warn("connections use the system's congestion control", "reason", err)
	}
	ln := o.Listener
	if ln == nil {
		if ln, err = net.Listen("tcp", o.Config.Listen); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", o.Config.Listen, err)
		}
	}
	people := &tls.Config{MinVersion: o.Config.API.minTLS(), GetCertificate: certs.certificate, NextProtos: []string{"h2", "http/1.1"}}
	tunnels := agents.TunnelTLS(r.server, snap.Installation, r.checkAgent)
	lanes := tunnels.Clone() // who may open a tunnel may open the lanes beside it
	lanes.NextProtos = []string{protocol.ALPNLane}
	spoken := map[string]*tls.Config{
		"":                  people,
		protocol.ALPNTunnel: tunnels,
		protocol.ALPNLane:   lanes,
		protocol.ALPNEnroll: mtls.EnrollServerTLS(r.server),
	}
	if a := o.Config.API.ACME; a.Directory != "" {
		roots, err := a.roots()
		if err != nil {
			return nil, err
		}
		key, err := a.key()
		if err != nil {
			return nil, err
		}
		if r.acme, err = certificate.New(certificate.Config{URL: a.Directory, Email: a.Email, KeyID: a.KeyID, Key: key, Roots: roots, Port: ln.Addr(), Directory: dir, Logger: o.Logger}); err != nil {
			return nil, err
		}
		certs.acme, spoken[certificate.ALPN] = r.acme, r.acme.Challenge()
	}
	r.mux = tunnel.Listen(ln, spoken, r.tcfg)
	if o.Config.Agents.QUIC {
		if r.quic, err = r.listenQUIC(ctx, ln.Addr(), tunnels); err != nil {
			return nil, err
		}
	}
	r.metrics = newMetrics(r)
	return r, nil
}

// Addr is the address of the port, for tests that listen on ":0".
func (r *Relay) Addr() net.Addr { return r.mux.Addr() }

// Ready is closed when the port is served.
func (r *Relay) Ready() <-chan struct{} { return r.ready }

// Handler is the API, for tests that need no socket.
func (r *Relay) Handler() http.Handler { return r.api }

// API is the API itself, for the test that walks its routes.
func (r *Relay) API() *api.API { return r.api }

// Run serves until ctx ends, then takes nothing new, lets running requests finish for DrainTime, and closes. It returns
// nil after an orderly stop.
func (r *Relay) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, r.close()) }()
	inner, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end(nil) // before Wait

	errorLog := slog.NewLogLogger(r.opt.Logger.Handler(), slog.LevelDebug)
	people := &http.Server{Handler: r.instrument(r.api), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: errorLog, // operations that stream set deadlines of their own

		BaseContext: func(net.Listener) context.Context { return inner }}
	people.Protocols = new(http.Protocols)
	people.Protocols.SetHTTP1(true)
	people.Protocols.SetHTTP2(true)
	enroll := &http.Server{Handler: http.HandlerFunc(r.serveEnroll), ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: errorLog}
	var health *http.Server
	var healthLn net.Listener
	if a := r.opt.Config.Health.Listen; a != "" {
		if healthLn, err = net.Listen("tcp", a); err != nil {
			return fmt.Errorf("listen on %s for health and metrics: %w (set health.listen)", a, err)
		}
		health = &http.Server{Handler: r.healthHandler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, ErrorLog: errorLog}
	}
	fail := func(what string, err error) {
		if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			end(fmt.Errorf("%s: %w", what, err))
		}
	}
	muxCtx, closeMux := context.WithCancel(inner)
	defer closeMux()
	wg.Go(func() { fail("serve the port", r.mux.Serve(muxCtx)) })
	wg.Go(func() { fail("serve the API", people.Serve(r.mux.Conns(""))) })
	wg.Go(func() { fail("serve enrolment", enroll.Serve(tunnel.HTTP1(r.mux.Conns(protocol.ALPNEnroll)))) })
	wg.Go(func() { r.acceptTunnels(inner, r.mux.Conns(protocol.ALPNTunnel)) })
	wg.Go(func() { r.acceptLanes(inner, r.mux.Conns(protocol.ALPNLane)) })
	if r.acme != nil {
		wg.Go(func() { fail("answer ACME challenges", certificate.Answer(r.mux.Conns(certificate.ALPN))) })
		wg.Go(func() { r.acme.Run(inner) })
	}
	if r.quic != nil {
		wg.Go(func() { r.acceptQUIC(inner) })
	}
	if health != nil {
		wg.Go(func() { fail("serve health and metrics", health.Serve(healthLn)) })
	}
	wg.Go(func() { r.api.Run(inner) })
	if r.mail != nil {
		wg.Go(func() { r.mail.Run(inner) })
	}
	wg.Go(func() { r.gateways.Run(inner) })
	wg.Go(func() { r.dispatch.Run(inner) })
	wg.Go(func() { r.enforce(inner) })
	wg.Go(func() { r.keepCursors(inner) })
	wg.Go(func() { r.keepServer(inner) })
	begun := r.beginLogs(nil)
	wg.Go(func() { r.keepLogs(inner, begun) })
	r.gateways.Sync(inner)
	close(r.ready)
	r.opt.Logger.Info("relay is ready", "address", r.Addr().String(), "public_address", r.opt.Config.PublicAddress, "relay", r.id, "version", r.opt.Version)

	select {
	case <-ctx.Done():
	case <-inner.Done():
		err = context.Cause(inner)
	}
	r.opt.Logger.Info("stopping: taking no new work, letting running requests finish", "at_most", r.opt.Drain)
	close(r.stopping)
	dctx, cancel := context.WithTimeout(inner, r.opt.Drain)
	defer cancel()
	closeMux() // no new conns; those handed out live on
	if r.quic != nil {
		r.quic.Stop()
	}
	var drain sync.WaitGroup
	drain.Go(func() { _ = people.Shutdown(dctx); _ = people.Close() })
	drain.Go(func() { _ = enroll.Shutdown(dctx); _ = enroll.Close() })
	drain.Go(func() { r.gateways.Drain(dctx) })
	drain.Go(func() { r.hub.Tell(dctx, protocol.Notice{Kind: protocol.NoticeDrain}) })
	drain.Wait()
	r.hub.Drain(dctx) // after the API: what it has let in must find a tunnel
	if health != nil {
		_ = health.Close()
	}
	end(nil)
	r.tunnels.Wait()
	// Raw dials are the caller's conns by now, which Shutdown does not know: their outcome must be in the log before it closes.
	if !r.requests.wait(abortTime) {
		r.opt.Logger.Error("requests did not end when they were cut")
	}
	r.dispatch.TellDenied()
	return err
}

// abortTime is how long requests that were cut get to put down their outcome.
const abortTime = 10 * time.Second

// inFlight counts requests, so that the last steps of a stop can wait for them. The zero value is ready.
type inFlight struct {
	mu   sync.Mutex // guards the fields below
	n    int
	idle chan struct{} // closed when n is 0; nil when nobody waits
}

func (f *inFlight) add(d int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n += d; f.n == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// wait waits until no request is in flight, and reports false if that takes too long. It is called once.
func (f *inFlight) wait(most time.Duration) bool {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return true
	}
	idle := make(chan struct{})
	f.idle = idle
	f.mu.Unlock()
	select {
	case <-idle:
		return true
	case <-time.After(most):
		return false
	}
}

func (r *Relay) close() error {
	var errs []error
	if r.mux != nil {
		// Serve closes the listener; a relay that never ran closes it here.
		select {
		case <-r.ready:
		default:
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			errs = append(errs, r.mux.Serve(ctx))
		}
	}
	if r.quic != nil {
		errs = append(errs, r.quic.Close())
	}
	if r.logs != nil {
		errs = append(errs, r.storeCursors(context.Background()), r.logs.Close())
	}
	return errors.Join(append(errs, r.dir.Close(), r.leaked.Close())...)
}

// record writes an event to the log of its workspace.
func (r *Relay) record(ev audit.Event) (*audit.Ticket, error) {
	rec, err := r.logs.Recorder(ev.Workspace)
	if err != nil {
		return nil, err
	}
	return rec.Record(ev)
}

// masker gives the keyed tokens of a workspace's events a key of their own.
func (r *Relay) masker(workspace string) (*audit.Masker, error) {
	key, err := setting(context.Background(), r.dir, workspace, "audit-token-key", func() (secret.Bytes, error) {
		b := make([]byte, 32)
		_, err := rand.Read(b)
		return secret.New(b), err
	})
	if err != nil {
		return nil, err
	}
	return &audit.Masker{Key: key}, nil
}

// setting reads a sealed value, or makes it once.
func setting(ctx context.Context, dir *directory.Directory, workspace, name string, fresh func() (secret.Bytes, error)) (secret.Bytes, error) {
	v, err := dir.Setting(ctx, workspace, name)
	if err == nil || client.CodeOf(err) != protocol.CodeNotFound {
		return v, err
	}
	if v, err = fresh(); err != nil {
		return v, fmt.Errorf("make %s: %w", name, err)
	}
	return v, dir.PutSetting(ctx, workspace, name, v)
}

func auditKey(ctx context.Context, dir *directory.Directory) (ed25519.PrivateKey, error) {
	seed, err := setting(ctx, dir, "", "audit-signing-key", func() (secret.Bytes, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return secret.New(key.Seed()), err
	})
	if err != nil {
		return nil, fmt.Errorf("read the audit signing key: %w", err)
	}
	if len(seed.Expose()) != ed25519.SeedSize {
		return nil, errors.New("the audit signing key is malformed")
	}
	return ed25519.NewKeyFromSeed(seed.Expose()), nil
}

// renewServer issues the relay's own certificate.
func (r *Relay) renewServer() error {
	names, ips := r.opt.Config.certificateNames()
	k, err := r.auth.issueServer(names, ips, r.id, serverLifetime)
	if err != nil {
		return fmt.Errorf("issue the relay's own certificate: %w", err)
	}
	r.server.Set(k)
	return nil
}

// keepServer renews the relay's own certificate at half of its life.
func (r *Relay) keepServer(ctx context.Context) {
	wait := serverLifetime / 2
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			wait = serverLifetime / 2
			if err := r.renewServer(); err != nil {
				wait = time.Minute // half of its life is left for further tries
				r.opt.Logger.Error("the relay's own certificate was not renewed; trying again", "in", wait, "error", err)
			}
		}
	}
}

// checkAgent is asked at each handshake of a tunnel.
func (r *Relay) checkAgent(id mtls.Identity, c *x509.Certificate) error {
	spki := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	err := r.dir.Snapshot().CheckCertificate(id.Workspace, id.Group, id.ID, enroll.Serial(c), spki[:], time.Now())
	if err != nil {
		r.refuse(id, c, err)
	}
	return err
}

// makeAuthorities sees to it that each workspace has its CA before the first agent enrols: an enrolment is one transaction
// and must not wait for another.
func (r *Relay) makeAuthorities(ctx context.Context) error {
	s := r.dir.Snapshot()
	r.auth.keep(s)
	for _, ws := range s.Workspaces() {
		if err := r.auth.provide(ctx, ws.ID); err != nil {
			return err
		}
	}
	return nil
}

// enforce cuts the tunnels of agents that the rules no longer admit, as soon as the rules change.
func (r *Relay) enforce(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second) // a second look, for a tunnel that came while this one was at it
	defer tick.Stop()
	for {
		changed := r.dir.Changed()
		snap := r.dir.Snapshot()
		r.dispatch.Sync(snap)
		r.pace.keep(snap)
		for _, id := range r.hub.Agents() {
			if a := snap.Agent(id); a == nil || a.Disabled {
				r.hub.Kick(id, "disabled or removed")
			}
		}
		for _, w := range snap.Workspaces() {
			if _, own := w.Sources(directory.Sites); !own {
				continue
			}
			r.hub.Outside(w.ID, func(a netip.Addr) bool { return w.Admits(directory.Sites, a) }, true)
		}
		// After the cuts: it may have to wait for its turn to write.
		if err := r.makeAuthorities(ctx); err != nil && ctx.Err() == nil {
			r.opt.Logger.Error("a workspace has no certificate authority yet; its agents cannot enrol", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

func directoryConfig(c Config, log *slog.Logger) directory.Config {
	d := directory.DefaultConfig(c.Data)
	d.KEKFile, d.KEKEnv, d.Logger, d.PasswordRounds = c.KEK.File, c.KEK.Env, log, c.SignIn.PasswordRounds
	if c.SignIn.Passkeys != nil {
		d.PasskeyID = c.SignIn.Passkeys.ID
	}
	return d
}
