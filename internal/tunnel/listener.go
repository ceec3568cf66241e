package tunnel

import (
	"context"
	"net"
)

// acceptor is a Tunnel or a Lane.
type acceptor interface {
	Accept() (Stream, error)
	LocalAddr() net.Addr
}

// NewListener lets an http.Server serve the streams that the peer opens on a Tunnel or a Lane. Close of it ends Accept alone:
// the tunnel or lane and its streams live on.
func NewListener(t acceptor) net.Listener {
	l := &listener{t: t}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

type listener struct {
	t    acceptor
	ctx  context.Context // ends with the listener; Accept has none of its own
	stop context.CancelFunc
}

func (l *listener) Accept() (net.Conn, error) {
	if l.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	var s Stream
	var err error
	if a, ok := l.t.(interface {
		accept(context.Context) (Stream, error)
	}); ok {
		s, err = a.accept(l.ctx)
	} else {
		s, err = l.t.Accept()
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (l *listener) Close() error {
	l.stop()
	return nil
}

func (l *listener) Addr() net.Addr { return l.t.LocalAddr() }

// HTTP1 makes the connections of a protocol of our own, such as enrolment, ready for an http.Server: that closes a *tls.Conn
// whose ALPN name it does not know. Requests have no TLS field then; the listener's TLS settings have said all there is.
func HTTP1(ln net.Listener) net.Listener { return http1{ln} }

type http1 struct{ net.Listener }

// opaque is a connection that net/http does not look into.
type opaque struct{ net.Conn }

func (l http1) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return opaque{c}, nil
}
