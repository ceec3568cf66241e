package api_test

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// tokenOf makes a token by a caller, and gives its text and id.
func (g *rig) tokenOf(path, by, body string) (text, id string) {
	g.t.Helper()
	var c client.CreatedToken
	g.get("POST", path, by, body, &c)
	return c.Token, c.ID
}

// F17, J1: on every route, a token that is limited to nothing that there is may nothing, and says which rule it is; limited to one
// connection, it sees that alone.
func TestLimitedTokenOnEveryRoute(t *testing.T) {
	t.Run("J1 a token's limits on every route", testLimitedTokenOnEveryRoute)
}

func testLimitedTokenOnEveryRoute(t *testing.T) {
	g := newRig(t)
	owner := g.token[authz.Owner]
	const own = "/workspaces/default"
	g.get("POST", own+"/connections", owner, `{"name":"wages","group":"site","profile":"wages","environment":"development"}`, nil)
	nothing, _ := g.tokenOf(own+"/tokens", owner, `{"name":"nothing","principal":"admin","only":{"from":["198.51.100.0/24"]}}`)
	for _, r := range g.api.Routes() {
		if r.Action == "" || r.Action == string(authz.ConnectionsRead) { // lists of connections are decided item by item
			continue
		}
		a := g.ask(r.Method, fill(r.Path, "default", g.conn), nothing, "{}")
		if a.status != http.StatusForbidden && a.status != http.StatusNotFound || a.status == http.StatusForbidden && a.problem.Rule != "token.only" && a.problem.Code != "" {
			t.Errorf("%s %s: %d %s", r.Method, r.Path, a.status, a.body)
		}
	}
	placed, _ := g.tokenOf(own+"/tokens", owner, `{"name":"placed","principal":"admin","only":{"environments":["development"]}}`)
	var l client.List[client.Connection]
	g.get("GET", own+"/connections", placed, "", &l)
	if len(l.Items) != 1 || l.Items[0].Name != "wages" {
		t.Errorf("%+v", l.Items)
	}
	g.refusal("another connection", g.ask("GET", own+"/connections/"+g.conn, placed, ""), 404, "")
	g.refusal("the workspace", g.ask("GET", own+"/users", placed, ""), 403, "token.only")
	if sees := g.list(own+"/groups", placed, ""); len(sees.Items) != 0 { // none is of its environment
		t.Errorf("J1 agent groups of others: %+v", sees)
	}
	single, _ := g.tokenOf(own+"/tokens", owner, `{"name":"single","principal":"admin","only":{"connections":["wages"]}}`)
	g.refusal("agent groups, by a limit to a connection", g.ask("GET", own+"/groups", single, ""), 403, "token.only")
	g.refusal("J4 a site that serves all environments", g.ask("POST", own+"/connections", placed, `{"name":"more","group":"site","profile":"p","environment":"development"}`), 403, "token.only")
	g.get("POST", own+"/groups", owner, `{"name":"lab","environment":"development"}`, nil)
	g.get("POST", own+"/connections", placed, `{"name":"more","group":"lab","profile":"p"}`, nil)
	g.refusal("J4 another environment", g.ask("POST", own+"/connections", placed, `{"name":"prod","group":"site","profile":"p"}`), 403, "token.only")
	g.refusal("J4 it gives what it has not", g.ask("POST", own+"/grants", placed, `{"role":"analyst","principal":"a analyst"}`), 403, "")
	g.get("POST", own+"/grants", placed, `{"role":"analyst","principal":"a analyst","environment":"development"}`, nil)
	read, _ := g.tokenOf(own+"/tokens", owner, `{"name":"read","principal":"admin","only":{"actions":["agents.read","tokens.manage"]}}`)
	g.get("GET", own+"/agents", read, "", nil)
	g.refusal("another action", g.ask("GET", own+"/grants", read, ""), 403, "token.only")
	g.refusal("J4 it makes a token that may more", g.ask("POST", own+"/tokens", read, `{"name":"x","roles":["analyst"]}`), 403, "")
	g.refusal("J4 or one without its limits", g.ask("POST", own+"/tokens", read, `{"name":"x","principal":"admin"}`), 403, "")
	// What it was refused stands in the log with the rule.
	if all := strings.Join(g.events(), "\n"); !strings.Contains(all, `"rule":"token.only"`) {
		t.Error("no refusal with its rule is recorded")
	}
}

// People make tokens of their own after a fresh proof, see and revoke these alone, and nobody else's.
func TestPeoplesOwnTokens(t *testing.T) {
	g := newRig(t)
	anna, bert := g.person("anna", authz.Operator), g.person("bert", authz.Admin)
	g.refusal("none where the policy says nothing", g.ask("POST", "/account/tokens", anna, `{"name":"laptop"}`), 403, "sign_in.personal_tokens")
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{PersonalTokens: time.Hour}))
	text, id := g.tokenOf("/account/tokens", anna, `{"name":"laptop","only":{"actions":["agents.read"]}}`)
	g.get("GET", "/workspaces/default/agents", text, "", nil)
	g.refusal("limited", g.ask("GET", "/workspaces/default/groups", text, ""), 403, "token.only")
	g.refusal("F8 a token has no account", g.ask("POST", "/account/tokens", text, `{"name":"child"}`), 403, "")
	g.refusal("F8 nor a list of tokens", g.ask("GET", "/account/tokens", text, ""), 403, "")
	var l client.List[client.Token]
	g.get("GET", "/account/tokens", bert, "", &l)
	if len(l.Items) != 0 {
		t.Errorf("bert sees %+v", l.Items)
	}
	g.refusal("J15 another's token", g.ask("DELETE", "/account/tokens/"+id, bert, ""), 404, "")
	g.get("GET", "/account/tokens", anna, "", &l)
	if len(l.Items) != 1 || !l.Items[0].Personal || l.Items[0].LastUsedFrom != netip.MustParseAddrPort(inside).Addr().String() || l.Items[0].LastUsedAt == nil || l.Items[0].Only == nil {
		t.Errorf("anna sees %+v", l.Items)
	}
	g.refusal("J4 an admin makes none for her", g.ask("POST", "/workspaces/default/tokens", bert, `{"name":"forged","principal":"anna"}`), 403, "")
	g.get("DELETE", "/account/tokens/"+id, anna, "", nil)
	g.refusal("F17 revoked", g.ask("GET", "/whoami", text, ""), 401, "")
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{PersonalTokens: time.Hour, SecondFactor: true}))
	g.refusal("F8 who lacks the second factor", g.ask("POST", "/account/tokens", anna, `{"name":"laptop"}`), 403, "sign_in.needs")
}

// F17: with its account a program's tokens go, and a disabled one's are refused at once.
func TestProgramsTokensGoWithTheirAccount(t *testing.T) {
	g := newRig(t)
	admin := g.token[authz.Admin]
	const own = "/workspaces/default"
	g.get("POST", own+"/service-accounts", admin, `{"name":"nightly","roles":["analyst"]}`, nil)
	text, _ := g.tokenOf(own+"/tokens", admin, `{"name":"one","principal":"nightly"}`)
	g.get("GET", own+"/connections", text, "", nil)
	g.get("POST", own+"/service-accounts/nightly/disable", admin, "", nil)
	g.refusal("F17 disabled", g.ask("GET", "/whoami", text, ""), 401, "")
	g.get("POST", own+"/service-accounts/nightly/enable", admin, "", nil)
	var s client.ServiceAccount
	g.get("GET", own+"/service-accounts/nightly", admin, "", &s)
	if s.Tokens != 1 || s.Disabled || len(s.Roles) != 1 {
		t.Errorf("%+v", s)
	}
	g.get("DELETE", own+"/service-accounts/nightly", admin, "", nil)
	g.refusal("F17 deleted", g.ask("GET", "/whoami", text, ""), 401, "")
	g.refusal("a person is no service account", g.ask("DELETE", own+"/service-accounts/"+g.admin.ID, g.token[authz.Owner], ""), 404, "")
	var list client.List[json.RawMessage]
	g.get("GET", own+"/service-accounts", admin, "", &list)
	for _, one := range list.Items {
		if strings.Contains(string(one), "nightly") {
			t.Error(string(one))
		}
	}
}
