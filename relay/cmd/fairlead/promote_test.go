package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/client"
)

func TestPromoteCommand(t *testing.T) {
	r := setup(t)
	r.Lock()
	r.Groups = append(r.Groups, client.Group{ID: "grp_3", Name: "plant-test", Environment: "test"})
	r.Connections = append(r.Connections, client.Connection{ID: "con_5", Name: "orders", Group: "default", Profile: "orders", Environment: "development", Project: "shop", Gateway: &client.Gateway{Address: "10.0.0.5:15432"}})
	r.Unlock()
	run("projects", "create", "shop").want(t, 0, "", "is made")
	route := []string{"promote", "--project", "shop", "--from", "development", "--to", "test"}
	promote := func(args ...string) result { return run(append(route[:len(route):len(route)], args...)...) }
	file := filepath.Join(t.TempDir(), "map.yaml")
	promote("--write-map", file).want(t, 0, "", "is a proposal: look at each line")
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "  orders:\n    name: orders-test\n    group: plant-test\n    profile: orders\n") {
		t.Fatalf("%v\n%s", err, b)
	}
	promote("--write-map", file).want(t, 73, "", "is there already")
	asked := r.Requested("POST")
	got := promote("--map", file)
	got.want(t, 0, "create  connection orders-test\n            from orders\n            to profile orders of group plant-test\n            project shop\nnot copied: gateway of orders at 10.0.0.5:15432\nproject shop, development to test: 1 to create, 0 to change, 0 the same, 0 skipped\nnever copied: credentials", "")
	promote("--map", file, "-o", "json").want(t, 0, `"not_copied": [`, "")
	promote("--map", file, "--apply").want(t, 64, "", "no terminal to ask on")
	if r.Requested("POST") != asked {
		t.Error("something was done without --apply, or without being asked")
	}
	promote("--map", file, "--apply", "--yes").want(t, 0, "", "done    create connection orders-test\n1 steps are done")
	if b := r.LastBody(); b != `{"name":"orders-test","group":"plant-test","profile":"orders","environment":"test","project":"shop"}` {
		t.Error(b)
	}
	promote("--map", file, "--apply", "--yes").want(t, 0, "", "same    connection orders-test\n")
	promote("--map", workspaceFile(t, "version: 1\nconnections: {}\n")).want(t, 78, "", "w.yaml:2:1: connections: connection orders stands in the project")
	for _, bad := range [][]string{{}, {"--map", file, "--write-map", file}, {"--write-map", file, "--apply"}, {"--map", file, "--yes"}, {"--map", file, "--to", "development"}, {"--map", file, "--to", "staging"}} {
		promote(bad...).want(t, 64, "", "fairlead: ")
	}
	promote("--map", "gone.yaml").want(t, 66, "", "gone.yaml")
	run("promote", "--project", "gone", "--from", "development", "--to", "test", "--map", workspaceFile(t, "version: 1\n")).want(t, 66, "", "no such project")
}
