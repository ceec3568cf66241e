package hub

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/internal/splice"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// ErrNotSent marks a failure before a byte of the request reached the tunnel: another agent may be asked.
var ErrNotSent = errors.New("request was not sent")

// maxHead bounds the head of an agent's answer.
const maxHead = 64 << 10

// Live is one live tunnel. It is safe for concurrent use.
type Live struct {
	tunnel                  tunnel.Tunnel
	client                  *http.Transport
	agent, workspace, group string
	hello                   protocol.Hello
	connected               time.Time
	draining                atomic.Bool
	inFlight                atomic.Int64
	ofAgent                 *atomic.Int64 // in flight on all tunnels of the agent
	status                  atomic.Pointer[protocol.Status]
	lanes                   *lanes
	log                     *slog.Logger

	mu   sync.Mutex // guards idle
	idle []chan struct{}
}

func newLive(t tunnel.Tunnel, hello protocol.Hello, cfg Config) *Live {
	p := t.Peer()
	l := &Live{tunnel: t, agent: p.ID, workspace: p.Workspace, group: p.Group, hello: hello, connected: time.Now(), log: cfg.Logger}
	l.lanes = newLanes(l, min(max(hello.Lanes, 0), cfg.MaxLanes))
	st := hello.Status
	if st.Profiles == nil {
		st.Profiles = hello.Profiles
	}
	l.status.Store(&st)
	l.client = &http.Transport{
		// A request has a stream of its own: opening one costs no round trip, and its end is the request's end.
		DisableKeepAlives:  true,
		DisableCompression: true, // bodies pass as they are
		Proxy:              nil,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			key, _ := ctx.Value(requestKey{}).(string) // none: a control request
			s, err := l.lanes.open(ctx, key)
			if err != nil {
				return nil, fmt.Errorf("%w: open stream: %w", ErrNotSent, err)
			}
			return &answering{Stream: s}, nil
		},
		MaxResponseHeaderBytes: maxHead,
		WriteBufferSize:        32 << 10,
		ReadBufferSize:         32 << 10,
	}
	return l
}

// requestKey is the context key of what kind of request a stream is for: its path on the agent.
type requestKey struct{}

// Agent is the id of the agent behind the tunnel.
func (l *Live) Agent() string { return l.agent }

// Drained marks that the agent takes no new work on this tunnel.
func (l *Live) Drained() { l.draining.Store(true) }

// SetStatus replaces what the agent says of its configuration.
func (l *Live) SetStatus(s protocol.Status) { l.status.Store(&s) }

// Info tells of the tunnel.
func (l *Live) Info() Info {
	return Info{Agent: l.agent, Workspace: l.workspace, Group: l.group, Hello: l.hello, Status: *l.status.Load(), Connected: l.connected,
		RemoteAddr: l.tunnel.RemoteAddr().String(), Transport: l.tunnel.Transport(), NotAfter: notAfter(l.tunnel),
		Draining: l.draining.Load(), InFlight: int(l.inFlight.Load()), Lanes: l.lanes.count()}
}

// Offers reports whether the agent says that it has the profile.
func (l *Live) Offers(profile string) bool {
	for _, p := range l.status.Load().Profiles {
		if p.Name == profile {
			return true
		}
	}
	return false
}

// Do sends one request and returns the answer's head. The request is counted as in flight until the body is closed.
// The context ends the stream, whatever state it is in. The caller closes the body.
func (l *Live) Do(req *http.Request) (*http.Response, error) {
	l.begin()
	resp, err := l.client.RoundTrip(req.WithContext(context.WithValue(req.Context(), requestKey{}, req.URL.Path)))
	if err != nil {
		l.done()
		return nil, l.fault(req.Context(), err)
	}
	resp.Body = &countedBody{ReadCloser: resp.Body, done: l.done}
	return resp, nil
}

// Dial sends the head of a request that asks for an upgrade. It does not wait for the answer: what is written to the stream
// goes in the same flight. The stream is counted as in flight until it is closed. The context ends it until it has been answered; then
// Close alone does, so that a stream that is open for days holds nothing of the request.
func (l *Live) Dial(req *http.Request) (*Dialed, error) {
	ctx := req.Context()
	l.begin()
	s, err := l.lanes.open(ctx, req.URL.Path)
	if err != nil {
		l.done()
		return nil, l.fault(ctx, fmt.Errorf("%w: open stream: %w", ErrNotSent, err))
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	d := &Dialed{Stream: s, live: l, req: req, unlink: stop, end: sync.OnceFunc(func() { stop(); s.Close(); l.done() })}
	if err := req.Write(s); err != nil {
		d.end()
		return nil, l.fault(ctx, fmt.Errorf("write dial request: %w", err))
	}
	return d, nil
}

// Dialed is the stream of a dial. Answer comes before the first Read; writes wait for nothing. CloseWrite before the answer
// would look to the agent like a caller who has gone. Close ends a wait for the answer, too.
type Dialed struct {
	tunnel.Stream
	live *Live
	req  *http.Request
	br   *bufio.Reader
	end  func()
	// unlink takes the stream from its context.
	unlink func() bool
}

// Answer reads the head of the agent's answer. nil says that it switched protocols: from here on the stream is the target's.
// Any other answer ends the dial, and closing its body closes the stream.
func (d *Dialed) Answer() (*http.Response, error) {
	head := &io.LimitedReader{R: d.Stream, N: maxHead} // http.ReadResponse has no limit of its own
	br := bufio.NewReaderSize(head, 4<<10)
	resp, err := http.ReadResponse(br, d.req)
	if err != nil {
		d.end()
		return nil, d.live.fault(d.req.Context(), fmt.Errorf("read dial answer: %w", err))
	}
	head.N = math.MaxInt64
	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = &countedBody{ReadCloser: resp.Body, done: d.end}
		return resp, nil
	}
	if br.Buffered() > 0 {
		d.br = br
	}
	d.req = nil
	d.unlink()
	return nil, nil
}

// Read takes what came in one piece with the answer first.
func (d *Dialed) Read(p []byte) (int, error) {
	if d.br == nil {
		return d.Stream.Read(p)
	}
	n, err := d.br.Read(p)
	if d.br.Buffered() == 0 {
		d.br = nil
	}
	return n, err
}

// AwaitRead is that of the stream (splice.Waiter). What came with the answer is read first.
func (d *Dialed) AwaitRead(f func()) bool {
	w, ok := d.Stream.(splice.Waiter)
	return ok && d.br == nil && w.AwaitRead(f)
}

// Close ends the stream, both ways.
func (d *Dialed) Close() error {
	d.end()
	return nil
}

// Notify sends a notice and waits for its receipt, 5 seconds at most.
func (l *Live) Notify(ctx context.Context, n protocol.Notice) error {
	return l.post(ctx, protocol.PathNotice, n)
}

func (l *Live) begin() {
	l.ofAgent.Add(1)
	l.inFlight.Add(1)
}

func (l *Live) done() {
	l.ofAgent.Add(-1)
	if l.inFlight.Add(-1) > 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.idle {
		close(c)
	}
	l.idle = nil
}

func (l *Live) waitIdle(ctx context.Context) {
	for l.inFlight.Load() > 0 {
		c := make(chan struct{})
		l.mu.Lock()
		l.idle = append(l.idle, c)
		l.mu.Unlock()
		if l.inFlight.Load() == 0 {
			return
		}
		select {
		case <-c:
		case <-l.tunnel.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// fault turns a transport error into one that a caller may see.
func (l *Live) fault(ctx context.Context, err error) error {
	e := &protocol.Error{Code: protocol.CodeInterrupted, Origin: protocol.OriginRelay, Cause: err,
		Message: "the tunnel to the agent was lost; whether the operation took effect is not known"}
	switch {
	case errors.Is(err, ErrNotSent):
		e.Code, e.Message = protocol.CodeUnavailable, "the agent's tunnel takes no new stream; nothing was sent"
	case ctx.Err() == nil:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		e.Code, e.Message = protocol.CodeTimeout, "the time limit ended the operation"
	default:
		e.Code, e.Message = protocol.CodeCanceled, "the caller went away"
	}
	return e
}

type countedBody struct {
	io.ReadCloser
	once sync.Once
	done func()
}

func (b *countedBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.done)
	return err
}

// notAfter is when the peer's certificate ends; zero over the memory transport, which has none.
func notAfter(t tunnel.Tunnel) time.Time {
	if c := t.PeerCertificate(); c != nil {
		return c.NotAfter
	}
	return time.Time{}
}

// Offer finds how a live agent of the group offers the profile.
func (h *Hub) Offer(group, profile string) (protocol.ProfileOffer, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.byGroup[group] {
		for _, p := range l.status.Load().Profiles {
			if p.Name == profile {
				return p, true
			}
		}
	}
	return protocol.ProfileOffer{}, false
}
