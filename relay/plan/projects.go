package plan

import (
	"context"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/relay/client"
)

// project is what a file says of one.
type project struct {
	Folders []string `yaml:"folders"`
}

// at names a project and a folder of it; "" for none.
func at(project, folder string) string { return strings.TrimSuffix(project+"/"+folder, "/") }

// places tells whether the files name a project anywhere: only then is the relay asked for them.
func (w *Wanted) places() bool {
	if _, ok := w.has["projects"]; ok {
		return true
	}
	for _, c := range w.connections {
		if c.is.Project != "" {
			return true
		}
	}
	return slices.ContainsFunc(w.grants, func(g wanted[grant]) bool { return g.is.Project != "" })
}

// checkPlace finds folders of no project.
func (w *Wanted) checkPlace(of where, project, folder string) {
	if folder != "" && project == "" {
		w.fault(of.at("folder").fault("is of no project", "write project: NAME, too"))
	}
}

// checkProjects finds folders that stand in none that there will be.
func (w *Wanted) checkProjects() {
	for _, p := range w.projects {
		for i, path := range p.is.Folders {
			here := where{p.doc, config.Index(p.at("folders").path, i)}
			if slices.Contains(p.is.Folders[:i], path) {
				w.fault(here.fault("stands twice", "name each folder once"))
			}
			if i := strings.LastIndexByte(path, '/'); i >= 0 && !slices.Contains(p.is.Folders, path[:max(i, 0)]) {
				w.fault(here.fault("the folder above it is not named", "name "+path[:i]+", too"))
			}
		}
	}
}

// folder is one of the relay's.
type folder struct {
	project client.Project
	client.Folder
}

// lookAtProjects reads projects with their folders.
func (s *state) lookAtProjects(ctx context.Context, c *client.Client) (err error) {
	if s.projects, err = c.Projects(ctx); err != nil {
		return err
	}
	for _, p := range s.projects {
		l, err := c.Folders(ctx, p.ID)
		if err != nil {
			return err
		}
		slices.SortFunc(l, func(a, b client.Folder) int { return strings.Compare(a.Path, b.Path) })
		for _, f := range l {
			s.folders = append(s.folders, folder{p, f})
		}
	}
	return nil
}

// judgePlace finds what names a project or folder that there is not, and will not be.
func (m *maker) judgePlace(of where, project, path string) {
	if project == "" {
		return
	}
	mine, here := m.w.projects[project]
	there := slices.ContainsFunc(m.s.projects, func(p client.Project) bool { return p.Name == project })
	if !here && !there {
		m.faults = append(m.faults, of.at("project").fault("there is no such project", "name it under projects, too"))
		return
	}
	there = slices.ContainsFunc(m.s.folders, func(f folder) bool { return f.project.Name == project && f.Path == path })
	if path != "" && !slices.Contains(mine.is.Folders, path) && !there {
		m.faults = append(m.faults, of.at("folder").fault("there is no such folder in the project", "name it under projects."+project+".folders, too"))
	}
}

// projects makes what lacks. What goes, goes when the connections have: the innermost folder first.
func (m *maker) projects() {
	if !m.has("projects") {
		return
	}
	there := byName(m.s.projects, func(p client.Project) string { return p.Name })
	for _, name := range names(m.w.projects) {
		want := slices.Clone(m.w.projects[name].is.Folders)
		slices.Sort(want) // a folder stands behind those above it
		if _, ok := there[name]; ok {
			m.Unchanged++
		} else {
			m.step(Create, "project", name, nil, func(ctx context.Context, r *run) error {
				_, err := r.c.CreateProject(ctx, client.SetProject{Name: name})
				return err
			})
		}
		for _, path := range want {
			if slices.ContainsFunc(m.s.folders, func(f folder) bool { return f.project.Name == name && f.Path == path }) {
				m.Unchanged++
				continue
			}
			m.step(Create, "folder", at(name, path), nil, func(ctx context.Context, r *run) error {
				_, err := r.c.CreateFolder(ctx, name, client.NewFolder{Path: path})
				return err
			})
		}
	}
	for _, f := range slices.Backward(m.s.folders) {
		if !slices.Contains(m.w.projects[f.project.Name].is.Folders, f.Path) {
			m.drop(&m.dropFolders, "folder", at(f.project.Name, f.Path), func(ctx context.Context, r *run) error {
				return r.c.If(f.ETag).DeleteFolder(ctx, f.project.ID, f.ID)
			})
		}
	}
	for _, p := range m.s.projects {
		if _, ok := m.w.projects[p.Name]; !ok {
			m.drop(&m.dropProjects, "project", p.Name, func(ctx context.Context, r *run) error { return r.c.If(p.ETag).DeleteProject(ctx, p.ID) })
		}
	}
}

// placeOf moves a connection to where the files say. Out of its project it goes with prune alone, for that takes rights away.
func (m *maker) placeOf(is client.Connection, want connection) {
	name := "of " + is.Name
	move := func(ctx context.Context, r *run) error {
		moved, err := r.c.If(r.tagOf(is)).MoveConnection(ctx, is.ID, client.SetPlace{Project: want.Project, Folder: want.Folder})
		r.changed(moved, err)
		return err
	}
	switch {
	case is.Project == want.Project && is.Folder == want.Folder:
	case want.Project == "":
		m.drop(&m.dropPlaces, "place", name, move)
	default:
		m.step(Change, "place", name, difference(placeLines(is.Project, is.Folder), placeLines(want.Project, want.Folder)), move)
	}
}

func placeLines(project, folder string) []string {
	if project == "" {
		return nil
	}
	return []string{"project " + at(project, folder)}
}

// tagOf is the connection's entity tag after the steps of this run.
func (r *run) tagOf(is client.Connection) string {
	if tag, ok := r.tags[is.ID]; ok {
		return tag
	}
	return is.ETag
}

func (r *run) changed(now client.Connection, err error) {
	if err == nil {
		r.tags[now.ID] = now.ETag
	}
}

func (o *writer) projects(s *state) {
	for _, p := range s.projects {
		var paths []string
		for _, f := range s.folders {
			if f.project.ID == p.ID {
				paths = append(paths, f.Path)
			}
		}
		if len(paths) == 0 {
			o.line(1, "%s: {}", text(p.Name))
			continue
		}
		o.line(1, "%s:", text(p.Name))
		o.line(2, "folders: %s", flow(paths))
	}
}
