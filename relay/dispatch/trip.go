package dispatch

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
)

// trip is one call from its decision to its outcome. It is made of steps that return before the next begins, and what they share
// is here rather than in one function's frame: a stream may be open for days, and its goroutine keeps the stack that it needs
// while it waits. With all of it in one frame that was 16 KiB for each stream.
type trip struct {
	d       *Dispatcher
	c       *Call
	lease   budget.Lease
	record  *audit.Ticket // of the intent
	ev      audit.Event   // of the outcome
	way     route
	started time.Time
	ended   bool // as it should, well or not: else a panic passes
}

// begin decides, and records what is about to be done; it is synced while the request travels.
func (d *Dispatcher) begin(ctx context.Context, c *Call) (*trip, error) {
	t := &trip{d: d, c: c, started: time.Now()}
	r := &c.Request
	ev, conn, err := decide(c)
	if err != nil {
		return nil, d.deny(ctx, c.Principal, ev, err)
	}
	if err := d.aim(r, conn); err != nil {
		return nil, d.deny(ctx, c.Principal, ev, err)
	}
	lease, refusal := budget.Begin(d.budgetsOf(conn)...)
	if refusal != nil {
		return nil, d.deny(ctx, c.Principal, ev, refusal.Problem(protocol.OriginRelay))
	}
	r.Principal, r.Connection = c.Principal.ID, conn.ID
	ev.Kind, ev.Decision = audit.KindIntent, "allow"
	if t.record, err = d.Record(ev); err != nil {
		lease.End()
		return nil, d.unrecorded(r.ID, err)
	}
	ev.Kind, ev.Status = audit.KindOutcome, "done"
	t.ev, t.lease, t.way = ev, lease, route{d: d, conn: conn, req: r}
	return t, nil
}

// end records the outcome, whatever came.
func (t *trip) end() {
	defer t.lease.End()
	t.ev.DurationMs = time.Since(t.started).Milliseconds()
	if !t.ended && t.ev.Code == "" {
		t.ev.Code = string(protocol.CodeInternal)
	}
	if t.ev.Code != "" {
		t.ev.Status = "failed"
	}
	if _, err := t.d.Record(t.ev); err != nil {
		t.d.Logger.Error("the outcome could not be recorded", "request_id", t.ev.RequestID, "error", err)
	}
}

// fail notes why the trip failed and gives it the form that the caller may see.
func (t *trip) fail(ctx context.Context, err error) error {
	t.ended = true
	e := *protocol.AsError(err)
	if cut := (*protocol.Error)(nil); errors.As(context.Cause(ctx), &cut) { // the rules changed meanwhile: that is why
		e = *cut
	}
	if e.Origin == "" {
		e.Origin = protocol.OriginRelay
	}
	if e.RequestID == "" {
		e.RequestID = t.ev.RequestID
	}
	t.ev.Code, t.ev.Origin, t.ev.Reason = string(e.Code), string(e.Origin), e.Message
	if e.Rule != "" {
		t.ev.Rule = e.Rule
	}
	return &e
}

// Dialing is a dial on its way, of a caller who copies both ways by itself and holds no goroutine for it.
type Dialing struct {
	Raw *Raw
	t   *trip
	ctx context.Context
}

// Dial is Do for a dial whose caller does not wait until it has ended: End must be called then, once. ctx is that of Do. An error is
// a refusal; it is recorded, and there is nothing to end.
func (d *Dispatcher) Dial(ctx context.Context, c *Call) (*Dialing, error) {
	t, err := d.begin(ctx, c)
	if err != nil {
		return nil, err
	}
	g := &Dialing{t: t, ctx: ctx}
	defer func() {
		if g.Raw == nil { // refused, or a panic passes
			t.end()
		}
	}()
	s, err := d.dial(ctx, &t.way, t.record, t.lease)
	t.ev.Agent = t.way.agent()
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	g.Raw = s
	t.c, t.record = nil, nil // an open stream holds nothing of the request when it has been answered
	return g, nil
}

// End closes the stream and records the outcome: how many bytes went to the target and came from it. Its error is that of Do.
func (g *Dialing) End(in, out int64) error {
	defer g.t.end()
	defer g.Raw.Close()
	g.t.ev.BytesIn, g.t.ev.Bytes = in, out
	return g.t.dialed(g.ctx, g.Raw)
}

// Broke is End for a dial whose copying panicked: the outcome is a fault of ours, whatever the agent said.
func (g *Dialing) Broke(in, out int64) {
	defer g.t.end() // without ended
	g.t.ev.BytesIn, g.t.ev.Bytes = in, out
	_ = g.Raw.Close()
}

// carry ends the dial when raw returns, or panics.
func (g *Dialing) carry(raw func(*Raw) (in, out int64)) error {
	over := false
	defer func() {
		if !over {
			_ = g.Raw.Close()
			g.t.end()
		}
	}()
	in, out := raw(g.Raw)
	over = true
	return g.End(in, out)
}

// dialed is what became of a dial.
func (t *trip) dialed(ctx context.Context, s *Raw) error {
	_ = s.Close() // raw may have left without an answer
	err := s.Admitted()
	t.ev.Agent = t.way.agent()
	if err != nil {
		return t.fail(ctx, err)
	}
	t.ended = true
	if cut := (*protocol.Error)(nil); errors.As(context.Cause(ctx), &cut) { // the rules changed meanwhile
		t.ev.Code, t.ev.Reason = string(cut.Code), cut.Message
	}
	return nil
}

// ask sends a request and copies its answer.
func (t *trip) ask(ctx context.Context, w http.ResponseWriter) error {
	resp, agent, err := t.way.send(ctx, t.c.Body)
	t.ev.Agent = agent
	if err != nil {
		return t.fail(ctx, err)
	}
	defer resp.Body.Close()
	if err := t.d.durable(ctx, t.record, t.ev.RequestID); err != nil {
		return t.fail(ctx, err)
	}
	if e := agentError(resp); e != nil {
		return t.fail(ctx, e)
	}
	// A status that is no final answer would leave the caller's conn in disorder.
	if resp.StatusCode < 200 || resp.StatusCode > 599 {
		return t.fail(ctx, errSenseless)
	}
	n, err := copyAnswer(ctx, w, resp, t.c.Request.Operation == protocol.OpRequest, t.lease)
	t.ev.Bytes, t.ended = n, true
	if err != nil {
		t.ev.Code = string(protocol.CodeInterrupted)
		if ctx.Err() != nil {
			t.ev.Code = string(protocol.CodeCanceled)
		}
		t.d.Logger.Info("answer cut", "request_id", t.ev.RequestID, "bytes", n, "error", err)
		return ErrCut
	}
	if out := outcome(resp); out != nil {
		t.ev.Code, t.ev.Rows, t.ev.BytesIn, t.ev.Truncated = string(out.Code), out.Rows, out.BytesIn, out.Truncated != ""
	}
	return nil
}
