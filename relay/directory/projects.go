package directory

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// Limits of projects.
const (
	MaxProjects    = 1_000  // of a workspace
	MaxFolders     = 10_000 // of a workspace
	MaxFolderDepth = 8      // names of a folder's path
)

// Project holds connections of a workspace, whatever environment each of them stands in.
type Project struct {
	ID, Workspace, Name string
	Created             time.Time
	Folders             []*Folder // by path
	Version             int64     // counts its names

	sealed  []byte
	folders map[string]*Folder // by path and id: a path never looks like an id
}

// Folder is a part of a project: a path of names.
type Folder struct {
	ID      string
	Project *Project
	Path    string // such as reports/monthly
	Created time.Time

	sealed []byte
	ids    string // of the folders from the outermost down to this one, joined by "/"
}

type folderBody struct {
	Project string `json:"project"`
	Path    string `json:"path"`
}

// Scope is the project in an environment; in all of them for "".
func (p *Project) Scope(in authz.Environment) authz.Scope {
	return authz.Scope{Workspace: p.Workspace, Environment: in, Project: p.ID}
}

// Scope is the folder in an environment; in all of them for "".
func (f *Folder) Scope(in authz.Environment) authz.Scope {
	s := f.Project.Scope(in)
	s.Folder = f.ids
	return s
}

// Project finds a project by name or id.
func (w *Workspace) Project(nameOrID string) (*Project, error) {
	if p := w.projects[nameOrID]; p != nil {
		return p, nil
	}
	return nil, noProject()
}

func noProject() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "no such project", Hint: "list them: fairlead projects list"}
}

// Folder finds a folder of the project by path or id.
func (p *Project) Folder(pathOrID string) (*Folder, error) {
	if f := p.folders[pathOrID]; f != nil {
		return f, nil
	}
	return nil, noFolder()
}

func noFolder() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "no such folder", Hint: "list them: fairlead folders list PROJECT"}
}

// Sees reports whether somebody may see a project: if it, or a folder of it, may be read in any environment.
func (p *Project) Sees(who authz.Principal, at authz.At) bool {
	if sees(who, p.Scope, at) {
		return true
	}
	for _, f := range p.Folders {
		if sees(who, f.Scope, at) {
			return true
		}
	}
	return false
}

// Sees reports whether somebody may see a folder.
func (f *Folder) Sees(who authz.Principal, at authz.At) bool { return sees(who, f.Scope, at) }

func sees(who authz.Principal, on func(authz.Environment) authz.Scope, at authz.At) bool {
	if authz.Decide(who, authz.ProjectsRead, on(""), at).Allow {
		return true
	}
	for _, e := range authz.Environments {
		if authz.Decide(who, authz.ProjectsRead, on(e), at).Allow {
			return true
		}
	}
	return false
}

// ETag names the project as it is called.
func (p *Project) ETag() string { return tag("project", p.ID, p.sealed) }

// ETag names the folder, which never changes.
func (f *Folder) ETag() string { return tag("folder", f.ID, f.sealed) }

// CreateProject adds a project to a workspace (name or id), as somebody asks for it who must hold ProjectsCreate on the workspace.
func (d *Directory) CreateProject(ctx context.Context, by By, workspace, name string) (*Project, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	id, in := NewID("prj"), ""
	err := d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		who, err := w.asker(by)
		if err == nil {
			err = mayDo(authz.ProjectsCreate, who, authz.Scope{Workspace: w.ID}, by.At)
		}
		if err != nil {
			return err
		}
		if in = w.ID; len(w.Projects) >= MaxProjects {
			return &protocol.Error{Code: protocol.CodeTooLarge, Message: "the workspace has too many projects", Hint: "delete those that are empty"}
		}
		row, err := d.projectRow(w.ID, id, 1, name)
		if err != nil {
			return err
		}
		row.Created = toMs(now())
		return as(tx.InsertProject(row), protocol.Errorf(protocol.CodeNotFound, "no such workspace"), protocol.Errorf(protocol.CodeConflict, "a project of this name exists"))
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(in).Project(id)
}

func (d *Directory) projectRow(workspace, id string, version int64, name string) (store.Project, error) {
	row := store.Project{ID: id, Workspace: workspace, Version: version}
	digest, err := d.vault.Digest(workspace, vault.NameOfProject, name)
	if err != nil {
		return row, err
	}
	row.NameDigest = digest[:]
	row.Sealed, err = seal(d.vault, place(workspace, "projects", id, version), nameBody{name})
	return row, err
}

// RenameProject gives a project (name or id) another name. What stands in it and what is given on it stays. by must hold ProjectsEdit
// on the project in all environments.
func (d *Directory) RenameProject(ctx context.Context, by By, workspace, project, name string) (*Project, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	id, in := "", ""
	err := d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		who, p, err := w.projectFor(by, project)
		if err == nil {
			err = mayDo(authz.ProjectsEdit, who, p.Scope(""), by.At)
		}
		if err != nil {
			return err
		}
		if id, in = p.ID, w.ID; p.Name == name {
			return nil
		}
		row, err := d.projectRow(w.ID, p.ID, p.Version+1, name)
		if err != nil {
			return err
		}
		return as(tx.UpdateProject(row), protocol.Errorf(protocol.CodeConflict, "the project was changed meanwhile"), protocol.Errorf(protocol.CodeConflict, "a project of this name exists"))
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(in).Project(id)
}

// DeleteProject removes a project (name or id) with the grants on it, and tells how many these were. It refuses (conflict) while
// anything stands in it. by must hold ProjectsDelete on the project in all environments.
func (d *Directory) DeleteProject(ctx context.Context, by By, workspace, project string) (grants int, err error) {
	err = d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		who, p, err := w.projectFor(by, project)
		if err == nil {
			err = mayDo(authz.ProjectsDelete, who, p.Scope(""), by.At)
		}
		if err != nil {
			return err
		}
		connections := 0
		for _, c := range w.Connections {
			if c.Project == p {
				connections++
			}
		}
		if connections+len(p.Folders) > 0 {
			return &protocol.Error{Code: protocol.CodeConflict, Message: fmt.Sprintf("the project holds %d connections and %d folders", connections, len(p.Folders)), Hint: "move or delete them first"}
		}
		grants = w.grantsOn(p.ID, "")
		return as(tx.DeleteProject(w.ID, p.ID), notEmpty("project"), nil)
	})
	return grants, err
}

// notEmpty is what the database says when it knows of more than the snapshot: somebody was faster.
func notEmpty(what string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeConflict, Message: "something stands in the " + what, Hint: "move or delete it first"}
}

// grantsOn counts what is given on a project, and on a folder of it if one is named.
func (w *Workspace) grantsOn(project, folder string) (n int) {
	for _, g := range w.Grants {
		if g.Grant.Project == project && g.Folder == folder {
			n++
		}
	}
	return n
}

// CreateFolder adds a folder to a project (name or id). The folders above it must be there. by must hold ProjectsCreate on what it is to
// stand in.
func (d *Directory) CreateFolder(ctx context.Context, by By, workspace, project, path string) (*Folder, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	id, in, of := NewID("fol"), "", ""
	err := d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		who, p, err := w.projectFor(by, project)
		if err == nil {
			err = mayDo(authz.ProjectsCreate, who, p.nearest(path), by.At)
		}
		if err != nil {
			return err
		}
		if in, of = w.ID, p.ID; len(w.folders) >= MaxFolders {
			return &protocol.Error{Code: protocol.CodeTooLarge, Message: "the workspace has too many folders", Hint: "delete those that are empty"}
		}
		row := store.Folder{ID: id, Workspace: w.ID, Project: p.ID, Created: toMs(now())}
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			above, err := p.Folder(path[:i])
			if err != nil {
				return &protocol.Error{Code: protocol.CodeNotFound, Message: "the folder above it is not there", Hint: "make it first: fairlead folders create PROJECT PATH"}
			}
			row.Parent = above.ID
		}
		digest, err := d.vault.Digest(w.ID, vault.PathOfFolder, p.ID+"\n"+path)
		if err != nil {
			return err
		}
		row.PathDigest = digest[:]
		if row.Sealed, err = seal(d.vault, place(w.ID, "folders", id, 1), folderBody{p.ID, path}); err != nil {
			return err
		}
		return as(tx.InsertFolder(row), noProject(), protocol.Errorf(protocol.CodeConflict, "a folder of this path exists"))
	})
	if err != nil {
		return nil, err
	}
	p, err := d.Snapshot().before(in).Project(of)
	if err != nil {
		return nil, err
	}
	return p.Folder(id)
}

// nearest is what stands next above a path: a folder, or the project itself.
func (p *Project) nearest(path string) authz.Scope {
	for i := strings.LastIndexByte(path, '/'); i > 0; i = strings.LastIndexByte(path, '/') {
		path = path[:i]
		if f := p.folders[path]; f != nil {
			return f.Scope("")
		}
	}
	return p.Scope("")
}

// checkPath admits names joined by "/".
func checkPath(path string) error {
	names := strings.Split(path, "/")
	if len(names) > MaxFolderDepth {
		return invalid("the folder is too deep", fmt.Sprintf("give a path of at most %d names", MaxFolderDepth))
	}
	for _, name := range names {
		if checkName(name) != nil {
			return invalid("the folder's path is not usable", fmt.Sprintf("join names by '/', such as reports/monthly: each 1 to %d letters, digits, '_', '-' or '.', beginning with a letter or digit", MaxName))
		}
	}
	return nil
}

// DeleteFolder removes a folder (path or id) of a project (name or id) with the grants on it, and tells how many these were. It
// refuses (conflict) while anything stands in it. by must hold ProjectsDelete on the folder in all environments.
func (d *Directory) DeleteFolder(ctx context.Context, by By, workspace, project, folder string) (grants int, err error) {
	err = d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		who, p, err := w.projectFor(by, project)
		if err != nil {
			return err
		}
		f, err := p.Folder(folder)
		if err != nil {
			return err
		}
		if !f.Sees(who, by.At) {
			return noFolder() // who may not see it is not told that it is there
		}
		if err := mayDo(authz.ProjectsDelete, who, f.Scope(""), by.At); err != nil {
			return err
		}
		connections, folders := 0, 0
		for _, c := range w.Connections {
			if c.Folder == f {
				connections++
			}
		}
		for _, o := range p.Folders {
			if strings.HasPrefix(o.Path, f.Path+"/") {
				folders++
			}
		}
		if connections+folders > 0 {
			return &protocol.Error{Code: protocol.CodeConflict, Message: fmt.Sprintf("the folder holds %d connections and %d folders", connections, folders), Hint: "move or delete them first"}
		}
		grants = w.grantsOn(p.ID, f.ID)
		return as(tx.DeleteFolder(w.ID, f.ID), notEmpty("folder"), nil)
	})
	return grants, err
}
