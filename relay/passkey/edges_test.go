package passkey_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/passkey"
	"github.com/fairleadhq/fairlead/relay/passkey/passkeytest"
)

// because wants a refusal for a reason.
func because(t *testing.T, err error, reason string) {
	t.Helper()
	if r := (*passkey.Refusal)(nil); !errors.As(err, &r) || !strings.Contains(r.Reason, reason) {
		t.Errorf("refused for %v, want %q", err, reason)
	}
}

func TestAConfirmationIsByAnyOfThePasskeysAskedFor(t *testing.T) {
	c := ceremonies(t)
	a := passkeytest.New(origin)
	one, err := register(t, c, a, passkeytest.Wrong{})
	must(t, err)
	two, err := register(t, c, a, passkeytest.Wrong{})
	must(t, err)
	for i, have := range []passkey.Credential{one, two} {
		for _, handle := range [][]byte{nil, {}} { // an authenticator may leave it out here
			id, opts, err := c.BeginConfirm(anna, "s1", []passkey.Credential{one, two})
			must(t, err)
			if s := string(opts); strings.Count(s, `"type":"public-key"`) != 2 || !strings.Contains(s, `"internal"`) {
				t.Error(s)
			}
			o, err := c.Take(passkey.Confirm, id, "s1")
			must(t, err)
			answer, err := c.Read(text(t, a.GetBy(t, a.Keys[i], opts, passkeytest.Wrong{Handle: handle})))
			must(t, err)
			if _, err := o.Verify(answer, anna, have); err != nil {
				t.Error(i, err)
			}
		}
	}
	if _, _, err := c.BeginConfirm(anna, "s1", nil); err == nil {
		t.Error("a confirmation by no passkey")
	}
}

func TestLongAnswersAreRefusedThoughTheyHold(t *testing.T) {
	c := ceremonies(t)
	a := passkeytest.New(origin)
	_, err := register(t, c, a, passkeytest.Wrong{})
	must(t, err)
	pad := func(b []byte, size int) []byte { return append(b, bytes.Repeat([]byte(" "), size-len(b))...) }
	for size, good := range map[int]bool{12 << 10: true, 12<<10 + 1: false} {
		id, opts, err := c.BeginRegister(anna, "s1", nil)
		must(t, err)
		o, err := c.Take(passkey.Register, id, "s1")
		must(t, err)
		_, err = o.Register(pad(text(t, passkeytest.New(origin).Create(t, opts, passkeytest.Wrong{})), size), anna)
		if (err == nil) != good {
			t.Error("register", size, err)
		}
		_, opts, err = c.BeginSignIn("n", "n")
		must(t, err)
		if _, err = c.Read(pad(text(t, a.Get(t, opts, passkeytest.Wrong{})), size)); (err == nil) != good {
			t.Error("sign in", size, err)
		}
	}
	for size, good := range map[int]bool{1023: true, 1024: false} {
		_, opts, err := c.BeginSignIn("n", "n")
		must(t, err)
		_, err = c.Read(text(t, a.Get(t, opts, passkeytest.Wrong{ID: bytes.Repeat([]byte("i"), size)})))
		if (err == nil) != good {
			t.Error("an id of", size, err)
		}
	}
}

func TestRefusalsNameTheirReason(t *testing.T) {
	c := ceremonies(t)
	for format, reason := range map[string]string{"fido-u2f": "not asked for", "tpm": "not asked for", "android-key": "not asked for"} {
		_, err := register(t, c, passkeytest.New(origin), passkeytest.Wrong{Format: format})
		because(t, err, reason)
	}
	a := passkeytest.New(origin)
	have, err := register(t, c, a, passkeytest.Wrong{})
	must(t, err)
	_, err = register(t, c, passkeytest.New(origin), passkeytest.Wrong{CrossOrigin: true})
	because(t, err, "frame")
	_, err = signIn(t, c, a, have, passkeytest.Wrong{CrossOrigin: true})
	because(t, err, "frame")
	_, err = signIn(t, c, a, have, passkeytest.Wrong{Origin: origin + "/x"})
	because(t, err, "origin is not one")
	if _, err := c.Take(passkey.SignIn, "none", ""); err == nil {
		t.Error("a ceremony of nobody")
	}
}

func TestLimitsMustBeSet(t *testing.T) {
	good := passkey.DefaultConfig(rp, []string{origin})
	for i, change := range []func(*passkey.Config){
		func(c *passkey.Config) { c.Life = 0 }, func(c *passkey.Config) { c.Strangers = 0 }, func(c *passkey.Config) { c.PerNetwork = 0 }, func(c *passkey.Config) { c.PerSite = 0 }, func(c *passkey.Config) { c.SignedIn = 0 },
		func(c *passkey.Config) { c.PerPerson = 0 }, func(c *passkey.Config) { c.MaxAnswer = 0 }, func(c *passkey.Config) { c.MaxID = 15 }, func(c *passkey.Config) { c.ID = "x" }, func(c *passkey.Config) { c.Origins = nil },
	} {
		conf := good
		change(&conf)
		if _, err := passkey.New(conf); err == nil {
			t.Error(i, "is taken")
		}
	}
	c, err := passkey.New(good)
	must(t, err)
	if c.ID() != rp {
		t.Error(c.ID())
	}
}

// Keys that cost the relay more to verify than those of authenticators are not taken.
func TestHugeRSAKeysAreRefused(t *testing.T) {
	c := ceremonies(t)
	a := passkeytest.New(origin)
	rs := passkeytest.Wrong{Algorithm: passkeytest.RS256}
	a.Bits = 4096
	if _, err := register(t, c, a, rs); err != nil {
		t.Error(err)
	}
	a.Bits = 4104
	_, err := register(t, c, a, rs)
	because(t, err, "2048 to 4096 bits")
	a.Bits = 1024
	_, err = register(t, c, a, rs)
	because(t, err, "2048 to 4096 bits")
}
