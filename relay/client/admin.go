package client

import (
	"context"
	"encoding/json"
	"net/http"
)

// Whoami asks the relay who the token belongs to.
func (c *Client) Whoami(ctx context.Context) (Whoami, error) {
	var w Whoami
	return w, c.do(ctx, http.MethodGet, path("whoami"), nil, nil, &w)
}

// OpenAPI gives the description of the API. It needs no token.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	var raw json.RawMessage
	return raw, c.do(ctx, http.MethodGet, path("openapi.json"), nil, nil, &raw)
}

// Agents lists the agents of the workspace.
func (c *Client) Agents(ctx context.Context) ([]Agent, error) {
	return all[Agent](ctx, c, c.ws("agents"))
}

// Agent gives one agent by id.
func (c *Client) Agent(ctx context.Context, id string) (Agent, error) {
	var a Agent
	return a, c.do(ctx, http.MethodGet, c.ws("agents", id), nil, nil, &a)
}

// DisableAgent cuts an agent off, its live tunnels included, until EnableAgent.
func (c *Client) DisableAgent(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, c.ws("agents", id, "disable"), nil, nil, nil)
}

// EnableAgent undoes DisableAgent.
func (c *Client) EnableAgent(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, c.ws("agents", id, "enable"), nil, nil, nil)
}

// RemoveAgent revokes an agent for good.
func (c *Client) RemoveAgent(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, c.ws("agents", id), nil, nil, nil)
}

// Groups lists the agent groups.
func (c *Client) Groups(ctx context.Context) ([]Group, error) {
	return all[Group](ctx, c, c.ws("groups"))
}

// CreateGroup makes an agent group.
func (c *Client) CreateGroup(ctx context.Context, n NewGroup) (Group, error) {
	var g Group
	return g, c.create(ctx, c.ws("groups"), n, &g)
}

// DeleteGroup removes an empty agent group.
func (c *Client) DeleteGroup(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, c.ws("groups", name), nil, nil, nil)
}

// JoinTokens lists the join tokens that are still open.
func (c *Client) JoinTokens(ctx context.Context) ([]JoinToken, error) {
	return all[JoinToken](ctx, c, c.ws("join-tokens"))
}

// CreateJoinToken makes a single-use token for one enrolment.
func (c *Client) CreateJoinToken(ctx context.Context, n NewJoinToken) (CreatedJoinToken, error) {
	var t CreatedJoinToken
	return t, c.create(ctx, c.ws("join-tokens"), n, &t)
}

// RevokeJoinToken makes an open join token useless.
func (c *Client) RevokeJoinToken(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, c.ws("join-tokens", id), nil, nil, nil)
}

// Connections lists the connections that the caller may see.
func (c *Client) Connections(ctx context.Context) ([]Connection, error) {
	return all[Connection](ctx, c, c.ws("connections"))
}

// Connection gives one connection by name or id.
func (c *Client) Connection(ctx context.Context, name string) (Connection, error) {
	var k Connection
	return k, c.do(ctx, http.MethodGet, c.conn(name), nil, nil, &k)
}

// CreateConnection makes a connection.
func (c *Client) CreateConnection(ctx context.Context, n NewConnection) (Connection, error) {
	var k Connection
	return k, c.create(ctx, c.ws("connections"), n, &k)
}

// DeleteConnection removes a connection; the site's profile stays.
func (c *Client) DeleteConnection(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, c.conn(name), nil, nil, nil)
}

// Tokens lists the API tokens of the workspace.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	return all[Token](ctx, c, c.ws("tokens"))
}

// CreateToken makes an API token. Its text is given this once.
func (c *Client) CreateToken(ctx context.Context, n NewToken) (CreatedToken, error) {
	var t CreatedToken
	return t, c.create(ctx, c.ws("tokens"), n, &t)
}

// RevokeToken ends an API token at once, open streams included.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, c.ws("tokens", id), nil, nil, nil)
}

// OwnTokens lists the personal tokens of who asks, in the workspace that is signed in to.
func (c *Client) OwnTokens(ctx context.Context) ([]Token, error) {
	return all[Token](ctx, c, path("account", "tokens"))
}

// CreateOwnToken makes a personal token. Its text is given this once.
func (c *Client) CreateOwnToken(ctx context.Context, n NewPersonalToken) (CreatedToken, error) {
	var t CreatedToken
	return t, c.create(ctx, path("account", "tokens"), n, &t)
}

// RevokeOwnToken ends a personal token of who asks.
func (c *Client) RevokeOwnToken(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, path("account", "tokens", id), nil, nil, nil)
}

// ServiceAccounts lists the programs of the workspace.
func (c *Client) ServiceAccounts(ctx context.Context) ([]ServiceAccount, error) {
	return all[ServiceAccount](ctx, c, c.ws("service-accounts"))
}

// ServiceAccount gives one, by name or id.
func (c *Client) ServiceAccount(ctx context.Context, name string) (ServiceAccount, error) {
	var s ServiceAccount
	return s, c.do(ctx, http.MethodGet, c.ws("service-accounts", name), nil, nil, &s)
}

// CreateServiceAccount makes one, without a token.
func (c *Client) CreateServiceAccount(ctx context.Context, n NewServiceAccount) (ServiceAccount, error) {
	var s ServiceAccount
	return s, c.create(ctx, c.ws("service-accounts"), n, &s)
}

// DisableServiceAccount refuses all its tokens at once.
func (c *Client) DisableServiceAccount(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodPost, c.ws("service-accounts", name, "disable"), nil, nil, nil)
}

// EnableServiceAccount takes them again.
func (c *Client) EnableServiceAccount(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodPost, c.ws("service-accounts", name, "enable"), nil, nil, nil)
}

// DeleteServiceAccount removes one with its grants and tokens.
func (c *Client) DeleteServiceAccount(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, c.ws("service-accounts", name), nil, nil, nil)
}

// Quotas tells how much the workspace has of what the relay's operator bounds.
func (c *Client) Quotas(ctx context.Context) ([]Quota, error) {
	return all[Quota](ctx, c, c.ws("quota"))
}

// Domains lists the workspace's own names.
func (c *Client) Domains(ctx context.Context) ([]Domain, error) {
	return all[Domain](ctx, c, c.ws("domains"))
}

// Domain gives one of them, by name or id.
func (c *Client) Domain(ctx context.Context, name string) (Domain, error) {
	var d Domain
	return d, c.do(ctx, http.MethodGet, c.ws("domains", name), nil, nil, &d)
}

// CreateDomain makes a name the workspace's own.
func (c *Client) CreateDomain(ctx context.Context, name string) (Domain, error) {
	var d Domain
	return d, c.create(ctx, c.ws("domains"), NewDomain{name}, &d)
}

// DeleteDomain takes one away.
func (c *Client) DeleteDomain(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, c.ws("domains", name), nil, nil, nil)
}

// Allowlist gives the source prefixes that may call the relay.
func (c *Client) Allowlist(ctx context.Context) (Allowlist, error) {
	var a Allowlist
	return a, c.do(ctx, http.MethodGet, c.ws("allowlist"), nil, nil, &a)
}

// SetAllowlist replaces the source prefixes; of a dry run, it tells who that would cut.
func (c *Client) SetAllowlist(ctx context.Context, s SetAllowlist) (Allowlist, error) {
	if s.Prefixes == nil {
		s.Prefixes = []string{}
	}
	var a Allowlist
	return a, c.do(ctx, http.MethodPut, c.ws("allowlist"), nil, s, &a)
}
