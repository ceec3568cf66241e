package api_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// pkce is a verifier with its challenge (RFC 7636).
func pkce() (verifier, challenge string) {
	verifier = rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	return verifier, base64.RawURLEncoding.EncodeToString(sum[:])
}

func handOverBody(challenge string) string { return `{"challenge":"` + challenge + `"}` }

func takeOverBody(code, verifier string) string {
	b, _ := json.Marshal(client.TakeOver{Code: code, Verifier: verifier})
	return string(b)
}

// handOver gives a code of a session.
func (g *rig) handOver(session, challenge string) string {
	g.t.Helper()
	var o client.HandOverCode
	g.get("POST", "/account/hand-over", session, handOverBody(challenge), &o)
	if !strings.HasPrefix(o.Code, "flh_") || len(o.Code) != 47 {
		g.t.Fatal("the code is", len(o.Code), "characters")
	}
	return o.Code
}

// The RFC's own example (RFC 7636, appendix B).
func TestChallengeIsThatOfRFC7636(t *testing.T) {
	g := newRig(t)
	code := g.handOver(g.person("anna", authz.Analyst), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
	g.get("POST", "/sign-in/hand-over", "", takeOverBody(code, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), nil)
}

// A browser's session gives a program one of its own: the same person, listed and ended apart, and no longer than its own.
func TestSessionThatIsHandedOverIsOneOfItsOwn(t *testing.T) { synctest.Test(t, testHandedOver) }

func testHandedOver(t *testing.T) {
	g := newRig(t)
	g.person("anna", authz.Operator)
	a := g.ask("POST", "/sign-in", "", `{"workspace":"default","user":"anna","password":"`+goodPassword+`","cookie":true,"life_seconds":7200,"idle_seconds":1800}`)
	cookie, _, _ := strings.Cut(strings.TrimPrefix(a.header.Get("Set-Cookie"), "__Host-fairlead="), ";")
	verifier, challenge := pkce()
	give := func(body, origin string) answer {
		return g.ask("POST", "/account/hand-over", "", body, browser(cookie, origin))
	}
	g.refusal("from another site's page", give(handOverBody(challenge), "https://evil.example"), 403, "sign_in.cross_site")
	time.Sleep(time.Minute) // the bubble's clock
	var code client.HandOverCode
	given := give(`{"challenge":"`+challenge+`","life_seconds":86400,"idle_seconds":3600}`, "https://relay.example")
	must(t, json.Unmarshal([]byte(given.body), &code))
	if given.status != 200 || time.Until(code.ExpiresAt) > time.Minute || time.Until(code.ExpiresAt) < 58*time.Second {
		t.Fatalf("%d %s", given.status, given.body)
	}
	got := g.ask("POST", "/sign-in/hand-over", "", takeOverBody(code.Code, verifier), func(r *http.Request) { r.Header.Set("User-Agent", "fairlead/test") })
	var s client.SignedIn
	must(t, json.Unmarshal([]byte(got.body), &s))
	if got.status != 200 || !strings.HasPrefix(s.Session, "fls_") || s.User != "anna" || s.Workspace != "default" || got.header.Get("Set-Cookie") != "" {
		t.Fatalf("%d %v %s", got.status, got.header, got.body)
	}
	list := func(session string) (l client.List[client.Session]) {
		g.get("GET", "/account/sessions", session, "", &l)
		return l
	}
	l := list(s.Session).Items
	if len(l) != 3 || l[0].ID != s.ID || !l[0].Current || l[0].Agent != "fairlead/test" || l[0].Source == "" {
		t.Fatalf("%+v", l)
	}
	if l[0].EndsAt.Sub(l[0].CreatedAt) > 30*time.Minute {
		t.Errorf("idle for longer than its giver may: %v", l[0].EndsAt.Sub(l[0].CreatedAt))
	}
	if from := l[1].CreatedAt.Add(2 * time.Hour); s.ExpiresAt.After(from) {
		t.Errorf("it ends at %v, its giver at %v", s.ExpiresAt, from)
	}
	// It has no proof of its own: what its giver's was, and not a fresh one.
	time.Sleep(directory.DefaultStepUp - time.Minute)
	_, another := pkce()
	g.refusal("a proof grows older", g.ask("POST", "/account/hand-over", s.Session, handOverBody(another)), 403, "sign_in.step_up")
	g.refusal("without a fresh proof", give(handOverBody(challenge), "https://relay.example"), 403, "sign_in.step_up")

	g.get("DELETE", "/account/sessions/"+s.ID, g.signIn("anna", goodPassword, ""), "", nil)
	g.refusal("ended", g.ask("GET", "/whoami", s.Session, ""), 401, "")
	if a := g.ask("GET", "/account", "", "", browser(cookie, "")); a.status != 200 {
		t.Errorf("the giver ended with it: %d", a.status)
	}
	text := strings.Join(g.events(), "\n")
	for _, want := range []string{`"session.handed_over"`, `"handed over"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the record", want)
		}
	}
	for _, secret := range []string{code.Code[4:], verifier, s.Session[4:]} {
		if strings.Contains(text, secret) {
			t.Error("a secret is in the record")
		}
	}
}

// Each thing that does not fit ends the code, and all refusals are the same.
func TestHandedOverCodeIsRefused(t *testing.T) { synctest.Test(t, testHandedOverCodeIsRefused) }

func testHandedOverCodeIsRefused(t *testing.T) {
	g, elsewhere := newRig(t), newRig(t)
	g.person("anna", authz.Admin)
	take := func(code, verifier string, edit ...func(*http.Request)) answer {
		return g.ask("POST", "/sign-in/hand-over", "", takeOverBody(code, verifier), edit...)
	}
	disable := func(yes bool) {
		w, err := g.dir.Snapshot().Workspace("default")
		must(t, err)
		pr, _ := w.User("anna")
		must(t, g.dir.SetPrincipalDisabled(t.Context(), "default", pr.ID, yes))
	}
	shape := take("flh_"+strings.Repeat("A", 43), strings.Repeat("a", 43)).shape()
	for _, c := range []struct {
		what  string
		upset func(session, id string)
		edit  func(verifier string) (string, []func(*http.Request))
	}{
		{what: "a wrong verifier", edit: func(string) (string, []func(*http.Request)) { v, _ := pkce(); return v, nil }},
		{what: "the challenge for the verifier", edit: func(v string) (string, []func(*http.Request)) {
			s := sha256.Sum256([]byte(v))
			return base64.RawURLEncoding.EncodeToString(s[:]), nil
		}},
		{what: "an empty verifier", edit: func(string) (string, []func(*http.Request)) { return "", nil }},
		{what: "a code that has expired", upset: func(string, string) { time.Sleep(time.Minute) }},
		{what: "a session that was signed out of", upset: func(s, _ string) { g.get("POST", "/sign-out", s, "", nil) }},
		{what: "a session that has a new text", upset: func(s, _ string) { g.get("POST", "/account/confirm", s, `{"password":"`+goodPassword+`"}`, nil) }},
		{what: "a session that an admin ended", upset: func(_, id string) { must(t, g.dir.EndSession(t.Context(), "default", id, "")) }},
		{what: "an address off the list", edit: func(v string) (string, []func(*http.Request)) {
			return v, []func(*http.Request){func(r *http.Request) { r.RemoteAddr = "203.0.113.1:1" }}
		}},
		{what: "a user who was disabled", upset: func(string, string) {
			disable(true)
		}},
	} {
		disable(false)
		session := g.signIn("anna", goodPassword, "")
		var l client.List[client.Session]
		g.get("GET", "/account/sessions", session, "", &l)
		verifier, challenge := pkce()
		code := g.handOver(session, challenge)
		if c.upset != nil {
			for _, s := range l.Items { // several began in the same moment
				if s.Current {
					c.upset(session, s.ID)
				}
			}
		}
		var edit []func(*http.Request)
		sent := verifier
		if c.edit != nil {
			sent, edit = c.edit(verifier)
		}
		a := take(code, sent, edit...)
		g.refusal(c.what, a, 401, "")
		if a.shape() != shape {
			t.Errorf("%s tells itself apart: %s", c.what, a.body)
		}
		g.refusal(c.what+", and then right", take(code, verifier), 401, "")
	}
	disable(false)
	session := g.signIn("anna", goodPassword, "")
	verifier, challenge := pkce()
	code := g.handOver(session, challenge)
	g.get("POST", "/sign-in/hand-over", "", takeOverBody(code, verifier), nil)
	g.refusal("a code that was used", take(code, verifier), 401, "")
	g.refusal("another relay's code", elsewhere.ask("POST", "/sign-in/hand-over", "", takeOverBody(g.handOver(session, challenge), verifier)), 401, "")
	code = g.handOver(session, challenge)
	g.refusal("another site's page takes it", take(code, verifier, func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }), 403, "sign_in.cross_site")

	g.refusal("an API token hands nothing over", g.ask("POST", "/account/hand-over", g.token[authz.Admin], handOverBody(challenge)), 403, "")
	g.refusal("nobody hands anything over", g.ask("POST", "/account/hand-over", "", handOverBody(challenge)), 401, "")
	for _, bad := range []string{"", "x", challenge + "A", challenge[:42], challenge + "=", strings.Repeat("+", 43), strings.Repeat("_", 43)} {
		g.refusal("a challenge that is none: "+bad, g.ask("POST", "/account/hand-over", session, handOverBody(bad)), 400, "")
	}
	for _, bad := range []string{`"life_seconds":59`, `"idle_seconds":-1`} {
		g.refusal(bad, g.ask("POST", "/account/hand-over", session, `{"challenge":"`+challenge+`",`+bad+`}`), 400, "")
	}
	_, err := g.dir.CreateDomain(t.Context(), "other", "theirs.apps.example")
	must(t, err)
	g.refusal("under another workspace's name", take(g.handOver(session, challenge), verifier, func(r *http.Request) { r.Host, r.TLS = "theirs.apps.example", nil }), 403, "domain")
	text := strings.Join(g.events(), "\n")
	for _, want := range []string{"the verifier of a session that was handed over is wrong", "the code of a session that was handed over has expired", "the source address is not on the workspace's allowlist",
		"the relay was called by a domain of another workspace"} {
		if !strings.Contains(text, want) {
			t.Errorf("the record does not say: %s", want)
		}
	}
}

// Guessing codes is slowed down for a network, and holds nobody up who has one.
func TestGuessedHandOverCodesAreSlowedDown(t *testing.T) {
	g := newRig(t)
	session := g.person("anna", authz.Analyst)
	slowed := false
	for range 40 {
		a := g.ask("POST", "/sign-in/hand-over", "", takeOverBody("flh_"+rand.Text(), strings.Repeat("a", 43)))
		if a.status == http.StatusTooManyRequests && a.problem.RetryAfterMs > 0 {
			slowed = true
		} else if a.status != 401 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if !slowed {
		t.Error("40 guesses were taken")
	}
	verifier, challenge := pkce()
	g.get("POST", "/sign-in/hand-over", "", takeOverBody(g.handOver(session, challenge), verifier), nil)
}
