package store

import "database/sql"

// ACMEItem is something that the ACME client keeps.
type ACMEItem struct {
	KeyDigest []byte
	Modified  int64
	Version   int64
	Sealed    []byte
}

const acmeColumns = "SELECT key_digest, modified, version, sealed FROM acme"

func scanACME(r *sql.Rows, v *ACMEItem) error {
	return r.Scan(&v.KeyDigest, &v.Modified, &v.Version, &v.Sealed)
}

// ACMEItems reads all of them.
func (t *Tx) ACMEItems() ([]ACMEItem, error) {
	return list(t, scanACME, acmeColumns+" ORDER BY key_digest")
}

// ACMEItem reads one.
func (t *Tx) ACMEItem(digest []byte) (ACMEItem, error) {
	return one(list(t, scanACME, acmeColumns+" WHERE key_digest = ?", digest))
}

// PutACMEItem writes one, or its next version.
func (t *Tx) PutACMEItem(v ACMEItem) error {
	return t.exec(`INSERT INTO acme (key_digest, modified, version, sealed) VALUES (?, ?, ?, ?)
		ON CONFLICT (key_digest) DO UPDATE SET modified = excluded.modified, version = excluded.version, sealed = excluded.sealed
		WHERE acme.version = excluded.version - 1`, v.KeyDigest, v.Modified, v.Version, v.Sealed)
}

// DeleteACMEItem removes one, if it is there.
func (t *Tx) DeleteACMEItem(digest []byte) error {
	_, err := t.count("DELETE FROM acme WHERE key_digest = ?", digest)
	return err
}
