package store

// HasSession finds a session that is there (ErrNotFound), whether it may still be used or not.
func (t *Tx) HasSession(workspace, id string) error {
	var n int
	return wrap(t.row("SELECT 1 FROM sessions WHERE workspace = ? AND id = ?", workspace, id).Scan(&n))
}
