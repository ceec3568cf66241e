package api

import (
	"context"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

func roles(names []string) (out []authz.Role, _ error) {
	for _, s := range names {
		role, err := authz.ParseRole(s)
		if err != nil {
			return nil, err
		}
		out = append(out, role)
	}
	return out, nil
}

// onlyIn reads what a token shall be limited to.
func onlyIn(o *client.TokenOnly) (out directory.Only, err error) {
	if o == nil {
		return out, nil
	}
	if len(o.Actions)+len(o.Environments)+len(o.Projects)+len(o.Connections)+len(o.From) == 0 {
		return out, invalid("/only: limits nothing", "name actions, environments, projects, connections or networks, or leave it out")
	}
	for _, s := range o.Actions {
		out.Actions = append(out.Actions, authz.Action(s))
	}
	for _, s := range o.Environments {
		out.Environments = append(out.Environments, authz.Environment(s))
	}
	out.Projects, out.Connections = o.Projects, o.Connections
	out.From, err = parsePrefixes("/only/from", o.From)
	return out, err
}

// onlyOf tells what a token is limited to. A connection or project that is gone stands there by its id.
func onlyOf(ws *directory.Workspace, t *directory.Token) *client.TokenOnly {
	only, o := t.Only(), &client.TokenOnly{}
	for _, s := range only.Actions {
		o.Actions = append(o.Actions, string(s))
	}
	for _, s := range only.Environments {
		o.Environments = append(o.Environments, string(s))
	}
	for _, id := range only.Projects {
		if p, err := ws.Project(id); err == nil {
			id = p.Name
		}
		o.Projects = append(o.Projects, id)
	}
	for _, id := range only.Connections {
		if c, err := ws.Connection(id); err == nil {
			id = c.Name
		}
		o.Connections = append(o.Connections, id)
	}
	for _, p := range only.From {
		o.From = append(o.From, p.String())
	}
	if len(o.Actions)+len(o.Environments)+len(o.Projects)+len(o.Connections)+len(o.From) == 0 {
		return nil
	}
	return o
}

// createdToken shows a new token with its text, this once.
func (a *API) createdToken(t *directory.Token, text secret.Bytes) *out[client.CreatedToken] {
	o := client.CreatedToken{ID: t.ID, Name: t.Name, Principal: t.Principal.ID, Token: text.ExposeString(), Roles: []string{}, ETag: t.ETag()}
	if ws, err := a.cfg.Directory.Snapshot().Workspace(t.Workspace); err == nil {
		o.Roles, o.Only = roleNames(ws, t.Principal.Principal), onlyOf(ws, t)
	}
	if !t.Expires.IsZero() {
		o.ExpiresAt = &t.Expires
	}
	return &out[client.CreatedToken]{o}
}

// ownTokenRoutes are those of people's own tokens, in the workspace that they are signed in to.
func (a *API) ownTokenRoutes() {
	account(a, "GET", "/account/tokens", "", false, "The person's own tokens in this workspace", 200, func(_ context.Context, v *visit, _ *none) (*out[client.List[client.Token]], error) {
		l := client.List[client.Token]{Items: []client.Token{}}
		for _, t := range v.workspace.TokensOf(v.principal.ID) {
			l.Items = append(l.Items, token(v.workspace, t))
		}
		return &out[client.List[client.Token]]{l}, nil
	})
	account(a, "POST", "/account/tokens", audit.KindChange, true, "Create a token of one's own, if the workspace admits it; its text is shown this once", 201, func(ctx context.Context, v *visit, i *struct{ Body client.NewPersonalToken }) (*out[client.CreatedToken], error) {
		if what := v.session.Needs(time.Now()); what != "" {
			return nil, a.deniedIn(ctx, v, needs(what))
		}
		only, err := onlyIn(i.Body.Only)
		if err != nil {
			return nil, err
		}
		t, text, err := a.cfg.Directory.CreatePersonalToken(ctx, v.by(), v.workspace.ID, directory.NewToken{Name: i.Body.Name, Life: seconds(i.Body.ExpiresInSeconds), Only: only})
		if err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		v.tell(ofToken(t).as("token_id"))
		return a.createdToken(t, text), nil
	})
	account(a, "DELETE", "/account/tokens/{id}", audit.KindChange, false, "Revoke one of the own tokens", 204, func(ctx context.Context, v *visit, i *struct {
		ID string `path:"id"`
	}) (*none, error) {
		if t, err := apiToken(v.workspace, i.ID); err == nil && t.Principal.ID == v.principal.ID {
			v.tell(ofToken(t).as("token_id"))
		}
		return nil, a.cfg.Directory.RevokePersonalToken(ctx, v.by(), v.workspace.ID, i.ID)
	})
}

func (a *API) serviceAccountRoutes() {
	const ws = "/workspaces/{workspace}"
	service := func(w *directory.Workspace, p *directory.Principal) client.ServiceAccount {
		o := client.ServiceAccount{ID: p.ID, Name: p.Name, Roles: roleNames(w, p.Principal), Disabled: p.Disabled, CreatedAt: p.Created, ETag: w.ServiceETag(p)}
		now := time.Now()
		for _, t := range w.TokensOf(p.ID) {
			if now.Before(t.Expires) {
				o.Tokens++
			}
		}
		return o
	}
	route(a, "GET", ws+"/service-accounts", authz.ServicesRead, "List the programs that may hold tokens", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.ServiceAccount]], error) {
		l := client.List[client.ServiceAccount]{Items: []client.ServiceAccount{}}
		for _, p := range v.workspace.Services() {
			l.Items = append(l.Items, service(v.workspace, p))
		}
		return &out[client.List[client.ServiceAccount]]{l}, nil
	})
	route(a, "GET", ws+"/service-accounts/{name}", authz.ServicesRead, "One service account", 200, func(_ context.Context, v *visit, i *inName) (*out[client.ServiceAccount], error) {
		p, err := v.workspace.Service(i.Name)
		if err != nil {
			return nil, err
		}
		return &out[client.ServiceAccount]{service(v.workspace, p)}, nil
	})
	route(a, "POST", ws+"/service-accounts", authz.ServicesCreate, "Create a service account, without a token", 201, func(ctx context.Context, v *visit, i *in[client.NewServiceAccount]) (*out[client.ServiceAccount], error) {
		r, err := roles(i.Body.Roles)
		if err != nil {
			return nil, err
		}
		p, err := a.cfg.Directory.CreateService(ctx, v.by(), v.workspace.ID, directory.NewService{Name: i.Body.Name, Roles: r})
		if err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		now, err := a.cfg.Directory.Snapshot().Workspace(v.workspace.ID)
		if err != nil {
			return nil, err
		}
		return &out[client.ServiceAccount]{service(now, p)}, nil
	})
	on := func(method, path string, action authz.Action, summary string, f func(ctx context.Context, by directory.By, workspace, name string) error) {
		route(a, method, ws+"/service-accounts/{name}"+path, action, summary, 204, func(ctx context.Context, v *visit, i *inName) (*none, error) {
			return nil, a.recorded(ctx, v, f(ctx, v.by(), v.workspace.ID, i.Name))
		})
	}
	on("POST", "/disable", authz.ServicesEdit, "Refuse all tokens of a service account; what runs is cut", func(ctx context.Context, by directory.By, workspace, name string) error {
		return a.cfg.Directory.SetServiceDisabled(ctx, by, workspace, name, true)
	})
	on("POST", "/enable", authz.ServicesEdit, "Take the tokens of a service account again", func(ctx context.Context, by directory.By, workspace, name string) error {
		return a.cfg.Directory.SetServiceDisabled(ctx, by, workspace, name, false)
	})
	on("DELETE", "", authz.ServicesDelete, "Remove a service account with its grants and tokens", a.cfg.Directory.DeleteService)
}
