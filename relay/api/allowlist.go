package api

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// maxCut bounds each list of who a change of an allowlist would cut.
const maxCut = 1000

func (a *API) allowlistRoutes() {
	const path = "/workspaces/{workspace}/allowlist"
	route(a, "GET", path, authz.AllowlistRead, "The prefixes that callers may come from", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.Allowlist], error) {
		return allowed(v.workspace), nil
	})
	route(a, "PUT", path, authz.AllowlistEdit, "Replace the allowlist, or tell who that would cut", 200, func(ctx context.Context, v *visit, i *in[client.SetAllowlist]) (*out[client.Allowlist], error) {
		list, err := parsePrefixes("/prefixes", i.Body.Prefixes)
		if err != nil {
			return nil, err
		}
		if i.Body.Unset && len(list) > 0 {
			return nil, invalid("/unset: stands beside prefixes", "give one of the two")
		}
		side, own := directory.Side(cmp.Or(i.Body.For, string(directory.Callers))), v.snap.Side(v.principal)
		switch {
		case i.Body.DryRun:
			return a.wouldCut(v, side, list, i.Body.Unset)
		case i.Body.Unset:
			err = a.cfg.Directory.UnsetSources(ctx, v.workspace.ID, side, own, v.source, i.Body.Confirm)
		default:
			err = a.cfg.Directory.SetSources(ctx, v.workspace.ID, side, list, own, v.source, i.Body.Confirm, func(admits func(netip.Addr) bool) int {
				return a.cfg.Hub.Outside(v.workspace.ID, admits, false)
			})
		}
		if err != nil {
			return nil, err
		}
		now, err := a.cfg.Directory.Snapshot().Workspace(v.workspace.ID)
		if err != nil {
			return nil, err
		}
		return allowed(now), nil
	})
}

func allowed(ws *directory.Workspace) *out[client.Allowlist] {
	o := client.Allowlist{Prefixes: prefixes(ws.Prefixes), ETag: ws.AllowlistETag()}
	for _, s := range directory.Sides {
		if list, own := ws.Sources(s); own && s != directory.Callers {
			if o.Lists == nil {
				o.Lists = map[string][]string{}
			}
			o.Lists[string(s)] = prefixes(list)
		}
	}
	return &out[client.Allowlist]{o}
}

// wouldCut tells who is admitted now and would not be by another list of one side. The answer's lists and ETag are those in force, so
// that the change can be made on the condition that nobody else made one meanwhile. Who may not read users, tokens or agents is told
// how many of them, and not which.
func (a *API) wouldCut(v *visit, side directory.Side, list []netip.Prefix, unset bool) (*out[client.Allowlist], error) {
	snap := a.cfg.Directory.Snapshot()
	ws, err := snap.Workspace(v.workspace.ID)
	if err != nil {
		return nil, err
	}
	next, err := ws.WithSources(side, list, unset)
	if err != nil {
		return nil, err
	}
	cut := func(s directory.Side, from netip.Addr) bool { return ws.Admits(s, from) && !next.Admits(s, from) }
	may := func(action authz.Action) bool {
		return authz.Decide(v.principal, action, authz.Scope{Workspace: ws.ID}, v.at()).Allow
	}
	o, at := client.AllowlistCut{You: cut(snap.Side(v.principal), v.source)}, time.Now()

	sessions := gathered{named: may(authz.UsersRead)}
	for _, t := range ws.Sessions {
		p := t.Principal.Principal
		p.Token = t.ID // as it comes with the session: that decides its side
		from, err := netip.ParseAddr(t.Source)
		if err == nil && t.Live(at) && cut(snap.Side(p), from) {
			sessions.add(t.ID, t.Principal.Name, from)
		}
	}
	tokens := gathered{named: may(authz.TokensRead)}
	for _, t := range ws.Tokens {
		if t.Live(at) && !t.LastUsed().IsZero() && cut(snap.Side(t.Acting()), t.LastSource()) {
			tokens.add(t.ID, t.Name, t.LastSource())
		}
	}
	agents := gathered{named: may(authz.AgentsRead)}
	outside := a.cfg.Hub.OutsideFrom(ws.ID, func(from netip.Addr) bool { return !cut(directory.Sites, from) })
	for id, addresses := range outside {
		name := ""
		if ag, err := ws.Agent(id); err == nil {
			name = ag.Name
		}
		for _, from := range addresses {
			agents.add(id, name, from)
		}
	}
	for _, k := range []struct {
		name string
		all  gathered
		to   *[]client.AllowlistCutOff
	}{{"sessions", sessions, &o.Sessions}, {"tokens", tokens, &o.Tokens}, {"agents", agents, &o.Agents}} {
		var more int
		if *k.to, more = k.all.first(maxCut); more > 0 {
			if o.More == nil {
				o.More = map[string]int{}
			}
			o.More[k.name] = more
		}
	}
	now := allowed(ws)
	now.Body.WouldCut = &o
	return now, nil
}

// gathered are those of one kind who would be cut.
type gathered struct {
	named bool // who asks may read them
	all   []client.AllowlistCutOff
}

func (g *gathered) add(id, name string, from netip.Addr) {
	one := client.AllowlistCutOff{ID: id, Name: name}
	if from.IsValid() {
		one.Address = from.String()
	}
	g.all = append(g.all, one)
}

// first gives the first n by name, and how many more there are.
func (g *gathered) first(n int) ([]client.AllowlistCutOff, int) {
	if !g.named {
		n = 0
	}
	slices.SortFunc(g.all, func(x, y client.AllowlistCutOff) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.ID, y.ID), cmp.Compare(x.Address, y.Address))
	})
	n = min(n, len(g.all))
	return append([]client.AllowlistCutOff{}, g.all[:n]...), len(g.all) - n
}

// parsePrefixes reads networks; the error names the places of all that are none.
func parsePrefixes(at string, texts []string) (list []netip.Prefix, _ error) {
	var faults []string
	for n, s := range texts {
		p, err := allowlist.ParsePrefix(s)
		if err != nil { // its text names what was sent
			faults = append(faults, fmt.Sprintf("%s/%d: not a network in its plain form", at, n))
			continue
		}
		list = append(list, p)
	}
	if len(faults) > 0 {
		return nil, invalid(strings.Join(faults[:min(len(faults), 20)], "; "), "nothing was changed; write 10.20.0.0/16 without host bits, or 10.20.0.5")
	}
	return list, nil
}

func prefixes(list []netip.Prefix) []string {
	o := make([]string, 0, len(list))
	for _, p := range list {
		o = append(o, p.String())
	}
	return o
}
