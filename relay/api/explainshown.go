package api

import (
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// telling is an explanation under way. It tells and counts only what the asker could read by other routes, too, and says what it leaves
// out whether or not there is any of it.
type telling struct {
	v    *visit
	e    *client.Explanation
	self bool // it is about the asker
}

// is reports whether a principal is the caller, who comes with all that it holds: a token that is limited learns no more than it may.
func (v *visit) is(p *directory.Principal) bool {
	for _, t := range v.workspace.TokensOf(p.ID) {
		if t.ID == v.principal.Token && onlyOf(v.workspace, t) != nil {
			return false
		}
	}
	return p.ID == v.principal.ID
}

// reads reports whether the asker may read something of the workspace; else the explanation says that it is not shown.
func (s *telling) reads(what string, a authz.Action) bool {
	if authz.Decide(s.v.principal, a, authz.Scope{Workspace: s.v.workspace.ID}, s.v.at()).Allow {
		return true
	}
	s.e.NotShown = append(s.e.NotShown, what+": you lack "+string(a)+" on the workspace")
	return false
}

// grant is a grant, nil for one that the asker may not see.
func (s *telling) grant(id string) *directory.Grant {
	g, err := s.v.workspace.Grant(id)
	if err != nil || !authz.Decide(s.v.principal, authz.GrantsRead, s.v.workspace.ScopeOf(g), s.v.at()).Allow {
		return nil
	}
	return g
}

// rights are those that an explanation is about: what a principal holds, or a token of it, by the grants that the asker may see. One's
// own are all told, for one could as well try. part: some are left out.
func (s *telling) rights(p *directory.Principal, t *directory.Token) (who authz.Principal, grants []authz.Grant, part bool) {
	if s.reads("grants on what you may not look into", authz.GrantsRead) || s.self {
		if t != nil {
			return t.Acting(), p.Grants, false
		}
		return p.Principal, p.Grants, false
	}
	for _, g := range p.Grants {
		if s.grant(g.ID) != nil {
			grants = append(grants, g)
		}
	}
	who = authz.NewPrincipal(p.ID, p.Workspace, p.Name, p.Kind, grants)
	if t != nil {
		who = t.Within(who)
	}
	return who, grants, true
}

// disabled tells whether a principal is disabled, to who may read it.
func (s *telling) disabled(p *directory.Principal) bool {
	reads := authz.ServicesRead
	if s.v.workspace.PersonOf(p.ID) != nil {
		reads = authz.UsersRead
	}
	return (s.self || s.reads("whether the account is disabled", reads)) && p.Disabled
}

// roles are those that hold an action, the narrowest first.
func (s *telling) roles(a authz.Action) (names []string) {
	for _, r := range authz.RolesWith(a) {
		names = append(names, string(r))
	}
	if s.reads("custom roles that hold the action", authz.RolesRead) {
		for _, r := range s.v.workspace.Roles {
			if r.Set.Has(a) {
				names = append(names, r.Name)
			}
		}
	}
	return names
}
