package authz_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	. "github.com/fairleadhq/fairlead/relay/authz"
)

// What random grants seldom meet, one by one.
func TestEdgesOfADecision(t *testing.T) {
	production := Scope{Workspace: ws, Environment: Production}
	t.Run("the grant that lasts longest counts, in whatever order", func(t *testing.T) {
		gs := []Grant{{ID: "gra_a", Role: Analyst, Workspace: ws, Until: now.Add(time.Hour)}, {ID: "gra_b", Role: Analyst, Workspace: ws, Until: now.Add(3 * time.Hour)},
			{ID: "gra_c", Role: Analyst, Workspace: ws, Until: now.Add(2 * time.Hour)}}
		for range gs {
			gs = append(gs[1:], gs[0])
			d := Decide(NewPrincipal("usr_1", ws, "p", User, gs), Query, con("con_1"), At{Time: now.Add(150 * time.Minute)})
			if !d.Allow || d.Grant != "gra_b" {
				t.Errorf("%+v", d)
			}
		}
		endless := append([]Grant{{ID: "gra_0", Role: Analyst, Workspace: ws}}, gs...)
		if d := Decide(NewPrincipal("usr_1", ws, "p", User, endless), Query, con("con_1"), At{Time: now.AddDate(1, 0, 0)}); !d.Allow || d.Grant != "gra_0" {
			t.Errorf("%+v", d)
		}
	})
	t.Run("what counts nowhere hides nothing that comes after it", func(t *testing.T) {
		p := principal(Grant{Role: Owner, Folder: "fol_1"}, Grant{Role: Owner, Environment: "staging"}, Grant{Role: Analyst, Environment: Production, Until: now.Add(time.Hour)})
		if d := Decide(p, Query, con("con_1"), here); !d.Allow {
			t.Errorf("%+v", d)
		}
	})
	t.Run("of two that last as long the narrower is named", func(t *testing.T) {
		for _, gs := range [][]Grant{{{Role: Operator}, {Role: Analyst}}, {{Role: Analyst}, {Role: Operator}}} {
			for i := range gs {
				gs[i].ID, gs[i].Workspace, gs[i].Until = "gra_"+string(gs[i].Role), ws, now.Add(time.Hour)
			}
			if d := Decide(NewPrincipal("usr_1", ws, "p", User, gs), Query, con("con_1"), here); d.Grant != "gra_analyst" {
				t.Errorf("%+v", d)
			}
		}
	})
	t.Run("a clock that stands at nothing is past every end", func(t *testing.T) {
		p := principal(Grant{Role: Analyst, Until: now.Add(time.Hour)})
		for _, at := range []time.Time{{}, time.UnixMilli(-1), time.UnixMilli(0)} {
			if Decide(p, Query, con("con_1"), At{Time: at, Source: here.Source}).Allow {
				t.Errorf("allowed at %v", at)
			}
			g := Grant{ID: "gra_1", Role: Analyst, Workspace: ws, Until: now.Add(time.Hour)}
			if _, near := Explain(p, []Grant{g}, Query, con("con_1"), At{Time: at, Source: here.Source}); len(near) != 1 || !slices.Equal(near[0].Lacks, []Lack{LacksTime}) {
				t.Errorf("at %v: %+v", at, near)
			}
		}
	})
	t.Run("of two networks the narrower is named", func(t *testing.T) {
		p := principal(Grant{Role: Analyst, From: prefixes("192.0.0.0/16")}, Grant{Role: Analyst, From: prefixes("192.0.2.0/24")})
		if d := Decide(p, Query, con("con_1"), here); d.Grant != "gra_1" {
			t.Errorf("%+v", d)
		}
	})
	t.Run("E6 a mapped address is in no network", func(t *testing.T) {
		p := principal(Grant{Role: Admin, From: prefixes("::/0", "0.0.0.0/0")})
		if Decide(p, Query, con("con_1"), At{now, netip.MustParseAddr("::ffff:192.0.2.7")}).Allow {
			t.Error("allowed")
		}
	})
	t.Run("E4 no address is in no network", func(t *testing.T) {
		if Decide(principal(Grant{Role: Admin, From: []netip.Prefix{{}, netip.MustParsePrefix("::/0")}}), Query, con("con_1"), At{Time: now}).Allow {
			t.Error("allowed")
		}
	})
	t.Run("P9 of no workspace", func(t *testing.T) {
		p := NewPrincipal("usr_1", "", "p", User, []Grant{{ID: "g", Role: Admin}, {ID: "h", Role: Admin, Environment: Production}})
		if Decide(p, AgentsRead, Scope{}, here).Allow || Somewhere(p, ConnectionsManage, "", here).Allow || MayGive(p, Grant{Role: Analyst}, Scope{}, GrantsManage, here) {
			t.Error("allowed")
		}
		if _, near := Explain(p, []Grant{{ID: "g", Role: Admin}}, AgentsRead, Scope{}, here); len(near) != 1 || !slices.Equal(near[0].Lacks, []Lack{LacksScope}) {
			t.Errorf("%+v", near)
		}
	})
	t.Run("nobody, somewhere", func(t *testing.T) {
		g := []Grant{{ID: "g", Role: Admin, Workspace: ws, Environment: Production}}
		if Somewhere(NewPrincipal("", ws, "p", User, g), ConnectionsManage, ws, here).Allow || Somewhere(Principal{ID: "usr_1", Workspace: ws}, ConnectionsManage, ws, here).Allow {
			t.Error("allowed")
		}
		if p := NewPrincipal("usr_1", ws, "p", User, g); Somewhere(p, "made.up", ws, here).Allow || !Somewhere(p, ConnectionsManage, ws, here).Allow {
			t.Error("an action that is none, or not one that is")
		}
	})
	t.Run("Explain says what a grant lacks", func(t *testing.T) {
		foreign := Grant{ID: "g", Role: Admin, Workspace: "ws_b"}
		local := Grant{ID: "h", Role: Admin, Workspace: ws, Connection: "con_1"}
		part := Grant{ID: "i", Role: Admin, Workspace: ws, Environment: Production}
		mapped := At{now, netip.MustParseAddr("::ffff:192.0.2.7")}
		bound := Grant{ID: "j", Role: Admin, Workspace: ws, From: prefixes("::/0")}
		for name, c := range map[string]struct {
			g    Grant
			a    Action
			s    Scope
			at   At
			want Lack
		}{
			"of another workspace, there":        {foreign, AgentsRead, Scope{Workspace: "ws_b"}, here, LacksScope},
			"on an environment and a connection": {Grant{ID: "k", Role: Admin, Workspace: ws, Environment: Production, Connection: "con_1"}, Query, con("con_1"), here, LacksScope},
			"on no environment":                  {Grant{ID: "l", Role: Admin, Workspace: ws, Environment: "staging"}, ConnectionsManage, Scope{Workspace: ws, Environment: "staging"}, here, LacksScope},
			"of another workspace, here":         {foreign, AgentsRead, Scope{Workspace: ws}, here, LacksScope},
			"a connection's, on the workspace":   {local, AgentsRead, con("con_1"), here, LacksScope},
			"an environment's, on the workspace": {part, AuditRead, production, here, LacksScope},
			"a connection's action on none":      {part, Query, production, here, LacksScope},
			"from a mapped address":              {bound, AgentsRead, Scope{Workspace: ws}, mapped, LacksSource},
		} {
			p := NewPrincipal("usr_1", ws, "p", User, []Grant{c.g})
			if d, near := Explain(p, []Grant{c.g}, c.a, c.s, c.at); d.Allow || len(near) != 1 || !slices.Equal(near[0].Lacks, []Lack{c.want}) {
				t.Errorf("%s: %+v %+v", name, d, near)
			}
		}
	})
}
