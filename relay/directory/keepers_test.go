package directory_test

import (
	"context"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

func workspace(t *testing.T, d *directory.Directory, name string) *directory.Workspace {
	t.Helper()
	w, err := d.Snapshot().Workspace(name)
	must(t, err)
	return w
}

// J4: people who sign in keep a workspace as tokens do, and the last of both is kept whichever way it would go.
func TestJ4TheLastWhoCanAdministerStays(t *testing.T) {
	t.Run("J4 the last one stays", testJ4TheLastWhoCanAdministerStays)
}

func testJ4TheLastWhoCanAdministerStays(t *testing.T) {
	ctx := context.Background()
	t.Run("a person who has come is enough, one who was invited is not", func(t *testing.T) {
		d, in := start(t)
		_, _, err := d.CreateUser(ctx, directory.By{ID: in.Principal}, "default", directory.NewUser{Name: "carl", Roles: []authz.Role{authz.Owner}})
		must(t, err)
		want(t, d.RevokeToken(ctx, "default", in.TokenID), protocol.CodeConflict)
		_, s, _ := person(t, d, "anna") // an admin
		want(t, d.RevokeToken(ctx, "default", in.TokenID), protocol.CodeConflict)
		owner, err := d.CreateGrant(ctx, directory.By{ID: in.Principal}, "default", directory.NewGrant{Principal: s.Principal.ID, Role: "owner"})
		must(t, err)
		must(t, d.RevokeToken(ctx, "default", in.TokenID))
		// Now she is the last: by whatever way.
		by := directory.By{ID: s.Principal.ID}
		want(t, d.SetPrincipalDisabled(ctx, "default", s.Principal.ID, true), protocol.CodeConflict)
		want(t, d.RemoveUser(ctx, "default", s.Principal.ID), protocol.CodeConflict)
		want(t, d.DeleteGrant(ctx, by, "default", owner.ID), protocol.CodeConflict)
		// Another's coming sets her free.
		_, other, _ := person(t, d, "bert")
		_, err = d.CreateGrant(ctx, by, "default", directory.NewGrant{Principal: other.Principal.ID, Role: "owner"})
		must(t, err)
		must(t, d.RemoveUser(ctx, "default", s.Principal.ID))
	})
	t.Run("through a team", func(t *testing.T) {
		d, in := start(t)
		by := directory.By{ID: in.Principal}
		_, err := d.CreateTeam(ctx, "default", "chiefs")
		must(t, err)
		_, s, _ := person(t, d, "anna")
		_, err = d.CreateGrant(ctx, by, "default", directory.NewGrant{Team: "chiefs", Role: "owner"})
		must(t, err)
		_, err = d.AddMember(ctx, by, "default", "chiefs", "anna")
		must(t, err)
		must(t, d.RevokeToken(ctx, "default", in.TokenID))
		by = directory.By{ID: s.Principal.ID}
		want(t, d.RemoveMember(ctx, by, "default", "chiefs", "anna"), protocol.CodeConflict)
		want(t, d.DeleteTeam(ctx, by, "default", "chiefs"), protocol.CodeConflict)
	})
	t.Run("by a custom role that holds what an admin holds, where there is no owner", func(t *testing.T) {
		d, _ := start(t)
		o, err := d.CreateWorkspace(ctx, "other")
		must(t, err)
		admin, _, err := d.CreateAdminToken(ctx, o.ID, "admin", 0)
		must(t, err)
		by := directory.By{ID: admin.Principal.ID}
		_, err = d.CreateRole(ctx, by, o.ID, "everything", authz.Admin.Set().Actions())
		must(t, err)
		heir, _, err := d.CreateToken(ctx, admin.Principal.Principal, o.ID, directory.NewToken{Name: "heir", Roles: []authz.Role{authz.Analyst}})
		must(t, err)
		want(t, d.RevokeToken(ctx, o.ID, admin.ID), protocol.CodeConflict)
		_, err = d.CreateGrant(ctx, by, o.ID, directory.NewGrant{Principal: heir.Principal.ID, Role: "everything"})
		must(t, err)
		must(t, d.RevokeToken(ctx, o.ID, admin.ID))
		audit, err := authz.NewSet(authz.AuditRead)
		must(t, err)
		_, err = d.UpdateRole(ctx, directory.By{ID: heir.Principal.ID}, o.ID, "everything", "everything", authz.Admin.Set().Without(audit).Actions())
		want(t, err, protocol.CodeConflict)
	})
	t.Run("a token that ends within a day holds nothing up alone", func(t *testing.T) {
		d, in := start(t)
		_, _, err := d.CreateOwnerToken(ctx, "default", "for an hour", time.Hour)
		must(t, err)
		want(t, d.RevokeToken(ctx, "default", in.TokenID), protocol.CodeConflict)
		_, _, err = d.CreateOwnerToken(ctx, "default", "for two days", 48*time.Hour)
		must(t, err)
		must(t, d.RevokeToken(ctx, "default", in.TokenID))
	})
	t.Run("but where it is all there is, it stays", func(t *testing.T) {
		d, _ := start(t)
		o, err := d.CreateWorkspace(ctx, "other")
		must(t, err)
		tok, _, err := d.CreateOwnerToken(ctx, o.ID, "for an hour", time.Hour)
		must(t, err)
		want(t, d.RevokeToken(ctx, o.ID, tok.ID), protocol.CodeConflict)
	})
}

// J4, F17: whoever is removed at home is removed everywhere, with grants and tokens; but not as the last who keeps another workspace.
func TestWhoIsRemovedAtHomeIsRemovedEverywhere(t *testing.T) {
	t.Run("F17 removed everywhere", testWhoIsRemovedAtHomeIsRemovedEverywhere)
}

func testWhoIsRemovedAtHomeIsRemovedEverywhere(t *testing.T) {
	ctx := context.Background()
	for name, remove := range map[string]func(d *directory.Directory, principal string) error{
		"the person":    func(d *directory.Directory, principal string) error { return d.RemoveUser(ctx, "default", principal) },
		"the workspace": func(d *directory.Directory, _ string) error { return d.DeleteWorkspace(ctx, "default") },
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := start(t)
			p, s, _ := person(t, d, "anna")
			o, err := d.CreateWorkspace(ctx, "other")
			must(t, err)
			first, _, err := d.CreateOwnerToken(ctx, o.ID, "owner", 0)
			must(t, err)
			by := directory.By{ID: first.Principal.ID}
			there, _, err := d.CreateUser(ctx, by, o.ID, directory.NewUser{Name: "anna", Roles: []authz.Role{authz.Owner}, Person: p.ID})
			must(t, err)
			must(t, d.SetSignIn(ctx, o.ID, directory.SignIn{PersonalTokens: time.Hour}))
			_, text, err := d.CreatePersonalToken(ctx, directory.By{ID: there.ID}, o.ID, directory.NewToken{Name: "hers"})
			must(t, err)
			_, svc, err := d.CreateToken(ctx, first.Principal.Principal, o.ID, directory.NewToken{Name: "svc", Roles: []authz.Role{authz.Analyst}})
			must(t, err)
			must(t, d.RevokeToken(ctx, o.ID, first.ID)) // she is the last there
			want(t, remove(d, s.Principal.ID), protocol.CodeConflict)
			if w := workspace(t, d, "other"); w.PersonOf(there.ID) == nil || d.Snapshot().Session(s.ID) == nil {
				t.Error("what was refused took something")
			}
			_, _, err = d.CreateOwnerToken(ctx, o.ID, "another", 0)
			must(t, err)
			must(t, remove(d, s.Principal.ID))
			w := workspace(t, d, "other")
			if w.Principal(there.ID) != nil {
				t.Error("F17 the principal outlives its person")
			}
			if _, _, ok := d.Snapshot().FindToken(text.ExposeString()); ok {
				t.Error("F17 the token outlives its person")
			}
			if _, _, ok := d.Snapshot().FindToken(svc.ExposeString()); !ok {
				t.Error("others went with her")
			}
			for _, g := range w.Grants {
				if g.Principal == nil && g.Team == nil {
					t.Errorf("a grant is left: %+v", g)
				}
			}
		})
	}
	t.Run("elsewhere than at home", func(t *testing.T) {
		d, _ := start(t)
		p, s, _ := person(t, d, "anna")
		o, err := d.CreateWorkspace(ctx, "other")
		must(t, err)
		first, _, err := d.CreateOwnerToken(ctx, o.ID, "owner", 0)
		must(t, err)
		there, _, err := d.CreateUser(ctx, directory.By{ID: first.Principal.ID}, o.ID, directory.NewUser{Name: "anna", Roles: []authz.Role{authz.Admin}, Person: p.ID})
		must(t, err)
		must(t, d.RemoveUser(ctx, o.ID, there.ID))
		if w := workspace(t, d, "default"); w.PersonOf(s.Principal.ID) == nil || d.Snapshot().Session(s.ID) == nil {
			t.Error("she is gone at home, too")
		}
	})
}
