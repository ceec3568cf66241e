package directory

import (
	"context"
	"errors"
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

// Limits of rights.
const (
	MaxGrants    = 50_000 // of a workspace
	MaxGrantFrom = 100    // networks of a grant
	MaxRoles     = 1_000  // custom roles of a workspace
	MaxTeams     = 1_000  // of a workspace
)

// By is who asks for a change of rights (a principal's id), when and from where, and by which token if by one: the limits of its
// own rights count, and those of the token. What it holds is looked up when the change is made.
type By struct {
	ID    string
	At    authz.At
	Token string // id of the API token or session; empty: none
}

// NewGrant says what to give, and to whom: a principal or a team, by name or id.
type NewGrant struct {
	Principal, Team string
	Role            string // a system role, or a custom role by name or id
	// Environment, or In, or both, or Connection; none of them: the whole workspace.
	Environment authz.Environment
	In          Place
	Connection  string         // name or id
	Until       time.Time      // zero: without end
	From        []netip.Prefix // empty: from everywhere
}

// judged is change for what depends on how things stand: f decides on the very state that it changes.
func (d *Directory) judged(ctx context.Context, workspace string, f func(tx *store.Tx, w *Workspace) error) error {
	return d.judgedIn(ctx, workspace, func(tx *store.Tx, _ *Snapshot, w *Workspace) error { return f(tx, w) })
}

func (d *Directory) judgedIn(ctx context.Context, workspace string, f func(tx *store.Tx, s *Snapshot, w *Workspace) error) error {
	select {
	case <-d.judging:
		defer func() { d.judging <- struct{}{} }()
	case <-ctx.Done():
		return fail(ctx.Err())
	}
	for range 10 {
		var generation int64
		err := d.change(ctx, func(tx *store.Tx) (err error) {
			s := d.Snapshot()
			if generation, err = tx.Generation(); err != nil {
				return err
			}
			if s.Generation != generation {
				return errBehind
			}
			w, err := s.Workspace(workspace)
			if err != nil {
				return err
			}
			return f(tx, s, w)
		})
		if !errors.Is(err, errBehind) {
			return err
		}
		if err := d.reload(ctx, generation); err != nil {
			return fail(err)
		}
	}
	return tooFast()
}

func tooFast() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeUnavailable, Message: "the state changes too fast", Hint: "try again shortly"}
}

// asker is who asks, as it stands now.
func (w *Workspace) asker(by By) (authz.Principal, error) {
	p := w.Principal(by.ID)
	if p == nil || p.Disabled {
		return authz.Principal{}, protocol.Errorf(protocol.CodeDenied, "the principal who asks is not known or disabled")
	}
	if !strings.HasPrefix(by.Token, tokenID+"_") { // a session limits nothing
		return p.Principal, nil
	}
	for _, t := range w.Tokens {
		if t.ID == by.Token && t.Principal == p && t.Live(time.Now()) {
			return t.Acting(), nil
		}
	}
	return authz.Principal{}, protocol.Errorf(protocol.CodeDenied, "the token that asks is revoked or expired")
}

// mayGive refuses what by may not give.
func (w *Workspace) mayGive(by By, via authz.Action, grants ...authz.Grant) error {
	p, err := w.asker(by)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if !authz.MayGive(p, g, w.scope(g), via, by.At) {
			return mayNotGive()
		}
	}
	return nil
}

func mayNotGive() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Message: "you cannot give a role that you do not hold yourself, or for longer or from more networks than you hold it",
		Hint: "ask an admin of the workspace; the role owner, an owner"}
}

// mayTake refuses to take the role owner from somebody, unless by is one.
func (w *Workspace) mayTake(by By, owner bool) error {
	p, err := w.asker(by)
	if err != nil {
		return err
	}
	if owner && !authz.Decide(p, authz.WorkspaceOwn, authz.Scope{Workspace: w.ID}, by.At).Allow {
		return &protocol.Error{Code: protocol.CodeDenied, Message: "this is an owner's, and only owners may change it", Hint: "ask an owner of the workspace"}
	}
	return nil
}

// CreateGrant gives a role. by may give no more than it holds itself (denied).
func (d *Directory) CreateGrant(ctx context.Context, by By, workspace string, n NewGrant) (*Grant, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, err
	}
	id, at := NewID("gra"), now()
	n.Until = n.Until.Truncate(time.Millisecond)
	if err := n.check(at); err != nil {
		return nil, err
	}
	err = d.judged(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		g, principal, err := w.grantedBy(by, id, n)
		if err != nil {
			return err
		}
		row := store.Grant{ID: id, Workspace: w.ID, Principal: principal, Team: g.Team, Environment: string(g.Environment), Project: g.Project, Folder: g.Folder,
			Until: toMs(g.Until), Created: toMs(at)}
		// What has been over for a month tells nobody anything.
		if err := tx.DeleteOldGrants(w.ID, toMs(at.AddDate(0, -1, 0))); err != nil {
			return err
		}
		if count, err := tx.CountGrants(w.ID, ""); err != nil || count >= MaxGrants {
			return cmpErr(err, &protocol.Error{Code: protocol.CodeTooLarge, Message: "the workspace has too many grants", Hint: "give roles to teams, or delete grants"})
		}
		row.Role, row.Connection = string(g.Role), g.Connection
		return as(d.insertGrant(tx, row, n.From), protocol.Errorf(protocol.CodeNotFound, "no such principal, team, project or connection"), nil)
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(w.ID).Grant(id)
}

// check looks at the form of a grant.
func (n NewGrant) check(at time.Time) error {
	switch {
	case (n.Principal == "") == (n.Team == ""):
		return invalid("a grant is for a principal or for a team", "give one of them")
	case n.Environment != "" && n.Connection != "":
		return invalid("a grant is on an environment or on a connection", "give one of them, or neither for the whole workspace")
	case n.In != (Place{}) && n.Connection != "":
		return invalid("a grant is on a project or on a connection", "give one of them, or neither for the whole workspace")
	case n.Environment != "" && !slices.Contains(authz.Environments, n.Environment):
		return noEnvironment()
	case n.Role == string(authz.Owner) && (n.Environment != "" || n.In != (Place{}) || n.Connection != ""):
		return invalid("an owner owns the whole workspace", "leave environment, project and connection out, or give the role admin")
	case !n.Until.IsZero() && !n.Until.After(at):
		return invalid("the grant would be over", "give a time that is to come, or none")
	case !n.Until.IsZero() && n.Until.Year() > 9999:
		return invalid("the grant's end is out of range", "give a year of four digits, or no end")
	case len(n.From) > MaxGrantFrom:
		return &protocol.Error{Code: protocol.CodeTooLarge, Message: "the grant is from too many networks", Hint: fmt.Sprintf("give at most %d", MaxGrantFrom)}
	}
	for _, p := range n.From {
		if !plainPrefix(p) {
			return invalid("a network is not in its plain form", "give prefixes like 10.0.0.0/8 or 2001:db8::/32, without host bits")
		}
	}
	return nil
}

// grantedBy is granted for who asks for it. It judges in an order that tells nobody what they may not see: first the place, then the
// role, and who it is for last, to who may give the role there.
func (w *Workspace) grantedBy(by By, id string, n NewGrant) (g authz.Grant, principal string, err error) {
	who, err := w.asker(by)
	if err != nil {
		return g, "", err
	}
	var d authz.Decision
	if n.Connection != "" {
		_, d, err = w.DecideOn(who, authz.GrantsCreate, n.Connection, by.At)
	} else {
		_, _, d, err = w.DecideAt(who, authz.GrantsCreate, n.Environment, n.In, by.At)
	}
	switch {
	case err != nil:
		return g, "", err
	case !d.Allow:
		return g, "", mayNotGive()
	}
	if g, err = w.placed(n); err == nil {
		g, err = w.withRole(g, n.Role)
	}
	if err != nil {
		return g, "", err
	}
	g.ID = id
	if err = w.mayGive(by, authz.GrantsCreate, g); err != nil {
		if _, custom := authz.ParseRole(n.Role); custom != nil && !authz.Decide(who, authz.RolesRead, authz.Scope{Workspace: w.ID}, by.At).Allow {
			err = noRole() // nor is it told which custom roles there are
		}
		return g, "", err
	}
	return w.receiver(g, n)
}

// granted is what a grant would be as the workspace stands, without an id, and the principal that it is for if it is for no team.
func (w *Workspace) granted(n NewGrant) (g authz.Grant, principal string, err error) {
	if g, err = w.placed(n); err == nil {
		g, err = w.withRole(g, n.Role)
	}
	if err != nil {
		return g, "", err
	}
	return w.receiver(g, n)
}

func (w *Workspace) withRole(g authz.Grant, role string) (authz.Grant, error) {
	if r, err := authz.ParseRole(role); err == nil {
		g.Role = r
		return g, nil
	}
	c, err := w.Role(role)
	if err == nil {
		g.Role, g.Custom = authz.Role(c.ID), c.Set
	}
	return g, err
}

// placed is a grant on what is named, without a role.
func (w *Workspace) placed(n NewGrant) (g authz.Grant, err error) {
	g = authz.Grant{Workspace: w.ID, Environment: n.Environment, Until: n.Until, From: n.From}
	if n.Connection != "" {
		c, err := w.Connection(n.Connection)
		if err != nil {
			return g, err
		}
		g.Connection = c.ID
	}
	p, f, err := w.Place(n.In)
	if err != nil {
		return g, err
	}
	if p != nil {
		g.Project = p.ID
	}
	if f != nil {
		g.Folder = f.ID
	}
	return g, nil
}

// receiver finds whom a grant is for.
func (w *Workspace) receiver(g authz.Grant, n NewGrant) (_ authz.Grant, principal string, err error) {
	if n.Team != "" {
		t, err := w.Team(n.Team)
		if err != nil {
			return g, "", err
		}
		g.Team = t.ID
		return g, "", nil
	}
	to, err := w.FindPrincipal(n.Principal)
	if err != nil {
		return g, "", err
	}
	return g, to.ID, nil
}

// cmpErr is the first that is not nil.
func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func noEnvironment() error {
	return invalid("no such environment", "use development, test or production")
}

// DeleteGrant takes a grant away; by must hold GrantsDelete on what it is given on. It refuses (conflict) to take the last one
// that can administer the workspace.
func (d *Directory) DeleteGrant(ctx context.Context, by By, workspace, id string) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	return d.guarded(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		g, err := w.Grant(id)
		if err != nil {
			return err
		}
		p, err := w.asker(by)
		if err != nil {
			return err
		}
		if dec := authz.Decide(p, authz.GrantsDelete, w.ScopeOf(g), by.At); !dec.Allow {
			if !authz.Decide(p, authz.GrantsRead, w.ScopeOf(g), by.At).Allow {
				return noGrant() // who may not see it is not told that it is there
			}
			return &protocol.Error{Code: protocol.CodeDenied, Message: "you may not take what is given there: " + dec.Reason, Hint: "ask an admin of the workspace"}
		}
		if err := w.mayTake(by, g.Role == authz.Owner); err != nil {
			return err
		}
		return as(tx.DeleteGrant(w.ID, g.ID), noGrant(), nil)
	})
}

// insertGrant adds a grant's row, with an id if it has none.
func (d *Directory) insertGrant(tx *store.Tx, row store.Grant, from []netip.Prefix) (err error) {
	if row.ID == "" {
		row.ID = NewID("gra")
	}
	if len(from) > 0 {
		if row.Sealed, err = seal(d.vault, place(row.Workspace, "grants", row.ID, 1), fromBody{from}); err != nil {
			return err
		}
	}
	if row.Tag, err = grantTag(d.vault, row); err != nil {
		return err
	}
	return tx.InsertGrant(row)
}

// CreateRole adds a custom role. It gives nothing to anybody by itself.
func (d *Directory) CreateRole(ctx context.Context, by By, workspace, name string, actions []authz.Action) (*Role, error) {
	w, set, err := d.roleFor(workspace, name, actions)
	if err != nil {
		return nil, err
	}
	id := NewID("rol")
	err = d.judged(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		if err := w.mayGive(by, authz.RolesCreate, authz.Grant{Role: authz.Role(id), Custom: set, Workspace: w.ID}); err != nil {
			return err
		}
		if len(w.Roles) >= MaxRoles {
			return &protocol.Error{Code: protocol.CodeTooLarge, Message: "the workspace has too many custom roles", Hint: "delete those that nobody holds"}
		}
		row, err := d.roleRow(w.ID, id, 1, name, set)
		if err != nil {
			return err
		}
		row.Created = toMs(now())
		return as(tx.InsertRole(row), nil, protocol.Errorf(protocol.CodeConflict, "a role of this name exists"))
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(w.ID).Role(id)
}

// UpdateRole replaces the name and actions of a custom role (name or id): whoever holds it holds the new ones from then on. by
// must itself hold, on the whole workspace and without limits, what comes to it.
func (d *Directory) UpdateRole(ctx context.Context, by By, workspace, role, name string, actions []authz.Action) (*Role, error) {
	w, set, err := d.roleFor(workspace, name, actions)
	if err != nil {
		return nil, err
	}
	id := ""
	err = d.guarded(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		c, err := w.Role(role)
		if err != nil {
			return err
		}
		if more := set.Without(c.Set); more != (authz.Set{}) {
			err = w.mayGive(by, authz.RolesEdit, authz.Grant{Role: authz.Role(c.ID), Custom: more, Workspace: w.ID})
		} else {
			_, err = w.asker(by)
		}
		if err != nil {
			return err
		}
		id = c.ID
		row, err := d.roleRow(w.ID, c.ID, c.Version+1, name, set)
		if err != nil {
			return err
		}
		return as(tx.UpdateRole(row), protocol.Errorf(protocol.CodeConflict, "the role was changed meanwhile"),
			protocol.Errorf(protocol.CodeConflict, "a role of this name exists"))
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(w.ID).Role(id)
}

// DeleteRole removes a custom role (name or id). It refuses (conflict) while a grant gives it.
func (d *Directory) DeleteRole(ctx context.Context, workspace, role string) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	c, err := w.Role(role)
	if err != nil {
		return err
	}
	return d.change(ctx, func(tx *store.Tx) error {
		if n, err := tx.CountGrants(w.ID, c.ID); err != nil || n > 0 {
			return cmpErr(err, &protocol.Error{Code: protocol.CodeConflict, Message: fmt.Sprintf("%d grants give the role", n), Hint: "delete them first"})
		}
		return as(tx.DeleteRole(w.ID, c.ID), protocol.Errorf(protocol.CodeNotFound, "no such role"), nil)
	})
}

// roleFor checks what people gave for a custom role.
func (d *Directory) roleFor(workspace, name string, actions []authz.Action) (w *Workspace, set authz.Set, err error) {
	if w, err = d.Snapshot().Workspace(workspace); err != nil {
		return nil, set, err
	}
	if err = checkName(name); err != nil {
		return nil, set, err
	}
	if _, err := authz.ParseRole(name); err == nil {
		return nil, set, protocol.Errorf(protocol.CodeConflict, "a system role has this name")
	}
	if set, err = authz.NewSet(actions...); err == nil && set == (authz.Set{}) {
		err = invalid("the role holds no action", "docs/permissions.md lists the actions; `fairlead roles show owner` too")
	}
	return w, set, err
}

func (d *Directory) roleRow(workspace, id string, version int64, name string, set authz.Set) (store.CustomRole, error) {
	row := store.CustomRole{ID: id, Workspace: workspace, Version: version}
	digest, err := d.vault.Digest(workspace, vault.NameOfRole, name)
	if err != nil {
		return row, err
	}
	row.NameDigest = digest[:]
	row.Sealed, err = seal(d.vault, place(workspace, "roles", id, version), roleBody{name, set.Least()})
	return row, err
}
