package directory_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

func (r *rights) found(t *testing.T, text secret.Bytes) *directory.Token {
	t.Helper()
	tok, _, _ := r.d.Snapshot().FindToken(text.ExposeString())
	return tok
}

// A program has an account of its own, with as many tokens as it needs; nobody makes, changes or deletes one that holds more than
// they do.
func TestServiceAccounts(t *testing.T) {
	r, ctx := newRights(t), t.Context()
	s, err := r.d.CreateService(ctx, r.admin, "default", directory.NewService{Name: "nightly", Roles: []authz.Role{authz.Analyst, authz.Analyst}})
	must(t, err)
	if len(s.Grants) != 1 || s.Kind != authz.Service {
		t.Errorf("%+v", s)
	}
	_, err = r.d.CreateService(ctx, r.admin, "default", directory.NewService{Name: "nightly"})
	want(t, err, protocol.CodeConflict)
	for _, n := range []directory.NewService{{Name: ""}, {Name: "a\nb"}, {Name: "usr_aaaaaaaaaaaaaaaaaaaaaaaaaa"}, {Name: "x", Roles: []authz.Role{"root"}}} {
		_, err := r.d.CreateService(ctx, r.admin, "default", n)
		want(t, err, protocol.CodeInvalid)
	}
	_, err = r.d.CreateService(ctx, r.admin, "default", directory.NewService{Name: "boss", Roles: []authz.Role{authz.Owner}})
	want(t, err, protocol.CodeDenied)
	boss, err := r.d.CreateService(ctx, r.owner, "default", directory.NewService{Name: "boss", Roles: []authz.Role{authz.Owner}})
	must(t, err)
	want(t, r.d.SetServiceDisabled(ctx, r.admin, "default", "boss", true), protocol.CodeDenied)
	want(t, r.d.DeleteService(ctx, r.admin, "default", "boss"), protocol.CodeDenied)
	asAdmin := r.workspace(t).Principal(r.admin.ID).Principal
	_, _, err = r.d.CreateToken(ctx, asAdmin, "default", directory.NewToken{Name: "t", Principal: boss.ID})
	want(t, err, protocol.CodeDenied)
	want(t, r.d.DeleteService(ctx, r.owner, "default", "admin"), protocol.CodeNotFound) // no service account
	want(t, r.d.DeleteService(ctx, r.owner, "default", "gone"), protocol.CodeNotFound)
	must(t, r.d.DeleteService(ctx, r.owner, "default", "boss"))

	one, first, err := r.d.CreateToken(ctx, asAdmin, "default", directory.NewToken{Name: "one", Principal: "nightly"})
	must(t, err)
	_, second, err := r.d.CreateToken(ctx, asAdmin, "default", directory.NewToken{Name: "two", Principal: s.ID})
	must(t, err)
	_, _, err = r.d.CreateToken(ctx, asAdmin, "default", directory.NewToken{Name: "three", Principal: "nightly", Roles: []authz.Role{authz.Analyst}})
	want(t, err, protocol.CodeInvalid)
	must(t, r.d.RevokeToken(ctx, "default", one.ID))
	if r.found(t, first).Live(time.Now()) || !r.found(t, second).Live(time.Now()) || len(r.workspace(t).TokensOf(s.ID)) != 1 {
		t.Error("one token of two was revoked")
	}
	must(t, r.d.SetServiceDisabled(ctx, r.admin, "default", "nightly", true))
	if r.found(t, second).Live(time.Now()) {
		t.Error("a disabled account's token is live")
	}
	must(t, r.d.SetServiceDisabled(ctx, r.admin, "default", "nightly", false))
	must(t, r.d.DeleteService(ctx, r.admin, "default", "nightly"))
	if r.found(t, second) != nil {
		t.Error("F17 the token outlives its account")
	}
}

// A token that is limited does less than its principal, at once and after a restart, and passes on no more.
func TestTokensAreLimited(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	ctx := t.Context()
	con, err := d.CreateConnection(ctx, "default", "default", profile("orders"))
	must(t, err)
	other, err := d.CreateConnection(ctx, "default", "default", profile("wages"))
	must(t, err)
	owner := workspace(t, d, "default").Principal(in.Principal).Principal
	for name, o := range map[string]directory.Only{
		"an action that is none": {Actions: []authz.Action{"connection.fly"}}, "an environment that is none": {Environments: []authz.Environment{"staging"}},
		"host bits": {From: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}, "no prefix": {From: []netip.Prefix{{}}},
	} {
		_, _, err := d.CreateToken(ctx, owner, "default", directory.NewToken{Name: "x", Principal: in.Principal, Only: o})
		t.Run(name, func(t *testing.T) { want(t, err, protocol.CodeInvalid) })
	}
	_, _, err = d.CreateToken(ctx, owner, "default", directory.NewToken{Name: "x", Principal: in.Principal, Only: directory.Only{Connections: []string{"gone"}}})
	want(t, err, protocol.CodeNotFound)
	_, _, err = d.CreateToken(ctx, owner, "default", directory.NewToken{Name: "x", Principal: in.Principal, Only: directory.Only{Connections: make([]string, directory.MaxOnly+1)}})
	want(t, err, protocol.CodeTooLarge)
	only := directory.Only{Actions: []authz.Action{authz.Query, authz.TokensManage, authz.GrantsManage}, Connections: []string{"orders"}, From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	tok, text, err := d.CreateToken(ctx, owner, "default", directory.NewToken{Name: "narrow", Principal: in.Principal, Only: only})
	must(t, err)
	check := func(d *directory.Directory) {
		t.Helper()
		now, _, ok := d.Snapshot().FindToken(text.ExposeString())
		if !ok || len(now.Only().Actions) != 3 || now.Only().Connections[0] != con.ID {
			t.Fatalf("%+v", now)
		}
		p, at := now.Acting(), authz.At{Time: time.Now(), Source: netip.MustParseAddr("192.0.2.9")}
		away := authz.At{Time: at.Time, Source: netip.MustParseAddr("198.51.100.9")}
		if p.Token != tok.ID || !authz.Decide(p, authz.Query, con.Scope(), at).Allow || authz.Decide(p, authz.Query, con.Scope(), away).Allow ||
			authz.Decide(p, authz.Query, other.Scope(), at).Allow || authz.Decide(p, authz.Exec, con.Scope(), at).Allow || authz.Decide(p, authz.TokensManage, authz.Scope{Workspace: in.Workspace}, at).Allow {
			t.Error("the limits do not hold")
		}
	}
	check(d)
	// It passes on nothing that it does not have itself.
	by := directory.By{ID: in.Principal, Token: tok.ID, At: authz.At{Time: time.Now(), Source: netip.MustParseAddr("192.0.2.9")}}
	_, err = d.CreateGrant(ctx, by, "default", directory.NewGrant{Principal: in.Principal, Role: "analyst"})
	want(t, err, protocol.CodeDenied)
	_, err = d.CreateService(ctx, by, "default", directory.NewService{Name: "more", Roles: []authz.Role{authz.Analyst}})
	want(t, err, protocol.CodeDenied)
	_, _, err = d.CreateToken(ctx, tok.Acting(), "default", directory.NewToken{Name: "more", Roles: []authz.Role{authz.Analyst}, At: by.At})
	want(t, err, protocol.CodeDenied)
	_, _, err = d.CreateUser(ctx, by, "default", directory.NewUser{Name: "more", Roles: []authz.Role{authz.Analyst}})
	want(t, err, protocol.CodeDenied)
	_, err = d.CreateGrant(ctx, directory.By{ID: in.Principal, Token: "tok_gone"}, "default", directory.NewGrant{Principal: in.Principal, Role: "analyst"})
	want(t, err, protocol.CodeDenied)
	// Nor when it is revoked while its request is under way.
	spent, _, err := d.CreateToken(ctx, owner, "default", directory.NewToken{Name: "spent", Principal: in.Principal})
	must(t, err)
	must(t, d.RevokeToken(ctx, "default", spent.ID))
	_, err = d.CreateGrant(ctx, directory.By{ID: in.Principal, Token: spent.ID, At: by.At}, "default", directory.NewGrant{Principal: in.Principal, Role: "analyst"})
	want(t, err, protocol.CodeDenied)
	// Nor does a workspace rest on it.
	want(t, d.RevokeToken(ctx, "default", in.TokenID), protocol.CodeConflict)
	// With its connection the limit does not go.
	must(t, d.Close())
	d = reopen(t, c)
	check(d)
	must(t, d.DeleteConnection(ctx, "default", "orders"))
	now, _, _ := d.Snapshot().FindToken(text.ExposeString())
	if authz.Decide(now.Acting(), authz.Query, other.Scope(), by.At).Allow || authz.Decide(now.Acting(), authz.Query, authz.Scope{Workspace: in.Workspace}, by.At).Allow {
		t.Error("the limit went with its connection")
	}
}

// The time and the address of the last use outlive a restart, and stand nowhere in the clear.
func TestLastUseIsKeptSealed(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	tok, _, _ := d.Snapshot().FindToken(in.Token.ExposeString())
	at, from := time.Now(), netip.MustParseAddr("203.0.113.77")
	tok.Used(at, from)
	tok.Used(at.Add(time.Millisecond), netip.MustParseAddr("203.0.113.78")) // within the second: not noted
	must(t, d.Close())
	scan(t, dir, map[string][]byte{"address": []byte("203.0.113.77")})
	d = reopen(t, c)
	tok, _, _ = d.Snapshot().FindToken(in.Token.ExposeString())
	if tok.LastSource() != from || !tok.LastUsed().Equal(at.Truncate(time.Millisecond).UTC()) {
		t.Errorf("%s %s", tok.LastSource(), tok.LastUsed())
	}
}

// F8, F17: people's own tokens go by the workspace's policy, at once, and never outlive their right to sign in.
func TestPersonalTokens(t *testing.T) {
	t.Run("F8 F17 a person's tokens go with what is demanded of the person", testPersonalTokens)
}

func testPersonalTokens(t *testing.T) {
	d, _ := start(t)
	ctx := t.Context()
	_, s, _ := person(t, d, "anna")
	by := directory.By{ID: s.Principal.ID, Token: s.ID}
	make1 := func(n directory.NewToken) (secret.Bytes, error) {
		_, text, err := d.CreatePersonalToken(ctx, by, "default", n)
		return text, err
	}
	_, err := make1(directory.NewToken{Name: "laptop"})
	want(t, err, protocol.CodeDenied) // none where the policy names none
	must(t, d.SetSignIn(ctx, "default", directory.SignIn{PersonalTokens: 24 * time.Hour}))
	_, err = make1(directory.NewToken{Name: "laptop", Life: 25 * time.Hour})
	want(t, err, protocol.CodeDenied)
	for _, n := range []directory.NewToken{{Name: "x", Principal: "admin"}, {Name: "x", Roles: []authz.Role{authz.Analyst}}, {Name: "x", Connections: []string{"c"}}} {
		_, err = make1(n)
		want(t, err, protocol.CodeInvalid)
	}
	text, err := make1(directory.NewToken{Name: "laptop"})
	must(t, err)
	live := func() bool {
		tok, _, ok := d.Snapshot().FindToken(text.ExposeString())
		return ok && tok.Live(time.Now())
	}
	tok, _, _ := d.Snapshot().FindToken(text.ExposeString())
	if !live() || !tok.Personal() || tok.Expires.Sub(tok.Created) != 24*time.Hour || tok.Live(time.Now().Add(25*time.Hour)) {
		t.Errorf("%+v", tok)
	}
	for name, p := range map[string]directory.SignIn{"the policy admits none": {}, "the policy demands a second factor": {PersonalTokens: 24 * time.Hour, SecondFactor: true}} {
		must(t, d.SetSignIn(ctx, "default", p))
		if live() {
			t.Errorf("it is live though %s", name)
		}
	}
	must(t, d.SetSignIn(ctx, "default", directory.SignIn{PersonalTokens: 24 * time.Hour}))
	must(t, d.SetPrincipalDisabled(ctx, "default", s.Principal.ID, true))
	if live() {
		t.Error("F17 it is live though she is disabled")
	}
	_, err = make1(directory.NewToken{Name: "another"})
	want(t, err, protocol.CodeDenied)
	must(t, d.SetPrincipalDisabled(ctx, "default", s.Principal.ID, false))
	if !live() {
		t.Error("it is not live again")
	}
	_, other, _ := person(t, d, "bert")
	want(t, d.RevokePersonalToken(ctx, directory.By{ID: other.Principal.ID}, "default", tok.ID), protocol.CodeNotFound)
	must(t, d.RevokePersonalToken(ctx, by, "default", tok.ID))
	if live() {
		t.Error("it is live though she revoked it")
	}
	// An admin makes none for a person.
	admin, _ := workspace(t, d, "default").FindPrincipal("admin")
	_, _, err = d.CreateToken(ctx, admin.Principal, "default", directory.NewToken{Name: "forged", Principal: "anna"})
	want(t, err, protocol.CodeDenied)
	for range directory.MaxPersonal {
		must(t, func() error { _, err := make1(directory.NewToken{Name: "many"}); return err }())
	}
	_, err = make1(directory.NewToken{Name: "one more"})
	want(t, err, protocol.CodeTooLarge)
}
