package relay

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/mail"
	"github.com/fairleadhq/fairlead/relay/mail/mailtest"
)

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// withMail makes an installation whose relay.yaml names the server.
func withMail(t *testing.T, s *mailtest.Server) (file string, token secret.Bytes) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	made, err := Init(t.Context(), InitOptions{Data: dir, Listen: "127.0.0.1:0", PublicAddress: "127.0.0.1:1"})
	must(err)
	file = filepath.Join(dir, "relay.yaml")
	yaml, err := os.ReadFile(file)
	must(err)
	must(os.WriteFile(filepath.Join(dir, "mail.password"), []byte(mailtest.Password+"\n"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "mail.pem"), s.PEM, 0o644))
	must(os.WriteFile(file, append(yaml, "mail: {server: \""+s.Addr+"\", from: f@example.com, user: "+mailtest.User+", password_file: mail.password, ca_file: mail.pem, link: \"https://relay.example.com\"}\n"...), 0o600))
	return file, made.Token
}

// From relay.yaml to the first sign-in: who is invited by e-mail sets a password with what stands in the message, and the code, the
// address and the server's password stand nowhere else.
func TestInvitationByEMailFromEndToEnd(t *testing.T) {
	s := mailtest.Start(t, false, true, mailtest.Faults{})
	file, token := withMail(t, s)
	cfg, err := LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Health.Listen = ""
	log := &lockedBuffer{}
	r, err := New(t.Context(), Options{Config: cfg, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	var over sync.Once
	stop := func() {
		over.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	defer stop()
	<-r.Ready()
	c, err := client.New(client.Config{Relay: r.Addr().String(), CAFile: filepath.Join(filepath.Dir(file), "ca.pem"), Workspace: "default", Token: token})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u, err := c.CreateUser(t.Context(), client.NewUser{Name: "bert", Roles: []string{"operator"}, Email: "canary-of-bert@example.com"})
	if err != nil || u.Code != "" || !u.Sent {
		t.Fatalf("%+v %v", u, err)
	}
	m := s.Next(t)
	code := regexp.MustCompile(`&code=(fli_[\w-]+)`).FindStringSubmatch(m.Text)
	if code == nil || m.User != mailtest.User || !m.TLS {
		t.Fatalf("%+v", m)
	}
	const password = "correct kettle battery fish"
	if err := c.SetFirstPassword(t.Context(), client.FirstPassword{Workspace: "default", User: "bert", Code: code[1], Password: password}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SignIn(t.Context(), client.SignIn{Workspace: "default", User: "bert", Password: password}); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(20 * time.Second)
	for r.mail.Counts().Sent == 0 && time.Now().Before(end) {
		if _, err := c.Users(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	users, err := c.Users(t.Context())
	if err != nil || len(users) != 1 || users[0].Mail == nil || users[0].Mail.State != client.MailSent {
		t.Errorf("%+v %v", users, err)
	}
	scrape, err := http.NewRequest("GET", "http://relay/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &answerText{header: http.Header{}}
	r.healthHandler().ServeHTTP(w, scrape)
	if !strings.Contains(w.b.String(), `fairlead_mail_total{outcome="sent"} 1`) || !strings.Contains(w.b.String(), "fairlead_mail_waiting 0") {
		t.Error("the metrics do not count it")
	}
	stop()
	for what, text := range map[string]string{"code": code[1][4:], "address": "canary-of-bert", "server's password": mailtest.Password} {
		if strings.Contains(log.String(), text) {
			t.Errorf("the log holds the %s", what)
		}
		err := filepath.WalkDir(filepath.Dir(file), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == "mail.password" {
				return err
			}
			b, err := os.ReadFile(p)
			if bytes.Contains(b, []byte(text)) {
				t.Errorf("%s holds the %s", p, what)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// answerText keeps what a handler writes.
type answerText struct {
	header http.Header
	b      bytes.Buffer
}

func (a *answerText) Header() http.Header         { return a.header }
func (a *answerText) WriteHeader(int)             {}
func (a *answerText) Write(p []byte) (int, error) { return a.b.Write(p) }

// The operator's test takes the same way, and the password from its file as it is now.
func TestTryMailTellsTheStep(t *testing.T) {
	s := mailtest.Start(t, false, true, mailtest.Faults{})
	file, _ := withMail(t, s)
	cfg, err := LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := TryMail(t.Context(), cfg, "ops@example.com", func(mail.Step) {}); err != nil {
		t.Fatal(err)
	}
	s.Next(t)
	if err := os.WriteFile(cfg.Mail.PasswordFile, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := TryMail(t.Context(), cfg, "ops@example.com", func(mail.Step) {}); err == nil || !strings.Contains(err.Error(), string(mail.SignIn)) {
		t.Error(err)
	}
	if err := TryMail(t.Context(), DefaultConfig(), "ops@example.com", func(mail.Step) {}); err != ErrNoMail {
		t.Error(err)
	}
	if runtime.GOOS == "windows" { // modes say nothing there
		return
	}
	if err := os.Chmod(cfg.Mail.PasswordFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(file); err == nil || !strings.Contains(err.Error(), "mail.password_file") {
		t.Errorf("a password that others can read: %v", err)
	}
}
