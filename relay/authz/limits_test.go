package authz_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	. "github.com/fairleadhq/fairlead/relay/authz"
)

func genLimits(t *rapid.T) Limits {
	l := Limits{
		ByAction:     rapid.Bool().Draw(t, "by action"),
		Environments: rapid.SliceOfN(rapid.SampledFrom([]Environment{Production, Development, "staging"}), 0, 2).Draw(t, "environments"),
		Projects:     rapid.SliceOfN(rapid.SampledFrom([]string{"prj_1", "prj_2", ""}), 0, 1).Draw(t, "projects"),
		Connections:  rapid.SliceOfN(rapid.SampledFrom([]string{"con_1", "con_2", "con_gone"}), 0, 2).Draw(t, "connections"),
		From:         rapid.SliceOfN(rapid.SampledFrom(networks), 0, 2).Draw(t, "limited from"),
	}
	for _, a := range rapid.SliceOfN(rapid.SampledFrom([]Action{Query, Dial, ConnectionsManage, AgentsRead, GrantsManage, ConnectionsRead, GrantsRead}), 0, 4).Draw(t, "actions") {
		one, _ := NewSet(a)
		l.Actions = l.Actions.Or(one)
	}
	return l
}

// admits is the model of limits.
func admits(l Limits, a Action, s Scope, at At) bool {
	row, _ := Find(a)
	actions := !l.ByAction || l.Actions.Has(a)
	place := true
	if len(l.Environments)+len(l.Projects)+len(l.Connections) > 0 {
		place = onParts(row.Level) || row.Level == OnEnvironment && len(l.Projects)+len(l.Connections) == 0
	}
	for _, kind := range []struct {
		list []string
		at   string
	}{{texts(l.Environments), string(s.Environment)}, {l.Projects, s.Project}, {l.Connections, s.Connection}} {
		if len(kind.list) > 0 {
			place = place && kind.at != "" && slices.Contains(kind.list, kind.at)
		}
	}
	from := len(l.From) == 0
	for _, p := range l.From {
		from = from || p.Contains(at.Source) && !at.Source.Is4In6() && at.Source.Zone() == ""
	}
	return actions && place && from
}

func texts(list []Environment) (out []string) {
	for _, e := range list {
		out = append(out, string(e))
	}
	return out
}

// What a token is limited to is what its principal may, and its limits admit; nothing else, whatever is limited again.
func TestLimitsOnlyNarrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gs := rapid.SliceOfN(rapid.Custom(genGrant), 0, 6).Draw(t, "grants")
		p, l, l2 := NewPrincipal("usr_a", ws, "a", User, gs), genLimits(t), genLimits(t)
		a, s, at := genAction(t), genScope(t), genAt(t)
		whole, narrow := Decide(p, a, s, at), Decide(p.Limited(l), a, s, at)
		if want := whole.Allow && admits(l, a, s, at); narrow.Allow != want {
			t.Fatalf("%v, want %v by %+v", narrow, want, l)
		}
		if narrow.Limited != (whole.Allow && !narrow.Allow) {
			t.Fatalf("%+v says Limited %v", narrow, narrow.Limited)
		}
		if twice := Decide(p.Limited(l).Limited(l2), a, s, at); twice.Allow != (narrow.Allow && admits(l2, a, s, at)) {
			t.Fatalf("limited twice: %+v", twice)
		}
		if again := Decide(p, a, s, at); again != whole {
			t.Fatal("limits changed the principal itself")
		}
		if row, _ := Find(a); row.Level == OnScope || row.Level == OnEnvironment { // elsewhere lists decide, or the route itself
			if narrow.Allow && !Somewhere(p.Limited(l), a, s.Workspace, at).Allow {
				t.Fatal("it may there, and nowhere")
			}
			if Somewhere(p.Limited(l), a, ws, at).Allow && !Somewhere(p, a, ws, at).Allow {
				t.Fatal("limits added")
			}
		}
	})
}

// Who is limited passes on no more than is left: by whatever it gives, nobody may what the giver may not.
func TestLimitedGiverGivesNoMore(t *testing.T) {
	given := 0
	rapid.Check(t, func(t *rapid.T) {
		gs := append(rapid.SliceOfN(rapid.Custom(genGrant), 0, 3).Draw(t, "grants"), Grant{ID: "gra_own", Role: Owner, Workspace: ws})
		giver := NewPrincipal("usr_a", ws, "a", User, gs).Limited(genLimits(t))
		for range 8 {
			g, at := genGrant(t), genAt(t)
			on := whole(g)
			if !MayGive(giver, g, on, GrantsManage, at) {
				continue
			}
			given++
			taker := NewPrincipal("usr_b", ws, "b", User, []Grant{g})
			for range 20 {
				a, s, when := genAction(t), genScope(t), genAt(t)
				if s.Connection != "" && s.Environment == "" {
					continue // no request is about a connection that stands nowhere
				}
				if Decide(taker, a, s, when).Allow && when.Time.After(now.Add(-time.Hour)) && !Decide(giver, a, s, when).Allow {
					t.Fatalf("gave %s on %+v at %+v", a, s, when)
				}
			}
		}
	})
	if given == 0 {
		t.Fatal("nothing was ever given: the test is void")
	}
}

// Each kind of limit that is given narrows: a project does not widen a limit to an environment.
func TestEachKindOfLimitNarrows(t *testing.T) {
	p := NewPrincipal("usr_a", ws, "a", User, []Grant{{ID: "gra_1", Role: Owner, Workspace: ws}})
	at := At{Time: now, Source: netip.MustParseAddr("192.0.2.7")}
	l := Limits{Environments: []Environment{Test}, Projects: []string{"prj_1"}, Connections: []string{"con_1", "con_2"}}
	for s, want := range map[Scope]bool{
		{Workspace: ws, Environment: Test, Project: "prj_1", Connection: "con_1"}:       true,
		{Workspace: ws, Environment: Test, Project: "prj_1", Connection: "con_2"}:       true,
		{Workspace: ws, Environment: Production, Project: "prj_1", Connection: "con_1"}: false,
		{Workspace: ws, Environment: Test, Project: "prj_2", Connection: "con_1"}:       false,
		{Workspace: ws, Environment: Test, Connection: "con_1"}:                         false,
		{Workspace: ws, Environment: Test, Project: "prj_1", Connection: "con_3"}:       false,
	} {
		if got := Decide(p.Limited(l), Query, s, at).Allow; got != want {
			t.Errorf("%+v: %v", s, got)
		}
	}
}

// Who holds nothing on the whole workspace may nowhere what its token's actions and networks do not admit; wherever they do, the place
// decides.
func TestSomewhereIsWithinActionsAndNetworks(t *testing.T) {
	p := NewPrincipal("usr_a", ws, "a", User, []Grant{{ID: "gra_1", Role: Operator, Workspace: ws, Environment: Production}})
	at := At{Time: now, Source: netip.MustParseAddr("192.0.2.7")}
	for name, c := range map[string]struct {
		l    Limits
		want bool
	}{
		"no limit":                      {Limits{}, true},
		"the action":                    {Limits{ByAction: true, Actions: set(t, ConnectionsManage)}, true},
		"another action":                {Limits{ByAction: true, Actions: set(t, Query)}, false},
		"actions that are not counted":  {Limits{Actions: set(t, Query)}, true},
		"the network":                   {Limits{From: prefixes("192.0.2.0/24")}, true},
		"another network":               {Limits{From: prefixes("198.51.100.0/24")}, false},
		"the action, another network":   {Limits{ByAction: true, Actions: set(t, ConnectionsManage), From: prefixes("198.51.100.0/24")}, false},
		"the network, another action":   {Limits{ByAction: true, Actions: set(t, Query), From: prefixes("192.0.2.0/24")}, false},
		"both":                          {Limits{ByAction: true, Actions: set(t, ConnectionsManage), From: prefixes("192.0.2.0/24")}, true},
		"a project: for the place then": {Limits{Projects: []string{"prj_1"}}, true},
	} {
		if d := Somewhere(p.Limited(c.l), ConnectionsManage, ws, at); d.Allow != c.want {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestLimitsFailClosed(t *testing.T) {
	p := NewPrincipal("usr_a", ws, "a", User, []Grant{{ID: "gra_1", Role: Owner, Workspace: ws}})
	at := At{Time: now, Source: netip.MustParseAddr("192.0.2.7")}
	for name, l := range map[string]Limits{
		"no action that is known":   {ByAction: true},
		"a connection that is gone": {Connections: []string{"con_gone"}},
		"an environment that is no": {Environments: []Environment{"staging"}},
		"another project":           {Projects: []string{"prj_2"}},
		"no project":                {Projects: []string{""}},
		"a network with host bits":  {From: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("192.0.2.7"), 24)}},
		"another network":           {From: prefixes("198.51.100.0/24")},
	} {
		for _, row := range Actions {
			if d := Decide(p.Limited(l), row.Action, con("con_1"), at); d.Allow || !d.Limited || d.Reason == "" {
				t.Errorf("%s: %s: %+v", name, row.Action, d)
			}
		}
	}
	inside := p.Limited(Limits{From: prefixes("192.0.2.0/24")})
	for _, source := range []string{"", "::ffff:192.0.2.7", "2001:db8::7"} {
		a := netip.Addr{}
		if source != "" {
			a = netip.MustParseAddr(source)
		}
		if Decide(inside, Query, con("con_1"), At{Time: now, Source: a}).Allow {
			t.Errorf("from %q", source)
		}
	}
	if !Decide(inside, Query, con("con_1"), at).Allow {
		t.Error("refused from inside")
	}
	// On one connection: nothing about the workspace, and no list but of that.
	placed := p.Limited(Limits{Connections: []string{"con_1"}})
	if Decide(placed, AgentsRead, Scope{Workspace: ws}, at).Allow || Somewhere(placed, AgentsRead, ws, at).Allow || !Somewhere(placed, GrantsManage, ws, at).Allow ||
		Decide(placed, Query, con("con_2"), at).Allow || !Decide(placed, Query, con("con_1"), at).Allow {
		t.Error("limits of place")
	}
	if Decide(placed, AgentsRead, con("con_1"), at).Allow {
		t.Error("what is about the workspace is done on a connection")
	}
	if Decide(p.Limited(Limits{From: prefixes("::/0")}), Query, con("con_1"), At{Time: now, Source: netip.MustParseAddr("::ffff:192.0.2.7")}).Allow {
		t.Error("an address of IPv4 is within all of IPv6")
	}
	query := Limits{ByAction: true, Actions: set(t, Query)}
	for _, twice := range []Principal{p.Limited(query).Limited(Limits{From: prefixes("192.0.2.0/24")}), p.Limited(Limits{From: prefixes("192.0.2.0/24")}).Limited(query)} {
		if Decide(twice, Exec, con("con_1"), at).Allow || Decide(twice, Query, con("con_1"), At{Time: now, Source: netip.MustParseAddr("198.51.100.7")}).Allow || !Decide(twice, Query, con("con_1"), at).Allow {
			t.Error("a limit went with the next one")
		}
	}
	for from, may := range map[string]bool{"192.0.2.0/24": true, "192.0.2.128/25": true, "192.0.2.0/23": false, "198.51.100.0/24": false} {
		g := Grant{Role: Analyst, Workspace: ws, From: prefixes(from)}
		if MayGive(inside, g, Scope{Workspace: ws}, GrantsManage, at) != may {
			t.Errorf("giving to %s from within 192.0.2.0/24: want %v", from, may)
		}
	}
	if MayGive(placed, Grant{Role: Analyst, Workspace: ws}, Scope{Workspace: ws}, GrantsManage, at) || !MayGive(placed, Grant{Role: Analyst, Workspace: ws, Connection: "con_1"}, con("con_1"), GrantsManage, at) {
		t.Error("giving from a limited place")
	}
}
