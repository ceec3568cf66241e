package main

import (
	"context"
	"net/netip"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay"
)

// allowlistCommand is the way back in for an operator whose own address is no longer on the list. It needs the relay's
// machine and key file, not a token.
type allowlistCommand struct {
	where
	Workspace string   `default:"default" placeholder:"NAME" help:"Workspace whose list is replaced."`
	Prefixes  []string `arg:"" name:"cidr" help:"Prefixes that callers may come from; they replace the list."`
}

func (*allowlistCommand) Examples() []string {
	return []string{"# let this machine and one network in", "fairlead-relay allowlist --data /var/lib/fairlead-relay 127.0.0.0/8 ::1/128 203.0.113.0/24"}
}

func (c *allowlistCommand) Run(ctx context.Context, t *cli.Term) error {
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	var list []netip.Prefix
	for _, s := range c.Prefixes {
		p, err := allowlist.ParsePrefix(s)
		if err != nil {
			return cli.Usage("%s", err)
		}
		list = append(list, p)
	}
	if err := relay.SetAllowlist(ctx, cfg, c.Workspace, list); err != nil {
		return err
	}
	t.Notef("workspace %s now admits %d prefixes; a relay that runs takes it within a second or two\n", c.Workspace, len(list))
	return nil
}
