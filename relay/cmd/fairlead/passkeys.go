package main

import (
	"context"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

type passkeysCommands struct {
	List   passkeysList   `cmd:"" help:"List your passkeys. To add one, open the relay's page /account in a browser."`
	Remove passkeysRemove `cmd:"" help:"Remove a passkey; your other sessions end."`
}

type passkeysList struct{ cli.Output }

func (*passkeysList) Examples() []string { return []string{"fairlead passkeys list"} }

func (k *passkeysList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Passkeys(ctx)
	if err != nil {
		return err
	}
	if !k.JSON() {
		t.Notef("a browser adds passkeys: %s/account\n", c.Relay())
	}
	return list(t, k.Output, l, []string{"id", "label", "state", "backup", "created", "last used"}, func(p client.Passkey) []string {
		state, backup := "good", "no"
		switch {
		case p.SuspectSince != nil:
			state = "may have a copy: refused since " + stamp(*p.SuspectSince)
		case !p.Bound:
			state = "of another name of the relay"
		}
		switch {
		case p.BackedUp:
			backup = "yes"
		case p.BackupEligible:
			backup = "possible"
		}
		return []string{p.ID, p.Label, state, backup, stamp(p.CreatedAt), stampPtr(p.LastUsedAt)}
	})
}

type passkeysRemove struct {
	ID  string `arg:"" help:"Id of the passkey."`
	Yes bool   `short:"y" help:"Do not ask."`
	ifMatch
}

func (*passkeysRemove) Examples() []string {
	return []string{"fairlead passkeys remove pky_7k2mxq4v5h6j7k2mxq4v5h6j7k"}
}

func (k *passkeysRemove) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := confirm(t, "Remove passkey "+cli.Clean(k.ID)+"?", k.Yes); err != nil {
		return err
	}
	return r.change(ctx, t, k.ifMatch, "passkey", k.ID, "is removed, and your other sessions have ended", (*client.Client).RemovePasskey)
}
