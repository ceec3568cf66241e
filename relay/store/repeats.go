package store

import "database/sql"

// Repeat is a request that made something under an idempotency key.
type Repeat struct {
	Workspace, Principal string
	KeyDigest            []byte
	Expires              int64
	Version              int64
	Sealed               []byte
}

// Repeat reads one that has not expired.
func (t *Tx) Repeat(workspace, principal string, key []byte, now int64) (Repeat, error) {
	return one(list(t, func(r *sql.Rows, v *Repeat) error {
		return r.Scan(&v.Workspace, &v.Principal, &v.KeyDigest, &v.Expires, &v.Version, &v.Sealed)
	}, "SELECT workspace, principal, key_digest, expires, version, sealed FROM repeats WHERE workspace = ? AND principal = ? AND key_digest = ? AND expires > ?",
		workspace, principal, key, now))
}

// InsertRepeat adds one, and removes all that have expired.
func (t *Tx) InsertRepeat(v Repeat, now int64) error {
	if _, err := t.count("DELETE FROM repeats WHERE expires <= ?", now); err != nil {
		return err
	}
	return t.exec("INSERT INTO repeats (workspace, principal, key_digest, expires, version, sealed) VALUES (?, ?, ?, ?, ?, ?)",
		v.Workspace, v.Principal, v.KeyDigest, v.Expires, v.Version, v.Sealed)
}

// UpdateRepeat writes the next version of one; v.Version must be the next one, else ErrNotFound.
func (t *Tx) UpdateRepeat(v Repeat) error {
	return t.exec("UPDATE repeats SET version = ?, sealed = ? WHERE workspace = ? AND principal = ? AND key_digest = ? AND version = ?",
		v.Version, v.Sealed, v.Workspace, v.Principal, v.KeyDigest, v.Version-1)
}

// CountRepeats counts those of a principal that have not expired.
func (t *Tx) CountRepeats(workspace, principal string, now int64) (n int, err error) {
	err = t.row("SELECT count(*) FROM repeats WHERE workspace = ? AND principal = ? AND expires > ?", workspace, principal, now).Scan(&n)
	return n, wrap(err)
}
