package api

import (
	"context"
	"fmt"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
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
		return projectOr(v.workspace.SeenProject(v.principal, v.at(), i.Name))
	})
	route(a, "POST", ws+"/projects", authz.ProjectsCreate, "Create a project", 201, func(ctx context.Context, v *visit, i *in[client.SetProject]) (*out[client.Project], error) {
		p, err := a.cfg.Directory.CreateProject(ctx, v.by(), v.workspace.ID, i.Body.Name)
		return projectOr(p, a.recorded(ctx, v, err))
	})
	route(a, "PUT", ws+"/projects/{name}", authz.ProjectsEdit, "Rename a project; what stands in it and what is given on it stays", 200, func(ctx context.Context, v *visit, i *inNamed[client.SetProject]) (*out[client.Project], error) {
		p, err := a.cfg.Directory.RenameProject(ctx, v.by(), v.workspace.ID, i.Name, i.Body.Name)
		return projectOr(p, a.recorded(ctx, v, err))
	})
	route(a, "DELETE", ws+"/projects/{name}", authz.ProjectsDelete, "Delete an empty project with the grants on it; what they no longer allow is cut", 204, func(ctx context.Context, v *visit, i *inName) (*none, error) {
		grants, err := a.cfg.Directory.DeleteProject(ctx, v.by(), v.workspace.ID, i.Name)
		v.took(grants)
		return nil, a.recorded(ctx, v, err)
	})

	route(a, "GET", ws+"/projects/{name}/folders", authz.ProjectsRead, "List the folders of a project that the caller may see", 200, func(_ context.Context, v *visit, i *inName) (*out[client.List[client.Folder]], error) {
		p, err := v.workspace.SeenProject(v.principal, v.at(), i.Name)
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
	route(a, "POST", ws+"/projects/{name}/folders", authz.ProjectsCreate, "Create a folder in a project, or in a folder of it that is there", 201, func(ctx context.Context, v *visit, i *inNamed[client.NewFolder]) (*out[client.Folder], error) {
		f, err := a.cfg.Directory.CreateFolder(ctx, v.by(), v.workspace.ID, i.Name, i.Body.Path)
		if err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		return &out[client.Folder]{folder(f)}, nil
	})
	route(a, "DELETE", ws+"/projects/{name}/folders/{id}", authz.ProjectsDelete, "Delete an empty folder with the grants on it; what they no longer allow is cut", 204, func(ctx context.Context, v *visit, i *inFolder) (*none, error) {
		grants, err := a.cfg.Directory.DeleteFolder(ctx, v.by(), v.workspace.ID, i.Name, i.ID)
		v.took(grants)
		return nil, a.recorded(ctx, v, err)
	})

	route(a, "PUT", ws+"/connections/{name}/place", authz.ConnectionsEdit, "Move a connection to another project or folder, or out of any; what its old place allowed is cut", 200, func(ctx context.Context, v *visit, i *inNamed[client.SetPlace]) (*out[client.Connection], error) {
		c, err := a.cfg.Directory.MoveConnection(ctx, v.by(), v.workspace.ID, i.Name, directory.Place{Project: i.Body.Project, Folder: i.Body.Folder})
		if err != nil {
			return nil, a.recorded(ctx, v, err)
		}
		return &out[client.Connection]{a.connection(v, c)}, nil
	})
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

// stands names the project and folder of something that is in one, to who may see them.
func (v *visit) stands(p *directory.Project, f *directory.Folder) (project, folder string) {
	if p == nil || !p.Sees(v.principal, v.at()) {
		return "", ""
	}
	if f != nil && f.Sees(v.principal, v.at()) {
		folder = f.Path
	}
	return p.Name, folder
}
