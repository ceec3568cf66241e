package directory_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/passkey"
	"github.com/fairleadhq/fairlead/relay/store"
)

const aRelay = "relay.example.com"

func keyed(t *testing.T) (directory.Config, *directory.Directory) {
	t.Helper()
	c := directory.DefaultConfig(t.TempDir())
	c.PasskeyID = aRelay
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	return c, d
}

func credential(id string) passkey.Credential {
	return passkey.Credential{ID: []byte(id), Key: []byte("Canary-public-key-7f3a91Zq"), Count: 7, Eligible: true}
}

func TestPasskeysAreSealed(t *testing.T) {
	c, d := keyed(t)
	_, s, _ := person(t, d, "anna")
	k, s, _, err := d.AddPasskey(t.Context(), s, "Canary-label-7f3a91Zq", credential("Canary-credential-7f3a91Zq"))
	must(t, err)
	_, _, err = d.ConfirmByPasskey(t.Context(), s, k, passkey.Used{Count: 8, BackedUp: true})
	must(t, err)
	canaries := map[string][]byte{"label": []byte("Canary-label-7f3a91Zq"), "id": []byte("Canary-credential-7f3a91Zq"), "key": []byte("Canary-public-key-7f3a91Zq"),
		"as JSON has it": []byte(base64.StdEncoding.EncodeToString([]byte("Canary-credential-7f3a91Zq")))}
	scan(t, c.Dir, canaries)
	must(t, d.Close())
	scan(t, c.Dir, canaries)
}

// Whoever can write to the database but holds no key comes in by no passkey of their own.
func TestPasskeysChangedByHandAreRefused(t *testing.T) {
	c, d := keyed(t)
	anna, s, _ := person(t, d, "anna")
	_, _, _, err := d.AddPasskey(t.Context(), s, "one", credential("the first passkey"))
	must(t, err)
	_, s, _ = person(t, d, "bert")
	berts, _, _, err := d.AddPasskey(t.Context(), s, "two", credential("the second passkey"))
	must(t, err)
	must(t, d.Close())
	pristine, err := os.ReadFile(filepath.Join(c.Dir, store.File))
	must(t, err)
	for name, q := range map[string]string{
		"given to another":       `UPDATE passkeys SET person = '` + anna.ID + `' WHERE id = '` + berts.ID + `'`,
		"another's seal":         `UPDATE passkeys SET sealed = (SELECT sealed FROM passkeys o WHERE o.id <> passkeys.id)`,
		"another's credential":   `UPDATE passkeys SET digest = randomblob(32)`,
		"an older version":       `UPDATE passkeys SET version = version + 1`,
		"another row":            `UPDATE passkeys SET id = 'pky_made' WHERE id = '` + berts.ID + `'`,
		"another home workspace": `UPDATE passkeys SET home = 'ws_made'`,
	} {
		t.Run(name, func(t *testing.T) { refusedState(t, c, pristine, q) })
	}
}

func TestPasskeysOfAnotherNameDoNotCount(t *testing.T) {
	c, d := keyed(t)
	p, s, text := person(t, d, "anna")
	_, s, _, err := d.AddPasskey(t.Context(), s, "one", credential("the first passkey"))
	must(t, err)
	if _, ok := d.Snapshot().FindSession(text); ok || !s.ByPasskey || d.Snapshot().Passkey([]byte("the first passkey")) == nil || d.Snapshot().Passkey([]byte("another")) != nil {
		t.Error("added, but not found")
	}
	must(t, d.SetSignIn(t.Context(), "default", directory.SignIn{SecondFactor: true}))
	must(t, d.Close())
	for id, counts := range map[string]bool{aRelay: true, "other.example.com": false, "": false} {
		c.PasskeyID = id
		d, err := directory.Open(t.Context(), c)
		must(t, err)
		is := d.Snapshot().Person(p.ID)
		got := d.Snapshot().Session(s.ID)
		if is.HoldsPasskey() != counts || is.UsablePasskey() != counts || len(is.Passkeys) != 1 || is.Passkeys[0].Bound != counts || (d.Snapshot().Passkey([]byte("the first passkey")) != nil) != counts ||
			(got.Needs(time.Now()) == "") != counts {
			t.Errorf("%q: %+v, needs %q", id, is.Passkeys[0], got.Needs(time.Now()))
		}
		if l, err := d.Credentials(is); err != nil || (len(l) == 1) != counts {
			t.Error(l, err)
		}
		must(t, d.Close())
	}
}

func TestAProofCountsOnceAndOfItsPerson(t *testing.T) {
	_, d := keyed(t)
	defer func() { must(t, d.Close()) }()
	_, s, _ := person(t, d, "anna")
	k, s, _, err := d.AddPasskey(t.Context(), s, "one", credential("the first passkey"))
	must(t, err)
	_, berts, _ := person(t, d, "bert")
	if _, _, err := d.ConfirmByPasskey(t.Context(), berts, k, passkey.Used{Count: 8}); err == nil {
		t.Error("another's passkey confirms")
	}
	begin := func(principal string, u passkey.Used) error {
		_, _, err := d.BeginPasskeySession(t.Context(), "default", directory.PasskeySession{NewSession: directory.NewSession{Principal: principal}, Passkey: k, Used: u})
		return err
	}
	want(t, begin(berts.Principal.ID, passkey.Used{Count: 8}), protocol.CodeNotFound)
	must(t, begin(s.Principal.ID, passkey.Used{Count: 8}))
	for _, u := range []passkey.Used{{Count: 8}, {Count: 7}, {}, {Count: 9, Back: true}} {
		if begin(s.Principal.ID, u) == nil {
			t.Errorf("%+v after 8", u)
		}
	}
	must(t, d.SuspectPasskey(t.Context(), k))
	if begin(s.Principal.ID, passkey.Used{Count: 9}) == nil {
		t.Error("one that is marked lets in")
	}
	want(t, d.RemovePasskey(t.Context(), berts.Person, k.ID, ""), protocol.CodeNotFound)
	for _, label := range []string{"", "  ", "a\nb", "a\u0085b", string(make([]byte, 129)), "\xff"} {
		if _, _, _, err := d.AddPasskey(t.Context(), berts, label, credential("x")); protocol.AsError(err).Code != protocol.CodeInvalid {
			t.Errorf("label %q: %v", label, err)
		}
	}
}

// What a person signs in with counts in all its workspaces, so the strictest of them says how fresh a proof must be, wherever the
// session is; and a passkey that is suspect ends all sessions.
func TestTheStrictestWorkspaceJudgesFreshness(t *testing.T) {
	_, d := keyed(t)
	defer func() { must(t, d.Close()) }()
	p, s, text := person(t, d, "anna")
	o, err := d.CreateWorkspace(t.Context(), "lax")
	must(t, err)
	owner, _, err := d.CreateAdminToken(t.Context(), "lax", "owner", time.Hour)
	must(t, err)
	_, _, err = d.CreateUser(t.Context(), directory.By{ID: owner.Principal.ID}, o.ID, directory.NewUser{Name: "anna", Roles: []authz.Role{authz.Analyst}, Person: p.ID})
	must(t, err)
	must(t, d.SetSignIn(t.Context(), "lax", directory.SignIn{StepUp: time.Minute}))
	must(t, d.SetSignIn(t.Context(), "default", directory.SignIn{StepUp: time.Hour}))
	now := func() *directory.Session { return d.Snapshot().Session(s.ID) }
	for after, want := range map[time.Duration]bool{30 * time.Second: true, 2 * time.Minute: false, 2 * time.Hour: false} {
		if got := d.Snapshot().FreshFor(now(), s.Confirmed.Add(after)); got != want {
			t.Errorf("%v after the proof: %v", after, got)
		}
	}
	if !now().Fresh(s.Confirmed.Add(2 * time.Minute)) {
		t.Error("acts in the workspace itself go by its own policy")
	}
	k, s2, _, err := d.AddPasskey(t.Context(), now(), "one", credential("the first passkey"))
	must(t, err)
	if _, ok := d.Snapshot().FindSession(text); ok {
		t.Error("the old text counts")
	}
	must(t, d.SuspectPasskey(t.Context(), k))
	if d.Snapshot().Session(s2.ID) != nil {
		t.Error("whoever copied the passkey is still signed in")
	}
}
