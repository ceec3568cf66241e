package directory

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// Place is where in a project something stands, or shall stand: a project by name or id, and a folder of it by path or id. The zero
// value is no project.
type Place struct{ Project, Folder string }

// Place finds a place; both are nil for the zero value. A folder of no project is refused (invalid).
func (w *Workspace) Place(at Place) (p *Project, f *Folder, err error) {
	if at.Project == "" {
		if at.Folder != "" {
			err = invalid("a folder is of a project, and none is named", "name the project, too")
		}
		return nil, nil, err
	}
	if p, err = w.Project(at.Project); err != nil || at.Folder == "" {
		return p, nil, err
	}
	f, err = p.Folder(at.Folder)
	return p, f, err
}

// ScopeOfPlace is what stands, or would stand, at a place in an environment.
func (w *Workspace) ScopeOfPlace(in authz.Environment, p *Project, f *Folder) authz.Scope {
	switch {
	case f != nil:
		return f.Scope(in)
	case p != nil:
		return p.Scope(in)
	}
	return authz.Scope{Workspace: w.ID, Environment: in}
}

// DecideAt finds a place and decides an action on what would stand there. To who neither may do it there nor see the place, it is
// not there (not_found).
func (w *Workspace) DecideAt(who authz.Principal, a authz.Action, in authz.Environment, to Place, at authz.At) (p *Project, f *Folder, d authz.Decision, err error) {
	p, f, err = w.Place(to)
	if err == nil {
		if d = authz.Decide(who, a, w.ScopeOfPlace(in, p, f), at); d.Allow {
			return p, f, d, nil
		}
	}
	switch {
	case p != nil && !p.Sees(who, at) && !authz.Decide(who, a, p.Scope(in), at).Allow:
		err = noProject()
	case f != nil && !f.Sees(who, at):
		err = noFolder()
	}
	return p, f, d, err
}

func placementTag(v *vault.Vault, r store.Placement) ([]byte, error) {
	d, err := v.Digest(r.Workspace, vault.Placement, strings.Join([]string{r.Connection, r.Project, r.Folder}, "\n"))
	return d[:], err
}

// put writes where a connection stands; nil p is no project.
func (d *Directory) put(tx *store.Tx, workspace, connection string, p *Project, f *Folder) (err error) {
	if p == nil {
		if err = tx.DeletePlacement(workspace, connection); errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	}
	row := store.Placement{Workspace: workspace, Connection: connection, Project: p.ID}
	if f != nil {
		row.Folder = f.ID
	}
	if row.Tag, err = placementTag(d.vault, row); err != nil {
		return err
	}
	return as(tx.PutPlacement(row), &protocol.Error{Code: protocol.CodeNotFound, Message: "no such project or folder", Hint: "list them: fairlead projects list"}, nil)
}

// MoveConnection puts a connection (name or id) into another project or folder, or into none. by must hold ConnectionsEdit both
// where it stands and where it goes, in its environment, and might make one that leads to the same. What is given on the connection itself goes with it; what was given where
// it stood counts for it no more.
func (d *Directory) MoveConnection(ctx context.Context, by By, workspace, connection string, to Place) (*Connection, error) {
	id, in := "", ""
	err := d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		who, err := w.asker(by)
		if err != nil {
			return err
		}
		c, err := w.SeenConnection(who, by.At, connection)
		if err != nil {
			return err
		}
		if dec := authz.Decide(who, authz.ConnectionsEdit, c.Scope(), by.At); !dec.Allow {
			return mayNotMove("from where it stands", dec)
		}
		p, f, dec, err := w.DecideAt(who, authz.ConnectionsEdit, c.Environment, to, by.At)
		switch {
		case err != nil:
			return err
		case !dec.Allow:
			return mayNotMove("to there", dec)
		}
		if id, in = c.ID, w.ID; c.Project == p && c.Folder == f {
			return nil
		}
		// There it is for all who hold something there, the mover maybe among them: as if it were made there.
		g, err := w.Group(c.Group)
		if err != nil {
			return err
		}
		if err := w.mayLead(who, g, c.ConnectionBody, by.At); err != nil {
			return err
		}
		return d.put(tx, w.ID, c.ID, p, f)
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(in).Connection(id)
}

func mayNotMove(where string, d authz.Decision) *protocol.Error {
	return limitedBy(d.Limited, &protocol.Error{Code: protocol.CodeDenied, Message: "you may not move a connection " + where + ": " + d.Reason,
		Hint: "it wants the action connections.edit where the connection stands and where it goes; an admin of the workspace can give a role that has it"})
}

// addProjects opens projects and folders, and puts connections into them. It comes after addConnections.
func (s *Snapshot) addProjects(v *vault.Vault, st *store.State, prev *Snapshot) error {
	for _, r := range st.Projects {
		w, err := s.in("project", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		p := &Project{ID: r.ID, Workspace: r.Workspace, Created: fromMs(r.Created), Version: r.Version, sealed: r.Sealed, folders: map[string]*Folder{}}
		if old := prev.before(r.Workspace).projects[r.ID]; old != nil && bytes.Equal(old.sealed, r.Sealed) {
			p.Name = old.Name
		} else {
			var body nameBody
			if err := open(v, place(r.Workspace, "projects", r.ID, r.Version), r.Sealed, &body); err != nil {
				return err
			}
			p.Name = body.Name
		}
		w.Projects = append(w.Projects, p)
		w.projects[p.ID], w.projects[p.Name] = p, p
	}
	for _, r := range st.Folders {
		w, err := s.in("folder", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		f := &Folder{ID: r.ID, Project: w.projects[r.Project], Created: fromMs(r.Created), sealed: r.Sealed}
		if f.Project == nil {
			return fmt.Errorf("folder %s belongs to no project", r.ID)
		}
		if old := prev.before(r.Workspace).folders[r.ID]; old != nil && old.Project.ID == r.Project && bytes.Equal(old.sealed, r.Sealed) {
			f.Path = old.Path
		} else {
			var body folderBody
			if err := open(v, place(r.Workspace, "folders", r.ID, 1), r.Sealed, &body); err != nil {
				return err
			}
			if f.Path = body.Path; body.Project != r.Project {
				return fmt.Errorf("folder %s was not written by a relay of this installation", r.ID)
			}
		}
		f.Project.Folders = append(f.Project.Folders, f)
		f.Project.folders[f.ID], f.Project.folders[f.Path] = f, f
		w.folders[f.ID] = f
	}
	for _, w := range s.workspaces {
		slices.SortFunc(w.Projects, func(a, b *Project) int { return cmp.Compare(a.Name, b.Name) })
		for _, p := range w.Projects {
			if err := p.nest(); err != nil {
				return err
			}
		}
	}
	for _, r := range st.Placements {
		w, err := s.in("connection", r.Connection, r.Workspace)
		if err != nil {
			return err
		}
		want, err := placementTag(v, r)
		if err != nil {
			return fmt.Errorf("check the place of connection %s: %w", r.Connection, err)
		}
		c, p, f := w.connections[r.Connection], w.projects[r.Project], w.folders[r.Folder]
		if !bytes.Equal(want, r.Tag) || c == nil || p == nil || (f == nil) != (r.Folder == "") || f != nil && f.Project != p {
			return fmt.Errorf("the place of connection %s was not written by a relay of this installation", r.Connection)
		}
		c.Project, c.Folder = p, f
	}
	return nil
}

// nest gives folders their places in each other, by their paths: these are sealed.
func (p *Project) nest() error {
	slices.SortFunc(p.Folders, func(a, b *Folder) int { return cmp.Compare(a.Path, b.Path) })
	for _, f := range p.Folders { // one stands behind those above it
		f.ids = f.ID
		if i := strings.LastIndexByte(f.Path, '/'); i >= 0 {
			above := p.folders[f.Path[:i]]
			if above == nil || above.ids == "" {
				return fmt.Errorf("folder %s is in no folder that is there", f.ID)
			}
			f.ids = above.ids + "/" + f.ID
		}
	}
	return nil
}
