package api_test

import (
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

// People set their own address with a session that has proven itself; a token has no account, and what is recorded names no address.
func TestPeopleSetTheirOwnAddress(t *testing.T) {
	g := newRig(t)
	anna := g.person("anna", authz.Analyst)
	var a client.Account
	g.get("PUT", "/account/email", anna, `{"email":"anna@home.example"}`, &a)
	if a.Email == "" || strings.Contains(a.Email, "anna@") {
		t.Errorf("%+v", a)
	}
	g.get("GET", "/account", anna, "", &a)
	if a.Email == "" || a.ETag == "" {
		t.Errorf("%+v", a)
	}
	if ev := g.last(audit.KindFactor); !strings.HasSuffix(ev.Target, "PUT /account/email") {
		t.Errorf("%+v", ev)
	}
	for _, s := range g.events() {
		if strings.Contains(s, "home.example") {
			t.Errorf("the address is in the log: %s", s)
		}
	}
	g.refusal("F8 a token has no account", g.ask("PUT", "/account/email", g.token[authz.Owner], `{"email":"eve@example.com"}`), 403, "")
	if b := g.ask("PUT", "/account/email", anna, `{"email":"two@example.com, three@example.com"}`); b.status != 400 {
		t.Errorf("%d %s", b.status, b.body)
	}
	a = client.Account{}
	g.get("PUT", "/account/email", anna, `{"email":""}`, &a)
	if a.Email != "" {
		t.Errorf("%+v", a)
	}
}
