package dispatch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/hub"
)

// maxTries is how many tunnels are asked for one request.
const maxTries = 4

// sent is where a request went, and what came: a stream of a dial, or the head of an answer.
type sent struct {
	live   *hub.Live
	stream tunnel.Stream
	resp   *http.Response
}

// send picks a tunnel and sends the request on it. Another is asked when this one took nothing of the request, or when its agent
// says that it did nothing (it stops, or its budget is used up) and another agent offers the profile. What may have acted is
// never sent again.
func (d *Dispatcher) send(ctx context.Context, c *directory.Connection, r *protocol.Request, body io.Reader) (sent, error) {
	if deadline, ok := ctx.Deadline(); ok {
		r.Remaining = protocol.Remaining(deadline, ok)
	}
	again := &replay{src: body}
	live, err := d.Hub.Pick(c.Group, c.Profile)
	if err != nil {
		return sent{}, err
	}
	var tried []*hub.Live
	content, _ := again.begin()
	for n := 1; ; n++ {
		s, err := d.try(ctx, live, r, content)
		switch {
		case n == maxTries:
			return s, err
		case err != nil && errors.Is(err, hub.ErrNotSent):
			tried = append(tried, live)
		case err == nil && notBegun(s.resp):
			tried = append(tried, d.Hub.Beside(live)...)
		default:
			return s, err
		}
		next, perr := d.Hub.Pick(c.Group, c.Profile, tried...)
		if perr != nil || err == nil && c.Profile != "" && !next.Offers(c.Profile) { // its answer would be that it has none
			return s, err
		}
		body, ok := again.begin()
		if !ok {
			return s, err
		}
		if err == nil {
			_ = s.resp.Body.Close()
		}
		live, content = next, body
	}
}

func (d *Dispatcher) try(ctx context.Context, live *hub.Live, r *protocol.Request, body io.Reader) (sent, error) {
	s := sent{live: live}
	req, err := r.HTTP(ctx, body)
	if err != nil {
		return s, err
	}
	if r.Operation == protocol.OpDial {
		s.stream, s.resp, err = live.Dial(req)
		return s, err
	}
	if n := contentLength(r.Header); n >= 0 && body != nil {
		req.ContentLength = n
	}
	s.resp, err = live.Do(req)
	return s, err
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
		return io.NewSectionReader(b, 0, b.Size()), true
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
