package directory_test

import (
	"context"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// J4: each change of connections, projects and folders is judged in the transaction that makes it: a right that was taken through
// another process, or a moment ago, makes nothing any more.
func TestPlacesAreChangedByWhatIsHeldWhenItIsWritten(t *testing.T) {
	t.Run("J4 places, two at once", testPlacesAreChangedByWhatIsHeldWhenItIsWritten)
}

func testPlacesAreChangedByWhatIsHeldWhenItIsWritten(t *testing.T) {
	c := directory.DefaultConfig(t.TempDir())
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	quick := reopen(t, c)
	c.Poll, c.StaleAfter = time.Hour, time.Hour
	slow := reopen(t, c)
	owner := directory.By{ID: in.Principal}
	by, _ := serviceOf(t, slow, owner, "late")
	_, err = slow.CreateProject(t.Context(), owner, "default", "sales")
	must(t, err)
	_, err = slow.CreateFolder(t.Context(), owner, "default", "sales", "reports")
	must(t, err)
	_, err = slow.CreateConnection(t.Context(), "default", "default", profile("orders"))
	must(t, err)
	for name, act := range map[string]func(context.Context, *directory.Directory, directory.By) error{
		"making a project": func(ctx context.Context, d *directory.Directory, by directory.By) error {
			_, err := d.CreateProject(ctx, by, "default", "plant")
			return err
		},
		"renaming one": func(ctx context.Context, d *directory.Directory, by directory.By) error {
			_, err := d.RenameProject(ctx, by, "default", "sales", "shop")
			return err
		},
		"deleting one": func(ctx context.Context, d *directory.Directory, by directory.By) error {
			_, err := d.DeleteProject(ctx, by, "default", "sales")
			return err
		},
		"making a folder": func(ctx context.Context, d *directory.Directory, by directory.By) error {
			_, err := d.CreateFolder(ctx, by, "default", "sales", "more")
			return err
		},
		"deleting one of a project": func(ctx context.Context, d *directory.Directory, by directory.By) error {
			_, err := d.DeleteFolder(ctx, by, "default", "sales", "reports")
			return err
		},
		"making a connection": func(ctx context.Context, d *directory.Directory, by directory.By) error {
			_, err := d.CreateConnectionBy(ctx, by, "default", "default", profile("more"))
			return err
		},
		"moving one": func(ctx context.Context, d *directory.Directory, by directory.By) error {
			_, err := d.MoveConnection(ctx, by, "default", "orders", directory.Place{Project: "sales"})
			return err
		},
		"deleting one for good": func(ctx context.Context, d *directory.Directory, by directory.By) error {
			return d.DeleteConnectionBy(ctx, by, "default", "orders")
		},
	} {
		t.Run(name, func(t *testing.T) {
			// Who may still read is told that he may not; to who may not even see it any more it is not there.
			for _, reads := range []bool{false, true} {
				code := protocol.CodeDenied
				if !reads && name != "making a project" && name != "making a connection" {
					code = protocol.CodeNotFound
				}
				if reads {
					g, err := slow.CreateGrant(t.Context(), owner, "default", directory.NewGrant{Principal: "late", Role: "analyst"})
					must(t, err)
					defer func() { must(t, slow.DeleteGrant(t.Context(), owner, "default", g.ID)) }()
				}
				g, err := slow.CreateGrant(t.Context(), owner, "default", directory.NewGrant{Principal: "late", Role: "operator"})
				must(t, err)
				eventually(t, "the other sees the grant", func() bool {
					w, err := quick.Snapshot().Workspace("default")
					if err == nil {
						_, err = w.Grant(g.ID)
					}
					return err == nil
				})
				must(t, quick.DeleteGrant(t.Context(), owner, "default", g.ID))
				w, err := slow.Snapshot().Workspace("default")
				must(t, err)
				if !authz.Decide(w.Principal(by.ID).Principal, authz.ConnectionsManage, authz.Scope{Workspace: w.ID}, by.At).Allow {
					t.Fatal("it has seen it already: the test is void")
				}
				want(t, act(t.Context(), slow, by), code)
			}
		})
	}
	w, err := quick.Snapshot().Workspace("default")
	must(t, err)
	if len(w.Projects) != 1 || w.Projects[0].Name != "sales" || len(w.Projects[0].Folders) != 1 || len(w.Connections) != 1 || w.Connections[0].Project != nil {
		t.Error("something was changed")
	}
}
