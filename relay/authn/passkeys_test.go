package authn_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/passkey"
	"github.com/fairleadhq/fairlead/relay/passkey/passkeytest"
	"github.com/fairleadhq/fairlead/relay/password"
)

const relayOrigin = "https://relay.example.com:8443"

// keyed is people with passkeys, and anna signed in.
func keyed(t *testing.T) *world {
	t.Helper()
	c := unhurried()
	var err error
	c.Passkeys, err = passkey.New(passkey.DefaultConfig("relay.example.com", []string{relayOrigin}))
	must(t, err)
	return people(t, c, func(d *directory.Config) { d.PasskeyID = "relay.example.com" })
}

func answer(t testing.TB, m map[string]any) []byte {
	t.Helper()
	b, err := json.Marshal(m)
	must(t, err)
	return b
}

// add gives a session's person a passkey, and the session's successor.
func (w *world) add(s *directory.Session, a *passkeytest.Authenticator, wrong passkeytest.Wrong) (*directory.Session, error) {
	w.t.Helper()
	id, opts, err := w.p.BeginAddPasskey(s)
	must(w.t, err)
	_, s, _, err = w.p.AddPasskey(w.t.Context(), s, id, "laptop", answer(w.t, a.Create(w.t, opts, wrong)))
	return s, err
}

// tap signs in by an authenticator's newest passkey.
func (w *world) tap(a *passkeytest.Authenticator, workspace string, from netip.Addr, wrong passkeytest.Wrong) (authn.Result, error) {
	w.t.Helper()
	id, opts, err := w.p.BeginPasskey(from)
	must(w.t, err)
	return w.p.SignInPasskey(w.t.Context(), authn.PasskeySignIn{Ceremony: id, Workspace: workspace, Answer: answer(w.t, a.Get(w.t, opts, wrong)), Source: from, Agent: "a browser"})
}

// confirm proves a session by a passkey.
func (w *world) confirm(s *directory.Session, a *passkeytest.Authenticator, wrong passkeytest.Wrong) (*directory.Session, string, error) {
	w.t.Helper()
	id, opts, err := w.p.BeginConfirm(s)
	must(w.t, err)
	res, err := w.p.ConfirmPasskey(w.t.Context(), s, home, id, answer(w.t, a.Get(w.t, opts, wrong)))
	return res.Session, res.Reason, err
}

// sameRefusal is that of a wrong password.
func (w *world) sameRefusal(what string, res authn.Result, err error, reason string) {
	w.t.Helper()
	var site [16]byte
	_, _ = rand.Read(site[:]) // each its own, or the delay is what refuses
	_, want := w.p.SignIn(w.t.Context(), authn.SignIn{Workspace: "nowhere", User: "anna", Source: netip.AddrFrom16(site)})
	var a, b *protocol.Error
	if !errors.As(err, &a) || !errors.As(want, &b) || a.Message != b.Message || a.Hint != b.Hint || a.Code != b.Code || a.Rule != b.Rule || res.Session != nil || !res.Text.IsZero() {
		w.t.Errorf("%s: %v, want %v", what, err, want)
	}
	if !strings.Contains(res.Reason, reason) {
		w.t.Errorf("%s: the record says %q, want %q", what, res.Reason, reason)
	}
}

func (w *world) policy(s directory.SignIn) {
	w.t.Helper()
	must(w.t, w.d.SetSignIn(w.t.Context(), "default", s))
}

func TestAPasskeyStandsForPasswordAndSecondFactor(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	first := w.in1("")
	elsewhere := w.in1("")
	s, err := w.add(first, a, passkeytest.Wrong{})
	must(t, err)
	if snap := w.d.Snapshot(); snap.Session(first.ID) != nil || snap.Session(elsewhere.ID) != nil || !s.ByPasskey || !s.Fresh(time.Now()) {
		t.Error("adding a passkey ends the other sessions, and gives this one a new text")
	}
	if string(a.Keys[0].Handle) != w.person().ID {
		t.Errorf("the authenticator keeps %q", a.Keys[0].Handle)
	}
	for _, workspace := range []string{"", "default"} {
		res, err := w.tap(a, workspace, home, passkeytest.Wrong{})
		must(t, err)
		if res.Principal.Name != "anna" || !res.Session.ByPasskey || res.Session.ByCode || !res.Session.Fresh(time.Now()) || res.Session.Needs(time.Now()) != "" || res.Text.IsZero() {
			t.Errorf("%+v", res.Session)
		}
	}
	keys := w.person().Passkeys
	if len(keys) != 1 || keys[0].LastUsed.IsZero() || keys[0].Label != "laptop" || !keys[0].Eligible || !keys[0].BackedUp {
		t.Errorf("%+v", keys[0])
	}
	w.policy(directory.SignIn{Policy: password.Policy{MaxAgeDays: 1}, SecondFactor: true})
	res, err := w.tap(a, "", home, passkeytest.Wrong{})
	must(t, err)
	if what := res.Session.Needs(time.Now().AddDate(0, 1, 0)); what != "" {
		t.Error("needs", what)
	}
	if !w.d.Knows(w.person(), home) {
		t.Error("the network is not known")
	}
}

func TestPasskeyAnswersWithOneThingWrongAreRefusedAlike(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	_, err := w.add(w.in1(""), a, passkeytest.Wrong{})
	must(t, err)
	n := 0
	from := func() netip.Addr { n++; return netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", n)) } // each its own, or the delay is what refuses
	for what, c := range map[string]struct {
		w      passkeytest.Wrong
		reason string
	}{
		"origin":        {passkeytest.Wrong{Origin: "https://evil.example.com"}, "origin"},
		"relying party": {passkeytest.Wrong{RP: "evil.example.com"}, ""},
		"no user":       {passkeytest.Wrong{Flags: passkeytest.UP}, ""},
		"unverified":    {passkeytest.Wrong{Flags: passkeytest.UV}, ""},
		"signature":     {passkeytest.Wrong{Signature: true}, ""},
		"handle":        {passkeytest.Wrong{Handle: []byte("per_somebody_else")}, ""},
		"unknown id":    {passkeytest.Wrong{ID: []byte("an id that nobody has")}, "not known"},
		"too long":      {passkeytest.Wrong{Data: func(b []byte) []byte { return append(b, make([]byte, 12<<10)...) }}, "too long"},
	} {
		res, err := w.tap(a, "default", from(), c.w)
		w.sameRefusal(what, res, err, c.reason)
		if res, err = w.tap(a, "", from(), c.w); err == nil {
			t.Errorf("%s: without a workspace, it is let in", what)
		}
		w.sameRefusal(what, res, err, c.reason)
	}
	res, err := w.tap(a, "nowhere", from(), passkeytest.Wrong{})
	w.sameRefusal("a workspace that is not there", res, err, "")
	if res, err := w.tap(a, "", home, passkeytest.Wrong{}); err != nil || res.Session == nil {
		t.Error("all of this kept the good one out:", err)
	}
}

func TestAPasskeyAnswerCountsOnce(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	_, err := w.add(w.in1(""), a, passkeytest.Wrong{})
	must(t, err)
	id, opts, err := w.p.BeginPasskey(home)
	must(t, err)
	in := authn.PasskeySignIn{Ceremony: id, Answer: answer(t, a.Get(t, opts, passkeytest.Wrong{})), Source: home}
	_, err = w.p.SignInPasskey(t.Context(), in)
	must(t, err)
	res, err := w.p.SignInPasskey(t.Context(), in)
	w.sameRefusal("again", res, err, "not open")
	other, _, err := w.p.BeginPasskey(home)
	must(t, err)
	in.Ceremony = other
	res, err = w.p.SignInPasskey(t.Context(), in)
	w.sameRefusal("in another ceremony", res, err, "")
	s := w.in1("")
	if id, opts, err = w.p.BeginConfirm(s); err != nil {
		t.Fatal(err)
	}
	in.Ceremony, in.Answer = id, answer(t, a.Get(t, opts, passkeytest.Wrong{}))
	res, err = w.p.SignInPasskey(t.Context(), in)
	w.sameRefusal("that of a confirmation", res, err, "not open")
}

func TestACounterThatGoesBackMarksThePasskey(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	_, err := w.add(w.in1(""), a, passkeytest.Wrong{Count: 5})
	must(t, err)
	_, err = w.tap(a, "", home, passkeytest.Wrong{Count: 9})
	must(t, err)
	res, err := w.tap(a, "", home, passkeytest.Wrong{Count: 9})
	w.sameRefusal("a copy", res, err, "went back")
	if res.Workspace == nil || res.Principal == nil {
		t.Error("nobody would find it in a log")
	}
	if w.person().Passkeys[0].Suspect.IsZero() || w.person().UsablePasskey() || !w.person().HoldsPasskey() {
		t.Error("the passkey is not marked")
	}
	res, err = w.tap(a, "", home, passkeytest.Wrong{Count: 100})
	w.sameRefusal("afterwards", res, err, "marked")
	if _, _, err := w.confirm(w.in1(""), a, passkeytest.Wrong{Count: 101}); code(err) != protocol.CodeDenied {
		t.Error("a marked one confirms:", err)
	}
	// A counter that goes back in a confirmation marks, too.
	w.invite("bert")
	res, err = w.try("bert", goodPassword, "", home)
	must(t, err)
	b := passkeytest.New(relayOrigin)
	s, err := w.add(res.Session, b, passkeytest.Wrong{Count: 5})
	must(t, err)
	if _, reason, err := w.confirm(s, b, passkeytest.Wrong{Count: 4}); code(err) != protocol.CodeDenied || !strings.Contains(reason, "went back") {
		t.Error(reason, err)
	}
	if _, p := w.d.Snapshot().Workspaces()[0].User("bert"); p.Passkeys[0].Suspect.IsZero() {
		t.Error("not marked")
	}
}

func TestAPasskeyIsOnePersonsOnly(t *testing.T) {
	w := keyed(t)
	a, b := passkeytest.New(relayOrigin), passkeytest.New(relayOrigin)
	s, err := w.add(w.in1(""), a, passkeytest.Wrong{})
	must(t, err)
	if _, err := w.add(s, passkeytest.New(relayOrigin), passkeytest.Wrong{ID: a.Keys[0].ID}); code(err) != protocol.CodeConflict {
		t.Error("twice:", err)
	}
	w.invite("bert")
	res, err := w.try("bert", goodPassword, "", home)
	must(t, err)
	if _, err := w.add(res.Session, b, passkeytest.Wrong{ID: a.Keys[0].ID}); code(err) != protocol.CodeConflict {
		t.Error("another's id:", err)
	}
	berts, err := w.add(res.Session, b, passkeytest.Wrong{})
	must(t, err)
	// Bert's passkey does not confirm anna's session, nor answer her ceremonies in his.
	id, opts, err := w.p.BeginConfirm(s)
	must(t, err)
	if _, err := w.p.ConfirmPasskey(t.Context(), s, home, id, answer(t, b.Get(t, opts, passkeytest.Wrong{}))); code(err) != protocol.CodeDenied {
		t.Error("another's passkey:", err)
	}
	id, opts, err = w.p.BeginConfirm(s)
	must(t, err)
	if _, err := w.p.ConfirmPasskey(t.Context(), berts, home, id, answer(t, a.Get(t, opts, passkeytest.Wrong{}))); code(err) != protocol.CodeDenied {
		t.Error("another session's ceremony:", err)
	}
	id, opts, err = w.p.BeginAddPasskey(s)
	must(t, err)
	if _, _, _, err := w.p.AddPasskey(t.Context(), berts, id, "x", answer(t, a.Create(t, opts, passkeytest.Wrong{}))); code(err) != protocol.CodeDenied {
		t.Error("another session's registration:", err)
	}
}

func TestAPasskeyOfWhoIsRemovedOrDisabledLetsNobodyIn(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	w.invite("bert")
	res, err := w.try("bert", goodPassword, "", home)
	must(t, err)
	_, err = w.add(res.Session, a, passkeytest.Wrong{})
	must(t, err)
	must(t, w.d.SetPrincipalDisabled(t.Context(), "default", res.Principal.ID, true))
	got, err := w.tap(a, "", home, passkeytest.Wrong{})
	w.sameRefusal("disabled", got, err, "disabled")
	must(t, w.d.SetPrincipalDisabled(t.Context(), "default", res.Principal.ID, false))
	got, err = w.tap(a, "", home, passkeytest.Wrong{})
	must(t, err)
	must(t, w.d.ResetSecondFactor(t.Context(), directory.By{ID: w.in.Principal}, "default", res.Principal.ID))
	if w.d.Snapshot().Session(got.Session.ID) != nil {
		t.Error("its session lives on")
	}
	got, err = w.tap(a, "", home, passkeytest.Wrong{})
	w.sameRefusal("taken away by an admin", got, err, "not known")
	res, err = w.try("bert", goodPassword, "", home)
	must(t, err)
	_, err = w.add(res.Session, a, passkeytest.Wrong{})
	must(t, err)
	must(t, w.d.RemoveUser(t.Context(), "default", res.Principal.ID))
	got, err = w.tap(a, "", netip.MustParseAddr("198.51.100.7"), passkeytest.Wrong{})
	w.sameRefusal("removed", got, err, "not known")
}

func TestAPasskeyOpensOnlyItsPersonsWorkspaces(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	_, err := w.add(w.in1(""), a, passkeytest.Wrong{})
	must(t, err)
	other, err := w.d.CreateWorkspace(t.Context(), "other")
	must(t, err)
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	must(t, w.d.SetAllowlist(t.Context(), "other", all, netip.Addr{}, true))
	res, err := w.tap(a, "other", home, passkeytest.Wrong{})
	w.sameRefusal("a workspace that is not the person's", res, err, "does not belong")
	tok, _, err := w.d.CreateAdminToken(t.Context(), "other", "theirs", time.Hour)
	must(t, err)
	_, _, err = w.d.CreateUser(t.Context(), directory.By{ID: tok.Principal.ID}, other.ID, directory.NewUser{Name: "anna2", Roles: []authz.Role{authz.Admin}, Person: w.person().ID})
	must(t, err)
	res, err = w.tap(a, "other", home, passkeytest.Wrong{})
	if err != nil || res.Principal.Name != "anna2" || res.Session.Workspace != other.ID {
		t.Error(err)
	}
	res, err = w.tap(a, "", home, passkeytest.Wrong{})
	if e := protocol.AsError(err); e == nil || e.Rule != authn.RuleWorkspace || res.Session != nil {
		t.Error("which of two:", err)
	}
	must(t, w.d.SetAllowlist(t.Context(), "other", []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, netip.Addr{}, true))
	res, err = w.tap(a, "other", home, passkeytest.Wrong{})
	w.sameRefusal("an address that is not on the list", res, err, "allowlist")
	must(t, w.d.SetAllowlist(t.Context(), "default", []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, netip.Addr{}, true))
	res, err = w.tap(a, "", home, passkeytest.Wrong{})
	w.sameRefusal("an address that no workspace admits", res, err, "allowlist")
}

func TestPasswordAloneIsNotEnoughForWhoHasAPasskey(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	_, err := w.add(w.in1(""), a, passkeytest.Wrong{})
	must(t, err)
	now := time.Now()
	s := w.in1("")
	if s.Needs(now) != "" || s.Fresh(now) {
		t.Error("where no factor is demanded, a password lets in, and is no proof:", s.Needs(now), s.Fresh(now))
	}
	if _, _, err := w.p.Confirm(t.Context(), s, home, secret.FromString(goodPassword), ""); protocol.AsError(err).Rule != authn.RulePasskey {
		t.Error("a password proves it again:", err)
	}
	w.policy(directory.SignIn{SecondFactor: true})
	s = w.in1("")
	if s.Needs(now) != directory.NeedsPasskey || s.Fresh(now) {
		t.Error("where one is demanded:", s.Needs(now), s.Fresh(now))
	}
	s, _, err = w.confirm(s, a, passkeytest.Wrong{})
	must(t, err)
	if s.Needs(now) != "" || !s.Fresh(time.Now()) {
		t.Error("after a confirmation:", s.Needs(now))
	}
	if _, _, err := w.confirm(w.in1(""), a, passkeytest.Wrong{Flags: passkeytest.UV}); code(err) != protocol.CodeDenied {
		t.Error("confirmed unverified:", err)
	}
}

func TestPasskeysRequiredAndOff(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	now := time.Now()
	w.policy(directory.SignIn{Passkeys: directory.PasskeysRequired})
	w.factor() // a code does not stand for it
	s := w.d.Snapshot().SessionsOf(w.person())[0]
	if s.Needs(now) != directory.NeedsPasskey || !s.Fresh(time.Now()) {
		t.Error("without a passkey:", s.Needs(now))
	}
	s, err := w.add(s, a, passkeytest.Wrong{})
	must(t, err)
	if s.Needs(now) != "" {
		t.Error("with the first passkey:", s.Needs(now))
	}
	if err := w.d.RemovePasskey(t.Context(), w.person(), w.person().Passkeys[0].ID, s.ID); code(err) != protocol.CodeConflict {
		t.Error("the last one can be removed:", err)
	}
	w.policy(directory.SignIn{Passkeys: directory.PasskeysOff, SecondFactor: true})
	res, err := w.tap(a, "", home, passkeytest.Wrong{})
	w.sameRefusal("off", res, err, "off")
	if _, _, err := w.p.BeginAddPasskey(w.d.Snapshot().Session(s.ID)); code(err) != protocol.CodeConflict {
		t.Error("one can be added:", err)
	}
	if err := w.d.RemoveSecondFactor(t.Context(), w.person(), ""); code(err) != protocol.CodeConflict {
		t.Error("a passkey stands for the factor where passkeys are off:", err)
	}
	w.policy(directory.SignIn{SecondFactor: true})
	must(t, w.d.RemoveSecondFactor(t.Context(), w.person(), ""))
	if err := w.d.RemovePasskey(t.Context(), w.person(), w.person().Passkeys[0].ID, ""); code(err) != protocol.CodeConflict {
		t.Error("the last factor can be removed:", err)
	}
	w.policy(directory.SignIn{})
	must(t, w.d.RemovePasskey(t.Context(), w.person(), w.person().Passkeys[0].ID, ""))
	if err := w.d.RemovePasskey(t.Context(), w.person(), "pky_gone", ""); code(err) != protocol.CodeNotFound {
		t.Error(err)
	}
}

func TestARelayWithoutPasskeysSaysSo(t *testing.T) {
	w := people(t, unhurried())
	s := w.in1("")
	_, _, begin := w.p.BeginPasskey(home)
	_, in := w.p.SignInPasskey(t.Context(), authn.PasskeySignIn{Source: home})
	_, _, add := w.p.BeginAddPasskey(s)
	_, _, _, added := w.p.AddPasskey(t.Context(), s, "", "", nil)
	_, _, confirm := w.p.BeginConfirm(s)
	_, confirmed := w.p.ConfirmPasskey(t.Context(), s, home, "", nil)
	for i, err := range []error{begin, in, add, added, confirm, confirmed, w.d.SetSignIn(t.Context(), "default", directory.SignIn{Passkeys: directory.PasskeysRequired})} {
		if e := protocol.AsError(err); e == nil || e.Code != protocol.CodeConflict || !strings.Contains(e.Hint, "sign_in.passkeys") {
			t.Error(i, err)
		}
	}
}

func TestPasskeyAttemptsAreSlowedDown(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	_, err := w.add(w.in1(""), a, passkeytest.Wrong{})
	must(t, err)
	from := netip.MustParseAddr("198.51.100.66")
	for i := range 5 {
		_, err := w.tap(a, "", from, passkeytest.Wrong{Signature: true})
		if slow := code(err) == protocol.CodeRateLimited; slow != (i > 3) {
			t.Error(i, err)
		}
	}
	if _, err := w.tap(a, "", from, passkeytest.Wrong{}); code(err) != protocol.CodeRateLimited {
		t.Error("the good one does not wait:", err)
	}
	if _, err := w.tap(a, "", home, passkeytest.Wrong{}); err != nil {
		t.Error("who is known here waits for another:", err)
	}
	s := w.d.Snapshot().SessionsOf(w.person())[0]
	for range 5 {
		_, _, err = w.confirm(s, a, passkeytest.Wrong{Signature: true})
	}
	if code(err) != protocol.CodeRateLimited {
		t.Error("confirmations are not slowed down:", err)
	}
	for i := range 60 { // of unknown passkeys, from one network
		_, err = w.p.SignInPasskey(t.Context(), authn.PasskeySignIn{Source: netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%x::1", i))})
	}
	if code(err) != protocol.CodeRateLimited {
		t.Error("a network that fails and fails goes on:", err)
	}
	if _, _, err := w.p.BeginPasskey(netip.MustParseAddr("2001:db8::1")); err != nil {
		t.Error("what others in the network did holds up who begins:", err)
	}
}

func TestNobodyHasMoreThanTenPasskeys(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	s := w.in1("")
	var err error
	for range directory.MaxPasskeys - 1 {
		s, err = w.add(s, a, passkeytest.Wrong{})
		must(t, err)
	}
	early, opts, err := w.p.BeginAddPasskey(s)
	must(t, err)
	last, lastOpts, err := w.p.BeginAddPasskey(s)
	must(t, err)
	made := answer(t, a.Create(t, lastOpts, passkeytest.Wrong{}))
	_, _, _, err = w.p.AddPasskey(t.Context(), s, last, " ", made)
	if code(err) != protocol.CodeInvalid {
		t.Error("without a label:", err)
	}
	if len(w.person().Passkeys) != directory.MaxPasskeys-1 {
		t.Error("one without a label is there")
	}
	_, s, _, err = w.p.AddPasskey(t.Context(), s, early, "the tenth", answer(t, a.Create(t, opts, passkeytest.Wrong{})))
	must(t, err)
	if _, _, err := w.p.BeginAddPasskey(s); code(err) != protocol.CodeConflict || len(w.person().Passkeys) != directory.MaxPasskeys {
		t.Error(err)
	}
}

// A session that was stolen is not made fresh by a password that was stolen, too.
func TestANewPasswordIsNoProofForWhoHasMore(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	s, err := w.add(w.in1(""), a, passkeytest.Wrong{})
	must(t, err)
	before := s.Confirmed
	s, _, err = w.p.ChangePassword(t.Context(), s, home, secret.FromString(goodPassword), secret.FromString("another kettle of fine fish"))
	must(t, err)
	if !s.Confirmed.Equal(before) || !s.ByPasskey {
		t.Error("the session was confirmed by a password:", before, s.Confirmed)
	}
	w.invite("bert")
	res, err := w.try("bert", goodPassword, "", home)
	must(t, err)
	n, _, err := w.p.ChangePassword(t.Context(), res.Session, home, secret.FromString(goodPassword), secret.FromString("another kettle of fine fish"))
	must(t, err)
	if !n.Confirmed.After(res.Session.Confirmed) {
		t.Error("who has nothing else proved it by the password")
	}
}
