package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Role is a set of actions: a system role (owner, admin, operator, analyst), or a custom role of the workspace.
type Role struct {
	ID        string     `json:"id,omitempty"` // of a custom role
	Name      string     `json:"name"`
	System    bool       `json:"system"`
	Actions   []string   `json:"actions"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
	ETag      string     `json:"etag,omitempty"` // of a custom role; what If-Match takes
}

// SetRole makes or replaces a custom role.
type SetRole struct {
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// Team is a named set of principals: what is given to it, each member holds.
type Team struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Members   []Member  `json:"members"`
	CreatedAt time.Time `json:"created_at"`
	ETag      string    `json:"etag,omitempty"` // of its state; what If-Match takes
}

// Member is a principal in a team.
type Member struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Kind string `json:"kind"` // user or service
}

// NewTeam asks for a team.
type NewTeam struct {
	Name string `json:"name"`
}

// Grant gives a role to a principal or a team, on the workspace, or on an environment, a project, a folder or one connection of it.
// One on a project or folder with an environment is on what of it stands there.
type Grant struct {
	ID            string     `json:"id"`
	Role          string     `json:"role"`
	Principal     string     `json:"principal,omitempty"` // id; empty: a team
	PrincipalName string     `json:"principal_name,omitempty"`
	Team          string     `json:"team,omitempty"`
	Environment   string     `json:"environment,omitempty"`
	Project       string     `json:"project,omitempty"`
	Folder        string     `json:"folder,omitempty"` // path
	Connection    string     `json:"connection,omitempty"`
	Until         *time.Time `json:"until,omitempty"` // nil: without end
	Over          bool       `json:"over,omitempty"`  // its end is reached
	From          []string   `json:"from,omitempty"`  // networks; empty: from everywhere
	CreatedAt     time.Time  `json:"created_at"`
	ETag          string     `json:"etag,omitempty"` // of its state; what If-Match takes
}

// NewGrant asks for a grant: to a principal or a team, by name or id; on an environment, a project or a folder of it (in one
// environment, if that is named, too), a connection, or none of them for the whole workspace; until a time, for so many seconds, or neither without end.
type NewGrant struct {
	Role             string     `json:"role"`
	Principal        string     `json:"principal,omitempty"`
	Team             string     `json:"team,omitempty"`
	Environment      string     `json:"environment,omitempty"`
	Project          string     `json:"project,omitempty"`
	Folder           string     `json:"folder,omitempty"` // path or id
	Connection       string     `json:"connection,omitempty"`
	Until            *time.Time `json:"until,omitempty"`
	ExpiresInSeconds int64      `json:"expires_in_seconds,omitempty"`
	From             []string   `json:"from,omitempty"`
}

// ExplainQuery asks why a principal may or may not.
type ExplainQuery struct {
	Principal  string // name or id
	Token      string // id of a token, in place of Principal
	Action     string // such as connection.query, or the operation alone: query
	Connection string // name or id; empty for an action on the workspace or a part of it
	// Project, Folder of it, and Environment are the part of the workspace; not with Connection.
	Project, Folder, Environment string
	Source                       string // address to come from; empty: the asker's own
	// What the operation on the connection would be, so that the site is asked what it would decide: SQL or the name of a declared
	// Statement; a file's Path (a move's: To, too); a request's Method and Target.
	SQL, Statement, Path, To, Method, Target string
}

// Near is a grant that does not allow what was asked, and what it lacks: action, scope, time, source.
type Near struct {
	Grant Grant    `json:"grant"`
	Lacks []string `json:"lacks"`
}

// Explanation is why a principal may or may not.
type Explanation struct {
	Principal     string    `json:"principal"`
	PrincipalName string    `json:"principal_name"`
	Token         string    `json:"token,omitempty"` // that it is about
	Action        string    `json:"action"`
	Connection    string    `json:"connection,omitempty"`
	Environment   string    `json:"environment,omitempty"`
	Project       string    `json:"project,omitempty"`
	Folder        string    `json:"folder,omitempty"`
	SourceAddress string    `json:"source_address"`
	Time          time.Time `json:"time"`
	Allow         bool      `json:"allow"` // the relay's whole answer: principal, allowlist, grants
	Reason        string    `json:"reason"`
	Limited       bool      `json:"limited,omitempty"` // a grant allows it, and the token's limits do not
	Grant         *Grant    `json:"grant,omitempty"`   // that allows
	Missing       []string  `json:"missing,omitempty"` // actions that no grant gives
	Roles         []string  `json:"roles,omitempty"`   // that hold them, the narrowest first
	Near          []Near    `json:"near"`              // grants that do not allow, those first that lack least
	Disabled      bool      `json:"disabled,omitempty"`
	Allowlisted   *bool     `json:"allowlisted,omitempty"` // the workspace's allowlist admits the address; nil: not shown
	// NotShown says what the answer does not count, for the asker may not read it, and which permission that wants.
	NotShown []string `json:"not_shown,omitempty"`
	// Agent is what the site says: answered, and Site has the answer; else what it offers: offered, not offered, no agent, or not asked,
	// for what is not about a connection.
	Agent     string       `json:"agent"`
	AgentHint string       `json:"agent_hint,omitempty"` // how the site's own rules are asked
	Site      *SiteVerdict `json:"site,omitempty"`
}

// SiteVerdict is what an agent would decide about an operation by its own rules, whoever asks for it. What only shows when it is done
// is not in it: the address that a name leads to, what the database's account may, whether a file is there.
type SiteVerdict struct {
	Agent     string `json:"agent"` // id of the one that was asked
	Allow     bool   `json:"allow"`
	Rule      string `json:"rule,omitempty"` // of agent.yaml, that decides
	Reason    string `json:"reason"`
	Hint      string `json:"hint,omitempty"`
	Code      string `json:"code,omitempty"`       // of a refusal
	Statement string `json:"statement,omitempty"`  // without literals, as the audit log shows it
	MaxRows   int64  `json:"max_rows,omitempty"`   // 0: no cap
	MaxBytes  int64  `json:"max_bytes,omitempty"`  // 0: no cap
	TimeoutMs int64  `json:"timeout_ms,omitempty"` // 0: none
}

// States of Explanation.Agent.
const (
	AgentOffers   = "offered"
	AgentOffersNo = "not offered"
	AgentMissing  = "no agent"
	AgentNotAsked = "not asked"
	AgentAnswered = "answered"
)

// Roles lists system roles and the workspace's custom roles.
func (c *Client) Roles(ctx context.Context) ([]Role, error) { return all[Role](ctx, c, c.ws("roles")) }

// Role gives one role by name or id.
func (c *Client) Role(ctx context.Context, name string) (Role, error) {
	var r Role
	return r, c.do(ctx, http.MethodGet, c.ws("roles", name), nil, nil, &r)
}

// CreateRole makes a custom role.
func (c *Client) CreateRole(ctx context.Context, s SetRole) (Role, error) {
	var r Role
	return r, c.create(ctx, c.ws("roles"), s, &r)
}

// SetRole replaces a custom role. With an etag, only if it is still the one that the etag was read of.
func (c *Client) SetRole(ctx context.Context, name, etag string, s SetRole) (Role, error) {
	var r Role
	return r, c.doIf(ctx, http.MethodPut, c.ws("roles", name), nil, etag, s, &r)
}

// DeleteRole removes a custom role that no grant gives.
func (c *Client) DeleteRole(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, c.ws("roles", name), nil, nil, nil)
}

// Grants lists the grants that the caller may see.
func (c *Client) Grants(ctx context.Context) ([]Grant, error) {
	return all[Grant](ctx, c, c.ws("grants"))
}

// CreateGrant gives a role.
func (c *Client) CreateGrant(ctx context.Context, n NewGrant) (Grant, error) {
	var g Grant
	return g, c.create(ctx, c.ws("grants"), n, &g)
}

// DeleteGrant takes a grant away; what it no longer allows is cut.
func (c *Client) DeleteGrant(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, c.ws("grants", id), nil, nil, nil)
}

// Teams lists the teams.
func (c *Client) Teams(ctx context.Context) ([]Team, error) { return all[Team](ctx, c, c.ws("teams")) }

// Team gives one team by name or id.
func (c *Client) Team(ctx context.Context, name string) (Team, error) {
	var t Team
	return t, c.do(ctx, http.MethodGet, c.ws("teams", name), nil, nil, &t)
}

// CreateTeam makes a team without members.
func (c *Client) CreateTeam(ctx context.Context, n NewTeam) (Team, error) {
	var t Team
	return t, c.create(ctx, c.ws("teams"), n, &t)
}

// DeleteTeam removes a team with its grants.
func (c *Client) DeleteTeam(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, c.ws("teams", name), nil, nil, nil)
}

// AddMember puts a principal (name or id) into a team.
func (c *Client) AddMember(ctx context.Context, team, principal string) (Team, error) {
	var t Team
	return t, c.do(ctx, http.MethodPut, c.ws("teams", team, "members", principal), nil, nil, &t)
}

// RemoveMember takes a principal (name or id) out of a team.
func (c *Client) RemoveMember(ctx context.Context, team, principal string) error {
	return c.do(ctx, http.MethodDelete, c.ws("teams", team, "members", principal), nil, nil, nil)
}

// ReplayQuery asks what decisions that were recorded would be, were the rights others.
type ReplayQuery struct {
	SinceSeconds int64      `json:"since_seconds" doc:"how far to go back: 1 second to 366 days"`
	Without      []string   `json:"without,omitempty" doc:"ids of grants that would be gone"`
	With         []NewGrant `json:"with,omitempty" doc:"grants that would be given"`
	Roles        []SetRole  `json:"roles,omitempty" doc:"custom roles, by name or id, as they would be"`
}

// Replay is what recorded decisions would be. Only decisions of grants count, on connections, made by the relay: what an allowlist, a
// budget or the site refused they had no part in.
type Replay struct {
	Since    time.Time `json:"since"`
	Complete bool      `json:"complete" doc:"false: the log, or what one replay reads of it, does not go back that far"`
	Replayed int64     `json:"replayed" doc:"recorded decisions that were made again"`
	Gone     int64     `json:"gone" doc:"recorded decisions about a principal or connection that is no longer there"`
	Flips    []Flip    `json:"flips"`
}

// Flip is a decision that would be another, or is already: Now is what the present rights say.
type Flip struct {
	Principal     string    `json:"principal"`
	PrincipalName string    `json:"principal_name"`
	Action        string    `json:"action"`
	Connection    string    `json:"connection"`
	SourceAddress string    `json:"source_address"`
	Recorded      bool      `json:"recorded" doc:"allowed then"`
	Now           bool      `json:"now" doc:"allowed by the present rights"`
	Proposed      bool      `json:"proposed" doc:"allowed by the proposed ones"`
	Reason        string    `json:"reason" doc:"of the proposed decision"`
	Grant         string    `json:"grant,omitempty" doc:"id of the grant that would allow it; proposed for one that is not there"`
	Count         int64     `json:"count"`
	LastAt        time.Time `json:"last_at"`
}

// Replay asks what recorded decisions would be.
func (c *Client) Replay(ctx context.Context, q ReplayQuery) (Replay, error) {
	var r Replay
	return r, c.doLong(ctx, http.MethodPost, c.ws("explain", "replay"), nil, q, &r)
}

// Explain tells why a principal may or may not.
func (c *Client) Explain(ctx context.Context, q ExplainQuery) (Explanation, error) {
	v := url.Values{"action": {q.Action}}
	for name, value := range map[string]string{"principal": q.Principal, "token": q.Token, "connection": q.Connection, "project": q.Project, "folder": q.Folder, "environment": q.Environment, "source": q.Source,
		"sql": q.SQL, "statement": q.Statement, "path": q.Path, "to": q.To, "method": q.Method, "target": q.Target} {
		if value != "" {
			v.Set(name, value)
		}
	}
	var e Explanation
	return e, c.do(ctx, http.MethodGet, c.ws("explain"), v, nil, &e)
}

// DeleteWorkspace destroys the workspace with all that is in it. confirm is its name, so that nobody does it unawares.
func (c *Client) DeleteWorkspace(ctx context.Context, confirm string) error {
	return c.do(ctx, http.MethodDelete, c.ws(), url.Values{"confirm": {confirm}}, nil, nil)
}
