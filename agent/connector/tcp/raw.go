package tcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/internal/splice"
	"github.com/fairleadhq/fairlead/protocol"
)

// Config describes the raw dials of one profile, or of the allow list.
type Config struct {
	Name string // of the profile; protocol.NoProfile for the allow list

	// Host and Port are the profile's target. Empty for the allow list: then the request names them.
	Host string
	Port uint16

	Dialer   *Dialer
	MaxConns int           // at a time; 0 means 64
	Idle     time.Duration // without a byte either way; 0 means 10 minutes
}

// Raw is the Connector of raw dials.
type Raw struct {
	cfg   Config
	log   *slog.Logger
	slots chan struct{}
	ctx   context.Context // ends at Close
	stop  context.CancelFunc
}

var _ connector.Connector = (*Raw)(nil)

// New makes the Connector. It dials nothing yet.
func New(cfg Config, log *slog.Logger) (*Raw, error) {
	if cfg.Dialer == nil || cfg.Dialer.Decide == nil {
		return nil, fmt.Errorf("tcp profile %s: no dialer that decides", cfg.Name)
	}
	if (cfg.Host == "") != (cfg.Port == 0) || (cfg.Host == "") != (cfg.Name == protocol.NoProfile) {
		return nil, fmt.Errorf("tcp profile %s: wants a host and a port", cfg.Name)
	}
	cfg.MaxConns, cfg.Idle = or(cfg.MaxConns, 64), or(cfg.Idle, 10*time.Minute)
	r := &Raw{cfg: cfg, log: log.With("profile", cfg.Name), slots: make(chan struct{}, cfg.MaxConns)}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r, nil
}

// Close ends the connections that run.
func (r *Raw) Close() error {
	r.stop()
	return nil
}

var errClosed = &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginAgent, Message: "the agent ended the connection: it stops, or the profile changed"}

// Do implements connector.Connector. It dials first, so that a failure is an answer; then it answers 101 and copies bytes
// both ways until both directions have ended. A half-close passes through.
func (r *Raw) Do(ctx context.Context, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	if c.Request.Operation != protocol.OpDial {
		return protocol.Outcome{}, protocol.Errorf(protocol.CodeUnsupported, "a raw target does not know operation %s", c.Request.Operation)
	}
	var ends []func() // of what the dial holds, last first
	end := func() {
		for i := range ends {
			ends[len(ends)-1-i]()
		}
	}
	later := false
	defer func() {
		if !later {
			end()
		}
	}()
	select {
	case r.slots <- struct{}{}:
		ends = append(ends, func() { <-r.slots })
	default:
		return protocol.Outcome{}, &protocol.Error{Code: protocol.CodeRateLimited, Origin: protocol.OriginAgent,
			Message: fmt.Sprintf("the profile has its %d connections open", r.cfg.MaxConns), RetryAfterMs: 1000,
			Hint: "close one, or ask the site's admin to raise limits.concurrent of the profile in agent.yaml"}
	}
	outer := ctx
	ctx, cancel := context.WithCancelCause(outer) // until it copies
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() { cancel(errClosed) })()

	host, port := r.cfg.Host, r.cfg.Port
	if host == "" {
		host, port = c.Request.Host, c.Request.Port
	}
	target, err := r.cfg.Dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		if e := (*protocol.Error)(nil); errors.As(context.Cause(ctx), &e) {
			err = e
		}
		return protocol.Outcome{}, err
	}
	ends = append(ends, func() { target.Close() })
	if a, err := netip.ParseAddrPort(target.RemoteAddr().String()); err == nil && c.Connected != nil {
		c.Connected(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	}
	if c.Request.Proxy.Valid() {
		if err := tellSource(target, c.Request.Proxy); err != nil {
			return protocol.Outcome{}, err
		}
	}
	caller, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return protocol.Outcome{}, fmt.Errorf("take over the stream: %w", err)
	}
	ends = append(ends, func() { caller.Close() })
	p := &pipe{caller: caller, target: target, idle: r.cfg.Idle, maxBytes: c.Decision.Limits.MaxBytes}
	if err := caller.SetDeadline(time.Time{}); err == nil {
		_, err = io.WriteString(caller, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol.UpgradeDial+"\r\n\r\n")
		if err != nil {
			return protocol.Outcome{Code: protocol.CodeCanceled}, nil
		}
	}
	// What came in the same flight as the request stands in the server's buffer.
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	early = bytes.Clone(early) // the buffer goes
	if c.Later == nil {
		done := make(chan struct{})
		p.start(outer, r.ctx, early, func() { close(done) })
		<-done
		return p.outcome(), nil
	}
	later = true
	c.Later(func(ended func(protocol.Outcome)) {
		p.start(outer, r.ctx, early, func() {
			end()
			ended(p.outcome())
		})
	})
	return protocol.Outcome{}, nil
}

// outcome is how the dial ended.
func (p *pipe) outcome() protocol.Outcome {
	out := protocol.Outcome{Bytes: p.out.Load(), BytesIn: p.in.Load(), Status: http.StatusSwitchingProtocols, Code: p.code()}
	if out.Code == protocol.CodeTooLarge {
		out.Truncated = "max_bytes"
	}
	return out
}

// ends of a pipe that are not an end of file.
var (
	errIdle  = errors.New("idle for too long")
	errBytes = errors.New("byte cap reached")
)

// sideError says on which side a copy broke.
type sideError struct {
	target bool
	err    error
}

func (e *sideError) Error() string { return e.err.Error() }

// pipe copies between a caller and a target.
type pipe struct {
	caller, target net.Conn
	idle           time.Duration
	maxBytes       int64 // to the caller; 0 means any

	in, out atomic.Int64 // from the caller, to the caller
	last    atomic.Int64 // when a byte moved, UnixNano

	once sync.Once
	why  error // set by the first end

	toTarget, toCaller *splice.Flow
	left               atomic.Int32 // flows that have not ended
	ended              func()

	mu    sync.Mutex // holds timer still while it is set
	timer *time.Timer
	// unlink and unlinkOpen take the pipe from the contexts that end it.
	unlink, unlinkOpen func() bool
}

// end closes both sides. The first reason counts.
func (p *pipe) end(why error) {
	p.once.Do(func() {
		p.why = why
		_ = p.caller.Close()
		_ = p.target.Close()
	})
}

// start copies both ways until ctx ends or the connector is closed, and returns at once. ended is called when both directions have ended
// and both sides are closed.
func (p *pipe) start(ctx, open context.Context, early []byte, ended func()) {
	p.ended = ended
	p.left.Store(2)
	p.touch()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unlink = context.AfterFunc(ctx, func() { p.end(context.Cause(ctx)) })
	p.unlinkOpen = context.AfterFunc(open, func() { p.end(errClosed) })
	p.timer = time.AfterFunc(p.idle, p.tooIdle)
	p.toTarget = splice.Start(p.caller, early, p.writeTarget, func(err error) { p.over(true, err) })
	p.toCaller = splice.Start(p.target, nil, p.writeCaller, func(err error) { p.over(false, err) })
}

// tooIdle ends the pipe, if it has been idle for so long.
func (p *pipe) tooIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := p.idle - time.Since(time.Unix(0, p.last.Load())); left > 0 {
		p.timer.Reset(left)
		return
	}
	p.end(errIdle)
}

func (p *pipe) touch() { p.last.Store(time.Now().UnixNano()) }

func (p *pipe) writeTarget(b []byte) error { return p.write(p.target, &p.in, b, true, false) }

func (p *pipe) writeCaller(b []byte) error {
	over := p.maxBytes > 0 && p.out.Load()+int64(len(b)) > p.maxBytes
	if over {
		b = b[:p.maxBytes-p.out.Load()]
	}
	return p.write(p.caller, &p.out, b, false, over)
}

// write passes bytes on and counts them. An error is that of the writing side, and ends the pipe.
func (p *pipe) write(dst net.Conn, count *atomic.Int64, b []byte, toTarget, last bool) error {
	p.touch()
	n, err := dst.Write(b)
	count.Add(int64(n))
	p.touch()
	switch {
	case err != nil:
		err = &sideError{toTarget, err}
	case last:
		err = errBytes
	}
	if err != nil {
		p.end(err)
	}
	return err
}

// over takes note of the end of one direction, which is passed on as a half-close, and ends the pipe after the other.
func (p *pipe) over(toTarget bool, err error) {
	dst := p.caller
	if toTarget {
		dst = p.target
	}
	if errors.Is(err, splice.ErrPanic) {
		p.end(err)
	} else if err != nil {
		p.end(&sideError{!toTarget, err}) // the reading side's, unless a write has ended it already
	} else if h, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	} else {
		// dst cannot be told that no more comes. It has a moment to end by itself, then it is closed.
		p.mu.Lock()
		other := p.toTarget
		if toTarget {
			other = p.toCaller
		}
		p.mu.Unlock()
		other.Limit(time.Now().Add(time.Second))
	}
	if p.left.Add(-1) > 0 {
		return
	}
	p.mu.Lock() // start is over
	p.timer.Stop()
	p.unlink()
	p.unlinkOpen()
	p.mu.Unlock()
	p.end(nil)
	p.ended()
}

// code says how the pipe ended.
func (p *pipe) code() protocol.Code {
	var e *protocol.Error
	var side *sideError
	switch {
	case p.why == nil:
		return ""
	case errors.Is(p.why, errIdle), errors.Is(p.why, context.DeadlineExceeded):
		return protocol.CodeTimeout
	case errors.Is(p.why, errBytes):
		return protocol.CodeTooLarge
	case errors.As(p.why, &e):
		return e.Code
	case errors.Is(p.why, splice.ErrPanic):
		return protocol.CodeInternal
	case errors.As(p.why, &side) && side.target:
		return protocol.CodeUpstream
	}
	return protocol.CodeCanceled
}
