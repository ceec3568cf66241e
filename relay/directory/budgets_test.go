package directory_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/store"
)

func TestBudgetsOfWorkspaceAndConnection(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	_, err = d.CreateConnection(t.Context(), "default", "default", profile("orders"))
	must(t, err)
	whole, part := budget.Limits{Rate: 100, Burst: 200, Egress: 1 << 20}, budget.Limits{Concurrent: 5}
	must(t, d.SetBudget(t.Context(), "default", "", budget.Limits{Rate: 7}))
	must(t, d.SetBudget(t.Context(), "default", "", whole))
	must(t, d.SetBudget(t.Context(), "default", "orders", part))
	look := func(wantWhole, wantPart budget.Limits) {
		t.Helper()
		w := d.Snapshot().Workspaces()[0]
		if k, _ := w.Connection("orders"); w.Budget != wantWhole || k.Budget != wantPart {
			t.Errorf("%+v, %+v", w.Budget, k.Budget)
		}
	}
	look(whole, part)
	must(t, d.Close())
	d, err = directory.Open(t.Context(), c) // a restart keeps them
	must(t, err)
	defer func() { d.Close() }()
	look(whole, part)
	_, err = d.CreateGroup(t.Context(), "default", "west") // another change, too
	must(t, err)
	look(whole, part)

	must(t, d.SetBudget(t.Context(), "default", "", budget.Limits{}))
	must(t, d.SetBudget(t.Context(), "default", "", budget.Limits{})) // taking away what is not there is no fault
	look(budget.Limits{}, part)
	must(t, d.DeleteConnection(t.Context(), "default", "orders"))
	_, err = d.CreateConnection(t.Context(), "default", "default", profile("orders"))
	must(t, err)
	look(budget.Limits{}, budget.Limits{})

	want(t, d.SetBudget(t.Context(), "gone", "", part), protocol.CodeNotFound)
	want(t, d.SetBudget(t.Context(), "default", "gone", part), protocol.CodeNotFound)
	for _, bad := range []budget.Limits{{Rate: -1}, {Burst: 1}, {Egress: 1}, {Concurrent: 1 << 40}, {EgressDay: 1 << 30}} {
		want(t, d.SetBudget(t.Context(), "default", "orders", bad), protocol.CodeInvalid)
	}
	look(budget.Limits{}, budget.Limits{})
}

// P9: a workspace's budget on another's connection is that on one that is not there.
func TestBudgetOfAnotherWorkspacesConnectionIsRefused(t *testing.T) {
	d, _ := start(t)
	_, err := d.CreateWorkspace(t.Context(), "other")
	must(t, err)
	k, err := d.CreateConnection(t.Context(), "other", "default", profile("orders"))
	must(t, err)
	want(t, d.SetBudget(t.Context(), "default", k.ID, budget.Limits{Concurrent: 1}), protocol.CodeNotFound)
}

// P14, P22: a budget's row that was changed by hand is not taken.
func TestBudgetRowChangedByHandIsRefused(t *testing.T) {
	for name, change := range map[string]string{
		"another version":    "UPDATE budgets SET version = version + 1 WHERE connection = ?",
		"another connection": "UPDATE budgets SET connection = (SELECT id FROM connections WHERE id <> ?)",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := directory.DefaultConfig(dir)
			_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
			must(t, err)
			d, err := directory.Open(t.Context(), c)
			must(t, err)
			con, err := d.CreateConnection(t.Context(), "default", "default", profile("a"))
			must(t, err)
			_, err = d.CreateConnection(t.Context(), "default", "default", profile("b"))
			must(t, err)
			must(t, d.SetBudget(t.Context(), "default", "a", budget.Limits{Concurrent: 1}))
			must(t, d.Close())
			db, err := sql.Open("sqlite", filepath.Join(dir, store.File))
			must(t, err)
			_, err = db.Exec(change, con.ID)
			must(t, err)
			must(t, db.Close())
			if d, err := directory.Open(t.Context(), c); err == nil {
				d.Close()
				t.Fatal("it was taken")
			}
		})
	}
}
