package authz

import (
	"net/netip"
	"strings"
	"time"
)

// MayGive reports whether p may give the grant g by the action via (GrantsCreate, TokensCreate, TeamsEdit): it must be allowed
// via there, now and from where it asks, and it must itself hold every action that g would give, for as long and from wherever
// g gives it, so that nobody grants above their own, and a right that is limited is passed on no less limited. on is the scope
// of g, whole: for a connection with all that it stands in, for a folder with those above it.
func MayGive(p Principal, g Grant, on Scope, via Action, at At) bool {
	set := g.Set()
	switch {
	case set == (Set{}) || !g.sound() || g.Workspace != on.Workspace || g.Connection != on.Connection:
		return false
	case g.Connection == "" && (g.Environment != on.Environment || g.Project != on.Project || g.Folder != on.Folder[strings.LastIndexByte(on.Folder, '/')+1:]):
		return false
	case !Decide(p, via, on, at).Allow:
		return false
	}
	for i, row := range Actions {
		if !set.has(i) || !row.Level.within(on) {
			continue // a grant on a part of the workspace does not give what is about more than that
		}
		if !p.rights.covers(i, on, g.Until, g.From) || !p.coverLimits(i, on, g.From) {
			return false
		}
	}
	return true
}

// covers reports whether an action is held on a scope until then, from everywhere or from all of the prefixes.
func (r *rights) covers(action int, s Scope, until time.Time, from []netip.Prefix) bool {
	end := int64(endless)
	if !until.IsZero() {
		end = until.UnixMilli()
	}
	places := []*holding{r.workspace, r.environments[s.Environment], r.connections[s.Connection]} // nil where there is none
	r.within(s, func(h *holding, _ string) bool {
		places = append(places, h)
		return false
	})
	if len(from) == 0 {
		from = []netip.Prefix{{}}
	}
	for _, p := range from {
		covered := false
		for _, h := range places {
			covered = covered || h.covers(action, end, p)
		}
		if !covered {
			return false
		}
	}
	return true
}

// covers reports whether the action is held until end from all of a prefix; the invalid prefix is everywhere.
func (h *holding) covers(action int, end int64, from netip.Prefix) bool {
	if h == nil {
		return false
	}
	good := func(list []held) bool {
		one, ok := longest(list, action)
		return ok && one.until >= end
	}
	if good(h.anywhere) {
		return true
	}
	if !from.IsValid() {
		return false
	}
	for _, n := range h.bits[family(from.Addr())] {
		if n > from.Bits() {
			continue
		}
		if p, err := from.Addr().Prefix(n); err == nil && good(h.from[p]) {
			return true
		}
	}
	return false
}
