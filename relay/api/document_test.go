package api_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/fairleadhq/fairlead/relay/api"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

// A newly made route, parameter or member is not told of until it is described.
func TestTheDocumentTellsOfEverything(t *testing.T) {
	g := newRig(t)
	doc := document(t, g)
	for name, s := range doc.Components.Schemas {
		if s.Value.Description == "" {
			t.Errorf("the type %s has no description (typeDocs)", name)
		}
		for member, p := range s.Value.Properties {
			if p.Value.Description == "" {
				t.Errorf("%s.%s has no description (a doc tag, or fieldDocs)", name, member)
			}
		}
	}
	tags := map[string]bool{}
	for _, tag := range doc.Tags {
		if tags[tag.Name] = tag.Description != ""; !tags[tag.Name] {
			t.Errorf("the tag %s has no description", tag.Name)
		}
	}
	ids := map[string]string{}
	for _, r := range g.api.Routes() {
		path := strings.ReplaceAll(r.Path, "...}", "}")
		item := doc.Paths.Value(path)
		if item == nil {
			continue
		}
		op, what := item.GetOperation(r.Method), r.Method+" "+path
		if other := ids[op.OperationID]; op.OperationID == "" || other != "" {
			t.Errorf("%s: operation id %q, as %s", what, op.OperationID, other)
		}
		ids[op.OperationID] = what
		if op.Summary == "" || len(op.Description) <= len(op.Summary) {
			t.Errorf("%s is not described", what)
		}
		if len(op.Tags) != 1 || !tags[op.Tags[0]] {
			t.Errorf("%s: tags %v", what, op.Tags)
		}
		for _, p := range op.Parameters {
			if p.Value.Description == "" {
				t.Errorf("%s: parameter %s has no description (paramDocs)", what, p.Value.Name)
			}
		}
		for _, part := range strings.Split(path, "/") {
			if name := strings.Trim(part, "{}"); name != part && op.Parameters.GetByInAndName("path", name) == nil {
				t.Errorf("%s: no parameter %s", what, name)
			}
		}
		told(t, what, r, op)
		if op.RequestBody != nil {
			exampled(t, what+" asks", op.RequestBody.Value.Content)
		}
		for status, a := range op.Responses.Map() {
			if a.Value.Description == nil || *a.Value.Description == "" {
				t.Errorf("%s: the answer %s has no description", what, status)
			}
			exampled(t, what+" answers "+status, a.Value.Content)
			if n, err := strconv.Atoi(status); err == nil && n >= 400 {
				problems(t, what, n, a.Value)
			}
		}
	}
}

// told holds what the document says of who may to the routes.
func told(t *testing.T, what string, r api.Route, op *openapi3.Operation) {
	t.Helper()
	access, action, stepUp := op.Extensions["x-fairlead-access"], op.Extensions["x-fairlead-action"], op.Extensions["x-fairlead-step-up"]
	if op.Security == nil {
		t.Errorf("%s: no security", what)
		return
	}
	var takes []string
	for _, s := range *op.Security {
		for name := range s {
			takes = append(takes, name)
		}
	}
	slices.Sort(takes)
	want, all := "caller", []string{"cookie", "session", "token"}
	fresh := r.Fresh
	switch {
	case r.Anonymous:
		want, all = "anonymous", nil
	case r.Session:
		want, all = "session", []string{"cookie", "session"}
	case r.Action != "":
		want, fresh = "action", authz.Action(r.Action).Dangerous()
		if action != r.Action || !strings.Contains(op.Description, "`"+r.Action+"`") {
			t.Errorf("%s: action %v, want %s", what, action, r.Action)
		}
	}
	if access != want || !slices.Equal(takes, all) || stepUp != fresh || (action != nil) != (want == "action") {
		t.Errorf("%s: access %v, takes %v, step-up %v, action %v; want %s", what, access, takes, stepUp, action, want)
	}
	for _, status := range []string{"400", "403", "500", "503"} {
		if op.Responses.Value(status) == nil {
			t.Errorf("%s does not name %s", what, status)
		}
	}
}

// exampled holds each body to have an example that its schema takes.
func exampled(t *testing.T, what string, content openapi3.Content) {
	t.Helper()
	for media, m := range content {
		values := []any{}
		if m.Example != nil {
			values = append(values, m.Example)
		}
		for _, e := range m.Examples {
			values = append(values, e.Value.Value)
		}
		if len(values) == 0 {
			t.Errorf("%s %s without an example", what, media)
		}
		for _, v := range values {
			if err := m.Schema.Value.VisitJSON(v, openapi3.MultiErrors(), openapi3.EnableFormatValidation()); err != nil {
				t.Errorf("%s %s: the example %v: %v", what, media, v, err)
			}
			if o, ok := v.(map[string]any); ok && len(o) == 0 && len(m.Schema.Value.Properties) > 0 {
				t.Errorf("%s %s: the example is empty", what, media)
			}
		}
	}
}

// problems holds the examples of a refusal to its status.
func problems(t *testing.T, what string, status int, r *openapi3.Response) {
	t.Helper()
	m := r.Content[client.ContentProblem]
	if m == nil || m.Schema.Ref != "#/components/schemas/Problem" {
		t.Errorf("%s: %d is no Problem", what, status)
		return
	}
	for name, e := range m.Examples {
		p, _ := e.Value.Value.(map[string]any)
		missing := slices.ContainsFunc([]string{"detail", "code", "origin", "request_id"}, func(member string) bool {
			text, _ := p[member].(string)
			return text == ""
		})
		if missing || p["status"] != float64(status) || p["title"] != http.StatusText(status) {
			t.Errorf("%s: %d %s: %v", what, status, name, p)
		}
	}
}

// What the document shows of refusals is what the relay says.
func TestTheProblemsOfTheDocumentAreReal(t *testing.T) {
	g := newRig(t)
	doc := document(t, g)
	shown := func(r api.Route, a answer) {
		t.Helper()
		op := doc.Paths.Value(strings.ReplaceAll(r.Path, "...}", "}")).GetOperation(r.Method)
		answer := op.Responses.Value(strconv.Itoa(a.status))
		if answer == nil {
			t.Errorf("%s %s: %d %s is not in the document", r.Method, r.Path, a.status, a.body)
			return
		}
		var all []string
		for _, e := range answer.Value.Content[client.ContentProblem].Examples {
			var p client.Problem
			b, err := json.Marshal(e.Value.Value)
			must(t, err)
			must(t, json.Unmarshal(b, &p))
			p.RequestID, a.problem.RequestID = "", ""
			if p == a.problem {
				return
			}
			all = append(all, p.Detail)
		}
		t.Errorf("%s %s: %d %q; the document shows %q", r.Method, r.Path, a.status, a.problem.Detail, all)
	}
	outside := func(r *http.Request) { r.RemoteAddr = "203.0.113.7:40000" }
	stranger := g.token[authz.Analyst]
	for _, r := range g.api.Routes() {
		good := fill(r.Path, "default", g.conn)
		if r.Path == "/openapi.json" || r.Anonymous {
			continue
		}
		if a := g.ask(r.Method, good, "", ""); a.status != http.StatusUnauthorized {
			t.Errorf("%s %s: %d", r.Method, r.Path, a.status)
		} else {
			shown(r, a)
		}
		shown(r, g.ask(r.Method, good, g.token[authz.Owner], "", outside))
		if r.Session {
			shown(r, g.ask(r.Method, good, g.token[authz.Owner], ""))
		}
		if r.Action != "" {
			shown(r, g.ask(r.Method, fill(r.Path, "gone", g.conn), g.token[authz.Owner], ""))
			if !authz.Analyst.Allows(authz.Action(r.Action)) {
				shown(r, g.ask(r.Method, good, stranger, ""))
			}
		}
	}
	for _, r := range g.api.Routes() {
		if r.Path == "/workspaces/{workspace}/groups" && r.Method == "POST" {
			as := func(h, v string) func(*http.Request) {
				return func(r *http.Request) { r.Header.Set(h, v) }
			}
			shown(r, g.ask("POST", "/workspaces/default/groups", g.token[authz.Owner], "{,"))
			shown(r, g.ask("POST", "/workspaces/default/groups", g.token[authz.Owner], `{"name":"`+strings.Repeat("x", 1<<20)+`"}`))
			shown(r, g.ask("POST", "/workspaces/default/groups", g.token[authz.Owner], `{"name":"x"}`, as("If-Match", `"other"`)))
			shown(r, g.ask("POST", "/workspaces/default/groups", g.token[authz.Owner], `{"name":"x"}`, as("Content-Type", "text/plain")))
			shown(r, g.ask("POST", "/workspaces/default/groups", g.token[authz.Owner], `{}`))
			shown(r, g.ask("POST", "/workspaces/default//groups", g.token[authz.Owner], `{}`))
		}
		if r.Path == "/sign-in" {
			shown(r, g.ask("POST", "/sign-in", "", `{"workspace":"default","user":"nobody","password":"x"}`))
			shown(r, g.ask("POST", "/sign-in", "", `{"workspace":"default","user":"nobody","password":"x"}`, func(r *http.Request) { r.Header.Set("Origin", "https://elsewhere.example") }))
		}
	}
}
