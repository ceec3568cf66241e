package main

import (
	"context"
	"net/netip"
	"slices"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// plainPrefixes reads networks and addresses in the one form that the relay keeps.
func plainPrefixes(texts []string) (list []netip.Prefix, _ error) {
	for _, s := range texts {
		p, err := allowlist.ParsePrefix(s)
		if err != nil {
			return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: err.Error(), Hint: "nothing was changed; write 192.0.2.0/24, 2001:db8::/32 or 198.51.100.7"}
		}
		list = append(list, p)
	}
	return list, nil
}

// allowlistPart names a part of one of the lists.
type allowlistPart struct {
	Kind     string   `arg:"" enum:"callers,people,tokens,agents,gateways" help:"Whose list: ${enum}. It must be there: one that people, tokens, agents or gateways do not have of their own is begun by fairlead allowlist set --for."`
	Prefixes []string `arg:"" help:"Prefixes or addresses: 192.0.2.0/24, 2001:db8::/32, 198.51.100.7."`
	allowlistChange
}

// tries is how often a list is read, changed and set, when somebody else is faster.
const tries = 2

// change reads the list, and sets what f makes of it only if it is still the one that was read. f tells by nil that there is nothing to do.
func (k *allowlistPart) change(ctx context.Context, t *cli.Term, r *relayFlags, f func(list []string, of []netip.Prefix) ([]string, error)) error {
	of, err := plainPrefixes(k.Prefixes)
	if err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	given := k.IfMatch
	for n := 1; ; n++ {
		a, err := c.Allowlist(ctx)
		if err != nil {
			return err
		}
		list, own := a.Prefixes, true
		if k.Kind != callers {
			list, own = a.Lists[k.Kind]
		}
		if !own { // a list that began with these alone would shut out everybody else
			e := &protocol.Error{Code: protocol.CodeConflict, Message: k.Kind + " have no list of their own, and go by that of callers", Hint: "nothing was changed; fairlead allowlist add callers, or begin one: fairlead allowlist set --for " + k.Kind}
			if k.Kind == "agents" {
				e.Message, e.Hint = "agents have no list, and may come from everywhere", "nothing was changed; begin one: fairlead allowlist set --for agents"
			}
			return e
		}
		next, err := f(slices.Clone(list), of)
		if err != nil {
			return err
		}
		if next == nil {
			t.Notef("nothing changes\n")
			return k.print(t, a)
		}
		if k.IfMatch = given; given == "" {
			k.IfMatch = a.ETag
		}
		err = k.take(ctx, t, c, k.Kind, client.SetAllowlist{Prefixes: next})
		if client.CodeOf(err) != protocol.CodePrecondition || given != "" || n == tries {
			return err
		}
	}
}

type allowlistAdd struct{ allowlistPart }

func (*allowlistAdd) Examples() []string {
	return []string{"fairlead allowlist add callers 203.0.113.0/24", "fairlead allowlist add agents 198.51.100.7 2001:db8::/32"}
}

func (k *allowlistAdd) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return k.change(ctx, t, r, func(list []string, of []netip.Prefix) ([]string, error) {
		before := len(list)
		for _, p := range of {
			if !slices.Contains(list, p.String()) {
				list = append(list, p.String())
			}
		}
		if len(list) == before {
			return nil, nil
		}
		return list, nil
	})
}

type allowlistRemove struct{ allowlistPart }

func (*allowlistRemove) Examples() []string {
	return []string{"fairlead allowlist remove callers 203.0.113.0/24", "fairlead allowlist remove callers 203.0.113.0/24 --dry-run"}
}

func (k *allowlistRemove) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return k.change(ctx, t, r, func(list []string, of []netip.Prefix) ([]string, error) {
		for _, p := range of {
			i := slices.Index(list, p.String())
			if i < 0 {
				e := &protocol.Error{Code: protocol.CodeNotFound, Message: p.String() + " is not on the list", Hint: "nothing was changed; fairlead allowlist show"}
				if wide := slices.IndexFunc(list, func(s string) bool {
					q, err := netip.ParsePrefix(s)
					return err == nil && q.Overlaps(p) && q.Bits() < p.Bits()
				}); wide >= 0 {
					e.Message = p.String() + " is not on the list by itself: it is in " + list[wide]
				}
				return nil, e
			}
			list = slices.Delete(list, i, i+1)
		}
		if len(list) == 0 {
			hint := "nothing was changed; if that is meant: fairlead allowlist set --none"
			if k.Kind != callers {
				hint = "nothing was changed; fairlead allowlist set --for " + k.Kind + " --unset takes the list away, --none empties it"
			}
			return nil, &protocol.Error{Code: protocol.CodeConflict, Message: "the list would be empty, and admit nobody", Hint: hint}
		}
		return list, nil
	})
}
