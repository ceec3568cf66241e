package client

import (
	"context"
	"net/http"
	"time"
)

// RulePasskey is the rule of refusals that want a passkey, or another answer of one; RuleWorkspace of those that want a workspace named.
const (
	RulePasskey   = "sign_in.passkey"
	RuleWorkspace = "sign_in.workspace"
)

// Ceremony is what a browser wants to know to ask an authenticator.
type Ceremony struct {
	Ceremony string         `json:"ceremony"` // sent with the answer; counts once, for five minutes
	Options  map[string]any `json:"options"`  // for PublicKeyCredential.parseCreationOptionsFromJSON or parseRequestOptionsFromJSON
}

// PasskeySignIn is sent to begin a session by a passkey.
type PasskeySignIn struct {
	Ceremony    string         `json:"ceremony"`
	Credential  map[string]any `json:"credential"`          // what PublicKeyCredential.toJSON gives
	Workspace   string         `json:"workspace,omitempty"` // may be left out by who belongs to one only
	IdleSeconds int64          `json:"idle_seconds,omitempty"`
	LifeSeconds int64          `json:"life_seconds,omitempty"` // both only shorten what the workspace sets
	Cookie      bool           `json:"cookie,omitempty"`       // give the session as a cookie, not in the answer
}

// NewPasskey is a passkey to add.
type NewPasskey struct {
	Ceremony   string         `json:"ceremony"`
	Label      string         `json:"label"`
	Credential map[string]any `json:"credential"` // what PublicKeyCredential.toJSON gives
}

// Passkey is one of a person.
type Passkey struct {
	ID             string     `json:"id"`
	Label          string     `json:"label"`
	CreatedAt      time.Time  `json:"created_at"`
	LastUsedAt     *time.Time `json:"last_used_at,omitempty"`
	BackupEligible bool       `json:"backup_eligible"`         // it may be copied to other devices by who made it
	BackedUp       bool       `json:"backed_up"`               // and has been
	SuspectSince   *time.Time `json:"suspect_since,omitempty"` // there may be a copy: it lets nobody in
	Bound          bool       `json:"bound"`                   // to the relay's name of today; else no browser shows it
	ETag           string     `json:"etag,omitempty"`          // of its state; what If-Match takes
}

// AddedPasskey is one that was added just now.
type AddedPasskey struct {
	ID             string    `json:"id"`
	Label          string    `json:"label"`
	CreatedAt      time.Time `json:"created_at"`
	BackupEligible bool      `json:"backup_eligible"`
	BackedUp       bool      `json:"backed_up"`
	Session        SignedIn  `json:"session"` // with a new text
	ETag           string    `json:"etag,omitempty"`
}

// BeginPasskeySignIn begins what SignInByPasskey ends. The client itself needs no token for either.
func (c *Client) BeginPasskeySignIn(ctx context.Context) (Ceremony, error) {
	var o Ceremony
	return o, c.do(ctx, http.MethodPost, path("sign-in", "passkey", "begin"), nil, nil, &o)
}

// SignInByPasskey begins a session.
func (c *Client) SignInByPasskey(ctx context.Context, s PasskeySignIn) (SignedIn, error) {
	var o SignedIn
	return o, c.do(ctx, http.MethodPost, path("sign-in", "passkey"), nil, s, &o)
}

// BeginAddPasskey begins what AddPasskey ends.
func (c *Client) BeginAddPasskey(ctx context.Context) (Ceremony, error) {
	var o Ceremony
	return o, c.do(ctx, http.MethodPost, path("account", "passkeys", "begin"), nil, nil, &o)
}

// AddPasskey gives the person a passkey. All other sessions end, and this one has a new text.
func (c *Client) AddPasskey(ctx context.Context, n NewPasskey) (AddedPasskey, error) {
	var o AddedPasskey
	return o, c.create(ctx, path("account", "passkeys"), n, &o)
}

// Passkeys lists the person's own, the oldest first.
func (c *Client) Passkeys(ctx context.Context) ([]Passkey, error) {
	return all[Passkey](ctx, c, path("account", "passkeys"))
}

// RemovePasskey takes one away. All other sessions end.
func (c *Client) RemovePasskey(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, path("account", "passkeys", id), nil, nil, nil)
}

// BeginConfirm begins what Confirm with the ceremony ends.
func (c *Client) BeginConfirm(ctx context.Context) (Ceremony, error) {
	var o Ceremony
	return o, c.do(ctx, http.MethodPost, path("account", "confirm", "passkey", "begin"), nil, nil, &o)
}
