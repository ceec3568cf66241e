package plan

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

// Acts of a step.
const (
	Create = "create"
	Change = "change"
	Delete = "delete"
)

// Step is one thing that differs, and one request or a few to the relay.
type Step struct {
	Act    string   `json:"act"` // create, change or delete
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	Detail []string `json:"detail,omitempty"` // what it will be, or what changes

	do func(ctx context.Context, r *run) error
}

func (s Step) String() string { return s.Act + " " + s.Kind + " " + s.Name }

// Plan is what lies between the files and the relay.
type Plan struct {
	Workspace string `json:"workspace"`
	Steps     []Step `json:"steps"` // in the order in which they are taken
	// Left is what the relay has and no file of its section names. It stays: only with prune is it deleted.
	Left      []string `json:"left"`
	Unchanged int      `json:"unchanged"`
	Over      []string `json:"over,omitempty"` // grants in the files whose end has come

	prune bool
}

// Make holds the files against the relay. With prune, what the files' sections do not name is deleted. Faults that only the relay's
// state shows are config.Faults, too.
func Make(ctx context.Context, c *client.Client, w *Wanted, prune bool) (*Plan, error) {
	has := func(section string) bool { _, ok := w.has[section]; return ok }
	asks := func(section string) bool { return has(section) || section == "projects" && w.places() }
	s, err := look(ctx, c, asks, func(name string) bool { _, ok := w.connections[name]; return ok })
	if err != nil {
		return nil, err
	}
	if w.Workspace != "" && w.Workspace != s.me.Workspace {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: fmt.Sprintf("the files are of workspace %q, and the relay takes you to %q", w.Workspace, s.me.Workspace),
			Hint: "name it: --workspace " + w.Workspace + ", with a login or token of it"}
	}
	m := &maker{Plan: &Plan{Workspace: s.me.Workspace, Steps: []Step{}, Left: []string{}, prune: prune}, w: w, s: s, has: has, now: time.Now()}
	if m.judge(); len(m.faults) > 0 {
		return nil, m.faults.Err()
	}
	// What others lean on comes first; what leans on others goes first. Users go before connections, whose grants are part of users.
	m.groups()
	m.roles()
	m.users()
	m.serviceAccounts()
	m.teams()
	m.projects()
	m.connections()
	m.grants()
	for _, l := range [][]Step{m.dropGrants, m.dropMembers, m.dropTeams, m.dropUsers, m.dropServices, m.dropPlaces, m.dropGateways, m.dropConnections, m.dropFolders, m.dropProjects, m.dropRoles, m.dropGroups} {
		m.Steps = append(m.Steps, l...)
	}
	// These decide who can come at all: last, so that they do not stop the rest. Which domains there may be is not the workspace's own affair.
	m.settings()
	m.ownDomains()
	m.Steps = append(m.Steps, m.dropOwn...)
	if len(m.faults) > 0 {
		return nil, m.faults.Err()
	}
	return m.Plan, nil
}

// maker makes a plan.
type maker struct {
	*Plan
	w      *Wanted
	s      *state
	has    func(string) bool
	now    time.Time
	faults config.Faults

	dropGrants, dropMembers, dropTeams, dropGateways, dropConnections, dropUsers, dropRoles, dropGroups []Step
	dropPlaces, dropFolders, dropProjects, dropServices                                                 []Step
	dropOwn                                                                                             []Step // the caller's own rights
}

func (m *maker) step(act, kind, name string, detail []string, do func(context.Context, *run) error) {
	m.Steps = append(m.Steps, Step{act, kind, name, detail, do})
}

// drop deletes with prune, and else says that it stays.
func (m *maker) drop(into *[]Step, kind, name string, do func(context.Context, *run) error) {
	if !m.prune {
		m.Left = append(m.Left, kind+" "+name)
		return
	}
	*into = append(*into, Step{Delete, kind, name, nil, do})
}

func names[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

// more reports whether there are agent groups that a list of them leaves out, for it is of those that the caller may see: a connection
// that is seen shows the name of its group, whoever may see that. Where it is not known, the relay tells at the step itself.
func more(groups map[string]client.Group, connections []client.Connection) bool {
	return slices.ContainsFunc(connections, func(c client.Connection) bool {
		_, ok := groups[c.Group]
		return !ok
	})
}

// judge finds references that lead nowhere.
func (m *maker) judge() {
	bad := func(w where, msg, hint string) { m.faults = append(m.faults, w.fault(msg, hint)) }
	groups := byName(m.s.groups, func(g client.Group) string { return g.Name })
	roles := byName(m.s.roles, func(r client.Role) string { return r.Name })
	teams := byName(m.s.teams, func(t client.Team) string { return t.Name })
	connections := byName(m.s.connections, func(c client.Connection) string { return c.Name })
	users := byName(m.s.users, func(u client.User) string { return u.Name })
	known := func(name string) bool {
		_, user := m.w.users[name]
		_, program := m.w.services[name]
		return user || program || m.s.hidden || m.s.principals[name] && name != ""
	}
	for name, c := range m.w.connections {
		mine, here := m.w.groups[c.is.Group]
		is, there := groups[c.is.Group]
		if !here && !there && !more(groups, m.s.connections) {
			bad(c.at("group"), "there is no such agent group", "name it under groups, too")
		}
		in := cmp.Or(is.Environment, mine.is.Environment)
		c.is.Environment = cmp.Or(c.is.Environment, in, string(authz.Production))
		if in != "" && c.is.Environment != in {
			bad(c.at("environment"), "its group is of environment "+in, "name a group of environment "+c.is.Environment+", or leave the environment out")
		}
		m.w.connections[name] = c
		m.judgePlace(c.where, c.is.Project, c.is.Folder)
	}
	const somebody = "name a user or a service account, not a token; those that are not there yet: under users or service_accounts, too"
	for name, a := range m.w.services {
		if _, there := users[name]; there {
			bad(a.where, "a user has this name", "choose another")
		}
	}
	for name, u := range m.w.users {
		if slices.ContainsFunc(m.s.services, func(a client.ServiceAccount) bool { return a.Name == name }) {
			bad(u.where, "a service account has this name", "choose another")
		}
		if _, there := users[name]; !there && len(u.is.Roles) == 0 {
			bad(u.where, "a new user needs a role", "roles: [analyst]")
		}
	}
	for _, t := range m.w.teams {
		for i, p := range t.is.Members {
			if !known(p) {
				bad(where{t.doc, config.Index(t.at("members").path, i)}, "there is no such principal", somebody)
			}
		}
	}
	for _, g := range m.w.grants {
		_, err := authz.ParseRole(g.is.Role)
		_, here := m.w.roles[g.is.Role]
		if _, there := roles[g.is.Role]; err != nil && !here && !there {
			bad(g.at("role"), "there is no such role", "owner, admin, operator, analyst, or one named under roles")
		}
		if _, here := m.w.teams[g.is.ToTeam]; g.is.ToTeam != "" && !here {
			if _, there := teams[g.is.ToTeam]; !there {
				bad(g.at("to_team"), "there is no such team", "name it under teams, too")
			}
		}
		if _, here := m.w.connections[g.is.Connection]; g.is.Connection != "" && !here {
			if _, there := connections[g.is.Connection]; !there {
				bad(g.at("connection"), "there is no such connection", "name it under connections, too")
			}
		}
		m.judgePlace(g.where, g.is.Project, g.is.Folder)
		if g.is.To != "" && !known(g.is.To) {
			bad(g.at("to"), "there is no such principal", somebody)
		}
	}
}

func (m *maker) groups() {
	if !m.has("groups") {
		return
	}
	there := byName(m.s.groups, func(g client.Group) string { return g.Name })
	for _, name := range names(m.w.groups) {
		want := m.w.groups[name]
		if is, ok := there[name]; ok {
			if is.Environment != want.is.Environment {
				m.faults = append(m.faults, want.at("environment").fault(fmt.Sprintf("the group has %s, and keeps it", cmp.Or(is.Environment, "none")), "make another group, or write what it has"))
				continue
			}
			m.Unchanged++
			continue
		}
		var detail []string
		if want.is.Environment != "" {
			detail = []string{want.is.Environment}
		}
		m.step(Create, "group", name, detail, func(ctx context.Context, r *run) error {
			_, err := r.c.CreateGroup(ctx, client.NewGroup{Name: name, Environment: want.is.Environment})
			return err
		})
	}
	for _, g := range m.s.groups {
		if _, ok := m.w.groups[g.Name]; !ok {
			m.drop(&m.dropGroups, "group", g.Name, func(ctx context.Context, r *run) error { return r.c.If(g.ETag).DeleteGroup(ctx, g.ID) })
		}
	}
}

func (m *maker) roles() {
	if !m.has("roles") {
		return
	}
	there := byName(m.s.roles, func(r client.Role) string { return r.Name })
	for _, name := range names(m.w.roles) {
		want := client.SetRole{Name: name, Actions: m.w.roles[name].is.Actions}
		is, ok := there[name]
		if !ok {
			m.step(Create, "role", name, []string{strings.Join(want.Actions, ", ")}, func(ctx context.Context, r *run) error {
				_, err := r.c.CreateRole(ctx, want)
				return err
			})
			continue
		}
		diff := difference(least(is.Actions), least(want.Actions))
		if len(diff) == 0 {
			m.Unchanged++
			continue
		}
		m.step(Change, "role", name, diff, func(ctx context.Context, r *run) error {
			_, err := r.c.SetRole(ctx, is.ID, is.ETag, want)
			return err
		})
	}
	for _, is := range m.s.roles {
		if _, ok := m.w.roles[is.Name]; !ok {
			m.drop(&m.dropRoles, "role", is.Name, func(ctx context.Context, r *run) error { return r.c.If(is.ETag).DeleteRole(ctx, is.ID) })
		}
	}
}

func (m *maker) users() {
	if !m.has("users") {
		return
	}
	there := byName(m.s.users, func(u client.User) string { return u.Name })
	for _, name := range names(m.w.users) {
		want := m.w.users[name].is
		is, ok := there[name]
		if !ok {
			detail := []string{"roles " + strings.Join(want.Roles, ", ")}
			if want.Disabled {
				detail = append(detail, "disabled")
			}
			m.step(Create, "user", name, detail, func(ctx context.Context, r *run) error {
				made, err := r.c.CreateUser(ctx, client.NewUser{Name: name, Roles: want.Roles, Person: want.Person})
				if err != nil {
					return err
				}
				if made.Code != "" && !want.Disabled {
					r.codes = append(r.codes, made)
				}
				if want.Disabled {
					return r.c.DisableUser(ctx, made.ID)
				}
				return nil
			})
			continue
		}
		if is.Disabled == want.Disabled {
			m.Unchanged++
			continue
		}
		detail, do := "enabled", (*client.Client).EnableUser
		if want.Disabled {
			detail, do = "disabled", (*client.Client).DisableUser
		}
		m.step(Change, "user", name, []string{detail}, func(ctx context.Context, r *run) error { return do(r.c.If(is.ETag), ctx, is.ID) })
	}
	for _, is := range m.s.users {
		if _, ok := m.w.users[is.Name]; ok {
			continue
		}
		if is.ID == m.s.me.Principal { // nobody removes himself by a name that a file lacks
			m.Left = append(m.Left, "user "+is.Name+" (you)")
			continue
		}
		m.drop(&m.dropUsers, "user", is.Name, func(ctx context.Context, r *run) error { return r.c.If(is.ETag).RemoveUser(ctx, is.ID) })
	}
}

func (m *maker) teams() {
	if !m.has("teams") {
		return
	}
	there := byName(m.s.teams, func(t client.Team) string { return t.Name })
	for _, name := range names(m.w.teams) {
		want := m.w.teams[name].is.Members
		is, ok := there[name]
		var have []string
		for _, p := range is.Members {
			have = append(have, p.Name)
		}
		var add []string
		for _, p := range want {
			if !slices.Contains(have, p) && !slices.Contains(add, p) {
				add = append(add, p)
			}
		}
		fill := func(ctx context.Context, r *run, t client.Team) (err error) {
			for _, p := range add {
				if t, err = r.c.If(t.ETag).AddMember(ctx, t.ID, p); err != nil {
					return err
				}
			}
			r.teams[name] = t
			return nil
		}
		switch {
		case !ok:
			m.step(Create, "team", name, difference(nil, add), func(ctx context.Context, r *run) error {
				t, err := r.c.CreateTeam(ctx, client.NewTeam{Name: name})
				if err != nil {
					return err
				}
				return fill(ctx, r, t)
			})
		case len(add) > 0:
			m.step(Change, "team", name, difference(nil, add), func(ctx context.Context, r *run) error { return fill(ctx, r, is) })
		default:
			m.Unchanged++
		}
		for _, p := range is.Members {
			if !slices.Contains(want, p.Name) && !m.goes(p.Name) {
				m.drop(&m.dropMembers, "member", p.Name+" of team "+name, func(ctx context.Context, r *run) error {
					t, ok := r.teams[name]
					if !ok {
						t = is
					}
					if err := r.c.If(t.ETag).RemoveMember(ctx, is.ID, p.ID); err != nil {
						return err
					}
					t, err := r.c.Team(ctx, is.ID)
					r.teams[name] = t
					return err
				})
			}
		}
	}
	for _, is := range m.s.teams {
		if _, ok := m.w.teams[is.Name]; !ok {
			m.drop(&m.dropTeams, "team", is.Name, func(ctx context.Context, r *run) error { return r.c.If(is.ETag).DeleteTeam(ctx, is.ID) })
		}
	}
}

// goes tells whether a principal is about to be removed, and with it what it holds.
func (m *maker) goes(name string) bool {
	return slices.ContainsFunc(slices.Concat(m.dropUsers, m.dropServices), func(s Step) bool { return s.Name == name })
}

// difference lists what comes (+) and what leaves (-).
func difference(is, want []string) (out []string) {
	for _, s := range want {
		if !slices.Contains(is, s) {
			out = append(out, "+ "+s)
		}
	}
	for _, s := range is {
		if !slices.Contains(want, s) {
			out = append(out, "- "+s)
		}
	}
	return out
}
