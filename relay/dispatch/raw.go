package dispatch

import (
	"context"
	"sync"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/hub"
)

// Raw is the stream of a dial, before its answer has come. What is written goes in one flight with the request: it waits in the
// agent until that has decided and recorded, as a request's body does. Nothing can be read before the agent has said yes and
// the relay's record is durable.
//
// One goroutine may read while another writes. The raw function of Do does not close it for the caller to see an end: a Read
// that failed with a *protocol.Error is the refusal.
type Raw struct {
	tunnel.Stream
	settle func() error

	once sync.Once
	err  error

	mu       sync.Mutex // guards the fields below
	admitted bool
	ending   bool // CloseWrite came before the answer
	closed   bool // from this side
	lost     bool // a write failed before that
}

// Admitted waits until the agent has connected to the target and the record is durable, and gives nil then, else why not.
func (s *Raw) Admitted() error {
	s.once.Do(func() {
		err := s.settle()
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case err == nil:
			s.admitted = true
			if s.ending {
				_ = s.Stream.CloseWrite()
			}
		case s.closed && !s.lost && protocol.AsError(err).Code == protocol.CodeInterrupted:
			err = &protocol.Error{Code: protocol.CodeCanceled, Origin: protocol.OriginRelay, Message: "the caller went away", Cause: err}
		}
		s.err = err
	})
	return s.err
}

// Read reads what the target sends. Its first error may be Admitted's.
func (s *Raw) Read(p []byte) (int, error) {
	if err := s.Admitted(); err != nil {
		return 0, err
	}
	return s.Stream.Read(p)
}

// Write sends to the target. An agent that takes no more before it has answered has refused: the error is Admitted's then.
func (s *Raw) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	if err == nil {
		return n, nil
	}
	s.mu.Lock()
	s.lost = s.lost || !s.closed
	s.mu.Unlock()
	if refused := s.Admitted(); refused != nil { // the answer is here, or none will come
		err = refused
	}
	return n, err
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
	return s.Stream.CloseWrite()
}

// Close gives the dial up, or ends it.
func (s *Raw) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.Stream.Close()
}

// settled gives what Admitted waits for.
func (d *Dispatcher) settled(ctx context.Context, s *hub.Dialed, record *audit.Ticket, ev audit.Event) func() error {
	return func() error {
		resp, err := s.Answer()
		if err != nil {
			return err
		}
		if resp != nil {
			defer resp.Body.Close()
		}
		if err := d.durable(ctx, record, ev); err != nil {
			return err
		}
		if resp == nil {
			return nil
		}
		if err := agentError(resp); err != nil {
			return err
		}
		return errSenseless // nothing else may answer a dial
	}
}

var errSenseless = &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginAgent, Message: "the agent's answer makes no sense"}

// durable waits for the record: not a byte of the answer is released before.
func (d *Dispatcher) durable(ctx context.Context, record *audit.Ticket, ev audit.Event) error {
	err := record.Wait(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return &protocol.Error{Code: protocol.CodeCanceled, Message: "the caller went away", Cause: err}
	}
	return d.unrecorded(ev, err)
}
