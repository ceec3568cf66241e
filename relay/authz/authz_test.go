package authz_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairleadhq/fairlead/protocol"
	. "github.com/fairleadhq/fairlead/relay/authz"
)

const ws = "ws_a"

func principal(g ...Grant) Principal {
	for i := range g {
		g[i].ID = fmt.Sprint("gra_", i)
		if g[i].Workspace == "" {
			g[i].Workspace = ws
		}
	}
	return NewPrincipal("usr_1", ws, "p", Service, g)
}

// The whole matrix, written down apart from the table: who may what.
var analyst = []Action{Query, Schema, List, Stat, Read, RequestGet, ConnectionsRead}

var operator = append([]Action{Exec, Transaction, Write, Delete, Move, Mkdir, Request, Dial, ConnectionsManage, AgentsRead, AgentsManage,
	GroupsRead, GroupsManage, JoinTokensRead, JoinTokensManage, AuditRead, AllowlistRead, BudgetsRead, SignInRead}, analyst...)

var admin = append([]Action{GatewaysManage, BudgetsManage, AllowlistManage, TokensRead, TokensManage, UsersRead, UsersManage, SignInManage}, operator...)

func TestRoleMatrix(t *testing.T) {
	if len(Actions) != len(admin) {
		t.Fatalf("the table has %d actions, the matrix %d", len(Actions), len(admin))
	}
	seen := map[Action]bool{}
	for _, row := range Actions {
		if seen[row.Action] || row.Guards == "" {
			t.Errorf("%s: twice, or guards nothing", row.Action)
		}
		seen[row.Action] = true
		for role, set := range map[Role][]Action{Admin: admin, Operator: operator, Analyst: analyst} {
			t.Run(fmt.Sprintf("J1 %s %s", role, row.Action), func(t *testing.T) {
				may := slices.Contains(set, row.Action)
				onWS, onCon := principal(Grant{Role: role}), principal(Grant{Role: role, Connection: "con_1"})
				s := Scope{Workspace: ws, Connection: "con_1"}
				if got := Decide(onWS, row.Action, s); got.Allow != may || may != role.Allows(row.Action) {
					t.Fatalf("by the workspace: %+v, want %v", got, may)
				}
				if got := Decide(onCon, row.Action, s); got.Allow != (may && row.Level == OnConnection) {
					t.Fatalf("by the connection: %+v", got)
				}
				if got := Decide(onCon, row.Action, Scope{Workspace: ws, Connection: "con_2"}); got.Allow {
					t.Fatalf("on another connection: %+v", got)
				}
				for _, other := range []Scope{{}, {Workspace: "ws_b"}, {Workspace: "ws_b", Connection: "con_1"}, {Connection: "con_1"}} {
					if got := Decide(onWS, row.Action, other); got.Allow {
						t.Fatalf("P9 in another workspace %+v: %+v", other, got)
					}
				}
				if got := Decide(onCon, row.Action, Scope{Workspace: ws}); got.Allow {
					t.Fatalf("a grant on a connection reaches the workspace: %+v", got)
				}
				if got := Decide(onWS, row.Action, Scope{Workspace: ws}); got.Allow != (may && row.Level == OnWorkspace) {
					t.Fatalf("with no connection named: %+v", got)
				}
			})
		}
	}
}

// P10: who comes in through a gateway may dial its one connection, and nothing else anywhere.
func TestGatewayMayDialItsConnectionAlone(t *testing.T) {
	own := Scope{Workspace: ws, Connection: "con_1"}
	p := NewGateway("gwy_1", ws, "con_1", "10.0.0.5:5432")
	if d := Decide(p, Dial, own); !d.Allow || d.Grant != "gwy_1" {
		t.Fatalf("%+v", d)
	}
	for _, row := range Actions {
		for _, s := range []Scope{own, {Workspace: ws}, {Workspace: ws, Connection: "con_2"}, {Workspace: "ws_b", Connection: "con_1"}, {Connection: "con_1"}, {}} {
			if (row.Action != Dial || s != own) && Decide(p, row.Action, s).Allow {
				t.Errorf("%s on %+v is allowed", row.Action, s)
			}
		}
	}
	for _, none := range []Principal{NewGateway("", ws, "con_1", ""), NewGateway("gwy_1", "", "con_1", ""), NewGateway("gwy_1", ws, "", "")} {
		if Decide(none, Dial, own).Allow || Decide(none, Dial, Scope{Workspace: ws}).Allow {
			t.Errorf("%+v may dial", none)
		}
	}
	// It is no role that anybody could be given.
	for _, name := range []string{"gateway", "gateways", "dial"} {
		if _, err := ParseRole(name); err == nil || Role(name).Allows(Dial) {
			t.Errorf("%s is a role", name)
		}
	}
	if len(p.Roles()) != 0 || MayGrant(p, Analyst, own) {
		t.Error("it holds a role")
	}
}

func TestDefaultDeny(t *testing.T) {
	full := Scope{Workspace: ws, Connection: "con_1"}
	for name, p := range map[string]Principal{
		"nobody":               {},
		"no grant":             principal(),
		"a role not known":     principal(Grant{Role: "root"}, Grant{Role: ""}, Grant{Role: "Admin"}, Grant{Role: "admin "}),
		"another workspace":    principal(Grant{Role: Admin, Workspace: "ws_b"}),
		"no id":                NewPrincipal("", ws, "p", User, []Grant{{ID: "g", Role: Admin, Workspace: ws}}),
		"no workspace":         NewPrincipal("usr_1", "", "p", User, []Grant{{ID: "g", Role: Admin}}),
		"a grant without one":  NewPrincipal("usr_1", ws, "p", User, []Grant{{ID: "g", Role: Admin}}),
		"zero with workspace":  {ID: "usr_1", Workspace: ws},
		"on a prefix of an id": principal(Grant{Role: Admin, Connection: "con_"}, Grant{Role: Admin, Connection: "con_11"}),
	} {
		for _, row := range Actions {
			if d := Decide(p, row.Action, full); d.Allow || d.Grant != "" || d.Reason == "" {
				t.Errorf("%s: %s: %+v", name, row.Action, d)
			}
		}
	}
	root := principal(Grant{Role: Admin})
	for _, a := range []Action{"", "connection", "connection.QUERY", "connection.query ", "*", "tokens.*", "audit"} {
		if d := Decide(root, a, full); d.Allow {
			t.Errorf("unknown action %q is allowed", a)
		}
		if Admin.Allows(a) {
			t.Errorf("admin holds %q", a)
		}
	}
	if Role("root").Allows(Query) {
		t.Error("an unknown role holds something")
	}
}

// Every operation that the protocol has is guarded, and nothing else is.
func TestEveryOperationHasAnAction(t *testing.T) {
	for _, k := range []protocol.Kind{protocol.KindDatabase, protocol.KindFiles, protocol.KindHTTP, protocol.KindTCP} {
		for _, op := range protocol.Operations(k) {
			a := ForOperation(op, "POST")
			row, ok := Find(a)
			if !ok || row.Level != OnConnection {
				t.Errorf("%s is guarded by %q", op, a)
			}
		}
	}
	for _, op := range []protocol.Operation{"", "QUERY", "drop"} {
		if a := ForOperation(op, "GET"); a != "" {
			t.Errorf("%q is guarded by %s", op, a)
		}
	}
	for method, want := range map[string]Action{"GET": RequestGet, "HEAD": RequestGet, "OPTIONS": RequestGet, "POST": Request,
		"PUT": Request, "PATCH": Request, "DELETE": Request, "get": Request, "": Request, "QUERY": Request, "PROPFIND": Request} {
		if a := ForOperation(protocol.OpRequest, method); a != want {
			t.Errorf("%s: %s", method, a)
		}
	}
}

func genGrant(t *rapid.T, label string) Grant {
	return Grant{
		ID:         rapid.StringMatching(`gra_[a-f]{2}`).Draw(t, label+" id"),
		Role:       rapid.SampledFrom([]Role{Admin, Operator, Analyst, "", "root"}).Draw(t, label+" role"),
		Workspace:  rapid.SampledFrom([]string{ws, ws, ws, "ws_b", ""}).Draw(t, label+" workspace"),
		Connection: rapid.SampledFrom([]string{"", "con_1", "con_2", "con_3"}).Draw(t, label+" connection"),
	}
}

// Against a model that just tries every grant: the same answer, adding never takes away, removing never adds, order is nothing.
func TestGrantsOnlyAdd(t *testing.T) {
	model := func(gs []Grant, a Action, s Scope) bool {
		row, ok := Find(a)
		if !ok || s.Workspace != ws || row.Level == OnConnection && s.Connection == "" {
			return false
		}
		for _, g := range gs {
			covers := g.Connection == "" || row.Level == OnConnection && g.Connection == s.Connection
			if g.Workspace == ws && covers && g.Role.Allows(a) {
				return true
			}
		}
		return false
	}
	rapid.Check(t, func(t *rapid.T) {
		gs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Grant { return genGrant(t, "g") }), 0, 6).Draw(t, "grants")
		extra := genGrant(t, "extra")
		a := Actions[rapid.IntRange(0, len(Actions)-1).Draw(t, "action")].Action
		s := Scope{Workspace: rapid.SampledFrom([]string{ws, ws, "ws_b", ""}).Draw(t, "ws"),
			Connection: rapid.SampledFrom([]string{"", "con_1", "con_2"}).Draw(t, "con")}
		p := NewPrincipal("usr_1", ws, "p", User, gs)
		d := Decide(p, a, s)
		if d.Allow != model(gs, a, s) {
			t.Fatalf("%v on %+v: %+v", a, s, d)
		}
		if d.Allow {
			i := slices.IndexFunc(gs, func(g Grant) bool { return g.ID == d.Grant && g.Role.Allows(a) && g.Workspace == ws })
			if i < 0 {
				t.Fatalf("the grant named does not allow it: %+v", d)
			}
		}
		more := Decide(NewPrincipal("usr_1", ws, "p", User, append(slices.Clone(gs), extra)), a, s)
		if d.Allow && !more.Allow {
			t.Fatal("a grant more takes away")
		}
		for i := range gs {
			if less := Decide(NewPrincipal("usr_1", ws, "p", User, slices.Delete(slices.Clone(gs), i, i+1)), a, s); less.Allow && !d.Allow {
				t.Fatal("a grant less adds")
			}
		}
		back := slices.Clone(gs)
		slices.Reverse(back)
		if Decide(NewPrincipal("usr_1", ws, "p", User, back), a, s) != d {
			t.Fatal("the order of grants matters")
		}
	})
}

func TestNobodyGrantsAboveTheirOwn(t *testing.T) {
	here, con := Scope{Workspace: ws}, Scope{Workspace: ws, Connection: "con_1"}
	for _, r := range Roles {
		t.Run("J4 "+string(r), func(t *testing.T) {
			for _, s := range []Scope{here, con} {
				if !MayGrant(principal(Grant{Role: Admin}), r, s) {
					t.Error("an admin may not", s)
				}
				for _, p := range []Principal{principal(Grant{Role: Operator}), principal(Grant{Role: Analyst}), principal(),
					principal(Grant{Role: Admin, Connection: "con_1"}), {}} {
					if MayGrant(p, r, s) {
						t.Error("may grant without being admin", p.Roles(), s)
					}
				}
			}
			if MayGrant(principal(Grant{Role: Admin}), r, Scope{Workspace: "ws_b"}) || MayGrant(principal(Grant{Role: Admin}), r, Scope{}) {
				t.Error("in another workspace")
			}
		})
	}
	if MayGrant(principal(Grant{Role: Admin}), "root", here) {
		t.Error("an unknown role")
	}
}

func TestParseRole(t *testing.T) {
	for _, r := range Roles {
		if got, err := ParseRole(string(r)); err != nil || got != r {
			t.Error(r, err)
		}
	}
	for _, s := range []string{"", "Admin", " admin", "root", "admin,operator", strings.Repeat("a", 1000)} {
		if got, err := ParseRole(s); err == nil || got != "" || strings.Contains(err.Error(), "aaaa") {
			t.Error(s, err)
		}
	}
}

func BenchmarkDecide10000Grants(b *testing.B) {
	gs := make([]Grant, 10_000)
	for i := range gs {
		gs[i] = Grant{ID: fmt.Sprint("gra_", i), Role: Roles[1+i%2], Workspace: ws, Connection: fmt.Sprint("con_", i)}
	}
	p := NewPrincipal("usr_1", ws, "p", User, gs)
	s := Scope{Workspace: ws, Connection: "con_9999"}
	b.ReportAllocs()
	for b.Loop() {
		if !Decide(p, Query, s).Allow {
			b.Fatal("denied")
		}
	}
}

func BenchmarkDecideDeny(b *testing.B) {
	p := principal(Grant{Role: Analyst})
	b.ReportAllocs()
	for b.Loop() {
		if Decide(p, Exec, Scope{Workspace: ws, Connection: "con_1"}).Allow {
			b.Fatal("allowed")
		}
	}
}

// A new action that lets somebody stay in or lets others in must be thought of; one that is not known wants a proof.
func TestDangerousActions(t *testing.T) {
	for _, a := range []Action{AllowlistManage, TokensManage, JoinTokensManage, AgentsManage, GatewaysManage, UsersManage, SignInManage, "made.up", ""} {
		if !a.Dangerous() {
			t.Errorf("%s wants no fresh proof", a)
		}
	}
	for _, a := range []Action{Query, Exec, ConnectionsRead, AuditRead, TokensRead, UsersRead} {
		if a.Dangerous() {
			t.Errorf("%s wants a fresh proof", a)
		}
	}
}
