package store

import "database/sql"

// Passkey is a person's, found by the keyed digest of its credential id.
type Passkey struct {
	ID, Person, Home string // Home is the person's
	Digest           []byte
	Created, Version int64
	Sealed           []byte
}

const passkeyColumns = "id, person, home, digest, created, version, sealed"

func scanPasskey(r *sql.Rows, v *Passkey) error {
	return r.Scan(&v.ID, &v.Person, &v.Home, &v.Digest, &v.Created, &v.Version, &v.Sealed)
}

func (l *loader) passkeys() {
	part(l, "passkeys", passkeyColumns, "id", func(s *State) *[]Passkey { return &s.Passkeys }, scanPasskey, func(v *Passkey) string { return v.ID })
}

// Passkey reads one.
func (t *Tx) Passkey(id string) (Passkey, error) {
	return one(list(t, scanPasskey, "SELECT "+passkeyColumns+" FROM passkeys WHERE id = ?", id))
}

// CountPasskeys is how many a person has.
func (t *Tx) CountPasskeys(person string) (n int, err error) {
	return n, wrap(t.row("SELECT count(*) FROM passkeys WHERE person = ?", person).Scan(&n))
}

// InsertPasskey adds one; ErrExists when somebody has it.
func (t *Tx) InsertPasskey(v Passkey) error {
	return t.touch("passkeys", v.ID).exec("INSERT INTO passkeys (id, person, home, digest, created, version, sealed) VALUES (?, ?, ?, ?, ?, ?, ?)",
		v.ID, v.Person, v.Home, v.Digest, v.Created, v.Version, v.Sealed)
}

// UpdatePasskey writes a passkey's body; v.Version must be the next one, else ErrNotFound.
func (t *Tx) UpdatePasskey(v Passkey) error {
	return t.touch("passkeys", v.ID).exec("UPDATE passkeys SET version = ?, sealed = ? WHERE id = ? AND version = ?", v.Version, v.Sealed, v.ID, v.Version-1)
}

// DeletePasskey removes one of a person's.
func (t *Tx) DeletePasskey(person, id string) error {
	return t.touch("passkeys", id).exec("DELETE FROM passkeys WHERE person = ? AND id = ?", person, id)
}

// DeletePasskeysOf removes all that a person has.
func (t *Tx) DeletePasskeysOf(person string) error {
	_, err := t.count("DELETE FROM passkeys WHERE person = ?", person)
	return err
}
