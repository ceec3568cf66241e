package plan

import (
	"context"
	"slices"

	"github.com/fairleadhq/fairlead/relay/client"
)

// Sections of a workspace, in the order in which a file is written.
var sections = []string{"groups", "roles", "users", "service_accounts", "teams", "projects", "connections", "grants", "domains", "budget", "allowlist", "allowlists", "sign_in_policy"}

// state is what the relay has of the sections that were asked for.
type state struct {
	me          client.Whoami
	groups      []client.Group
	roles       []client.Role // custom ones
	users       []client.User
	teams       []client.Team
	connections []client.Connection
	projects    []client.Project
	folders     []folder       // of each project, by path
	grants      []client.Grant // not those that are over
	budgets     map[string]client.Budget
	allowlist   client.Allowlist
	signIn      client.SignInPolicy
	services    []client.ServiceAccount
	principals  map[string]bool // names that roles can be given to
	hidden      bool            // there may be others that the caller may not list
	domains     []client.Domain
}

// look reads the sections, and what else is needed to judge them. budgetOf says whose budgets are wanted; "" is the workspace.
func look(ctx context.Context, c *client.Client, has func(section string) bool, budgetOf func(connection string) bool) (*state, error) {
	s := &state{budgets: map[string]client.Budget{}}
	var err error
	do := func(wanted bool, f func() error) {
		if err == nil && wanted {
			err = f()
		}
	}
	do(true, func() error { s.me, err = c.Whoami(ctx); return err })
	rights := has("grants") || has("users") || has("teams")
	do(has("groups") || has("connections"), func() error { s.groups, err = c.Groups(ctx); return err })
	do(rights || has("roles"), func() error {
		s.roles, err = c.Roles(ctx)
		s.roles = slices.DeleteFunc(s.roles, func(r client.Role) bool { return r.System })
		return err
	})
	do(rights, func() error { s.users, err = c.Users(ctx); return err })
	do(rights, func() error { s.teams, err = c.Teams(ctx); return err })
	do(has("connections") || has("grants"), func() error { s.connections, err = c.Connections(ctx); return err })
	do(has("projects"), func() error { return s.lookAtProjects(ctx, c) })
	do(rights, func() error {
		s.grants, err = c.Grants(ctx)
		s.grants = slices.DeleteFunc(s.grants, func(g client.Grant) bool { return g.Over })
		return err
	})
	do(rights || has("service_accounts"), func() error { return s.lookAtServices(ctx, c, has("service_accounts")) })
	do(has("domains"), func() error { s.domains, err = c.Domains(ctx); return err })
	do(has("budget"), func() (err error) { s.budgets[""], err = c.Budget(ctx, ""); return err })
	for _, k := range s.connections {
		do(has("connections") && budgetOf(k.Name), func() (err error) { s.budgets[k.Name], err = c.Budget(ctx, k.Name); return err })
	}
	do(has("allowlist") || has("allowlists"), func() error { s.allowlist, err = c.Allowlist(ctx); return err })
	do(has("sign_in_policy"), func() error { s.signIn, err = c.SignInPolicy(ctx); return err })
	return s, err
}

func byName[T any](list []T, name func(T) string) map[string]T {
	m := make(map[string]T, len(list))
	for _, t := range list {
		m[name(t)] = t
	}
	return m
}
