package directory

import (
	"context"
	"fmt"
	"net/netip"
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

const tokenID = "tok" // begins their ids

// Limits of API tokens.
const (
	TokenLife    = 90 * 24 * time.Hour // when none is given
	MaxTokenLife = 5 * 366 * 24 * time.Hour
	MaxOnly      = 100 // projects, connections, and networks, that a token is limited to
	MaxPersonal  = 50  // live tokens that a person has
)

// NewToken says what token to make, and for whom.
type NewToken struct {
	Name string
	// Principal is the name or id of who it is for, of a person never: people make their own. Empty: a new service account of the
	// token's name, with Roles on Connections, or on the whole workspace when those are empty. With a principal, Roles and
	// Connections must be empty: it has its own grants.
	Principal   string
	Roles       []authz.Role
	Connections []string // names or ids
	Life        time.Duration
	Only        Only
	// At is when and from where it is asked for: of the zero value, no right of who asks counts that has an end or a network.
	At authz.At
}

// Only is what a token is limited to beside what its principal may; each empty list limits nothing.
type Only struct {
	Actions      []authz.Action
	Environments []authz.Environment
	Projects     []string // names or ids
	Connections  []string // names or ids
	From         []netip.Prefix
}

// onlyBody is how a token's limits are kept.
type onlyBody struct {
	Actions      []authz.Action      `json:"actions,omitempty"`
	Environments []authz.Environment `json:"environments,omitempty"`
	Projects     []string            `json:"projects,omitempty"`    // ids
	Connections  []string            `json:"connections,omitempty"` // ids
	From         []netip.Prefix      `json:"from,omitempty"`
}

// in checks the limits and finds what they name in a workspace, as far as who gives them sees it.
func (o Only) in(w *Workspace, see view) (*onlyBody, error) {
	b := &onlyBody{Actions: o.Actions, Environments: o.Environments, From: o.From}
	if _, err := authz.NewSet(o.Actions...); err != nil {
		return nil, err
	}
	for _, e := range o.Environments {
		if !slices.Contains(authz.Environments, e) {
			return nil, noEnvironment()
		}
	}
	if len(o.Projects) > MaxOnly || len(o.Connections) > MaxOnly || len(o.From) > MaxOnly {
		return nil, &protocol.Error{Code: protocol.CodeTooLarge, Message: "the token is limited to too many projects, connections or networks", Hint: fmt.Sprintf("give at most %d of each", MaxOnly)}
	}
	for _, name := range o.Projects {
		p, err := see.project(w, name)
		if err != nil {
			return nil, err
		}
		b.Projects = append(b.Projects, p.ID)
	}
	for _, name := range o.Connections {
		c, err := see.connection(w, name)
		if err != nil {
			return nil, err
		}
		b.Connections = append(b.Connections, c.ID)
	}
	for _, p := range o.From {
		if !plainPrefix(p) {
			return nil, invalid("a network is not in its plain form", "give prefixes like 10.0.0.0/8 or 2001:db8::/32, without host bits")
		}
	}
	if b.limits().None() {
		return nil, nil
	}
	return b, nil
}

func (b *onlyBody) limits() authz.Limits {
	if b == nil {
		return authz.Limits{}
	}
	l := authz.Limits{ByAction: len(b.Actions) > 0, Environments: b.Environments, Projects: b.Projects, Connections: b.Connections, From: b.From}
	for _, a := range b.Actions {
		one, _ := authz.NewSet(a) // what this release does not know, it allows nobody
		l.Actions = l.Actions.Or(one)
	}
	return l
}

// CreateToken makes an API token and gives its text, which is not kept. by may give no more than it holds itself (denied).
func (d *Directory) CreateToken(ctx context.Context, by authz.Principal, workspace string, n NewToken) (*Token, secret.Bytes, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	asks := By{by.ID, n.At, by.Token}
	return d.createToken(ctx, &asks, w, n, func(w *Workspace, grants []authz.Grant) error {
		if p, err := w.FindPrincipal(n.Principal); err == nil && w.people[p.ID] != nil {
			return &protocol.Error{Code: protocol.CodeDenied, Message: "nobody makes a token for a person", Hint: "people make their own: fairlead tokens create NAME --mine; programs have service accounts: fairlead service-accounts create"}
		}
		// Judged by what by holds now, in the snapshot, not by what it held when its request came.
		return w.mayGive(asks, authz.TokensCreate, grants...)
	})
}

// CreatePersonalToken makes a token for the person who asks: it may what the person may, at most as long as the workspace's sign-in
// policy admits. n names no principal, roles or connections.
func (d *Directory) CreatePersonalToken(ctx context.Context, by By, workspace string, n NewToken) (*Token, secret.Bytes, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	if n.Principal != "" || len(n.Roles)+len(n.Connections) > 0 {
		return nil, secret.Bytes{}, invalid("a personal token is for who asks, with what they hold", "leave principal, roles and connections out; what the token shall be limited to stands in only")
	}
	if n.Principal = by.ID; n.Life == 0 {
		n.Life = min(TokenLife, w.SignIn.PersonalTokens)
	}
	return d.createToken(ctx, &by, w, n, func(w *Workspace, _ []authz.Grant) error {
		live := 0
		for _, t := range w.Tokens {
			if t.Principal.ID == by.ID && t.Live(time.Now()) {
				live++
			}
		}
		most := w.SignIn.PersonalTokens
		switch p := w.people[by.ID]; {
		case p == nil || w.principals[by.ID].Disabled:
			return protocol.Errorf(protocol.CodeDenied, "only people have personal tokens")
		case most == 0:
			return &protocol.Error{Code: protocol.CodeDenied, Rule: "sign_in.personal_tokens", Message: "the workspace admits no personal tokens", Hint: "an admin can allow them: fairlead sign-in-policy set --personal-tokens 30d"}
		case n.Life > most:
			return &protocol.Error{Code: protocol.CodeDenied, Rule: "sign_in.personal_tokens", Message: "the workspace admits personal tokens, but not for so long", Hint: "give at most " + most.String()}
		case live >= MaxPersonal:
			return &protocol.Error{Code: protocol.CodeTooLarge, Message: "you have too many tokens", Hint: "revoke those that you do not need: fairlead tokens list --mine"}
		}
		return nil
	})
}

// RevokePersonalToken refuses a token of the person who asks from now on.
func (d *Directory) RevokePersonalToken(ctx context.Context, by By, workspace, id string) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	return d.guarded(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		i := slices.IndexFunc(w.Tokens, func(t *Token) bool { return t.ID == id && t.Principal.ID == by.ID })
		if i < 0 || w.people[by.ID] == nil {
			return noToken()
		}
		return as(tx.RevokeAPIToken(w.ID, id, toMs(now())), noToken(), nil)
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
	return d.createToken(ctx, nil, w, n, func(*Workspace, []authz.Grant) error { return nil })
}

// createToken makes a token that by asks for, nil for who runs the relay's host.
func (d *Directory) createToken(ctx context.Context, by *By, w *Workspace, n NewToken, may func(*Workspace, []authz.Grant) error) (*Token, secret.Bytes, error) {
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
	judge := func(w *Workspace) (grants []authz.Grant, only *onlyBody, err error) {
		see := view{all: by == nil}
		if by != nil {
			see.at = by.At
			if see.who, err = w.asker(*by); err != nil {
				return nil, nil, err
			}
		}
		if grants, err = n.grants(w, see); err != nil {
			return nil, nil, err
		}
		if err = may(w, grants); err != nil {
			if p, missing := w.FindPrincipal(n.Principal); missing == nil {
				err = see.refused(w, p, err)
			}
			return nil, nil, err
		}
		only, err = n.Only.in(w, see)
		return grants, only, err
	}
	if _, _, err := judge(w); err != nil {
		return nil, none, err
	}
	text, digest, verifier, err := d.newTokenText()
	if err != nil {
		return nil, none, err
	}
	id, principal, at := NewID(tokenID), "", now()
	err = d.judged(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		// Again: the slow hash took its time, and who asks may have lost the right meanwhile, or the principal got others.
		grants, only, err := judge(w)
		if err != nil {
			return err
		}
		if n.Principal != "" {
			p, err := w.FindPrincipal(n.Principal)
			if err != nil {
				return err
			}
			principal = p.ID
		} else {
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
		if n.Principal == "" {
			if err := d.within(tx, w.ID, QuotaServices); err != nil {
				return err
			}
		}
		err = as(d.insertToken(tx, store.APIToken{ID: id, Workspace: w.ID, Principal: principal, Digest: digest[:], Verifier: verifier,
			Created: toMs(at), Expires: toMs(at.Add(n.Life))}, n.Name, only), noPrincipal(), nil)
		return cmpErr(err, d.within(tx, w.ID, QuotaTokens))
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
func (n NewToken) grants(w *Workspace, see view) ([]authz.Grant, error) {
	if n.Principal != "" {
		p, err := w.FindPrincipal(n.Principal)
		if err != nil {
			return nil, err
		}
		if len(n.Roles)+len(n.Connections) > 0 {
			return nil, invalid("the principal has its own grants", "leave roles and connections out, or the principal; what the token shall be limited to stands in only")
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
		c, err := see.connection(w, name)
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
	return d.guarded(ctx, w.ID, func(tx *store.Tx, _ *Workspace) error {
		return as(tx.SetPrincipalState(w.ID, id, stateOf(disabled)), noPrincipal(), nil)
	})
}

func stateOf(disabled bool) string {
	if disabled {
		return stateDisabled
	}
	return stateActive
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

func (d *Directory) insertToken(tx *store.Tx, t store.APIToken, name string, only *onlyBody) (err error) {
	t.Version = 1
	t.Sealed, err = seal(d.vault, place(t.Workspace, "api_tokens", t.ID, 1), tokenBody{Name: name, Principal: t.Principal, Digest: t.Digest,
		Verifier: t.Verifier, Expires: t.Expires, Only: only})
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
