package api

import (
	"context"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

type (
	inMember struct {
		Workspace string `path:"workspace" doc:"name or id"`
		Name      string `path:"name" doc:"the team's name or id"`
		ID        string `path:"id" doc:"the principal's name or id"`
	}
	inWorkspaceEnd struct {
		Workspace string `path:"workspace" doc:"name or id"`
		Confirm   string `query:"confirm" doc:"the workspace's name once more"`
	}
)

// rightsRoutes are those of custom roles, teams and the workspace itself.
func (a *API) rightsRoutes() {
	const ws = "/workspaces/{workspace}"
	route(a, "DELETE", ws, authz.WorkspaceOwn, "Destroy the workspace with all that is in it; confirm names it once more", 204, func(ctx context.Context, v *visit, i *inWorkspaceEnd) (*none, error) {
		if i.Confirm != v.workspace.Name {
			return nil, &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginRelay, Message: "the parameter confirm does not name the workspace",
				Hint: "everything in it would be lost for good; say its name once more to do it"}
		}
		gone, err := a.cfg.Directory.DestroyWorkspace(ctx, v.workspace.ID)
		if err == nil {
			a.recordElsewhere(ctx, gone)
		}
		return nil, err
	})

	route(a, "GET", ws+"/roles", authz.RolesRead, "List system and custom roles", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Role]], error) {
		l := client.List[client.Role]{Items: []client.Role{}}
		for _, r := range authz.Roles {
			l.Items = append(l.Items, systemRole(r))
		}
		for _, r := range v.workspace.Roles {
			l.Items = append(l.Items, customRole(r).Body)
		}
		return &out[client.List[client.Role]]{l}, nil
	})
	route(a, "GET", ws+"/roles/{name}", authz.RolesRead, "One role", 200, func(_ context.Context, v *visit, i *inName) (*out[client.Role], error) {
		if r, err := authz.ParseRole(i.Name); err == nil {
			return &out[client.Role]{systemRole(r)}, nil
		}
		return roleOr(v.workspace.Role(i.Name))
	})
	route(a, "POST", ws+"/roles", authz.RolesCreate, "Create a custom role", 201, func(ctx context.Context, v *visit, i *in[client.SetRole]) (*out[client.Role], error) {
		r, err := a.cfg.Directory.CreateRole(ctx, v.by(), v.workspace.ID, i.Body.Name, actions(i.Body))
		return roleOr(r, a.recorded(ctx, v, err))
	})
	route(a, "PUT", ws+"/roles/{name}", authz.RolesEdit, "Replace a custom role; whoever holds it holds the new one", 200, func(ctx context.Context, v *visit, i *inNamed[client.SetRole]) (*out[client.Role], error) {
		if _, err := authz.ParseRole(i.Name); err == nil {
			return nil, protocol.Errorf(protocol.CodeConflict, "a system role cannot be changed")
		}
		r, err := v.workspace.Role(i.Name)
		if err != nil {
			return nil, err
		}
		r, err = a.cfg.Directory.UpdateRole(ctx, v.by(), v.workspace.ID, r.ID, i.Body.Name, actions(i.Body))
		return roleOr(r, a.recorded(ctx, v, err))
	})
	route(a, "DELETE", ws+"/roles/{name}", authz.RolesDelete, "Delete a custom role that no grant gives", 204, func(ctx context.Context, v *visit, i *inName) (*none, error) {
		if _, err := authz.ParseRole(i.Name); err == nil {
			return nil, protocol.Errorf(protocol.CodeConflict, "a system role cannot be deleted")
		}
		return nil, a.cfg.Directory.DeleteRole(ctx, v.workspace.ID, i.Name)
	})

	route(a, "GET", ws+"/teams", authz.TeamsRead, "List teams with their members", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Team]], error) {
		l := client.List[client.Team]{Items: []client.Team{}}
		for _, t := range v.workspace.Teams {
			l.Items = append(l.Items, team(t))
		}
		return &out[client.List[client.Team]]{l}, nil
	})
	route(a, "GET", ws+"/teams/{name}", authz.TeamsRead, "One team", 200, func(_ context.Context, v *visit, i *inName) (*out[client.Team], error) {
		return teamOr(v.workspace.Team(i.Name))
	})
	route(a, "POST", ws+"/teams", authz.TeamsCreate, "Create a team without members", 201, func(ctx context.Context, v *visit, i *in[client.NewTeam]) (*out[client.Team], error) {
		return teamOr(a.cfg.Directory.CreateTeam(ctx, v.workspace.ID, i.Body.Name))
	})
	route(a, "DELETE", ws+"/teams/{name}", authz.TeamsDelete, "Delete a team with its grants; what they no longer allow is cut", 204, func(ctx context.Context, v *visit, i *inName) (*none, error) {
		return nil, a.recorded(ctx, v, a.cfg.Directory.DeleteTeam(ctx, v.by(), v.workspace.ID, i.Name))
	})
	route(a, "PUT", ws+"/teams/{name}/members/{id}", authz.TeamsEdit, "Put a principal into a team", 200, func(ctx context.Context, v *visit, i *inMember) (*out[client.Team], error) {
		t, err := a.cfg.Directory.AddMember(ctx, v.by(), v.workspace.ID, i.Name, i.ID)
		return teamOr(t, a.recorded(ctx, v, err))
	})
	route(a, "DELETE", ws+"/teams/{name}/members/{id}", authz.TeamsEdit, "Take a principal out of a team; what it no longer may is cut", 204, func(ctx context.Context, v *visit, i *inMember) (*none, error) {
		return nil, a.recorded(ctx, v, a.cfg.Directory.RemoveMember(ctx, v.by(), v.workspace.ID, i.Name, i.ID))
	})
}

// roleNames are the roles that a principal holds on the whole workspace, as people call them.
func roleNames(ws *directory.Workspace, p authz.Principal) []string {
	names := []string{}
	for _, r := range p.Roles() {
		names = append(names, ws.RoleName(r))
	}
	return names
}

func actions(s client.SetRole) (list []authz.Action) {
	for _, a := range s.Actions {
		list = append(list, authz.Action(a))
	}
	return list
}

func texts(actions []authz.Action) []string {
	list := []string{}
	for _, a := range actions {
		list = append(list, string(a))
	}
	return list
}

func systemRole(r authz.Role) client.Role {
	return client.Role{Name: string(r), System: true, Actions: texts(r.Set().Actions())}
}

func customRole(r *directory.Role) *out[client.Role] {
	return &out[client.Role]{client.Role{ID: r.ID, Name: r.Name, Actions: texts(r.Set.Least()), CreatedAt: &r.Created, ETag: r.ETag()}}
}

func roleOr(r *directory.Role, err error) (*out[client.Role], error) {
	if err != nil {
		return nil, err
	}
	return customRole(r), nil
}

func team(t *directory.Team) client.Team {
	o := client.Team{ID: t.ID, Name: t.Name, Members: []client.Member{}, CreatedAt: t.Created, ETag: t.ETag()}
	for _, p := range t.Members {
		o.Members = append(o.Members, client.Member{ID: p.ID, Name: p.Name, Kind: string(p.Kind)})
	}
	return o
}

func teamOr(t *directory.Team, err error) (*out[client.Team], error) {
	if err != nil {
		return nil, err
	}
	return &out[client.Team]{team(t)}, nil
}
