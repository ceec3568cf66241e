//go:build linux

package e2e_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/mail/mailtest"
)

// canaryMail has the relay send e-mail, and gives what sends codes: one that the server takes, and one that it refuses, repeating the
// address in its words.
func canaryMail(t *testing.T, i *installation, c *canaries) func(must func(string, error)) {
	t.Helper()
	s := mailtest.Start(t, false, true, mailtest.Faults{})
	c.add("mail password", []byte(mailtest.Password))
	to := c.text("e-mail address", ".") + "@example.com"
	i.write("relay/mail.password", mailtest.Password+"\n", 0o600)
	i.write("relay/mail.pem", string(s.PEM), 0o644)
	i.appendTo("relay/relay.yaml", "mail: {server: \""+s.Addr+"\", from: f@example.com, user: "+mailtest.User+", password_file: mail.password, ca_file: mail.pem, link: \"https://relay.example.com\"}\n")
	i.term(i.relay, 15*time.Second)
	i.startRelay()
	return func(must func(string, error)) {
		t.Helper()
		i.ok("users", "invite", "mara", "--role", "operator", "--email", to)
		code := regexp.MustCompile(`&code=(fli_[\w-]{43})`).FindStringSubmatch(s.Next(t).Text)
		if code == nil {
			t.Fatal("the message has no code")
		}
		c.add("one-time code by e-mail", []byte(code[1][4:24]), []byte(code[1][24:]))
		s.Set(mailtest.Faults{Recipient: mailtest.Refusal(550, "no such user "+to)})
		i.ok("users", "code", "mara")
		testenv.Eventually(t, "the refusal is told", func() bool {
			l, err := i.client.Users(ctx)
			must("users", err)
			for _, u := range l {
				if u.Name == "mara" && u.Mail != nil && u.Mail.State == client.MailFailed {
					return true
				}
			}
			return false
		})
		i.ok("users", "list")
		i.ok("users", "email", "mara", "--remove")
	}
}
