package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// makes asks as the owner for things that must be made.
func (g *rig) makes(list ...[2]string) {
	g.t.Helper()
	for _, c := range list {
		if a := g.ask("POST", "/workspaces/default/"+c[0], g.token[authz.Owner], c[1]); a.status != 201 {
			g.t.Fatalf("%s %s: %d %s", c[0], c[1], a.status, a.body)
		}
	}
}

// projects makes two projects with a folder and a connection each.
func (g *rig) projects() {
	g.makes([2]string{"projects", `{"name":"sales"}`}, [2]string{"projects", `{"name":"plant"}`}, [2]string{"projects/sales/folders", `{"path":"reports"}`},
		[2]string{"projects/sales/folders", `{"path":"reports/monthly"}`}, [2]string{"projects/plant/folders", `{"path":"reports"}`},
		[2]string{"connections", `{"name":"orders","group":"site","profile":"p","project":"sales","folder":"reports/monthly"}`},
		[2]string{"connections", `{"name":"till","group":"site","profile":"p","project":"sales","environment":"test"}`},
		[2]string{"connections", `{"name":"press","group":"site","profile":"p","project":"plant"}`})
}

// J1, J9: another workspace's project answers exactly as a missing one, and so does one that the caller may not see.
func TestProjectsOfOthersAreAsMissingOnes(t *testing.T) {
	g := newRig(t)
	g.projects()
	other, err := g.dir.Snapshot().Workspace("other")
	must(t, err)
	by := directory.By{ID: other.Principals[0].ID}
	theirs, err := g.dir.CreateProject(t.Context(), by, "other", "secret")
	must(t, err)
	folder, err := g.dir.CreateFolder(t.Context(), by, "other", "secret", "inner")
	must(t, err)
	local := g.nobody("local")
	g.give(`{"role":"admin","principal":"local","project":"sales"}`)
	const own = "/workspaces/default"
	asked := 0
	for _, c := range [][3]string{{"GET", "/projects/{p}", ""}, {"PUT", "/projects/{p}", `{"name":"x"}`}, {"DELETE", "/projects/{p}", ""}, {"GET", "/projects/{p}/folders", ""},
		{"POST", "/projects/{p}/folders", `{"path":"x"}`}, {"POST", "/projects/{p}/folders", `{"path":"reports/x"}`}, {"DELETE", "/projects/{p}/folders/reports", ""}, {"DELETE", "/projects/{p}/folders/gone", ""},
		{"DELETE", "/projects/{p}/folders/" + folder.ID, ""}, {"POST", "/connections", `{"name":"x","group":"site","profile":"p","project":"{p}"}`},
		{"POST", "/connections", `{"name":"x","group":"site","profile":"p","project":"{p}","folder":"reports"}`}, {"PUT", "/connections/orders/place", `{"project":"{p}"}`},
		{"PUT", "/connections/orders/place", `{"project":"{p}","folder":"reports"}`}, {"PUT", "/connections/orders/place", `{"project":"{p}","folder":"gone"}`},
		{"GET", "/explain?principal=local&action=connections.manage&project={p}", ""}, {"GET", "/explain?principal=local&action=connections.manage&project={p}&folder=reports", ""},
		{"GET", "/explain?principal=local&action=connections.manage&project={p}&folder=gone", ""}} {
		ask := func(token, p string) answer {
			asked++
			return g.ask(c[0], own+strings.ReplaceAll(c[1], "{p}", p), token, strings.ReplaceAll(c[2], "{p}", p))
		}
		for who, token := range map[string]string{"an owner": g.token[authz.Owner], "an admin of a project": local} {
			missing := ask(token, "gone")
			if missing.status != http.StatusNotFound {
				t.Errorf("%v as %s: %d %s", c, who, missing.status, missing.body)
			}
			list := []string{"secret", theirs.ID}
			if token == local {
				list = append(list, "plant")
			}
			for _, p := range list {
				if a := ask(token, p); a.status != missing.status || a.shape() != missing.shape() {
					t.Errorf("J9 %v of %s as %s: %d %s; a missing one: %d %s", c, p, who, a.status, a.body, missing.status, missing.body)
				}
			}
		}
	}
	if asked < 80 {
		t.Fatal("too little was asked")
	}
	// A grant on another workspace's.
	if a := g.ask("POST", own+"/grants", g.token[authz.Owner], `{"role":"analyst","principal":"local","project":"`+theirs.ID+`"}`); a.status != http.StatusNotFound {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Somebody may be admin of a project and nothing beside it.
func TestProjectsAreApart(t *testing.T) {
	g := newRig(t)
	g.projects()
	local, inner, viewer, nobody := g.nobody("local"), g.nobody("inner"), g.nobody("viewer"), g.nobody("nobody")
	g.give(`{"role":"admin","principal":"local","project":"sales"}`)
	g.give(`{"role":"admin","principal":"inner","project":"sales","folder":"reports"}`)
	g.give(`{"role":"analyst","principal":"viewer","project":"sales","environment":"test"}`)
	const own = "/workspaces/default"
	sees := func(token, list string, names ...string) {
		t.Helper()
		a := g.ask("GET", own+list, token, "")
		for _, name := range []string{`"sales"`, `"plant"`, `"orders"`, `"till"`, `"press"`, `"default-shop"`, `"path":"reports"`, `"path":"reports/monthly"`} {
			want := false
			for _, n := range names {
				want = want || strings.Contains(name, `"`+n+`"`)
			}
			if list == "/projects" && strings.Contains(name, "path") || list == "/connections" && (name == `"sales"` || name == `"plant"`) || strings.HasSuffix(list, "folders") && name == `"sales"` {
				continue
			}
			if a.status != 200 || strings.Contains(a.body, name) != want {
				t.Errorf("J1 %s: %s shown %v, want %v: %d %s", list, name, !want, want, a.status, a.body)
			}
		}
	}
	sees(local, "/projects", "sales")
	sees(inner, "/projects", "sales") // it holds a folder that he may see
	sees(viewer, "/projects", "sales")
	sees(g.token[authz.Analyst], "/projects", "sales", "plant")
	sees(local, "/connections", "orders", "till")
	sees(inner, "/connections", "orders")
	sees(viewer, "/connections", "till")
	sees(local, "/projects/sales/folders", "reports", "reports/monthly")
	sees(inner, "/projects/sales/folders", "reports", "reports/monthly")
	if a := g.ask("GET", own+"/projects", nobody, ""); a.status != http.StatusForbidden {
		t.Errorf("J1 who holds nothing: %d %s", a.status, a.body)
	}

	const make = `{"name":"more","group":"site","profile":"p"`
	for name, c := range map[string]struct {
		token, method, path, body string
		status                    int
	}{
		"a project":                                  {local, "POST", "/projects", `{"name":"mine"}`, 403},
		"another's folder":                           {inner, "POST", "/projects/sales/folders", `{"path":"beside"}`, 403},
		"a folder below one that is not there":       {inner, "POST", "/projects/sales/folders", `{"path":"beside/x"}`, 403},
		"a folder in a project that he only views":   {viewer, "POST", "/projects/sales/folders", `{"path":"beside"}`, 403},
		"the project, by who has a folder":           {inner, "PUT", "/projects/sales", `{"name":"mine"}`, 403},
		"the project's end, by who has a folder":     {inner, "DELETE", "/projects/sales", ``, 403},
		"a connection beside the project":            {local, "POST", "/connections", make + `}`, 403},
		"a connection in the project, by a folder":   {inner, "POST", "/connections", make + `,"project":"sales"}`, 403},
		"a connection in a project that he views":    {viewer, "POST", "/connections", make + `,"project":"sales","environment":"test"}`, 403},
		"a connection out of the project":            {local, "PUT", "/connections/orders/place", `{}`, 403},
		"a connection into the project, by a folder": {inner, "PUT", "/connections/orders/place", `{"project":"sales"}`, 403},
		"a connection that he only views":            {viewer, "PUT", "/connections/till/place", `{"project":"sales","folder":"reports"}`, 403},
		"a connection that he does not see":          {inner, "PUT", "/connections/till/place", `{"project":"sales","folder":"reports"}`, 404},
		"a gateway in the project":                   {local, "PUT", "/connections/orders/gateway", `{"address":"127.0.0.1:1"}`, 403},
		"a grant on the workspace":                   {local, "POST", "/grants", `{"role":"analyst","principal":"nobody"}`, 403},
		"a grant on the project, by a folder":        {inner, "POST", "/grants", `{"role":"analyst","principal":"nobody","project":"sales"}`, 403},
		"who may in another environment of it":       {viewer, "GET", "/connections/orders/schema", ``, 404},
		"what lies beside":                           {local, "GET", "/connections/press/schema", ``, 404},
	} {
		if a := g.ask(c.method, own+c.path, c.token, c.body); a.status != c.status {
			t.Errorf("J1 %s: %d %s, want %d", name, a.status, a.body, c.status)
		}
	}
	for _, c := range []struct {
		token, method, path, body string
		status                    int
	}{
		{local, "POST", "/projects/sales/folders", `{"path":"new"}`, 201},
		{inner, "POST", "/projects/sales/folders", `{"path":"reports/new"}`, 201},
		{local, "POST", "/connections", make + `,"project":"sales","environment":"test"}`, 201},
		{inner, "POST", "/connections", strings.Replace(make, "more", "inner", 1) + `,"project":"sales","folder":"reports/new"}`, 201},
		{local, "PUT", "/connections/till/place", `{"project":"sales","folder":"new"}`, 200},
		{inner, "PUT", "/connections/orders/place", `{"project":"sales","folder":"reports"}`, 200},
		{inner, "POST", "/grants", `{"role":"operator","principal":"nobody","project":"sales","folder":"reports/monthly"}`, 201},
		{local, "GET", "/connections/orders/schema", ``, 503}, // let in; there is no agent
		{viewer, "GET", "/connections/till/schema", ``, 503},
	} {
		if a := g.ask(c.method, own+c.path, c.token, c.body); a.status != c.status {
			t.Errorf("%s %s %s: %d %s, want %d", c.method, c.path, c.body, a.status, a.body, c.status)
		}
	}
	sees(nobody, "/projects", "sales")
}

// What goes with a project, the record of its end says.
func TestTheRecordSaysWhichGrantsWentWithAProject(t *testing.T) {
	g := newRig(t)
	g.projects()
	g.nobody("local")
	owner := g.token[authz.Owner]
	const own = "/workspaces/default"
	for _, path := range []string{"/connections/press", "/projects/plant/folders/reports"} {
		if a := g.ask("DELETE", own+path, owner, ""); a.status != 204 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	g.give(`{"role":"analyst","principal":"local","project":"plant"}`)
	g.give(`{"role":"operator","principal":"local","project":"plant","environment":"test"}`)
	if a := g.ask("DELETE", own+"/projects/sales", owner, ""); a.status != http.StatusConflict || a.problem.Code != protocol.CodeConflict || a.problem.Hint == "" {
		t.Errorf("deleted with what is in it: %d %s", a.status, a.body)
	}
	if a := g.ask("DELETE", own+"/projects/plant", owner, ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	g.makes([2]string{"groups", `{"name":"plant"}`}) // its record stands behind those of before
	said := 0
	for _, ev := range g.events() {
		if strings.Contains(ev, "DELETE /workspaces/default/projects/plant") && strings.Contains(ev, `"status":"done"`) && !strings.Contains(ev, "folders") && strings.Contains(ev, "2 grants went with it") {
			said++
		}
	}
	if said != 1 {
		t.Errorf("%d records say it", said)
	}
	if a := g.ask("GET", own+"/grants", owner, ""); strings.Contains(a.body, "plant") {
		t.Errorf("%s", a.body)
	}
}

// What would be under a grant on a project is told before it is given.
func TestReplayKnowsProjects(t *testing.T) {
	g := newRig(t)
	g.projects()
	eve := g.nobody("eve")
	if a := g.ask("GET", "/workspaces/default/connections/orders/schema", eve, ""); a.status != http.StatusNotFound { // and is recorded as what it is
		t.Fatalf("%d %s", a.status, a.body)
	}
	for body, want := range map[string]int{`{"role":"analyst","principal":"eve","project":"sales"}`: 1, `{"role":"analyst","principal":"eve","project":"sales","folder":"reports"}`: 1,
		`{"role":"analyst","principal":"eve","project":"plant"}`: 0, `{"role":"analyst","principal":"eve","project":"sales","environment":"test"}`: 0} {
		if r, a := g.replay(g.token[authz.Owner], `{"since_seconds":3600,"with":[`+body+`]}`); a.status != 200 || len(r.Flips) != want {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if _, a := g.replay(g.token[authz.Owner], `{"since_seconds":3600,"with":[{"role":"analyst","principal":"eve","project":"gone"}]}`); a.status != http.StatusNotFound {
		t.Errorf("%d %s", a.status, a.body)
	}
}
