package api

import (
	"bytes"
	"context"
	"io"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/hub"
)

// Inputs and outputs of the admin routes. The shapes of bodies are the client library's, so that there is one truth. The
// fields stand in each, for huma does not see those of an embedded type that is not exported.
type (
	inWorkspace struct {
		Workspace string `path:"workspace" doc:"name or id"`
	}
	inID struct {
		Workspace string `path:"workspace" doc:"name or id"`
		ID        string `path:"id"`
	}
	inName struct {
		Workspace string `path:"workspace" doc:"name or id"`
		Name      string `path:"name" doc:"name or id"`
	}
	in[T any] struct {
		Workspace string `path:"workspace" doc:"name or id"`
		Body      T
	}
	out[T any] struct{ Body T }
	none       struct{}
)

// route registers an admin route. f is called after the caller was let in and, when the route changes something, after
// the intent was recorded; its outcome is recorded, too.
func route[I, O any](a *API, method, path string, action authz.Action, summary string, status int, f func(ctx context.Context, v *visit, in *I) (*O, error)) {
	a.routes = append(a.routes, Route{Method: method, Path: path, Action: string(action)})
	op := operation(method, path, summary, status)
	changes := method != http.MethodGet
	serve(a, op, func(hc huma.Context, next func(huma.Context)) { a.guard(hc, next, action, changes) }, func(ctx context.Context, v *visit, i *I) (*O, error) {
		if !changes {
			return f(ctx, v, i)
		}
		v.wanting(i)
		o, err := f(ctx, v, i)
		if err == nil {
			if now, gone := a.cfg.Directory.Snapshot().Workspace(v.workspace.ID); gone == nil {
				v.became(now, path, o)
			}
		}
		return o, err
	})
}

// serve is huma.Register for routes whose guard leaves a visit: f gets it, and its errors get their request id.
func serve[I, O any](a *API, op huma.Operation, guard func(huma.Context, func(huma.Context)), f func(context.Context, *visit, *I) (*O, error)) {
	op.Middlewares = huma.Middlewares{guard, a.condition(op.Method, op.Path), a.repeatable(op)}
	list := isList(reflect.TypeFor[O]())
	huma.Register(a.huma, op, func(ctx context.Context, i *I) (*O, error) {
		v, _ := ctx.Value(keyVisit).(*visit)
		if v == nil { // the guard did not run: fail closed
			return nil, problem(unauthenticated())
		}
		o, err := f(ctx, v, i)
		if err == nil {
			err = a.cfg.Directory.Check(ctx)
		}
		if err == nil && list {
			err = a.paged(v.request, v, op.Path, o)
		}
		if err != nil {
			retryAfter(v.header, protocol.AsError(err))
			return nil, a.failed(ctx, err)
		}
		tagOut(v.header, o)
		a.kept(ctx, v, o)
		return o, nil
	})
}

// tagOf groups a route by what stands behind the workspace.
func tagOf(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/workspaces/{workspace}"), "/"), "/")
	if first == "" {
		return "workspace"
	}
	return first
}

// operation describes a route of a small JSON body to huma.
func operation(method, path, summary string, status int) huma.Operation {
	return huma.Operation{Method: method, Path: path, Summary: summary, DefaultStatus: status, MaxBodyBytes: bodyOf(method, path),
		OperationID: strings.ToLower(method) + strings.NewReplacer("/", "-", "{", "", "}", "", "workspaces-workspace-", "").Replace("/"+strings.TrimPrefix(strings.TrimPrefix(path, "/workspaces/{workspace}"), "/")),
		Tags:        []string{tagOf(path)}}
}

// bodyOf is the longest body of a route. An allowlist may hold 100,000 prefixes.
func bodyOf(method, path string) int64 {
	if method == http.MethodPut && strings.HasSuffix(path, "/allowlist") {
		return maxAllowlistBody
	}
	return maxAdminBody
}

// failed makes the answer of a handler's error.
func (a *API) failed(ctx context.Context, err error) error {
	e := *protocol.AsError(err)
	e.RequestID = requestID(ctx)
	if e.Code == protocol.CodeInternal {
		a.cfg.Logger.Error("request failed", "request_id", e.RequestID, "error", err)
	}
	return problem(&e)
}

// guard lets the caller in, records what is about to change, and records how it ended.
func (a *API) guard(hc huma.Context, next func(huma.Context), action authz.Action, changes bool) {
	r, w := humago.Unwrap(hc)
	workspace := hc.Param("workspace")
	v, err := a.enterWhole(r, workspace, action, bodyOf(r.Method, hc.Operation().Path))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	v.request, v.header = r, w.Header()
	if changes || action == authz.AuditRead {
		ev := a.event(r, v, audit.KindChange)
		if action == authz.AuditRead {
			ev.Kind = audit.KindAuditRead
		}
		v.about(hc.Operation().Path)
		ev.Decision, ev.Target, ev.Detail = "allow", r.Method+" "+target(hc, r, v), maps.Clone(v.detail)
		if err := a.record(r.Context(), ev); err != nil {
			a.fail(w, r, err)
			return
		}
		defer func() {
			ev.Detail, ev.Reason = v.detail, v.note
			a.outcome(ev, action, hc.Status())
		}()
	}
	next(huma.WithValue(hc, keyVisit, v))
}

// enterWhole is enter for a request whose body is read whole before anything is done.
func (a *API) enterWhole(r *http.Request, workspace string, action authz.Action, most int64) (*visit, error) {
	v, err := a.enter(r, workspace, action, true)
	if err != nil || r.Body == nil || r.Body == http.NoBody {
		return v, err
	}
	if err := takeBody(r, most); err != nil {
		return nil, err
	}
	// The rules may have changed while the body came: what counts is what holds now.
	if a.cfg.Directory.Snapshot() != v.snap || time.Since(v.entered) > time.Second {
		return a.enter(r, workspace, action, true)
	}
	return v, nil
}

// takeBody reads the body for huma, after the checks that every body passes.
func takeBody(r *http.Request, most int64) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	b, err := readBody(r, most)
	if err == nil && len(b) > 0 {
		err = checkJSON(b)
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return err
}

func (a *API) admin() {
	const ws = "/workspaces/{workspace}"
	route(a, "GET", "/whoami", "", "Who the relay takes the caller for", 200, func(_ context.Context, v *visit, _ *none) (*out[client.Whoami], error) {
		b := client.Whoami{Principal: v.principal.ID, Name: v.principal.Name, Workspace: v.workspace.Name, SourceAddress: v.source.String()}
		b.Roles = roleNames(v.workspace, v.principal)
		return &out[client.Whoami]{b}, nil
	})

	route(a, "GET", ws+"/agents", authz.AgentsRead, "List agents that the caller may see", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Agent]], error) {
		l := client.List[client.Agent]{Items: []client.Agent{}}
		live := a.tunnels(v.workspace)
		for _, ag := range v.workspace.Agents {
			if v.workspace.SeesAgent(v.principal, v.at(), ag) {
				l.Items = append(l.Items, agent(v.workspace, ag, live[ag.ID]))
			}
		}
		return &out[client.List[client.Agent]]{l}, nil
	})
	route(a, "GET", ws+"/agents/{id}", authz.AgentsRead, "One agent", 200, func(_ context.Context, v *visit, i *inID) (*out[client.Agent], error) {
		ag, err := v.workspace.SeenAgent(v.principal, v.at(), i.ID)
		if err != nil {
			return nil, err
		}
		return &out[client.Agent]{agent(v.workspace, ag, a.tunnels(v.workspace)[ag.ID])}, nil
	})
	route(a, "POST", ws+"/agents/{id}/disable", authz.AgentsEdit, "Disable an agent; its tunnels are cut at once", 200, func(ctx context.Context, v *visit, i *inID) (*out[client.Agent], error) {
		if err := a.cfg.Directory.DisableAgentBy(ctx, v.by(), v.workspace.ID, i.ID); err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		return a.oneAgent(v, i.ID)
	})
	route(a, "POST", ws+"/agents/{id}/enable", authz.AgentsEdit, "Enable an agent again", 200, func(ctx context.Context, v *visit, i *inID) (*out[client.Agent], error) {
		if err := a.cfg.Directory.EnableAgentBy(ctx, v.by(), v.workspace.ID, i.ID); err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		return a.oneAgent(v, i.ID)
	})
	route(a, "DELETE", ws+"/agents/{id}", authz.AgentsDelete, "Remove an agent for good", 204, func(ctx context.Context, v *visit, i *inID) (*none, error) {
		return nil, a.recorded(ctx, v, a.cfg.Directory.DeleteAgentBy(ctx, v.by(), v.workspace.ID, i.ID))
	})

	route(a, "GET", ws+"/groups", authz.GroupsRead, "List agent groups that the caller may see", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Group]], error) {
		l := client.List[client.Group]{Items: []client.Group{}}
		for _, g := range v.workspace.Groups {
			if g.Sees(v.principal, v.at()) {
				l.Items = append(l.Items, group(v.workspace, g))
			}
		}
		return &out[client.List[client.Group]]{l}, nil
	})
	route(a, "POST", ws+"/groups", authz.GroupsCreate, "Create an agent group", 201, func(ctx context.Context, v *visit, i *in[client.NewGroup]) (*out[client.Group], error) {
		g, err := a.cfg.Directory.CreateGroupBy(ctx, v.by(), v.workspace.ID, i.Body.Name, authz.Environment(i.Body.Environment))
		if err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		return &out[client.Group]{group(v.workspace, g)}, nil
	})
	route(a, "DELETE", ws+"/groups/{name}", authz.GroupsDelete, "Delete an agent group that is empty", 204, func(ctx context.Context, v *visit, i *inName) (*none, error) {
		return nil, a.recorded(ctx, v, a.cfg.Directory.DeleteGroupBy(ctx, v.by(), v.workspace.ID, i.Name))
	})

	route(a, "GET", ws+"/join-tokens", authz.JoinTokensRead, "List open join tokens that the caller may see", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.JoinToken]], error) {
		l := client.List[client.JoinToken]{Items: []client.JoinToken{}}
		for _, t := range v.workspace.JoinTokens {
			if t.UsedAt.IsZero() && time.Now().Before(t.Expires) && v.workspace.SeesJoinToken(v.principal, v.at(), t) {
				l.Items = append(l.Items, client.JoinToken{ID: t.ID, Group: groupName(v.workspace, t.Group), CreatedAt: t.Created, CreatedBy: t.CreatedBy, ExpiresAt: t.Expires, ETag: t.ETag()})
			}
		}
		return &out[client.List[client.JoinToken]]{l}, nil
	})
	route(a, "POST", ws+"/join-tokens", authz.JoinTokensCreate, "Create a single-use join token; its text is shown this once", 201, func(ctx context.Context, v *visit, i *in[client.NewJoinToken]) (*out[client.CreatedJoinToken], error) {
		t, sec, err := a.cfg.Directory.CreateJoinTokenBy(ctx, v.by(), v.workspace.ID, i.Body.Group, seconds(i.Body.ExpiresInSeconds))
		if err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		text, err := a.cfg.JoinToken(sec)
		if err != nil {
			return nil, err
		}
		return &out[client.CreatedJoinToken]{client.CreatedJoinToken{ID: t.ID, Token: text, Group: groupName(v.workspace, t.Group), ExpiresAt: t.Expires, ETag: t.ETag()}}, nil
	})
	route(a, "DELETE", ws+"/join-tokens/{id}", authz.JoinTokensDelete, "Withdraw a join token", 204, func(ctx context.Context, v *visit, i *inID) (*none, error) {
		return nil, a.recorded(ctx, v, a.cfg.Directory.DeleteJoinTokenBy(ctx, v.by(), v.workspace.ID, i.ID))
	})

	route(a, "GET", ws+"/connections", authz.ConnectionsRead, "List connections that the caller may see", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Connection]], error) {
		l := client.List[client.Connection]{Items: []client.Connection{}}
		for _, c := range v.workspace.Connections {
			if authz.Decide(v.principal, authz.ConnectionsRead, c.Scope(), v.at()).Allow {
				l.Items = append(l.Items, a.connection(v, c))
			}
		}
		return &out[client.List[client.Connection]]{l}, nil
	})
	route(a, "GET", ws+"/connections/{name}", authz.ConnectionsRead, "One connection", 200, func(_ context.Context, v *visit, i *inName) (*out[client.Connection], error) {
		c, err := v.workspace.SeenConnection(v.principal, v.at(), i.Name)
		if err != nil {
			return nil, err
		}
		return &out[client.Connection]{a.connection(v, c)}, nil
	})
	route(a, "POST", ws+"/connections", authz.ConnectionsCreate, "Create a connection to a profile, or to a target of the site's allow list", 201, func(ctx context.Context, v *visit, i *in[client.NewConnection]) (*out[client.Connection], error) {
		b := directory.ConnectionBody{Name: i.Body.Name, Profile: i.Body.Profile, Environment: authz.Environment(i.Body.Environment), In: directory.Place{Project: i.Body.Project, Folder: i.Body.Folder}}
		if t := i.Body.Target; t != nil {
			b.Host, b.Port = t.Host, t.Port
		}
		if i.Body.Gateway != nil {
			return a.createWithGateway(ctx, v, i.Body.Group, b, *i.Body.Gateway)
		}
		c, err := a.cfg.Directory.CreateConnectionBy(ctx, v.by(), v.workspace.ID, i.Body.Group, b)
		if err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		return &out[client.Connection]{a.connection(v, c)}, nil
	})
	route(a, "DELETE", ws+"/connections/{name}", authz.ConnectionsDelete, "Delete a connection; what runs on it is cut", 204, func(ctx context.Context, v *visit, i *inName) (*none, error) {
		return nil, a.recorded(ctx, v, a.cfg.Directory.DeleteConnectionBy(ctx, v.by(), v.workspace.ID, i.Name))
	})

	route(a, "GET", ws+"/tokens", authz.TokensRead, "List API tokens", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Token]], error) {
		l := client.List[client.Token]{Items: []client.Token{}}
		for _, t := range v.workspace.Tokens {
			if t.Revoked.IsZero() {
				l.Items = append(l.Items, token(v.workspace, t))
			}
		}
		return &out[client.List[client.Token]]{l}, nil
	})
	route(a, "POST", ws+"/tokens", authz.TokensCreate, "Create an API token; its text is shown this once", 201, func(ctx context.Context, v *visit, i *in[client.NewToken]) (*out[client.CreatedToken], error) {
		n := directory.NewToken{Name: i.Body.Name, Principal: i.Body.Principal, Life: seconds(i.Body.ExpiresInSeconds), At: v.at(), Connections: i.Body.Connections}
		if len(i.Body.Roles) == 0 && n.Principal == "" {
			return nil, invalid("/roles: want at least one, or a principal", "owner, admin, operator or analyst; principal is a service account")
		}
		var err error
		if n.Roles, err = roles(i.Body.Roles); err == nil {
			n.Only, err = onlyIn(i.Body.Only)
		}
		if err != nil {
			return nil, err
		}
		t, text, err := a.cfg.Directory.CreateToken(ctx, v.principal, v.workspace.ID, n)
		if err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		return a.createdToken(t, text), nil
	})
	route(a, "DELETE", ws+"/tokens/{id}", authz.TokensDelete, "Revoke an API token; what runs with it is cut", 204, func(ctx context.Context, v *visit, i *inID) (*none, error) {
		return nil, a.recorded(ctx, v, a.cfg.Directory.RevokeTokenBy(ctx, v.by(), v.workspace.ID, i.ID))
	})
}

func (a *API) oneAgent(v *visit, id string) (*out[client.Agent], error) {
	ws, err := a.cfg.Directory.Snapshot().Workspace(v.workspace.ID)
	if err != nil {
		return nil, err
	}
	ag, err := ws.Agent(id)
	if err != nil {
		return nil, err
	}
	return &out[client.Agent]{agent(ws, ag, a.tunnels(ws)[ag.ID])}, nil
}

// tunnels gives the live tunnels of a workspace by agent. It costs a look at all of them: once a request, not once an agent.
func (a *API) tunnels(ws *directory.Workspace) map[string][]hub.Info {
	by := map[string][]hub.Info{}
	for _, l := range a.cfg.Hub.List(ws.ID) {
		by[l.Agent] = append(by[l.Agent], l)
	}
	return by
}

// agent joins what is stored with the live tunnels.
func agent(ws *directory.Workspace, ag *directory.Agent, live []hub.Info) client.Agent {
	f := ag.Latest()
	o := client.Agent{ID: ag.ID, Name: ag.Name, Group: groupName(ws, ag.Group), Version: f.Version, ConfigDigest: f.ConfigDigest, ReloadError: f.ReloadError,
		Hostname: f.Hostname, OS: f.OS, Arch: f.Arch, Profiles: f.Profiles, CreatedAt: ag.Created, ETag: ag.ETag()}
	if f.SourceAddress.IsValid() {
		o.SourceAddress = f.SourceAddress.String()
	}
	if _, last := ag.Seen(); !last.IsZero() {
		o.LastSeen = &last
	}
	for _, l := range live {
		o.Tunnels++
		o.Lanes += l.Lanes
		if !slices.Contains(o.Transports, l.Transport) {
			o.Transports = append(o.Transports, l.Transport)
		}
		if o.ConnectedSince == nil || l.Connected.Before(*o.ConnectedSince) {
			o.ConnectedSince = &l.Connected
		}
		if !l.NotAfter.IsZero() && (o.CertificateNotAfter == nil || l.NotAfter.After(*o.CertificateNotAfter)) {
			o.CertificateNotAfter = &l.NotAfter
		}
	}
	switch {
	case ag.Disabled:
		o.State = client.AgentDisabled
	case o.Tunnels > 0:
		o.State = client.AgentActive
	case ag.State() == directory.AgentAwaiting:
		o.State = client.AgentAwaitingSetup
	default:
		o.State = client.AgentNoResponse
	}
	return o
}

func (a *API) connection(v *visit, c *directory.Connection) client.Connection {
	o := client.Connection{ID: c.ID, Name: c.Name, Group: groupName(v.workspace, c.Group), Profile: c.Profile, Environment: string(c.Environment), Gateway: a.gateway(v, c), CreatedAt: c.Created, ETag: c.ETag()}
	o.Project, o.Folder = v.stands(c.Project, c.Folder)
	if c.Profile == "" {
		o.Target, o.Kind = &client.Target{Host: c.Host, Port: c.Port}, protocol.KindTCP
		_, err := a.cfg.Hub.Pick(c.Group, "")
		o.Available = err == nil
		return o
	}
	if offer, ok := a.cfg.Hub.Offer(c.Group, c.Profile); ok {
		o.Kind, o.Adapter, o.Available = offer.Kind, offer.Adapter, true
	}
	return o
}

func group(ws *directory.Workspace, g *directory.Group) client.Group {
	return client.Group{ID: g.ID, Name: g.Name, Environment: string(g.Environment), Agents: len(ws.Members(g.ID)), CreatedAt: g.Created, ETag: g.ETag()}
}

func groupName(ws *directory.Workspace, id string) string {
	if g, err := ws.Group(id); err == nil {
		return g.Name
	}
	return id
}

func token(ws *directory.Workspace, t *directory.Token) client.Token {
	o := client.Token{ID: t.ID, Name: t.Name, Principal: t.Principal.ID, PrincipalName: t.Principal.Name, Personal: t.Personal(), CreatedAt: t.Created,
		Roles: roleNames(ws, t.Principal.Principal), Only: onlyOf(ws, t), ETag: t.ETag()}
	if !t.Expires.IsZero() {
		o.ExpiresAt = &t.Expires
	}
	if u := t.LastUsed(); !u.IsZero() {
		o.LastUsedAt = &u
	}
	if from := t.LastSource(); from.IsValid() {
		o.LastUsedFrom = from.String()
	}
	return o
}

// seconds gives a life; one that no Duration holds becomes one that is out of every range.
func seconds(n int64) time.Duration {
	const most = math.MaxInt64 / int64(time.Second)
	return time.Duration(min(max(n, -1), most)) * time.Second
}
