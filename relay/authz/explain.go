package authz

import (
	"slices"
	"strings"
	"time"
)

// Near is a grant of a principal that does not allow what was asked, with what stands in its way.
type Near struct {
	Grant Grant
	Lacks []Lack
}

// Lack is why a grant does not allow an action.
type Lack string

const (
	LacksAction Lack = "action" // its role does not hold the action
	LacksScope  Lack = "scope"  // it is given on something else
	LacksTime   Lack = "time"   // it is over
	LacksSource Lack = "source" // it is not for the address
)

// Explain is Decide, with what it is made of: the grants of p (which it was made of) that do not allow the action, those first
// that lack least. What Decide allows, no grant of them lacks nothing for.
func Explain(p Principal, grants []Grant, a Action, s Scope, at At) (Decision, []Near) {
	d := Decide(p, a, s, at)
	var out []Near
	for _, g := range grants {
		n := Near{Grant: g}
		if !g.Set().Has(a) {
			n.Lacks = append(n.Lacks, LacksAction)
		}
		if !g.reaches(p, a, s) {
			n.Lacks = append(n.Lacks, LacksScope)
		}
		if g.over(at.Time) {
			n.Lacks = append(n.Lacks, LacksTime)
		}
		if len(g.From) > 0 && !g.admits(at) {
			n.Lacks = append(n.Lacks, LacksSource)
		}
		if len(n.Lacks) > 0 {
			out = append(out, n)
		}
	}
	slices.SortStableFunc(out, func(a, b Near) int { return len(a.Lacks) - len(b.Lacks) })
	return d, out
}

// Gives reports whether the grant, of p, gives an action on a scope at a time, from wherever: where somebody asks from is not looked at.
func (g Grant) Gives(p Principal, a Action, s Scope, at time.Time) bool {
	return g.Set().Has(a) && g.reaches(p, a, s) && !g.over(at)
}

func (g Grant) over(at time.Time) bool {
	return !g.Until.IsZero() && (at.UnixMilli() <= 0 || at.UnixMilli() >= g.Until.UnixMilli())
}

// reaches reports whether what the grant is given on holds the scope, for the action and for p.
func (g Grant) reaches(p Principal, a Action, s Scope) bool {
	row, ok := Find(a)
	switch {
	case !ok || p.Workspace == "" || p.Workspace != s.Workspace || g.Workspace != s.Workspace || row.Level == OnConnection && s.Connection == "":
		return false
	case !g.sound():
		return false
	case g.Connection != "":
		return row.Level.inside() && g.Connection == s.Connection
	case g.Environment == "" && g.Project == "":
		return true
	}
	return row.Level.within(g.Scope()) && (g.Environment == "" || g.Environment == s.Environment) && (g.Project == "" || g.Project == s.Project) &&
		(g.Folder == "" || slices.Contains(strings.Split(s.Folder, "/"), g.Folder))
}

func (g Grant) admits(at At) bool {
	if at.Source.Is4In6() {
		return false
	}
	for _, p := range g.From {
		if p.Contains(at.Source) {
			return true
		}
	}
	return false
}

// RolesWith lists the system roles that hold an action, the narrowest first.
func RolesWith(a Action) []Role {
	var out []Role
	for _, r := range Roles {
		if r.Allows(a) {
			out = append([]Role{r}, out...)
		}
	}
	return out
}
