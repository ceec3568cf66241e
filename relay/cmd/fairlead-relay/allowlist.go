package main

import (
	"context"
	"net/netip"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// allowlistCommand is the way back in for an operator whose own address is no longer on the list. It needs the relay's
// machine and key file, not a token.
type allowlistCommand struct {
	where
	Workspace string   `default:"default" placeholder:"NAME" help:"Workspace whose list is replaced."`
	For       string   `enum:"callers,people,tokens,agents,gateways" default:"callers" placeholder:"WHOM" help:"Whose list: ${enum}."`
	Unset     bool     `help:"Take the list that --for names away: people, tokens and gateways go by that of callers again, agents by none."`
	Prefixes  []string `arg:"" optional:"" name:"cidr" help:"Prefixes that they may come from; they replace the list."`
}

func (*allowlistCommand) Examples() []string {
	return []string{"# let this machine and one network in", "fairlead-relay allowlist --data /var/lib/fairlead-relay 127.0.0.0/8 ::1/128 203.0.113.0/24", "fairlead-relay allowlist --data /var/lib/fairlead-relay --for people --unset"}
}

func (c *allowlistCommand) Run(ctx context.Context, t *cli.Term) error {
	if (len(c.Prefixes) == 0) != c.Unset {
		return cli.Usage("want prefixes, or --unset alone")
	}
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	list, err := prefixes("", c.Prefixes)
	if err != nil {
		return err
	}
	if err := relay.SetSources(ctx, cfg, c.Workspace, directory.Side(c.For), list); err != nil {
		return err
	}
	if c.Unset {
		t.Notef("workspace %s has no list for %s any more; a relay that runs takes it within a second or two\n", c.Workspace, c.For)
		return nil
	}
	t.Notef("workspace %s now admits %s from %d prefixes; a relay that runs takes it within a second or two\n", c.Workspace, c.For, len(list))
	return nil
}

// prefixes reads prefixes and addresses of the command line; flag is what they were given by, with a blank behind it.
func prefixes(flag string, texts []string) (list []netip.Prefix, _ error) {
	for _, s := range texts {
		p, err := allowlist.ParsePrefix(s)
		if err != nil {
			return nil, cli.Usage("%s%s", flag, err)
		}
		list = append(list, p)
	}
	return list, nil
}
