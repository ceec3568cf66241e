package authz

import (
	"net/netip"
	"slices"
)

// What is said where a grant allows something and the token's own limits do not (Decision.Limited).
const (
	RuleToken = "token.only"
	HintToken = "use a token without this limit; `fairlead tokens list` shows what each is limited to"
)

// Limits narrow what a token may do of what its principal may. They never add anything. The zero value limits nothing; within
// each kind one of the list is enough, and each kind that is given must agree.
type Limits struct {
	// Actions, if ByAction is set, are all that it may do: none for the empty set, so that a set of actions that this release does
	// not know is not taken for no limit.
	ByAction bool
	Actions  Set
	// Environments, Projects and Connections (ids) are all that it may do them on: who is limited so may do nothing that is about
	// the workspace. What lies in one of each kind that is given is enough.
	Environments []Environment
	Projects     []string
	Connections  []string
	From         []netip.Prefix // networks that it may come from; one that is not in its plain form matches nothing
}

// None reports whether nothing is limited.
func (l Limits) None() bool {
	return !l.ByAction && len(l.Environments) == 0 && len(l.Projects) == 0 && len(l.Connections) == 0 && len(l.From) == 0
}

// placed reports whether they bind to environments, projects or connections.
func (l *Limits) placed() bool { return len(l.Environments)+len(l.Projects)+len(l.Connections) > 0 }

// Limited is p as it comes with a token that has limits. Those of before count on.
func (p Principal) Limited(l Limits) Principal {
	if !l.None() {
		p.limits = append(slices.Clip(p.limits), &l)
	}
	return p
}

// refusal tells which limit is in the way of an action on a scope, "" for none.
func (p Principal) refusal(action int, s Scope, at At) string {
	for _, l := range p.limits {
		switch {
		case l.ByAction && !l.Actions.has(action):
			return "the token is limited to other actions"
		case l.placed() && (Actions[action].Level == OnWorkspace || !l.reaches(s)):
			return "the token is limited to other connections, projects or environments"
		case len(l.From) > 0 && !within(l.From, at.Source):
			return "the token is limited to other networks"
		}
	}
	return ""
}

// reaches reports whether a scope lies in each kind of place that they are placed on.
func (l *Limits) reaches(s Scope) bool {
	return among(l.Connections, s.Connection) && among(l.Projects, s.Project) && among(l.Environments, s.Environment)
}

// among reports whether a place is one of the list; of an empty list each is, and none is the empty text.
func among[T ~string](list []T, place T) bool {
	return len(list) == 0 || place != "" && slices.Contains(list, place)
}

func within(list []netip.Prefix, source netip.Addr) bool {
	if !source.IsValid() || source.Zone() != "" || source.Is4In6() {
		return false
	}
	for _, p := range list {
		if p == p.Masked() && p.Contains(source) {
			return true
		}
	}
	return false
}

// coverLimits reports whether who is limited so may pass an action on for a scope and networks (none: from everywhere).
func (p Principal) coverLimits(action int, s Scope, from []netip.Prefix) bool {
	for _, l := range p.limits {
		if l.ByAction && !l.Actions.has(action) || l.placed() && (Actions[action].Level == OnWorkspace || !l.reaches(s)) {
			return false
		}
		if len(l.From) == 0 {
			continue
		}
		for _, f := range from {
			inside := func(p netip.Prefix) bool { return p == p.Masked() && p.Bits() <= f.Bits() && p.Contains(f.Addr()) }
			if !slices.ContainsFunc(l.From, inside) {
				return false
			}
		}
		if len(from) == 0 {
			return false
		}
	}
	return true
}
