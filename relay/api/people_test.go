package api_test

import (
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/totp"
)

var base32NoPad = base32.StdEncoding.WithPadding(base32.NoPadding)

func signInBody(user, password, code string) string {
	b, _ := json.Marshal(client.SignIn{Workspace: "default", User: user, Password: password, Code: code})
	return string(b)
}

// F18, F15: an invitation sets a password once, and the session that follows is the user's.
func TestSignInRoutes(t *testing.T) {
	g := newRig(t)
	code := g.invite("anna", authz.Operator)
	first := func(user, code, password string) answer {
		b, _ := json.Marshal(client.FirstPassword{Workspace: "default", User: user, Code: code, Password: password})
		return g.ask("POST", "/sign-in/first", "", string(b))
	}
	g.refusal("an invited user has no password yet", g.ask("POST", "/sign-in", "", signInBody("anna", "", "")), 401, "")
	g.refusal("another's code", first("admin", code, goodPassword), 401, "")
	g.refusal("a wrong code", first("anna", "fli_"+strings.Repeat("A", 43), goodPassword), 401, "")
	g.refusal("a weak password leaves the code", first("anna", code, "password1"), 400, "")
	if a := first(" Anna ", code, goodPassword); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	g.refusal("F15 a code counts once", first("anna", code, "another fine kettle of fish"), 401, "")
	a := g.ask("POST", "/sign-in", "", signInBody("anna", goodPassword, ""))
	var s client.SignedIn
	must(t, json.Unmarshal([]byte(a.body), &s))
	if a.status != 200 || !strings.HasPrefix(s.Session, "fls_") || s.User != "anna" || s.Workspace != "default" || s.Needs != "" || a.header.Get("Set-Cookie") != "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var w client.Whoami
	g.get("GET", "/whoami", s.Session, "", &w)
	if w.Name != "anna" || !slices.Equal(w.Roles, []string{"operator"}) {
		t.Errorf("%+v", w)
	}
	g.get("GET", "/workspaces/default/agents", s.Session, "", nil)
	g.refusal("an operator's session is no admin's", g.ask("GET", "/workspaces/default/users", s.Session, ""), 403, "")
	g.refusal("P9 another workspace", g.ask("GET", "/workspaces/other/agents", s.Session, ""), 404, "")
	outside := g.ask("POST", "/sign-in", "", signInBody("anna", goodPassword, ""), func(r *http.Request) { r.RemoteAddr = "203.0.113.1:1" })
	missing := g.ask("POST", "/sign-in", "", strings.Replace(signInBody("anna", goodPassword, ""), "default", "missing", 1))
	wrong := g.ask("POST", "/sign-in", "", signInBody("anna", "wrong kettle", ""))
	if outside.status != 401 || outside.shape() != wrong.shape() || missing.shape() != wrong.shape() {
		t.Errorf("an address off the list gets %s, a workspace that is not there %s, a wrong password %s", outside.body, missing.body, wrong.body)
	}
	g.refusal("a session off the allowlist", g.ask("GET", "/whoami", s.Session, "", func(r *http.Request) { r.RemoteAddr = "203.0.113.1:1" }), 403, "allowlist")
	g.get("POST", "/sign-out", s.Session, "", nil)
	g.refusal("F13 a session that was signed out of", g.ask("GET", "/whoami", s.Session, ""), 401, "")
}

// F1: nothing in an answer tells who is there.
func TestSignInTellsNobodyWhoIsThere(t *testing.T) {
	t.Run("F1 the same text and status", testSignInTellsNobodyWhoIsThere)
}

func testSignInTellsNobodyWhoIsThere(t *testing.T) {
	g := newRig(t)
	g.person("anna", authz.Analyst)
	g.invite("invited", authz.Analyst)
	g.person("disabled", authz.Analyst)
	w, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	pr, _ := w.User("disabled")
	must(t, g.dir.SetPrincipalDisabled(t.Context(), "default", pr.ID, true))
	shapes := map[string]answer{}
	for who, body := range map[string]string{"known": signInBody("anna", "wrong kettle", ""), "unknown": signInBody("nobody", "wrong kettle", ""), "invited": signInBody("invited", "wrong kettle", ""),
		"disabled": signInBody("disabled", goodPassword, ""), "a principal that is no person": signInBody("admin", "wrong kettle", ""), "unknown, with a code": signInBody("nobody", "wrong kettle", "123456")} {
		shapes[who] = g.ask("POST", "/sign-in", "", body)
	}
	for who, a := range shapes {
		if a.status != 401 || a.shape() != shapes["known"].shape() || len(a.header) != len(shapes["known"].header) {
			t.Errorf("F1 %s: %d %s %v, a known user: %s %v", who, a.status, a.body, a.header, shapes["known"].body, shapes["known"].header)
		}
	}
}

// F12, F13, F16: a new text at each change of standing; the old one is dead at once.
func TestSessionHasANewTextAtEachStep(t *testing.T) {
	g := newRig(t)
	session := g.person("anna", authz.Admin)
	_, recovery, enrolled := g.enrol(session)
	if len(recovery) != 10 || enrolled == session {
		t.Fatal(recovery, enrolled == session)
	}
	g.refusal("F12 the text from before the second factor", g.ask("GET", "/whoami", session, ""), 401, "")
	var c client.SignedIn
	g.get("POST", "/account/confirm", enrolled, `{"code":"`+recovery[0]+`"}`, &c)
	g.refusal("F12 the text from before the proof", g.ask("GET", "/whoami", enrolled, ""), 401, "")
	g.refusal("a recovery code counts once", g.ask("POST", "/account/confirm", c.Session, `{"code":"`+recovery[0]+`"}`), 403, "")
	other := g.signIn("anna", goodPassword, recovery[1])
	var p client.SignedIn
	g.get("POST", "/account/password", c.Session, `{"password":"`+goodPassword+`","new_password":"another fine kettle of fish"}`, &p)
	for what, text := range map[string]string{"the one that asked": c.Session, "another": other} {
		g.refusal("F13 a session from before the new password: "+what, g.ask("GET", "/whoami", text, ""), 401, "")
	}
	g.get("GET", "/whoami", p.Session, "", nil)
	g.refusal("the old password", g.ask("POST", "/sign-in", "", signInBody("anna", goodPassword, recovery[2])), 401, "")
}

// F16, F11: dangerous acts want a proof that is fresh; the second factor's when there is one.
func TestDangerousActsWantAFreshProof(t *testing.T) {
	t.Run("F16 F11 dangerous acts by a stale session", func(t *testing.T) { synctest.Test(t, testDangerousActsWantAFreshProof) })
}

func testDangerousActsWantAFreshProof(t *testing.T) {
	g := newRig(t)
	g.person("anna", authz.Owner)
	stale := g.signIn("anna", goodPassword, "")
	time.Sleep(directory.DefaultStepUp) // the bubble's clock
	g.get("GET", "/workspaces/default/allowlist", stale, "", nil)
	for _, r := range g.api.Routes() {
		if !authz.Action(r.Action).Dangerous() || r.Action == "" {
			continue
		}
		g.refusal(r.Method+" "+r.Path, g.ask(r.Method, fill(r.Path, "default", "gone"), stale, "{}"), 403, "sign_in.step_up")
	}
	for _, r := range []string{"POST /account/second-factor", "PUT /account/second-factor", "DELETE /account/second-factor", "POST /account/recovery-codes"} {
		method, path, _ := strings.Cut(r, " ")
		g.refusal("F11 "+r, g.ask(method, path, stale, `{"code":"123456"}`), 403, "sign_in.step_up")
	}
	var c client.SignedIn
	g.get("POST", "/account/confirm", stale, `{"password":"`+goodPassword+`"}`, &c)
	g.get("POST", "/workspaces/default/tokens", c.Session, `{"name":"made","roles":["analyst"]}`, nil)
	_, recovery, session := g.enrol(c.Session)
	g.refusal("F16 fresh by the lesser factor", g.ask("POST", "/account/confirm", session, `{"password":"`+goodPassword+`"}`), 400, "sign_in.second_factor")
	g.get("POST", "/account/confirm", session, `{"code":"`+recovery[0]+`"}`, &c)
	g.get("DELETE", "/account/second-factor", c.Session, "", nil)
	// API tokens need no proof: making one did.
	g.get("POST", "/workspaces/default/tokens", g.token[authz.Admin], `{"name":"by-token","roles":["analyst"]}`, nil)
	g.refusal("F8 an API token has no account", g.ask("POST", "/account/second-factor", g.token[authz.Admin], ""), 403, "")
}

// A workspace that demands a second factor leaves who has none only their own account, and those who sit there already, too.
func TestDemandedSecondFactorHoldsEverywhere(t *testing.T) {
	t.Run("F8 F11 a second factor that is demanded", func(t *testing.T) { synctest.Test(t, testDemandedSecondFactorHoldsEverywhere) }) // in one step of the codes' clock
}

func testDemandedSecondFactorHoldsEverywhere(t *testing.T) {
	g := newRig(t)
	session := g.person("anna", authz.Admin)
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{SecondFactor: true}))
	for _, r := range g.api.Routes() {
		if r.Action == "" {
			continue
		}
		g.refusal("F8 "+r.Method+" "+r.Path, g.ask(r.Method, fill(r.Path, "default", g.conn), session, "{}"), 403, "sign_in.needs")
	}
	var acc client.Account
	g.get("GET", "/account", session, "", &acc)
	if acc.Needs != client.NeedsSecondFactor {
		t.Errorf("%+v", acc)
	}
	s, _, session := g.enrol(session)
	g.get("GET", "/workspaces/default/users", session, "", nil)
	g.refusal("F11 removing what is demanded", g.ask("DELETE", "/account/second-factor", session, ""), 409, "")
	g.refusal("F8 without a code", g.ask("POST", "/sign-in", "", signInBody("anna", goodPassword, "")), 401, "sign_in.second_factor")
	used := totp.Code(s, totp.StepAt(time.Now()))
	g.refusal("F6 the code that enrolled", g.ask("POST", "/sign-in", "", signInBody("anna", goodPassword, used)), 401, "")
	// An expired password leaves the account alone, too: the policy reaches sessions that are there.
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{}))
	g.get("GET", "/workspaces/default/users", session, "", nil)
}

// Cookies are for browsers: they count where the browser says that the request comes from the relay's own page.
func TestCookieCountsOnlyFromOwnPages(t *testing.T) {
	g := newRig(t)
	g.person("anna", authz.Admin)
	a := g.ask("POST", "/sign-in", "", `{"workspace":"default","user":"anna","password":"`+goodPassword+`","cookie":true}`, func(r *http.Request) { r.Header.Set("Origin", "https://relay.example") })
	set := a.header.Get("Set-Cookie")
	t.Run("F12 the cookie", func(t *testing.T) {
		for _, part := range []string{"__Host-fairlead=fls_", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=Strict", "; Max-Age="} {
			if !strings.Contains(set, part) {
				t.Errorf("F12 the cookie lacks %q: %s", part, set)
			}
		}
		if a.status != 200 || strings.Contains(a.body, "fls_") || strings.Contains(set, "Domain") {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	session, _, _ := strings.Cut(strings.TrimPrefix(set, "__Host-fairlead="), ";")
	const make = `{"name":"made","roles":["analyst"]}`
	post := func(edit ...func(*http.Request)) answer {
		return g.ask("POST", "/workspaces/default/tokens", "", make, edit...)
	}
	g.refusal("no header", post(browser(session, "")), 403, "sign_in.cross_site")
	for _, origin := range []string{"https://evil.example", "http://relay.example", "null", "https://relay.example.evil.example", "https://relay.example:444", "//relay.example"} {
		g.refusal("from "+origin, post(browser(session, origin)), 403, "sign_in.cross_site")
		g.refusal("signing in from "+origin, g.ask("POST", "/sign-in", "", signInBody("anna", goodPassword, ""), func(r *http.Request) { r.Header.Set("Origin", origin) }), 403, "sign_in.cross_site")
	}
	for _, site := range []string{"cross-site", "same-site", "none"} {
		g.refusal("fetched "+site, post(browser(session, "https://relay.example"), func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", site) }), 403, "sign_in.cross_site")
	}
	for _, ok := range []answer{post(browser(session, "https://relay.example")), g.ask("GET", "/workspaces/default/agents", "", "", browser(session, ""))} {
		if ok.status >= 300 {
			t.Errorf("%d %s", ok.status, ok.body)
		}
	}
	g.refusal("E23 a cookie beside a header", g.ask("GET", "/whoami", g.token[authz.Admin], "", browser(session, "")), 401, "")
	g.refusal("two cookies", g.ask("GET", "/whoami", "", "", browser(session, ""), browser(session, "")), 401, "")
	g.refusal("an API token as a cookie", g.ask("GET", "/whoami", "", "", browser(g.token[authz.Admin], "")), 401, "")
	out := g.ask("POST", "/sign-out", "", "", browser(session, "https://relay.example"))
	if out.status != 204 || !strings.Contains(out.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("%d %v", out.status, out.header)
	}
	g.refusal("F13 the cookie after signing out", g.ask("GET", "/whoami", "", "", browser(session, "")), 401, "")
}

// J15: whoever asks for their own sessions gets those alone, and ends no other's.
func TestOwnSessionsAreOnesOwn(t *testing.T) {
	g := newRig(t)
	anna, bert := g.person("anna", authz.Analyst), g.person("bert", authz.Admin)
	second := g.signIn("anna", goodPassword, "")
	var l client.List[client.Session]
	g.get("GET", "/account/sessions", anna, "", &l)
	if len(l.Items) != 2 || l.Items[0].User != "anna" || l.Items[1].User != "anna" || l.Items[0].Current == l.Items[1].Current {
		t.Fatalf("%+v", l)
	}
	var all client.List[client.Session]
	g.get("GET", "/workspaces/default/sessions", bert, "", &all)
	if len(all.Items) != 3 {
		t.Errorf("%+v", all)
	}
	for _, s := range all.Items {
		if s.User == "bert" {
			g.refusal("J15 another's session", g.ask("DELETE", "/account/sessions/"+s.ID, anna, ""), 404, "")
		}
	}
	g.get("DELETE", "/account/sessions", anna, "", nil)
	g.refusal("an ended session", g.ask("GET", "/whoami", second, ""), 401, "")
	g.get("GET", "/whoami", anna, "", nil)
	for _, s := range all.Items {
		if s.User == "anna" {
			g.ask("DELETE", "/workspaces/default/sessions/"+s.ID, bert, "")
		}
	}
	g.refusal("a session that an admin ended", g.ask("GET", "/whoami", anna, ""), 401, "")
	g.get("POST", "/workspaces/default/users/anna/disable", bert, "", nil)
	g.refusal("a disabled user", g.ask("POST", "/sign-in", "", signInBody("anna", goodPassword, "")), 401, "")
}

// J1, P9, P10 for sessions: each route × role × session, and what is wrong with it.
func TestMatrixOfRoutesAndSessions(t *testing.T) {
	t.Run("J1 every route, role and session", func(t *testing.T) { synctest.Test(t, testMatrixOfRoutesAndSessions) })
}

func testMatrixOfRoutesAndSessions(t *testing.T) {
	g := newRig(t)
	good := map[authz.Role]string{}
	for _, r := range authz.Roles {
		good[r] = g.person(string(r)+"-person", r)
	}
	revoked := g.signIn("admin-person", goodPassword, "")
	for _, s := range g.dir.Snapshot().SessionsOf(personOf(t, g, "admin-person")) {
		if text, ok := g.dir.Snapshot().FindSession(revoked); ok && text.ID == s.ID {
			must(t, g.dir.EndSession(t.Context(), "", s.ID, ""))
		}
	}
	res, err := g.people.SignIn(t.Context(), authn.SignIn{Workspace: "default", User: "admin-person", Password: secret.FromString(goodPassword), Source: netip.MustParseAddrPort(inside).Addr(), Life: time.Minute})
	must(t, err)
	expired := res.Text.ExposeString()
	time.Sleep(time.Minute) // the bubble's clock
	bad := map[string]string{"garbage": "fls_" + strings.Repeat("A", 43), "revoked": revoked, "expired": expired, "as a token": "flt_" + strings.TrimPrefix(good[authz.Admin], "fls_")}
	for _, route := range g.api.Routes() {
		if route.Anonymous || route.Session {
			continue
		}
		for name, s := range bad {
			if a := g.ask(route.Method, fill(route.Path, "default", g.conn), s, "{}"); a.status != 401 {
				t.Errorf("%s %s, %s session: %d %s", route.Method, route.Path, name, a.status, a.body)
			}
		}
		for role, s := range good {
			at := fmt.Sprintf("%s %s as %s", route.Method, route.Path, role)
			object := "gone"
			may := route.Action == "" || role.Allows(authz.Action(route.Action))
			if !may && strings.Contains(route.Path, "{connection}") {
				object = g.conn
			}
			a := g.ask(route.Method, fill(route.Path, "default", object), s, map[bool]string{true: "{}"}[route.Method == "POST" || route.Method == "PUT"])
			if may && (a.status == 401 || a.status == 403 || a.status >= 500) || !may && a.status != 403 {
				t.Errorf("%s: %d %s", at, a.status, a.body)
			}
			if route.Action != "" {
				foreign, missing := g.ask(route.Method, fill(route.Path, "other", g.otherConn), s, ""), g.ask(route.Method, fill(route.Path, "missing", g.otherConn), s, "")
				if foreign.status != 404 || foreign.shape() != missing.shape() {
					t.Errorf("%s: another workspace answers %d %s, a missing one %d %s", at, foreign.status, foreign.body, missing.status, missing.body)
				}
			}
		}
	}
	for _, route := range g.api.Routes() {
		if route.Session {
			for name, s := range bad {
				if a := g.ask(route.Method, fill(route.Path, "default", "gone"), s, ""); a.status != 401 {
					t.Errorf("%s %s, %s session: %d", route.Method, route.Path, name, a.status)
				}
			}
		}
	}
}

func personOf(t *testing.T, g *rig, name string) *directory.Person {
	t.Helper()
	w, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	_, p := w.User(name)
	if p == nil {
		t.Fatal("no such user", name)
	}
	return p
}

// Whoever manages users cannot make themselves more than they are by taking another's account.
func TestNobodyTakesOverWhoHoldsMore(t *testing.T) {
	t.Run("J4 nobody takes over who holds more", testNobodyTakesOverWhoHoldsMore)
}

func testNobodyTakesOverWhoHoldsMore(t *testing.T) {
	g := newRig(t)
	for _, c := range []struct{ below, above authz.Role }{{authz.Operator, authz.Admin}, {authz.Admin, authz.Owner}} {
		name := "anna-" + string(c.above)
		g.person(name, c.above)
		w, err := g.dir.Snapshot().Workspace("default")
		must(t, err)
		pr, _ := w.User(name)
		var by directory.By
		for _, p := range w.Principals {
			if strings.HasSuffix(p.Name, " "+string(c.below)) {
				by.ID = p.ID
			}
		}
		if by.ID == "" {
			t.Fatalf("no principal is %s", c.below)
		}
		if _, _, err := g.dir.IssueCode(t.Context(), by, "default", pr.ID, 0); protocol.AsError(err).Code != protocol.CodeDenied {
			t.Errorf("J4 %s: a code for who holds more: %v", c.below, err)
		}
		if err := g.dir.ResetSecondFactor(t.Context(), by, "default", pr.ID); protocol.AsError(err).Code != protocol.CodeDenied {
			t.Errorf("J4 %s: the second factor of who holds more: %v", c.below, err)
		}
		if err := g.dir.EndSessionsBy(t.Context(), by, "default", pr.ID); protocol.AsError(err).Code != protocol.CodeDenied {
			t.Errorf("J4 %s: ending the sessions of who holds more: %v", c.below, err)
		}
		if _, _, err := g.dir.CreateUser(t.Context(), by, "default", directory.NewUser{Name: "mole", Roles: []authz.Role{c.above}}); protocol.AsError(err).Code != protocol.CodeDenied {
			t.Errorf("J4 %s: a user with more than the giver: %v", c.below, err)
		}
	}
	// By the routes, too: an admin neither disables, removes, resets nor signs out an owner.
	const own = "/workspaces/default"
	session := g.person("olga", authz.Owner)
	w, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	if len(w.Sessions) == 0 || session == "" {
		t.Fatal("no session")
	}
	paths := [][2]string{{"POST", "/users/olga/disable"}, {"DELETE", "/users/olga"}, {"DELETE", "/users/olga/second-factor"}, {"DELETE", "/users/olga/sessions"}, {"POST", "/users/olga/code"}}
	for _, s := range w.Sessions {
		if s.Principal.Name == "olga" {
			paths = append(paths, [2]string{"DELETE", "/sessions/" + s.ID})
		}
	}
	if len(paths) != 6 {
		t.Fatalf("%d paths", len(paths))
	}
	for _, p := range paths {
		if a := g.ask(p[0], own+p[1], g.token[authz.Admin], "{}"); a.status != 403 {
			t.Errorf("J4 %s %s by an admin: %d %s", p[0], p[1], a.status, a.body)
		}
	}
	if a := g.ask("GET", "/account", session, ""); a.status != 200 {
		t.Errorf("the owner's session: %d", a.status)
	}
}

// A person of one workspace joins another by its id, and only home gives it a new password.
func TestPersonOfTwoWorkspaces(t *testing.T) {
	g := newRig(t)
	session := g.person("anna", authz.Analyst)
	var acc client.Account
	g.get("GET", "/account", session, "", &acc)
	made := g.ask("POST", "/workspaces/other/users", g.foreign, `{"name":"anna.s","roles":["operator"],"person":"`+acc.Person+`"}`)
	var u client.UserCode
	must(t, json.Unmarshal([]byte(made.body), &u))
	if made.status != 201 || u.Code != "" {
		t.Fatalf("%d %s", made.status, made.body)
	}
	g.refusal("P9 a code from who is not home", g.ask("POST", "/workspaces/other/users/anna.s/code", g.foreign, "{}"), 403, "")
	g.refusal("P9 the second factor, too", g.ask("DELETE", "/workspaces/other/users/anna.s/second-factor", g.foreign, ""), 403, "")
	g.refusal("P9 the name of home says nothing there", g.ask("POST", "/sign-in", "", strings.Replace(signInBody("anna", goodPassword, ""), "default", "other", 1)), 401, "")
	var s client.SignedIn
	g.get("POST", "/sign-in", "", strings.Replace(signInBody("anna.s", goodPassword, ""), "default", "other", 1), &s)
	g.get("GET", "/workspaces/other/agents", s.Session, "", nil)
	g.refusal("P9 a session of one workspace in the other", g.ask("GET", "/workspaces/default/agents", s.Session, ""), 404, "")
	g.refusal("J13 removed where she is a guest", g.ask("DELETE", "/workspaces/other/users/nobody", g.foreign, ""), 404, "")
	g.get("DELETE", "/workspaces/default/users/anna", g.token[authz.Owner], "", nil)
	g.refusal("J13 removed at home", g.ask("GET", "/whoami", s.Session, ""), 401, "")
	t.Run("F17 removed in the other workspace, too", func(t *testing.T) {
		if o, err := g.dir.Snapshot().Workspace("other"); err != nil || o.Principal(u.ID) != nil {
			t.Errorf("the principal is left: %v", err)
		}
	})
	// The other workspace's auditor sees that she went, and nothing of who removed her.
	last := g.eventsOf("other")
	if e := last[len(last)-1]; !strings.Contains(e, u.ID) || !strings.Contains(e, "home workspace removes") || strings.Contains(e, "source_address") || strings.Contains(e, g.own.ID) {
		t.Errorf("the other log ends with %s", e)
	}
}

// P7: no password, code, session or secret stands in an event, an error or a header that is none of theirs.
func TestCredentialsShowUpNowhere(t *testing.T) {
	g := newRig(t)
	code := g.invite("anna", authz.Admin)
	const secretPassword = "CANARYq7x kettle battery fish"
	canaries := []string{secretPassword, "CANARYq7x", code}
	var seen []string
	ask := func(method, path, session, body string) answer {
		a := g.ask(method, path, session, body)
		if a.status >= 400 {
			seen = append(seen, a.body+fmt.Sprint(a.header))
		}
		return a
	}
	ask("POST", "/sign-in/first", "", `{"workspace":"default","user":"anna","code":"`+code+`x","password":"`+secretPassword+`"}`)
	ask("POST", "/sign-in/first", "", `{"workspace":"default","user":"anna","code":"`+code+`","password":"CANARYq7x"}`)
	ask("POST", "/sign-in/first", "", `{"workspace":"default","user":"anna","code":"`+code+`","password":"`+secretPassword+`"}`)
	ask("POST", "/sign-in", "", signInBody("CANARYq7x", secretPassword, ""))
	ask("POST", "/sign-in", "", signInBody("anna", "CANARYq7x", "CANARYq7x"))
	session := g.signIn("anna", secretPassword, "")
	s, recovery, renewed := g.enrol(session)
	next := totp.Code(s, totp.StepAt(time.Now())+1)
	canaries = append(append(canaries, session, renewed, totp.Text(s), next), recovery...)
	ask("POST", "/account/confirm", renewed, `{"code":"CANARYq7x"}`)
	ask("POST", "/workspaces/default/users/anna/enable", renewed, "")
	ask("POST", "/workspaces/default/users/CANARYq7x/enable", renewed, "")
	ask("POST", "/account/password", renewed, `{"password":"CANARYq7x","new_password":"CANARYq7x"}`)
	ask("POST", "/sign-in", "", signInBody("anna", secretPassword, next))
	seen = append(seen, g.events()...)
	if len(seen) < 12 {
		t.Fatalf("only %d texts", len(seen))
	}
	kinds := strings.Join(seen, "\n")
	for _, kind := range []string{"principal.sign_in", "principal.refused", "principal.password", "principal.factor", "principal.confirmed"} {
		if !strings.Contains(kinds, `"kind":"`+kind+`"`) {
			t.Errorf("no event of kind %s", kind)
		}
	}
	if strings.Contains(kinds, `"principal_name":"anna"`) || strings.Contains(kinds, "/users/anna") || !strings.Contains(kinds, "/users/usr_") || !strings.Contains(kinds, "/users/{id}/enable") {
		t.Error("a user's name stands in the record as it is")
	}
	for _, c := range canaries {
		if strings.Contains(kinds, c) {
			t.Errorf("P7 %q shows up: %s", c, kinds[max(0, strings.Index(kinds, c)-200):])
		}
	}
}

// P6: nobody gets in, and nothing is changed, when it cannot be recorded.
func TestNobodySignsInUnrecorded(t *testing.T) {
	g := newRig(t)
	session := g.person("anna", authz.Admin)
	code := g.invite("bert", authz.Analyst)
	g.dispatch.Record = func(audit.Event) (*audit.Ticket, error) { return nil, errors.New("the disk is full") }
	for what, a := range map[string]answer{"signing in": g.ask("POST", "/sign-in", "", signInBody("anna", goodPassword, "")),
		"a first password": g.ask("POST", "/sign-in/first", "", `{"workspace":"default","user":"bert","code":"`+code+`","password":"`+goodPassword+`"}`),
		"a second factor":  g.ask("POST", "/account/second-factor", session, ""),
		"a new password":   g.ask("POST", "/account/password", session, `{"password":"`+goodPassword+`","new_password":"another fine kettle of fish"}`)} {
		if a.status != 503 || a.problem.Code != protocol.CodeAuditUnavailable || strings.Contains(a.body, "fls_") {
			t.Errorf("P6 %s: %d %s", what, a.status, a.body)
		}
	}
	if n := len(g.dir.Snapshot().SessionsOf(personOf(t, g, "anna"))); n != 1 {
		t.Errorf("P6 %d sessions", n)
	}
	if p := personOf(t, g, "bert"); !p.PasswordSet.IsZero() || p.InvitedUntil.IsZero() {
		t.Error("P6 the code was taken")
	}
}

// Strangers cannot fill the record: what is refused beyond the rate is counted, and the count is on record.
func TestRefusedSignInsAreCountedInAFlood(t *testing.T) {
	g := newRig(t)
	for range 400 {
		g.ask("POST", "/sign-in", "", signInBody("nobody", "wrong kettle", ""), func(r *http.Request) { r.RemoteAddr = "192.0.2.77:1" })
	}
	g.dispatch.TellDenied()
	alone, counted := 0, 0
	// Nobody waits for the event of a count to be durable.
	testenv.Eventually(t, "all refusals are on record or counted", func() bool {
		alone, counted = 0, 0
		for _, text := range g.events() {
			var e struct {
				Kind, Reason string
				Detail       struct {
					Count int `json:"count,string"`
				}
			}
			must(t, json.Unmarshal([]byte(text), &e))
			if e.Kind == "principal.refused" {
				if counted += e.Detail.Count; e.Detail.Count == 0 {
					alone++
				}
			}
		}
		return alone+counted >= 400
	})
	if alone+counted != 400 || counted == 0 || alone < 100 {
		t.Errorf("%d on record one by one, %d counted", alone, counted)
	}
}

// The OpenAPI document says which routes want nothing.
func TestDocumentSaysWhoNeedsNothing(t *testing.T) {
	g := newRig(t)
	doc := document(t, g)
	for _, r := range g.api.Routes() {
		if item := doc.Paths.Value(strings.ReplaceAll(r.Path, "...}", "}")); item != nil && r.Path != "/openapi.json" {
			sec := item.GetOperation(r.Method).Security
			if (sec != nil && len(*sec) == 0) != r.Anonymous {
				t.Errorf("%s %s: %v", r.Method, r.Path, sec)
			}
		}
	}
}

// P11: a session that ends while the body of a request is still coming does nothing more.
func TestSessionEndedWhileTheBodyComesDoesNothing(t *testing.T) {
	g := newRig(t)
	session := g.person("lena", authz.Analyst)
	w, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	body := `{"password":"` + goodPassword + `","new_password":"another fine kettle of fish"}`
	a := g.ask("POST", "/account/password", session, body, func(r *http.Request) {
		r.Body = &lateBody{Reader: r.Body, first: func() {
			for _, s := range w.Sessions {
				must(t, g.dir.EndSession(t.Context(), "default", s.ID, ""))
			}
		}}
	})
	g.refusal("the session had ended", a, http.StatusUnauthorized, "")
	g.signIn("lena", goodPassword, "") // the password is what it was
}
