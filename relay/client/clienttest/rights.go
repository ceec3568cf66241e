package clienttest

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// rightsRoutes are those of roles, teams, grants and explain. There is a principal "reports"; who asks about "nobody" hears that
// there is none.
func (r *Relay) rightsRoutes(handle func(pattern string, h func(w http.ResponseWriter, q *http.Request))) {
	roles := []client.Role{{Name: "analyst", System: true, Actions: []string{"connection.query", "connections.read"}}}
	teams := []client.Team{}
	grants := []client.Grant{{ID: "gra_1", Role: "owner", Principal: "usr_1", PrincipalName: "admin", CreatedAt: Time}}
	find := func(name string) int {
		return slices.IndexFunc(roles, func(o client.Role) bool { return o.Name == name })
	}
	handle("GET /roles", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, roles) })
	handle("GET /roles/{name}", func(w http.ResponseWriter, q *http.Request) {
		if i := find(q.PathValue("name")); i >= 0 {
			answer(w, 200, roles[i])
			return
		}
		Fail(w, missing("role"))
	})
	handle("POST /roles", func(w http.ResponseWriter, q *http.Request) {
		var s client.SetRole
		_ = json.NewDecoder(q.Body).Decode(&s)
		roles = append(roles, client.Role{ID: "rol_1", Name: s.Name, Actions: s.Actions, CreatedAt: &Time, ETag: `"1"`})
		answer(w, 201, roles[len(roles)-1])
	})
	handle("PUT /roles/{name}", func(w http.ResponseWriter, q *http.Request) {
		var s client.SetRole
		_ = json.NewDecoder(q.Body).Decode(&s)
		i := find(q.PathValue("name"))
		switch {
		case i < 0:
			Fail(w, missing("role"))
		case q.Header.Get("If-Match") != "" && q.Header.Get("If-Match") != roles[i].ETag:
			Fail(w, &protocol.Error{Code: protocol.CodePrecondition, Message: "the role is another by now", Origin: protocol.OriginRelay})
		default:
			roles[i].Name, roles[i].Actions, roles[i].ETag = s.Name, s.Actions, `"2"`
			answer(w, 200, roles[i])
		}
	})
	handle("DELETE /roles/{name}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &roles, "role", func(o client.Role) bool { return o.Name == q.PathValue("name") })
	})
	handle("GET /teams", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, teams) })
	team := func(w http.ResponseWriter, q *http.Request, f func(*client.Team)) {
		for i := range teams {
			if teams[i].Name == q.PathValue("name") {
				f(&teams[i])
				return
			}
		}
		Fail(w, missing("team"))
	}
	handle("GET /teams/{name}", func(w http.ResponseWriter, q *http.Request) {
		team(w, q, func(o *client.Team) { answer(w, 200, *o) })
	})
	handle("POST /teams", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewTeam
		_ = json.NewDecoder(q.Body).Decode(&n)
		teams = append(teams, client.Team{ID: "tea_1", Name: n.Name, Members: []client.Member{}, CreatedAt: Time})
		answer(w, 201, teams[len(teams)-1])
	})
	handle("DELETE /teams/{name}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &teams, "team", func(o client.Team) bool { return o.Name == q.PathValue("name") })
	})
	handle("PUT /teams/{name}/members/{id}", func(w http.ResponseWriter, q *http.Request) {
		team(w, q, func(o *client.Team) {
			if q.PathValue("id") != "reports" {
				Fail(w, missing("principal"))
				return
			}
			o.Members = append(o.Members, client.Member{ID: "usr_2", Name: "reports", Kind: "service"})
			answer(w, 200, *o)
		})
	})
	handle("DELETE /teams/{name}/members/{id}", func(w http.ResponseWriter, q *http.Request) {
		team(w, q, func(o *client.Team) {
			drop(w, &o.Members, "member", func(m client.Member) bool { return m.Name == q.PathValue("id") })
		})
	})
	handle("GET /grants", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, grants) })
	handle("POST /grants", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewGrant
		_ = json.NewDecoder(q.Body).Decode(&n)
		if n.Principal == "nobody" {
			Fail(w, missing("principal"))
			return
		}
		g := client.Grant{ID: "gra_2", Role: n.Role, PrincipalName: n.Principal, Team: n.Team, Environment: n.Environment, Project: n.Project, Folder: n.Folder, Connection: n.Connection, Until: n.Until, From: n.From, CreatedAt: Time}
		grants = append(grants, g)
		answer(w, 201, g)
	})
	handle("DELETE /grants/{id}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &grants, "grant", func(g client.Grant) bool { return g.ID == q.PathValue("id") })
	})
	handle("DELETE ", func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Query().Get("confirm") != "default" {
			Fail(w, &protocol.Error{Code: protocol.CodeConflict, Message: "confirm does not name the workspace", Origin: protocol.OriginRelay})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	handle("POST /explain/replay", func(w http.ResponseWriter, q *http.Request) {
		answer(w, 200, client.Replay{Since: Time, Replayed: 12, Gone: 1, Flips: []client.Flip{
			{Principal: "usr_2", PrincipalName: "bob", Action: "connection.query", Connection: "sales", SourceAddress: "192.0.2.7", Recorded: true, Now: true, Reason: "no grant allows connection.query", Count: 3, LastAt: Time},
			{Principal: "usr_3", PrincipalName: "carla", Action: "connection.exec", Connection: "sales", SourceAddress: "192.0.2.8", Recorded: true, Reason: "no grant allows connection.exec", Count: 1, LastAt: Time}}})
	})
	handle("GET /explain", func(w http.ResponseWriter, q *http.Request) {
		v := q.URL.Query()
		if v.Get("principal") == "nobody" {
			Fail(w, missing("principal"))
			return
		}
		e := client.Explanation{Principal: "usr_2", PrincipalName: v.Get("principal"), Action: "connection." + v.Get("action"), Connection: v.Get("connection"), Environment: "production",
			SourceAddress: "127.0.0.1", Time: Time, Allowlisted: new(true), Near: []client.Near{}, Agent: client.AgentOffers, AgentHint: "ask there with `fairlead-agent explain`"}
		g := client.Grant{ID: "gra_3", Role: "analyst", PrincipalName: "reports", Team: "night", Connection: "sales", Until: &Time, From: []string{"192.0.2.0/24"}, CreatedAt: Time}
		if v.Get("principal") == "elsewhere" { // of a project's admin, about somebody of another
			e.Allowlisted, e.NotShown = nil, []string{"grants on what you may not look into: you lack grants.read on the workspace"}
		}
		if e.Allow = v.Get("action") == "query"; e.Allow {
			e.Reason, e.Grant = "granted on the connection", &g
		} else {
			e.Reason, e.Missing, e.Roles, e.Agent = "no grant allows "+e.Action, []string{e.Action}, []string{"operator", "admin", "owner"}, client.AgentOffersNo
			e.Near = append(e.Near, client.Near{Grant: g, Lacks: []string{"action", "time"}})
		}
		answer(w, 200, e)
	})
}
