package store

import "database/sql"

// CustomRole is a named set of actions of a workspace.
type CustomRole struct {
	ID, Workspace string
	Created       int64
	Version       int64
	NameDigest    []byte
	Sealed        []byte
}

// Team is a named set of principals of a workspace.
type Team struct {
	ID, Workspace string
	Created       int64
	Version       int64
	NameDigest    []byte
	Sealed        []byte
}

// Member puts a principal into a team.
type Member struct {
	Workspace, Team, Principal string
	Created                    int64
	Tag                        []byte // keyed digest of the row
}

// Grant gives a role to a principal or a team, on a workspace, or on an environment, a project, a folder or one connection of it.
type Grant struct {
	ID, Workspace   string
	Principal, Team string // one of them
	Role            string
	Environment     string
	Project, Folder string
	Connection      string
	Until           int64 // 0: without end
	Created         int64
	Sealed          []byte // the networks; nil: from everywhere
	Tag             []byte // keyed digest of the row
}

func (l *loader) rights() {
	part(l, "roles", "id, workspace, created, version, name_digest, sealed", "id", func(s *State) *[]CustomRole { return &s.Roles },
		func(r *sql.Rows, v *CustomRole) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Created, &v.Version, &v.NameDigest, &v.Sealed)
		}, nil)
	part(l, "teams", "id, workspace, created, version, name_digest, sealed", "id", func(s *State) *[]Team { return &s.Teams },
		func(r *sql.Rows, v *Team) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Created, &v.Version, &v.NameDigest, &v.Sealed)
		}, nil)
	part(l, "team_members", "workspace, team, principal, created, tag", "team, principal", func(s *State) *[]Member { return &s.Members },
		func(r *sql.Rows, v *Member) error {
			return r.Scan(&v.Workspace, &v.Team, &v.Principal, &v.Created, &v.Tag)
		}, nil)
	part(l, "grants", `id, workspace, COALESCE(principal, ''), COALESCE(team, ''), role, environment, COALESCE(project, ''), COALESCE(folder, ''),
		COALESCE(connection, ''), until, created, sealed, tag`, "id", func(s *State) *[]Grant { return &s.Grants },
		func(r *sql.Rows, v *Grant) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Principal, &v.Team, &v.Role, &v.Environment, &v.Project, &v.Folder, &v.Connection, &v.Until, &v.Created, &v.Sealed, &v.Tag)
		}, func(v *Grant) string { return v.ID })
}

// InsertGrant adds a grant.
func (t *Tx) InsertGrant(v Grant) error {
	return t.touch("grants", v.ID).exec(`INSERT INTO grants (id, workspace, principal, team, role, environment, project, folder, connection, until, created, sealed, tag)
		VALUES (?, ?, NULLIF(?, ''), NULLIF(?, ''), ?, ?, NULLIF(?, ''), NULLIF(?, ''), NULLIF(?, ''), ?, ?, ?, ?)`,
		v.ID, v.Workspace, v.Principal, v.Team, v.Role, v.Environment, v.Project, v.Folder, v.Connection, v.Until, v.Created, v.Sealed, v.Tag)
}

// DeleteGrant removes a grant.
func (t *Tx) DeleteGrant(workspace, id string) error {
	return t.touch("grants", id).exec("DELETE FROM grants WHERE workspace = ? AND id = ?", workspace, id)
}

// DeleteOldGrants removes those of a workspace that were over before a time.
func (t *Tx) DeleteOldGrants(workspace string, before int64) error {
	_, err := t.count("DELETE FROM grants WHERE workspace = ? AND until <> 0 AND until < ?", workspace, before)
	return err
}

// CountGrants counts the grants of a workspace that give a role; of all roles for "".
func (t *Tx) CountGrants(workspace, role string) (n int, err error) {
	err = t.row("SELECT count(*) FROM grants WHERE workspace = ? AND (role = ? OR ? = '')", workspace, role, role).Scan(&n)
	return n, wrap(err)
}

// InsertRole adds a custom role.
func (t *Tx) InsertRole(v CustomRole) error {
	return t.exec("INSERT INTO roles (id, workspace, created, version, name_digest, sealed) VALUES (?, ?, ?, ?, ?, ?)",
		v.ID, v.Workspace, v.Created, v.Version, v.NameDigest, v.Sealed)
}

// UpdateRole writes the next version of a custom role; v.Version must be the next one, else ErrNotFound.
func (t *Tx) UpdateRole(v CustomRole) error {
	return t.exec("UPDATE roles SET version = ?, name_digest = ?, sealed = ? WHERE workspace = ? AND id = ? AND version = ?",
		v.Version, v.NameDigest, v.Sealed, v.Workspace, v.ID, v.Version-1)
}

// DeleteRole removes a custom role. Grants that give it give nothing from then on.
func (t *Tx) DeleteRole(workspace, id string) error {
	return t.exec("DELETE FROM roles WHERE workspace = ? AND id = ?", workspace, id)
}

// InsertTeam adds a team.
func (t *Tx) InsertTeam(v Team) error {
	return t.exec("INSERT INTO teams (id, workspace, created, version, name_digest, sealed) VALUES (?, ?, ?, ?, ?, ?)",
		v.ID, v.Workspace, v.Created, v.Version, v.NameDigest, v.Sealed)
}

// DeleteTeam removes a team with its members' places and its grants.
func (t *Tx) DeleteTeam(workspace, id string) error {
	return t.exec("DELETE FROM teams WHERE workspace = ? AND id = ?", workspace, id)
}

// InsertMember puts a principal into a team.
func (t *Tx) InsertMember(v Member) error {
	return t.exec("INSERT INTO team_members (workspace, team, principal, created, tag) VALUES (?, ?, ?, ?, ?)",
		v.Workspace, v.Team, v.Principal, v.Created, v.Tag)
}

// DeleteMember takes a principal out of a team.
func (t *Tx) DeleteMember(workspace, team, principal string) error {
	return t.exec("DELETE FROM team_members WHERE workspace = ? AND team = ? AND principal = ?", workspace, team, principal)
}
