package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/authz"
)

type listed struct {
	Items []struct {
		ID, Name, Role string
	}
	Cursor string
}

func (g *rig) list(path, token, query string) (l listed) {
	g.t.Helper()
	a := g.ask("GET", path+query, token, "")
	if a.status != http.StatusOK {
		g.t.Fatalf("%s%s: %d %s", path, query, a.status, a.body)
	}
	must(g.t, json.Unmarshal([]byte(a.body), &l))
	return l
}

func (l listed) ids() (ids []string) {
	for _, i := range l.Items {
		ids = append(ids, i.ID+i.Name)
	}
	return ids
}

// Every list, page by page, is the list whole: the same items, the same order, none twice.
func TestEveryListComesInPages(t *testing.T) {
	g := newRig(t)
	doc := document(t, g)
	owner := g.token[authz.Owner]
	for i := range 7 {
		for _, c := range [][2]string{{"groups", `{"name":"g%d"}`}, {"join-tokens", `{"group":"site"}`}, {"connections", `{"name":"c%d","group":"site","profile":"p"}`}, {"roles", `{"name":"r%d","actions":["connection.query"]}`},
			{"projects", `{"name":"p%d"}`}, {"projects/p0/folders", `{"path":"f%d"}`}, {"teams", `{"name":"t%d"}`}, {"users", `{"name":"u%d","roles":["analyst"]}`}} {
			body := c[1]
			if strings.Contains(body, "%d") {
				body = fmt.Sprintf(body, i)
			}
			if a := g.ask("POST", "/workspaces/default/"+c[0], owner, body); a.status != 201 {
				t.Fatalf("%s: %d %s", c[0], a.status, a.body)
			}
		}
	}
	me := g.person("bertha", authz.Owner)
	for range 4 {
		g.signIn("bertha", goodPassword, "")
	}
	pages := 0
	for _, r := range g.api.Routes() {
		if r.Method != "GET" || strings.Contains(r.Path, "{connection}") || r.Path == "/openapi.json" || r.Path == "/tunnel" {
			continue
		}
		op := doc.Paths.Value(r.Path).Get
		ok := op.Responses.Status(200)
		if ok == nil || ok.Value.Content.Get("application/json") == nil {
			continue
		}
		s := ok.Value.Content.Get("application/json").Schema.Value
		if s.Properties["items"] == nil || s.Properties["cursor"] == nil {
			if s.Properties["items"] != nil {
				t.Errorf("%s has items and no cursor", r.Path)
			}
			continue
		}
		path := fill(r.Path, "default", "p0")
		whole := g.list(path, me, "")
		for _, limit := range []int{1, 3} {
			var got []string
			for cursor := ""; ; {
				l := g.list(path, me, "?limit="+fmt.Sprint(limit)+"&cursor="+url.QueryEscape(cursor))
				if len(l.Items) > limit || l.Cursor != "" && len(l.Items) != limit {
					t.Fatalf("%s: %d items, limit %d", path, len(l.Items), limit)
				}
				got, cursor = append(got, l.ids()...), l.Cursor
				if pages++; cursor == "" {
					break
				}
				if len(got) > 1000 {
					t.Fatalf("%s does not end", path)
				}
			}
			if !slices.Equal(got, whole.ids()) {
				t.Errorf("%s by %d: %q, whole %q", path, limit, got, whole.ids())
			}
		}
		for _, bad := range []string{"limit=0", "limit=-1", "limit=x", "limit=1&limit=2", "cursor=x", "cursor=" + strings.Repeat("A", 80), "cursor=a&cursor=b", "limit=99999999999999999999"} {
			if a := g.ask("GET", path+"?"+bad, me, ""); a.status != http.StatusBadRequest {
				t.Errorf("%s?%s: %d %s", path, bad, a.status, a.body)
			}
		}
		if l := g.list(path, me, "?limit=1000000"); !slices.Equal(l.ids(), whole.ids()) {
			t.Errorf("%s: more than may be asked for gives %d", path, len(l.Items))
		}
	}
	if pages < 60 {
		t.Errorf("%d pages only", pages)
	}
	if l := g.list("/workspaces/default/roles", me, "?limit=4"); strings.Join(l.ids(), " ") != "owner admin operator analyst" {
		t.Errorf("%q", l.ids())
	}
}

// J15, P9: a cursor of another list, of another workspace or of another person is none, and so is one that was changed.
func TestCursorsCountInTheirOwnListAlone(t *testing.T) {
	t.Run("J15 a cursor of another's list", testCursorsCountInTheirOwnListAlone)
}

func testCursorsCountInTheirOwnListAlone(t *testing.T) {
	g := newRig(t)
	admin := g.token[authz.Admin]
	must(t, g.dir.SetAllowlist(t.Context(), "other", g.own.Prefixes, g.own.Prefixes[0].Addr(), true))
	for _, ws := range []string{"default", "other"} {
		_, err := g.dir.CreateGroup(t.Context(), ws, "another")
		must(t, err)
	}
	me, them := g.person("bertha", authz.Admin), g.person("carla", authz.Admin)
	g.signIn("bertha", goodPassword, "")
	cursor := g.list("/workspaces/default/groups", admin, "?limit=1").Cursor
	theirs := g.list("/workspaces/other/groups", g.foreign, "?limit=1").Cursor
	mine := g.list("/account/sessions", me, "?limit=1").Cursor
	if cursor == "" || theirs == "" || mine == "" || strings.Contains(cursor, "another") {
		t.Fatalf("%q %q %q", cursor, theirs, mine)
	}
	if l := g.list("/workspaces/default/groups", g.token[authz.Operator], "?cursor="+cursor); len(l.Items) == 0 {
		t.Error("a cursor is a place, and whoever may see the list may go on there")
	}
	for _, c := range [][3]string{{"/workspaces/default/agents", admin, cursor}, {"/workspaces/default/connections", admin, cursor}, {"/workspaces/other/groups", g.foreign, cursor},
		{"/workspaces/default/groups", admin, theirs}, {"/account/sessions", them, mine}, {"/workspaces/default/sessions", me, mine},
		{"/workspaces/default/groups", admin, cursor[:len(cursor)-1]}, {"/workspaces/default/groups", admin, cursor + "A"}, {"/workspaces/default/groups", admin, "z" + cursor[1:]}} {
		a := g.ask("GET", c[0]+"?cursor="+c[2], c[1], "")
		if a.status != http.StatusBadRequest || a.problem.Detail != "parameter cursor: not one of this list" {
			t.Errorf("%v: %d %s", c, a.status, a.body)
		}
	}
}

// What comes or goes between two pages shifts nothing: no item that was there throughout is missed or told twice.
func TestCursorsStandStillWhileTheListChanges(t *testing.T) {
	g := newRig(t)
	admin := g.token[authz.Admin]
	const path = "/workspaces/default/groups"
	do := func(method, path, body string) {
		t.Helper()
		if a := g.ask(method, path, admin, body); a.status >= 300 {
			t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
		}
	}
	for _, n := range []string{"b", "d", "f", "h"} {
		do("POST", path, `{"name":"`+n+`"}`)
	}
	name := func(l listed) (s string) {
		for _, i := range l.Items {
			s += i.Name + " "
		}
		return s
	}
	first := g.list(path, admin, "?limit=3") // b d default
	do("DELETE", path+"/b", "")
	do("POST", path, `{"name":"a"}`)
	do("POST", path, `{"name":"g"}`)
	do("POST", path, `{"name":"c"}`)
	second := g.list(path, admin, "?limit=2&cursor="+first.Cursor)
	do("DELETE", path+"/g", "") // the very one that the cursor stands on
	third := g.list(path, admin, "?limit=9&cursor="+second.Cursor)
	if name(first)+"| "+name(second)+"| "+name(third) != "b d default | f g | h site " {
		t.Errorf("%s| %s| %s", name(first), name(second), name(third))
	}
}
