package store

// Domain is a name of a workspace's own that callers reach the relay by.
type Domain struct {
	ID, Workspace string
	Created       int64
	NameDigest    []byte
	Sealed        []byte
}

// InsertDomain adds a domain. ErrExists: a workspace has it, maybe another one.
func (t *Tx) InsertDomain(v Domain) error {
	return t.exec("INSERT INTO domains (id, workspace, created, name_digest, sealed) VALUES (?, ?, ?, ?, ?)", v.ID, v.Workspace, v.Created, v.NameDigest, v.Sealed)
}

// DeleteDomain removes a domain.
func (t *Tx) DeleteDomain(workspace, id string) error {
	return t.exec("DELETE FROM domains WHERE workspace = ? AND id = ?", workspace, id)
}
