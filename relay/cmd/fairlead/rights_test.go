package main

import (
	"strings"
	"testing"
)

func TestRolesCommands(t *testing.T) {
	r := setup(t)
	run("roles", "list").want(t, 0, "analyst", "")
	run("roles", "show", "analyst").want(t, 0, "connection.query\nconnections.read\n", "")
	run("roles", "show", "nothing").want(t, 66, "", "no such role")
	run("roles", "create", "reader", "--action", "connection.query", "--action", "connection.schema").want(t, 0, "", "role reader (rol_1) is made")
	if body := r.LastBody(); body != `{"name":"reader","actions":["connection.query","connection.schema"]}` {
		t.Error(body)
	}
	run("roles", "create", "reader").want(t, 64, "", "--action")
	run("roles", "update", "reader", "--add", "connection.list", "--remove", "connection.query").want(t, 0, "connection.schema\nconnection.list\n", "")
	run("roles", "update", "reader", "--rename", "lister", "-o", "json").want(t, 0, `"name": "lister"`, "")
	if body := r.LastBody(); body != `{"name":"lister","actions":["connection.schema","connection.list"]}` {
		t.Error(body)
	}
	run("roles", "update", "lister").want(t, 64, "", "want --add, --remove or --rename")
	run("roles", "delete", "lister").want(t, 0, "", "role lister is deleted")
	run("roles", "delete", "lister").want(t, 66, "", "no such role")
}

func TestGrantsCommands(t *testing.T) {
	r := setup(t)
	run("grants", "list").want(t, 0, "workspace", "")
	run("grants", "create", "analyst", "--to", "reports", "--connection", "sales", "--expires", "8h", "--from", "192.0.2.0/24").want(t, 0, "", "grant gra_2: role analyst on connection sales")
	if body := r.LastBody(); body != `{"role":"analyst","principal":"reports","connection":"sales","expires_in_seconds":28800,"from":["192.0.2.0/24"]}` {
		t.Error(body)
	}
	run("grants", "create", "operator", "--to-team", "night", "--environment", "test", "--until", "2099-01-01T00:00:00Z", "-o", "json").want(t, 0, `"until": "2099-01-01T00:00:00Z"`, "")
	run("grants", "list").want(t, 0, "team night", "")
	for _, bad := range [][]string{{}, {"--to", "a", "--to-team", "b"}, {"--to", "a", "--environment", "test", "--connection", "c"}, {"--to", "a", "--until", "2099-01-01T00:00:00Z", "--expires", "8h"},
		{"--to", "a", "--until", "tomorrow"}} {
		run(append([]string{"grants", "create", "analyst"}, bad...)...).want(t, 64, "", "fairlead: ")
	}
	run("grants", "create", "analyst", "--to", "a", "--from", "192.0.2.7/24").want(t, 64, "", "nothing was given")
	run("grants", "create", "analyst", "--to", "nobody").want(t, 66, "", "no such principal")
	run("grants", "delete", "gra_2").want(t, 0, "", "grant gra_2 is deleted")
	run("grants", "delete", "gra_9").want(t, 66, "", "no such grant")
}

func TestTeamsCommands(t *testing.T) {
	setup(t)
	run("teams", "create", "night").want(t, 0, "", "team night (tea_1) is made")
	run("teams", "add", "night", "reports").want(t, 0, "", "reports is in team night")
	run("teams", "add", "night", "nobody").want(t, 66, "", "no such principal")
	run("teams", "list").want(t, 0, "reports", "")
	run("teams", "remove", "night", "reports").want(t, 0, "", "reports is out of team night")
	run("teams", "remove", "night", "reports").want(t, 66, "", "no such member")
	run("teams", "delete", "night", "--yes").want(t, 0, "", "team night is deleted")
	run("teams", "delete", "night", "--yes").want(t, 66, "", "no such team")
}

func TestExplainCommand(t *testing.T) {
	r := setup(t)
	run("explain", "--as", "reports", "query", "sales").want(t, 0, "reports: connection.query, from 127.0.0.1, on connection sales (production): yes", "fairlead-agent explain")
	got := run("explain", "--as", "reports", "--from", "192.0.2.7", "exec", "sales")
	got.want(t, 0, "no grant allows connection.exec", "fairlead-agent explain")
	for _, text := range []string{"missing: connection.exec, which these roles hold: operator, admin, owner", "gra_3, role analyst on connection sales, through team night, until ",
		"its role does not hold the action, it is over", "its agents do not offer the operation"} {
		if !strings.Contains(got.out, text) {
			t.Errorf("%q is not in %s", text, got.out)
		}
	}
	if r.Requested("GET /api/v1/workspaces/default/explain?action=exec&connection=sales&principal=reports&source=192.0.2.7") != 1 {
		t.Error(r.Requests)
	}
	run("explain", "--as", "reports", "query", "sales", "-o", "json").want(t, 0, `"allow": true`, "")
	run("explain", "--as", "elsewhere", "exec", "sales").want(t, 0, "no, as far as you may see", "fairlead-agent explain")
	run("explain", "--as", "elsewhere", "exec", "sales").want(t, 0, "not shown: grants on what you may not look into: you lack grants.read on the workspace", "fairlead-agent explain")
	run("explain", "--as", "nobody", "query", "sales").want(t, 66, "", "no such principal")
	run("explain", "query", "sales").want(t, 64, "", "--as")
	got = run("explain", "--replay", "7d", "--without", "gra_1", "--with", "analyst to bob on sales", "--with", "operator to team night in test", "--role", "reader=connection.query,connection.schema")
	got.want(t, 0, "bob: connection.query on sales, from 192.0.2.7: would be refused; was allowed, 3 times", "1 decision left out")
	got.want(t, 0, "carla: connection.exec on sales, from 192.0.2.8: would be refused; was allowed, and refused by now without the change, 1 time", "does not go back")
	got.want(t, 0, "12 recorded decisions made again: 1 flip by the change, 1 flip by what was changed before", "left out")
	if b := r.LastBody(); b != `{"since_seconds":604800,"without":["gra_1"],"with":[{"role":"analyst","principal":"bob","connection":"sales"},{"role":"operator","team":"night","environment":"test"}],"roles":[{"name":"reader","actions":["connection.query","connection.schema"]}]}` {
		t.Errorf("asked with %s", b)
	}
	run("explain", "--replay", "168h", "--without", "gra_1").want(t, 0, "made again", "left out")
	if b := r.LastBody(); b != `{"since_seconds":604800,"without":["gra_1"]}` {
		t.Errorf("asked with %s", b)
	}
	for _, bad := range []string{"7", "0s", "10ms", "week"} {
		run("explain", "--replay", bad).want(t, 64, "", "is not a lifetime")
	}
	run("explain", "--replay", "1h", "--as", "bob").want(t, 64, "", "--replay is about everybody")
	run("explain", "--as", "bob", "query", "--without", "gra_1").want(t, 64, "", "are for --replay")
	for _, with := range []string{"analyst", "analyst bob", "analyst to bob at sales", "analyst to bob on"} {
		run("explain", "--replay", "1h", "--with", with).want(t, 64, "", "want ROLE to")
	}
	run("explain", "--replay", "1h", "--role", "reader").want(t, 64, "", "NAME=ACTION")
}

func TestWorkspaceDeleteCommand(t *testing.T) {
	setup(t)
	run("workspace", "delete", "other").want(t, 73, "", "confirm does not name the workspace")
	run("workspace", "delete", "default").want(t, 0, "", "workspace default is destroyed")
}
