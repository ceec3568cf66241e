package directory

import (
	"context"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
)

// lastingToken is how much longer a token must live so that a workspace may rest on it alone.
const lastingToken = 24 * time.Hour

// guarded is judged for what takes rights or the ways in: it is undone (conflict) if by it nobody could administer a workspace any
// more, or a workspace loses its last owner. All workspaces are looked at, for a person who is removed at home goes everywhere.
// What is left is built of the very rows that the transaction leaves, by the code that decides requests, and writers come one
// after the other: two who remove each other cannot both succeed. What was not there before holds nothing up.
func (d *Directory) guarded(ctx context.Context, workspace string, f func(tx *store.Tx, w *Workspace) error) error {
	return d.guardedIn(ctx, workspace, func(tx *store.Tx, _ *Snapshot, w *Workspace) error { return f(tx, w) })
}

func (d *Directory) guardedIn(ctx context.Context, workspace string, f func(tx *store.Tx, before *Snapshot, w *Workspace) error) error {
	return d.judgedIn(ctx, workspace, func(tx *store.Tx, before *Snapshot, w *Workspace) error {
		at := now()
		if err := f(tx, before, w); err != nil {
			return err
		}
		st, err := tx.LoadRights()
		if err != nil {
			return err
		}
		after, err := buildRights(ctx, d.vault, d.conf.PasskeyID, st, before)
		if err != nil {
			return err
		}
		for _, was := range before.workspaces {
			is := after.byID[was.ID]
			if is == nil { // destroyed by this
				continue
			}
			for _, role := range []authz.Role{authz.Admin, authz.Owner} {
				for _, lasting := range []time.Duration{0, lastingToken} {
					if was.keeps(role, at, lasting) && !is.keeps(role, at, lasting) {
						return nobodyLeft(role, was.ID != w.ID)
					}
				}
			}
		}
		return nil
	})
}

// keeps tells whether somebody can come in, now and in lasting, who can give a role of the whole workspace to anybody. Rights
// with an end or a network do not count, they may be gone tomorrow; nor does who was invited and has not come.
func (w *Workspace) keeps(role authz.Role, at time.Time, lasting time.Duration) bool {
	gives := func(p authz.Principal) bool {
		return authz.MayGive(p, authz.Grant{Role: role, Workspace: w.ID}, authz.Scope{Workspace: w.ID}, authz.GrantsManage, authz.At{Time: at})
	}
	for _, t := range w.Tokens {
		if t.Live(at.Add(lasting)) && gives(t.Acting()) {
			return true
		}
	}
	for id, person := range w.people {
		if p := w.principals[id]; !person.PasswordSet.IsZero() && !p.Disabled && gives(p.Principal) {
			return true
		}
	}
	return false
}

func nobodyLeft(role authz.Role, elsewhere bool) *protocol.Error {
	e := &protocol.Error{Code: protocol.CodeConflict, Message: "nobody could administer the workspace any more",
		Hint: "first see to another admin: somebody with a password, or a token that lasts longer than a day, whose role has neither end nor network"}
	if role == authz.Owner {
		e.Message, e.Hint = "the workspace would have no owner any more", "make another owner first: fairlead grants create owner --to PRINCIPAL"
	}
	if elsewhere {
		e.Message, e.Hint = "the user is the last one who can administer another workspace", "that workspace wants another admin or owner first; here the user can be disabled meanwhile"
	}
	return e
}
