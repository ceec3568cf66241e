package directory_test

import (
	"database/sql"
	"errors"
	"net/netip"
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

// backTo3 makes of a state what the release before had: no teams, no custom roles, no owners, no people.
func backTo3(t *testing.T, dir string) {
	t.Helper()
	down := ""
	names, err := filepath.Glob(filepath.Join("..", "store", "migrations", "*.sql")) // in their order
	must(t, err)
	for _, name := range slices.Backward(names[3:]) {
		b, err := os.ReadFile(name)
		must(t, err)
		_, back, ok := strings.Cut(string(b), "-- +goose Down")
		if !ok {
			t.Fatalf("migration %s has no way down", name)
		}
		down += back + ";"
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, store.File))
	must(t, err)
	_, err = db.Exec("BEGIN;" + down + "DELETE FROM settings WHERE name = 'owners made'; DELETE FROM goose_db_version WHERE version_id >= 4; COMMIT")
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

// Who was cut off before the upgrade does not come back as owner by it.
func TestADisabledFounderBecomesNoOwner(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	_, err = d.CreateGrant(t.Context(), directory.By{ID: in.Principal}, "default", directory.NewGrant{Principal: in.Principal, Role: "admin"})
	must(t, err)
	_, _, err = d.CreateOwnerToken(t.Context(), "default", "second", 0)
	must(t, err)
	must(t, d.SetPrincipalDisabled(t.Context(), "default", in.Principal, true))
	must(t, d.Close())
	backTo3(t, dir)
	w, err := reopen(t, c).Snapshot().Workspace("default")
	must(t, err)
	if slices.ContainsFunc(w.Grants, func(g *directory.Grant) bool { return g.Role == authz.Owner }) || !w.Principal(in.Principal).Disabled {
		t.Error("an owner was made")
	}
}

// A row that is changed by hand while the relay runs is noticed as one that was changed before it started.
func TestGrantsChangedByHandWhileItRunsAreRefused(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	c.Poll, c.StaleAfter = 5*time.Millisecond, 30*time.Millisecond
	d := reopen(t, c)
	tok, _, err := d.CreateToken(t.Context(), authz.Principal{ID: in.Principal}, "default", directory.NewToken{Name: "low", Roles: []authz.Role{authz.Analyst}})
	must(t, err)
	g, err := d.CreateGrant(t.Context(), directory.By{ID: in.Principal}, "default", directory.NewGrant{Principal: tok.Principal.ID, Role: "operator",
		Environment: authz.Test, Until: time.Now().Add(time.Hour), From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	must(t, err)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, store.File)+"?_pragma=busy_timeout(5000)")
	must(t, err)
	defer db.Close()
	for name, change := range map[string][2]string{
		"role": {"role = 'admin'", "role = 'operator'"}, "environment": {"environment = ''", "environment = 'test'"},
		"holder":   {"principal = '" + in.Principal + "'", "principal = '" + tok.Principal.ID + "'"},
		"end":      {"until = until + 1000", "until = until - 1000"},
		"networks": {"sealed = zeroblob(40)", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var sealed []byte
			must(t, db.QueryRow("SELECT sealed FROM grants WHERE id = ?", g.ID).Scan(&sealed))
			set := func(what string, args ...any) {
				_, err := db.Exec("UPDATE grants SET "+what+" WHERE id = '"+g.ID+"'", args...)
				must(t, err)
				_, err = db.Exec("UPDATE generation SET value = value + 1")
				must(t, err)
			}
			set(change[0])
			eventually(t, "P14 nobody is let in", func() bool { return d.Snapshot().Stale })
			if change[1] == "" {
				set("sealed = ?", sealed)
			} else {
				set(change[1])
			}
			eventually(t, "it recovers", func() bool { return !d.Snapshot().Stale })
		})
	}
}
