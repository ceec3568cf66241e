package authz_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	. "github.com/fairleadhq/fairlead/relay/authz"
)

func mayGive(p Principal, r Role, on Scope) bool {
	g := Grant{Role: r, Workspace: on.Workspace, Environment: on.Environment, Connection: on.Connection}
	if g.Connection != "" {
		g.Environment = ""
	}
	return MayGive(p, g, on, GrantsManage, here)
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// con is a connection with what it stands in.
func con(id string) Scope {
	s := map[string]Scope{"con_1": {Environment: Production, Project: "prj_1", Folder: "fol_1/fol_2"}, "con_2": {Environment: Production, Project: "prj_1"},
		"con_3": {Environment: Development, Project: "prj_1", Folder: "fol_1"}, "con_4": {Environment: Production, Project: "prj_2", Folder: "fol_3"}}[id]
	s.Workspace, s.Connection = ws, id
	return s
}

// whole is what a grant is given on, with what that lies in.
func whole(g Grant) Scope {
	on := g.Scope()
	switch {
	case g.Connection != "":
		on = con(g.Connection)
		on.Workspace = g.Workspace
	case g.Folder == "fol_2":
		on.Folder = "fol_1/fol_2"
	}
	return on
}

func set(t testing.TB, actions ...Action) Set {
	t.Helper()
	s, err := NewSet(actions...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	networks = prefixes("192.0.2.0/24", "192.0.2.0/25", "192.0.2.7/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8::7/128", "::/0")
	sources  = []netip.Addr{{}, netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("203.0.113.9"),
		netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("2001:db9::7"), netip.MustParseAddr("::ffff:192.0.2.7"), netip.MustParseAddr("2001:db8::7%eth0")}
)

func genGrant(t *rapid.T) Grant {
	g := Grant{
		ID:         rapid.StringMatching(`gra_[a-f]{2}`).Draw(t, "id"),
		Role:       rapid.SampledFrom([]Role{Owner, Admin, Operator, Analyst, "", "root", "rol_1", "rol_2", "rol_3"}).Draw(t, "role"),
		Workspace:  rapid.SampledFrom([]string{ws, ws, ws, "ws_b", ""}).Draw(t, "workspace"),
		Connection: rapid.SampledFrom([]string{"", "", "con_1", "con_2", "con_3"}).Draw(t, "connection"),
		From:       rapid.SliceOfN(rapid.SampledFrom(networks), 0, 2).Draw(t, "from"),
	}
	if g.Connection == "" || rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
		if g.Project = rapid.SampledFrom([]string{"", "", "prj_1", "prj_1", "prj_2"}).Draw(t, "project"); g.Project != "" || rapid.IntRange(0, 9).Draw(t, "odd folder") == 0 {
			g.Folder = rapid.SampledFrom([]string{"", "", "fol_1", "fol_2", "fol_3"}).Draw(t, "folder")
		}
		g.Environment = rapid.SampledFrom([]Environment{"", "", Production, Development, "staging"}).Draw(t, "environment")
	}
	if h := rapid.IntRange(-1, 3).Draw(t, "hours"); h != 0 {
		g.Until = now.Add(time.Duration(h) * time.Hour)
	}
	if strings.HasPrefix(string(g.Role), "rol_") {
		g.Custom, _ = NewSet(map[Role][]Action{"rol_1": {Query, Dial, GrantsManage}, "rol_2": {Dial, AgentsRead, ConnectionsManage}, "rol_3": {GrantsCreate, ConnectionsCreate, UsersEdit, Query}}[g.Role]...)
	}
	if len(g.From) == 0 {
		g.From = nil
	}
	return g
}

func genScope(t *rapid.T) Scope {
	s := rapid.SampledFrom([]Scope{{Workspace: ws}, {Workspace: ws, Environment: Production}, {Workspace: ws, Environment: Development},
		con("con_1"), con("con_2"), con("con_3"), con("con_4"), {Workspace: ws, Project: "prj_1"}, {Workspace: ws, Environment: Production, Project: "prj_1"}, {Workspace: ws, Project: "prj_2"},
		{Workspace: ws, Project: "prj_1", Folder: "fol_1"}, {Workspace: ws, Environment: Development, Project: "prj_1", Folder: "fol_1/fol_2"}, {Workspace: ws, Folder: "fol_1"}, {Workspace: "ws_b"}, {}, {Connection: "con_1"}, {Workspace: ws, Connection: "con_1"}}).Draw(t, "scope")
	return s
}

func genAt(t *rapid.T) At {
	return At{Time: rapid.SampledFrom([]time.Time{{}, now.Add(-2 * time.Hour), now, now.Add(time.Hour - time.Millisecond), now.Add(time.Hour), now.Add(4 * time.Hour)}).Draw(t, "time"),
		Source: rapid.SampledFrom(sources).Draw(t, "source")}
}

func genAction(t *rapid.T) Action {
	return rapid.SampledFrom(Actions).Draw(t, "action").Action
}

// counts is the model of one grant: does it, alone, allow?
func counts(g Grant, a Action, s Scope, at At) bool {
	row, ok := Find(a)
	if !ok || g.Workspace != ws || s.Workspace != ws || row.Level == OnConnection && s.Connection == "" {
		return false
	}
	holds := g.Role.Allows(a)
	if !slices.Contains(Roles, g.Role) {
		holds = g.Custom.Has(a)
	}
	var reaches bool
	switch {
	case g.Connection != "" && g.Environment+Environment(g.Project+g.Folder) != "" || g.Folder != "" && g.Project == "" || g.Environment == "staging":
	case g.Connection != "":
		reaches = onParts(row.Level) && g.Connection == s.Connection
	case g.Environment == "" && g.Project == "":
		reaches = true
	default:
		reaches = onParts(row.Level) || row.Level == OnEnvironment && g.Project == ""
		reaches = reaches && (g.Environment == "" || g.Environment == s.Environment)
		reaches = reaches && (g.Project == "" || g.Project == s.Project)
		reaches = reaches && (g.Folder == "" || slices.Contains(strings.Split(s.Folder, "/"), g.Folder))
	}
	inTime := g.Until.IsZero() || at.Time.UnixMilli() > 0 && at.Time.Before(g.Until)
	from := len(g.From) == 0
	for _, p := range g.From {
		from = from || p.Contains(at.Source) && !at.Source.Is4In6()
	}
	return holds && reaches && inTime && from
}

// Against a model that just tries every grant: the same answer, adding never takes away, removing never adds, order is nothing.
func TestGrantsOnlyAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gs := rapid.SliceOfN(rapid.Custom(genGrant), 0, 8).Draw(t, "grants")
		extra, a, s, at := genGrant(t), genAction(t), genScope(t), genAt(t)
		p := NewPrincipal("usr_1", ws, "p", User, gs)
		d := Decide(p, a, s, at)
		if want := slices.ContainsFunc(gs, func(g Grant) bool { return counts(g, a, s, at) }); d.Allow != want {
			t.Fatalf("%v on %+v: %+v, want %v", a, s, d, want)
		}
		if d.Allow && !slices.ContainsFunc(gs, func(g Grant) bool { return g.ID == d.Grant && counts(g, a, s, at) }) {
			t.Fatalf("the grant named does not allow it: %+v", d)
		}
		if Somewhere(p, a, s.Workspace, at).Allow != d.Allow && d.Allow {
			t.Fatal("allowed, yet nowhere")
		}
		if more := Decide(NewPrincipal("usr_1", ws, "p", User, append(slices.Clone(gs), extra)), a, s, at); d.Allow && !more.Allow {
			t.Fatal("a grant more takes away")
		}
		for i := range gs {
			if less := Decide(NewPrincipal("usr_1", ws, "p", User, slices.Delete(slices.Clone(gs), i, i+1)), a, s, at); less.Allow && !d.Allow {
				t.Fatal("a grant less adds")
			}
		}
		back := slices.Clone(gs)
		slices.Reverse(back)
		if Decide(NewPrincipal("usr_1", ws, "p", User, back), a, s, at) != d {
			t.Fatal("the order of grants matters")
		}
		// What Explain tells is what Decide does: all that is not near allows, and what is near does not.
		e, near := Explain(p, gs, a, s, at)
		if e != d {
			t.Fatal(e, d)
		}
		if len(gs)-len(near) > 0 != d.Allow {
			t.Fatalf("%d of %d grants lack nothing, decided %+v", len(gs)-len(near), len(gs), d)
		}
		for _, n := range near {
			if counts(n.Grant, a, s, at) {
				t.Fatalf("%+v is said to lack %v", n.Grant, n.Lacks)
			}
		}
	})
}

// Grants on one and the same place add up, whatever their roles, ends and networks: each action at each time from each address.
func TestGrantsOnOnePlaceAddUp(t *testing.T) {
	places := []struct {
		on Grant
		in Scope
	}{{Grant{}, Scope{Workspace: ws}}, {Grant{Environment: Production}, con("con_1")}, {Grant{Project: "prj_1"}, con("con_1")}, {Grant{Project: "prj_1", Environment: Production}, con("con_1")},
		{Grant{Project: "prj_1", Folder: "fol_2"}, con("con_1")}, {Grant{Connection: "con_1"}, con("con_1")}}
	times := []time.Time{{}, time.UnixMilli(0), now, now.Add(time.Hour - time.Millisecond), now.Add(time.Hour), now.Add(2 * time.Hour), now.Add(4 * time.Hour)}
	rapid.Check(t, func(t *rapid.T) {
		place := places[rapid.IntRange(0, len(places)-1).Draw(t, "place")]
		var gs []Grant
		for i := range rapid.IntRange(1, 5).Draw(t, "grants") {
			g := genGrant(t)
			g.ID, g.Workspace = "gra_"+string(rune('a'+i)), ws
			if rapid.IntRange(0, 5).Draw(t, "elsewhere") > 0 {
				g.Environment, g.Project, g.Folder, g.Connection = place.on.Environment, place.on.Project, place.on.Folder, place.on.Connection
			}
			gs = append(gs, g)
		}
		p := NewPrincipal("usr_1", ws, "p", User, gs)
		for _, row := range Actions {
			for _, when := range times {
				for _, source := range sources {
					at := At{Time: when, Source: source}
					d := Decide(p, row.Action, place.in, at)
					if want := slices.ContainsFunc(gs, func(g Grant) bool { return counts(g, row.Action, place.in, at) }); d.Allow != want {
						t.Fatalf("%v at %v from %v: %+v, want %v", row.Action, when, source, d, want)
					}
				}
			}
		}
	})
}

// Narrowing a grant in any way never adds.
func TestNarrowingNeverAdds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gs := rapid.SliceOfN(rapid.Custom(genGrant), 1, 6).Draw(t, "grants")
		i := rapid.IntRange(0, len(gs)-1).Draw(t, "which")
		narrow := slices.Clone(gs)
		g := &narrow[i]
		switch rapid.IntRange(0, 7).Draw(t, "how") {
		case 0: // sooner over
			if end := now.Add(30 * time.Minute); g.Until.IsZero() || g.Until.After(end) {
				g.Until = end
			}
		case 1: // from fewer networks
			if len(g.From) == 0 {
				g.From = prefixes("192.0.2.0/24")
			} else {
				g.From = []netip.Prefix{netip.PrefixFrom(g.From[0].Addr(), g.From[0].Addr().BitLen())}
			}
		case 2: // a narrower role
			if j := slices.Index(Roles, g.Role); j >= 0 {
				g.Role = Roles[min(j+1, len(Roles)-1)]
			} else {
				g.Custom = g.Custom.Without(Operator.Set().Without(Analyst.Set()))
			}
		case 3: // one connection of what it was on
			if g.Environment == "" && g.Project == "" && g.Folder == "" && g.Connection == "" {
				g.Connection = "con_1"
			}
		case 4: // an environment of it
			if g.Environment == "" && g.Connection == "" {
				g.Environment = Production
			}
		case 5: // a project of it
			if g.Project == "" && g.Folder == "" && g.Connection == "" {
				g.Project = "prj_1"
			}
		case 6: // a folder of it
			if g.Project != "" && g.Folder == "" && g.Connection == "" {
				g.Folder = "fol_1"
			}
		case 7: // a folder below it
			if g.Project == "prj_1" && g.Folder == "fol_1" && g.Connection == "" {
				g.Folder = "fol_2"
			}
		}
		a, s, at := genAction(t), genScope(t), genAt(t)
		if Decide(NewPrincipal("usr_1", ws, "p", User, narrow), a, s, at).Allow && !Decide(NewPrincipal("usr_1", ws, "p", User, gs), a, s, at).Allow {
			t.Fatalf("%+v adds to %+v", narrow[i], gs[i])
		}
	})
}

// J4: whatever may be given, whoever holds it can do nothing, ever and from nowhere, that its giver cannot.
func TestNoGrantExceedsItsGiver(t *testing.T) {
	given := 0
	rapid.Check(t, func(t *rapid.T) {
		held := rapid.SliceOfN(rapid.Custom(genGrant), 0, 6).Draw(t, "grants")
		high := genGrant(t) // who holds little gives nothing, and would show nothing
		high.Role, high.Workspace = Admin, ws
		if rapid.Bool().Draw(t, "sure") { // and most at random cannot give just now, or not this
			high = Grant{ID: "gra_aa", Role: Owner, Workspace: ws}
		}
		giver := NewPrincipal("usr_1", ws, "p", User, append(held, high))
		g, via, at := genGrant(t), rapid.SampledFrom([]Action{GrantsManage, GrantsCreate, TokensCreate, TeamsEdit}).Draw(t, "via"), genAt(t)
		on := whole(g)
		if !MayGive(giver, g, on, via, at) {
			return
		}
		given++
		if !Decide(giver, via, on, at).Allow && !Decide(giver, via, Scope{Workspace: on.Workspace}, at).Allow {
			t.Fatalf("given without %s", via)
		}
		taker := NewPrincipal("usr_2", ws, "q", User, []Grant{g})
		for _, row := range Actions {
			for _, s := range []Scope{{Workspace: ws}, {Workspace: ws, Environment: Production}, {Workspace: ws, Environment: Development}, con("con_1"), con("con_2"), con("con_3"), con("con_4"),
				{Workspace: ws, Project: "prj_1"}, {Workspace: ws, Environment: Production, Project: "prj_1", Folder: "fol_1/fol_2"}, {Workspace: ws, Environment: Development, Project: "prj_2", Folder: "fol_3"}} {
				for _, hours := range []int{0, 1, 2, 3, 1000} {
					for _, source := range sources {
						then := At{Time: now.Add(time.Duration(hours)*time.Hour - time.Millisecond), Source: source}
						if Decide(taker, row.Action, s, then).Allow && !Decide(giver, row.Action, s, then).Allow {
							t.Fatalf("%+v gives %s on %+v at %+v", g, row.Action, s, then)
						}
					}
				}
			}
		}
	})
	if given == 0 {
		t.Fatal("nothing was ever given: the test is void")
	}
}

func TestNobodyGrantsAboveTheirOwn(t *testing.T) {
	here2, one := Scope{Workspace: ws}, con("con_1")
	for _, r := range Roles {
		t.Run("J4 "+string(r), func(t *testing.T) {
			for _, s := range []Scope{here2, one} {
				if !mayGive(principal(Grant{Role: Owner}), r, s) {
					t.Error("an owner may not", s)
				}
				if got := mayGive(principal(Grant{Role: Admin}), r, s); got != (r != Owner || s == one) {
					t.Error("an admin", s, got)
				}
				for _, p := range []Principal{principal(Grant{Role: Operator}), principal(Grant{Role: Analyst}), principal(), {}} {
					if mayGive(p, r, s) {
						t.Error("may give without being admin", p.Roles(), s)
					}
				}
			}
			local := principal(Grant{Role: Admin, Connection: "con_1"})
			if mayGive(local, r, here2) || mayGive(local, r, con("con_2")) || !mayGive(local, r, one) {
				t.Error("an admin of one connection gives elsewhere, or not there")
			}
			if MayGive(local, Grant{Role: r, Workspace: ws, Connection: "con_1"}, one, TokensManage, here) {
				t.Error("an admin of one connection makes tokens")
			}
			if mayGive(principal(Grant{Role: Owner}), r, Scope{Workspace: "ws_b"}) || mayGive(principal(Grant{Role: Owner}), r, Scope{}) {
				t.Error("in another workspace")
			}
		})
	}
	root := principal(Grant{Role: Owner})
	for name, g := range map[string]Grant{"an unknown role": {Role: "root", Workspace: ws}, "no role": {Workspace: ws}, "another workspace": {Role: Analyst, Workspace: "ws_b"},
		"another connection": {Role: Analyst, Workspace: ws, Connection: "con_2"}, "another environment": {Role: Analyst, Workspace: ws, Environment: Test}} {
		on := Scope{Workspace: ws}
		if name == "another connection" {
			on = con("con_1")
		}
		if MayGive(root, g, on, GrantsManage, here) {
			t.Error(name)
		}
	}
	if MayGive(root, Grant{Role: Analyst, Workspace: ws, Environment: Production, Connection: "con_1"}, con("con_1"), GrantsManage, here) {
		t.Error("an environment and a connection at once")
	}
	if MayGive(principal(Grant{Role: "rol_1", Custom: set(t, GrantsManage)}), Grant{Role: Analyst, Workspace: ws, Until: time.UnixMilli(-1)}, Scope{Workspace: ws}, GrantsManage, here) {
		t.Error("what is not held, for a time long past")
	}
	if MayGive(root, Grant{Role: Analyst, Workspace: ws}, Scope{Workspace: ws}, "made.up", here) {
		t.Error("by an action that is none")
	}
}

// J4: a right that is limited is passed on no less limited.
func TestLimitedRightsAreGivenNoLessLimited(t *testing.T) {
	hour, day := now.Add(time.Hour), now.Add(24*time.Hour)
	office := prefixes("192.0.2.0/24")
	on := Scope{Workspace: ws}
	for name, c := range map[string]struct {
		giver []Grant
		given Grant
		may   bool
	}{
		"for as long":                         {[]Grant{{Role: Admin, Until: hour}}, Grant{Until: hour}, true},
		"for less":                            {[]Grant{{Role: Admin, Until: hour}}, Grant{Until: hour.Add(-time.Second)}, true},
		"for longer":                          {[]Grant{{Role: Admin, Until: hour}}, Grant{Until: hour.Add(time.Millisecond)}, false},
		"without end":                         {[]Grant{{Role: Admin, Until: hour}}, Grant{}, false},
		"the right that gives may end sooner": {[]Grant{{Role: Admin, Until: hour}, {Role: Analyst}}, Grant{}, true},
		"from the same network":               {[]Grant{{Role: Admin, From: office}}, Grant{From: office}, true},
		"from a part of it":                   {[]Grant{{Role: Admin, From: office}}, Grant{From: prefixes("192.0.2.64/26")}, true},
		"from a wider one":                    {[]Grant{{Role: Admin, From: office}}, Grant{From: prefixes("192.0.0.0/16")}, false},
		"from a wider one that begins alike":  {[]Grant{{Role: Admin, From: office}}, Grant{From: prefixes("192.0.2.0/23")}, false},
		"from it and another":                 {[]Grant{{Role: Admin, From: office}}, Grant{From: prefixes("192.0.2.0/24", "203.0.113.0/24")}, false},
		"from everywhere":                     {[]Grant{{Role: Admin, From: office}}, Grant{}, false},
		"from two that two grants cover":      {[]Grant{{Role: Admin, From: office}, {Role: Analyst, From: prefixes("203.0.113.0/24")}}, Grant{From: prefixes("192.0.2.0/25", "203.0.113.0/24")}, true},
		"for longer than one of the two":      {[]Grant{{Role: Admin, From: office, Until: day}, {Role: Analyst, From: prefixes("203.0.113.0/24"), Until: hour}}, Grant{From: prefixes("192.0.2.0/25", "203.0.113.0/24"), Until: day}, false},
		"after its end":                       {[]Grant{{Role: Admin, Until: now}, {Role: Analyst}}, Grant{Until: now.Add(-time.Second)}, false},
		"from where it may not":               {[]Grant{{Role: Admin, From: prefixes("203.0.113.0/24")}, {Role: Analyst}}, Grant{}, false},
	} {
		t.Run("J4 "+name, func(t *testing.T) {
			c.given.Role, c.given.Workspace = Analyst, ws
			if got := MayGive(principal(c.giver...), c.given, on, GrantsManage, here); got != c.may {
				t.Errorf("%v", got)
			}
		})
	}
}

// P11: a grant is over at its end, and counts only from its networks; without a time or a source it counts not at all.
func TestLimitsOfAGrant(t *testing.T) {
	t.Run("E6 E1 a grant's networks and its end", testLimitsOfAGrant)
}

func testLimitsOfAGrant(t *testing.T) {
	hour := now.Add(time.Hour)
	timed, bound := principal(Grant{Role: Admin, Until: hour}), principal(Grant{Role: Admin, From: prefixes("192.0.2.0/24", "2001:db8::/32")})
	s := con("con_1")
	for _, row := range Actions {
		if row.Action == WorkspaceOwn {
			continue
		}
		for name, c := range map[string]struct {
			p   Principal
			at  At
			may bool
		}{
			"before its end":          {timed, At{Time: hour.Add(-time.Millisecond)}, true},
			"P11 at its end":          {timed, At{Time: hour}, false},
			"P11 after its end":       {timed, At{Time: hour.Add(time.Hour)}, false},
			"P11 without a time":      {timed, At{Source: here.Source}, false},
			"from its network":        {bound, here, true},
			"from its other network":  {bound, At{now, netip.MustParseAddr("2001:db8::1")}, true},
			"E1 from another":         {bound, At{now, netip.MustParseAddr("192.0.3.7")}, false},
			"E1 from another IPv6":    {bound, At{now, netip.MustParseAddr("2001:db9::1")}, false},
			"E1 from nowhere":         {bound, At{Time: now}, false},
			"E6 a mapped address":     {bound, At{now, netip.MustParseAddr("::ffff:192.0.2.7")}, false},
			"E6 an address in a zone": {bound, At{now, netip.MustParseAddr("2001:db8::1%eth0")}, false},
		} {
			if got := Decide(c.p, row.Action, s, c.at); got.Allow != c.may {
				t.Errorf("%s: %s: %+v", name, row.Action, got)
			}
			if got := Somewhere(c.p, row.Action, ws, c.at); got.Allow != c.may {
				t.Errorf("%s: %s somewhere: %+v", name, row.Action, got)
			}
		}
	}
	for name, p := range map[string]Principal{
		"a network with host bits": principal(Grant{Role: Admin, From: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}),
		"a mapped network":         principal(Grant{Role: Admin, From: []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.0/120")}}),
		"no network":               principal(Grant{Role: Admin, From: []netip.Prefix{{}}}),
	} {
		if Decide(p, Query, s, here).Allow || Decide(p, Query, s, At{now, netip.MustParseAddr("::ffff:192.0.2.7")}).Allow {
			t.Error(name, "admits")
		}
	}
}

func TestEnvironmentsAreApart(t *testing.T) {
	dev := principal(Grant{Role: Admin, Environment: Development})
	for _, row := range Actions {
		may := Admin.Allows(row.Action) && row.Level != OnWorkspace
		for _, c := range []struct {
			s   Scope
			may bool
		}{
			{con("con_3"), may}, {Scope{Workspace: ws, Environment: Development}, may && (row.Level == OnScope || row.Level == OnEnvironment)},
			{con("con_1"), false}, {Scope{Workspace: ws, Environment: Production}, false}, {Scope{Workspace: ws, Environment: Test}, false},
			{Scope{Workspace: ws}, false}, {Scope{Workspace: ws, Connection: "con_3"}, false}, {Scope{Workspace: "ws_b", Environment: Development, Connection: "con_3"}, false},
		} {
			if got := Decide(dev, row.Action, c.s, here); got.Allow != c.may {
				t.Errorf("P9 %s on %+v: %+v", row.Action, c.s, got)
			}
		}
		if got := Somewhere(dev, row.Action, ws, here); got.Allow != may {
			t.Errorf("%s somewhere: %+v", row.Action, got)
		}
		if got := Somewhere(dev, row.Action, "ws_b", here); got.Allow {
			t.Errorf("%s somewhere else: %+v", row.Action, got)
		}
	}
	for name, g := range map[string]Grant{"no environment": {Role: Admin, Environment: "staging"}, "an environment and a connection": {Role: Admin, Environment: Development, Connection: "con_3"}} {
		for _, s := range []Scope{con("con_3"), {Workspace: ws, Environment: "staging", Connection: "con_3"}, {Workspace: ws}} {
			if Decide(principal(g), Query, s, here).Allow || Decide(principal(g), AgentsRead, s, here).Allow {
				t.Error(name, "counts on", s)
			}
		}
	}
}

func TestCustomRoles(t *testing.T) {
	reader := set(t, Query, Schema)
	p := principal(Grant{Role: "rol_1", Custom: reader})
	for _, row := range Actions {
		if got := Decide(p, row.Action, con("con_1"), here).Allow; got != (row.Action == Query || row.Action == Schema) {
			t.Errorf("%s: %v", row.Action, got)
		}
	}
	if got := p.Roles(); !slices.Equal(got, []Role{"rol_1"}) {
		t.Error(got)
	}
	// A system role is what its name says, whatever stands beside it.
	if Decide(principal(Grant{Role: Analyst, Custom: set(t, Exec)}), Exec, con("con_1"), here).Allow {
		t.Error("an analyst with more than the role holds")
	}
	for name, actions := range map[string][]Action{"unknown": {Query, "made.up"}, "empty": {""}, "J4 an owner's": {Query, WorkspaceOwn}, "other case": {"Connection.Query"}} {
		if s, err := NewSet(actions...); err == nil || s != (Set{}) {
			t.Error(name, "is taken")
		}
	}
	if got := set(t, Schema, Query, Query).Actions(); !slices.Equal(got, []Action{Query, Schema}) {
		t.Error(got)
	}
	if len(Actions) > 128 {
		t.Fatal("a Set holds 128 actions")
	}
}

func TestExplainTellsWhatIsMissing(t *testing.T) {
	gs := []Grant{{ID: "gra_over", Role: Operator, Workspace: ws, Until: now}, {ID: "gra_else", Role: Operator, Workspace: ws, Connection: "con_2"},
		{ID: "gra_net", Role: Operator, Workspace: ws, From: prefixes("203.0.113.0/24")}, {ID: "gra_low", Role: Analyst, Workspace: ws},
		{ID: "gra_far", Role: Analyst, Workspace: ws, Environment: Development, Until: now.Add(-time.Hour)}}
	p := NewPrincipal("usr_1", ws, "p", User, gs)
	d, near := Explain(p, gs, Exec, con("con_1"), here)
	want := map[string][]Lack{"gra_over": {LacksTime}, "gra_else": {LacksScope}, "gra_net": {LacksSource}, "gra_low": {LacksAction}, "gra_far": {LacksAction, LacksScope, LacksTime}}
	if d.Allow || len(near) != len(gs) || near[len(near)-1].Grant.ID != "gra_far" {
		t.Fatalf("%+v %+v", d, near)
	}
	for _, n := range near {
		if !slices.Equal(n.Lacks, want[n.Grant.ID]) {
			t.Errorf("%s: %v", n.Grant.ID, n.Lacks)
		}
	}
	if d, near = Explain(p, gs, Query, con("con_1"), here); !d.Allow || d.Grant != "gra_low" || len(near) != 4 {
		t.Fatalf("%+v %+v", d, near)
	}
	if got := RolesWith(Exec); !slices.Equal(got, []Role{Operator, Admin, Owner}) {
		t.Error(got)
	}
}
