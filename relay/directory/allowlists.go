package directory

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// MaxAllowlist bounds the prefixes of one list.
const MaxAllowlist = 100_000

// Side is who comes from the addresses of an allowlist.
type Side string

const (
	Callers  Side = "callers"  // people, tokens and gateways that have no list of their own
	People   Side = "people"   // who signed in
	Programs Side = "tokens"   // API tokens
	Sites    Side = "agents"   // agents' tunnels, lanes and enrolments
	Ports    Side = "gateways" // clients of gateway ports, whose gateway has a list besides
)

// Sides are all of them.
var Sides = []Side{Callers, People, Programs, Sites, Ports}

// sources is one list of a workspace.
type sources struct {
	prefixes []netip.Prefix // sorted
	list     *allowlist.List
}

// setLists takes up lists by side; callers have one always.
func (w *Workspace) setLists(lists map[Side][]netip.Prefix) {
	w.sources = map[Side]*sources{}
	for s, prefixes := range lists {
		slices.SortFunc(prefixes, comparePrefix)
		if s == Callers {
			w.Prefixes = prefixes
			continue
		}
		w.sources[s] = &sources{prefixes, allowlist.NewList(prefixes)}
	}
	w.Allowlist = allowlist.NewList(w.Prefixes)
}

// Sources gives the prefixes of a side's own list, and whether it has one. Callers always have one.
func (w *Workspace) Sources(s Side) ([]netip.Prefix, bool) {
	if s == Callers {
		return w.Prefixes, true
	}
	l := w.sources[s]
	if l == nil {
		return nil, false
	}
	return l.prefixes, true
}

// Admits reports whether somebody of a side may come from an address. A list that is empty admits nobody. A side without a list of
// its own goes by that of callers; agents, which prove themselves by certificates, may then come from everywhere.
func (w *Workspace) Admits(s Side, a netip.Addr) bool {
	l := w.sources[s]
	switch {
	case !slices.Contains(Sides, s):
		return false
	case l != nil:
		return l.list.Contains(a)
	case s == Sites:
		return true
	}
	return w.Allowlist.Contains(a)
}

// Rule names the list that decides for a side, as refusals and events have it.
func (w *Workspace) Rule(s Side) string {
	if w.sources[s] == nil || s == Callers {
		return "allowlist"
	}
	return "allowlist." + string(s)
}

// Side tells on which side a principal is that was let in.
func (s *Snapshot) Side(p authz.Principal) Side {
	switch {
	case p.Kind == authz.Gateway:
		return Ports
	case s.Session(p.Token) != nil:
		return People
	}
	return Programs
}

// WithSources gives the workspace as it would be with another list of one side, or, with unset, without the one that the side has:
// Admits and Rule of what it gives are those that would decide. What no change could make is refused (invalid, too_large).
// Nothing is changed.
func (w *Workspace) WithSources(s Side, prefixes []netip.Prefix, unset bool) (*Workspace, error) {
	switch {
	case !slices.Contains(Sides, s):
		return nil, invalid("there is no such allowlist", "callers, people, tokens, agents or gateways")
	case unset && s == Callers:
		return nil, invalid("callers always have a list", "set another one, which may be empty")
	case len(prefixes) > MaxAllowlist:
		return nil, &protocol.Error{Code: protocol.CodeTooLarge, Message: "the allowlist is too long", Hint: fmt.Sprintf("give at most %d prefixes", MaxAllowlist)}
	}
	for _, p := range prefixes {
		if !plainPrefix(p) {
			return nil, invalid("a prefix is not in its plain form", "give prefixes like 10.0.0.0/8 or 2001:db8::/32, without host bits")
		}
	}
	next := *w
	next.sources = map[Side]*sources{} // w is of a snapshot, which never changes
	maps.Copy(next.sources, w.sources)
	if unset {
		delete(next.sources, s)
		return &next, nil
	}
	list := &sources{prefixes: sortedPrefixes(prefixes)}
	list.list = allowlist.NewList(list.prefixes)
	if s == Callers {
		next.Prefixes, next.Allowlist = list.prefixes, list.list
	} else {
		next.sources[s] = list
	}
	return &next, nil
}

// SetSources is SetAllowlist for the list of one side. own is the side that who asks is on. Of Sites, cut is called with what the
// list would admit, and gives how many tunnels it would cut: without confirm that is refused (conflict), too.
func (d *Directory) SetSources(ctx context.Context, workspace string, s Side, prefixes []netip.Prefix, own Side, source netip.Addr, confirm bool, cut func(func(netip.Addr) bool) int) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	next, err := w.WithSources(s, prefixes, false)
	if err == nil && !confirm {
		err = w.lockedOut(next, s, own, source, cut)
	}
	if err != nil {
		return err
	}
	list, _ := next.Sources(s)
	return d.changeLists(ctx, w.ID, func(lists map[Side][]netip.Prefix) { lists[s] = list })
}

func sortedPrefixes(prefixes []netip.Prefix) []netip.Prefix {
	sorted := append([]netip.Prefix{}, prefixes...) // an empty list is a list
	slices.SortFunc(sorted, comparePrefix)
	return slices.Compact(sorted)
}

// UnsetSources takes a side's own list away: it goes by that of callers again, agents by none.
func (d *Directory) UnsetSources(ctx context.Context, workspace string, s Side, own Side, source netip.Addr, confirm bool) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	next, err := w.WithSources(s, nil, true)
	if err == nil && !confirm {
		err = w.lockedOut(next, s, own, source, nil)
	}
	if err != nil {
		return err
	}
	return d.changeLists(ctx, w.ID, func(lists map[Side][]netip.Prefix) { delete(lists, s) })
}

// changeLists changes the lists as they stand.
func (d *Directory) changeLists(ctx context.Context, workspace string, f func(map[Side][]netip.Prefix)) error {
	return d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		lists := map[Side][]netip.Prefix{Callers: w.Prefixes}
		for s, l := range w.sources {
			lists[s] = l.prefixes
		}
		f(lists)
		return d.writeLists(tx, w.ID, lists)
	})
}

// lockedOut refuses a list of s, in force in next, that would shut out who asks, or cut agents.
func (w *Workspace) lockedOut(next *Workspace, s, own Side, source netip.Addr, cut func(func(netip.Addr) bool) int) error {
	if (s == own || s == Callers && w.sources[own] == nil) && !next.Admits(own, source) {
		return &protocol.Error{Code: protocol.CodeConflict, Message: "the allowlist would lock out the address that you come from",
			Hint: "add your own address, or send confirm: true"}
	}
	if s == Sites && cut != nil {
		if n := cut(func(a netip.Addr) bool { return next.Admits(Sites, a) }); n > 0 {
			return &protocol.Error{Code: protocol.CodeConflict, Message: fmt.Sprintf("the allowlist would cut %d tunnels of agents that are connected", n),
				Hint: "see which, and from where: fairlead allowlist set --for agents --dry-run; add their addresses, or send confirm: true"}
		}
	}
	return nil
}

func outside(w *Workspace, a netip.Addr) error {
	return &protocol.Error{Code: protocol.CodeDenied, Rule: w.Rule(Sites), Message: "the address " + a.String() + " is not one that agents of the workspace may come from",
		Hint: "an admin can add it: `fairlead allowlist set --for agents`"}
}

// writeLists puts all lists of a workspace into one row: whoever can write the database and lacks the key can take all of them away,
// which admits no caller, and not one alone, which would have its side go by another.
func (d *Directory) writeLists(tx *store.Tx, workspace string, lists map[Side][]netip.Prefix) error {
	id := NewID("alw")
	sealed, err := seal(d.vault, place(workspace, "allowlist", id, 1), allowBody{Lists: lists})
	if err != nil {
		return err
	}
	return tx.ReplaceAllowlist(workspace, []store.AllowEntry{{ID: id, Workspace: workspace, Version: 1, Sealed: sealed}})
}

// addAllowlists takes lists over from prev whose rows are the same: one may hold 100,000 prefixes.
func (s *Snapshot) addAllowlists(v *vault.Vault, st *store.State, prev *Snapshot) error {
	rows := map[string][]store.AllowEntry{}
	for _, r := range st.Allowlist {
		if _, err := s.in("allowlist entry", r.ID, r.Workspace); err != nil {
			return err
		}
		rows[r.Workspace] = append(rows[r.Workspace], r)
	}
	for _, w := range s.workspaces {
		w.allowRows = rows[w.ID]
		if old := prev.before(w.ID); old.Allowlist != nil && slices.EqualFunc(old.allowRows, w.allowRows, func(a, b store.AllowEntry) bool {
			return a.ID == b.ID && a.Version == b.Version && bytes.Equal(a.Sealed, b.Sealed)
		}) {
			w.Allowlist, w.Prefixes, w.sources = old.Allowlist, old.Prefixes, old.sources
			continue
		}
		lists := map[Side][]netip.Prefix{}
		for _, r := range w.allowRows {
			var body allowBody
			if err := open(v, place(r.Workspace, "allowlist", r.ID, r.Version), r.Sealed, &body); err != nil {
				return err
			}
			switch {
			case body.Lists == nil: // of a release that had one list, and a row for each prefix
				lists[Callers] = append(lists[Callers], body.Prefix)
			case len(w.allowRows) > 1:
				return fmt.Errorf("allowlist %s of workspace %s stands beside others", r.ID, r.Workspace)
			default:
				lists = body.Lists
			}
		}
		w.setLists(lists)
	}
	return nil
}
