package mail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/mail"
	"github.com/fairleadhq/fairlead/relay/mail/mailtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "fli_canary-of-a-one-time-code"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logged is a log that tests can read.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func config(s *mailtest.Server, log *logged) mail.Config {
	c := mail.DefaultConfig()
	c.Server, c.From, c.Link, c.Roots = s.Addr, "fairlead@example.com", "https://relay.example.com", s.Roots
	c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return c
}

func signedIn(c mail.Config, password string) mail.Config {
	c.User, c.Password = mailtest.User, func() (secret.Bytes, error) { return secret.FromString(password), nil }
	return c
}

// run makes an outbox and runs it until the test, or stop, ends it.
func run(t testing.TB, c mail.Config) (o *mail.Outbox, stop func()) {
	t.Helper()
	o, err := mail.New(c)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); o.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return o, stop
}

func send(t testing.TB, o *mail.Outbox, to string, until time.Time) {
	t.Helper()
	p, err := o.Reserve("wsp_1", "", to)
	must(t, err)
	p.Send(o.Code(mail.Code{Workspace: "default", User: "bert", Code: secret.FromString(canary), Until: until, Person: "per_1"}))
}

func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	end := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal(what)
		}
	}
}

// noCanary fails when the code, the password or the address stands where it must not.
func noCanary(t testing.TB, where, text string) {
	t.Helper()
	for _, s := range []string{canary, mailtest.Password, "bert@example.com"} {
		if strings.Contains(text, s) {
			t.Errorf("%s holds %q: %s", where, s, text)
		}
	}
}

func TestTheMessageIsPlainAndForOnePerson(t *testing.T) {
	for name, implicit := range map[string]bool{"starttls": false, "implicit": true} {
		t.Run(name, func(t *testing.T) {
			log := &logged{}
			s := mailtest.Start(t, implicit, true, mailtest.Faults{})
			c := signedIn(config(s, log), mailtest.Password)
			c.TLS = name
			o, _ := run(t, c)
			send(t, o, "bert@EXAMPLE.com", time.Now().Add(time.Hour))
			m := s.Next(t)
			if m.From != c.From || !slices.Equal(m.To, []string{"bert@example.com"}) || m.User != mailtest.User || !m.TLS {
				t.Errorf("%+v", m)
			}
			h := m.Header
			if _, err := h.Date(); err != nil || h.Get("To") != "<bert@example.com>" || h.Get("Auto-Submitted") != "auto-generated" || !strings.HasSuffix(h.Get("Message-Id"), "@example.com>") ||
				!strings.HasPrefix(h.Get("Content-Type"), "text/plain") || h.Get("Cc") != "" || h.Get("User-Agent") != "" || h.Get("X-Mailer") != "" {
				t.Errorf("%v", h)
			}
			if !strings.Contains(m.Text, "\nhttps://relay.example.com/account/first#workspace=default&user=bert&code="+canary+"\n") || !strings.Contains(m.Text, "fairlead login --relay relay.example.com:443 --workspace default --user bert --first\n") ||
				strings.Contains(m.Header.Get("Subject"), "bert") {
				t.Error(m.Text)
			}
			until(t, "it is sent", func() bool { return o.State("per_1").Is == mail.Sent })
			if n := o.Counts(); n.Sent != 1 || n.Waiting != 0 {
				t.Errorf("%+v", n)
			}
			noCanary(t, "the log", log.String())
		})
	}
}

// Whatever is wrong, nothing goes in clear or to who cannot prove to be the server, and each fault tells its step.
func TestEachFaultTellsItsStep(t *testing.T) {
	for _, c := range []struct {
		name     string
		implicit bool
		faults   mailtest.Faults
		edit     func(*mail.Config)
		step     mail.Step
		code     int
		final    bool
	}{
		{"a server without STARTTLS gets nothing", false, mailtest.Faults{NoTLS: true}, nil, mail.Secure, 0, false},
		{"nor does one whose certificate nobody signed", false, mailtest.Faults{}, func(c *mail.Config) { c.Roots = nil }, mail.Secure, 0, false},
		{"nor one with implicit TLS", true, mailtest.Faults{}, func(c *mail.Config) { c.Roots, c.TLS = nil, mail.Implicit }, mail.Secure, 0, false},
		{"nor one of another name", false, mailtest.Faults{}, func(c *mail.Config) {
			addr := c.Server
			c.Server = "mail.example.com:25"
			c.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			}
		}, mail.Secure, 0, false},
		{"a wrong password", false, mailtest.Faults{}, func(c *mail.Config) { *c = signedIn(*c, "canary-wrong") }, mail.SignIn, 535, false},
		{"a password that cannot be read", false, mailtest.Faults{}, func(c *mail.Config) {
			c.User, c.Password = "u", func() (secret.Bytes, error) { return secret.Bytes{}, errors.New("gone") }
		}, mail.SignIn, 0, false},
		{"no sign-in where one is wanted", false, mailtest.Faults{}, func(c *mail.Config) { c.User = "" }, mail.Sender, 502, true},
		{"a refused recipient", false, mailtest.Faults{Recipient: mailtest.Refusal(550, "no bert@example.com here")}, nil, mail.Recipient, 550, true},
		{"a recipient for later", false, mailtest.Faults{Recipient: mailtest.Refusal(451, "grey bert@example.com")}, nil, mail.Recipient, 451, false},
		{"a refused message", false, mailtest.Faults{Content: mailtest.Refusal(554, "spam")}, nil, mail.Content, 554, true},
		{"nobody there", false, mailtest.Faults{}, func(c *mail.Config) { c.Server = "127.0.0.1:1" }, mail.Connect, 0, false},
		{"no such name", false, mailtest.Faults{}, func(c *mail.Config) {
			c.Dial = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.DNSError{Err: "no such host"}
			}
		}, mail.Resolve, 0, false},
		{"a server that hangs", false, mailtest.Faults{Hang: true}, func(c *mail.Config) { c.Timeout = 300 * time.Millisecond }, mail.Recipient, 0, false},
		{"TLS where none is spoken", true, mailtest.Faults{}, func(c *mail.Config) { c.Timeout = 300 * time.Millisecond }, mail.Greet, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &logged{}
			s := mailtest.Start(t, c.implicit, true, c.faults)
			conf := signedIn(config(s, log), mailtest.Password)
			if c.edit != nil {
				c.edit(&conf)
			}
			var steps []mail.Step
			err := mail.Try(t.Context(), conf, "bert@example.com", func(s mail.Step) { steps = append(steps, s) })
			f := (*mail.Fault)(nil)
			if !errors.As(err, &f) || f.Step != c.step || f.Code != c.code || f.Final != c.final || f.Hint() == "" || slices.Contains(steps, c.step) {
				t.Fatalf("%#v after %v", err, steps)
			}
			noCanary(t, "the fault", f.Error())
			s.None(t)
		})
	}
}

func TestTheTestMessagePassesEachStep(t *testing.T) {
	s := mailtest.Start(t, false, true, mailtest.Faults{})
	var steps []mail.Step
	must(t, mail.Try(t.Context(), signedIn(config(s, &logged{}), mailtest.Password), "bert@example.com", func(s mail.Step) { steps = append(steps, s) }))
	if want := []mail.Step{mail.Resolve, mail.Connect, mail.Greet, mail.Secure, mail.SignIn, mail.Sender, mail.Recipient, mail.Content}; !slices.Equal(steps, want) {
		t.Error(steps)
	}
	if m := s.Next(t); !strings.Contains(m.Text, "test message") {
		t.Error(m.Text)
	}
	clear := mailtest.Start(t, false, false, mailtest.Faults{NoTLS: true})
	c := config(clear, &logged{})
	c.TLS = mail.Clear
	must(t, mail.Try(t.Context(), c, "bert@example.com", func(mail.Step) {}))
}

func TestNoAddressEndsALineOrIsTwo(t *testing.T) {
	for _, s := range []string{"", "bert", "bert@", "@example.com", "bert@example.com\r\nBcc: eve@example.com", "bert@example.com\n", "bert@exa mple.com", "<bert@example.com>", "Bert <bert@example.com>",
		"bert@example.com,eve@example.com", `"b\r\n"@example.com`, "bert@example..com", "bert@-example.com", "b..t@example.com", ".b@example.com", "bert@exämple.com", "bért@example.com", "bert@[127.0.0.1]",
		"bert@example.com> NOTIFY=NEVER", strings.Repeat("b", 65) + "@example.com", "bert@" + strings.Repeat("a.", 130) + "com", "bert@eve@example.com", "bert\x00@example.com"} {
		if got, err := mail.Address(s); err == nil {
			t.Errorf("%q passed as %q", s, got)
		}
	}
	if got, err := mail.Address("Bert.o'Neil+x@Mail.EXAMPLE.com"); err != nil || got != "Bert.o'Neil+x@mail.example.com" {
		t.Error(got, err)
	}
	if m := mail.Mask("bert@example.com"); m != "b***@example.com" || mail.Mask("") != "" {
		t.Error(m)
	}
}

func TestClearTextIsForThisMachineAlone(t *testing.T) {
	for server, ok := range map[string]bool{"127.0.0.1:25": true, "[::1]:25": true, "localhost:25": false, "192.0.2.1:25": false, "mail.example.com:25": false, "127.0.0.1": false} {
		if err := mail.CheckServer(server, mail.Clear); (err == nil) != ok {
			t.Errorf("%s: %v", server, err)
		}
	}
	for link, ok := range map[string]bool{"https://relay.example.com": true, "https://relay.example.com:8443/": true, "http://relay.example.com": false, "https://": false, "https://a/b": false, "https://a?x": false,
		"https://a#x": false, "https://u@a": false, "relay.example.com": false, "https://a\n": false} {
		if err := mail.CheckLink(link); (err == nil) != ok {
			t.Errorf("%q: %v", link, err)
		}
	}
}

// pipes is a listener whose conns are pipes: in a bubble, time passes while they wait.
type pipes struct {
	conns chan net.Conn
	over  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.over) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	a, b := net.Pipe()
	p.conns <- b
	return a, nil
}

// bubble serves through pipes, in clear: what is tested is the time.
func bubble(t *testing.T, f mailtest.Faults, edit func(*mail.Config), do func(*testing.T, *mail.Outbox, *mailtest.Server, *logged, func())) {
	synctest.Test(t, func(t *testing.T) {
		ln, log := &pipes{conns: make(chan net.Conn, 10), over: make(chan struct{})}, &logged{}
		f.NoTLS = true
		s := mailtest.Serve(t, ln, false, false, f)
		s.Patience = 10 * time.Hour
		c := config(s, log)
		c.TLS, c.Dial = mail.Clear, ln.dial
		if edit != nil {
			edit(&c)
		}
		o, stop := run(t, c)
		do(t, o, s, log, stop)
		noCanary(t, "the log", log.String())
	})
}

func TestGreylistedIsTriedAgainAndLater(t *testing.T) {
	bubble(t, mailtest.Faults{Recipient: mailtest.Refusal(451, "later, bert@example.com"), Times: 3}, nil, func(t *testing.T, o *mail.Outbox, s *mailtest.Server, log *logged, _ func()) {
		began := time.Now()
		send(t, o, "bert@example.com", began.Add(time.Hour))
		synctest.Wait()
		if st := o.State("per_1"); st.Is != mail.Waiting || !strings.Contains(st.Why, "recipient (451)") {
			t.Errorf("%+v", st)
		}
		if m := s.Next(t); !strings.Contains(m.Text, canary) {
			t.Error(m.Text)
		}
		if took := time.Since(began); took < 7*time.Minute || took > 8*time.Minute { // after 1, 2 and 4 minutes
			t.Error(took)
		}
		synctest.Wait()
		if st, n := o.State("per_1"), o.Counts(); st.Is != mail.Sent || n.Retried != 3 || n.Sent != 1 || n.Waiting != 0 {
			t.Errorf("%+v %+v", st, n)
		}
	})
}

func TestRefusedForGoodIsNotTriedAgain(t *testing.T) {
	bubble(t, mailtest.Faults{Recipient: mailtest.Refusal(550, "no bert@example.com")}, nil, func(t *testing.T, o *mail.Outbox, s *mailtest.Server, log *logged, _ func()) {
		send(t, o, "bert@example.com", time.Now().Add(10*time.Hour))
		time.Sleep(9 * time.Hour)
		if st, n := o.State("per_1"), o.Counts(); st.Is != mail.Failed || !strings.Contains(st.Why, "550") || s.Tries() != 1 || n.Failed != 1 || n.Waiting != 0 || !strings.Contains(log.String(), "refused for good") {
			t.Errorf("%+v %+v %d %s", st, n, s.Tries(), log)
		}
	})
}

func TestACodeIsNotSentWhenItCountsNoMore(t *testing.T) {
	bubble(t, mailtest.Faults{Recipient: mailtest.Refusal(451, "later")}, nil, func(t *testing.T, o *mail.Outbox, s *mailtest.Server, _ *logged, _ func()) {
		send(t, o, "bert@example.com", time.Now().Add(10*time.Minute))
		time.Sleep(20 * time.Minute)
		if st, n := o.State("per_1"), o.Counts(); st.Is != mail.Failed || !strings.Contains(st.Why, "451") || s.Tries() != 4 || n.Expired != 1 || n.Waiting != 0 {
			t.Errorf("%+v %+v %d", st, n, s.Tries())
		}
		// Without an end of its own it is given up.
		must(t, o.Tell("wsp_1", "per_bert", "bert@example.com", o.Notice(mail.PasswordChanged, "default", "bert", time.Now())))
		time.Sleep(6 * time.Hour)
		if n := o.Counts(); n.Expired != 2 || n.Waiting != 0 {
			t.Errorf("%+v", n)
		}
		// A later code takes the place of one that waits.
		s.Set(mailtest.Faults{NoTLS: true, Recipient: mailtest.Refusal(451, "later"), Times: 1})
		send(t, o, "bert@example.com", time.Now().Add(time.Hour))
		synctest.Wait()
		send(t, o, "bert@example.com", time.Now().Add(2*time.Hour))
		time.Sleep(time.Hour)
		s.Next(t)
		s.None(t)
		s.Set(mailtest.Faults{NoTLS: true, Recipient: mailtest.Refusal(451, "later"), Times: 1})
		send(t, o, "bert@example.com", time.Now().Add(time.Hour))
		synctest.Wait()
		o.Drop("per_1")
		time.Sleep(time.Hour)
		s.None(t)
		if st := o.State("per_1"); st != (mail.State{}) || o.Counts().Waiting != 0 {
			t.Errorf("%+v %+v", st, o.Counts())
		}
	})
}

func TestAServerThatHangsHoldsUpNoOther(t *testing.T) {
	bubble(t, mailtest.Faults{Hang: true}, func(c *mail.Config) { c.Workers = 1 }, func(t *testing.T, o *mail.Outbox, s *mailtest.Server, log *logged, stop func()) {
		began := time.Now()
		send(t, o, "bert@example.com", time.Now().Add(time.Hour))
		synctest.Wait()
		s.Set(mailtest.Faults{NoTLS: true})
		o.Tell("wsp_1", "per_anna", "anna@example.com", o.Notice(mail.FactorAdded, "default", "anna", time.Now()))
		if m := s.Next(t); m.To[0] != "anna@example.com" || time.Since(began) > 61*time.Second {
			t.Error(m.To, time.Since(began))
		}
		s.Next(t) // the other, a minute later
		s.Set(mailtest.Faults{NoTLS: true, Hang: true})
		send(t, o, "bert@example.com", time.Now().Add(time.Hour))
		synctest.Wait()
		at := time.Now()
		stop() // at once, whatever the server does
		if time.Since(at) > time.Second || !strings.Contains(log.String(), "messages=1") {
			t.Error(time.Since(at), log)
		}
	})
}

func TestAFloodIsRefused(t *testing.T) {
	bubble(t, mailtest.Faults{}, func(c *mail.Config) { c.PerWorkspace, c.PerRecipient, c.Queue, c.Least = 3, 2, 5, 0 }, func(t *testing.T, o *mail.Outbox, s *mailtest.Server, log *logged, _ func()) {
		refused := func(workspace, to string, code protocol.Code, rule string) {
			t.Helper()
			_, err := o.Reserve(workspace, "", to)
			if e := protocol.AsError(err); err == nil || e.Code != code || e.Rule != rule || e.Hint == "" || code == protocol.CodeRateLimited && (e.RetryAfterMs <= 0 || e.RetryAfterMs > 3_600_000) {
				t.Errorf("%+v", err)
			}
		}
		var held []*mail.Place
		reserve := func(workspace, to string) *mail.Place {
			t.Helper()
			p, err := o.Reserve(workspace, "", to)
			must(t, err)
			held = append(held, p)
			return p
		}
		a := reserve("wsp_1", "bert@example.com")
		time.Sleep(time.Minute)
		reserve("wsp_1", "BERT@example.com")
		refused("wsp_1", "bert@example.com", protocol.CodeRateLimited, mail.RuleLimit)
		reserve("wsp_1", "anna@example.com")
		refused("wsp_1", "carl@example.com", protocol.CodeRateLimited, mail.RuleLimit)
		b := reserve("wsp_2", "bert@example.com") // another workspace knows nothing of it
		a.Release()
		a = reserve("wsp_1", "bert@example.com")
		refused("wsp_1", "bert@example.com", protocol.CodeRateLimited, mail.RuleLimit)
		reserve("wsp_2", "bert@example.com")
		refused("wsp_3", "bert@example.com", protocol.CodeUnavailable, "") // the queue is full
		b.Release()
		// Notices have bounds of their own.
		o.Tell("wsp_1", "per_bert", "bert@example.com", o.Notice(mail.PasswordChanged, "default", "bert", time.Now()))
		s.Next(t)
		time.Sleep(59 * time.Minute)
		refused("wsp_1", "bert@example.com", protocol.CodeRateLimited, mail.RuleLimit)
		a.Release()
		time.Sleep(time.Minute)
		reserve("wsp_1", "bert@example.com")
		if n := o.Counts(); n.Limited != 5 {
			t.Errorf("%+v", n)
		}
		for _, i := range []int{1, 2, 5, 6} { // a and b are back
			held[i].Release()
		}
		for i := range 3 {
			o.Tell("wsp_9", fmt.Sprint("per_", i%2), fmt.Sprintf("a%d@example.com", i%2), o.Notice(mail.PasswordChanged, "default", "bert", time.Now()))
		}
		synctest.Wait()
		for range 3 {
			s.Next(t)
		}
		err := o.Tell("wsp_9", "per_0", "a0@example.com", o.Notice(mail.PasswordChanged, "default", "bert", time.Now()))
		if e := protocol.AsError(err); err == nil || e.Rule != mail.RuleLimit || !strings.Contains(log.String(), "a notice by e-mail was not sent") {
			t.Error(err, log)
		}
	})
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	bubble(t, mailtest.Faults{}, func(c *mail.Config) { c.Kept = 2 }, func(t *testing.T, o *mail.Outbox, s *mailtest.Server, _ *logged, _ func()) {
		for i := range 4 {
			p, err := o.Reserve("wsp_1", "", fmt.Sprintf("a%d@example.com", i))
			must(t, err)
			p.Send(o.Code(mail.Code{Person: fmt.Sprint(i)}))
			s.Next(t)
		}
		synctest.Wait()
		if o.State("1").Is != "" || o.State("2").Is != mail.Sent || o.State("3").Is != mail.Sent {
			t.Error(o.State("1"), o.State("2"), o.State("3"))
		}
	})
}

func TestSettingsThatCannotBe(t *testing.T) {
	good := mail.DefaultConfig()
	good.Server, good.From, good.Link = "mail.example.com:587", "fairlead@example.com", "https://relay.example.com"
	_, err := mail.New(good)
	must(t, err)
	for name, edit := range map[string]func(*mail.Config){
		"server": func(c *mail.Config) { c.Server = "" }, "from": func(c *mail.Config) { c.From = "a@b\r\nBcc: c@d" }, "link": func(c *mail.Config) { c.Link = "http://a" }, "tls": func(c *mail.Config) { c.TLS = "" },
		"user": func(c *mail.Config) { c.User = "u" }, "workers": func(c *mail.Config) { c.Workers = 0 }, "queue": func(c *mail.Config) { c.Queue = 0 }, "timeout": func(c *mail.Config) { c.Timeout = 0 },
		"limits": func(c *mail.Config) { c.PerRecipient = 0 }, "waits": func(c *mail.Config) { c.MaxWait = time.Second }, "clear": func(c *mail.Config) { c.TLS = mail.Clear },
	} {
		c := good
		edit(&c)
		if _, err := mail.New(c); err == nil {
			t.Error(name)
		}
	}
}
