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

// body is the request's body under the same watch.
type body struct {
	p *pace
	r io.Reader
}

func (b body) Read(buf []byte) (int, error) {
	b.p.reading(time.Now().Add(stallTime))
	n, err := b.r.Read(buf)
	b.p.reading(time.Time{})
	return n, err
}
