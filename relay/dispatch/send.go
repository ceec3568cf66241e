package dispatch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/hub"
)

// maxTries is how many tunnels are asked for one request.
const maxTries = 4

// route is the way of one request through one tunnel after the other. Another is asked when this one took nothing of the request,
// or when its agent says that it did nothing (it stops, or its budget is used up) and another agent offers the profile. What may
// have acted is never sent again.
type route struct {
	d     *Dispatcher
	conn  *directory.Connection
	req   *protocol.Request
	live  *hub.Live // the one that is asked
	tried []*hub.Live
	tries int
}

// agent is the one that is asked; "" before begin.
func (t *route) agent() string {
	if t.live == nil {
		return ""
	}
	return t.live.Agent()
}

func (t *route) begin(ctx context.Context) (err error) {
	if deadline, ok := ctx.Deadline(); ok {
		t.req.Remaining = protocol.Remaining(deadline, ok)
	}
	t.live, err = t.d.Hub.Pick(t.conn.Group, t.conn.Profile)
	t.tries = 1
	return err
}

// next picks another tunnel after a try that ended so; nil when there is none that should be asked.
func (t *route) next(resp *http.Response, err error) *hub.Live {
	switch {
	case t.tries == maxTries:
		return nil
	case err != nil && errors.Is(err, hub.ErrNotSent):
		t.tried = append(t.tried, t.live)
	case err == nil && notBegun(resp):
		t.tried = append(t.tried, t.d.Hub.Beside(t.live)...)
	default:
		return nil
	}
	next, perr := t.d.Hub.Pick(t.conn.Group, t.conn.Profile, t.tried...)
	if perr != nil || err == nil && t.conn.Profile != "" && !next.Offers(t.conn.Profile) { // its answer would be that it has none
		return nil
	}
	return next
}

func (t *route) take(next *hub.Live) {
	t.live = next
	t.tries++
}

// send gives the head of the answer, and the agent that was asked, also with an error.
func (t *route) send(ctx context.Context, body io.Reader) (*http.Response, string, error) {
	if err := t.begin(ctx); err != nil {
		return nil, "", err
	}
	again := &replay{src: body}
	content, _ := again.begin()
	for {
		resp, err := t.try(ctx, content)
		next := t.next(resp, err)
		if next == nil {
			return resp, t.agent(), err
		}
		body, ok := again.begin()
		if !ok {
			return resp, t.agent(), err
		}
		if err == nil {
			_ = resp.Body.Close()
		}
		content = body
		t.take(next)
	}
}

func (t *route) try(ctx context.Context, body io.Reader) (*http.Response, error) {
	req, err := t.req.HTTP(ctx, body)
	if err != nil {
		return nil, err
	}
	if n := contentLength(t.req.Header); n >= 0 && body != nil {
		req.ContentLength = n
	}
	return t.live.Do(req)
}

// dial sends the head of a dial.
func (t *route) dial(ctx context.Context) (*hub.Dialed, error) {
	for {
		req, err := t.req.HTTP(ctx, nil)
		if err != nil {
			return nil, err
		}
		s, err := t.live.Dial(req)
		if err == nil {
			return s, nil
		}
		next := t.next(nil, err)
		if next == nil {
			return nil, err
		}
		t.take(next)
	}
}

// notBegun reports whether an agent itself says that it refused before it did anything.
func notBegun(resp *http.Response) bool {
	return resp != nil && resp.Header.Get(protocol.HeaderOrigin) == string(protocol.OriginAgent) && resp.Header.Get(protocol.HeaderNotBegun) != ""
}

// replayBytes of a body that streams in are kept for another try.
const replayBytes = 64 << 10

// replay gives a body to one try after the other. The transport of a try that is over may still be reading: what it takes from
// the caller then is there for the next one.
type replay struct {
	src io.Reader // nil: there is no body

	reading sync.Mutex // held by who reads src

	mu   sync.Mutex // guards the fields below
	now  *attempt
	kept []byte // from the beginning, until gone
	gone bool
	err  error // that ended src
}

// begin gives the body from its beginning; false when that is no longer kept.
func (p *replay) begin() (io.Reader, bool) {
	if p.src == nil {
		return nil, true
	}
	if b, ok := p.src.(*bytes.Reader); ok {
		whole := *b // net/http knows its length and sends it with the head, in one piece
		return &whole, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil, false
	}
	p.now = &attempt{p: p}
	return p.now, true
}

// attempt reads the body for one try.
type attempt struct {
	p  *replay
	at int
}

var errTryOver = errors.New("another agent was asked")

func (a *attempt) Read(b []byte) (int, error) {
	p := a.p
	if n := a.fromKept(b); n > 0 {
		return n, nil
	}
	p.reading.Lock()
	defer p.reading.Unlock()
	if n := a.fromKept(b); n > 0 { // the try before took it from the caller meanwhile
		return n, nil
	}
	p.mu.Lock()
	err := p.err
	if p.now != a {
		err = errTryOver
	}
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := p.src.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	switch {
	case p.gone:
	case p.now == a && len(p.kept)+n > replayBytes: // nobody else will want it
		p.kept, p.gone = nil, true
	default:
		p.kept = append(p.kept, b[:n]...)
	}
	a.at += n
	return n, err
}

// fromKept reads what is kept already.
func (a *attempt) fromKept(b []byte) int {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	if a.at >= len(a.p.kept) {
		return 0
	}
	n := copy(b, a.p.kept[a.at:])
	a.at += n
	return n
}
