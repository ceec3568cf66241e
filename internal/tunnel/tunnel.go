package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
)

// Stream is one bidirectional byte stream of a tunnel. Safe for concurrent use as net.Conn says.
//
// CloseWrite says that no more bytes come from this side: the peer reads io.EOF after the last one, and may go on
// writing. It cannot be told from a peer that gave up; protocols that must know frame their bodies.
//
// Close ends both directions and wakes this side's own blocked Read and Write. Bytes written before still reach the peer.
// A peer that goes on writing gets ErrReset; one that says nothing is cut after Config.CloseTimeout.
//
// A Read deadline does not hide bytes that have come already. A Write that waits for the peer to read ends at its
// deadline; one whose bytes stand in the connection's queue may take up to Config.WriteTimeout longer.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Tunnel is one connection to an authenticated peer. Safe for concurrent use. Whoever got it from Dial, Server, DialQUIC,
// QUICListener or Memory closes it; its goroutines have ended when Close returns.
type Tunnel interface {
	// Open starts a stream. It does not wait for the peer to accept it. ErrTooManyStreams beyond Config.MaxStreams.
	Open(ctx context.Context) (Stream, error)
	// Accept waits for a stream that the peer opened. After the end of the tunnel it gives Err.
	Accept() (Stream, error)
	// Ping measures a round trip to the peer's process. ErrLate says that the context ended first and the peer is there all
	// the same, behind a line that carries what was sent before.
	Ping(ctx context.Context) (time.Duration, error)
	// Close ends the tunnel and all its streams at once. To end without loss, finish the streams first, then Settle.
	Close() error
	// Done is closed when the tunnel has ended.
	Done() <-chan struct{}
	// Err says why it ended: ErrClosed, ErrPeerClosed, ErrPeerLost, ErrExpired, ErrWriteTimeout, ErrProtocol, or an error
	// of the network. nil before.
	Err() error
	// Peer is the identity in the peer's certificate.
	Peer() mtls.Identity
	// PeerCertificate is the leaf that was verified; nil in memory.
	PeerCertificate() *x509.Certificate
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	// Transport is "tls", "websocket" (TLS inside a WebSocket), "quic" or "memory".
	Transport() string
	// Streams counts the streams that are not closed on both sides.
	Streams() int
}

// Reasons why a tunnel ended, and why a stream was refused or cut.
var (
	ErrClosed         = fmt.Errorf("tunnel closed: %w", net.ErrClosed)
	ErrPeerClosed     = errors.New("tunnel closed by the peer")
	ErrPeerLost       = errors.New("tunnel lost: the peer does not answer")
	ErrExpired        = errors.New("tunnel ended: the peer's certificate expired")
	ErrLate           = errors.New("the line is slow: the ping still waits behind what was sent before") // of Ping; the tunnel stands
	ErrWriteTimeout   = errors.New("tunnel lost: the peer takes no bytes")
	ErrLaneLost       = errors.New("lane lost") // of Lane; its tunnel may stand
	ErrProtocol       = errors.New("tunnel ended: the peer broke the protocol")
	ErrTooManyStreams = errors.New("too many streams in the tunnel")
	ErrReset          = errors.New("stream reset by the peer")
	ErrOverBudget     = errors.New("stream cut: too many bytes wait to be read")
	ErrNoUDP          = errors.New("nothing comes back over UDP") // of DialQUIC
)

// Config holds the limits of a tunnel and of Mux. Begin with DefaultConfig.
type Config struct {
	MaxStreams   int           // streams at a time in each direction; the peer's beyond are refused
	Backlog      int           // streams not yet accepted by this side, and not yet by the peer
	OpenRate     float64       // streams a second that the peer may open for long; it is slowed down beyond
	OpenBurst    int           // streams at once
	Window       uint32        // bytes a stream may hold unread here; 256 KiB to 16 MiB
	MaxBuffered  int64         // bytes that all streams may hold unread; credit is held back before, the greatest is cut beyond
	KeepAlive    time.Duration // silence after which the peer is pinged
	PingTimeout  time.Duration // silence after a ping after which the peer is dead
	LatePing     time.Duration // the same while the line still carries what was sent before the ping
	WriteTimeout time.Duration // time the connection may take no bytes
	CloseTimeout time.Duration // time the peer has to close its side of a closed stream
	LaneSilence  time.Duration // Lane: time in which what was sent must be acknowledged, also by a peer that does not read
	LaneWrite    time.Duration // Lane, where acknowledgements cannot be seen: time the kernel may take nothing of a frame

	HandshakeTimeout       time.Duration // TCP connect and TLS handshake each; the whole of QUIC's
	MaxHandshakes          int           // Mux, QUICListener: connections whose handshake is not done
	MaxHandshakesPerSource int           // Mux, QUICListener: of these, from one IPv4 address or IPv6 /64
	HandshakeGrace         time.Duration // Mux: age from which an unfinished handshake makes way when there is no room
	HandshakesAtOnce       int           // Mux: from one source, begun while more of it wait
	MaxWaiting             int           // Mux: connections that wait for room for their handshake
	HandshakeWait          time.Duration // Mux: how long they wait at most; less than peers have patience
	RetryAbove             int           // QUICListener: unfinished handshakes from which clients must prove their address

	// ProxyProtocol is the networks of load balancers, whose connections must begin with a header of the PROXY protocol, version 2;
	// of all others it must not. Mux only. Empty: nobody's.
	ProxyProtocol  []netip.Prefix
	MaxProxyHeader int // Mux: bytes of addresses and extensions in such a header

	// Identify verifies the peer's chain and says who it is, once the handshake is done: (*mtls.Verifier).Identity of the verifier
	// that made the TLS settings. nil: mtls.RelayIdentity for who dials, mtls.PeerIdentity for who is dialled.
	Identify func(tls.ConnectionState) (mtls.Identity, *x509.Certificate, error)

	Congestion string // TCP congestion control: CongestionAuto, CongestionSystem, or a name that the kernel knows; "": auto

	Logger *slog.Logger // nil: none
}

// DefaultConfig is right for both halves. One tunnel's idle cost is some 20 KiB, over QUIC some 80; MaxBuffered
// bounds it under load.
func DefaultConfig() Config {
	return Config{
		MaxStreams: 1024, Backlog: 1024, OpenRate: 500, OpenBurst: 2000,
		Window: 4 << 20, MaxBuffered: 64 << 20,
		KeepAlive: 10 * time.Second, PingTimeout: 10 * time.Second, LatePing: time.Minute, WriteTimeout: 20 * time.Second,
		CloseTimeout: 30 * time.Second, LaneSilence: 20 * time.Second, LaneWrite: 5 * time.Minute,
		HandshakeTimeout: 10 * time.Second, MaxHandshakes: 1024, MaxHandshakesPerSource: 256,
		HandshakeGrace: 2 * time.Second, HandshakesAtOnce: 64, MaxWaiting: 8192, HandshakeWait: 8 * time.Second, RetryAbove: 64,
		MaxProxyHeader: 536,
	}
}

// withDefaults fills what is zero and clamps the window to what yamux can do.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	set(&c.MaxStreams, d.MaxStreams)
	set(&c.Backlog, d.Backlog)
	set(&c.OpenRate, d.OpenRate)
	set(&c.OpenBurst, d.OpenBurst)
	set(&c.Window, d.Window)
	set(&c.MaxBuffered, d.MaxBuffered)
	set(&c.KeepAlive, d.KeepAlive)
	set(&c.PingTimeout, d.PingTimeout)
	set(&c.LatePing, d.LatePing)
	set(&c.WriteTimeout, d.WriteTimeout)
	set(&c.CloseTimeout, d.CloseTimeout)
	set(&c.LaneSilence, d.LaneSilence)
	set(&c.LaneWrite, d.LaneWrite)
	set(&c.HandshakeTimeout, d.HandshakeTimeout)
	set(&c.MaxHandshakes, d.MaxHandshakes)
	set(&c.MaxHandshakesPerSource, d.MaxHandshakesPerSource)
	set(&c.HandshakeGrace, d.HandshakeGrace)
	set(&c.HandshakesAtOnce, d.HandshakesAtOnce)
	set(&c.MaxWaiting, d.MaxWaiting)
	set(&c.HandshakeWait, d.HandshakeWait)
	set(&c.RetryAbove, d.RetryAbove)
	set(&c.MaxProxyHeader, d.MaxProxyHeader)
	c.Window = min(max(c.Window, minWindow), 16<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// identifier verifies a peer's chain and gives who it is.
func (c Config) identifier(without identifier) identifier {
	if c.Identify != nil {
		return c.Identify
	}
	return without
}

const minWindow = 256 << 10 // yamux's first window, before the first update

func set[T int | int64 | uint32 | float64 | time.Duration](v *T, to T) {
	if *v <= 0 {
		*v = to
	}
}
