package directory

import (
	"slices"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
)

// MaxProposed bounds how many grants and roles one Proposal names.
const MaxProposed = 1000

// Proposal is a change of rights that nobody has made: what would be then?
type Proposal struct {
	Without []string // ids of grants that would be gone
	With    []NewGrant
	Roles   []ProposedRole // custom roles that would hold something else
}

// ProposedRole is a custom role, by name or id, with the actions that it would hold.
type ProposedRole struct {
	Role    string
	Actions []authz.Action
}

// Propose gives principals as a proposal would have them. What it names must be there (not_found); nobody is asked whether they
// may make it. The function that it gives is of this snapshot, and not safe for concurrent use.
func (w *Workspace) Propose(p Proposal, at time.Time) (func(*Principal) authz.Principal, error) {
	if len(p.Without)+len(p.With)+len(p.Roles) > MaxProposed {
		return nil, &protocol.Error{Code: protocol.CodeTooLarge, Message: "the proposal is too large", Hint: "split it"}
	}
	gone := map[string]bool{}
	for _, id := range p.Without {
		g, err := w.Grant(id)
		if err != nil {
			return nil, err
		}
		gone[g.ID] = true
	}
	roles := map[authz.Role]authz.Set{}
	for _, r := range p.Roles {
		if _, err := authz.ParseRole(r.Role); err == nil {
			return nil, invalid("role "+r.Role+" is the system's: what it holds does not change", "propose a custom role")
		}
		c, err := w.Role(r.Role)
		if err != nil {
			return nil, err
		}
		set, err := authz.NewSet(r.Actions...)
		if err != nil {
			return nil, invalid("role "+c.Name+": "+err.Error(), "docs/permissions.md lists the actions")
		}
		roles[authz.Role(c.ID)] = set
	}
	toPrincipal, toTeam := map[string][]authz.Grant{}, map[string][]authz.Grant{}
	for _, n := range p.With {
		if err := n.check(at); err != nil {
			return nil, err
		}
		g, principal, err := w.granted(n)
		if err != nil {
			return nil, err
		}
		g.ID = "proposed"
		if g.Team != "" {
			toTeam[g.Team] = append(toTeam[g.Team], g)
		} else {
			toPrincipal[principal] = append(toPrincipal[principal], g)
		}
	}
	made := map[string]authz.Principal{}
	return func(q *Principal) authz.Principal {
		if done, ok := made[q.ID]; ok {
			return done
		}
		grants := slices.DeleteFunc(slices.Clone(q.Grants), func(g authz.Grant) bool { return gone[g.ID] })
		grants = append(grants, toPrincipal[q.ID]...)
		for team, given := range toTeam {
			if slices.ContainsFunc(w.teams[team].Members, func(m *Principal) bool { return m.ID == q.ID }) {
				grants = append(grants, given...)
			}
		}
		for i := range grants {
			if set, ok := roles[grants[i].Role]; ok {
				grants[i].Custom = set
			}
		}
		made[q.ID] = authz.NewPrincipal(q.ID, w.ID, q.Name, q.Kind, grants)
		return made[q.ID]
	}, nil
}
