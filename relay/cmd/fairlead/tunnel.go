package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// dialer carries all native connections in one tunnel to the relay, which it opens when one is needed and none is there. To a
// relay that knows no tunnels it makes a call for each. Safe for concurrent use.
type dialer struct {
	c          *client.Client
	connection string

	mu     sync.Mutex // guards the fields below, and the opening of a tunnel
	tunnel *client.Tunnel
	older  bool // the relay knows none
}

func (d *dialer) dial(ctx context.Context) (client.Conn, error) {
	t, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return d.c.Dial(ctx, d.connection)
	}
	conn, err := t.Dial(ctx, d.connection)
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	select {
	case <-t.Done(): // it was lost, and nobody had noticed: nothing was asked in it
	default:
		return nil, err
	}
	if t, err = d.open(ctx); err != nil {
		return nil, err
	}
	if t == nil {
		return d.c.Dial(ctx, d.connection)
	}
	return t.Dial(ctx, d.connection)
}

// open gives the tunnel; nil when the relay knows none.
func (d *dialer) open(ctx context.Context) (*client.Tunnel, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.older {
		return nil, nil
	}
	if d.tunnel != nil {
		select {
		case <-d.tunnel.Done():
			_ = d.tunnel.Close()
			d.tunnel = nil
		default:
			return d.tunnel, nil
		}
	}
	t, err := d.c.Tunnel(ctx)
	if client.NoTunnel(err) {
		d.older = true
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d.tunnel = t
	return t, nil
}

func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tunnel != nil {
		_ = d.tunnel.Close()
	}
}

// watched turns an end of the relay's side that is no end of the data into a reset of the native client's, and keeps why.
type watched struct {
	client.Conn
	local   net.Conn
	refused error // written by the reading goroutine, which has ended when splice.Both returns
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil && err != io.EOF { // itself alone: the error of a tunnel that was lost may hold one
		if tcp, ok := w.local.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		if e := (*protocol.Error)(nil); errors.As(err, &e) {
			w.refused = e
		}
	}
	return n, err
}

// reset closes a native client's connection so that it sees a failure.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
