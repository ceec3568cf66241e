package directory

import (
	"context"
	"slices"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
)

// MaxServices bounds the service accounts of a workspace.
const MaxServices = 10_000

// NewService says what service account to make.
type NewService struct {
	Name  string
	Roles []authz.Role // on the whole workspace; what else it shall hold, grants give
}

// Service finds a service account, a principal that is a program, by name or id.
func (w *Workspace) Service(nameOrID string) (*Principal, error) {
	p, err := w.FindPrincipal(nameOrID)
	if err != nil || p.Kind != authz.Service {
		return nil, noService()
	}
	return p, nil
}

// Services lists the service accounts in the order of names.
func (w *Workspace) Services() []*Principal {
	var out []*Principal
	for _, p := range w.Principals {
		if p.Kind == authz.Service {
			out = append(out, p)
		}
	}
	return out
}

// TokensOf lists the tokens of a principal, by id, that are not revoked.
func (w *Workspace) TokensOf(principal string) []*Token {
	var out []*Token
	for _, t := range w.Tokens {
		if t.Principal.ID == principal && t.Revoked.IsZero() {
			out = append(out, t)
		}
	}
	return out
}

func noService() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "no such service account", Hint: "list them: fairlead service-accounts list"}
}

// CreateService makes a service account without a token. by may give no more than it holds itself (denied).
func (d *Directory) CreateService(ctx context.Context, by By, workspace string, n NewService) (*Principal, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, err
	}
	if err := checkLabel(n.Name); err != nil {
		return nil, err
	}
	if looksLikeID(n.Name) {
		return nil, invalid("the name looks like an id", "choose another")
	}
	var grants []authz.Grant
	for _, r := range n.Roles {
		if _, err := authz.ParseRole(string(r)); err != nil {
			return nil, err
		}
		if g := (authz.Grant{Role: r, Workspace: w.ID}); !slices.ContainsFunc(grants, g.Equal) {
			grants = append(grants, g)
		}
	}
	id, at := NewID("usr"), now()
	err = d.judged(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		if err := w.mayGive(by, authz.ServicesCreate, grants...); err != nil {
			return err
		}
		if len(w.Services()) >= MaxServices {
			return &protocol.Error{Code: protocol.CodeTooLarge, Message: "the workspace has too many service accounts", Hint: "delete those that no program uses: their tokens tell when they were used last"}
		}
		if err := d.insertPrincipal(tx, w.ID, id, n.Name, authz.Service, at); err != nil {
			return as(err, nil, &protocol.Error{Code: protocol.CodeConflict, Message: "a principal of this name exists", Hint: "choose another name"})
		}
		if err := d.within(tx, w.ID, QuotaServices); err != nil {
			return err
		}
		for _, g := range grants {
			if err := d.insertGrant(tx, store.Grant{Workspace: w.ID, Principal: id, Role: string(g.Role), Created: toMs(at)}, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(w.ID).Service(id)
}

// changeService does something to a service account (name or id), if by may do via and holds no less than it does (denied).
func (d *Directory) changeService(ctx context.Context, by By, via authz.Action, workspace, nameOrID string, f func(tx *store.Tx, workspace, id string) error) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	return d.guarded(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		p, err := w.Service(nameOrID)
		if err != nil {
			return err
		}
		asks, err := w.asker(by)
		if err != nil {
			return err
		}
		for _, g := range p.Grants {
			if !authz.MayGive(asks, g, w.scope(g), via, by.At) {
				return &protocol.Error{Code: protocol.CodeDenied, Message: "the service account holds a role that you do not hold yourself", Hint: "ask an admin of the workspace; about an owner, an owner"}
			}
		}
		return as(f(tx, w.ID, p.ID), noService(), nil)
	})
}

// SetServiceDisabled refuses all tokens of a service account, or takes them again.
func (d *Directory) SetServiceDisabled(ctx context.Context, by By, workspace, nameOrID string, disabled bool) error {
	state := stateActive
	if disabled {
		state = stateDisabled
	}
	return d.changeService(ctx, by, authz.ServicesEdit, workspace, nameOrID, func(tx *store.Tx, workspace, id string) error { return tx.SetPrincipalState(workspace, id, state) })
}

// DeleteService removes a service account with its grants and tokens.
func (d *Directory) DeleteService(ctx context.Context, by By, workspace, nameOrID string) error {
	return d.changeService(ctx, by, authz.ServicesDelete, workspace, nameOrID, func(tx *store.Tx, workspace, id string) error { return tx.DeleteService(workspace, id) })
}

// ServiceETag names the state of a service account: its own grants, and whether it is disabled.
func (w *Workspace) ServiceETag(p *Principal) string { return w.UserETag(p) }
