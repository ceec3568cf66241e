package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/protocol"
)

// Dial opens a tunnel to a relay. tlsConf is mtls.AgentTLS's: its RootCAs says against what the relay is verified. dial
// may be nil (plain TCP) or go through a proxy. The context bounds the set-up alone.
//
// In TLS 1.3 a client does not see that the relay refuses its certificate until it reads. A tunnel is proven by the first
// answer on a stream, or by Ping, not by Dial.
func Dial(ctx context.Context, addr string, tlsConf *tls.Config,
	dial func(ctx context.Context, network, addr string) (net.Conn, error), cfg Config) (Tunnel, error) {
	cfg = cfg.withDefaults()
	conn, identify, err := dialTLS(ctx, addr, tlsConf, dial, cfg)
	if err != nil {
		return nil, err
	}
	t, err := start(ctx, conn, true, cfg, identify)
	if err != nil {
		return nil, fmt.Errorf("tunnel to relay %s: %w", addr, err)
	}
	return t, nil
}

// dialTLS connects and leaves the handshake to do. identify says who the relay is afterwards.
func dialTLS(ctx context.Context, addr string, tlsConf *tls.Config,
	dial func(ctx context.Context, network, addr string) (net.Conn, error), cfg Config) (*tls.Conn, identifier, error) {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	dialCtx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	raw, err := dial(dialCtx, "tcp", addr)
	if err != nil {
		return nil, nil, fmt.Errorf("dial relay %s: %w", addr, err)
	}
	tlsConf = tlsConf.Clone()
	if host, _, err := net.SplitHostPort(addr); err == nil && tlsConf.ServerName == "" {
		tlsConf.ServerName = host // for routers on the way; the certificate is not judged by it
	}
	tune(raw, cfg.Congestion)
	return tls.Client(&batchConn{Conn: raw}, tlsConf), cfg.identifier(func(cs tls.ConnectionState) (mtls.Identity, *x509.Certificate, error) {
		return mtls.RelayIdentity(cs, tlsConf.RootCAs)
	}), nil
}

// Server makes a tunnel of a connection from an agent, whose TLS settings are mtls.TunnelTLS's. It does the handshake if
// that is not done. On an error the connection is closed.
func Server(ctx context.Context, conn *tls.Conn, cfg Config) (Tunnel, error) {
	t, err := start(ctx, conn, false, cfg.withDefaults(), cfg.identifier(mtls.PeerIdentity))
	if err != nil {
		return nil, fmt.Errorf("tunnel from %s: %w", conn.RemoteAddr(), err)
	}
	return t, nil
}

type session struct {
	conn  halfCloser
	raw   net.Conn // beneath TLS: closing it never waits
	wire  *wire
	mux   *yamux.Session
	cfg   Config
	peer  mtls.Identity
	cert  *x509.Certificate
	done  chan struct{} // closed by end
	gone  chan struct{} // closed when all goroutines have ended
	tasks sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	err     error
	pinging *pingCall
}

type pingCall struct {
	done chan struct{}
	rtt  time.Duration
	err  error
}

func start(ctx context.Context, conn *tls.Conn, client bool, cfg Config, identify identifier) (*session, error) {
	t := &session{conn: conn, raw: conn.NetConn(), cfg: cfg, done: make(chan struct{}), gone: make(chan struct{})}
	var err error
	if t.peer, t.cert, err = handshake(ctx, conn, cfg, protocol.ALPNTunnel, identify); err != nil {
		_ = t.raw.Close()
		return nil, err
	}
	return t.run(client)
}

// run starts yamux on the conn.
func (t *session) run(client bool) (*session, error) {
	cfg := t.cfg
	batch, _ := t.raw.(*batchConn)
	batch.waits(cfg.WriteTimeout)
	t.wire = newWire(t.conn, batch, client, cfg, t.end, t.done)
	conf := &yamux.Config{
		AcceptBacklog: cfg.Backlog,
		// Ours, in watch: yamux would count a slow link as a dead one.
		EnableKeepAlive:   false,
		KeepAliveInterval: cfg.KeepAlive,
		// The wire's own WriteTimeout ends a stuck connection long before. yamux's, which leaves the peer reading for ever,
		// must only not come first while many streams share a slow link.
		ConnectionWriteTimeout: 8 * cfg.WriteTimeout,
		MaxStreamWindowSize:    cfg.Window,
		Logger:                 logger{cfg.Logger},
		// StreamCloseTimeout would cut streams whose peer still writes after our CloseWrite; StreamOpenTimeout would end
		// the tunnel for one slow accept. The wire's sweep and the callers' deadlines stand for them.
	}
	var err error
	if client {
		t.mux, err = yamux.Client(t.wire, conf)
	} else {
		t.mux, err = yamux.Server(t.wire, conf)
	}
	if err != nil {
		_ = t.raw.Close()
		return nil, fmt.Errorf("start yamux: %w", err)
	}
	go t.watch()
	return t, nil
}

// identifier verifies a peer's chain and gives who it is.
type identifier func(tls.ConnectionState) (mtls.Identity, *x509.Certificate, error)

// handshake does the TLS handshake if that is not done, and says who the peer is.
func handshake(ctx context.Context, conn *tls.Conn, cfg Config, alpn string, identify identifier) (mtls.Identity, *x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return mtls.Identity{}, nil, fmt.Errorf("TLS handshake: %w", err)
	}
	cs := conn.ConnectionState()
	if cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != alpn {
		return mtls.Identity{}, nil, fmt.Errorf("%w: negotiated %s with ALPN %q", ErrProtocol, tls.VersionName(cs.Version), cs.NegotiatedProtocol)
	}
	return identify(cs)
}

// end ends the tunnel for a reason; the first one counts. It may be called from within yamux, so it calls nothing there:
// watch does the rest. Order matters: done first, so that streams can tell a cut from an end; the connection before the
// session, and all streams woken, for yamux's blocked calls spin between its shutdown and the end of its reader.
func (t *session) end(why error) {
	t.mu.Lock()
	if t.err != nil {
		t.mu.Unlock()
		return
	}
	t.err = why
	close(t.done)
	t.mu.Unlock()
	if (errors.Is(why, ErrClosed) || errors.Is(why, ErrExpired)) && t.wire.wmu.TryLock() {
		// Say goodbye, if it costs nothing.
		t.wire.batch.waits(0)
		_ = t.conn.SetWriteDeadline(time.Now().Add(250 * time.Millisecond))
		_ = t.conn.CloseWrite()
		t.wire.wmu.Unlock()
	}
	_ = t.raw.Close()
	for _, s := range t.wire.streams() {
		s.stop()
	}
}

// watch finds dead peers, expired certificates, and streams to reset. It ends the session and closes gone.
func (t *session) watch() {
	defer close(t.gone)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var (
		pinged  time.Duration // when, since wire.started; 0: no ping is out
		looked  time.Duration // when the ping was last found to be late, or sent
		was     mark          // at that moment
		swept   = time.Now()
		checked = time.Now()
	)
	for {
		kicked := false
		select {
		case <-t.done:
			_ = t.mux.Close()
			t.tasks.Wait()
			return
		case <-t.wire.owing:
			_ = t.wire.flush() // its fault ends the tunnel
			continue
		case <-t.wire.kick:
			kicked = true
		case <-timer.C:
		}
		now := time.Now()
		if t.cert != nil && !now.Round(0).Before(t.cert.NotAfter) {
			t.end(ErrExpired)
			continue
		}
		shrink := now.Sub(swept) >= t.cfg.KeepAlive
		if shrink {
			swept = now
		}
		next := t.wire.sweep(now, shrink)
		if kicked && t.wire.flush() != nil {
			continue
		}
		// A host that slept is told by its wall clock, which went on while the monotonic clock stood still.
		slept := now.Round(0).Sub(checked.Round(0))-now.Sub(checked) > 10*time.Second
		checked = now
		rx, since := time.Duration(t.wire.lastRx.Load()), now.Sub(t.wire.started)
		switch {
		case pinged > 0 && rx > pinged:
			pinged = 0
		case pinged > 0 && since-looked >= t.cfg.PingTimeout:
			if since-pinged >= t.cfg.LatePing || !t.moves(was) {
				t.end(ErrPeerLost)
				continue
			}
			looked, was = since, t.mark()
		case pinged == 0 && (since-rx >= t.cfg.KeepAlive || slept):
			pinged = max(since, 1)
			looked, was = pinged, t.mark()
			t.ping()
		}
		due := now.Add(min(t.cfg.KeepAlive-min(since-rx, t.cfg.KeepAlive), 30*time.Second))
		if pinged > 0 {
			due = now.Add(t.cfg.PingTimeout - (since - looked))
		}
		if !next.IsZero() && next.Before(due) {
			due = next
		}
		if t.cert != nil && t.cert.NotAfter.Before(due) {
			due = t.cert.NotAfter
		}
		timer.Reset(max(time.Until(due), time.Millisecond))
	}
}

// task runs f in a goroutine that Close waits for. false: the tunnel has ended.
func (t *session) task(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.taskLocked(f)
}

func (t *session) taskLocked(f func()) bool {
	if t.err != nil {
		return false
	}
	t.tasks.Go(f)
	return true
}

// ping starts a ping, or joins the one that is out: a peer that does not answer is owed one call, not many.
func (t *session) ping() *pingCall {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pinging != nil {
		return t.pinging
	}
	p := &pingCall{done: make(chan struct{})}
	started := t.taskLocked(func() {
		p.rtt, p.err = t.mux.Ping()
		t.mu.Lock()
		t.pinging = nil
		t.mu.Unlock()
		close(p.done)
	})
	if !started {
		p.err = t.err
		close(p.done)
		return p
	}
	t.pinging = p
	return p
}

func (t *session) Ping(ctx context.Context) (time.Duration, error) {
	was := t.mark()
	p := t.ping()
	select {
	case <-p.done:
		if p.err != nil {
			return 0, t.why(p.err)
		}
		return p.rtt, nil
	case <-ctx.Done():
		if t.moves(was) {
			return 0, fmt.Errorf("%w: %w", ErrLate, ctx.Err())
		}
		return 0, fmt.Errorf("ping: %w", ctx.Err())
	case <-t.done:
		return 0, t.Err()
	}
}

func (t *session) Open(ctx context.Context) (Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	if _, outbound := t.wire.counts(); outbound >= t.cfg.MaxStreams {
		return nil, ErrTooManyStreams
	}
	type opened struct {
		ys  *yamux.Stream
		err error
	}
	ch := make(chan opened)
	// yamux waits here for the peer to accept earlier streams, and for the connection.
	ok := t.task(func() {
		ys, err := t.mux.OpenStream()
		select {
		case ch <- opened{ys, err}:
		case <-ctx.Done():
			if err == nil {
				_ = t.stream(ys, false).Close()
			}
		case <-t.done:
		}
	})
	if !ok {
		return nil, t.Err()
	}
	select {
	case o := <-ch:
		if o.err != nil {
			return nil, fmt.Errorf("open stream: %w", t.why(o.err))
		}
		return t.stream(o.ys, false), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("open stream: %w", ctx.Err())
	case <-t.done:
		return nil, t.Err()
	}
}

func (t *session) Accept() (Stream, error) { return t.accept(context.Background()) }

func (t *session) accept(ctx context.Context) (Stream, error) {
	for {
		ys, err := t.mux.AcceptStreamWithContext(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil, net.ErrClosed
			}
			return nil, t.why(err)
		}
		if s := t.stream(ys, true); s != nil {
			return s, nil
		}
	}
}

// stream wraps ys; nil if it was accepted and the peer reset it meanwhile.
func (t *session) stream(ys *yamux.Stream, accepted bool) *stream {
	s := &stream{t: t, ys: ys}
	if known := t.wire.attach(s, accepted); !known && accepted {
		_ = ys.Close()
		return nil
	}
	select {
	case <-t.done:
		s.stop() // end may have passed before s was attached
	default:
	}
	return s
}

// why gives the reason for an error of yamux: the tunnel's, if it ended. A session that yamux gave up by itself is ended.
func (t *session) why(err error) error {
	if errors.Is(err, yamux.ErrConnectionWriteTimeout) {
		t.end(ErrWriteTimeout)
	}
	if e := t.Err(); e != nil {
		return e
	}
	if errors.Is(err, yamux.ErrRemoteGoAway) {
		return ErrPeerClosed
	}
	return err
}

// Close does not wait for ever: a connection made by a caller's dial may keep a Read beyond its own Close.
func (t *session) Close() error {
	t.end(ErrClosed)
	return letGo(t.gone)
}

// letGo waits for the goroutines of a tunnel that was ended.
func letGo(gone <-chan struct{}) error {
	select {
	case <-gone:
		return nil
	case <-time.After(5 * time.Second):
		return errors.New("close tunnel: its connection does not let go")
	}
}

func (t *session) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func (t *session) Streams() int {
	in, out := t.wire.counts()
	return in + out
}

func (t *session) Done() <-chan struct{}              { return t.done }
func (t *session) Peer() mtls.Identity                { return t.peer }
func (t *session) PeerCertificate() *x509.Certificate { return t.cert }
func (t *session) LocalAddr() net.Addr                { return t.conn.LocalAddr() }
func (t *session) RemoteAddr() net.Addr               { return t.conn.RemoteAddr() }
func (t *session) Transport() string                  { return transportOf(t.raw) }

// logger takes yamux's lines, which by default go to standard error. What matters of them is in Err already.
type logger struct{ log *slog.Logger }

func (l logger) Printf(format string, v ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, v...))
	}
}
func (l logger) Print(v ...any)   { l.Printf("%s", fmt.Sprint(v...)) }
func (l logger) Println(v ...any) { l.Printf("%s", fmt.Sprint(v...)) }
