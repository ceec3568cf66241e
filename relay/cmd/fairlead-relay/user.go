package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/client"
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
	code, err := relay.AdminUser(ctx, cfg, c.Workspace, c.Name, c.Expires)
	if err != nil {
		return err
	}
	if c.Link {
		link, err := client.FirstLink(cfg.PublicAddress, c.Workspace, c.Name, code.ExposeString())
		if err != nil {
			return err
		}
		code = secret.FromString(link)
	}
	if c.CodeFile != "" {
		if err := os.WriteFile(c.CodeFile, append(append([]byte{}, code.Expose()...), '\n'), 0o600); err != nil {
			return fmt.Errorf("write the code: %w", err)
		}
	} else {
		t.Printf("%s\n", code.ExposeString())
	}
	if c.Link {
		t.Notef("a link for %s, good for %s and once\n", cli.Clean(c.Name), c.Expires)
		return nil
	}
	t.Notef("a one-time code for %s, good for %s: fairlead login --relay %s --user %s --first\n", cli.Clean(c.Name), c.Expires, cfg.PublicAddress, cli.Clean(c.Name))
	return nil
}
