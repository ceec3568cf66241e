package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/agent/uplink"
	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// DrainTime is how long running operations may take to finish after the agent was told to stop.
const DrainTime = 30 * time.Second

// ChoicesFile, in the data folder, is where relay.transport: auto remembers what works.
const ChoicesFile = "uplink.json"

// Options say which configuration and identity to run.
type Options struct {
	ConfigFile string // agent.yaml
	DataDir    string // identity and audit log
	Version    string
	Logger     *slog.Logger
	Poll       time.Duration // how often the file is looked at beside file events; 0 means 10 s
	// Dial replaces the dial of a tunnel, for tests over the memory transport.
	Dial func(ctx context.Context, addr string) (tunnel.Tunnel, error)
	// Drain replaces DrainTime.
	Drain time.Duration
}

// Agent runs one site. Make it with New, run it once.
type Agent struct {
	opt      Options
	cfg      *Config
	id       *enroll.Identity
	reloader *mtls.Reloader
	instance string
	started  time.Time

	site        atomic.Pointer[site]
	reloadError atomic.Pointer[string]
	log         *audit.Log
	rec         *audit.Recorder
	trips       *trips
	up          *uplink.Uplink
	renewNow    chan struct{}
	logSeen     atomic.Pointer[protocol.LogHead] // the last event that the relay says it holds
}

// New loads configuration and identity and builds the policy. It dials nothing. An Agent that was made must be run, which
// also gives back what New took.
func New(o Options) (*Agent, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Drain == 0 {
		o.Drain = DrainTime
	}
	if o.Poll == 0 {
		o.Poll = 10 * time.Second
	}
	cfg, err := Load(o.ConfigFile)
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		o.Logger.Warn("configuration", "at", fmt.Sprintf("%s:%d", w.File, w.Line), "key", w.Path, "warning", w.Message, "hint", w.Hint)
	}
	id, err := enroll.Load(o.DataDir)
	if err != nil {
		return nil, err
	}
	s, err := newSite(cfg, o.DataDir, o.Logger)
	if err != nil {
		return nil, err
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	a := &Agent{opt: o, cfg: cfg, id: id, reloader: mtls.NewReloader(id.Keypair), instance: hex.EncodeToString(b[:]), started: time.Now(), renewNow: make(chan struct{}, 1)}
	a.site.Store(s)
	relays := mtls.NewVerifier(id.Roots, mtls.RoleRelay)
	up := uplink.Config{Addresses: cfg.Relay.Addresses, TLS: relays.AgentTLS(a.reloader, id.Installation), Tunnel: tunnel.DefaultConfig(),
		Transport: cfg.Relay.Transport, Choices: filepath.Join(o.DataDir, ChoicesFile),
		Hello: a.hello, Handler: http.HandlerFunc(a.serve), Welcomed: a.welcomed, Logger: o.Logger, Dial: o.Dial, Lanes: cfg.Relay.Lanes, Tunnels: cfg.Relay.Tunnels}
	up.Tunnel.Identify = relays.Identity
	up.Tunnel.Logger, up.Tunnel.Congestion = o.Logger, cfg.Relay.Congestion
	// A way through a proxy, and TLS twice, take their time on a slow line.
	up.Tunnel.HandshakeTimeout = 2 * up.Tunnel.HandshakeTimeout
	if err := tunnel.CheckCongestion(cfg.Relay.Congestion); err != nil {
		o.Logger.Warn("tunnels use the system's congestion control", "reason", err)
	}
	// A busy relay opens a stream for every request. Beyond this it is slowed down, so that a hostile one cannot make the
	// agent's refusals cost the site a core (A28).
	up.Tunnel.OpenRate, up.Tunnel.OpenBurst = 2000, 4000
	if len(up.Addresses) == 0 {
		up.Addresses = id.RelayAddrs
	}
	if up.Proxy, err = cfg.Proxy(); err != nil {
		return nil, errors.Join(err, s.closeAll())
	}
	a.up = uplink.New(up)
	return a, nil
}

// Proxy is the way out that the configuration names.
func (c *Config) Proxy() (uplink.Proxy, error) {
	p := c.Relay.Proxy
	if p.URL == "" && p.From != proxyFromEnvironment {
		return uplink.Proxy{}, nil
	}
	cas, err := certPool(p.CAFile)
	if err != nil {
		return uplink.Proxy{}, fmt.Errorf("relay.proxy.ca_file: %w", err)
	}
	if p.From == proxyFromEnvironment {
		return uplink.Proxy{FromEnvironment: true, CAs: cas}, nil
	}
	u, err := url.Parse(p.URL)
	if err != nil {
		return uplink.Proxy{}, errors.New("relay.proxy.url is not a URL") // Load has told where
	}
	return uplink.Proxy{URL: u, Username: p.Username, Password: p.Secret, CAs: cas}, nil
}

// ID is the agent's id.
func (a *Agent) ID() string { return a.id.Agent }

// Ready is closed after a relay has welcomed the agent for the first time.
func (a *Agent) Ready() <-chan struct{} { return a.up.Ready() }

// ConfigDigest names the configuration in force.
func (a *Agent) ConfigDigest() string { return a.site.Load().policy.Digest() }

// Renew asks for a new certificate now instead of at two thirds of the present one's life.
func (a *Agent) Renew() {
	select {
	case a.renewNow <- struct{}{}:
	default: // asked already
	}
}

// States tells of the tunnels.
func (a *Agent) States() []uplink.State { return a.up.States() }

// Run serves until ctx ends, then takes no new work, lets running operations finish for DrainTime, cancels the rest and
// returns nil. Another error means that the agent could not run at all.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer func() { a.site.Load().release() }()
	unlock, err := lockDataDir(a.opt.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	spool := filepath.Join(a.opt.DataDir, "audit")
	a.log, err = audit.Open(audit.Config{Dir: spool, Source: a.id.Agent, MaxBytes: int64(a.cfg.Audit.Spool), Key: a.id.AuditKey, Logger: a.opt.Logger})
	if err != nil {
		return fmt.Errorf("open the audit log in %s: %w", spool, err)
	}
	defer func() { err = errors.Join(err, a.log.Close()) }()
	a.rec = &audit.Recorder{Log: a.log, Masker: &audit.Masker{}, Source: a.id.Agent, Workspace: a.id.Workspace}
	a.trips = newTrips(a.opt.Logger, a.rec, a.acquire)
	a.trips.budgets.apply(a.cfg)
	budgetsFile := filepath.Join(a.opt.DataDir, BudgetsFile)
	a.trips.budgets.load(budgetsFile, a.opt.Logger)
	if _, err := a.rec.Record(audit.Event{Kind: audit.KindStart, Agent: a.id.Agent, Version: a.opt.Version, Detail: map[string]string{"config_digest": a.ConfigDigest()}}); err != nil {
		a.opt.Logger.Error("the audit log takes no events; operations will be refused until it does", "error", err)
	}

	// Tunnels outlive ctx by the drain: inner ends when everything is done.
	inner, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end() // runs before Wait
	wg.Go(func() { _ = a.up.Run(inner) })
	wg.Go(func() { a.ship(inner) })
	wg.Go(func() {
		(&enroll.Renewer{Dir: a.opt.DataDir, Reloader: a.reloader, Call: a.up.Call, Renewed: a.up.Cycle, Now: a.renewNow, Logger: a.opt.Logger}).Run(inner)
	})
	wg.Go(func() { a.watch(inner) })
	wg.Go(func() { a.trips.budgets.run(inner, budgetsFile, a.opt.Logger) })

	<-ctx.Done()
	a.opt.Logger.Info("stopping: taking no new work, letting running operations finish", "at_most", a.opt.Drain)
	dctx, cancel := context.WithTimeout(inner, a.opt.Drain)
	defer cancel()
	a.up.Broadcast(dctx, protocol.PathDrain, struct{}{})
	settled := time.After(uplink.Settle) // what is on its way hears that nothing was done, and goes to another agent
	a.trips.drain(dctx)
	select {
	case <-settled:
	case <-dctx.Done():
	}
	if _, err := a.rec.Record(audit.Event{Kind: audit.KindStop, Agent: a.id.Agent}); err != nil {
		a.opt.Logger.Warn("the stop could not be recorded", "error", err)
	}
	return nil
}

// acquire retains the site in force; the caller releases it.
func (a *Agent) acquire() *site {
	for {
		if s := a.site.Load(); s.retain() {
			return s
		}
	}
}

// serve takes every stream of the relay.
func (a *Agent) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == protocol.PathNotice {
		a.notice(w, r)
		return
	}
	growStack(0)
	a.trips.ServeHTTP(w, r)
}

// growStack makes the stack of a new goroutine as large as a trip needs, in one step and while there is next to nothing on it. It
// would grow in two, each a copy of deep frames with all pointers set anew: that costs a short connection 3 % more CPU.
//
//go:noinline
func growStack(i uint) byte {
	var room [9 << 10]byte
	return room[i%uint(len(room))]
}

// notice takes a word from the relay. None of them can widen what the site allows.
func (a *Agent) notice(w http.ResponseWriter, r *http.Request) {
	var n protocol.Notice
	if r.Method != http.MethodPost || json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&n) != nil {
		writeProblem(w, protocol.Errorf(protocol.CodeInvalid, "want POST and a notice"))
		return
	}
	switch n.Kind {
	case protocol.NoticeDrain:
		a.opt.Logger.Info("the relay is stopping; the agent will reconnect")
	case protocol.NoticeRevoked:
		a.opt.Logger.Warn("the relay has disabled this agent; it will keep trying in case it is enabled again")
	case protocol.NoticeRenew:
		a.Renew()
	default:
		writeProblem(w, protocol.Errorf(protocol.CodeUnsupported, "this notice is not known"))
		return
	}
	_, _ = w.Write([]byte("{}"))
}

func (a *Agent) status() protocol.Status {
	st := protocol.Status{ConfigDigest: a.ConfigDigest(), Profiles: a.site.Load().policy.Offers()}
	if e := a.reloadError.Load(); e != nil {
		st.ReloadError = *e
	}
	return st
}

func (a *Agent) hello() protocol.Hello {
	hostname, _ := os.Hostname()
	st := a.status()
	h := protocol.Hello{Version: protocol.Version, MinVersion: protocol.MinVersion, AgentVersion: a.opt.Version, Instance: a.instance, Hostname: hostname,
		OS: runtime.GOOS, Arch: runtime.GOARCH, Status: st, Profiles: st.Profiles, Log: a.log.Head(), StartedMs: time.Since(a.started).Milliseconds()}
	for name := range protocol.Constraints {
		h.Constraints = append(h.Constraints, name)
	}
	return h
}

func (a *Agent) welcomed(w protocol.Welcome) { a.logSeen.Store(&w.Log) }

// shipPace gathers what short operations record, so that each does not cost the relay synced writes of its own: those
// would stand in the way of the very records that operations wait for.
const shipPace = 50 * time.Millisecond

// ship carries the audit log upstream, in order, at least once.
func (a *Agent) ship(ctx context.Context) {
	f := &audit.Feed{Log: a.log, CursorFile: filepath.Join(a.opt.DataDir, "audit", "relay.cursor"), Batch: 500, Release: true, Pace: shipPace, SaveEvery: time.Second, Logger: a.opt.Logger}
	err := f.Run(ctx, func(ctx context.Context, records []audit.Record) (uint64, error) {
		select {
		case <-a.up.Ready():
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		batch := audit.AppendBatch(nil, records, a.log.Oldest())
		cctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		var receipt protocol.Receipt
		if err := a.up.Call(cctx, protocol.PathEvents, json.RawMessage(batch), &receipt); err != nil {
			return 0, fmt.Errorf("send events to the relay: %w", err)
		}
		return acknowledged(a.log, records, receipt.Log)
	})
	if err != nil && ctx.Err() == nil {
		a.opt.Logger.Error("events no longer reach the relay; the agent refuses work when its spool is full", "error", err)
	}
}

// acknowledged is how far a receipt is believed, for a batch that was sent. It must name a record of this log by its hash.
// One that lies behind the batch is believed as far as the batch goes: the relay holds more than the cursor knew.
func acknowledged(log *audit.Log, sent []audit.Record, head protocol.LogHead) (uint64, error) {
	first, last := sent[0].Seq, sent[len(sent)-1].Seq
	var have audit.Record
	switch {
	case first <= head.Seq && head.Seq <= last:
		have = sent[head.Seq-first]
	case head.Seq < log.Oldest():
		return head.Seq, nil // the relay has none, or lost some that are no longer here: the feed goes back as far as it can
	case head.Seq > log.Head().Seq:
		return 0, fmt.Errorf("the relay acknowledged record %d, and there are %d", head.Seq, log.Head().Seq)
	default:
		recs, err := log.Read(head.Seq-1, 1)
		if err != nil {
			return 0, fmt.Errorf("read the record that the relay acknowledged: %w", err)
		}
		if len(recs) > 0 {
			have = recs[0]
		}
	}
	if have.Hash == "" || have.Hash != head.Hash {
		return 0, fmt.Errorf("the relay acknowledged another record %d than this log has", head.Seq)
	}
	return min(head.Seq, last), nil
}

// watch applies a changed configuration or secret: parse, validate, build, swap. Any fault keeps the one in force and says
// so. The first look is applied, too (Have is not set): a password that was rotated since New read it counts.
func (a *Agent) watch(ctx context.Context) {
	w := &config.Watcher{Path: a.cfg.Path, Poll: a.opt.Poll, Log: a.opt.Logger, Also: func() []string { return a.cfg.SecretFiles() },
		Apply: func(data []byte) {
			cfg, err := Decode(a.cfg.Path, data)
			a.apply(ctx, cfg, err)
		},
		Failed: func(err error) { a.apply(ctx, nil, err) }}
	if err := w.Run(ctx); err != nil && ctx.Err() == nil {
		a.opt.Logger.Error("the configuration is no longer watched; restart the agent after a change", "error", err)
	}
}

func (a *Agent) apply(ctx context.Context, cfg *Config, err error) {
	var s *site
	if err == nil {
		s, err = newSite(cfg, a.opt.DataDir, a.opt.Logger)
	}
	if err != nil {
		text := err.Error()
		a.reloadError.Store(&text)
		a.opt.Logger.Error("the new configuration is refused; the last good one stays in force", "error", err)
		a.note(audit.Event{Kind: audit.KindConfigBad, Decision: "deny", Reason: "the new configuration is refused; the last good one stays in force"})
		a.report(ctx)
		return
	}
	a.reloadError.Store(nil)
	old := a.site.Load()
	if s.policy.Digest() == old.policy.Digest() && a.cfg.SameSecrets(cfg) {
		_ = s.closeAll() // comments or order changed; the connections in use stay
		a.report(ctx)
		return
	}
	a.cfg = cfg // only this goroutine reads it after Run has begun
	a.site.Store(s)
	a.trips.budgets.apply(cfg)
	cut := a.trips.narrow(s.policy)
	old.release()
	a.opt.Logger.Info("new configuration in force", "digest", s.policy.Digest(), "was", old.policy.Digest(), "operations_cut", cut)
	a.note(audit.Event{Kind: audit.KindConfig, Detail: map[string]string{"new": s.policy.Digest(), "old": old.policy.Digest()}})
	a.report(ctx)
}

func (a *Agent) note(ev audit.Event) {
	ev.Agent = a.id.Agent
	if _, err := a.rec.Record(ev); err != nil {
		a.opt.Logger.Warn("an event could not be recorded", "kind", string(ev.Kind), "error", err)
	}
}

// report tells the relay what configuration is in force, or why a newer one is refused.
func (a *Agent) report(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	a.up.Broadcast(ctx, protocol.PathStatus, a.status())
}
