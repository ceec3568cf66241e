package directory

import (
	"context"
	"slices"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// TokenPrefix begins every API token's text; 43 characters of base64url (256 random bits) follow.
const TokenPrefix = "flt_"

// Limits of an API token's life.
const (
	TokenLife    = 90 * 24 * time.Hour // when none is given
	MaxTokenLife = 5 * 366 * 24 * time.Hour
)

// NewToken says what token to make, and for whom.
type NewToken struct {
	Name string
	// Principal is the id of who it is for. Empty: a new service principal of the token's name, with Roles on Connections, or on
	// the whole workspace when those are empty. With a principal, Roles and Connections must be empty: it has its own grants.
	Principal   string
	Roles       []authz.Role
	Connections []string // names or ids
	Life        time.Duration
	// At is when and from where it is asked for: of the zero value, no right of who asks counts that has an end or a network.
	At authz.At
}

// CreateToken makes an API token and gives its text, which is not kept. by may give no more than it holds itself (denied).
func (d *Directory) CreateToken(ctx context.Context, by authz.Principal, workspace string, n NewToken) (*Token, secret.Bytes, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	return d.createToken(ctx, w, n, func(w *Workspace, grants []authz.Grant) error {
		// Judged by what by holds now, in the snapshot, not by what it held when its request came.
		return w.mayGive(By{by.ID, n.At}, authz.TokensManage, grants...)
	})
}

// CreateAdminToken makes a token of a new admin principal without asking who wants it: for the command line of who runs the
// relay's host and holds its keys, never for a route.
func (d *Directory) CreateAdminToken(ctx context.Context, workspace, name string, life time.Duration) (*Token, secret.Bytes, error) {
	return d.createHostToken(ctx, workspace, name, authz.Admin, life)
}

// CreateOwnerToken is CreateAdminToken for a new owner.
func (d *Directory) CreateOwnerToken(ctx context.Context, workspace, name string, life time.Duration) (*Token, secret.Bytes, error) {
	return d.createHostToken(ctx, workspace, name, authz.Owner, life)
}

func (d *Directory) createHostToken(ctx context.Context, workspace, name string, r authz.Role, life time.Duration) (*Token, secret.Bytes, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	n := NewToken{Name: name, Roles: []authz.Role{r}, Life: life}
	return d.createToken(ctx, w, n, func(*Workspace, []authz.Grant) error { return nil })
}

func (d *Directory) createToken(ctx context.Context, w *Workspace, n NewToken, may func(*Workspace, []authz.Grant) error) (*Token, secret.Bytes, error) {
	none := secret.Bytes{}
	if err := checkLabel(n.Name); err != nil {
		return nil, none, err
	}
	if n.Life == 0 {
		n.Life = TokenLife
	}
	if n.Life < time.Second || n.Life > MaxTokenLife {
		return nil, none, invalid("the token's life is out of range", "give 1 second to 5 years")
	}
	grants, err := n.grants(w)
	if err != nil {
		return nil, none, err
	}
	if err := may(w, grants); err != nil {
		return nil, none, err
	}
	text, digest, verifier, err := d.newTokenText()
	if err != nil {
		return nil, none, err
	}
	id, principal, at := NewID("tok"), "", now()
	err = d.judged(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		// Again: the slow hash took its time, and who asks may have lost the right meanwhile, or the principal got others.
		grants, err := n.grants(w)
		if err == nil {
			err = may(w, grants)
		}
		if err != nil {
			return err
		}
		if principal = n.Principal; principal == "" {
			principal = NewID("usr")
			if err := d.insertPrincipal(tx, w.ID, principal, n.Name, authz.Service, at); err != nil {
				return as(err, nil, &protocol.Error{Code: protocol.CodeConflict, Message: "a principal of this name exists",
					Hint: "choose another name"})
			}
			for _, g := range grants {
				if err := d.insertGrant(tx, store.Grant{Workspace: w.ID, Principal: principal, Role: string(g.Role), Connection: g.Connection, Created: toMs(at)}, nil); err != nil {
					return as(err, protocol.Errorf(protocol.CodeNotFound, "no such connection"), nil)
				}
			}
		}
		return as(d.insertToken(tx, store.APIToken{ID: id, Workspace: w.ID, Principal: principal, Digest: digest[:], Verifier: verifier,
			Created: toMs(at), Expires: toMs(at.Add(n.Life))}, n.Name), noPrincipal(), nil)
	})
	if err != nil {
		return nil, none, err
	}
	for _, t := range d.Snapshot().before(w.ID).Tokens {
		if t.ID == id {
			return t, text, nil
		}
	}
	return nil, none, noToken() // its principal was deleted in the same moment
}

func noPrincipal() *protocol.Error {
	return protocol.Errorf(protocol.CodeNotFound, "no such principal")
}

func noToken() *protocol.Error { return protocol.Errorf(protocol.CodeNotFound, "no such token") }

// grants gives what the token's principal will hold.
func (n NewToken) grants(w *Workspace) ([]authz.Grant, error) {
	if n.Principal != "" {
		p := w.Principal(n.Principal)
		if p == nil {
			return nil, noPrincipal()
		}
		if len(n.Roles)+len(n.Connections) > 0 {
			return nil, invalid("the principal has its own grants", "leave roles and connections out, or the principal")
		}
		return p.Grants, nil
	}
	if len(n.Roles) == 0 {
		return nil, invalid("the token has no role", "use owner, admin, operator or analyst")
	}
	scopes := []string{""}
	if len(n.Connections) > 0 {
		scopes = nil
	}
	for _, name := range n.Connections {
		c, err := w.Connection(name)
		if err != nil {
			return nil, err
		}
		scopes = append(scopes, c.ID)
	}
	var out []authz.Grant
	for _, r := range n.Roles {
		if _, err := authz.ParseRole(string(r)); err != nil {
			return nil, err
		}
		for _, s := range scopes {
			if g := (authz.Grant{Role: r, Workspace: w.ID, Connection: s}); !slices.ContainsFunc(out, g.Equal) {
				out = append(out, g)
			}
		}
	}
	return out, nil
}

// RevokeToken refuses a token from now on, without asking who wants it. It refuses (conflict) to revoke the last way in of who can
// administer the workspace.
func (d *Directory) RevokeToken(ctx context.Context, workspace, id string) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	return d.guarded(ctx, w.ID, func(tx *store.Tx, _ *Workspace) error {
		return as(tx.RevokeAPIToken(w.ID, id, toMs(now())), noToken(), nil)
	})
}

// RevokeTokenBy is RevokeToken, which refuses (denied) to revoke an owner's token unless by is an owner.
func (d *Directory) RevokeTokenBy(ctx context.Context, by By, workspace, id string) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	return d.guarded(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		i := slices.IndexFunc(w.Tokens, func(t *Token) bool { return t.ID == id })
		if i < 0 {
			return noToken()
		}
		if err := w.mayTake(by, w.Tokens[i].Principal.Owns()); err != nil {
			return err
		}
		return as(tx.RevokeAPIToken(w.ID, id, toMs(now())), noToken(), nil)
	})
}

// SetPrincipalDisabled disables or enables a principal: with it go all its tokens.
func (d *Directory) SetPrincipalDisabled(ctx context.Context, workspace, id string, disabled bool) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	state := stateActive
	if disabled {
		state = stateDisabled
	}
	return d.guarded(ctx, w.ID, func(tx *store.Tx, _ *Workspace) error {
		return as(tx.SetPrincipalState(w.ID, id, state), noPrincipal(), nil)
	})
}

// newTokenText makes a token's text with what is kept of it.
func (d *Directory) newTokenText() (text secret.Bytes, digest [32]byte, verifier string, err error) {
	s := TokenPrefix + randomText()
	if digest, err = d.vault.Digest("", vault.APIToken, s); err != nil {
		return text, digest, "", err
	}
	if verifier, err = vault.NewVerifier(s); err != nil {
		return text, digest, "", err
	}
	return secret.FromString(s), digest, verifier, nil
}

func (d *Directory) insertToken(tx *store.Tx, t store.APIToken, name string) (err error) {
	t.Version = 1
	t.Sealed, err = seal(d.vault, place(t.Workspace, "api_tokens", t.ID, 1), tokenBody{Name: name, Principal: t.Principal, Digest: t.Digest,
		Verifier: t.Verifier, Expires: t.Expires})
	if err != nil {
		return err
	}
	return tx.InsertAPIToken(t)
}

func (d *Directory) insertPrincipal(tx *store.Tx, workspace, id, name string, kind authz.Kind, at time.Time) error {
	digest, err := d.vault.Digest(workspace, vault.NameOfPrincipal, name)
	if err != nil {
		return err
	}
	sealed, err := seal(d.vault, place(workspace, "principals", id, 1), nameBody{name})
	if err != nil {
		return err
	}
	return tx.InsertPrincipal(store.Principal{ID: id, Workspace: workspace, Kind: string(kind), State: stateActive, Created: toMs(at),
		Version: 1, NameDigest: digest[:], Sealed: sealed})
}
