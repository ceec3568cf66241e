package authn_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/passkey"
	"github.com/fairleadhq/fairlead/relay/passkey/passkeytest"
)

// second is another workspace, which admits the addresses of a list, with anna in it by another name. It gives her there.
func (w *world) second(allow string) *directory.Principal {
	w.t.Helper()
	o, err := w.d.CreateWorkspace(w.t.Context(), "other")
	must(w.t, err)
	must(w.t, w.d.SetAllowlist(w.t.Context(), o.ID, []netip.Prefix{netip.MustParsePrefix(allow)}, netip.Addr{}, true))
	first, _, err := w.d.CreateOwnerToken(w.t.Context(), o.ID, "owner", 0)
	must(w.t, err)
	p, _, err := w.d.CreateUser(w.t.Context(), directory.By{ID: first.Principal.ID}, o.ID, directory.NewUser{Name: "anna.s", Roles: []authz.Role{authz.Analyst}, Person: w.person().ID})
	must(w.t, err)
	return p
}

// Whoever has to wait learns neither which workspaces there are, nor which admit an address, nor who belongs to which.
func TestWaitingTellsOfNoWorkspaceAndNoPerson(t *testing.T) {
	w := people(t, unhurried())
	w.second("192.0.2.0/24")
	from := netip.MustParseAddr("192.0.2.77")
	outside := netip.MustParseAddr("203.0.113.77")
	ways := map[string]func(workspace, user string, from netip.Addr) error{
		"sign-in": func(workspace, user string, from netip.Addr) error {
			_, err := w.p.SignIn(t.Context(), authn.SignIn{Workspace: workspace, User: user, Password: secret.FromString("wrong kettle battery fish"), Source: from})
			return err
		},
		"first": func(workspace, user string, from netip.Addr) error {
			_, err := w.p.SetFirst(t.Context(), workspace, user, "fli_wrong", secret.FromString("yet another kettle of fish"), from, unrecorded)
			return err
		},
	}
	for way, try := range ways {
		series := func(workspace, user string, from netip.Addr) (codes []protocol.Code) {
			w.p.Forget()
			for range 6 {
				codes = append(codes, code(try(workspace, user, from)))
			}
			return codes
		}
		want := series("default", "anna", from)
		if !slices.Contains(want, protocol.CodeRateLimited) || !slices.Contains(want, protocol.CodeUnauthenticated) {
			t.Fatalf("%s: %v", way, want)
		}
		for what, got := range map[string][]protocol.Code{
			"nobody of this name":        series("default", "zoe", from),
			"no such workspace":          series("nowhere", "anna", from),
			"not on the allowlist":       series("other", "anna.s", outside),
			"not on it, and nobody":      series("other", "zoe", outside),
			"no such workspace, outside": series("nowhere", "anna.s", outside),
		} {
			if !slices.Equal(got, want) {
				t.Errorf("%s, %s: %v, want %v", way, what, got, want)
			}
		}
		// Who waits for anna in one workspace does not learn that she is in another.
		series("default", "anna", from)
		if there, nobody := code(try("other", "anna.s", from)), code(try("other", "zoe", from)); there != nobody {
			t.Errorf("%s: she is told apart where she belongs, too: %s, %s", way, there, nobody)
		}
		// A network that has to wait is told so for whichever workspace.
		w.p.Forget()
		for i := range 30 {
			_ = try("default", "u"+strings.Repeat("x", i), from)
		}
		for _, c := range [][2]string{{"default", "anna"}, {"default", "new"}, {"other", "anna.s"}, {"nowhere", "anna"}} {
			if got := code(try(c[0], c[1], from)); got != protocol.CodeRateLimited {
				t.Errorf("%s at %v while the network waits: %s", way, c, got)
			}
		}
	}
}

// Whom the relay knows from a network need not wait for what others there do; who only says so is told what those are told.
func TestWhoIsKnownFromANetworkIsNotToldApart(t *testing.T) {
	w := people(t, unhurried())
	w.in1("")
	w.p.Forget()
	for i := range 30 {
		_, _ = w.try("u"+strings.Repeat("x", i), "wrong kettle battery fish", "", home)
	}
	for _, user := range []string{"anna", "zoe"} {
		if _, err := w.try(user, "wrong kettle battery fish", "", home); code(err) != protocol.CodeRateLimited {
			t.Errorf("%s: %v", user, err)
		}
	}
	w.in1("")
}

// Nor by how the waits go on, here or once the network waits no more: what the known try there is counted apart.
func TestWaitsInAHeldNetworkDoNotTellWhoIsKnownThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := authn.DefaultPeopleConfig()
		c.Attempts.Network = 2
		w := people(t, c)
		w.in1("")
		series := func(user string) (said []string) {
			w.p.Forget()
			for i := range 6 {
				_, _ = w.try("u"+strings.Repeat("x", i), "wrong kettle battery fish", "", home)
			}
			for range 24 {
				_, err := w.try(user, "wrong kettle battery fish", "", home)
				said = append(said, fmt.Sprint(code(err), protocol.AsError(err).RetryAfterMs))
				_, err = w.try("bystander", "wrong kettle battery fish", "", home)
				said = append(said, fmt.Sprint(code(err), protocol.AsError(err).RetryAfterMs))
				time.Sleep(1300 * time.Millisecond) // the bubble's clock
			}
			return said
		}
		before := w.p.Hashed()
		known := series("anna")
		hashed := w.p.Hashed() - before
		before = w.p.Hashed()
		unknown := series("zoe")
		if !slices.Equal(known, unknown) {
			t.Errorf("known:   %v, unknown: %v", known, unknown)
		}
		if past := hashed - (w.p.Hashed() - before); past < 4 || past > 12 {
			t.Errorf("%d tries of who is known were let past the network's wait", past)
		}
		if !slices.Contains(unknown, string(protocol.CodeUnauthenticated)+"0") {
			t.Error("the network waits all the time")
		}
		series("anna") // her own tries past the wait are delayed as well, …
		before = w.p.Hashed()
		for range 20 {
			_, _ = w.try("anna", "wrong kettle battery fish", "", home)
		}
		if n := w.p.Hashed() - before; n > 1 {
			t.Errorf("%d tries at once", n)
		}
		time.Sleep(time.Hour) // … and forgotten
		w.in1("")
	})
}

// What is not admitted counts for nobody's account: strangers elsewhere hold nobody up.
func TestAttemptsFromOutsideTheAllowlistHoldUpNobody(t *testing.T) {
	c := unhurried()
	c.Attempts.Account = 5
	w := people(t, c)
	w.second("192.0.2.0/24")
	for i := range 40 {
		_, _ = w.p.SignIn(t.Context(), authn.SignIn{Workspace: "other", User: "anna.s", Password: secret.FromString("wrong kettle battery fish"), Source: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})})
	}
	for i := range 3 { // of a network that she never signed in from
		if _, err := w.p.SignIn(t.Context(), authn.SignIn{Workspace: "other", User: "anna.s", Password: secret.FromString("wrong kettle battery fish"), Source: netip.MustParseAddr("192.0.2.99")}); code(err) != protocol.CodeUnauthenticated {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// A refusal of a known passkey stands in some log: where no workspace is named, or none of that name is there, in that of its person's home.
func TestRefusedPasskeysOfWhoBelongsToSeveralAreRecordedAtHome(t *testing.T) {
	w := keyed(t)
	a := passkeytest.New(relayOrigin)
	_, err := w.add(w.in1(""), a, passkeytest.Wrong{})
	must(t, err)
	w.second("192.0.2.0/24")
	n := byte(0)
	for what, c := range map[string]struct {
		workspace string
		wrong     passkeytest.Wrong
	}{
		"a wrong signature": {"", passkeytest.Wrong{Signature: true}}, "a wrong origin": {"", passkeytest.Wrong{Origin: "https://evil.example.com"}}, "no such workspace": {"nowhere", passkeytest.Wrong{}},
	} {
		n++
		res, err := w.tap(a, c.workspace, netip.AddrFrom4([4]byte{198, 51, 100, n}), c.wrong)
		if code(err) != protocol.CodeUnauthenticated || res.Workspace == nil || res.Workspace.Name != "default" || res.Principal == nil || res.Principal.Name != "anna" || res.Passkey == nil || res.Reason == "" {
			t.Errorf("%s: %+v %v", what, res, err)
		}
	}
}

// A code that counts no more because its giver ended is told of where the giver was.
func TestRefusedHandOverIsRecordedAfterItsGiverEnded(t *testing.T) {
	w := people(t, unhurried())
	s := w.in1("")
	verifier := strings.Repeat("v", 43)
	sum := sha256.Sum256([]byte(verifier))
	given, _, err := w.p.HandOver(s, base64.RawURLEncoding.EncodeToString(sum[:]), 0, 0)
	must(t, err)
	must(t, w.d.EndSession(t.Context(), "", s.ID, w.person().ID))
	res, giver, err := w.p.TakeOver(t.Context(), authn.TakeOver{Code: given.ExposeString(), Verifier: verifier, Source: home})
	if code(err) != protocol.CodeUnauthenticated || giver != s.ID || res.Workspace == nil || res.Workspace.Name != "default" || res.Principal == nil || res.Principal.Name != "anna" || !strings.Contains(res.Reason, "has ended") {
		t.Errorf("%+v %s %v", res, giver, err)
	}
}

// An invitation whose giver is gone is refused as any wrong code, and the record says why.
func TestAVoidCodeIsRefusedAsAnyWrongCode(t *testing.T) {
	w := people(t, unhurried())
	tok, _, err := w.d.CreateAdminToken(t.Context(), "default", "an admin", 0)
	must(t, err)
	_, given, err := w.d.CreateUser(t.Context(), directory.By{ID: tok.Principal.ID}, "default", directory.NewUser{Name: "bert", Roles: []authz.Role{authz.Analyst}})
	must(t, err)
	must(t, w.d.SetPrincipalDisabled(t.Context(), "default", tok.Principal.ID, true))
	first := func(text string) (authn.Result, error) {
		return w.p.SetFirst(t.Context(), "default", "bert", text, secret.FromString(goodPassword), home, func(authn.Result) error { t.Error("recorded as decided"); return nil })
	}
	res, void := first(given.ExposeString())
	_, wrong := first("fli_wrong")
	if code(void) != protocol.CodeUnauthenticated || void.Error() != wrong.Error() || !strings.Contains(res.Reason, "may not act for the user any more") {
		t.Errorf("%v, %v: %s", void, wrong, res.Reason)
	}
}

// A /48 of IPv6 is one site to the pool of ceremonies, as it is to attempts: all its networks together push nobody out.
func TestOneSiteOfManyNetworksEndsNobodyElsesCeremony(t *testing.T) {
	c := unhurried()
	conf := passkey.DefaultConfig("relay.example.com", []string{relayOrigin})
	conf.Strangers, conf.PerNetwork, conf.PerSite = 10, 3, 1000
	var err error
	c.Passkeys, err = passkey.New(conf)
	must(t, err)
	w := people(t, c, func(d *directory.Config) { d.PasskeyID = "relay.example.com" })
	a := passkeytest.New(relayOrigin)
	_, err = w.add(w.in1(""), a, passkeytest.Wrong{})
	must(t, err)
	id, opts, err := w.p.BeginPasskey(home)
	must(t, err)
	for i := range 500 {
		_, _, err := w.p.BeginPasskey(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 1, byte(i >> 8), byte(i), 15: 1}))
		must(t, err)
	}
	_, err = w.p.SignInPasskey(t.Context(), authn.PasskeySignIn{Ceremony: id, Answer: answer(t, a.Get(t, opts, passkeytest.Wrong{})), Source: home})
	must(t, err)
}
