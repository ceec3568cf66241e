package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// of says what a field of a body names, and of what kind it is; "": it names nothing that is there.
var fieldNames = map[string]string{"connection": "connections", "connections": "connections", "project": "projects", "projects": "projects", "folder": "folder", "group": "groups",
	"principal": "service-accounts", "team": "teams", "role": "roles"}

// bodies has for each field of a body that names a thing a body with that name, which is refused for another reason than the name to who
// may do it nowhere.
var namingBodies = map[string]string{
	"POST /grants connection":               `{"role":"analyst","principal":"mate","connection":"{x}"}`,
	"POST /grants project":                  `{"role":"analyst","principal":"mate","project":"{x}"}`,
	"POST /grants folder":                   `{"role":"analyst","principal":"mate","project":"sales","folder":"{x}"}`,
	"POST /grants principal":                `{"role":"analyst","principal":"{x}"}`,
	"POST /grants team":                     `{"role":"analyst","team":"{x}"}`,
	"POST /grants role":                     `{"role":"{x}","principal":"mate","project":"sales"}`,
	"POST /connections group":               `{"name":"new","group":"{x}","profile":"q","project":"sales"}`,
	"POST /connections project":             `{"name":"new","group":"site","profile":"p","project":"{x}"}`,
	"POST /connections folder":              `{"name":"new","group":"site","profile":"p","project":"sales","folder":"{x}"}`,
	"PUT /connections/{name}/place project": `{"project":"{x}"}`,
	"PUT /connections/{name}/place folder":  `{"project":"sales","folder":"{x}"}`,
	"POST /join-tokens group":               `{"group":"{x}"}`,
	"POST /tokens connections":              `{"name":"new","roles":["analyst"],"connections":["{x}"]}`,
	"POST /tokens principal":                `{"name":"new","principal":"{x}"}`,
	"POST /tokens only.connections":         `{"name":"new","principal":"keeper","only":{"connections":["{x}"]}}`,
	"POST /tokens only.projects":            `{"name":"new","principal":"keeper","only":{"projects":["{x}"]}}`,
	"POST /account/tokens only.connections": `{"name":"new","only":{"connections":["{x}"]}}`,
	"POST /account/tokens only.projects":    `{"name":"new","only":{"projects":["{x}"]}}`,
}

// names are the fields of a schema of the document that name things, those within it behind a dot.
func namesIn(doc map[string]any, schema any, at string) (list []string) {
	s, _ := schema.(map[string]any)
	if ref, ok := s["$ref"].(string); ok {
		return namesIn(doc, doc["components"].(map[string]any)["schemas"].(map[string]any)[ref[strings.LastIndex(ref, "/")+1:]], at)
	}
	props, _ := s["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(props)) {
		if _, names := fieldNames[name]; names {
			list = append(list, at+name)
		}
		list = append(list, namesIn(doc, props[name], at+name+".")...)
	}
	return list
}

// same is an answer with all that tells it from another, without what differs from request to request.
func same(a answer) string {
	keys := []string{}
	for k := range a.header {
		if k != protocol.HeaderRequestID {
			keys = append(keys, k+": "+strings.Join(a.header[k], ","))
		}
	}
	slices.Sort(keys)
	return fmt.Sprint(a.status, " ", a.shape(), " ", strings.Join(keys, "; "))
}

// J1, J9: on every route, by each thing that a path or a field of a body names, what the caller may not see answers byte by byte as what
// is not there.
func TestWhatOneMayNotSeeAnswersAsWhatIsNotThere(t *testing.T) {
	t.Run("J9 J1 what one may not see", testWhatOneMayNotSeeAnswersAsWhatIsNotThere)
}

func testWhatOneMayNotSeeAnswersAsWhatIsNotThere(t *testing.T) {
	g := newRig(t)
	owner := g.token[authz.Owner]
	const own = "/workspaces/default"
	g.projects()
	g.makes([2]string{"projects/sales/folders", `{"path":"closed"}`}, [2]string{"teams", `{"name":"night"}`}, [2]string{"service-accounts", `{"name":"nightly"}`}, [2]string{"service-accounts", `{"name":"mate"}`},
		[2]string{"groups", `{"name":"vault","environment":"production"}`}, [2]string{"roles", `{"name":"secret","actions":["connection.exec","agents.manage"]}`}, [2]string{"domains", `{"name":"shop.apps.example"}`})
	give := func(name, on string, actions ...authz.Action) string {
		token := g.nobody(name)
		list, err := json.Marshal(actions)
		must(t, err)
		g.makes([2]string{"roles", `{"name":"of-` + name + `","actions":` + string(list) + `}`})
		g.give(`{"role":"of-` + name + `","principal":"` + name + `"` + on + `}`)
		return token
	}
	const sales, reports = `,"project":"sales"`, `,"project":"sales","folder":"reports"`
	askers := map[string]string{
		"local": g.nobody("local"), "inner": g.nobody("inner"), "nobody": g.nobody("nobody"),
		"maker":  give("maker", reports, authz.ConnectionsManage, authz.ConnectionsRead, authz.ProjectsManage, authz.ProjectsRead),
		"giver":  give("giver", sales, authz.GrantsManage, authz.GrantsRead),
		"user":   give("user", sales, authz.Query),
		"keeper": give("keeper", "", authz.TokensManage, authz.TeamsManage),
	}
	g.give(`{"role":"admin","principal":"local","project":"sales"}`)
	g.give(`{"role":"admin","principal":"inner"` + reports + `}`)
	g.give(`{"role":"admin","principal":"nightly"}`)
	g.give(`{"role":"admin","team":"night"}`)
	// A person may make tokens of their own, limited to what they see.
	anna := g.person("anna", authz.Analyst)
	ann, err := g.now().FindPrincipal("anna")
	must(t, err)
	g.give(`{"role":"operator","principal":"anna"` + reports + `}`)
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{PersonalTokens: time.Hour}))
	must(t, g.dir.DeleteGrant(t.Context(), directory.By{ID: g.admin.ID}, "default", ann.Grants[0].ID))

	agent := g.agent("vault")
	join, _, err := g.dir.CreateJoinToken(t.Context(), "default", "vault", 0, g.admin.ID)
	must(t, err)
	w := g.now()
	id := func(name string) string {
		c, err := w.Connection(name)
		must(t, err)
		return c.ID
	}
	plant, err := w.Project("plant")
	must(t, err)
	sale, err := w.Project("sales")
	must(t, err)
	closed, err := sale.Folder("closed")
	must(t, err)
	nightly, err := w.FindPrincipal("nightly")
	must(t, err)
	vault, err := w.Group("vault")
	must(t, err)
	const gone = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	// By what stands in the path behind the workspace, or by what a field names: what is there, and what is not.
	things := map[string][2][]string{
		"connections": {{"press", id("press")}, {"gone", "con_" + gone}}, "projects": {{"plant", plant.ID}, {"gone", "prj_" + gone}}, "folder": {{"closed", closed.ID}, {"gone", "fol_" + gone}},
		"groups": {{"vault", vault.ID}, {"gone", "grp_" + gone}}, "teams": {{"night"}, {"gone"}}, "roles": {{"secret"}, {"gone"}}, "service-accounts": {{"nightly", nightly.ID}, {"gone", "usr_" + gone}},
		"users": {{"anna", ann.ID}, {"gone", "usr_" + gone}}, "agents": {{agent}, {"agt_" + gone}}, "join-tokens": {{join.ID}, {"jtk_" + gone}}, "domains": {{"shop.apps.example"}, {"gone.apps.example"}},
		"tokens": {{w.Tokens[0].ID}, {"tok_" + gone}}, "grants": {{nightly.Grants[0].ID}, {"gra_" + gone}}, "sessions": {{w.Sessions[0].ID}, {"ses_" + gone}},
	}
	before, asked := g.count(), 0
	hold := func(what, method, path, token, body, there, missing string, edit ...func(*http.Request)) {
		t.Helper()
		ask := func(x string) answer {
			asked++
			a := g.ask(method, strings.ReplaceAll(path, "{x}", strings.ReplaceAll(x, "/", "%2F")), token, strings.ReplaceAll(body, "{x}", x), edit...)
			if a.status < 400 {
				t.Errorf("%s by %q was done: %d %s", what, x, a.status, a.body)
			}
			return a
		}
		if a, b := ask(there), ask(missing); same(a) != same(b) {
			t.Errorf("J9 %s: %q answers\n%s; %q, which is not there,\n%s", what, there, same(a), missing, same(b))
		}
	}
	matches := func(r *http.Request) { r.Header.Set("If-Match", `"x"`) }

	for _, r := range g.api.Routes() {
		rest, below := strings.CutPrefix(r.Path, "/workspaces/{workspace}/")
		if !below || !strings.Contains(rest, "{") {
			continue
		}
		kind, _, _ := strings.Cut(rest, "/")
		of, ok := things[kind]
		if !ok {
			t.Errorf("%s %s: the walk knows nothing that is there", r.Method, r.Path)
			continue
		}
		body := ""
		switch {
		case r.Path == "/workspaces/{workspace}/connections/{name}/place":
			body = `{"project":"sales","folder":"reports"}`
		case kind == "projects" && strings.HasSuffix(rest, "folders"):
			body = `{"path":"x"}`
		case kind == "projects":
			body = `{"name":"x"}`
		case r.Method == "POST" || r.Method == "PUT":
			body = "{}"
		}
		if r.Method == "GET" || r.Method == "DELETE" || r.Method == "HEAD" {
			body = ""
		}
		paths := []string{strings.NewReplacer("{workspace}", "default", "{connection}", "{x}", "{name}", "{x}", "{id}", "gone", "{path...}", "a/b.txt").Replace(r.Path)}
		if !strings.Contains(rest, "{name}") {
			paths[0] = strings.NewReplacer("{workspace}", "default", "{connection}", "{x}", "{id}", "{x}", "{path...}", "a/b.txt").Replace(r.Path)
		}
		for who, token := range askers {
			if who == "keeper" && (kind == "tokens" || kind == "teams") {
				continue // which it may do: by name, below
			}
			for n := range of[0] {
				for _, path := range paths {
					hold(r.Method+" "+r.Path+" as "+who, r.Method, path, token, body, of[0][n], of[1][n])
					hold(r.Method+" "+r.Path+" as "+who+" with If-Match", r.Method, path, token, body, of[0][n], of[1][n], matches)
				}
			}
		}
	}
	// A folder, beside the one that the caller may see.
	for n, there := range things["folder"][0] {
		hold("a folder in the path", "DELETE", own+"/projects/sales/folders/{x}", askers["inner"], "", there, things["folder"][1][n])
		hold("a folder in the path", "DELETE", own+"/projects/sales/folders/{x}", askers["maker"], "", there, things["folder"][1][n], matches)
	}
	for _, token := range []string{askers["keeper"]} {
		hold("a team's member", "PUT", own+"/teams/night/members/{x}", token, "", "nightly", "gone")
		hold("a team's member", "DELETE", own+"/teams/night/members/{x}", token, "", "nightly", "gone")
	}
	for _, q := range []string{"connection=", "project=", "project=sales&folder="} {
		kind := map[string]string{"connection=": "connections", "project=": "projects"}[q]
		if kind == "" {
			kind = "folder"
		}
		for who, token := range askers {
			if who == "local" && kind == "folder" || who == "giver" && kind == "folder" {
				continue // may look into all of the project
			}
			hold("explain "+q+" as "+who, "GET", own+"/explain?principal=local&action=connections.manage&"+q+"{x}", token, "", things[kind][0][0], things[kind][1][0])
		}
	}

	var doc map[string]any
	must(t, json.Unmarshal([]byte(g.ask("GET", "/openapi.json", "", "").body), &doc))
	for _, r := range g.api.Routes() {
		item, _ := doc["paths"].(map[string]any)[r.Path].(map[string]any)
		op, _ := item[strings.ToLower(r.Method)].(map[string]any)
		rb, _ := op["requestBody"].(map[string]any)
		content, _ := rb["content"].(map[string]any)
		media, _ := content["application/json"].(map[string]any)
		short := strings.TrimPrefix(r.Path, "/workspaces/{workspace}")
		for _, field := range namesIn(doc, media["schema"], "") {
			if r.Path == "/workspaces/{workspace}/explain/replay" || strings.HasPrefix(short, "/sign-in") {
				continue // for who may see all; and of who has not come in
			}
			key := r.Method + " " + short + " " + field
			body, ok := namingBodies[key]
			if !ok {
				t.Errorf("%s: no body names it here", key)
				continue
			}
			of := things[fieldNames[field[strings.LastIndexByte(field, '.')+1:]]]
			path := strings.NewReplacer("{workspace}", "default", "{name}", "orders").Replace(r.Path)
			if strings.HasPrefix(short, "/account") {
				for n := range of[0] {
					hold(key, r.Method, path, anna, body, of[0][n], of[1][n])
				}
				continue
			}
			for who, token := range askers {
				if field == "folder" && (who == "local" || who == "giver") || key == "POST /grants role" && who == "local" {
					continue // sees it, or may give in it; and gives what an admin holds there, whatever it is called
				}
				for n := range of[0] {
					hold(key+" as "+who, r.Method, path, token, body, of[0][n], of[1][n])
				}
			}
		}
	}
	if g.count() != before {
		t.Errorf("something was done: %s, was %s", g.count(), before)
	}
	if asked < 3000 {
		t.Errorf("only %d requests", asked)
	}
	// Whoever may do it sees it: the walk itself must tell.
	if a, b := g.ask("GET", own+"/connections/press", owner, ""), g.ask("GET", own+"/connections/gone", owner, ""); same(a) == same(b) {
		t.Error("the walk tells nothing from nothing")
	}
}

// Who may do nothing at all on a connection gets on the data plane what a missing one gets, and the record says the truth; who may do
// something there learns what is missing, and explain answers who may ask.
func TestDataPlaneTellsNobodyOfConnectionsBeyondTheirs(t *testing.T) {
	g := newRig(t)
	g.projects()
	local, viewer := g.nobody("local"), g.nobody("viewer")
	g.give(`{"role":"admin","principal":"local","project":"sales"}`)
	g.give(`{"role":"analyst","principal":"viewer","project":"plant"}`)
	const own = "/workspaces/default/connections"
	for _, path := range []string{"/schema", "/stat?path=a", "/files/a", "/http/a"} {
		there, gone := g.ask("GET", own+"/press"+path, local, ""), g.ask("GET", own+"/gone"+path, local, "")
		if there.status != http.StatusNotFound || same(there) != same(gone) {
			t.Errorf("J1 %s: %s; a missing one %s", path, same(there), same(gone))
		}
	}
	if a := g.ask("POST", own+"/press/exec", viewer, `{"sql":"delete from t"}`); a.status != http.StatusForbidden || a.problem.Code != protocol.CodeDenied {
		t.Errorf("who may view it: %d %s", a.status, a.body)
	}
	if a := g.ask("GET", "/workspaces/default/explain?principal=local&action=schema&connection=press", g.token[authz.Admin], ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	g.makes([2]string{"groups", `{"name":"behind"}`}) // its record stands behind those of before
	press, err := g.now().Connection("press")
	must(t, err)
	said := 0
	for _, ev := range g.events() {
		if strings.Contains(ev, "operation.denied") && strings.Contains(ev, `"connection":"`+press.ID+`"`) && strings.Contains(ev, "no grant allows connection.schema") && strings.Contains(ev, `"code":"denied"`) {
			said++
		}
	}
	if said != 1 {
		t.Errorf("%d records say what was asked for", said)
	}
}

// A connection shows where it stands to who may see the place.
func TestConnectionShowsItsPlaceToWhoMaySeeThat(t *testing.T) {
	g := newRig(t)
	g.projects()
	one, both := g.nobody("one"), g.nobody("both")
	g.give(`{"role":"analyst","principal":"one","connection":"orders"}`)
	g.give(`{"role":"analyst","principal":"both","project":"sales"}`)
	var hidden, shown client.Connection
	g.get("GET", "/workspaces/default/connections/orders", one, "", &hidden)
	g.get("GET", "/workspaces/default/connections/orders", both, "", &shown)
	if hidden.Project != "" || hidden.Folder != "" || shown.Project != "sales" || shown.Folder != "reports/monthly" {
		t.Errorf("%+v; %+v", hidden, shown)
	}
	if a := g.ask("GET", "/workspaces/default/connections", one, ""); a.status != 200 || strings.Contains(a.body, "sales") || strings.Contains(a.body, "monthly") {
		t.Errorf("J1 the list tells: %d %s", a.status, a.body)
	}
}

// The refusal to lead a connection somewhere names the environment of the agent group to who may list groups, and to nobody else.
func TestRefusalNamesTheGroupsEnvironmentToWhoMayListGroups(t *testing.T) {
	g := newRig(t)
	g.projects()
	g.makes([2]string{"groups", `{"name":"vault","environment":"production"}`}, [2]string{"roles", `{"name":"lists","actions":["groups.read"]}`})
	lists, blind := g.nobody("lists"), g.nobody("blind")
	for _, name := range []string{"lists", "blind"} {
		g.give(`{"role":"operator","principal":"` + name + `","project":"sales"}`)
	}
	g.give(`{"role":"lists","principal":"lists"}`)
	const body = `{"name":"x","group":"vault","profile":"wages","project":"sales"}`
	for token, names := range map[string]bool{lists: true, blind: false} {
		a := g.ask("POST", "/workspaces/default/connections", token, body)
		if a.status != http.StatusForbidden || strings.Contains(a.problem.Hint, "on the workspace or on environment production") != names || strings.Contains(a.body, "production") != names {
			t.Errorf("J1 names it: want %v: %d %s", names, a.status, a.body)
		}
	}
}
