package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
)

// People and tokens each come from where their own list says; refusals name it.
func TestPeopleAndTokensHaveListsOfTheirOwn(t *testing.T) {
	t.Run("E8 E6 a list that changes holds at once", testPeopleAndTokensHaveListsOfTheirOwn)
}

func testPeopleAndTokensHaveListsOfTheirOwn(t *testing.T) {
	g := newRig(t)
	owner := g.token[authz.Owner]
	g.person("bertha", authz.Admin)
	session := g.signIn("bertha", goodPassword, "")
	const path, groups = "/workspaces/default/allowlist", "/workspaces/default/groups"
	set := func(body string) answer { return g.ask("PUT", path, owner, body) }
	plant := from("198.51.100.7:40000")
	if a := set(`{"for":"people","prefixes":["198.51.100.0/24"]}`); a.status != 200 || !strings.Contains(a.body, `"lists":{"people":["198.51.100.0/24"]}`) || a.header.Get("ETag") == "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := g.ask("GET", groups, session, ""); a.status != http.StatusForbidden || !strings.Contains(a.body, `"rule":"allowlist.people"`) || !strings.Contains(a.body, "--for people") {
		t.Errorf("E8 a session from where people may not come: %d %s", a.status, a.body)
	}
	if a := g.ask("GET", groups, session, "", plant); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.ask("GET", groups, owner, "", plant); a.status != http.StatusForbidden || !strings.Contains(a.body, `"rule":"allowlist"`) {
		t.Errorf("E8 a token from where people alone may come: %d %s", a.status, a.body)
	}
	if a := g.ask("GET", groups, owner, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	// E6: in whatever form the address comes.
	if a := g.ask("GET", groups, session, "", from("[::ffff:198.51.100.7]:40000")); a.status != 200 {
		t.Errorf("E6 %d %s", a.status, a.body)
	}
	// Nobody signs in from elsewhere either.
	if a := g.ask("POST", "/sign-in", "", `{"workspace":"default","user":"bertha","password":"`+goodPassword+`"}`); a.status != http.StatusUnauthorized {
		t.Errorf("E8 signed in: %d %s", a.status, a.body)
	}
	// The explanation goes by the list that would decide.
	if a := g.ask("GET", "/workspaces/default/explain?principal=bertha&action=groups.read&source=192.0.2.7", owner, ""); !strings.Contains(a.body, `"allowlisted":false`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	// A token does not shut itself out unawares, and takes nobody's list for its own.
	for _, body := range []string{`{"for":"tokens","prefixes":["198.51.100.0/24"]}`, `{"prefixes":["198.51.100.0/24"]}`} {
		if a := set(body); a.status != http.StatusConflict {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	for _, body := range []string{`{"for":"visitors","prefixes":[]}`, `{"for":"people","unset":true,"prefixes":["192.0.2.0/24"]}`, `{"unset":true,"prefixes":[]}`} {
		if a := set(body); a.status != http.StatusBadRequest || a.problem.Code != protocol.CodeInvalid {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if a := set(`{"for":"people","unset":true,"prefixes":[]}`); a.status != 200 || strings.Contains(a.body, "lists") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.ask("GET", groups, session, ""); a.status != 200 {
		t.Errorf("back to the list of callers: %d %s", a.status, a.body)
	}
	// A hundred thousand prefixes fit.
	var b strings.Builder
	b.WriteString(`{"for":"gateways","prefixes":["2001:db8:ffff:ffff:ffff:ffff:0:0/128"`)
	for i := range 99_999 {
		b.WriteString(`,"2001:db8:ffff:ffff:ffff:ffff:` + strings.ToLower(hex4(i>>16)) + `:` + hex4(i&0xffff|1) + `/128"`)
	}
	b.WriteString(`]}`)
	if a := set(b.String()); a.status != 200 {
		t.Errorf("%d %.300s", a.status, a.body)
	}
}

func hex4(n int) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[n>>12&15], digits[n>>8&15], digits[n>>4&15], digits[n&15]})
}
