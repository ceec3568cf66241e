package dispatch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/hub"
)

// ErrCut means that the answer had begun and then broke off: the caller's answer must be aborted, so that the cut is
// seen.
var ErrCut = errors.New("answer cut")

// Dispatcher carries requests. It is safe for concurrent use.
type Dispatcher struct {
	Hub *hub.Hub
	// Record writes an event to the audit log of its workspace.
	Record func(audit.Event) (*audit.Ticket, error)
	Logger *slog.Logger
	// Limits of each workspace, whatever its own admins set: these can only narrow them. Not changed after the first call.
	Limits budget.Limits
	// LimitsOf single workspaces, by name, stand in place of Limits. Not changed after the first call.
	LimitsOf map[string]budget.Limits
	// DeniedRate and DeniedBurst say how many refusals of one token are recorded one by one, a second and at once; the others
	// are counted, and Run records the counts. DefaultDeniedRate and DefaultDeniedBurst when zero.
	DeniedRate, DeniedBurst int

	budgets budget.Book
	denials denials

	syncing sync.Mutex // guards synced, and orders Sync
	synced  int64      // generation of the snapshot whose budgets are in force
}

// Call is one request of a principal.
type Call struct {
	Snapshot   *directory.Snapshot // one view for every decision below
	Principal  authz.Principal
	Source     netip.Addr // unmapped
	Workspace  string     // name or id, as the caller wrote it
	Connection string     // name or id
	// Request holds the operation, its parameters, id and forwarded headers. Kind, profile and target come from the
	// connection, principal and connection id from the decision.
	Request protocol.Request
	Body    io.Reader // nil when there is none
	// Detail stands in every event of the call (audit.DetailClass). It is not changed.
	Detail map[string]string
}

// Do makes the trip and copies the answer to w. An error is returned when nothing was written to w; it is a
// *protocol.Error that is safe to show. ErrCut is returned when the answer broke off. The call is Do's until it returns.
//
// For a dial, raw is called with the stream as soon as the request is on its way, and has until its return to copy both ways;
// w is not used then. An error after that is a refusal, or the reason of the end: nothing of the target's was read, or the
// rules changed.
func (d *Dispatcher) Do(ctx context.Context, c *Call, w http.ResponseWriter, raw func(*Raw) (in, out int64)) error {
	if c.Request.Operation == protocol.OpDial {
		g, err := d.Dial(ctx, c)
		if err != nil {
			return err
		}
		return g.carry(raw)
	}
	t, err := d.begin(ctx, c)
	if err != nil {
		return err
	}
	defer t.end()
	return t.ask(ctx, w)
}

// Refusal makes the decision of Do alone, its budgets included, and returns the refusal, recorded, or nil: for who wants to know
// before it reads the caller's body. Do decides again.
func (d *Dispatcher) Refusal(ctx context.Context, c *Call) error {
	ev, conn, err := decide(c)
	if err != nil {
		return d.deny(ctx, c.Principal, ev, err)
	}
	if r := budget.Peek(d.budgetsOf(conn)...); r != nil {
		return d.deny(ctx, c.Principal, ev, r.Problem(protocol.OriginRelay))
	}
	return nil
}

// decide answers whether the principal may: workspace, allowlist, connection, grant, all of one snapshot.
func decide(c *Call) (audit.Event, *directory.Connection, error) {
	r := &c.Request
	ev := audit.Event{Kind: audit.KindDenied, RequestID: r.ID, Origin: string(protocol.OriginRelay), Principal: c.Principal.ID, PrincipalName: c.Principal.Name,
		SourceAddress: c.Source.String(), Operation: string(r.Operation), Target: target(r), Decision: "deny", Detail: c.Detail}
	// Another workspace's things answer exactly as missing ones.
	ws, err := c.Snapshot.Workspace(c.Workspace)
	if err != nil || ws.ID != c.Principal.Workspace {
		ev.Workspace = c.Principal.Workspace
		return ev, nil, NotFound("workspace")
	}
	ev.Workspace = ws.ID
	if s := c.Snapshot.Side(c.Principal); !ws.Admits(s, c.Source) {
		return ev, nil, OutsideAllowlist(ws, s, c.Source)
	}
	conn, err := ws.Connection(c.Connection)
	if err != nil {
		return ev, nil, err
	}
	ev.Connection, ev.ConnectionName, ev.Group, ev.Profile = conn.ID, conn.Name, conn.Group, conn.Profile
	at := authz.At{Time: time.Now(), Source: c.Source}
	decision := authz.Decide(c.Principal, authz.ForOperation(r.Operation, r.Method), conn.Scope(), at)
	ev.Rule = decision.Grant
	switch {
	case decision.Allow:
	case !authz.Anything(c.Principal, conn.Scope(), at):
		return ev, nil, unseen{MayNot(r.Operation, decision)}
	default:
		return ev, nil, MayNot(r.Operation, decision)
	}
	return ev, conn, nil
}

// unseen is the refusal of somebody who may do nothing on a connection, and so does not learn that it is there: it is recorded as it
// is, and told as that of a missing one.
type unseen struct{ why *protocol.Error }

func (u unseen) Error() string { return u.why.Error() }

// aim fills in where the request goes.
func (d *Dispatcher) aim(r *protocol.Request, c *directory.Connection) error {
	r.Profile = c.Profile
	switch r.Operation {
	case protocol.OpQuery, protocol.OpExec, protocol.OpTransaction, protocol.OpSchema:
		r.Kind = protocol.KindDatabase
	case protocol.OpRequest:
		r.Kind = protocol.KindHTTP
	case protocol.OpDial:
		r.Kind = protocol.KindTCP
		if c.Profile == "" {
			r.Profile, r.Host, r.Port = protocol.NoProfile, c.Host, c.Port
			return nil
		}
		if o, ok := d.Hub.Offer(c.Group, c.Profile); ok && o.Kind == protocol.KindDatabase {
			r.Kind = o.Kind
		}
	default:
		r.Kind = protocol.KindFiles
	}
	if c.Profile == "" {
		return &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginRelay, Message: "this connection names a host and port; it takes dial only",
			Hint: "use `fairlead connect`, or create a connection to a profile of the agent"}
	}
	return nil
}

// deny records a refusal and returns it.
func (d *Dispatcher) deny(ctx context.Context, p authz.Principal, ev audit.Event, err error) error {
	told := err
	if u := (unseen{}); errors.As(err, &u) {
		err, told = u.why, directory.NoConnection()
	}
	e := protocol.AsError(err)
	ev.Code, ev.Reason = string(e.Code), e.Message
	if e.Rule != "" {
		ev.Rule = e.Rule
	}
	d.Denied(ctx, p, ev)
	said := *protocol.AsError(told)
	said.RequestID = ev.RequestID
	return &said
}

func (d *Dispatcher) unrecorded(id string, err error) error {
	d.Logger.Error("the audit log is not available; operations are refused", "request_id", id, "error", err)
	return &protocol.Error{Code: protocol.CodeAuditUnavailable, Origin: protocol.OriginRelay, RequestID: id, Cause: err,
		Message: "the relay cannot write its audit log, so it releases nothing", Hint: "the relay operator should check free space and the relay's log"}
}

// NotFound is the one answer for what is not there and for what is not yours.
func NotFound(what string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Origin: protocol.OriginRelay, Message: "no such " + what}
}

// MayNot says that the caller's rights do not reach an operation.
func MayNot(op protocol.Operation, d authz.Decision) *protocol.Error {
	e := &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Message: "you may not " + string(op) + " on this connection: " + d.Reason,
		Hint: "an admin of the workspace can give a role that allows it"}
	if d.Limited {
		e.Rule, e.Hint = authz.RuleToken, authz.HintToken
	}
	return e
}

// OutsideAllowlist says that the caller's address is not admitted.
func OutsideAllowlist(w *directory.Workspace, s directory.Side, a netip.Addr) *protocol.Error {
	list, set := "allowlist", "`fairlead allowlist set`"
	if rule := w.Rule(s); rule != list {
		list, set = "allowlist for "+string(s), "`fairlead allowlist set --for "+string(s)+"`"
	}
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: w.Rule(s), Message: "your address " + a.String() + " is not on the workspace's " + list,
		Hint: "an admin can add it from an address that is: " + set}
}
