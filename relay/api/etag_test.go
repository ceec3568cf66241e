package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/api"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// agent enrols one into a group of the own workspace, and gives its id.
func (g *rig) agent(group string) string {
	g.t.Helper()
	return g.agentIn("default", group)
}

func onlyIf(tags ...string) func(*http.Request) {
	return func(r *http.Request) {
		for _, t := range tags {
			r.Header.Add("If-Match", t)
		}
	}
}

// tagged finds the ETag of a thing in an answer: of the one, or of the item of a list that holds the text.
func tagged(t *testing.T, a answer, holds string) string {
	t.Helper()
	var one struct {
		ETag  string
		Items []json.RawMessage
	}
	if err := json.Unmarshal([]byte(a.body), &one); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	for _, item := range one.Items {
		if strings.Contains(string(item), holds) {
			must(t, json.Unmarshal(item, &one))
			return one.ETag
		}
	}
	if one.ETag != a.header.Get("ETag") && one.ETag != "" {
		t.Errorf("the body says %s, the header %s", one.ETag, a.header.Get("ETag"))
	}
	return a.header.Get("ETag")
}

// changing are the routes that change something that is there: what is below a connection in the data plane has conditions of its own.
func changing(r api.Route) bool {
	return r.Method != "GET" && r.Method != "HEAD" && !strings.Contains(r.Path, "{connection}") && !strings.HasSuffix(r.Path, "/tunnel") &&
		(r.Method != "POST" || strings.Contains(strings.TrimPrefix(r.Path, "/workspaces/{workspace}"), "{") || strings.HasPrefix(r.Path, "/account") || r.Path == "/sign-out")
}

// Every change of what is there is refused when somebody else was faster, and is made by who read what is there now.
func TestEveryChangeHonoursIfMatch(t *testing.T) {
	g := newRig(t)
	const ws, own = "/workspaces/{workspace}", "/workspaces/default"
	owner := g.token[authz.Owner]
	ask := func(method, path, body string, want int, edit ...func(*http.Request)) answer {
		t.Helper()
		a := g.ask(method, path, owner, body, edit...)
		if a.status != want {
			t.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.body, want)
		}
		return a
	}
	idOf := func(a answer) string {
		var o struct{ ID string }
		must(t, json.Unmarshal([]byte(a.body), &o))
		return o.ID
	}
	ask("POST", own+"/groups", `{"name":"plant"}`, 201)
	join := idOf(ask("POST", own+"/join-tokens", `{"group":"plant"}`, 201))
	ask("POST", own+"/connections", `{"name":"erp","group":"site","target":{"host":"erp.corp","port":3200}}`, 201)
	ask("POST", own+"/roles", `{"name":"reader","actions":["connection.query"]}`, 201)
	ask("POST", own+"/teams", `{"name":"night"}`, 201)
	tok := idOf(ask("POST", own+"/tokens", `{"name":"reports","roles":["analyst"]}`, 201))
	grant := idOf(ask("POST", own+"/grants", `{"role":"reader","team":"night"}`, 201))
	ask("POST", own+"/service-accounts", `{"name":"nightly"}`, 201)
	ask("POST", own+"/domains", `{"name":"sales.apps.example"}`, 201)
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{PersonalTokens: time.Hour}))
	ask("POST", own+"/users", `{"name":"anna","roles":["analyst"]}`, 201)
	ask("POST", own+"/projects", `{"name":"sales"}`, 201)
	folder := idOf(ask("POST", own+"/projects/sales/folders", `{"path":"reports"}`, 201))
	other := g.person("carla", authz.Analyst)
	me := g.person("bertha", authz.Admin)
	session := func(as string) string {
		var l struct {
			Items []struct {
				ID      string
				Current bool
			}
		}
		must(t, json.Unmarshal([]byte(g.ask("GET", "/account/sessions", as, "").body), &l))
		for _, s := range l.Items {
			if s.Current {
				return s.ID
			}
		}
		t.Fatal("no session")
		return ""
	}
	_, key, me := g.addPasskey(me)
	theirs, mine := session(other), session(me)
	hers := idOf(g.ask("POST", "/account/tokens", me, `{"name":"laptop"}`))
	port := freePort(t)
	agent := g.agent("site")

	done := map[string]bool{}
	for _, c := range []struct {
		route, path, body string // below the workspace when it begins with no slash
		read, holds       string // where its ETag is read
		as                string
	}{
		{"POST " + ws + "/agents/{id}/disable", own + "/agents/" + agent + "/disable", "", own + "/agents/" + agent, "", owner},
		{"POST " + ws + "/agents/{id}/enable", own + "/agents/" + agent + "/enable", "", own + "/agents", agent, owner},
		{"DELETE " + ws + "/agents/{id}", own + "/agents/" + agent, "", own + "/agents/" + agent, "", owner},
		{"DELETE " + ws + "/join-tokens/{id}", own + "/join-tokens/" + join, "", own + "/join-tokens", join, owner},
		{"DELETE " + ws + "/groups/{name}", own + "/groups/plant", "", own + "/groups", `"plant"`, owner},
		{"PUT " + ws + "/connections/{name}/gateway", own + "/connections/erp/gateway", `{"address":"` + port + `"}`, own + "/connections/erp", "", owner},
		{"DELETE " + ws + "/connections/{name}/gateway", own + "/connections/erp/gateway", "", own + "/connections", `"erp"`, owner},
		{"PUT " + ws + "/connections/{name}/place", own + "/connections/erp/place", `{"project":"sales","folder":"reports"}`, own + "/connections/erp", "", owner},
		{"PUT " + ws + "/connections/{name}/budget", own + "/connections/erp/budget", `{"concurrent":5}`, own + "/connections/erp/budget", "", owner},
		{"DELETE " + ws + "/connections/{name}", own + "/connections/erp", "", own + "/connections/erp", "", owner},
		{"POST " + ws + "/projects/{name}/folders", own + "/projects/sales/folders", `{"path":"more"}`, own + "/projects/sales", "", owner},
		{"DELETE " + ws + "/projects/{name}/folders/{id}", own + "/projects/sales/folders/" + folder, "", own + "/projects/sales/folders", folder, owner},
		{"DELETE " + ws + "/projects/{name}/folders/{id}", own + "/projects/sales/folders/more", "", own + "/projects/sales/folders", `"more"`, owner},
		{"PUT " + ws + "/projects/{name}", own + "/projects/sales", `{"name":"shop"}`, own + "/projects/sales", "", owner},
		{"DELETE " + ws + "/projects/{name}", own + "/projects/shop", "", own + "/projects", `"shop"`, owner},
		{"PUT " + ws + "/budget", own + "/budget", `{"concurrent":50}`, own + "/budget", "", owner},
		{"DELETE " + ws + "/grants/{id}", own + "/grants/" + grant, "", own + "/grants", grant, owner},
		{"PUT " + ws + "/roles/{name}", own + "/roles/reader", `{"name":"reader","actions":["connection.schema"]}`, own + "/roles/reader", "", owner},
		{"DELETE " + ws + "/roles/{name}", own + "/roles/reader", "", own + "/roles", `"reader"`, owner},
		{"PUT " + ws + "/teams/{name}/members/{id}", own + "/teams/night/members/reports", "", own + "/teams/night", "", owner},
		{"DELETE " + ws + "/teams/{name}/members/{id}", own + "/teams/night/members/reports", "", own + "/teams", `"night"`, owner},
		{"DELETE " + ws + "/teams/{name}", own + "/teams/night", "", own + "/teams/night", "", owner},
		{"DELETE " + ws + "/tokens/{id}", own + "/tokens/" + tok, "", own + "/tokens", tok, owner},
		{"POST " + ws + "/service-accounts/{name}/disable", own + "/service-accounts/nightly/disable", "", own + "/service-accounts/nightly", "", owner},
		{"POST " + ws + "/service-accounts/{name}/enable", own + "/service-accounts/nightly/enable", "", own + "/service-accounts", `"nightly"`, owner},
		{"DELETE " + ws + "/service-accounts/{name}", own + "/service-accounts/nightly", "", own + "/service-accounts/nightly", "", owner},
		{"DELETE " + ws + "/domains/{name}", own + "/domains/sales.apps.example", "", own + "/domains", "sales.apps", owner},
		{"POST /account/tokens", "/account/tokens", `{"name":"another"}`, "/account", "", me},
		{"DELETE /account/tokens/{id}", "/account/tokens/" + hers, "", "/account/tokens", hers, me},
		{"PUT " + ws + "/allowlist", own + "/allowlist", `{"prefixes":["192.0.2.0/24","2001:db8::/32"]}`, own + "/allowlist", "", owner},
		{"PUT " + ws + "/sign-in-policy", own + "/sign-in-policy", `{"min_length":9,"idle_seconds":1800}`, own + "/sign-in-policy", "", owner},
		{"PUT " + ws + "/users/{id}/email", own + "/users/anna/email", `{"email":"anna@example.com"}`, own + "/users", `"anna"`, owner},
		{"POST " + ws + "/users/{id}/code", own + "/users/anna/code", `{}`, own + "/users", `"anna"`, owner},
		{"POST " + ws + "/users/{id}/disable", own + "/users/anna/disable", "", own + "/users", `"anna"`, owner},
		{"POST " + ws + "/users/{id}/enable", own + "/users/anna/enable", "", own + "/users", `"anna"`, owner},
		{"DELETE " + ws + "/users/{id}/second-factor", own + "/users/anna/second-factor", "", own + "/users", `"anna"`, owner},
		{"DELETE " + ws + "/users/{id}/sessions", own + "/users/anna/sessions", "", own + "/users", `"anna"`, owner},
		{"DELETE " + ws + "/users/{id}", own + "/users/anna", "", own + "/users", `"anna"`, owner},
		{"DELETE " + ws + "/sessions/{id}", own + "/sessions/" + theirs, "", own + "/sessions", theirs, owner},
		{"POST /account/passkeys/begin", "/account/passkeys/begin", "{}", "/account", "", me},
		{"POST /account/confirm/passkey/begin", "/account/confirm/passkey/begin", "{}", "/account", "", me},
		{"DELETE /account/passkeys/{id}", "/account/passkeys/" + key, "", "/account/passkeys", key, me},
		{"DELETE /account/sessions", "/account/sessions", "", "/account", "", me},
		{"PUT /account/email", "/account/email", `{"email":"me@example.com"}`, "/account", "", me},
		{"POST /account/second-factor", "/account/second-factor", "", "/account", "", me},
		{"DELETE /account/second-factor", "/account/second-factor", "", "/account", "", me},
		{"DELETE /account/sessions/{id}", "/account/sessions/" + mine, "", "/account/sessions", mine, me},
	} {
		method, _, _ := strings.Cut(c.route, " ")
		tag := tagged(t, g.ask("GET", c.read, c.as, ""), c.holds)
		if !strings.HasPrefix(tag, `"`) || len(tag) < 20 {
			t.Fatalf("%s: the ETag read is %q", c.route, tag)
		}
		for _, stale := range []string{`"AAAAAAAAAAAAAAAAAAAA"`, "W/" + tag, strings.Trim(tag, `"`), `""`, ""} {
			a := g.ask(method, c.path, c.as, c.body, onlyIf(stale))
			if a.status != http.StatusPreconditionFailed || a.problem.Code != protocol.CodePrecondition || a.problem.Rule != "if_match" || a.problem.Hint == "" {
				t.Errorf("%s with If-Match %s: %d %s", c.route, stale, a.status, a.body)
			}
		}
		if now := tagged(t, g.ask("GET", c.read, c.as, ""), c.holds); now != tag {
			t.Errorf("%s was refused and changed %s to %s", c.route, tag, now)
		}
		if a := g.ask(method, c.path, c.as, c.body, onlyIf(`"AAAAAAAAAAAAAAAAAAAA"`, tag)); a.status >= 300 {
			t.Errorf("%s with its own ETag: %d %s", c.route, a.status, a.body)
		}
		done[c.route] = true
	}
	// These have no success here, yet their conditions.
	me = g.person("dora", authz.Admin)
	for _, c := range [][3]string{{"PUT", "/account/second-factor", `{"code":"123456"}`}, {"POST", "/account/recovery-codes", ""}, {"POST", "/account/passkeys", `{"ceremony":"x","label":"x","credential":{}}`}, {"POST", "/account/confirm", `{"password":"` + goodPassword + `"}`},
		{"POST", "/account/password", `{"password":"` + goodPassword + `","new_password":"another fine kettle of fish"}`}, {"POST", "/account/hand-over", handOverBody("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")}, {"POST", "/sign-out", ""}} {
		if a := g.ask(c[0], c[1], me, c[2], onlyIf(`"AAAAAAAAAAAAAAAAAAAA"`)); a.status < 400 {
			t.Errorf("%v: %d %s", c, a.status, a.body)
		}
		done[c[0]+" "+c[1]] = true
	}
	ask("DELETE", own+"?confirm=default", "", http.StatusPreconditionFailed, onlyIf(`"AAAAAAAAAAAAAAAAAAAA"`))
	ask("DELETE", own+"?confirm=default", "", http.StatusNoContent, onlyIf("*"))
	done["DELETE "+ws] = true
	for _, r := range g.api.Routes() {
		if key := r.Method + " " + r.Path; changing(r) && !done[key] {
			t.Errorf("%s was not asked: give what it changes an ETag, and a line in things()", key)
		}
	}
}

// What is not there, or not the caller's to see, is told as without a condition (RFC 9110, 13.2.1): an ETag finds nothing out.
func TestIfMatchTellsNothingOfWhatIsNotThere(t *testing.T) {
	g := newRig(t)
	token := g.token[authz.Admin]
	for _, path := range []string{"/workspaces/default/groups/gone", "/workspaces/default/roles/gone", "/workspaces/default/connections/" + g.otherConn, "/workspaces/other/groups/site"} {
		for _, tag := range []string{"*", `"AAAAAAAAAAAAAAAAAAAA"`} {
			plain, cond := g.ask("DELETE", path, token, ""), g.ask("DELETE", path, token, "", onlyIf(tag))
			if plain.status != http.StatusNotFound || plain.shape() != cond.shape() {
				t.Errorf("%s If-Match %s: %d %s, without %d %s", path, tag, cond.status, cond.body, plain.status, plain.body)
			}
		}
	}
	// Whoever may not is denied, and not told whether the condition holds.
	if a := g.ask("PUT", "/workspaces/default/budget", g.token[authz.Analyst], `{}`, onlyIf(`"x"`)); a.status != http.StatusForbidden {
		t.Errorf("%d %s", a.status, a.body)
	}
	// What is made in a list has no version yet.
	if a := g.ask("POST", "/workspaces/default/groups", token, `{"name":"new"}`, onlyIf(`"AAAAAAAAAAAAAAAAAAAA"`)); a.status != http.StatusPreconditionFailed {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.ask("POST", "/workspaces/default/groups", token, `{"name":"new"}`, onlyIf("*")); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// J4: of many who read the same and change it at once, one wins: the condition is judged in the transaction.
func TestOfManyChangesOnOneETagOneIsMade(t *testing.T) {
	g := newRig(t)
	token := g.token[authz.Admin]
	const n = 12
	for round := range 5 {
		tag := tagged(t, g.ask("GET", "/workspaces/default/budget", token, ""), "")
		statuses := make([]int, n)
		var all sync.WaitGroup
		for i := range n {
			body, err := json.Marshal(map[string]int{"concurrent": 100*(round+1) + i})
			must(t, err)
			all.Go(func() {
				statuses[i] = g.ask("PUT", "/workspaces/default/budget", token, string(body), onlyIf(tag)).status
			})
		}
		all.Wait()
		won := 0
		for _, s := range statuses {
			switch s {
			case 200:
				won++
			case http.StatusPreconditionFailed:
			default:
				t.Errorf("%v", statuses)
			}
		}
		if won != 1 {
			t.Errorf("%d changes were made on one ETag: %v", won, statuses)
		}
	}
}
