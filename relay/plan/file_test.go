package plan_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/relay/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func written(t *testing.T, texts ...string) (names []string) {
	t.Helper()
	for i, text := range texts {
		name := filepath.Join(t.TempDir(), "f"+string(rune('0'+i))+".yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

func TestTheSampleIsRead(t *testing.T) {
	w, err := plan.Load("../../configs/workspace.yaml")
	if err != nil || w.Workspace != "default" {
		t.Fatal(err)
	}
}

// The example in the docs is the sample.
func TestTheDocsShowTheSample(t *testing.T) {
	sample, err := os.ReadFile("../../configs/workspace.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/workspace-files.md")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(sample), "version: 1\n")
	if !strings.Contains(strings.ReplaceAll(string(docs), "\r\n", "\n"), strings.ReplaceAll(body, "\r\n", "\n")) {
		t.Error("docs/workspace-files.md shows another file than configs/workspace.yaml")
	}
}

// Every fault is told with file, line and place, all at once, and nothing is asked of a relay.
func TestFaultsHaveTheirPlace(t *testing.T) {
	const v = "version: 1\n"
	for text, want := range map[string][]string{
		"groups: {a: {}}\n":              {`: version: want the version of this form of file`},
		"version: 2\n":                   {`:1:1: version: want the version`},
		v + "rolls: {}\n":                {`:2:1: rolls: unknown key "rolls"; did you mean "roles"?`},
		v + "roles: {r: {action: []}}\n": {`roles.r.action: unknown key "action"; did you mean "actions"?`, `:2:`},
		v + "roles:\n  r: {actions: [made.up, connection.query, connection.query]}\n  admin: {actions: [connection.query]}\n  none: {actions: []}\n  all: {actions: [workspace.own]}\n": {
			`roles.r.actions[0]: no such action`, `roles.r.actions[2]: stands twice`, `:4:3: roles.admin: a system role has this name`, `roles.none: the role holds no action`, `roles.all.actions[0]: this action belongs to owners alone`},
		v + "users: {Anna: {roles: [analyst]}}\n":                              {`users.Anna: a user name has small letters only; write anna`},
		v + "users: {anna: {roles: [boss]}}\n":                                 {`users.anna.roles[0]`, `boss`},
		v + "users: {anna: {password: x}}\n":                                   {`users.anna.password: unknown key`},
		v + "connections: {a: {profile: p}}\n":                                 {`connections.a: no agent group is named`},
		v + "connections: {a: {group: g}}\n":                                   {`connections.a: want profile or target`},
		v + "connections: {a: {group: g, profile: p, environment: prod}}\n":    {`connections.a.environment`},
		v + "connections: {a: {group: g, target: {host: '010.1', port: 1}}}\n": {`connections.a.target: want host and port`},
		v + "connections: {a: {group: g, profile: p, gateway: {address: 'relay:1', allow: [10.0.0.1/8], tls: mutual}}}\n": {
			`connections.a.gateway.address: want an address`, `connections.a.gateway.allow[0]: `, `connections.a.gateway: tls: mutual and client_ca belong together`},
		v + "connections: {a: {group: g, profile: p, gateway: {address: '10.0.0.1:5', tls: mutual, client_ca: 'BEGIN PRIVATE KEY'}}}\n":                                                                                        {`client_ca: holds a private key`},
		v + "grants:\n  - {to: a}\n  - {role: r}\n  - {role: r, to: a, to_team: b}\n  - {role: r, to: a, environment: test, connection: c}\n  - {role: r, to: a, from: [10.0.0.1/8]}\n  - {role: r, to: a, until: tomorrow}\n": {`grants[5].until`},
		v + "grants:\n  - {to: a}\n  - {role: r}\n  - {role: r, to: a, to_team: b}\n  - {role: r, to: a, environment: test, connection: c}\n  - {role: r, to: a, from: [10.0.0.1/8]}\n": {
			`grants[0]: the grant gives no role`, `grants[1]: want to or to_team`, `grants[2]: want to or to_team`, `grants[3]: want environment or connection`, `:7:`, `grants[4].from[0]`},
		v + "users: {anna: {roles: [analyst]}}\ngrants:\n  - {role: analyst, to: anna}\n  - {role: r, to: b, from: [10.0.0.2, 10.0.0.1]}\n  - {role: r, to: b, from: [10.0.0.1, 10.0.0.2]}\n": {
			`users.anna.roles[0]: is the same as grants[0]`, `grants[2]: is the same as grants[1]`},
		v + "allowlists: {agents: [x], callers: []}\n":    {`allowlists.agents[0]`, `allowlists.callers`, "that of callers is allowlist"},
		v + "allowlist: [10.0.0.1/8, x]\n":                {`allowlist[0]`, `allowlist[1]`},
		v + "budget: {egress: much}\n":                    {`budget.egress`},
		v + "sign_in_policy: {idle: 30}\n":                {`sign_in_policy.idle`, `did you mean "30s"?`},
		v + "projects: {sales: {folders: [a/b, x, x]}}\n": {`projects.sales.folders[0]: the folder above it is not named; name a, too`, `projects.sales.folders[2]: stands twice`},
		v + "projects: {sales: {folder: [a]}}\n":          {`projects.sales.folder: unknown key`},
		v + "connections: {a: {group: g, profile: p, folder: x}}\ngrants:\n  - {role: r, to: a, folder: x}\n  - {role: r, to: a, project: p, connection: c}\n": {
			`connections.a.folder: is of no project`, `grants[0].folder: is of no project`, `grants[1]: want project or connection`},
		v + "service_accounts: {anna: {roles: [analyst]}}\n":                         {`service_accounts.anna.roles: unknown key`},
		v + "users: {anna: {roles: [analyst]}}\nservice_accounts: {anna: {}}\n":      {`service_accounts.anna: a user of this name stands in`},
		v + "domains: [Data.example.com, data.example.com., a.example, a.example]\n": {`domains[0]: a domain has small letters only`, `write data.example.com`, `domains[1]`, `domains[3]: stands as domains[2] in`},
		v + "teams: &a {x: {members: []}}":                                           {`:2:`},
	} {
		name := written(t, text)[0]
		_, err := plan.Load(name)
		var faults config.Faults
		if !errors.As(err, &faults) {
			t.Errorf("%q: %v", text, err)
			continue
		}
		for _, s := range append(want, name+":") {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%q: %q is not in\n%v", text, s, err)
			}
		}
	}
}

// What two files name is a fault that names both.
func TestTwoFilesAreOneWhole(t *testing.T) {
	a := "version: 1\nworkspace: w\ngroups: {g: {}}\nroles: {r: {actions: [connection.query]}}\nbudget: {rate: 1}\nallowlist: [10.0.0.1]\nallowlists: {}\nsign_in_policy: {}\n"
	if _, err := plan.Load(written(t, a, "version: 1\ngroups: {h: {}}\nroles: {s: {actions: [connection.query]}}\nusers: {}\n")...); err != nil {
		t.Error(err)
	}
	names := written(t, a, strings.Replace(a, "workspace: w", "workspace: x", 1))
	_, err := plan.Load(names...)
	if err == nil {
		t.Fatal("taken")
	}
	for _, s := range []string{"groups.g", "roles.r", "budget", "allowlist", "allowlists", "sign_in_policy", "workspace: another file is of another workspace"} {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q is not in\n%v", s, err)
		}
	}
	if strings.Count(err.Error(), "stands in "+names[0]) != 6 {
		t.Error(err)
	}
	if _, err := plan.Load("gone.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
