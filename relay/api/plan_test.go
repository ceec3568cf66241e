package api_test

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/plan"
)

// dial serves the API over TLS and gives a client of it. before is called with each request, and may answer it.
func (g *rig) dial(token string, before func(http.ResponseWriter, *http.Request) bool) *client.Client {
	g.t.Helper()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = inside
		if before == nil || !before(w, r) {
			g.api.ServeHTTP(w, r)
		}
	}))
	g.t.Cleanup(srv.Close)
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	c, err := client.New(client.Config{Relay: srv.URL, CA: pool, Token: secret.FromString(token)})
	must(g.t, err)
	g.t.Cleanup(c.Close)
	return c
}

// written is a file of a workspace.
func written(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "workspace.yaml")
	must(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

func made(t *testing.T, c *client.Client, prune bool, files ...string) *plan.Plan {
	t.Helper()
	w, err := plan.Load(files...)
	must(t, err)
	p, err := plan.Make(t.Context(), c, w, prune)
	must(t, err)
	return p
}

func applied(t *testing.T, c *client.Client, p *plan.Plan) *plan.Result {
	t.Helper()
	res, err := p.Apply(t.Context(), c, func(plan.Step) {})
	must(t, err)
	if len(res.Done) != len(p.Steps) || len(res.Open) != 0 || res.Failed != nil {
		t.Fatalf("%+v", res)
	}
	return res
}

func steps(p *plan.Plan) (texts []string) {
	for _, s := range p.Steps {
		texts = append(texts, s.String())
	}
	return texts
}

// The sample file, on a workspace that has something else: what apply did, plan has nothing to do for, and neither what export wrote.
func TestApplyThenPlanAndExportThenPlanAreEmpty(t *testing.T) {
	g := newRig(t)
	c := g.dial(g.token[authz.Owner], nil)
	text, err := os.ReadFile("../../configs/workspace.yaml")
	must(t, err)
	file := written(t, strings.Replace(string(text), "127.0.0.1:15432", freePort(t), 1))
	p := made(t, c, false, file)
	for _, want := range []string{"create group plant-north", "create role report-reader", "create user anna", "create user carla", "create service account nightly-report", "create service account old-loader", "create domain data.apps.example", "create team night-shift", "create project sales", "create folder sales/reports", "create folder sales/reports/monthly", "create connection sales",
		"create grant analyst to team night-shift on project sales/reports in test", "create connection erp",
		"create grant report-reader to bob on connection sales", "create grant operator to team night-shift on environment production until 2199-12-31T18:00:00Z from 192.0.2.0/24",
		"change budget of the workspace", "change allowlist of the workspace", "change allowlist of agents", "change sign-in policy of the workspace"} {
		if !slices.Contains(steps(p), want) {
			t.Errorf("the plan lacks %q: %q", want, steps(p))
		}
	}
	for _, left := range []string{"group site", "connection default-shop"} {
		if !slices.Contains(p.Left, left) {
			t.Errorf("%q is not left: %q", left, p.Left)
		}
	}
	if res := applied(t, c, p); len(res.Codes) != 2 || !strings.HasPrefix(res.Codes[0].Code, "fli_") {
		t.Errorf("%+v", res.Codes)
	}
	again := made(t, c, false, file)
	if len(again.Steps) != 0 || again.Unchanged < 12 || !slices.Equal(again.Left, p.Left) {
		t.Errorf("after apply the plan is %q, %d unchanged, left %q, was %q", steps(again), again.Unchanged, again.Left, p.Left)
	}
	now, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	if con, err := now.Connection("sales"); err != nil || con.Budget.Egress != 20_000_000 && con.Budget.Egress != 20<<20 || now.Budget.Concurrent != 500 || len(now.Prefixes) != 2 {
		t.Errorf("%v %+v", err, now.Budget)
	}
	if pr, _ := now.User("carla"); pr == nil || !pr.Disabled {
		t.Error("carla is let in")
	}
	// Lists of sides: one is set, one made empty, one taken away, in one run.
	lists := written(t, "version: 1\nallowlist: [192.0.2.0/24, \"2001:db8::/32\", 203.0.113.0/24]\nallowlists: {people: [192.0.2.0/24], gateways: []}\n")
	p = made(t, c, false, lists)
	if want := []string{"change allowlist of the workspace", "change allowlist of people", "change allowlist of gateways", "change allowlist of agents"}; !slices.Equal(steps(p), want) {
		t.Errorf("%q, want %q", steps(p), want)
	}
	applied(t, c, p)
	now, err = g.dir.Snapshot().Workspace("default")
	must(t, err)
	if people, own := now.Sources(directory.People); !own || len(people) != 1 {
		t.Errorf("people: %v", people)
	}
	if ports, own := now.Sources(directory.Ports); !own || len(ports) != 0 {
		t.Errorf("gateways: %v", ports)
	}
	if _, own := now.Sources(directory.Sites); own || len(now.Prefixes) != 3 {
		t.Errorf("agents have a list, or callers have %v", now.Prefixes)
	}
	if p := made(t, c, false, lists); len(p.Steps) != 0 {
		t.Errorf("there is something left to do: %q", steps(p))
	}
	applied(t, c, made(t, c, false, file))
	// Export is whole: with prune there is nothing to do either.
	out, err := plan.Export(t.Context(), c)
	must(t, err)
	exported := written(t, string(out))
	if p := made(t, c, true, exported); len(p.Steps) != 0 || len(p.Left) != 0 {
		t.Errorf("after export the plan is %q, left %q, of\n%s", steps(p), p.Left, out)
	}
	if again, err := plan.Export(t.Context(), c); err != nil || string(again) != string(out) {
		t.Errorf("two exports differ: %v\n%s", err, again)
	}
	for _, secret := range []string{"flt_", "fli_", "flj_", "password"} {
		if strings.Contains(strings.ReplaceAll(string(out), "# Workspace default. Tokens, passwords", ""), secret) {
			t.Errorf("the export holds %s:\n%s", secret, out)
		}
	}
	// With prune, what the sample does not name goes, in an order that works; what is needed to go on stays by the relay's own guards.
	p = made(t, c, true, file, written(t, "version: 1\ngroups: {site: {}}\nservice_accounts: {a admin: {}, a operator: {}, a analyst: {}}\nconnections:\n  default-shop: {group: site, profile: shop}\ngrants:\n  - {role: owner, to: admin}\n  - {role: admin, to: a admin}\n"))
	if len(p.Left) != 0 || !slices.Contains(steps(p), "delete grant operator to a operator on the workspace") || slices.ContainsFunc(steps(p), func(s string) bool { return strings.HasPrefix(s, "create") }) {
		t.Fatalf("%q %q", steps(p), p.Left)
	}
	applied(t, c, p)
	if p := made(t, c, true, file); len(p.Steps) == 0 || !strings.HasPrefix(p.Steps[0].String(), "delete ") || steps(p)[len(p.Steps)-1] != "delete grant owner to admin on the workspace" {
		t.Errorf("one's own rights do not go last: %q", steps(p))
	}
}

// What changes is changed in place, and all that hangs on a thing goes with it.
func TestPlanChangesAndPrunes(t *testing.T) {
	g := newRig(t)
	c := g.dial(g.token[authz.Owner], nil)
	port, other := freePort(t), freePort(t)
	const head = "version: 1\nworkspace: default\n"
	first := head + `
groups: {site: {}, north: {}}
roles: {reader: {actions: [connection.query]}, unused: {actions: [connection.query]}}
users: {anna: {roles: [analyst]}, bob: {roles: [analyst, operator]}, dora: {roles: [analyst]}}
teams: {night: {members: [anna, bob]}, day: {members: [bob]}}
connections:
  shop: {group: north, profile: shop, gateway: {address: "` + port + `", allow: [192.0.2.7]}, budget: {concurrent: 5}}
  till: {group: north, profile: till}
grants:
  - {role: owner, to: admin}
  - {role: reader, to_team: night, connection: shop}
  - {role: reader, to_team: day}
  - {role: reader, to: dora, connection: till}
`
	applied(t, c, made(t, c, true, written(t, first)))
	second := head + `
groups: {site: {}}
roles: {reader: {actions: [connection.schema, connection.query]}}
users: {anna: {roles: [operator], disabled: true}, bob: {roles: [analyst]}}
teams: {night: {members: [bob]}}
connections: {}
grants:
  - {role: owner, to: admin}
  - {role: reader, to_team: night, environment: test}
`
	keep := made(t, c, false, written(t, second))
	for _, s := range steps(keep) {
		if strings.HasPrefix(s, "delete") {
			t.Errorf("without prune: %s", s)
		}
	}
	if want := []string{"group north", "role unused", "user dora", "member anna of team night", "team day", "connection shop", "connection till", "grant analyst to anna on the workspace"}; !subset(want, keep.Left) {
		t.Errorf("left %q, want %q", keep.Left, want)
	}
	p := made(t, c, true, written(t, second))
	want := []string{"change role reader", "change user anna", "create grant operator to anna on the workspace", "create grant reader to team night on environment test", "delete grant analyst to anna on the workspace",
		"delete grant operator to bob on the workspace", "delete member anna of team night", "delete team day", "delete connection shop", "delete connection till", "delete user dora", "delete role unused", "delete group north"}
	if !subset(want, steps(p)) || len(p.Left) != 0 {
		t.Errorf("%q, want %q", steps(p), want)
	}
	applied(t, c, p)
	if p := made(t, c, true, written(t, second)); len(p.Steps) != 0 {
		t.Errorf("after apply: %q", steps(p))
	}
	// A gateway moves and closes, limits go.
	const con = "connections:\n  shop: {group: site, profile: shop"
	applied(t, c, made(t, c, false, written(t, head+con+`, gateway: {address: "`+port+`"}, budget: {rate: 5}}`)))
	p = made(t, c, false, written(t, head+con+`, gateway: {address: "`+other+`", allow: [192.0.2.9, 192.0.2.8]}}`))
	if !slices.Equal(steps(p), []string{"change gateway of shop", "change budget of shop"}) {
		t.Errorf("%q", steps(p))
	}
	applied(t, c, p)
	p = made(t, c, true, written(t, head+con+"}\n"))
	if !slices.Equal(steps(p)[:1], []string{"delete gateway of shop"}) {
		t.Errorf("%q", steps(p))
	}
	applied(t, c, p)
}

func subset(want, have []string) bool {
	return !slices.ContainsFunc(want, func(s string) bool { return !slices.Contains(have, s) })
}

// Somebody is faster between plan and apply: the run ends there, says what is done and what not, and goes on after another look.
func TestApplyEndsWhereSomebodyWasFaster(t *testing.T) {
	g := newRig(t)
	c := g.dial(g.token[authz.Owner], nil)
	const head = "version: 1\n"
	applied(t, c, made(t, c, false, written(t, head+"roles: {reader: {actions: [connection.query]}}\n")))
	file := written(t, head+"groups: {north: {}}\nroles: {reader: {actions: [connection.schema]}}\nteams: {night: {members: []}}\n")
	p := made(t, c, false, file)
	_, err := c.SetRole(t.Context(), "reader", "", client.SetRole{Name: "reader", Actions: []string{"connection.list"}})
	must(t, err)
	res, err := p.Apply(t.Context(), c, func(plan.Step) {})
	if client.CodeOf(err) != protocol.CodePrecondition || !strings.Contains(err.Error(), "change role reader") || res.Failed == nil || len(res.Done) != 1 || len(res.Open) != 1 {
		t.Fatalf("%v %+v", err, res)
	}
	if r, err := c.Role(t.Context(), "reader"); err != nil || !slices.Equal(r.Actions, []string{"connection.list"}) {
		t.Errorf("what somebody else wrote is gone: %+v %v", r, err)
	}
	p = made(t, c, false, file)
	if !slices.Equal(steps(p), []string{"change role reader", "create team night"}) {
		t.Errorf("%q", steps(p))
	}
	applied(t, c, p)
}

// A run that breaks off at any of its requests is finished by the same command, and nothing is done twice.
func TestApplyGoesOnAfterEveryBreak(t *testing.T) {
	text, err := os.ReadFile("../../configs/workspace.yaml")
	must(t, err)
	for _, at := range []int{0, 2, 4, 6, 8, 10, 12} {
		g := newRig(t)
		left := -1
		c := g.dial(g.token[authz.Owner], func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == "GET" || left < 0 {
				return false
			}
			if left--; left >= 0 {
				return false
			}
			http.Error(w, "broken", http.StatusBadGateway)
			return true
		})
		file := written(t, strings.Replace(string(text), "127.0.0.1:15432", freePort(t), 1))
		p := made(t, c, false, file)
		left = at
		res, err := p.Apply(t.Context(), c, func(plan.Step) {})
		if err == nil || len(res.Done)+1+len(res.Open) != len(p.Steps) {
			t.Fatalf("%d: %v, %d done, %d open of %d", at, err, len(res.Done), len(res.Open), len(p.Steps))
		}
		left = -1
		applied(t, c, made(t, c, false, file))
		if p := made(t, c, false, file); len(p.Steps) != 0 {
			t.Errorf("%d: %q", at, steps(p))
		}
	}
}

// J4: a file gives its applier no right that it does not have: the relay decides each step, and records it.
func TestApplyGivesNoMoreThanItsCallerMay(t *testing.T) {
	g := newRig(t)
	file := written(t, "version: 1\nusers: {eve: {roles: [owner]}}\n")
	c := g.dial(g.token[authz.Admin], nil)
	if _, err := made(t, c, false, file).Apply(t.Context(), c, func(plan.Step) {}); client.CodeOf(err) != protocol.CodeDenied {
		t.Errorf("an admin made an owner: %v", err)
	}
	w, err := plan.Load(file)
	must(t, err)
	if _, err := plan.Make(t.Context(), g.dial(g.token[authz.Analyst], nil), w, false); client.CodeOf(err) != protocol.CodeDenied {
		t.Errorf("an analyst looks at users: %v", err)
	}
	// A lock-out is refused as always.
	c = g.dial(g.token[authz.Owner], nil)
	if _, err := made(t, c, false, written(t, "version: 1\nallowlist: [203.0.113.0/24]\n")).Apply(t.Context(), c, func(plan.Step) {}); client.CodeOf(err) != protocol.CodeConflict {
		t.Errorf("the allowlist shut its writer out: %v", err)
	}
	if !strings.Contains(strings.Join(g.events(), "\n"), "you cannot give a role that you do not hold yourself") {
		t.Error("the refusal is not recorded")
	}
	// Another workspace's file is not taken for this one's.
	w, err = plan.Load(written(t, "version: 1\nworkspace: other\ngroups: {x: {}}\n"))
	must(t, err)
	if _, err := plan.Make(t.Context(), c, w, true); client.CodeOf(err) != protocol.CodeInvalid {
		t.Errorf("%v", err)
	}
	// Policies left out are the relay's defaults.
	p, err := c.SetSignInPolicy(t.Context(), client.SignInPolicy{})
	must(t, err)
	for _, is := range []client.SignInPolicy{{}, {SecondFactor: true}} {
		p, err = c.SetSignInPolicy(t.Context(), is)
		must(t, err)
		if p.ETag = ""; p != is.InForce() {
			t.Errorf("%+v is in force, the client takes %+v for the defaults", p, is.InForce())
		}
	}
}

// A group of an environment is made as the file says, its connections stand there, and neither moves.
func TestPlanKeepsGroupsInTheirEnvironment(t *testing.T) {
	g := newRig(t)
	c := g.dial(g.token[authz.Owner], nil)
	const file = "version: 1\ngroups: {lab: {environment: development}}\nconnections: {bench: {group: lab, profile: p}}\n"
	applied(t, c, made(t, c, false, written(t, file)))
	if p := made(t, c, false, written(t, file)); len(p.Steps) != 0 {
		t.Errorf("planned again: %q", steps(p))
	}
	all, err := c.Connections(t.Context())
	must(t, err)
	for _, k := range all {
		if k.Name == "bench" && k.Environment != "development" {
			t.Errorf("it stands in %s", k.Environment)
		}
	}
	for text, says := range map[string]string{
		"version: 1\ngroups: {lab: {environment: test}}\n":                                                                         "groups.lab.environment: the group has development, and keeps it",
		"version: 1\ngroups: {lab: {}}\n":                                                                                          "groups.lab.environment: the group has development, and keeps it",
		"version: 1\nconnections: {more: {group: lab, profile: p, environment: production}}\n":                                     "connections.more.environment: its group is of environment development",
		"version: 1\ngroups: {new: {environment: test}}\nconnections: {more: {group: new, profile: p, environment: production}}\n": "connections.more.environment: its group is of environment test",
	} {
		w, err := plan.Load(written(t, text))
		must(t, err)
		if _, err := plan.Make(t.Context(), c, w, false); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
