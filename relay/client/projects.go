package client

import (
	"context"
	"net/http"
	"time"
)

// Project holds connections of the workspace, whatever environment each of them stands in.
type Project struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	ETag      string    `json:"etag,omitempty"` // of its state; what If-Match takes
}

// SetProject makes or renames a project.
type SetProject struct {
	Name string `json:"name"`
}

// Folder is a part of a project.
type Folder struct {
	ID        string    `json:"id"`
	Project   string    `json:"project"` // name
	Path      string    `json:"path"`    // such as reports/monthly
	CreatedAt time.Time `json:"created_at"`
	ETag      string    `json:"etag,omitempty"` // what If-Match takes
}

// NewFolder asks for a folder. Those above it must be there.
type NewFolder struct {
	Path string `json:"path"`
}

// SetPlace puts a connection into a project and a folder of it; empty: into none.
type SetPlace struct {
	Project string `json:"project,omitempty"`
	Folder  string `json:"folder,omitempty"`
}

// Projects lists the projects that the caller may see.
func (c *Client) Projects(ctx context.Context) ([]Project, error) {
	return all[Project](ctx, c, c.ws("projects"))
}

// Project gives one project by name or id.
func (c *Client) Project(ctx context.Context, name string) (Project, error) {
	var p Project
	return p, c.do(ctx, http.MethodGet, c.ws("projects", name), nil, nil, &p)
}

// CreateProject makes a project.
func (c *Client) CreateProject(ctx context.Context, s SetProject) (Project, error) {
	var p Project
	return p, c.create(ctx, c.ws("projects"), s, &p)
}

// RenameProject gives a project (name or id) another name. What stands in it and what is given on it stays.
func (c *Client) RenameProject(ctx context.Context, name string, s SetProject) (Project, error) {
	var p Project
	return p, c.do(ctx, http.MethodPut, c.ws("projects", name), nil, s, &p)
}

// DeleteProject removes an empty project with the grants on it.
func (c *Client) DeleteProject(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, c.ws("projects", name), nil, nil, nil)
}

// Folders lists the folders of a project that the caller may see.
func (c *Client) Folders(ctx context.Context, project string) ([]Folder, error) {
	return all[Folder](ctx, c, c.ws("projects", project, "folders"))
}

// CreateFolder makes a folder in a project.
func (c *Client) CreateFolder(ctx context.Context, project string, n NewFolder) (Folder, error) {
	var f Folder
	return f, c.create(ctx, c.ws("projects", project, "folders"), n, &f)
}

// DeleteFolder removes an empty folder (path or id) with the grants on it.
func (c *Client) DeleteFolder(ctx context.Context, project, folder string) error {
	return c.do(ctx, http.MethodDelete, c.ws("projects", project, "folders", folder), nil, nil, nil)
}

// MoveConnection puts a connection elsewhere. It wants the right to change it both where it stands and where it goes.
func (c *Client) MoveConnection(ctx context.Context, name string, to SetPlace) (Connection, error) {
	var k Connection
	return k, c.do(ctx, http.MethodPut, c.ws("connections", name, "place"), nil, to, &k)
}
