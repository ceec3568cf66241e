package client

import (
	"context"
	"net/http"
	"time"
)

// HandOver asks for a code by which a program gets a session beside the one that asks. Challenge is the SHA-256 of a text that only
// the program knows, in base64url (RFC 7636, S256).
type HandOver struct {
	Challenge   string `json:"challenge"`
	IdleSeconds int64  `json:"idle_seconds,omitempty"`
	LifeSeconds int64  `json:"life_seconds,omitempty"` // both only shorten what the session that asks has
}

// HandOverCode counts once.
type HandOverCode struct {
	Code      string    `json:"code"`
	ExpiresAt time.Time `json:"expires_at"`
}

// TakeOver is what the program sends: the code, and the text that its challenge was made of.
type TakeOver struct {
	Code     string `json:"code"`
	Verifier string `json:"verifier"`
}

// HandOver gives a code for a program of the person's own; the session must be fresh.
func (c *Client) HandOver(ctx context.Context, h HandOver) (HandOverCode, error) {
	var o HandOverCode
	return o, c.do(ctx, http.MethodPost, path("account", "hand-over"), nil, h, &o)
}

// TakeOver begins the session that was handed over. The client itself needs no token for it.
func (c *Client) TakeOver(ctx context.Context, t TakeOver) (SignedIn, error) {
	var o SignedIn
	return o, c.do(ctx, http.MethodPost, path("sign-in", "hand-over"), nil, t, &o)
}
