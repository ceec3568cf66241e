package store

import "errors"

// Insert… give ErrExists when the id, the digest or the name is taken, and ErrReferenced when what they refer to is not there
// or stands in another workspace.

// PutInstallation writes the one row, or replaces its wrapped key.
func (t *Tx) PutInstallation(v Installation) error {
	return t.exec(`INSERT INTO installation (one, id, created, kek_id, key_wrapped) VALUES (1, ?, ?, ?, ?)
		ON CONFLICT (one) DO UPDATE SET kek_id = excluded.kek_id, key_wrapped = excluded.key_wrapped
		WHERE installation.id = excluded.id`, v.ID, v.Created, v.KEK, v.KeyWrapped)
}

// PutRelay writes a relay's row.
func (t *Tx) PutRelay(v Relay) error {
	return t.exec(`INSERT INTO relays (id, created, version, sealed) VALUES (?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET version = excluded.version, sealed = excluded.sealed`, v.ID, v.Created, v.Version, v.Sealed)
}

// PutAuthority writes a certificate authority, or the next version of it.
func (t *Tx) PutAuthority(v Authority) error {
	return t.exec(`INSERT INTO authorities (scope, created, version, chain, key_sealed) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (scope) DO UPDATE SET version = excluded.version, chain = excluded.chain, key_sealed = excluded.key_sealed`,
		v.Scope, v.Created, v.Version, v.Chain, v.KeySealed)
}

// PutSetting writes a setting, or the next version of it.
func (t *Tx) PutSetting(v Setting) error {
	return t.exec(`INSERT INTO settings (scope, name, version, sealed) VALUES (?, ?, ?, ?)
		ON CONFLICT (scope, name) DO UPDATE SET version = excluded.version, sealed = excluded.sealed`,
		v.Scope, v.Name, v.Version, v.Sealed)
}

// InsertWorkspace adds a workspace.
func (t *Tx) InsertWorkspace(v Workspace) error {
	return t.exec(`INSERT INTO workspaces (id, state, created, version, name_digest, kek_id, key_wrapped, sealed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, v.ID, v.State, v.Created, v.Version, v.NameDigest, v.KEK, v.KeyWrapped, v.Sealed)
}

// SetWorkspaceKey replaces a workspace's wrapped key.
func (t *Tx) SetWorkspaceKey(id, kek string, wrapped []byte) error {
	return t.exec("UPDATE workspaces SET kek_id = ?, key_wrapped = ? WHERE id = ?", kek, wrapped, id)
}

// DeleteWorkspace removes a workspace, its wrapped key, and every row that belongs to it, settings of the installation whose name ends with
// its id among them (its CA). People whose home it is go from the other workspaces, too.
func (t *Tx) DeleteWorkspace(id string) error {
	people, err := list(t, scanPerson, "SELECT "+personColumns+" FROM people WHERE home = ?", id)
	if err != nil {
		return err
	}
	for _, p := range people {
		if err := t.deletePerson(p.ID); err != nil {
			return err
		}
	}
	for _, q := range []string{
		"DELETE FROM settings WHERE scope = ?", "DELETE FROM settings WHERE scope = '' AND substr(name, -length(?1) - 1) = '-' || ?1", "DELETE FROM authorities WHERE scope = ?",
		"DELETE FROM grants WHERE workspace = ?", "DELETE FROM connections WHERE workspace = ?",
	} {
		if _, err := t.count(q, id); err != nil {
			return err
		}
	}
	return t.exec("DELETE FROM workspaces WHERE id = ?", id)
}

// InsertGroup adds an agent group.
func (t *Tx) InsertGroup(v Group) error {
	return t.exec("INSERT INTO agent_groups (id, workspace, created, version, name_digest, sealed) VALUES (?, ?, ?, ?, ?, ?)",
		v.ID, v.Workspace, v.Created, v.Version, v.NameDigest, v.Sealed)
}

// GroupUse counts the agents and connections of a group.
func (t *Tx) GroupUse(workspace, id string) (agents, connections int, err error) {
	err = t.row(`SELECT (SELECT count(*) FROM agents WHERE workspace = ? AND group_id = ?),
		(SELECT count(*) FROM connections WHERE workspace = ? AND group_id = ?)`, workspace, id, workspace, id).Scan(&agents, &connections)
	return agents, connections, wrap(err)
}

// DeleteGroup removes a group and its join tokens.
func (t *Tx) DeleteGroup(workspace, id string) error {
	return t.exec("DELETE FROM agent_groups WHERE workspace = ? AND id = ?", workspace, id)
}

// InsertAgent adds an agent.
func (t *Tx) InsertAgent(v Agent) error {
	return t.touch("agents", v.ID).exec(`INSERT INTO agents (id, workspace, group_id, state, created, first_seen, last_seen, version, sealed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		v.ID, v.Workspace, v.Group, v.State, v.Created, v.FirstSeen, v.LastSeen, v.Version, v.Sealed)
}

// UpdateAgent writes an agent's state, times and body; v.Version must be the next one, else ErrNotFound.
func (t *Tx) UpdateAgent(v Agent) error {
	return t.touch("agents", v.ID).exec(`UPDATE agents SET state = ?, first_seen = ?, last_seen = ?, version = ?, sealed = ?
		WHERE workspace = ? AND id = ? AND version = ?`,
		v.State, v.FirstSeen, v.LastSeen, v.Version, v.Sealed, v.Workspace, v.ID, v.Version-1)
}

// SeenAgent moves an agent's last-seen time forward.
func (t *Tx) SeenAgent(id string, at int64) error {
	_, err := t.silent().count("UPDATE agents SET last_seen = ? WHERE id = ? AND last_seen < ?", at, id, at)
	return err
}

// DeleteAgent removes an agent with its certificates and cursor.
func (t *Tx) DeleteAgent(workspace, id string) error {
	return t.touch("agents", id).touch("certificates", id).exec("DELETE FROM agents WHERE workspace = ? AND id = ?", workspace, id)
}

// InsertCertificate records a certificate that was issued.
func (t *Tx) InsertCertificate(v Certificate) error {
	return t.touch("certificates", v.Agent).exec("INSERT INTO certificates (agent, serial, spki, issued, not_after, proven) VALUES (?, ?, ?, ?, ?, ?)",
		v.Agent, v.Serial, v.SPKI, v.Issued, v.NotAfter, v.Proven)
}

// ProveCertificate marks a certificate as used by its agent.
func (t *Tx) ProveCertificate(agent, serial string, at int64) error {
	return t.touch("certificates", agent).exec("UPDATE certificates SET proven = ? WHERE agent = ? AND serial = ?", at, agent, serial)
}

// DeleteCertificate removes one.
func (t *Tx) DeleteCertificate(agent, serial string) error {
	return t.touch("certificates", agent).exec("DELETE FROM certificates WHERE agent = ? AND serial = ?", agent, serial)
}

// SetAuditCursor moves an agent's cursor forward, never back: ErrNotFound when the agent is gone or holds more already.
func (t *Tx) SetAuditCursor(agent string, seq uint64, hash string) error {
	return gone(t.silent().exec(`INSERT INTO audit_cursors (agent, seq, hash) VALUES (?, ?, ?)
		ON CONFLICT (agent) DO UPDATE SET seq = excluded.seq, hash = excluded.hash WHERE audit_cursors.seq < excluded.seq`,
		agent, int64(seq), hash))
}

// InsertPrincipal adds a principal.
func (t *Tx) InsertPrincipal(v Principal) error {
	return t.touch("principals", v.ID).exec(`INSERT INTO principals (id, workspace, kind, state, created, version, name_digest, sealed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, v.ID, v.Workspace, v.Kind, v.State, v.Created, v.Version, v.NameDigest, v.Sealed)
}

// SetPrincipalState enables or disables a principal.
func (t *Tx) SetPrincipalState(workspace, id, state string) error {
	return t.touch("principals", id).exec("UPDATE principals SET state = ? WHERE workspace = ? AND id = ?", state, workspace, id)
}

// InsertJoinToken adds a join token.
func (t *Tx) InsertJoinToken(v JoinToken) error {
	return t.touch("join_tokens", v.ID).exec(`INSERT INTO join_tokens (id, workspace, group_id, digest, created, created_by, expires)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, v.ID, v.Workspace, v.Group, v.Digest, v.Created, v.CreatedBy, v.Expires)
}

// ConsumeJoinToken takes the token for an agent: of any number of callers, one wins, the others get ErrNotFound.
func (t *Tx) ConsumeJoinToken(digest []byte, agent string, now int64) (v JoinToken, err error) {
	err = t.silent().row(`UPDATE join_tokens SET used_at = ?, used_by = ? WHERE digest = ? AND used_at IS NULL AND expires > ?
		RETURNING id, workspace, group_id, digest, created, created_by, expires, used_at, used_by`, now, agent, digest, now).
		Scan(&v.ID, &v.Workspace, &v.Group, &v.Digest, &v.Created, &v.CreatedBy, &v.Expires, &v.UsedAt, &v.UsedBy)
	t.touch("join_tokens", v.ID)
	return v, wrap(err)
}

// DeleteJoinToken removes a join token.
func (t *Tx) DeleteJoinToken(workspace, id string) error {
	return t.touch("join_tokens", id).exec("DELETE FROM join_tokens WHERE workspace = ? AND id = ?", workspace, id)
}

// DeleteOldJoinTokens removes those that expired before a time.
func (t *Tx) DeleteOldJoinTokens(before int64) error {
	_, err := t.count("DELETE FROM join_tokens WHERE expires < ?", before)
	return err
}

// InsertAPIToken adds an API token.
func (t *Tx) InsertAPIToken(v APIToken) error {
	return t.touch("api_tokens", v.ID).exec(`INSERT INTO api_tokens (id, workspace, principal, digest, verifier, created, expires, revoked, last_used,
		version, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, v.ID, v.Workspace, v.Principal, v.Digest, v.Verifier,
		v.Created, v.Expires, v.Revoked, v.LastUsed, v.Version, v.Sealed)
}

// DeleteService removes a service principal with its grants and tokens.
func (t *Tx) DeleteService(workspace, id string) error {
	return t.exec("DELETE FROM principals WHERE workspace = ? AND id = ? AND kind = 'service'", workspace, id)
}

// RevokeAPIToken marks a token as revoked; one that is already keeps its time.
func (t *Tx) RevokeAPIToken(workspace, id string, at int64) error {
	return t.touch("api_tokens", id).exec("UPDATE api_tokens SET revoked = CASE WHEN revoked = 0 THEN ? ELSE revoked END WHERE workspace = ? AND id = ?",
		at, workspace, id)
}

// UsedAPIToken moves a token's time of last use forward, with where it came from.
func (t *Tx) UsedAPIToken(id string, at int64, source []byte) error {
	_, err := t.silent().count("UPDATE api_tokens SET last_used = ?, last_source = ? WHERE id = ? AND last_used < ?", at, source, id, at)
	return err
}

// InsertConnection adds a connection.
func (t *Tx) InsertConnection(v Connection) error {
	return t.touch("connections", v.ID).exec(`INSERT INTO connections (id, workspace, group_id, created, version, name_digest, sealed)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, v.ID, v.Workspace, v.Group, v.Created, v.Version, v.NameDigest, v.Sealed)
}

// DeleteConnection removes a connection and the grants on it.
func (t *Tx) DeleteConnection(workspace, id string) error {
	return t.exec("DELETE FROM connections WHERE workspace = ? AND id = ?", workspace, id)
}

// ReplaceAllowlist writes a workspace's whole allowlist.
func (t *Tx) ReplaceAllowlist(workspace string, entries []AllowEntry) error {
	if _, err := t.count("DELETE FROM allowlist WHERE workspace = ?", workspace); err != nil {
		return err
	}
	for _, v := range entries {
		if err := t.exec("INSERT INTO allowlist (id, workspace, version, sealed) VALUES (?, ?, ?, ?)",
			v.ID, workspace, v.Version, v.Sealed); err != nil {
			return err
		}
	}
	return nil
}

// gone makes a broken reference ErrNotFound: what the row is about was deleted.
func gone(err error) error {
	if errors.Is(err, ErrReferenced) {
		return ErrNotFound
	}
	return err
}
