package store

import "database/sql"

// Budget is the limits of a workspace, or of one connection of it.
type Budget struct {
	Workspace, Connection string // Connection is empty for the workspace's own
	Version               int64
	Sealed                []byte
}

// Scope is the id of what the limits are of, and the row's key.
func (b Budget) Scope() string {
	if b.Connection != "" {
		return b.Connection
	}
	return b.Workspace
}

const budgetColumns = "workspace, COALESCE(connection, ''), version, sealed"

func scanBudget(r *sql.Rows, v *Budget) error {
	return r.Scan(&v.Workspace, &v.Connection, &v.Version, &v.Sealed)
}

// Budget reads the limits of a workspace, or of a connection of it.
func (t *Tx) Budget(workspace, connection string) (Budget, error) {
	return one(list(t, scanBudget, "SELECT "+budgetColumns+" FROM budgets WHERE scope = ? AND workspace = ?", Budget{Workspace: workspace, Connection: connection}.Scope(), workspace))
}

// PutBudget writes limits, or the next version of them. ErrReferenced: there is no such workspace or connection.
func (t *Tx) PutBudget(v Budget) error {
	return t.exec(`INSERT INTO budgets (scope, workspace, connection, version, sealed) VALUES (?, ?, NULLIF(?, ''), ?, ?)
		ON CONFLICT (scope) DO UPDATE SET version = excluded.version, sealed = excluded.sealed
		WHERE budgets.workspace = excluded.workspace AND budgets.version = excluded.version - 1`,
		v.Scope(), v.Workspace, v.Connection, v.Version, v.Sealed)
}

// DeleteBudget removes the limits of a workspace, or of a connection of it.
func (t *Tx) DeleteBudget(workspace, connection string) error {
	return t.exec("DELETE FROM budgets WHERE scope = ? AND workspace = ?", Budget{Workspace: workspace, Connection: connection}.Scope(), workspace)
}
