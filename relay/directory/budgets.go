package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// budgetSeal repeats the scope, so that limits that were moved by hand are noticed.
type budgetSeal struct {
	Scope string `json:"scope"`
	budget.Limits
}

// SetBudget gives a workspace (name or id), or a connection of it (name or id; "" for the workspace itself), its limits, in
// place of those that it has. The zero value takes them away.
func (d *Directory) SetBudget(ctx context.Context, workspace, connection string, l budget.Limits) error {
	if field, want := l.Check(); field != "" {
		return invalid("/"+field+": out of range", "want "+want)
	}
	if l.EgressDay != 0 {
		return invalid("/egress_day: the relay keeps no count of a day", "set it at the agent, in agent.yaml under the profile's limits")
	}
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	id := ""
	if connection != "" {
		c, err := w.Connection(connection)
		if err != nil {
			return err
		}
		id = c.ID
	}
	return d.change(ctx, func(tx *store.Tx) error {
		if l == (budget.Limits{}) {
			if err := tx.DeleteBudget(w.ID, id); !errors.Is(err, store.ErrNotFound) {
				return err
			}
			return nil
		}
		old, err := tx.Budget(w.ID, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		b := store.Budget{Workspace: w.ID, Connection: id, Version: old.Version + 1}
		if b.Sealed, err = seal(d.vault, place(w.ID, "budgets", b.Scope(), b.Version), budgetSeal{b.Scope(), l}); err != nil {
			return err
		}
		return as(tx.PutBudget(b), protocol.Errorf(protocol.CodeNotFound, "no such connection"), protocol.Errorf(protocol.CodeConflict, "the budget was changed meanwhile"))
	})
}

// addBudgets gives workspaces and connections their limits. It comes after addConnections.
func (s *Snapshot) addBudgets(v *vault.Vault, st *store.State, prev *Snapshot) error {
	for _, r := range st.Budgets {
		w, err := s.in("budget", r.Scope(), r.Workspace)
		if err != nil {
			return err
		}
		old := prev.before(r.Workspace)
		limits, sealed := &w.Budget, &w.budget
		was, had := old.Budget, old.budget
		if r.Connection != "" {
			c := w.connections[r.Connection]
			if c == nil {
				return fmt.Errorf("budget %s belongs to no connection", r.Scope())
			}
			limits, sealed, had = &c.Budget, &c.budget, nil
			if o := old.connections[r.Connection]; o != nil {
				was, had = o.Budget, o.budget
			}
		}
		*sealed = r.Sealed
		if had != nil && bytes.Equal(had, r.Sealed) {
			*limits = was
			continue
		}
		var body budgetSeal
		if err := open(v, place(r.Workspace, "budgets", r.Scope(), r.Version), r.Sealed, &body); err != nil {
			return err
		}
		if field, _ := body.Check(); field != "" || body.Scope != r.Scope() {
			return fmt.Errorf("budget %s was not written by a relay of this installation", r.Scope())
		}
		*limits = body.Limits
	}
	return nil
}
