package directory_test

import (
	"bytes"
	"database/sql"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/totp"
)

const aPassword = "Canary-password-7f3a91Zq and more"

// person makes a user of the workspace "default" with aPassword, and a session of it.
func person(t *testing.T, d *directory.Directory, name string) (*directory.Person, *directory.Session, string) {
	t.Helper()
	w, err := d.Snapshot().Workspace("default")
	must(t, err)
	var admin authz.Principal
	for _, p := range w.Principals {
		if p.Name == "admin" {
			admin = p.Principal
		}
	}
	pr, code, err := d.CreateUser(t.Context(), directory.By{ID: admin.ID}, "default", directory.NewUser{Name: name, Roles: []authz.Role{authz.Admin}})
	must(t, err)
	get := func() *directory.Person {
		w, err := d.Snapshot().Workspace("default")
		must(t, err)
		return w.PersonOf(pr.ID)
	}
	v, err := d.NewPasswordVerifier(aPassword)
	must(t, err)
	must(t, d.TakeCode(t.Context(), get(), code.ExposeString(), v))
	s, text, err := d.BeginSession(t.Context(), "default", directory.NewSession{Principal: pr.ID, Verifier: v, Source: netip.MustParseAddr("203.0.113.66"), Agent: "Canary-agent-7f3a91Zq"})
	must(t, err)
	return get(), s, text.ExposeString()
}

// P7, P22: nothing of what people sign in with, or from where, stands in the database as it is.
func TestCredentialsAreSealed(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	p, s, text := person(t, d, "canary-user-7f3a91zq")
	factor, err := d.BeginSecondFactor(t.Context(), p)
	must(t, err)
	codes, err := d.ProveSecondFactor(t.Context(), p, totp.Code(factor, totp.StepAt(time.Now())), s.ID)
	must(t, err)
	w, err := d.Snapshot().Workspace("default")
	must(t, err)
	pr, _ := w.User("canary-user-7f3a91zq")
	one, _, err := d.IssueCode(t.Context(), directory.By{ID: pr.ID}, "default", pr.ID, 0)
	must(t, err)
	canaries := map[string][]byte{"user name": []byte("canary-user-7f3a91zq"), "password": []byte("Canary-password-7f3a91Zq"), "session": []byte(text)[4:], "secret": bytes.Clone(factor.Expose()),
		"recovery code": codes[3].Expose(), "one-time code": one.Expose()[4:], "source": []byte("203.0.113.66"), "agent": []byte("Canary-agent-7f3a91Zq")}
	scan(t, dir, canaries)
	must(t, d.Close())
	scan(t, dir, canaries)
}

// Whoever can write to the database but holds no key becomes nobody by it.
func TestPeopleChangedByHandAreRefused(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	anna, annas, _ := person(t, d, "anna")
	_, berts, _ := person(t, d, "bert")
	must(t, d.SetSignIn(t.Context(), "default", directory.SignIn{SecondFactor: true}))
	must(t, d.Close())
	pristine, err := os.ReadFile(filepath.Join(dir, store.File))
	must(t, err)
	for name, q := range map[string]string{
		"another's credentials":     `UPDATE people SET sealed = (SELECT sealed FROM people WHERE id = '` + anna.ID + `')`,
		"an older version":          `UPDATE people SET version = version + 1`,
		"another's user":            `UPDATE users SET person = 'x' WHERE 0; UPDATE users SET tag = (SELECT tag FROM users o WHERE o.principal <> users.principal)`,
		"a user made":               `DELETE FROM sessions; DELETE FROM users WHERE person = '` + anna.ID + `'; UPDATE users SET person = '` + anna.ID + `'`,
		"a session prolonged":       `UPDATE sessions SET expires = expires + 1`,
		"a session made younger":    `UPDATE sessions SET created = created + 1`,
		"a session given away":      `UPDATE sessions SET principal = '` + berts.Principal.ID + `' WHERE id = '` + annas.ID + `'`,
		"a session's digest":        `UPDATE sessions SET digest = randomblob(32)`,
		"another's session's seal":  `UPDATE sessions SET sealed = (SELECT sealed FROM sessions o WHERE o.id <> sessions.id)`,
		"the policy's version":      `UPDATE sign_in_policies SET version = 9`,
		"the policy of another row": `UPDATE sign_in_policies SET sealed = (SELECT sealed FROM people LIMIT 1)`,
	} {
		t.Run(name, func(t *testing.T) { refusedState(t, c, pristine, q) })
	}
}

func TestPeopleAndSessionsSurviveARestart(t *testing.T) {
	c := directory.DefaultConfig(t.TempDir())
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	p, s, text := person(t, d, "anna")
	used := time.Now().Add(10 * time.Minute)
	s.Used(used)
	must(t, d.Close())
	d = reopen(t, c)
	got, ok := d.Snapshot().FindSession(text)
	if !ok || got.ID != s.ID || !got.Expires.Equal(s.Expires) || got.Source != "203.0.113.66" || got.LastUsed().UnixMilli() != used.UnixMilli() || !got.Live(time.Now()) || !got.Fresh(time.Now()) {
		t.Fatalf("%+v", got)
	}
	if !d.Knows(got.Person, netip.MustParseAddr("203.0.113.66")) || d.Knows(got.Person, netip.MustParseAddr("203.0.113.67")) || d.Knows(nil, netip.MustParseAddr("203.0.113.66")) || d.Knows(got.Person, netip.Addr{}) {
		t.Error("where the person signed in from is not known, or too much is")
	}
	if ok, _, _ := d.VerifyPassword(got.Person, aPassword); !ok || got.Person.ID != p.ID {
		t.Error("the password does not verify")
	}
	if list := d.Snapshot().SessionsOf(got.Person); len(list) != 1 {
		t.Error(list)
	}
	// A password that was changed between the look at it and the act counts no more.
	_, _, err = d.BeginSession(t.Context(), "default", directory.NewSession{Principal: s.Principal.ID, Verifier: "another", Source: netip.MustParseAddr("203.0.113.66")})
	if !errors.Is(err, directory.ErrCode) {
		t.Error("a session by a password that was changed:", err)
	}
	if _, _, err = d.ConfirmSession(t.Context(), got, "another", ""); !errors.Is(err, directory.ErrCode) || d.Snapshot().Session(s.ID) == nil {
		t.Error("a proof by a password that was changed:", err)
	}
	want(t, d.SetPassword(t.Context(), p, "another", "new", ""), protocol.CodeConflict)
	want(t, d.EndSession(t.Context(), "default", s.ID, "per_other"), protocol.CodeNotFound)
	want(t, d.EndSession(t.Context(), "gone", s.ID, ""), protocol.CodeNotFound)
	must(t, d.EndSession(t.Context(), "default", s.ID, p.ID))
	want(t, d.EndSession(t.Context(), "default", s.ID, ""), protocol.CodeNotFound)
	if _, ok := d.Snapshot().FindSession(text); ok {
		t.Error("an ended session is found")
	}
}

// J13: with a workspace its people go, and all that they had; with a user what it had there.
func TestNothingIsLeftOfWhoIsRemoved(t *testing.T) {
	t.Run("J13 no row is left", testNothingIsLeftOfWhoIsRemoved)
}

func testNothingIsLeftOfWhoIsRemoved(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	person(t, d, "anna")
	_, bs, text := person(t, d, "bert")
	count := func(table string) (n int) {
		t.Helper()
		db, err := sql.Open("sqlite", filepath.Join(dir, store.File))
		must(t, err)
		defer db.Close()
		must(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
		return n
	}
	must(t, d.RemoveUser(t.Context(), "default", bs.Principal.ID))
	want(t, d.RemoveUser(t.Context(), "default", bs.Principal.ID), protocol.CodeNotFound)
	if _, ok := d.Snapshot().FindSession(text); ok || count("people") != 1 || count("sessions") != 1 || count("users") != 1 {
		t.Errorf("%d people, %d sessions, %d users are left", count("people"), count("sessions"), count("users"))
	}
	must(t, d.SetSignIn(t.Context(), "default", directory.SignIn{SecondFactor: true}))
	must(t, d.DeleteWorkspace(t.Context(), "default"))
	for _, table := range []string{"people", "users", "sessions", "sign_in_policies", "principals"} {
		if n := count(table); n != 0 {
			t.Errorf("J13 %d rows are left in %s", n, table)
		}
	}
	must(t, d.Close())
}

func TestUserNamesAndPoliciesAreChecked(t *testing.T) {
	c := directory.DefaultConfig(t.TempDir())
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d := reopen(t, c)
	admin := d.Snapshot().Workspaces()[0].Principal(in.Principal).Principal
	for _, name := range []string{"", " ", "an na", "änna", "-anna", "anna\x00", "аnna" /* Cyrillic */, "usr_aaaaaaaaaaaaaaaaaaaaaaaaaa", string(bytes.Repeat([]byte("a"), 200))} {
		_, _, err := d.CreateUser(t.Context(), directory.By{ID: admin.ID}, "default", directory.NewUser{Name: name, Roles: []authz.Role{authz.Analyst}})
		want(t, err, protocol.CodeInvalid)
	}
	_, _, err = d.CreateUser(t.Context(), directory.By{ID: admin.ID}, "default", directory.NewUser{Name: "x", Roles: []authz.Role{"root"}})
	want(t, err, protocol.CodeInvalid)
	for _, life := range []time.Duration{time.Second, -1, 15 * 24 * time.Hour} {
		_, _, err = d.CreateUser(t.Context(), directory.By{ID: admin.ID}, "default", directory.NewUser{Name: "x", Roles: []authz.Role{authz.Analyst}, Life: life})
		want(t, err, protocol.CodeInvalid)
	}
	for _, s := range []directory.SignIn{{Idle: time.Second}, {Idle: 31 * 24 * time.Hour}, {Absolute: time.Minute}, {Absolute: 91 * 24 * time.Hour}, {StepUp: time.Second}, {StepUp: 2 * time.Hour}, {Idle: -time.Hour}} {
		want(t, d.SetSignIn(t.Context(), "default", s), protocol.CodeInvalid)
	}
	want(t, d.SetSignIn(t.Context(), "gone", directory.SignIn{}), protocol.CodeNotFound)
	p, s, _ := person(t, d, "anna")
	for _, n := range []directory.NewSession{{Life: time.Second}, {Idle: time.Second}, {Life: -1}} {
		n.Principal = s.Principal.ID
		_, _, err := d.BeginSession(t.Context(), "default", n)
		want(t, err, protocol.CodeInvalid)
	}
	// The oldest of too many sessions gives way.
	v, err := d.NewPasswordVerifier(aPassword)
	must(t, err)
	_, _, was := d.VerifyPassword(p, aPassword)
	must(t, d.SetPassword(t.Context(), p, was, v, s.ID))
	for range 20 {
		_, _, err := d.BeginSession(t.Context(), "default", directory.NewSession{Principal: s.Principal.ID, Verifier: v, Source: netip.MustParseAddr("203.0.113.66")})
		must(t, err)
	}
	if d.Snapshot().Session(s.ID) != nil || len(d.Snapshot().SessionsOf(p)) != 20 {
		t.Errorf("%d sessions", len(d.Snapshot().SessionsOf(p)))
	}
}

// Who shortens how long a sign-in lasts ends what was handed on from it, too.
func TestHandedOverSessionIsAsOldAsItsSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := directory.DefaultConfig(t.TempDir())
		_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
		must(t, err)
		d, err := directory.Open(t.Context(), c)
		must(t, err)
		defer d.Close()
		must(t, d.SetSignIn(t.Context(), "default", directory.SignIn{Idle: 2 * time.Hour, Absolute: 24 * time.Hour}))
		_, s, _ := person(t, d, "anna")
		source := netip.MustParseAddr("203.0.113.66")
		time.Sleep(90 * time.Minute)
		first, _, err := d.HandOverSession(t.Context(), s, directory.HandOver{Source: source})
		must(t, err)
		second, _, err := d.HandOverSession(t.Context(), first, directory.HandOver{Source: source})
		must(t, err)
		must(t, d.SetSignIn(t.Context(), "default", directory.SignIn{Idle: 2 * time.Hour, Absolute: 2 * time.Hour}))
		for _, id := range []string{first.ID, second.ID} {
			if !d.Snapshot().Session(id).Live(time.Now()) {
				t.Error("it ended too soon")
			}
		}
		time.Sleep(31 * time.Minute)
		for _, id := range []string{first.ID, second.ID} {
			if got := d.Snapshot().Session(id); got.Live(time.Now()) || got.Created.Sub(s.Created) != 90*time.Minute {
				t.Errorf("it lives on, or began at another time: %+v", got)
			}
		}
	})
}
