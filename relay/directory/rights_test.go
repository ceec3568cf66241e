package directory_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// rights is a state with an owner, an admin and somebody with a token and no right.
type rights struct {
	d            *directory.Directory
	ws           string
	owner, admin directory.By
	low          *directory.Principal
	con, dev     *directory.Connection
}

func newRights(t *testing.T) *rights {
	d, in := start(t)
	r := &rights{d: d, ws: in.Workspace, owner: directory.By{ID: in.Principal}}
	tok, _, err := d.CreateAdminToken(t.Context(), "default", "an admin", 0)
	must(t, err)
	r.admin = directory.By{ID: tok.Principal.ID}
	tok, _, err = d.CreateToken(t.Context(), authz.Principal{ID: in.Principal}, "default", directory.NewToken{Name: "low", Roles: []authz.Role{authz.Analyst}})
	must(t, err)
	r.low = tok.Principal
	r.con, err = d.CreateConnection(t.Context(), "default", "default", profile("orders"))
	must(t, err)
	r.dev, err = d.CreateConnection(t.Context(), "default", "default", directory.ConnectionBody{Name: "sandbox", Profile: "p", Environment: authz.Development})
	must(t, err)
	must(t, d.DeleteGrant(t.Context(), r.owner, "default", r.low.Grants[0].ID))
	return r
}

func (r *rights) workspace(t *testing.T) *directory.Workspace {
	t.Helper()
	w, err := r.d.Snapshot().Workspace(r.ws)
	must(t, err)
	return w
}

// may is what low may do now.
func (r *rights) may(t *testing.T, a authz.Action, s authz.Scope, source string) bool {
	t.Helper()
	at := authz.At{Time: time.Now()}
	if source != "" {
		at.Source = netip.MustParseAddr(source)
	}
	return authz.Decide(r.workspace(t).Principal(r.low.ID).Principal, a, s, at).Allow
}

func (r *rights) give(t *testing.T, by directory.By, n directory.NewGrant) (*directory.Grant, error) {
	t.Helper()
	if n.Principal == "" && n.Team == "" {
		n.Principal = "low"
	}
	return r.d.CreateGrant(t.Context(), by, "default", n)
}

func TestGrantsOnEveryScope(t *testing.T) {
	r := newRights(t)
	whole := authz.Scope{Workspace: r.ws}
	for name, c := range map[string]struct {
		n               directory.NewGrant
		con, dev, whole bool
	}{
		"workspace":   {directory.NewGrant{Role: "operator"}, true, true, true},
		"environment": {directory.NewGrant{Role: "operator", Environment: authz.Development}, false, true, false},
		"connection":  {directory.NewGrant{Role: "operator", Connection: "orders"}, true, false, false},
	} {
		g, err := r.give(t, r.admin, c.n)
		must(t, err)
		if got := [3]bool{r.may(t, authz.Exec, r.con.Scope(), ""), r.may(t, authz.Exec, r.dev.Scope(), ""), r.may(t, authz.AgentsRead, whole, "")}; got != [3]bool{c.con, c.dev, c.whole} {
			t.Errorf("%s: %v", name, got)
		}
		if found, err := r.workspace(t).Grant(g.ID); err != nil || found.Principal.ID != r.low.ID || found.Team != nil {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
		must(t, r.d.DeleteGrant(t.Context(), r.admin, "default", g.ID))
		if r.may(t, authz.Exec, r.con.Scope(), "") || r.may(t, authz.Exec, r.dev.Scope(), "") {
			t.Errorf("P11 %s: still allowed", name)
		}
		want(t, r.d.DeleteGrant(t.Context(), r.admin, "default", g.ID), protocol.CodeNotFound)
	}
	if r.con.Environment != authz.Production || r.dev.Environment != authz.Development {
		t.Error(r.con.Environment, r.dev.Environment)
	}
	_, err := r.d.CreateConnection(t.Context(), "default", "default", directory.ConnectionBody{Name: "x", Profile: "p", Environment: "staging"})
	want(t, err, protocol.CodeInvalid)
}

func TestGrantsWithLimits(t *testing.T) {
	r := newRights(t)
	end := time.Now().Add(time.Second)
	_, err := r.give(t, r.admin, directory.NewGrant{Role: "analyst", Until: end, From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	must(t, err)
	if !r.may(t, authz.Query, r.con.Scope(), "192.0.2.7") || r.may(t, authz.Query, r.con.Scope(), "203.0.113.9") || r.may(t, authz.Query, r.con.Scope(), "") {
		t.Error("E1 its networks are not kept")
	}
	eventually(t, "P11 it is over", func() bool { return !r.may(t, authz.Query, r.con.Scope(), "192.0.2.7") })
	if time.Now().Before(end.Truncate(time.Millisecond)) {
		t.Error("over too soon")
	}
	for name, n := range map[string]directory.NewGrant{
		"nobody":                     {Role: "analyst", Principal: "nobody"},
		"no team":                    {Role: "analyst", Team: "nobody"},
		"no role":                    {Role: "root"},
		"no connection":              {Role: "analyst", Connection: "gone"},
		"two holders":                {Role: "analyst", Principal: "low", Team: "night"},
		"two scopes":                 {Role: "analyst", Connection: "orders", Environment: authz.Test},
		"no environment":             {Role: "analyst", Environment: "staging"},
		"over already":               {Role: "analyst", Until: time.Now()},
		"an end out of range":        {Role: "analyst", Until: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"E6 host bits":               {Role: "analyst", From: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}},
		"E6 mapped":                  {Role: "analyst", From: []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.0/120")}},
		"no network":                 {Role: "analyst", From: []netip.Prefix{{}}},
		"too many networks":          {Role: "analyst", From: make([]netip.Prefix, directory.MaxGrantFrom+1)},
		"an owner of an environment": {Role: "owner", Environment: authz.Development},
		"an owner of a connection":   {Role: "owner", Connection: "orders"},
	} {
		if n.Principal == "" && n.Team == "" {
			n.Principal = "low"
		}
		if _, err := r.d.CreateGrant(t.Context(), r.owner, "default", n); err == nil {
			t.Error(name, "is given")
		} else if e := (*protocol.Error)(nil); !errors.As(err, &e) || e.Code == protocol.CodeInternal || e.Code == protocol.CodeDenied {
			t.Error(name, err)
		}
	}
	_, err = r.d.CreateGrant(t.Context(), r.owner, "default", directory.NewGrant{Role: "analyst"})
	want(t, err, protocol.CodeInvalid)
	if n := len(r.workspace(t).Grants); n != 3 { // owner's, admin's, the one above
		t.Error(n, "grants")
	}
}

func TestJ4GrantsNeverExceedTheirGiver(t *testing.T) {
	r := newRights(t)
	lowBy := directory.By{ID: r.low.ID, At: authz.At{Time: time.Now(), Source: netip.MustParseAddr("192.0.2.7")}}
	denied := func(name string, by directory.By, n directory.NewGrant) {
		t.Helper()
		_, err := r.give(t, by, n)
		if err == nil {
			t.Errorf("%s: given", name)
			return
		}
		want(t, err, protocol.CodeDenied)
	}
	denied("an admin makes no owner", r.admin, directory.NewGrant{Role: "owner"})
	denied("who holds nothing", lowBy, directory.NewGrant{Role: "analyst"})
	denied("nobody", directory.By{}, directory.NewGrant{Role: "analyst"})
	for _, role := range []string{"operator", "analyst"} {
		g, err := r.give(t, r.admin, directory.NewGrant{Role: role})
		must(t, err)
		denied(role, lowBy, directory.NewGrant{Role: "analyst"})
		want(t, r.d.DeleteGrant(t.Context(), lowBy, "default", g.ID), protocol.CodeNotFound) // it may not see it
		must(t, r.d.DeleteGrant(t.Context(), r.admin, "default", g.ID))
	}
	// An admin of development: there, and nowhere else, and for no longer than it is one.
	end := time.Now().Add(time.Hour)
	_, err := r.give(t, r.admin, directory.NewGrant{Role: "admin", Environment: authz.Development, Until: end})
	must(t, err)
	denied("without end", lowBy, directory.NewGrant{Role: "analyst", Environment: authz.Development})
	denied("for longer", lowBy, directory.NewGrant{Role: "analyst", Environment: authz.Development, Until: end.Add(time.Second)})
	denied("on the workspace", lowBy, directory.NewGrant{Role: "analyst", Until: end})
	denied("in production", lowBy, directory.NewGrant{Role: "analyst", Environment: authz.Production, Until: end})
	_, err = r.give(t, lowBy, directory.NewGrant{Role: "analyst", Connection: "orders", Until: end})
	want(t, err, protocol.CodeNotFound) // of production, which it may not see
	denied("as somebody whose time is not known", directory.By{ID: r.low.ID}, directory.NewGrant{Role: "analyst", Environment: authz.Development, Until: end})
	for _, n := range []directory.NewGrant{{Role: "analyst", Environment: authz.Development, Until: end}, {Role: "analyst", Connection: "sandbox", Until: end.Add(-time.Minute)}} {
		g, err := r.give(t, lowBy, n)
		must(t, err)
		must(t, r.d.DeleteGrant(t.Context(), lowBy, "default", g.ID))
	}
	_, _, err = r.d.CreateToken(t.Context(), r.low.Principal, "default", directory.NewToken{Name: "x", Roles: []authz.Role{authz.Analyst}, Connections: []string{"sandbox"}, At: lowBy.At})
	want(t, err, protocol.CodeDenied)
	other, err := r.give(t, r.admin, directory.NewGrant{Principal: "an admin", Role: "analyst"})
	must(t, err)
	want(t, r.d.DeleteGrant(t.Context(), lowBy, "default", other.ID), protocol.CodeNotFound)
	must(t, r.d.SetPrincipalDisabled(t.Context(), "default", r.low.ID, true))
	denied("who is disabled", lowBy, directory.NewGrant{Role: "analyst", Environment: authz.Development, Until: end})
	want(t, r.d.DeleteGrant(t.Context(), lowBy, "default", other.ID), protocol.CodeDenied)
}

// Only owners make and unmake owners, whichever way.
func TestJ4OwnersAreOwnersAffair(t *testing.T) {
	r := newRights(t)
	ctx := t.Context()
	ownersToken := r.workspace(t).Tokens[slices.IndexFunc(r.workspace(t).Tokens, func(t *directory.Token) bool { return t.Principal.ID == r.owner.ID })]
	owners := r.workspace(t).Principal(r.owner.ID).Grants[0].ID
	_, err := r.d.CreateTeam(ctx, "default", "board")
	must(t, err)
	_, err = r.give(t, r.admin, directory.NewGrant{Team: "board", Role: "owner"})
	want(t, err, protocol.CodeDenied)
	_, err = r.give(t, r.owner, directory.NewGrant{Team: "board", Role: "owner"})
	must(t, err)
	_, err = r.d.AddMember(ctx, r.owner, "default", "board", r.owner.ID)
	must(t, err)
	for name, do := range map[string]func(directory.By) error{
		"takes the grant":   func(by directory.By) error { return r.d.DeleteGrant(ctx, by, "default", owners) },
		"revokes the token": func(by directory.By) error { return r.d.RevokeTokenBy(ctx, by, "default", ownersToken.ID) },
		"joins their team": func(by directory.By) error {
			_, err := r.d.AddMember(ctx, by, "default", "board", r.low.ID)
			return err
		},
		"takes out of it": func(by directory.By) error { return r.d.RemoveMember(ctx, by, "default", "board", r.owner.ID) },
		"deletes it":      func(by directory.By) error { return r.d.DeleteTeam(ctx, by, "default", "board") },
		"makes a token as it": func(by directory.By) error {
			_, _, err := r.d.CreateToken(ctx, authz.Principal{ID: by.ID}, "default", directory.NewToken{Name: "x", Principal: r.owner.ID})
			return err
		},
		"makes an owner": func(by directory.By) error {
			_, _, err := r.d.CreateToken(ctx, authz.Principal{ID: by.ID}, "default", directory.NewToken{Name: "x", Roles: []authz.Role{authz.Owner}})
			return err
		},
		"makes a role of it": func(by directory.By) error {
			_, err := r.d.CreateRole(ctx, by, "default", "x", []authz.Action{authz.Query, authz.WorkspaceOwn})
			return err
		},
	} {
		t.Run("J4 no admin "+name, func(t *testing.T) {
			err := do(r.admin)
			if code := protocol.AsError(err).Code; err == nil || code != protocol.CodeDenied && code != protocol.CodeInvalid {
				t.Fatal(err)
			}
		})
	}
	if _, err := r.d.AddMember(ctx, r.owner, "default", "board", "an admin"); err != nil {
		t.Fatal(err)
	}
	if !r.workspace(t).Principal(r.admin.ID).Owns() {
		t.Fatal("a member of the owners' team is no owner")
	}
	must(t, r.d.DeleteGrant(ctx, r.admin, "default", owners)) // an owner by now, and the other is still one by the team
	want(t, r.d.DeleteTeam(ctx, r.admin, "default", "board"), protocol.CodeConflict)
	must(t, r.d.RemoveMember(ctx, r.admin, "default", "board", r.owner.ID))
	want(t, r.d.RemoveMember(ctx, r.admin, "default", "board", r.admin.ID), protocol.CodeConflict)
	// An end or a network does not make an owner that can be counted on.
	_, err = r.give(t, r.admin, directory.NewGrant{Principal: r.owner.ID, Role: "owner", Until: time.Now().Add(time.Hour)})
	must(t, err)
	_, err = r.give(t, r.admin, directory.NewGrant{Principal: r.owner.ID, Role: "owner", From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	must(t, err)
	want(t, r.d.DeleteTeam(ctx, r.admin, "default", "board"), protocol.CodeConflict)
}

func TestTeams(t *testing.T) {
	r := newRights(t)
	ctx := t.Context()
	team, err := r.d.CreateTeam(ctx, "default", "night")
	must(t, err)
	_, err = r.d.CreateTeam(ctx, "default", "night")
	want(t, err, protocol.CodeConflict)
	_, err = r.d.CreateTeam(ctx, "default", "no name!")
	want(t, err, protocol.CodeInvalid)
	_, err = r.give(t, r.admin, directory.NewGrant{Team: "night", Role: "analyst", Connection: "orders"})
	must(t, err)
	if r.may(t, authz.Query, r.con.Scope(), "") {
		t.Fatal("held by one who is not in it")
	}
	for range 2 { // the second changes nothing
		got, err := r.d.AddMember(ctx, r.admin, "default", "night", "low")
		must(t, err)
		if len(got.Members) != 1 || got.Members[0].ID != r.low.ID || got.ID != team.ID {
			t.Fatalf("%+v", got)
		}
	}
	if !r.may(t, authz.Query, r.con.Scope(), "") || r.may(t, authz.Query, r.dev.Scope(), "") {
		t.Fatal("a member does not hold what the team does")
	}
	if g := r.workspace(t).Principal(r.low.ID).Grants; len(g) != 1 || g[0].Team != team.ID {
		t.Fatalf("%+v", g)
	}
	must(t, r.d.RemoveMember(ctx, r.admin, "default", "night", r.low.ID))
	if r.may(t, authz.Query, r.con.Scope(), "") {
		t.Fatal("P11 held by one who left")
	}
	want(t, r.d.RemoveMember(ctx, r.admin, "default", "night", r.low.ID), protocol.CodeNotFound)
	_, err = r.d.AddMember(ctx, r.admin, "default", team.ID, r.low.ID)
	must(t, err)
	t.Run("J4 who may manage teams gives no more than it holds", func(t *testing.T) {
		must(t, r.d.RemoveMember(ctx, r.admin, "default", "night", r.low.ID)) // a member holds what the team does
		_, err := r.d.CreateRole(ctx, r.admin, "default", "teams", []authz.Action{authz.TeamsManage})
		must(t, err)
		g, err := r.give(t, r.admin, directory.NewGrant{Role: "teams"})
		must(t, err)
		for _, who := range []string{"an admin", "low"} {
			_, err = r.d.AddMember(ctx, directory.By{ID: r.low.ID}, "default", "night", who)
			want(t, err, protocol.CodeDenied)
		}
		must(t, r.d.DeleteGrant(ctx, r.admin, "default", g.ID))
	})
	must(t, r.d.DeleteTeam(ctx, r.admin, "default", "night"))
	if r.may(t, authz.Query, r.con.Scope(), "") || len(r.workspace(t).Teams) != 0 || len(r.workspace(t).Grants) != 2 {
		t.Fatal("P11 the team's grants outlive it")
	}
	want(t, r.d.DeleteTeam(ctx, r.admin, "default", "night"), protocol.CodeNotFound)
}

func TestCustomRolesOfAWorkspace(t *testing.T) {
	r := newRights(t)
	ctx := t.Context()
	reader, err := r.d.CreateRole(ctx, r.admin, "default", "reader", []authz.Action{authz.Query, authz.Schema})
	must(t, err)
	for name, actions := range map[string][]authz.Action{"unknown": {"made.up"}, "none": nil, "an owner's": {authz.WorkspaceOwn}} {
		_, err := r.d.CreateRole(ctx, r.owner, "default", "x", actions)
		if err == nil {
			t.Error(name)
			continue
		}
		want(t, err, protocol.CodeInvalid)
	}
	for _, taken := range []string{"reader", "owner", "admin", "operator", "analyst"} {
		_, err := r.d.CreateRole(ctx, r.admin, "default", taken, []authz.Action{authz.Query})
		want(t, err, protocol.CodeConflict)
	}
	_, err = r.give(t, r.admin, directory.NewGrant{Role: "reader", Connection: "orders"})
	must(t, err)
	if !r.may(t, authz.Query, r.con.Scope(), "") || r.may(t, authz.List, r.con.Scope(), "") {
		t.Fatal("the role is not what it says")
	}
	lister, err := r.d.UpdateRole(ctx, r.admin, "default", "reader", "lister", []authz.Action{authz.List})
	must(t, err)
	if lister.ID != reader.ID || lister.Version != reader.Version+1 || lister.Name != "lister" || r.may(t, authz.Query, r.con.Scope(), "") || !r.may(t, authz.List, r.con.Scope(), "") {
		t.Fatalf("P11 %+v: whoever holds it holds the old one", lister)
	}
	_, err = r.d.UpdateRole(ctx, r.admin, "default", "reader", "reader", []authz.Action{authz.List})
	want(t, err, protocol.CodeNotFound)
	want(t, r.d.DeleteRole(ctx, "default", "lister"), protocol.CodeConflict)

	t.Run("J4 a role is widened by nobody beyond their own", func(t *testing.T) {
		_, err := r.d.CreateRole(ctx, r.admin, "default", "editor", []authz.Action{authz.RolesManage, authz.Query})
		must(t, err)
		g, err := r.give(t, r.admin, directory.NewGrant{Role: "editor"})
		must(t, err)
		low := directory.By{ID: r.low.ID, At: authz.At{Time: time.Now()}}
		_, err = r.d.UpdateRole(ctx, low, "default", "editor", "editor", []authz.Action{authz.RolesManage, authz.Query, authz.TokensManage})
		want(t, err, protocol.CodeDenied)
		_, err = r.d.CreateRole(ctx, low, "default", "more", []authz.Action{authz.Exec})
		want(t, err, protocol.CodeDenied)
		_, err = r.d.UpdateRole(ctx, low, "default", "editor", "editor", []authz.Action{authz.RolesManage}) // narrower
		must(t, err)
		_, err = r.d.UpdateRole(ctx, low, "default", "editor", "editor", []authz.Action{authz.RolesManage, authz.Query})
		want(t, err, protocol.CodeDenied)
		_, err = r.d.UpdateRole(ctx, directory.By{}, "default", "editor", "editor", []authz.Action{authz.RolesManage})
		want(t, err, protocol.CodeDenied)
		must(t, r.d.DeleteGrant(ctx, r.admin, "default", g.ID))
		// A holder for a time widens nothing: the role would outlast it.
		g, err = r.give(t, r.admin, directory.NewGrant{Role: "admin", Until: time.Now().Add(time.Hour)})
		must(t, err)
		_, err = r.d.UpdateRole(ctx, low, "default", "editor", "editor", []authz.Action{authz.RolesManage, authz.Query})
		want(t, err, protocol.CodeDenied)
		must(t, r.d.DeleteGrant(ctx, r.admin, "default", g.ID))
	})
	for _, g := range r.workspace(t).Principal(r.low.ID).Grants {
		must(t, r.d.DeleteGrant(ctx, r.admin, "default", g.ID))
	}
	must(t, r.d.DeleteRole(ctx, "default", "lister"))
	want(t, r.d.DeleteRole(ctx, "default", "lister"), protocol.CodeNotFound)
	if r.may(t, authz.List, r.con.Scope(), "") {
		t.Fatal("a deleted role gives")
	}
}

// P9: nothing of another workspace's rights is found, given, changed or named.
func TestP9RightsOfWorkspacesAreApart(t *testing.T) {
	r := newRights(t)
	ctx := t.Context()
	_, err := r.d.CreateWorkspace(ctx, "other")
	must(t, err)
	tok, _, err := r.d.CreateOwnerToken(ctx, "other", "theirs", 0)
	must(t, err)
	theirs := directory.By{ID: tok.Principal.ID}
	role, err := r.d.CreateRole(ctx, r.owner, "default", "reader", []authz.Action{authz.Query})
	must(t, err)
	team, err := r.d.CreateTeam(ctx, "default", "night")
	must(t, err)
	grant, err := r.give(t, r.owner, directory.NewGrant{Role: "reader"})
	must(t, err)
	_, err = r.d.CreateTeam(ctx, "other", "theirs")
	must(t, err)
	give := func(n directory.NewGrant) error { _, err := r.d.CreateGrant(ctx, theirs, "other", n); return err }
	_, memberErr := r.d.AddMember(ctx, theirs, "other", "theirs", r.low.ID)
	_, teamErr := r.d.AddMember(ctx, theirs, "other", team.ID, tok.Principal.ID)
	_, roleErr := r.d.UpdateRole(ctx, theirs, "other", role.ID, "x", []authz.Action{authz.Query})
	for i, err := range []error{give(directory.NewGrant{Role: role.ID, Principal: tok.Principal.ID}), give(directory.NewGrant{Role: "reader", Principal: tok.Principal.ID}),
		give(directory.NewGrant{Role: "analyst", Principal: r.low.ID}), give(directory.NewGrant{Role: "analyst", Team: team.ID}),
		give(directory.NewGrant{Role: "analyst", Principal: tok.Principal.ID, Connection: r.con.ID}), memberErr, teamErr, roleErr,
		r.d.DeleteGrant(ctx, theirs, "other", grant.ID), r.d.DeleteRole(ctx, "other", role.ID), r.d.DeleteTeam(ctx, theirs, "other", team.ID),
		r.d.RevokeTokenBy(ctx, theirs, "other", r.workspace(t).Tokens[0].ID), r.d.RemoveMember(ctx, theirs, "other", "theirs", r.low.ID)} {
		t.Run(fmt.Sprint("J1 other workspace ", i), func(t *testing.T) { want(t, err, protocol.CodeNotFound) })
	}
	for i, do := range []func() error{func() error { _, err := r.give(t, theirs, directory.NewGrant{Role: "analyst"}); return err },
		func() error { return r.d.DeleteGrant(ctx, theirs, "default", grant.ID) }, func() error { return r.d.DeleteTeam(ctx, theirs, "default", "night") },
		func() error {
			_, err := r.d.CreateRole(ctx, theirs, "default", "y", []authz.Action{authz.Query})
			return err
		},
		func() error { return r.d.RevokeTokenBy(ctx, theirs, "default", r.workspace(t).Tokens[0].ID) }} {
		t.Run(fmt.Sprint("J4 no right of another workspace counts ", i), func(t *testing.T) { want(t, do(), protocol.CodeDenied) })
	}
}

// Two who take each other's right to give, or give while it is taken: what is in force in the end, its giver could give.
func TestGivingRacesTaking(t *testing.T) {
	r := newRights(t)
	ctx := t.Context()
	for range 10 {
		g, err := r.give(t, r.owner, directory.NewGrant{Role: "admin"})
		must(t, err)
		var wg sync.WaitGroup
		var gave, took error
		var made *directory.Grant
		wg.Go(func() {
			made, gave = r.d.CreateGrant(ctx, directory.By{ID: r.low.ID}, "default", directory.NewGrant{Principal: r.admin.ID, Role: "analyst"})
		})
		wg.Go(func() { took = r.d.DeleteGrant(ctx, r.owner, "default", g.ID) })
		wg.Wait()
		must(t, took)
		if gave != nil {
			want(t, gave, protocol.CodeDenied)
			continue
		}
		must(t, r.d.DeleteGrant(ctx, r.owner, "default", made.ID))
	}
}

// J4: what another process took is not given on by one that has not seen it yet.
func TestGivingIsJudgedByTheNewestState(t *testing.T) {
	t.Run("J4 two at once", testGivingIsJudgedByTheNewestState)
}

func testGivingIsJudgedByTheNewestState(t *testing.T) {
	c := directory.DefaultConfig(t.TempDir())
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	quick := reopen(t, c)
	c.Poll, c.StaleAfter = time.Hour, time.Hour
	slow := reopen(t, c)
	owner := directory.By{ID: in.Principal}
	tok, _, err := slow.CreateToken(t.Context(), authz.Principal{ID: in.Principal}, "default", directory.NewToken{Name: "second", Roles: []authz.Role{authz.Admin}})
	must(t, err)
	eventually(t, "the other sees the token", func() bool {
		w, err := quick.Snapshot().Workspace("default")
		return err == nil && len(w.Tokens) == 2
	})
	must(t, quick.DeleteGrant(t.Context(), owner, "default", tok.Principal.Grants[0].ID))
	if w, err := slow.Snapshot().Workspace("default"); err != nil || len(w.Principal(tok.Principal.ID).Grants) != 1 {
		t.Fatal("it has seen it already: the test is void")
	}
	_, err = slow.CreateGrant(t.Context(), directory.By{ID: tok.Principal.ID}, "default", directory.NewGrant{Principal: in.Principal, Role: "analyst"})
	want(t, err, protocol.CodeDenied)
}
