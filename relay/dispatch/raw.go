package dispatch

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/hub"
)

// Raw is the stream of a dial, before its answer has come. What is written goes in one flight with the request: it waits in the
// agent until that has decided and recorded, as a request's body does. Nothing can be read before the agent has said yes and
// the relay's record is durable. When the agent says that it did nothing, another is asked, with what was written so far.
//
// One goroutine may read while another writes.
type Raw struct {
	d      *Dispatcher
	way    *route
	record *audit.Ticket
	id     string // of the request
	lease  budget.Lease
	call   context.Context // of the caller

	once sync.Once
	err  error

	writing sync.Mutex // held during a write, and while another agent is given what was written

	mu       sync.Mutex // guards the fields below
	stream   *hub.Dialed
	kept     []byte // written before the answer, until gone
	gone     bool   // there was too much of it, or it is no longer needed
	admitted bool
	ending   bool // CloseWrite came before the answer
	closed   bool // from this side
	lost     bool // a write failed before that
	// What ends a wait with Close; made when one begins.
	ctx context.Context
	end context.CancelFunc
}

// dial sends a dial on its way.
func (d *Dispatcher) dial(ctx context.Context, way *route, record *audit.Ticket, lease budget.Lease) (*Raw, error) {
	if err := way.begin(ctx); err != nil {
		return nil, err
	}
	s := &Raw{d: d, way: way, record: record, id: way.req.ID, lease: lease, call: ctx}
	stream, err := way.dial(ctx)
	if err != nil {
		return nil, err
	}
	s.stream = stream
	return s, nil
}

// Admitted waits until an agent has connected to the target and the record is durable, and gives nil then, else why not.
func (s *Raw) Admitted() error {
	s.once.Do(func() {
		s.err = errSettle // for who asks after a panic
		err := s.settle()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.kept, s.gone = nil, true
		s.way.req, s.way.tried, s.record = nil, nil, nil
		switch {
		case err == nil:
			s.admitted = true
			s.idleLocked()
			if s.ending {
				_ = s.stream.CloseWrite()
			}
		case s.closed && !s.lost && protocol.AsError(err).Code == protocol.CodeInterrupted:
			err = &protocol.Error{Code: protocol.CodeCanceled, Origin: protocol.OriginRelay, Message: "the caller went away", Cause: err}
		}
		s.err = err
	})
	return s.err
}

// settle takes the answer, of one agent after the other while they did nothing.
func (s *Raw) settle() error {
	for {
		resp, err := s.now().Answer()
		if err != nil {
			return err
		}
		var refusal error
		if resp != nil {
			if refusal = agentError(resp); refusal == nil {
				refusal = errSenseless // nothing else may answer a dial
			}
			next := s.way.next(resp, nil)
			again := next != nil && s.replay(next)
			_ = resp.Body.Close() // and with it that agent's stream
			if again {
				continue
			}
		}
		if err := s.d.durable(s.waiting(), s.record, s.id); err != nil {
			return err
		}
		return refusal
	}
}

// replay dials by another tunnel and gives it what was written so far. false: that is no longer kept, or nobody takes it; the
// refusal stands.
func (s *Raw) replay(next *hub.Live) bool {
	s.mu.Lock()
	old, gone := s.stream, s.gone || s.closed
	s.mu.Unlock()
	if gone {
		return false
	}
	before := *s.way
	s.way.take(next)
	stream, err := s.way.dial(s.waiting())
	if err != nil {
		*s.way = before
		return false
	}
	// Whoever takes over first closes what the writer may be stuck in: only then is there a turn.
	_ = old.Close()
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	if s.closed || s.gone {
		s.mu.Unlock()
		_ = stream.Close()
		return false
	}
	s.stream, s.lost = stream, false
	kept := s.kept
	s.mu.Unlock()
	if len(kept) > 0 {
		if _, err := stream.Write(kept); err != nil {
			s.mu.Lock()
			s.lost = s.lost || !s.closed
			s.mu.Unlock()
		}
	}
	return true
}

// waiting is the context of a wait: the caller's, and ends with Close, too.
func (s *Raw) waiting() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		s.ctx, s.end = context.WithCancel(s.call)
		if s.closed {
			s.end()
		}
	}
	return s.ctx
}

// idleLocked lets go of it: an idle stream waits for nothing.
func (s *Raw) idleLocked() {
	if s.ctx != nil {
		s.end()
		s.ctx, s.end = nil, nil
	}
}

// now is the stream to the agent that is asked.
func (s *Raw) now() *hub.Dialed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream
}

// Read reads what the target sends, as the budgets allow. Its first error may be Admitted's.
func (s *Raw) Read(p []byte) (int, error) {
	if err := s.Admitted(); err != nil {
		return 0, err
	}
	n, err := s.stream.Read(p) // the last one now
	if n > 0 && s.lease.Waits() {
		if werr := s.lease.Wait(s.waiting(), n); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// AwaitRead is that of the stream (splice.Waiter), once there is an answer.
func (s *Raw) AwaitRead(f func()) bool {
	s.mu.Lock()
	stream, admitted := s.stream, s.admitted
	s.mu.Unlock()
	return admitted && stream.AwaitRead(f)
}

// Write sends to the target. An agent that takes no more before it has answered has refused: the error is Admitted's then.
func (s *Raw) Write(p []byte) (int, error) {
	n, kept, err := s.write(p)
	if err == nil {
		return n, nil
	}
	switch refused := s.Admitted(); { // the answer is here, or none will come
	case refused != nil:
		return n, refused
	case kept: // another agent has it
		return len(p), nil
	}
	return n, err
}

func (s *Raw) write(p []byte) (n int, kept bool, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	switch {
	case s.gone:
	case len(s.kept)+len(p) > replayBytes:
		s.kept, s.gone = nil, true
	default:
		s.kept, kept = append(s.kept, p...), true
	}
	stream := s.stream
	s.mu.Unlock()
	n, err = stream.Write(p)
	if err != nil {
		s.mu.Lock()
		s.lost = s.lost || !s.closed
		s.mu.Unlock()
	}
	return n, kept, err
}

// CloseWrite says that no more comes. Before the answer it is held back until then: net/http at the agent takes an end before
// it for a caller who has gone.
func (s *Raw) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.admitted {
		s.ending = true
		return nil
	}
	return s.stream.CloseWrite()
}

// Close gives the dial up, or ends it. It also ends a Read whose bytes wait for their turn.
func (s *Raw) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.end != nil {
		s.end()
	}
	stream := s.stream
	s.mu.Unlock()
	return stream.Close()
}

// The rest of a net.Conn is the stream's.
func (s *Raw) LocalAddr() net.Addr                { return s.now().LocalAddr() }
func (s *Raw) RemoteAddr() net.Addr               { return s.now().RemoteAddr() }
func (s *Raw) SetDeadline(t time.Time) error      { return s.now().SetDeadline(t) }
func (s *Raw) SetReadDeadline(t time.Time) error  { return s.now().SetReadDeadline(t) }
func (s *Raw) SetWriteDeadline(t time.Time) error { return s.now().SetWriteDeadline(t) }

var errSettle = &protocol.Error{Code: protocol.CodeInternal, Origin: protocol.OriginRelay, Message: "internal error; the details are in the relay's log under the request id"}

var errSenseless = &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginAgent, Message: "the agent's answer makes no sense"}

// durable waits for the record: not a byte of the answer is released before.
func (d *Dispatcher) durable(ctx context.Context, record *audit.Ticket, id string) error {
	err := record.Wait(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return &protocol.Error{Code: protocol.CodeCanceled, Message: "the caller went away", Cause: err}
	}
	return d.unrecorded(id, err)
}
