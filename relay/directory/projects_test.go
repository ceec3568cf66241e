package directory_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// serviceOf makes a service account that holds these, and gives it as one who asks and as it stands now.
func serviceOf(t *testing.T, d *directory.Directory, owner directory.By, name string, grants ...directory.NewGrant) (directory.By, func() authz.Principal) {
	t.Helper()
	p, err := d.CreateService(t.Context(), owner, "default", directory.NewService{Name: name})
	must(t, err)
	for _, g := range grants {
		g.Principal = name
		_, err := d.CreateGrant(t.Context(), owner, "default", g)
		must(t, err)
	}
	by := directory.By{ID: p.ID, At: authz.At{Time: time.Now()}}
	return by, func() authz.Principal {
		w, err := d.Snapshot().Workspace("default")
		must(t, err)
		return w.Principal(p.ID).Principal
	}
}

func connectionNow(t *testing.T, d *directory.Directory, name string) *directory.Connection {
	t.Helper()
	w, err := d.Snapshot().Workspace("default")
	must(t, err)
	c, err := w.Connection(name)
	must(t, err)
	return c
}

func TestProjectsAndFolders(t *testing.T) {
	d, in := start(t)
	ctx := t.Context()
	owner := directory.By{ID: in.Principal}
	p, err := d.CreateProject(ctx, owner, "default", "sales")
	must(t, err)
	_, err = d.CreateProject(ctx, owner, in.Workspace, "sales")
	want(t, err, protocol.CodeConflict)
	for _, bad := range []string{"", "a b", "a/b", "prj_aaaaaaaaaaaaaaaaaaaaaaaaaa", strings.Repeat("a", 65)} {
		_, err = d.CreateProject(ctx, owner, "default", bad)
		want(t, err, protocol.CodeInvalid)
		_, err = d.RenameProject(ctx, owner, "default", "sales", bad)
		want(t, err, protocol.CodeInvalid)
		if bad != "a/b" {
			_, err = d.CreateFolder(ctx, owner, "default", "sales", bad)
			want(t, err, protocol.CodeInvalid)
		}
	}
	_, err = d.CreateProject(ctx, owner, "gone", "sales")
	want(t, err, protocol.CodeNotFound)

	_, err = d.CreateFolder(ctx, owner, "default", "sales", "reports/monthly")
	want(t, err, protocol.CodeNotFound) // each is made explicitly
	_, err = d.CreateFolder(ctx, owner, "default", "sales", "reports")
	must(t, err)
	f, err := d.CreateFolder(ctx, owner, "default", p.ID, "reports/monthly")
	must(t, err)
	if f.Path != "reports/monthly" || f.Project.ID != p.ID || !strings.HasSuffix(f.Scope("").Folder, "/"+f.ID) {
		t.Fatalf("%+v", f)
	}
	_, err = d.CreateFolder(ctx, owner, "default", "sales", "reports/monthly")
	want(t, err, protocol.CodeConflict)
	for _, bad := range []string{"/reports", "reports/", "reports//x", "reports/../x", "reports/./x", strings.Repeat("a/", directory.MaxFolderDepth) + "a"} {
		_, err = d.CreateFolder(ctx, owner, "default", "sales", bad)
		want(t, err, protocol.CodeInvalid)
	}
	deep := "d"
	for range directory.MaxFolderDepth - 1 {
		_, err = d.CreateFolder(ctx, owner, "default", "sales", deep)
		must(t, err)
		deep += "/d"
	}
	_, err = d.CreateFolder(ctx, owner, "default", "sales", deep)
	must(t, err)
	// The same path in another project is another folder.
	_, err = d.CreateProject(ctx, owner, "default", "plant")
	must(t, err)
	_, err = d.CreateFolder(ctx, owner, "default", "plant", "reports")
	must(t, err)

	// A rename keeps what stands in it and what is given on it.
	_, err = d.CreateConnection(ctx, "default", "default", directory.ConnectionBody{Name: "orders", Profile: "sales", In: directory.Place{Project: "sales", Folder: "reports/monthly"}})
	must(t, err)
	_, reader := serviceOf(t, d, owner, "reader", directory.NewGrant{Role: "analyst", In: directory.Place{Project: "sales", Folder: "reports"}})
	renamed, err := d.RenameProject(ctx, owner, "default", "sales", "shop")
	must(t, err)
	if renamed.ID != p.ID || renamed.ETag() == p.ETag() {
		t.Errorf("%+v", renamed)
	}
	c := connectionNow(t, d, "orders")
	if c.Project.Name != "shop" || c.Folder.Path != "reports/monthly" || !authz.Decide(reader(), authz.Query, c.Scope(), authz.At{}).Allow {
		t.Fatalf("%+v", c)
	}
	_, err = d.RenameProject(ctx, owner, "default", "shop", "plant")
	want(t, err, protocol.CodeConflict)
	_, err = d.RenameProject(ctx, owner, "default", "sales", "x")
	want(t, err, protocol.CodeNotFound)
	_, err = d.CreateProject(ctx, owner, "default", "sales") // the name is free again
	must(t, err)

	// Nothing is deleted while something stands in it.
	for _, folder := range []string{"reports", "reports/monthly"} {
		_, err = d.DeleteFolder(ctx, owner, "default", "shop", folder)
		want(t, err, protocol.CodeConflict)
	}
	_, err = d.DeleteProject(ctx, owner, "default", "shop")
	want(t, err, protocol.CodeConflict)
	must(t, d.DeleteConnection(ctx, "default", "orders"))
	_, err = d.DeleteFolder(ctx, owner, "default", "shop", "gone")
	want(t, err, protocol.CodeNotFound)
	_, err = d.DeleteFolder(ctx, owner, "default", "plant", f.ID)
	want(t, err, protocol.CodeNotFound)
	n, err := d.DeleteFolder(ctx, owner, "default", "shop", f.ID)
	if must(t, err); n != 0 {
		t.Errorf("%d grants went with the inner folder", n)
	}
	n, err = d.DeleteFolder(ctx, owner, "default", "shop", "reports")
	if must(t, err); n != 1 || len(reader().Roles()) != 0 {
		t.Errorf("%d grants went with the folder", n)
	}
	for _, g := range []directory.NewGrant{{Role: "analyst"}, {Role: "admin", Environment: authz.Test}} {
		g.Principal, g.In = "reader", directory.Place{Project: "plant"}
		_, err = d.CreateGrant(ctx, owner, "default", g)
		must(t, err)
	}
	_, err = d.DeleteFolder(ctx, owner, "default", "plant", "reports")
	must(t, err)
	if n, err = d.DeleteProject(ctx, owner, "default", "plant"); err != nil || n != 2 {
		t.Errorf("%d grants went with the project: %v", n, err)
	}
	w, err := d.Snapshot().Workspace("default")
	must(t, err)
	if p := w.Principal(reader().ID); len(p.Grants) != 0 {
		t.Errorf("%+v is left", p.Grants)
	}
	_, err = d.DeleteProject(ctx, owner, "default", "plant")
	want(t, err, protocol.CodeNotFound)
}

// What is given on a project is of ids that are in it, and in one form only.
func TestGrantsOnProjectsAreChecked(t *testing.T) {
	d, in := start(t)
	ctx := t.Context()
	owner := directory.By{ID: in.Principal}
	for _, p := range []string{"sales", "plant"} {
		_, err := d.CreateProject(ctx, owner, "default", p)
		must(t, err)
	}
	_, err := d.CreateFolder(ctx, owner, "default", "sales", "reports")
	must(t, err)
	_, err = d.CreateConnection(ctx, "default", "default", profile("orders"))
	must(t, err)
	_, local := serviceOf(t, d, owner, "local", directory.NewGrant{Role: "admin", In: directory.Place{Project: "sales"}})
	for code, list := range map[protocol.Code][]directory.NewGrant{
		protocol.CodeInvalid: {{Role: "analyst", In: directory.Place{Folder: "reports"}}, {Role: "analyst", In: directory.Place{Project: "sales"}, Connection: "orders"},
			{Role: "owner", In: directory.Place{Project: "sales"}}, {Role: "analyst", In: directory.Place{Project: "sales"}, Environment: "staging"}},
		protocol.CodeNotFound: {{Role: "analyst", In: directory.Place{Project: "gone"}}, {Role: "analyst", In: directory.Place{Project: "plant", Folder: "reports"}}},
	} {
		for _, g := range list {
			g.Principal = "local"
			_, err := d.CreateGrant(ctx, owner, "default", g)
			want(t, err, code)
		}
	}
	// J4: an admin of a project gives in it, and takes in it, and nothing beside it.
	by := directory.By{ID: local().ID, At: authz.At{Time: time.Now()}}
	given, err := d.CreateGrant(ctx, by, "default", directory.NewGrant{Principal: "local", Role: "operator", In: directory.Place{Project: "sales", Folder: "reports"}})
	must(t, err)
	for code, list := range map[protocol.Code][]directory.NewGrant{protocol.CodeDenied: {{Role: "analyst"}, {Role: "analyst", Environment: authz.Test}},
		protocol.CodeNotFound: {{Role: "analyst", In: directory.Place{Project: "plant"}}, {Role: "analyst", Connection: "orders"}}} { // which it may not see
		for _, g := range list {
			g.Principal = "local"
			_, err := d.CreateGrant(ctx, by, "default", g)
			want(t, err, code)
		}
	}
	must(t, d.DeleteGrant(ctx, by, "default", given.ID))
	_, err = d.MoveConnection(ctx, owner, "default", "orders", directory.Place{Project: "sales"})
	must(t, err)
	_, err = d.CreateGrant(ctx, by, "default", directory.NewGrant{Principal: "local", Role: "analyst", Connection: "orders"})
	must(t, err)
}

// A connection is moved by who may change it both where it stands and where it goes; what was given where it stood counts for it no more.
func TestMovingWantsTheRightOnBothPlaces(t *testing.T) {
	d, in := start(t)
	ctx := t.Context()
	owner := directory.By{ID: in.Principal}
	for _, p := range []string{"sales", "plant", "hidden"} {
		_, err := d.CreateProject(ctx, owner, "default", p)
		must(t, err)
		_, err = d.CreateFolder(ctx, owner, "default", p, "reports")
		must(t, err)
	}
	_, err := d.CreateConnection(ctx, "default", "default", directory.ConnectionBody{Name: "orders", Profile: "sales", In: directory.Place{Project: "sales", Folder: "reports"}})
	must(t, err)
	in2 := func(p, f string) directory.Place { return directory.Place{Project: p, Folder: f} }
	both, _ := serviceOf(t, d, owner, "both", directory.NewGrant{Role: "operator", In: in2("sales", "")}, directory.NewGrant{Role: "operator", In: in2("plant", "reports")})
	from, _ := serviceOf(t, d, owner, "from", directory.NewGrant{Role: "operator", In: in2("sales", "")}, directory.NewGrant{Role: "analyst", In: in2("plant", "reports")})
	to, _ := serviceOf(t, d, owner, "to", directory.NewGrant{Role: "analyst", In: in2("sales", "")}, directory.NewGrant{Role: "operator", In: in2("plant", "")})
	blind, _ := serviceOf(t, d, owner, "blind", directory.NewGrant{Role: "operator", In: in2("plant", "")})
	itself, _ := serviceOf(t, d, owner, "itself", directory.NewGrant{Role: "admin", Connection: "orders"})
	elsewhere, _ := serviceOf(t, d, owner, "elsewhere", directory.NewGrant{Role: "operator", In: in2("sales", ""), Environment: authz.Test}, directory.NewGrant{Role: "analyst", In: in2("sales", "")})
	local, _ := serviceOf(t, d, owner, "local", directory.NewGrant{Role: "operator", Environment: authz.Production})
	for name, c := range map[string]struct {
		by   directory.By
		to   directory.Place
		code protocol.Code
	}{
		"who may only where it goes":                      {to, in2("plant", "reports"), protocol.CodeDenied},
		"who may only where it stands":                    {from, in2("plant", "reports"), protocol.CodeDenied},
		"where he may not, in a project that he does see": {both, in2("plant", ""), protocol.CodeDenied},
		"out of its project, by who may only in it":       {both, in2("", ""), protocol.CodeDenied},
		"into a project that he does not see":             {both, in2("hidden", ""), protocol.CodeNotFound},
		"into a folder of one that he does not see":       {both, in2("hidden", "reports"), protocol.CodeNotFound},
		"into a project that is not there":                {both, in2("gone", ""), protocol.CodeNotFound},
		"into a folder that is not there":                 {both, in2("plant", "gone"), protocol.CodeNotFound},
		"into a folder of no project":                     {both, in2("", "reports"), protocol.CodeInvalid},
		"who does not see it":                             {blind, in2("plant", ""), protocol.CodeNotFound},
		"who may on the connection alone":                 {itself, in2("sales", ""), protocol.CodeNotFound},
		"who may on the connection alone, out":            {itself, in2("", ""), protocol.CodeDenied},
		"who may in another environment of the project":   {elsewhere, in2("sales", ""), protocol.CodeDenied},
		"a principal that is not there":                   {directory.By{ID: "usr_x"}, in2("plant", ""), protocol.CodeDenied},
	} {
		t.Run("J4 "+name, func(t *testing.T) {
			before := connectionNow(t, d, "orders").ETag()
			_, err := d.MoveConnection(ctx, c.by, "default", "orders", c.to)
			want(t, err, c.code)
			if connectionNow(t, d, "orders").ETag() != before {
				t.Error("moved")
			}
		})
	}
	_, err = d.MoveConnection(ctx, owner, "default", "gone", in2("plant", ""))
	want(t, err, protocol.CodeNotFound)

	_, reader := serviceOf(t, d, owner, "reader", directory.NewGrant{Role: "analyst", In: in2("sales", "")})
	if !authz.Decide(reader(), authz.Query, connectionNow(t, d, "orders").Scope(), authz.At{}).Allow {
		t.Fatal("not where it stands")
	}
	c, err := d.MoveConnection(ctx, both, "default", "orders", in2("plant", "reports"))
	must(t, err)
	if c.Project.Name != "plant" || c.Folder.Path != "reports" || authz.Decide(reader(), authz.Query, c.Scope(), authz.At{}).Allow {
		t.Errorf("%+v", c)
	}
	c, err = d.MoveConnection(ctx, local, "default", "orders", in2("", "")) // who may in its environment may everywhere in it
	if must(t, err); c.Project != nil || c.Folder != nil {
		t.Errorf("%+v", c)
	}
	_, err = d.MoveConnection(ctx, local, "default", "orders", in2("", ""))
	must(t, err)
	// Its token's limits count.
	_, text, err := d.CreateToken(ctx, authz.Principal{ID: in.Principal}, "default", directory.NewToken{Name: "narrow", Roles: []authz.Role{authz.Admin}, Only: directory.Only{Projects: []string{"plant"}}})
	must(t, err)
	tok, _, ok := d.Snapshot().FindToken(text.ExposeString())
	if !ok || len(tok.Only().Projects) != 1 {
		t.Fatal("the token is not limited")
	}
	narrow := directory.By{ID: tok.Principal.ID, Token: tok.ID, At: authz.At{Time: time.Now()}}
	_, err = d.MoveConnection(ctx, narrow, "default", "orders", in2("plant", ""))
	want(t, err, protocol.CodeNotFound) // it stands outside
	_, err = d.MoveConnection(ctx, owner, "default", "orders", in2("plant", ""))
	must(t, err)
	_, err = d.MoveConnection(ctx, narrow, "default", "orders", in2("sales", ""))
	want(t, err, protocol.CodeNotFound) // it does not see that
	_, err = d.MoveConnection(ctx, narrow, "default", "orders", in2("plant", "reports"))
	must(t, err)
	_, _, err = d.CreateToken(ctx, authz.Principal{ID: in.Principal}, "default", directory.NewToken{Name: "lost", Roles: []authz.Role{authz.Admin}, Only: directory.Only{Projects: []string{"gone"}}})
	want(t, err, protocol.CodeNotFound)
}

// What two do at once leaves nothing that stands nowhere: of a move into a folder and its deletion, one wins.
func TestNothingStandsInWhatIsGone(t *testing.T) {
	d, in := start(t)
	ctx := t.Context()
	owner := directory.By{ID: in.Principal}
	_, err := d.CreateProject(ctx, owner, "default", "sales")
	must(t, err)
	_, err = d.CreateConnection(ctx, "default", "default", profile("orders"))
	must(t, err)
	for range 10 {
		_, err := d.CreateFolder(ctx, owner, "default", "sales", "reports")
		must(t, err)
		var both sync.WaitGroup
		var moved, deleted error
		both.Go(func() {
			_, moved = d.MoveConnection(ctx, owner, "default", "orders", directory.Place{Project: "sales", Folder: "reports"})
		})
		both.Go(func() { _, deleted = d.DeleteFolder(ctx, owner, "default", "sales", "reports") })
		both.Wait()
		if (moved == nil) == (deleted == nil) {
			t.Fatal(moved, deleted)
		}
		if moved == nil {
			_, err = d.MoveConnection(ctx, owner, "default", "orders", directory.Place{})
			must(t, err)
			_, err = d.DeleteFolder(ctx, owner, "default", "sales", "reports")
			must(t, err)
		}
	}
}

// A workspace goes with its projects.
func TestAWorkspaceGoesWithItsProjects(t *testing.T) {
	d, _ := start(t)
	ctx := t.Context()
	_, err := d.CreateWorkspace(ctx, "other")
	must(t, err)
	_, err = d.CreateGroup(ctx, "other", "site")
	must(t, err)
	tok, _, err := d.CreateAdminToken(ctx, "other", "theirs", time.Hour)
	must(t, err)
	by := directory.By{ID: tok.Principal.ID}
	_, err = d.CreateProject(ctx, by, "other", "sales")
	must(t, err)
	_, err = d.CreateFolder(ctx, by, "other", "sales", "a")
	must(t, err)
	_, err = d.CreateFolder(ctx, by, "other", "sales", "a/b")
	must(t, err)
	_, err = d.CreateConnection(ctx, "other", "site", directory.ConnectionBody{Name: "orders", Profile: "sales", In: directory.Place{Project: "sales", Folder: "a/b"}})
	must(t, err)
	w, err := d.Snapshot().Workspace("default")
	must(t, err)
	if _, err := w.Project("sales"); protocol.AsError(err).Code != protocol.CodeNotFound {
		t.Error("another workspace's project is found:", err)
	}
	must(t, d.DeleteWorkspace(ctx, "other"))
	if len(d.Snapshot().Workspaces()) != 1 {
		t.Error("it is still there")
	}
}
