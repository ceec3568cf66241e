package main

import "github.com/fairleadhq/fairlead/relay/client"

// ifMatch has a change made only to what somebody looked at before.
type ifMatch struct {
	IfMatch string `placeholder:"ETAG" help:"Only if it is still what was read: its etag, as --output json shows it."`
}

// on gives the client for the change.
func (k ifMatch) on(c *client.Client) *client.Client { return c.If(k.IfMatch) }
