package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/api"
	"github.com/fairleadhq/fairlead/relay/authz"
)

// open routes need no action: they are about the caller alone, or about nobody.
var open = map[string]bool{"POST /sign-in": true /* TestSignInRoutes */, "POST /sign-in/first": true, "POST /sign-in/hand-over": true /* TestHandedOverCodeIsRefused */, "POST /sign-in/passkey": true /* TestPasskey… */, "POST /sign-in/passkey/begin": true, "GET /whoami": true, "GET /openapi.json": true, "GET /tunnel": true /* guarded by the handshake inside: relay.TestWebSocketRouteIsGuardedByTheHandshakeInside */}

// own are the routes of a person's own account, which want a session.
func own(r api.Route) bool {
	return r.Session && (r.Path == "/sign-out" || r.Path == "/account" || strings.HasPrefix(r.Path, "/account/"))
}

// rowFaults finds routes that stand in no row of the permission table.
func rowFaults(routes []api.Route) (faults []string) {
	seen := map[string]bool{}
	for _, r := range routes {
		key := r.Method + " " + r.Path
		if seen[key] {
			faults = append(faults, key+" stands twice")
		}
		seen[key] = true
		if _, ok := authz.Find(authz.Action(r.Action)); !ok && !((open[key] || own(r)) && r.Action == "") {
			faults = append(faults, key+" has no row")
		}
		if !open[key] && !own(r) && r.Path != "/workspaces/{workspace}" && !strings.HasPrefix(r.Path, "/workspaces/{workspace}/") {
			faults = append(faults, key+" stands outside of a workspace")
		}
	}
	return faults
}

// P10: every route is denied unless it is listed.
func TestEveryRouteHasARow(t *testing.T) {
	g := newRig(t)
	routes := g.api.Routes()
	if len(routes) < 40 {
		t.Fatalf("%d routes only: the walk sees too little", len(routes))
	}
	for _, f := range rowFaults(routes) {
		t.Error(f)
	}
	// The walk itself: it must turn red for a route that somebody forgot.
	for _, fake := range []api.Route{{Method: "GET", Path: "/workspaces/{workspace}/forgotten"}, {Method: "GET", Path: "/workspaces/{workspace}/x", Action: "made.up"},
		{Method: "POST", Path: "/everything", Action: string(authz.AgentsRead)}, {Method: "POST", Path: "/workspaces/{workspace}/y", Session: true}, {Method: "POST", Path: "/other", Anonymous: true}, routes[0]} {
		if len(rowFaults(append(routes[:len(routes):len(routes)], fake))) == 0 {
			t.Errorf("%+v was not found", fake)
		}
	}
	// And every action guards something; what manages an asset, by its parts (authz.TestAVerbIsHeldByItselfAlone).
	used := map[string]bool{}
	for _, r := range routes {
		used[r.Action] = true
	}
	for _, row := range authz.Actions {
		if !used[string(row.Action)] && (row.Verb != authz.Manage || row.Action == authz.WorkspaceOwn) {
			t.Errorf("%s guards no route", row.Action)
		}
	}
}

// fill gives a route's path for a workspace and an object.
func fill(path, workspace, object string) string {
	return strings.NewReplacer("{workspace}", workspace, "{connection}", object, "{id}", object, "{name}", object, "{path...}", "a/b.txt").Replace(path)
}

// J1, J9, P9, P10: each route × role × workspace × token. Another workspace's answer is that of one that is not there.
func TestMatrixOfRoutesRolesWorkspacesAndTokens(t *testing.T) {
	t.Run("J1 J9 every route, role, workspace and token", testMatrixOfRoutesRolesWorkspacesAndTokens)
}

func testMatrixOfRoutesRolesWorkspacesAndTokens(t *testing.T) {
	g := newRig(t)
	revoked := g.newToken("revoked", time.Hour, authz.Admin)
	expired := g.newToken("expired", time.Second, authz.Admin)
	ends := time.After(1200 * time.Millisecond)
	ws, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	for _, tok := range ws.Tokens {
		if tok.Name == "revoked" {
			must(t, g.dir.RevokeToken(context.Background(), "default", tok.ID))
		}
	}
	<-ends
	bad := map[string]string{"none": "", "garbage": "flt_garbage", "of the right length": "flt_" + strings.Repeat("A", 43), "expired": expired, "revoked": revoked,
		"upper case": strings.ToUpper(g.token[authz.Admin])}
	for _, route := range g.api.Routes() {
		if route.Anonymous {
			continue
		}
		body := ""
		if route.Method == "POST" || route.Method == "PUT" {
			body = "{}"
		}
		ask := func(workspace, object, token string) answer {
			return g.ask(route.Method, fill(route.Path, workspace, object), token, body)
		}
		for name, token := range bad {
			for _, workspace := range []string{g.own.ID, "other", "missing"} {
				if a := ask(workspace, g.conn, token); a.status != http.StatusUnauthorized || a.problem.Code != protocol.CodeUnauthenticated || a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s %s, workspace %s, token %s: %d %s", route.Method, route.Path, workspace, name, a.status, a.body)
				}
			}
		}
		for role, token := range g.token {
			at := fmt.Sprintf("%s %s as %s", route.Method, route.Path, role)
			may := route.Action == "" && !route.Session || role.Allows(authz.Action(route.Action))
			// "gone" is nobody's: nothing that the walk may do is done to a real object.
			a := ask("default", "gone", token)
			switch {
			case may && (a.status == http.StatusUnauthorized || a.status == http.StatusForbidden || a.status >= 500):
				t.Errorf("%s: refused: %d %s", at, a.status, a.body)
			case !may && strings.Contains(route.Path, "{connection}"):
				// Whoever may do nothing on a connection learns so on one that is there.
				if a = ask("default", g.conn, token); a.status != http.StatusForbidden || a.problem.Code != protocol.CodeDenied {
					t.Errorf("%s: not denied: %d %s", at, a.status, a.body)
				}
			case !may && (a.status != http.StatusForbidden || a.problem.Code != protocol.CodeDenied):
				t.Errorf("%s: not denied: %d %s", at, a.status, a.body)
			}
			if route.Action == "" {
				continue
			}
			missing := ask("missing", g.conn, token)
			for _, foreign := range []answer{ask("other", g.conn, token), ask(g.other.ID, g.otherConn, token), ask("other", "other-shop", token)} {
				if foreign.status != http.StatusNotFound || missing.status != http.StatusNotFound || foreign.shape() != missing.shape() {
					t.Errorf("%s: another workspace answers %d %s, a missing one %d %s", at, foreign.status, foreign.body, missing.status, missing.body)
				}
			}
			// Another workspace's object, asked for in one's own: TestMatrixOfForeignThings.
		}
	}
	// The walk changed nothing.
	now, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	if len(now.Connections) != 1 || len(now.Prefixes) != 1 || len(now.JoinTokens) != 0 || len(now.Grants) != len(ws.Grants) || len(now.Roles)+len(now.Teams)+len(now.Projects) != 0 {
		t.Errorf("the walk left %d connections, %d prefixes, %d join tokens, %d grants, %d roles, %d teams", len(now.Connections), len(now.Prefixes), len(now.JoinTokens),
			len(now.Grants), len(now.Roles), len(now.Teams))
	}
}

// What is not a route is not found, whatever the method, and never let through.
func TestUnknownRoutesAreNotFound(t *testing.T) {
	g := newRig(t)
	for _, c := range [][2]string{{"GET", "/nothing"}, {"POST", "/whoami"}, {"DELETE", "/workspaces/default/audit/events"}, {"TRACE", "/workspaces/default/agents"},
		{"BREW", "/workspaces/default/connections/default-shop/query"}, {"GET", "/workspaces/default/connections/default-shop/query"}, {"GET", ""}, {"PUT", "/workspaces/default"},
		{"GET", "/workspaces/default/Agents"}, {"GET", "/workspaces/default/agents;x=1"}, {"GET", "/workspaces/default/agents/"}} {
		if a := g.ask(c[0], c[1], g.token[authz.Admin], ""); a.status != http.StatusNotFound {
			t.Errorf("%s %s: %d %s", c[0], c[1], a.status, a.body)
		}
	}
}
