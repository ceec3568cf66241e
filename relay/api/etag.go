package api

import (
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// A thing is what a route changes: of tells its entity tag as a state has it. w is nil for a person's own account.
type thing struct {
	below string // what the route's path begins with
	of    func(s *directory.Snapshot, w *directory.Workspace, v *visit, param func(string) string) (string, error)
}

func inside[T any](find func(w *directory.Workspace, name string) (T, error), param string, tag func(w *directory.Workspace, t T) string) func(*directory.Snapshot, *directory.Workspace, *visit, func(string) string) (string, error) {
	return func(_ *directory.Snapshot, w *directory.Workspace, _ *visit, of func(string) string) (string, error) {
		t, err := find(w, of(param))
		if err != nil {
			return "", err
		}
		return tag(w, t), nil
	}
}

func whole(tag func(*directory.Workspace) string) func(*directory.Snapshot, *directory.Workspace, *visit, func(string) string) (string, error) {
	return func(_ *directory.Snapshot, w *directory.Workspace, _ *visit, _ func(string) string) (string, error) {
		return tag(w), nil
	}
}

func joinToken(w *directory.Workspace, id string) (directory.JoinToken, error) {
	for _, t := range w.JoinTokens {
		if t.ID == id {
			return t, nil
		}
	}
	return directory.JoinToken{}, protocol.Errorf(protocol.CodeNotFound, "no such join token")
}

func apiToken(w *directory.Workspace, id string) (*directory.Token, error) {
	for _, t := range w.Tokens {
		if t.ID == id {
			return t, nil
		}
	}
	return nil, protocol.Errorf(protocol.CodeNotFound, "no such token")
}

func session(w *directory.Workspace, id string) (*directory.Session, error) {
	for _, t := range w.Sessions {
		if t.ID == id {
			return t, nil
		}
	}
	return nil, protocol.Errorf(protocol.CodeNotFound, "no such session")
}

// things are what can be changed on a condition, the longest path first. A test holds every route that changes something to it.
func things() []thing {
	const ws = "/workspaces/{workspace}"
	person := func(s *directory.Snapshot, _ *directory.Workspace, v *visit, _ func(string) string) (string, error) {
		if t := s.Session(v.session.ID); t != nil {
			return t.Person.ETag(), nil
		}
		return "", unauthenticated()
	}
	return []thing{
		{ws + "/agents/{id}", inside((*directory.Workspace).Agent, "id", func(_ *directory.Workspace, a *directory.Agent) string { return a.ETag() })},
		{ws + "/groups/{name}", inside((*directory.Workspace).Group, "name", func(_ *directory.Workspace, g *directory.Group) string { return g.ETag() })},
		{ws + "/join-tokens/{id}", inside(joinToken, "id", func(_ *directory.Workspace, t directory.JoinToken) string { return t.ETag() })},
		{ws + "/projects/{name}/folders/{id}", func(_ *directory.Snapshot, w *directory.Workspace, _ *visit, param func(string) string) (string, error) {
			p, err := w.Project(param("name"))
			if err != nil {
				return "", err
			}
			f, err := p.Folder(param("id"))
			if err != nil {
				return "", err
			}
			return f.ETag(), nil
		}},
		{ws + "/projects/{name}", inside((*directory.Workspace).Project, "name", func(_ *directory.Workspace, p *directory.Project) string { return p.ETag() })},
		{ws + "/connections/{name}/budget", inside((*directory.Workspace).Connection, "name", func(_ *directory.Workspace, c *directory.Connection) string { return c.BudgetETag() })},
		{ws + "/connections/{name}", inside((*directory.Workspace).Connection, "name", func(_ *directory.Workspace, c *directory.Connection) string { return c.ETag() })},
		{ws + "/budget", whole((*directory.Workspace).BudgetETag)},
		{ws + "/tokens/{id}", inside(apiToken, "id", func(_ *directory.Workspace, t *directory.Token) string { return t.ETag() })},
		{ws + "/allowlist", whole((*directory.Workspace).AllowlistETag)},
		{ws + "/roles/{name}", inside((*directory.Workspace).Role, "name", func(_ *directory.Workspace, r *directory.Role) string { return r.ETag() })},
		{ws + "/teams/{name}", inside((*directory.Workspace).Team, "name", func(_ *directory.Workspace, t *directory.Team) string { return t.ETag() })},
		{ws + "/grants/{id}", inside((*directory.Workspace).Grant, "id", func(_ *directory.Workspace, g *directory.Grant) string { return g.ETag() })},
		{ws + "/users/{id}", func(_ *directory.Snapshot, w *directory.Workspace, _ *visit, param func(string) string) (string, error) {
			p, _, err := userOf(w, param("id"))
			if err != nil {
				return "", err
			}
			return w.UserETag(p), nil
		}},
		{ws + "/domains/{name}", inside((*directory.Workspace).Domain, "name", func(_ *directory.Workspace, d *directory.Domain) string { return d.ETag() })},
		{ws + "/service-accounts/{name}", inside((*directory.Workspace).Service, "name", (*directory.Workspace).ServiceETag)},
		{ws + "/sessions/{id}", inside(session, "id", func(_ *directory.Workspace, t *directory.Session) string { return t.ETag() })},
		{ws + "/sign-in-policy", whole((*directory.Workspace).SignInETag)},
		{ws, whole((*directory.Workspace).ETag)},
		{"/account/sessions/{id}", func(s *directory.Snapshot, _ *directory.Workspace, _ *visit, param func(string) string) (string, error) {
			if t := s.Session(param("id")); t != nil {
				return t.ETag(), nil
			}
			return "", protocol.Errorf(protocol.CodeNotFound, "no such session")
		}},
		{"/account/tokens/{id}", func(s *directory.Snapshot, _ *directory.Workspace, v *visit, param func(string) string) (string, error) {
			if w, err := s.Workspace(v.workspace.ID); err == nil {
				if t, err := apiToken(w, param("id")); err == nil && t.Principal.ID == v.principal.ID {
					return t.ETag(), nil
				}
			}
			return "", protocol.Errorf(protocol.CodeNotFound, "no such token")
		}},
		{"/account/passkeys/{id}", func(s *directory.Snapshot, _ *directory.Workspace, v *visit, param func(string) string) (string, error) {
			if p := s.Person(v.session.Person.ID); p != nil {
				for _, k := range p.Passkeys {
					if k.ID == param("id") {
						return k.ETag(), nil
					}
				}
			}
			return "", protocol.Errorf(protocol.CodeNotFound, "no such passkey")
		}},
		{"/account", person}, {"/sign-out", person},
	}
}

// changedBy finds what a route changes; nil for one that changes nothing that is there. What is made in a list is none.
func (a *API) changedBy(method, path string) *thing {
	if safe(method) {
		return nil
	}
	for i, t := range a.things {
		if path == t.below || strings.HasPrefix(path, t.below+"/") && strings.Contains(t.below, "}/") || strings.HasPrefix(path, t.below+"/") && t.below == "/account" {
			return &a.things[i]
		}
	}
	return nil
}

// condition has a change made only if what it changes is still what If-Match names (RFC 9110, 13.1.1). The directory judges it in
// the transaction of the change.
func (a *API) condition(method, path string) func(huma.Context, func(huma.Context)) {
	changed := a.changedBy(method, path)
	return func(hc huma.Context, next func(huma.Context)) {
		r, _ := humago.Unwrap(hc)
		values := r.Header.Values("If-Match")
		v, _ := hc.Context().Value(keyVisit).(*visit)
		if len(values) == 0 || safe(method) || v == nil {
			next(hc)
			return
		}
		list := strings.Join(values, ",")
		c := &directory.Change{If: func(s *directory.Snapshot) error {
			if strings.TrimSpace(list) == "*" {
				return nil // what is not there, the change itself has refused
			}
			tag := ""
			if changed != nil {
				var w *directory.Workspace
				err := error(nil)
				if strings.HasPrefix(path, "/workspaces/") {
					w, err = s.Workspace(v.workspace.ID)
				}
				if err == nil {
					tag, err = changed.of(s, w, v, hc.Param)
				}
				if err != nil {
					return err
				}
			}
			if !strongly(list, tag) {
				return changedMeanwhile()
			}
			return nil
		}}
		next(huma.WithContext(hc, directory.WithChange(hc.Context(), c)))
	}
}

func changedMeanwhile() *protocol.Error {
	return &protocol.Error{Code: protocol.CodePrecondition, Origin: protocol.OriginRelay, Rule: "if_match", Message: "it is not what If-Match names: somebody changed it, and nothing was done",
		Hint: "read it again, look at what is new, and send its ETag"}
}

// strongly compares entity tags as If-Match wants it: a weak one is never the same.
func strongly(list, tag string) bool {
	for one := range strings.SplitSeq(list, ",") { // our tags hold no comma
		if strings.TrimSpace(one) == tag && tag != "" {
			return true
		}
	}
	return false
}

// tagOut copies the tag of an answer's body to where HTTP has it.
func tagOut(h http.Header, o any) {
	v := reflect.ValueOf(o)
	if v.Kind() != reflect.Pointer || v.IsNil() || h == nil {
		return
	}
	body := reflect.Indirect(v).FieldByName("Body")
	if !body.IsValid() || body.Kind() != reflect.Struct {
		return
	}
	if f := body.FieldByName("ETag"); f.IsValid() && f.Kind() == reflect.String && f.String() != "" {
		h.Set("ETag", f.String())
	}
}
