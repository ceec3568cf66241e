package main

import (
	"context"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

// ifMatch has a change made only to what somebody looked at before.
type ifMatch struct {
	IfMatch string `placeholder:"ETAG" help:"Only if it is still what was read: its etag, as --output json shows it."`
}

// on gives the client for the change.
func (k ifMatch) on(c *client.Client) *client.Client { return c.If(k.IfMatch) }

// change does something to a named thing on the condition of only, and tells that it is done.
func (r *relayFlags) change(ctx context.Context, t *cli.Term, only ifMatch, kind, name, done string, do func(*client.Client, context.Context, string) error) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := do(only.on(c), ctx, name); err != nil {
		return about(name, err)
	}
	t.Notef("%s %s %s\n", kind, cli.Clean(name), done)
	return nil
}
