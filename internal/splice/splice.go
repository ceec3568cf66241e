package splice

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// writeCloser is a conn that can end its writing side alone.
type writeCloser interface{ CloseWrite() error }

// Both copies a to b and b to a and returns the bytes of each direction when both have ended. The end of one direction is
// passed on as a half-close where the receiving conn can do that; where it cannot, the other direction has a second to
// end by itself. An error in one direction, or the end of ctx, ends both. Both conns are closed when it returns.
func Both(ctx context.Context, a, b net.Conn) (ab, ba int64) {
	done := make(chan struct{})
	var err error
	StartBoth(ctx, a, b, func(n, m int64, why error) {
		ab, ba, err = n, m, why
		close(done)
	})
	<-done
	if errors.Is(err, ErrPanic) {
		panic(err) // it is the caller's, as if it had copied by itself
	}
	return ab, ba
}

// StartBoth is Both for who does not wait: it returns at once, and ended is called with what Both returns, in a goroutine that ends
// then. The error is that of the first direction that failed, if one did. What it gives ends both, as the end of ctx does.
func StartBoth(ctx context.Context, a, b net.Conn, ended func(ab, ba int64, err error)) (end func()) {
	p := &pair{ab: way{src: a, dst: b}, ba: way{src: b, dst: a}, ended: ended}
	p.left.Store(2)
	if ctx.Done() != nil {
		p.stop = context.AfterFunc(ctx, p.close)
	}
	p.ab.flow = Flow{src: a, write: p.ab.write, ended: func(err error) { p.end(&p.ab, &p.ba, err) }}
	p.ba.flow = Flow{src: b, write: p.ba.write, ended: func(err error) { p.end(&p.ba, &p.ab, err) }}
	go p.ab.flow.run()
	go p.ba.flow.run()
	return p.close
}

// pair is two conns and the flows between them.
type pair struct {
	ab, ba way
	ended  func(ab, ba int64, err error)
	stop   func() bool
	left   atomic.Int32 // ways that have not ended
	once   sync.Once
	failed error // of the way that ended first by an error; written before the last one ends
}

// way is one direction.
type way struct {
	src, dst net.Conn
	flow     Flow
	n        int64
}

func (w *way) write(p []byte) error {
	n, err := w.dst.Write(p)
	w.n += int64(n)
	return err
}

func (p *pair) close() { p.fail(nil) }

func (p *pair) fail(err error) {
	p.once.Do(func() {
		p.failed = err
		p.ab.src.Close()
		p.ba.src.Close()
	})
}

// end takes note of the end of a way, and ends the pair after the other.
func (p *pair) end(w, other *way, err error) {
	if err != nil {
		p.fail(err)
	} else if half, ok := w.dst.(writeCloser); !ok || half.CloseWrite() != nil {
		// The receiver cannot be told that no more comes, so the other direction must not wait for its answer for long.
		other.flow.Limit(time.Now().Add(time.Second))
	}
	if p.left.Add(-1) > 0 {
		return
	}
	p.fail(nil)
	if p.stop != nil {
		p.stop()
	}
	p.ended(p.ab.n, p.ba.n, p.failed)
}
