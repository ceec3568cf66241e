package directory

import (
	"context"
	"crypto/subtle"
	"errors"
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
	Known        [][]byte `json:"known,omitempty"` // keyed digests of networks that it signed in from, the newest first
	Email        string   `json:"email,omitempty"`
	EmailSet     int64    `json:"email_set,omitempty"`
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
	return d.createUser(ctx, w, n, func(w *Workspace) error {
		var grants []authz.Grant
		for _, r := range n.Roles {
			grants = append(grants, authz.Grant{Role: r, Workspace: w.ID})
		}
		return w.holds(by, "you cannot give a role that you do not hold yourself", grants...)
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
		code, _, err := d.issueCode(ctx, p, life)
		return code, err
	}
	_, code, err := d.createUser(ctx, w, NewUser{Name: name, Roles: []authz.Role{authz.Admin}, Life: life}, func(*Workspace) error { return nil })
	return code, err
}

func (d *Directory) createUser(ctx context.Context, w *Workspace, n NewUser, may func(*Workspace) error) (*Principal, secret.Bytes, error) {
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
	life, err := inviteLife(n.Life, InviteLife)
	if err != nil {
		return nil, none, err
	}
	if n.Email, err = checkEmail(n.Email); err != nil {
		return nil, none, err
	}
	if n.Email != "" && n.Person != "" {
		return nil, none, invalid("the person has its e-mail address from its home workspace", "leave the address out")
	}
	code, at := secret.FromString(OneTimePrefix+randomText()), now()
	digest, err := d.vault.Digest("", vault.OneTimeCode, code.ExposeString())
	if err != nil {
		return nil, none, err
	}
	id, person := NewID("usr"), n.Person
	err = d.judged(ctx, w.ID, func(tx *store.Tx, w *Workspace) error {
		if err := may(w); err != nil {
			return err
		}
		if err := d.insertPrincipal(tx, w.ID, id, n.Name, authz.User, at); err != nil {
			return as(err, nil, &protocol.Error{Code: protocol.CodeConflict, Message: "a principal of this name exists", Hint: "choose another name"})
		}
		for i, r := range n.Roles {
			if slices.Contains(n.Roles[:i], r) {
				continue
			}
			if err := d.insertGrant(tx, store.Grant{Workspace: w.ID, Principal: id, Role: string(r), Created: toMs(at)}, nil); err != nil {
				return err
			}
		}
		if person == "" {
			person = NewID("per")
			b := personBody{ID: person, Home: w.ID, Invite: digest[:], InviteUntil: toMs(at.Add(life)), Email: n.Email}
			if n.Email != "" {
				b.EmailSet = toMs(at)
			}
			sealed, err := seal(d.vault, place(w.ID, "people", person, 1), b)
			if err != nil {
				return err
			}
			if err := tx.InsertPerson(store.Person{ID: person, Home: w.ID, Created: toMs(at), Version: 1, Sealed: sealed}); err != nil {
				return err
			}
		}
		m := store.User{Principal: id, Workspace: w.ID, Person: person}
		tag, err := userTag(d.vault, m)
		if err != nil {
			return err
		}
		m.Tag = tag
		err = as(tx.InsertUser(m), &protocol.Error{Code: protocol.CodeNotFound, Message: "no such person", Hint: `a person's id is what "fairlead account" shows`},
			protocol.Errorf(protocol.CodeConflict, "the person belongs to the workspace already"))
		return cmpErr(err, d.within(tx, w.ID, QuotaUsers))
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

func inviteLife(life, usual time.Duration) (time.Duration, error) {
	if life == 0 {
		life = usual
	}
	if life < time.Minute || life > MaxInviteLife {
		return 0, invalid("the code's life is out of range", "give 1 minute to 14 days")
	}
	return life, nil
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

// atHome is user for what only the home workspace's admins may do: whoever sets a password is that person, everywhere.
func (d *Directory) atHome(workspace, principal string) (*Workspace, *Person, error) {
	w, p, err := d.user(workspace, principal)
	if err == nil && p.Home != w.ID {
		err = &protocol.Error{Code: protocol.CodeDenied, Message: "another workspace keeps this person's credentials", Hint: "the person asks an admin there; here you can disable or remove the user"}
	}
	return w, p, err
}

// MayActFor refuses (denied) who holds less than a user of the workspace does: whoever sets a password can do what its owner can,
// and nobody is to be shut out by who stands below.
func (d *Directory) MayActFor(by By, w *Workspace, principal string) error {
	target := w.Principal(principal)
	if target == nil {
		return noUser()
	}
	return w.holds(by, "the user holds a role that you do not hold yourself", target.Grants...)
}

// holds refuses (denied) a principal that could not give each of the grants itself, by what it holds in this snapshot.
func (w *Workspace) holds(by By, otherwise string, grants ...authz.Grant) error {
	p, err := w.asker(by)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if !authz.MayGive(p, g, w.scope(g), authz.UsersManage, by.At) {
			return &protocol.Error{Code: protocol.CodeDenied, Message: otherwise, Hint: "ask an admin of the workspace; about an owner, an owner"}
		}
	}
	return nil
}

// IssueCode gives a new one-time code that sets a user's password; one that was open counts no more. The user's password and
// sessions stay until the code is used, and the second factor beyond that. by may not hold less than the user (denied).
func (d *Directory) IssueCode(ctx context.Context, by By, workspace, principal string, life time.Duration) (secret.Bytes, time.Time, error) {
	w, p, err := d.atHome(workspace, principal)
	if err == nil {
		err = d.MayActFor(by, w, principal)
	}
	if err != nil {
		return secret.Bytes{}, time.Time{}, err
	}
	return d.issueCode(ctx, p, life)
}

func (d *Directory) issueCode(ctx context.Context, p *Person, life time.Duration) (_ secret.Bytes, _ time.Time, err error) {
	usual := InviteLife
	if !p.PasswordSet.IsZero() {
		usual = ResetLife
	}
	if life, err = inviteLife(life, usual); err != nil {
		return secret.Bytes{}, time.Time{}, err
	}
	code, until := secret.FromString(OneTimePrefix+randomText()), now().Add(life)
	digest, err := d.vault.Digest("", vault.OneTimeCode, code.ExposeString())
	if err != nil {
		return secret.Bytes{}, time.Time{}, err
	}
	return code, until, d.changePerson(ctx, p.ID, func(_ *store.Tx, b *personBody) error {
		b.Invite, b.InviteUntil = digest[:], toMs(until)
		return nil
	})
}

// RemoveUser takes a user out of a workspace; at home, the person is gone for good, in other workspaces too.
func (d *Directory) RemoveUser(ctx context.Context, workspace, principal string) error {
	w, _, err := d.user(workspace, principal)
	if err != nil {
		return err
	}
	return d.guarded(ctx, w.ID, func(tx *store.Tx, _ *Workspace) error { return as(tx.DeleteUser(w.ID, principal), noUser(), nil) })
}

// ResetSecondFactor takes a user's second factor and passkeys away, for who lost them, and ends all sessions. by may not hold less than the user
// (denied).
func (d *Directory) ResetSecondFactor(ctx context.Context, by By, workspace, principal string) error {
	w, p, err := d.atHome(workspace, principal)
	if err == nil {
		err = d.MayActFor(by, w, principal)
	}
	if err != nil {
		return err
	}
	return d.changePerson(ctx, p.ID, func(tx *store.Tx, b *personBody) error {
		if err := tx.DeletePasskeysOf(p.ID); err != nil {
			return err
		}
		return d.dropFactor(tx, b, "")
	})
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
	b.Invite, b.InviteUntil = nil, 0
	_, err := tx.DeleteSessionsOf(b.ID, but)
	return err
}

const maxOldPasswords = 10

// CheckCode tells whether a one-time code is the person's and open. It takes no slow hash: the code has 256 random bits.
func (d *Directory) CheckCode(p *Person, code string) bool {
	if p == nil {
		return false
	}
	b, err := d.body(p)
	return err == nil && d.isInvite(&b, code)
}

func (d *Directory) isInvite(b *personBody, code string) bool {
	digest, err := d.vault.Digest("", vault.OneTimeCode, code)
	return err == nil && len(b.Invite) == len(digest) && subtle.ConstantTimeCompare(b.Invite, digest[:]) == 1 && toMs(now()) < b.InviteUntil
}

// ErrCode says that a code is not good: wrong, used, or expired.
var ErrCode = errors.New("the code is not good")

// TakeCode sets a password by a one-time code, of any number of callers once, and ends all sessions (ErrCode).
func (d *Directory) TakeCode(ctx context.Context, p *Person, code, verifier string) error {
	return d.changePerson(ctx, p.ID, func(tx *store.Tx, b *personBody) error {
		if !d.isInvite(b, code) {
			return ErrCode
		}
		return d.putPassword(tx, b, verifier, "")
	})
}
