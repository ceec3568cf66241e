package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/fairleadhq/fairlead/relay/api"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/passkey/passkeytest"
)

// document loads what the API says of itself.
func document(t *testing.T, g *rig) *openapi3.T {
	t.Helper()
	a := g.ask("GET", "/openapi.json", "", "")
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(a.body))
	must(t, err)
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatalf("the document is not valid: %v", err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("OpenAPI %s", doc.OpenAPI)
	}
	return doc
}

func TestOpenAPINamesEveryRouteAndNoOther(t *testing.T) {
	g := newRig(t)
	doc := document(t, g)
	said := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			said[method+" "+path] = true
		}
	}
	for _, r := range g.api.Routes() {
		key := r.Method + " " + strings.ReplaceAll(r.Path, "...}", "}")
		if !said[key] && r.Path != "/openapi.json" {
			t.Errorf("%s is not in the document", key)
		}
		delete(said, key)
	}
	for key := range said {
		t.Errorf("the document tells of %s, which is no route", key)
	}
}

// conforms holds an answer against the document.
func conforms(t *testing.T, doc *openapi3.T, r api.Route, path string, a answer) {
	t.Helper()
	name := strings.ReplaceAll(r.Path, "...}", "}")
	item := doc.Paths.Value(name)
	if item == nil || item.GetOperation(r.Method) == nil {
		t.Fatalf("%s %s is not in the document", r.Method, name)
	}
	if item.GetOperation(r.Method).Responses.Value(strconv.Itoa(a.status)) == nil {
		t.Errorf("%s %s: the document does not name the status %d: %s", r.Method, r.Path, a.status, a.body)
	}
	req := httptest.NewRequest(r.Method, client.BasePath+path, nil)
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, Route: &routers.Route{Spec: doc, Path: name, PathItem: item, Method: r.Method, Operation: item.GetOperation(r.Method)}},
		Status:                 a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader([]byte(a.body))),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateResponse(context.Background(), in); err != nil {
		t.Errorf("%s %s answers what its document does not say: %d %s: %v", r.Method, r.Path, a.status, a.body, err)
	}
}

func TestAdminAnswersKeepTheirContract(t *testing.T) {
	g := newRig(t)
	doc := document(t, g)
	routes := map[string]api.Route{}
	for _, r := range g.api.Routes() {
		routes[r.Method+" "+r.Path] = r
	}
	const ws = "/workspaces/{workspace}"
	id, as := "", g.token[authz.Owner]
	done := map[string]bool{}
	do := func(route, path, body string, want int) answer {
		t.Helper()
		r, ok := routes[route]
		if !ok {
			t.Fatalf("%s is no route", route)
		}
		done[route] = true
		a := g.ask(r.Method, path, as, body)
		if a.status != want {
			t.Fatalf("%s: %d %s, want %d", route, a.status, a.body, want)
		}
		conforms(t, doc, r, path, a)
		g.tellsOf(r, a)
		var made struct{ ID string }
		if json.Unmarshal([]byte(a.body), &made) == nil && made.ID != "" {
			id = made.ID
		}
		return a
	}
	const own = "/workspaces/default"
	do("GET /whoami", "/whoami", "", 200)
	do("GET "+ws+"/agents", own+"/agents", "", 200)
	do("GET "+ws+"/agents/{id}", own+"/agents/gone", "", 404)
	do("POST "+ws+"/agents/{id}/disable", own+"/agents/gone/disable", "", 404)
	do("POST "+ws+"/agents/{id}/enable", own+"/agents/gone/enable", "", 404)
	do("DELETE "+ws+"/agents/{id}", own+"/agents/gone", "", 404)
	do("POST "+ws+"/groups", own+"/groups", `{"name":"plant"}`, 201)
	do("POST "+ws+"/groups", own+"/groups", `{"name":"plant"}`, 409)
	do("POST "+ws+"/groups", own+"/groups", `{"name":""}`, 400)
	do("POST "+ws+"/groups", own+"/groups", `{`, 400)
	do("GET "+ws+"/groups", own+"/groups", "", 200)
	do("POST "+ws+"/join-tokens", own+"/join-tokens", `{"group":"plant","expires_in_seconds":60}`, 201)
	do("POST "+ws+"/join-tokens", own+"/join-tokens", `{"group":"plant","expires_in_seconds":9223372036854775807}`, 400)
	do("POST "+ws+"/join-tokens", own+"/join-tokens", `{"group":"plant","expires_in_seconds":18446744074}`, 400)
	do("POST "+ws+"/join-tokens", own+"/join-tokens", `{"group":"plant","expires_in_seconds":-5}`, 400)
	do("GET "+ws+"/join-tokens", own+"/join-tokens", "", 200)
	do("DELETE "+ws+"/join-tokens/{id}", own+"/join-tokens/"+id, "", 204)
	do("DELETE "+ws+"/groups/{name}", own+"/groups/plant", "", 204)
	do("POST "+ws+"/connections", own+"/connections", `{"name":"till","group":"site","profile":"till"}`, 201)
	do("POST "+ws+"/connections", own+"/connections", `{"name":"erp","group":"site","target":{"host":"erp.corp","port":3200}}`, 201)
	do("GET "+ws+"/connections", own+"/connections", "", 200)
	do("GET "+ws+"/connections/{name}", own+"/connections/erp", "", 200)
	do("POST "+ws+"/tunnel", own+"/tunnel", "", 400)
	port := freePort(t)
	do("PUT "+ws+"/connections/{name}/gateway", own+"/connections/erp/gateway", `{"address":"`+port+`","allow":["192.0.2.0/24"]}`, 200)
	do("PUT "+ws+"/connections/{name}/gateway", own+"/connections/till/gateway", `{"address":"`+port+`"}`, 409)
	do("PUT "+ws+"/connections/{name}/gateway", own+"/connections/erp/gateway", `{"address":"relay.example:5432"}`, 400)
	do("PUT "+ws+"/connections/{name}/gateway", own+"/connections/erp/gateway", `{"address":"192.0.2.1:5432"}`, 403)
	do("POST "+ws+"/connections", own+"/connections", `{"name":"half","group":"site","profile":"p","gateway":{"address":"`+port+`"}}`, 409)
	do("GET "+ws+"/connections/{name}", own+"/connections/half", "", 404)
	do("GET "+ws+"/connections/{name}", own+"/connections/erp", "", 200)
	do("DELETE "+ws+"/connections/{name}/gateway", own+"/connections/erp/gateway", "", 204)
	do("DELETE "+ws+"/connections/{name}/gateway", own+"/connections/erp/gateway", "", 404)
	do("PUT "+ws+"/connections/{name}/budget", own+"/connections/erp/budget", `{"concurrent":5}`, 200)
	do("PUT "+ws+"/connections/{name}/budget", own+"/connections/gone/budget", `{"concurrent":5}`, 404)
	do("PUT "+ws+"/connections/{name}/budget", own+"/connections/erp/budget", `{"egress":1}`, 400)
	if a := do("GET "+ws+"/connections/{name}/budget", own+"/connections/erp/budget", "", 200); !strings.Contains(a.body, `"in_force":{"concurrent":5}`) {
		t.Error(a.body)
	}
	do("POST "+ws+"/projects", own+"/projects", `{"name":"sales"}`, 201)
	do("POST "+ws+"/projects", own+"/projects", `{"name":"sales"}`, 409)
	do("POST "+ws+"/projects", own+"/projects", `{"name":"a/b"}`, 400)
	do("GET "+ws+"/projects", own+"/projects", "", 200)
	do("PUT "+ws+"/projects/{name}", own+"/projects/sales", `{"name":"shop"}`, 200)
	do("GET "+ws+"/projects/{name}", own+"/projects/shop", "", 200)
	do("GET "+ws+"/projects/{name}", own+"/projects/sales", "", 404)
	do("POST "+ws+"/projects/{name}/folders", own+"/projects/shop/folders", `{"path":"reports"}`, 201)
	do("POST "+ws+"/projects/{name}/folders", own+"/projects/shop/folders", `{"path":"reports/monthly"}`, 201)
	do("POST "+ws+"/projects/{name}/folders", own+"/projects/shop/folders", `{"path":"reports/monthly"}`, 409)
	do("POST "+ws+"/projects/{name}/folders", own+"/projects/shop/folders", `{"path":"gone/monthly"}`, 404)
	do("POST "+ws+"/projects/{name}/folders", own+"/projects/shop/folders", `{"path":"/"}`, 400)
	do("GET "+ws+"/projects/{name}/folders", own+"/projects/shop/folders", "", 200)
	do("PUT "+ws+"/connections/{name}/place", own+"/connections/erp/place", `{"project":"shop","folder":"reports/monthly"}`, 200)
	do("PUT "+ws+"/connections/{name}/place", own+"/connections/erp/place", `{"project":"gone"}`, 404)
	do("PUT "+ws+"/connections/{name}/place", own+"/connections/erp/place", `{"folder":"reports"}`, 400)
	if a := do("GET "+ws+"/connections/{name}", own+"/connections/erp", "", 200); !strings.Contains(a.body, `"project":"shop","folder":"reports/monthly"`) {
		t.Error(a.body)
	}
	do("POST "+ws+"/connections", own+"/connections", `{"name":"bi","group":"site","profile":"p","project":"shop","folder":"reports"}`, 201)
	do("POST "+ws+"/connections", own+"/connections", `{"name":"bi2","group":"site","profile":"p","project":"gone"}`, 404)
	do("POST "+ws+"/connections", own+"/connections", `{"name":"bi2","group":"site","profile":"p","folder":"reports"}`, 400)
	do("DELETE "+ws+"/connections/{name}", own+"/connections/bi", "", 204)
	do("DELETE "+ws+"/projects/{name}", own+"/projects/shop", "", 409)
	do("DELETE "+ws+"/projects/{name}/folders/{id}", own+"/projects/shop/folders/reports", "", 409)
	do("DELETE "+ws+"/connections/{name}", own+"/connections/erp", "", 204)
	do("DELETE "+ws+"/projects/{name}/folders/{id}", own+"/projects/shop/folders/reports%2Fmonthly", "", 204)
	do("DELETE "+ws+"/projects/{name}/folders/{id}", own+"/projects/shop/folders/gone", "", 404)
	do("PUT "+ws+"/budget", own+"/budget", `{"rate":1000,"burst":2000,"egress":1048576}`, 200)
	do("PUT "+ws+"/budget", own+"/budget", `{"burst":5}`, 400)
	do("PUT "+ws+"/budget", own+"/budget", `{"rate":-1}`, 400)
	if a := do("GET "+ws+"/budget", own+"/budget", "", 200); !strings.Contains(a.body, `"in_force":{"rate":1000,"burst":2000,"egress":1048576}`) {
		t.Error(a.body)
	}
	do("PUT "+ws+"/budget", own+"/budget", `{}`, 200)
	do("GET "+ws+"/quota", own+"/quota", "", 200)
	do("POST "+ws+"/tokens", own+"/tokens", `{"name":"t","roles":["analyst"],"expires_in_seconds":60}`, 201)
	do("POST "+ws+"/tokens", own+"/tokens", `{"name":"t2","roles":[]}`, 400)
	do("POST "+ws+"/tokens", own+"/tokens", `{"name":"t2","roles":["analyst"],"connections":["gone"]}`, 404)
	do("POST "+ws+"/tokens", own+"/tokens", `{"name":"t3","roles":["analyst"],"connections":["till"]}`, 201)
	do("POST "+ws+"/tokens", own+"/tokens", `{"name":"t4","principal":"t","only":{"actions":["connection.query"],"connections":["till"],"environments":["production"],"from":["192.0.2.0/24"]}}`, 201)
	fourth := id
	do("POST "+ws+"/tokens", own+"/tokens", `{"name":"t5","principal":"t","only":{}}`, 400)
	do("POST "+ws+"/tokens", own+"/tokens", `{"name":"t5","principal":"t","only":{"from":["192.0.2.1/24"]}}`, 400)
	do("POST "+ws+"/tokens", own+"/tokens", `{"name":"t5","principal":"gone"}`, 404)
	do("GET "+ws+"/tokens", own+"/tokens", "", 200)
	do("POST "+ws+"/domains", own+"/domains", `{"name":"Sales.Apps.example."}`, 201)
	do("POST "+ws+"/domains", own+"/domains", `{"name":"sales.apps.example"}`, 409)
	do("POST "+ws+"/domains", own+"/domains", `{"name":"apps.example"}`, 403)
	do("POST "+ws+"/domains", own+"/domains", `{"name":"-x.apps.example"}`, 400)
	do("GET "+ws+"/domains", own+"/domains", "", 200)
	do("GET "+ws+"/domains/{name}", own+"/domains/sales.apps.example", "", 200)
	do("DELETE "+ws+"/domains/{name}", own+"/domains/sales.apps.example", "", 204)
	do("DELETE "+ws+"/domains/{name}", own+"/domains/sales.apps.example", "", 404)
	do("POST "+ws+"/service-accounts", own+"/service-accounts", `{"name":"nightly","roles":["analyst"]}`, 201)
	do("POST "+ws+"/service-accounts", own+"/service-accounts", `{"name":"nightly"}`, 409)
	do("POST "+ws+"/service-accounts", own+"/service-accounts", `{"name":"boss","roles":["root"]}`, 400)
	do("GET "+ws+"/service-accounts", own+"/service-accounts", "", 200)
	do("GET "+ws+"/service-accounts/{name}", own+"/service-accounts/nightly", "", 200)
	do("POST "+ws+"/service-accounts/{name}/disable", own+"/service-accounts/nightly/disable", "", 204)
	do("POST "+ws+"/service-accounts/{name}/enable", own+"/service-accounts/nightly/enable", "", 204)
	do("DELETE "+ws+"/service-accounts/{name}", own+"/service-accounts/nightly", "", 204)
	do("DELETE "+ws+"/service-accounts/{name}", own+"/service-accounts/nightly", "", 404)
	do("DELETE "+ws+"/tokens/{id}", own+"/tokens/"+fourth, "", 204)
	do("GET "+ws+"/allowlist", own+"/allowlist", "", 200)
	do("PUT "+ws+"/allowlist", own+"/allowlist", `{"prefixes":["192.0.2.0/24","2001:db8::/32"]}`, 200)
	do("PUT "+ws+"/allowlist", own+"/allowlist", `{"prefixes":["203.0.113.0/24"]}`, 409)
	do("PUT "+ws+"/allowlist", own+"/allowlist", `{"prefixes":["203.0.113.0/24"],"dry_run":true}`, 200)
	do("GET "+ws+"/audit/key", own+"/audit/key", "", 200)
	do("POST "+ws+"/roles", own+"/roles", `{"name":"reader","actions":["connection.query","connections.read"]}`, 201)
	do("POST "+ws+"/roles", own+"/roles", `{"name":"reader","actions":["connection.query"]}`, 409)
	do("POST "+ws+"/roles", own+"/roles", `{"name":"more","actions":["made.up"]}`, 400)
	do("POST "+ws+"/roles", own+"/roles", `{"name":"more","actions":[]}`, 400)
	do("GET "+ws+"/roles", own+"/roles", "", 200)
	do("GET "+ws+"/roles/{name}", own+"/roles/owner", "", 200)
	if a := do("GET "+ws+"/roles/{name}", own+"/roles/reader", "", 200); !strings.Contains(a.body, strings.ReplaceAll(a.header.Get("ETag"), `"`, `\"`)) || a.header.Get("ETag") == "" {
		t.Errorf("ETag %q", a.header.Get("ETag"))
	}
	do("PUT "+ws+"/roles/{name}", own+"/roles/reader", `{"name":"reader","actions":["connection.schema"]}`, 200)
	do("PUT "+ws+"/roles/{name}", own+"/roles/admin", `{"name":"admin","actions":["connection.schema"]}`, 409)
	do("POST "+ws+"/teams", own+"/teams", `{"name":"night"}`, 201)
	do("POST "+ws+"/teams", own+"/teams", `{"name":"night"}`, 409)
	do("GET "+ws+"/teams", own+"/teams", "", 200)
	do("PUT "+ws+"/teams/{name}/members/{id}", own+"/teams/night/members/t", "", 200)
	do("PUT "+ws+"/teams/{name}/members/{id}", own+"/teams/night/members/nobody", "", 404)
	do("GET "+ws+"/teams/{name}", own+"/teams/night", "", 200)
	do("POST "+ws+"/grants", own+"/grants", `{"role":"reader","team":"night","connection":"till","expires_in_seconds":3600,"from":["192.0.2.0/24"]}`, 201)
	do("GET "+ws+"/grants", own+"/grants", "", 200)
	do("POST "+ws+"/explain/replay", own+"/explain/replay", `{"since_seconds":3600}`, 200)
	do("POST "+ws+"/explain/replay", own+"/explain/replay", `{"since_seconds":0}`, 400)
	do("GET "+ws+"/explain", own+"/explain?principal=t&action=schema&connection=till", "", 200)
	do("GET "+ws+"/explain", own+"/explain?principal=t&action=query&connection=till&source=203.0.113.9", "", 200)
	do("POST "+ws+"/grants", own+"/grants", `{"role":"operator","principal":"t","project":"shop","folder":"reports","environment":"test"}`, 201)
	do("POST "+ws+"/grants", own+"/grants", `{"role":"operator","principal":"t","project":"shop","connection":"till"}`, 400)
	do("POST "+ws+"/grants", own+"/grants", `{"role":"operator","principal":"t","project":"gone"}`, 404)
	do("GET "+ws+"/grants", own+"/grants", "", 200)
	if a := do("GET "+ws+"/explain", own+"/explain?principal=t&action=connections.manage&project=shop&folder=reports&environment=test", "", 200); !strings.Contains(a.body, `"allow":true,"reason":"granted on the folder"`) {
		t.Error(a.body)
	}
	do("GET "+ws+"/explain", own+"/explain?principal=t&action=connections.manage&project=shop", "", 200)
	do("GET "+ws+"/explain", own+"/explain?principal=t&action=connections.manage&project=gone", "", 404)
	do("GET "+ws+"/explain", own+"/explain?principal=t&action=connections.manage&project=shop&folder=gone", "", 404)
	do("GET "+ws+"/explain", own+"/explain?principal=t&action=connections.manage&folder=reports", "", 400)
	do("GET "+ws+"/explain", own+"/explain?principal=t&action=connections.manage&environment=staging", "", 400)
	do("GET "+ws+"/explain", own+"/explain?principal=t&action=query&connection=till&project=shop", "", 400)
	do("POST "+ws+"/tokens", own+"/tokens", `{"name":"t6","principal":"t","only":{"projects":["shop"]}}`, 201)
	do("POST "+ws+"/tokens", own+"/tokens", `{"name":"t7","principal":"t","only":{"projects":["gone"]}}`, 404)
	do("GET "+ws+"/tokens", own+"/tokens", "", 200)
	do("DELETE "+ws+"/projects/{name}/folders/{id}", own+"/projects/shop/folders/reports", "", 204)
	do("DELETE "+ws+"/projects/{name}", own+"/projects/shop", "", 204)
	do("DELETE "+ws+"/projects/{name}", own+"/projects/shop", "", 404)
	do("GET "+ws+"/tokens", own+"/tokens", "", 200)
	do("GET "+ws+"/explain", own+"/explain?principal=nobody&action=query&connection=till", "", 404)
	do("GET "+ws+"/explain", own+"/explain?principal=t&action=made.up", "", 400)
	do("GET "+ws+"/explain", own+"/explain?principal=t&action=query", "", 400)
	do("POST "+ws+"/explain/replay", own+"/explain/replay", `{"since_seconds":60}`, 200)
	do("POST "+ws+"/explain/replay", own+"/explain/replay", `{"since_seconds":0}`, 400)
	do("DELETE "+ws+"/roles/{name}", own+"/roles/reader", "", 409)
	do("DELETE "+ws+"/teams/{name}/members/{id}", own+"/teams/night/members/t", "", 204)
	do("DELETE "+ws+"/teams/{name}", own+"/teams/night", "", 204)
	do("DELETE "+ws+"/roles/{name}", own+"/roles/reader", "", 204)
	do("POST "+ws+"/grants", own+"/grants", `{"role":"analyst","principal":"t","environment":"test","until":"2199-01-01T00:00:00Z"}`, 201)
	do("POST "+ws+"/grants", own+"/grants", `{"role":"analyst","principal":"t","until":"2199-01-01T00:00:00Z","expires_in_seconds":5}`, 400)
	do("POST "+ws+"/grants", own+"/grants", `{"role":"analyst","principal":"t","expires_in_seconds":-5}`, 400)
	do("POST "+ws+"/grants", own+"/grants", `{"role":"analyst","principal":"t","from":["192.0.2.7/24"]}`, 400)
	do("DELETE "+ws+"/grants/{id}", own+"/grants/"+id, "", 204)
	do("DELETE "+ws, own, "", 409)
	do("PUT "+ws+"/sign-in-policy", own+"/sign-in-policy", `{"min_length":20,"idle_seconds":600,"personal_token_seconds":86400}`, 200)
	do("PUT "+ws+"/sign-in-policy", own+"/sign-in-policy", `{"min_length":3}`, 400)
	do("PUT "+ws+"/sign-in-policy", own+"/sign-in-policy", `{"idle_seconds":1}`, 400)
	if a := do("GET "+ws+"/sign-in-policy", own+"/sign-in-policy", "", 200); !strings.Contains(a.body, `"min_length":20,"idle_seconds":600,"absolute_seconds":43200,"step_up_seconds":300`) {
		t.Error(a.body)
	}
	as = ""
	do("POST /sign-in", "/sign-in", `{"workspace":"default","user":"nobody","password":"x"}`, 401)
	do("POST /sign-in", "/sign-in", `{"workspace":"default","user":"nobody"}`, 400)
	do("POST /sign-in/first", "/sign-in/first", `{"workspace":"default","user":"nobody","code":"fli_x","password":"x"}`, 401)
	as = g.token[authz.Admin]
	do("POST "+ws+"/users", own+"/users", `{"name":"anna","roles":["analyst"]}`, 201)
	anna := id
	do("POST "+ws+"/users", own+"/users", `{"name":"anna","roles":["analyst"]}`, 409)
	do("POST "+ws+"/users", own+"/users", `{"name":"b","roles":["analyst"],"person":"per_aaaaaaaaaaaaaaaaaaaaaaaaaa"}`, 404)
	do("POST "+ws+"/users", own+"/users", `{"name":"An na","roles":["analyst"]}`, 400)
	do("POST "+ws+"/users", own+"/users", `{"name":"c","roles":[]}`, 400)
	do("GET "+ws+"/users", own+"/users", "", 200)
	do("POST "+ws+"/users/{id}/code", own+"/users/"+anna+"/code", `{"expires_in_seconds":60}`, 201)
	do("POST "+ws+"/users/{id}/code", own+"/users/anna/code", `{"expires_in_seconds":5}`, 400)
	do("POST "+ws+"/users/{id}/code", own+"/users/anna/code", `{"send":true}`, 400)
	do("POST "+ws+"/users", own+"/users", `{"name":"c","roles":["analyst"],"email":"c@example.com\r\nBcc: d@example.com"}`, 400)
	do("PUT "+ws+"/users/{id}/email", own+"/users/anna/email", `{"email":"anna@example.com"}`, 200)
	do("PUT "+ws+"/users/{id}/email", own+"/users/anna/email", `{"email":"Anna <anna@example.com>"}`, 400)
	do("POST "+ws+"/users/{id}/disable", own+"/users/anna/disable", "", 204)
	do("POST "+ws+"/users/{id}/enable", own+"/users/anna/enable", "", 204)
	do("DELETE "+ws+"/users/{id}/second-factor", own+"/users/anna/second-factor", "", 204)
	do("DELETE "+ws+"/users/{id}/sessions", own+"/users/anna/sessions", "", 204)
	do("DELETE "+ws+"/users/{id}", own+"/users/anna", "", 204)
	do("DELETE "+ws+"/users/{id}", own+"/users/anna", "", 404)
	as = g.person("bertha", authz.Admin)
	do("GET /account", "/account", "", 200)
	do("GET "+ws+"/sessions", own+"/sessions", "", 200)
	do("GET /account/sessions", "/account/sessions", "", 200)
	do("DELETE /account/sessions", "/account/sessions", "", 204)
	do("DELETE /account/sessions/{id}", "/account/sessions/gone", "", 404)
	do("POST /account/tokens", "/account/tokens", `{"name":"laptop","only":{"environments":["development"]},"expires_in_seconds":3600}`, 201)
	do("POST /account/tokens", "/account/tokens", `{"name":"laptop","expires_in_seconds":86401}`, 403)
	do("GET /account/tokens", "/account/tokens", "", 200)
	do("DELETE /account/tokens/{id}", "/account/tokens/"+id, "", 204)
	do("DELETE /account/tokens/{id}", "/account/tokens/gone", "", 404)
	do("DELETE "+ws+"/sessions/{id}", own+"/sessions/gone", "", 404)
	do("POST /account/confirm/passkey/begin", "/account/confirm/passkey/begin", "", 409)
	do("POST /account/passkeys/begin", "/account/passkeys/begin", "{}", 200)
	body, tapper := g.newPasskey(as, passkeytest.Wrong{})
	var added client.AddedPasskey
	must(t, json.Unmarshal([]byte(do("POST /account/passkeys", "/account/passkeys", body, 201).body), &added))
	as = added.Session.Session
	do("POST /account/passkeys", "/account/passkeys", body, 403)
	do("GET /account/passkeys", "/account/passkeys", "", 200)
	do("POST /account/confirm/passkey/begin", "/account/confirm/passkey/begin", "", 200)
	do("POST /account/confirm", "/account/confirm", `{"password":"`+goodPassword+`"}`, 400)
	var confirmed client.SignedIn
	must(t, json.Unmarshal([]byte(do("POST /account/confirm", "/account/confirm", g.confirmation(as, tapper, passkeytest.Wrong{}), 200).body), &confirmed))
	as = ""
	do("POST /sign-in/passkey/begin", "/sign-in/passkey/begin", "{}", 200)
	do("POST /sign-in/passkey", "/sign-in/passkey", g.tap(tapper, "", passkeytest.Wrong{}), 200)
	do("POST /sign-in/passkey", "/sign-in/passkey", `{"ceremony":"x","credential":{}}`, 401)
	do("POST /sign-in/passkey", "/sign-in/passkey", `{"ceremony":"x"}`, 400)
	as = confirmed.Session
	do("DELETE /account/passkeys/{id}", "/account/passkeys/gone", "", 404)
	do("DELETE /account/passkeys/{id}", "/account/passkeys/"+added.ID, "", 204)
	do("POST /account/recovery-codes", "/account/recovery-codes", "", 409)
	do("PUT /account/email", "/account/email", `{"email":"bertha@example.com"}`, 200)
	do("PUT /account/email", "/account/email", `{"email":"Bertha <bertha@example.com>"}`, 400)
	do("POST /account/second-factor", "/account/second-factor", "", 200)
	do("PUT /account/second-factor", "/account/second-factor", `{"code":"12345"}`, 403)
	do("DELETE /account/second-factor", "/account/second-factor", "", 204)
	do("POST /account/confirm", "/account/confirm", `{"password":"not it at all"}`, 403)
	var renewed client.SignedIn
	must(t, json.Unmarshal([]byte(do("POST /account/confirm", "/account/confirm", `{"password":"`+goodPassword+`"}`, 200).body), &renewed))
	do("GET /account", "/account", "", 401)
	as = renewed.Session
	must(t, json.Unmarshal([]byte(do("POST /account/password", "/account/password", `{"password":"`+goodPassword+`","new_password":"another fine kettle of fish"}`, 200).body), &renewed))
	as = renewed.Session
	handed := do("POST /account/hand-over", "/account/hand-over", `{"challenge":"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}`, 200)
	do("POST /account/hand-over", "/account/hand-over", `{"challenge":"E9Melhoa"}`, 400)
	var code client.HandOverCode
	must(t, json.Unmarshal([]byte(handed.body), &code))
	as = ""
	do("POST /sign-in/hand-over", "/sign-in/hand-over", takeOverBody("flh_x", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), 401)
	do("POST /sign-in/hand-over", "/sign-in/hand-over", takeOverBody(code.Code, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), 200)
	as = renewed.Session
	do("POST /sign-out", "/sign-out", "", 204)
	do("POST /sign-out", "/sign-out", "", 401)
	for route, r := range routes {
		if r.Path != "/openapi.json" && !strings.Contains(r.Path, "{connection}") && !strings.Contains(r.Path, "/audit/") && !done[route] {
			t.Errorf("%s was not asked", route)
		}
	}
	// Errors of every route, as the document's default says.
	for _, r := range routes {
		if r.Path != "/openapi.json" {
			conforms(t, doc, r, fill(r.Path, "default", "gone"), g.ask(r.Method, fill(r.Path, "default", "gone"), "", ""))
		}
	}
}

// freePort is an address that nothing listens on.
func freePort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// canary is put wherever a caller may put a string; an error that holds it would carry a password or a row to logs,
// screens and other tongues.
const (
	canary       = "CANARYq7x"
	numberCanary = "918273645546372819"
)

// members lists the members of an object type, with those of its parts.
func members(s *openapi3.Schema) (names []string) {
	if s == nil {
		return nil
	}
	for name := range s.Properties {
		names = append(names, name)
	}
	for _, part := range s.AllOf {
		names = append(names, members(part.Value)...)
	}
	return names
}

func TestErrorsNeverEchoAValue(t *testing.T) {
	g := newRig(t)
	doc := document(t, g)
	asked := 0
	var op *openapi3.Operation // that is asked
	check := func(what string, a answer) {
		t.Helper()
		asked++
		if op.Responses.Value(strconv.Itoa(a.status)) == nil {
			t.Errorf("%s: the document does not name the status %d: %s", what, a.status, a.body)
		}
		if a.status < 400 {
			return
		}
		all := a.body + fmt.Sprint(a.header)
		if strings.Contains(all, canary) || strings.Contains(all, numberCanary) {
			t.Errorf("%s: %d echoes what was sent: %s", what, a.status, all)
		}
	}
	token := g.token[authz.Admin]
	for _, r := range g.api.Routes() {
		if r.Path == "/openapi.json" {
			continue
		}
		what := r.Method + " " + r.Path
		good := fill(r.Path, "default", g.conn)
		op = doc.Paths.Value(strings.ReplaceAll(r.Path, "...}", "}")).GetOperation(r.Method)
		for _, part := range []string{"{workspace}", "{connection}", "{id}", "{name}", "{path...}"} {
			if strings.Contains(r.Path, part) {
				path := fill(strings.Replace(r.Path, part, canary, 1), "default", g.conn)
				check(what+" path "+part, g.ask(r.Method, path, token, ""))
				check(what+" path "+part+" escaped", g.ask(r.Method, strings.Replace(path, canary, canary+"%2F%0a"+canary, 1), token, ""))
			}
		}
		for _, q := range []string{"path", "upload", "offset", "partial", "recursive", "page_size", "after", "limit", "follow", "kind", "cursor", "glob", "else"} {
			check(what+" query "+q, g.ask(r.Method, good+"?"+q+"="+canary, token, ""))
			check(what+" query "+q+" twice", g.ask(r.Method, good+"?"+q+"=1&"+q+"="+canary, token, ""))
			check(what+" query "+q+" number", g.ask(r.Method, good+"?"+q+"="+numberCanary+"0", token, ""))
		}
		check(what+" query malformed", g.ask(r.Method, good+"?%zz="+canary, token, ""))
		check(what+" media type of a body", g.ask(r.Method, good, token, "{}", func(req *http.Request) { req.Header.Set("Content-Type", "text/"+canary) }))
		check(what+" idempotency key", g.ask(r.Method, good, token, "{}", func(req *http.Request) { req.Header.Set("Idempotency-Key", canary+" "+canary) }))
		for _, h := range []string{"Authorization", "Accept", "Content-Type", "Range", "If-Match", "Upgrade", "X-Forwarded-For"} {
			check(what+" header "+h, g.ask(r.Method, good, token, "", func(req *http.Request) { req.Header.Set(h, canary) }))
		}
		if op.RequestBody == nil || op.RequestBody.Value.Content.Get("application/json") == nil {
			continue
		}
		names := members(op.RequestBody.Value.Content.Get("application/json").Schema.Value)
		if len(names) == 0 {
			t.Fatalf("%s: the document names no member of its body", what)
		}
		// The last value goes round all members at once: what one refuses does not hide the next.
		for _, value := range []string{`"` + canary + `"`, `["` + canary + `"]`, `[["` + canary + `"]]`, `{"` + "x" + `":"` + canary + `"}`, numberCanary, "1e" + numberCanary, `[` + numberCanary + `]`,
			`"\u0000` + canary + `"`, `-` + numberCanary} {
			all := map[string]json.RawMessage{}
			for _, name := range names {
				if !json.Valid([]byte(value)) {
					t.Fatal(value)
				}
				all[name] = json.RawMessage(value)
				check(what+" body "+name+" "+value, g.ask(r.Method, good, token, `{"`+name+`":`+value+`}`))
			}
			b, err := json.Marshal(all)
			must(t, err)
			check(what+" body "+value, g.ask(r.Method, good, token, string(b)))
		}
		for _, broken := range []string{canary, `{"` + names[0] + `":` + canary, `{"` + names[0] + `":"` + canary, `"` + canary + `"`, `{}` + canary, numberCanary, `["` + canary + `"]`} {
			check(what+" broken body", g.ask(r.Method, good, token, broken))
		}
	}
	if asked < 2000 {
		t.Fatalf("only %d requests", asked)
	}
}
