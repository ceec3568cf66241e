package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

// Extensions of the document, for programs: who may call an operation, and which action it wants.
const (
	extAccess = "x-fairlead-access" // anonymous, caller (any token or session), session, action
	extAction = "x-fairlead-action" // the action of the permission table; with access action alone
	extStepUp = "x-fairlead-step-up"
)

// documented is an operation of the document with what the code knows of it.
type documented struct {
	*huma.Operation
	route   Route
	data    bool // it goes on to a connection
	changes bool // it changes something that is there
}

// small: its body is read and held against its schema by huma.
func (o documented) small() bool { return o.DefaultStatus != 0 }

func (o documented) json() bool {
	return o.RequestBody != nil && o.RequestBody.Content["application/json"] != nil
}

// document completes the OpenAPI document from the tables: of routes, of actions, of fields, of problems. A test walks what comes of
// it, and fails for whatever is not told. It changes no check: only descriptions, examples, and answers.
func (a *API) document() {
	d := a.huma.OpenAPI()
	problem := a.schemaOf(client.Problem{})
	d.Components.Headers = map[string]*huma.Header{"RequestId": {Description: "Finds the event in the audit logs", Schema: &huma.Schema{Type: "string"}, Example: exampleID}}
	for name, s := range d.Components.Schemas.Map() {
		a.describeType(name, s)
	}
	delete(d.Components.Schemas.Map(), "HumaError") // huma's name for a Problem
	tags := map[string]bool{}
	for _, r := range a.routes {
		path := strings.ReplaceAll(r.Path, "...}", "}")
		op := operationOf(d.Paths[path], r.Method)
		if op == nil { // the document itself, and the agents' WebSocket
			continue
		}
		o := documented{Operation: op, route: r, data: strings.Contains(path, "/{connection}/"), changes: a.changedBy(r.Method, path) != nil}
		a.describeAccess(o)
		a.describeParams(o)
		a.describeAnswers(o, problem)
		for _, t := range op.Tags {
			tags[t] = true
		}
	}
	for _, t := range slices.Sorted(maps.Keys(tags)) {
		d.Tags = append(d.Tags, &huma.Tag{Name: t, Description: tagDocs[t]})
	}
}

func operationOf(i *huma.PathItem, method string) *huma.Operation {
	if i == nil {
		return nil
	}
	return map[string]*huma.Operation{"GET": i.Get, "HEAD": i.Head, "POST": i.Post, "PUT": i.Put, "PATCH": i.Patch, "DELETE": i.Delete, "OPTIONS": i.Options}[method]
}

func (a *API) describeType(name string, s *huma.Schema) {
	s.Description = typeDocs[name]
	if item, ok := strings.CutPrefix(name, "List"); ok && s.Properties["cursor"] != nil {
		s.Description = "One page of a list of " + item + "."
	}
	for member, p := range s.Properties {
		if f := fieldOf(name, member); p.Ref == "" && p.Description == "" {
			p.Description = f.doc
		}
	}
}

func fieldOf(schema, member string) field {
	if f, ok := fieldDocs[schema+"."+member]; ok {
		return f
	}
	return fieldDocs[member]
}

// describeAccess says who may, as text and for programs.
func (a *API) describeAccess(o documented) {
	var says []string
	ext := map[string]any{extStepUp: o.route.Fresh}
	switch action := authz.Action(o.route.Action); {
	case o.route.Anonymous:
		ext[extAccess] = "anonymous"
		says = append(says, "Wants no token and no session.")
	case o.route.Session:
		ext[extAccess] = "session"
		o.Security = []map[string][]string{{"session": {}}, {"cookie": {}}}
		says = append(says, "Of the caller's own account: wants a session; an API token has none.")
	case action == "":
		ext[extAccess] = "caller"
		says = append(says, "For everybody with a token or a session.")
	default:
		ext[extAccess], ext[extAction] = "action", string(action)
		ext[extStepUp] = action.Dangerous()
		says = append(says, "Wants the action `"+string(action)+"`.")
	}
	if ext[extStepUp] == true {
		says = append(says, "A session must have proven itself not long ago (POST /account/confirm); an API token need not.")
	}
	if o.changes && o.small() {
		says = append(says, "Takes If-Match: it is done only to what has that ETag.")
	}
	if makes(*o.Operation) {
		says = append(says, "Takes Idempotency-Key: the same request under the same key is done once in 24 hours.")
	}
	if o.lists() {
		says = append(says, "Answers a page at a time, in an order that is fixed.")
	}
	if !o.route.Anonymous && o.Security == nil {
		o.Security = a.huma.OpenAPI().Security
	}
	o.Description = o.Summary + ". " + strings.Join(says, " ")
	o.Extensions = ext
}

// lists: what it answers is one page.
func (o documented) lists() bool {
	if r := o.Responses["200"]; r != nil && r.Content["application/json"] != nil {
		return strings.HasPrefix(r.Content["application/json"].Schema.Ref, "#/components/schemas/List")
	}
	return false
}

func (a *API) describeParams(o documented) {
	text := func(in, name, doc string, example any) {
		o.Parameters = append(o.Parameters, &huma.Param{Name: name, In: in, Description: doc, Schema: &huma.Schema{Type: "string"}, Example: example})
	}
	if o.lists() {
		o.Parameters = append(o.Parameters, &huma.Param{Name: "limit", In: "query", Description: fmt.Sprintf("items of the page, at least 1; left out: %d; more than %d gives %d", a.cfg.PageSize, a.cfg.MaxPage, a.cfg.MaxPage),
			Schema: &huma.Schema{Type: "integer", Format: "int64"}, Example: 100})
		text("query", "cursor", "from the answer before: the next page begins behind it. Of one list in one workspace alone", "c1_Jq0rUe9t")
	}
	if o.changes && o.small() {
		text("header", "If-Match", "an ETag, several with commas, or *: the change is made only if what it changes has it; weak ones never match", `"4k1m"`)
	}
	if makes(*o.Operation) {
		text("header", "Idempotency-Key", fmt.Sprintf("a string of your choice, 1 to %d printable characters without blanks, quotes and commas; best a random UUID", maxRepeatKey), "0b6f3a52-7c1e-4d7e-9a30-5d1f6c2b8e14")
	}
	if o.data {
		switch o.OperationID {
		case string(protocol.OpRead), string(protocol.OpWrite), string(protocol.OpDelete):
			text("header", "If-Match", "only if the file has this ETag", `"4-dn1a941vx8z7-5y2r1"`)
			text("header", "If-None-Match", "only if the file has not this ETag; * on a write: only where nothing is", `*`)
		case string(protocol.OpDial):
			o.Parameters = append(o.Parameters, &huma.Param{Name: "Upgrade", In: "header", Description: "want " + protocol.UpgradeDial, Schema: &huma.Schema{Type: "string"}})
		}
		if o.OperationID == string(protocol.OpRead) {
			text("header", "Range", "part of the file, such as bytes=0-1023", "bytes=0-1023")
			text("header", "If-Range", "the range only if the file has this ETag, else the whole file", `"4-dn1a941vx8z7-5y2r1"`)
		}
		if o.route.Method == http.MethodPost && strings.HasSuffix(o.route.Path, "/query") {
			text("header", "Accept", "text/csv for CSV; NDJSON else", client.ContentCSV)
		}
	}
	for _, p := range o.Parameters {
		if doc := paramDocs[p.Name]; doc != "" && (p.Description == "" || p.Description == "name or id") && p.In != "header" {
			p.Description = doc
		}
	}
}

// example composes a value of a schema from the table of fields.
func (a *API) example(s *huma.Schema) any {
	name := ""
	if s.Ref != "" {
		name = s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
		s = a.huma.OpenAPI().Components.Schemas.SchemaFromRef(s.Ref)
	}
	switch s.Type {
	case "object":
		o := map[string]any{}
		for member, p := range s.Properties {
			switch f := fieldOf(name, member); {
			case f.example == leftOut:
			case f.example != "" && p.Ref == "":
				o[member] = json.RawMessage(f.example)
			default:
				o[member] = a.example(p)
			}
		}
		return o
	case "array":
		return []any{a.example(s.Items)}
	case "integer":
		return 1
	case "boolean":
		return false
	}
	if s.Format == "date-time" {
		return "2026-11-28T09:30:00Z"
	}
	return "text"
}
