package agent

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/mask"
	"github.com/fairleadhq/fairlead/protocol"
)

// newID makes an id: the prefix, then 128 random bits.
func newID(prefix string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return prefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// Causes by which a running operation is ended from this side.
var (
	errNarrowed = &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginAgent, Message: "the site's configuration changed and no longer allows this operation",
		Hint: "ask the on-prem admin; `fairlead-agent explain` tells which rule decides"}
	errStopping = &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginAgent, Message: "the agent is stopping"}
	errDraining = &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginAgent, Message: "the agent is stopping; nothing was done", NotBegun: true}
)

// trips serves operations: the second half of the trip. One goroutine a stream decides, records, does, records again.
type trips struct {
	log     *slog.Logger
	rec     *audit.Recorder
	acquire func() *site // retained; the caller releases

	refusals *refusals
	asked    asked
	budgets  budgets

	mu       sync.Mutex // guards the fields below
	active   map[*trip]struct{}
	draining bool
	idle     chan struct{} // closed when draining and active is empty
}

// trip is one running operation.
type trip struct {
	op     policy.Operation
	cancel context.CancelCauseFunc

	// Guarded by trips.mu. What was decided and reached, for the question whether a newer policy would have it so.
	decided bool
	mask    *mask.Set
	addr    netip.AddrPort // of a raw dial
}

// stands reports whether a newer policy allows the trip as it runs: the operation, the address that a dial reached, and
// the masks that its answer leaves with.
func (t *trip) stands(p *policy.Policy) bool {
	d := p.Decide(t.op)
	if !d.Allow || t.decided && !reflect.DeepEqual(t.mask, d.Mask) {
		return false
	}
	r := t.op.Request
	switch {
	case !t.addr.IsValid():
		return true
	case r.Profile == protocol.NoProfile:
		return p.DecideAddr(r.Host, t.addr).Allow
	default:
		return p.DecideProfileAddr(r.Kind, r.Profile, t.addr).Allow
	}
}

func newTrips(log *slog.Logger, rec *audit.Recorder, acquire func() *site) *trips {
	s := &trips{log: log, rec: rec, acquire: acquire, active: map[*trip]struct{}{}, idle: make(chan struct{})}
	s.refusals = newRefusals(s.tellRefusals)
	return s
}

// begin admits a trip, or refuses it because the agent drains.
func (s *trips) begin(t *trip) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return errDraining
	}
	s.active[t] = struct{}{}
	return nil
}

func (s *trips) end(t *trip) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.active, t)
	if s.draining && len(s.active) == 0 {
		s.closeIdleLocked()
	}
}

func (s *trips) closeIdleLocked() {
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

// cancelTime is how long cancelled trips get to put down their outcome.
const cancelTime = 5 * time.Second

// drain refuses new trips, waits for the running ones until ctx ends, then cancels what is left and gives it a moment:
// the audit log closes after drain, and each intent in it shall have its outcome.
func (s *trips) drain(ctx context.Context) {
	defer s.refusals.flush()
	s.mu.Lock()
	s.draining = true
	if len(s.active) == 0 {
		s.closeIdleLocked()
	}
	s.mu.Unlock()
	select {
	case <-s.idle:
	case <-ctx.Done():
		s.mu.Lock()
		for t := range s.active {
			t.cancel(errStopping)
		}
		s.mu.Unlock()
		select {
		case <-s.idle:
		case <-time.After(cancelTime):
			s.log.Error("operations did not end when they were cancelled")
		}
	}
}

// narrow ends the running trips that the policy now in force would refuse.
func (s *trips) narrow(p *policy.Policy) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for t := range s.active {
		if !t.stands(p) {
			t.cancel(errNarrowed)
			n++
		}
	}
	return n
}

// ServeHTTP serves one stream. A refusal is an answer: whatever happens here costs this stream only.
func (s *trips) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	ev := audit.Event{Kind: audit.KindDenied, RequestID: r.Header.Get(protocol.HeaderRequestID), Origin: string(protocol.OriginAgent)}
	var committed bool
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			panic(p) // the server resets the stream, so that a cut answer is seen as cut
		}
		// The stack may hold row data; it goes to the debug log only.
		s.log.Error("operation panicked", "request_id", ev.RequestID, "panic", fmt.Sprintf("%T", p))
		ev.Kind, ev.Code = audit.KindInternal, string(protocol.CodeInternal)
		_, _ = s.rec.Record(ev)
		if committed {
			panic(http.ErrAbortHandler)
		}
		writeProblem(w, &protocol.Error{Code: protocol.CodeInternal, Origin: protocol.OriginAgent, Message: "internal error; the details are in the agent's log under the request id", RequestID: ev.RequestID})
	}()

	req, err := protocol.ParseRequest(r)
	if err != nil {
		s.refuse(r.Context(), w, ev, err)
		return
	}
	if req.ID == "" {
		req.ID = newID("req_")
	}
	describe(&ev, req)
	op := policy.Operation{Request: req}
	call := &connector.Call{Request: req, Body: r.Body}
	if req.Kind == protocol.KindDatabase && req.Operation != protocol.OpDial && req.Operation != protocol.OpSchema {
		if call.Database, op.Statements, err = decodeStatements(req, r.Body); err != nil {
			s.refuse(r.Context(), w, ev, err)
			return
		}
		call.Body = nil
	}

	// What the trip holds, last first. A raw dial goes on when this returns, and then takes it along.
	var later func(ended func(protocol.Outcome))
	var held []func()
	release := func() {
		for i := range held {
			held[len(held)-1-i]()
		}
	}
	defer func() {
		if later == nil {
			release()
		}
	}()
	ctx, cancel := context.WithCancelCause(context.Background()) // not the request's, which a dial would keep
	stop := context.AfterFunc(r.Context(), func() { cancel(context.Canceled) })
	defer stop()
	held = append(held, func() { cancel(nil) })
	t := &trip{op: op, cancel: cancel}
	// Admitted before the site is taken: a reload either comes before, and the new site is taken, or finds the trip and
	// decides it again.
	if err := s.begin(t); err != nil {
		ev.Target = "" // no site is at hand any more whose masks would hold for it
		s.refuse(r.Context(), w, ev, err)
		return
	}
	held = append(held, func() { s.end(t) })
	site := s.acquire()
	held = append(held, site.release)

	d := site.policy.Decide(op)
	ev.Rule, ev.Reason, ev.Statement = d.Rule, d.Reason, d.Fingerprint
	ev.Target, _ = d.EventMask.Text(ev.Target)
	ev.Statement, _ = d.EventMask.Text(ev.Statement)
	if req.Explains() {
		s.explain(ctx, w, ev, d)
		return
	}
	if !d.Allow {
		s.refuse(ctx, w, ev, &protocol.Error{Code: d.Code, Origin: protocol.OriginAgent, Message: d.Reason, Rule: d.Rule, Hint: d.Hint})
		return
	}
	call.Decision = d
	s.mu.Lock()
	t.decided, t.mask = true, d.Mask
	s.mu.Unlock()
	call.Connected = func(a netip.AddrPort) {
		s.mu.Lock()
		t.addr = a
		s.mu.Unlock()
		// A reload that came between the dial's own decision and this has not seen the address.
		if now := s.acquire(); now != nil {
			if now.policy != site.policy && !t.stands(now.policy) {
				cancel(errNarrowed)
			}
			now.release()
		}
	}
	conn := site.connector(req)
	if conn == nil {
		s.refuse(ctx, w, ev, &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginAgent, Message: "the profile is allowed but could not be set up on the agent", Rule: d.Rule,
			Hint: "see the agent's log"})
		return
	}

	lease, refusal := budget.Begin(s.budgets.of(req)...)
	if refusal != nil {
		ev.Reason = ""
		e := refusal.Problem(protocol.OriginAgent)
		e.NotBegun = true
		s.refuse(ctx, w, ev, e)
		return
	}
	held = append(held, lease.End)

	// No act without a record: the intent is durable before the target is touched.
	ev.Kind, ev.Decision = audit.KindIntent, "allow"
	if err := s.record(ctx, ev); err != nil {
		// It may stand in the log though nobody waits for it any more: then so shall its end.
		ev.Kind, ev.Status, ev.Code = audit.KindOutcome, "failed", string(err.Code)
		_, _ = s.rec.Record(ev)
		writeProblem(w, err)
		return
	}

	limit := d.Limits.Timeout
	if req.Operation == protocol.OpDial {
		call.Later = func(rest func(func(protocol.Outcome))) { later = rest }
	} else if limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, limit)
		defer stop()
	}
	w.Header().Set(protocol.HeaderRule, d.Rule)
	cw := &commitWriter{ResponseWriter: w, committed: &committed, pace: pacer{ctx, lease, func(err error) { cancel(err) }}}
	out, err := conn.Do(ctx, call, cw)
	if later != nil {
		stop() // the request ends with this call, the dial does not: its end comes by the stream, or by cancel
		s.mu.Lock()
		req.Header = nil // narrow looks at the rest
		s.mu.Unlock()
		s.serveRest(&ev, started, later, release)
		return
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		var e *protocol.Error
		switch {
		case errors.As(cause, &e):
			err = e
		case errors.Is(cause, context.DeadlineExceeded):
			err = &protocol.Error{Code: protocol.CodeTimeout, Origin: protocol.OriginAgent, Message: fmt.Sprintf("the time limit of %s ended the operation", limit.Round(time.Millisecond)), Rule: d.Rule, Cause: err}
		case errors.Is(cause, context.Canceled):
			err = &protocol.Error{Code: protocol.CodeCanceled, Origin: protocol.OriginAgent, Message: "the caller went away", Cause: err}
		}
	}
	if err != nil {
		e := protocol.AsError(err)
		if e.Origin == "" {
			e.Origin = protocol.OriginAgent
		}
		out.Code = e.Code
		if e.Code == protocol.CodeDenied { // by a rule that needed more than the request: an address after resolution
			ev.Decision, ev.Reason = "deny", e.Message
			if e.Rule != "" {
				ev.Rule = e.Rule
			}
		}
		if e.Code == protocol.CodeInternal {
			s.log.Error("operation failed", "request_id", req.ID, "profile", req.Profile, "operation", string(req.Operation), "error", e.Unwrap())
		} else {
			s.log.Debug("operation ended with an error", "request_id", req.ID, "profile", req.Profile, "code", string(e.Code), "error", e.Unwrap())
		}
		err = e
	}
	s.conclude(&ev, started, out)
	switch {
	case err == nil:
		out.Rule = d.Rule
		if b, merr := json.Marshal(out); merr == nil {
			w.Header().Set(http.TrailerPrefix+protocol.TrailerOutcome, string(b))
		}
	case !committed:
		e := err.(*protocol.Error)
		e.RequestID = req.ID
		if e.Rule == "" {
			e.Rule = d.Rule
		}
		writeProblem(w, e)
	default:
		panic(http.ErrAbortHandler)
	}
}

// refuse records a refusal and answers it. The answer goes out even when the record cannot be written: nothing was
// done.
func (s *trips) refuse(ctx context.Context, w http.ResponseWriter, ev audit.Event, err error) {
	e := *protocol.AsError(err)
	if e.Origin == "" {
		e.Origin = protocol.OriginAgent
	}
	e.RequestID = ev.RequestID
	ev.Decision, ev.Code, ev.Rule = "deny", string(e.Code), e.Rule
	if ev.Reason == "" {
		ev.Reason = e.Message
	}
	if !s.refusals.admit() {
		if s.refusals.wait(ctx) {
			writeProblem(w, &e)
		}
		return
	}
	if rerr := s.record(ctx, ev); rerr != nil && rerr.Code == protocol.CodeAuditUnavailable {
		s.log.Warn("a refusal could not be recorded", "request_id", ev.RequestID, "error", rerr.Unwrap())
	}
	s.log.Info("operation refused", "request_id", ev.RequestID, "profile", ev.Profile, "operation", ev.Operation, "rule", e.Rule, "code", string(e.Code))
	writeProblem(w, &e)
}

// record writes an event and waits until it is durable.
func (s *trips) record(ctx context.Context, ev audit.Event) *protocol.Error {
	t, err := s.rec.Record(ev)
	if err == nil {
		err = t.Wait(ctx)
	}
	if err == nil {
		return nil
	}
	var cause *protocol.Error
	if ctx.Err() == nil {
		s.log.Error("audit log is not available; operations are refused", "error", err)
	} else if errors.As(context.Cause(ctx), &cause) { // narrowed or stopping while it waited
		e := *cause
		e.RequestID = ev.RequestID
		return &e
	} else { // the record itself stands, or will
		return &protocol.Error{Code: protocol.CodeCanceled, Origin: protocol.OriginAgent, RequestID: ev.RequestID, Cause: err, Message: "the caller went away"}
	}
	return &protocol.Error{Code: protocol.CodeAuditUnavailable, Origin: protocol.OriginAgent, RequestID: ev.RequestID, Cause: err,
		Message: "the agent cannot write its audit log, so it does nothing",
		Hint:    "the on-prem admin should check free space and the state of the agent's data folder"}
}

// describe fills what the request says of itself. Principal, connection and the source that a target is told are the
// relay's claims, not the agent's finding: they stand under claimed.
func describe(ev *audit.Event, r *protocol.Request) {
	ev.RequestID, ev.Profile, ev.Operation = r.ID, r.Profile, string(r.Operation)
	source := ""
	if r.Proxy.Valid() {
		source = r.Proxy.Source.Addr().String()
	}
	for k, v := range map[string]string{"principal": r.Principal, "connection": r.Connection, "source_address": source} {
		if v == "" {
			continue
		}
		if ev.Claimed == nil {
			ev.Claimed = map[string]string{}
		}
		ev.Claimed[k] = v
	}
	switch {
	case r.Operation == protocol.OpRequest:
		path, _, _ := strings.Cut(r.Target, "?") // a query string may hold anything
		ev.Target = r.Method + " " + path
	case r.Host != "":
		ev.Target = fmt.Sprintf("%s:%d", r.Host, r.Port)
	case r.To != "":
		ev.Target = r.Path + " -> " + r.To
	default:
		ev.Target = r.Path
	}
}

// decodeStatements reads the body of a database operation strictly.
func decodeStatements(r *protocol.Request, body io.Reader) (*connector.DatabaseBody, []protocol.Statement, error) {
	dec := json.NewDecoder(io.LimitReader(body, protocol.MaxBodyBytes+1))
	dec.DisallowUnknownFields()
	bad := func(err error) error {
		if errors.Is(err, io.ErrUnexpectedEOF) && dec.InputOffset() > protocol.MaxBodyBytes {
			return protocol.Errorf(protocol.CodeTooLarge, "the body is longer than %d bytes", protocol.MaxBodyBytes)
		}
		return &protocol.Error{Code: protocol.CodeInvalid, Message: fmt.Sprintf("the body is not the JSON that %s takes (near byte %d)", r.Operation, dec.InputOffset()), Cause: err}
	}
	b := &connector.DatabaseBody{}
	var list []protocol.Statement
	if r.Operation == protocol.OpTransaction {
		b.Transaction = &protocol.TransactionBody{}
		if err := dec.Decode(b.Transaction); err != nil {
			return nil, nil, bad(err)
		}
		list = b.Transaction.Statements
	} else {
		b.Query = &protocol.QueryBody{}
		if err := dec.Decode(b.Query); err != nil {
			return nil, nil, bad(err)
		}
		list = []protocol.Statement{b.Query.Statement}
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, nil, protocol.Errorf(protocol.CodeInvalid, "the body goes on after its JSON value")
	}
	if len(list) == 0 {
		return nil, nil, protocol.Errorf(protocol.CodeInvalid, "no statement")
	}
	for _, st := range list {
		if (st.SQL == "") == (st.Name == "") {
			return nil, nil, protocol.Errorf(protocol.CodeInvalid, "want either sql or statement, the name of one that the site declares")
		}
	}
	return b, list, nil
}

// writeProblem answers an error. It must not be called after the first byte of an answer.
func writeProblem(w http.ResponseWriter, e *protocol.Error) {
	b, err := json.Marshal(e)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	for k := range h {
		h.Del(k) // headers that the connector had set were of an answer that is not given
	}
	h.Set("Content-Type", "application/json")
	h.Set(protocol.HeaderOrigin, string(e.Origin))
	if e.NotBegun {
		h.Set(protocol.HeaderNotBegun, "1")
	}
	if e.RetryAfterMs > 0 {
		h.Set("Retry-After", strconv.FormatInt((e.RetryAfterMs+999)/1000, 10))
	}
	if e.Rule != "" {
		h.Set(protocol.HeaderRule, e.Rule)
	}
	w.WriteHeader(e.Code.Status())
	_, _ = w.Write(b)
}
