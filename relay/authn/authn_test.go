package authn_test

import (
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t testing.TB) (*directory.Directory, *directory.Initial, *authn.Authenticator) {
	t.Helper()
	c := directory.DefaultConfig(t.TempDir())
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	d, err := directory.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, in, fresh(t, authn.DefaultConfig())
}

func fresh(t testing.TB, c authn.Config) *authn.Authenticator {
	t.Helper()
	a, err := authn.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func refused(t testing.TB, err error) *protocol.Error {
	t.Helper()
	var e *protocol.Error
	if !errors.As(err, &e) || e.Code != protocol.CodeUnauthenticated {
		t.Fatalf("got %v, want a refusal", err)
	}
	return e
}

func token(t testing.TB, d *directory.Directory, in *directory.Initial, name string, life time.Duration) (*directory.Token, string) {
	t.Helper()
	w, err := d.Snapshot().Workspace("default")
	if err != nil {
		t.Fatal(err)
	}
	tok, text, err := d.CreateToken(t.Context(), w.Principal(in.Principal).Principal, "default",
		directory.NewToken{Name: name, Roles: []authz.Role{authz.Analyst}, Life: life})
	if err != nil {
		t.Fatal(err)
	}
	return tok, text.ExposeString()
}

func TestATokenAuthenticates(t *testing.T) {
	d, in, a := start(t)
	if err := d.SetAllowlist(t.Context(), "default", []netip.Prefix{netip.PrefixFrom(home, home.BitLen())}, home, true); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p, err := a.Authenticate(t.Context(), d.Snapshot(), "Bearer "+in.Token.ExposeString(), home)
		if err != nil || p.ID != in.Principal || p.Workspace != in.Workspace || p.Token != in.TokenID || p.Name != "admin" || p.Kind != authz.User {
			t.Fatalf("%+v %v", p, err)
		}
	}
	if _, err := a.Authenticate(t.Context(), d.Snapshot(), "bearer "+in.Token.ExposeString(), netip.Addr{}); err != nil {
		t.Fatal("RFC 9110: the scheme is in any case:", err)
	}
	tok, _, _ := d.Snapshot().FindToken(in.Token.ExposeString())
	if time.Since(tok.LastUsed()) > time.Minute {
		t.Fatal("the use was not noted")
	}
}

func TestAllRefusalsAreTheSame(t *testing.T) {
	t.Run("F17 cut, guessed, revoked, without its person", testAllRefusalsAreTheSame)
}

func testAllRefusalsAreTheSame(t *testing.T) {
	d, in, a := start(t)
	good := in.Token.ExposeString()
	revoked, revokedText := token(t, d, in, "revoked", 0)
	orphan, orphanText := token(t, d, in, "orphan", 0)
	_, expiring := token(t, d, in, "expiring", time.Second)
	for _, s := range []string{revokedText, orphanText} { // verified and remembered before
		if _, err := a.Authenticate(t.Context(), d.Snapshot(), "Bearer "+s, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.RevokeToken(t.Context(), "default", revoked.ID),
		d.SetPrincipalDisabled(t.Context(), "default", orphan.Principal.ID, true)); err != nil {
		t.Fatal(err)
	}
	flip := func(s string, i int) string {
		c := byte('A')
		if s[i] == 'A' {
			c = 'B'
		}
		return s[:i] + string(c) + s[i+1:]
	}
	for name, h := range map[string]string{
		"nothing":                 "",
		"scheme alone":            "Bearer ",
		"no scheme":               good,
		"Basic":                   "Basic " + good,
		"two spaces":              "Bearer  " + good,
		"tab":                     "Bearer\t" + good,
		"trailing space":          "Bearer " + good + " ",
		"trailing zero":           "Bearer " + good + "\x00",
		"two tokens":              "Bearer " + good + "," + good,
		"F17 cut by one":          "Bearer " + good[:len(good)-1],
		"F17 longer by one":       "Bearer " + good + "A",
		"F17 first letter":        "Bearer " + flip(good, 4),
		"F17 last letter":         "Bearer " + flip(good, len(good)-1),
		"another prefix":          "Bearer flj_" + good[4:],
		"upper-case prefix":       "Bearer FLT_" + good[4:],
		"the token's id":          "Bearer " + in.TokenID,
		"a huge header":           "Bearer " + strings.Repeat("A", 1<<20),
		"hexadecimal":             "Bearer flt_" + hex.EncodeToString([]byte(good[4:25])) + "A",
		"P11 revoked":             "Bearer " + revokedText,
		"F17 after user disabled": "Bearer " + orphanText,
	} {
		p, err := a.Authenticate(t.Context(), d.Snapshot(), h, netip.Addr{})
		e := refused(t, err)
		first := refused(t, func() error { _, err := a.Authenticate(t.Context(), d.Snapshot(), "", netip.Addr{}); return err }())
		if e.Error() != first.Error() || e.Hint != first.Hint || e == first || p.ID != "" {
			t.Errorf("%s: tells apart: %v", name, e)
		}
		if len(good) > 10 && strings.Contains(e.Error()+e.Hint, good[4:12]) {
			t.Errorf("%s: the answer shows the token", name)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := a.Authenticate(ctx, d.Snapshot(), "Bearer "+expiring, netip.Addr{})
		if err != nil {
			refused(t, err)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("F17 a token never expires")
		}
	}
}

// A flood of wrong tokens never reaches the slow hash: with its only place taken, wrong ones are refused at once, and a right
// one that is not known yet waits, and is told so.
func TestWrongTokensCostNoSlowHash(t *testing.T) {
	d, in, _ := start(t)
	_, second := token(t, d, in, "second", 0)
	synctest.Test(t, func(t *testing.T) {
		c := authn.DefaultConfig()
		c.Slow, c.Wait = 1, time.Second
		a := fresh(t, c)
		if _, err := a.Authenticate(t.Context(), d.Snapshot(), "Bearer "+in.Token.ExposeString(), netip.Addr{}); err != nil {
			t.Fatal(err)
		}
		release := a.Hold()
		for range 1000 {
			_, err := a.Authenticate(t.Context(), d.Snapshot(), "Bearer flt_"+strings.Repeat("x", 43), netip.Addr{})
			refused(t, err)
		}
		if _, err := a.Authenticate(t.Context(), d.Snapshot(), "Bearer "+in.Token.ExposeString(), netip.Addr{}); err != nil {
			t.Fatal("a known token waits for the slow hash:", err)
		}
		var e *protocol.Error
		if _, err := a.Authenticate(t.Context(), d.Snapshot(), "Bearer "+second, netip.Addr{}); !errors.As(err, &e) || e.Code != protocol.CodeUnavailable {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Authenticate(ctx, d.Snapshot(), "Bearer "+second, netip.Addr{}); !errors.As(err, &e) || e.Code != protocol.CodeCanceled {
			t.Fatal(err)
		}
		release()
		if _, err := a.Authenticate(t.Context(), d.Snapshot(), "Bearer "+second, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWhatWasVerifiedIsForgotten(t *testing.T) {
	d, in, _ := start(t)
	_, second := token(t, d, in, "second", 0)
	synctest.Test(t, func(t *testing.T) {
		c := authn.DefaultConfig()
		c.MaxKnown, c.Slow, c.Wait = 1, 1, time.Second
		a := fresh(t, c)
		auth := func(s string) error {
			_, err := a.Authenticate(t.Context(), d.Snapshot(), "Bearer "+s, netip.Addr{})
			return err
		}
		for range 2 { // more tokens than are remembered still work
			if err := errors.Join(auth(in.Token.ExposeString()), auth(second)); err != nil {
				t.Fatal(err)
			}
		}
		if n := a.Known(); n != 1 {
			t.Fatal("remembered:", n)
		}
		release := a.Hold()
		defer release()
		if err := auth(second); err != nil {
			t.Fatal("not remembered:", err)
		}
		time.Sleep(c.Remember) // the bubble's clock
		var e *protocol.Error
		if err := auth(second); !errors.As(err, &e) || e.Code != protocol.CodeUnavailable {
			t.Fatal("remembered for longer than said:", err)
		}
	})
}

func TestManyAtOnceVerifyOnce(t *testing.T) {
	d, in, _ := start(t)
	c := authn.DefaultConfig()
	c.Wait = 5 * time.Minute // the slow hash may be very slow under the race detector
	a := fresh(t, c)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if _, err := a.Authenticate(context.Background(), d.Snapshot(), "Bearer "+in.Token.ExposeString(), netip.Addr{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if a.Hashed() > 2 {
		t.Fatalf("%d slow hashes for one token", a.Hashed())
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, f := range []func(*authn.Config){
		func(c *authn.Config) { c.Remember = 0 }, func(c *authn.Config) { c.Slow = 0 },
		func(c *authn.Config) { c.Wait = 0 }, func(c *authn.Config) { c.MaxKnown = 0 },
	} {
		c := authn.DefaultConfig()
		f(&c)
		if _, err := authn.New(c); err == nil {
			t.Errorf("%+v", c)
		}
	}
}

func TestAStaleSnapshotLetsNobodyIn(t *testing.T) {
	_, in, a := start(t)
	var e *protocol.Error
	_, err := a.Authenticate(t.Context(), &directory.Snapshot{Stale: true}, "Bearer "+in.Token.ExposeString(), netip.Addr{})
	if !errors.As(err, &e) || e.Code != protocol.CodeUnavailable {
		t.Fatal(err)
	}
	_, err = a.Authenticate(t.Context(), &directory.Snapshot{}, "Bearer "+in.Token.ExposeString(), netip.Addr{})
	refused(t, err)
}

func BenchmarkAuthenticate(b *testing.B) {
	d, in, a := start(b)
	h := "Bearer " + in.Token.ExposeString()
	ctx := b.Context()
	if _, err := a.Authenticate(ctx, d.Snapshot(), h, netip.Addr{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(ctx, d.Snapshot(), h, netip.Addr{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefuse(b *testing.B) {
	d, _, a := start(b)
	h := "Bearer flt_" + strings.Repeat("x", 43)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(b.Context(), d.Snapshot(), h, netip.Addr{}); err == nil {
			b.Fatal("let in")
		}
	}
}
