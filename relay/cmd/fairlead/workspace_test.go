package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/client"
)

func workspaceFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "w.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestWorkspacePlanCommand(t *testing.T) {
	r := setup(t)
	file := workspaceFile(t, "version: 1\nworkspace: default\ngroups: {north: {}}\nroles:\n  reader: {actions: [connection.query]}\nusers:\n  zoe: {roles: [analyst]}\nallowlist: [127.0.0.0/8]\n")
	got := run("workspace", "plan", "-f", file)
	got.want(t, 0, "create  role reader\n            connection.query\n", "")
	for _, text := range []string{"create  group north\n", "create  user zoe\n", "left    group default\n", "left    user anna\n", "workspace default: 3 to create, 0 to change, 0 to delete, 1 unchanged", "2 that the files do not name are left; --prune deletes them"} {
		if !strings.Contains(got.out, text) {
			t.Errorf("%q is not in\n%s", text, got.out)
		}
	}
	run("workspace", "plan", "-f", file, "--prune").want(t, 0, "delete  user anna\ndelete  group default\n", "")
	run("workspace", "plan", "-f", file, "-o", "json").want(t, 0, `"act": "create"`, "")
	for _, q := range r.Requests {
		if !strings.HasPrefix(q, "GET ") {
			t.Errorf("a plan asked %s", q)
		}
	}
	run("workspace", "plan").want(t, 64, "", "--file")
	run("workspace", "plan", "-f", "gone.yaml").want(t, 66, "", "gone.yaml")
	run("workspace", "plan", "-f", workspaceFile(t, "version: 1\nrolls: {}\n")).want(t, 78, "", `w.yaml:2:1: rolls: unknown key "rolls"`)
	run("workspace", "plan", "-f", workspaceFile(t, "version: 1\nconnections: {a: {group: nowhere, profile: p}}\n")).want(t, 78, "", "connections.a.group: there is no such agent group")
	run("workspace", "plan", "-f", workspaceFile(t, "version: 1\nworkspace: other\n")).want(t, 64, "", `the files are of workspace "other"`)
}

// Without a terminal nothing is done unless --yes is given; what is shown once stands alone on standard output.
func TestWorkspaceApplyCommand(t *testing.T) {
	r := setup(t)
	file := workspaceFile(t, "version: 1\ngroups: {default: {}, north: {}}\nusers:\n  anna: {roles: [admin]}\n  zoe: {roles: [analyst]}\n")
	run("workspace", "apply", "-f", file).want(t, 64, "", "no terminal to ask on")
	if n := r.Requested("POST"); n != 0 {
		t.Fatalf("%d changes without --yes", n)
	}
	got := run("workspace", "apply", "-f", file, "--yes")
	got.want(t, 0, "zoe fli_", "done")
	if strings.Count(got.out, "\n") != 1 || strings.Contains(got.errs, "fli_") {
		t.Errorf("%q %q", got.out, got.errs)
	}
	for _, text := range []string{"create  group north\n", "done    create group north\n", "done    create user zoe\n", "user and one-time code", "steps are done\n"} {
		if !strings.Contains(got.errs, text) {
			t.Errorf("%q is not in\n%s", text, got.errs)
		}
	}
	run("workspace", "apply", "-f", workspaceFile(t, "version: 1\ngroups: {default: {}, north: {}}\n")).want(t, 0, "", "0 steps are done") // nothing to ask about
	// A step is refused: what is done and what is not.
	file = workspaceFile(t, "version: 1\ngroups: {default: {}, north: {}, south: {}}\nallowlist: [192.0.2.0/24]\nsign_in_policy: {second_factor: true}\n")
	got = run("workspace", "apply", "-f", file, "--yes")
	got.want(t, 73, "", "change allowlist of the workspace: this list would shut you out")
	for _, text := range []string{"done    create group south\n", "failed  change allowlist of the workspace\n", "open    change sign-in policy of the workspace\n", "1 of 3 steps are done, and stay; the same command goes on from here\n"} {
		if !strings.Contains(got.errs, text) {
			t.Errorf("%q is not in\n%s", text, got.errs)
		}
	}
	run("workspace", "apply", "-f", file, "--yes", "-o", "json").want(t, 73, `"failed": {`, "conflict")
}

// What another wrote into a name reaches no terminal as it is.
func TestWorkspaceExportCommand(t *testing.T) {
	r := setup(t)
	r.Groups = append(r.Groups, client.Group{ID: "grp_9", Name: "evil\x1b[2J\nname", CreatedAt: r.Groups[0].CreatedAt})
	got := run("workspace", "export")
	got.want(t, 0, "workspace: default\n", "")
	for _, text := range []string{"groups:\n  default: {}\n  \"evil\\u001b[2J\\nname\": {}\n", "connections:\n  sales:\n    group: default\n    profile: sales\n", "users:\n  anna:\n", "allowlist:\n  - \"127.0.0.0/8\"\n"} {
		if !strings.Contains(got.out, text) {
			t.Errorf("%q is not in\n%s", text, got.out)
		}
	}
}
