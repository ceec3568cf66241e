package authz

import (
	"math/bits"

	"github.com/fairleadhq/fairlead/protocol"
)

// Role names a set of actions: a system role by its name, a custom role by its id.
type Role string

// System roles. Owner does everything, and alone destroys the workspace and makes or unmakes owners; Admin does all else;
// Operator runs agents, groups, connections and join tokens, reads the audit log and uses connections; Analyst uses connections
// for reading.
const (
	Owner    Role = "owner"
	Admin    Role = "admin"
	Operator Role = "operator"
	Analyst  Role = "analyst"
)

// Roles lists every system role, the widest first.
var Roles = []Role{Owner, Admin, Operator, Analyst}

// ParseRole refuses what is not exactly the name of a system role.
func ParseRole(s string) (Role, error) {
	if r := Role(s); r.bit() != 0 {
		return r, nil
	}
	return "", &protocol.Error{Code: protocol.CodeInvalid, Message: "no such role", Hint: "use owner, admin, operator or analyst"}
}

// Set gives the actions of a system role; none for what is not one.
func (r Role) Set() Set { return systemSets[r] }

// Allows reports whether the system role holds an action. Unknown roles and actions never do.
func (r Role) Allows(a Action) bool { return systemSets[r].Has(a) }

type roleSet uint8

const (
	owners    roleSet = 1
	admins            = owners | 2
	operators         = admins | 4
	all               = operators | 8
)

func (r Role) bit() roleSet {
	switch r {
	case Owner:
		return 1
	case Admin:
		return 2
	case Operator:
		return 4
	case Analyst:
		return 8
	}
	return 0
}

var systemSets = func() map[Role]Set {
	m := map[Role]Set{}
	for _, r := range Roles {
		var s Set
		for i, p := range Actions {
			if p.roles&r.bit() != 0 {
				s = s.with(i)
			}
		}
		m[r] = s
	}
	return m
}()

// setSize bounds the permission table.
const setSize = 128

// Set is a set of actions of the permission table. The zero value is empty. Comparable.
type Set struct{ words [setSize / 64]uint64 }

// NewSet gathers actions for a custom role, with what they hold. What is not in the table is refused, and so is what owners alone hold.
func NewSet(actions ...Action) (Set, error) {
	var s Set
	for _, a := range actions {
		i, ok := table[a]
		if !ok {
			return Set{}, &protocol.Error{Code: protocol.CodeInvalid, Message: "no such action", Hint: "docs/permissions.md lists them; `fairlead roles show owner` too"}
		}
		if Actions[i].roles == owners {
			return Set{}, &protocol.Error{Code: protocol.CodeInvalid, Message: "this action belongs to owners alone", Hint: "leave it out; an owner can give the role owner"}
		}
		s = s.with(i)
	}
	return s, nil
}

// parts are, for each row, those that whoever holds it holds by that: of one that manages an asset, what creates, edits and deletes it.
var parts = func() []Set {
	m := make([]Set, len(Actions))
	for i, whole := range Actions {
		for j, p := range Actions {
			if whole.Verb == Manage && p.Asset == whole.Asset && (p.Verb == Create || p.Verb == Edit || p.Verb == Destroy) {
				m[i] = m[i].alone(j)
			}
		}
	}
	return m
}()

// with adds a row and its parts. Every Set is made of these, so it holds the parts wherever it comes from: a system role, a custom
// role as it is given or was stored, the limits of a token.
func (s Set) with(i int) Set { return s.alone(i).Or(parts[i]) }

func (s Set) alone(i int) Set {
	s.words[i/64] |= 1 << (i % 64)
	return s
}

func (s Set) has(i int) bool { return s.words[i/64]&(1<<(i%64)) != 0 }

// Has reports whether the set holds an action.
func (s Set) Has(a Action) bool {
	i, ok := table[a]
	return ok && s.has(i)
}

// Actions lists the set in the order of the table.
func (s Set) Actions() []Action {
	var out []Action
	for i, p := range Actions {
		if s.has(i) {
			out = append(out, p.Action)
		}
	}
	return out
}

// Least lists the fewest actions that NewSet makes the set of, in the order of the table: how a role is told and kept.
func (s Set) Least() []Action {
	least := s
	for i := range Actions {
		if s.has(i) {
			least = least.Without(parts[i])
		}
	}
	return least.Actions()
}

// Or is what is in s or in o.
func (s Set) Or(o Set) Set {
	for i := range s.words {
		s.words[i] |= o.words[i]
	}
	return s
}

// Without is what is in s and not in o.
func (s Set) Without(o Set) Set {
	for i := range s.words {
		s.words[i] &^= o.words[i]
	}
	return s
}

// Len counts the actions.
func (s Set) Len() (n int) {
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}
