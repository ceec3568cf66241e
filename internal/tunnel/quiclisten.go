package tunnel

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fairleadhq/fairlead/internal/mtls"
)

// A QUICListener takes tunnels in on one UDP socket. Handshakes are bounded in number, in all and for each source, and in
// time, as those of Mux are. From Config.RetryAbove unfinished ones on a client must prove its address first, which costs it
// a round trip and us no memory, so that nobody takes room in the name of others.
type QUICListener struct {
	sock *net.UDPConn
	tr   *quic.Transport
	ln   *quic.Listener
	cfg  Config
	once sync.Once

	mu      sync.Mutex // guards the fields below
	pending *list.List // of *quicPending, oldest first
	sources map[netip.Prefix]int
}

// quicPending is a handshake under way.
type quicPending struct {
	ctx    context.Context // ends with the connection
	source netip.Prefix
	since  time.Time
	at     *list.Element
}

type quicPendingKey struct{}

// ListenQUIC takes over the socket. conf is mtls.TunnelTLS's. key makes the packets by which agents learn at once that a
// process which ended without a word is gone: the same at each start; nil does without.
func ListenQUIC(sock *net.UDPConn, conf *tls.Config, key *[32]byte, cfg Config) (*QUICListener, error) {
	hushQUIC()
	l := &QUICListener{sock: sock, cfg: cfg.withDefaults(), pending: list.New(), sources: map[netip.Prefix]int{}}
	l.tr = &quic.Transport{Conn: sock, VerifySourceAddress: l.doubt, ConnContext: l.admit}
	if key != nil {
		k := quic.StatelessResetKey(*key)
		l.tr.StatelessResetKey = &k
	}
	if got, err := growUDP(sock, wishedUDPBuffer); err == nil && got < wishedUDPBuffer {
		l.cfg.Logger.Warn("the UDP socket's buffer is small; QUIC will lose packets under load (raise net.core.rmem_max and net.core.wmem_max)",
			"kib", got>>10, "wanted_kib", wishedUDPBuffer>>10)
	}
	var err error
	if l.ln, err = l.tr.Listen(conf, quicConfig(l.cfg)); err != nil {
		_ = sock.Close()
		return nil, fmt.Errorf("listen for QUIC on %s: %w", sock.LocalAddr(), err)
	}
	return l, nil
}

// wishedUDPBuffer is what quic-go asks for.
const wishedUDPBuffer = 7 << 20

// Addr is the socket's address.
func (l *QUICListener) Addr() net.Addr { return l.sock.LocalAddr() }

// Accept waits for the next agent. An error that is not net.ErrClosed concerns that agent alone.
func (l *QUICListener) Accept(ctx context.Context) (Tunnel, error) {
	conn, err := l.ln.Accept(ctx)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, quic.ErrServerClosed) || errors.Is(err, quic.ErrTransportClosed) {
			return nil, net.ErrClosed
		}
		return nil, fmt.Errorf("accept on %s: %w", l.Addr(), err)
	}
	if p, ok := conn.Context().Value(quicPendingKey{}).(*quicPending); ok {
		l.mu.Lock()
		l.drop(p)
		l.mu.Unlock()
	}
	t, err := startQUIC(conn, false, l.cfg, l.cfg.identifier(mtls.PeerIdentity), nil)
	if err != nil {
		return nil, fmt.Errorf("tunnel from %s: %w", conn.RemoteAddr(), err)
	}
	return t, nil
}

// Stop takes no more tunnels in; those that there are live on.
func (l *QUICListener) Stop() { _ = l.ln.Close() }

// Close ends what is left, without a word to the peers: close the tunnels first.
func (l *QUICListener) Close() (err error) {
	l.once.Do(func() {
		l.Stop()
		err = errors.Join(l.tr.Close(), l.sock.Close())
	})
	return err
}

// doubt says whether the client must prove that it is where it says.
func (l *QUICListener) doubt(addr net.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clean(time.Now())
	return l.pending.Len() >= l.cfg.RetryAbove || l.sources[sourceOfAddr(addr)] >= max(1, l.cfg.MaxHandshakesPerSource/2)
}

var errTooManyHandshakes = errors.New("too many handshakes at a time")

// admit finds room for a handshake, or refuses it.
func (l *QUICListener) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	p := &quicPending{ctx: ctx, source: sourceOfAddr(info.RemoteAddr), since: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clean(p.since)
	if l.full(p.source) {
		// Those that failed are found out here, and not one by one as they fail.
		for e := l.pending.Front(); e != nil; {
			next := e.Next()
			if old := e.Value.(*quicPending); old.ctx.Err() != nil {
				l.drop(old)
			}
			e = next
		}
		if l.full(p.source) {
			return nil, errTooManyHandshakes
		}
	}
	p.at = l.pending.PushBack(p)
	l.sources[p.source]++
	return context.WithValue(ctx, quicPendingKey{}, p), nil
}

// The following want l.mu held.

func (l *QUICListener) full(source netip.Prefix) bool {
	return l.pending.Len() >= l.cfg.MaxHandshakes || l.sources[source] >= l.cfg.MaxHandshakesPerSource
}

// clean forgets those whose time is over.
func (l *QUICListener) clean(now time.Time) {
	for e := l.pending.Front(); e != nil; e = l.pending.Front() {
		p := e.Value.(*quicPending)
		if now.Sub(p.since) < l.cfg.HandshakeTimeout && p.ctx.Err() == nil {
			return
		}
		l.drop(p)
	}
}

func (l *QUICListener) drop(p *quicPending) {
	if p.at == nil {
		return
	}
	l.pending.Remove(p.at)
	p.at = nil
	if l.sources[p.source]--; l.sources[p.source] == 0 {
		delete(l.sources, p.source)
	}
}
