package api_test

import (
	"maps"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// wantsProof are the routes that ask a session to prove itself again. They stand here one by one, and not as the code has them: a flag
// that is turned off, or an action that is no longer dangerous, is to be seen.
var wantsProof = []string{
	"DELETE /account/passkeys/{id}", "DELETE /account/second-factor", "DELETE /workspaces/{workspace}", "DELETE /workspaces/{workspace}/agents/{id}",
	"DELETE /workspaces/{workspace}/connections/{name}", "DELETE /workspaces/{workspace}/connections/{name}/gateway", "DELETE /workspaces/{workspace}/domains/{name}",
	"DELETE /workspaces/{workspace}/grants/{id}", "DELETE /workspaces/{workspace}/join-tokens/{id}", "DELETE /workspaces/{workspace}/projects/{name}",
	"DELETE /workspaces/{workspace}/projects/{name}/folders/{id}", "DELETE /workspaces/{workspace}/roles/{name}",
	"DELETE /workspaces/{workspace}/service-accounts/{name}", "DELETE /workspaces/{workspace}/sessions/{id}", "DELETE /workspaces/{workspace}/teams/{name}",
	"DELETE /workspaces/{workspace}/teams/{name}/members/{id}", "DELETE /workspaces/{workspace}/tokens/{id}", "DELETE /workspaces/{workspace}/users/{id}",
	"DELETE /workspaces/{workspace}/users/{id}/second-factor", "DELETE /workspaces/{workspace}/users/{id}/sessions", "POST /account/hand-over", "POST /account/passkeys",
	"POST /account/passkeys/begin", "POST /account/recovery-codes", "POST /account/second-factor", "POST /account/tokens",
	"POST /workspaces/{workspace}/agents/{id}/disable", "POST /workspaces/{workspace}/agents/{id}/enable", "POST /workspaces/{workspace}/connections",
	"POST /workspaces/{workspace}/domains", "POST /workspaces/{workspace}/grants", "POST /workspaces/{workspace}/join-tokens", "POST /workspaces/{workspace}/projects",
	"POST /workspaces/{workspace}/projects/{name}/folders", "POST /workspaces/{workspace}/roles", "POST /workspaces/{workspace}/service-accounts",
	"POST /workspaces/{workspace}/service-accounts/{name}/disable", "POST /workspaces/{workspace}/service-accounts/{name}/enable", "POST /workspaces/{workspace}/teams",
	"POST /workspaces/{workspace}/tokens", "POST /workspaces/{workspace}/users", "POST /workspaces/{workspace}/users/{id}/code",
	"POST /workspaces/{workspace}/users/{id}/disable", "POST /workspaces/{workspace}/users/{id}/enable", "PUT /account/email", "PUT /account/second-factor",
	"PUT /workspaces/{workspace}/allowlist", "PUT /workspaces/{workspace}/connections/{name}/gateway", "PUT /workspaces/{workspace}/connections/{name}/place",
	"PUT /workspaces/{workspace}/projects/{name}", "PUT /workspaces/{workspace}/roles/{name}", "PUT /workspaces/{workspace}/sign-in-policy",
	"PUT /workspaces/{workspace}/teams/{name}/members/{id}", "PUT /workspaces/{workspace}/users/{id}/email",
}

// F16, F11: every route that wants a fresh proof refuses a stale session, each other asks for none, and which do is written down.
func TestEveryRouteThatWantsAFreshProofIsRefusedWithoutOne(t *testing.T) {
	t.Run("F16 F11 every route by a stale session", func(t *testing.T) { synctest.Test(t, testEveryRouteThatWantsAFreshProof) })
}

func testEveryRouteThatWantsAFreshProof(t *testing.T) {
	g := newRig(t)
	plain := g.person("anna", authz.Owner)
	_, recovery, _ := g.enrol(g.person("bert", authz.Owner))
	coded := g.signIn("bert", goodPassword, recovery[0])
	time.Sleep(directory.DefaultStepUp) // the bubble's clock
	// Who has a second factor must not lose the password to who guessed it, nor who sat down before an open screen.
	alsoCoded := []string{"POST /account/password"}

	said := map[string]bool{}
	for _, r := range g.api.Routes() {
		if r.Fresh || r.Action != "" && authz.Action(r.Action).Dangerous() {
			said[r.Method+" "+r.Path] = true
		}
	}
	if got := slices.Sorted(maps.Keys(said)); !slices.Equal(got, wantsProof) {
		t.Errorf("F16 by the table of routes these want a proof:\n%q\nwritten down are\n%q", got, wantsProof)
	}
	before, sessions := g.count(), len(g.now().Sessions)
	for who, c := range map[string]struct {
		session string
		also    []string
	}{"a stale session": {plain, nil}, "a stale session with a second factor": {coded, alsoCoded}} {
		for _, r := range g.api.Routes() {
			key := r.Method + " " + r.Path
			if r.Anonymous || key == "POST /sign-out" || key == "DELETE /account/sessions" {
				continue // which would end what the walk asks with
			}
			body := ""
			if r.Method == "POST" || r.Method == "PUT" {
				body = "{}"
			}
			switch key {
			case "POST /account/password":
				body = `{"password":"not it at all","new_password":"another fine kettle of fish"}`
			case "PUT /account/second-factor":
				body = `{"code":"123456"}`
			case "PUT /account/email":
				body = `{"email":"anna@example.com"}`
			case "POST /account/tokens":
				body = `{"name":"laptop"}`
			case "POST /account/passkeys":
				body = `{"ceremony":"x","label":"x","credential":{}}`
			case "POST /account/hand-over":
				body = handOverBody("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
			}
			// Once as a request that says nothing, once as one that could be done: what is asked decides nothing.
			for _, b := range slices.Compact([]string{map[bool]string{true: "{}"}[body != ""], body}) {
				a := g.ask(r.Method, fill(r.Path, "default", "gone"), c.session, b)
				refused := a.status == http.StatusForbidden && a.problem.Rule == client.RuleStepUp
				if want := slices.Contains(wantsProof, key) || b == body && slices.Contains(c.also, key); refused != want {
					t.Errorf("F11 %s by %s: %d %s; refused for want of a proof: %v, want %v", key, who, a.status, a.body, refused, want)
				}
			}
		}
	}
	if now := g.now(); g.count() != before || len(now.Sessions) != sessions || personOf(t, g, "anna").Email != "" {
		t.Errorf("something was done: %s, was %s; %d sessions, were %d", g.count(), before, len(now.Sessions), sessions)
	}
	// The walk itself: what is refused is refused for want of the proof alone.
	var c client.SignedIn
	g.get("POST", "/account/confirm", plain, `{"password":"`+goodPassword+`"}`, &c)
	for _, r := range g.api.Routes() {
		if !slices.Contains(wantsProof, r.Method+" "+r.Path) || r.Method+" "+r.Path == "POST /account/second-factor" || r.Method+" "+r.Path == "POST /account/passkeys/begin" {
			continue
		}
		if a := g.ask(r.Method, fill(r.Path, "default", "gone"), c.Session, map[bool]string{true: "{}"}[r.Method == "POST" || r.Method == "PUT"]); a.problem.Rule == client.RuleStepUp {
			t.Errorf("%s %s is refused with a proof, too: %s", r.Method, r.Path, a.body)
		}
	}
}
