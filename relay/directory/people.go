package directory

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// OneTimePrefix begins a code that sets a password; 43 characters of base64url follow.
const OneTimePrefix = "fli_"

// Limits of people.
const (
	InviteLife    = 24 * time.Hour   // of the code for a first password, when none is given
	ResetLife     = 15 * time.Minute // of a code for who has a password
	MaxInviteLife = 14 * 24 * time.Hour
	RecoveryCodes = 10
	enrolLife     = 15 * time.Minute // from a second factor's secret to the code that proves it
	knownNetworks = 8                // places that a person signed in from, remembered
)

// Person is who signs in with a password. One person may stand in several workspaces, in each as a principal of its own. Its
// credentials are opened only when they are needed.
type Person struct {
	ID, Home     string // Home is the workspace whose admins may give it a new password
	Created      time.Time
	PasswordSet  time.Time // zero: it has none yet
	SecondFactor time.Time // since when it has one; zero: it has none
	Recovery     int       // recovery codes left
	InvitedUntil time.Time // until when a one-time code is open; zero: none
	Email        string    // "": none is known
	Passkeys     []*Passkey

	known    [][]byte // keyed digests of networks that it signed in from
	emailSet int64
	emailBy  *giver
	version  int64
	sealed   []byte
}

// personBody repeats the id and home, so that credentials that were moved to another person are noticed.
type personBody struct {
	ID           string   `json:"id"`
	Home         string   `json:"home"`
	Verifier     string   `json:"verifier,omitempty"`
	Old          []string `json:"old,omitempty"` // earlier verifiers, the newest first
	PasswordSet  int64    `json:"password_set,omitempty"`
	Secret       []byte   `json:"secret,omitempty"` // of the second factor
	SecondFactor int64    `json:"second_factor,omitempty"`
	Step         int64    `json:"step,omitempty"` // of the code that was accepted last
	Recovery     [][]byte `json:"recovery,omitempty"`
	Next         []byte   `json:"next,omitempty"` // a secret that no code has proven yet
	NextUntil    int64    `json:"next_until,omitempty"`
	Invite       []byte   `json:"invite,omitempty"` // keyed digest of the one-time code
	InviteUntil  int64    `json:"invite_until,omitempty"`
	InviteBy     *giver   `json:"invite_by,omitempty"`
	Mailed       bool     `json:"mailed,omitempty"` // the code went to the address
	Known        [][]byte `json:"known,omitempty"`  // keyed digests of networks that it signed in from, the newest first
	Email        string   `json:"email,omitempty"`
	EmailSet     int64    `json:"email_set,omitempty"`
	EmailBy      *giver   `json:"email_by,omitempty"`
}

// PersonOf gives the person that a principal (by id) is; nil for none.
func (w *Workspace) PersonOf(principal string) *Person { return w.people[principal] }

// User finds a person of the workspace by its name there; nil, nil when there is none. The name is taken in any case.
func (w *Workspace) User(name string) (*Principal, *Person) {
	p := w.users[UserName(name)]
	if p == nil {
		return nil, nil
	}
	return p, w.people[p.ID]
}

// Users lists the principals that are people, in the order of names.
func (w *Workspace) Users() []*Principal {
	var out []*Principal
	for _, p := range w.Principals {
		if w.people[p.ID] != nil {
			out = append(out, p)
		}
	}
	return out
}

// Elsewhere lists, as principals of other workspaces, people who would go from there with their home: principal alone, or everybody
// whose home the workspace is for "".
func (s *Snapshot) Elsewhere(w *Workspace, principal string) []*Principal {
	var out []*Principal
	only := w.people[principal]
	for _, o := range s.workspaces {
		for id, p := range o.people {
			if o != w && p.Home == w.ID && (principal == "" || p == only) {
				out = append(out, o.principals[id])
			}
		}
	}
	return out
}

// UserName is the one form of a user's name: small letters, no blanks around. Names are plain ASCII (CreateUser refuses others),
// so that no two look the same and none has a twin.
func UserName(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

func checkUserName(s string) error {
	ok := s != "" && len(s) <= MaxLabel
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		ok = alnum || i > 0 && strings.IndexByte("_-.@+", c) >= 0
	}
	if !ok || looksLikeID(s) {
		return invalid("the user name is not usable", fmt.Sprintf("use 1 to %d small letters, digits or \"_-.@+\", beginning with a letter or digit", MaxLabel))
	}
	return nil
}

func noUser() *protocol.Error { return protocol.Errorf(protocol.CodeNotFound, "no such user") }

// NewUser says whom to take into a workspace.
type NewUser struct {
	Name   string
	Roles  []authz.Role
	Person string        // id of somebody who has signed in elsewhere in this installation; empty: a new person
	Life   time.Duration // of the one-time code of a new person; 0: InviteLife
	Email  string        // of a new person; may be empty
}

// CreateUser takes a person into a workspace, with roles on all of it. by may give no more than it holds itself (denied). For a
// new person it gives the one-time code that sets the first password; it is not kept.
func (d *Directory) CreateUser(ctx context.Context, by By, workspace string, n NewUser) (*Principal, secret.Bytes, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	return d.createUser(ctx, w, n, w.givenBy(by, authz.UsersCreate), func(w *Workspace) error {
		var grants []authz.Grant
		for _, r := range n.Roles {
			grants = append(grants, authz.Grant{Role: r, Workspace: w.ID})
		}
		return w.holds(by, authz.UsersCreate, "you cannot give a role that you do not hold yourself", grants...)
	})
}

// CreateAdminUser makes an admin, or a new one-time code for one who is there, without asking who wants it: for the command line
// of who runs the relay's host and holds its keys, never for a route.
func (d *Directory) CreateAdminUser(ctx context.Context, workspace, name string, life time.Duration) (secret.Bytes, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return secret.Bytes{}, err
	}
	if _, p := w.User(name); p != nil {
		c, err := d.newCode(life, &giver{Host: true}, false)
		if err != nil {
			return secret.Bytes{}, err
		}
		return c.text, d.changePerson(ctx, p.ID, func(_ *store.Tx, b *personBody) error { c.into(b); return nil })
	}
	_, code, err := d.createUser(ctx, w, NewUser{Name: name, Roles: []authz.Role{authz.Admin}, Life: life}, &giver{Host: true}, func(*Workspace) error { return nil })
	return code, err
}

func (d *Directory) createUser(ctx context.Context, w *Workspace, n NewUser, by *giver, may func(*Workspace) error) (*Principal, secret.Bytes, error) {
	none := secret.Bytes{}
	n.Name = UserName(n.Name)
	if err := checkUserName(n.Name); err != nil {
		return nil, none, err
	}
	if len(n.Roles) == 0 {
		return nil, none, invalid("the user has no role", "use owner, admin, operator or analyst")
	}
	for _, r := range n.Roles {
		if _, err := authz.ParseRole(string(r)); err != nil {
			return nil, none, err
		}
	}
	c, err := d.newCode(n.Life, by, false) // whoever gave the code gave the address, too: it is judged either way
	if err != nil {
		return nil, none, err
	}
	if n.Email, err = checkEmail(n.Email); err != nil {
		return nil, none, err
	}
	if n.Email != "" && n.Person != "" {
		return nil, none, invalid("the person has its e-mail address from its home workspace", "leave the address out")
	}
	code, at, id := c.text, now(), NewID("usr")
	err = d.judged(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		if err := may(w); err != nil {
			return err
		}
		if err := d.insertUser(tx, w.ID, id, n, c, by, at); err != nil {
			return err
		}
		return d.within(tx, w.ID, QuotaUsers)
	})
	if err != nil {
		return nil, none, err
	}
	if n.Person != "" {
		code = none
	}
	if p := d.Snapshot().before(w.ID).Principal(id); p != nil {
		return p, code, nil
	}
	return nil, none, noUser() // deleted in the same moment
}

// insertUser makes a principal (id) for a person, with roles on all of a workspace's id. A new person gets the code.
func (d *Directory) insertUser(tx *store.Tx, workspace, id string, n NewUser, c oneTime, by *giver, at time.Time) error {
	if err := d.insertPrincipal(tx, workspace, id, n.Name, authz.User, at); err != nil {
		return as(err, nil, &protocol.Error{Code: protocol.CodeConflict, Message: "a principal of this name exists", Hint: "choose another name"})
	}
	for i, r := range n.Roles {
		if slices.Contains(n.Roles[:i], r) {
			continue
		}
		if err := d.insertGrant(tx, store.Grant{Workspace: workspace, Principal: id, Role: string(r), Created: toMs(at)}, nil); err != nil {
			return err
		}
	}
	person := n.Person
	if person == "" {
		person = NewID("per")
		b := personBody{ID: person, Home: workspace, Email: n.Email}
		c.into(&b)
		if n.Email != "" {
			b.EmailSet, b.EmailBy = toMs(at), by
		}
		sealed, err := seal(d.vault, place(workspace, "people", person, 1), b)
		if err != nil {
			return err
		}
		if err := tx.InsertPerson(store.Person{ID: person, Home: workspace, Created: toMs(at), Version: 1, Sealed: sealed}); err != nil {
			return err
		}
	}
	m := store.User{Principal: id, Workspace: workspace, Person: person}
	tag, err := userTag(d.vault, m)
	if err != nil {
		return err
	}
	m.Tag = tag
	return as(tx.InsertUser(m), &protocol.Error{Code: protocol.CodeNotFound, Message: "no such person", Hint: `a person's id is what "fairlead account" shows`},
		protocol.Errorf(protocol.CodeConflict, "the person belongs to the workspace already"))
}

// userTag binds every column of a user under the workspace's key.
func userTag(v *vault.Vault, m store.User) ([]byte, error) {
	d, err := v.Digest(m.Workspace, vault.User, strings.Join([]string{m.Principal, m.Person}, "\n"))
	return d[:], err
}

// user finds a principal that is a person.
func (d *Directory) user(workspace, principal string) (*Workspace, *Person, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, nil, err
	}
	p := w.people[principal]
	if p == nil {
		return nil, nil, noUser()
	}
	return w, p, nil
}

func (d *Directory) dropFactor(tx *store.Tx, b *personBody, but string) error {
	b.Secret, b.SecondFactor, b.Recovery, b.Next, b.NextUntil = nil, 0, nil, nil, 0 // the step stays: an old code never counts again
	_, err := tx.DeleteSessionsOf(b.ID, but)
	return err
}

// changePerson changes a person's body in a transaction of its own.
func (d *Directory) changePerson(ctx context.Context, id string, f func(*store.Tx, *personBody) error) error {
	return d.change(ctx, func(tx *store.Tx) error { return d.editPerson(tx, id, f) })
}

func (d *Directory) editPerson(tx *store.Tx, id string, f func(*store.Tx, *personBody) error) error {
	r, err := tx.Person(id)
	if err != nil {
		return as(err, noUser(), nil)
	}
	b, err := openPerson(d.vault, r)
	if err != nil {
		return err
	}
	if err := f(tx, &b); err != nil {
		return err
	}
	r.Version++
	if r.Sealed, err = seal(d.vault, place(r.Home, "people", r.ID, r.Version), b); err != nil {
		return err
	}
	return as(tx.UpdatePerson(r), protocol.Errorf(protocol.CodeConflict, "the user was changed meanwhile"), nil)
}

func openPerson(v *vault.Vault, r store.Person) (b personBody, err error) {
	if err = open(v, place(r.Home, "people", r.ID, r.Version), r.Sealed, &b); err != nil {
		return b, err
	}
	if b.ID != r.ID || b.Home != r.Home {
		return b, fmt.Errorf("person %s was not written by a relay of this installation", r.ID)
	}
	return b, nil
}

// body opens a person's credentials as the snapshot has them.
func (d *Directory) body(p *Person) (personBody, error) {
	return openPerson(d.vault, store.Person{ID: p.ID, Home: p.Home, Version: p.version, Sealed: p.sealed})
}

// VerifyPassword tells whether a password, in its normal form, is the person's. It takes as long for nil, for a person without a
// password and for a verifier with fewer rounds. verifier is what it was held against; stale says that it should be made anew.
func (d *Directory) VerifyPassword(p *Person, normal string) (ok, stale bool, verifier string) {
	if p != nil {
		if b, err := d.body(p); err == nil {
			verifier = b.Verifier
		}
	}
	ok, stale = vault.VerifyIn(verifier, normal, d.conf.PasswordRounds)
	return ok && p != nil, stale, verifier
}

// NewPasswordVerifier is the slow hash of a password in its normal form.
func (d *Directory) NewPasswordVerifier(normal string) (string, error) {
	return vault.NewVerifierOf(normal, d.conf.PasswordRounds)
}

// JudgePassword refuses a password, in its normal form, that the person's home workspace does not admit. Each password of the
// history costs a slow hash.
func (d *Directory) JudgePassword(p *Person, user, normal string) error {
	pol := d.Snapshot().before(p.Home).SignIn
	if err := pol.Judge(normal, user, pol.SecondFactor, d.conf.Leaked); err != nil {
		return err
	}
	b, err := d.body(p)
	if err != nil {
		return err
	}
	for i, v := range append([]string{b.Verifier}, b.Old...) {
		if i > 0 && i >= pol.History {
			break
		}
		if v != "" && vault.Verify(v, normal) {
			return invalid("the password was used before", "choose one that is new")
		}
	}
	return nil
}

// SetPassword puts a verifier in force if the one that was checked (was) still is, and ends the person's sessions but one.
func (d *Directory) SetPassword(ctx context.Context, p *Person, was, verifier, but string) error {
	return d.changePerson(ctx, p.ID, func(tx *store.Tx, b *personBody) error {
		if b.Verifier != was {
			return protocol.Errorf(protocol.CodeConflict, "the password was changed meanwhile")
		}
		return d.putPassword(tx, b, verifier, but)
	})
}

func (d *Directory) putPassword(tx *store.Tx, b *personBody, verifier, but string) error {
	if b.Verifier != "" {
		b.Old = append([]string{b.Verifier}, b.Old...)
		b.Old = b.Old[:min(len(b.Old), maxOldPasswords)]
	}
	b.Verifier, b.PasswordSet = verifier, toMs(now())
	b.closeCode()
	_, err := tx.DeleteSessionsOf(b.ID, but)
	return err
}

const maxOldPasswords = 10
