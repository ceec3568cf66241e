package api

import (
	"cmp"
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// Limits of a replay.
const (
	maxReplayed  = 200_000 // records that one replay reads, the newest
	maxDecisions = 20_000  // different decisions that it holds
)

func (a *API) replayRoute() {
	route(a, "POST", "/workspaces/{workspace}/explain/replay", authz.AuditRead, "What recorded decisions would be under other grants; changes nothing", 200,
		func(ctx context.Context, v *visit, i *in[client.ReplayQuery]) (*out[client.Replay], error) {
			// Who sees what everybody may sees everybody's grants.
			if err := a.may(ctx, v, authz.GrantsRead, authz.Scope{Workspace: v.workspace.ID}); err != nil {
				return nil, err
			}
			r, err := a.replay(ctx, v, i.Body)
			if err != nil {
				return nil, err
			}
			return &out[client.Replay]{*r}, nil
		})
}

// recordedDecision is what the relay once decided; alike decisions count as one.
type recordedDecision struct {
	principal, connection string
	action                authz.Action
	source                netip.Addr
	allow                 bool
}

// seen is how often a decision was made.
type seen struct {
	count int64
	last  time.Time
}

func (a *API) replay(ctx context.Context, v *visit, q client.ReplayQuery) (*client.Replay, error) {
	at := v.at().Time
	if q.SinceSeconds < 1 || q.SinceSeconds > 366*24*3600 {
		return nil, invalid("/since_seconds: out of range", "give 1 second to 366 days")
	}
	p := directory.Proposal{Without: q.Without}
	for _, b := range q.With {
		n, err := newGrant(b, at)
		if err != nil {
			return nil, err
		}
		p.With = append(p.With, n)
	}
	for _, r := range q.Roles {
		one := directory.ProposedRole{Role: r.Name}
		for _, s := range r.Actions {
			one.Actions = append(one.Actions, authz.Action(s))
		}
		p.Roles = append(p.Roles, one)
	}
	proposed, err := v.workspace.Propose(p, at)
	if err != nil {
		return nil, err
	}
	log, err := a.cfg.Log(v.workspace.ID)
	if err != nil {
		return nil, err
	}
	out := &client.Replay{Since: at.Add(-seconds(q.SinceSeconds)).UTC(), Flips: []client.Flip{}}
	made, err := a.recordedSince(ctx, log, out)
	if err != nil {
		return nil, err
	}
	for d, s := range made {
		who, where := v.workspace.Principal(d.principal), (*directory.Connection)(nil)
		if c, err := v.workspace.Connection(d.connection); err == nil {
			where = c
		}
		if who == nil || where == nil {
			out.Gone += s.count
			continue
		}
		out.Replayed += s.count
		then := authz.At{Time: at, Source: d.source}
		now, next := authz.Decide(who.Principal, d.action, where.Scope(), then), authz.Decide(proposed(who), d.action, where.Scope(), then)
		if who.Disabled {
			off := authz.Decision{Reason: "the principal is disabled"}
			now, next = off, off
		}
		if next.Allow == d.allow && now.Allow == next.Allow {
			continue
		}
		out.Flips = append(out.Flips, client.Flip{Principal: who.ID, PrincipalName: who.Name, Action: string(d.action), Connection: where.Name, SourceAddress: d.source.String(),
			Recorded: d.allow, Now: now.Allow, Proposed: next.Allow, Reason: next.Reason, Grant: next.Grant, Count: s.count, LastAt: s.last.UTC()})
	}
	slices.SortFunc(out.Flips, func(x, y client.Flip) int {
		changes := func(f client.Flip) int { return btoi(f.Now == f.Proposed) } // what the proposal itself does comes first
		return cmp.Or(cmp.Compare(changes(x), changes(y)), cmp.Compare(x.PrincipalName, y.PrincipalName), cmp.Compare(x.Connection, y.Connection),
			cmp.Compare(x.Action, y.Action), cmp.Compare(x.SourceAddress, y.SourceAddress), cmp.Compare(btoi(x.Recorded), btoi(y.Recorded)))
	})
	return out, nil
}

// recordedSince gathers the relay's own decisions on connections, of grants alone: what a budget, an allowlist or the site refused is
// none of theirs. out learns how far back it reached.
func (a *API) recordedSince(ctx context.Context, log *audit.Log, out *client.Replay) (map[recordedDecision]seen, error) {
	head := log.Head().Seq
	first := log.Oldest()
	if head >= maxReplayed {
		first = max(first, head-maxReplayed+1)
	}
	from, err := firstSince(log, first, head, out.Since)
	if err != nil {
		return nil, err
	}
	out.Complete = from > first || first <= 1
	made := map[recordedDecision]seen{}
	for after := from - 1; after < head; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		recs, err := log.Read(after, page)
		if err != nil {
			return nil, err
		}
		if len(recs) == 0 {
			break
		}
		for _, rec := range recs {
			after = rec.Seq
			d, ok, err := a.decisionIn(rec)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			s, known := made[d]
			if !known && len(made) == maxDecisions {
				return nil, &protocol.Error{Code: protocol.CodeTooLarge, Message: "too many different decisions were recorded in that time", Hint: "give a shorter one"}
			}
			made[d] = seen{s.count + 1, rec.Time}
		}
	}
	return made, nil
}

// firstSince finds the first record of a log, from first on, that is not older than since. Records stand in the order of time; where a
// clock was set back, a little more or less is read.
func firstSince(log *audit.Log, first, head uint64, since time.Time) (uint64, error) {
	first = max(first, 1)
	for low, high := first, head+1; ; {
		if low >= high {
			return low, nil
		}
		middle := low + (high-low)/2
		recs, err := log.Read(middle-1, 1)
		if err != nil {
			return 0, err
		}
		if len(recs) == 0 || !recs[0].Time.Before(since) {
			high = middle
		} else {
			low = middle + 1
		}
	}
}

// decisionIn reads a record of an operation that was allowed, or refused for want of a grant.
func (a *API) decisionIn(rec audit.Record) (d recordedDecision, ok bool, err error) {
	plain, err := audit.Unseal(rec.Body, a.cfg.Directory.OpenEvent)
	if err != nil {
		return d, false, err
	}
	var ev struct {
		Kind                                                                  audit.Kind
		Principal, Connection, Operation, Target, Decision, Code, Rule, Agent string
		SourceAddress                                                         string          `json:"source_address"`
		Line                                                                  json.RawMessage `json:"line"` // of an agent's record
	}
	if json.Unmarshal(plain, &ev) != nil || len(ev.Line) > 0 || ev.Connection == "" || ev.Principal == "" {
		return d, false, nil
	}
	switch {
	case ev.Kind == audit.KindIntent && ev.Decision == "allow":
		d.allow = true
	case ev.Kind == audit.KindDenied && ev.Code == string(protocol.CodeDenied) && !strings.HasPrefix(ev.Rule, "allowlist") && ev.Rule != authz.RuleToken: // a token's limits are no grant's
	default:
		return d, false, nil
	}
	method, _, _ := strings.Cut(ev.Target, " ")
	d.action = authz.ForOperation(protocol.Operation(ev.Operation), method)
	if _, known := authz.Find(d.action); !known {
		return d, false, nil
	}
	source, err := netip.ParseAddr(ev.SourceAddress)
	if err != nil {
		return d, false, nil
	}
	d.principal, d.connection, d.source = ev.Principal, ev.Connection, source.Unmap()
	return d, true, nil
}
