package store

import "database/sql"

// Load reads everything that a snapshot is made of, each table in the order of its ids.
func (t *Tx) Load() (*State, error) {
	var s State
	var err error
	read := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	read(func() error { return t.whoMay(&s) })
	read(func() (e error) {
		s.Relays, e = list(t, func(r *sql.Rows, v *Relay) error { return r.Scan(&v.ID, &v.Created, &v.Version, &v.Sealed) },
			"SELECT id, created, version, sealed FROM relays ORDER BY id")
		return
	})
	read(func() (e error) {
		s.Groups, e = list(t, func(r *sql.Rows, v *Group) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Created, &v.Version, &v.NameDigest, &v.Sealed)
		}, "SELECT id, workspace, created, version, name_digest, sealed FROM agent_groups ORDER BY id")
		return
	})
	read(func() (e error) {
		s.Agents, e = list(t, scanAgent, agentColumns+" FROM agents ORDER BY id")
		return
	})
	read(func() (e error) {
		s.Certificates, e = list(t, func(r *sql.Rows, v *Certificate) error {
			return r.Scan(&v.Agent, &v.Serial, &v.SPKI, &v.Issued, &v.NotAfter, &v.Proven)
		}, "SELECT agent, serial, spki, issued, not_after, proven FROM certificates ORDER BY agent, issued, serial")
		return
	})
	read(func() (e error) {
		s.JoinTokens, e = list(t, scanJoinToken, joinTokenColumns+" FROM join_tokens ORDER BY id")
		return
	})
	read(func() (e error) {
		s.Connections, e = list(t, func(r *sql.Rows, v *Connection) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Group, &v.Created, &v.Version, &v.NameDigest, &v.Sealed)
		}, "SELECT id, workspace, group_id, created, version, name_digest, sealed FROM connections ORDER BY id")
		return
	})
	read(func() (e error) { s.Gateways, e = t.gateways(); return })
	read(func() (e error) { s.Budgets, e = t.budgets(); return })
	read(func() (e error) { s.Domains, e = t.domains(); return })
	read(func() error { return t.projects(&s) })
	read(func() (e error) {
		s.Allowlist, e = list(t, func(r *sql.Rows, v *AllowEntry) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Version, &v.Sealed)
		}, "SELECT id, workspace, version, sealed FROM allowlist ORDER BY id")
		return
	})
	if err != nil {
		return nil, err
	}
	return &s, nil
}

// LoadRights reads of a state only who there is and what they may do: workspaces, principals, tokens, roles, teams, grants, people.
func (t *Tx) LoadRights() (*State, error) {
	var s State
	if err := t.whoMay(&s); err != nil {
		return nil, err
	}
	return &s, nil
}

func (t *Tx) whoMay(s *State) error {
	var err error
	read := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	read(func() (e error) { s.Generation, e = t.Generation(); return })
	read(func() (e error) { s.Installation, e = t.Installation(); return })
	read(func() (e error) { s.Workspaces, e = t.Workspaces(); return })
	read(func() (e error) {
		s.Principals, e = list(t, func(r *sql.Rows, v *Principal) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Kind, &v.State, &v.Created, &v.Version, &v.NameDigest, &v.Sealed)
		}, "SELECT id, workspace, kind, state, created, version, name_digest, sealed FROM principals ORDER BY id")
		return
	})
	read(func() (e error) {
		s.APITokens, e = list(t, func(r *sql.Rows, v *APIToken) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Principal, &v.Digest, &v.Verifier, &v.Created, &v.Expires, &v.Revoked,
				&v.LastUsed, &v.Version, &v.Sealed, &v.LastSource)
		}, `SELECT id, workspace, principal, digest, verifier, created, expires, revoked, last_used, version, sealed, last_source
			FROM api_tokens ORDER BY id`)
		return
	})
	read(func() error { return t.rights(s) })
	read(func() error { return t.loadPeople(s) })
	return err
}

// Installation reads the one row; ErrNotFound before Init.
func (t *Tx) Installation() (v Installation, err error) {
	err = t.row("SELECT id, created, kek_id, key_wrapped FROM installation WHERE one = 1").
		Scan(&v.ID, &v.Created, &v.KEK, &v.KeyWrapped)
	return v, wrap(err)
}

// Workspaces reads all of them.
func (t *Tx) Workspaces() ([]Workspace, error) {
	return list(t, func(r *sql.Rows, v *Workspace) error {
		return r.Scan(&v.ID, &v.State, &v.Created, &v.Version, &v.NameDigest, &v.KEK, &v.KeyWrapped, &v.Sealed)
	}, "SELECT id, state, created, version, name_digest, kek_id, key_wrapped, sealed FROM workspaces ORDER BY id")
}

const agentColumns = "SELECT id, workspace, group_id, state, created, first_seen, last_seen, version, sealed"

func scanAgent(r *sql.Rows, v *Agent) error {
	return r.Scan(&v.ID, &v.Workspace, &v.Group, &v.State, &v.Created, &v.FirstSeen, &v.LastSeen, &v.Version, &v.Sealed)
}

const joinTokenColumns = `SELECT id, workspace, group_id, digest, created, created_by, expires, COALESCE(used_at, 0),
	COALESCE(used_by, '')`

func scanJoinToken(r *sql.Rows, v *JoinToken) error {
	return r.Scan(&v.ID, &v.Workspace, &v.Group, &v.Digest, &v.Created, &v.CreatedBy, &v.Expires, &v.UsedAt, &v.UsedBy)
}

// one takes the only row of a list.
func one[T any](rows []T, err error) (v T, _ error) {
	if err != nil {
		return v, err
	}
	if len(rows) == 0 {
		return v, ErrNotFound
	}
	return rows[0], nil
}

// Agent reads one agent of a workspace.
func (t *Tx) Agent(workspace, id string) (Agent, error) {
	return one(list(t, scanAgent, agentColumns+" FROM agents WHERE workspace = ? AND id = ?", workspace, id))
}

// JoinTokenByDigest reads a join token, whatever its state.
func (t *Tx) JoinTokenByDigest(digest []byte) (JoinToken, error) {
	return one(list(t, scanJoinToken, joinTokenColumns+" FROM join_tokens WHERE digest = ?", digest))
}

// Authority reads a certificate authority.
func (t *Tx) Authority(scope string) (v Authority, err error) {
	err = t.row("SELECT scope, created, version, chain, key_sealed FROM authorities WHERE scope = ?", scope).
		Scan(&v.Scope, &v.Created, &v.Version, &v.Chain, &v.KeySealed)
	return v, wrap(err)
}

// Setting reads a setting.
func (t *Tx) Setting(scope, name string) (v Setting, err error) {
	err = t.row("SELECT scope, name, version, sealed FROM settings WHERE scope = ? AND name = ?", scope, name).
		Scan(&v.Scope, &v.Name, &v.Version, &v.Sealed)
	return v, wrap(err)
}

// AuditCursor tells how far an agent's log is held; 0 and "" before the first event.
func (t *Tx) AuditCursor(agent string) (seq uint64, hash string, err error) {
	var n int64
	err = t.row("SELECT seq, hash FROM audit_cursors WHERE agent = ?", agent).Scan(&n, &hash)
	if err = wrap(err); err == ErrNotFound {
		err = nil
	}
	return uint64(n), hash, err
}

// Certificates reads an agent's certificates, oldest first.
func (t *Tx) Certificates(agent string) ([]Certificate, error) {
	return list(t, func(r *sql.Rows, v *Certificate) error {
		return r.Scan(&v.Agent, &v.Serial, &v.SPKI, &v.Issued, &v.NotAfter, &v.Proven)
	}, "SELECT agent, serial, spki, issued, not_after, proven FROM certificates WHERE agent = ? ORDER BY issued, serial", agent)
}
