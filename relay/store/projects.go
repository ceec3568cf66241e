package store

import "database/sql"

// Project holds assets of a workspace.
type Project struct {
	ID, Workspace string
	Created       int64
	Version       int64
	NameDigest    []byte
	Sealed        []byte
}

// Folder is a part of a project.
type Folder struct {
	ID, Workspace, Project string
	Parent                 string // empty: it stands in the project itself
	Created                int64
	PathDigest             []byte
	Sealed                 []byte
}

// Placement is where in a project a connection stands.
type Placement struct {
	Workspace, Connection string
	Project, Folder       string // Folder is empty for what stands in the project itself
	Tag                   []byte // keyed digest of the row
}

func (l *loader) projects() {
	part(l, "projects", "id, workspace, created, version, name_digest, sealed", "id", func(s *State) *[]Project { return &s.Projects },
		func(r *sql.Rows, v *Project) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Created, &v.Version, &v.NameDigest, &v.Sealed)
		}, nil)
	part(l, "folders", "id, workspace, project, COALESCE(parent, ''), created, path_digest, sealed", "id", func(s *State) *[]Folder { return &s.Folders },
		func(r *sql.Rows, v *Folder) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Project, &v.Parent, &v.Created, &v.PathDigest, &v.Sealed)
		}, nil)
	part(l, "placements", "workspace, connection, project, COALESCE(folder, ''), tag", "connection", func(s *State) *[]Placement { return &s.Placements },
		func(r *sql.Rows, v *Placement) error {
			return r.Scan(&v.Workspace, &v.Connection, &v.Project, &v.Folder, &v.Tag)
		}, func(v *Placement) string { return v.Connection })
}

// InsertProject adds a project.
func (t *Tx) InsertProject(v Project) error {
	return t.exec("INSERT INTO projects (id, workspace, created, version, name_digest, sealed) VALUES (?, ?, ?, ?, ?, ?)",
		v.ID, v.Workspace, v.Created, v.Version, v.NameDigest, v.Sealed)
}

// UpdateProject writes the next version of a project; v.Version must be the next one, else ErrNotFound.
func (t *Tx) UpdateProject(v Project) error {
	return t.exec("UPDATE projects SET version = ?, name_digest = ?, sealed = ? WHERE workspace = ? AND id = ? AND version = ?",
		v.Version, v.NameDigest, v.Sealed, v.Workspace, v.ID, v.Version-1)
}

// DeleteProject removes a project and the grants on it. ErrReferenced: something stands in it.
func (t *Tx) DeleteProject(workspace, id string) error {
	return t.exec("DELETE FROM projects WHERE workspace = ? AND id = ?", workspace, id)
}

// InsertFolder adds a folder.
func (t *Tx) InsertFolder(v Folder) error {
	return t.exec("INSERT INTO folders (id, workspace, project, parent, created, path_digest, sealed) VALUES (?, ?, ?, NULLIF(?, ''), ?, ?, ?)",
		v.ID, v.Workspace, v.Project, v.Parent, v.Created, v.PathDigest, v.Sealed)
}

// DeleteFolder removes a folder and the grants on it. ErrReferenced: something stands in it.
func (t *Tx) DeleteFolder(workspace, id string) error {
	return t.exec("DELETE FROM folders WHERE workspace = ? AND id = ?", workspace, id)
}

// PutPlacement writes where a connection stands. ErrReferenced: one of the two is not there.
func (t *Tx) PutPlacement(v Placement) error {
	return t.touch("placements", v.Connection).exec(`INSERT INTO placements (connection, workspace, project, folder, tag) VALUES (?, ?, ?, NULLIF(?, ''), ?)
		ON CONFLICT (connection) DO UPDATE SET project = excluded.project, folder = excluded.folder, tag = excluded.tag
		WHERE placements.workspace = excluded.workspace`, v.Connection, v.Workspace, v.Project, v.Folder, v.Tag)
}

// DeletePlacement takes a connection out of its project.
func (t *Tx) DeletePlacement(workspace, connection string) error {
	return t.touch("placements", connection).exec("DELETE FROM placements WHERE workspace = ? AND connection = ?", workspace, connection)
}
