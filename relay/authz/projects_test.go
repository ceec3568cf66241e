package authz_test

import (
	"slices"
	"testing"

	. "github.com/fairleadhq/fairlead/relay/authz"
)

// J4: what is given on a part of a workspace counts there, in what lies in it, and nowhere else.
func TestGrantsOnProjectsAndFoldersCountThereAlone(t *testing.T) {
	project, folder, inner := Scope{Workspace: ws, Project: "prj_1"}, Scope{Workspace: ws, Project: "prj_1", Folder: "fol_1"}, Scope{Workspace: ws, Project: "prj_1", Folder: "fol_1/fol_2"}
	within := func(s Scope, in Environment) Scope { s.Environment = in; return s }
	for name, c := range map[string]struct {
		g       Grant
		may     []Scope // ConnectionsManage there
		not     []Scope
		reasons string
	}{
		"a project": {Grant{Project: "prj_1"}, []Scope{project, within(project, Test), folder, inner, within(inner, Production), con("con_1"), con("con_2"), con("con_3")},
			[]Scope{{Workspace: ws}, {Workspace: ws, Environment: Production}, {Workspace: ws, Project: "prj_2"}, con("con_4"), {Workspace: ws, Environment: Production, Connection: "con_5"}}, "granted on the project"},
		"a project in one environment": {Grant{Project: "prj_1", Environment: Production}, []Scope{within(project, Production), within(inner, Production), con("con_1"), con("con_2")},
			[]Scope{{Workspace: ws}, {Workspace: ws, Environment: Production}, project, folder, within(project, Development), con("con_3"), con("con_4")}, "granted on the project"},
		"a folder": {Grant{Project: "prj_1", Folder: "fol_1"}, []Scope{folder, inner, within(inner, Test), con("con_1"), con("con_3")},
			[]Scope{{Workspace: ws}, project, within(project, Production), con("con_2"), con("con_4"), {Workspace: ws, Project: "prj_1", Folder: "fol_9"}, {Workspace: ws, Folder: "fol_1"}, {Workspace: ws, Project: "prj_2", Folder: "fol_1"}}, "granted on the folder"},
		"a folder below it": {Grant{Project: "prj_1", Folder: "fol_2"}, []Scope{inner, con("con_1")}, []Scope{project, folder, con("con_3"), con("con_2")}, "granted on the folder"},
		"a folder in one environment": {Grant{Project: "prj_1", Folder: "fol_1", Environment: Development}, []Scope{within(folder, Development), within(inner, Development), con("con_3")},
			[]Scope{folder, inner, within(folder, Test), con("con_1")}, "granted on the folder"},
		"a folder of no project":      {Grant{Folder: "fol_1"}, nil, []Scope{{Workspace: ws}, folder, {Workspace: ws, Folder: "fol_1"}, con("con_1")}, ""},
		"a path of folders":           {Grant{Project: "prj_1", Folder: "fol_1/fol_2"}, nil, []Scope{{Workspace: ws}, folder, inner, con("con_1")}, ""},
		"a project and a connection":  {Grant{Project: "prj_1", Connection: "con_1"}, nil, []Scope{{Workspace: ws}, project, con("con_1")}, ""},
		"a project in no environment": {Grant{Project: "prj_1", Environment: "staging"}, nil, []Scope{{Workspace: ws}, project, within(project, "staging"), con("con_1")}, ""},
	} {
		c.g.Role = Admin
		p := principal(c.g)
		if len(p.Roles()) != 0 {
			t.Errorf("%s: said to be on the whole workspace", name)
		}
		if got := Somewhere(p, ConnectionsManage, ws, here).Allow; got != (c.may != nil) {
			t.Errorf("%s: somewhere %v", name, got)
		}
		for _, s := range c.may {
			if d := Decide(p, ConnectionsManage, s, here); !d.Allow || d.Reason != c.reasons {
				t.Errorf("%s: %+v: %+v", name, s, d)
			}
			if s.Connection == "" && Decide(p, AgentsRead, s, here).Allow {
				t.Errorf("%s: gives what is about the workspace", name)
			}
		}
		for _, s := range c.not {
			if d := Decide(p, ConnectionsManage, s, here); d.Allow {
				t.Errorf("%s: %+v: %+v", name, s, d)
			}
			if mayGive(p, Analyst, s) && s.Folder == "" {
				t.Errorf("%s: gives on %+v", name, s)
			}
		}
	}
}

// J4: an admin of a project or folder gives in it, and neither beside nor above it.
func TestProjectAdminsGiveInTheirProject(t *testing.T) {
	root := principal(Grant{Role: Owner})
	for name, c := range map[string]struct {
		held []Grant
		give Grant
		may  bool
	}{
		"the project":                           {[]Grant{{Project: "prj_1"}}, Grant{Project: "prj_1"}, true},
		"it in one environment":                 {[]Grant{{Project: "prj_1"}}, Grant{Project: "prj_1", Environment: Test}, true},
		"a folder of it":                        {[]Grant{{Project: "prj_1"}}, Grant{Project: "prj_1", Folder: "fol_2"}, true},
		"a connection of it":                    {[]Grant{{Project: "prj_1"}}, Grant{Connection: "con_1"}, true},
		"a connection of the folder":            {[]Grant{{Project: "prj_1", Folder: "fol_1"}}, Grant{Connection: "con_1"}, true},
		"a folder below the folder":             {[]Grant{{Project: "prj_1", Folder: "fol_1"}}, Grant{Project: "prj_1", Folder: "fol_2"}, true},
		"another project":                       {[]Grant{{Project: "prj_1"}}, Grant{Project: "prj_2"}, false},
		"another project's connection":          {[]Grant{{Project: "prj_1"}}, Grant{Connection: "con_4"}, false},
		"an environment, by a project":          {[]Grant{{Project: "prj_1"}}, Grant{Environment: Production}, false},
		"the workspace, by a project":           {[]Grant{{Project: "prj_1"}}, Grant{}, false},
		"the project, by one environment of it": {[]Grant{{Project: "prj_1", Environment: Test}}, Grant{Project: "prj_1"}, false},
		"the project, by an environment":        {[]Grant{{Environment: Test}}, Grant{Project: "prj_1"}, false},
		"the project in it, by an environment":  {[]Grant{{Environment: Test}}, Grant{Project: "prj_1", Environment: Test}, true},
		"the project, by a folder of it":        {[]Grant{{Project: "prj_1", Folder: "fol_1"}}, Grant{Project: "prj_1"}, false},
		"a folder above it":                     {[]Grant{{Project: "prj_1", Folder: "fol_2"}}, Grant{Project: "prj_1", Folder: "fol_1"}, false},
		"a connection beside the folder":        {[]Grant{{Project: "prj_1", Folder: "fol_2"}}, Grant{Connection: "con_3"}, false},
	} {
		for i := range c.held {
			c.held[i].Role = Admin
		}
		c.give.Role, c.give.Workspace = Operator, ws
		if got := MayGive(principal(c.held...), c.give, whole(c.give), GrantsManage, here); got != c.may {
			t.Errorf("%s: %v", name, got)
		}
		if !MayGive(root, c.give, whole(c.give), GrantsManage, here) {
			t.Errorf("%s: an owner may not", name)
		}
	}
	// The scope is that of the grant, whole.
	g := Grant{Role: Operator, Workspace: ws, Project: "prj_1", Folder: "fol_2"}
	for _, on := range []Scope{{Workspace: ws}, {Workspace: ws, Project: "prj_1"}, {Workspace: ws, Project: "prj_1", Folder: "fol_2/fol_1"}, {Workspace: ws, Project: "prj_2", Folder: "fol_1/fol_2"}} {
		if MayGive(root, g, on, GrantsManage, here) {
			t.Errorf("on %+v", on)
		}
	}
	if MayGive(root, Grant{Role: Operator, Workspace: ws, Folder: "fol_2"}, Scope{Workspace: ws, Folder: "fol_2"}, GrantsManage, here) {
		t.Error("on a folder of no project")
	}
}

// A token that is limited to a project does nothing beside it, and lets in what lies in it.
func TestTokensLimitedToAProject(t *testing.T) {
	p := principal(Grant{Role: Owner}).Limited(Limits{Projects: []string{"prj_1"}})
	for _, s := range []Scope{con("con_1"), con("con_2"), con("con_3")} {
		if !Decide(p, Query, s, here).Allow {
			t.Errorf("refused in it: %+v", s)
		}
	}
	for _, s := range []Scope{con("con_4"), {Workspace: ws, Environment: Production, Connection: "con_5"}} {
		if d := Decide(p, Query, s, here); d.Allow || !d.Limited {
			t.Errorf("%+v: %+v", s, d)
		}
	}
	if Decide(p, ConnectionsManage, Scope{Workspace: ws, Environment: Production}, here).Allow || !Decide(p, ConnectionsManage, Scope{Workspace: ws, Environment: Production, Project: "prj_1"}, here).Allow {
		t.Error("makes connections beside it, or none in it")
	}
	if MayGive(p, Grant{Role: Analyst, Workspace: ws, Project: "prj_2"}, Scope{Workspace: ws, Project: "prj_2"}, GrantsManage, here) || !MayGive(p, Grant{Role: Analyst, Workspace: ws, Project: "prj_1"}, Scope{Workspace: ws, Project: "prj_1"}, GrantsManage, here) {
		t.Error("gives beside it, or not in it")
	}
}

// Explain names a grant on a project or folder that does not reach, and no other reason.
func TestExplainSaysThatAProjectIsElsewhere(t *testing.T) {
	for name, g := range map[string]Grant{"another project": {Project: "prj_2"}, "another environment of it": {Project: "prj_1", Environment: Test}, "a folder beside it": {Project: "prj_1", Folder: "fol_9"},
		"a folder of no project": {Folder: "fol_1"}} {
		g.ID, g.Role, g.Workspace = "gra_1", Analyst, ws
		d, near := Explain(NewPrincipal("usr_1", ws, "p", User, []Grant{g}), []Grant{g}, Query, con("con_1"), here)
		if d.Allow || len(near) != 1 || !slices.Equal(near[0].Lacks, []Lack{LacksScope}) {
			t.Errorf("%s: %+v %+v", name, d, near)
		}
	}
}

// Who may do nothing on a connection is not told that it is there; any action on it is something, and what is about the workspace is not.
func TestAnythingIsAnyActionOnTheConnection(t *testing.T) {
	on := Scope{Workspace: "ws", Environment: Production, Project: "p", Connection: "c"}
	for _, row := range Actions {
		if row.Action == WorkspaceOwn { // no custom role holds it
			continue
		}
		set, err := NewSet(row.Action)
		if err != nil {
			t.Fatal(err)
		}
		p := NewPrincipal("usr", "ws", "x", User, []Grant{{ID: "g", Role: "custom", Custom: set, Workspace: "ws"}})
		if got, want := Anything(p, on, At{}), onParts(row.Level); got != want {
			t.Errorf("%s: %v", row.Action, got)
		}
		if Anything(p, Scope{Workspace: "ws"}, At{}) || Anything(p, Scope{Workspace: "other", Connection: "c"}, At{}) {
			t.Errorf("%s counts on no connection, or on another workspace's", row.Action)
		}
		beside := NewPrincipal("usr", "ws", "x", User, []Grant{{ID: "g", Role: "custom", Custom: set, Workspace: "ws", Project: "other"}})
		if Anything(beside, on, At{}) || Anything(p.Limited(Limits{Connections: []string{"other"}}), on, At{}) {
			t.Errorf("%s of another place counts", row.Action)
		}
	}
}
