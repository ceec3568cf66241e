package api_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/mail"
	"github.com/fairleadhq/fairlead/relay/mail/mailtest"
)

// mailLog is the outbox's log.
type mailLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *mailLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// mailRig is a rig that sends e-mail to a server of its own.
func mailRig(t *testing.T, edit func(*mail.Config)) (*rig, *mailtest.Server, *mailLog) {
	t.Helper()
	s, log := mailtest.Start(t, false, false, mailtest.Faults{}), &mailLog{}
	c := mail.DefaultConfig()
	c.Server, c.From, c.Link, c.Roots, c.Logger = s.Addr, "fairlead@example.com", "https://relay.example.com", s.Roots, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if edit != nil {
		edit(&c)
	}
	o, err := mail.New(c)
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); o.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	rigMail = o
	defer func() { rigMail = nil }()
	return newRig(t), s, log
}

var linkIn = regexp.MustCompile(`https://relay\.example\.com/account/first#(\S+)`)

// codeIn takes the keys out of the link of a message.
func codeIn(t *testing.T, m mailtest.Received) url.Values {
	t.Helper()
	l := linkIn.FindStringSubmatch(m.Text)
	if l == nil {
		t.Fatalf("no link: %s", m.Text)
	}
	q, err := url.ParseQuery(l[1])
	must(t, err)
	return q
}

// From the invitation to the first sign-in: the code is in the message alone, not in the answer, the record, the log or the state.
func TestAnInvitationGoesByEMailAlone(t *testing.T) {
	g, s, log := mailRig(t, nil)
	owner := g.token[authz.Owner]
	var made client.UserCode
	a := g.ask("POST", "/workspaces/default/users", owner, `{"name":"bert","roles":["operator"],"email":"bert@EXAMPLE.com"}`)
	g.get("GET", "/workspaces/default/users", owner, "", nil)
	if a.status != 201 || strings.Contains(a.body, "fli_") || !strings.Contains(a.body, `"sent":true`) || !strings.Contains(a.body, `"email":"b***@example.com"`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	m := s.Next(t)
	q := codeIn(t, m)
	code := q.Get("code")
	if m.To[0] != "bert@example.com" || q.Get("workspace") != "default" || q.Get("user") != "bert" || !strings.HasPrefix(code, "fli_") || strings.Count(m.Raw, "Subject:") != 1 {
		t.Fatalf("%v %+v", q, m)
	}
	g.get("POST", "/sign-in/first", "", `{"workspace":"default","user":"bert","code":"`+code+`","password":"`+goodPassword+`"}`, nil)
	g.signIn("bert", goodPassword, "")
	// One who has a password gets another code in the same way.
	a = g.ask("POST", "/workspaces/default/users/bert/code", owner, `{}`)
	if a.status != 201 || strings.Contains(a.body, "fli_") || !strings.Contains(a.body, `"sent":true`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	second := codeIn(t, s.Next(t)).Get("code")
	eventually(t, "it is told as sent", func() bool {
		return strings.Contains(g.ask("GET", "/workspaces/default/users", owner, "").body, `"mail":{"state":"sent","at"`)
	})
	users := g.ask("GET", "/workspaces/default/users", owner, "").body
	// Shown to who asks for it, too, or alone.
	g.get("POST", "/workspaces/default/users/bert/code", owner, `{"show_code":true}`, &made)
	if third := codeIn(t, s.Next(t)).Get("code"); made.Code != third || !made.Sent {
		t.Errorf("%+v", made)
	}
	made = client.UserCode{}
	g.get("POST", "/workspaces/default/users/bert/code", owner, `{"send":false}`, &made)
	if made.Code == "" || made.Sent || made.Email != "" {
		t.Errorf("%+v", made)
	}
	if m := s.Next(t); !strings.Contains(m.Text, "made a one-time code") || strings.Contains(m.Raw, "fli_") {
		t.Error(m.Text)
	}
	events := ""
	eventually(t, "the last outcome stands in the log", func() bool {
		events = strings.Join(g.events(), "\n")
		return strings.Contains(events, `"method":"shown"`)
	})
	for _, method := range []string{`"method":"email"`, `"method":"shown"`, `"method":"email, shown"`} {
		if !strings.Contains(events, method) {
			t.Errorf("the record does not say %s", method)
		}
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	for where, text := range map[string]string{"the record": events, "the log": log.b.String(), "the list": users} {
		for _, s := range []string{code, second, "bert@example.com"} {
			if strings.Contains(text, s) {
				t.Errorf("%s holds %q", where, s)
			}
		}
	}
}

func TestPeopleAreToldWhatHappenedToTheirAccount(t *testing.T) {
	g, s, _ := mailRig(t, nil)
	owner := g.token[authz.Owner]
	g.person("carla", authz.Admin)
	told := func(to, says string) {
		t.Helper()
		m := s.Next(t)
		if m.To[0] != to || !strings.Contains(m.Text, says) || strings.Contains(m.Raw, "fli_") || !strings.Contains(m.Text, "carla") {
			t.Fatalf("want %q to %s: %v %s", says, to, m.To, m.Text)
		}
	}
	g.get("DELETE", "/workspaces/default/users/carla/second-factor", owner, "", nil) // no address, nothing to tell
	session := g.signIn("carla", goodPassword, "")
	g.get("PUT", "/workspaces/default/users/carla/email", owner, `{"email":"carla@example.com"}`, nil)
	_, _, session = g.enrol(session)
	told("carla@example.com", "second factor was put in force")
	g.get("DELETE", "/account/second-factor", session, "", nil)
	told("carla@example.com", "second factor was taken away")
	g.get("DELETE", "/workspaces/default/users/carla/second-factor", owner, "", nil) // there is none
	session = g.signIn("carla", goodPassword, "")
	g.get("POST", "/account/password", session, `{"password":"`+goodPassword+`","new_password":"another kettle battery fish"}`, nil)
	told("carla@example.com", "password was changed")
	var u client.User
	g.get("PUT", "/workspaces/default/users/carla/email", owner, `{"email":"c2@example.com"}`, &u)
	if u.Email != "c***@example.com" || u.Mail == nil || u.Mail.State != client.MailNotSent || u.Mail.At != nil {
		t.Errorf("%+v", u)
	}
	told("carla@example.com", "address was changed")
	g.get("PUT", "/workspaces/default/users/carla/email", owner, `{"email":""}`, &u)
	told("c2@example.com", "address was changed")
	s.None(t)
}

func TestACodeCountsNoMoreWhenTheAddressWasAnother(t *testing.T) {
	g, s, _ := mailRig(t, nil)
	owner := g.token[authz.Owner]
	g.get("POST", "/workspaces/default/users", owner, `{"name":"bert","roles":["operator"],"email":"brt@example.com"}`, nil)
	code := codeIn(t, s.Next(t)).Get("code")
	g.get("PUT", "/workspaces/default/users/bert/email", owner, `{"email":"bert@example.com"}`, nil)
	g.refusal("the code that went to another", g.ask("POST", "/sign-in/first", "", `{"workspace":"default","user":"bert","code":"`+code+`","password":"`+goodPassword+`"}`), 401, "")
	// Who is not home, and who holds less, sets no address: a code would follow it.
	_, person := g.snapUser("bert")
	g.get("POST", "/workspaces/other/users", g.foreign, `{"name":"bert","roles":["analyst"],"person":"`+person+`"}`, nil)
	if l := g.ask("GET", "/workspaces/other/users", g.foreign, ""); strings.Contains(l.body, "example.com") || strings.Contains(l.body, `"mail"`) || !strings.Contains(l.body, `"bert"`) {
		t.Error("another workspace sees the address: ", l.body)
	}
	g.refusal("a code from another workspace", g.ask("POST", "/workspaces/other/users/bert/code", g.foreign, `{}`), 403, "")
	g.refusal("another workspace", g.ask("PUT", "/workspaces/other/users/bert/email", g.foreign, `{"email":"eve@example.com"}`), 403, "")
	g.person("boss", authz.Owner)
	g.refusal("who holds less", g.ask("PUT", "/workspaces/default/users/boss/email", g.token[authz.Admin], `{"email":"eve@example.com"}`), 403, "")
	g.refusal("an operator", g.ask("PUT", "/workspaces/default/users/bert/email", g.token[authz.Operator], `{"email":"eve@example.com"}`), 403, "")
	g.refusal("an address beside a person", g.ask("POST", "/workspaces/other/users", g.foreign, `{"name":"b2","roles":["analyst"],"person":"`+person+`","email":"eve@example.com"}`), 400, "")
}

func TestAFloodOfEMailIsRefusedBeforeAnythingIsDone(t *testing.T) {
	g, s, _ := mailRig(t, func(c *mail.Config) { c.PerWorkspace, c.PerRecipient = 3, 2 })
	owner := g.token[authz.Owner]
	invite := func(name, to string) answer {
		return g.ask("POST", "/workspaces/default/users", owner, `{"name":"`+name+`","roles":["analyst"],"email":"`+to+`"}`)
	}
	if a := invite("a1", "a@example.com"); a.status != 201 {
		t.Fatal(a.body)
	}
	if a := invite("a1", "a@example.com"); a.status != 409 { // and its room is given back
		t.Fatal(a.body)
	}
	if a := invite("a2", "A@example.com"); a.status != 201 {
		t.Fatal(a.body)
	}
	a := invite("a3", "a@example.com")
	g.refusal("a third to one person", a, 429, client.RuleMailLimit)
	if a.header.Get("Retry-After") == "" || a.problem.Hint == "" {
		t.Errorf("%v %s", a.header, a.body)
	}
	if a := invite("b1", "b@example.com"); a.status != 201 {
		t.Fatal(a.body)
	}
	before := g.count()
	g.refusal("a fourth of the workspace", invite("c1", "c@example.com"), 429, client.RuleMailLimit)
	g.refusal("another code", g.ask("POST", "/workspaces/default/users/b1/code", owner, `{}`), 429, client.RuleMailLimit)
	if g.count() != before {
		t.Error("a refused invitation made a user")
	}
	if a := g.ask("POST", "/workspaces/default/users/b1/code", owner, `{"send":false}`); a.status != 201 {
		t.Error(a.body)
	}
	for range 3 {
		codeIn(t, s.Next(t))
	}
}

func TestSendIsRefusedWhereNothingCanGo(t *testing.T) {
	g := newRig(t)
	owner := g.token[authz.Owner]
	g.refusal("no e-mail here", g.ask("POST", "/workspaces/default/users", owner, `{"name":"bert","roles":["operator"],"email":"bert@example.com","send":true}`), 400, "")
	var made client.UserCode
	g.get("POST", "/workspaces/default/users", owner, `{"name":"bert","roles":["operator"],"email":"bert@example.com"}`, &made)
	if made.Code == "" || made.Sent {
		t.Errorf("%+v", made)
	}
	m, _, _ := mailRig(t, nil)
	m.refusal("no address", m.ask("POST", "/workspaces/default/users", m.token[authz.Owner], `{"name":"bert","roles":["operator"],"send":true}`), 400, "")
	for _, bad := range []string{`bert@example.com\r\nBcc: eve@example.com`, `bert@example.com\n`, `Bert <bert@example.com>`, `a@b.c, d@e.f`} {
		m.refusal(bad, m.ask("POST", "/workspaces/default/users", m.token[authz.Owner], `{"name":"bert","roles":["operator"],"email":"`+bad+`"}`), 400, "")
	}
}

// snapUser finds a user and the id of its person.
func (g *rig) snapUser(name string) (id, person string) {
	g.t.Helper()
	w, err := g.dir.Snapshot().Workspace("default")
	must(g.t, err)
	p, q := w.User(name)
	return p.ID, q.ID
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	end, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal(what)
		}
	}
}
