package directory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

func spki(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

func cert(serial string, key byte) directory.Certificate {
	return directory.Certificate{Serial: serial, SPKI: spki(key), NotAfter: time.Now().Add(time.Hour)}
}

func issues(serial string, key byte) func(string, string, string) (directory.Certificate, error) {
	return func(string, string, string) (directory.Certificate, error) { return cert(serial, key), nil }
}

func enrolment(key byte) directory.Enrolment {
	return directory.Enrolment{Hostname: "host", OS: "linux", Arch: "amd64", Version: "1", SPKI: spki(key), LogKey: spki(99),
		SourceAddress: netip.MustParseAddr("192.0.2.7")}
}

func joinToken(t testing.TB, d *directory.Directory) secret.Bytes {
	t.Helper()
	_, s, err := d.CreateJoinToken(t.Context(), "default", "default", 0, "")
	must(t, err)
	return s
}

func enroll(t testing.TB, d *directory.Directory, serial string, key byte) *directory.Agent {
	t.Helper()
	a, err := d.Enroll(t.Context(), joinToken(t, d), enrolment(key), issues(serial, key))
	must(t, err)
	return a
}

func TestEnrol(t *testing.T) {
	d, in := start(t)
	tok, text, err := d.CreateJoinToken(t.Context(), "default", "default", time.Hour, in.Principal)
	must(t, err)
	var said [3]string
	a, err := d.Enroll(t.Context(), text, enrolment(1), func(ws, group, agent string) (directory.Certificate, error) {
		said = [3]string{ws, group, agent}
		return cert("s1", 1), nil
	})
	must(t, err)
	if said != [3]string{in.Workspace, in.Group, a.ID} || a.State() != directory.AgentAwaiting || a.Name != "host" || len(a.Certificates) != 1 {
		t.Fatalf("%v %+v", said, a)
	}
	w, _ := d.Snapshot().Workspace("default")
	if j := w.JoinTokens[0]; j.ID != tok.ID || j.UsedBy != a.ID || j.UsedAt.IsZero() || j.CreatedBy != in.Principal {
		t.Fatalf("%+v", j)
	}
	if m := w.Members(in.Group); len(m) != 1 || m[0].ID != a.ID {
		t.Fatal(m)
	}

	t.Run("D10 a second agent is told that it was used", func(t *testing.T) {
		_, err := d.Enroll(t.Context(), text, enrolment(2), issues("s2", 2))
		want(t, err, protocol.CodeConflict)
	})
	t.Run("a lost answer can be asked for again with the same key", func(t *testing.T) {
		b, err := d.Enroll(t.Context(), text, enrolment(1), issues("s1b", 1))
		must(t, err)
		if b.ID != a.ID || len(b.Certificates) != 2 {
			t.Fatalf("%+v", b)
		}
	})
	t.Run("D10 not after the agent was connected", func(t *testing.T) {
		must(t, d.ProveCertificate(t.Context(), a.ID, "s1b"))
		_, err := d.Enroll(t.Context(), text, enrolment(1), issues("s1c", 1))
		want(t, err, protocol.CodeConflict)
	})
	t.Run("P11 not after the agent was disabled", func(t *testing.T) {
		text := joinToken(t, d)
		b, err := d.Enroll(t.Context(), text, enrolment(7), issues("s7", 7))
		must(t, err)
		must(t, d.DisableAgent(t.Context(), "default", b.ID))
		_, err = d.Enroll(t.Context(), text, enrolment(7), issues("s7b", 7))
		want(t, err, protocol.CodeConflict)
		must(t, d.DeleteAgent(t.Context(), "default", b.ID))
		_, err = d.Enroll(t.Context(), text, enrolment(7), issues("s7c", 7))
		want(t, err, protocol.CodeConflict)
	})
	t.Run("D10 unknown, guessed and empty", func(t *testing.T) {
		for _, s := range []string{"", "x", text.ExposeString()[1:], text.ExposeString() + "A", "' OR 1=1 --"} {
			_, err := d.Enroll(t.Context(), secret.FromString(s), enrolment(3), issues("s3", 3))
			want(t, err, protocol.CodeUnauthenticated)
		}
	})
	t.Run("D10 deleted", func(t *testing.T) {
		tok, text, err := d.CreateJoinToken(t.Context(), "default", "default", 0, "")
		must(t, err)
		must(t, d.DeleteJoinToken(t.Context(), "default", tok.ID))
		_, err = d.Enroll(t.Context(), text, enrolment(3), issues("s3", 3))
		want(t, err, protocol.CodeUnauthenticated)
		want(t, d.DeleteJoinToken(t.Context(), "default", tok.ID), protocol.CodeNotFound)
	})
	t.Run("D10 expired", func(t *testing.T) {
		_, text, err := d.CreateJoinToken(t.Context(), "default", "default", time.Second, "")
		must(t, err)
		var refused error
		eventually(t, "the token expires", func() bool {
			// The signer fails, so that a try before the end does not use the token up.
			_, refused = d.Enroll(context.Background(), text, enrolment(3), func(string, string, string) (directory.Certificate, error) {
				return directory.Certificate{}, errors.New("no")
			})
			var e *protocol.Error
			return errors.As(refused, &e)
		})
		want(t, refused, protocol.CodeUnauthenticated)
	})
	t.Run("a failed issue leaves the token and no agent", func(t *testing.T) {
		text := joinToken(t, d)
		boom := errors.New("boom")
		_, err := d.Enroll(t.Context(), text, enrolment(4), func(string, string, string) (directory.Certificate, error) {
			return directory.Certificate{}, boom
		})
		w, _ := d.Snapshot().Workspace("default")
		if !errors.Is(err, boom) || len(w.Agents) != 1 {
			t.Fatal(err, len(w.Agents))
		}
		_, err = d.Enroll(t.Context(), text, enrolment(4), issues("s4", 4))
		must(t, err)
	})
	t.Run("bad input", func(t *testing.T) {
		for name, f := range map[string]func(*directory.Enrolment){
			"no key":     func(e *directory.Enrolment) { e.SPKI = nil },
			"no log key": func(e *directory.Enrolment) { e.LogKey = []byte{1} },
			"escape":     func(e *directory.Enrolment) { e.Hostname = "a\x1b[2J" },
			"long":       func(e *directory.Enrolment) { e.Name = string(bytes.Repeat([]byte("n"), 129)) },
			"not UTF-8":  func(e *directory.Enrolment) { e.Version = "\xff" },
		} {
			e := enrolment(5)
			f(&e)
			_, err := d.Enroll(t.Context(), joinToken(t, d), e, issues("s5", 5))
			if err == nil {
				t.Error(name)
			}
			want(t, err, protocol.CodeInvalid)
		}
		for _, life := range []time.Duration{-1, 1, directory.MaxJoinTokenLife + 1} {
			_, _, err := d.CreateJoinToken(t.Context(), "default", "default", life, "")
			want(t, err, protocol.CodeInvalid)
		}
	})
}

func TestD10JoinTokenRaceHasOneWinner(t *testing.T) {
	d, _ := start(t)
	text := joinToken(t, d)
	var wg sync.WaitGroup
	errs := make([]error, 32)
	begin := make(chan struct{})
	for i := range errs {
		wg.Go(func() {
			<-begin
			_, errs[i] = d.Enroll(context.Background(), text, enrolment(byte(i+1)), issues(fmt.Sprint("s", i), byte(i+1)))
		})
	}
	close(begin)
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		want(t, err, protocol.CodeConflict)
	}
	w, _ := d.Snapshot().Workspace("default")
	if won != 1 || len(w.Agents) != 1 {
		t.Fatalf("%d winners, %d agents", won, len(w.Agents))
	}
}

func TestCertificates(t *testing.T) {
	d, in := start(t)
	a := enroll(t, d, "s1", 1)
	good := func(serial string, key byte) error {
		return d.Snapshot().CheckCertificate(in.Workspace, in.Group, a.ID, serial, spki(key), time.Now())
	}
	must(t, good("s1", 1))
	must(t, d.ProveCertificate(t.Context(), a.ID, "s1"))
	t.Run("a lookalike is refused", func(t *testing.T) {
		s, at := d.Snapshot(), time.Now()
		for name, err := range map[string]error{
			"serial":    good("s2", 1),
			"key":       good("s1", 2),
			"workspace": s.CheckCertificate("ws_b", in.Group, a.ID, "s1", spki(1), at),
			"group":     s.CheckCertificate(in.Workspace, "grp_b", a.ID, "s1", spki(1), at),
			"agent":     s.CheckCertificate(in.Workspace, in.Group, "agt_b", "s1", spki(1), at),
			"expired":   s.CheckCertificate(in.Workspace, in.Group, a.ID, "s1", spki(1), at.Add(2*time.Hour)),
		} {
			if err == nil {
				t.Error(name)
			}
			want(t, err, protocol.CodeDenied)
		}
	})
	t.Run("renewal overlaps until the new one is proven", func(t *testing.T) {
		must(t, d.RecordCertificate(t.Context(), a.ID, cert("s2", 2)))
		must(t, good("s1", 1))
		must(t, good("s2", 2))
		gen := d.Snapshot().Generation
		must(t, d.ProveCertificate(t.Context(), a.ID, "s1")) // another tunnel with the old one changes nothing
		if d.Snapshot().Generation != gen {
			t.Fatal("a proven certificate costs a write")
		}
		must(t, good("s2", 2))
		must(t, d.ProveCertificate(t.Context(), a.ID, "s2"))
		want(t, good("s1", 1), protocol.CodeDenied)
		must(t, good("s2", 2))
	})
	t.Run("lost answers of renewals do not pile up and do not cost the one in use", func(t *testing.T) {
		for i := range 10 {
			must(t, d.RecordCertificate(t.Context(), a.ID, cert(fmt.Sprint("lost", i), byte(10+i))))
		}
		must(t, good("s2", 2))
		must(t, good("lost9", 19))
		must(t, good("lost8", 18))
		want(t, good("lost7", 17), protocol.CodeDenied)
		if n := len(d.Snapshot().Agent(a.ID).Certificates); n != 3 {
			t.Fatal(n)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		want(t, d.RecordCertificate(t.Context(), "agt_none", cert("x", 1)), protocol.CodeNotFound)
		want(t, d.ProveCertificate(t.Context(), "agt_none", "x"), protocol.CodeNotFound)
		want(t, d.ProveCertificate(t.Context(), a.ID, "none"), protocol.CodeNotFound)
	})
}

// Agents that come together share transactions, and what is wrong with one is not the others' fault.
func TestCertificatesAreProvenTogether(t *testing.T) {
	d, _ := start(t)
	const n = 40
	agents := make([]string, n)
	for i := range n {
		agents[i] = enroll(t, d, fmt.Sprint("s", i), byte(i)).ID
	}
	gen := d.Snapshot().Generation
	waiting, release := directory.HoldProofs(d)
	errs := make(chan error, 2*n)
	for i, a := range agents {
		go func() { errs <- d.ProveCertificate(t.Context(), a, fmt.Sprint("s", i)) }()
		go func() { errs <- d.ProveCertificate(t.Context(), a, "none") }()
	}
	for waiting() < 2*n {
		runtime.Gosched()
	}
	release()
	failed := 0
	for range 2 * n {
		if err := <-errs; err != nil {
			want(t, err, protocol.CodeNotFound)
			failed++
		}
	}
	if failed != n {
		t.Errorf("%d of %d wrong serials were refused", failed, n)
	}
	snap := d.Snapshot()
	for _, a := range agents {
		if c := snap.Agent(a).Certificates; len(c) != 1 || c[0].Proven.IsZero() {
			t.Errorf("%s: %+v", a, c)
		}
	}
	if snap.Generation != gen+1 {
		t.Errorf("%d transactions", snap.Generation-gen)
	}
}

func TestP11DisablingAnAgentIsInForceAtOnce(t *testing.T) {
	d, in := start(t)
	a := enroll(t, d, "s1", 1)
	check := func() error {
		return d.Snapshot().CheckCertificate(in.Workspace, in.Group, a.ID, "s1", spki(1), time.Now())
	}
	changed := d.Changed()
	must(t, d.DisableAgent(t.Context(), "default", a.ID))
	select {
	case <-changed:
	default:
		t.Fatal("the hub is not told")
	}
	want(t, check(), protocol.CodeDenied)
	if d.Snapshot().Agent(a.ID).State() != directory.AgentDisabled {
		t.Fatal("not disabled")
	}
	must(t, d.EnableAgent(t.Context(), in.Workspace, a.ID))
	must(t, check())
	if s := d.Snapshot().Agent(a.ID).State(); s != directory.AgentAwaiting {
		t.Fatal(s)
	}
	must(t, d.SetAuditCursors(t.Context(), map[string]protocol.LogHead{a.ID: {Seq: 3, Hash: "h"}}))
	must(t, d.DeleteAgent(t.Context(), "default", a.ID))
	want(t, check(), protocol.CodeDenied)
	if h, err := d.AuditCursor(t.Context(), a.ID); err != nil || h.Seq != 0 {
		t.Fatal("the cursor is left", h, err)
	}
	for _, f := range []func(context.Context, string, string) error{d.DisableAgent, d.EnableAgent, d.DeleteAgent} {
		want(t, f(t.Context(), "default", a.ID), protocol.CodeNotFound)
		want(t, f(t.Context(), "none", a.ID), protocol.CodeNotFound)
	}
}

func TestSeeingAnAgentIsNotAWrite(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	c.Flush = time.Hour
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	a := enroll(t, d, "s1", 1)
	before := d.Snapshot()
	facts := directory.Facts{Hostname: "h2", Version: "2", ConfigDigest: "sha256:x", SourceAddress: netip.MustParseAddr("2001:db8::1"),
		Profiles: []protocol.ProfileOffer{{Name: "sales", Kind: protocol.KindDatabase, Operations: []protocol.Operation{protocol.OpQuery}}}}
	for range 1000 {
		d.AgentSeen(a.ID, facts)
		d.TouchAgent(a.ID)
	}
	d.AgentSeen("agt_none", facts)
	d.TouchAgent("agt_none")
	if d.Snapshot() != before {
		t.Fatal("a heartbeat makes a new snapshot")
	}
	first, last := a.Seen()
	if a.State() != directory.AgentActive || a.Latest().Version != "2" || first.IsZero() || last.Before(first) {
		t.Fatal("what was seen is not to be read", a.State(), first, last)
	}
	// Disabling in between reads the state as it is known, and what was seen is not lost by it.
	must(t, d.DisableAgent(t.Context(), "default", a.ID))
	must(t, d.EnableAgent(t.Context(), "default", a.ID))
	if now := d.Snapshot().Agent(a.ID); now.State() != directory.AgentActive || now.Latest().Version != "2" {
		t.Fatal(now.State(), now.Latest())
	}
	must(t, d.Close())

	d = reopen(t, c)
	again := d.Snapshot().Agent(a.ID)
	f2, l2 := again.Seen()
	if again.State() != directory.AgentActive || !f2.Equal(first) || l2.Before(last) || again.Latest().Profiles[0].Name != "sales" ||
		again.Latest().SourceAddress != facts.SourceAddress {
		t.Fatalf("not written at the end: %v %v %+v", f2, l2, again.Latest())
	}
}

func TestWhatAnAgentSaysIsBounded(t *testing.T) {
	d, _ := start(t)
	a := enroll(t, d, "s1", 1)
	d.AgentSeen(a.ID, directory.Facts{Hostname: strings.Repeat("h", 1<<20), ReloadError: strings.Repeat("\u00e9", 1<<10) + "\xff",
		Profiles: make([]protocol.ProfileOffer, 5000)})
	f := a.Latest()
	if len(f.Hostname) > 512 || len(f.ReloadError) > 512 || len(f.Profiles) > 1000 || !utf8.ValidString(f.ReloadError) {
		t.Fatal(len(f.Hostname), len(f.ReloadError), len(f.Profiles))
	}
}

func TestAuditCursor(t *testing.T) {
	d, _ := start(t)
	a := enroll(t, d, "s1", 1)
	if h, err := d.AuditCursor(t.Context(), a.ID); err != nil || h != (protocol.LogHead{}) {
		t.Fatal(h, err)
	}
	before := d.Snapshot()
	set := func(agent string, h protocol.LogHead) error {
		return d.SetAuditCursors(t.Context(), map[string]protocol.LogHead{agent: h})
	}
	must(t, set(a.ID, protocol.LogHead{Seq: 7, Hash: "h7"}))
	if d.Snapshot() != before {
		t.Fatal("a cursor makes a new snapshot")
	}
	// What moves back and what belongs to nobody does not keep the others from their place.
	b := enroll(t, d, "s2", 2)
	must(t, d.SetAuditCursors(t.Context(), map[string]protocol.LogHead{a.ID: {Seq: 6, Hash: "h6"}, "agt_none": {Seq: 1, Hash: "h"}, b.ID: {Seq: 2, Hash: "b2"}}))
	must(t, set(a.ID, protocol.LogHead{Seq: 7, Hash: "other"}))
	for id, want := range map[string]protocol.LogHead{a.ID: {Seq: 7, Hash: "h7"}, b.ID: {Seq: 2, Hash: "b2"}, "agt_none": {}} {
		if h, err := d.AuditCursor(t.Context(), id); err != nil || h != want {
			t.Fatal(id, h, err)
		}
	}
	want(t, set(a.ID, protocol.LogHead{Seq: 1 << 63, Hash: "h"}), protocol.CodeInvalid)
	want(t, set(a.ID, protocol.LogHead{Seq: 8}), protocol.CodeInvalid)
}

// A join token is worth no more than its maker: nobody leaves one behind that counts when they are gone.
func TestAJoinTokenCountsWhileItsMakerMayMakeOne(t *testing.T) {
	d, in := start(t)
	owner := directory.By{ID: in.Principal}
	agents := func() int {
		w, err := d.Snapshot().Workspace("default")
		must(t, err)
		return len(w.Agents)
	}
	makes := func(name string, n directory.NewGrant) (p *directory.Principal, g *directory.Grant, text secret.Bytes) {
		t.Helper()
		p, _, err := d.CreateUser(t.Context(), owner, "default", directory.NewUser{Name: name, Roles: []authz.Role{authz.Analyst}})
		must(t, err)
		n.Principal = p.ID
		g, err = d.CreateGrant(t.Context(), owner, "default", n)
		must(t, err)
		_, text, err = d.CreateJoinToken(t.Context(), "default", "default", 0, p.ID)
		must(t, err)
		return p, g, text
	}
	key := byte(20)
	refused := func(what string, text secret.Bytes) {
		t.Helper()
		key++
		was := agents()
		_, err := d.Enroll(t.Context(), text, enrolment(key), issues("r"+what, key))
		if want(t, err, protocol.CodeUnauthenticated); !strings.Contains(err.Error(), "counts no more") || agents() != was {
			t.Errorf("%s: %v", what, err)
		}
	}
	joins := func(text secret.Bytes) {
		t.Helper()
		key++
		_, err := d.Enroll(t.Context(), text, enrolment(key), issues("j"+string(key), key))
		must(t, err)
	}
	operator := directory.NewGrant{Role: "operator"}
	p, g, text := makes("anna", operator)
	must(t, d.SetPrincipalDisabled(t.Context(), "default", p.ID, true))
	refused("disabled", text)
	must(t, d.SetPrincipalDisabled(t.Context(), "default", p.ID, false))
	joins(text)
	_, err := d.Enroll(t.Context(), text, enrolment(key), issues("again", key)) // the answer was lost
	must(t, err)
	must(t, d.DeleteGrant(t.Context(), owner, "default", g.ID))
	_, err = d.Enroll(t.Context(), text, enrolment(key), issues("late", key))
	want(t, err, protocol.CodeUnauthenticated)

	_, g, text = makes("bert", operator)
	must(t, d.DeleteGrant(t.Context(), owner, "default", g.ID))
	refused("a grant that was taken", text)
	_, _, text = makes("cleo", directory.NewGrant{Role: "operator", Environment: authz.Production})
	refused("another environment than the group's", text)
	p, _, text = makes("dora", operator)
	must(t, d.RemoveUser(t.Context(), "default", p.ID))
	refused("gone", text)
	_, _, text = makes("emil", directory.NewGrant{Role: "operator", From: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}})
	joins(text) // from where its maker might is not the agent's
}
