package store

import (
	"database/sql"
	"strings"
)

// Load reads everything that a snapshot is made of, each table in the order of its ids. Of prev, an earlier state or nil, it takes
// over what the journal says did not change since, except for times of use, which may be those of then: of a large state, a change
// costs the reading of what it changed.
func (t *Tx) Load(prev *State) (*State, error) {
	l := &loader{t: t, s: &State{same: map[string]bool{}}}
	l.read(func() (err error) { l.s.Generation, err = t.Generation(); return })
	l.read(func() (err error) {
		if prev == nil {
			return nil
		}
		changed, ok, err := t.since(prev.Generation, l.s.Generation)
		if ok {
			l.prev, l.changed = prev, changed.tables
		}
		return err
	})
	l.read(func() (err error) { l.s.Installation, err = t.Installation(); return })
	l.whoMay()
	part(l, "relays", "id, created, version, sealed", "id", func(s *State) *[]Relay { return &s.Relays },
		func(r *sql.Rows, v *Relay) error { return r.Scan(&v.ID, &v.Created, &v.Version, &v.Sealed) }, nil)
	part(l, "agent_groups", "id, workspace, created, version, name_digest, sealed", "id", func(s *State) *[]Group { return &s.Groups },
		func(r *sql.Rows, v *Group) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Created, &v.Version, &v.NameDigest, &v.Sealed)
		}, nil)
	part(l, "agents", agentColumns, "id", func(s *State) *[]Agent { return &s.Agents }, scanAgent, func(v *Agent) string { return v.ID })
	part(l, "certificates", certificateColumns, "agent, issued, serial", func(s *State) *[]Certificate { return &s.Certificates },
		scanCertificate, func(v *Certificate) string { return v.Agent })
	part(l, "join_tokens", joinTokenColumns, "id", func(s *State) *[]JoinToken { return &s.JoinTokens }, scanJoinToken,
		func(v *JoinToken) string { return v.ID })
	part(l, "connections", "id, workspace, group_id, created, version, name_digest, sealed", "id", func(s *State) *[]Connection { return &s.Connections },
		func(r *sql.Rows, v *Connection) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Group, &v.Created, &v.Version, &v.NameDigest, &v.Sealed)
		}, func(v *Connection) string { return v.ID })
	part(l, "gateways", gatewayColumns, "id", func(s *State) *[]Gateway { return &s.Gateways }, scanGateway, nil)
	part(l, "budgets", budgetColumns, "scope", func(s *State) *[]Budget { return &s.Budgets }, scanBudget, nil)
	part(l, "domains", "id, workspace, created, name_digest, sealed", "id", func(s *State) *[]Domain { return &s.Domains },
		func(r *sql.Rows, v *Domain) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Created, &v.NameDigest, &v.Sealed)
		}, nil)
	l.projects()
	part(l, "allowlist", "id, workspace, version, sealed", "id", func(s *State) *[]AllowEntry { return &s.Allowlist },
		func(r *sql.Rows, v *AllowEntry) error { return r.Scan(&v.ID, &v.Workspace, &v.Version, &v.Sealed) }, nil)
	return l.s, l.err
}

// LoadRights reads of a state only who there is and what they may do: workspaces, principals, tokens, roles, teams, grants, people.
func (t *Tx) LoadRights() (*State, error) {
	l := &loader{t: t, s: &State{same: map[string]bool{}}}
	l.read(func() (err error) { l.s.Generation, err = t.Generation(); return })
	l.read(func() (err error) { l.s.Installation, err = t.Installation(); return })
	l.whoMay()
	return l.s, l.err
}

func (l *loader) whoMay() {
	part(l, "workspaces", workspaceColumns, "id", func(s *State) *[]Workspace { return &s.Workspaces }, scanWorkspace, nil)
	part(l, "principals", "id, workspace, kind, state, created, version, name_digest, sealed", "id", func(s *State) *[]Principal { return &s.Principals },
		func(r *sql.Rows, v *Principal) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Kind, &v.State, &v.Created, &v.Version, &v.NameDigest, &v.Sealed)
		}, func(v *Principal) string { return v.ID })
	part(l, "api_tokens", "id, workspace, principal, digest, verifier, created, expires, revoked, last_used, version, sealed, last_source", "id",
		func(s *State) *[]APIToken { return &s.APITokens },
		func(r *sql.Rows, v *APIToken) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Principal, &v.Digest, &v.Verifier, &v.Created, &v.Expires, &v.Revoked,
				&v.LastUsed, &v.Version, &v.Sealed, &v.LastSource)
		}, func(v *APIToken) string { return v.ID })
	l.rights()
	l.people()
}

// loader reads a state. Its first error ends it.
type loader struct {
	t       *Tx
	prev    *State
	changed map[string][]string // since prev
	s       *State
	err     error
}

func (l *loader) read(f func() error) {
	if l.err == nil {
		l.err = f()
	}
}

// part reads a table, in an order that begins with the column of key. With a key, rows that the journal names are read and put in
// place of those of the same keys; else the table is read whole if anything of it changed.
func part[T any](l *loader, table, columns, order string, of func(*State) *[]T, scan func(*sql.Rows, *T) error, key func(*T) string) {
	l.read(func() error {
		keys, changed := l.changed[table]
		switch {
		case l.prev != nil && !changed:
			*of(l.s), l.s.same[table] = *of(l.prev), true
			return nil
		case l.prev == nil || keys == nil || key == nil:
			rows, err := list(l.t, scan, "SELECT "+columns+" FROM "+table+" ORDER BY "+order)
			*of(l.s) = rows
			return err
		}
		column, _, _ := strings.Cut(order, ",")
		args := make([]any, len(keys))
		for i, k := range keys {
			args[i] = k
		}
		rows, err := list(l.t, scan, "SELECT "+columns+" FROM "+table+" WHERE "+column+" IN (?"+strings.Repeat(", ?", len(keys)-1)+") ORDER BY "+order, args...)
		*of(l.s) = merge(*of(l.prev), rows, keys, key)
		return err
	})
}

// merge puts rows in place of those of old whose key is one of keys. Both are in the order of their keys.
func merge[T any](old, rows []T, keys []string, key func(*T) string) []T {
	gone := make(map[string]bool, len(keys))
	for _, k := range keys {
		gone[k] = true
	}
	out := make([]T, 0, len(old)+len(rows))
	for i := range old {
		k := key(&old[i])
		if gone[k] {
			continue
		}
		for len(rows) > 0 && key(&rows[0]) < k {
			out, rows = append(out, rows[0]), rows[1:]
		}
		out = append(out, old[i])
	}
	return append(out, rows...)
}

// Installation reads the one row; ErrNotFound before Init.
func (t *Tx) Installation() (v Installation, err error) {
	err = t.row("SELECT id, created, kek_id, key_wrapped FROM installation WHERE one = 1").
		Scan(&v.ID, &v.Created, &v.KEK, &v.KeyWrapped)
	return v, wrap(err)
}

// Workspaces reads all of them.
func (t *Tx) Workspaces() ([]Workspace, error) {
	return list(t, scanWorkspace, "SELECT "+workspaceColumns+" FROM workspaces ORDER BY id")
}

const workspaceColumns = "id, state, created, version, name_digest, kek_id, key_wrapped, sealed"

func scanWorkspace(r *sql.Rows, v *Workspace) error {
	return r.Scan(&v.ID, &v.State, &v.Created, &v.Version, &v.NameDigest, &v.KEK, &v.KeyWrapped, &v.Sealed)
}

const agentColumns = "id, workspace, group_id, state, created, first_seen, last_seen, version, sealed"

func scanAgent(r *sql.Rows, v *Agent) error {
	return r.Scan(&v.ID, &v.Workspace, &v.Group, &v.State, &v.Created, &v.FirstSeen, &v.LastSeen, &v.Version, &v.Sealed)
}

const joinTokenColumns = `id, workspace, group_id, digest, created, created_by, expires, COALESCE(used_at, 0),
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
	return one(list(t, scanAgent, "SELECT "+agentColumns+" FROM agents WHERE workspace = ? AND id = ?", workspace, id))
}

// JoinTokenByDigest reads a join token, whatever its state.
func (t *Tx) JoinTokenByDigest(digest []byte) (JoinToken, error) {
	return one(list(t, scanJoinToken, "SELECT "+joinTokenColumns+" FROM join_tokens WHERE digest = ?", digest))
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
	return list(t, scanCertificate, "SELECT "+certificateColumns+" FROM certificates WHERE agent = ? ORDER BY issued, serial", agent)
}

const certificateColumns = "agent, serial, spki, issued, not_after, proven"

func scanCertificate(r *sql.Rows, v *Certificate) error {
	return r.Scan(&v.Agent, &v.Serial, &v.SPKI, &v.Issued, &v.NotAfter, &v.Proven)
}
