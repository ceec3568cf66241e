package directory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// Role is a custom role: a named set of actions.
type Role struct {
	ID, Workspace, Name string
	Created             time.Time
	Set                 authz.Set
	Version             int64 // counts its changes

	sealed []byte
}

// Team is a named set of principals: what is given to it, each of its members holds.
type Team struct {
	ID, Workspace, Name string
	Created             time.Time
	Members             []*Principal // by name

	sealed []byte
}

// Grant is a grant with who holds it: a principal, or a team.
type Grant struct {
	authz.Grant
	Principal *Principal // nil: a team
	Team      *Team      // nil: a principal
	Created   time.Time

	row store.Grant
}

type (
	roleBody struct {
		Name    string         `json:"name"`
		Actions []authz.Action `json:"actions"`
	}
	fromBody struct {
		Prefixes []netip.Prefix `json:"prefixes"`
	}
)

// Owns tells whether the principal was given the role owner, by itself or through a team, whatever the limits.
func (p *Principal) Owns() bool {
	return slices.ContainsFunc(p.Grants, func(g authz.Grant) bool { return g.Role == authz.Owner })
}

// Role finds a custom role by name or id.
func (w *Workspace) Role(nameOrID string) (*Role, error) {
	if r := w.roles[nameOrID]; r != nil {
		return r, nil
	}
	return nil, noRole()
}

func noRole() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "no such role", Hint: "list them: fairlead roles list"}
}

// RoleName is what people call a grant's role.
func (w *Workspace) RoleName(r authz.Role) string {
	if c := w.roles[string(r)]; c != nil {
		return c.Name
	}
	return string(r)
}

// Team finds a team by name or id.
func (w *Workspace) Team(nameOrID string) (*Team, error) {
	if t := w.teams[nameOrID]; t != nil {
		return t, nil
	}
	return nil, noTeam()
}

func noTeam() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "no such team", Hint: "list them: fairlead teams list"}
}

// FindPrincipal finds a principal by id or name.
func (w *Workspace) FindPrincipal(nameOrID string) (*Principal, error) {
	if p := w.principals[nameOrID]; p != nil {
		return p, nil
	}
	for _, p := range w.Principals {
		if p.Name == nameOrID {
			return p, nil
		}
	}
	return nil, noPrincipal()
}

// Grant finds a grant by id.
func (w *Workspace) Grant(id string) (*Grant, error) {
	if g := w.grants[id]; g != nil {
		return g, nil
	}
	return nil, noGrant()
}

func noGrant() *protocol.Error { return protocol.Errorf(protocol.CodeNotFound, "no such grant") }

// Scope is where the connection stands.
func (c *Connection) Scope() authz.Scope {
	s := authz.Scope{Workspace: c.Workspace, Environment: c.Environment, Connection: c.ID}
	if c.Project != nil {
		s.Project = c.Project.ID
	}
	if c.Folder != nil {
		s.Folder = c.Folder.ids
	}
	return s
}

// scope completes the scope of a grant: what a connection or a folder stands in belongs to it.
func (w *Workspace) scope(g authz.Grant) authz.Scope {
	if c := w.connections[g.Connection]; c != nil {
		return c.Scope()
	}
	if f := w.folders[g.Folder]; f != nil && f.Project.ID == g.Project {
		return f.Scope(g.Environment)
	}
	return g.Scope()
}

// ScopeOf is what a grant of this workspace is given on, whole.
func (w *Workspace) ScopeOf(g *Grant) authz.Scope { return w.scope(g.Grant) }

// grantTag binds every column of a grant under the workspace's key. One without the columns that came later is bound as it
// always was.
func grantTag(v *vault.Vault, g store.Grant) ([]byte, error) {
	parts := []string{g.ID, g.Principal, g.Role, g.Connection}
	if g.Team != "" || g.Environment != "" || g.Until != 0 || g.Sealed != nil || g.Project != "" || g.Folder != "" {
		parts = append(parts, g.Team, g.Environment, fmt.Sprint(g.Until), fmt.Sprintf("%x", g.Sealed))
	}
	if g.Project != "" || g.Folder != "" {
		parts = append(parts, g.Project, g.Folder)
	}
	d, err := v.Digest(g.Workspace, vault.Grant, strings.Join(parts, "\n"))
	return d[:], err
}

func memberTag(v *vault.Vault, m store.Member) ([]byte, error) {
	d, err := v.Digest(m.Workspace, vault.TeamMember, m.Team+"\n"+m.Principal)
	return d[:], err
}

// addRoles opens custom roles and teams. It comes before addPrincipals.
func (s *Snapshot) addRoles(v *vault.Vault, st *store.State, prev *Snapshot) error {
	for _, r := range st.Roles {
		w, err := s.in("role", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		c := prev.before(r.Workspace).roles[r.ID]
		if c == nil || !bytes.Equal(c.sealed, r.Sealed) {
			var body roleBody
			if err := open(v, place(r.Workspace, "roles", r.ID, r.Version), r.Sealed, &body); err != nil {
				return err
			}
			c = &Role{ID: r.ID, Workspace: r.Workspace, Name: body.Name, Created: fromMs(r.Created), Version: r.Version, sealed: r.Sealed}
			for _, a := range body.Actions {
				one, _ := authz.NewSet(a) // what this release does not know, it gives to nobody
				c.Set = c.Set.Or(one)
			}
		}
		w.Roles = append(w.Roles, c)
		w.roles[c.ID], w.roles[c.Name] = c, c
	}
	for _, r := range st.Teams {
		w, err := s.in("team", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		t := &Team{ID: r.ID, Workspace: r.Workspace, Created: fromMs(r.Created), sealed: r.Sealed}
		if old := prev.before(r.Workspace).teams[r.ID]; old != nil && bytes.Equal(old.sealed, r.Sealed) {
			t.Name = old.Name
		} else {
			var body nameBody
			if err := open(v, place(r.Workspace, "teams", r.ID, r.Version), r.Sealed, &body); err != nil {
				return err
			}
			t.Name = body.Name
		}
		w.Teams = append(w.Teams, t)
		w.teams[t.ID], w.teams[t.Name] = t, t
	}
	return nil
}

// same tells whether a row is the one that was checked and opened before.
func same(a, b store.Grant) bool {
	return a.ID == b.ID && a.Workspace == b.Workspace && a.Principal == b.Principal && a.Team == b.Team && a.Role == b.Role &&
		a.Environment == b.Environment && a.Project == b.Project && a.Folder == b.Folder && a.Connection == b.Connection && a.Until == b.Until && bytes.Equal(a.Sealed, b.Sealed) && bytes.Equal(a.Tag, b.Tag)
}

// grant checks and opens one row.
func (s *Snapshot) grant(v *vault.Vault, r store.Grant, prev *Snapshot) (*Grant, error) {
	w, err := s.in("grant", r.ID, r.Workspace)
	if err != nil {
		return nil, err
	}
	g := &Grant{row: r, Created: fromMs(r.Created), Grant: authz.Grant{ID: r.ID, Role: authz.Role(r.Role), Workspace: r.Workspace,
		Environment: authz.Environment(r.Environment), Project: r.Project, Folder: r.Folder, Connection: r.Connection, Team: r.Team, Until: fromMs(r.Until)}}
	if c := w.roles[r.Role]; c != nil && c.ID == r.Role {
		g.Custom = c.Set
	}
	if old := prev.before(r.Workspace).grants[r.ID]; old != nil && same(old.row, r) {
		g.From = old.From
		return g, nil
	}
	want, err := grantTag(v, r)
	if err != nil {
		return nil, fmt.Errorf("check grant %s: %w", r.ID, err)
	}
	if !bytes.Equal(want, r.Tag) {
		return nil, fmt.Errorf("grant %s was not written by a relay of this installation", r.ID)
	}
	if r.Sealed != nil {
		var body fromBody
		if err := open(v, place(r.Workspace, "grants", r.ID, 1), r.Sealed, &body); err != nil {
			return nil, err
		}
		if g.From = body.Prefixes; len(g.From) == 0 {
			return nil, fmt.Errorf("grant %s is bound to no network", r.ID)
		}
	}
	return g, nil
}

func (s *Snapshot) addPrincipals(v *vault.Vault, st *store.State, prev *Snapshot) error {
	own, ofTeam := map[string][]*Grant{}, map[string][]*Grant{}
	for _, r := range st.Grants {
		g, err := s.grant(v, r, prev)
		if err != nil {
			return err
		}
		w := s.byID[r.Workspace]
		w.Grants = append(w.Grants, g)
		w.grants[g.ID] = g
		if r.Team != "" {
			g.Team = w.teams[r.Team]
			ofTeam[r.Team] = append(ofTeam[r.Team], g)
		} else {
			own[r.Principal] = append(own[r.Principal], g)
		}
	}
	teams := map[string][]string{}
	for _, r := range st.Members {
		want, err := memberTag(v, r)
		if err != nil {
			return fmt.Errorf("check a member of team %s: %w", r.Team, err)
		}
		if !bytes.Equal(want, r.Tag) {
			return fmt.Errorf("a member of team %s was not written by a relay of this installation", r.Team)
		}
		teams[r.Principal] = append(teams[r.Principal], r.Team)
	}
	for _, r := range st.Principals {
		w, err := s.in("principal", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		var grants []authz.Grant
		for _, g := range own[r.ID] {
			grants = append(grants, g.Grant)
		}
		for _, team := range teams[r.ID] {
			for _, g := range ofTeam[team] {
				grants = append(grants, g.Grant)
			}
		}
		p := prev.before(r.Workspace).principals[r.ID]
		disabled := r.State != stateActive
		if p == nil || !bytes.Equal(p.sealed, r.Sealed) || p.Disabled != disabled || !slices.EqualFunc(p.Grants, grants, authz.Grant.Equal) {
			var body nameBody
			if err := open(v, place(r.Workspace, "principals", r.ID, r.Version), r.Sealed, &body); err != nil {
				return err
			}
			p = &Principal{Created: fromMs(r.Created), Disabled: disabled, Grants: grants, sealed: r.Sealed,
				Principal: authz.NewPrincipal(r.ID, r.Workspace, body.Name, authz.Kind(r.Kind), grants)}
		}
		w.Principals = append(w.Principals, p)
		w.principals[p.ID] = p
		for _, g := range own[r.ID] {
			g.Principal = p
		}
		for _, team := range teams[r.ID] {
			if t := w.teams[team]; t != nil {
				t.Members = append(t.Members, p)
			}
		}
	}
	return nil
}

// sortRights puts lists in their order.
func (w *Workspace) sortRights() {
	slices.SortFunc(w.Roles, func(a, b *Role) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(w.Teams, func(a, b *Team) int { return cmp.Compare(a.Name, b.Name) })
	for _, t := range w.Teams {
		slices.SortFunc(t.Members, func(a, b *Principal) int { return cmp.Compare(a.Name, b.Name) })
	}
	slices.SortFunc(w.Grants, func(a, b *Grant) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
}

// ownersMade names the setting that says that owners were looked for.
const ownersMade = "owners made"

// adoptOwners makes owners, once, in an installation of a release that had none: in each workspace without one, the first
// person that init made, if it still is an admin without limits. Where it cannot be known, nobody becomes one: admins go on as
// they are, and `fairlead-relay token --owner` makes an owner on the relay's own machine.
func (d *Directory) adoptOwners(ctx context.Context) error {
	if _, err := d.Setting(ctx, "", ownersMade); err == nil {
		return nil
	}
	return d.change(ctx, func(tx *store.Tx) error {
		if _, err := tx.Setting("", ownersMade); err == nil {
			return nil // another process was faster
		}
		for _, w := range d.Snapshot().workspaces {
			if p := w.founder(); p != nil {
				if err := d.insertGrant(tx, store.Grant{Workspace: w.ID, Principal: p.ID, Role: string(authz.Owner), Created: toMs(now())}, nil); err != nil {
					return err
				}
			}
		}
		return d.noteOwners(tx)
	})
}

// founder is who becomes the owner of a workspace of a release without owners, nil if that is not known.
func (w *Workspace) founder() (first *Principal) {
	for _, p := range w.Principals {
		plain := func(g authz.Grant) bool {
			return g.Role == authz.Admin && g.Environment == "" && g.Project == "" && g.Connection == "" && g.Until.IsZero() && len(g.From) == 0
		}
		if p.Kind == authz.User && !p.Disabled && slices.ContainsFunc(p.Grants, plain) && (first == nil || p.Created.Before(first.Created)) {
			first = p
		}
	}
	return first
}

func (d *Directory) noteOwners(tx *store.Tx) error {
	sealed, err := d.vault.Seal(place("", "settings", ownersMade, 1), []byte("1"))
	if err != nil {
		return err
	}
	return tx.PutSetting(store.Setting{Name: ownersMade, Version: 1, Sealed: sealed})
}
