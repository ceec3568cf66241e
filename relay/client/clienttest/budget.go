package clienttest

import (
	"encoding/json"
	"net/http"

	"github.com/fairleadhq/fairlead/relay/client"
)

// budgetRoutes are those of the workspace's budget and of connections'.
func (r *Relay) budgetRoutes(handle func(pattern string, h func(w http.ResponseWriter, q *http.Request))) {
	set := map[string]client.Limits{}
	known := func(w http.ResponseWriter, name string) bool {
		for i := range r.Connections {
			if r.Connections[i].Name == name {
				return true
			}
		}
		if name != "" {
			Fail(w, missing("connection"))
		}
		return name == ""
	}
	for _, path := range []string{"/budget", "/connections/{name}/budget"} {
		handle("GET "+path, func(w http.ResponseWriter, q *http.Request) {
			if l := set[q.PathValue("name")]; known(w, q.PathValue("name")) {
				answer(w, 200, client.Budget{Set: l, InForce: l})
			}
		})
		handle("PUT "+path, func(w http.ResponseWriter, q *http.Request) {
			var l client.Limits
			_ = json.NewDecoder(q.Body).Decode(&l)
			if known(w, q.PathValue("name")) {
				set[q.PathValue("name")] = l
				answer(w, 200, client.Budget{Set: l, InForce: l})
			}
		})
	}
}
