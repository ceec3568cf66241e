package directory_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

func profile(name string) directory.ConnectionBody {
	return directory.ConnectionBody{Name: name, Profile: "sales"}
}

func TestGroupsAndConnections(t *testing.T) {
	t.Run("J11 names of groups and connections", testGroupsAndConnections)
}

func testGroupsAndConnections(t *testing.T) {
	d, in := start(t)
	ctx := t.Context()
	g, err := d.CreateGroup(ctx, "default", "west")
	must(t, err)
	_, err = d.CreateGroup(ctx, in.Workspace, "west")
	want(t, err, protocol.CodeConflict)
	c, err := d.CreateConnection(ctx, "default", "west", profile("orders"))
	must(t, err)
	if c.Group != g.ID || c.Workspace != in.Workspace || c.Profile != "sales" || c.Created.IsZero() {
		t.Fatalf("%+v", c)
	}
	w, _ := d.Snapshot().Workspace("default")
	for _, by := range []string{"orders", c.ID} {
		if got, err := w.Connection(by); err != nil || got.ID != c.ID {
			t.Fatal(by, err)
		}
	}
	_, err = d.CreateConnection(ctx, "default", "default", profile("orders"))
	want(t, err, protocol.CodeConflict)
	want(t, d.DeleteGroup(ctx, "default", "west"), protocol.CodeConflict)
	must(t, d.DeleteConnection(ctx, "default", "orders"))
	want(t, d.DeleteConnection(ctx, "default", "orders"), protocol.CodeNotFound)
	must(t, d.DeleteGroup(ctx, "default", g.ID))
	want(t, d.DeleteGroup(ctx, "default", "west"), protocol.CodeNotFound)
	if _, err := w.Connection("orders"); err != nil {
		t.Fatal("a snapshot changed under its reader")
	}

	target, err := d.CreateConnection(ctx, "default", "default", directory.ConnectionBody{Name: "db", Host: "DB1.Corp.", Port: 5432})
	must(t, err)
	if target.Host != "db1.corp" || target.Port != 5432 {
		t.Fatalf("%+v", target)
	}
	for name, b := range map[string]directory.ConnectionBody{
		"nothing":           {Name: "x"},
		"both":              {Name: "x", Profile: "p", Host: "h", Port: 1},
		"profile and port":  {Name: "x", Profile: "p", Port: 1},
		"no port":           {Name: "x", Host: "h"},
		"no host":           {Name: "x", Port: 1},
		"A9 numeric host":   {Name: "x", Host: "0x7f000001", Port: 1},
		"A8 host with path": {Name: "x", Host: "h/../y", Port: 1},
		"profile path":      {Name: "x", Profile: "../p"},
		"no name":           {Profile: "p"},
		"J11 markup":        {Name: "<script>", Profile: "p"},
		"a slash":           {Name: "a/b", Profile: "p"},
		"dots":              {Name: "..", Profile: "p"},
		"a space":           {Name: "a b", Profile: "p"},
		"a flag":            {Name: "-rf", Profile: "p"},
		"long":              {Name: strings.Repeat("n", 65), Profile: "p"},
		"an id":             {Name: directory.NewID("con"), Profile: "p"},
		"control":           {Name: "a\x1b", Profile: "p"},
	} {
		_, err := d.CreateConnection(ctx, "default", "default", b)
		if err == nil {
			t.Errorf("%s is accepted", name)
			continue
		}
		want(t, err, protocol.CodeInvalid)
		var e *protocol.Error
		if errors.As(err, &e); e.Hint == "" || b.Name != "x" && len(b.Name) > 3 && strings.Contains(e.Message+e.Hint, b.Name) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	_, err = d.CreateConnection(ctx, "default", "none", profile("x"))
	want(t, err, protocol.CodeNotFound)
	_, err = d.CreateConnection(ctx, "none", "default", profile("x"))
	want(t, err, protocol.CodeNotFound)
	_, err = d.CreateGroup(ctx, "none", "x")
	want(t, err, protocol.CodeNotFound)
}

// Two workspaces with the same names in them: nothing of one is found or changed through the other.
func TestP9WorkspacesAreApart(t *testing.T) {
	d, in := start(t)
	ctx := t.Context()
	other, err := d.CreateWorkspace(ctx, "other")
	must(t, err)
	_, err = d.CreateWorkspace(ctx, "other")
	want(t, err, protocol.CodeConflict)
	mine, err := d.CreateConnection(ctx, "default", "default", profile("orders"))
	must(t, err)
	theirs, err := d.CreateConnection(ctx, "other", "default", profile("orders"))
	must(t, err)
	a := enroll(t, d, "s1", 1)
	jtk, _, err := d.CreateJoinToken(ctx, "default", "default", 0, "")
	must(t, err)
	_, _, err = d.CreateAdminToken(ctx, "other", "their admin", 0)
	must(t, err)
	s := d.Snapshot()
	w, _ := s.Workspace("default")
	o, _ := s.Workspace(other.ID)
	if got, _ := w.Connection("orders"); got.ID != mine.ID {
		t.Fatal("another workspace's connection")
	}
	if got, _ := o.Connection("orders"); got.ID != theirs.ID {
		t.Fatal("another workspace's connection")
	}
	theirAdmin, myAdmin := o.Principals[0].Principal, w.Principals[0].Principal
	_, err1 := o.Connection(mine.ID)
	_, err2 := o.Group(in.Group)
	_, err3 := o.Agent(a.ID)
	_, _, err4 := d.CreateToken(ctx, theirAdmin, "other", directory.NewToken{Name: "n", Principal: myAdmin.ID})
	_, _, err5 := d.CreateToken(ctx, theirAdmin, "other", directory.NewToken{Name: "n", Roles: []authz.Role{authz.Analyst}, Connections: []string{mine.ID}})
	_, err6 := d.CreateGrant(ctx, directory.By{ID: theirAdmin.ID}, "other", directory.NewGrant{Principal: myAdmin.ID, Role: string(authz.Analyst)})
	_, err7 := d.CreateGrant(ctx, directory.By{ID: theirAdmin.ID}, "other", directory.NewGrant{Principal: theirAdmin.ID, Role: string(authz.Analyst), Connection: mine.ID})
	for i, err := range []error{err1, err2, err3, err4, err5, err6, err7,
		d.DeleteConnection(ctx, "other", mine.ID), d.DeleteGroup(ctx, "other", in.Group), d.DisableAgent(ctx, "other", a.ID),
		d.EnableAgent(ctx, "other", a.ID), d.DeleteAgent(ctx, "other", a.ID), d.DeleteJoinToken(ctx, "other", jtk.ID),
		d.RevokeToken(ctx, "other", in.TokenID), d.SetPrincipalDisabled(ctx, "other", myAdmin.ID, true),
		d.DeleteGrant(ctx, directory.By{ID: theirAdmin.ID}, "other", w.Principals[0].Grants[0].ID)} {
		t.Run(fmt.Sprint("J1 other workspace ", i), func(t *testing.T) { want(t, err, protocol.CodeNotFound) })
	}
	t.Run("J4 nobody gives rights in another workspace", func(t *testing.T) {
		_, _, err := d.CreateToken(ctx, theirAdmin, "default", directory.NewToken{Name: "n", Roles: []authz.Role{authz.Analyst}})
		want(t, err, protocol.CodeDenied)
		_, err = d.CreateGrant(ctx, directory.By{ID: theirAdmin.ID}, "default", directory.NewGrant{Principal: myAdmin.ID, Role: string(authz.Analyst)})
		want(t, err, protocol.CodeDenied)
	})
	if o.Principal(myAdmin.ID) != nil || len(o.Agents)+len(o.JoinTokens) != 0 {
		t.Fatal("lists mix")
	}
	t.Run("E6 a new workspace admits nobody", func(t *testing.T) {
		if o.Allowlist.Contains(netip.MustParseAddr("127.0.0.1")) {
			t.Fatal("admitted")
		}
	})
	must(t, d.DeleteWorkspace(ctx, "other"))
	want(t, d.DeleteWorkspace(ctx, "other"), protocol.CodeNotFound)
	if _, err := d.Snapshot().Workspace("default"); err != nil {
		t.Fatal(err)
	}
	again, err := d.CreateWorkspace(ctx, "other")
	must(t, err)
	if again.ID == other.ID || len(again.Connections) != 0 {
		t.Fatal("the old one came back")
	}
}

func TestAllowlist(t *testing.T) {
	d, in := start(t)
	p := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	me := netip.MustParseAddr("10.1.1.1")
	set := func(list []netip.Prefix, from netip.Addr, confirm bool) error {
		return d.SetAllowlist(t.Context(), "default", list, from, confirm)
	}
	must(t, set(p("10.0.0.0/8", "2001:db8::/32", "10.0.0.0/8"), me, false))
	w, _ := d.Snapshot().Workspace("default")
	if len(w.Prefixes) != 2 || !w.Allowlist.Contains(me) || w.Allowlist.Contains(netip.MustParseAddr("11.0.0.1")) {
		t.Fatal(w.Prefixes)
	}
	t.Run("E6 a dual-stack address is the same address", func(t *testing.T) {
		must(t, set(p("10.0.0.0/8"), netip.MustParseAddr("::ffff:10.1.1.1"), false))
	})
	t.Run("nobody locks themselves out unawares", func(t *testing.T) {
		want(t, set(p("192.0.2.0/24"), me, false), protocol.CodeConflict)
		want(t, set(nil, me, false), protocol.CodeConflict)
		want(t, set(p("10.0.0.0/8"), netip.Addr{}, false), protocol.CodeConflict)
		if w, _ := d.Snapshot().Workspace("default"); !w.Allowlist.Contains(me) {
			t.Fatal("a refused list is in force")
		}
	})
	t.Run("P7 empty admits nobody", func(t *testing.T) {
		must(t, set(nil, me, true))
		w, _ := d.Snapshot().Workspace(in.Workspace)
		if w.Allowlist.Contains(me) || len(w.Prefixes) != 0 {
			t.Fatal("admitted")
		}
	})
	t.Run("bad prefixes", func(t *testing.T) {
		for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("10.1.1.1/8"), netip.MustParsePrefix("::ffff:10.0.0.0/104")} {
			want(t, set([]netip.Prefix{bad}, me, true), protocol.CodeInvalid)
		}
		want(t, set(make([]netip.Prefix, directory.MaxAllowlist+1), me, true), protocol.CodeTooLarge)
		want(t, d.SetAllowlist(t.Context(), "none", nil, me, true), protocol.CodeNotFound)
	})
}

func TestTokens(t *testing.T) {
	d, in := start(t)
	ctx := t.Context()
	w, _ := d.Snapshot().Workspace("default")
	admin := w.Principal(in.Principal).Principal
	c, err := d.CreateConnection(ctx, "default", "default", profile("orders"))
	must(t, err)
	tok, text, err := d.CreateToken(ctx, admin, "default", directory.NewToken{Name: "reports", Roles: []authz.Role{authz.Analyst},
		Connections: []string{"orders"}, Life: time.Hour})
	must(t, err)
	found, _, ok := d.Snapshot().FindToken(text.ExposeString())
	if !ok || found.ID != tok.ID || !found.Verify(text.ExposeString()) || found.Verify(text.ExposeString()+"x") {
		t.Fatal("the token is not found")
	}
	p := found.Principal.Principal
	scope := authz.Scope{Workspace: in.Workspace, Connection: c.ID}
	if !authz.Decide(p, authz.Query, scope, authz.At{}).Allow || authz.Decide(p, authz.Exec, scope, authz.At{}).Allow || authz.Decide(p, authz.TokensRead, scope, authz.At{}).Allow {
		t.Fatal("the token's rights are wrong")
	}
	if len(text.ExposeString()) != len("flt_")+43 || !strings.HasPrefix(text.ExposeString(), "flt_") {
		t.Fatal("its form is another")
	}
	if _, _, ok := d.Snapshot().FindToken(text.ExposeString()[:40]); ok {
		t.Fatal("F17 found by a prefix")
	}

	t.Run("J4 nobody gives what they do not hold", func(t *testing.T) {
		op, _, err := d.CreateToken(ctx, admin, "default", directory.NewToken{Name: "op", Roles: []authz.Role{authz.Operator}})
		must(t, err)
		for _, r := range authz.Roles {
			_, _, err := d.CreateToken(ctx, op.Principal.Principal, "default", directory.NewToken{Name: "up", Roles: []authz.Role{r}})
			want(t, err, protocol.CodeDenied)
			_, err = d.CreateGrant(ctx, directory.By{ID: op.Principal.Principal.ID}, "default", directory.NewGrant{Principal: op.Principal.ID, Role: string(r)})
			want(t, err, protocol.CodeDenied)
		}
		_, _, err = d.CreateToken(ctx, op.Principal.Principal, "default", directory.NewToken{Name: "as admin", Principal: in.Principal})
		want(t, err, protocol.CodeNotFound) // whom it may not see
		_, _, err = d.CreateToken(ctx, authz.Principal{}, "default", directory.NewToken{Name: "x", Roles: []authz.Role{authz.Analyst}})
		want(t, err, protocol.CodeDenied)
		// What counts is what the asker holds now, not what its request was authenticated with.
		second, _, err := d.CreateToken(ctx, admin, "default", directory.NewToken{Name: "second", Roles: []authz.Role{authz.Admin}})
		must(t, err)
		held := second.Principal.Principal
		must(t, d.SetPrincipalDisabled(ctx, "default", held.ID, true))
		_, _, err = d.CreateToken(ctx, held, "default", directory.NewToken{Name: "late", Roles: []authz.Role{authz.Analyst}})
		want(t, err, protocol.CodeDenied)
		must(t, d.SetPrincipalDisabled(ctx, "default", held.ID, false))
		w, _ := d.Snapshot().Workspace("default")
		must(t, d.DeleteGrant(ctx, directory.By{ID: admin.ID}, "default", w.Principal(held.ID).Grants[0].ID))
		_, _, err = d.CreateToken(ctx, held, "default", directory.NewToken{Name: "late", Roles: []authz.Role{authz.Analyst}})
		want(t, err, protocol.CodeDenied)
	})
	t.Run("bad input", func(t *testing.T) {
		for name, n := range map[string]directory.NewToken{
			"no name":              {Roles: []authz.Role{authz.Analyst}},
			"control":              {Name: "a\nb", Roles: []authz.Role{authz.Analyst}},
			"bidi":                 {Name: "a\u202eb", Roles: []authz.Role{authz.Analyst}},
			"no role":              {Name: "n"},
			"unknown role":         {Name: "n", Roles: []authz.Role{"root"}},
			"F17 endless":          {Name: "n", Roles: []authz.Role{authz.Analyst}, Life: directory.MaxTokenLife + 1},
			"negative":             {Name: "n", Roles: []authz.Role{authz.Analyst}, Life: -1},
			"J3 roles for someone": {Name: "n", Principal: in.Principal, Roles: []authz.Role{authz.Analyst}},
		} {
			_, _, err := d.CreateToken(ctx, admin, "default", n)
			if err == nil {
				t.Error(name)
			}
			want(t, err, protocol.CodeInvalid)
		}
		_, _, err := d.CreateToken(ctx, admin, "default", directory.NewToken{Name: "reports", Roles: []authz.Role{authz.Analyst}})
		want(t, err, protocol.CodeConflict)
	})
	t.Run("F17 a token lives 90 days when nothing is said", func(t *testing.T) {
		tok, _, err := d.CreateToken(ctx, admin, "default", directory.NewToken{Name: "plain", Principal: in.Principal})
		must(t, err)
		if left := time.Until(tok.Expires); left < directory.TokenLife-time.Minute || left > directory.TokenLife {
			t.Fatal(left)
		}
		if tok.Live(tok.Expires) || !tok.Live(tok.Expires.Add(-time.Second)) {
			t.Fatal("the end is not held")
		}
	})
	t.Run("P11 revoked, and gone with the user, at once", func(t *testing.T) {
		live := func() bool { t, _, ok := d.Snapshot().FindToken(text.ExposeString()); return ok && t.Live(time.Now()) }
		if !live() {
			t.Fatal("void")
		}
		must(t, d.SetPrincipalDisabled(ctx, "default", p.ID, true))
		if live() {
			t.Fatal("the token outlives its user")
		}
		must(t, d.SetPrincipalDisabled(ctx, "default", p.ID, false))
		if !live() {
			t.Fatal("void")
		}
		must(t, d.RevokeToken(ctx, "default", tok.ID))
		if live() {
			t.Fatal("a revoked token lives")
		}
		want(t, d.RevokeToken(ctx, "default", "tok_none"), protocol.CodeNotFound)
	})
	t.Run("J13 the grants on a connection go with it", func(t *testing.T) {
		must(t, d.DeleteConnection(ctx, "default", "orders"))
		w, _ := d.Snapshot().Workspace("default")
		if g := w.Principal(p.ID).Grants; len(g) != 0 {
			t.Fatal(g)
		}
	})
	t.Run("times of use are written in the end", func(t *testing.T) {
		now := time.Now()
		tok, _, _ := d.Snapshot().FindToken(in.Token.ExposeString())
		before := d.Snapshot()
		tok.Used(now, netip.MustParseAddr("192.0.2.7"))
		if d.Snapshot() != before || !tok.LastUsed().Equal(now.Truncate(time.Millisecond)) {
			t.Fatal(tok.LastUsed(), now)
		}
	})
}

func TestJ4TheLastAdminCannotBeRemoved(t *testing.T) {
	d, in := start(t)
	ctx := t.Context()
	w, _ := d.Snapshot().Workspace("default")
	first := w.Principal(in.Principal)
	want(t, d.RevokeToken(ctx, "default", in.TokenID), protocol.CodeConflict)
	want(t, d.SetPrincipalDisabled(ctx, "default", first.ID, true), protocol.CodeConflict)
	want(t, d.DeleteGrant(ctx, directory.By{ID: first.ID}, "default", first.Grants[0].ID), protocol.CodeConflict)
	t.Run("where there is none, nothing is held up", func(t *testing.T) {
		o, err := d.CreateWorkspace(ctx, "other")
		must(t, err)
		tok, _, err := d.CreateAdminToken(ctx, o.ID, "short", time.Second)
		must(t, err)
		eventually(t, "it expires and may be revoked", func() bool { return d.RevokeToken(ctx, o.ID, tok.ID) == nil })
		must(t, d.SetPrincipalDisabled(ctx, o.ID, tok.Principal.ID, true))
		must(t, d.SetPrincipalDisabled(ctx, o.ID, tok.Principal.ID, false))
	})
	_, _, err := d.CreateAdminToken(ctx, "default", "an admin", 0)
	must(t, err)
	t.Run("J4 nor the last admin, where there is no owner", func(t *testing.T) {
		o, err := d.CreateWorkspace(ctx, "ownerless")
		must(t, err)
		tok, _, err := d.CreateAdminToken(ctx, o.ID, "only", 0)
		must(t, err)
		want(t, d.RevokeToken(ctx, o.ID, tok.ID), protocol.CodeConflict)
		want(t, d.DeleteGrant(ctx, directory.By{ID: tok.Principal.ID}, o.ID, tok.Principal.Grants[0].ID), protocol.CodeConflict)
	})
	t.Run("J4 nor the last owner, where there are admins", func(t *testing.T) {
		want(t, d.RevokeToken(ctx, "default", in.TokenID), protocol.CodeConflict)
		want(t, d.SetPrincipalDisabled(ctx, "default", first.ID, true), protocol.CodeConflict)
		want(t, d.DeleteGrant(ctx, directory.By{ID: first.ID}, "default", first.Grants[0].ID), protocol.CodeConflict)
	})
	second, _, err := d.CreateOwnerToken(ctx, "default", "second", 0)
	must(t, err)
	// Both remove each other at the same moment: one of them stays.
	var wg sync.WaitGroup
	errs := make([]error, 2)
	begin := make(chan struct{})
	for i, id := range []string{in.TokenID, second.ID} {
		wg.Go(func() {
			<-begin
			errs[i] = d.RevokeToken(context.Background(), "default", id)
		})
	}
	close(begin)
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatal(errs)
	}
	want(t, errors.Join(errs...), protocol.CodeConflict)
}

// Many writers at once: each sees its own change in the snapshot when its call returns.
func TestChangesAreInForceWhenTheyReturn(t *testing.T) {
	d, _ := start(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				name := fmt.Sprintf("c%d-%d", i, j)
				c, err := d.CreateConnection(context.Background(), "default", "default", profile(name))
				if err != nil {
					t.Error(err)
					return
				}
				w, _ := d.Snapshot().Workspace("default")
				if got, err := w.Connection(name); err != nil || got.ID != c.ID {
					t.Error("created and not seen", name)
				}
				if j%2 == 0 {
					if err := d.DeleteConnection(context.Background(), "default", name); err != nil {
						t.Error(err)
					}
					w, _ := d.Snapshot().Workspace("default")
					if _, err := w.Connection(name); err == nil {
						t.Error("deleted and still seen", name)
					}
				}
			}
		})
	}
	wg.Wait()
	w, _ := d.Snapshot().Workspace("default")
	if len(w.Connections) != 16 {
		t.Fatal(len(w.Connections))
	}
}

func TestIDs(t *testing.T) { t.Run("J10 ids tell nothing", testIDs) }

func testIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 {
		id := directory.NewID("ws")
		if len(id) != 29 || seen[id] || strings.ToLower(id) != id {
			t.Fatal("J10", id)
		}
		seen[id] = true
	}
}

// What a group of an environment serves stands in that environment, whatever is asked for.
func TestConnectionsStandInTheEnvironmentOfTheirGroup(t *testing.T) {
	d, in := start(t)
	if _, err := d.CreateGroupIn(t.Context(), in.Workspace, "odd", "staging"); err == nil {
		t.Error("a group in an environment that there is not")
	}
	lab, err := d.CreateGroupIn(t.Context(), in.Workspace, "lab", authz.Development)
	must(t, err)
	if lab.Environment != authz.Development {
		t.Fatalf("%+v", lab)
	}
	for name, c := range map[string]struct {
		group       string
		asked, want authz.Environment
	}{
		"lab":       {"lab", "", authz.Development},
		"lab-said":  {"lab", authz.Development, authz.Development},
		"lab-prod":  {"lab", authz.Production, ""},
		"lab-test":  {lab.ID, authz.Test, ""},
		"any":       {"default", "", authz.Production},
		"any-test":  {"default", authz.Test, authz.Test},
		"any-wrong": {"default", "staging", ""},
	} {
		k, err := d.CreateConnection(t.Context(), in.Workspace, c.group, directory.ConnectionBody{Name: name, Profile: "p", Environment: c.asked})
		if c.want == "" {
			if err == nil {
				t.Errorf("%s stands in %s", name, k.Environment)
			}
			continue
		}
		if err != nil || k.Environment != c.want {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
}

// Each side goes by its own list once it has one; without one, by that of callers, and agents by none.
func TestAllowlistsBySide(t *testing.T) {
	d, in := start(t)
	ctx := t.Context()
	nets := func(s ...string) (list []netip.Prefix) {
		for _, p := range s {
			list = append(list, netip.MustParsePrefix(p))
		}
		return list
	}
	office, plant := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("198.51.100.7")
	must(t, d.SetAllowlist(ctx, "default", nets("192.0.2.0/24"), office, false))
	check := func(what string, admitted map[directory.Side]string) {
		t.Helper()
		w, err := d.Snapshot().Workspace("default")
		must(t, err)
		for _, s := range directory.Sides {
			got := ""
			if w.Admits(s, office) {
				got += "o"
			}
			if w.Admits(s, plant) {
				got += "p"
			}
			if w.Admits(s, netip.Addr{}) && s != directory.Sites {
				t.Errorf("%s: %s: no address at all is admitted", what, s)
			}
			if got != admitted[s] {
				t.Errorf("%s: %s: %q, want %q", what, s, got, admitted[s])
			}
		}
		if w.Admits("visitors", office) || w.Admits("", office) {
			t.Errorf("%s: a side that there is not is admitted", what)
		}
	}
	check("callers alone", map[directory.Side]string{"callers": "o", "people": "o", "tokens": "o", "agents": "op", "gateways": "o"})
	set := func(s directory.Side, list ...string) error {
		return d.SetSources(ctx, "default", s, nets(list...), directory.People, office, false, func(admits func(netip.Addr) bool) int {
			if admits(plant) {
				return 0
			}
			return 3 // tunnels, all from there
		})
	}
	must(t, set(directory.Programs, "198.51.100.0/24"))
	check("tokens", map[directory.Side]string{"callers": "o", "people": "o", "tokens": "p", "agents": "op", "gateways": "o"})
	must(t, set(directory.Ports))
	check("gateways, empty", map[directory.Side]string{"callers": "o", "people": "o", "tokens": "p", "agents": "op", "gateways": ""})
	want(t, set(directory.Sites, "203.0.113.0/24"), protocol.CodeConflict) // E8: it would cut agents
	must(t, set(directory.Sites, "198.51.100.7/32"))
	check("agents", map[directory.Side]string{"callers": "o", "people": "o", "tokens": "p", "agents": "p", "gateways": ""})
	// Who asks does not shut itself out unawares: not by its own list, not by that of callers where it has none, not by taking its own away.
	want(t, set(directory.People, "198.51.100.0/24"), protocol.CodeConflict)
	want(t, set(directory.Callers, "198.51.100.0/24"), protocol.CodeConflict)
	must(t, set(directory.People, "192.0.2.7/32"))
	must(t, set(directory.Callers, "198.51.100.0/24"))
	check("people", map[directory.Side]string{"callers": "p", "people": "o", "tokens": "p", "agents": "p", "gateways": ""})
	want(t, d.UnsetSources(ctx, "default", directory.People, directory.People, office, false), protocol.CodeConflict)
	must(t, d.UnsetSources(ctx, "default", directory.People, directory.People, office, true))
	must(t, d.UnsetSources(ctx, "default", directory.Ports, directory.People, office, true))
	must(t, d.UnsetSources(ctx, "default", directory.Sites, directory.People, office, false))
	check("taken away", map[directory.Side]string{"callers": "p", "people": "p", "tokens": "p", "agents": "op", "gateways": "p"})
	want(t, set("visitors", "192.0.2.0/24"), protocol.CodeInvalid)
	want(t, d.UnsetSources(ctx, "default", directory.Callers, directory.People, office, true), protocol.CodeInvalid)
	want(t, d.UnsetSources(ctx, "default", "visitors", directory.People, office, true), protocol.CodeInvalid)
	// An agent that enrols from elsewhere does not, and its join token is still good.
	must(t, set(directory.Sites, "198.51.100.7/32"))
	_, token, err := d.CreateJoinToken(ctx, in.Workspace, in.Group, time.Hour, in.Principal)
	must(t, err)
	from := func(a netip.Addr) error {
		e := enrolment(1)
		e.SourceAddress = a
		_, err := d.Enroll(ctx, token, e, issues("s1", 1))
		return err
	}
	want(t, from(office), protocol.CodeDenied)
	must(t, from(plant))
}

// A hundred thousand prefixes are one row, which is read again only when it changed.
func TestLongAllowlistCostsNothingWhereItDoesNotChange(t *testing.T) {
	d, _ := start(t)
	list := make([]netip.Prefix, 0, directory.MaxAllowlist)
	for i := range directory.MaxAllowlist {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 15), byte(i >> 7), byte(i << 1)}), 31))
	}
	must(t, d.SetAllowlist(t.Context(), "default", list, netip.Addr{}, true))
	w, err := d.Snapshot().Workspace("default")
	must(t, err)
	if len(w.Prefixes) != directory.MaxAllowlist || !w.Admits(directory.People, netip.MustParseAddr("11.0.0.9")) || w.Admits(directory.People, netip.MustParseAddr("12.0.0.9")) {
		t.Fatalf("%d prefixes", len(w.Prefixes))
	}
	want(t, d.SetAllowlist(t.Context(), "default", append(list, netip.MustParsePrefix("192.0.2.0/24")), netip.Addr{}, true), protocol.CodeTooLarge)
	// What changes elsewhere leaves the list as it is.
	_, err = d.CreateGroup(t.Context(), "default", "another")
	must(t, err)
	after, err := d.Snapshot().Workspace("default")
	must(t, err)
	if after.Allowlist != w.Allowlist {
		t.Error("100,000 prefixes were read again for a change of something else")
	}
}
