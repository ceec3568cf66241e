package directory

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
)

// giver is who gave a one-time code or an address. It is judged again when that counts: what somebody may do for a small user says
// nothing of who that user becomes.
type giver struct {
	Principal string       `json:"principal,omitempty"` // of the home workspace
	Token     string       `json:"token,omitempty"`     // that it came with: its limits count
	Action    authz.Action `json:"action,omitempty"`    // by which it gave; of a release that had no other, what manages users
	Source    netip.Addr   `json:"source,omitzero"`     // that it came from: its grants may be for some networks only
	Password  int64        `json:"password,omitempty"`  // when its person set the password that counted: a session ends with that
	Host      bool         `json:"host,omitempty"`      // who runs the relay's host stands above everybody
	Self      bool         `json:"self,omitempty"`      // the person, for itself
}

func (w *Workspace) givenBy(by By, via authz.Action) *giver {
	g := &giver{Principal: by.ID, Token: by.Token, Action: via, Source: by.At.Source}
	if q := w.people[by.ID]; q != nil {
		g.Password = toMs(q.PasswordSet)
	}
	return g
}

// reach is how far what is done for a user goes.
type reach int

const (
	here       reach = iota // the workspace: disabling, ending sessions, removing; nobody is impersonated by it
	everywhere              // wherever the person belongs: what it signs in with
)

// mayActFor refuses (denied) who may not do via, or holds less than a user of the workspace does: nobody is to be shut out by who stands
// below. It is asked in the transaction of what is done.
func (s *Snapshot) mayActFor(by By, via authz.Action, w *Workspace, principal string, far reach) error {
	p, err := w.asker(by)
	if err != nil {
		return err
	}
	return s.above(p, by.At, via, w, principal, far)
}

// above refuses (denied) who may not act for a user of the workspace: who may not do via (what edits users, or deletes them), holds less
// than the user, or less than the user's account reaches. Whoever sets a password at home is that person in all workspaces, so who belongs
// to others, too, is an admin's affair, and who rules in one of them, an owner's.
func (s *Snapshot) above(p authz.Principal, at authz.At, via authz.Action, w *Workspace, principal string, far reach) error {
	target := w.Principal(principal)
	if target == nil {
		return noUser()
	}
	if d := authz.Decide(p, via, authz.Scope{Workspace: w.ID}, at); !d.Allow {
		return &protocol.Error{Code: protocol.CodeDenied, Message: "you may not act for users: " + d.Reason, Hint: "ask an admin of the workspace"}
	}
	if err := w.covers(p, at, via, "the user holds a role that you do not hold yourself", target.Grants...); err != nil {
		return err
	}
	if w.people[principal] == nil {
		return nil
	}
	others := s.Elsewhere(w, principal)
	if len(others) == 0 {
		return nil
	}
	role := authz.Admin
	if far == everywhere && slices.ContainsFunc(others, func(o *Principal) bool { return o.rules(at.Time) }) {
		role = authz.Owner
	}
	return w.covers(p, at, via, "the user's account reaches beyond this workspace: it is an "+string(role)+"'s to act for it", authz.Grant{Role: role, Workspace: w.ID})
}

// rules tells whether a principal holds anything that an operator does not.
func (p *Principal) rules(at time.Time) bool {
	return slices.ContainsFunc(p.Grants, func(g authz.Grant) bool {
		return (g.Until.IsZero() || g.Until.After(at)) && g.Set().Without(authz.Operator.Set()) != (authz.Set{})
	})
}

// holds refuses (denied) a principal that could not give each of the grants itself, by what it holds in this snapshot.
func (w *Workspace) holds(by By, via authz.Action, otherwise string, grants ...authz.Grant) error {
	p, err := w.asker(by)
	if err != nil {
		return err
	}
	return w.covers(p, by.At, via, otherwise, grants...)
}

func (w *Workspace) covers(p authz.Principal, at authz.At, via authz.Action, otherwise string, grants ...authz.Grant) error {
	for _, g := range grants {
		if !authz.MayGive(p, g, w.scope(g), via, at) {
			return &protocol.Error{Code: protocol.CodeDenied, Message: otherwise, Hint: "ask an admin of the workspace; about an owner, an owner"}
		}
	}
	return nil
}

// still tells whether a giver may act for a user of its home workspace as both stand now. One that is gone or disabled may not, nor who
// came with a token that was revoked since; one that has expired stays what it was. Nor may a person in a session that has set another
// password since: the session may have been in other hands. nil is of a release that did not keep them.
func (s *Snapshot) still(g *giver, w *Workspace, principal string) bool {
	switch {
	case g == nil:
		return false
	case g.Host, g.Self:
		return true
	}
	p := w.Principal(g.Principal)
	if p == nil || p.Disabled {
		return false
	}
	acting := p.Principal
	if strings.HasPrefix(g.Token, tokenID+"_") {
		i := slices.IndexFunc(w.Tokens, func(t *Token) bool { return t.ID == g.Token })
		if i < 0 || w.Tokens[i].Principal != p || !w.Tokens[i].Revoked.IsZero() {
			return false
		}
		acting = w.Tokens[i].Acting()
	} else if q := w.people[p.ID]; q != nil && g.Password != toMs(q.PasswordSet) {
		return false
	}
	return s.above(acting, authz.At{Time: time.Now(), Source: g.Source}, cmp.Or(g.Action, authz.UsersManage), w, principal, everywhere) == nil
}

// actFor changes what a user's person signs in with, by who may act for it everywhere (denied), as things stand in the transaction. Only
// the home workspace's admins may: whoever sets a password is that person.
func (d *Directory) actFor(ctx context.Context, by By, workspace, principal string, f func(tx *store.Tx, s *Snapshot, b *personBody) error) error {
	return d.judgedIn(ctx, workspace, func(tx *store.Tx, s *Snapshot, w *Workspace) error {
		p := w.people[principal]
		if p == nil {
			return noUser()
		}
		if p.Home != w.ID {
			return &protocol.Error{Code: protocol.CodeDenied, Message: "another workspace keeps this person's credentials", Hint: "the person asks an admin there; here you can disable or remove the user"}
		}
		if err := s.mayActFor(by, authz.UsersEdit, w, principal, everywhere); err != nil {
			return err
		}
		return d.editPerson(tx, p.ID, func(tx *store.Tx, b *personBody) error { return f(tx, s, b) })
	})
}

// ResetSecondFactor takes a user's second factor and passkeys away, for who lost them, and ends all sessions. by may not hold less than the user
// (denied).
func (d *Directory) ResetSecondFactor(ctx context.Context, by By, workspace, principal string) error {
	return d.actFor(ctx, by, workspace, principal, func(tx *store.Tx, _ *Snapshot, b *personBody) error {
		if err := tx.DeletePasskeysOf(b.ID); err != nil {
			return err
		}
		b.distrustOwn()
		return d.dropFactor(tx, b, "")
	})
}

// SetUserDisabled disables or enables a user in a workspace. by may not hold less than the user (denied).
func (d *Directory) SetUserDisabled(ctx context.Context, by By, workspace, principal string, disabled bool) error {
	return d.guardedIn(ctx, workspace, func(tx *store.Tx, s *Snapshot, w *Workspace) error {
		if w.people[principal] == nil {
			return noUser()
		}
		if err := s.mayActFor(by, authz.UsersEdit, w, principal, here); err != nil {
			return err
		}
		return as(tx.SetPrincipalState(w.ID, principal, stateOf(disabled)), noUser(), nil)
	})
}

// EndSessionsBy ends all sessions of a user in a workspace. by may not hold less than the user (denied).
func (d *Directory) EndSessionsBy(ctx context.Context, by By, workspace, principal string) error {
	return d.judgedIn(ctx, workspace, func(tx *store.Tx, s *Snapshot, w *Workspace) error {
		if w.people[principal] == nil {
			return noUser()
		}
		if err := s.mayActFor(by, authz.UsersEdit, w, principal, here); err != nil {
			return err
		}
		for _, t := range w.Sessions {
			if t.Principal.ID == principal {
				if err := tx.DeleteSession(w.ID, t.ID); err != nil {
					return as(err, noSession(), nil)
				}
			}
		}
		return nil
	})
}

// EndSessionBy ends a session of a workspace (not_found). by may not hold less than its user (denied).
func (d *Directory) EndSessionBy(ctx context.Context, by By, workspace, id string) error {
	return d.judgedIn(ctx, workspace, func(tx *store.Tx, s *Snapshot, w *Workspace) error {
		i := slices.IndexFunc(w.Sessions, func(t *Session) bool { return t.ID == id })
		if i < 0 {
			return noSession()
		}
		if err := s.mayActFor(by, authz.UsersEdit, w, w.Sessions[i].Principal.ID, here); err != nil {
			return err
		}
		return as(tx.DeleteSession(w.ID, id), noSession(), nil)
	})
}

// RemoveUserBy is RemoveUser for who may not hold less than the user (denied). It gives what the person was in other workspaces: it is
// gone there, too.
func (d *Directory) RemoveUserBy(ctx context.Context, by By, workspace, principal string) (elsewhere []*Principal, err error) {
	err = d.guardedIn(ctx, workspace, func(tx *store.Tx, s *Snapshot, w *Workspace) error {
		if w.people[principal] == nil {
			return noUser()
		}
		if err := s.mayActFor(by, authz.UsersDelete, w, principal, here); err != nil { // also at home: else any workspace could keep it from its admins there
			return err
		}
		elsewhere = s.Elsewhere(w, principal)
		return as(tx.DeleteUser(w.ID, principal), noUser(), nil)
	})
	return elsewhere, err
}

// RemoveUser takes a user out of a workspace, without asking who wants it; at home, the person is gone for good, in other workspaces too.
func (d *Directory) RemoveUser(ctx context.Context, workspace, principal string) error {
	return d.guarded(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		if w.people[principal] == nil {
			return noUser()
		}
		return as(tx.DeleteUser(w.ID, principal), noUser(), nil)
	})
}
