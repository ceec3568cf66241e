package api

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

type inExplain struct {
	Workspace  string `path:"workspace" doc:"name or id"`
	Principal  string `query:"principal" doc:"whom it is about: name or id; or token"`
	Token      string `query:"token" doc:"id of a token that it is about, with its limits; not with principal"`
	Action     string `query:"action" doc:"an action of the permission table, or an operation on a connection"`
	Connection string `query:"connection" doc:"name or id; empty for an action on the workspace or a part of it"`
	Project    string `query:"project" doc:"name or id of the project that it is about; not with connection"`
	Folder     string `query:"folder" doc:"path or id of the folder of the project"`
	In         string `query:"environment" doc:"environment that it is about; not with connection"`
	Source     string `query:"source" doc:"address to come from; empty: the asker's own"`

	// What the operation would be, so that the site can be asked.
	SQL       string `query:"sql" doc:"statement that a query, exec or transaction would run; the site is asked what it would decide"`
	Statement string `query:"statement" doc:"name of a statement that the site declares, in place of sql"`
	Path      string `query:"path" doc:"file or folder of an operation on files"`
	To        string `query:"to" doc:"where a move would go"`
	Method    string `query:"method" doc:"method of a request to an HTTP service"`
	Target    string `query:"target" doc:"path and query of a request, beginning with /"`
}

// grantRoutes are those of grants, and of what comes of them.
func (a *API) grantRoutes() {
	const ws = "/workspaces/{workspace}"
	route(a, "GET", ws+"/grants", authz.GrantsRead, "List grants that the caller may see", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Grant]], error) {
		l := client.List[client.Grant]{Items: []client.Grant{}}
		at := v.at()
		for _, g := range v.workspace.Grants {
			if authz.Decide(v.principal, authz.GrantsRead, v.workspace.ScopeOf(g), at).Allow {
				l.Items = append(l.Items, grant(v.workspace, g, at.Time))
			}
		}
		return &out[client.List[client.Grant]]{l}, nil
	})
	route(a, "POST", ws+"/grants", authz.GrantsCreate, "Give a role, no more of it than the caller holds", 201, func(ctx context.Context, v *visit, i *in[client.NewGrant]) (*out[client.Grant], error) {
		n, err := newGrant(i.Body, time.Now())
		if err != nil {
			return nil, err
		}
		g, err := a.cfg.Directory.CreateGrant(ctx, v.by(), v.workspace.ID, n)
		if err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		now, err := a.cfg.Directory.Snapshot().Workspace(v.workspace.ID)
		if err != nil {
			return nil, err
		}
		return &out[client.Grant]{grant(now, g, time.Now())}, nil
	})
	route(a, "DELETE", ws+"/grants/{id}", authz.GrantsDelete, "Take a grant away; what it no longer allows is cut", 204, func(ctx context.Context, v *visit, i *inID) (*none, error) {
		return nil, a.recorded(ctx, v, a.cfg.Directory.DeleteGrant(ctx, v.by(), v.workspace.ID, i.ID))
	})
	route(a, "GET", ws+"/explain", authz.GrantsRead, "Why a principal may do an action, or what is missing", 200, func(ctx context.Context, v *visit, i *inExplain) (*out[client.Explanation], error) {
		e, err := a.explain(ctx, v, i)
		if err != nil {
			return nil, err
		}
		return &out[client.Explanation]{*e}, nil
	})
	a.replayRoute()
}

// newGrant reads what is to be given.
func newGrant(b client.NewGrant, now time.Time) (n directory.NewGrant, err error) {
	n = directory.NewGrant{Principal: b.Principal, Team: b.Team, Role: b.Role, Environment: authz.Environment(b.Environment),
		In: directory.Place{Project: b.Project, Folder: b.Folder}, Connection: b.Connection}
	if n.From, err = parsePrefixes("/from", b.From); err != nil {
		return n, err
	}
	switch {
	case b.Until != nil && b.ExpiresInSeconds != 0:
		return n, invalid("want /until or /expires_in_seconds, not both", "")
	case b.Until != nil:
		if n.Until = *b.Until; n.Until.IsZero() {
			return n, invalid("/until: want a time that is to come", "leave it out for a grant without end")
		}
	case b.ExpiresInSeconds < 0 || b.ExpiresInSeconds > int64(directory.MaxTokenLife/time.Second):
		return n, invalid("/expires_in_seconds: out of range", "give 1 second to 5 years, or nothing for a grant without end")
	case b.ExpiresInSeconds > 0:
		n.Until = now.Add(seconds(b.ExpiresInSeconds))
	}
	return n, nil
}

// recorded records a refusal that came after the route's own decision.
func (a *API) recorded(ctx context.Context, v *visit, err error) error {
	if e := protocol.AsError(err); err != nil && e.Code == protocol.CodeDenied {
		return a.deniedIn(ctx, v, e)
	}
	return err
}

func grant(ws *directory.Workspace, g *directory.Grant, now time.Time) client.Grant {
	o := client.Grant{ID: g.ID, Role: ws.RoleName(g.Role), Environment: string(g.Environment), CreatedAt: g.Created, ETag: g.ETag()}
	if g.Principal != nil {
		o.Principal, o.PrincipalName = g.Principal.ID, g.Principal.Name
	}
	if g.Team != nil {
		o.Team = g.Team.Name
	}
	if g.Grant.Project != "" {
		o.Project, o.Folder = g.Grant.Project, g.Folder
		if p, err := ws.Project(g.Grant.Project); err == nil {
			o.Project = p.Name
			if f, err := p.Folder(g.Folder); err == nil {
				o.Folder = f.Path
			}
		}
	}
	if g.Connection != "" {
		o.Connection = g.Connection
		if c, err := ws.Connection(g.Connection); err == nil {
			o.Connection = c.Name
		}
	}
	if !g.Until.IsZero() {
		o.Until, o.Over = &g.Until, !now.Before(g.Until)
	}
	for _, p := range g.From {
		o.From = append(o.From, p.String())
	}
	return o
}

// explain tells what the relay would decide, and of which grants it comes.
func (a *API) explain(ctx context.Context, v *visit, i *inExplain) (*client.Explanation, error) {
	ws, at := v.workspace, v.at()
	if (i.Principal == "") == (i.Token == "") || i.Action == "" {
		return nil, invalid("want the parameters action, and principal or token", "`fairlead explain --as PRINCIPAL ACTION CONNECTION`")
	}
	if err := i.bounded(); err != nil {
		return nil, err
	}
	action := authz.Action(i.Action)
	if _, ok := authz.Find(action); !ok {
		action = authz.Action("connection." + i.Action)
	}
	row, ok := authz.Find(action)
	if !ok {
		return nil, invalid("no such action", "docs/permissions.md lists them; `fairlead roles show owner` too")
	}
	if (action == authz.Request || action == authz.RequestGet) && i.Method != "" { // the method says which of the two it would be
		action = authz.ForOperation(protocol.OpRequest, strings.ToUpper(i.Method))
	}
	if i.Source != "" {
		source, err := netip.ParseAddr(i.Source)
		if err != nil || source.Zone() != "" {
			return nil, invalid("parameter source: want an address", "such as 192.0.2.7 or 2001:db8::7")
		}
		at.Source = source.Unmap()
	}
	var c *directory.Connection
	on := directory.Place{Project: i.Project, Folder: i.Folder}
	if i.Connection != "" {
		if on != (directory.Place{}) || i.In != "" {
			return nil, invalid("want the parameter connection, or project, folder and environment", "a connection stands where it stands")
		}
	}
	if i.In != "" && !slices.Contains(authz.Environments, authz.Environment(i.In)) {
		return nil, invalid("parameter environment: no such environment", "use development, test or production")
	}
	pr, fo, may, err := ws.DecideAt(v.principal, authz.GrantsRead, authz.Environment(i.In), on, v.at())
	if i.Connection != "" {
		c, may, err = ws.DecideOn(v.principal, authz.GrantsRead, i.Connection, v.at())
	}
	switch {
	case err != nil:
		return nil, err
	case !may.Allow:
		return nil, a.deniedIn(ctx, v, mayNot(authz.GrantsRead, may))
	}
	scope := ws.ScopeOfPlace(authz.Environment(i.In), pr, fo)
	if c != nil {
		scope = c.Scope()
	}
	if row.Level == authz.OnConnection && c == nil {
		return nil, invalid("the action is about a connection and none is named", "name it: `fairlead explain --as PRINCIPAL ACTION CONNECTION`")
	}
	p, t, err := a.explained(v, i)
	if err != nil {
		return nil, err
	}
	e := &client.Explanation{Principal: p.ID, PrincipalName: p.Name, Token: i.Token, Action: string(action), SourceAddress: at.Source.String(), Time: at.Time.UTC(),
		Near: []client.Near{}, Agent: client.AgentNotAsked, Environment: i.In}
	tell := &telling{v, e, v.is(p)}
	asks, grants, part := tell.rights(p, t)
	d, near := authz.Explain(asks, grants, action, scope, at)
	if e.Allow, e.Reason, e.Limited = d.Allow, d.Reason, d.Limited; part && !d.Allow && !d.Limited {
		e.Reason = "no grant that you may look into allows " + string(action)
	}
	e.Disabled = tell.disabled(p)
	if tell.reads("the allowlists", authz.AllowlistRead) {
		comes := admitted(ws, p, at.Source)
		if t != nil {
			comes = ws.Admits(directory.Programs, at.Source)
		}
		e.Allowlisted = &comes
	}
	e.Project, e.Folder = v.stands(pr, fo)
	if c != nil {
		e.Connection, e.Environment = c.Name, string(c.Environment)
		e.Project, e.Folder = v.stands(c.Project, c.Folder)
		e.Agent, e.AgentHint = a.offers(c, action)
		if err := a.askSite(ctx, v, c, action, i, e); err != nil {
			return nil, err
		}
	} else if err := i.onlyOf(string(action)); err != nil {
		return nil, err
	}
	shown := func(id string) *client.Grant {
		g := tell.grant(id)
		if g == nil {
			return nil
		}
		o := grant(ws, g, at.Time)
		return &o
	}
	switch {
	case d.Allow:
		e.Grant = shown(d.Grant)
	case !d.Limited:
		e.Missing, e.Roles = []string{string(action)}, tell.roles(action)
	}
	for _, n := range near {
		g := shown(n.Grant.ID)
		if g == nil {
			continue
		}
		o := client.Near{Grant: *g}
		for _, l := range n.Lacks {
			o.Lacks = append(o.Lacks, string(l))
		}
		e.Near = append(e.Near, o)
	}
	switch {
	case e.Disabled:
		e.Allow, e.Reason = false, "the principal is disabled"
	case t != nil && !t.Live(at.Time):
		e.Allow, e.Reason = false, "the token was revoked, has expired, or is one that the sign-in policy admits no more"
	case e.Allowlisted != nil && !*e.Allowlisted:
		e.Allow, e.Reason = false, "the workspace's allowlist does not admit the address"
	}
	return e, nil
}

// explained gives whom an explanation is about. Tokens are shown to who may see them, and to whose they are; of others they are
// not there.
func (a *API) explained(v *visit, i *inExplain) (*directory.Principal, *directory.Token, error) {
	if i.Token == "" {
		p, err := v.workspace.FindPrincipal(i.Principal)
		return p, nil, err
	}
	sees := authz.Decide(v.principal, authz.TokensRead, authz.Scope{Workspace: v.workspace.ID}, v.at()).Allow
	for _, t := range v.workspace.Tokens {
		if t.ID == i.Token && (sees || t.Principal.ID == v.principal.ID) {
			return t.Principal, t, nil
		}
	}
	return nil, nil, protocol.Errorf(protocol.CodeNotFound, "no such token")
}

// admitted tells whether a principal may come from an address: signed in, if it is a person, else with a token.
func admitted(ws *directory.Workspace, p *directory.Principal, source netip.Addr) bool {
	if u, person := ws.User(p.Name); person != nil && u.ID == p.ID {
		return ws.Admits(directory.People, source)
	}
	return ws.Admits(directory.Programs, source)
}

// offers tells what the connected agents say of an operation on a connection; which statement, path or file they admit, only
// they know.
func (a *API) offers(c *directory.Connection, action authz.Action) (state, hint string) {
	op, ok := strings.CutPrefix(string(action), "connection.")
	if !ok || c.Profile == "" {
		return client.AgentNotAsked, "the site decides by its allow list: ask there with `fairlead-agent explain`"
	}
	if action == authz.RequestGet {
		op = string(protocol.OpRequest)
	}
	hint = "the site has the last word, by statement, path or file: ask there with `fairlead-agent explain`"
	o, ok := a.cfg.Hub.Offer(c.Group, c.Profile)
	switch {
	case !ok:
		return client.AgentMissing, hint
	case slices.Contains(o.Operations, protocol.Operation(op)):
		return client.AgentOffers, hint
	}
	return client.AgentOffersNo, hint
}
