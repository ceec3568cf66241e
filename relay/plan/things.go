package plan

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/relay/client"
)

func (m *maker) connections() {
	if !m.has("connections") {
		return
	}
	there := byName(m.s.connections, func(c client.Connection) string { return c.Name })
	for _, name := range names(m.w.connections) {
		want := m.w.connections[name]
		is, ok := there[name]
		if !ok {
			m.createConnection(name, want.is)
			continue
		}
		m.sameConnection(is, want)
		m.placeOf(is, want.is)
		m.gatewayOf(is, want.is.Gateway)
		have, set := m.s.budgets[name], limits{}
		if want.is.Budget != nil {
			set = *want.is.Budget
		}
		m.setBudget(name, is.ID, have, set)
	}
	for _, is := range m.s.connections {
		if _, ok := m.w.connections[is.Name]; !ok {
			m.drop(&m.dropConnections, "connection", is.Name, func(ctx context.Context, r *run) error { return r.c.If(is.ETag).DeleteConnection(ctx, is.ID) })
		}
	}
}

func (m *maker) createConnection(name string, want connection) {
	n := client.NewConnection{Name: name, Group: want.Group, Profile: want.Profile, Environment: want.Environment, Project: want.Project, Folder: want.Folder}
	detail := []string{"to profile " + want.Profile + " of group " + want.Group + ", " + want.Environment}
	if want.Target != nil {
		n.Target = &client.Target{Host: want.Target.Host, Port: want.Target.Port}
		detail[0] = fmt.Sprintf("to %s:%d behind group %s, %s", want.Target.Host, want.Target.Port, want.Group, want.Environment)
	}
	detail = append(detail, placeLines(want.Project, want.Folder)...)
	if want.Gateway != nil {
		g := want.Gateway.api()
		n.Gateway = &g
		detail = append(detail, "gateway at "+g.Address)
	}
	if want.Budget != nil {
		detail = append(detail, "budget "+want.Budget.String())
	}
	m.step(Create, "connection", name, detail, func(ctx context.Context, r *run) error {
		made, err := r.c.CreateConnection(ctx, n)
		if err == nil && want.Budget != nil && want.Budget.api() != (client.Limits{}) {
			_, err = r.c.SetBudget(ctx, made.ID, want.Budget.api())
		}
		return err
	})
}

// sameConnection refuses what would be another connection of the same name: where one leads to, and where it stands, it keeps, for
// grants were given on it.
func (m *maker) sameConnection(is client.Connection, want wanted[connection]) {
	leads := func(profile string, t *target) string {
		if t != nil {
			return fmt.Sprintf("%s:%d", t.Host, t.Port)
		}
		return "profile " + profile
	}
	var t *target
	if is.Target != nil {
		t = &target{is.Target.Host, is.Target.Port}
	}
	differs := false
	for _, d := range [][3]string{{"group", is.Group, want.is.Group}, {"environment", is.Environment, want.is.Environment}, {"profile", leads(is.Profile, t), leads(want.is.Profile, want.is.Target)}} {
		if d[1] != d[2] {
			differs = true
			m.faults = append(m.faults, want.at(d[0]).fault(fmt.Sprintf("the connection that is there has %s", d[1]),
				"a connection keeps it for good, for grants were given on it: choose another name, or delete it first: fairlead connections delete "+is.Name))
		}
	}
	if !differs {
		m.Unchanged++
	}
}

func (g gateway) api() client.SetGateway {
	return client.SetGateway{Address: g.Address, TLS: g.TLS, Allow: g.Allow, ClientCA: g.ClientCA, ProxyProtocol: g.ProxyProtocol}
}

func (m *maker) gatewayOf(is client.Connection, want *gateway) {
	name := "of " + is.Name
	switch {
	case want == nil && is.Gateway == nil:
	case want == nil:
		m.drop(&m.dropGateways, "gateway", name, func(ctx context.Context, r *run) error { return r.c.If(r.tagOf(is)).DeleteGateway(ctx, is.ID) })
	default:
		act, was := Create, gateway{}
		if is.Gateway != nil {
			act, was = Change, gatewayOf(*is.Gateway)
		}
		var detail []string
		line := func(what, old, now string) {
			if strings.TrimSpace(old) != strings.TrimSpace(now) {
				detail = append(detail, what+": "+cmp.Or(now, "none"))
			}
		}
		line("address", was.Address, want.Address)
		line("tls", was.TLS, want.TLS)
		line("allow", strings.Join(was.Allow, " "), strings.Join(want.Allow, " "))
		if strings.TrimSpace(was.ClientCA) != strings.TrimSpace(want.ClientCA) {
			detail = append(detail, "client_ca: another")
		}
		line("proxy_protocol", fmt.Sprint(was.ProxyProtocol), fmt.Sprint(want.ProxyProtocol))
		if act == Change && len(detail) == 0 {
			m.Unchanged++
			return
		}
		m.step(act, "gateway", name, detail, func(ctx context.Context, r *run) error {
			now, err := r.c.If(r.tagOf(is)).SetGateway(ctx, is.ID, want.api())
			r.changed(now, err)
			return err
		})
	}
}

func gatewayOf(g client.Gateway) gateway {
	return gateway{Address: g.Address, TLS: g.TLS, Allow: prefixesOf(g.Allow), ClientCA: g.ClientCA, ProxyProtocol: g.ProxyProtocol}
}

// String is the limits in one line.
func (l limits) String() string {
	if l == (limits{}) {
		return "without limits"
	}
	return fmt.Sprintf("rate %d, burst %d, concurrent %d, egress %s", l.Rate, l.Burst, l.Concurrent, l.Egress)
}

// setBudget replaces limits; to take all away is no deletion, for a budget is always there. connection "" is the workspace.
func (m *maker) setBudget(name, connection string, is client.Budget, want limits) {
	if is.Set == want.api() {
		if name == "" {
			m.Unchanged++
		}
		return
	}
	what := "of the workspace"
	if name != "" {
		what = "of " + name
	}
	m.step(Change, "budget", what, []string{want.String()}, func(ctx context.Context, r *run) error {
		_, err := r.c.If(is.ETag).SetBudget(ctx, connection, want.api())
		return err
	})
}

// grants holds what is given against what the files give, users' roles included. Without a section of grants, users' own roles on
// the whole workspace are all that is looked at.
func (m *maker) grants() {
	if !m.has("grants") && !m.has("users") {
		return
	}
	want := map[string]grant{}
	for _, g := range m.w.grants {
		if !g.is.Until.IsZero() && !g.is.Until.After(m.now) {
			m.Over = append(m.Over, g.is.String())
			continue
		}
		want[g.is.key()] = g.is
	}
	users := byName(m.s.users, func(u client.User) string { return u.Name })
	for name, u := range m.w.users {
		for _, r := range u.is.Roles {
			g := grant{Role: r, To: name}
			if _, there := users[name]; there {
				want[g.key()] = g
			} // who is made gets it with that
		}
	}
	have := map[string]bool{}
	for _, is := range m.s.grants {
		g := grantOf(is)
		k := g.key()
		if _, ok := want[k]; ok && !have[k] {
			have[k] = true
			m.Unchanged++
			continue
		}
		if !m.has("grants") && !m.shortFor(g) || m.leaves(g) {
			continue
		}
		into := &m.dropGrants
		if is.Principal == m.s.me.Principal {
			into = &m.dropOwn
		}
		m.drop(into, "grant", g.String(), func(ctx context.Context, r *run) error { return r.c.If(is.ETag).DeleteGrant(ctx, is.ID) })
	}
	keys := names(want)
	slices.SortStableFunc(keys, func(a, b string) int { return cmp.Compare(want[a].String(), want[b].String()) })
	for _, k := range keys {
		if have[k] {
			continue
		}
		g := want[k]
		m.step(Create, "grant", g.String(), nil, func(ctx context.Context, r *run) error {
			n := client.NewGrant{Role: g.Role, Principal: g.To, Team: g.ToTeam, Environment: g.Environment, Project: g.Project, Folder: g.Folder, Connection: g.Connection, From: g.From}
			if !g.Until.IsZero() {
				n.Until = &g.Until
			}
			_, err := r.c.CreateGrant(ctx, n)
			return err
		})
	}
}

// shortFor tells whether a grant is what the roles of a user in the files are short for.
func (m *maker) shortFor(g grant) bool {
	_, ok := m.w.users[g.To]
	return ok && plain(g)
}

// leaves tells whether a grant goes with whom or what it is about.
func (m *maker) leaves(g grant) bool {
	in := func(l []Step, name string) bool {
		return name != "" && slices.ContainsFunc(l, func(s Step) bool { return s.Name == name })
	}
	return in(m.dropUsers, g.To) || in(m.dropServices, g.To) || in(m.dropTeams, g.ToTeam) || in(m.dropConnections, g.Connection) || in(m.dropProjects, g.Project) || g.Folder != "" && in(m.dropFolders, at(g.Project, g.Folder))
}

// settings are the budget, the allowlist and the sign-in policy of the workspace.
func (m *maker) settings() {
	if m.has("budget") {
		m.setBudget("", "", m.s.budgets[""], m.w.budget.is)
	}
	if m.has("allowlist") {
		m.setAllowlist("of the workspace", m.s.allowlist.Prefixes, client.SetAllowlist{Prefixes: m.w.allowlist})
	}
	for _, side := range sides {
		if !m.has("allowlists") {
			break
		}
		is, set := m.s.allowlist.Lists[side]
		if want, ok := m.w.allowlists[side]; ok {
			if !set { // an empty list is another thing than none
				is = []string{"none of their own"}
			}
			m.setAllowlist("of "+side, is, client.SetAllowlist{Prefixes: want, For: side})
		} else if set {
			m.setAllowlist("of "+side, is, client.SetAllowlist{For: side, Unset: true})
		}
	}
	if !m.has("sign_in_policy") {
		return
	}
	is, want := m.s.signIn, m.w.signIn.is.api()
	tag := is.ETag
	if is.ETag = ""; is == want {
		m.Unchanged++
		return
	}
	m.step(Change, "sign-in policy", "of the workspace", difference(policyLines(is), policyLines(want)), func(ctx context.Context, r *run) error {
		_, err := r.c.If(tag).SetSignInPolicy(ctx, want)
		return err
	})
}

// setAllowlist replaces one of the lists, which have one state together: what the step before made of it is what the next one changes.
func (m *maker) setAllowlist(name string, is []string, set client.SetAllowlist) {
	want := set.Prefixes
	if set.Unset {
		want = []string{"none of their own"}
	}
	diff := difference(is, want)
	if len(diff) == 0 {
		m.Unchanged++
		return
	}
	m.step(Change, "allowlist", name, diff, func(ctx context.Context, r *run) error {
		a, err := r.c.If(m.s.allowlist.ETag).SetAllowlist(ctx, set)
		if err == nil {
			m.s.allowlist.ETag = a.ETag
		}
		return err
	})
}

// policyLines is a policy as a file has it, a line each.
func policyLines(p client.SignInPolicy) []string {
	d := func(s int64) config.Duration { return config.Duration(time.Duration(s) * time.Second) }
	return []string{fmt.Sprintf("second_factor: %t", p.SecondFactor), "passkeys: " + cmp.Or(p.Passkeys, "allowed"), fmt.Sprintf("min_length: %d", p.MinLength), fmt.Sprintf("classes: %d", p.Classes),
		fmt.Sprintf("max_age_days: %d", p.MaxAgeDays), fmt.Sprintf("history: %d", p.History), fmt.Sprintf("idle: %s", d(p.IdleSeconds)),
		fmt.Sprintf("absolute: %s", d(p.AbsoluteSeconds)), fmt.Sprintf("step_up: %s", d(p.StepUpSeconds)), fmt.Sprintf("personal_tokens: %s", d(p.PersonalTokenSeconds))}
}
