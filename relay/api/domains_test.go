package api_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// by is a request under a name, on a conn that was opened for one.
func by(host, opened string) func(*http.Request) {
	return func(r *http.Request) {
		r.Host, r.URL.Host = host, host
		r.TLS = &tls.ConnectionState{ServerName: opened}
	}
}

// E22, E10, P9: under a workspace's name no other workspace is served, whatever is shown, and it gets back nothing but that; a conn
// that was opened for one name serves no other. A name that is nobody's changes nothing.
func TestUnderAWorkspacesNameNoOtherIsServed(t *testing.T) {
	g := newRig(t)
	own, foreign := g.token[authz.Admin], g.foreign
	session := g.person("anna", authz.Admin)
	_, err := g.dir.CreateDomain(t.Context(), "other", "other.apps.example")
	must(t, err)
	_, err = g.dir.CreateDomain(t.Context(), "default", "sales.apps.example")
	must(t, err)
	for _, host := range []string{"other.apps.example", "OTHER.apps.example:8443", "other.apps.example."} {
		for _, path := range []string{"/whoami", "/workspaces/default/agents", "/workspaces/other/agents", "/account"} {
			for _, token := range []string{own, session} {
				g.refusal("E22 "+host+path, g.ask("GET", path, token, "", by(host, "")), 403, "domain")
			}
		}
		g.refusal("E22 signing in under "+host, g.ask("POST", "/sign-in", "", signInBody("anna", goodPassword, ""), by(host, "")), 403, "domain")
		g.refusal("E22 a first password under "+host, g.ask("POST", "/sign-in/first", "", `{"workspace":"default","user":"anna","code":"fli_x","password":"x"}`, by(host, "")), 403, "domain")
		if a := g.ask("GET", "/whoami", foreign, "", by(host, "")); a.status != 200 {
			t.Errorf("its own workspace under %s: %d %s", host, a.status, a.body)
		}
	}
	for _, host := range []string{"sales.apps.example", "relay.example", "192.0.2.1:8443", "[2001:db8::1]:8443", ""} {
		if a := g.ask("GET", "/workspaces/default/agents", own, "", by(host, "")); a.status != 200 {
			t.Errorf("under %q: %d %s", host, a.status, a.body)
		}
	}
	for _, c := range [][2]string{{"other.apps.example", "sales.apps.example"}, {"sales.apps.example", "relay.example"}, {"relay.example", "sales.apps.example"}} {
		if a := g.ask("GET", "/whoami", own, "", by(c[0], c[1])); a.status != http.StatusMisdirectedRequest || a.problem.Rule != "domain" || a.problem.Code != protocol.CodeDenied || a.problem.RequestID == "" {
			t.Errorf("E10 %v: %d %s", c, a.status, a.body)
		}
	}
	for _, c := range [][2]string{{"sales.apps.example", "sales.apps.example"}, {"sales.apps.example:8443", "Sales.apps.example"}, {"a.example", "b.example"}, {"relay.example", ""}} {
		if a := g.ask("GET", "/whoami", own, "", by(c[0], c[1])); a.status != 200 {
			t.Errorf("E10 %v: %d %s", c, a.status, a.body)
		}
	}
	if all := strings.Join(g.eventsOf("other"), "\n"); strings.Contains(all, g.admin.ID) || strings.Contains(all, "anna") {
		t.Error("the other workspace's log tells of who was refused")
	}
	if all := strings.Join(g.events(), "\n"); !strings.Contains(all, `"rule":"domain"`) {
		t.Error("the refusals are not recorded")
	}
	must(t, g.dir.DeleteDomain(t.Context(), "other", "other.apps.example"))
	g.get("GET", "/whoami", own, "", nil)
	if a := g.ask("GET", "/whoami", own, "", by("other.apps.example", "")); a.status != 200 {
		t.Errorf("the name is free again: %d %s", a.status, a.body)
	}
}

// A name is one workspace's, and only where the operator lets it be.
func TestDomainsAreTakenOnceAndByLeave(t *testing.T) {
	g := newRig(t)
	admin := g.token[authz.Admin]
	g.get("POST", "/workspaces/default/domains", admin, `{"name":"sales.apps.example"}`, nil)
	g.refusal("taken by another", g.ask("POST", "/workspaces/other/domains", g.foreign, `{"name":"SALES.apps.example"}`), 409, "")
	for _, name := range []string{"relay.example", "apps.example", "a.b.apps.example", "apps.example.evil.example", "evil.example"} {
		g.refusal(name, g.ask("POST", "/workspaces/default/domains", admin, `{"name":"`+name+`"}`), 403, "api.domains")
	}
	for _, name := range []string{"", ".apps.example", "a b.apps.example", "a_b.apps.example", "ä.apps.example", "*.apps.example", "-a.apps.example", strings.Repeat("a", 64) + ".apps.example"} {
		if a := g.ask("POST", "/workspaces/default/domains", admin, `{"name":"`+name+`"}`); a.status != 400 && a.status != 403 {
			t.Errorf("%q: %d %s", name, a.status, a.body)
		}
		if _, err := g.dir.CreateDomain(t.Context(), "default", name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	for _, name := range []string{"192.0.2.1", "2001:db8::1", "localhost", "a.1", "1.2.3.4.5"} {
		if err := directory.CheckDomain(name); err == nil {
			t.Errorf("%q is no name of a host", name)
		}
	}
	for i := range directory.MaxDomains - 1 {
		_, err := g.dir.CreateDomain(t.Context(), "default", fmt.Sprintf("d%d.apps.example", i))
		must(t, err)
	}
	_, err := g.dir.CreateDomain(t.Context(), "default", "more.apps.example")
	if protocol.AsError(err).Code != protocol.CodeTooLarge {
		t.Error(err)
	}
}
