package api_test

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/passkey/passkeytest"
)

func TestPasskeyFromFirstToLast(t *testing.T) {
	g := newRig(t)
	first := g.person("anna", authz.Admin)
	elsewhere := g.signIn("anna", goodPassword, "")
	a, id, session := g.addPasskey(first)
	g.refusal("the old text", g.ask("GET", "/account", first, ""), 401, "")
	g.refusal("another session", g.ask("GET", "/account", elsewhere, ""), 401, "")
	var acc client.Account
	g.get("GET", "/account", session, "", &acc)
	if acc.Passkeys != 1 || !acc.Fresh || acc.Needs != "" {
		t.Errorf("%+v", acc)
	}
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{SecondFactor: true}))
	var in client.SignedIn
	g.get("POST", "/sign-in/passkey", "", g.tap(a, "", passkeytest.Wrong{}), &in)
	if in.User != "anna" || in.Workspace != "default" || in.Needs != "" {
		t.Errorf("%+v", in)
	}
	g.get("POST", "/workspaces/default/users", in.Session, `{"name":"otto","roles":["analyst"]}`, nil) // a dangerous act
	var l client.List[client.Passkey]
	g.get("GET", "/account/passkeys", in.Session, "", &l)
	if len(l.Items) != 1 || l.Items[0].ID != id || l.Items[0].Label != "laptop" || l.Items[0].LastUsedAt == nil || !l.Items[0].BackupEligible || !l.Items[0].BackedUp || !l.Items[0].Bound {
		t.Errorf("%+v", l.Items)
	}
	var users client.List[client.User]
	g.get("GET", "/workspaces/default/users", in.Session, "", &users)
	if users.Items[0].Passkeys != 1 || users.Items[0].SecondFactor {
		t.Errorf("%+v", users.Items[0])
	}
	g.refusal("the last one, where a factor is demanded", g.ask("DELETE", "/account/passkeys/"+id, in.Session, ""), 409, "")
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{}))
	g.get("DELETE", "/account/passkeys/"+id, in.Session, "", nil)
	g.refusal("a passkey that is removed", g.ask("POST", "/sign-in/passkey", "", g.tap(a, "default", passkeytest.Wrong{})), 401, "")
	g.refusal("one that is gone", g.ask("DELETE", "/account/passkeys/"+id, in.Session, ""), 404, "")
	log := strings.Join(g.events(), "\n")
	for _, want := range []string{`"method":"passkey"`, `"POST /account/passkeys"`, `"DELETE /account/passkeys/{id}"`, "the passkey is not known"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not tell of %s", want)
		}
	}
}

func TestPasskeyInABrowserIsACookie(t *testing.T) {
	g := newRig(t)
	a, _, _ := g.addPasskey(g.person("anna", authz.Admin))
	body := strings.Replace(g.tap(a, "", passkeytest.Wrong{}), `"ceremony"`, `"cookie":true,"ceremony"`, 1)
	got := g.ask("POST", "/sign-in/passkey", "", body)
	c, err := http.ParseSetCookie(got.header.Get("Set-Cookie"))
	must(t, err)
	if got.status != 200 || strings.Contains(got.body, "fls_") || c.Name != "__Host-fairlead" || !c.Secure || !c.HttpOnly {
		t.Fatalf("%d %s %v", got.status, got.body, c)
	}
	page := browser(c.Value, "https://relay.example")
	var begin client.Ceremony
	must(t, json.Unmarshal([]byte(g.ask("POST", "/account/confirm/passkey/begin", "", "{}", page).body), &begin))
	got = g.ask("POST", "/account/confirm", "", g.text(client.Confirm{Ceremony: begin.Ceremony, Credential: a.Get(t, begin.Options, passkeytest.Wrong{})}), page)
	renewed, err := http.ParseSetCookie(got.header.Get("Set-Cookie"))
	if err != nil || got.status != 200 || renewed.Value == c.Value {
		t.Errorf("%d %s", got.status, got.body)
	}
	g.refusal("from another site", g.ask("POST", "/sign-in/passkey/begin", "", "{}", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }), 403, "sign_in.cross_site")
}

func TestPasskeyRefusalsAreThatOfAPassword(t *testing.T) {
	g := newRig(t)
	a, _, _ := g.addPasskey(g.person("anna", authz.Admin))
	want := g.ask("POST", "/sign-in", "", `{"workspace":"default","user":"nobody","password":"not it at all"}`)
	strip := func(x answer) string {
		x.problem.RequestID = ""
		return g.text(x.problem)
	}
	once := g.tap(a, "", passkeytest.Wrong{})
	g.get("POST", "/sign-in/passkey", "", once, nil)
	for what, body := range map[string]string{
		"signature": g.tap(a, "default", passkeytest.Wrong{Signature: true}), "unknown": g.tap(a, "", passkeytest.Wrong{ID: []byte("an id of nobody")}), "again": once,
		"another workspace": g.tap(a, "other", passkeytest.Wrong{}), "no workspace": g.tap(a, "nowhere", passkeytest.Wrong{}), "nothing": `{"ceremony":"x","credential":{}}`,
	} {
		if got := g.ask("POST", "/sign-in/passkey", "", body); strip(got) != strip(want) || got.status != 401 {
			t.Errorf("%s: %s, want %s", what, got.body, want.body)
		}
	}
	long := g.ask("POST", "/sign-in/passkey", "", `{"ceremony":"`+strings.Repeat("x", 17<<10)+`","credential":{}}`)
	if long.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", long.status, long.body)
	}
}

func TestPasskeysWantAFreshSession(t *testing.T) {
	g := newRig(t)
	a, id, session := g.addPasskey(g.person("anna", authz.Admin))
	stale := g.signIn("anna", goodPassword, "") // a password alone proves nothing for who has a passkey
	g.refusal("adding", g.ask("POST", "/account/passkeys/begin", stale, "{}"), 403, "sign_in.step_up")
	g.refusal("adding a second factor", g.ask("POST", "/account/second-factor", stale, ""), 403, "sign_in.step_up")
	g.refusal("removing", g.ask("DELETE", "/account/passkeys/"+id, stale, ""), 403, "sign_in.step_up")
	g.refusal("a password", g.ask("POST", "/account/confirm", stale, `{"password":"`+goodPassword+`"}`), 400, "sign_in.passkey")
	g.refusal("another session's ceremony", g.ask("POST", "/account/confirm", stale, g.confirmation(session, a, passkeytest.Wrong{})), 403, "sign_in.passkey")
	g.refusal("unverified", g.ask("POST", "/account/confirm", stale, g.confirmation(stale, a, passkeytest.Wrong{Flags: passkeytest.UV})), 403, "sign_in.passkey")
	var in client.SignedIn
	g.get("POST", "/account/confirm", stale, g.confirmation(stale, a, passkeytest.Wrong{}), &in)
	g.get("POST", "/account/passkeys/begin", in.Session, "{}", nil)
	body, _ := g.newPasskey(in.Session, passkeytest.Wrong{Flags: passkeytest.UV})
	g.refusal("one that verified nobody", g.ask("POST", "/account/passkeys", in.Session, body), 403, "sign_in.passkey")
	g.refusal("an API token", g.ask("GET", "/account/passkeys", g.token[authz.Owner], ""), 403, "")
	body = g.confirmation(in.Session, a, passkeytest.Wrong{Count: 1})
	g.refusal("a copy", g.ask("POST", "/account/confirm", in.Session, body), 403, "sign_in.passkey")
	if log := strings.Join(g.events(), "\n"); !strings.Contains(log, "counter went back") {
		t.Error("the log does not tell of the copy")
	}
}

func TestWorkspacesDemandOrForbidPasskeys(t *testing.T) {
	g := newRig(t)
	me := g.person("anna", authz.Admin)
	put := func(policy string, status int) {
		t.Helper()
		if a := g.ask("PUT", "/workspaces/default/sign-in-policy", g.token[authz.Owner], policy); a.status != status {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	put(`{"passkeys":"sometimes"}`, 400)
	put(`{"passkeys":"required"}`, 200)
	g.refusal("without a passkey", g.ask("GET", "/workspaces/default/users", me, ""), 403, client.RuleNeeds)
	a, _, me := g.addPasskey(me)
	g.get("GET", "/workspaces/default/users", me, "", nil)
	pw := g.signIn("anna", goodPassword, "")
	g.refusal("by a password", g.ask("GET", "/workspaces/default/users", pw, ""), 403, client.RuleNeeds)
	put(`{"passkeys":"off"}`, 200)
	if got := g.ask("POST", "/sign-in/passkey", "", g.tap(a, "", passkeytest.Wrong{})); got.status != 401 || got.problem.Code != protocol.CodeUnauthenticated {
		t.Errorf("%d %s", got.status, got.body)
	}
	var acc client.Account
	g.get("GET", "/account", pw, "", &acc)
	if acc.Needs != "" {
		t.Errorf("%+v", acc)
	}
}

// A password and a code that were phished add no passkey, and take none away, where a workspace of the person demands passkeys: in
// whichever workspace it is tried.
func TestPhishedCodeChangesNoPasskeyWhereOneIsDemanded(t *testing.T) {
	g := newRig(t)
	a, id, me := g.addPasskey(g.person("anna", authz.Admin))
	_, recovery, _ := g.enrol(me)
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{Passkeys: directory.PasskeysRequired}))
	phished := g.signIn("anna", goodPassword, recovery[0])
	for _, c := range [][3]string{{"POST", "/account/passkeys/begin", "{}"}, {"DELETE", "/account/passkeys/" + id, ""}, {"DELETE", "/account/second-factor", ""}, {"POST", "/account/recovery-codes", ""},
		{"POST", "/account/second-factor", ""}, {"POST", "/account/hand-over", handOverBody("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")},
		{"POST", "/account/password", `{"password":"` + goodPassword + `","new_password":"another kettle battery fish"}`}} {
		g.refusal(c[0]+" "+c[1], g.ask(c[0], c[1], phished, c[2]), 403, "sign_in.step_up")
	}
	var in client.SignedIn
	g.get("POST", "/account/confirm", phished, g.confirmation(phished, a, passkeytest.Wrong{}), &in)
	g.get("POST", "/account/passkeys/begin", in.Session, "{}", nil)
}

// Who guessed the password of somebody who has a passkey can neither change it nor end what the person does elsewhere, and is not told
// where that is.
func TestGuessedPasswordEndsNothingOfWhoHasAPasskey(t *testing.T) {
	g := newRig(t)
	_, _, me := g.addPasskey(g.person("anna", authz.Admin))
	_, person := func() (*directory.Principal, *directory.Person) {
		w, err := g.dir.Snapshot().Workspace("default")
		must(t, err)
		return w.User("anna")
	}()
	owner, _, err := g.dir.CreateAdminToken(t.Context(), "other", "its owner", time.Hour)
	must(t, err)
	_, _, err = g.dir.CreateUser(t.Context(), directory.By{ID: owner.Principal.ID}, "other", directory.NewUser{Name: "anna", Roles: []authz.Role{authz.Analyst}, Person: person.ID})
	must(t, err)
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{Passkeys: directory.PasskeysRequired}))
	res, err := g.people.SignIn(t.Context(), authn.SignIn{Workspace: "other", User: "anna", Password: secret.FromString(goodPassword), Source: netip.MustParseAddrPort(inside).Addr()})
	must(t, err)
	guessed := g.signIn("anna", goodPassword, "")
	g.refusal("another password", g.ask("POST", "/account/password", guessed, `{"password":"`+goodPassword+`","new_password":"another kettle battery fish"}`), 403, "sign_in.step_up")
	g.refusal("all sessions", g.ask("DELETE", "/account/sessions", guessed, ""), 403, "sign_in.step_up")
	g.refusal("one session", g.ask("DELETE", "/account/sessions/"+res.Session.ID, guessed, ""), 403, "sign_in.step_up")
	var l client.List[client.Session]
	g.get("GET", "/account/sessions", guessed, "", &l)
	for _, s := range l.Items {
		if s.Workspace == "other" {
			t.Errorf("told where else: %+v", s)
		}
	}
	g.get("GET", "/account/sessions", me, "", &l)
	if !slices.ContainsFunc(l.Items, func(s client.Session) bool { return s.Workspace == "other" }) {
		t.Errorf("the person itself is not told: %+v", l.Items)
	}
	g.get("DELETE", "/account/sessions", me, "", nil)
}

// Switching passkeys off ends what has nothing but a passkey to show for itself, and takes no proof by one.
func TestSwitchingPasskeysOffEndsTheirSessions(t *testing.T) {
	g := newRig(t)
	a, _, _ := g.addPasskey(g.person("anna", authz.Admin))
	var in client.SignedIn
	g.get("POST", "/sign-in/passkey", "", g.tap(a, "", passkeytest.Wrong{}), &in)
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{Passkeys: directory.PasskeysOff}))
	g.refusal("a session by a passkey", g.ask("GET", "/whoami", in.Session, ""), 401, "")
	pw := g.signIn("anna", goodPassword, "")
	if got := g.ask("POST", "/account/confirm/passkey/begin", pw, "{}"); got.status != 409 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := g.ask("POST", "/account/confirm", pw, `{"ceremony":"x","credential":{}}`); got.status != 409 {
		t.Errorf("%d %s", got.status, got.body)
	}
	g.refusal("what counts in other workspaces, too", g.ask("POST", "/account/second-factor", pw, ""), 403, "sign_in.step_up")
}

// Who has to wait learns of no workspace by a passkey.
func TestWaitingTellsOfNoWorkspace(t *testing.T) {
	g := newRig(t)
	for range 40 {
		g.ask("POST", "/sign-in/passkey", "", `{"ceremony":"x","credential":{}}`)
	}
	there, nowhere := g.ask("POST", "/sign-in/passkey", "", `{"ceremony":"x","credential":{},"workspace":"default"}`), g.ask("POST", "/sign-in/passkey", "", `{"ceremony":"x","credential":{},"workspace":"nowhere"}`)
	if there.status != 429 || nowhere.status != 429 {
		t.Errorf("%d %s, %d %s", there.status, there.body, nowhere.status, nowhere.body)
	}
	if a := g.ask("POST", "/sign-in/passkey/begin", "", "{}"); a.status != 200 {
		t.Errorf("what others in the network did holds up who begins: %d %s", a.status, a.body)
	}
}
