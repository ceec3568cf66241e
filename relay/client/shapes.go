package client

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// BasePath is where the API stands on the relay's listener.
const BasePath = "/api/v1"

// Media types of the API.
const (
	ContentProblem = "application/problem+json" // RFC 9457
	ContentCSV     = "text/csv"
)

// List is one page of a list. Cursor gets the next page; "" on the last.
type List[T any] struct {
	Items  []T    `json:"items"`
	Cursor string `json:"cursor,omitempty"`
}

// Problem is the error body of the API (RFC 9457 with extension members). Detail is protocol.Error's Message;
// protocol.Error's Detail (SQLSTATE, errno name) travels as TargetCode, for the name is taken.
type Problem struct {
	Type       string          `json:"type,omitempty"` // "about:blank" or a URI that documents the code
	Title      string          `json:"title,omitempty"`
	Status     int             `json:"status,omitempty"`
	Detail     string          `json:"detail,omitempty"`
	Code       protocol.Code   `json:"code,omitempty"`
	Origin     protocol.Origin `json:"origin,omitempty"`
	Rule       string          `json:"rule,omitempty"`
	Hint       string          `json:"hint,omitempty"`
	TargetCode string          `json:"target_code,omitempty"`
	RequestID  string          `json:"request_id,omitempty"`
	// RetryAfterMs says when to try again, of a refusal by a budget.
	RetryAfterMs int64 `json:"retry_after_ms,omitempty"`
}

// NewProblem is the body that tells of e. The cause stays inside.
func NewProblem(e *protocol.Error) Problem {
	status := e.Code.Status()
	title := http.StatusText(status)
	if title == "" { // 499
		title = string(e.Code)
	}
	return Problem{
		Type: "about:blank", Title: title, Status: status, Detail: e.Message, Code: e.Code, Origin: e.Origin, Rule: e.Rule,
		Hint: e.Hint, TargetCode: e.Detail, RequestID: e.RequestID, RetryAfterMs: e.RetryAfterMs,
	}
}

// Err turns the body back into the error that it tells of.
func (p Problem) Err() *protocol.Error {
	e := &protocol.Error{
		Code: p.Code, Message: p.Detail, Origin: p.Origin, Rule: p.Rule, Hint: p.Hint, Detail: p.TargetCode, RequestID: p.RequestID, RetryAfterMs: p.RetryAfterMs,
	}
	if e.Message == "" {
		e.Message = p.Title
	}
	return e
}

// Whoami tells the caller who the relay takes it for.
type Whoami struct {
	Principal     string   `json:"principal"` // id: tok_…, usr_…
	Name          string   `json:"name"`
	Workspace     string   `json:"workspace"`
	Roles         []string `json:"roles"`
	SourceAddress string   `json:"source_address"` // as the relay sees it; what the allowlist is held against
}

// States of an agent.
const (
	AgentAwaitingSetup = "awaiting setup" // enrolled or expected, never connected
	AgentActive        = "active"         // at least one live tunnel
	AgentNoResponse    = "no response"    // was connected, has no live tunnel
	AgentDisabled      = "disabled"       // cut off by an admin
)

// Agent is one enrolled agent.
type Agent struct {
	ID                  string                  `json:"id"`
	Name                string                  `json:"name"`
	Group               string                  `json:"group"`
	State               string                  `json:"state"`
	Version             string                  `json:"version,omitempty"`
	ConnectedSince      *time.Time              `json:"connected_since,omitempty"` // nil without a live tunnel
	LastSeen            *time.Time              `json:"last_seen,omitempty"`
	SourceAddress       string                  `json:"source_address,omitempty"`
	ConfigDigest        string                  `json:"config_digest,omitempty"`
	ReloadError         string                  `json:"reload_error,omitempty"` // set while a newer file is refused
	Hostname            string                  `json:"hostname,omitempty"`
	OS                  string                  `json:"os,omitempty"`
	Arch                string                  `json:"arch,omitempty"`
	CertificateNotAfter *time.Time              `json:"certificate_not_after,omitempty"`
	Tunnels             int                     `json:"tunnels"`
	Lanes               int                     `json:"lanes"`                // dedicated connections beside them
	Transports          []string                `json:"transports,omitempty"` // of the live tunnels: tls, websocket, quic
	Profiles            []protocol.ProfileOffer `json:"profiles,omitempty"`
	CreatedAt           time.Time               `json:"created_at"`
	ETag                string                  `json:"etag,omitempty"` // of its state; what If-Match takes
}

// Group is an agent group: agents that serve the same profiles.
type Group struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Agents int    `json:"agents"` // enrolled, whatever their state
	// Environment is where all of its connections stand; "": where each of them says.
	Environment string    `json:"environment,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	ETag        string    `json:"etag,omitempty"` // of its state; what If-Match takes
}

// NewGroup asks for a group.
type NewGroup struct {
	Name        string `json:"name"`
	Environment string `json:"environment,omitempty" doc:"development, test or production: its connections can stand nowhere else; empty: in any"`
}

// JoinToken is an open join token, without its secret.
type JoinToken struct {
	ID        string    `json:"id"`
	Group     string    `json:"group"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by,omitempty"` // principal id
	ExpiresAt time.Time `json:"expires_at"`
	ETag      string    `json:"etag,omitempty"` // of its state; what If-Match takes
}

// NewJoinToken asks for a join token. 0 seconds means the relay's default, one hour.
type NewJoinToken struct {
	Group            string `json:"group"`
	ExpiresInSeconds int64  `json:"expires_in_seconds,omitempty"`
}

// CreatedJoinToken holds the token text, which is shown this once.
type CreatedJoinToken struct {
	ID        string    `json:"id"`
	Token     string    `json:"token"` // flj_…
	Group     string    `json:"group"`
	ExpiresAt time.Time `json:"expires_at"`
	ETag      string    `json:"etag,omitempty"` // of its state; what If-Match takes
}

// Target names a host and port that the site's allow list must admit.
type Target struct {
	Host string `json:"host"`
	Port uint16 `json:"port"`
}

// Connection is a named asset: a profile of an agent group, or a target of the group's allow list.
type Connection struct {
	ID          string        `json:"id"`
	Name        string        `json:"name"`
	Group       string        `json:"group"`
	Profile     string        `json:"profile,omitempty"`
	Environment string        `json:"environment,omitempty"` // development, test or production
	Project     string        `json:"project,omitempty"`     // empty: it stands in none
	Folder      string        `json:"folder,omitempty"`      // path in the project
	Target      *Target       `json:"target,omitempty"`
	Kind        protocol.Kind `json:"kind,omitempty"` // as live agents offer it; "" when none is connected
	Adapter     string        `json:"adapter,omitempty"`
	Available   bool          `json:"available"` // a live agent of the group offers it
	Gateway     *Gateway      `json:"gateway,omitempty"`
	CreatedAt   time.Time     `json:"created_at"`
	ETag        string        `json:"etag,omitempty"` // of its state; what If-Match takes
}

// NewConnection asks for a connection. Exactly one of Profile and Target is set.
type NewConnection struct {
	Name        string      `json:"name"`
	Group       string      `json:"group"`
	Profile     string      `json:"profile,omitempty"`
	Environment string      `json:"environment,omitempty"` // development, test or production, which is the default
	Project     string      `json:"project,omitempty"`     // name or id; empty: in none
	Folder      string      `json:"folder,omitempty"`      // path or id in the project
	Target      *Target     `json:"target,omitempty"`
	Gateway     *SetGateway `json:"gateway,omitempty"` // made with it, or neither is
}

// Token is an API token, without its secret.
type Token struct {
	ID            string     `json:"id"`
	Name          string     `json:"name"`
	Principal     string     `json:"principal,omitempty"` // id of whom it is for
	PrincipalName string     `json:"principal_name,omitempty"`
	Personal      bool       `json:"personal,omitempty"` // a person's own
	Roles         []string   `json:"roles"`
	Only          *TokenOnly `json:"only,omitempty"` // nil: limited by its principal's rights alone
	CreatedAt     time.Time  `json:"created_at"`
	ExpiresAt     *time.Time `json:"expires_at,omitempty"` // nil: until revoked
	LastUsedAt    *time.Time `json:"last_used_at,omitempty"`
	LastUsedFrom  string     `json:"last_used_from,omitempty"` // address
	ETag          string     `json:"etag,omitempty"`           // of its state; what If-Match takes
}

// TokenOnly is what a token is limited to, beside what its principal may. What is empty limits nothing; of each list that is given,
// one must fit.
type TokenOnly struct {
	Actions      []string `json:"actions,omitempty"`
	Environments []string `json:"environments,omitempty"`
	Projects     []string `json:"projects,omitempty"`    // names or ids
	Connections  []string `json:"connections,omitempty"` // names or ids
	From         []string `json:"from,omitempty"`        // networks
}

// NewToken asks for an API token. 0 seconds means the relay's default, 90 days.
type NewToken struct {
	Name string `json:"name"`
	// Principal is the name or id of the service account that it is for. Empty: a new one of the token's name, with Roles.
	Principal        string     `json:"principal,omitempty"`
	Roles            []string   `json:"roles,omitempty"`
	Connections      []string   `json:"connections,omitempty"` // names or ids that the roles are given on; empty: the whole workspace
	Only             *TokenOnly `json:"only,omitempty"`
	ExpiresInSeconds int64      `json:"expires_in_seconds,omitempty"`
}

// NewPersonalToken asks for a token of who asks. 0 seconds means 90 days, or what the workspace admits.
type NewPersonalToken struct {
	Name             string     `json:"name"`
	Only             *TokenOnly `json:"only,omitempty"`
	ExpiresInSeconds int64      `json:"expires_in_seconds,omitempty"`
}

// Quota is how much a workspace has of something that the relay's operator bounds.
type Quota struct {
	Name string `json:"name"` // agents, connections, users, service_accounts, tokens
	Used int    `json:"used"`
	Most int    `json:"most,omitempty"` // 0: no bound
}

// Domain is a name of a workspace's own that callers reach the relay by.
type Domain struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	// CertificateEndsAt is when the certificate for the name ends; nil: there is none, callers are shown the relay's own.
	CertificateEndsAt *time.Time `json:"certificate_ends_at,omitempty"`
	ETag              string     `json:"etag,omitempty"` // of its state; what If-Match takes
}

// NewDomain asks for a domain.
type NewDomain struct {
	Name string `json:"name"`
}

// ServiceAccount is a program that may hold tokens.
type ServiceAccount struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Roles     []string  `json:"roles"` // on the whole workspace
	Disabled  bool      `json:"disabled,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	Tokens    int       `json:"tokens,omitempty"` // that are neither revoked nor expired
	ETag      string    `json:"etag,omitempty"`   // of its state; what If-Match takes
}

// NewServiceAccount asks for a service account. What it shall hold elsewhere than on the whole workspace, grants give.
type NewServiceAccount struct {
	Name  string   `json:"name"`
	Roles []string `json:"roles,omitempty"`
}

// CreatedToken holds the token text, which is shown this once.
type CreatedToken struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Principal string     `json:"principal,omitempty"` // id of whom it is for
	Token     string     `json:"token"`               // flt_…
	Roles     []string   `json:"roles"`
	Only      *TokenOnly `json:"only,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	ETag      string     `json:"etag,omitempty"` // of its state; what If-Match takes
}

// Allowlist holds the source prefixes that people and programs may come from. Empty admits nobody.
type Allowlist struct {
	Prefixes []string `json:"prefixes"`
	// Lists of those that do not go by Prefixes: "people", "tokens", "gateways". Without one, "agents" may come from everywhere.
	Lists map[string][]string `json:"lists,omitempty" doc:"lists of those that do not go by prefixes: people, tokens, gateways; agents, who may otherwise come from everywhere"`
	ETag  string              `json:"etag,omitempty"` // of their state; what If-Match takes
	// WouldCut answers SetAllowlist.DryRun: the lists and their ETag are those in force.
	WouldCut *AllowlistCut `json:"would_cut,omitempty"`
}

// AllowlistCut is who is in use and admitted now, and would not be admitted any more. Each list names 1000 at most, by name, and none
// of those that the caller may not read. Connections through gateway ports are not looked at.
type AllowlistCut struct {
	You      bool              `json:"you,omitempty"` // the caller's own address would be shut out
	Sessions []AllowlistCutOff `json:"sessions"`      // of people, that live, by the address where they began
	Tokens   []AllowlistCutOff `json:"tokens"`        // that live, by the address that they were last used from
	Agents   []AllowlistCutOff `json:"agents"`        // that are connected, once for each of their addresses
	More     map[string]int    `json:"more,omitempty" doc:"how many sessions, tokens and agents the lists do not name: what is beyond 1000, or not for the caller to read"`
}

// AllowlistCutOff is a session (named by its user), a token or an agent that would be cut off.
type AllowlistCutOff struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address,omitempty"` // empty: not known
}

// SetAllowlist replaces the allowlist. Without Confirm the relay refuses a list that would shut out the caller. With DryRun it
// changes nothing, and tells in WouldCut who would be cut.
type SetAllowlist struct {
	Prefixes []string `json:"prefixes"`
	For      string   `json:"for,omitempty" doc:"whose list: callers (as when empty), people, tokens, agents or gateways"`
	Unset    bool     `json:"unset,omitempty" doc:"take the list of that name away: people, tokens and gateways go by that of callers again, agents by none"`
	Confirm  bool     `json:"confirm,omitempty" doc:"set it even if it shuts out the caller's own address, or cuts agents that are connected"`
	DryRun   bool     `json:"dry_run,omitempty" doc:"change nothing and tell who would be cut; wants no confirm"`
}

// QueryRequest is the body of query and exec. MaxRows can only narrow the site's cap; 0 asks for no further cap.
type QueryRequest struct {
	protocol.Statement
	MaxRows int64 `json:"max_rows,omitempty"`
}

// MoveRequest is the body of move.
type MoveRequest struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Overwrite bool   `json:"overwrite,omitempty"`
}

// MkdirRequest is the body of mkdir.
type MkdirRequest struct {
	Path string `json:"path"`
}

// AuditKey is the public key that the relay's audit checkpoints are signed with. Keep it somewhere the relay cannot
// write, and verify with that copy.
type AuditKey struct {
	ID        string `json:"id"`
	Algorithm string `json:"algorithm"`  // "ed25519"
	PublicKey string `json:"public_key"` // PEM, PKIX "PUBLIC KEY"
}

// AuditEvent is one line of /audit/events: a decoded event. Fields that this build does not know stay in Raw.
type AuditEvent struct {
	Seq        uint64    `json:"seq"`
	ID         string    `json:"id"`
	Time       time.Time `json:"time"`
	Kind       string    `json:"kind"`
	Source     string    `json:"source,omitempty"`
	RequestID  string    `json:"request_id,omitempty"`
	Principal  string    `json:"principal,omitempty"`
	SourceAddr string    `json:"source_address,omitempty"`
	Agent      string    `json:"agent,omitempty"`
	Connection string    `json:"connection,omitempty"`
	Profile    string    `json:"profile,omitempty"`
	Operation  string    `json:"operation,omitempty"`
	Target     string    `json:"target,omitempty"`
	Statement  string    `json:"statement,omitempty"`
	Decision   string    `json:"decision,omitempty"`
	Rule       string    `json:"rule,omitempty"`
	Origin     string    `json:"origin,omitempty"`
	Code       string    `json:"code,omitempty"`
	Status     string    `json:"status,omitempty"`
	Rows       int64     `json:"rows,omitempty"`
	// Detail is what only some kinds tell, such as what was changed.
	Detail map[string]string `json:"detail,omitempty"`
	// Claimed holds what the event's source was told and did not prove: principal and connection in an agent's events.
	Claimed map[string]string `json:"claimed,omitempty"`
	Raw     json.RawMessage   `json:"-"`
}

// UnmarshalJSON keeps the whole line in Raw. A field of another type than it should have stays empty: the line is evidence of its
// source all the same, and must not keep its reader from those behind it.
func (e *AuditEvent) UnmarshalJSON(b []byte) error {
	type plain AuditEvent
	v := struct {
		*plain
		Time json.RawMessage `json:"time"` // before that of plain
	}{plain: (*plain)(e)}
	if err := json.Unmarshal(b, &v); err != nil && !errors.As(err, new(*json.UnmarshalTypeError)) {
		return err
	}
	if json.Unmarshal(v.Time, &e.Time) != nil {
		e.Time = time.Time{}
	}
	e.Raw = append(json.RawMessage(nil), b...)
	return nil
}

// CodeOf gives the code of err: "" when it is nil, CodeInternal when it holds no protocol.Error.
func CodeOf(err error) protocol.Code {
	if err == nil {
		return ""
	}
	var e *protocol.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return protocol.CodeInternal
}
