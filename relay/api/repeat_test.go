package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/passkey/passkeytest"
	"github.com/fairleadhq/fairlead/relay/store"
)

func under(keys ...string) func(*http.Request) {
	return func(r *http.Request) {
		for _, k := range keys {
			r.Header.Add("Idempotency-Key", k)
		}
	}
}

// count is how many things the own workspace has of each kind.
func (g *rig) count() string {
	g.t.Helper()
	w, err := g.dir.Snapshot().Workspace("default")
	must(g.t, err)
	return fmt.Sprint(len(w.Groups), len(w.JoinTokens), len(w.Connections), len(w.Tokens), len(w.Roles), len(w.Teams), len(w.Grants), len(w.Principals), len(w.Projects))
}

// Every route that makes something does it once under a key. What tells no secret is answered again; of what does, the thing is named.
func TestEveryCreationIsDoneOnceUnderItsKey(t *testing.T) {
	g := newRig(t)
	const own = "/workspaces/default"
	owner := g.token[authz.Owner]
	bodies := map[string]string{"/groups": `{"name":"plant"}`, "/join-tokens": `{"group":"site"}`, "/connections": `{"name":"erp","group":"site","target":{"host":"erp.corp","port":3200}}`,
		"/tokens": `{"name":"reports","roles":["analyst"]}`, "/roles": `{"name":"reader","actions":["connection.query"]}`, "/teams": `{"name":"night"}`, "/grants": `{"role":"analyst","principal":"a analyst"}`,
		"/users": `{"name":"anna","roles":["analyst"]}`, "/users/anna/code": `{"expires_in_seconds":600}`,
		"/projects": `{"name":"sales"}`, "/projects/sales/folders": `{"path":"reports"}`,
		"/service-accounts": `{"name":"nightly"}`, "/domains": `{"name":"sales.apps.example"}`, "/account/tokens": `{"name":"laptop"}`}
	secrets := map[string]string{"/join-tokens": "token", "/tokens": "token", "/users": "code", "/users/anna/code": "code", "/account/tokens": "token", "/account/passkeys": "session"}
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{PersonalTokens: time.Hour}))
	me := g.person("bertha", authz.Owner)
	doc := document(t, g)
	done := map[string]bool{}
	for _, path := range []string{"/groups", "/join-tokens", "/connections", "/tokens", "/roles", "/teams", "/grants", "/users", "/users/anna/code", "/projects", "/projects/sales/folders", "/service-accounts", "/domains", "/account/tokens", "/account/passkeys"} {
		own, owner, route := own, owner, "/workspaces/{workspace}"
		if strings.HasPrefix(path, "/account") {
			own, owner, route = "", me, ""
			if path == "/account/passkeys" {
				bodies[path], _ = g.newPasskey(me, passkeytest.Wrong{})
			}
		}
		key := under(`"key of ` + path[1:2] + strings.ReplaceAll(path[2:], "/", "-") + `"`)
		if a := g.ask("POST", own+path, owner, bodies[path], key); a.status != http.StatusBadRequest { // blanks in it
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		key = under(`"8e03978e-40d5-43dd-bc93-6894a57f9324"`) // the same for all: the path is part of what is asked
		if path != "/groups" {
			if a := g.ask("POST", own+path, owner, bodies[path], key); owner != me && a.status != http.StatusUnprocessableEntity {
				t.Errorf("%s under another's key: %d %s", path, a.status, a.body)
			}
			key = under(path[1:])
		}
		first := g.ask("POST", own+path, owner, bodies[path], key)
		if first.status != 201 {
			t.Fatalf("%s: %d %s", path, first.status, first.body)
		}
		var made map[string]any
		must(t, json.Unmarshal([]byte(first.body), &made))
		if path == "/account/passkeys" { // the session has a new text by it
			s := made["session"].(map[string]any)["session"]
			made["session"], owner = s, s.(string)
		}
		before := g.count()
		again := g.ask("POST", own+path, owner, bodies[path], key)
		if member := secrets[path]; member == "" {
			if again.status != 201 || strings.TrimSpace(again.body) != strings.TrimSpace(first.body) || again.header.Get("Idempotency-Replayed") != "true" || again.header.Get("ETag") != first.header.Get("ETag") {
				t.Errorf("%s: %d %s, first %s", path, again.status, again.body, first.body)
			}
		} else {
			secret, id := made[member].(string), made["id"].(string)
			if again.status != http.StatusConflict || again.problem.Rule != "idempotency_key" || !strings.Contains(again.problem.Detail, id) || strings.Contains(again.body, secret) || again.problem.Hint == "" || len(secret) < 20 {
				t.Errorf("%s: %d %s, first %s", path, again.status, again.body, first.body)
			}
		}
		other := g.ask("POST", own+path, owner, strings.Replace(bodies[path], "{", "{ ", 1), key)
		if other.status != http.StatusUnprocessableEntity || other.problem.Status != 422 || other.problem.Code != protocol.CodeInvalid || other.problem.RequestID == "" {
			t.Errorf("%s with another body: %d %s", path, other.status, other.body)
		}
		if g.count() != before {
			t.Errorf("%s was done twice: %s, was %s", path, g.count(), before)
		}
		done[route+strings.NewReplacer("anna", "{id}", "/sales/", "/{name}/").Replace(path)] = true
	}
	for path, item := range doc.Paths.Map() {
		if strings.HasPrefix(path, "/workspaces/{workspace}/connections/{connection}/") {
			continue // an operation at the site, which is not the relay's to do once
		}
		if item.Post != nil && item.Post.Responses.Status(201) != nil && !done[path] {
			t.Errorf("POST %s makes something and was not asked twice", path)
		}
	}
}

// A key is of one principal, and counts only for who may: a repeat is decided as the first was.
func TestIdempotencyKeysBelongToTheirPrincipal(t *testing.T) {
	g := newRig(t)
	const path = "/workspaces/default/groups"
	key := under("k1")
	for i, token := range []string{g.token[authz.Owner], g.token[authz.Admin]} {
		if a := g.ask("POST", path, token, fmt.Sprintf(`{"name":"plant%d"}`, i), key); a.status != 201 || a.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if a := g.ask("POST", path, g.token[authz.Analyst], `{"name":"plant0"}`, key); a.status != http.StatusForbidden {
		t.Errorf("%d %s", a.status, a.body)
	}
	must(t, g.dir.SetAllowlist(t.Context(), "other", g.own.Prefixes, g.own.Prefixes[0].Addr(), true))
	if a := g.ask("POST", "/workspaces/other/groups", g.foreign, `{"name":"plant0"}`, key); a.status != 201 || a.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	// A refused request keeps no key: it did nothing, and may be sent again when what was wrong is right.
	if a := g.ask("POST", path, g.token[authz.Admin], `{"name":"site"}`, under("k2")); a.status != http.StatusConflict || a.problem.Rule != "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.ask("DELETE", "/workspaces/default/connections/default-shop", g.token[authz.Admin], ""); a.status != 204 {
		t.Fatal(a.body)
	}
	if a := g.ask("DELETE", path+"/site", g.token[authz.Admin], ""); a.status != 204 {
		t.Fatal(a.body)
	}
	if a := g.ask("POST", path, g.token[authz.Admin], `{"name":"site"}`, under("k2")); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, bad := range [][]string{{""}, {`""`}, {"a", "b"}, {"a,b"}, {strings.Repeat("k", 256)}, {"a b"}, {`a"b`}, {"ä"}} {
		if a := g.ask("POST", path, g.token[authz.Admin], `{"name":"x"}`, under(bad...)); a.status != http.StatusBadRequest {
			t.Errorf("%q: %d %s", bad, a.status, a.body)
		}
	}
	// It says nothing where nothing is made.
	if a := g.ask("DELETE", path+"/site", g.token[authz.Admin], "", under("k2")); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Of many that come at once under one key, one is done; the others are told so, or get its answer.
func TestOfManyRequestsUnderOneKeyOneIsDone(t *testing.T) {
	g := newRig(t)
	token := g.token[authz.Admin]
	const n = 12
	answers := make([]answer, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			answers[i] = g.ask("POST", "/workspaces/default/join-tokens", token, `{"group":"site"}`, under("one"))
		})
	}
	all.Wait()
	made := 0
	for _, a := range answers {
		switch {
		case a.status == 201:
			made++
		case a.status != http.StatusConflict || a.problem.Rule != "idempotency_key":
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	w, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	if made != 1 || len(w.JoinTokens) != 1 {
		t.Errorf("%d answers, %d join tokens", made, len(w.JoinTokens))
	}
}

// P15: what was shown once is not in the state, and neither is a key or what was asked in the clear.
func TestKeptAnswersAreSealed(t *testing.T) {
	g := newRig(t)
	token := g.token[authz.Admin]
	a := g.ask("POST", "/workspaces/default/tokens", token, `{"name":"CANARYname","roles":["analyst"]}`, under("CANARYkey"))
	var made struct{ Token string }
	must(t, json.Unmarshal([]byte(a.body), &made))
	if a := g.ask("POST", "/workspaces/default/groups", token, `{"name":"CANARYgroup"}`, under("CANARYkey2")); a.status != 201 {
		t.Fatal(a.body)
	}
	must(t, g.dir.Close())
	found := 0
	must(t, filepath.Walk(g.stateDir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if filepath.Base(path) == store.File && strings.Contains(string(b), "repeats") {
			found++
		}
		for _, s := range []string{"CANARY", made.Token, made.Token[4:]} {
			if strings.Contains(string(b), s) {
				t.Errorf("%s holds %s", path, s)
			}
		}
		return err
	}))
	if found != 1 || len(made.Token) < 40 {
		t.Error("the scan is void")
	}
}
