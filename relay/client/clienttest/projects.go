package clienttest

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// projectRoutes are those of projects, folders and places. There are none at first.
func (r *Relay) projectRoutes(handle func(pattern string, h func(w http.ResponseWriter, q *http.Request))) {
	projects, folders := []client.Project{}, []client.Folder{}
	find := func(w http.ResponseWriter, q *http.Request) *client.Project {
		if i := slices.IndexFunc(projects, func(p client.Project) bool { return p.Name == q.PathValue("name") || p.ID == q.PathValue("name") }); i >= 0 {
			return &projects[i]
		}
		Fail(w, missing("project"))
		return nil
	}
	handle("GET /projects", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, projects) })
	handle("POST /projects", func(w http.ResponseWriter, q *http.Request) {
		var s client.SetProject
		_ = json.NewDecoder(q.Body).Decode(&s)
		projects = append(projects, client.Project{ID: "prj_1", Name: s.Name, CreatedAt: Time, ETag: `"1"`})
		answer(w, 201, projects[len(projects)-1])
	})
	handle("GET /projects/{name}", func(w http.ResponseWriter, q *http.Request) {
		if p := find(w, q); p != nil {
			answer(w, 200, *p)
		}
	})
	handle("PUT /projects/{name}", func(w http.ResponseWriter, q *http.Request) {
		var s client.SetProject
		_ = json.NewDecoder(q.Body).Decode(&s)
		if p := find(w, q); p != nil {
			p.Name = s.Name
			answer(w, 200, *p)
		}
	})
	handle("DELETE /projects/{name}", func(w http.ResponseWriter, q *http.Request) {
		if len(folders) > 0 {
			Fail(w, &protocol.Error{Code: protocol.CodeConflict, Message: "the project holds 0 connections and 1 folders", Origin: protocol.OriginRelay})
			return
		}
		drop(w, &projects, "project", func(p client.Project) bool { return p.Name == q.PathValue("name") })
	})
	handle("GET /projects/{name}/folders", func(w http.ResponseWriter, q *http.Request) {
		if p := find(w, q); p != nil {
			page(r, w, q, folders)
		}
	})
	handle("POST /projects/{name}/folders", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewFolder
		_ = json.NewDecoder(q.Body).Decode(&n)
		if p := find(w, q); p != nil {
			folders = append(folders, client.Folder{ID: "fol_1", Project: p.Name, Path: n.Path, CreatedAt: Time})
			answer(w, 201, folders[len(folders)-1])
		}
	})
	handle("DELETE /projects/{name}/folders/{id}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &folders, "folder", func(f client.Folder) bool { return f.Path == q.PathValue("id") })
	})
	handle("PUT /connections/{name}/place", func(w http.ResponseWriter, q *http.Request) {
		var s client.SetPlace
		_ = json.NewDecoder(q.Body).Decode(&s)
		for i := range r.Connections {
			if c := &r.Connections[i]; c.Name == q.PathValue("name") {
				c.Project, c.Folder = s.Project, s.Folder
				answer(w, 200, *c)
				return
			}
		}
		Fail(w, missing("connection"))
	})
}
