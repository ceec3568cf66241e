package directory

import (
	"context"
	"slices"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// CreateTeam adds a team without members.
func (d *Directory) CreateTeam(ctx context.Context, workspace, name string) (*Team, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if len(w.Teams) >= MaxTeams {
		return nil, &protocol.Error{Code: protocol.CodeTooLarge, Message: "the workspace has too many teams", Hint: "delete those that are empty"}
	}
	row := store.Team{ID: NewID("tea"), Workspace: w.ID, Created: toMs(now()), Version: 1}
	digest, err := d.vault.Digest(w.ID, vault.NameOfTeam, name)
	if err != nil {
		return nil, err
	}
	row.NameDigest = digest[:]
	if row.Sealed, err = seal(d.vault, place(w.ID, "teams", row.ID, 1), nameBody{name}); err != nil {
		return nil, err
	}
	err = d.change(ctx, func(tx *store.Tx) error {
		return as(tx.InsertTeam(row), protocol.Errorf(protocol.CodeNotFound, "no such workspace"),
			protocol.Errorf(protocol.CodeConflict, "a team of this name exists"))
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(w.ID).Team(row.ID)
}

// given is what a team's members hold through it.
func (w *Workspace) given(t *Team) (grants []authz.Grant, owner bool) {
	for _, g := range w.Grants {
		if g.Team == t {
			grants = append(grants, g.Grant)
			owner = owner || g.Role == authz.Owner
		}
	}
	return grants, owner
}

// DeleteTeam removes a team (name or id) with its grants. One that holds the role owner, an owner alone may delete; it refuses
// (conflict) when nobody could administer the workspace any more.
func (d *Directory) DeleteTeam(ctx context.Context, by By, workspace, team string) error {
	return d.team(ctx, d.guarded, workspace, team, func(tx *store.Tx, w *Workspace, t *Team) error {
		_, owner := w.given(t)
		if err := w.mayTake(by, owner); err != nil {
			return err
		}
		return as(tx.DeleteTeam(w.ID, t.ID), noTeam(), nil)
	})
}

// AddMember puts a principal (name or id) into a team (name or id), and changes nothing if it is in it. It gives what the team
// holds: by may give no more than it holds itself (denied).
func (d *Directory) AddMember(ctx context.Context, by By, workspace, team, principal string) (*Team, error) {
	id := ""
	err := d.team(ctx, d.judged, workspace, team, func(tx *store.Tx, w *Workspace, t *Team) error {
		grants, _ := w.given(t)
		if err := w.mayGive(by, authz.TeamsEdit, grants...); err != nil { // before it tells who is there
			return err
		}
		p, err := w.FindPrincipal(principal)
		if err != nil {
			return err
		}
		if id = t.ID; slices.Contains(t.Members, p) {
			return nil
		}
		m := store.Member{Workspace: w.ID, Team: t.ID, Principal: p.ID, Created: toMs(now())}
		if m.Tag, err = memberTag(d.vault, m); err != nil {
			return err
		}
		return as(tx.InsertMember(m), noPrincipal(), nil)
	})
	if err != nil {
		return nil, err
	}
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, err
	}
	return w.Team(id)
}

// RemoveMember takes a principal (name or id) out of a team (name or id). Out of one that holds the role owner, an owner alone
// may take; it refuses (conflict) to take the last one that can administer the workspace.
func (d *Directory) RemoveMember(ctx context.Context, by By, workspace, team, principal string) error {
	return d.team(ctx, d.guarded, workspace, team, func(tx *store.Tx, w *Workspace, t *Team) error {
		_, owner := w.given(t)
		if err := w.mayTake(by, owner); err != nil {
			return err
		}
		p, err := w.FindPrincipal(principal)
		if err != nil {
			return err
		}
		who, err := w.asker(by)
		if err != nil {
			return err
		}
		out := protocol.Errorf(protocol.CodeNotFound, "the principal is not in the team")
		if !(view{who: who, at: by.At}).principal(w, p) {
			out = noPrincipal()
		}
		return as(tx.DeleteMember(w.ID, t.ID, p.ID), out, nil)
	})
}

// team changes one by how: judged or guarded.
func (d *Directory) team(ctx context.Context, how func(context.Context, string, func(*store.Tx, *Workspace) error) error, workspace, team string, f func(*store.Tx, *Workspace, *Team) error) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	return how(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		t, err := w.Team(team)
		if err != nil {
			return err
		}
		return f(tx, w, t)
	})
}
