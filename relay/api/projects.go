package api

import (
	"context"
	"fmt"
	"strings"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

// inFolder names a folder in the path. Its own path stands there as one segment, slashes escaped.
type inFolder struct {
	Workspace string `path:"workspace" doc:"name or id"`
	Name      string `path:"name" doc:"the project's name or id"`
	ID        string `path:"id" doc:"the folder's id, or its path with %2F for each slash"`
}

// projectRoutes are those of projects, their folders, and of where connections stand.
func (a *API) projectRoutes() {
	const ws = "/workspaces/{workspace}"
	route(a, "GET", ws+"/projects", authz.ProjectsRead, "List projects that the caller may see", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Project]], error) {
		l := client.List[client.Project]{Items: []client.Project{}}
		for _, p := range v.workspace.Projects {
			if p.Sees(v.principal, v.at()) {
				l.Items = append(l.Items, project(p))
			}
		}
		return &out[client.List[client.Project]]{l}, nil
	})
	route(a, "GET", ws+"/projects/{name}", authz.ProjectsRead, "One project", 200, func(_ context.Context, v *visit, i *inName) (*out[client.Project], error) {
		return projectOr(seenProject(v, i.Name))
	})
	route(a, "POST", ws+"/projects", authz.ProjectsManage, "Create a project", 201, func(ctx context.Context, v *visit, i *in[client.SetProject]) (*out[client.Project], error) {
		if err := a.may(ctx, v, authz.ProjectsManage, v.scope); err != nil {
			return nil, err
		}
		return projectOr(a.cfg.Directory.CreateProject(ctx, v.workspace.ID, i.Body.Name))
	})
	route(a, "PUT", ws+"/projects/{name}", authz.ProjectsManage, "Rename a project; what stands in it and what is given on it stays", 200, func(ctx context.Context, v *visit, i *inNamed[client.SetProject]) (*out[client.Project], error) {
		p, err := seenProject(v, i.Name)
		if err == nil {
			err = a.may(ctx, v, authz.ProjectsManage, p.Scope(""))
		}
		if err != nil {
			return nil, err
		}
		return projectOr(a.cfg.Directory.RenameProject(ctx, v.workspace.ID, p.ID, i.Body.Name))
	})
	route(a, "DELETE", ws+"/projects/{name}", authz.ProjectsManage, "Delete an empty project with the grants on it; what they no longer allow is cut", 204, func(ctx context.Context, v *visit, i *inName) (*none, error) {
		p, err := seenProject(v, i.Name)
		if err == nil {
			err = a.may(ctx, v, authz.ProjectsManage, p.Scope(""))
		}
		if err != nil {
			return nil, err
		}
		grants, err := a.cfg.Directory.DeleteProject(ctx, v.workspace.ID, p.ID)
		v.took(grants)
		return nil, err
	})

	route(a, "GET", ws+"/projects/{name}/folders", authz.ProjectsRead, "List the folders of a project that the caller may see", 200, func(_ context.Context, v *visit, i *inName) (*out[client.List[client.Folder]], error) {
		p, err := seenProject(v, i.Name)
		if err != nil {
			return nil, err
		}
		l := client.List[client.Folder]{Items: []client.Folder{}}
		for _, f := range p.Folders {
			if f.Sees(v.principal, v.at()) {
				l.Items = append(l.Items, folder(f))
			}
		}
		return &out[client.List[client.Folder]]{l}, nil
	})
	route(a, "POST", ws+"/projects/{name}/folders", authz.ProjectsManage, "Create a folder in a project, or in a folder of it that is there", 201, func(ctx context.Context, v *visit, i *inNamed[client.NewFolder]) (*out[client.Folder], error) {
		p, err := seenProject(v, i.Name)
		if err != nil {
			return nil, err
		}
		on, above := p.Scope(""), i.Body.Path
		for { // the nearest that there is decides
			var ok bool
			if above, ok = outer(above); !ok {
				break
			}
			if f, err := p.Folder(above); err == nil {
				on = f.Scope("")
				break
			}
		}
		if err := a.may(ctx, v, authz.ProjectsManage, on); err != nil {
			return nil, err
		}
		f, err := a.cfg.Directory.CreateFolder(ctx, v.workspace.ID, p.ID, i.Body.Path)
		if err != nil {
			return nil, err
		}
		return &out[client.Folder]{folder(f)}, nil
	})
	route(a, "DELETE", ws+"/projects/{name}/folders/{id}", authz.ProjectsManage, "Delete an empty folder with the grants on it; what they no longer allow is cut", 204, func(ctx context.Context, v *visit, i *inFolder) (*none, error) {
		p, err := seenProject(v, i.Name)
		if err != nil {
			return nil, err
		}
		f, err := p.Folder(i.ID)
		if err != nil || !f.Sees(v.principal, v.at()) {
			return nil, dispatch.NotFound("folder")
		}
		if err := a.may(ctx, v, authz.ProjectsManage, f.Scope("")); err != nil {
			return nil, err
		}
		grants, err := a.cfg.Directory.DeleteFolder(ctx, v.workspace.ID, p.ID, f.ID)
		v.took(grants)
		return nil, err
	})

	route(a, "PUT", ws+"/connections/{name}/place", authz.ConnectionsManage, "Move a connection to another project or folder, or out of any; what its old place allowed is cut", 200, func(ctx context.Context, v *visit, i *inNamed[client.SetPlace]) (*out[client.Connection], error) {
		c, err := a.cfg.Directory.MoveConnection(ctx, v.by(), v.workspace.ID, i.Name, directory.Place{Project: i.Body.Project, Folder: i.Body.Folder})
		if err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		return &out[client.Connection]{a.connection(v, c)}, nil
	})
}

// outer is the path of the folder above; false at the project itself.
func outer(path string) (string, bool) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], i > 0
}

// seenProject finds a project. Who may not see it is not told that it is there.
func seenProject(v *visit, nameOrID string) (*directory.Project, error) {
	p, err := v.workspace.Project(nameOrID)
	if err != nil || !p.Sees(v.principal, v.at()) {
		return nil, dispatch.NotFound("project")
	}
	return p, nil
}

// took has the record of the change say which grants went with it.
func (v *visit) took(grants int) {
	switch grants {
	case 0:
	case 1:
		v.note = "1 grant went with it"
	default:
		v.note = fmt.Sprintf("%d grants went with it", grants)
	}
}

func project(p *directory.Project) client.Project {
	return client.Project{ID: p.ID, Name: p.Name, CreatedAt: p.Created, ETag: p.ETag()}
}

func projectOr(p *directory.Project, err error) (*out[client.Project], error) {
	if err != nil {
		return nil, err
	}
	return &out[client.Project]{project(p)}, nil
}

func folder(f *directory.Folder) client.Folder {
	return client.Folder{ID: f.ID, Project: f.Project.Name, Path: f.Path, CreatedAt: f.Created, ETag: f.ETag()}
}

// standsIn names the project and folder of something that is in one.
func standsIn(p *directory.Project, f *directory.Folder) (project, folder string) {
	if p != nil {
		project = p.Name
	}
	if f != nil {
		folder = f.Path
	}
	return project, folder
}
