package main

import (
	"context"
	"errors"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/mail"
)

type mailCommands struct {
	Test mailTest `cmd:"" help:"Send a test message with the settings of relay.yaml, and say at which step it fails and what to do."`
}

type mailTest struct {
	where
	Address string `arg:"" help:"Where the message goes."`
}

func (*mailTest) Examples() []string {
	return []string{"fairlead-relay mail test bert@example.com --config relay.yaml"}
}

func (c *mailTest) Run(ctx context.Context, t *cli.Term) error {
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	to, err := mail.Address(c.Address)
	if err != nil {
		return cli.Usage("the address %s", err)
	}
	err = relay.TryMail(ctx, cfg, to, func(s mail.Step) { t.Printf("%-11s ok\n", s) })
	f := (*mail.Fault)(nil)
	switch {
	case errors.Is(err, relay.ErrNoMail):
		return &protocol.Error{Code: protocol.CodeInvalid, Message: err.Error(), Hint: "configs/relay.full.yaml explains the keys of mail"}
	case errors.As(err, &f):
		t.Printf("%-11s failed\n", f.Step)
		said := ""
		if f.Cause != nil { // the operator's own terminal: what the server said may be seen here, and nowhere else
			said = ": " + cli.Clean(strings.Join(strings.Fields(f.Cause.Error()), " "))
		}
		return &protocol.Error{Code: protocol.CodeUnavailable, Message: f.Error() + said, Hint: f.Hint()}
	case err != nil:
		return err
	}
	t.Notef("the mail server took the message; whether it arrives, the mailbox tells\n")
	return nil
}
