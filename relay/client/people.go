package client

import (
	"context"
	"net/http"
	"time"
)

// What a session can lack; until it has it, only the person's own account can be seen and changed.
const (
	NeedsCode         = "code"          // sign in again, with a code of the second factor
	NeedsSecondFactor = "second_factor" // the workspace demands one
	NeedsPassword     = "password"      // it has expired
	NeedsPasskey      = "passkey"       // show one that you have, or add one if you have none
)

// Rules of refusals that tell what to send.
const (
	RuleCode   = "sign_in.second_factor" // the password is right, and a code is wanted
	RuleStepUp = "sign_in.step_up"       // prove again that it is you
	RuleNeeds  = "sign_in.needs"         // the session lacks something
)

// SignIn is sent to begin a session.
type SignIn struct {
	Workspace   string `json:"workspace"`
	User        string `json:"user"`
	Password    string `json:"password"`
	Code        string `json:"code,omitempty"` // of the second factor, or a recovery code
	IdleSeconds int64  `json:"idle_seconds,omitempty"`
	LifeSeconds int64  `json:"life_seconds,omitempty"` // both only shorten what the workspace sets
	Cookie      bool   `json:"cookie,omitempty"`       // give the session as a cookie, not in the answer
}

// FirstPassword sets a password by a one-time code.
type FirstPassword struct {
	Workspace string `json:"workspace"`
	User      string `json:"user"`
	Code      string `json:"code"`
	Password  string `json:"password"`
}

// SignedIn is a session that began, or has a new text.
type SignedIn struct {
	ID        string    `json:"id"`
	Session   string    `json:"session,omitempty"` // its text, sent like an API token; empty when it went into the cookie
	User      string    `json:"user"`
	Workspace string    `json:"workspace"`
	ExpiresAt time.Time `json:"expires_at"` // at the latest
	Needs     string    `json:"needs,omitempty"`
}

// Account is what a person sees of itself.
type Account struct {
	Person            string     `json:"person"` // id, for admins of other workspaces
	User              string     `json:"user"`
	Workspace         string     `json:"workspace"`
	PasswordSetAt     time.Time  `json:"password_set_at"`
	SecondFactorSince *time.Time `json:"second_factor_since,omitempty"`
	RecoveryCodes     int        `json:"recovery_codes"` // left
	Passkeys          int        `json:"passkeys"`
	Email             string     `json:"email,omitempty"` // masked; left out when none is set
	Needs             string     `json:"needs,omitempty"`
	Fresh             bool       `json:"fresh"`          // dangerous acts are possible without another proof
	ETag              string     `json:"etag,omitempty"` // of its state; what If-Match takes
}

// ChangePassword changes it.
type ChangePassword struct {
	Password    string `json:"password"`
	NewPassword string `json:"new_password"`
}

// Confirm proves again that somebody is there: by a code, by a passkey (after BeginConfirm), or by the password for who has neither.
type Confirm struct {
	Password   string         `json:"password,omitempty"`
	Code       string         `json:"code,omitempty"`
	Ceremony   string         `json:"ceremony,omitempty"`
	Credential map[string]any `json:"credential,omitempty"` // what PublicKeyCredential.toJSON gives
}

// NewSecondFactor is what an authenticator app wants to know, shown this once.
type NewSecondFactor struct {
	Secret string `json:"secret"` // base32
	URI    string `json:"uri"`    // otpauth://, for a QR code
	// QR is that code: a text of 0 and 1 for each row, black is 1, without the white around it.
	QR []string `json:"qr,omitempty"`
}

// ProveSecondFactor puts it in force.
type ProveSecondFactor struct {
	Code string `json:"code"`
}

// RecoveryCodes are shown this once; each counts once in place of a code of the second factor.
type RecoveryCodes struct {
	Codes   []string  `json:"codes"`
	Session *SignedIn `json:"session,omitempty"` // with a new text, when the second factor was put in force
}

// Session is one of a person.
type Session struct {
	ID         string    `json:"id"`
	User       string    `json:"user"`
	Workspace  string    `json:"workspace"`
	Source     string    `json:"source,omitempty"` // where it began
	Agent      string    `json:"agent,omitempty"`  // with which program
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"`
	EndsAt     time.Time `json:"ends_at"` // unless it is used
	Current    bool      `json:"current,omitempty"`
	ETag       string    `json:"etag,omitempty"` // of its state; what If-Match takes
}

// User is a person in a workspace.
type User struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	Roles        []string   `json:"roles"` // on the whole workspace
	Disabled     bool       `json:"disabled,omitempty"`
	HomeHere     bool       `json:"home_here"` // this workspace keeps its credentials
	PasswordSet  bool       `json:"password_set"`
	SecondFactor bool       `json:"second_factor"`
	Passkeys     int        `json:"passkeys"`                // how many it has
	InvitedUntil *time.Time `json:"invited_until,omitempty"` // a one-time code is open
	Email        string     `json:"email,omitempty"`         // masked
	Mail         *MailState `json:"mail,omitempty"`          // of the last code; nil where no e-mail can go
	Sessions     int        `json:"sessions"`
	CreatedAt    time.Time  `json:"created_at"`
	ETag         string     `json:"etag,omitempty"` // of its state; what If-Match takes
}

// NewUser takes somebody into the workspace.
type NewUser struct {
	Name             string   `json:"name"`
	Roles            []string `json:"roles"`
	Person           string   `json:"person,omitempty"` // id of who signs in to another workspace already
	ExpiresInSeconds int64    `json:"expires_in_seconds,omitempty"`
	Email            string   `json:"email,omitempty"`
	Send             *bool    `json:"send,omitempty"`
	ShowCode         bool     `json:"show_code,omitempty"`
}

// UserCode is a one-time code that sets a user's password, shown this once.
type UserCode struct {
	ID        string     `json:"id"` // of the user
	Name      string     `json:"name"`
	Code      string     `json:"code,omitempty"` // empty for who has a password elsewhere, and when it went by e-mail
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	Sent      bool       `json:"sent,omitempty"`  // the code goes to the person by e-mail
	Email     string     `json:"email,omitempty"` // to which address, masked
}

// NewUserCode says how long it counts, and how it goes.
type NewUserCode struct {
	ExpiresInSeconds int64 `json:"expires_in_seconds,omitempty"`
	Send             *bool `json:"send,omitempty"`
	ShowCode         bool  `json:"show_code,omitempty"`
}

// SignInPolicy is what a workspace demands of who signs in; 0 is the default.
type SignInPolicy struct {
	SecondFactor    bool   `json:"second_factor,omitempty"`
	Passkeys        string `json:"passkeys,omitempty"` // allowed, required or off
	MinLength       int    `json:"min_length,omitempty"`
	Classes         int    `json:"classes,omitempty"`
	MaxAgeDays      int    `json:"max_age_days,omitempty"`
	History         int    `json:"history,omitempty"`
	IdleSeconds     int64  `json:"idle_seconds,omitempty"`
	AbsoluteSeconds int64  `json:"absolute_seconds,omitempty"`
	StepUpSeconds   int64  `json:"step_up_seconds,omitempty"`
	// PersonalTokenSeconds is how old a personal token may get; 0: there are none.
	PersonalTokenSeconds int64 `json:"personal_token_seconds,omitempty"`
	// ETag is what the relay's answer named its state by; it is no part of the body.
	ETag string `json:"-"`
}

// InForce fills the relay's defaults in.
func (p SignInPolicy) InForce() SignInPolicy {
	if p.Passkeys == "" {
		p.Passkeys = "allowed"
	}
	if p.MinLength == 0 {
		if p.MinLength = 15; p.SecondFactor {
			p.MinLength = 8
		}
	}
	for _, d := range []struct {
		is  *int64
		not int64
	}{{&p.IdleSeconds, 3600}, {&p.AbsoluteSeconds, 12 * 3600}, {&p.StepUpSeconds, 300}} {
		if *d.is == 0 {
			*d.is = d.not
		}
	}
	return p
}

// SignIn begins a session. The client itself needs no token for it.
func (c *Client) SignIn(ctx context.Context, s SignIn) (SignedIn, error) {
	var o SignedIn
	return o, c.do(ctx, http.MethodPost, path("sign-in"), nil, s, &o)
}

// SetFirstPassword sets a password by a one-time code. The client itself needs no token for it.
func (c *Client) SetFirstPassword(ctx context.Context, f FirstPassword) error {
	return c.do(ctx, http.MethodPost, path("sign-in", "first"), nil, f, nil)
}

// SignOut ends the session.
func (c *Client) SignOut(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, path("sign-out"), nil, nil, nil)
}

// Account tells a person of itself.
func (c *Client) Account(ctx context.Context) (Account, error) {
	var o Account
	return o, c.do(ctx, http.MethodGet, path("account"), nil, nil, &o)
}

// ChangePassword changes the person's password. All other sessions end, and this one has a new text.
func (c *Client) ChangePassword(ctx context.Context, p ChangePassword) (SignedIn, error) {
	var o SignedIn
	return o, c.do(ctx, http.MethodPost, path("account", "password"), nil, p, &o)
}

// Confirm makes the session fresh for dangerous acts; it has a new text.
func (c *Client) Confirm(ctx context.Context, p Confirm) (SignedIn, error) {
	var o SignedIn
	return o, c.do(ctx, http.MethodPost, path("account", "confirm"), nil, p, &o)
}

// BeginSecondFactor gives a secret for an authenticator app. ProveSecondFactor puts it in force.
func (c *Client) BeginSecondFactor(ctx context.Context) (NewSecondFactor, error) {
	var o NewSecondFactor
	return o, c.do(ctx, http.MethodPost, path("account", "second-factor"), nil, nil, &o)
}

// ProveSecondFactor puts the new second factor in force, by its first code.
func (c *Client) ProveSecondFactor(ctx context.Context, code string) (RecoveryCodes, error) {
	var o RecoveryCodes
	return o, c.do(ctx, http.MethodPut, path("account", "second-factor"), nil, ProveSecondFactor{code}, &o)
}

// RemoveSecondFactor takes it away.
func (c *Client) RemoveSecondFactor(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, path("account", "second-factor"), nil, nil, nil)
}

// NewRecoveryCodes replaces the recovery codes.
func (c *Client) NewRecoveryCodes(ctx context.Context) (RecoveryCodes, error) {
	var o RecoveryCodes
	return o, c.do(ctx, http.MethodPost, path("account", "recovery-codes"), nil, nil, &o)
}

// OwnSessions lists the person's own sessions, in all workspaces.
func (c *Client) OwnSessions(ctx context.Context) ([]Session, error) {
	return all[Session](ctx, c, path("account", "sessions"))
}

// EndOwnSession ends one of them; "" ends all but the one that asks.
func (c *Client) EndOwnSession(ctx context.Context, id string) error {
	if id == "" {
		return c.do(ctx, http.MethodDelete, path("account", "sessions"), nil, nil, nil)
	}
	return c.do(ctx, http.MethodDelete, path("account", "sessions", id), nil, nil, nil)
}

// Users lists the people of the workspace.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	return all[User](ctx, c, c.ws("users"))
}

// CreateUser takes somebody into the workspace, and gives the one-time code that sets the first password.
func (c *Client) CreateUser(ctx context.Context, n NewUser) (UserCode, error) {
	var o UserCode
	return o, c.create(ctx, c.ws("users"), n, &o)
}

// NewUserCode gives a new one-time code for a user, by name or id.
func (c *Client) NewUserCode(ctx context.Context, user string, n NewUserCode) (UserCode, error) {
	var o UserCode
	return o, c.create(ctx, c.ws("users", user, "code"), n, &o)
}

// DisableUser refuses a user in this workspace, open streams included, until EnableUser.
func (c *Client) DisableUser(ctx context.Context, user string) error {
	return c.do(ctx, http.MethodPost, c.ws("users", user, "disable"), nil, nil, nil)
}

// EnableUser undoes DisableUser.
func (c *Client) EnableUser(ctx context.Context, user string) error {
	return c.do(ctx, http.MethodPost, c.ws("users", user, "enable"), nil, nil, nil)
}

// RemoveUser takes a user out of the workspace.
func (c *Client) RemoveUser(ctx context.Context, user string) error {
	return c.do(ctx, http.MethodDelete, c.ws("users", user), nil, nil, nil)
}

// ResetSecondFactor takes a user's second factor and passkeys away, for who lost them.
func (c *Client) ResetSecondFactor(ctx context.Context, user string) error {
	return c.do(ctx, http.MethodDelete, c.ws("users", user, "second-factor"), nil, nil, nil)
}

// Sessions lists everybody's sessions in the workspace.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	return all[Session](ctx, c, c.ws("sessions"))
}

// EndSession ends one of the workspace's sessions.
func (c *Client) EndSession(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, c.ws("sessions", id), nil, nil, nil)
}

// EndSessionsOf ends all sessions of a user in the workspace.
func (c *Client) EndSessionsOf(ctx context.Context, user string) error {
	return c.do(ctx, http.MethodDelete, c.ws("users", user, "sessions"), nil, nil, nil)
}

// SignInPolicy tells what the workspace demands of who signs in.
func (c *Client) SignInPolicy(ctx context.Context) (SignInPolicy, error) {
	var o SignInPolicy
	return o, c.do(ctx, http.MethodGet, c.ws("sign-in-policy"), nil, nil, &o)
}

// SetSignInPolicy replaces it.
func (c *Client) SetSignInPolicy(ctx context.Context, p SignInPolicy) (SignInPolicy, error) {
	var o SignInPolicy
	return o, c.do(ctx, http.MethodPut, c.ws("sign-in-policy"), nil, p, &o)
}
