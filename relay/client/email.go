package client

import (
	"context"
	"net/http"
	"time"
)

// RuleMailLimit is the rule of refusals of more e-mail than may go in an hour.
const RuleMailLimit = "mail.limit"

// What became of the e-mail with a user's last code, since the relay began.
const (
	MailNotSent = "not_sent"
	MailWaiting = "waiting"
	MailSent    = "sent"
	MailFailed  = "failed"
)

// MailState is what became of an e-mail.
type MailState struct {
	State string     `json:"state"`
	At    *time.Time `json:"at,omitempty"`
	Why   string     `json:"why,omitempty"` // the step that failed
}

// SetEmail is a user's e-mail address; "" for none.
type SetEmail struct {
	Email string `json:"email"`
}

// SetEmail replaces a user's e-mail address; "" takes it away.
func (c *Client) SetEmail(ctx context.Context, user, address string) (User, error) {
	var o User
	return o, c.do(ctx, http.MethodPut, c.ws("users", user, "email"), nil, SetEmail{address}, &o)
}

// SetOwnEmail replaces the caller's own e-mail address, "" for none; it wants a session with a fresh proof.
func (c *Client) SetOwnEmail(ctx context.Context, address string) (Account, error) {
	var o Account
	return o, c.do(ctx, http.MethodPut, path("account", "email"), nil, SetEmail{address}, &o)
}
