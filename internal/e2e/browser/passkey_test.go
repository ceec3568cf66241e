package browser_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/client"
)

// A passkey is added, proves who is there, signs in without a password, and is removed: by an authenticator of the browser's own.
func TestPasskeysInTheBrowser(t *testing.T) {
	w := world(t, testenv.Options{RelayConfig: func(c *relay.Config) {
		_, port, err := net.SplitHostPort(c.PublicAddress)
		if err != nil {
			t.Fatal(err)
		}
		c.SignIn.Passkeys = &relay.Passkeys{ID: "localhost", Origins: []string{"https://localhost:" + port}}
	}})
	person(t, w, "anna")
	b := open(t, w)
	b.base = strings.Replace(b.base, "127.0.0.1", "localhost", 1) // an address has no passkeys
	var id webauthn.AuthenticatorID
	b.do("an authenticator", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		if _, err := cdp.Call(ctx, t, webauthn.Enable, webauthn.EnableParams{}); err != nil {
			return err
		}
		made, err := cdp.Call(ctx, t, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal, HasResidentKey: true, HasUserVerification: true, IsUserVerified: true,
			AutomaticPresenceSimulation: true}})
		id = made.AuthenticatorID
		return err
	}))
	b.visit(b.base + "/account/")
	b.sees("Sign in with a passkey")
	b.shot("sign-in")
	b.signIn("anna", goodPassword)
	b.sees("A passkey signs you in")
	b.fill("Name for a new passkey", "laptop")
	b.press("Add a passkey")
	b.sees("The passkey is added.")
	b.sees("laptop")
	b.whole()
	b.shot("passkeys")
	b.do("count", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		l, err := cdp.Call(ctx, target, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: id})
		if err == nil && (len(l.Credentials) != 1 || !l.Credentials[0].IsResidentCredential) {
			t.Errorf("%d credentials", len(l.Credentials))
		}
		return err
	}))
	b.press("Sign out")
	b.sees("You are signed out.")
	b.press("Sign in with a passkey")
	b.sees("Your account")
	b.sees("anna")
	// Where the workspace demands passkeys, the password alone leads no further than to showing one.
	if _, err := w.Client.SetSignInPolicy(t.Context(), client.SignInPolicy{Passkeys: "required"}); err != nil {
		t.Fatal(err)
	}
	b.press("Sign out")
	b.sees("You are signed out.")
	b.signIn("anna", goodPassword)
	b.sees("This session wants a passkey.")
	b.shot("wants-passkey")
	b.press("Use a passkey")
	b.sees("The session has shown a passkey.")
	if _, err := w.Client.SetSignInPolicy(t.Context(), client.SignInPolicy{}); err != nil {
		t.Fatal(err)
	}
	b.do("remove", chromedp.Click(`//section[h2="Passkeys"]//button[normalize-space()="Remove"]`))
	b.press("Remove it now")
	b.sees("The passkey is removed.")
}

// Where the relay has no passkeys, the page tells nothing of them.
func TestPageWithoutPasskeys(t *testing.T) {
	b := open(t, world(t))
	b.visit(b.base + "/account/")
	b.sees("User name")
	if b.gives("document.body.innerText.includes('passkey')") != "false" {
		t.Error("the page tells of passkeys that the relay has not")
	}
}
