package directory

import (
	"crypto/subtle"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// Snapshot is the state at one generation. Nothing in it may be changed; safe for concurrent use.
type Snapshot struct {
	Generation   int64
	Installation string
	Created      time.Time // of the installation
	Relays       []Relay
	// Stale is set when the state could not be read for too long: the snapshot is then empty.
	Stale bool

	workspaces []*Workspace // by name
	byName     map[string]*Workspace
	byID       map[string]*Workspace
	agents     map[string]*Agent
	tokens     map[[32]byte]*Token
	digest     func(token string) ([32]byte, error)

	people        map[string]*Person
	sessions      map[[32]byte]*Session
	sessionsByID  map[string]*Session
	sessionDigest func(text string) ([32]byte, error)
	passkeys      map[[32]byte]*Passkey
	passkeyDigest func(id string) ([32]byte, error)
	rp            string                // that passkeys must be bound to
	domains       map[string]*Workspace // by name
}

// Relay is a relay of the installation.
type Relay struct {
	ID        string    `json:"-"`
	Created   time.Time `json:"-"`
	Name      string    `json:"name,omitempty"`
	Addresses []string  `json:"addresses,omitempty"` // where agents reach it

	version int64
}

// Workspace is a tenant. Lists are in the order of names, else of ids.
type Workspace struct {
	ID, Name    string
	Created     time.Time
	Allowlist   *allowlist.List // of addresses that callers may come from; empty admits nobody
	Prefixes    []netip.Prefix  // the same, as given
	Groups      []*Group
	Agents      []*Agent
	Connections []*Connection
	Projects    []*Project
	Principals  []*Principal
	Tokens      []*Token
	JoinTokens  []JoinToken
	Roles       []*Role       // custom ones
	Teams       []*Team       // of principals
	Grants      []*Grant      // in the order of their making
	Budget      budget.Limits // set by the workspace's admins; the zero value limits nothing
	Sessions    []*Session    // of people, the newest first
	SignIn      SignIn        // what is demanded of who signs in
	Domains     []*Domain     // names of its own, by name

	sources     map[Side]*sources      // lists of sides that have their own
	allowRows   []store.AllowEntry     // the rows that all lists are made of
	people      map[string]*Person     // by principal id
	users       map[string]*Principal  // those that are people, by name
	budget      []byte                 // as it was sealed
	groups      map[string]*Group      // by name and id: a name never looks like an id
	connections map[string]*Connection // by name and id
	projects    map[string]*Project    // by name and id
	folders     map[string]*Folder     // by id
	principals  map[string]*Principal  // by id
	agents      map[string]*Agent      // by id
	members     map[string][]*Agent    // by group id
	roles       map[string]*Role       // by name and id
	teams       map[string]*Team       // by name and id
	grants      map[string]*Grant      // by id
}

// Group is an agent group.
type Group struct {
	ID, Workspace, Name string
	Environment         authz.Environment // where its connections stand; "": where each of them says
	Created             time.Time

	sealed []byte
}

// Connection is a named asset: a profile of an agent group, or a target of its own behind it.
type Connection struct {
	ID, Workspace string
	Group         string // id
	Created       time.Time
	ConnectionBody
	Project *Project      // nil: none
	Folder  *Folder       // of the project; nil: it stands in the project itself
	Gateway *Gateway      // nil: none
	Budget  budget.Limits // the zero value limits nothing

	sealed []byte
	budget []byte // as it was sealed
}

// ConnectionBody is what people gave: a profile's name, or a host and port.
type ConnectionBody struct {
	Name    string `json:"name"`
	Profile string `json:"profile,omitempty"`
	Host    string `json:"host,omitempty"`
	Port    uint16 `json:"port,omitempty"`
	// Environment is production when nothing is given. It stays for good: grants are given on it.
	Environment authz.Environment `json:"environment,omitempty"`
	// In says where a new one shall stand. Where one that is there stands, Project and Folder of the Connection say.
	In Place `json:"-"`
}

// Principal is who may hold tokens and grants.
type Principal struct {
	authz.Principal
	Created  time.Time
	Disabled bool
	Grants   []authz.Grant // its own and those of its teams

	sealed []byte
}

// JoinToken is a single-use ticket for one agent.
type JoinToken struct {
	ID, Workspace string
	Group         string // id
	Created       time.Time
	CreatedBy     string // principal id
	Expires       time.Time
	UsedAt        time.Time // zero: not used
	UsedBy        string    // agent id
}

// Token is an API token; its text is not kept.
type Token struct {
	ID, Workspace, Name string
	Principal           *Principal
	Created, Expires    time.Time
	Revoked             time.Time // zero: not revoked

	digest   [32]byte
	verifier string
	expires  int64 // Unix milliseconds
	sealed   []byte
	used     *usage
	only     *onlyBody       // nil: its principal's rights alone limit it
	acting   authz.Principal // with the limits
	person   *Person         // whose personal token it is; nil: a service account's
	policy   SignIn          // that a personal token goes by
}

// usage is when a token was used, shared by all snapshots that hold the token.
type usage struct {
	last, written atomic.Int64 // Unix milliseconds
	source        atomic.Pointer[netip.Addr]
}

// Acting is the principal as it comes with the token: within the token's limits.
func (t *Token) Acting() authz.Principal { return t.acting }

// Within is somebody else, or the principal with other grants, as it would come with the token.
func (t *Token) Within(p authz.Principal) authz.Principal {
	p.Token = t.ID
	return p.Limited(t.only.limits())
}

// Only is what the token is limited to; connections by id.
func (t *Token) Only() Only {
	if t.only == nil {
		return Only{}
	}
	return Only(*t.only)
}

// Personal tells whether it is a person's own.
func (t *Token) Personal() bool { return t.person != nil }

// LastSource is where the token was used from last; the zero Addr if never, or by an earlier release.
func (t *Token) LastSource() netip.Addr {
	if a := t.used.source.Load(); a != nil {
		return *a
	}
	return netip.Addr{}
}

// LastUsed is when the token was used last, to the second; zero if never.
func (t *Token) LastUsed() time.Time { return fromMs(t.used.last.Load()) }

// Used notes that the token was used, and from where. It writes nothing; the directory does, in batches.
func (t *Token) Used(now time.Time, source netip.Addr) {
	// At most one store a second, so that many cores do not fight over it.
	if ms := now.UnixMilli(); ms-t.used.last.Load() >= 1000 {
		if was := t.used.source.Load(); was == nil || *was != source {
			t.used.source.Store(&source)
		}
		t.used.last.Store(ms)
	}
}

// Live tells whether the token may be used: neither revoked nor expired, and its principal is enabled. A personal one also goes by
// the workspace's sign-in policy as it is now: not older than that admits, and not of who lacks the second factor or the passkey that it demands.
func (t *Token) Live(now time.Time) bool {
	if t.person != nil && (t.person.lacks(t.policy) || now.Sub(t.Created) >= t.policy.PersonalTokens) {
		return false
	}
	return t.Revoked.IsZero() && now.UnixMilli() < t.expires && !t.Principal.Disabled
}

// Verify compares a token's text with the slow hash. It takes about a tenth of a second of a core.
func (t *Token) Verify(text string) bool { return vault.Verify(t.verifier, text) }

// Verifier is the slow hash, for who remembers that it was verified.
func (t *Token) Verifier() string { return t.verifier }

// FindToken finds a token by its text, without verifying or judging it, and gives the keyed digest it was found by.
func (s *Snapshot) FindToken(text string) (t *Token, digest [32]byte, ok bool) {
	if s.digest == nil {
		return nil, digest, false
	}
	digest, err := s.digest(text)
	if err != nil {
		return nil, digest, false
	}
	t, ok = s.tokens[digest]
	return t, digest, ok
}

// Workspaces lists all of them in the order of names.
func (s *Snapshot) Workspaces() []*Workspace { return s.workspaces }

// Workspace finds a workspace by name or id.
func (s *Snapshot) Workspace(nameOrID string) (*Workspace, error) {
	if w := s.byID[nameOrID]; w != nil {
		return w, nil
	}
	if w := s.byName[nameOrID]; w != nil {
		return w, nil
	}
	return nil, protocol.Errorf(protocol.CodeNotFound, "no such workspace")
}

// Agent finds an agent of any workspace by its id, nil if there is none.
func (s *Snapshot) Agent(id string) *Agent { return s.agents[id] }

// CheckCertificate tells whether an agent's certificate is good now: the agent is known, enabled, and stands where the
// certificate says; the certificate is one that was issued to it for that key (spki is the SHA-256 of the public key) and was
// not replaced. It does not check signatures.
func (s *Snapshot) CheckCertificate(workspace, group, agent, serial string, spki []byte, now time.Time) error {
	a := s.agents[agent]
	switch {
	case s.Stale:
		return protocol.Errorf(protocol.CodeUnavailable, "the relay cannot read its state")
	case a == nil || a.Workspace != workspace || a.Group != group:
		return protocol.Errorf(protocol.CodeDenied, "the agent is not known here")
	case a.Disabled:
		return protocol.Errorf(protocol.CodeDenied, "the agent is disabled")
	}
	for _, c := range a.Certificates {
		if c.Serial == serial && subtle.ConstantTimeCompare(c.SPKI, spki) == 1 {
			if !now.Before(c.NotAfter) {
				return protocol.Errorf(protocol.CodeDenied, "the agent's certificate has expired")
			}
			return nil
		}
	}
	return protocol.Errorf(protocol.CodeDenied, "the agent's certificate was replaced or withdrawn")
}

// Group finds a group by name or id.
func (w *Workspace) Group(nameOrID string) (*Group, error) {
	if g := w.groups[nameOrID]; g != nil {
		return g, nil
	}
	return nil, noGroup()
}

// Members lists the agents of a group, by the group's id, disabled ones too.
func (w *Workspace) Members(group string) []*Agent { return w.members[group] }

// Connection finds a connection by name or id.
func (w *Workspace) Connection(nameOrID string) (*Connection, error) {
	if c := w.connections[nameOrID]; c != nil {
		return c, nil
	}
	return nil, NoConnection()
}

// NoConnection is the one answer for a connection that is not there and for one that somebody may not see.
func NoConnection() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "no such connection",
		Hint: "list them: fairlead connections list"}
}

// Agent finds an agent of the workspace by id.
func (w *Workspace) Agent(id string) (*Agent, error) {
	if a := w.agents[id]; a != nil {
		return a, nil
	}
	return nil, noAgent()
}

// Principal finds a principal by id, nil if there is none.
func (w *Workspace) Principal(id string) *Principal { return w.principals[id] }

func fromMs(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func toMs(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
