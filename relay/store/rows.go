package store

// All times are Unix milliseconds, 0 = never. Sealed bytes are opaque here.

// Installation is the one row about this installation.
type Installation struct {
	ID         string
	Created    int64
	KEK        string // id of the KEK that wrapped the key
	KeyWrapped []byte
}

// Relay is one relay of the installation.
type Relay struct {
	ID      string
	Created int64
	Version int64
	Sealed  []byte
}

// Authority is a certificate authority: scope "" is the root, else a workspace's intermediate.
type Authority struct {
	Scope     string
	Created   int64
	Version   int64
	Chain     []byte // public: DER certificates one after the other
	KeySealed []byte
}

// Setting is a named sealed value of the installation (scope "") or a workspace.
type Setting struct {
	Scope, Name string
	Version     int64
	Sealed      []byte
}

// Workspace is a tenant.
type Workspace struct {
	ID, State  string
	Created    int64
	Version    int64
	NameDigest []byte
	KEK        string
	KeyWrapped []byte
	Sealed     []byte
}

// Group is an agent group.
type Group struct {
	ID, Workspace string
	Created       int64
	Version       int64
	NameDigest    []byte
	Sealed        []byte
}

// Agent is an enrolled agent.
type Agent struct {
	ID, Workspace, Group, State  string
	Created, FirstSeen, LastSeen int64
	Version                      int64
	Sealed                       []byte
}

// Certificate is one that was issued to an agent and not replaced since.
type Certificate struct {
	Agent, Serial            string
	SPKI                     []byte // SHA-256 of the public key
	Issued, NotAfter, Proven int64
}

// Principal is who may hold tokens and grants.
type Principal struct {
	ID, Workspace, Kind, State string
	Created                    int64
	Version                    int64
	NameDigest                 []byte
	Sealed                     []byte
}

// JoinToken is a single-use ticket; its secret is not here, only a keyed digest.
type JoinToken struct {
	ID, Workspace, Group string
	Digest               []byte
	Created              int64
	CreatedBy            string
	Expires, UsedAt      int64
	UsedBy               string
}

// APIToken is a credential of a principal; its text is not here, only a keyed digest and a slow hash.
type APIToken struct {
	ID, Workspace, Principal            string
	Digest                              []byte
	Verifier                            string
	Created, Expires, Revoked, LastUsed int64
	Version                             int64
	Sealed                              []byte
	LastSource                          []byte // the address of the last use, sealed; nil if there was none
}

// Connection is a named asset that people hold rights on.
type Connection struct {
	ID, Workspace, Group string
	Created              int64
	Version              int64
	NameDigest           []byte
	Sealed               []byte
}

// AllowEntry is one prefix that callers may come from.
type AllowEntry struct {
	ID, Workspace string
	Version       int64
	Sealed        []byte
}

// State is everything that a snapshot is made of, from one consistent read.
type State struct {
	Generation   int64
	Installation Installation
	Relays       []Relay
	Workspaces   []Workspace
	Groups       []Group
	Agents       []Agent
	Certificates []Certificate
	Principals   []Principal
	JoinTokens   []JoinToken
	APITokens    []APIToken
	Connections  []Connection
	Gateways     []Gateway
	Budgets      []Budget
	Domains      []Domain
	Projects     []Project
	Folders      []Folder
	Placements   []Placement
	Roles        []CustomRole
	Teams        []Team
	Members      []Member
	Grants       []Grant
	Allowlist    []AllowEntry

	People         []Person
	Users          []User
	Sessions       []Session
	SignInPolicies []SignInPolicy
	Passkeys       []Passkey

	same map[string]bool
}

// Same tells that Load took over the whole of these tables from the state before.
func (s *State) Same(tables ...string) bool {
	for _, t := range tables {
		if !s.same[t] {
			return false
		}
	}
	return true
}
