package api_test

import (
	"bytes"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

const goneID = "aaaaaaaaaaaaaaaaaaaaaaaaaa"

// twin is a thing by each way in which it is named, and what is called likewise and is not there.
type twin struct{ there, gone []string }

// theirs makes one real thing of each kind in the other workspace: by what stands before it in a path, and by what a field names.
func (g *rig) theirs() map[string]twin {
	g.t.Helper()
	const other = "/workspaces/other/"
	idOf := func(path, body string) string {
		var o struct{ ID string }
		g.get("POST", other+path, g.foreign, body, &o)
		return o.ID
	}
	named := func(kind, name, id, prefix string) twin {
		if id == "" {
			g.t.Fatalf("%s has no id", kind)
		}
		return twin{[]string{name, id}, []string{"gone", prefix + "_" + goneID}}
	}
	things := map[string]twin{"connections": named("connections", "other-shop", g.otherConn, "con")}
	things["groups"] = named("groups", "their-group", idOf("groups", `{"name":"their-group"}`), "grp")
	things["projects"] = named("projects", "their-project", idOf("projects", `{"name":"their-project"}`), "prj")
	things["folders"] = named("folders", "their-folder", idOf("projects/their-project/folders", `{"path":"their-folder"}`), "fol")
	things["service-accounts"] = named("service-accounts", "their-robot", idOf("service-accounts", `{"name":"their-robot"}`), "usr")
	idOf("roles", `{"name":"their-role","actions":["connection.query"]}`)
	idOf("teams", `{"name":"their-team"}`)
	idOf("domains", `{"name":"theirs.apps.example"}`)
	things["roles"] = twin{[]string{"their-role"}, []string{"gone"}}
	things["teams"] = twin{[]string{"their-team"}, []string{"gone"}}
	things["domains"] = twin{[]string{"theirs.apps.example"}, []string{"gone.apps.example"}}
	byID := func(id, prefix string) twin {
		if id == "" {
			g.t.Fatalf("no %s_", prefix)
		}
		return twin{[]string{id}, []string{prefix + "_" + goneID}}
	}
	things["tokens"] = byID(idOf("tokens", `{"name":"their-token","roles":["analyst"]}`), "tok")
	things["join-tokens"] = byID(idOf("join-tokens", `{"group":"their-group"}`), "jtk")
	things["grants"] = byID(idOf("grants", `{"role":"their-role","team":"their-team"}`), "gra")
	things["agents"] = byID(g.agentIn("other", "their-group"), "agt")
	var made client.UserCode
	g.get("POST", other+"users", g.foreign, `{"name":"otto","roles":["analyst"]}`, &made)
	things["users"] = named("users", "otto", made.ID, "usr")
	things["members"] = twin{append(slices.Clone(things["service-accounts"].there), things["users"].there...), append(slices.Clone(things["service-accounts"].gone), things["users"].gone...)}
	for _, m := range []string{"otto", "their-robot"} {
		g.get("PUT", other+"teams/their-team/members/"+m, g.foreign, "", nil)
	}
	g.get("POST", "/sign-in/first", "", `{"workspace":"other","user":"otto","code":"`+made.Code+`","password":"`+goodPassword+`"}`, nil)
	var in client.SignedIn
	g.get("POST", "/sign-in", "", strings.Replace(signInBody("otto", goodPassword, ""), "default", "other", 1), &in)
	_, key, session := g.addPasskey(in.Session)
	things["passkeys"] = byID(key, "pky")
	var l client.List[client.Session]
	g.get("GET", "/account/sessions", session, "", &l)
	things["sessions"] = byID(l.Items[0].ID, "ses")
	// By a field of a body.
	for field, kind := range fieldNames {
		if kind == "folder" {
			things[kind] = things["folders"]
		} else if _, ok := things[kind]; !ok {
			g.t.Fatalf("the field %s names a thing of the kind %s, of which the other workspace has none", field, kind)
		}
	}
	return things
}

// agentIn enrols an agent into a group of a workspace, and gives its id.
func (g *rig) agentIn(workspace, group string) string {
	g.t.Helper()
	_, ticket, err := g.dir.CreateJoinToken(g.t.Context(), workspace, group, 0, "")
	must(g.t, err)
	key := bytes.Repeat([]byte{7}, 32)
	a, err := g.dir.Enroll(g.t.Context(), ticket, directory.Enrolment{Hostname: "host", OS: "linux", Arch: "amd64", Version: "1", SPKI: key, LogKey: key, SourceAddress: netip.MustParseAddr("192.0.2.7")},
		func(string, string, string) (directory.Certificate, error) {
			return directory.Certificate{Serial: "s1", SPKI: key, NotAfter: time.Now().Add(time.Hour)}, nil
		})
	must(g.t, err)
	return a.ID
}

// goodBodies are what each route that names a thing takes, so that none is refused before the thing is looked for. {project} is one
// of the workspace that is asked.
func goodBodies(port string) map[string]string {
	const sql = `{"sql":"select 1"}`
	return map[string]string{
		"PUT connections/{name}/gateway": `{"address":"` + port + `"}`, "PUT connections/{name}/place": `{"project":"{project}"}`, "PUT connections/{name}/budget": `{"concurrent":5}`,
		"POST projects/{name}/folders": `{"path":"x"}`, "PUT projects/{name}": `{"name":"x"}`, "PUT roles/{name}": `{"name":"x","actions":["connection.query"]}`,
		"POST users/{id}/code": `{"expires_in_seconds":600}`, "PUT users/{id}/email": `{"email":"anna@example.com"}`,
		"POST connections/{connection}/query": sql, "POST connections/{connection}/exec": sql, "POST connections/{connection}/transaction": `{"statements":[` + sql + `]}`,
		"POST connections/{connection}/move": `{"from":"a","to":"b"}`, "POST connections/{connection}/mkdir": `{"path":"a"}`,
	}
}

// P9, J1, J9: another workspace's thing, asked for in one's own by whatever names it, answers on every route exactly as one that is not
// there: by name and by id, in the path and in the body, whatever the role and the conditions.
func TestMatrixOfForeignThings(t *testing.T) {
	t.Run("J1 J9 P9 things of another workspace, on every route", testMatrixOfForeignThings)
}

func testMatrixOfForeignThings(t *testing.T) {
	g := newRig(t)
	g.projects()
	g.makes([2]string{"teams", `{"name":"night"}`}, [2]string{"service-accounts", `{"name":"mate"}`}, [2]string{"service-accounts", `{"name":"keeper"}`})
	theirs := g.theirs()
	must(t, g.dir.SetSignIn(t.Context(), "default", directory.SignIn{PersonalTokens: time.Hour}))
	me := g.person("anna", authz.Owner)
	// What stands at the other places of a path that names two things.
	own := map[string]string{"projects": "sales", "folders": "reports", "teams": "night", "members": "mate"}
	others := map[string]string{"projects": "their-project", "folders": "their-folder", "teams": "their-team", "members": "their-robot"}
	bodies, taken := goodBodies(freePort(t)), map[string]bool{}
	askers := map[string]string{"owner, by a session": me}
	for role, token := range g.token {
		askers[string(role)] = token
	}
	doc := document(t, g)
	lists := func() string {
		var all strings.Builder
		for _, kind := range []string{"connections", "groups", "projects", "projects/their-project/folders", "service-accounts", "roles", "teams", "domains", "grants", "agents", "users", "join-tokens"} {
			a := g.ask("GET", "/workspaces/other/"+kind, g.foreign, "")
			if a.status != http.StatusOK {
				t.Fatalf("%s: %d %s", kind, a.status, a.body)
			}
			all.WriteString(a.body)
		}
		return all.String()
	}
	before, beforeTheirs, asked := g.count(), lists(), 0
	conditions := map[string]func(*http.Request){"": func(*http.Request) {}, " with If-Match": onlyIf(`"AAAAAAAAAAAAAAAAAAAA"`), " if it is there": onlyIf("*")}
	// hold gives the answers to what is there and to what is not: the same, and that nothing is there if the asker may.
	hold := func(what, method, path, token, body, there, gone string, may bool) {
		t.Helper()
		for when, edit := range conditions {
			ask := func(x string) answer {
				asked++
				return g.ask(method, strings.ReplaceAll(path, "{x}", x), token, strings.ReplaceAll(body, "{x}", x), edit)
			}
			a, b := ask(there), ask(gone)
			if same(a) != same(b) || may && a.status != http.StatusNotFound || a.status < 400 {
				t.Errorf("P9 %s%s: %q of another workspace answers\n%s; %q, which is not there,\n%s", what, when, there, same(a), gone, same(b))
			}
		}
	}
	for _, r := range g.api.Routes() {
		rest, below := strings.CutPrefix(r.Path, "/workspaces/{workspace}/")
		if !below {
			rest = strings.TrimPrefix(r.Path, "/account/")
		}
		if !strings.Contains(rest, "{") {
			continue
		}
		body, hasBody := bodies[r.Method+" "+rest]
		taken[r.Method+" "+rest] = true
		if rb := doc.Paths.Value(strings.ReplaceAll(r.Path, "...}", "}")).GetOperation(r.Method).RequestBody; rb != nil && rb.Value.Content.Get("application/json") != nil && !hasBody {
			t.Errorf("%s %s: no body that it takes stands here", r.Method, r.Path)
		}
		parts := strings.Split(r.Path, "/")
		for at, part := range parts {
			if part == "{workspace}" || part == "{path...}" || !strings.HasPrefix(part, "{") {
				continue
			}
			thing, ok := theirs[parts[at-1]]
			if !ok {
				t.Errorf("%s %s: the other workspace has nothing of the kind %q", r.Method, r.Path, parts[at-1])
				continue
			}
			path := func(workspace string, places map[string]string) string {
				p := slices.Clone(parts)
				for i := range p {
					switch {
					case p[i] == "{workspace}":
						p[i] = workspace
					case p[i] == "{path...}":
						p[i] = "a/b.txt"
					case i == at:
						p[i] = "{x}"
					case strings.HasPrefix(p[i], "{"):
						if p[i] = places[p[i-1]]; p[i] == "" {
							t.Fatalf("%s: nothing of one's own stands at %d", r.Path, i)
						}
					}
				}
				return strings.Join(p, "/")
			}
			for who, token := range askers {
				role := authz.Role(who)
				if token == me {
					role = authz.Owner
				} else if !below {
					continue // a token has no account
				}
				for n := range thing.there {
					hold(r.Method+" "+r.Path+" as "+who, r.Method, path("default", own), token, strings.ReplaceAll(body, "{project}", "sales"), thing.there[n], thing.gone[n], r.Action == "" || role.Allows(authz.Action(r.Action)))
				}
			}
			if !below {
				continue
			}
			// The walk itself: at home the thing is found, by each name. A condition that does not hold keeps what is there as it is.
			for n, name := range thing.there {
				home := strings.ReplaceAll(path("other", others), "{x}", name)
				a := g.ask(r.Method, home, g.foreign, strings.ReplaceAll(body, "{project}", "their-project"), conditions[" with If-Match"])
				b := g.ask(r.Method, strings.ReplaceAll(path("other", others), "{x}", thing.gone[n]), g.foreign, strings.ReplaceAll(body, "{project}", "their-project"), conditions[" with If-Match"])
				if found := !changing(r) && a.status == http.StatusOK || changing(r) && a.status >= 400; part != "{connection}" && !strings.HasSuffix(r.Path, "/tunnel") && (!found || same(a) == same(b)) {
					t.Errorf("%s %s: at home %q answers %d %s; %q %d %s", r.Method, r.Path, name, a.status, a.body, thing.gone[n], b.status, b.body)
				}
			}
		}
	}
	for route := range bodies {
		if !taken[route] {
			t.Errorf("%s is no route that names a thing", route)
		}
	}
	// By a field of a body; seen_test.go holds the list of fields to the document.
	for key, body := range namingBodies {
		method, rest, _ := strings.Cut(key, " ")
		short, field, _ := strings.Cut(rest, " ")
		thing, path, token := theirs[fieldNames[field[strings.LastIndexByte(field, '.')+1:]]], "/workspaces/default"+strings.ReplaceAll(short, "{name}", "orders"), g.token[authz.Owner]
		if strings.HasPrefix(short, "/account") {
			path, token = short, me
		}
		for n := range thing.there {
			hold(key, method, path, token, body, thing.there[n], thing.gone[n], false)
			if a := g.ask(method, path, token, strings.ReplaceAll(body, "{x}", thing.there[n])); a.status != http.StatusNotFound {
				t.Errorf("P9 %s by %q: %d %s", key, thing.there[n], a.status, a.body)
			}
		}
	}
	for query, kind := range map[string]string{"principal={x}&action=query&connection=orders": "users", "principal={x}&action=query&connection=till": "service-accounts", "principal=mate&action=query&connection={x}": "connections",
		"principal=mate&action=connections.manage&project={x}": "projects", "principal=mate&action=connections.manage&project=sales&folder={x}": "folders"} {
		for n := range theirs[kind].there {
			hold("explain "+query, "GET", "/workspaces/default/explain?"+query, g.token[authz.Owner], "", theirs[kind].there[n], theirs[kind].gone[n], true)
		}
	}
	if now, nowTheirs := g.count(), lists(); now != before || nowTheirs != beforeTheirs {
		t.Errorf("something was done: %s, was %s; the other workspace has\n%s, had\n%s", now, before, nowTheirs, beforeTheirs)
	}
	if want := 2000; asked < want {
		t.Errorf("only %d requests for %v", asked, slices.Sorted(maps.Keys(theirs)))
	}
}
