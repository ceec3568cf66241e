package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/totp"
)

const goodPassword = "correct kettle battery fish"

// invite makes a user and gives the one-time code.
func (g *rig) invite(name string, roles ...authz.Role) string {
	g.t.Helper()
	_, code, err := g.dir.CreateUser(context.Background(), directory.By{ID: g.admin.ID}, "default", directory.NewUser{Name: name, Roles: roles})
	must(g.t, err)
	return code.ExposeString()
}

// person makes a user with goodPassword, and signs it in.
func (g *rig) person(name string, roles ...authz.Role) (session string) {
	g.t.Helper()
	from := netip.MustParseAddrPort(inside).Addr()
	_, err := g.people.SetFirst(context.Background(), "default", name, g.invite(name, roles...), secret.FromString(goodPassword), from, func(authn.Result) error { return nil })
	must(g.t, err)
	return g.signIn(name, goodPassword, "")
}

func (g *rig) signIn(name, password, code string) (session string) {
	g.t.Helper()
	res, err := g.people.SignIn(context.Background(), authn.SignIn{Workspace: "default", User: name, Password: secret.FromString(password), Code: code, Source: netip.MustParseAddrPort(inside).Addr()})
	must(g.t, err)
	return res.Text.ExposeString()
}

// enrol gives the person of a session a second factor, through the API, and gives the session's new text.
func (g *rig) enrol(session string) (s secret.Bytes, recovery []string, renewed string) {
	g.t.Helper()
	var n client.NewSecondFactor
	g.get("POST", "/account/second-factor", session, "", &n)
	s = secretOf(g.t, n.Secret)
	var rc client.RecoveryCodes
	g.get("PUT", "/account/second-factor", session, `{"code":"`+totp.Code(s, totp.StepAt(time.Now()))+`"}`, &rc)
	return s, rc.Codes, rc.Session.Session
}

// get asks for what must be given.
func (g *rig) get(method, path, session, body string, v any) {
	g.t.Helper()
	a := g.ask(method, path, session, body)
	if a.status >= 300 {
		g.t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	if v != nil {
		must(g.t, json.Unmarshal([]byte(a.body), v))
	}
}

// refusal holds an answer to what must be refused, as a subtest of its name.
func (g *rig) refusal(what string, a answer, status int, rule string) {
	g.t.Helper()
	hold := func(t testing.TB) {
		t.Helper()
		if a.status != status || a.problem.Rule != rule {
			t.Errorf("%s: %d %s, want %d by rule %q", what, a.status, a.body, status, rule)
		}
	}
	// A bubble has no subtests; its clock begins in the year 2000.
	if t, ok := g.t.(*testing.T); ok && time.Now().Year() > 2000 {
		t.Run(what, func(t *testing.T) { hold(t) })
		return
	}
	hold(g.t)
}

// events are all that stands in the own workspace's log.
func (g *rig) events() (texts []string) {
	g.t.Helper()
	return g.eventsOf("default")
}

func (g *rig) eventsOf(workspace string) (texts []string) {
	g.t.Helper()
	w, err := g.dir.Snapshot().Workspace(workspace)
	must(g.t, err)
	log, err := g.logs.Get(w.ID)
	must(g.t, err)
	recs, err := log.Read(0, 10_000)
	must(g.t, err)
	for _, rec := range recs {
		plain, err := audit.Unseal(rec.Body, g.dir.OpenEvent)
		must(g.t, err)
		texts = append(texts, string(plain))
	}
	return texts
}

func browser(session, origin string) func(*http.Request) {
	return func(r *http.Request) {
		r.AddCookie(&http.Cookie{Name: "__Host-fairlead", Value: session})
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
	}
}

func secretOf(t testing.TB, text string) secret.Bytes {
	t.Helper()
	b, err := base32NoPad.DecodeString(text)
	must(t, err)
	return secret.New(b)
}
