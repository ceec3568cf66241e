package main

import (
	"context"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

// byMail says how a one-time code goes.
type byMail struct {
	Send     *bool `negatable:"" help:"Refuse when the code cannot go by e-mail; with --no-send it does not. Default: it does where it can."`
	ShowCode bool  `help:"Show the code, too, when it goes by e-mail."`
}

type usersEmail struct {
	userArg
	Address string `arg:"" optional:"" help:"The new address."`
	Remove  bool   `help:"Take the address away."`
	ifMatch
}

func (*usersEmail) Examples() []string {
	return []string{"fairlead users email bert bert@example.com", "fairlead users email bert --remove"}
}

func (k *usersEmail) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if (k.Address == "") != k.Remove {
		return cli.Usage("want an address, or --remove alone")
	}
	done := "has another e-mail address"
	if k.Remove {
		done = "has no e-mail address any more"
	}
	return k.change(ctx, t, r, k.ifMatch, done, func(c *client.Client, ctx context.Context, name string) error {
		_, err := c.SetEmail(ctx, name, k.Address)
		return err
	})
}

// mailOf tells a user's address, masked, and what became of the last e-mail with a code.
func mailOf(u client.User) string {
	switch {
	case u.Email == "" || u.Mail == nil:
		return u.Email
	case u.Mail.Why != "":
		return u.Email + " (" + mailWords[u.Mail.State] + ": " + u.Mail.Why + ")"
	}
	return u.Email + " (" + mailWords[u.Mail.State] + ")"
}

var mailWords = map[string]string{client.MailNotSent: "not sent", client.MailWaiting: "waiting", client.MailSent: "sent", client.MailFailed: "failed"}
