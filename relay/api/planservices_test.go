package api_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/plan"
)

// A grant goes to a service account, with a token or without, and not to the name of one of its tokens: the plan says so.
func TestPlanGivesToServiceAccountsNotToTokens(t *testing.T) {
	g := newRig(t)
	c := g.dial(g.token[authz.Owner], nil)
	_, err := c.CreateServiceAccount(t.Context(), client.NewServiceAccount{Name: "nightly"})
	must(t, err)
	file := written(t, "version: 1\ngrants: [{role: analyst, to: nightly}]\nteams: {programs: {members: [nightly, loader]}}\nservice_accounts: {loader: {disabled: true}}\n")
	p := made(t, c, false, file)
	if want := []string{"create service account loader", "create team programs", "create grant analyst to nightly on the workspace"}; !slices.Equal(steps(p), want) {
		t.Errorf("%q, want %q", steps(p), want)
	}
	applied(t, c, p)
	if p := made(t, c, false, file); len(p.Steps) != 0 {
		t.Errorf("after apply: %q", steps(p))
	}
	_, err = c.CreateToken(t.Context(), client.NewToken{Name: "this-week", Principal: "nightly"})
	must(t, err)
	_, err = c.CreateUser(t.Context(), client.NewUser{Name: "anna", Roles: []string{"analyst"}})
	must(t, err)
	for text, says := range map[string]string{
		"grants: [{role: analyst, to: this-week}]\n":            "grants[0].to: there is no such principal; name a user or a service account, not a token",
		"teams: {programs: {members: [this-week]}}\n":           "teams.programs.members[0]: there is no such principal",
		"service_accounts: {anna: {}}\nusers: {}\n":             "service_accounts.anna: a user has this name",
		"service_accounts: {}\nusers: {nightly: {roles: []}}\n": "users.nightly: a service account has this name",
	} {
		w, err := plan.Load(written(t, "version: 1\n"+text))
		must(t, err)
		if _, err := plan.Make(t.Context(), c, w, false); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
	// Its state is changed in place; what the section lacks goes with prune alone, with what it holds.
	next := written(t, "version: 1\nservice_accounts: {loader: {}, a admin: {}, a operator: {}, a analyst: {}}\nteams: {programs: {members: [loader]}}\ngrants: [{role: admin, to: a admin}]\n")
	keep := made(t, c, false, next)
	if want := []string{"service account nightly", "grant analyst to nightly on the workspace"}; !slices.Equal(steps(keep), []string{"change service account loader"}) || !subset(want, keep.Left) {
		t.Errorf("%q, left %q", steps(keep), keep.Left)
	}
	p = made(t, c, true, next)
	if !slices.Contains(steps(p), "delete service account nightly") || slices.ContainsFunc(steps(p), func(s string) bool {
		return strings.Contains(s, "grant analyst to nightly") || strings.Contains(s, "member nightly")
	}) {
		t.Errorf("%q", steps(p))
	}
	// Who may not list service accounts plans the rest, and learns at the step who is not there.
	_, err = c.CreateRole(t.Context(), client.SetRole{Name: "giver", Actions: []string{"grants.read", "grants.manage", "users.read", "teams.read", "roles.read", "connections.read"}})
	must(t, err)
	_, err = c.CreateServiceAccount(t.Context(), client.NewServiceAccount{Name: "giver"})
	must(t, err)
	_, err = c.CreateGrant(t.Context(), client.NewGrant{Role: "giver", Principal: "giver"})
	must(t, err)
	tok, err := c.CreateToken(t.Context(), client.NewToken{Name: "giver", Principal: "giver"})
	must(t, err)
	few := g.dial(tok.Token, nil)
	if _, err := few.ServiceAccounts(t.Context()); err == nil {
		t.Fatal("it may list them")
	}
	if p := made(t, few, false, written(t, "version: 1\ngrants: [{role: giver, to: nobody-sees}]\n")); !slices.Equal(steps(p), []string{"create grant giver to nobody-sees on the workspace"}) {
		t.Errorf("%q", steps(p))
	}
	// No program removes itself.
	if p := made(t, g.dial(g.token[authz.Admin], nil), true, written(t, "version: 1\nservice_accounts: {}\n")); !slices.Equal(p.Left, []string{"service account a admin (you)"}) || !slices.Contains(steps(p), "delete service account giver") {
		t.Errorf("%q, left %q", steps(p), p.Left)
	}
	w, err := plan.Load(written(t, "version: 1\nservice_accounts: {}\n"))
	must(t, err)
	if _, err := plan.Make(t.Context(), few, w, true); err == nil {
		t.Error("a section that the caller may not read was taken for empty")
	}
}

// An export is the workspace: on the same it changes nothing, and on another relay's empty workspace it makes the same.
func TestExportMakesTheSameElsewhere(t *testing.T) {
	g := newRig(t)
	c := g.dial(g.token[authz.Owner], nil)
	applied(t, c, made(t, c, false, written(t, `version: 1
roles: {reader: {actions: [connections.read, connection.query]}}
users: {anna: {roles: [admin]}, carla: {roles: [analyst], disabled: true}}
service_accounts: {nightly: {}, old-loader: {disabled: true}}
teams: {night: {members: [anna, nightly]}}
projects: {sales: {folders: [reports]}}
connections:
  shop: {group: site, profile: shop, project: sales, folder: reports, budget: {concurrent: 5}}
grants:
  - {role: analyst, to: nightly}
  - {role: reader, to: nightly, connection: shop}
  - {role: reader, to: old-loader, project: sales, environment: production}
  - {role: reader, to_team: night, environment: test}
domains: [data.apps.example, shop.apps.example]
budget: {concurrent: 50}
allowlists: {agents: [198.51.100.0/24]}
sign_in_policy: {min_length: 20}
`)))
	out, err := plan.Export(t.Context(), c)
	must(t, err)
	for _, text := range []string{"\nservice_accounts:\n", "  nightly: {}\n", "  old-loader: {disabled: true}\n", "\ndomains:\n  - data.apps.example\n  - shop.apps.example\n"} {
		if !strings.Contains(string(out), text) {
			t.Errorf("%q is not in\n%s", text, out)
		}
	}
	if p := made(t, c, true, written(t, string(out))); len(p.Steps)+len(p.Left) != 0 {
		t.Errorf("%q, left %q, of\n%s", steps(p), p.Left, out)
	}
	fresh := newRig(t)
	there, elsewhere := fresh.dial(fresh.token[authz.Owner], nil), written(t, string(out))
	if res := applied(t, there, made(t, there, false, elsewhere)); len(res.Codes) != 1 { // carla is disabled
		t.Errorf("codes %v", res.Codes)
	}
	if p := made(t, there, true, elsewhere); len(p.Steps)+len(p.Left) != 0 {
		t.Errorf("after apply: %q, left %q", steps(p), p.Left)
	}
	if again, err := plan.Export(t.Context(), there); err != nil || string(again) != string(out) {
		t.Errorf("%v, it is another there:\n%s\nwas\n%s", err, again, out)
	}
	// Domains: one goes with prune alone, and one that the operator does not let a workspace have ends the run with its reason, when the rest is done.
	fewer := written(t, "version: 1\ndomains: [data.apps.example]\n")
	if p := made(t, there, false, fewer); len(p.Steps) != 0 || !slices.Equal(p.Left, []string{"domain shop.apps.example"}) {
		t.Errorf("%q %q", steps(p), p.Left)
	}
	applied(t, there, made(t, there, true, fewer))
	if l, err := there.Domains(t.Context()); err != nil || len(l) != 1 || l[0].Name != "data.apps.example" {
		t.Errorf("%v %v", l, err)
	}
	p := made(t, there, false, written(t, "version: 1\ndomains: [data.apps.example, www.example]\nbudget: {concurrent: 51}\n"))
	if res, err := p.Apply(t.Context(), there, func(plan.Step) {}); err == nil || !strings.Contains(err.Error(), "create domain www.example: denied: no workspace may make this name its own") || len(res.Done) != 1 {
		t.Errorf("%v, %+v", err, res)
	}
}
