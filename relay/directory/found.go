package directory

import (
	"context"
	"net/netip"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
)

// NewWorkspace says what workspace to found, and whose it is.
type NewWorkspace struct {
	Name string
	// Allow is where its callers may come from. Empty: from this machine only.
	Allow  []netip.Prefix
	Owner  string        // user name of its owner
	Person string        // id of somebody who has signed in elsewhere in this installation; empty: a new person
	Life   time.Duration // of the one-time code of a new person; 0: InviteLife
}

// ownMachine is where callers may come from when nobody says.
func ownMachine() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// FoundWorkspace makes a workspace as Init makes the first, with a key of its own, an agent group "default", an allowlist and an owner,
// all of it or nothing, without asking who wants it: for the command line of who runs the relay's host and holds its keys, never for a
// route. The owner is a user. For a new person it gives the one-time code that sets the first password; it is not kept. A name that is
// taken is refused (conflict), and a person who is not there (not_found).
func (d *Directory) FoundWorkspace(ctx context.Context, n NewWorkspace) (*Workspace, secret.Bytes, error) {
	none := secret.Bytes{}
	u := NewUser{Name: UserName(n.Owner), Roles: []authz.Role{authz.Owner}, Person: n.Person, Life: n.Life}
	if u.Name == "" {
		return nil, none, invalid("the workspace has no owner", "name the user who is to own it")
	}
	if err := checkUserName(u.Name); err != nil {
		return nil, none, err
	}
	if len(n.Allow) == 0 {
		n.Allow = ownMachine()
	}
	next, err := (&Workspace{}).WithSources(Callers, n.Allow, false)
	if err != nil {
		return nil, none, err
	}
	by := &giver{Host: true}
	c, err := d.newCode(n.Life, by, false)
	if err != nil {
		return nil, none, err
	}
	w, err := d.makeWorkspace(ctx, n.Name, func(tx *store.Tx, id string, at time.Time) error {
		if err := d.writeLists(tx, id, map[Side][]netip.Prefix{Callers: next.Prefixes}); err != nil {
			return err
		}
		return d.insertUser(tx, id, NewID("usr"), u, c, by, at)
	})
	if err != nil {
		return nil, none, err
	}
	if n.Person != "" {
		return w, none, nil
	}
	return w, c.text, nil
}

// makeWorkspace adds a workspace with its first group, and what f puts into it, in one transaction.
func (d *Directory) makeWorkspace(ctx context.Context, name string, f func(tx *store.Tx, id string, at time.Time) error) (*Workspace, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	id, at := NewID("ws"), now()
	err := d.change(ctx, func(tx *store.Tx) error {
		if err := d.insertWorkspace(ctx, tx, d.Snapshot().Installation, id, name, at); err != nil {
			return as(err, nil, &protocol.Error{Code: protocol.CodeConflict, Message: "a workspace of this name exists", Hint: "choose another name"})
		}
		if err := d.insertGroup(tx, id, NewID("grp"), groupBody{Name: "default"}, at); err != nil {
			return err
		}
		return f(tx, id, at)
	})
	if err != nil {
		d.vault.Forget(id)
		return nil, err
	}
	return d.Snapshot().Workspace(id)
}
