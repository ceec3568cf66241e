package api

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// stallTime is how long a caller may neither send nor take a byte that is waited for. The server's own deadlines bound what
// comes before an operation begins.
const stallTime = time.Minute

// defaultBodyRate is the least that a caller's upload brings in a second, on average, while it is waited for.
const defaultBodyRate = 1 << 10

// cutTime is how long a caller who was cut (the rules changed, the relay stops) has to take the reason.
const cutTime = 2 * time.Second

// pace watches over the caller's conn while an operation runs. A whole answer or upload may take as long as it wants; a
// caller who stops taking or sending holds a stream, a target's connection and a record, so that ends after stallTime. And
// when ctx ends, a Read or Write that waits for the caller ends, too: it would not see it otherwise.
//
// The deadline for reading stands only while a Read of the body waits: between reads it would hit a caller who is not at
// fault (the target may be slow), and in HTTP/1 it would hit the server's look-out for a caller who has gone.
type pace struct {
	http.ResponseWriter
	rc *http.ResponseController

	mu  sync.Mutex // guards cut, and orders it with the deadlines
	cut bool
}

// keepPace begins with no deadline. end must be called when the operation is over.
func keepPace(ctx context.Context, w http.ResponseWriter) (p *pace, end func()) {
	p = &pace{ResponseWriter: w, rc: http.NewResponseController(w)}
	_ = p.rc.SetReadDeadline(time.Time{}) // a conn without deadlines (tests) has nothing to watch
	_ = p.rc.SetWriteDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cut = true
		now := time.Now()
		_ = p.rc.SetReadDeadline(now)
		_ = p.rc.SetWriteDeadline(now.Add(cutTime))
	})
	return p, func() { stop() }
}

func (p *pace) reading(deadline time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cut {
		_ = p.rc.SetReadDeadline(deadline)
	}
}

// Write gives the caller stallTime to take what stands in front of it.
func (p *pace) Write(b []byte) (int, error) {
	p.mu.Lock()
	if !p.cut {
		_ = p.rc.SetWriteDeadline(time.Now().Add(stallTime))
	}
	p.mu.Unlock()
	return p.ResponseWriter.Write(b)
}

// SetWriteDeadline is for who waits with a piece of the answer; the deadline of a caller who was cut stays.
func (p *pace) SetWriteDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return nil
	}
	return p.rc.SetWriteDeadline(t)
}

// Unwrap lets http.ResponseController find Flush and Hijack.
func (p *pace) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// body is the request's body under the same watch, and a caller who trickles is cut, too: each byte earns the time that it takes at
// rate bytes a second, and waiting for the caller spends it. Nobody has more of it to spend than stallTime, which they begin with: so a
// source may pause that long, and one that sends a byte now and then is over in little more than that. What the target makes the caller
// wait costs nothing.
type body struct {
	p    *pace
	r    io.Reader
	rate int           // bytes a second
	left time.Duration // what may be waited
}

func newBody(p *pace, r io.Reader, rate int) *body {
	return &body{p: p, r: r, rate: rate, left: stallTime}
}

func (b *body) Read(buf []byte) (int, error) {
	began := time.Now()
	b.p.reading(began.Add(b.left))
	n, err := b.r.Read(buf)
	b.p.reading(time.Time{})
	b.left = min(stallTime, max(0, b.left-time.Since(began))+time.Duration(n)*time.Second/time.Duration(b.rate))
	return n, err
}
