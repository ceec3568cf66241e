package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/mail"
	"github.com/fairleadhq/fairlead/relay/mail/mailtest"
	"github.com/fairleadhq/fairlead/relay/passkey/passkeytest"
	"github.com/fairleadhq/fairlead/relay/totp"
)

// told waits for an event of a workspace's log that is as it shall be.
func (g *rig) told(workspace, what string, is func(audit.Event) bool) (found audit.Event) {
	g.t.Helper()
	eventually(g.t, "no event tells of "+what, func() bool {
		for _, text := range g.eventsOf(workspace) {
			var ev audit.Event
			must(g.t, json.Unmarshal([]byte(text), &ev))
			if is(ev) {
				found = ev
				return true
			}
		}
		return false
	})
	return found
}

// guest makes a person of the own workspace one of the other, too, and gives its name there.
func (g *rig) guest(session, name, role string) {
	g.t.Helper()
	var acc client.Account
	g.get("GET", "/account", session, "", &acc)
	g.get("POST", "/workspaces/other/users", g.foreign, `{"name":"`+name+`","roles":["`+role+`"],"person":"`+acc.Person+`"}`, nil)
}

// Which passkey it was, and what somebody proved itself by, stands in the record.
func TestRecordsTellWhichFactorItWas(t *testing.T) {
	g := newRig(t)
	session := g.person("anna", authz.Admin)
	by := func(kind audit.Kind, method, passkey string) {
		t.Helper()
		g.told("default", string(kind)+" by "+method, func(ev audit.Event) bool {
			return ev.Kind == kind && ev.Detail["method"] == method && ev.Detail["passkey"] == passkey && (ev.Status == "done" || kind == audit.KindRefused || kind == audit.KindDenied)
		})
	}
	g.get("POST", "/sign-in", "", signInBody("anna", goodPassword, ""), nil)
	by(audit.KindSignIn, "password", "")
	var confirmed client.SignedIn
	g.get("POST", "/account/confirm", session, `{"password":"`+goodPassword+`"}`, &confirmed)
	by(audit.KindConfirm, "password", "")
	s, recovery, session := g.enrol(confirmed.Session)
	by(audit.KindFactor, "totp", "")
	g.get("POST", "/sign-in", "", signInBody("anna", goodPassword, totp.Code(s, totp.StepAt(time.Now())+1)), nil)
	by(audit.KindSignIn, "password and totp", "")
	g.get("POST", "/sign-in", "", signInBody("anna", goodPassword, recovery[0]), nil)
	by(audit.KindSignIn, "password and recovery code", "")
	g.refusal("a wrong code", g.ask("POST", "/sign-in", "", signInBody("anna", goodPassword, recovery[0])), 401, "")
	by(audit.KindRefused, "password and recovery code", "")
	g.get("POST", "/account/confirm", session, `{"code":"`+recovery[1]+`"}`, &confirmed)
	by(audit.KindConfirm, "recovery code", "")
	var codes client.RecoveryCodes
	g.get("POST", "/account/recovery-codes", confirmed.Session, "", &codes)
	by(audit.KindFactor, "recovery codes", "")
	a, id, session := g.addPasskey(confirmed.Session)
	if ev := g.told("default", "the passkey that was added", func(ev audit.Event) bool { return ev.Kind == audit.KindFactor && ev.Detail["passkey"] == id }); ev.Status != "done" {
		t.Errorf("%+v", ev)
	}
	g.get("POST", "/sign-in/passkey", "", g.tap(a, "default", passkeytest.Wrong{}), nil)
	by(audit.KindSignIn, "passkey", id)
	g.refusal("a wrong signature", g.ask("POST", "/sign-in/passkey", "", g.tap(a, "default", passkeytest.Wrong{Signature: true})), 401, "")
	by(audit.KindRefused, "passkey", id)
	g.get("POST", "/account/confirm", session, g.confirmation(session, a, passkeytest.Wrong{}), &confirmed)
	by(audit.KindConfirm, "passkey", id)
	g.refusal("confirmed wrong", g.ask("POST", "/account/confirm", confirmed.Session, g.confirmation(confirmed.Session, a, passkeytest.Wrong{Signature: true})), 403, "sign_in.passkey")
	by(audit.KindDenied, "passkey", id)
	g.get("DELETE", "/account/passkeys/"+id, confirmed.Session, "", nil)
	g.told("default", "the passkey that was removed", func(ev audit.Event) bool {
		return ev.Kind == audit.KindFactor && ev.Detail["passkey"] == id && strings.HasPrefix(ev.Target, "DELETE") && ev.Status == "done"
	})
	_, id, _ = g.addPasskey(confirmed.Session)
	g.get("DELETE", "/workspaces/default/users/anna/second-factor", g.token[authz.Owner], "", nil)
	g.told("default", "what an admin took", func(ev audit.Event) bool {
		return ev.Kind == audit.KindChange && ev.Detail["passkey"] == id && ev.Detail["method"] == "totp"
	})
}

// The workspace that keeps a person's credentials is told of their changes, wherever the person made them, and not where that was.
func TestChangesOfCredentialsStandInTheLogOfTheirHome(t *testing.T) {
	g := newRig(t)
	g.guest(g.person("anna", authz.Analyst), "anna.s", "analyst")
	id, _ := g.snapUser("anna")
	var in client.SignedIn
	g.get("POST", "/sign-in", "", strings.Replace(signInBody("anna.s", goodPassword, ""), "default", "other", 1), &in)
	home := func(what string, is func(audit.Event) bool) {
		t.Helper()
		ev := g.told("default", what, func(ev audit.Event) bool {
			return ev.Principal == id && is(ev) && strings.Contains(ev.Reason, "another workspace")
		})
		if text := g.text(ev); strings.Contains(text, g.other.ID) || strings.Contains(text, "anna.s") || strings.Contains(text, in.ID) {
			t.Errorf("%s: home learns where: %s", what, text)
		}
	}
	const next = "another kettle battery fish"
	var changed client.SignedIn
	g.get("POST", "/account/password", in.Session, `{"password":"`+goodPassword+`","new_password":"`+next+`"}`, &changed)
	home("a new password", func(ev audit.Event) bool { return ev.Kind == audit.KindPassword })
	_, _, session := g.enrol(changed.Session)
	home("a second factor", func(ev audit.Event) bool {
		return ev.Kind == audit.KindFactor && strings.HasPrefix(ev.Target, "PUT") && ev.Detail["method"] == "totp"
	})
	a, key, session := g.addPasskey(session)
	home("a passkey", func(ev audit.Event) bool { return ev.Kind == audit.KindFactor && ev.Detail["passkey"] == key })
	g.refusal("what is refused", g.ask("DELETE", "/account/passkeys/gone", session, ""), 404, "")
	for _, text := range g.events() {
		if strings.Contains(text, "DELETE /account/passkeys") {
			t.Error("home is told of what was not done:", text)
		}
	}
	// Marked where it was shown to another workspace.
	g.get("POST", "/sign-in/passkey", "", g.tap(a, "other", passkeytest.Wrong{Count: 9}), nil)
	g.refusal("a counter that went back", g.ask("POST", "/sign-in/passkey", "", g.tap(a, "other", passkeytest.Wrong{Count: 3})), 401, "")
	home("a passkey that was marked", func(ev audit.Event) bool {
		return ev.Kind == audit.KindFactor && ev.Detail["passkey"] == key && strings.Contains(ev.Detail["state"], "marked")
	})
	// A one-time code that was used under the name of another workspace.
	code, _, err := g.dir.IssueCode(t.Context(), directory.By{ID: g.admin.ID}, "default", id, 0)
	must(t, err)
	g.get("POST", "/sign-in/first", "", `{"workspace":"other","user":"anna.s","code":"`+code.ExposeString()+`","password":"a third kettle battery fish"}`, nil)
	home("a password by a code", func(ev audit.Event) bool {
		return ev.Kind == audit.KindPassword && ev.Detail["method"] == "one-time code"
	})
}

// What is refused in the end leaves nothing in the logs of other workspaces, however often.
func TestARefusedRemovalLeavesNothingInOtherLogs(t *testing.T) {
	g := newRig(t)
	g.guest(g.person("anna", authz.Analyst), "anna.s", "operator")
	owner := g.token[authz.Owner]
	for range 3 {
		g.refusal("somebody was faster", g.ask("DELETE", "/workspaces/default/users/anna", owner, "", func(r *http.Request) { r.Header.Set("If-Match", `"old"`) }), 412, "if_match")
	}
	w, err := g.dir.Snapshot().Workspace("other")
	must(t, err)
	_, err = g.dir.CreateGrant(t.Context(), directory.By{ID: w.Tokens[0].Principal.ID}, "other", directory.NewGrant{Principal: "anna.s", Role: "admin"})
	must(t, err)
	for range 3 {
		g.refusal("an admin about the last one there for long", g.ask("DELETE", "/workspaces/default/users/anna", g.token[authz.Admin], ""), 409, "")
	}
	// The last who keeps the other workspace.
	must(t, g.dir.RevokeToken(t.Context(), "other", w.Tokens[0].ID))
	for range 3 {
		g.refusal("the last admin there", g.ask("DELETE", "/workspaces/default/users/anna", owner, ""), 409, "")
	}
	g.refusal("the workspace whose person is the last there", g.ask("DELETE", "/workspaces/default?confirm=default", owner, ""), 409, "")
	if text := strings.Join(g.eventsOf("other"), "\n"); strings.Contains(text, "home workspace removes") {
		t.Error("told of what was not done:", text)
	}
}

// A notice that was not sent stands in the record of what it would have told of.
func TestANoticeThatWasNotSentStandsInTheRecord(t *testing.T) {
	g, s, _ := mailRig(t, func(c *mail.Config) { c.PerRecipient = 1 })
	owner := g.token[authz.Owner]
	session := g.person("carla", authz.Admin)
	_, _, session = g.enrol(session)
	g.told("default", "a person without an address", func(ev audit.Event) bool {
		return ev.Kind == audit.KindFactor && ev.Detail["notice"] == "not sent: there is no address"
	})
	g.get("PUT", "/workspaces/default/users/carla/email", owner, `{"email":"carla@example.com"}`, nil)
	change := func(old, next string) {
		t.Helper()
		var in client.SignedIn
		g.get("POST", "/account/password", session, `{"password":"`+old+`","new_password":"`+next+`"}`, &in)
		session = in.Session
	}
	change(goodPassword, "another kettle battery fish")
	s.Next(t)
	change("another kettle battery fish", "a third kettle battery fish")
	g.told("default", "the second of an hour", func(ev audit.Event) bool {
		return ev.Kind == audit.KindPassword && strings.HasPrefix(ev.Detail["notice"], "not sent: ") && strings.Contains(ev.Detail["notice"], "last hour") && ev.Status == "done"
	})
	s.None(t)
}

// What cannot be told of, for the queue is full, is not done.
func TestNobodyIsActedUponUntoldWhileTheQueueIsFull(t *testing.T) {
	g, s, _ := mailRig(t, func(c *mail.Config) { c.Share, c.Least = 1, 0 })
	owner := g.token[authz.Owner]
	session := g.person("carla", authz.Admin)
	g.get("PUT", "/workspaces/default/users/carla/email", owner, `{"email":"carla@example.com"}`, nil)
	s.Set(mailtest.Faults{Hang: true})
	g.enrol(session) // of which the notice fills it
	before := len(g.events())
	g.refusal("an address", g.ask("PUT", "/workspaces/default/users/carla/email", owner, `{"email":"eve@example.com"}`), 503, "")
	g.refusal("a code that is shown", g.ask("POST", "/workspaces/default/users/carla/code", owner, `{"send":false}`), 503, "")
	g.refusal("a reset", g.ask("DELETE", "/workspaces/default/users/carla/second-factor", owner, ""), 503, "")
	w, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	if _, q := w.User("carla"); q.Email != "carla@example.com" || !q.InvitedUntil.IsZero() || q.SecondFactor.IsZero() || len(g.events()) == before {
		t.Errorf("%+v", q)
	}
	g.get("POST", "/workspaces/default/users/carla/disable", owner, "", nil)
}

// Who moves many people's addresses is stopped before the first of them is not told.
func TestNobodyIsMovedToAnotherAddressUntold(t *testing.T) {
	g, s, _ := mailRig(t, func(c *mail.Config) { c.PerWorkspace, c.PerRecipient = 3, 1 })
	owner := g.token[authz.Owner]
	g.person("victim", authz.Analyst)
	set := func(user, to string) answer {
		return g.ask("PUT", "/workspaces/default/users/"+user+"/email", owner, `{"email":"`+to+`"}`)
	}
	set("victim", "victim@example.com")
	for range 3 { // nothing is changed, and nothing counted
		set("victim", "victim@example.com")
	}
	for i := range 3 {
		user := fmt.Sprint("dummy", i)
		g.person(user, authz.Analyst)
		for _, to := range []string{"d", "e"} {
			if a := set(user, fmt.Sprintf("%s%d@example.com", to, i)); a.status != 200 {
				t.Fatal(a.body)
			}
		}
	}
	a := set("victim", "eve@example.com")
	g.refusal("a fourth who would not be told", a, 429, client.RuleMailLimit)
	if a.header.Get("Retry-After") == "" || g.personEmail("victim") != "victim@example.com" {
		t.Errorf("%v %s", a.header, g.personEmail("victim"))
	}
	for range 3 {
		s.Next(t)
	}
	// Codes that are shown are told of in the same way, and count apart.
	for i := range 4 {
		a := g.ask("POST", "/workspaces/default/users/victim/code", owner, `{"send":false}`)
		if want := map[bool]int{true: 201, false: 429}[i < 3]; a.status != want {
			t.Errorf("%d: %d %s", i, a.status, a.body)
		}
	}
	if m := s.Next(t); m.To[0] != "victim@example.com" {
		t.Error(m.To)
	}
	s.None(t) // one of a kind in an hour
}

func (g *rig) personEmail(name string) string {
	_, p := g.now().User(name)
	return p.Email
}

// Where a code would go to an address of who may not act for the user any more, it is not made.
func TestAResetGoesToNoAddressOfWhoMayNotActForTheUser(t *testing.T) {
	g, s, _ := mailRig(t, nil)
	owner := g.token[authz.Owner]
	g.person("anna", authz.Analyst)
	g.get("PUT", "/workspaces/default/users/anna/email", g.token[authz.Admin], `{"email":"anna@example.com"}`, nil)
	g.get("POST", "/workspaces/default/users/anna/code", owner, `{}`, nil)
	codeIn(t, s.Next(t))
	g.give(`{"role":"owner","principal":"anna"}`)
	a := g.ask("POST", "/workspaces/default/users/anna/code", owner, `{}`)
	g.refusal("set by an admin, who is below her now", a, 409, "")
	if a.problem.Code != protocol.CodeConflict || !strings.Contains(a.problem.Hint, "--no-send") {
		t.Error(a.body)
	}
	s.None(t)
	if _, p := g.now().User("anna"); time.Until(p.InvitedUntil) > directory.ResetLife {
		t.Error(p.InvitedUntil)
	}
	g.get("PUT", "/workspaces/default/users/anna/email", owner, `{"email":"anna@example.com"}`, nil)
	g.get("POST", "/workspaces/default/users/anna/code", owner, `{}`, nil)
	code := codeIn(t, s.Next(t)).Get("code")
	g.get("POST", "/sign-in/first", "", `{"workspace":"default","user":"anna","code":"`+code+`","password":"another kettle battery fish"}`, nil)
}
