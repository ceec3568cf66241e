//go:build linux

package e2e_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/passkey/passkeytest"
	"github.com/fairleadhq/fairlead/relay/totp"
)

// canaryPeople lets a person sign in, with everything that can go wrong, and plants what it signs in with.
func canaryPeople(t *testing.T, i *installation, c *canaries, must, refused func(string, error)) {
	t.Helper()
	pass, wrong := c.text("person's password", " & "), c.text("wrong password of a person", " <")
	u, err := i.client.CreateUser(ctx, client.NewUser{Name: "anna", Roles: []string{"admin"}})
	must("a user", err)
	c.add("one-time code", []byte(u.Code[4:24]), []byte(u.Code[24:]))
	as := func(session string) *client.Client {
		k, err := client.New(client.Config{Relay: i.address, Token: secret.FromString(session), CAFile: i.path("relay/ca.pem")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(k.Close)
		return k
	}
	nobody := as("")
	first := client.FirstPassword{Workspace: "default", User: "anna", Code: u.Code + wrong, Password: pass}
	refused("a wrong one-time code", nobody.SetFirstPassword(ctx, first))
	first.Code, first.Password = u.Code, wrong[:6]
	refused("a short password", nobody.SetFirstPassword(ctx, first))
	first.Password = pass
	must("the first password", nobody.SetFirstPassword(ctx, first))
	in := func(user, password, code string) string {
		s, err := nobody.SignIn(ctx, client.SignIn{Workspace: "default", User: user, Password: password, Code: code})
		if err != nil {
			refused("a sign-in", err)
			return ""
		}
		c.add("session", []byte(s.Session[4:24]), []byte(s.Session[24:]))
		return s.Session
	}
	in(wrong, pass, "") // the password's field and the name's are taken for each other often
	in("anna", wrong, "")
	session := in("anna", pass, "")
	if session == "" {
		t.Fatal("anna is not let in")
	}
	anna := as(session)
	// A session that a browser hands over: the code, what its challenge is made of, and the session that comes of it.
	verifier := "verifier0" + rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	for _, v := range []string{wrong, verifier} {
		handed, err := anna.HandOver(ctx, client.HandOver{Challenge: base64.RawURLEncoding.EncodeToString(sum[:])})
		must("a code to hand over", err)
		c.add("hand-over code", []byte(handed.Code[4:24]), []byte(handed.Code[24:]))
		s, err := nobody.TakeOver(ctx, client.TakeOver{Code: handed.Code, Verifier: v})
		if v == wrong {
			refused("a wrong verifier", err)
			continue
		}
		must("the session", err)
		c.add("session that was handed over", []byte(s.Session[4:24]), []byte(s.Session[24:]))
	}
	c.add("verifier", []byte(verifier[:20]), []byte(verifier[20:]))
	n, err := anna.BeginSecondFactor(ctx)
	must("a second factor", err)
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(n.Secret)
	must("its secret", err)
	c.add("second factor", []byte(n.Secret[:16]), []byte(n.Secret[16:]), raw)
	_, err = anna.ProveSecondFactor(ctx, wrong)
	refused("a wrong code", err)
	codes, err := anna.ProveSecondFactor(ctx, totp.Code(secret.New(raw), totp.StepAt(time.Now())))
	must("the code", err)
	for _, code := range codes.Codes {
		c.add("recovery code", []byte(code))
	}
	in("anna", pass, wrong)
	anna = as(in("anna", pass, codes.Codes[0]))
	k := passkeytest.New("https://localhost:8443")
	begun, err := anna.BeginAddPasskey(ctx)
	must("a passkey", err)
	label := c.text("label of a passkey", " <")
	_, err = anna.AddPasskey(ctx, client.NewPasskey{Ceremony: wrong, Label: label, Credential: map[string]any{"id": wrong}})
	refused("a passkey of another ceremony", err)
	added, err := anna.AddPasskey(ctx, client.NewPasskey{Ceremony: begun.Ceremony, Label: label, Credential: k.Create(t, begun.Options, passkeytest.Wrong{})})
	must("the passkey", err)
	c.add("credential id", k.Keys[0].ID)
	c.add("session", []byte(added.Session.Session[4:24]), []byte(added.Session.Session[24:]))
	anna = as(added.Session.Session)
	for _, w := range []passkeytest.Wrong{{Signature: true}, {}} {
		begun, err := nobody.BeginPasskeySignIn(ctx)
		must("a ceremony", err)
		s, err := nobody.SignInByPasskey(ctx, client.PasskeySignIn{Ceremony: begun.Ceremony, Credential: k.Get(t, begun.Options, w)})
		if w.Signature {
			refused("a wrong signature", err)
			continue
		}
		must("a sign-in by a passkey", err)
		c.add("session", []byte(s.Session[4:24]), []byte(s.Session[24:]))
	}
	_, err = anna.ChangePassword(ctx, client.ChangePassword{Password: wrong, NewPassword: wrong})
	refused("a change by a wrong password", err)
	_, err = anna.Confirm(ctx, client.Confirm{Code: wrong})
	refused("a wrong proof", err)
	must("signing out", anna.SignOut(ctx))
}
