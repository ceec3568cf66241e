package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// give gives a role to the principal of a name, as the owner.
func (g *rig) give(body string) client.Grant {
	g.t.Helper()
	a := g.ask("POST", "/workspaces/default/grants", g.token[authz.Owner], body)
	if a.status != http.StatusCreated {
		g.t.Fatalf("%s: %d %s", body, a.status, a.body)
	}
	var made client.Grant
	must(g.t, json.Unmarshal([]byte(a.body), &made))
	return made
}

// nobody makes a token of a principal with this name that holds nothing.
func (g *rig) nobody(name string) (token string) {
	g.t.Helper()
	token = g.newToken(name, time.Hour, authz.Analyst)
	ws, err := g.dir.Snapshot().Workspace("default")
	must(g.t, err)
	p, err := ws.FindPrincipal(name)
	must(g.t, err)
	must(g.t, g.dir.DeleteGrant(context.Background(), directory.By{ID: g.admin.ID}, "default", p.Grants[0].ID))
	return token
}

func from(address string) func(*http.Request) {
	return func(r *http.Request) { r.RemoteAddr = address }
}

func TestRolesAreChangedByTheirETag(t *testing.T) {
	g := newRig(t)
	const path = "/workspaces/default/roles"
	token := g.token[authz.Admin]
	put := func(etag, name string) answer {
		return g.ask("PUT", path+"/reader", token, `{"name":"reader","actions":["`+name+`"]}`, func(r *http.Request) {
			if etag != "" {
				r.Header.Set("If-Match", etag)
			}
		})
	}
	a := g.ask("POST", path, token, `{"name":"reader","actions":["connection.query"]}`)
	first := a.header.Get("ETag")
	if a.status != 201 || first == "" {
		t.Fatalf("%d %s %s", a.status, a.header.Get("ETag"), a.body)
	}
	a = put(first, "connection.schema")
	second := a.header.Get("ETag")
	if a.status != 200 || second == "" || second == first {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for _, old := range []string{first, `"3"`, "W/" + second, strings.Trim(second, `"`), `""`, "W/*", ","} {
		if a := put(old, "connection.exec"); a.status != http.StatusPreconditionFailed || a.problem.Code != protocol.CodePrecondition {
			t.Errorf("If-Match %s: %d %s", old, a.status, a.body)
		}
	}
	for _, now := range []string{`"3" , ` + second, "*", ""} {
		if a = put(now, "connection.list"); a.status != 200 {
			t.Errorf("If-Match %s: %d %s", now, a.status, a.body)
		}
		second = a.header.Get("ETag")
	}
	// One that has the same name and is another: what was read of the first does not count.
	g.ask("DELETE", path+"/reader", token, "")
	g.ask("POST", path, token, `{"name":"reader","actions":["connection.list"]}`)
	if a := put(second, "connection.exec"); a.status != http.StatusPreconditionFailed {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A grant's limits hold at every request: its networks, its end.
func TestLimitsOfGrantsHoldAtTheAPI(t *testing.T) {
	g := newRig(t)
	token := g.nobody("dev")
	g.give(`{"role":"operator","principal":"dev","from":["192.0.2.10/32"]}`)
	const groups, schema = "/workspaces/default/groups", "/workspaces/default/connections/default-shop/schema"
	if a := g.ask("GET", groups, token, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.ask("GET", schema, token, ""); a.status != http.StatusServiceUnavailable { // let in; there is no agent
		t.Errorf("%d %s", a.status, a.body)
	}
	for path, status := range map[string]int{groups: http.StatusForbidden, schema: http.StatusNotFound} { // on which he then holds nothing
		if a := g.ask("GET", path, token, "", from("192.0.2.11:40000")); a.status != status {
			t.Errorf("E1 %s from an address that the grant is not for: %d %s", path, a.status, a.body)
		}
	}
	if a := g.ask("GET", "/workspaces/default/connections", token, "", from("192.0.2.11:40000")); strings.Contains(a.body, "default-shop") {
		t.Errorf("E1 it is shown: %s", a.body)
	}
	late := g.nobody("late")
	made := g.give(`{"role":"operator","principal":"late","expires_in_seconds":1}`)
	<-time.After(time.Until(*made.Until))
	for path, status := range map[string]int{groups: http.StatusForbidden, schema: http.StatusNotFound} {
		if a := g.ask("GET", path, late, ""); a.status != status {
			t.Errorf("P11 %s after the end of the grant: %d %s", path, a.status, a.body)
		}
	}
}

// A person may be admin in one environment and nothing in another.
func TestEnvironmentsAreApart(t *testing.T) {
	g := newRig(t)
	token := g.nobody("dev")
	g.give(`{"role":"admin","principal":"dev","environment":"development"}`)
	g.makes([2]string{"connections", `{"name":"first","group":"site","profile":"p","environment":"development"}`}) // so it may lead there
	const path = "/workspaces/default/connections"
	if a := g.ask("POST", path, token, `{"name":"sandbox","group":"site","profile":"p","environment":"development"}`); a.status != 201 || !strings.Contains(a.body, `"environment":"development"`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for name, body := range map[string]string{"production": `"environment":"production"`, "test": `"environment":"test"`, "what is the default": `"x":1`, "one that there is not": `"environment":"staging"`} {
		body = strings.Replace(`{"name":"more","group":"site","profile":"p",`+body+`}`, `,"x":1`, "", 1)
		status := http.StatusForbidden
		if strings.Contains(body, "staging") {
			status = http.StatusBadRequest
		}
		if a := g.ask("POST", path, token, body); a.status != status {
			t.Errorf("J1 an admin of development makes a connection in %s: %d %s", name, a.status, a.body)
		}
	}
	for _, own := range []string{"/schema", "/list"} {
		if a := g.ask("GET", path+"/sandbox"+own, token, ""); a.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", own, a.status, a.body)
		}
		if a := g.ask("GET", path+"/default-shop"+own, token, ""); a.status != http.StatusNotFound {
			t.Errorf("J1 %s: %d %s", own, a.status, a.body)
		}
	}
	missing := g.ask("DELETE", path+"/gone", token, "")
	if a := g.ask("DELETE", path+"/default-shop", token, ""); a.status != http.StatusNotFound || missing.status != a.status || a.problem.Code != missing.problem.Code {
		t.Errorf("J1 what it may not see: %d %s; a missing one: %d %s", a.status, a.body, missing.status, missing.body)
	}
	g.give(`{"role":"analyst","principal":"dev"}`)
	if a := g.ask("DELETE", path+"/default-shop", token, ""); a.status != http.StatusForbidden {
		t.Errorf("J1 what it may see and not delete: %d %s", a.status, a.body)
	}
	if a := g.ask("GET", "/workspaces/default/grants", token, ""); a.status != 200 || !strings.Contains(a.body, "development") || strings.Contains(a.body, `"owner"`) {
		t.Errorf("J1 it sees grants beyond its environment: %s", a.body)
	}
	for _, sub := range []string{"/users", "/teams", "/roles", "/tokens", "/audit/events", "/budget"} {
		if a := g.ask("GET", "/workspaces/default"+sub, token, ""); a.status != http.StatusForbidden {
			t.Errorf("J1 %s: %d", sub, a.status)
		}
	}
	if a := g.ask("DELETE", path+"/sandbox", token, ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestOnlyAnOwnerDestroysTheWorkspace(t *testing.T) {
	g := newRig(t)
	const path = "/workspaces/default?confirm="
	for _, r := range []authz.Role{authz.Admin, authz.Operator, authz.Analyst} {
		if a := g.ask("DELETE", path+"default", g.token[r], ""); a.status != http.StatusForbidden {
			t.Errorf("J4 %s: %d %s", r, a.status, a.body)
		}
	}
	for _, confirm := range []string{"", "other", "Default", g.own.ID} {
		if a := g.ask("DELETE", path+confirm, g.token[authz.Owner], ""); a.status != http.StatusConflict {
			t.Errorf("confirmed by %q: %d %s", confirm, a.status, a.body)
		}
	}
	if a := g.ask("DELETE", "/workspaces/other?confirm=other", g.token[authz.Owner], ""); a.status != http.StatusNotFound {
		t.Errorf("J1 another workspace: %d %s", a.status, a.body)
	}
	if a := g.ask("DELETE", path+"default", g.token[authz.Owner], ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := g.ask("GET", "/whoami", g.token[authz.Owner], ""); a.status != http.StatusUnauthorized {
		t.Errorf("P11 its tokens are good for something: %d %s", a.status, a.body)
	}
	if _, err := g.dir.Snapshot().Workspace("other"); err != nil {
		t.Error("the other went with it")
	}
}

func TestAdminsDoNotTouchOwners(t *testing.T) {
	g := newRig(t)
	ws, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	owner := ws.Principal(g.admin.ID)
	i := slices.IndexFunc(ws.Tokens, func(t *directory.Token) bool { return t.Principal == owner })
	second := g.newToken("second", 48*time.Hour, authz.Owner) // so that the last owner's protection is not what holds
	for _, c := range [][3]string{{"DELETE", "/tokens/" + ws.Tokens[i].ID, ""}, {"DELETE", "/grants/" + owner.Grants[0].ID, ""}, {"POST", "/tokens", `{"name":"x","roles":["owner"]}`},
		{"POST", "/grants", `{"role":"owner","principal":"a admin"}`}} {
		if a := g.ask(c[0], "/workspaces/default"+c[1], g.token[authz.Admin], c[2]); a.status != http.StatusForbidden || a.problem.Code != protocol.CodeDenied {
			t.Errorf("J4 %s %s: %d %s", c[0], c[1], a.status, a.body)
		}
	}
	if a := g.ask("DELETE", "/workspaces/default/tokens/"+ws.Tokens[i].ID, second, ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestExplain(t *testing.T) {
	g := newRig(t)
	g.nobody("dev")
	explain := func(token, query string) (e client.Explanation, a answer) {
		t.Helper()
		a = g.ask("GET", "/workspaces/default/explain?"+query, token, "")
		if a.status == 200 {
			must(t, json.Unmarshal([]byte(a.body), &e))
		}
		return e, a
	}
	admin := g.token[authz.Admin]
	const query = "principal=dev&action=exec&connection=default-shop"
	if e, _ := explain(admin, query); e.Allow || e.Grant != nil || !slices.Equal(e.Missing, []string{"connection.exec"}) || !slices.Equal(e.Roles, []string{"operator", "admin", "owner"}) || len(e.Near) != 0 ||
		e.Connection != "default-shop" || e.Environment != "production" || e.SourceAddress != "192.0.2.10" || !*e.Allowlisted || e.Agent != client.AgentMissing || e.AgentHint == "" {
		t.Errorf("%+v", e)
	}
	g.give(`{"role":"analyst","principal":"dev"}`)
	g.give(`{"role":"operator","principal":"dev","environment":"test"}`)
	g.give(`{"role":"operator","principal":"dev","from":["192.0.2.77/32"]}`)
	over := g.give(`{"role":"operator","principal":"dev","expires_in_seconds":1}`)
	<-time.After(time.Until(*over.Until))
	e, _ := explain(admin, query)
	lacks := map[string]string{}
	for _, n := range e.Near {
		lacks[n.Grant.Role+n.Grant.Environment+strings.Join(n.Grant.From, "")+map[bool]string{true: "over"}[n.Grant.Over]] = strings.Join(n.Lacks, " ")
	}
	if want := map[string]string{"analyst": "action", "operatortest": "scope", "operator192.0.2.77/32": "source", "operatorover": "time"}; e.Allow || len(lacks) != 4 ||
		lacks["analyst"] != want["analyst"] || lacks["operatortest"] != want["operatortest"] || lacks["operator192.0.2.77/32"] != want["operator192.0.2.77/32"] || lacks["operatorover"] != want["operatorover"] {
		t.Errorf("%+v", e)
	}
	if e, _ := explain(admin, query+"&source=192.0.2.77"); !e.Allow || e.Grant == nil || e.Grant.Role != "operator" || len(e.Grant.From) != 1 || e.Missing != nil {
		t.Errorf("%+v", e)
	}
	if e, _ := explain(admin, query+"&source=203.0.113.9"); e.Allow || *e.Allowlisted {
		t.Errorf("an address outside of the allowlist: %+v", e)
	}
	if e, _ := explain(admin, "principal=dev&action=query&connection=default-shop&source=203.0.113.9"); e.Allow || *e.Allowlisted || e.Grant == nil {
		t.Errorf("allowed by a grant, not by the allowlist: %+v", e)
	}
	if e, _ := explain(admin, "principal=a+operator&action=agents.read"); !e.Allow || e.Grant == nil || e.Agent != client.AgentNotAsked {
		t.Errorf("%+v", e)
	}
	ws, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	dev, err := ws.FindPrincipal("dev")
	must(t, err)
	must(t, g.dir.SetPrincipalDisabled(context.Background(), "default", dev.ID, true))
	if e, _ := explain(admin, "principal=dev&action=query&connection=default-shop"); e.Allow || !e.Disabled {
		t.Errorf("a disabled principal: %+v", e)
	}
	// What it tells is told to those who may see grants there, and of nobody else's workspace.
	for _, r := range []authz.Role{authz.Operator, authz.Analyst} {
		if _, a := explain(g.token[r], query); a.status != http.StatusForbidden {
			t.Errorf("J1 %s: %d %s", r, a.status, a.body)
		}
	}
	local := g.nobody("local")
	g.give(`{"role":"admin","principal":"local","environment":"development"}`)
	if _, a := explain(local, query); a.status != http.StatusNotFound {
		t.Errorf("J1 on a connection that the asker may not see: %d %s", a.status, a.body)
	}
	g.give(`{"role":"analyst","principal":"local"}`)
	if _, a := explain(local, query); a.status != http.StatusForbidden {
		t.Errorf("J1 on a connection whose grants the asker may not see: %d %s", a.status, a.body)
	}
	if _, a := explain(local, "principal=dev&action=agents.read"); a.status != http.StatusForbidden {
		t.Errorf("J1 on the workspace: %d %s", a.status, a.body)
	}
	must(t, g.dir.SetPrincipalDisabled(context.Background(), "default", dev.ID, false))
	_, err = g.dir.CreateConnection(context.Background(), "default", "site", directory.ConnectionBody{Name: "sandbox", Profile: "p", Environment: authz.Development})
	must(t, err)
	if e, a := explain(local, "principal=dev&action=exec&connection=sandbox"); a.status != 200 || len(e.Near) != 0 || e.Grant != nil {
		t.Errorf("J1 grants on more than the asker may look into are told: %d %+v", a.status, e)
	}
	theirs, nobodys := "theirs", "nobody at all"
	_, foreign := explain(admin, "principal="+strings.ReplaceAll(theirs, " ", "+")+"&action=query&connection=default-shop")
	_, none := explain(admin, "principal="+strings.ReplaceAll(nobodys, " ", "+")+"&action=query&connection=default-shop")
	if foreign.status != 404 || foreign.shape() != none.shape() {
		t.Errorf("P9 another workspace's principal answers %d %s, a missing one %d %s", foreign.status, foreign.body, none.status, none.body)
	}
}

// A token is explained with its limits, to who may see tokens and to whose it is; of others it answers as one that is not there.
func TestExplainOfAToken(t *testing.T) {
	g := newRig(t)
	limited, _, err := g.dir.CreateToken(context.Background(), g.admin, "default", directory.NewToken{Name: "job", Roles: []authz.Role{authz.Operator}, Life: time.Hour,
		Only: directory.Only{Actions: []authz.Action{authz.Query}, From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25")}}})
	must(t, err)
	own, ownText, err := g.dir.CreateToken(context.Background(), g.admin, "default", directory.NewToken{Name: "keeper", Roles: []authz.Role{authz.Operator}, Life: time.Hour})
	must(t, err)
	g.give(`{"role":"admin","principal":"keeper","environment":"production"}`)
	explain := func(token, query string) (e client.Explanation, a answer) {
		t.Helper()
		a = g.ask("GET", "/workspaces/default/explain?connection=default-shop&"+query, token, "")
		if a.status == 200 {
			must(t, json.Unmarshal([]byte(a.body), &e))
		}
		return e, a
	}
	admin, job := g.token[authz.Admin], "token="+limited.ID
	if e, _ := explain(admin, job+"&action=query"); !e.Allow || e.Token != limited.ID || e.PrincipalName != "job" || e.Grant == nil || e.Limited {
		t.Errorf("%+v", e)
	}
	if e, _ := explain(admin, job+"&action=exec"); e.Allow || !e.Limited || e.Reason != "the token is limited to other actions" || e.Grant != nil || e.Missing != nil {
		t.Errorf("%+v", e)
	}
	if e, _ := explain(admin, job+"&action=query&source=192.0.2.200"); e.Allow || !e.Limited || e.Reason != "the token is limited to other networks" {
		t.Errorf("%+v", e)
	}
	if e, _ := explain(admin, "principal=job&action=exec"); !e.Allow || e.Limited || e.Token != "" {
		t.Errorf("the principal itself is not limited: %+v", e)
	}
	// keeper may look into grants of production, and not into tokens.
	if e, a := explain(ownText.ExposeString(), "token="+own.ID+"&action=query"); a.status != 200 || e.Token != own.ID {
		t.Errorf("one's own: %d %+v", a.status, e)
	}
	_, others := explain(ownText.ExposeString(), job+"&action=query")
	_, none := explain(ownText.ExposeString(), "token=tok_"+strings.Repeat("a", 26)+"&action=query")
	if others.status != 404 || others.shape() != none.shape() {
		t.Errorf("J1 another's token answers %d %s, a missing one %d %s", others.status, others.body, none.status, none.body)
	}
	for _, bad := range []string{"action=query", "principal=job&" + job + "&action=query"} {
		if _, a := explain(admin, bad); a.status != 400 {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
	must(t, g.dir.RevokeToken(context.Background(), "default", limited.ID))
	if e, _ := explain(admin, job+"&action=query"); e.Allow || !strings.Contains(e.Reason, "revoked") {
		t.Errorf("%+v", e)
	}
}

// J1: who may make connections in an environment makes none elsewhere by naming a group that belongs elsewhere.
func TestGroupOfAnEnvironmentIsNoWayIntoAnother(t *testing.T) {
	g := newRig(t)
	owner := g.token[authz.Owner]
	if a := g.ask("POST", "/workspaces/default/groups", owner, `{"name":"vault","environment":"production"}`); a.status != 201 || !strings.Contains(a.body, `"environment":"production"`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := g.ask("POST", "/workspaces/default/groups", owner, `{"name":"lab","environment":"development"}`); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := g.ask("POST", "/workspaces/default/groups", owner, `{"name":"odd","environment":"staging"}`); a.status != 400 {
		t.Errorf("%d %s", a.status, a.body)
	}
	dev := g.nobody("dev")
	g.give(`{"role":"admin","principal":"dev","environment":"development"}`)
	for body, want := range map[string]int{
		`{"name":"a","group":"lab","profile":"p"}`:                               201, // it stands where the group does
		`{"name":"b","group":"lab","profile":"p","environment":"production"}`:    409,
		`{"name":"c","group":"vault","profile":"p","environment":"development"}`: 403, // nor does it learn of which environment the group is
		`{"name":"d","group":"vault","profile":"p"}`:                             403,
	} {
		if a := g.ask("POST", "/workspaces/default/connections", dev, body); a.status != want {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
}
