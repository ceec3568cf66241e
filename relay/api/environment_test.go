package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// siteRoutes are the routes about agent groups and what is in them, with a body that each takes.
var siteRoutes = map[string]string{"GET /agents": "", "GET /agents/{id}": "", "POST /agents/{id}/disable": "", "POST /agents/{id}/enable": "", "DELETE /agents/{id}": "",
	"GET /groups": "", "POST /groups": `{"name":"more","environment":"test"}`, "DELETE /groups/{name}": "",
	"GET /join-tokens": "", "POST /join-tokens": `{"group":"lab"}`, "DELETE /join-tokens/{id}": ""}

// site is an agent group with an agent and an open join token.
type site struct{ group, agent, token string }

// siteIn makes one, of an environment or of none; a group that is there already gets the rest.
func (g *rig) siteIn(name, in string) (s site) {
	g.t.Helper()
	if _, err := g.now().Group(name); err != nil {
		g.makes([2]string{"groups", `{"name":"` + name + `","environment":"` + in + `"}`})
	}
	of, err := g.now().Group(name)
	must(g.t, err)
	t, _, err := g.dir.CreateJoinToken(g.t.Context(), "default", name, 0, "")
	must(g.t, err)
	return site{of.ID, g.agent(name), t.ID}
}

// sites tells all that agent groups are and hold.
func (g *rig) sites() string {
	w, told := g.now(), []string{g.count()}
	for _, of := range w.Groups {
		told = append(told, of.ID+of.Name+string(of.Environment))
	}
	for _, a := range w.Agents {
		told = append(told, a.ID+a.Group+fmt.Sprint(a.Disabled))
	}
	for _, t := range w.JoinTokens {
		told = append(told, t.ID+t.Group)
	}
	return strings.Join(told, " ")
}

// Every route about agent groups is in the walks below.
func TestSiteRoutesAreAllThatThereAre(t *testing.T) {
	g := newRig(t)
	there := 0
	for _, r := range g.api.Routes() {
		row, ok := authz.Find(authz.Action(r.Action))
		if !ok || row.Level != authz.OnEnvironment {
			continue
		}
		there++
		if _, ok := siteRoutes[r.Method+" "+strings.TrimPrefix(r.Path, "/workspaces/{workspace}")]; !ok {
			t.Errorf("%s %s is in no walk", r.Method, r.Path)
		}
	}
	if there != len(siteRoutes) {
		t.Errorf("%d routes, and %d in the walks", there, len(siteRoutes))
	}
}

// A person may be admin in one environment: makes and removes its agent groups, its join tokens and its agents, and sees them.
func TestAdminOfAnEnvironmentHasItsAgentGroups(t *testing.T) {
	g := newRig(t)
	g.siteIn("vault", "production")
	g.siteIn("site", "")
	const own = "/workspaces/default"
	asks := map[string]string{"admin": g.nobody("admin of test"), "operator": g.nobody("operator of test")}
	for role := range asks {
		g.give(`{"role":"` + role + `","principal":"` + role + ` of test","environment":"test"}`)
	}
	g.nobody("whole")
	g.give(`{"role":"operator","principal":"whole"}`)
	asks["a token of the whole workspace, limited to test"], _ = g.tokenOf(own+"/tokens", g.token[authz.Owner], `{"name":"limited","principal":"whole","only":{"environments":["test"]}}`)
	for who, token := range asks {
		var of client.Group
		g.get("POST", own+"/groups", token, `{"name":"lab","environment":"test"}`, &of)
		var ticket client.CreatedJoinToken
		g.get("POST", own+"/join-tokens", token, `{"group":"lab"}`, &ticket)
		if of.Environment != "test" || ticket.Group != "lab" || !strings.HasPrefix(ticket.Token, "flj_") {
			t.Errorf("%s: %+v %+v", who, of, ticket.Group)
		}
		agent := g.agent("lab")
		for path, want := range map[string]string{"/groups": of.ID, "/join-tokens": ticket.ID, "/agents": agent} {
			var l listed
			g.get("GET", own+path, token, "", &l)
			if len(l.Items) != 1 || l.Items[0].ID != want || l.Cursor != "" {
				t.Errorf("%s %s: %+v, want %s alone", who, path, l, want)
			}
		}
		var a client.Agent
		g.get("GET", own+"/agents/"+agent, token, "", &a)
		g.get("POST", own+"/agents/"+agent+"/disable", token, "", &a)
		if a.State != client.AgentDisabled || a.Group != "lab" {
			t.Errorf("%s: %+v", who, a)
		}
		g.get("POST", own+"/agents/"+agent+"/enable", token, "", &a)
		if a.State == client.AgentDisabled {
			t.Errorf("%s: %+v", who, a)
		}
		g.get("POST", own+"/connections", token, `{"name":"shop-test","group":"lab","profile":"shop"}`, nil)
		g.get("DELETE", own+"/connections/shop-test", token, "", nil)
		g.get("DELETE", own+"/agents/"+agent, token, "", nil)
		g.get("DELETE", own+"/join-tokens/"+ticket.ID, token, "", nil)
		g.get("DELETE", own+"/groups/lab", token, "", nil)
	}
}

// J1, J9: an admin of an environment sees, makes and changes nothing of another's agent groups, nor of the workspace's own: what is there
// answers byte by byte as what is not.
func TestAdminOfAnEnvironmentHasNothingOfOtherAgentGroups(t *testing.T) {
	g := newRig(t)
	hidden := []site{g.siteIn("vault", "production"), g.siteIn("site", ""), g.siteIn("desk", "development")}
	lab := g.siteIn("lab", "test")
	const own, gone = "/workspaces/default", "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	asks := map[string]string{"admin": g.nobody("admin of test"), "operator": g.nobody("operator of test")}
	for role := range asks {
		g.give(`{"role":"` + role + `","principal":"` + role + ` of test","environment":"test"}`)
	}
	g.nobody("whole")
	g.give(`{"role":"operator","principal":"whole"}`)
	asks["limited"], _ = g.tokenOf(own+"/tokens", g.token[authz.Owner], `{"name":"limited","principal":"whole","only":{"environments":["test"]}}`)
	before := g.sites()
	for who, token := range asks {
		for key := range siteRoutes {
			method, path, _ := strings.Cut(key, " ")
			if !strings.Contains(path, "{") {
				continue
			}
			for n, s := range hidden {
				there, missing := map[string][]string{"agents": {s.agent}, "groups": {s.group, []string{"vault", "site", "desk"}[n]}, "join-tokens": {s.token}}, map[string]string{"agents": "agt_", "groups": "grp_", "join-tokens": "jtk_"}
				kind := strings.Split(path, "/")[1]
				for _, name := range there[kind] {
					for _, with := range []func(*http.Request){func(*http.Request) {}, onlyIf("*"), onlyIf(`"x"`)} {
						a, b := g.ask(method, own+fill(path, "", name), token, "", with), g.ask(method, own+fill(path, "", missing[kind]+gone), token, "", with)
						if a.status != http.StatusNotFound || same(a) != same(b) {
							t.Errorf("J9 %s as %s, %s: %s; what is not there: %s", key, who, name, same(a), same(b))
						}
					}
				}
			}
		}
		// To make: in another environment or in none it is refused, whether or not the name is taken there; a group that is not the caller's is
		// as one that is not there.
		for _, in := range []string{`,"environment":"production"`, `,"environment":"development"`, ``} {
			a, b := g.ask("POST", own+"/groups", token, `{"name":"vault"`+in+`}`), g.ask("POST", own+"/groups", token, `{"name":"fresh"`+in+`}`)
			if a.status != http.StatusForbidden || a.problem.Code != protocol.CodeDenied || same(a) != same(b) {
				t.Errorf("J1 POST /groups as %s%s: %s; %s", who, in, same(a), same(b))
			}
		}
		for _, name := range []string{"vault", "site", "desk", hidden[0].group, hidden[1].group} {
			for path, body := range map[string]string{"/join-tokens": `{"group":"{x}"}`, "/connections": `{"name":"x","group":"{x}","profile":"p"}`} {
				a, b := g.ask("POST", own+path, token, strings.ReplaceAll(body, "{x}", name)), g.ask("POST", own+path, token, strings.ReplaceAll(body, "{x}", "grp_"+gone))
				if a.status < 400 || same(a) != same(b) {
					t.Errorf("J9 POST %s as %s, group %s: %s; one that is not there: %s", path, who, name, same(a), same(b))
				}
			}
		}
		// Lists tell of what is the caller's, and by nothing of the rest: not by a page that is shorter, nor by a cursor to what is not shown.
		for path, id := range map[string]string{"/groups": lab.group, "/agents": lab.agent, "/join-tokens": lab.token} {
			for _, query := range []string{"", "?limit=1", "?limit=1000"} {
				if l := g.list(own+path, token, query); len(l.Items) != 1 || l.Items[0].ID != id || l.Cursor != "" {
					t.Errorf("J1 GET %s%s as %s: %+v", path, query, who, l)
				}
			}
			a := g.ask("GET", own+path, token, "")
			for _, s := range append(hidden, site{"vault", "desk", `"site"`}) {
				if strings.Contains(a.body, s.group) || strings.Contains(a.body, s.agent) || strings.Contains(a.body, s.token) {
					t.Errorf("J1 GET %s as %s tells of %+v: %s", path, who, s, a.body)
				}
			}
		}
	}
	if now := g.sites(); now != before {
		t.Errorf("J1 something was done:\n%s, was\n%s", now, before)
	}
	// The log says what was tried, with the thing that it was tried on.
	said := func(parts ...string) bool {
		return slices.ContainsFunc(g.events(), func(ev string) bool {
			return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(ev, p) })
		})
	}
	if !said("operation.denied", `"groups.create"`, `"code":"denied"`) || !said(`"agents.delete"`, "DELETE /workspaces/", hidden[0].agent, `"status":"failed"`) {
		t.Error("refusals do not stand in the log")
	}
	// Pages of several, with others between them.
	for i := range 5 {
		g.makes([2]string{"groups", fmt.Sprintf(`{"name":"m%d","environment":"test"}`, i)}, [2]string{"groups", fmt.Sprintf(`{"name":"m%dx","environment":"production"}`, i)})
	}
	var names []string
	for cursor, pages := "", 0; ; pages++ {
		l := g.list(own+"/groups", asks["operator"], "?limit=2&cursor="+url.QueryEscape(cursor))
		for _, i := range l.Items {
			names = append(names, i.Name)
		}
		if cursor = l.Cursor; cursor == "" || pages > 5 {
			break
		}
		if len(l.Items) != 2 {
			t.Errorf("J1 a page of %d", len(l.Items))
		}
	}
	if strings.Join(names, " ") != "lab m0 m1 m2 m3 m4" {
		t.Errorf("J1 %q", names)
	}
}

// J1: a role on a project, a folder or a connection is nothing about agent groups, of whatever environment.
func TestWhatHoldsNoAgentGroupsGivesNoneOfThem(t *testing.T) {
	g := newRig(t)
	g.projects()
	lab := g.siteIn("lab", "test")
	const own = "/workspaces/default"
	before := ""
	tokens := map[string]string{}
	for name, on := range map[string]string{"project": `,"project":"sales"`, "project in test": `,"project":"sales","environment":"test"`, "folder": `,"project":"sales","folder":"reports"`, "connection": `,"connection":"till"`} {
		tokens[name] = g.nobody(name)
		g.give(`{"role":"admin","principal":"` + name + `"` + on + `}`)
	}
	tokens["a token that is limited to a project"], _ = g.tokenOf(own+"/tokens", g.token[authz.Owner], `{"name":"limited","principal":"project","only":{"projects":["sales"]}}`)
	before = g.sites()
	for name, token := range tokens {
		for key, body := range siteRoutes {
			method, path, _ := strings.Cut(key, " ")
			for _, id := range []string{lab.agent, lab.group, lab.token, "lab"} {
				if a := g.ask(method, own+fill(path, "", id), token, body); a.status != http.StatusForbidden || a.problem.Code != protocol.CodeDenied {
					t.Errorf("J1 %s by an admin of %s: %d %s", key, name, a.status, a.body)
				}
			}
		}
	}
	if now := g.sites(); now != before {
		t.Errorf("J1 something was done:\n%s, was\n%s", now, before)
	}
}

// Who sees an agent group and may not change it is told what is missing; who may change it and not see it, changes it.
func TestToSeeAgentGroupsAndToChangeThemAreTwoThings(t *testing.T) {
	g := newRig(t)
	s := g.siteIn("vault", "production")
	const own = "/workspaces/default"
	sees, changes := g.nobody("sees"), g.nobody("changes")
	g.makes([2]string{"roles", `{"name":"reads","actions":["groups.read","agents.read","join_tokens.read"]}`}, [2]string{"roles", `{"name":"manages","actions":["groups.manage","agents.manage","join_tokens.manage"]}`})
	g.give(`{"role":"reads","principal":"sees","environment":"production"}`)
	g.give(`{"role":"manages","principal":"sees","environment":"test"}`)
	g.give(`{"role":"manages","principal":"changes","environment":"production"}`)
	before := g.sites()
	for key, body := range siteRoutes {
		method, path, _ := strings.Cut(key, " ")
		id := map[string]string{"agents": s.agent, "groups": "vault", "join-tokens": s.token}[strings.Split(path, "/")[1]]
		body = strings.NewReplacer("test", "production", "lab", "vault").Replace(body)
		a := g.ask(method, own+fill(path, "", id), sees, body)
		if method == "GET" && a.status != http.StatusOK || method != "GET" && (a.status != http.StatusForbidden || !strings.Contains(a.problem.Hint, "it wants the action ")) {
			t.Errorf("J1 %s: %d %s", key, a.status, a.body)
		}
		if method == "GET" {
			if a := g.ask(method, own+fill(path, "", id), changes, ""); a.status != http.StatusForbidden {
				t.Errorf("J1 %s: %d %s", key, a.status, a.body)
			}
		}
	}
	if now := g.sites(); now != before {
		t.Errorf("J1 something was done:\n%s, was\n%s", now, before)
	}
	g.get("POST", own+"/agents/"+s.agent+"/disable", changes, "", nil)
	g.get("DELETE", own+"/agents/"+s.agent, changes, "", nil)
	g.get("DELETE", own+"/join-tokens/"+s.token, changes, "", nil)
	g.get("POST", own+"/join-tokens", changes, `{"group":"vault"}`, nil)
	g.get("DELETE", own+"/groups/vault", changes, "", nil)

	// The refusal to lead a connection to a group names its environment to who sees that group.
	g.siteIn("vault", "production")
	blind := g.nobody("blind")
	g.makes([2]string{"projects", `{"name":"sales"}`})
	for name, in := range map[string]string{"sees": "production", "blind": "test"} {
		g.give(`{"role":"operator","principal":"` + name + `","project":"sales"}`)
		g.give(`{"role":"reads","principal":"` + name + `","environment":"` + in + `"}`)
	}
	for token, names := range map[string]bool{sees: true, blind: false} {
		a := g.ask("POST", own+"/connections", token, `{"name":"x","group":"vault","profile":"wages","project":"sales"}`)
		if a.status != http.StatusForbidden || strings.Contains(a.problem.Hint, "on environment production") != names || strings.Contains(a.body, "production") != names {
			t.Errorf("J1 names it: want %v: %d %s", names, a.status, a.body)
		}
	}
}

// J2, and explain: a role on an environment is given by who holds it there whole, and why is told.
func TestRolesOnAnEnvironmentGiveItsAgentGroups(t *testing.T) {
	g := newRig(t)
	const own = "/workspaces/default"
	chief, less := g.nobody("chief"), g.nobody("less")
	g.nobody("taker")
	var all, some []string
	for _, a := range authz.Operator.Set().Actions() {
		row, _ := authz.Find(a)
		if all = append(all, string(a)); row.Level != authz.OnEnvironment {
			some = append(some, string(a))
		}
	}
	for name, actions := range map[string][]string{"deputy": all, "deputy-without": some} {
		b, err := json.Marshal(append(actions, "grants.read", "grants.manage"))
		must(t, err)
		g.makes([2]string{"roles", `{"name":"` + name + `","actions":` + string(b) + `}`})
	}
	g.give(`{"role":"deputy","principal":"chief","environment":"test"}`)
	g.give(`{"role":"deputy-without","principal":"less","environment":"test"}`)
	grants := len(g.now().Grants)
	const body = `{"role":"operator","principal":"taker","environment":"test"}`
	if a := g.ask("POST", own+"/grants", less, body); a.status < 400 || len(g.now().Grants) != grants {
		t.Errorf("J2 given by who does not hold it: %d %s", a.status, a.body)
	}
	if a := g.ask("POST", own+"/grants", chief, strings.Replace(body, `"test"`, `"production"`, 1)); a.status < 400 || len(g.now().Grants) != grants {
		t.Errorf("J2 given elsewhere: %d %s", a.status, a.body)
	}
	g.get("POST", own+"/grants", chief, body, nil)
	for in, may := range map[string]bool{"&environment=test": true, "&environment=production": false, "": false} {
		var e client.Explanation
		if g.get("GET", own+"/explain?principal=taker&action=agents.manage"+in, g.token[authz.Admin], "", &e); e.Allow != may || may != (e.Grant != nil) || !may && (len(e.Near) != 1 || !slices.Equal(e.Near[0].Lacks, []string{"scope"})) {
			t.Errorf("explain%s: %+v", in, e)
		}
	}
}

// J1: what is judged is the state that is changed, not that of before: a name that is another environment's by now, an agent that is gone,
// a right that was taken, a principal that is nobody.
func TestAgentGroupsAreChangedByWhatHoldsWhenItIsWritten(t *testing.T) {
	g := newRig(t)
	ctx := t.Context()
	g.nobody("late")
	grant := g.give(`{"role":"operator","principal":"late","environment":"test"}`)
	p, err := g.now().FindPrincipal("late")
	must(t, err)
	by := directory.By{ID: p.ID, At: authz.At{Time: time.Now()}}
	s := g.siteIn("lab", "test")
	acts := func(by directory.By, s site, name string) map[string]error {
		_, _, joins := g.dir.CreateJoinTokenBy(ctx, by, "default", name, 0)
		_, leads := g.dir.CreateConnectionBy(ctx, by, "default", name, directory.ConnectionBody{Name: "x", Profile: "p"})
		return map[string]error{"a join token": joins, "a connection": leads, "disable": g.dir.DisableAgentBy(ctx, by, "default", s.agent), "enable": g.dir.EnableAgentBy(ctx, by, "default", s.agent),
			"delete an agent": g.dir.DeleteAgentBy(ctx, by, "default", s.agent), "withdraw": g.dir.DeleteJoinTokenBy(ctx, by, "default", s.token), "delete a group": g.dir.DeleteGroupBy(ctx, by, "default", name)}
	}
	refused := func(what string, code protocol.Code, by directory.By, s site, name string) {
		t.Helper()
		before := g.sites()
		for act, err := range acts(by, s, name) {
			if e := protocol.AsError(err); err == nil || e.Code != code && !(act == "a connection" && e.Code == protocol.CodeDenied) {
				t.Errorf("J1 %s, %s: %v", what, act, err)
			}
		}
		if now := g.sites(); now != before {
			t.Errorf("J1 %s: something was done:\n%s, was\n%s", what, now, before)
		}
	}
	// The group is gone, and its name another environment's.
	must(t, g.dir.DeleteAgent(ctx, "default", s.agent))
	must(t, g.dir.DeleteGroup(ctx, "default", "lab"))
	refused("what is gone", protocol.CodeNotFound, by, s, "lab")
	moved := g.siteIn("lab", "production")
	refused("a name that is another environment's", protocol.CodeNotFound, by, moved, "lab")
	refused("an id that is gone", protocol.CodeNotFound, by, s, s.group)

	desk := g.siteIn("desk", "test")
	refused("nobody", protocol.CodeDenied, directory.By{ID: "usr_gone", At: by.At}, desk, "desk")
	refused("a token that is gone", protocol.CodeDenied, directory.By{ID: p.ID, At: by.At, Token: "tok_gone"}, desk, "desk")
	theirs, err := g.dir.Snapshot().Workspace("other")
	must(t, err)
	other := directory.By{ID: theirs.Principals[0].ID, At: by.At}
	refused("another workspace's", protocol.CodeDenied, other, desk, "desk")
	if _, err := g.dir.CreateGroupBy(ctx, other, "default", "theirs", authz.Test); err == nil {
		t.Error("P9 made by another workspace's")
	}
	if a := g.ask("DELETE", "/workspaces/default/grants/"+grant.ID, g.token[authz.Owner], ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	refused("a right that was taken", protocol.CodeNotFound, by, desk, "desk")
	if _, err := g.dir.CreateGroupBy(ctx, by, "default", "more", authz.Test); err == nil {
		t.Error("J1 made by a right that was taken")
	}
	g.give(`{"role":"operator","principal":"late","environment":"test"}`)
	must(t, g.dir.SetPrincipalDisabled(ctx, "default", p.ID, true))
	refused("who is disabled", protocol.CodeDenied, by, desk, "desk")

	// And while it happens: whoever asks for a join token of a name gets none of the group that has the name after.
	must(t, g.dir.SetPrincipalDisabled(ctx, "default", p.ID, false))
	for range 10 {
		_, err := g.dir.CreateGroupIn(ctx, "default", "swap", authz.Test)
		must(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 6 {
				_, _, _ = g.dir.CreateJoinTokenBy(ctx, by, "default", "swap", 0)
			}
		}()
		must(t, g.dir.DeleteGroup(ctx, "default", "swap"))
		after, err := g.dir.CreateGroupIn(ctx, "default", "swap", authz.Production)
		must(t, err)
		<-done
		if slices.ContainsFunc(g.now().JoinTokens, func(t directory.JoinToken) bool { return t.Group == after.ID }) {
			t.Fatal("J1 a join token of another environment's group was made")
		}
		must(t, g.dir.DeleteGroup(ctx, "default", "swap"))
	}
}

// A plan of who sees the groups of one environment takes none of the others for missing: the relay judges.
func TestPlanOfWhoSeesSomeAgentGroups(t *testing.T) {
	g := newRig(t)
	g.siteIn("vault", "production")
	g.makes([2]string{"connections", `{"name":"till","group":"site","profile":"p","environment":"test"}`})
	token := g.nobody("tester")
	g.give(`{"role":"operator","principal":"tester","environment":"test"}`)
	c := g.dial(token, nil)
	file := written(t, "version: 1\ngroups: {lab: {environment: test}}\nconnections:\n  bench: {group: lab, profile: p}\n  more: {group: site, profile: p, environment: test}\n")
	p := made(t, c, false, file)
	if got := steps(p); !slices.Equal(got, []string{"create group lab", "create connection bench", "create connection more"}) {
		t.Fatalf("%q", got)
	}
	applied(t, c, p)
	w := g.now()
	if _, err := w.Group("vault"); err != nil || len(w.Groups) != 4 || len(w.Connections) != 4 {
		t.Errorf("J1 %v, %d groups, %d connections", err, len(w.Groups), len(w.Connections))
	}
}
