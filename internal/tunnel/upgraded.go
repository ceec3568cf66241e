package tunnel

import (
	"io"
	"net"
)

// halfCloser is a conn that can end its writing side alone, such as a *tls.Conn.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// Upgraded makes a tunnel of a conn that an HTTP request was upgraded on: the same yamux, with the same limits and the same
// faults held in. Who the peer is was found out by that request, so Peer is empty and there is no certificate. early is what
// was read of the conn already, nil for nothing. client is true on the side that made the request. On an error the conn is
// closed.
func Upgraded(conn net.Conn, early []byte, client bool, cfg Config) (Tunnel, error) {
	t := &session{conn: upgraded{conn, &early}, raw: conn, cfg: cfg.withDefaults(), done: make(chan struct{}), gone: make(chan struct{})}
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok { // beneath TLS: closing it never waits
		t.raw = c.NetConn()
	}
	s, err := t.run(client)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// upgraded reads what came early first. One goroutine reads.
type upgraded struct {
	net.Conn
	early *[]byte
}

func (u upgraded) Read(p []byte) (int, error) {
	if len(*u.early) > 0 {
		n := copy(p, *u.early)
		if *u.early = (*u.early)[n:]; len(*u.early) == 0 {
			*u.early = nil
		}
		return n, nil
	}
	return u.Conn.Read(p)
}

func (u upgraded) CloseWrite() error {
	if c, ok := u.Conn.(halfCloser); ok {
		return c.CloseWrite()
	}
	return io.ErrClosedPipe
}
