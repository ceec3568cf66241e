package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

const allowlistPath = "/workspaces/default/allowlist"

// comesFrom is a tunnel of an agent from an address.
type comesFrom struct {
	tunnel.Tunnel
	peer mtls.Identity
	addr string
}

func (c comesFrom) Peer() mtls.Identity { return c.peer }
func (c comesFrom) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.addr))
}

// connect makes an agent's tunnel live.
func (g *rig) connect(agent, addr string) {
	g.t.Helper()
	site, relay := tunnel.Memory(mtls.Identity{}, mtls.Identity{}, tunnel.DefaultConfig())
	g.t.Cleanup(func() { site.Close(); relay.Close() })
	g.hub.Add(comesFrom{relay, mtls.Identity{Role: mtls.RoleAgent, Workspace: g.own.ID, ID: agent}, addr}, protocol.Hello{Version: 1})
}

// signInFrom begins a session, and gives its text and id.
func (g *rig) signInFrom(name, addr string) (text, id string) {
	g.t.Helper()
	res, err := g.people.SignIn(g.t.Context(), authn.SignIn{Workspace: "default", User: name, Password: secret.FromString(goodPassword), Source: netip.MustParseAddr(addr)})
	must(g.t, err)
	s, _ := g.dir.Snapshot().FindSession(res.Text.ExposeString())
	return res.Text.ExposeString(), s.ID
}

// now gives the workspace as it stands.
func (g *rig) now() *directory.Workspace {
	g.t.Helper()
	w, err := g.dir.Snapshot().Workspace("default")
	must(g.t, err)
	return w
}

// dryRun asks who would be cut.
func (g *rig) dryRun(as, body string) (client.Allowlist, client.AllowlistCut) {
	g.t.Helper()
	var l client.Allowlist
	g.get("PUT", allowlistPath, as, strings.TrimSuffix(body, "}")+`,"dry_run":true}`, &l)
	if l.WouldCut == nil {
		g.t.Fatalf("%s: it does not tell who would be cut: %+v", body, l)
	}
	return l, *l.WouldCut
}

// E8: a dry run changes nothing, and names exactly those whom the change then cuts.
func TestAllowlistDryRunNamesWhomTheChangeCuts(t *testing.T) {
	g := newRig(t)
	ctx, owner := t.Context(), g.token[authz.Owner]
	nets := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	const office, plant = "192.0.2.10", "198.51.100.7"
	const offices, plants = "192.0.2.0/24", "198.51.100.0/24"
	set := func(s directory.Side, texts ...string) {
		t.Helper()
		must(t, g.dir.SetSources(ctx, "default", s, nets(texts...), s, netip.Addr{}, true, nil))
	}
	unset := func(s directory.Side) {
		t.Helper()
		must(t, g.dir.UnsetSources(ctx, "default", s, s, netip.Addr{}, true))
	}
	set(directory.Callers, offices, plants)
	must(t, g.dir.SetSignIn(ctx, "default", directory.SignIn{PersonalTokens: 24 * time.Hour}))

	// Who is there, as "kind name": by which text they ask, and from where.
	type caller struct{ text, id, addr string }
	all := map[string]caller{"token owner": {owner, "", office}}
	for _, name := range []string{"bertha", "carl"} {
		text := g.person(name, authz.Admin)
		s, _ := g.dir.Snapshot().FindSession(text)
		must(t, g.dir.EndSession(ctx, "default", s.ID, "")) // those that count begin below
	}
	text, id := g.signInFrom("bertha", office)
	all["session bertha"] = caller{text, id, office}
	laptop, laptopID := g.tokenOf("/account/tokens", text, `{"name":"laptop"}`)
	all["token laptop"] = caller{laptop, laptopID, plant} // personal: it goes by the list of tokens
	text, id = g.signInFrom("carl", plant)
	all["session carl"] = caller{text, id, plant}
	text, id = g.tokenOf("/workspaces/default/tokens", owner, `{"name":"job","roles":["analyst"]}`)
	all["token job"] = caller{text, id, plant}
	// Who is not in use, or not admitted as it is, is nobody's to cut.
	stray, _ := g.tokenOf("/workspaces/default/tokens", owner, `{"name":"stray","roles":["analyst"]}`)
	g.refusal("E8 a stray token", g.ask("GET", "/whoami", stray, "", from("203.0.113.9:1")), 403, "allowlist")
	g.tokenOf("/workspaces/default/tokens", owner, `{"name":"unused","roles":["analyst"]}`)
	revoked, revokedID := g.tokenOf("/workspaces/default/tokens", owner, `{"name":"revoked","roles":["analyst"]}`)
	g.get("GET", "/whoami", revoked, "", nil)
	g.get("DELETE", "/workspaces/default/tokens/"+revokedID, owner, "", nil)
	_, ended := g.signInFrom("carl", plant)
	must(t, g.dir.EndSession(ctx, "default", ended, ""))
	g.person("dora", authz.Analyst)
	g.signInFrom("dora", plant)
	dora, err := g.now().FindPrincipal("dora")
	must(t, err)
	must(t, g.dir.SetPrincipalDisabled(ctx, "default", dora.ID, true)) // her sessions are there, and do not live
	for name, c := range all {
		if a := g.ask("GET", "/whoami", c.text, "", from(c.addr+":40000")); a.status != 200 {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
	}
	ownerToken, _, _ := g.dir.Snapshot().FindToken(owner)
	all["token owner"] = caller{owner, ownerToken.ID, office}
	agents := map[string]string{g.agent("site"): office, g.agent("site"): plant}
	agentAt := map[string]string{}
	for id, addr := range agents {
		agentAt["agent "+addr] = id
		g.connect(id, addr+":5000")
	}

	for _, k := range []struct {
		name, body string
		before     func()
		cut        []string
		you        bool
	}{
		{name: "callers", body: `{"prefixes":["192.0.2.0/24"]}`, cut: []string{"session carl", "token job", "token laptop"}},
		{name: "callers, with whom asks", body: `{"for":"callers","prefixes":["198.51.100.0/24"]}`, cut: []string{"session bertha", "token owner"}, you: true},
		{name: "callers, nobody", body: `{"prefixes":[]}`, cut: []string{"session bertha", "session carl", "token job", "token laptop", "token owner"}, you: true},
		{name: "callers, more", body: `{"prefixes":["0.0.0.0/0","::/0"]}`},
		{name: "callers, where people have a list", body: `{"prefixes":["192.0.2.0/24"]}`, before: func() { set(directory.People, offices, plants) }, cut: []string{"token job", "token laptop"}},
		{name: "people", body: `{"for":"people","prefixes":["192.0.2.0/24"]}`, cut: []string{"session carl"}},
		{name: "tokens", body: `{"for":"tokens","prefixes":["192.0.2.0/24"]}`, cut: []string{"token job", "token laptop"}},
		{name: "tokens, with whom asks", body: `{"for":"tokens","prefixes":["198.51.100.7/32"]}`, cut: []string{"token owner"}, you: true},
		{name: "agents", body: `{"for":"agents","prefixes":["192.0.2.0/24"]}`, cut: []string{"agent " + plant}},
		{name: "agents, all", body: `{"for":"agents","prefixes":[]}`, cut: []string{"agent " + office, "agent " + plant}},
		{name: "agents by none again", body: `{"for":"agents","unset":true,"prefixes":[]}`, before: func() { set(directory.Sites, offices, plants) }},
		{name: "gateways", body: `{"for":"gateways","prefixes":[]}`},
		{name: "people by the list of callers again", body: `{"for":"people","unset":true,"prefixes":[]}`, before: func() { set(directory.Callers, offices); set(directory.People, offices, plants) }, cut: []string{"session carl"}},
		{name: "tokens by the list of callers again", body: `{"for":"tokens","unset":true,"prefixes":[]}`,
			before: func() { set(directory.Callers, plants); set(directory.Programs, offices, plants) }, cut: []string{"token owner"}, you: true},
	} {
		t.Run(k.name, func(t *testing.T) {
			set(directory.Callers, offices, plants)
			for _, s := range directory.Sides[1:] {
				unset(s)
			}
			if k.before != nil {
				k.before()
			}
			was, generation := g.ask("GET", allowlistPath, owner, ""), g.dir.Snapshot().Generation
			said, cut := g.dryRun(owner, k.body)
			said.WouldCut = nil
			var inForce client.Allowlist
			must(t, json.Unmarshal([]byte(was.body), &inForce))
			if now := g.ask("GET", allowlistPath, owner, ""); now.body != was.body || now.header.Get("ETag") != was.header.Get("ETag") || g.dir.Snapshot().Generation != generation || fmt.Sprint(said) != fmt.Sprint(inForce) {
				t.Errorf("the dry run changed something: %s %s, it said %+v", was.body, now.body, said)
			}
			var got []string
			for kind, named := range map[string][]client.AllowlistCutOff{"session": cut.Sessions, "token": cut.Tokens, "agent": cut.Agents} {
				for _, one := range named {
					what := kind + " " + one.Name
					if one.ID == ownerToken.ID {
						what = "token owner"
					}
					if kind == "agent" {
						what = kind + " " + one.Address
						if one.ID != agentAt[what] || !strings.HasPrefix(one.ID, "agt_") {
							t.Errorf("%+v is another agent", one)
						}
					} else if c := all[what]; one.ID != c.id || one.Address != c.addr || one.Name == "" {
						t.Errorf("%+v, want %s of %s", one, c.id, c.addr)
					}
					got = append(got, what)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, k.cut) || cut.You != k.you || cut.More != nil {
				t.Errorf("%s would cut %v, you %v, more %v; want %v, you %v", k.body, got, cut.You, cut.More, k.cut, k.you)
			}
			refused := func(name string) bool {
				c := all[name]
				a := g.ask("GET", "/whoami", c.text, "", from(c.addr+":40000"))
				no := a.status == http.StatusForbidden && strings.HasPrefix(a.problem.Rule, "allowlist")
				if !no && a.status != 200 {
					t.Errorf("%s: %d %s", name, a.status, a.body)
				}
				return no
			}
			already := map[string]bool{} // refused as it is: no change cuts them
			for name := range all {
				already[name] = refused(name)
			}
			// The change itself wants confirm where the dry run names who asks, or agents; it cuts those whom it named, and nobody else.
			sure := g.ask("PUT", allowlistPath, owner, k.body)
			if (sure.status == http.StatusConflict) != (cut.You || len(cut.Agents) > 0) {
				t.Errorf("%s without confirm: %d %s", k.body, sure.status, sure.body)
			}
			if sure.status != 200 {
				g.get("PUT", allowlistPath, owner, strings.TrimSuffix(k.body, "}")+`,"confirm":true}`, nil)
			}
			for name := range all {
				if now, named := refused(name), slices.Contains(got, name); now != (named || already[name]) || named && already[name] {
					t.Errorf("%s: refused before %v, and after %v; the dry run named %v", name, already[name], now, got)
				}
			}
			ws := g.now()
			out := g.hub.OutsideFrom(ws.ID, func(a netip.Addr) bool { return ws.Admits(directory.Sites, a) })
			if n := g.hub.Outside(ws.ID, func(a netip.Addr) bool { return ws.Admits(directory.Sites, a) }, false); n != len(out) {
				t.Errorf("%d tunnels, of %v", n, out)
			}
			for name, id := range agentAt {
				if _, refused := out[id]; refused != slices.Contains(got, name) {
					t.Errorf("%s after the change: refused %v; the dry run named %v", name, refused, got)
				}
			}
		})
	}
}

// A dry run is refused as the change would be: to who may not, on a condition that does not hold, for what is no list.
func TestAllowlistDryRunIsRefusedAsTheChange(t *testing.T) {
	g := newRig(t)
	owner := g.token[authz.Owner]
	const body = `{"prefixes":["203.0.113.0/24"],"dry_run":true}`
	was, generation := g.ask("GET", allowlistPath, owner, ""), g.dir.Snapshot().Generation
	for _, r := range []authz.Role{authz.Operator, authz.Analyst} {
		if a := g.ask("PUT", allowlistPath, g.token[r], body); a.status != 403 || a.problem.Code != protocol.CodeDenied {
			t.Errorf("%s: %d %s", r, a.status, a.body)
		}
	}
	if a := g.ask("PUT", allowlistPath, g.token[authz.Admin], body); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.ask("PUT", allowlistPath, owner, body, onlyIf(`"another"`)); a.status != 412 || a.problem.Rule != "if_match" || strings.Contains(a.body, "would_cut") {
		t.Errorf("on a condition that does not hold: %d %s", a.status, a.body)
	}
	if a := g.ask("PUT", allowlistPath, owner, body, onlyIf(was.header.Get("ETag"))); a.status != 200 || a.header.Get("ETag") != was.header.Get("ETag") {
		t.Errorf("on a condition that holds: %d %s", a.status, a.body)
	}
	for _, bad := range []string{`{"for":"visitors","prefixes":[],"dry_run":true}`, `{"unset":true,"prefixes":[],"dry_run":true}`,
		`{"for":"people","unset":true,"prefixes":["192.0.2.0/24"],"dry_run":true}`, `{"prefixes":["10.0.0.1/8"],"dry_run":true}`} {
		if a := g.ask("PUT", allowlistPath, owner, bad); a.status != http.StatusBadRequest || a.problem.Code != protocol.CodeInvalid {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
	if now := g.ask("GET", allowlistPath, owner, ""); now.body != was.body || g.dir.Snapshot().Generation != generation {
		t.Errorf("%s became %s", was.body, now.body)
	}
	// It is recorded as the request that it is.
	put := 0
	for _, ev := range g.events() {
		if strings.Contains(ev, `PUT /workspaces/default/allowlist`) && strings.Contains(ev, g.admin.ID) {
			put++
		}
	}
	if put == 0 {
		t.Errorf("no dry run is recorded: %v", g.events())
	}
}

// A dry run tells nobody of sessions, tokens and agents that they may not read: it gives their number. And it names no more than 1000.
func TestAllowlistDryRunNamesNobodyThatTheCallerMayNotRead(t *testing.T) {
	g := newRig(t)
	owner := g.token[authz.Owner]
	const own = "/workspaces/default"
	g.get("GET", "/whoami", owner, "", nil)
	g.person("bertha", authz.Admin)
	g.connect("agt_gone", inside) // removed meanwhile: it has no name, and is cut all the same
	live := 0
	for _, s := range g.now().Sessions {
		live += map[bool]int{true: 1}[s.Live(time.Now())]
	}
	for i := range 1001 {
		g.connect(fmt.Sprintf("agt_%04d", i), inside)
	}
	tokenWith := func(name, actions string) string {
		g.get("POST", own+"/roles", owner, `{"name":"`+name+`","actions":[`+actions+`]}`, nil)
		g.get("POST", own+"/service-accounts", owner, `{"name":"`+name+`"}`, nil)
		g.get("POST", own+"/grants", owner, `{"role":"`+name+`","principal":"`+name+`"}`, nil)
		text, _ := g.tokenOf(own+"/tokens", owner, `{"name":"`+name+`","principal":"`+name+`"}`)
		return text
	}
	setter, watcher := tokenWith("setter", `"allowlist.manage"`), tokenWith("watcher", `"allowlist.manage","agents.read"`)
	for _, text := range []string{setter, watcher} {
		if a := g.ask("GET", "/whoami", text, ""); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	must(t, g.dir.SetSources(t.Context(), "default", directory.Sites, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, directory.Sites, netip.Addr{}, true, nil))
	for _, k := range []struct {
		who, as          string
		people, agents   map[string]int // more
		sessions, tokens int
		connected        int
	}{
		{"who may read all", owner, nil, map[string]int{"agents": 2}, live, 3, 1000},
		{"who may read nothing", setter, map[string]int{"sessions": live, "tokens": 3}, map[string]int{"agents": 1002}, 0, 0, 0},
		{"who may read agents", watcher, map[string]int{"sessions": live, "tokens": 3}, map[string]int{"agents": 2}, 0, 0, 1000},
	} {
		_, cut := g.dryRun(k.as, `{"prefixes":[]}`)
		if len(cut.Sessions) != k.sessions || len(cut.Tokens) != k.tokens || len(cut.Agents) != 0 || !maps.Equal(cut.More, k.people) || !cut.You {
			t.Errorf("%s: %+v; want %d sessions, %d tokens, more %v", k.who, cut, k.sessions, k.tokens, k.people)
		}
		_, cut = g.dryRun(k.as, `{"for":"agents","prefixes":[]}`)
		if len(cut.Sessions)+len(cut.Tokens) != 0 || len(cut.Agents) != k.connected || !maps.Equal(cut.More, k.agents) || cut.You {
			t.Errorf("%s: %d agents, more %v; want %d, %v", k.who, len(cut.Agents), cut.More, k.connected, k.agents)
		}
	}
}
