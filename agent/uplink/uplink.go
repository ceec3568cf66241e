package uplink

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// Config says where the relays are and what the agent tells them.
type Config struct {
	Addresses []string // host:port; one tunnel is kept to each
	Proxy     Proxy
	TLS       *tls.Config // of mtls.AgentTLS
	Tunnel    tunnel.Config
	// Transport is TransportAuto (""), TransportTCP, TransportWebSocket or TransportQUIC. Choices is the file in which auto
	// remembers what it found; "" forgets at the end. The times are DefaultRetest, DefaultQUICRetry and DefaultQUICTimeout
	// when zero.
	Transport              string
	Choices                string
	Retest                 time.Duration
	QUICRetry, QUICTimeout time.Duration
	// Hello is asked at each connect, for status and log head change.
	Hello func() protocol.Hello
	// Handler serves the relay's requests.
	Handler http.Handler
	// Welcomed is called after each Welcome, before Ready; it must not block. May be nil.
	Welcomed func(protocol.Welcome)
	Logger   *slog.Logger

	// Lanes is how many dedicated connections the relay may ask for beside each tunnel; 0 to protocol.MaxLanes.
	Lanes int
	// Tunnels is how many are kept to each address: 1 (or 0) to MaxTunnels.
	Tunnels int

	MinWait, MaxWait time.Duration // 500 ms and 60 s when zero
	// Dial replaces the dial of a tunnel, for tests over the memory transport. nil means TLS over TCP.
	Dial func(ctx context.Context, addr string) (tunnel.Tunnel, error)
}

// Uplink keeps tunnels to all addresses. It is safe for concurrent use.
type Uplink struct {
	cfg   Config
	ready chan struct{} // closed after the first Welcome
	once  sync.Once
	ways  *choices

	mu    sync.Mutex // guards the fields below
	lines map[slot]*line
	first map[string]chan struct{} // by address: closed when slot 0 gets a tunnel; none when nobody waits for it
	cycle chan struct{}            // closed and replaced by Cycle
}

// line is one connected tunnel.
type line struct {
	way     string
	tunnel  tunnel.Tunnel
	client  *http.Transport
	welcome protocol.Welcome
	since   time.Time
}

// maxRetry bounds the wait that a relay may ask for: one that was taken over could otherwise keep its agents away for ever.
const maxRetry = 10 * time.Minute

// maxNameWait bounds the wait after a try that ended at the resolver.
const maxNameWait = 20 * time.Second

// busyWait is the wait after a relay was first found busy, before jitter; it grows to busyMost. That is twice what a relay has
// line for: agents that wait longer leave it idle at the end of a storm. In a computed storm of 5,000 agents at 150 handshakes a
// second the last one is back after 37 s, as against 68 s with waits that grow to a minute; of 50,000, the relay refuses 3,000 a
// second meanwhile, at seven bytes each.
const (
	busyWait = 8 * time.Second
	busyMost = 16 * time.Second
)

// ErrNotConnected means that no relay is reached at the moment.
var ErrNotConnected = errors.New("not connected to any relay")

// New makes an Uplink; Run starts it.
func New(cfg Config) *Uplink {
	if cfg.MinWait == 0 {
		cfg.MinWait = 500 * time.Millisecond
	}
	if cfg.MaxWait == 0 {
		cfg.MaxWait = time.Minute
	}
	if cfg.QUICTimeout == 0 {
		cfg.QUICTimeout = DefaultQUICTimeout
	}
	cfg.Proxy.places = newPlaces(cfg.Logger)
	return &Uplink{cfg: cfg, ready: make(chan struct{}), lines: map[slot]*line{}, first: map[string]chan struct{}{}, cycle: make(chan struct{}),
		ways: newChoices(cfg.Transport, cfg.Choices, cfg.Retest, cfg.QUICRetry, cfg.Logger)}
}

// Ready is closed after the first Welcome was read.
func (u *Uplink) Ready() <-chan struct{} { return u.ready }

// Run keeps the tunnels until ctx ends, then closes them. Drain the work first.
func (u *Uplink) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, addr := range u.cfg.Addresses {
		for n := range max(u.cfg.Tunnels, 1) {
			wg.Go(func() { u.keep(ctx, slot{addr, n}) })
		}
	}
	wg.Wait()
	return ctx.Err()
}

// Cycle makes every line open a fresh tunnel and then drain the present one: after a renewal, so that the new
// certificate is proven while the old one still holds.
func (u *Uplink) Cycle() {
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.cycle)
	u.cycle = make(chan struct{})
}

// State tells of one address.
type State struct {
	Address   string
	Connected bool
	Relay     string
	Since     time.Time
	Transport string // what the tunnel goes over: tls, websocket, quic, memory
	Tunnels   int    // that are connected
}

// States tells of every address.
func (u *Uplink) States() []State {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []State
	for _, a := range u.cfg.Addresses {
		s := State{Address: a}
		for n := range max(u.cfg.Tunnels, 1) {
			l := u.lines[slot{a, n}]
			if l == nil {
				continue
			}
			if s.Tunnels++; !s.Connected {
				s.Connected, s.Relay, s.Since, s.Transport = true, l.welcome.Relay, l.since, l.tunnel.Transport()
			}
		}
		out = append(out, s)
	}
	return out
}

// keep holds one slot: at most one tunnel, and for the moment of a change two.
func (u *Uplink) keep(ctx context.Context, at slot) {
	addr := at.addr
	var draining sync.WaitGroup
	defer draining.Wait()
	tries, busy := 0, 0      // failures in a row; of these, the last ones for the relay was busy
	var since time.Time      // of the first of them
	var retire func()        // drains the tunnel of the generation before, once the next one is welcomed
	var better tunnel.Tunnel // over QUIC, dialled beside the one before
	defer func() {
		if better != nil {
			_ = better.Close()
		}
	}()
	for ctx.Err() == nil {
		dialled := better
		better = nil
		way := TransportQUIC
		if dialled == nil {
			if way = u.way(ctx, at); ctx.Err() != nil {
				break
			}
		}
		lived, next, found, err := u.hold(ctx, at, way, dialled, &draining, &retire)
		better = found
		if ctx.Err() != nil {
			break
		}
		if lived > 30*time.Second {
			tries = 0
		}
		var retry *retryError
		if next != nil {
			retire = next
			continue // a change of generation, not a loss
		}
		if lived == 0 && dialled != nil {
			u.ways.stay(addr, err)
			continue // the tunnel of before serves until the next one is welcomed
		}
		if lived > 0 && at.n == 0 {
			u.ways.lost(addr, way, lived, err)
		}
		if lived == 0 && at.n == 0 && u.ways.failed(addr, way, err) {
			u.cfg.Logger.Info("no tunnel to the relay this way; trying the other", "relay", addr, "way", way, "reason", explain(err))
			continue
		}
		if tries++; tries == 1 {
			since = time.Now()
		}
		// Never longer than it has been away already: a short cut costs the admin at most as much again.
		wait := min(jitter(u.cfg.MinWait, u.cfg.MaxWait, tries), max(u.cfg.MinWait, time.Since(since)))
		switch {
		case errors.As(err, new(*net.DNSError)): // nobody is hammered by it, and names come back at once
			wait = min(wait, maxNameWait)
		case errors.As(err, &retry) && retry.after > wait:
			// A relay may ask for patience, not for silence. Many were told the same: they shall not come together.
			wait = min(retry.after, maxRetry)
			wait += rand.N(wait/8 + 1)
		case isBusy(err): // counted by itself: how often the relay was away before says nothing of how full it is
			busy++
			wait = jitter(busyWait, min(busyMost, u.cfg.MaxWait), busy)
		}
		if !isBusy(err) {
			busy = 0
		}
		u.cfg.Logger.Warn("no tunnel to the relay; trying again", "relay", addr, "way", way, "wait", wait.Round(time.Millisecond), "try", tries, "reason", explain(err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	if retire != nil {
		retire()
	}
}

// hold connects, if t is nil, and serves the tunnel until it is lost (error), cycled (next), a better one was found (next
// and better) or ctx ends. A cycled tunnel serves on until next is called: then it drains in a goroutine of draining. The
// tunnel of the generation before, retire, is drained as soon as this one is welcomed, so that at no moment there is none.
func (u *Uplink) hold(ctx context.Context, at slot, way string, t tunnel.Tunnel, draining *sync.WaitGroup, retire *func()) (lived time.Duration, next func(), better tunnel.Tunnel, err error) {
	addr := at.addr
	u.mu.Lock()
	cycle := u.cycle
	u.mu.Unlock()
	if t == nil {
		if t, err = u.dial(ctx, addr, way); err != nil {
			return 0, nil, nil, err
		}
	}
	var beside *lanes
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == protocol.PathLanes {
			beside.ask(w, r)
			return
		}
		u.cfg.Handler.ServeHTTP(w, r)
	}), ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(u.cfg.Logger.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx }}
	srv.SetKeepAlivesEnabled(false) // one request a stream: what follows it on the stream is never taken for a second one
	hello := u.cfg.Hello()
	if u.cfg.Dial == nil && way != TransportQUIC { // a test's transport has no way to dial them, QUIC no need
		hello.Lanes = u.cfg.Lanes
	}
	beside = newLanes(ctx, hello.Lanes, srv, u.cfg.Logger.Debug, u.dialLane(addr, way))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(tunnel.NewListener(t)) // ends with the tunnel
	}()
	end := func() { // joins everything this tunnel started
		t.Close()
		srv.Close()
		<-served
		beside.close()
	}
	l := &line{way: way, tunnel: t, client: clientOf(t)}
	hctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	err = call(hctx, l.client, protocol.PathHello, hello, &l.welcome)
	cancel()
	if err != nil {
		cause := t.Err()
		end()
		if cause != nil {
			err = fmt.Errorf("%w (tunnel: %v)", err, cause)
		}
		return 0, nil, nil, helloError{fmt.Errorf("say hello: %w", err), cause}
	}
	if l.welcome.Version < protocol.MinVersion || l.welcome.Version > protocol.Version {
		end()
		return 0, nil, nil, fmt.Errorf("relay speaks protocol version %d, this agent %d to %d: upgrade the older of the two", l.welcome.Version, protocol.MinVersion, protocol.Version)
	}
	l.welcome.Relay = clip(l.welcome.Relay, 64) // it goes into the log at each connect
	l.since = time.Now()
	u.mu.Lock()
	u.lines[at] = l
	if c := u.first[addr]; at.n == 0 && c != nil {
		close(c)
		delete(u.first, addr)
	}
	u.mu.Unlock()
	u.cfg.Logger.Info("connected to relay", "relay", addr, "relay_id", l.welcome.Relay, "transport", t.Transport())
	if skew := time.Since(time.UnixMilli(l.welcome.ServerTimeMs)); skew.Abs() > 2*time.Minute {
		u.cfg.Logger.Warn("this machine's clock and the relay's differ; certificates may be refused", "skew", skew.Round(time.Second))
	}
	if u.cfg.Welcomed != nil {
		u.cfg.Welcomed(l.welcome)
	}
	if at.n == 0 {
		u.ways.worked(addr, way)
	}
	u.once.Do(func() { close(u.ready) })
	if *retire != nil {
		(*retire)()
		*retire = nil
	}
	forget := func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.lines[at] == l {
			delete(u.lines, at)
		}
	}
	found := make(chan tunnel.Tunnel)
	if at.n == 0 && way == TransportTCP && l.welcome.QUIC && u.ways.setting == TransportAuto && u.cfg.Dial == nil && u.udp(addr) {
		octx, stop := context.WithCancel(ctx)
		var offering sync.WaitGroup
		offering.Go(func() { u.offer(octx, addr, found) })
		defer offering.Wait()
		defer stop()
	}
	cycled, better, err := u.watch(ctx, t, cycle, found)
	if cycled {
		return max(time.Since(l.since), 1), func() {
			draining.Go(func() {
				dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
				_ = call(dctx, l.client, protocol.PathDrain, struct{}{}, nil)
				cancel()
				finish(ctx, t, beside)
				sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
				_ = srv.Shutdown(sctx)
				cancel()
				end()
			})
		}, better, nil
	}
	forget()
	if ctx.Err() != nil {
		// The agent stops and its work is done. What was answered last must still reach the relay: let the server finish its
		// streams, and let a round trip show that the relay has read all before the conn closes.
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		if srv.Shutdown(fctx) == nil {
			_ = tunnel.Settle(fctx, t)
			beside.wait(fctx)
		}
		cancel()
	}
	end()
	return max(time.Since(l.since), 1), nil, nil, err
}

// watch waits until the tunnel is lost, cycled, a better one is found or ctx ends, and proves it by a round trip every
// heartbeat.
func (u *Uplink) watch(ctx context.Context, t tunnel.Tunnel, cycle <-chan struct{}, found <-chan tunnel.Tunnel) (cycled bool, better tunnel.Tunnel, err error) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, nil, ctx.Err()
		case <-cycle:
			return true, nil, nil
		case better := <-found:
			return true, better, nil
		case <-t.Done():
			return false, nil, fmt.Errorf("tunnel lost: %w", orEOF(t.Err()))
		case <-tick.C:
			pctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			_, err := t.Ping(pctx)
			cancel()
			if errors.Is(err, tunnel.ErrLate) {
				continue // the tunnel itself bounds how late
			}
			if err != nil && ctx.Err() == nil {
				return false, nil, fmt.Errorf("relay does not answer: %w", err)
			}
		}
	}
}

func (u *Uplink) dial(ctx context.Context, addr, way string) (tunnel.Tunnel, error) {
	dctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if u.cfg.Dial != nil {
		return u.cfg.Dial(dctx, addr)
	}
	if way == TransportQUIC {
		if u.ways.setting == TransportAuto { // there is another way
			dctx, cancel = context.WithTimeout(dctx, u.cfg.QUICTimeout)
			defer cancel()
		}
		return u.dialQUIC(dctx, addr)
	}
	return tunnel.Dial(dctx, addr, u.cfg.TLS, u.dialFunc(addr, way), u.cfg.Tunnel)
}

// dialFunc gives what carries TLS to addr, the way that was chosen for it.
func (u *Uplink) dialFunc(addr, way string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if way == TransportWebSocket {
		return WebSocketDial(u.cfg.Proxy, noteCoat(u.cfg.Logger, addr, u.cfg.TLS))
	}
	return u.cfg.Proxy.Dial
}

// Call sends a control request over any connected tunnel and decodes the answer into out (nil to drop it). A json.RawMessage goes
// out as it is.
func (u *Uplink) Call(ctx context.Context, path string, in, out any) error {
	u.mu.Lock()
	var l *line
	for _, have := range u.lines {
		if l == nil || have.since.After(l.since) {
			l = have
		}
	}
	u.mu.Unlock()
	if l == nil {
		return ErrNotConnected
	}
	return call(ctx, l.client, path, in, out)
}

// Broadcast sends a control request over every connected tunnel; errors are logged.
func (u *Uplink) Broadcast(ctx context.Context, path string, in any) {
	u.mu.Lock()
	var ls []*line
	for _, l := range u.lines {
		ls = append(ls, l)
	}
	u.mu.Unlock()
	for _, l := range ls {
		if err := call(ctx, l.client, path, in, nil); err != nil {
			u.cfg.Logger.Debug("control request", "path", path, "error", err)
		}
	}
}

func clientOf(t tunnel.Tunnel) *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return t.Open(ctx) }}
}

// retryError is a refusal that says when to come again.
type retryError struct {
	refusal *protocol.Error
	after   time.Duration
}

func (r *retryError) Error() string { return r.refusal.Error() }
func (r *retryError) Unwrap() error { return r.refusal }

func call(ctx context.Context, client *http.Transport, path string, in, out any) error {
	b, ok := in.(json.RawMessage)
	if !ok {
		var err error
		if b, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode %s: %w", path, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://relay"+path, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("build %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("send %s: %w", path, err)
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, protocol.MaxControlBytes)
	if resp.StatusCode != http.StatusOK {
		e := &protocol.Error{}
		if json.NewDecoder(body).Decode(e) != nil || e.Code == "" {
			e = protocol.Errorf(protocol.CodeUpstream, "relay answered %s with status %d", path, resp.StatusCode)
		}
		e.Message, e.Hint, e.Rule = clip(e.Message, 500), clip(e.Hint, 500), clip(e.Rule, 100) // they go into the log at each try
		if s, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s"); err == nil && s > 0 {
			return &retryError{e, s}
		}
		return e
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("decode the answer to %s: %w", path, err)
	}
	return nil
}

// jitter is the wait before try n: uniform between 0 and the cap that doubles with each try ("full jitter"), never
// below a tenth of min so that a refusing relay is not spun on.
func jitter(least, most time.Duration, n int) time.Duration {
	ceiling := most
	if n < 20 {
		ceiling = min(most, least<<(n-1))
	}
	return least/10 + rand.N(ceiling)
}

// clip shortens what a relay says before it is kept or logged.
func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}
