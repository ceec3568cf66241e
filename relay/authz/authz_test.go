package authz_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

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
var analyst = []Action{Query, Schema, List, Stat, Read, RequestGet, ConnectionsRead, ProjectsRead}

var operator = append([]Action{Exec, Transaction, Write, Delete, Move, Mkdir, Request, Dial, ConnectionsManage, AgentsRead, AgentsManage,
	GroupsRead, GroupsManage, JoinTokensRead, JoinTokensManage, AuditRead, AllowlistRead, BudgetsRead, SignInRead, DomainsRead, ProjectsManage,
	ConnectionsCreate, ConnectionsEdit, ConnectionsDelete, AgentsEdit, AgentsDelete, GroupsCreate, GroupsDelete, JoinTokensCreate, JoinTokensDelete,
	ProjectsCreate, ProjectsEdit, ProjectsDelete}, analyst...)

var admin = append([]Action{GatewaysManage, BudgetsManage, AllowlistManage, TokensRead, TokensManage, RolesRead, RolesManage, GrantsRead,
	GrantsManage, TeamsRead, TeamsManage, UsersRead, UsersManage, SignInManage, ServicesRead, ServicesManage, DomainsManage,
	GatewaysEdit, GatewaysDelete, BudgetsEdit, AllowlistEdit, TokensCreate, TokensDelete, RolesCreate, RolesEdit, RolesDelete, GrantsCreate, GrantsDelete,
	TeamsCreate, TeamsEdit, TeamsDelete, UsersCreate, UsersEdit, UsersDelete, SignInEdit, ServicesCreate, ServicesEdit, ServicesDelete, DomainsCreate,
	DomainsDelete}, operator...)

var owner = append([]Action{WorkspaceOwn}, admin...)

// now is a moment and here a source; no grant below ends or is bound to a network unless it says so.
var (
	now  = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	here = At{Time: now, Source: netip.MustParseAddr("192.0.2.7")}
)

func TestRoleMatrix(t *testing.T) { t.Run("J1 every action and role", testRoleMatrix) }

func testRoleMatrix(t *testing.T) {
	if len(Actions) != len(owner) {
		t.Fatalf("the table has %d actions, the matrix %d", len(Actions), len(owner))
	}
	seen := map[Action]bool{}
	for _, row := range Actions {
		if seen[row.Action] || row.Guards == "" || row.Asset == "" || row.Verb == "" {
			t.Errorf("%s: twice, or guards nothing", row.Action)
		}
		seen[row.Action] = true
		for role, set := range map[Role][]Action{Owner: owner, Admin: admin, Operator: operator, Analyst: analyst} {
			t.Run(fmt.Sprintf("J1 %s %s", role, row.Action), func(t *testing.T) {
				may := slices.Contains(set, row.Action)
				onWS, onCon := principal(Grant{Role: role}), principal(Grant{Role: role, Connection: "con_1"})
				s := Scope{Workspace: ws, Connection: "con_1"}
				if got := Decide(onWS, row.Action, s, here); got.Allow != may || may != role.Allows(row.Action) {
					t.Fatalf("by the workspace: %+v, want %v", got, may)
				}
				if got := Decide(onCon, row.Action, s, here); got.Allow != (may && onParts(row.Level)) {
					t.Fatalf("by the connection: %+v", got)
				}
				if got := Decide(onCon, row.Action, Scope{Workspace: ws, Connection: "con_2"}, here); got.Allow {
					t.Fatalf("on another connection: %+v", got)
				}
				for _, other := range []Scope{{}, {Workspace: "ws_b"}, {Workspace: "ws_b", Connection: "con_1"}, {Connection: "con_1"}} {
					if got := Decide(onWS, row.Action, other, here); got.Allow {
						t.Fatalf("P9 in another workspace %+v: %+v", other, got)
					}
				}
				if got := Decide(onCon, row.Action, Scope{Workspace: ws}, here); got.Allow {
					t.Fatalf("a grant on a connection reaches the workspace: %+v", got)
				}
				if got := Decide(onWS, row.Action, Scope{Workspace: ws}, here); got.Allow != (may && row.Level != OnConnection) {
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
	if d := Decide(p, Dial, own, here); !d.Allow || d.Grant != "gwy_1" {
		t.Fatalf("%+v", d)
	}
	for _, row := range Actions {
		for _, s := range []Scope{own, {Workspace: ws}, {Workspace: ws, Connection: "con_2"}, {Workspace: "ws_b", Connection: "con_1"}, {Connection: "con_1"}, {}} {
			if (row.Action != Dial || s != own) && Decide(p, row.Action, s, here).Allow {
				t.Errorf("%s on %+v is allowed", row.Action, s)
			}
		}
	}
	for _, none := range []Principal{NewGateway("", ws, "con_1", ""), NewGateway("gwy_1", "", "con_1", ""), NewGateway("gwy_1", ws, "", "")} {
		if Decide(none, Dial, own, here).Allow || Decide(none, Dial, Scope{Workspace: ws}, here).Allow {
			t.Errorf("%+v may dial", none)
		}
	}
	// It is no role that anybody could be given.
	for _, name := range []string{"gateway", "gateways", "dial"} {
		if _, err := ParseRole(name); err == nil || Role(name).Allows(Dial) {
			t.Errorf("%s is a role", name)
		}
	}
	if len(p.Roles()) != 0 || mayGive(p, Analyst, own) {
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
			if d := Decide(p, row.Action, full, here); d.Allow || d.Grant != "" || d.Reason == "" {
				t.Errorf("%s: %s: %+v", name, row.Action, d)
			}
		}
	}
	root := principal(Grant{Role: Admin})
	for _, a := range []Action{"", "connection", "connection.QUERY", "connection.query ", "*", "tokens.*", "audit"} {
		if d := Decide(root, a, full, here); d.Allow {
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

// A new action that lets somebody stay in or lets others in must be thought of; one that is not known wants a proof.
func TestDangerousActions(t *testing.T) {
	for _, a := range []Action{AllowlistManage, TokensManage, JoinTokensManage, AgentsManage, GatewaysManage, UsersManage, SignInManage, ServicesManage, DomainsManage,
		RolesManage, GrantsManage, TeamsManage, ConnectionsManage, ProjectsManage, WorkspaceOwn, AllowlistEdit, TokensCreate, TokensDelete, JoinTokensCreate, JoinTokensDelete,
		AgentsEdit, AgentsDelete, GatewaysEdit, GatewaysDelete, UsersCreate, UsersEdit, UsersDelete, SignInEdit, ServicesCreate, ServicesEdit, ServicesDelete, DomainsCreate,
		DomainsDelete, RolesCreate, RolesEdit, RolesDelete, GrantsCreate, GrantsDelete, TeamsCreate, TeamsEdit, TeamsDelete, ConnectionsCreate, ConnectionsEdit, ConnectionsDelete,
		ProjectsCreate, ProjectsEdit, ProjectsDelete, "made.up", ""} {
		if !a.Dangerous() {
			t.Errorf("%s wants no fresh proof", a)
		}
	}
	for _, a := range []Action{Query, Exec, ConnectionsRead, AuditRead, TokensRead, UsersRead, GroupsManage, GroupsCreate, GroupsDelete, BudgetsManage, BudgetsEdit} {
		if a.Dangerous() {
			t.Errorf("%s wants a fresh proof", a)
		}
	}
}
