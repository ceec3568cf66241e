package main

import (
	"context"
	"errors"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay"
)

// userCommand makes the first person, and is the way back in for an admin who lost the password. It needs the relay's machine and
// key file, not a token.
type userCommand struct {
	where
	Workspace string        `default:"default" placeholder:"NAME" help:"Workspace that the user is of."`
	Name      string        `arg:"" help:"Name of the user; a new one becomes an admin."`
	Expires   time.Duration `default:"1h" help:"How long the code counts."`
	Link      bool          `help:"Give a link to the relay's account page in place of the code; it holds the code, so it is as secret."`
	CodeFile  string        `type:"path" placeholder:"FILE" help:"Write the code there, readable by you alone, instead of printing it."`
}

func (*userCommand) Examples() []string {
	return []string{"fairlead-relay user anna --data /var/lib/fairlead-relay", "fairlead-relay user anna --data /var/lib/fairlead-relay --link"}
}

func (c *userCommand) Run(ctx context.Context, t *cli.Term) error {
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	out, err := openCode(c.CodeFile)
	if err != nil {
		return err
	}
	code, err := relay.AdminUser(ctx, cfg, c.Workspace, c.Name, c.Expires)
	if err != nil {
		return errors.Join(err, out.drop())
	}
	return handOver{Address: cfg.PublicAddress, Workspace: c.Workspace, User: c.Name, Life: c.Expires, Link: c.Link}.give(t, out, code)
}
