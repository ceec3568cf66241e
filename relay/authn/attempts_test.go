package authn_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
)

// F3: whatever strangers try from elsewhere, the person gets in, from where it was before and from a new place.
func TestLockOutCannotBeTurnedAgainstTheUser(t *testing.T) {
	t.Run("F3 no lock-out by strangers", testLockOutCannotBeTurnedAgainstTheUser)
}

func testLockOutCannotBeTurnedAgainstTheUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := authn.DefaultPeopleConfig()
		c.Attempts.Account, c.Attempts.Network = 6, 5
		w := people(t, c)
		w.in1("")
		refused := 0
		for i := range 24 {
			if _, err := w.try("anna", "wrong", "", netip.AddrFrom4([4]byte{198, 51, 100, byte(i / 2)})); code(err) == protocol.CodeRateLimited {
				refused++
			}
		}
		if refused < 8 {
			t.Errorf("only %d of a distributed flood were refused without a hash", refused)
		}
		for _, password := range []string{"mistyped", goodPassword} { // at home, with a slip
			if _, err := w.try("anna", password, "", home); (err == nil) != (password == goodPassword) || code(err) == protocol.CodeRateLimited {
				t.Errorf("F3 at home: %v", err)
			}
		}
		if _, err := w.try("anna", goodPassword, "", netip.MustParseAddr("203.0.113.77")); err != nil {
			t.Error("F3 from a new place:", err)
		}
		// Somebody in the same network tries whoever it is; anna was there before, and is let in.
		for i := range 8 {
			_, _ = w.try(fmt.Sprint("colleague", i), "wrong", "", home)
		}
		if _, err := w.try("colleague99", "wrong", "", home); code(err) != protocol.CodeRateLimited {
			t.Error("a network tries whoever it likes:", err)
		}
		w.in1("")
		// The attacker's own network waits, longer each time, and is let try again.
		evil := netip.MustParseAddr("203.0.113.5")
		waited, tried := time.Duration(0), 0
		for range 6 {
			_, err := w.try("anna", "wrong", "", evil)
			var e *protocol.Error
			if errors.As(err, &e) && e.Code == protocol.CodeRateLimited {
				d := time.Duration(e.RetryAfterMs) * time.Millisecond
				if d < time.Second {
					t.Error("a wait of", d)
				}
				waited += d
				time.Sleep(d) // the bubble's clock
				continue
			}
			tried++
		}
		if waited < 30*time.Minute || tried != 3 {
			t.Errorf("%d tries, waited %s", tried, waited)
		}
	})
}

func TestDelayGrowsAndIsForgotten(t *testing.T) {
	t.Run("E7 one wait for all addresses of a site", testDelayGrowsAndIsForgotten)
}

func testDelayGrowsAndIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := people(t, authn.DefaultPeopleConfig())
		from := netip.MustParseAddr("2001:db8::1")
		var waits []time.Duration
		for tried := 0; len(waits) < 5 && tried < 100; tried++ {
			from = from.Next() // E7: the same /64
			_, err := w.try("anna", "wrong", "", from)
			var e *protocol.Error
			if errors.As(err, &e) && e.Code == protocol.CodeRateLimited {
				if len(waits) == 0 && tried != 4 {
					t.Errorf("%d tries before the first wait", tried)
				}
				d := time.Duration(e.RetryAfterMs) * time.Millisecond
				waits = append(waits, d)
				time.Sleep(d) // the bubble's clock
			}
		}
		if len(waits) < 5 || !slices.IsSorted(waits) || waits[0] > time.Second || waits[4] < 10*time.Second {
			t.Errorf("waits of %v", waits)
		}
		time.Sleep(2 * time.Hour)
		for range 3 {
			if _, err := w.try("anna", "wrong", "", from); code(err) != protocol.CodeUnauthenticated {
				t.Error("not forgotten:", err)
			}
		}
	})
}

// Many at once are no way round the delay.
func TestAttemptsAtOnceCountBeforeTheyFail(t *testing.T) {
	w := people(t, authn.DefaultPeopleConfig())
	before := w.p.Hashed()
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() { _, _ = w.try("anna", "wrong", "", netip.MustParseAddr("198.51.100.1")) })
	}
	wg.Wait()
	if n := w.p.Hashed() - before; n > 4 {
		t.Errorf("%d tries at once", n)
	}
}

// A flood of strangers holds up no token: the slow hashes of passwords are apart, and one network waits for few turns.
func TestStrangersHoldUpNobodyElse(t *testing.T) {
	w := people(t, authn.DefaultPeopleConfig())
	release := w.p.Hold()
	defer release()
	a := fresh(t, authn.DefaultConfig())
	if _, err := a.Authenticate(t.Context(), w.d.Snapshot(), "Bearer "+w.in.Token.ExposeString(), netip.Addr{}); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var busy atomic.Int64
	var wg sync.WaitGroup
	full := make(chan struct{})
	for i := range 10 {
		wg.Go(func() {
			_, err := w.p.SignIn(ctx, authn.SignIn{Workspace: "default", User: fmt.Sprint("nobody", i), Password: secret.FromString("x"), Source: netip.MustParseAddr("198.51.100.9")})
			if code(err) == protocol.CodeRateLimited && busy.Add(1) == 6 {
				close(full)
			}
		})
	}
	<-full
	cancel()
	wg.Wait()
	if busy.Load() != 6 {
		t.Errorf("%d of 10 were refused at once", busy.Load())
	}
}

func TestPeopleConfigIsChecked(t *testing.T) {
	w := people(t, authn.DefaultPeopleConfig())
	for _, f := range []func(*authn.PeopleConfig){
		func(c *authn.PeopleConfig) { c.Slow = 0 }, func(c *authn.PeopleConfig) { c.Wait = 0 }, func(c *authn.PeopleConfig) { c.PerSource = 0 },
		func(c *authn.PeopleConfig) { c.Attempts.First = 0 }, func(c *authn.PeopleConfig) { c.Attempts.Most = time.Millisecond }, func(c *authn.PeopleConfig) { c.Attempts.Codes = 0 },
		func(c *authn.PeopleConfig) { c.Attempts.Tracked = 1 }, func(c *authn.PeopleConfig) { c.Attempts.Account = 0 }, func(c *authn.PeopleConfig) { c.Attempts.Network = 0 },
	} {
		c := authn.DefaultPeopleConfig()
		f(&c)
		if _, err := authn.NewPeople(w.d, c); err == nil {
			t.Errorf("%+v", c)
		}
	}
	if _, err := authn.NewPeople(nil, authn.DefaultPeopleConfig()); err == nil {
		t.Error("no directory")
	}
}

// Names and addresses without end take no memory without end, and push out nobody who is being guessed at.
func TestAttemptsAreBounded(t *testing.T) {
	c := authn.DefaultPeopleConfig()
	c.Attempts.Tracked = 1000
	w := people(t, c)
	target := netip.MustParseAddr("203.0.113.5")
	for range 6 {
		w.p.Try("target", target)
	}
	for i := range 5000 {
		w.p.Try(fmt.Sprint("name", i), netip.AddrFrom4([4]byte{198, byte(i >> 16), byte(i >> 8), byte(i)}))
		if n := w.p.Tracked(); n > 1000 {
			t.Fatalf("%d are remembered", n)
		}
	}
	if w.p.Try("target", target) == 0 {
		t.Error("a flood of names wipes out the delay of another")
	}
}
