package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// maxHead bounds the head of an answer in a tunnel.
const maxHead = 64 << 10

// A Tunnel carries many dials over one connection to the relay. Each is let in or refused by itself. Safe for concurrent
// use. Close it.
type Tunnel struct {
	c *Client
	t tunnel.Tunnel
}

// Tunnel opens a tunnel. The context bounds the opening alone. NoTunnel tells of a relay that knows none; Client.Dial does
// without.
func (c *Client) Tunnel(ctx context.Context) (*Tunnel, error) {
	conn, err := c.upgrade(ctx, c.ws("tunnel"), protocol.UpgradeTunnel)
	if err != nil {
		return nil, err
	}
	t, err := tunnel.Upgraded(conn, nil, true, tunnel.DefaultConfig())
	if err != nil {
		return nil, &protocol.Error{Code: protocol.CodeInternal, Message: "the tunnel to the relay could not be made", Cause: err}
	}
	return &Tunnel{c: c, t: t}, nil
}

// NoTunnel reports whether err says that the relay is older than tunnels are.
func NoTunnel(err error) bool {
	return CodeOf(err) == protocol.CodeNotFound || CodeOf(err) == protocol.CodeUnsupported
}

// Close ends the tunnel and every Conn in it.
func (t *Tunnel) Close() error { return t.t.Close() }

// Done is closed when the tunnel has ended.
func (t *Tunnel) Done() <-chan struct{} { return t.t.Done() }

// Dial opens raw bytes to a connection's target. It does not wait for the relay: bytes may be written at once, and go in the
// same flight. Whether the dial went well is told by the first Read: its error is then the relay's or the agent's
// *protocol.Error. A CloseWrite before that is done when the answer has been read.
func (t *Tunnel) Dial(ctx context.Context, connection string) (Conn, error) {
	s, err := t.t.Open(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &protocol.Error{Code: protocol.CodeUnavailable, Message: "the tunnel to the relay takes no further connection", Cause: err}
	}
	head := "POST " + t.c.conn(connection, "dial") + " HTTP/1.1\r\nHost: " + t.c.base.Host + "\r\nUser-Agent: " + headerText(t.c.conf.UserAgent) +
		"\r\nConnection: Upgrade\r\nUpgrade: " + protocol.UpgradeDial + "\r\n\r\n"
	if _, err := io.WriteString(s, head); err != nil {
		_ = s.Close()
		return nil, t.lost(err)
	}
	return &tunnelled{Stream: s, t: t}, nil
}

// headerText keeps a header's value in one line.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}

// lost says what an error of a stream means for the caller; the end of its own conn and its own deadlines stay what they are.
func (t *Tunnel) lost(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed) && t.t.Err() == nil:
		return err
	case t.t.Err() == nil:
		return &protocol.Error{Code: protocol.CodeInterrupted, Message: "the relay cut the connection", Cause: err}
	}
	return &protocol.Error{Code: protocol.CodeInterrupted, Message: "the tunnel to the relay was lost", Cause: err}
}

// tunnelled is one dial in a tunnel.
type tunnelled struct {
	tunnel.Stream
	t *Tunnel

	once sync.Once
	br   *bufio.Reader // what was read ahead of the answer's end
	err  error         // why the dial failed

	mu       sync.Mutex // guards the fields below
	answered bool
	ending   bool // CloseWrite was called before the answer came
}

func (d *tunnelled) Read(p []byte) (int, error) {
	d.once.Do(d.answer)
	if d.err != nil {
		return 0, d.err
	}
	if d.br != nil {
		if d.br.Buffered() > 0 {
			return d.br.Read(p)
		}
		d.br = nil
	}
	n, err := d.Stream.Read(p)
	if err != nil && err != io.EOF { // itself alone: the error of a tunnel that was lost may hold one
		err = d.t.lost(err)
	}
	return n, err
}

// answer reads the head of the relay's answer.
func (d *tunnelled) answer() {
	limited := &io.LimitedReader{R: d.Stream, N: maxHead}
	d.br = bufio.NewReaderSize(limited, 4<<10)
	resp, err := http.ReadResponse(d.br, &http.Request{Method: http.MethodPost})
	switch {
	case err != nil:
		d.err = d.t.lost(err)
		return
	case resp.StatusCode != http.StatusSwitchingProtocols:
		limited.N = maxProblem
		d.err = problemOf(resp)
		_ = d.Stream.Close()
		return
	}
	limited.N = math.MaxInt64
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answered = true
	if d.ending {
		_ = d.Stream.CloseWrite()
	}
}

// CloseWrite waits for the answer: the relay would take an end before it for a caller who has gone.
func (d *tunnelled) CloseWrite() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.answered {
		d.ending = true
		return nil
	}
	return d.Stream.CloseWrite()
}
