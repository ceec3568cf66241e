//go:build linux

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPromoteThroughTheCommand takes a project of three connections from development to test, as its admin does: a mapping is
// proposed and edited, the plan is looked at, done, and done for good. What the site keeps never travels.
func TestPromoteThroughTheCommand(t *testing.T) {
	const credential = "Canary-credential-7f3a91Zq"
	i := install(t, "database:\n  orders:\n    adapter: postgresql\n    host: 127.0.0.1\n    port: 1\n    database: orders\n    username: svc\n    password_file: orders.pw\n    tls: disable\n    allow: {mode: read_only}\n")
	i.write("orders.pw", credential, 0o600)
	i.startAgent()
	for _, c := range []string{"groups create lab --environment development", "groups create plant-test --environment test", "projects create sales", "folders create sales reports",
		"connections create orders-dev --group lab --profile orders --project sales --folder reports", "connections create erp-dev --group lab --target erp-dev.corp:3200 --project sales",
		"connections create files-dev --group lab --profile files --project sales", "connections create beside --group lab --profile p",
		"budget set orders-dev --concurrent 5", "grants create analyst --to admin --connection orders-dev", "service-accounts create tester",
		"grants create operator --to tester --project sales --environment test"} {
		i.ok(strings.Fields(c)...)
	}
	route := strings.Fields("promote --project sales --from development --to test")
	promote := func(args ...string) []string { return append(route[:len(route):len(route)], args...) }
	i.fails(64, []string{"want either --map FILE or --write-map FILE"}, promote()...)
	i.ok(promote("--write-map", i.path("map.yaml"))...)
	i.fails(73, []string{"is there already"}, promote("--write-map", i.path("map.yaml"))...)
	proposal, err := os.ReadFile(i.path("map.yaml"))
	if err != nil || strings.Count(string(proposal), "group: plant-test") != 3 || strings.Contains(string(proposal), "beside") {
		t.Fatalf("%v\n%s", err, proposal)
	}
	edited := strings.NewReplacer("erp-dev.corp", "erp-test.corp", "profile: files", "profile: files-test", "name: orders-test", "name: orders-t").Replace(string(proposal))
	i.write("map.yaml", strings.Replace(edited, "group: plant-test", "group: lab", 1), 0o644)
	i.fails(78, []string{"map.yaml:9:", "connections.erp-dev.group: the agent group is of environment development", "nothing was changed"}, promote("--map", i.path("map.yaml"))...)
	i.write("map.yaml", edited, 0o644)

	plan := i.ok(promote("--map", i.path("map.yaml"))...)
	for _, s := range []string{"create  connection erp-test\n", "            to erp-test.corp:3200 of group plant-test\n", "create  connection orders-t\n", "            project sales/reports\n", "create  connection files-test\n",
		"3 to create, 0 to change, 0 the same, 0 skipped", "never copied: credentials"} {
		if !strings.Contains(plan, s) {
			t.Errorf("%q is not in\n%s", s, plan)
		}
	}
	if out := i.ok("connections", "list"); strings.Contains(out, "-test") {
		t.Errorf("something was made by looking:\n%s", out)
	}
	i.fails(64, []string{"no terminal to ask on"}, promote("--map", i.path("map.yaml"), "--apply")...)
	i.ok(promote("--map", i.path("map.yaml"), "--apply", "--yes")...)
	out := i.ok("connections", "list")
	for _, s := range []string{"erp-test", "orders-t ", "files-test", "orders-dev", "beside", "sales/reports"} {
		if !strings.Contains(out, s) {
			t.Errorf("%q is not in\n%s", s, out)
		}
	}
	if again := i.ok(promote("--map", i.path("map.yaml"))...); !strings.Contains(again, "0 to create, 0 to change, 3 the same, 0 skipped") {
		t.Errorf("%s", again)
	}
	// The copy is the project's: who works there in test may, and the grant on the source's connection stayed there.
	if out := i.ok("explain", "--as", "tester", "dial", "erp-test"); !strings.Contains(out, "granted on the project") {
		t.Errorf("%s", out)
	}
	if out := i.ok("explain", "--as", "tester", "dial", "erp-dev"); !strings.Contains(out, "no grant allows") {
		t.Errorf("%s", out)
	}
	if out := i.ok("grants", "list"); strings.Contains(out, "connection orders-t ") {
		t.Errorf("a grant travelled:\n%s", out)
	}
	if out := i.ok("budget", "show", "orders-t", "-o", "json"); strings.Contains(out, `"concurrent"`) {
		t.Errorf("a budget travelled:\n%s", out)
	}
	if strings.Contains(i.said.String()+edited, credential) {
		t.Error("a credential was printed")
	}
	_ = filepath.WalkDir(i.path("relay"), func(path string, d os.DirEntry, err error) error {
		if b, e := os.ReadFile(path); err == nil && e == nil && strings.Contains(string(b), credential) {
			t.Errorf("a credential stands in %s", path)
		}
		return nil
	})
}
