package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// J4: a place in the workspace is no boundary towards sites. Who manages connections in a part of it leads none to what nobody led
// there before: not by making, with or without a gateway, nor by moving away what he has and making it again; and the refusal does
// not tell which groups there are.
func TestPartOfTheWorkspaceLeadsNoConnectionToAnotherSite(t *testing.T) {
	t.Run("J4 no connection to another site", testPartOfTheWorkspaceLeadsNoConnectionToAnotherSite)
}

func testPartOfTheWorkspaceLeadsNoConnectionToAnotherSite(t *testing.T) {
	g := newRig(t)
	g.projects()
	g.makes([2]string{"groups", `{"name":"lab","environment":"development"}`}, [2]string{"groups", `{"name":"vault","environment":"production"}`},
		[2]string{"connections", `{"name":"wages","group":"vault","profile":"wages"}`}, [2]string{"connections", `{"name":"erp","group":"vault","target":{"host":"erp.corp","port":3200},"project":"sales"}`})
	local, inner, lab, whole := g.nobody("local"), g.nobody("inner"), g.nobody("lab"), g.nobody("whole")
	g.give(`{"role":"admin","principal":"local","project":"sales"}`)
	g.give(`{"role":"admin","principal":"inner","project":"sales","folder":"reports"}`)
	g.give(`{"role":"operator","principal":"lab","environment":"development"}`)
	g.give(`{"role":"operator","principal":"whole"}`)
	g.nobody("narrow")
	g.give(`{"role":"operator","principal":"narrow"}`)
	limited, _ := g.tokenOf("/workspaces/default/tokens", g.token[authz.Owner], `{"name":"limited","principal":"narrow","only":{"projects":["sales"]}}`)
	const own = "/workspaces/default/connections"
	before := g.count()
	for what, c := range map[string]struct{ token, body string }{
		"another profile of the group":        {local, `{"name":"x","group":"site","profile":"wages","project":"sales"}`},
		"another group":                       {local, `{"name":"x","group":"vault","profile":"wages","project":"sales"}`},
		"a group that is not there":           {local, `{"name":"x","group":"gone","profile":"wages","project":"sales"}`},
		"a target beside":                     {local, `{"name":"x","group":"vault","target":{"host":"erp.corp","port":22},"project":"sales"}`},
		"what leads elsewhere from a folder":  {inner, `{"name":"x","group":"vault","target":{"host":"erp.corp","port":3200},"project":"sales","folder":"reports"}`},
		"an environment, another's group":     {lab, `{"name":"x","group":"vault","profile":"wages"}`},
		"an environment, a group of none":     {lab, `{"name":"x","group":"site","profile":"p","environment":"development"}`},
		"the same in another environment":     {local, `{"name":"x","group":"site","profile":"p","project":"sales","environment":"development"}`},
		"a token that is limited to projects": {limited, `{"name":"x","group":"vault","profile":"wages","project":"sales"}`},
	} {
		a := g.ask("POST", own, c.token, c.body)
		why := "connections.create on the workspace"
		if c.token == limited {
			why = `"rule":"token.only"`
		}
		if a.status != 403 || !strings.Contains(a.body, "you may not lead a connection there") || !strings.Contains(a.body, why) {
			t.Errorf("J4 %s: %d %s", what, a.status, a.body)
		}
	}
	missing, there := g.ask("POST", own, local, `{"name":"x","group":"gone","profile":"wages","project":"sales"}`), g.ask("POST", own, local, `{"name":"x","group":"vault","profile":"wages","project":"sales"}`)
	if missing.status != there.status || missing.shape() != there.shape() {
		t.Errorf("a group that is there is told from one that is not: %s; %s", there.body, missing.body)
	}
	if a := g.ask("POST", own, local, `{"name":"x","group":"vault","profile":"wages","project":"sales","gateway":{"address":"`+freePort(t)+`"}}`); a.status != 403 {
		t.Errorf("J4 with a gateway: %d %s", a.status, a.body)
	}
	if g.count() != before {
		t.Error("J4 something was made")
	}
	said := 0
	for _, ev := range g.events() {
		if strings.Contains(ev, "operation.denied") && strings.Contains(ev, "you may not lead a connection there") && strings.Contains(ev, `"profile":"wages"`) {
			said++
		}
	}
	if said < 5 {
		t.Errorf("%d refusals stand in the log", said)
	}

	for what, c := range map[string]struct{ token, body string }{
		"what he manages already":              {local, `{"name":"again","group":"vault","target":{"host":"ERP.corp","port":3200},"project":"sales","folder":"reports"}`},
		"the same in the same environment":     {local, `{"name":"more","group":"site","profile":"p","project":"sales","environment":"test"}`},
		"a folder's, in the folder":            {inner, `{"name":"mine","group":"site","profile":"p","project":"sales","folder":"reports"}`},
		"anything of the environment's groups": {lab, `{"name":"any","group":"lab","profile":"anything"}`},
		"anything, by the whole workspace":     {whole, `{"name":"all","group":"vault","profile":"anything"}`},
	} {
		if a := g.ask("POST", own, c.token, c.body); a.status != 201 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}

	// When the last one that leads there is gone, or he no longer manages it, so is the right.
	for _, name := range []string{"again", "erp"} {
		if a := g.ask("DELETE", own+"/"+name, local, ""); a.status != 204 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if a := g.ask("POST", own, local, `{"name":"erp","group":"vault","target":{"host":"erp.corp","port":3200},"project":"sales"}`); a.status != 403 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// What is judged is what holds when it is written, not what held when the request came in.
func TestConnectionIsMadeByWhatHoldsWhenItIsWritten(t *testing.T) {
	g := newRig(t)
	g.nobody("late")
	grant := g.give(`{"role":"operator","principal":"late"}`)
	p, err := g.now().FindPrincipal("late")
	must(t, err)
	by := directory.By{ID: p.ID, At: authz.At{Time: time.Now()}}
	_, err = g.dir.CreateConnectionBy(t.Context(), by, "default", "site", directory.ConnectionBody{Name: "one", Profile: "p"})
	must(t, err)
	if a := g.ask("DELETE", "/workspaces/default/grants/"+grant.ID, g.token[authz.Owner], ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if _, err = g.dir.CreateConnectionBy(t.Context(), by, "default", "site", directory.ConnectionBody{Name: "two", Profile: "p"}); err == nil {
		t.Error("made by a right that was taken")
	}
	if _, err = g.dir.CreateConnectionBy(t.Context(), directory.By{ID: "usr_gone"}, "default", "site", directory.ConnectionBody{Name: "two", Profile: "p"}); err == nil {
		t.Error("made by nobody")
	}
}
