package splice

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// Sizes of the buffers of one direction: what it waits with, and what it moves bulk with. The large one fills whole frames of a
// tunnel (two on the mux, one on a lane), and these whole TLS records: 24 bytes more would be a frame, a record and a system call
// of their own each time.
const (
	smallBuffer = 2 << 10
	largeBuffer = 64<<10 - 24
)

var (
	smalls  = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	buffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// idlePeriod: a direction on which nothing came for one to two of them goes to sleep. To wake costs some microseconds, so who asks
// and answers all the time is kept awake.
const idlePeriod = 500 * time.Millisecond

// Waiter is a conn that tells when a Read may not wait, so that nobody has to stand in one.
type Waiter interface {
	// AwaitRead has f called, once and in a goroutine of its own, as soon as a Read may not wait: something came, or the end, or a
	// deadline was set. At most one f waits at a time, and nobody reads meanwhile. false: this conn does not tell, and f is not
	// called. With a nil f it says only whether it would.
	AwaitRead(f func()) bool
}

// ErrPanic marks the end of a direction whose write panicked.
var ErrPanic = errors.New("copying panicked")

// Flow copies one way, in goroutines of its own: from src to a write function, until src ends or one of them fails.
//
// While little comes it reads with 2 KiB; a read that fills them borrows 64 KiB, which go back when the stream runs thin again.
// splice(2) would not help: one side is always a stream of a tunnel or TLS, never a bare socket.
//
// A flow on which nothing comes goes to sleep, if src is a Waiter or a TCP socket of a Unix: its goroutine ends, and with it goes
// the stack that it has grown to. A Waiter's flow has none then, a socket's a small one that holds no buffer.
type Flow struct {
	src   net.Conn
	first []byte
	write func([]byte) error
	ended func(error)

	mu    sync.Mutex // guards until, and keeps deadlines in order
	until time.Time
}

// Start begins to copy what it reads from src, after what came first, to write, whose the bytes are until it returns. ended is
// called once, in a goroutine of the flow's: with nil when src has ended, else with the error of a Read or a write. Read deadlines of
// src are the flow's from here on; src's Close ends it.
func Start(src net.Conn, first []byte, write func([]byte) error, ended func(error)) *Flow {
	f := &Flow{src: src, first: first, write: write, ended: ended}
	go f.run()
	return f
}

// Limit ends the flow at t, if src has not ended by then.
func (f *Flow) Limit(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = t
	_ = f.src.SetReadDeadline(t)
}

// run copies until the flow has ended or sleeps.
func (f *Flow) run() {
	asleep, err := false, ErrPanic
	defer func() {
		if p := recover(); p != nil { // the flow fails, the program lives; what the panic says may hold bytes of the stream
			asleep, err = false, fmt.Errorf("%w: %T\n%s", ErrPanic, p, debug.Stack())
		}
		if !asleep {
			f.ended(err)
		}
	}()
	asleep, err = f.copy()
}

func (f *Flow) copy() (asleep bool, err error) {
	small := smalls.Get().(*[smallBuffer]byte)
	defer smalls.Put(small)
	var large *[largeBuffer]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	if first := f.first; len(first) > 0 {
		f.first = nil
		if err := f.write(first); err != nil {
			return false, err
		}
	}
	buf := small[:]
	armed := f.arm()
	for moved := true; ; {
		n, err := f.src.Read(buf)
		if n > 0 {
			moved = true
			if werr := f.write(buf[:n]); werr != nil {
				return false, werr
			}
		}
		switch {
		case err == nil && !armed:
			armed = f.arm() // it may not have been a Waiter before
		case err == nil:
		case err == io.EOF: // itself alone: the error of a tunnel that was lost may hold one, and is no end
			return false, nil
		case !armed || !errors.Is(err, os.ErrDeadlineExceeded) || f.over():
			return false, err
		default:
			if moved {
				moved, armed = false, f.arm()
			} else {
				armed = false
			}
			if armed {
				continue
			}
			if f.sleep() {
				return true, nil
			}
			continue
		}
		switch {
		case large == nil && n == smallBuffer:
			large = buffers.Get().(*[largeBuffer]byte)
			buf = large[:]
		case large != nil && n < smallBuffer:
			buffers.Put(large)
			large, buf = nil, small[:]
		}
	}
}

// arm has the Read that waits end after a while; false: src cannot be waited for in another way.
func (f *Flow) arm() bool {
	if !await(f.src, nil) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := time.Now().Add(idlePeriod)
	if !f.until.IsZero() && f.until.Before(d) {
		d = f.until
	}
	return f.src.SetReadDeadline(d) == nil
}

// sleep has run called when a Read may not wait; false: the next Read waits by itself. Who comes with a Limit comes before that or
// finds a flow that sleeps and wakes it, for a Waiter tells when a deadline is set, and not when it has passed.
func (f *Flow) sleep() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.src.SetReadDeadline(f.until) // an error shows in the next Read
	return f.until.IsZero() && await(f.src, f.run)
}

// over reports whether Limit's time has come.
func (f *Flow) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.until.IsZero() && !time.Now().Before(f.until)
}

// await is AwaitRead of a Waiter or a TCP socket.
func await(c net.Conn, f func()) bool {
	switch c := c.(type) {
	case Waiter:
		return c.AwaitRead(f)
	case *net.TCPConn:
		return awaitSocket(c, f)
	}
	return false
}
