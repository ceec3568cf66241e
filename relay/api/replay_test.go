package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

func (g *rig) replay(token, body string) (client.Replay, answer) {
	g.t.Helper()
	a := g.ask("POST", "/workspaces/default/explain/replay", token, body)
	var r client.Replay
	if a.status == 200 {
		must(g.t, json.Unmarshal([]byte(a.body), &r))
	}
	return r, a
}

// flip is a flip in a line: who, what, was, is now, would be, how often.
func flip(f client.Flip) string {
	b := map[bool]string{true: "y", false: "n"}
	return strings.Join([]string{f.PrincipalName, f.Action, f.Connection, f.SourceAddress, b[f.Recorded] + b[f.Now] + b[f.Proposed]}, " ") + " " + string(rune('0'+f.Count))
}

func flips(r client.Replay) (s []string) {
	for _, f := range r.Flips {
		s = append(s, flip(f))
	}
	return s
}

// What was decided is decided again under rights that nobody has given yet.
func TestReplayTellsWhatAChangeWouldFlip(t *testing.T) {
	g := newRig(t)
	owner := g.token[authz.Owner]
	const schema = "/workspaces/default/connections/default-shop/schema"
	dev, eve := g.nobody("dev"), g.nobody("eve")
	given := g.give(`{"role":"analyst","principal":"dev"}`)
	for range 2 {
		if a := g.ask("GET", schema, dev, ""); a.status != http.StatusServiceUnavailable { // let in; there is no agent
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if a := g.ask("GET", schema, eve, ""); a.status != http.StatusNotFound { // and is recorded as what it is
		t.Fatalf("%d %s", a.status, a.body)
	}
	// Refused by the allowlist: no grant has a part in it.
	if a := g.ask("GET", schema, dev, "", from("203.0.113.9:4000")); a.status != http.StatusForbidden {
		t.Fatalf("%d %s", a.status, a.body)
	}
	source := strings.Split(inside, ":")[0]
	for name, c := range map[string]struct {
		body string
		want []string
	}{
		"nothing":        {``, nil},
		"without":        {`,"without":["` + given.ID + `"]`, []string{"dev connection.schema default-shop " + source + " yyn 2"}},
		"given instead":  {`,"without":["` + given.ID + `"],"with":[{"role":"operator","principal":"dev","connection":"default-shop"}]`, nil},
		"with":           {`,"with":[{"role":"analyst","principal":"eve"}]`, []string{"eve connection.schema default-shop " + source + " nny 1"}},
		"from elsewhere": {`,"with":[{"role":"analyst","principal":"eve","from":["203.0.113.0/24"]}]`, nil},
		"another place":  {`,"with":[{"role":"analyst","principal":"eve","environment":"development"}]`, nil},
	} {
		r, a := g.replay(owner, `{"since_seconds":3600`+c.body+`}`)
		if a.status != 200 || strings.Join(flips(r), "; ") != strings.Join(c.want, "; ") || r.Replayed != 3 || r.Gone != 0 || !r.Complete {
			t.Errorf("%s: %d %s: %q", name, a.status, a.body, flips(r))
		}
	}
	// Nothing was changed by it.
	if a := g.ask("GET", schema, eve, ""); a.status != http.StatusNotFound {
		t.Errorf("a replay gave something: %d %s", a.status, a.body)
	}
	// Custom roles and teams.
	if a := g.ask("POST", "/workspaces/default/roles", owner, `{"name":"reader","actions":["connection.schema"]}`); a.status != 201 {
		t.Fatal(a.body)
	}
	if a := g.ask("POST", "/workspaces/default/teams", owner, `{"name":"night"}`); a.status != 201 {
		t.Fatal(a.body)
	}
	if a := g.ask("PUT", "/workspaces/default/teams/night/members/eve", owner, ""); a.status >= 300 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	g.give(`{"role":"reader","principal":"dev"}`)
	g.ask("DELETE", "/workspaces/default/grants/"+given.ID, owner, "")
	if r, _ := g.replay(owner, `{"since_seconds":3600,"roles":[{"name":"reader","actions":["connection.query"]}]}`); strings.Join(flips(r), "; ") != "dev connection.schema default-shop "+source+" yyn 2" {
		t.Errorf("a role: %q", flips(r))
	}
	if r, _ := g.replay(owner, `{"since_seconds":3600,"with":[{"role":"reader","team":"night"}]}`); strings.Join(flips(r), "; ") != "eve connection.schema default-shop "+source+" nny 2" {
		t.Errorf("a team: %q", flips(r))
	}
	// What is already another, and what is no longer there.
	all := g.ask("GET", "/workspaces/default/grants", owner, "")
	var l client.List[client.Grant]
	must(t, json.Unmarshal([]byte(all.body), &l))
	for _, x := range l.Items {
		if x.PrincipalName == "dev" {
			g.ask("DELETE", "/workspaces/default/grants/"+x.ID, owner, "")
		}
	}
	if r, _ := g.replay(owner, `{"since_seconds":3600}`); strings.Join(flips(r), "; ") != "dev connection.schema default-shop "+source+" ynn 2" {
		t.Errorf("changed before: %q", flips(r))
	}
	if a := g.ask("DELETE", "/workspaces/default/connections/default-shop", owner, ""); a.status >= 300 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if r, _ := g.replay(owner, `{"since_seconds":3600}`); len(r.Flips) != 0 || r.Replayed != 0 || r.Gone != 4 {
		t.Errorf("gone: %+v", r)
	}
}

func TestReplayIsForWhoSeesAuditAndGrants(t *testing.T) {
	g := newRig(t)
	const body = `{"since_seconds":60}`
	for _, r := range []authz.Role{authz.Operator, authz.Analyst} { // an operator reads the audit log, and no grants
		if _, a := g.replay(g.token[r], body); a.status != http.StatusForbidden {
			t.Errorf("J1 %s: %d %s", r, a.status, a.body)
		}
	}
	if a := g.ask("POST", "/workspaces/default/roles", g.token[authz.Owner], `{"name":"asker","actions":["grants.read"]}`); a.status != 201 {
		t.Fatal(a.body)
	}
	asker := g.nobody("asker")
	g.give(`{"role":"asker","principal":"asker"}`)
	if _, a := g.replay(asker, body); a.status != http.StatusForbidden {
		t.Errorf("J1 who reads grants alone: %d %s", a.status, a.body)
	}
	if _, a := g.replay(g.token[authz.Admin], body); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for name, body := range map[string]string{
		"no time": `{"since_seconds":0}`, "years": `{"since_seconds":99999999}`, "no such grant": `{"since_seconds":60,"without":["gra_none"]}`,
		"a system role": `{"since_seconds":60,"roles":[{"name":"admin","actions":["connection.query"]}]}`, "no such role": `{"since_seconds":60,"roles":[{"name":"x","actions":["connection.query"]}]}`,
		"no such action": `{"since_seconds":60,"roles":[{"name":"x","actions":["fly"]}]}`, "no such principal": `{"since_seconds":60,"with":[{"role":"analyst","principal":"none"}]}`,
		"to nobody": `{"since_seconds":60,"with":[{"role":"analyst"}]}`, "over": `{"since_seconds":60,"with":[{"role":"analyst","principal":"dev","until":"2001-01-01T00:00:00Z"}]}`,
	} {
		if _, a := g.replay(g.token[authz.Owner], body); a.status != 400 && a.status != 404 && a.status != 422 || a.problem.Code != protocol.CodeInvalid && a.problem.Code != protocol.CodeNotFound {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}
