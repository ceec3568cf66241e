package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/protocol"
)

// Codes with which a tunnel over QUIC ends, and its streams are reset. The peer needs none of them: they are for who looks
// at a capture of keys and packets.
const (
	quicDone quic.ApplicationErrorCode = iota
	quicExpired
	quicLost
	quicProtocol
	quicTimeout
)

const (
	streamDone quic.StreamErrorCode = iota
	streamOverBudget
)

// quicOpening is the first byte of each stream, by which the peer sees a stream that nothing was written on yet.
const quicOpening = 0

// quicTick is how often a tunnel that has streams looks after them.
const quicTick = 250 * time.Millisecond

// quicConfig is what QUIC itself is held to. Streams and bytes beyond are the peer's fault, and end the connection.
func quicConfig(cfg Config) *quic.Config {
	window := uint64(cfg.Window) + 1 // quicOpening
	all := uint64(cfg.MaxBuffered) + uint64(cfg.Window)
	return &quic.Config{
		HandshakeIdleTimeout:           max(cfg.HandshakeTimeout/2, time.Millisecond), // the whole handshake has twice that
		MaxIdleTimeout:                 cfg.KeepAlive + cfg.PingTimeout,               // watch is quicker: it asks
		InitialStreamReceiveWindow:     window,
		MaxStreamReceiveWindow:         window,
		InitialConnectionReceiveWindow: all,
		MaxConnectionReceiveWindow:     all,
		MaxIncomingStreams:             int64(cfg.MaxStreams),
		MaxIncomingUniStreams:          1, // of control
		Allow0RTT:                      false,
		EnableDatagrams:                false,
	}
}

// hushQUIC keeps quic-go from writing about the size of socket buffers to the standard logger; ListenQUIC says it itself.
var hushQUIC = sync.OnceFunc(func() { _ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") })

// DialQUIC opens a tunnel to a relay over QUIC, from a UDP socket of its own that is bound to no address of this host: when
// that changes, the tunnel lives on. tlsConf is mtls.AgentTLS's. The context bounds the set-up alone. As with Dial, a tunnel
// is proven by the first answer on a stream, or by Ping. A host name is tried at each of its addresses, one after the other.
func DialQUIC(ctx context.Context, addr string, tlsConf *tls.Config, cfg Config) (Tunnel, error) {
	cfg = cfg.withDefaults()
	hushQUIC()
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address of the relay: %w", err)
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil, fmt.Errorf("dial relay %s: %w", addr, err)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("dial relay %s: %w", addr, err)
	}
	tlsConf = tlsConf.Clone()
	if tlsConf.ServerName == "" {
		tlsConf.ServerName = host // for routers on the way; the certificate is not judged by it
	}
	var errs []error
	for i, ip := range ips {
		tryCtx, cancel := share(ctx, len(ips)-i)
		t, err := dialQUIC(tryCtx, netip.AddrPortFrom(ip.Unmap(), uint16(number)), tlsConf, cfg)
		cancel()
		if err == nil {
			return t, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("tunnel to relay %s over QUIC: %w", addr, errors.Join(errs...))
}

// share gives one of n tries its part of the time that is left.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	end, _ := ctx.Deadline()
	return context.WithTimeout(ctx, time.Until(end)/time.Duration(n))
}

func dialQUIC(ctx context.Context, addr netip.AddrPort, tlsConf *tls.Config, cfg Config) (*quicTunnel, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	sock, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	tr := &quic.Transport{Conn: sock}
	release := func() {
		_ = tr.Close()
		_ = sock.Close()
	}
	conn, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(addr), tlsConf, quicConfig(cfg))
	if err != nil {
		release()
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() || errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", ErrNoUDP, err)
		}
		return nil, fmt.Errorf("QUIC handshake with %s: %w", addr, err)
	}
	t, err := startQUIC(conn, true, cfg, cfg.identifier(func(cs tls.ConnectionState) (mtls.Identity, *x509.Certificate, error) {
		return mtls.RelayIdentity(cs, tlsConf.RootCAs)
	}), release)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// quicTunnel is a Tunnel over one QUIC connection. Streams are QUIC's own. Each side has one stream in one direction beside
// them, for what QUIC does not tell: see quiccontrol.go.
type quicTunnel struct {
	conn    *quic.Conn
	cfg     Config
	peer    mtls.Identity
	cert    *x509.Certificate
	release func() // gives back what is below the connection; may be nil
	control *quic.SendStream
	backlog chan *quicStream
	done    chan struct{} // closed by end
	gone    chan struct{} // closed when all goroutines have ended
	kick    chan struct{} // wakes watch
	say     chan struct{} // wakes the writer of control
	tasks   sync.WaitGroup
	taken   atomic.Int64 // bytes that were read of all streams

	// used by watch alone
	base quicBase

	mu       sync.Mutex // guards the fields below
	err      error
	streams  map[*quicStream]struct{}
	inbound  int
	opened   uint64 // streams that we opened, ever
	accepted uint64 // of these, those that the peer has accepted
	room     chan struct{}
	credit   uint64 // streams of the peer that we accepted, ever
	told     uint64 // of these, those that the peer was told of
	pinging  *pingCall
	pingID   uint64
	pingDue  bool
	pingedAt time.Time // when it was asked for
	pingSent time.Time
	pongID   uint64
	pongDue  bool
	finished []*quicStream // closed here, and ended by the peer since
	settling bool
}

// startQUIC makes a tunnel of a connection whose handshake is done. On an error the connection is closed.
func startQUIC(conn *quic.Conn, client bool, cfg Config, identify identifier, release func()) (*quicTunnel, error) {
	fail := func(err error) (*quicTunnel, error) {
		_ = conn.CloseWithError(quicProtocol, "")
		if release != nil {
			release()
		}
		return nil, err
	}
	cs := conn.ConnectionState().TLS
	if cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != protocol.ALPNTunnel {
		return fail(fmt.Errorf("%w: negotiated %s with ALPN %q", ErrProtocol, tls.VersionName(cs.Version), cs.NegotiatedProtocol))
	}
	peer, cert, err := identify(cs)
	if err != nil {
		return fail(err)
	}
	control, err := conn.OpenUniStream()
	if err != nil {
		return fail(fmt.Errorf("%w: no stream for control: %w", ErrProtocol, err))
	}
	control.SetPriority(0, true)
	t := &quicTunnel{
		conn: conn, cfg: cfg, peer: peer, cert: cert, release: release, control: control,
		backlog: make(chan *quicStream, cfg.Backlog), done: make(chan struct{}), gone: make(chan struct{}),
		kick: make(chan struct{}, 1), say: make(chan struct{}, 1), room: make(chan struct{}),
		streams: map[*quicStream]struct{}{},
	}
	t.tasks.Go(t.take)
	t.tasks.Go(t.hear)
	t.tasks.Go(t.speak)
	go t.watch()
	return t, nil
}

// Open starts a stream. It waits for the peer to accept earlier ones, when there are Config.Backlog of them.
func (t *quicTunnel) Open(ctx context.Context) (Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	s := &quicStream{t: t}
	if err := t.reserve(ctx, s); err != nil {
		return nil, err
	}
	qs, err := t.conn.OpenStream()
	var full *quic.StreamLimitReachedError
	if errors.As(err, &full) { // the peer's count goes down a round trip after ours, or it allows fewer
		qs, err = t.conn.OpenStreamSync(ctx)
	}
	if err == nil {
		t.mu.Lock()
		s.qs = qs
		t.mu.Unlock()
		_, err = qs.Write([]byte{quicOpening})
	}
	if err != nil {
		t.mu.Lock()
		t.forget(s)
		if s.qs == nil {
			t.opened--
		}
		t.mu.Unlock()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("open stream: %w", ctx.Err())
		}
		return nil, fmt.Errorf("open stream: %w", t.why(err))
	}
	s.begin()
	return s, nil
}

// reserve counts a stream that is about to be opened.
func (t *quicTunnel) reserve(ctx context.Context, s *quicStream) error {
	for {
		t.mu.Lock()
		room := t.room
		switch {
		case t.err != nil:
			defer t.mu.Unlock()
			return t.err
		case len(t.streams)-t.inbound >= t.cfg.MaxStreams:
			t.mu.Unlock()
			return ErrTooManyStreams
		case t.opened-t.accepted < uint64(t.cfg.Backlog):
			t.opened++
			t.streams[s] = struct{}{}
			t.mu.Unlock()
			t.wake()
			return nil
		}
		t.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("open stream: %w", ctx.Err())
		case <-t.done:
			return t.Err()
		}
	}
}

// take takes the peer's streams from QUIC, at the rate that the peer may open them. QUIC gives the peer no room for another
// before one was taken, and both sides have ended it: what waits is bounded there.
func (t *quicTunnel) take() {
	opens := newBucket(t.cfg.OpenRate, t.cfg.OpenBurst)
	for {
		qs, err := t.conn.AcceptStream(context.Background()) // ends with the connection
		if err != nil {
			return
		}
		if !t.slow(&opens) {
			return
		}
		s := &quicStream{t: t, qs: qs, inbound: true, opening: true}
		t.mu.Lock()
		t.streams[s] = struct{}{}
		t.inbound++
		t.mu.Unlock()
		s.begin()
		t.wake()
		select {
		case t.backlog <- s:
		case <-t.done:
			return
		}
	}
}

// slow waits for the bucket; false: the tunnel has ended.
func (t *quicTunnel) slow(b *bucket) bool {
	d := b.take()
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.done:
		return false
	}
}

func (t *quicTunnel) Accept() (Stream, error) { return t.accept(context.Background()) }

func (t *quicTunnel) accept(ctx context.Context) (Stream, error) {
	select {
	case s := <-t.backlog:
		t.mu.Lock()
		t.credit++
		due := t.creditDue()
		t.mu.Unlock()
		if due {
			t.tell()
		}
		return s, nil
	case <-ctx.Done():
		return nil, net.ErrClosed
	case <-t.done:
		return nil, t.Err()
	}
}

func (t *quicTunnel) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// end ends the tunnel for a reason; the first one counts. It calls nothing of QUIC, for it may be called from within: watch
// does the rest.
func (t *quicTunnel) end(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = why
		close(t.done)
	}
}

// why gives the reason for an error of QUIC: the tunnel's, if the connection ended.
func (t *quicTunnel) why(err error) error {
	if reason := quicReason(err); reason != nil {
		t.end(reason)
	}
	if e := t.Err(); e != nil {
		return e
	}
	return err
}

// quicReason says what the end of a connection means for the tunnel; nil: it is not the end of one.
func quicReason(err error) error {
	var app *quic.ApplicationError
	var wire *quic.TransportError
	var idle *quic.IdleTimeoutError
	var reset *quic.StatelessResetError
	switch {
	case errors.As(err, &app) && app.Remote, errors.As(err, &wire) && wire.Remote, errors.As(err, &reset):
		return fmt.Errorf("%w: %w", ErrPeerClosed, err)
	case errors.As(err, &app):
		return ErrClosed
	case errors.As(err, &wire):
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	case errors.As(err, &idle):
		return ErrPeerLost
	case errors.Is(err, quic.ErrTransportClosed):
		return fmt.Errorf("%w: %w", ErrPeerLost, err)
	}
	return nil
}

// Close says goodbye to the peer, and waits for this side's goroutines.
func (t *quicTunnel) Close() error {
	t.end(ErrClosed)
	return letGo(t.gone)
}

func (t *quicTunnel) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func (t *quicTunnel) Streams() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.streams)
}

func (t *quicTunnel) Done() <-chan struct{}              { return t.done }
func (t *quicTunnel) Peer() mtls.Identity                { return t.peer }
func (t *quicTunnel) PeerCertificate() *x509.Certificate { return t.cert }
func (t *quicTunnel) LocalAddr() net.Addr                { return t.conn.LocalAddr() }
func (t *quicTunnel) RemoteAddr() net.Addr               { return t.conn.RemoteAddr() }
func (t *quicTunnel) Transport() string                  { return "quic" }
