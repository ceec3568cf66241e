package directory_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/store"
)

// backTo3 makes of a state what the release before had: no teams, no custom roles, no owners.
func backTo3(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "store", "migrations", "0004_rights.sql"))
	must(t, err)
	_, down, ok := strings.Cut(string(b), "-- +goose Down")
	if !ok {
		t.Fatal("the migration has no way down")
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, store.File))
	must(t, err)
	_, err = db.Exec("BEGIN;" + down + ";DELETE FROM settings WHERE name = 'owners made'; DELETE FROM goose_db_version WHERE version_id >= 4; COMMIT")
	must(t, errors.Join(err, db.Close()))
}

func TestStateOfTheReleaseBefore(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	ctx := t.Context()
	owner := directory.By{ID: in.Principal}
	_, err = d.CreateGrant(ctx, owner, "default", directory.NewGrant{Principal: in.Principal, Role: "admin"})
	must(t, err)
	_, err = d.CreateConnection(ctx, "default", "default", profile("orders"))
	must(t, err)
	tokens := map[string]string{}
	for _, r := range []authz.Role{authz.Admin, authz.Operator, authz.Analyst} {
		_, text, err := d.CreateToken(ctx, authz.Principal{ID: in.Principal}, "default", directory.NewToken{Name: "an " + string(r), Roles: []authz.Role{r}, Connections: []string{"orders"}[:map[authz.Role]int{authz.Analyst: 1}[r]]})
		must(t, err)
		tokens[string(r)] = text.ExposeString()
	}
	_, err = d.CreateWorkspace(ctx, "other")
	must(t, err)
	_, text, err := d.CreateAdminToken(ctx, "other", "theirs", 0)
	must(t, err)
	must(t, d.Close())
	backTo3(t, dir)

	d, err = directory.Open(t.Context(), c)
	must(t, err)
	defer func() { must(t, d.Close()) }()
	roles := func(text string) []authz.Role {
		tok, _, ok := d.Snapshot().FindToken(text)
		if !ok || !tok.Live(time.Now()) {
			t.Fatal("a token is gone")
		}
		return tok.Principal.Roles()
	}
	if got := roles(in.Token.ExposeString()); !slices.Equal(got, []authz.Role{authz.Owner, authz.Admin}) {
		t.Error("who init made:", got)
	}
	for name, want := range map[string][]authz.Role{"admin": {authz.Admin}, "operator": {authz.Operator}, "analyst": nil} {
		if got := roles(tokens[name]); !slices.Equal(got, want) {
			t.Error(name, got)
		}
	}
	tok, _, _ := d.Snapshot().FindToken(tokens["analyst"])
	w, _ := d.Snapshot().Workspace("default")
	con, err := w.Connection("orders")
	must(t, err)
	if !authz.Decide(tok.Principal.Principal, authz.Query, con.Scope(), authz.At{}).Allow || con.Environment != authz.Production {
		t.Error("an analyst of one connection lost it")
	}
	t.Run("where nobody is known to have founded it, admins go on and nobody is owner", func(t *testing.T) {
		if got := roles(text.ExposeString()); !slices.Equal(got, []authz.Role{authz.Admin}) {
			t.Error(got)
		}
		_, _, err := d.CreateOwnerToken(ctx, "other", "recovery", 0)
		must(t, err)
	})
	t.Run("J4 owners are made once, not at each start", func(t *testing.T) {
		w, _ := d.Snapshot().Workspace("default")
		i := slices.IndexFunc(w.Grants, func(g *directory.Grant) bool { return g.Role == authz.Owner })
		second, _, err := d.CreateOwnerToken(ctx, "default", "second", 0)
		must(t, err)
		must(t, d.DeleteGrant(ctx, directory.By{ID: second.Principal.ID}, "default", w.Grants[i].ID))
		must(t, d.Close())
		d, err = directory.Open(ctx, c)
		must(t, err)
		if got := roles(in.Token.ExposeString()); !slices.Equal(got, []authz.Role{authz.Admin}) {
			t.Error("an owner again:", got)
		}
	})
}
