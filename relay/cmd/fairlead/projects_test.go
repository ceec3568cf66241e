package main

import "testing"

func TestProjectsAndFoldersCommands(t *testing.T) {
	r := setup(t)
	run("projects", "list").want(t, 0, "NAME", "")
	run("projects", "create", "sales").want(t, 0, "", "project sales (prj_1) is made; connections come into it by: fairlead connections move NAME --project sales")
	run("folders", "create", "sales", "reports/monthly").want(t, 0, "", "folder reports/monthly of project sales (fol_1) is made")
	run("folders", "create", "gone", "reports").want(t, 66, "", "no such project")
	run("folders", "list", "sales").want(t, 0, "reports/monthly", "")
	run("folders", "list", "gone").want(t, 66, "", "no such project")
	run("projects", "delete", "sales", "--yes").want(t, 73, "", "the project holds")
	run("folders", "delete", "sales", "reports/monthly", "--yes").want(t, 0, "", "folder sales/reports/monthly is deleted")
	if r.Requested("DELETE /api/v1/workspaces/default/projects/sales/folders/reports%2Fmonthly") != 1 {
		t.Error(r.Requests)
	}
	run("folders", "delete", "sales", "reports/monthly", "--yes").want(t, 66, "", "no such folder")
	run("projects", "rename", "sales", "shop").want(t, 0, "", "project sales is called shop now")
	run("projects", "list", "-o", "json").want(t, 0, `"name": "shop"`, "")
	run("projects", "delete", "shop", "--yes").want(t, 0, "", "project shop is deleted")
	run("projects", "delete", "shop", "--yes").want(t, 66, "", "no such project")
}

func TestPlacesOfConnections(t *testing.T) {
	r := setup(t)
	run("connections", "move", "sales", "--project", "shop", "--folder", "reports").want(t, 0, "", "connection sales stands in project shop/reports now")
	if b := r.LastBody(); b != `{"project":"shop","folder":"reports"}` {
		t.Error(b)
	}
	run("connections", "list").want(t, 0, "shop/reports", "")
	run("connections", "move", "sales", "--out").want(t, 0, "", "connection sales stands in no project now")
	run("connections", "move", "gone", "--out").want(t, 66, "", "no such connection")
	for _, bad := range [][]string{{}, {"--out", "--project", "shop"}, {"--folder", "reports"}, {"--out", "--folder", "reports"}} {
		run(append([]string{"connections", "move", "sales"}, bad...)...).want(t, 64, "", "fairlead: ")
	}
	run("connections", "create", "erp", "--group", "default", "--profile", "p", "--project", "shop", "--folder", "a/b").want(t, 0, "", "is made")
	if b := r.LastBody(); b != `{"name":"erp","group":"default","profile":"p","project":"shop","folder":"a/b"}` {
		t.Error(b)
	}
	run("connections", "create", "erp2", "--group", "default", "--profile", "p", "--folder", "a/b").want(t, 64, "", "--folder is of a project")
}

func TestRightsOnProjects(t *testing.T) {
	r := setup(t)
	run("grants", "create", "operator", "--to", "reports", "--project", "shop", "--folder", "a/b", "--environment", "test").want(t, 0, "", "role operator on project shop/a/b in test")
	if b := r.LastBody(); b != `{"role":"operator","principal":"reports","environment":"test","project":"shop","folder":"a/b"}` {
		t.Error(b)
	}
	run("grants", "list").want(t, 0, "project shop/a/b in test", "")
	for _, bad := range [][]string{{"--project", "shop", "--connection", "sales"}, {"--folder", "a"}} {
		run(append([]string{"grants", "create", "analyst", "--to", "reports"}, bad...)...).want(t, 64, "", "fairlead: ")
	}
	run("tokens", "create", "t", "--role", "analyst", "--only-project", "shop").want(t, 0, "flt_sample", "API token t")
	if b := r.LastBody(); b != `{"name":"t","roles":["analyst"],"only":{"projects":["shop"]}}` {
		t.Error(b)
	}
	run("explain", "--as", "reports", "connections.manage", "project/shop/a/b", "--environment", "test")
	run("explain", "--as", "reports", "connections.manage", "project/shop")
	for _, q := range []string{"action=connections.manage&environment=test&folder=a%2Fb&principal=reports&project=shop", "action=connections.manage&principal=reports&project=shop"} {
		if r.Requested("GET /api/v1/workspaces/default/explain?"+q) != 1 {
			t.Error(q, r.Requests)
		}
	}
	run("explain", "--replay", "1h", "--with", "analyst to bob on project/shop/a in test", "--with", "analyst to bob on project/shop").want(t, 0, "recorded decisions made again", "left out")
	if b := r.LastBody(); b != `{"since_seconds":3600,"with":[{"role":"analyst","principal":"bob","environment":"test","project":"shop","folder":"a"},{"role":"analyst","principal":"bob","project":"shop"}]}` {
		t.Error(b)
	}
	run("explain", "--replay", "1h", "--with", "analyst to bob on sales in test").want(t, 64, "", "want ROLE to")
	run("explain", "--replay", "1h", "--environment", "test").want(t, 64, "", "--replay is about everybody")
}
