package dispatch

import (
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// Whose budgets the relay keeps, and where their limits are set.
const (
	ofWorkspace, workspaceRule   = "the workspace", "workspace.budget"
	ofConnection, connectionRule = "the connection", "connection.budget"
)

// budgetsOf are the budgets that an operation on the connection counts in, the narrowest first.
func (d *Dispatcher) budgetsOf(c *directory.Connection) []*budget.Budget {
	return []*budget.Budget{d.connectionBudget(c), d.workspaceBudget(c.Workspace)}
}

func (d *Dispatcher) connectionBudget(c *directory.Connection) *budget.Budget {
	return d.budgets.Get(c.ID, ofConnection, connectionRule)
}

// workspaceBudget of one that is new has no limits until Sync, which a change of the directory calls for at once.
func (d *Dispatcher) workspaceBudget(id string) *budget.Budget {
	return d.budgets.Get(id, ofWorkspace, workspaceRule)
}

// Sync puts the budgets of a snapshot in force. What runs goes on, by the new limits. It is called at the start and after each
// change.
func (d *Dispatcher) Sync(s *directory.Snapshot) {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	// Of a stale one nothing can begin, and what runs keeps its limits. An older one must not undo what a newer one set.
	if s.Stale || s.Generation < d.synced {
		return
	}
	d.synced = s.Generation
	live := map[string]bool{}
	for _, ws := range s.Workspaces() {
		live[ws.ID] = true
		limits, own := d.LimitsOf[ws.Name]
		if !own {
			limits = d.Limits
		}
		d.workspaceBudget(ws.ID).Set(limits.Narrow(ws.Budget))
		for _, c := range ws.Connections {
			live[c.ID] = true
			d.connectionBudget(c).Set(c.Budget)
		}
	}
	d.budgets.Keep(func(id string) bool { return live[id] })
}

// Use tells of the budget of a workspace or connection, by its id: the limits in force, and what became of them.
func (d *Dispatcher) Use(id string) (budget.Limits, budget.Counts) {
	if b := d.budgets.Find(id); b != nil {
		return b.Limits(), b.Counts()
	}
	return budget.Limits{}, budget.Counts{}
}

// Sums are what became of the budgets of all workspaces, and of all connections.
func (d *Dispatcher) Sums() (workspaces, connections budget.Counts) {
	return d.budgets.Sums(ofWorkspace), d.budgets.Sums(ofConnection)
}
