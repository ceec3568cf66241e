package api

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

type ctxKey int

const (
	keyRequestID ctxKey = iota
	keyVisit
	keyTarget // what stands behind /http/, as it was written
)

// withID gives the request its id. A caller's own id is not taken: ids in the audit log are ours.
func withID(w http.ResponseWriter, r *http.Request) *http.Request {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	id := "req_" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
	w.Header().Set(protocol.HeaderRequestID, id)
	return r.WithContext(context.WithValue(r.Context(), keyRequestID, id))
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(keyRequestID).(string)
	return id
}

// visit is one authenticated request.
type visit struct {
	snap      *directory.Snapshot
	principal authz.Principal
	source    netip.Addr
	workspace *directory.Workspace // the one in the path; nil on routes without
	bearer    string               // the whole header, or what it would be for the cookie
	cookie    bool                 // it came as a cookie
	session   *directory.Session   // nil for an API token
	request   *http.Request        // of routes that huma serves
	header    http.Header          // of the answer, where a route sets cookies
	repeat    *directory.Repeat    // nil: the request has no idempotency key
	agent     string               // the program, of who signs in
	detail    map[string]string    // for the records of a change: that it is refused, and how it ended
	was       particulars          // of the thing in the path, before a change
	wants     particulars          // what the request wants
	action    authz.Action
	scope     authz.Scope
	entered   time.Time
	note      string // what the record of a change that was made says beside it
	tunnel    bool   // of callers: each stream is a visit of its own, with an action and a connection
	cancel    context.CancelCauseFunc
}

// enter finds out who asks, from where, and whether the rules let them in. For admin routes (connection "") it also decides the
// action; for operations on a connection dispatch.Do decides, with the same snapshot.
func (a *API) enter(r *http.Request, workspace string, action authz.Action, decide bool) (*visit, error) {
	v := &visit{snap: a.cfg.Directory.Snapshot(), source: a.source(r), action: action, entered: time.Now()}
	var err error
	v.bearer, v.cookie, err = credential(r)
	if err != nil {
		return nil, err
	}
	if v.principal, err = a.cfg.Authn.Authenticate(r.Context(), v.snap, v.bearer, v.source); err != nil {
		return nil, err
	}
	if err := under(v.snap, r, v.principal.Workspace); err != nil {
		return nil, a.denied(r, v, protocol.AsError(err))
	}
	v.session = v.snap.Session(v.principal.Token)
	if v.cookie && v.session == nil { // an API token is no cookie
		return nil, unauthenticated()
	}
	if v.cookie && !safe(r.Method) && !fromHere(r) {
		return nil, a.denied(r, v, crossSite())
	}
	if workspace == "" { // routes about the caller alone
		ws, err := v.snap.Workspace(v.principal.Workspace)
		if err != nil {
			return nil, dispatch.NotFound("workspace")
		}
		if s := v.snap.Side(v.principal); !ws.Admits(s, v.source) {
			return nil, a.denied(r, v, dispatch.OutsideAllowlist(ws, s, v.source))
		}
		v.workspace = ws
		return v, nil
	}
	if v.session != nil {
		if what := v.session.Needs(v.entered); what != "" {
			return nil, a.denied(r, v, needs(what))
		}
	}
	if !decide {
		return v, nil
	}
	ws, err := v.snap.Workspace(workspace)
	if err != nil || ws.ID != v.principal.Workspace {
		return nil, a.denied(r, v, dispatch.NotFound("workspace"))
	}
	v.workspace = ws
	if s := v.snap.Side(v.principal); !ws.Admits(s, v.source) {
		return nil, a.denied(r, v, dispatch.OutsideAllowlist(ws, s, v.source))
	}
	v.scope = authz.Scope{Workspace: ws.ID}
	row, ok := authz.Find(action)
	if !ok {
		return nil, a.denied(r, v, &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Message: "this route stands in no row of the permission table"})
	}
	if row.Level == authz.OnConnection {
		return v, nil // a list: each item is decided by itself
	}
	d := authz.Decide(v.principal, action, v.scope, v.at())
	if row.Level == authz.OnScope || row.Level == authz.OnEnvironment { // the handler decides on the scope that it is about
		d = authz.Somewhere(v.principal, action, ws.ID, v.at())
	}
	if !d.Allow {
		return nil, a.denied(r, v, mayNot(action, d))
	}
	if v.session != nil && action.Dangerous() && !v.session.Fresh(v.entered) {
		return nil, a.denied(r, v, wantsStepUp())
	}
	return v, nil
}

// at is when and from where the visitor asks.
func (v *visit) at() authz.At { return authz.At{Time: time.Now(), Source: v.source} }

// by is the visitor as one who changes rights.
func (v *visit) by() directory.By {
	return directory.By{ID: v.principal.ID, At: v.at(), Token: v.principal.Token}
}

// may decides an action on a scope of the workspace, for routes whose action is about whatever scope is named.
func (a *API) may(ctx context.Context, v *visit, action authz.Action, s authz.Scope) error {
	if d := authz.Decide(v.principal, action, s, v.at()); !d.Allow {
		return a.deniedIn(ctx, v, mayNot(action, d))
	}
	return nil
}

func mayNot(action authz.Action, d authz.Decision) *protocol.Error {
	return directory.MayNot(action, d)
}

// denied records a refusal on an admin route.
func (a *API) denied(r *http.Request, v *visit, e *protocol.Error) error {
	return a.deniedIn(r.Context(), v, e)
}

func (a *API) deniedIn(ctx context.Context, v *visit, e *protocol.Error) error {
	ev := a.eventIn(ctx, v, audit.KindDenied)
	ev.Decision, ev.Code, ev.Rule, ev.Reason, ev.Detail = "deny", string(e.Code), e.Rule, e.Message, maps.Clone(v.detail)
	a.cfg.Dispatch.Denied(ctx, v.principal, ev)
	return e
}

// event is an audit event about the visit.
func (a *API) event(r *http.Request, v *visit, kind audit.Kind) audit.Event {
	return a.eventIn(r.Context(), v, kind)
}

func (a *API) eventIn(ctx context.Context, v *visit, kind audit.Kind) audit.Event {
	return audit.Event{Kind: kind, Workspace: v.principal.Workspace, RequestID: requestID(ctx), Principal: v.principal.ID, PrincipalName: v.principal.Name,
		SourceAddress: v.source.String(), Operation: string(v.action), Origin: string(protocol.OriginRelay)}
}

// record writes an event and waits until it is durable; the act it tells of comes after.
func (a *API) record(ctx context.Context, ev audit.Event) error {
	t, err := a.cfg.Dispatch.Record(ev)
	if err == nil {
		err = t.Wait(ctx)
	}
	if err != nil {
		return &protocol.Error{Code: protocol.CodeAuditUnavailable, Origin: protocol.OriginRelay, Cause: err, Message: "the relay cannot write its audit log, so nothing was changed",
			Hint: "the relay operator should check free space and the relay's log"}
	}
	return nil
}

func unauthenticated() error {
	return &protocol.Error{Code: protocol.CodeUnauthenticated, Origin: protocol.OriginRelay, Message: "no valid API token or session was given",
		Hint: "send `Authorization: Bearer flt_…`; with the CLI, use `fairlead login` or --token-file"}
}

// source is the caller's address: the socket's, or, when the socket is a trusted proxy, the right-most address of
// X-Forwarded-For that is not one. A trusted proxy that names nobody gets the invalid address, which no allowlist holds.
func (a *API) source(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	addr = addr.Unmap().WithZone("")
	if !trusted(a.cfg.TrustedProxies, addr) {
		return addr
	}
	var hops []string
	for _, v := range r.Header.Values("X-Forwarded-For") {
		hops = append(hops, strings.Split(v, ",")...)
	}
	for i := len(hops) - 1; i >= 0; i-- {
		h, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			return netip.Addr{}
		}
		if h = h.Unmap().WithZone(""); !trusted(a.cfg.TrustedProxies, h) {
			return h
		}
	}
	return netip.Addr{}
}

func trusted(proxies []netip.Prefix, a netip.Addr) bool {
	for _, p := range proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// visits holds the requests that are under way, so that a change of the rules reaches them.
type visits struct {
	mu   sync.Mutex // guards open
	open map[*visit]struct{}
}

func newVisits() *visits { return &visits{open: map[*visit]struct{}{}} }

// admit registers a visit; the context it returns ends when the rules no longer allow it.
func (s *visits) admit(ctx context.Context, v *visit) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	v.cancel = cancel
	s.mu.Lock()
	s.open[v] = struct{}{}
	s.mu.Unlock()
	return ctx, func() {
		s.mu.Lock()
		delete(s.open, v)
		s.mu.Unlock()
		cancel(nil)
	}
}

// recheck asks for every visit under way whether it would be let in now.
func (s *visits) recheck(a *API) {
	s.mu.Lock()
	all := make([]*visit, 0, len(s.open))
	for v := range s.open {
		all = append(all, v)
	}
	s.mu.Unlock()
	snap := a.cfg.Directory.Snapshot()
	for _, v := range all {
		if err := stillAllowed(a, snap, v); err != nil {
			v.cancel(err)
		}
	}
}

func stillAllowed(a *API, snap *directory.Snapshot, v *visit) error {
	p, err := a.cfg.Authn.Still(snap, v.bearer, v.principal.Token)
	if err != nil {
		return err
	}
	ws, err := snap.Workspace(v.scope.Workspace)
	if err != nil {
		return dispatch.NotFound("workspace")
	}
	if s := snap.Side(v.principal); !ws.Admits(s, v.source) {
		return dispatch.OutsideAllowlist(ws, s, v.source)
	}
	if s := snap.Session(v.principal.Token); s != nil {
		if what := s.Needs(time.Now()); what != "" {
			return needs(what)
		}
	}
	if v.tunnel {
		return nil
	}
	scope := v.scope
	if scope.Connection != "" {
		c, err := ws.Connection(scope.Connection)
		if err != nil {
			return dispatch.NotFound("connection")
		}
		scope = c.Scope() // it may stand elsewhere now
	}
	if d := authz.Decide(p, v.action, scope, v.at()); !d.Allow {
		return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Message: "your rights changed: " + d.Reason}
	}
	return nil
}
