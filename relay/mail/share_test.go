package mail_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/mail"
	"github.com/fairleadhq/fairlead/relay/mail/mailtest"
)

// However much anybody is told of other things, or others are, the notice of a new password goes.
func TestNoticesToSomebodyAreNotUsedUpByOthers(t *testing.T) {
	bubble(t, mailtest.Faults{}, func(c *mail.Config) { c.PerWorkspace, c.PerRecipient = 3, 2 }, func(t *testing.T, o *mail.Outbox, s *mailtest.Server, _ *logged, _ func()) {
		tell := func(to string, n mail.Notice) error {
			return o.Tell("wsp_1", "per_"+to, to, o.Notice(n, "default", "x", time.Now()))
		}
		for i := range 20 {
			must(t, tell(fmt.Sprintf("a%d@example.com", i), mail.AddressChanged))
			s.Next(t)
		}
		for i := range 5 {
			if err := tell("bert@example.com", mail.AddressChanged); (err == nil) != (i < 2) {
				t.Error(i, err)
			}
		}
		must(t, tell("bert@example.com", mail.PasswordChanged))
		must(t, tell("bert@example.com", mail.PasskeyAdded))
		for range 4 {
			s.Next(t)
		}
		s.None(t)
	})
}

// An address is what somebody says it is: who names another's uses up neither their notices nor their codes.
func TestWhoNamesAnothersAddressUsesUpNothingOfTheirs(t *testing.T) {
	bubble(t, mailtest.Faults{}, func(c *mail.Config) { c.PerRecipient = 2 }, func(t *testing.T, o *mail.Outbox, s *mailtest.Server, _ *logged, _ func()) {
		const to = "anna@example.com"
		tell := func(person string) error {
			return o.Tell("wsp_1", person, to, o.Notice(mail.PasswordChanged, "default", "x", time.Now()))
		}
		code := func(person string) error {
			p, err := o.Reserve("wsp_1", person, to)
			if err == nil {
				p.Send(o.Code(mail.Code{Workspace: "default", User: "x", Code: secret.FromString(canary), Person: person}))
			}
			return err
		}
		for _, person := range []string{"per_eve", "per_anna"} {
			for i := range 3 {
				for what, err := range map[string]error{"notice": tell(person), "code": code(person)} {
					if e := protocol.AsError(err); (err == nil) != (i < 2) || err != nil && e.Rule != mail.RuleLimit {
						t.Errorf("%s %d of %s: %v", what, i, person, err)
					}
				}
				if i < 2 {
					s.Next(t)
					s.Next(t)
				}
			}
		}
		for i := range 3 { // who is new has no id: the address bounds what strangers get, and counts for nobody who is there
			if err := code(""); (err == nil) != (i < 2) {
				t.Errorf("invitation %d: %v", i, err)
			}
		}
		s.Next(t)
		s.Next(t)
	})
}

// Who does things to others' accounts does no more than they are told of; what was not done is given back, and counts for nobody else.
func TestWhoChangesOthersAccountsHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := mail.DefaultConfig()
		c.Server, c.From, c.Link, c.PerWorkspace = "127.0.0.1:25", "fairlead@example.com", "https://relay.example.com", 3
		o, err := mail.New(c)
		must(t, err)
		for range 3 {
			p, err := o.Act("wsp_1", "usr_1", mail.AddressChanged)
			must(t, err)
			p.Release()
		}
		for i := range 4 {
			_, err := o.Act("wsp_1", "usr_1", mail.AddressChanged)
			if e := protocol.AsError(err); (err == nil) != (i < 3) || err != nil && (e.Code != protocol.CodeRateLimited || e.Rule != mail.RuleLimit || e.RetryAfterMs <= 0 || e.Hint == "") {
				t.Errorf("%d: %+v", i, err)
			}
		}
		for _, other := range [][2]string{{"wsp_1", "usr_2"}, {"wsp_2", "usr_1"}} {
			_, err := o.Act(other[0], other[1], mail.AddressChanged)
			must(t, err)
		}
		_, err = o.Act("wsp_1", "usr_1", mail.CodeGiven)
		must(t, err)
		time.Sleep(time.Hour)
		_, err = o.Act("wsp_1", "usr_1", mail.AddressChanged)
		must(t, err)
	})
}

// What somebody is told of is not done when there is no room for telling; what is done has its room, whatever else fills the queue.
func TestNobodyIsActedUponUntoldBecauseTheQueueIsFull(t *testing.T) {
	bubble(t, mailtest.Faults{Hang: true}, func(c *mail.Config) { c.Share, c.Least, c.PerRecipient = 3, 0, 2 }, func(t *testing.T, o *mail.Outbox, s *mailtest.Server, _ *logged, _ func()) {
		act := func() (*mail.Place, error) { return o.Act("wsp_1", "usr_1", mail.FactorRemoved) }
		tell := func(p *mail.Place, person string) error {
			return p.Tell(person, "anna@example.com", o.Notice(mail.FactorRemoved, "default", "anna", time.Now()))
		}
		full := func() {
			t.Helper()
			if _, err := act(); err == nil || protocol.AsError(err).Code != protocol.CodeUnavailable || protocol.AsError(err).Hint == "" {
				t.Error(err)
			}
		}
		a, err := act()
		must(t, err)
		for i := range 2 {
			_, err := o.Reserve("wsp_1", fmt.Sprint("per_", i), "bert@example.com")
			must(t, err)
		}
		full()
		if err := o.Tell("wsp_1", "per_anna", "anna@example.com", o.Notice(mail.PasswordChanged, "default", "anna", time.Now())); err == nil {
			t.Error("the queue is not full")
		}
		must(t, tell(a, "per_anna")) // its room was taken before
		s.Set(mailtest.Faults{NoTLS: true})
		if m := s.Next(t); m.To[0] != "anna@example.com" {
			t.Error(m.To)
		}
		synctest.Wait()
		b, err := act() // the room is back when it is sent, …
		must(t, err)
		full()
		b.Release() // … when it was not done, …
		for _, err := range []error{nil, errors.New("a third to one person")} {
			c, acted := act()
			must(t, acted)
			if got := tell(c, "per_anna"); (got == nil) != (err == nil) {
				t.Error(got, err)
			}
			if err == nil {
				s.Next(t)
				synctest.Wait()
			}
		}
		_, err = act() // … and when it could not be told for another reason
		must(t, err)
	})
}

// One workspace fills neither the queue of others nor their turns.
func TestOneWorkspaceTakesNoOthersRoomInTheQueue(t *testing.T) {
	bubble(t, mailtest.Faults{Hang: true}, func(c *mail.Config) {
		c.Workers, c.Queue, c.Share, c.Least, c.PerWorkspace, c.PerRecipient = 1, 20, 12, 2, 1000, 1000
	}, func(t *testing.T, o *mail.Outbox, s *mailtest.Server, _ *logged, _ func()) {
		reserve := func(workspace string) (*mail.Place, error) { return o.Reserve(workspace, "", "bert@example.com") }
		fill := func(workspace string, want int) {
			t.Helper()
			n := 0
			for {
				p, err := reserve(workspace)
				if err != nil {
					if e := protocol.AsError(err); e.Code != protocol.CodeUnavailable || e.Hint == "" {
						t.Errorf("%+v", err)
					}
					break
				}
				n++
				p.Send(mail.Message{Subject: workspace})
			}
			if n != want {
				t.Errorf("%s has room for %d, want %d", workspace, n, want)
			}
		}
		fill("wsp_1", 12)
		fill("wsp_2", 8)
		fill("wsp_3", 2) // there is no more, but it holds nothing yet
		if n := o.Counts().Waiting; n != 22 {
			t.Error(n)
		}
		synctest.Wait()
		s.Set(mailtest.Faults{NoTLS: true})
		var turns []string
		for range 6 {
			m := s.Next(t)
			for _, w := range []string{"wsp_1", "wsp_2", "wsp_3"} {
				if strings.Contains(m.Raw, "Subject: "+w) {
					turns = append(turns, w)
				}
			}
		}
		seen := map[string]int{}
		for _, w := range turns {
			seen[w]++
		}
		if seen["wsp_3"] != 2 || seen["wsp_2"] < 1 {
			t.Errorf("the last workspace waits for all others: %v", turns)
		}
		for range 16 {
			s.Next(t)
		}
		synctest.Wait()
		fill("wsp_1", 12) // what went is given back
	})
}

// A panic in what sends costs its letter, and not the relay; the log has neither address nor text.
func TestAPanicInSendingCostsOneLetterAlone(t *testing.T) {
	s, log := mailtest.Start(t, false, false, mailtest.Faults{}), &logged{}
	c := config(s, log)
	bad := true
	c.Workers = 1
	c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if bad {
			bad = false
			panic("bert@example.com " + canary)
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	o, _ := run(t, c)
	send(t, o, "bert@example.com", time.Now().Add(time.Hour))
	until(t, "it failed", func() bool { return o.State("per_1").Is == mail.Failed })
	if n := o.Counts(); n.Failed != 1 || n.Waiting != 0 || !strings.Contains(log.String(), "panicked") || !strings.Contains(log.String(), "panic=string") {
		t.Errorf("%+v %s", n, log)
	}
	noCanary(t, "the log", log.String())
	must(t, o.Tell("wsp_1", "per_anna", "anna@example.com", o.Notice(mail.PasswordChanged, "default", "anna", time.Now())))
	if m := s.Next(t); m.To[0] != "anna@example.com" {
		t.Error(m.To)
	}
}
