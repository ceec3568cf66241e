package authz

// Kind says what a principal is.
type Kind string

const (
	User    Kind = "user"
	Service Kind = "service"
	Gateway Kind = "gateway"
)

// Grant gives a role on a workspace, or on one connection of it.
type Grant struct {
	ID         string
	Role       Role
	Workspace  string
	Connection string // empty: the whole workspace
}

// Principal is who asks. It belongs to one workspace; grants on others are void. Make it by NewPrincipal; the zero value may
// do nothing. Immutable, cheap to copy, safe for concurrent use.
type Principal struct {
	ID        string
	Workspace string
	Name      string
	Kind      Kind
	Token     string // id of the token that it came with, empty when none
	grants    map[string]granted
}

// granted is what is given on one scope (a connection's id, "" for the workspace).
type granted struct {
	roles roleSet
	ids   [4]string // a grant's id for each role, in the order of Roles, and the gateway's
}

// NewPrincipal gathers what a principal may do. Grants of another workspace and of unknown roles give nothing.
func NewPrincipal(id, workspace, name string, kind Kind, grants []Grant) Principal {
	p := Principal{ID: id, Workspace: workspace, Name: name, Kind: kind, grants: make(map[string]granted, len(grants))}
	for _, g := range grants {
		b := g.Role.bit()
		if b == 0 || g.Workspace != workspace || workspace == "" {
			continue
		}
		s := p.grants[g.Connection]
		s.roles |= b
		for i, r := range Roles {
			if r == g.Role && (s.ids[i] == "" || g.ID < s.ids[i]) {
				s.ids[i] = g.ID
			}
		}
		p.grants[g.Connection] = s
	}
	return p
}

// NewGateway is whoever comes in through a gateway: it may dial the one connection that the gateway is of, and nothing else.
func NewGateway(id, workspace, connection, name string) Principal {
	p := Principal{ID: id, Workspace: workspace, Name: name, Kind: Gateway, grants: map[string]granted{}}
	if id != "" && workspace != "" && connection != "" {
		p.grants[connection] = granted{roles: gateways, ids: [4]string{3: id}}
	}
	return p
}

// Roles lists the roles that the principal holds on its whole workspace, the widest first.
func (p Principal) Roles() []Role {
	var out []Role
	for _, r := range Roles {
		if p.grants[""].roles&r.bit() != 0 {
			out = append(out, r)
		}
	}
	return out
}

// Scope is what an action is about. Both are ids, not names.
type Scope struct {
	Workspace  string
	Connection string // empty for what is about the workspace
}

// Decision is an answer with its ground. Grant is the grant that allowed; Reason is safe to show to the caller.
type Decision struct {
	Allow  bool
	Grant  string
	Reason string
}

// Decide answers whether p may do a on s. Everything that is not granted is denied, and so is every unknown action, a scope in
// another workspace, and an action on a connection that names none.
func Decide(p Principal, a Action, s Scope) Decision {
	row, ok := table[a]
	switch {
	case !ok:
		return Decision{Reason: "no such action"}
	case p.ID == "" || s.Workspace == "" || p.Workspace != s.Workspace:
		return Decision{Reason: "not of this workspace"}
	case row.Level == OnConnection && s.Connection == "":
		return Decision{Reason: "the action is about a connection and none is named"}
	}
	if id, ok := p.grants[""].by(row.roles); ok {
		return Decision{Allow: true, Grant: id, Reason: "granted on the workspace"}
	}
	if row.Level == OnConnection {
		if id, ok := p.grants[s.Connection].by(row.roles); ok {
			return Decision{Allow: true, Grant: id, Reason: "granted on the connection"}
		}
	}
	return Decision{Reason: "no grant allows " + string(a)}
}

// by finds the narrowest role of want that is granted.
func (g granted) by(want roleSet) (string, bool) {
	have := g.roles & want
	if have == 0 {
		return "", false
	}
	for i := len(g.ids) - 1; i >= 0; i-- {
		if have&(1<<i) != 0 {
			return g.ids[i], true
		}
	}
	return "", false
}

// MayGrant reports whether p may give a role on a scope: it must hold every action of the role there itself, so that nobody
// grants above their own.
func MayGrant(p Principal, r Role, s Scope) bool {
	if r.bit() == 0 || !Decide(p, TokensManage, Scope{Workspace: s.Workspace}).Allow {
		return false
	}
	for _, row := range Actions {
		if row.roles&r.bit() == 0 {
			continue
		}
		need := s
		if row.Level == OnConnection && s.Connection == "" {
			if _, ok := p.grants[""].by(row.roles); !ok {
				return false
			}
			continue
		}
		if !Decide(p, row.Action, need).Allow {
			return false
		}
	}
	return true
}
