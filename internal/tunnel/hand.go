package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// Hand takes in a connection that did not come through the port itself, such as one inside a WebSocket: the handshake on it
// counts against the same bounds, has the same time, and leads to the same listeners, but only to protocols that are named
// here; the default is not for it, so that nothing is nested for ever. The source is its RemoteAddr. It waits for room, not
// for the handshake. An error means that the connection is closed.
func (m *Mux) Hand(conn net.Conn) error {
	m.mu.Lock()
	select {
	case <-m.done:
		m.mu.Unlock()
		_ = conn.Close()
		return net.ErrClosed
	default:
	}
	m.tasks.Add(1) // before Serve, which ends with abort under this lock, begins to wait
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	m.tasks.Go(func() {
		select {
		case <-m.done:
			cancel()
		case <-ctx.Done():
		}
	})
	p := m.admit(ctx, conn)
	if p == nil {
		cancel()
		m.tasks.Done()
		_ = conn.Close()
		return errors.New("too many handshakes at a time")
	}
	p.choose = m.chooseNamed
	m.tasks.Go(func() {
		defer m.tasks.Done()
		defer cancel()
		m.handshake(ctx, p)
	})
	return nil
}

// chooseNamed is choose without the default.
func (m *Mux) chooseNamed(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	for _, alpn := range hello.SupportedProtos {
		if c := m.confs[alpn]; c != nil && alpn != "" {
			return c, nil
		}
	}
	return nil, errors.New("no protocol that is spoken here was offered")
}

// transportOf names how a tunnel's connection goes: what carries it says so, or it is TLS on a socket.
func transportOf(raw net.Conn) string {
	if b, ok := raw.(*batchConn); ok {
		raw = b.Conn
	}
	if c, ok := raw.(interface{ Carrier() string }); ok {
		return c.Carrier()
	}
	return "tls"
}
