package authz_test

import (
	"testing"

	. "github.com/fairleadhq/fairlead/relay/authz"
)

// onParts is the model of where a level counts: on a project, a folder or a connection, too.
func onParts(l Level) bool { return l == OnConnection || l == OnScope }

// sites are the actions on agent groups and what stands in them.
var sites = []Action{AgentsRead, AgentsManage, GroupsRead, GroupsManage, JoinTokensRead, JoinTokensManage}

// J1: what is about the agent groups of an environment is given on that, or on the workspace, and on nothing that lies in it.
func TestAgentGroupsAreTheEnvironments(t *testing.T) {
	whole, test, other := Scope{Workspace: ws}, Scope{Workspace: ws, Environment: Test}, Scope{Workspace: ws, Environment: Production}
	stands := Scope{Workspace: ws, Environment: Test, Project: "prj_1", Folder: "fol_1", Connection: "con_1"}
	for _, a := range sites {
		if row, _ := Find(a); row.Level != OnEnvironment {
			t.Errorf("%s counts on level %d", a, row.Level)
		}
		for name, c := range map[string]struct {
			g         Grant
			all, here bool
		}{
			"the workspace":                {Grant{}, true, true},
			"the environment":              {Grant{Environment: Test}, false, true},
			"another environment":          {Grant{Environment: Development}, false, false},
			"a project":                    {Grant{Project: "prj_1"}, false, false},
			"a project in the environment": {Grant{Project: "prj_1", Environment: Test}, false, false},
			"a folder":                     {Grant{Project: "prj_1", Folder: "fol_1"}, false, false},
			"a folder in the environment":  {Grant{Project: "prj_1", Folder: "fol_1", Environment: Test}, false, false},
			"a connection":                 {Grant{Connection: "con_1"}, false, false},
		} {
			for _, r := range []Role{Admin, Operator} {
				c.g.Role = r
				p := principal(c.g)
				if Decide(p, a, whole, here).Allow != c.all || Decide(p, a, other, here).Allow != c.all || Decide(p, a, test, here).Allow != c.here || Decide(p, a, stands, here).Allow != c.here {
					t.Errorf("J1 %s by %s on %s", a, r, name)
				}
				if Somewhere(p, a, ws, here).Allow != (c.here || name == "another environment") {
					t.Errorf("J1 %s by %s on %s, somewhere", a, r, name)
				}
			}
		}
		// Who holds nothing but this is told of no connection.
		if Anything(principal(Grant{Role: "rol", Custom: set(t, a)}), stands, here) {
			t.Errorf("J1 %s tells of connections", a)
		}
		p := principal(Grant{Role: Operator})
		for name, c := range map[string]struct {
			l    Limits
			here bool
		}{
			"the environment":                    {Limits{Environments: []Environment{Test}}, true},
			"another":                            {Limits{Environments: []Environment{Development}}, false},
			"a project":                          {Limits{Projects: []string{"prj_1"}}, false},
			"a connection":                       {Limits{Connections: []string{"con_1"}}, false},
			"the environment and the connection": {Limits{Environments: []Environment{Test}, Connections: []string{"con_1"}}, false},
		} {
			q := p.Limited(c.l)
			if Decide(q, a, whole, here).Allow || Decide(q, a, test, here).Allow != c.here || Decide(q, a, stands, here).Allow != c.here {
				t.Errorf("J1 %s by a token limited to %s", a, name)
			}
			if d := Somewhere(q, a, ws, here); d.Allow != (c.here || name == "another") || !d.Allow && !d.Limited {
				t.Errorf("J1 %s by a token limited to %s, somewhere: %+v", a, name, d)
			}
		}
	}
}

// J2: no grant exceeds its giver. A role on an environment gives what is about its agent groups, so its giver holds that; on what lies in
// the environment it gives none of it, so there it is not asked for.
func TestGiverOfARoleOnAnEnvironmentHoldsWhatItGivesThere(t *testing.T) {
	less := Operator.Set().Without(set(t, sites...)).Or(set(t, GrantsManage))
	con, prj := Scope{Workspace: ws, Environment: Test, Connection: "con_1"}, Scope{Workspace: ws, Environment: Test, Project: "prj_1"}
	in, other := Scope{Workspace: ws, Environment: Test}, Scope{Workspace: ws, Environment: Production}
	for name, c := range map[string]struct {
		giver Grant
		on    map[Scope]bool
	}{
		"an admin of the environment":           {Grant{Role: Admin, Environment: Test}, map[Scope]bool{in: true, con: true, prj: true, other: false, {Workspace: ws}: false}},
		"an admin of the workspace":             {Grant{Role: Admin}, map[Scope]bool{in: true, con: true, prj: true, other: true, {Workspace: ws}: true}},
		"one without agent groups there":        {Grant{Role: "rol", Custom: less, Environment: Test}, map[Scope]bool{in: false, con: true, prj: true, other: false, {Workspace: ws}: false}},
		"one without agent groups anywhere":     {Grant{Role: "rol", Custom: less}, map[Scope]bool{in: false, con: true, prj: true, other: false, {Workspace: ws}: false}},
		"an admin of a project":                 {Grant{Role: Admin, Project: "prj_1"}, map[Scope]bool{in: false, con: false, prj: true, other: false, {Workspace: ws}: false}},
		"an admin of a project, in environment": {Grant{Role: Admin, Project: "prj_1", Environment: Test}, map[Scope]bool{in: false, con: false, prj: true, other: false, {Workspace: ws}: false}},
		"an admin of a connection":              {Grant{Role: Admin, Connection: "con_1"}, map[Scope]bool{in: false, con: true, prj: false, other: false, {Workspace: ws}: false}},
	} {
		for on, may := range c.on {
			g := Grant{Role: Operator, Workspace: ws, Environment: on.Environment, Project: on.Project}
			if on.Connection != "" {
				g = Grant{Role: Operator, Workspace: ws, Connection: on.Connection}
			}
			if got := MayGive(principal(c.giver), g, on, GrantsManage, here); got != may {
				t.Errorf("J2 %s gives operator on %+v: %v", name, on, got)
			}
		}
	}
	// One action of them is enough to be missing, and a token that is limited to a part passes none on for more.
	for _, a := range sites {
		role := Grant{Role: "rol", Custom: Operator.Set().Without(set(t, a)).Or(set(t, GrantsManage)), Environment: Test}
		if MayGive(principal(role), Grant{Role: Operator, Workspace: ws, Environment: Test}, in, GrantsManage, here) {
			t.Errorf("J2 who lacks %s gives it", a)
		}
		only := Grant{Role: "rol_2", Custom: set(t, a), Workspace: ws, Environment: Test}
		for l, may := range map[Environment]bool{Test: true, Production: false} {
			if MayGive(principal(Grant{Role: Admin}).Limited(Limits{Environments: []Environment{l}}), only, in, GrantsManage, here) != may {
				t.Errorf("J2 %s given in test by a token that is limited to %s", a, l)
			}
		}
	}
}

// What stands in the way is told: a grant on a project is on something else, and where a grant allows and the token does not, it is the token.
func TestRefusalOnAgentGroupsSaysWhatStandsInTheWay(t *testing.T) {
	in := Scope{Workspace: ws, Environment: Test, Project: "prj_1", Folder: "fol_1"}
	for _, g := range []Grant{{Project: "prj_1"}, {Project: "prj_1", Environment: Test}, {Project: "prj_1", Folder: "fol_1"}} {
		g.ID, g.Role, g.Workspace = "gra_0", Operator, ws
		if d, near := Explain(principal(g), []Grant{g}, AgentsRead, in, here); d.Allow || len(near) != 1 || len(near[0].Lacks) != 1 || near[0].Lacks[0] != LacksScope {
			t.Errorf("%+v: %+v %+v", g, d, near)
		}
	}
	p := principal(Grant{Role: Operator, Environment: Test}).Limited(Limits{Environments: []Environment{Production}})
	if d := Somewhere(p, AgentsRead, ws, here); d.Allow || !d.Limited {
		t.Errorf("%+v", d)
	}
}
