package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/protocol"
)

// Frames of a lane: four bytes big-endian, the type in the first and the length of the payload in the other three.
const (
	laneHeader = 4
	laneData   = 0 // 1 to maxLaneFrame bytes
	laneEnd    = 1 // no more comes on this stream from the sender; length 0
	laneTicket = 2 // TicketSize bytes: the first frame of a lane, from the agent
	// A frame with its header fills four TLS records, so one system call takes it.
	maxLaneFrame = 4*maxRecord - laneHeader
)

// TicketSize is the length of the secret by which the relay tells for which tunnel a lane was dialled.
const TicketSize = 32

// What a lane may still bring after its stream was closed here. Beyond that it is dropped: a new one is cheaper than the rest
// of a file that nobody wants.
const (
	// What is still on its way when an answer came early, such as a refusal: the relay stops when it has read that. A limit that
	// it could reach by then would end a lane that it has given to the next stream already.
	laneDrainBytes = 16 << 20
	laneDrainTime  = 2 * time.Second
)

// Lane is a dedicated connection of an agent that carries streams one after the other. It has no multiplexer: a stream's
// bytes have the connection for themselves, and TCP alone holds back a writer whose peer does not read. Only the relay opens
// streams on it, only the agent dials it.
//
// A stream that was closed on both sides gives the lane back; one that was cut off costs the lane. A lane belongs to a
// tunnel: whoever made it closes it when that tunnel ends, for a dead process is found there. It ends by itself when the peer's
// certificate does, and when its own road is dead, which its stream gets as the reason (laneroad.go says what is found where).
//
// Lane and its streams are safe for concurrent use. Whoever got it from DialLane or ServeLane closes it; its goroutines have
// ended when Close returns.
type Lane struct {
	conn   *tls.Conn
	raw    net.Conn // beneath TLS: closing it never waits
	batch  *batchConn
	cfg    Config
	peer   mtls.Identity
	cert   *x509.Certificate
	opens  bool // this side opens the streams
	done   chan struct{}
	expiry *time.Timer
	tasks  sync.WaitGroup
	frames atomic.Uint64 // sent and begun: odd while one is in the making; counted where the kernel shows nothing
	blind  bool          // the kernel shows nothing

	// The reading side belongs to the stream that holds its rmu, or to nobody: to watch, or to Accept.
	hdr   [laneHeader]byte
	hn    int  // bytes of hdr that have come
	left  int  // payload bytes of the present frame that were not read
	ended bool // the present frame ended the stream

	mu    sync.Mutex // guards the fields below
	err   error
	cur   *laneStream   // nil: idle
	free  chan struct{} // closed when cur becomes nil
	freed func()        // called after each stream that gave the lane back, and at the end
	ahead *aheadRead    // the read that watches over an idle lane
	// Of the looks at the road; patrols: the next one is to come.
	patrol    *time.Timer
	patrols   bool
	doubt     doubt
	wasFrames uint64
	stuck     time.Time // since when a frame was seen in the making; see wasFrames
}

// aheadRead reads the next header while nobody else does: of an idle lane it sees the end.
type aheadRead struct {
	done chan struct{}
	err  error
}

// DialLane opens a lane to the relay that asked for it, as Dial does a tunnel. ticket is what the relay's request named.
func DialLane(ctx context.Context, addr string, tlsConf *tls.Config,
	dial func(ctx context.Context, network, addr string) (net.Conn, error), ticket []byte, cfg Config) (*Lane, error) {
	if len(ticket) != TicketSize {
		return nil, fmt.Errorf("open lane to relay %s: ticket of %d bytes", addr, len(ticket))
	}
	cfg = cfg.withDefaults()
	tlsConf = tlsConf.Clone()
	tlsConf.NextProtos = []string{protocol.ALPNLane}
	conn, identify, err := dialTLS(ctx, addr, tlsConf, dial, cfg)
	if err != nil {
		return nil, err
	}
	l, err := newLane(ctx, conn, cfg, identify, false)
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(cfg.HandshakeTimeout))
		if err = l.send(laneTicket, ticket); err == nil {
			err = conn.SetDeadline(time.Time{})
		}
	}
	if err != nil {
		_ = conn.NetConn().Close()
		return nil, fmt.Errorf("open lane to relay %s: %w", addr, err)
	}
	l.start()
	return l, nil
}

// ServeLane makes a lane of a connection from an agent, whose TLS settings are mtls.TunnelTLS's with ALPNLane, and gives the
// ticket that it shows. Whom the ticket was given to, and that the peer is the same agent, is the caller's to check before it
// opens a stream. On an error the connection is closed.
func ServeLane(ctx context.Context, conn *tls.Conn, cfg Config) (l *Lane, ticket []byte, err error) {
	cfg = cfg.withDefaults()
	l, err = newLane(ctx, conn, cfg, cfg.identifier(mtls.PeerIdentity), true)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = l.raw.Close() })
		defer stop()
		ticket = make([]byte, TicketSize)
		_ = conn.SetDeadline(time.Now().Add(cfg.HandshakeTimeout))
		if _, err = io.ReadFull(conn, l.hdr[:]); err == nil && binary.BigEndian.Uint32(l.hdr[:]) != laneTicket<<24|TicketSize {
			err = fmt.Errorf("%w: a lane begins with its ticket", ErrProtocol)
		}
		if err == nil {
			_, err = io.ReadFull(conn, ticket)
		}
		if err == nil {
			err = conn.SetDeadline(time.Time{})
		}
	}
	if err != nil {
		_ = conn.NetConn().Close()
		return nil, nil, fmt.Errorf("lane from %s: %w", conn.RemoteAddr(), err)
	}
	l.start()
	return l, ticket, nil
}

func newLane(ctx context.Context, conn *tls.Conn, cfg Config, identify identifier, opens bool) (*Lane, error) {
	l := &Lane{conn: conn, raw: conn.NetConn(), cfg: cfg, opens: opens, done: make(chan struct{}), free: make(chan struct{})}
	l.batch, _ = l.raw.(*batchConn)
	var err error
	l.peer, l.cert, err = handshake(ctx, conn, cfg, protocol.ALPNLane, identify)
	return l, err
}

func (l *Lane) start() {
	keepAlive(l.raw)
	_, seen := seeTCP(l.raw)
	l.blind = !seen
	close(l.free)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cert != nil {
		l.expiry = time.AfterFunc(max(0, time.Until(l.cert.NotAfter)), func() { l.end(ErrExpired) })
	}
	l.watchLocked()
}

// OnFree sets what is called after each stream that gave the lane back, and when the lane has ended. It must not wait for
// the lane.
func (l *Lane) OnFree(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.freed = f
}

// watchLocked looks out for the end of an idle lane. On the agent's side Accept does.
func (l *Lane) watchLocked() {
	if !l.opens || l.err != nil {
		return
	}
	a := &aheadRead{done: make(chan struct{})}
	l.ahead = a
	l.tasks.Go(func() {
		defer close(a.done)
		if a.err = l.header(); a.err != nil && !isTimeout(a.err) {
			return // header has ended the lane
		}
		l.mu.Lock()
		idle := l.cur == nil
		l.mu.Unlock()
		if idle && a.err == nil {
			a.err = fmt.Errorf("%w: the agent spoke on an idle lane", ErrProtocol)
			l.end(a.err)
		}
	})
}

// header reads the next frame's header, going on where a deadline broke it off. It sets left or ended.
func (l *Lane) header() error {
	for l.hn < laneHeader {
		n, err := l.conn.Read(l.hdr[l.hn:])
		l.hn += n
		if err != nil && l.hn < laneHeader {
			return l.fail(err)
		}
	}
	l.hn = 0
	typ, length := l.hdr[0], int(binary.BigEndian.Uint32(l.hdr[:])&0xffffff)
	switch {
	case typ == laneData && length > 0 && length <= maxLaneFrame:
		l.left = length
	case typ == laneEnd && length == 0:
		l.ended = true
	default:
		return l.fail(fmt.Errorf("%w: frame of type %d with %d bytes on a lane", ErrProtocol, typ, length))
	}
	return nil
}

// fail ends the lane for every error but a deadline, and gives what the caller should see.
func (l *Lane) fail(err error) error {
	if isTimeout(err) {
		return err
	}
	if !errors.Is(err, ErrProtocol) {
		err = fmt.Errorf("%w: %w", ErrPeerClosed, err)
	}
	l.end(err)
	return l.Err()
}

// isTimeout tells a deadline that was set from a peer that is gone: the kernel's ETIMEDOUT, too, says of itself that it is a timeout.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// send writes one frame in one system call. The caller sees to it that there is one at a time.
func (l *Lane) send(typ byte, p []byte) error {
	if l.blind {
		l.frames.Add(1)
		defer l.frames.Add(1)
	}
	pooled := records.Get().(*[]byte)
	defer records.Put(pooled)
	b := binary.BigEndian.AppendUint32((*pooled)[:0], uint32(typ)<<24|uint32(len(p)))
	n := min(len(p), maxRecord-laneHeader)
	b = append(b, p[:n]...)
	if l.batch != nil && n < len(p) {
		l.batch.hold()
	}
	_, err := l.conn.Write(b)
	if err == nil && n < len(p) {
		_, err = l.conn.Write(p[n:])
	}
	if l.batch != nil && n < len(p) {
		if e := l.batch.flush(); err == nil {
			err = e
		}
	}
	return err
}

// Open starts a stream. ErrTooManyStreams while there is one.
func (l *Lane) Open() (Stream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	if !l.opens || l.cur != nil {
		return nil, ErrTooManyStreams
	}
	return l.beginLocked(), nil
}

func (l *Lane) beginLocked() *laneStream {
	s := &laneStream{l: l, ahead: l.ahead}
	l.cur, l.ahead = s, nil
	l.free = make(chan struct{})
	l.patrolLocked()
	return s
}

// Accept waits for the next stream. The one before must have been closed. After the end of the lane it gives Err.
func (l *Lane) Accept() (Stream, error) { return l.accept(context.Background()) }

// accept is Accept until ctx ends; a stream that runs goes on.
func (l *Lane) accept(ctx context.Context) (Stream, error) {
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.cur == nil {
			_ = l.conn.SetReadDeadline(past) // nobody reads but us
		}
	})()
	for {
		l.mu.Lock()
		free := l.free
		l.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
		case <-l.done:
		}
		if ctx.Err() != nil {
			return nil, net.ErrClosed
		}
		if err := l.Err(); err != nil {
			return nil, err
		}
		if err := l.header(); err != nil {
			if isTimeout(err) { // ctx ended, or it was set while the last stream was closed
				continue
			}
			return nil, l.Err()
		}
		l.mu.Lock()
		if l.err != nil {
			l.mu.Unlock()
			return nil, l.Err()
		}
		s := l.beginLocked()
		l.mu.Unlock()
		return s, nil
	}
}

// end ends the lane for a reason; the first one counts.
func (l *Lane) end(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endLocked(why)
}

func (l *Lane) endLocked(why error) {
	if l.err != nil {
		return
	}
	l.err = why
	if l.freed != nil {
		l.tasks.Go(l.freed)
	}
	if l.expiry != nil {
		l.expiry.Stop()
	}
	if l.patrol != nil {
		l.patrol.Stop()
	}
	close(l.done)
	_ = l.raw.Close()
}

// Close ends the lane and its stream at once.
func (l *Lane) Close() error {
	l.end(ErrClosed)
	l.tasks.Wait()
	return nil
}

// Done is closed when the lane has ended.
func (l *Lane) Done() <-chan struct{} { return l.done }

// Err says why the lane ended, as Tunnel's does, or ErrLaneLost; nil before.
func (l *Lane) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Busy reports whether a stream is on the lane.
func (l *Lane) Busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur != nil
}

// Peer is the identity in the peer's certificate.
func (l *Lane) Peer() mtls.Identity { return l.peer }

// LocalAddr is this side's address.
func (l *Lane) LocalAddr() net.Addr { return l.conn.LocalAddr() }

// RemoteAddr is the peer's address.
func (l *Lane) RemoteAddr() net.Addr { return l.conn.RemoteAddr() }

// keepAlive finds a dead peer, and a dead road, while nothing is on its way. While something is, look does.
func keepAlive(c net.Conn) {
	if tcp, ok := socket(c); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 3 * time.Second, Count: 3}) // a lane works without
	}
}
