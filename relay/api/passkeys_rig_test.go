package api_test

import (
	"encoding/json"
	"testing"

	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/passkey"
	"github.com/fairleadhq/fairlead/relay/passkey/passkeytest"
)

const (
	passkeyID     = "relay.example.com"
	passkeyOrigin = "https://relay.example.com:8443"
)

// withPasskeys lets people have them.
func withPasskeys(t testing.TB, c authn.PeopleConfig) authn.PeopleConfig {
	t.Helper()
	var err error
	c.Passkeys, err = passkey.New(passkey.DefaultConfig(passkeyID, []string{passkeyOrigin}))
	must(t, err)
	return c
}

func (g *rig) text(v any) string {
	g.t.Helper()
	b, err := json.Marshal(v)
	must(g.t, err)
	return string(b)
}

// ceremony begins one.
func (g *rig) ceremony(path, session string) (c client.Ceremony) {
	g.t.Helper()
	g.get("POST", path, session, "{}", &c)
	return c
}

// newPasskey is the body that adds one, and the authenticator that holds it.
func (g *rig) newPasskey(session string, wrong passkeytest.Wrong) (body string, a *passkeytest.Authenticator) {
	g.t.Helper()
	c := g.ceremony("/account/passkeys/begin", session)
	a = passkeytest.New(passkeyOrigin)
	return g.text(client.NewPasskey{Ceremony: c.Ceremony, Label: "laptop", Credential: a.Create(g.t, c.Options, wrong)}), a
}

// addPasskey gives the person of a session a passkey, and the session's new text.
func (g *rig) addPasskey(session string) (a *passkeytest.Authenticator, id, renewed string) {
	g.t.Helper()
	body, a := g.newPasskey(session, passkeytest.Wrong{})
	var made client.AddedPasskey
	g.get("POST", "/account/passkeys", session, body, &made)
	return a, made.ID, made.Session.Session
}

// tap is the body that signs in by an authenticator's newest passkey.
func (g *rig) tap(a *passkeytest.Authenticator, workspace string, wrong passkeytest.Wrong) string {
	g.t.Helper()
	c := g.ceremony("/sign-in/passkey/begin", "")
	return g.text(client.PasskeySignIn{Ceremony: c.Ceremony, Workspace: workspace, Credential: a.Get(g.t, c.Options, wrong)})
}

// confirmation is the body that confirms a session by it.
func (g *rig) confirmation(session string, a *passkeytest.Authenticator, wrong passkeytest.Wrong) string {
	g.t.Helper()
	c := g.ceremony("/account/confirm/passkey/begin", session)
	return g.text(client.Confirm{Ceremony: c.Ceremony, Credential: a.Get(g.t, c.Options, wrong)})
}
