package main

import (
	"context"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

type projectsCommands struct {
	List   projectsList   `cmd:"" help:"List the projects that you may see."`
	Show   projectsShow   `cmd:"" help:"Show one project."`
	Create projectsCreate `cmd:"" help:"Make a project, which holds connections of all environments."`
	Rename projectsRename `cmd:"" help:"Give a project another name. What stands in it and what is given on it stays."`
	Delete projectsDelete `cmd:"" help:"Delete an empty project with the grants on it."`
}

type projectsList struct{ cli.Output }

func (*projectsList) Examples() []string { return []string{"fairlead projects list"} }

func (k *projectsList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Projects(ctx)
	if err != nil {
		return err
	}
	return projectTable.list(t, k.Output, l)
}

type projectsCreate struct {
	Name string `arg:"" help:"Name of the project."`
	cli.Output
}

func (*projectsCreate) Examples() []string { return []string{"fairlead projects create sales"} }

func (k *projectsCreate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.CreateProject(ctx, client.SetProject{Name: k.Name})
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(made)
	}
	t.Notef("project %s (%s) is made; connections come into it by: fairlead connections move NAME --project %s\n", cli.Clean(made.Name), made.ID, cli.Clean(made.Name))
	return nil
}

type projectsRename struct {
	Name    string `arg:"" help:"Name or id of the project."`
	NewName string `arg:"" help:"Its new name."`
	ifMatch
	cli.Output
}

func (*projectsRename) Examples() []string { return []string{"fairlead projects rename sales shop"} }

func (k *projectsRename) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := k.on(c).RenameProject(ctx, k.Name, client.SetProject{Name: k.NewName})
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(p)
	}
	t.Notef("project %s is called %s now\n", cli.Clean(k.Name), cli.Clean(p.Name))
	return nil
}

type projectsDelete struct {
	Name string `arg:"" help:"Name or id of the project."`
	Yes  bool   `short:"y" help:"Do not ask."`
	ifMatch
}

func (*projectsDelete) Examples() []string { return []string{"fairlead projects delete sales"} }

func (k *projectsDelete) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := confirm(t, "Delete project "+cli.Clean(k.Name)+" with the grants on it?", k.Yes); err != nil {
		return err
	}
	return r.change(ctx, t, k.ifMatch, "project", k.Name, "is deleted", (*client.Client).DeleteProject)
}

type foldersCommands struct {
	List   foldersList   `cmd:"" help:"List the folders of a project that you may see."`
	Create foldersCreate `cmd:"" help:"Make a folder in a project."`
	Delete foldersDelete `cmd:"" help:"Delete an empty folder with the grants on it."`
}

type foldersList struct {
	Project string `arg:"" help:"Name or id of the project."`
	cli.Output
}

func (*foldersList) Examples() []string { return []string{"fairlead folders list sales"} }

func (k *foldersList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Folders(ctx, k.Project)
	if err != nil {
		return about(k.Project, err)
	}
	return list(t, k.Output, l, []string{"path", "created", "id"}, func(f client.Folder) []string { return []string{f.Path, stamp(f.CreatedAt), f.ID} })
}

type foldersCreate struct {
	Project string `arg:"" help:"Name or id of the project."`
	Path    string `arg:"" help:"Path of the folder, such as reports/monthly. Those above it must be there."`
	cli.Output
}

func (*foldersCreate) Examples() []string {
	return []string{"fairlead folders create sales reports", "fairlead folders create sales reports/monthly"}
}

func (k *foldersCreate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.CreateFolder(ctx, k.Project, client.NewFolder{Path: k.Path})
	if err != nil {
		return about(k.Project+"/"+k.Path, err)
	}
	if k.JSON() {
		return t.JSON(made)
	}
	t.Notef("folder %s of project %s (%s) is made\n", cli.Clean(made.Path), cli.Clean(made.Project), made.ID)
	return nil
}

type foldersDelete struct {
	Project string `arg:"" help:"Name or id of the project."`
	Path    string `arg:"" help:"Path or id of the folder."`
	Yes     bool   `short:"y" help:"Do not ask."`
	ifMatch
}

func (*foldersDelete) Examples() []string {
	return []string{"fairlead folders delete sales reports/monthly"}
}

func (k *foldersDelete) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	name := k.Project + "/" + k.Path
	if err := confirm(t, "Delete folder "+cli.Clean(name)+" with the grants on it?", k.Yes); err != nil {
		return err
	}
	return r.change(ctx, t, k.ifMatch, "folder", name, "is deleted", func(c *client.Client, ctx context.Context, _ string) error {
		return c.DeleteFolder(ctx, k.Project, k.Path)
	})
}

// placeFlags name a project and a folder of it.
type placeFlags struct {
	Project string `placeholder:"NAME" help:"Project: its name or id."`
	Folder  string `placeholder:"PATH" help:"Folder of the project: its path or id."`
}

func (k placeFlags) check() error {
	if k.Folder != "" && k.Project == "" {
		return cli.Usage("--folder is of a project: name it by --project")
	}
	return nil
}

type connectionsMove struct {
	Name string `arg:"" help:"Name or id of the connection."`
	placeFlags
	Out bool `help:"Take it out of its project."`
	ifMatch
	cli.Output
}

func (*connectionsMove) Examples() []string {
	return []string{"fairlead connections move orders --project sales --folder reports", "fairlead connections move orders --out"}
}

func (k *connectionsMove) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if (k.Project == "") != k.Out {
		return cli.Usage("want either --project, with --folder if it goes into one, or --out")
	}
	if err := k.check(); err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	moved, err := k.on(c).MoveConnection(ctx, k.Name, client.SetPlace{Project: k.Project, Folder: k.Folder})
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(moved)
	}
	where := "no project"
	if moved.Project != "" {
		where = "project " + placeName(moved.Project, moved.Folder)
	}
	t.Notef("connection %s stands in %s now\n", cli.Clean(moved.Name), cli.Clean(where))
	return nil
}

// placeName is a project and a folder of it in a word; "" for none.
func placeName(project, folder string) string { return strings.TrimSuffix(project+"/"+folder, "/") }
