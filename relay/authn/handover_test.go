package authn_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
)

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// The codes that are open are few: of one person the oldest gives way, and beyond the whole nobody's does.
func TestOpenHandOversAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := authn.DefaultPeopleConfig()
		conf.HandOver = authn.HandOverLimits{Life: time.Minute, Most: 3, Person: 2}
		w := people(t, conf)
		w.invite("bert")
		verifier := strings.Repeat("v", 43)
		give := func(user string) (string, error) {
			t.Helper()
			res, err := w.try(user, goodPassword, "", home)
			must(t, err)
			code, until, err := w.p.HandOver(res.Session, challengeOf(verifier), 0, 0)
			if err == nil && time.Until(until) != time.Minute {
				t.Error(until)
			}
			return code.ExposeString(), err
		}
		take := func(code string) error {
			_, _, err := w.p.TakeOver(t.Context(), authn.TakeOver{Code: code, Verifier: verifier, Source: home})
			return err
		}
		var codes []string
		for range 3 {
			c, err := give("anna")
			must(t, err)
			codes = append(codes, c)
			time.Sleep(time.Second) // the bubble's clock
		}
		if code(take(codes[0])) != protocol.CodeUnauthenticated {
			t.Error("a third code left the first")
		}
		must(t, take(codes[1]))
		_, err := give("anna")
		must(t, err)
		_, err = give("bert")
		must(t, err)
		if _, err = give("bert"); code(err) != protocol.CodeRateLimited {
			t.Error("a fourth is open:", err)
		}
		must(t, take(codes[2]))
		_, err = give("bert")
		must(t, err)
		time.Sleep(time.Minute)
		late, err := give("bert") // what has expired takes no room
		must(t, err)
		must(t, take(late))
	})
}

// A verifier may have 43 to 128 characters (RFC 7636), and guesses are counted by network alone.
func TestVerifierHasItsLength(t *testing.T) {
	w := people(t, authn.DefaultPeopleConfig())
	s := w.in1("")
	for n, want := range map[int]bool{42: false, 43: true, 128: true, 129: false} {
		verifier := strings.Repeat("v", n)
		c, _, err := w.p.HandOver(s, challengeOf(verifier), 0, 0)
		must(t, err)
		_, _, err = w.p.TakeOver(t.Context(), authn.TakeOver{Code: c.ExposeString(), Verifier: verifier, Source: home})
		if (err == nil) != want {
			t.Errorf("%d: %v", n, err)
		}
	}
	guess := func(from string) error {
		_, _, err := w.p.TakeOver(t.Context(), authn.TakeOver{Code: "flh_x", Source: netip.MustParseAddr(from)})
		return err
	}
	for range 25 {
		_ = guess("198.51.100.1")
	}
	if code(guess("198.51.100.1")) != protocol.CodeRateLimited || code(guess("198.51.100.2")) != protocol.CodeUnauthenticated {
		t.Error("guesses are not counted by network")
	}
	if _, err := authn.NewPeople(w.d, authn.PeopleConfig{Slow: 1, Wait: time.Second, PerSource: 1, Attempts: authn.DefaultAttemptLimits()}); err == nil {
		t.Error("no limits are limits")
	}
}
