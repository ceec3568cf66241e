package api_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/plan"
)

var toTest = plan.Route{Project: "sales", From: "development", To: "test"}

// forPromotion makes a project with three connections in development, and what they need in test.
func (g *rig) forPromotion() {
	g.t.Helper()
	g.makes([2]string{"groups", `{"name":"lab","environment":"development"}`}, [2]string{"groups", `{"name":"plant-test","environment":"test"}`}, [2]string{"groups", `{"name":"live","environment":"production"}`},
		[2]string{"projects", `{"name":"sales"}`}, [2]string{"projects", `{"name":"other"}`}, [2]string{"projects/sales/folders", `{"path":"reports"}`}, [2]string{"projects/sales/folders", `{"path":"archive"}`},
		[2]string{"connections", `{"name":"orders-dev","group":"lab","profile":"orders","project":"sales","folder":"reports"}`},
		[2]string{"connections", `{"name":"erp-dev","group":"lab","target":{"host":"erp-dev.corp","port":3200},"project":"sales","gateway":{"address":"` + freePort(g.t) + `"}}`},
		[2]string{"connections", `{"name":"till-dev","group":"lab","profile":"till","project":"sales"}`},
		[2]string{"connections", `{"name":"beside","group":"lab","profile":"p"}`}, [2]string{"connections", `{"name":"elsewhere","group":"lab","profile":"p","project":"other"}`},
		[2]string{"connections", `{"name":"live","group":"live","profile":"p","project":"sales"}`})
	if a := g.ask("PUT", "/workspaces/default/connections/orders-dev/budget", g.token[authz.Owner], `{"concurrent":5}`); a.status != 200 {
		g.t.Fatal(a.body)
	}
}

const mapping = `version: 1
project: sales
connections:
  orders-dev: {name: orders-test, group: plant-test}
  erp-dev:
    name: erp-test
    group: plant-test
    target: {host: erp-test.corp}
    folder: archive
  till-dev: {name: till-test, group: site, profile: till-two}
`

func promoted(t *testing.T, c *client.Client, text string, r plan.Route) (*plan.Promotion, error) {
	t.Helper()
	m, err := plan.LoadMapping(written(t, text), r)
	if err != nil {
		return nil, err
	}
	return plan.Promote(t.Context(), c, r, m)
}

// What promote did, promote has nothing to do for; it removes nothing, and takes over nothing that it should not.
func TestPromoteCopiesAProjectAndIsDoneThen(t *testing.T) {
	g := newRig(t)
	g.forPromotion()
	c := g.dial(g.token[authz.Owner], nil)
	p, err := promoted(t, c, mapping, toTest)
	must(t, err)
	if want := []string{"create connection erp-test", "create connection orders-test", "create connection till-test"}; !slices.Equal(steps(p.Plan), want) || len(p.Same)+len(p.Skipped) != 0 {
		t.Fatalf("%q, want %q", steps(p.Plan), want)
	}
	if d := p.Steps[0].Detail; !slices.Equal(d, []string{"from erp-dev", "to erp-test.corp:3200 of group plant-test", "project sales/archive"}) {
		t.Errorf("%q", d)
	}
	if len(p.NotCopied) != 1 || !strings.HasPrefix(p.NotCopied[0], "gateway of erp-dev at 127.0.0.1:") {
		t.Errorf("%q", p.NotCopied)
	}
	before, err := c.Connections(t.Context())
	must(t, err)
	applied(t, c, p.Plan)
	after, err := c.Connections(t.Context())
	must(t, err)
	for _, k := range before {
		if !slices.ContainsFunc(after, func(o client.Connection) bool { return o.ID == k.ID && o.ETag == k.ETag }) {
			t.Errorf("%s is gone or another", k.Name)
		}
	}
	for name, want := range map[string]string{"orders-test": "plant-test orders test sales reports", "erp-test": "plant-test  test sales archive", "till-test": "site till-two test sales "} {
		k, err := c.Connection(t.Context(), name)
		must(t, err)
		if got := strings.Join([]string{k.Group, k.Profile, k.Environment, k.Project, k.Folder}, " "); got != want || k.Gateway != nil {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		b, err := c.Budget(t.Context(), name)
		must(t, err)
		if b.Set != (client.Limits{}) {
			t.Errorf("%s has a budget", name)
		}
	}
	p, err = promoted(t, c, mapping, toTest)
	must(t, err)
	if len(p.Steps) != 0 || !slices.Equal(p.Same, []string{"erp-test", "orders-test", "till-test"}) {
		t.Errorf("a second run: %q, same %q", steps(p.Plan), p.Same)
	}
	// Somebody moved the copy away: that is a change. What is skipped is left alone.
	for name, to := range map[string]client.SetPlace{"orders-test": {}, "erp-test": {Project: "sales", Folder: "reports"}} {
		_, err := c.MoveConnection(t.Context(), name, to)
		must(t, err)
	}
	p, err = promoted(t, c, strings.Replace(mapping, "{name: till-test, group: site, profile: till-two}", "{skip: true}", 1), toTest)
	must(t, err)
	if want := []string{"change connection erp-test", "change connection orders-test"}; !slices.Equal(steps(p.Plan), want) || !slices.Equal(p.Skipped, []string{"till-dev"}) ||
		!slices.Equal(p.Steps[0].Detail, []string{"from erp-dev", "+ project sales/archive", "- project sales/reports"}) || !slices.Equal(p.Steps[1].Detail, []string{"from orders-dev", "+ project sales/reports"}) {
		t.Errorf("%q %q, skipped %q", steps(p.Plan), p.Steps, p.Skipped)
	}
	applied(t, c, p.Plan)
	p, err = promoted(t, c, mapping, toTest)
	if must(t, err); len(p.Steps) != 0 {
		t.Errorf("%q", steps(p.Plan))
	}
}

// Every fault is told before anything is done, with file, line and field.
func TestPromoteRefusesAMappingThatDoesNotFit(t *testing.T) {
	g := newRig(t)
	g.forPromotion()
	g.makes([2]string{"connections", `{"name":"taken","group":"plant-test","profile":"else","project":"sales"}`}, [2]string{"connections", `{"name":"theirs","group":"plant-test","profile":"till","project":"other"}`})
	g.makes([2]string{"connections", `{"name":"wired","group":"plant-test","target":{"host":"a.corp","port":1},"project":"sales"}`})
	c := g.dial(g.token[authz.Owner], nil)
	const till = "  till-dev: {name: till-test, group: site, profile: till-two}\n"
	before := g.count()
	for name, e := range map[string]struct {
		text string
		says []string
	}{
		"no entry":                         {strings.Replace(mapping, till, "", 1), []string{":3:1: connections: connection till-dev stands in the project and the mapping does not name it"}},
		"what is not there":                {mapping + "  gone: {name: x, group: site}\n", []string{":11:3: connections.gone: no connection of this name stands in the project in environment development"}},
		"what stands in another":           {mapping + "  live: {name: x, group: site}\n  elsewhere: {skip: true}\n  beside: {name: y, group: site}\n", []string{":11:3: connections.live", ":12:3: connections.elsewhere", ":13:3: connections.beside"}},
		"a group of another environment":   {strings.Replace(mapping, "orders-test, group: plant-test", "orders-test, group: live", 1), []string{":4:", "connections.orders-dev.group: the agent group is of environment production"}},
		"no such group":                    {strings.Replace(mapping, "group: site", "group: gone", 1), []string{":10:", "connections.till-dev.group: there is no such agent group"}},
		"no group":                         {strings.Replace(mapping, ", group: site", "", 1), []string{":10:", "connections.till-dev.group: no agent group is named"}},
		"no name":                          {strings.Replace(mapping, "name: till-test, ", "", 1), []string{"connections.till-dev.name: the connection has no new name"}},
		"one name for two":                 {strings.Replace(mapping, "till-test", "erp-test", 1), []string{"connections.till-dev.name: connection erp-dev becomes this, too"}},
		"no such folder":                   {strings.Replace(mapping, "folder: archive", "folder: gone", 1), []string{":9:", "connections.erp-dev.folder: there is no such folder"}},
		"profile and target":               {strings.Replace(mapping, "    folder: archive", "    profile: erp", 1), []string{"connections.erp-dev.profile: want profile or target"}},
		"half a target":                    {strings.Replace(mapping, "profile: till-two", "target: {host: till.corp}", 1), []string{"connections.till-dev.target: want host and port"}},
		"no host":                          {strings.Replace(mapping, "erp-test.corp", "'010.1'", 1), []string{"connections.erp-dev.target.host: want a host name"}},
		"skipped and not":                  {strings.Replace(mapping, "name: till-test", "skip: true", 1), []string{"connections.till-dev: it is skipped, and becomes something"}},
		"an unknown key":                   {strings.Replace(mapping, "profile: till-two", "password: x", 1), []string{`connections.till-dev.password: unknown key`}},
		"another project's":                {strings.Replace(mapping, "project: sales", "project: plant", 1), []string{":2:", "project: the mapping is for plant, and sales was asked for"}},
		"another way":                      {"from: test\nto: production\n" + mapping, []string{"from: the mapping is for test", "to: the mapping is for production"}},
		"no version":                       {strings.Replace(mapping, "version: 1\n", "", 1), []string{"version: want the version"}},
		"the source's own name":            {strings.Replace(mapping, "name: till-test", "name: till-dev", 1), []string{"connections.till-dev.name: a connection of this name stands in environment development"}},
		"a name of another project":        {strings.Replace(mapping, "till-test, group: site, profile: till-two", "theirs, group: plant-test", 1), []string{"connections.till-dev.name: a connection of this name stands in project other"}},
		"what leads elsewhere":             {strings.Replace(mapping, "till-test", "taken", 1), []string{"connections.till-dev.group: the connection that is there is of group plant-test", "connections.till-dev.profile: the connection that is there leads to profile else, and shall lead to profile till-two", "keeps it for good"}},
		"a target that leads elsewhere":    {strings.Replace(mapping, "erp-test\n", "wired\n", 1), []string{"connections.erp-dev.target: the connection that is there leads to a.corp:1"}},
		"several at once, and all of them": {strings.NewReplacer(till, "", "orders-test, group: plant-test", "orders-test, group: live").Replace(mapping), []string{"till-dev stands", "connections.orders-dev.group"}},
	} {
		_, err := promoted(t, c, e.text, toTest)
		var faults config.Faults
		if !errors.As(err, &faults) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, s := range append(e.says, "workspace.yaml:") {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q is not in\n%v", name, s, err)
			}
		}
	}
	if _, err := promoted(t, c, strings.Replace(mapping, "project: sales\n", "", 1), plan.Route{Project: "gone", From: "development", To: "test"}); client.CodeOf(err) != protocol.CodeNotFound {
		t.Errorf("a project that is not there: %v", err)
	}
	if g.count() != before {
		t.Error("something was done")
	}
}

// J1, J4: the relay judges each connection as if it were made by hand, and promote shows nobody what they do not see.
func TestPromoteGivesNoMoreThanItsCallerMay(t *testing.T) {
	g := newRig(t)
	g.forPromotion()
	dev, lead, narrow := g.nobody("dev"), g.nobody("lead"), g.nobody("narrow")
	g.give(`{"role":"operator","principal":"dev","project":"sales","environment":"development"}`)
	g.give(`{"role":"operator","principal":"lead","project":"sales"}`)
	g.give(`{"role":"operator","principal":"narrow","project":"sales","folder":"reports"}`)
	before := g.count()
	const ofNarrow = "version: 1\nconnections:\n  orders-dev: {name: orders-test, group: plant-test}\n"
	for who, c := range map[string]struct{ token, mapping string }{"who may in the source alone": {dev, mapping}, "an analyst": {g.token[authz.Analyst], mapping},
		"the project's lead, of what leads to another site": {lead, mapping}, "a folder's, too": {narrow, ofNarrow}} {
		mapping := c.mapping
		c := g.dial(c.token, nil)
		p, err := promoted(t, c, mapping, toTest)
		must(t, err)
		if _, err := p.Apply(t.Context(), c, func(plan.Step) {}); client.CodeOf(err) != protocol.CodeDenied {
			t.Errorf("J1 %s: %v", who, err)
		}
	}
	if g.count() != before {
		t.Error("J1 something was made")
	}
	// Who sees a part promotes that part, into what they may.
	c := g.dial(narrow, nil)
	if _, err := promoted(t, c, mapping, toTest); err == nil || !strings.Contains(err.Error(), "connections.till-dev: no connection of this name") {
		t.Errorf("J1 it sees beyond its folder: %v", err)
	}
	g.makes([2]string{"connections", `{"name":"orders-first","group":"plant-test","profile":"orders","project":"sales","folder":"reports"}`})
	p, err := promoted(t, c, ofNarrow, toTest)
	must(t, err)
	applied(t, c, p.Plan)
	// Who may not list agent groups learns of a wrong one from the relay.
	g.give(`{"role":"operator","principal":"lead","environment":"test"}`)
	g.makes([2]string{"connections", `{"name":"till-first","group":"site","profile":"till-two","project":"sales","environment":"test"}`})
	c = g.dial(lead, nil)
	p, err = promoted(t, c, strings.Replace(mapping, "group: site", "group: live", 1), toTest)
	must(t, err)
	res, err := p.Apply(t.Context(), c, func(plan.Step) {})
	if client.CodeOf(err) != protocol.CodeDenied || res.Failed == nil || res.Failed.Name != "till-test" {
		t.Errorf("%v %+v", err, res)
	}
	p, err = promoted(t, c, mapping, toTest)
	must(t, err)
	if !slices.Equal(steps(p.Plan), []string{"create connection till-test"}) || !slices.Equal(p.Same, []string{"erp-test", "orders-test"}) {
		t.Errorf("it does not go on where it ended: %q, same %q", steps(p.Plan), p.Same)
	}
	applied(t, c, p.Plan)
	if !strings.Contains(strings.Join(g.events(), "\n"), "you may not do this: no grant allows connections.create") {
		t.Error("the refusal is not recorded")
	}
}

// What is proposed is read back, once what is open in it is said.
func TestAProposedMappingIsEditedAndTaken(t *testing.T) {
	g := newRig(t)
	g.forPromotion()
	c := g.dial(g.token[authz.Owner], nil)
	b, err := plan.ProposeMapping(t.Context(), c, toTest)
	must(t, err)
	name := filepath.Join(t.TempDir(), "map.yaml")
	must(t, os.WriteFile(name, b, 0o600))
	m, err := plan.LoadMapping(name, toTest)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	p, err := plan.Promote(t.Context(), c, toTest, m)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if want := []string{"create connection erp-test", "create connection orders-test", "create connection till-test"}; !slices.Equal(steps(p.Plan), want) {
		t.Errorf("%q of\n%s", steps(p.Plan), b)
	}
	// Where the group is not sure, it is left open, and that is refused.
	g.makes([2]string{"groups", `{"name":"plant-test-2","environment":"test"}`})
	b, err = plan.ProposeMapping(t.Context(), c, toTest)
	must(t, err)
	if _, err := plan.LoadMapping(written(t, string(b)), toTest); err == nil || strings.Count(err.Error(), "no agent group is named") != 3 || !strings.Contains(string(b), "# one of plant-test, plant-test-2") {
		t.Errorf("%v\n%s", err, b)
	}
	if b, err = plan.ProposeMapping(t.Context(), c, plan.Route{Project: "other", From: "production", To: "test"}); err != nil || !strings.Contains(string(b), "connections: {}") {
		t.Errorf("%v\n%s", err, b)
	}
}
