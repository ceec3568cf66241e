package store

// CountOf counts what a workspace has of a kind. Tokens that are revoked or expired do not count.
func (t *Tx) CountOf(workspace, kind string, now int64) (n int, err error) {
	q, args := "", []any{workspace}
	switch kind {
	case "agents":
		q = "SELECT count(*) FROM agents WHERE workspace = ?"
	case "connections":
		q = "SELECT count(*) FROM connections WHERE workspace = ?"
	case "users":
		q = "SELECT count(*) FROM users WHERE workspace = ?"
	case "service_accounts":
		q = "SELECT count(*) FROM principals WHERE workspace = ? AND kind = 'service'"
	case "tokens":
		q, args = "SELECT count(*) FROM api_tokens WHERE workspace = ? AND revoked = 0 AND expires > ?", append(args, now)
	}
	err = t.row(q, args...).Scan(&n)
	return n, wrap(err)
}
