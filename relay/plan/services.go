package plan

import (
	"context"
	"strings"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// service is what a file says of a service account: its rights stand under grants, and its tokens nowhere.
type service struct {
	Disabled bool `yaml:"disabled"`
}

// lookAtServices reads the service accounts, and whom else roles can be given to: who made the relay is neither a user of the list nor a
// service account, and seen by its token alone. Who may not list one of the two plans what else there is, and learns at the step itself
// that somebody is not there.
func (s *state) lookAtServices(ctx context.Context, c *client.Client, wanted bool) (err error) {
	if s.services, err = c.ServiceAccounts(ctx); err != nil && (wanted || client.CodeOf(err) != protocol.CodeDenied) {
		return err
	}
	tokens, unseen := c.Tokens(ctx)
	if unseen != nil && client.CodeOf(unseen) != protocol.CodeDenied {
		return unseen
	}
	s.hidden = err != nil || unseen != nil
	s.principals = map[string]bool{}
	for _, t := range tokens {
		s.principals[t.PrincipalName] = true // a token's own name is nobody's
	}
	for _, a := range s.services {
		s.principals[a.Name] = true
	}
	for _, u := range s.users {
		s.principals[u.Name] = true
	}
	for _, t := range s.teams {
		for _, m := range t.Members {
			s.principals[m.Name] = true
		}
	}
	for _, g := range s.grants {
		s.principals[g.PrincipalName] = true
	}
	return nil
}

// checkServices finds a name that is to be both a person's and a program's.
func (w *Wanted) checkServices() {
	for name, a := range w.services {
		if u, ok := w.users[name]; ok {
			w.fault(a.fault("a user of this name stands in "+u.doc.File(), "a name is one principal's: choose another for one of the two"))
		}
	}
}

func (m *maker) serviceAccounts() {
	if !m.has("service_accounts") {
		return
	}
	there := byName(m.s.services, func(a client.ServiceAccount) string { return a.Name })
	for _, name := range names(m.w.services) {
		want := m.w.services[name].is
		is, ok := there[name]
		if !ok {
			var detail []string
			if want.Disabled {
				detail = []string{"disabled"}
			}
			m.step(Create, "service account", name, detail, func(ctx context.Context, r *run) error {
				made, err := r.c.CreateServiceAccount(ctx, client.NewServiceAccount{Name: name})
				if err == nil && want.Disabled {
					err = r.c.DisableServiceAccount(ctx, made.ID)
				}
				return err
			})
			continue
		}
		if is.Disabled == want.Disabled {
			m.Unchanged++
			continue
		}
		detail, do := "enabled", (*client.Client).EnableServiceAccount
		if want.Disabled {
			detail, do = "disabled", (*client.Client).DisableServiceAccount
		}
		m.step(Change, "service account", name, []string{detail}, func(ctx context.Context, r *run) error { return do(r.c.If(is.ETag), ctx, is.ID) })
	}
	for _, is := range m.s.services {
		if _, ok := m.w.services[is.Name]; ok {
			continue
		}
		if is.ID == m.s.me.Principal { // no program removes itself by a name that a file lacks
			m.Left = append(m.Left, "service account "+is.Name+" (you)")
			continue
		}
		m.drop(&m.dropServices, "service account", is.Name, func(ctx context.Context, r *run) error { return r.c.If(is.ETag).DeleteServiceAccount(ctx, is.ID) })
	}
}

// checkDomain brings a name into the form that the relay keeps, or finds that it is not in it.
func (w *Wanted) checkDomain(name string, at where) {
	if form := strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), ".")); form != name {
		w.fault(at.fault("a domain has small letters only, and no dot at its end", "write "+form))
	}
	if was, ok := w.domains[name]; ok {
		w.fault(at.fault("stands as "+was.path+" in "+was.doc.File()+", too", "name it once"))
	}
	w.domains[name] = at
}

// addDomains takes a section of domains to those of files before.
func (w *Wanted) addDomains(list []string, top where) {
	for i, name := range list {
		w.checkDomain(name, where{top.doc, config.Index(top.path, i)})
	}
}

// ownDomains are made and taken away among the last: callers come by them.
func (m *maker) ownDomains() {
	if !m.has("domains") {
		return
	}
	there := byName(m.s.domains, func(d client.Domain) string { return d.Name })
	for _, name := range names(m.w.domains) {
		if _, ok := there[name]; ok {
			m.Unchanged++
			continue
		}
		m.step(Create, "domain", name, nil, func(ctx context.Context, r *run) error {
			_, err := r.c.CreateDomain(ctx, name)
			return err
		})
	}
	for _, is := range m.s.domains {
		if _, ok := m.w.domains[is.Name]; !ok {
			m.drop(&m.Steps, "domain", is.Name, func(ctx context.Context, r *run) error { return r.c.If(is.ETag).DeleteDomain(ctx, is.ID) })
		}
	}
}
