package authn_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/totp"
	"github.com/fairleadhq/fairlead/relay/vault"
)

const goodPassword = "correct kettle battery fish"

func unrecorded(authn.Result) error { return nil }

var home = netip.MustParseAddr("192.0.2.10")

// world is a directory with a person "anna" that anybody may try.
type world struct {
	t  *testing.T
	d  *directory.Directory
	in *directory.Initial
	p  *authn.People
}

func people(t *testing.T, c authn.PeopleConfig, change ...func(*directory.Config)) *world {
	t.Helper()
	dc := directory.DefaultConfig(t.TempDir())
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: dc, Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}})
	must(t, err)
	for _, f := range change {
		f(&dc)
	}
	w := &world{t: t, in: in}
	w.d, err = directory.Open(t.Context(), dc)
	must(t, err)
	t.Cleanup(func() { must(t, w.d.Close()) })
	w.p, err = authn.NewPeople(w.d, c)
	must(t, err)
	w.invite("anna")
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) invite(name string) {
	w.t.Helper()
	_, code, err := w.d.CreateUser(w.t.Context(), directory.By{ID: w.in.Principal}, "default", directory.NewUser{Name: name, Roles: []authz.Role{authz.Admin}})
	must(w.t, err)
	_, err = w.p.SetFirst(w.t.Context(), "default", name, code.ExposeString(), secret.FromString(goodPassword), home, unrecorded)
	must(w.t, err)
}

func (w *world) person() *directory.Person {
	_, p := w.d.Snapshot().Workspaces()[0].User("anna")
	return p
}

func (w *world) try(user, password, code string, from netip.Addr) (authn.Result, error) {
	return w.p.SignIn(w.t.Context(), authn.SignIn{Workspace: "default", User: user, Password: secret.FromString(password), Code: code, Source: from})
}

func (w *world) in1(code string) *directory.Session {
	w.t.Helper()
	res, err := w.try("anna", goodPassword, code, home)
	must(w.t, err)
	return res.Session
}

// factor gives anna a second factor.
func (w *world) factor() (s secret.Bytes, recovery []string) {
	w.t.Helper()
	session := w.in1("")
	s, err := w.d.BeginSecondFactor(w.t.Context(), w.person())
	must(w.t, err)
	codes, _, _, err := w.p.ProveFactor(w.t.Context(), session, totp.Code(s, totp.StepAt(time.Now())))
	must(w.t, err)
	for _, c := range codes {
		recovery = append(recovery, c.ExposeString())
	}
	return s, recovery
}

func code(err error) protocol.Code {
	var e *protocol.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// unhurried has delays that a slow machine's own slowness does not sit out.
func unhurried() authn.PeopleConfig {
	c := authn.DefaultPeopleConfig()
	c.Attempts.First = 5 * time.Minute
	return c
}

// F1: whoever is there or not costs the same number of slow hashes and gets the same text.
func TestUnknownUserTakesAsLongAndSaysTheSame(t *testing.T) {
	t.Run("F1 the same work", testUnknownUserTakesAsLongAndSaysTheSame)
}

func testUnknownUserTakesAsLongAndSaysTheSame(t *testing.T) {
	w := people(t, unhurried())
	w.invite("disabled")
	_, _, err := w.d.CreateUser(t.Context(), directory.By{ID: w.in.Principal}, "default", directory.NewUser{Name: "invited", Roles: []authz.Role{authz.Admin}})
	must(t, err)
	pr, _ := w.d.Snapshot().Workspaces()[0].User("disabled")
	must(t, w.d.SetPrincipalDisabled(t.Context(), "default", pr.ID, true))
	said := map[string]bool{}
	for _, c := range [][2]string{{"anna", "wrong"}, {"nobody", "wrong"}, {"invited", "wrong"}, {"disabled", goodPassword}, {"disabled", "wrong"}, {"admin", "wrong"}, {"anna", strings.Repeat("x", 1<<20)},
		{"nobody", "NUL\x00"}, {"anna", ""}, {strings.Repeat("n", 1000), "wrong"}} {
		before := w.p.Hashed()
		_, err := w.try(c[0], c[1], "", netip.MustParseAddr("198.51.100.1"))
		if n := w.p.Hashed() - before; n != 1 {
			t.Errorf("F1 %.10s costs %d hashes", c[0], n)
		}
		if code(err) != protocol.CodeUnauthenticated {
			t.Errorf("F1 %.10s: %v", c[0], err)
		}
		said[err.Error()+protocol.AsError(err).Hint] = true
		w.p.Forget()
	}
	if len(said) != 1 {
		t.Errorf("F1 %v", said)
	}
	// And once the attempts are slowed down, too.
	for _, user := range []string{"anna", "nobody"} {
		for range 10 {
			_, err = w.try(user, "wrong", "", netip.MustParseAddr("198.51.100.2"))
		}
		if code(err) != protocol.CodeRateLimited {
			t.Errorf("F1 %s is not slowed down: %v", user, err)
		}
		w.p.Forget()
	}
}

// A password with fewer rounds than are set now is hashed anew, once, and takes as long as the others until then.
func TestPasswordIsHashedAnewWhenTheRoundsRise(t *testing.T) {
	dir := ""
	w := people(t, authn.DefaultPeopleConfig(), func(c *directory.Config) { dir = c.Dir })
	w.in1("")
	must(t, w.d.Close())
	c := directory.DefaultConfig(dir)
	c.PasswordRounds = vault.MinRounds + 1000
	var err error
	w.d, err = directory.Open(t.Context(), c)
	must(t, err)
	w.p, err = authn.NewPeople(w.d, authn.DefaultPeopleConfig())
	must(t, err)
	for _, stale := range []bool{true, false} {
		ok, isStale, _ := w.d.VerifyPassword(w.person(), goodPassword)
		if !ok || isStale != stale {
			t.Errorf("verifies %v, stale %v, want stale %v", ok, isStale, stale)
		}
		w.in1("")
	}
	if _, err := w.try("anna", "wrong", "", home); err == nil {
		t.Error("another password is taken")
	}
	c.PasswordRounds = vault.MinRounds - 1
	if _, err := directory.Open(t.Context(), c); err == nil {
		t.Error("fewer rounds than 210,000 are taken")
	}
}

// F2: no variant of the name has attempts of its own.
func TestVariantsOfANameAreOneAccount(t *testing.T) {
	t.Run("F2 one count for a name's variants", testVariantsOfANameAreOneAccount)
}

func testVariantsOfANameAreOneAccount(t *testing.T) {
	w := people(t, unhurried())
	from := netip.MustParseAddr("198.51.100.1")
	for _, name := range []string{"anna", "Anna", " ANNA ", "anna\t"} {
		_, _ = w.try(name, "wrong", "", from)
	}
	if _, err := w.try("aNNa", "wrong", "", from); code(err) != protocol.CodeRateLimited {
		t.Error("F2", err)
	}
	if _, err := w.try("anna\x00", goodPassword, "", home); code(err) != protocol.CodeUnauthenticated {
		t.Error("F2", err)
	}
}

// F6: of any number of callers with the same code, one gets in.
func TestCodeCountsOnce(t *testing.T) {
	t.Run("F6 F10 a code counts once and in its time", testCodeCountsOnce)
}

func testCodeCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := people(t, authn.DefaultPeopleConfig())
		s, recovery := w.factor()
		time.Sleep(totp.Step) // the bubble's clock
		for what, c := range map[string]string{"a code": "", "a recovery code": recovery[3], "a recovery code as people type it": strings.ToUpper(strings.ReplaceAll(recovery[4], "-", " "))} {
			if c == "" {
				c = totp.Code(s, totp.StepAt(time.Now()))
			}
			var in atomic.Int64
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if _, err := w.try("anna", goodPassword, c, home); err == nil {
						in.Add(1)
					} else if code(err) != protocol.CodeUnauthenticated {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if in.Load() != 1 {
				t.Errorf("F6 %s counts %d times", what, in.Load())
			}
			time.Sleep(10 * time.Minute)
			w.p.Forget()
		}
		if w.person().Recovery != directory.RecoveryCodes-2 {
			t.Error(w.person().Recovery, "recovery codes left")
		}
		// A secret that no code proved in time is void.
		next, err := w.d.BeginSecondFactor(t.Context(), w.person())
		must(t, err)
		time.Sleep(15 * time.Minute)
		if _, err := w.d.ProveSecondFactor(t.Context(), w.person(), totp.Code(next, totp.StepAt(time.Now())), ""); !errors.Is(err, directory.ErrCode) {
			t.Error("a second factor is proven after its time:", err)
		}
		// F10
		for off, want := range map[int64]bool{-2: false, 1: true, 3: false} {
			_, err := w.try("anna", goodPassword, totp.Code(s, totp.StepAt(time.Now())+off), home)
			if (err == nil) != want {
				t.Errorf("F10 off by %d steps: %v", off, err)
			}
			time.Sleep(10 * time.Minute)
		}
	})
}

// F7: five wrong codes in five minutes, from wherever; a right password sets nothing back.
func TestCodesCannotBeGuessed(t *testing.T) { t.Run("F7 a few tries in all", testCodesCannotBeGuessed) }

func testCodesCannotBeGuessed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := people(t, authn.DefaultPeopleConfig())
		s, recovery := w.factor()
		time.Sleep(totp.Step)
		for i := range 5 {
			if _, err := w.try("anna", goodPassword, "000000", netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})); code(err) != protocol.CodeUnauthenticated {
				t.Error(err)
			}
			_, err := w.try("anna", goodPassword, "", netip.AddrFrom4([4]byte{198, 51, 101, byte(i)}))
			if e := protocol.AsError(err); e.Code != protocol.CodeUnauthenticated || e.Rule != authn.RuleCode {
				t.Error("F8 without a code:", err)
			}
		}
		for _, c := range []string{totp.Code(s, totp.StepAt(time.Now())), recovery[0], "000001"} {
			if _, err := w.try("anna", goodPassword, c, netip.MustParseAddr("203.0.113.9")); code(err) != protocol.CodeRateLimited {
				t.Error("F7 a sixth code:", err)
			}
		}
		time.Sleep(5 * time.Minute)
		w.in1(totp.Code(s, totp.StepAt(time.Now())))
	})
}

// P11: what was ended, has expired, idles or was disabled is refused, also in an open stream.
func TestRevokedSessionIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := people(t, authn.DefaultPeopleConfig())
		a := fresh(t, authn.DefaultConfig())
		begin := func(life, idle time.Duration) (header, id string) {
			res, err := w.p.SignIn(t.Context(), authn.SignIn{Workspace: "default", User: "anna", Password: secret.FromString(goodPassword), Source: home, Life: life, Idle: idle})
			must(t, err)
			return "Bearer " + res.Text.ExposeString(), res.Session.ID
		}
		check := func(what, header, id string, want bool) {
			t.Helper()
			p, err := a.Authenticate(t.Context(), w.d.Snapshot(), header, netip.Addr{})
			_, still := a.Still(w.d.Snapshot(), header, id)
			if (err == nil) != want || (still == nil) != want || want && (p.Token != id || p.Name != "anna") {
				t.Errorf("%s: %v, %v", what, err, still)
			}
			if !want {
				none := refused(t, func() error { _, err := a.Authenticate(t.Context(), w.d.Snapshot(), "", netip.Addr{}); return err }())
				if e := refused(t, err); e.Error() != none.Error() {
					t.Errorf("%s tells apart: %v", what, e)
				}
			}
		}
		h, id := begin(0, 0)
		check("live", h, id, true)
		hashed := a.Hashed()
		for range 100 {
			check("live", h, id, true)
		}
		if a.Hashed() != hashed {
			t.Error("a session costs a slow hash")
		}
		other, otherID := begin(0, 0)
		if _, err := a.Still(w.d.Snapshot(), h, otherID); err == nil {
			t.Error("another's stream")
		}
		must(t, w.d.EndSession(t.Context(), "default", id, ""))
		check("ended", h, id, false)
		check("the other", other, otherID, true)
		must(t, w.d.EndSessions(t.Context(), w.person(), ""))
		check("all ended", other, otherID, false)

		h, id = begin(time.Minute, 0)
		time.Sleep(59 * time.Second) // the bubble's clock
		check("before its end", h, id, true)
		time.Sleep(time.Second)
		check("expired", h, id, false)
		h, id = begin(0, 10*time.Minute)
		for range 3 {
			time.Sleep(9 * time.Minute)
			check("in use", h, id, true)
		}
		time.Sleep(10 * time.Minute)
		check("idle by its own wish", h, id, false)
		h, id = begin(0, 48*time.Hour)
		time.Sleep(directory.DefaultIdle)
		check("F idle beyond the workspace's time, whatever it wished", h, id, false)
		h, id = begin(48*time.Hour, 0)
		for range 24 {
			time.Sleep(30 * time.Minute)
			_, _ = a.Authenticate(t.Context(), w.d.Snapshot(), h, netip.Addr{})
		}
		check("beyond the workspace's absolute time, whatever it wished", h, id, false)

		h, id = begin(0, 0)
		time.Sleep(10 * time.Minute)
		check("before the policy", h, id, true)
		must(t, w.d.SetSignIn(t.Context(), "default", directory.SignIn{Absolute: 5 * time.Minute}))
		check("a shorter time reaches sessions that are there", h, id, false)
		must(t, w.d.SetSignIn(t.Context(), "default", directory.SignIn{}))
		h, id = begin(0, 0)
		must(t, w.d.SetPrincipalDisabled(t.Context(), "default", w.d.Snapshot().Session(id).Principal.ID, true))
		check("disabled", h, id, false)
		if _, err := a.Authenticate(t.Context(), &directory.Snapshot{Stale: true}, h, netip.Addr{}); code(err) != protocol.CodeUnavailable {
			t.Error("a state that cannot be read:", err)
		}
	})
}

func TestPasswordHistoryAndExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := people(t, authn.DefaultPeopleConfig())
		pol := directory.SignIn{}
		pol.History, pol.MaxAgeDays = 2, 30
		must(t, w.d.SetSignIn(t.Context(), "default", pol))
		s := w.in1("")
		change := func(old, text string) error {
			t, _, err := w.p.ChangePassword(t.Context(), s, home, secret.FromString(old), secret.FromString(text))
			if err == nil {
				s = t
			}
			return err
		}
		pw := func(i int) string { return fmt.Sprintf("kettle of fish number %d indeed", i) }
		if err := change(goodPassword, goodPassword); code(err) != protocol.CodeInvalid {
			t.Error("the present one comes back:", err)
		}
		if err := change("wrong kettle", pw(1)); code(err) != protocol.CodeDenied {
			t.Error("F without the present one:", err)
		}
		must(t, change(goodPassword, pw(1)))
		must(t, change(pw(1), pw(2)))
		if err := change(pw(2), pw(1)); code(err) != protocol.CodeInvalid {
			t.Error("an earlier one comes back:", err)
		}
		must(t, change(pw(2), pw(3)))
		must(t, change(pw(3), goodPassword)) // far enough back
		if what := s.Needs(time.Now()); what != "" {
			t.Error(what)
		}
		if what := s.Needs(time.Now().AddDate(0, 0, 31)); what != directory.NeedsPassword {
			t.Errorf("expired: %q", what)
		}
	})
}

// F15, F18: a one-time code ends by use, by time and by the next one, and whoever tries it at once gets it once.
func TestOneTimeCodeCountsOnce(t *testing.T) {
	t.Run("F13 F15 F18 a one-time code counts once and in its time", testOneTimeCodeCountsOnce)
}

func testOneTimeCodeCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := people(t, authn.DefaultPeopleConfig())
		pr, _ := w.d.Snapshot().Workspaces()[0].User("anna")
		issue := func() string {
			c, _, err := w.d.IssueCode(t.Context(), directory.By{ID: pr.ID}, "default", pr.ID, 0)
			must(t, err)
			return c.ExposeString()
		}
		set := func(c string) error {
			w.p.Forget()
			_, err := w.p.SetFirst(context.Background(), "default", "anna", c, secret.FromString("yet another kettle of fish"), home, unrecorded)
			return err
		}
		session := w.in1("")
		unwritten := errors.New("the record cannot be written")
		if _, err := w.p.SetFirst(t.Context(), "default", "anna", issue(), secret.FromString("yet another kettle of fish"), home, func(authn.Result) error { return unwritten }); err != unwritten {
			t.Error("P6 a password is set without a record:", err)
		}
		w.in1("") // it was not
		first := issue()
		second := issue()
		if err := set(first); code(err) != protocol.CodeUnauthenticated {
			t.Error("F15 the code before the last:", err)
		}
		w.in1("") // the password stays until the code is used
		var in atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if set(second) == nil {
					in.Add(1)
				}
			})
		}
		wg.Wait()
		if in.Load() != 1 {
			t.Errorf("F15 a code counts %d times", in.Load())
		}
		if w.d.Snapshot().Session(session.ID) != nil {
			t.Error("F13 a session outlives the new password")
		}
		third := issue()
		time.Sleep(directory.ResetLife) // the bubble's clock
		if err := set(third); code(err) != protocol.CodeUnauthenticated {
			t.Error("F15 an expired code:", err)
		}
	})
}

// A session or token that is shown from where the allowlist admits nobody was not used: tries from elsewhere keep no session from
// its idle time-out, and are not shown as the last address.
func TestWhoIsRefusedByTheAllowlistUsedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := people(t, authn.DefaultPeopleConfig())
		must(t, w.d.SetAllowlist(t.Context(), "default", []netip.Prefix{netip.PrefixFrom(home, home.BitLen())}, home, true))
		a := fresh(t, authn.DefaultConfig())
		res, err := w.p.SignIn(t.Context(), authn.SignIn{Workspace: "default", User: "anna", Password: secret.FromString(goodPassword), Source: home, Idle: 10 * time.Minute})
		must(t, err)
		token, _, ok := w.d.Snapshot().FindToken(w.in.Token.ExposeString())
		if !ok {
			t.Fatal("no token")
		}
		session := func() time.Time { return w.d.Snapshot().Session(res.Session.ID).LastUsed() }
		begun := session()
		ask := func(from netip.Addr) {
			t.Helper()
			for _, text := range []string{res.Text.ExposeString(), w.in.Token.ExposeString()} {
				_, err := a.Authenticate(t.Context(), w.d.Snapshot(), "Bearer "+text, from)
				must(t, err)
			}
		}
		time.Sleep(6 * time.Minute)
		ask(netip.MustParseAddr("203.0.113.99"))
		if !session().Equal(begun) || !token.LastUsed().IsZero() || token.LastSource().IsValid() {
			t.Errorf("used from off the allowlist: %v, %v from %v", session(), token.LastUsed(), token.LastSource())
		}
		ask(home)
		if !session().After(begun) || token.LastSource() != home {
			t.Errorf("not used from where it is admitted: %v, from %v", session(), token.LastSource())
		}
		time.Sleep(6 * time.Minute)
		ask(home)
		time.Sleep(6 * time.Minute)
		ask(netip.MustParseAddr("203.0.113.99"))
		time.Sleep(5 * time.Minute)
		refused(t, func() error {
			_, err := a.Authenticate(t.Context(), w.d.Snapshot(), "Bearer "+res.Text.ExposeString(), home)
			return err
		}())
	})
}
