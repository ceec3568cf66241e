package api_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/plan"
)

// Projects, folders, places and the grants on them are what the files say; what the files do not name goes with prune alone.
func TestPlanKnowsProjects(t *testing.T) {
	g := newRig(t)
	c := g.dial(g.token[authz.Owner], nil)
	port := freePort(t)
	const head = "version: 1\n"
	first := written(t, head+`
projects: {sales: {folders: [reports/monthly, reports]}, plant: {}}
connections:
  orders: {group: site, profile: p, project: sales, folder: reports/monthly}
  till: {group: site, profile: p}
grants:
  - {role: owner, to: admin}
  - {role: operator, to: a analyst, project: plant}
  - {role: operator, to: a analyst, project: sales, folder: reports, environment: test}
`)
	p := made(t, c, true, first)
	for _, want := range []string{"create project plant", "create folder sales/reports", "create folder sales/reports/monthly", "create connection orders", "create grant operator to a analyst on project plant",
		"create grant operator to a analyst on project sales/reports in test"} {
		if !slices.Contains(steps(p), want) {
			t.Errorf("the plan lacks %q: %q", want, steps(p))
		}
	}
	applied(t, c, p)
	if p := made(t, c, true, first); len(p.Steps)+len(p.Left) != 0 {
		t.Errorf("after apply: %q %q", steps(p), p.Left)
	}
	// Moved and given a gateway in one run: the second step goes by what the first one made of it.
	second := written(t, head+`
projects: {sales: {folders: [reports]}}
connections:
  orders: {group: site, profile: p}
  till: {group: site, profile: p, project: sales, folder: reports, gateway: {address: "`+port+`"}}
`)
	keep := made(t, c, false, second)
	if want := []string{"place of orders", "folder sales/reports/monthly", "project plant"}; !subset(want, keep.Left) || !slices.Equal(steps(keep), []string{"change place of till", "create gateway of till"}) {
		t.Errorf("left %q, steps %q", keep.Left, steps(keep))
	}
	p = made(t, c, true, second)
	if want := []string{"change place of till", "create gateway of till", "delete place of orders", "delete folder sales/reports/monthly", "delete project plant"}; !slices.Equal(steps(p), want) {
		t.Errorf("%q, want %q", steps(p), want)
	}
	applied(t, c, p)
	if p := made(t, c, true, second); len(p.Steps)+len(p.Left) != 0 {
		t.Errorf("after apply: %q %q", steps(p), p.Left)
	}
	// Gateway and place go in one run, too.
	third := written(t, head+"connections:\n  orders: {group: site, profile: p}\n  till: {group: site, profile: p}\n")
	applied(t, c, made(t, c, true, third))
	out, err := plan.Export(t.Context(), c)
	must(t, err)
	if p := made(t, c, true, written(t, string(out))); len(p.Steps)+len(p.Left) != 0 || !strings.Contains(string(out), "folders: [reports]") && !strings.Contains(string(out), `folders: ["reports"]`) {
		t.Errorf("after export: %q %q of\n%s", steps(p), p.Left, out)
	}
	for text, says := range map[string]string{
		"connections: {x: {group: site, profile: p, project: gone}}\n":                                            "connections.x.project: there is no such project",
		"connections: {x: {group: site, profile: p, project: sales, folder: gone}}\n":                             "connections.x.folder: there is no such folder",
		"projects: {new: {folders: [a]}}\nconnections: {x: {group: site, profile: p, project: new, folder: b}}\n": "connections.x.folder: there is no such folder",
		"grants: [{role: analyst, to: admin, project: gone}]\n":                                                   "grants[0].project: there is no such project",
		"grants: [{role: analyst, to: admin, project: sales, folder: gone}]\n":                                    "grants[0].folder: there is no such folder",
	} {
		w, err := plan.Load(written(t, head+text))
		must(t, err)
		if _, err := plan.Make(t.Context(), c, w, false); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
