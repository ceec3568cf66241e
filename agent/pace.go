package agent

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/splice"
	"github.com/fairleadhq/fairlead/protocol"
)

// pacer lets the bytes of one trip leave when its budgets have room.
type pacer struct {
	ctx   context.Context
	lease budget.Lease
	// over is told that the day's bytes are used up: the trip ends with it.
	over func(error)
}

func (p *pacer) wait(ctx context.Context, n int) error {
	err := p.lease.Wait(ctx, n)
	var r *budget.Refusal
	if errors.As(err, &r) {
		e := r.Problem(protocol.OriginAgent)
		p.over(e)
		return e
	}
	return err
}

// conn gives the stream of a dial whose writes wait for their turn.
func (p *pacer) conn(c net.Conn) net.Conn {
	if half, ok := c.(halfCloser); ok {
		return &pacedHalf{pacedConn{Conn: c, p: p}, half}
	}
	return &pacedConn{Conn: c, p: p}
}

type halfCloser interface{ CloseWrite() error }

type pacedConn struct {
	net.Conn
	p *pacer

	mu     sync.Mutex // guards the fields below
	ctx    context.Context
	end    context.CancelFunc // nil: no Write has had to wait
	closed bool
}

func (c *pacedConn) Write(b []byte) (int, error) {
	if c.p.lease.Waits() {
		if err := c.p.wait(c.waiting(), len(b)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// waiting is the context of a Write that waits for its turn.
func (c *pacedConn) waiting() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end == nil {
		c.ctx, c.end = context.WithCancel(c.p.ctx)
		if c.closed {
			c.end()
		}
	}
	return c.ctx
}

// AwaitRead is that of the stream (splice.Waiter).
func (c *pacedConn) AwaitRead(f func()) bool {
	w, ok := c.Conn.(splice.Waiter)
	return ok && w.AwaitRead(f)
}

// Close also ends a Write that waits for its turn.
func (c *pacedConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.end != nil {
		c.end()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

type pacedHalf struct {
	pacedConn
	half halfCloser
}

func (c *pacedHalf) CloseWrite() error { return c.half.CloseWrite() }

// commitWriter notes when the answer has begun, and has its bytes wait for their turn.
type commitWriter struct {
	http.ResponseWriter
	committed *bool
	pace      pacer
}

func (c *commitWriter) WriteHeader(status int) {
	*c.committed = true
	c.ResponseWriter.WriteHeader(status)
}

func (c *commitWriter) Write(p []byte) (int, error) {
	if err := c.pace.wait(c.pace.ctx, len(p)); err != nil {
		return 0, err
	}
	*c.committed = true
	return c.ResponseWriter.Write(p)
}

// ReadFrom keeps the server's own fast copy where nothing has to wait.
func (c *commitWriter) ReadFrom(r io.Reader) (int64, error) {
	if rf, ok := c.ResponseWriter.(io.ReaderFrom); ok && !c.pace.lease.Waits() {
		*c.committed = true
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c}, r)
}

// Hijack hands over the stream of a dial.
func (c *commitWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	*c.committed = true
	conn, rw, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	p := c.pace // a copy: the stream outlives the request
	return p.conn(conn), rw, nil
}

// Unwrap lets http.ResponseController find Flush.
func (c *commitWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
