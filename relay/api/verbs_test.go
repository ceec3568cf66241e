package api_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// walker is somebody whose role a test sets as it goes.
type walker struct {
	*rig
	token string
}

func (g *rig) walker() walker {
	g.t.Helper()
	w := walker{g, g.nobody("walker")}
	g.makes([2]string{"roles", `{"name":"walker","actions":["connection.query"]}`})
	g.give(`{"role":"walker","principal":"walker"}`)
	return w
}

// holds has the walker hold these actions on the workspace, and what they hold, alone.
func (w walker) holds(actions ...authz.Action) {
	w.t.Helper()
	_, err := w.dir.UpdateRole(w.t.Context(), directory.By{ID: w.admin.ID}, "default", "walker", "walker", actions)
	must(w.t, err)
}

// looks are what an analyst holds, and every view: with it, one changes nothing.
func looks(more ...authz.Action) []authz.Action {
	all := append(authz.Analyst.Set().Actions(), more...)
	for _, row := range authz.Actions {
		if row.Verb == authz.View {
			all = append(all, row.Action)
		}
	}
	return all
}

// refused asks for what must be denied, and must not be done.
func (w walker) refused(what, method, path, body string) {
	w.t.Helper()
	was := w.dir.Snapshot().Generation
	if a := w.ask(method, path, w.token, body); a.status != 403 || w.dir.Snapshot().Generation != was {
		w.t.Errorf("J1 %s: %d %s, changed: %v", what, a.status, a.body, w.dir.Snapshot().Generation != was)
	}
}

// change is a request that changes something. {x} in a path is what an earlier change of that name made.
type change struct {
	route  string // below the workspace
	action authz.Action
	path   string
	body   string
	makes  string // what others call it by
}

// changes are all routes that create, edit or delete, in an order in which each can be done, with the verb that each asks for: written down
// apart from the code.
func changes(port, agent, session string) []change {
	return []change{
		{"POST /groups", authz.GroupsCreate, "/groups", `{"name":"plant"}`, ""},
		{"POST /join-tokens", authz.JoinTokensCreate, "/join-tokens", `{"group":"plant"}`, "join"},
		{"DELETE /join-tokens/{id}", authz.JoinTokensDelete, "/join-tokens/{join}", "", ""},
		{"DELETE /groups/{name}", authz.GroupsDelete, "/groups/plant", "", ""},
		{"POST /agents/{id}/disable", authz.AgentsEdit, "/agents/" + agent + "/disable", "", ""},
		{"POST /agents/{id}/enable", authz.AgentsEdit, "/agents/" + agent + "/enable", "", ""},
		{"DELETE /agents/{id}", authz.AgentsDelete, "/agents/" + agent, "", ""},
		{"POST /projects", authz.ProjectsCreate, "/projects", `{"name":"sales"}`, ""},
		{"POST /projects/{name}/folders", authz.ProjectsCreate, "/projects/sales/folders", `{"path":"reports"}`, "folder"},
		{"POST /connections", authz.ConnectionsCreate, "/connections", `{"name":"erp","group":"site","target":{"host":"erp.corp","port":3200}}`, ""},
		{"PUT /connections/{name}/place", authz.ConnectionsEdit, "/connections/erp/place", `{"project":"sales","folder":"reports"}`, ""},
		{"PUT /connections/{name}/gateway", authz.GatewaysEdit, "/connections/erp/gateway", `{"address":"` + port + `"}`, ""},
		{"DELETE /connections/{name}/gateway", authz.GatewaysDelete, "/connections/erp/gateway", "", ""},
		{"PUT /connections/{name}/budget", authz.BudgetsEdit, "/connections/erp/budget", `{"concurrent":5}`, ""},
		{"PUT /budget", authz.BudgetsEdit, "/budget", `{"concurrent":50}`, ""},
		{"DELETE /connections/{name}", authz.ConnectionsDelete, "/connections/erp", "", ""},
		{"PUT /projects/{name}", authz.ProjectsEdit, "/projects/sales", `{"name":"shop"}`, ""},
		{"DELETE /projects/{name}/folders/{id}", authz.ProjectsDelete, "/projects/shop/folders/{folder}", "", ""},
		{"DELETE /projects/{name}", authz.ProjectsDelete, "/projects/shop", "", ""},
		{"POST /tokens", authz.TokensCreate, "/tokens", `{"name":"reports","roles":["analyst"]}`, "token"},
		{"DELETE /tokens/{id}", authz.TokensDelete, "/tokens/{token}", "", ""},
		{"POST /roles", authz.RolesCreate, "/roles", `{"name":"reader","actions":["connection.query"]}`, ""},
		{"PUT /roles/{name}", authz.RolesEdit, "/roles/reader", `{"name":"reader","actions":["connection.schema"]}`, ""},
		{"POST /teams", authz.TeamsCreate, "/teams", `{"name":"night"}`, ""},
		{"POST /grants", authz.GrantsCreate, "/grants", `{"role":"reader","team":"night"}`, "grant"},
		{"PUT /teams/{name}/members/{id}", authz.TeamsEdit, "/teams/night/members/reports", "", ""},
		{"DELETE /teams/{name}/members/{id}", authz.TeamsEdit, "/teams/night/members/reports", "", ""},
		{"DELETE /grants/{id}", authz.GrantsDelete, "/grants/{grant}", "", ""},
		{"DELETE /teams/{name}", authz.TeamsDelete, "/teams/night", "", ""},
		{"DELETE /roles/{name}", authz.RolesDelete, "/roles/reader", "", ""},
		{"POST /service-accounts", authz.ServicesCreate, "/service-accounts", `{"name":"nightly","roles":["analyst"]}`, ""},
		{"POST /service-accounts/{name}/disable", authz.ServicesEdit, "/service-accounts/nightly/disable", "", ""},
		{"POST /service-accounts/{name}/enable", authz.ServicesEdit, "/service-accounts/nightly/enable", "", ""},
		{"DELETE /service-accounts/{name}", authz.ServicesDelete, "/service-accounts/nightly", "", ""},
		{"POST /users", authz.UsersCreate, "/users", `{"name":"anna","roles":["analyst"]}`, ""},
		{"PUT /users/{id}/email", authz.UsersEdit, "/users/anna/email", `{"email":"anna@example.com"}`, ""},
		{"POST /users/{id}/code", authz.UsersEdit, "/users/anna/code", `{}`, ""},
		{"POST /users/{id}/disable", authz.UsersEdit, "/users/anna/disable", "", ""},
		{"POST /users/{id}/enable", authz.UsersEdit, "/users/anna/enable", "", ""},
		{"DELETE /users/{id}/second-factor", authz.UsersEdit, "/users/anna/second-factor", "", ""},
		{"DELETE /users/{id}/sessions", authz.UsersEdit, "/users/anna/sessions", "", ""},
		{"DELETE /users/{id}", authz.UsersDelete, "/users/anna", "", ""},
		{"DELETE /sessions/{id}", authz.UsersEdit, "/sessions/" + session, "", ""},
		{"POST /domains", authz.DomainsCreate, "/domains", `{"name":"sales.apps.example"}`, ""},
		{"DELETE /domains/{name}", authz.DomainsDelete, "/domains/sales.apps.example", "", ""},
		{"PUT /sign-in-policy", authz.SignInEdit, "/sign-in-policy", `{"min_length":9,"idle_seconds":1800}`, ""},
		{"PUT /allowlist", authz.AllowlistEdit, "/allowlist", `{"prefixes":["192.0.2.0/24","2001:db8::/32"]}`, ""},
	}
}

// J1: whoever holds one verb on an asset does that, and nothing is done for who holds the asset's other verbs, or all there is but that one.
// Whoever manages an asset, by a role that was stored before there were verbs, does all of them.
func TestMatrixOfVerbs(t *testing.T) {
	for _, by := range []string{"the verb", "what manages the asset"} {
		t.Run("J1 by "+by, func(t *testing.T) {
			g := newRig(t)
			w := g.walker()
			var own client.List[client.Session]
			g.get("GET", "/account/sessions", g.person("carla", authz.Analyst), "", &own)
			asks, made := map[string]string{}, map[string]string{}
			for _, r := range g.api.Routes() {
				if row, _ := authz.Find(authz.Action(r.Action)); row.Verb == authz.Create || row.Verb == authz.Edit || row.Verb == authz.Destroy {
					asks[r.Method+" "+strings.TrimPrefix(r.Path, "/workspaces/{workspace}")] = r.Action
				}
			}
			for _, c := range changes(freePort(t), g.agent("site"), own.Items[0].ID) {
				if asks[c.route] != string(c.action) {
					t.Errorf("%s asks for %q, want %s", c.route, asks[c.route], c.action)
				}
				delete(asks, c.route)
				method, _, _ := strings.Cut(c.route, " ")
				path := "/workspaces/default" + c.path
				for name, id := range made {
					path = strings.ReplaceAll(path, "{"+name+"}", id)
				}
				row, _ := authz.Find(c.action)
				whole := c.action
				for _, o := range authz.Actions {
					if o.Asset == row.Asset && o.Verb == authz.Manage {
						whole = o.Action
					}
				}
				for _, o := range authz.Actions {
					if o.Asset == row.Asset && o.Action != c.action && o.Verb != authz.Manage && o.Verb != authz.View && o.Verb != authz.Use {
						w.holds(looks(o.Action)...)
						w.refused(c.route+" by "+string(o.Action), method, path, c.body)
					}
				}
				w.holds(slices.DeleteFunc(authz.Admin.Set().Actions(), func(a authz.Action) bool { return a == c.action || a == whole })...)
				w.refused(c.route+" by all else", method, path, c.body)
				needs := looks(c.action)
				if c.action == authz.ConnectionsEdit { // a move is worth what is held there: it wants what making it there would
					w.holds(needs...)
					w.refused(c.route+" by the verb alone", method, path, c.body)
					needs = append(needs, authz.ConnectionsCreate)
				}
				if w.holds(needs...); by != "the verb" {
					w.holds(looks(whole)...)
				}
				was := g.dir.Snapshot().Generation
				a := g.ask(method, path, w.token, c.body)
				if a.status >= 300 {
					t.Fatalf("%s by %s: %d %s", c.route, by, a.status, a.body)
				}
				if g.dir.Snapshot().Generation == was && !strings.HasSuffix(c.route, "/second-factor") && !strings.HasSuffix(c.route, "/{id}/sessions") { // she has none
					t.Errorf("%s changed nothing: the walk is void", c.route)
				}
				if c.makes != "" {
					var o struct{ ID string }
					must(t, json.Unmarshal([]byte(a.body), &o))
					made[c.makes] = o.ID
				}
			}
			for route := range asks {
				t.Errorf("%s was not asked for", route)
			}
		})
	}
}

// J4: by one verb, nobody makes, changes or removes somebody who holds more, nor makes a role of more than they hold.
func TestAVerbAloneReachesNoHigher(t *testing.T) {
	g := newRig(t)
	w := g.walker()
	g.makes([2]string{"teams", `{"name":"heads"}`}, [2]string{"teams", `{"name":"chiefs"}`}, [2]string{"service-accounts", `{"name":"robot","roles":["operator"]}`},
		[2]string{"roles", `{"name":"used","actions":["connection.query"]}`})
	g.give(`{"role":"operator","team":"heads"}`)
	chiefs := g.give(`{"role":"owner","team":"chiefs"}`).ID
	g.person("olga", authz.Operator)
	for _, c := range []struct {
		by                 authz.Action
		method, path, body string
	}{
		{authz.UsersCreate, "POST", "/users", `{"name":"new","roles":["operator"]}`},
		{authz.UsersEdit, "POST", "/users/olga/code", `{}`},
		{authz.UsersEdit, "PUT", "/users/olga/email", `{"email":"mine@example.com"}`},
		{authz.UsersEdit, "POST", "/users/olga/disable", ""},
		{authz.UsersEdit, "DELETE", "/users/olga/second-factor", ""},
		{authz.UsersEdit, "DELETE", "/users/olga/sessions", ""},
		{authz.UsersDelete, "DELETE", "/users/olga", ""},
		{authz.TokensCreate, "POST", "/tokens", `{"name":"new","roles":["operator"]}`},
		{authz.TokensCreate, "POST", "/tokens", `{"name":"new","principal":"robot"}`},
		{authz.ServicesCreate, "POST", "/service-accounts", `{"name":"new","roles":["operator"]}`},
		{authz.ServicesEdit, "POST", "/service-accounts/robot/disable", ""},
		{authz.ServicesDelete, "DELETE", "/service-accounts/robot", ""},
		{authz.GrantsCreate, "POST", "/grants", `{"role":"operator","principal":"walker"}`},
		{authz.GrantsDelete, "DELETE", "/grants/" + chiefs, ""},
		{authz.RolesCreate, "POST", "/roles", `{"name":"new","actions":["roles.create","roles.manage"]}`},
		{authz.RolesCreate, "POST", "/roles", `{"name":"new","actions":["roles.edit"]}`},
		{authz.RolesEdit, "PUT", "/roles/walker", `{"name":"walker","actions":["roles.manage"]}`},
		{authz.RolesEdit, "PUT", "/roles/used", `{"name":"used","actions":["connections.delete"]}`},
		{authz.TeamsEdit, "PUT", "/teams/heads/members/walker", ""},
		{authz.TeamsDelete, "DELETE", "/teams/chiefs", ""},
	} {
		w.holds(looks(c.by)...)
		w.refused(c.method+" "+c.path+" "+c.body+" by "+string(c.by), c.method, "/workspaces/default"+c.path, c.body)
	}
	// Nor does who holds every verb of an asset hold what manages it.
	w.holds(looks(authz.RolesCreate, authz.ConnectionsCreate, authz.ConnectionsEdit, authz.ConnectionsDelete)...)
	w.refused("manage by its verbs", "POST", "/workspaces/default/roles", `{"name":"new","actions":["connections.manage"]}`)
	g.get("POST", "/workspaces/default/roles", w.token, `{"name":"new","actions":["connections.create","connections.edit","connections.delete"]}`, nil)
}

// A connection with a gateway wants both; who makes connections in a project leads them where the project leads, and takes none out of it.
func TestWhoOnlyCreatesConnections(t *testing.T) {
	g := newRig(t)
	w := g.walker()
	g.projects()
	const own = "/workspaces/default/connections"
	body := `{"name":"open","group":"site","profile":"p","gateway":{"address":"` + freePort(t) + `"}}`
	for _, one := range []authz.Action{authz.ConnectionsCreate, authz.GatewaysEdit, authz.GatewaysDelete} {
		w.holds(looks(one)...)
		w.refused("a gateway by "+string(one), "POST", own, body)
	}
	w.holds(looks(authz.ConnectionsCreate, authz.GatewaysEdit)...)
	g.get("POST", own, w.token, body, nil)

	w.holds(authz.Query)
	g.makes([2]string{"roles", `{"name":"maker","actions":["connections.create","connections.read","projects.read"]}`})
	g.give(`{"role":"maker","principal":"walker","project":"sales"}`)
	g.get("POST", own, w.token, `{"name":"more","group":"site","profile":"p","project":"sales","folder":"reports"}`, nil)
	for what, c := range map[string][3]string{
		"J4 what the project has not": {"POST", own, `{"name":"x","group":"site","profile":"wages","project":"sales"}`},
		"J4 beside the project":       {"POST", own, `{"name":"x","group":"site","profile":"p","project":"plant"}`},
		"on the workspace":            {"POST", own, `{"name":"x","group":"site","profile":"p"}`},
		"moving its own":              {"PUT", own + "/more/place", `{"project":"sales"}`},
		"deleting its own":            {"DELETE", own + "/more", ""},
		"a folder":                    {"POST", "/workspaces/default/projects/sales/folders", `{"path":"x"}`},
	} {
		was := g.dir.Snapshot().Generation
		if a := g.ask(c[0], c[1], w.token, c[2]); a.status != 403 && a.status != 404 || g.dir.Snapshot().Generation != was {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
}

// Who may make connections anywhere, and see no agent groups, is not told that one is of another environment: it is as one that is not there.
func TestAHiddenGroupIsNotThereForANewConnection(t *testing.T) {
	g := newRig(t)
	w := g.walker()
	const own = "/workspaces/default"
	g.get("POST", own+"/groups", g.token[authz.Owner], `{"name":"lab","environment":"test"}`, nil)
	ask := func(group string) answer {
		was := g.dir.Snapshot().Generation
		a := g.ask("POST", own+"/connections", w.token, `{"name":"x","group":"`+group+`","profile":"p","environment":"production"}`)
		if g.dir.Snapshot().Generation != was {
			t.Errorf("%s: something was made: %s", group, a.body)
		}
		return a
	}
	w.holds(authz.ConnectionsCreate)
	if hidden, none := ask("lab"), ask("nolab"); hidden.status != 404 || hidden.shape() != none.shape() {
		t.Errorf("J1 hidden: %d %s, missing: %d %s", hidden.status, hidden.body, none.status, none.body)
	}
	w.holds(authz.ConnectionsCreate, authz.GroupsRead)
	if a := ask("lab"); a.status != 409 {
		t.Errorf("who sees it is not told: %d %s", a.status, a.body)
	}
}

// A role is told and recorded by the fewest actions that make it, and a token that is limited to what manages an asset does what it did.
func TestRolesAreToldByTheFewestActions(t *testing.T) {
	g := newRig(t)
	const own = "/workspaces/default"
	var r client.Role
	g.get("POST", own+"/roles", g.token[authz.Owner], `{"name":"wide","actions":["teams.delete","teams.manage","teams.create","roles.edit"]}`, &r)
	if !slices.Equal(r.Actions, []string{"roles.edit", "teams.manage"}) {
		t.Error(r.Actions)
	}
	if said := strings.Join(g.events(), "\n"); !strings.Contains(said, `"operation":"roles.create"`) || strings.Contains(said, "roles.manage") {
		t.Error("the record does not name the verb")
	}
	var system client.Role
	g.get("GET", own+"/roles/operator", g.token[authz.Owner], "", &system)
	if !slices.Contains(system.Actions, "connections.manage") || !slices.Contains(system.Actions, "connections.create") {
		t.Error(system.Actions)
	}
	manages, _ := g.tokenOf(own+"/tokens", g.token[authz.Owner], `{"name":"m","principal":"a admin","only":{"actions":["teams.manage"]}}`)
	makes, _ := g.tokenOf(own+"/tokens", g.token[authz.Owner], `{"name":"c","principal":"a admin","only":{"actions":["teams.create"]}}`)
	g.get("POST", own+"/teams", manages, `{"name":"night"}`, nil)
	g.get("POST", own+"/teams", makes, `{"name":"day"}`, nil)
	g.refusal("J1 a token limited to create", g.ask("DELETE", own+"/teams/night", makes, ""), 403, authz.RuleToken)
	g.get("DELETE", own+"/teams/night", manages, "", nil)
}

// A file may name what comes with another action, or leave it out: the plan is empty either way, and an export is told by the fewest.
func TestAPlanKnowsWhatComesWithAnAction(t *testing.T) {
	g := newRig(t)
	c := g.dial(g.token[authz.Owner], nil)
	file := func(actions string) string {
		return written(t, "version: 1\nroles: {maker: {actions: ["+actions+"]}}\n")
	}
	applied(t, c, made(t, c, false, file("connections.manage, connections.create, teams.edit")))
	for _, same := range []string{"connections.manage, connections.create, teams.edit", "teams.edit, connections.manage"} {
		if p := made(t, c, false, file(same)); len(p.Steps) != 0 {
			t.Errorf("%s: %q", same, p.Steps)
		}
	}
	p := made(t, c, false, file("connections.create, connections.edit, teams.edit"))
	if len(p.Steps) != 1 || !slices.Equal(p.Steps[0].Detail, []string{"+ connections.create", "+ connections.edit", "- connections.manage"}) {
		t.Errorf("%+v", p.Steps)
	}
	applied(t, c, p)
	if r, err := c.Role(t.Context(), "maker"); err != nil || !slices.Equal(r.Actions, []string{"connections.create", "connections.edit", "teams.edit"}) {
		t.Errorf("%+v %v", r, err)
	}
}
