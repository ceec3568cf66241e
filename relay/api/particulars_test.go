package api_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/relay/api"
	"github.com/fairleadhq/fairlead/relay/authz"
)

// last gives the newest event of a kind; of a change, how it ended, which is written after the answer.
func (g *rig) last(kind audit.Kind) (ev audit.Event) {
	g.t.Helper()
	log, err := g.logs.Get(g.now().ID)
	must(g.t, err)
	late := time.After(10 * time.Second)
	for {
		changed := log.Changed()
		texts := g.events()
		for i := len(texts) - 1; i >= 0; i-- {
			ev = audit.Event{}
			must(g.t, json.Unmarshal([]byte(texts[i]), &ev))
			if ev.Kind == kind && (ev.Status != "" || kind != audit.KindChange) {
				return ev
			} else if ev.Kind == kind {
				break
			}
		}
		select {
		case <-changed:
		case <-late:
			g.t.Fatalf("no %s", kind)
		}
	}
}

// tellsOf holds the record of a change against its answer: it says which thing was changed.
func (g *rig) tellsOf(r api.Route, a answer) {
	g.t.Helper()
	switch {
	case r.Method == "GET" || a.status >= 300 || !strings.HasPrefix(r.Path, "/workspaces/{workspace}/"):
		return
	case strings.HasSuffix(r.Path, "/tunnel"), strings.HasSuffix(r.Path, "/replay"), strings.Contains(r.Path, "{connection}"):
		return
	}
	ev := g.last(audit.KindChange)
	var made struct{ ID string }
	_ = json.Unmarshal([]byte(a.body), &made)
	if ev.Detail["id"] == "" && ev.Detail["settings"] == "" || made.ID != "" && ev.Detail["id"] != made.ID {
		g.t.Errorf("%s %s: the record does not tell of what was changed: %v, the answer is %s", r.Method, r.Path, ev.Detail, a.body)
	}
}

// Who gave what to whom, where and until when, is in the record, by ids; and so is what was refused.
func TestRecordsOfChangesTellWhatWasChanged(t *testing.T) {
	g := newRig(t)
	g.projects()
	owner, ws := g.token[authz.Owner], "/workspaces/default"
	g.nobody("local")
	w := g.now()
	local, err := w.FindPrincipal("local")
	must(t, err)
	sales, err := w.Project("sales")
	must(t, err)
	reports, err := sales.Folder("reports")
	must(t, err)
	plant, err := w.Project("plant")
	must(t, err)
	press, err := w.Connection("press")
	must(t, err)
	orders, err := w.Connection("orders")
	must(t, err)
	do := func(method, path, body string, want int) answer {
		t.Helper()
		a := g.ask(method, ws+path, owner, body)
		if a.status != want {
			t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
		}
		return a
	}
	tells := func(kind audit.Kind, want map[string]string) {
		t.Helper()
		ev := g.last(kind)
		for k, v := range want {
			if got := ev.Detail[k]; got != v {
				t.Errorf("%s %s: %s is %q, want %q, in %v", ev.Target, kind, k, got, v, ev.Detail)
			}
		}
	}

	made := g.give(`{"role":"operator","principal":"local","project":"sales","folder":"reports","environment":"test","until":"2199-01-01T00:00:00Z","from":["192.0.2.0/24"]}`)
	tells(audit.KindChange, map[string]string{"id": made.ID, "role": "operator", "principal": local.ID, "project": sales.ID, "folder": reports.ID, "environment": "test",
		"expires_at": "2199-01-01T00:00:00Z", "prefixes": "192.0.2.0/24", "old": ""})
	do("DELETE", "/grants/"+made.ID, "", 204)
	tells(audit.KindChange, map[string]string{"id": made.ID, "role": "operator", "principal": local.ID})

	g.give(`{"role":"admin","principal":"local","project":"sales"}`)
	token := g.newToken("small", 0, authz.Admin)
	if a := g.ask("POST", ws+"/grants", token, `{"role":"owner","principal":"local"}`); a.status != 403 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	tells(audit.KindDenied, map[string]string{"role": "owner", "principal": local.ID})

	do("PUT", "/connections/press/place", `{"project":"sales","folder":"reports"}`, 200)
	tells(audit.KindChange, map[string]string{"id": press.ID, "project": sales.ID, "folder": reports.ID, "profile": "p", "old": "folder=; project=" + plant.ID})
	do("PUT", "/connections/press/place", `{}`, 200)
	tells(audit.KindChange, map[string]string{"project": "", "folder": "", "old": "folder=" + reports.ID + "; project=" + sales.ID})

	do("POST", "/roles", `{"name":"reader","actions":["connection.query"]}`, 201)
	do("PUT", "/roles/reader", `{"name":"looker","actions":["connection.schema"]}`, 200)
	tells(audit.KindChange, map[string]string{"actions": "connection.schema", "old": "actions=connection.query"})

	do("POST", "/teams", `{"name":"night"}`, 201)
	do("PUT", "/teams/night/members/local", "", 200)
	tells(audit.KindChange, map[string]string{"principal": local.ID, "state": "member", "old": "state=no member"})
	held := g.give(`{"role":"analyst","team":"night"}`)
	do("DELETE", "/teams/night", "", 204)
	tells(audit.KindChange, map[string]string{"principals": local.ID, "grants": held.ID})

	do("PUT", "/connections/orders/budget", `{"concurrent":5}`, 200)
	tells(audit.KindChange, map[string]string{"id": orders.ID, "settings": "rate=0 burst=0 concurrent=5 egress=0", "old": "settings="})
	do("PUT", "/allowlist", `{"prefixes":["192.0.2.0/24","198.51.100.0/24"]}`, 200)
	if ev := g.last(audit.KindChange); !strings.Contains(ev.Detail["settings"], "callers 2 sha256:") || !strings.Contains(ev.Detail["old"], "settings=callers ") || ev.Detail["count"] != "2" {
		t.Errorf("%v", ev.Detail)
	}
	do("PUT", "/sign-in-policy", `{"min_length":20}`, 200)
	if ev := g.last(audit.KindChange); !strings.Contains(ev.Detail["settings"], "min_length=20") || !strings.Contains(ev.Detail["old"], "min_length=15") {
		t.Errorf("%v", ev.Detail)
	}

	do("POST", "/tokens", `{"name":"t4","principal":"local","only":{"actions":["connection.query"],"connections":["orders"],"from":["192.0.2.0/24"]}}`, 201)
	tells(audit.KindChange, map[string]string{"principal": local.ID, "actions": "connection.query", "connections": orders.ID, "prefixes": "192.0.2.0/24"})
	if ev := g.last(audit.KindChange); strings.Contains(g.events()[len(g.events())-1], "flt_") || ev.Detail["expires_at"] == "" {
		t.Errorf("%v", ev.Detail)
	}

	// what is about to be done is told of before it is done, too
	do("DELETE", "/connections/till", "", 204)
	g.last(audit.KindChange)
	var intent audit.Event
	texts := g.events()
	must(t, json.Unmarshal([]byte(texts[len(texts)-2]), &intent))
	if intent.Status != "" || intent.Detail["id"] == "" || intent.Detail["profile"] != "p" || intent.Detail["environment"] != "test" {
		t.Errorf("the intent tells %v", intent)
	}

	g.person("anna", authz.Analyst)
	p, err := g.now().FindPrincipal("anna")
	must(t, err)
	do("PUT", "/users/anna/email", `{"email":"anna@example.com"}`, 200)
	ev := g.last(audit.KindChange)
	if ev.Detail["id"] != p.ID || strings.Contains(ev.Detail["old"], "@") || ev.Detail["roles"] != p.Grants[0].ID+" analyst" {
		t.Errorf("%v", ev.Detail)
	}
	do("POST", "/users/anna/disable", "", 204)
	tells(audit.KindChange, map[string]string{"state": "disabled", "old": "state=enabled"})
	for _, s := range g.events() {
		if strings.Contains(s, "anna@example.com") || strings.Contains(s, `"anna"`) {
			t.Errorf("a name is in the log: %s", s)
		}
	}
}

// A person's own tokens: which, and with what limits.
func TestRecordsOfOwnTokensTellOfThem(t *testing.T) {
	g := newRig(t)
	if a := g.ask("PUT", "/workspaces/default/sign-in-policy", g.token[authz.Owner], `{"personal_token_seconds":86400}`); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s := g.person("anna", authz.Analyst)
	var made struct{ ID string }
	g.get("POST", "/account/tokens", s, `{"name":"laptop","only":{"environments":["development"]},"expires_in_seconds":3600}`, &made)
	ev := g.last(audit.KindChange)
	if ev.Detail["token_id"] != made.ID || ev.Detail["environments"] != "development" || !strings.HasPrefix(ev.Detail["id"], "ses_") {
		t.Errorf("%v", ev.Detail)
	}
	g.get("DELETE", "/account/tokens/"+made.ID, s, "", nil)
	if ev = g.last(audit.KindChange); ev.Detail["token_id"] != made.ID {
		t.Errorf("%v", ev.Detail)
	}
}

// What somebody set stands in a record, also where somebody else was faster.
func TestWhatWasSetStandsInARecordWhoeverWasFaster(t *testing.T) {
	g := newRig(t)
	for round := range 15 {
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() {
				rate := strconv.Itoa(5000 + 2*round + i)
				if a := g.ask("PUT", "/workspaces/default/budget", g.token[authz.Owner], `{"rate":`+rate+`,"burst":`+rate+`}`); a.status != 200 {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		wg.Wait()
	}
	g.makes([2]string{"groups", `{"name":"last"}`})
	g.last(audit.KindChange)
	said := strings.Join(g.events(), "\n")
	for rate := 5000; rate < 5030; rate++ {
		if !strings.Contains(said, "rate="+strconv.Itoa(rate)+" ") {
			t.Errorf("rate %d was set, and no record says so", rate)
		}
	}
}
