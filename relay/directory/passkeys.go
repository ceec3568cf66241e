package directory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/passkey"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// MaxPasskeys of one person.
const MaxPasskeys = 10

// Passkey is one of a person. Its key and counter are opened only when they are needed.
type Passkey struct {
	ID, Person, Label  string
	Created            time.Time
	LastUsed           time.Time // zero: never since it was added
	Suspect            time.Time // since when it is refused, for its counter went back: there may be a copy. Zero: it is not
	Eligible, BackedUp bool      // it may be copied to other devices by who made it, and has been
	Bound              bool      // to the relay's name of today; others do not count, for no browser shows them

	digest [32]byte
	row    store.Passkey
}

// passkeyBody repeats the id, the person and the digest, so that a row that was moved is noticed.
type passkeyBody struct {
	ID       string             `json:"id"`
	Person   string             `json:"person"`
	Digest   []byte             `json:"digest"`
	Label    string             `json:"label"`
	RP       string             `json:"rp"`
	Key      passkey.Credential `json:"key"`
	LastUsed int64              `json:"last_used,omitempty"`
	Suspect  int64              `json:"suspect,omitempty"`
}

func openPasskey(v *vault.Vault, r store.Passkey) (b passkeyBody, err error) {
	if err = open(v, place(r.Home, "passkeys", r.ID, r.Version), r.Sealed, &b); err != nil {
		return b, err
	}
	if b.ID != r.ID || b.Person != r.Person || !bytes.Equal(b.Digest, r.Digest) {
		return b, fmt.Errorf("passkey %s was not written by a relay of this installation", r.ID)
	}
	return b, nil
}

// addPasskeys reads passkeys, and gives those of each person, the oldest first.
func (s *Snapshot) addPasskeys(v *vault.Vault, st *store.State, prev *Snapshot) (map[string][]*Passkey, error) {
	s.passkeys = make(map[[32]byte]*Passkey, len(st.Passkeys))
	of := map[string][]*Passkey{}
	homes := make(map[string]string, len(st.People))
	for _, r := range st.People {
		homes[r.ID] = r.Home
	}
	for _, r := range st.Passkeys {
		if homes[r.Person] != r.Home || len(r.Digest) != 32 {
			return nil, fmt.Errorf("passkey %s has no person or no digest", r.ID)
		}
		digest := [32]byte(r.Digest)
		k := (*Passkey)(nil)
		if prev != nil {
			k = prev.passkeys[digest]
		}
		if k == nil || k.row.ID != r.ID || k.row.Person != r.Person || k.row.Created != r.Created || !bytes.Equal(k.row.Sealed, r.Sealed) {
			b, err := openPasskey(v, r)
			if err != nil {
				return nil, err
			}
			k = &Passkey{ID: r.ID, Person: r.Person, Label: b.Label, Created: fromMs(r.Created), LastUsed: fromMs(b.LastUsed), Suspect: fromMs(b.Suspect),
				Eligible: b.Key.Eligible, BackedUp: b.Key.BackedUp, Bound: s.rp != "" && b.RP == s.rp, digest: digest, row: r}
		}
		s.passkeys[digest] = k
		of[r.Person] = append(of[r.Person], k)
	}
	for _, l := range of {
		slices.SortFunc(l, func(a, b *Passkey) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	}
	return of, nil
}

// with is the person with passkeys; a snapshot that others read is not changed.
func (p *Person) with(keys []*Passkey) *Person {
	if slices.Equal(p.Passkeys, keys) {
		return p
	}
	c := *p
	c.Passkeys = keys
	return &c
}

// HoldsPasskey tells whether the person has a passkey that counts: a password alone then proves nothing where a proof is wanted. One
// that is suspect counts.
func (p *Person) HoldsPasskey() bool {
	return slices.ContainsFunc(p.Passkeys, func(k *Passkey) bool { return k.Bound })
}

// UsablePasskey tells whether it has one that lets it in.
func (p *Person) UsablePasskey() bool { return usable(p.Passkeys) }

func usable(l []*Passkey) bool {
	return slices.ContainsFunc(l, func(k *Passkey) bool { return k.Bound && k.Suspect.IsZero() })
}

// lacks tells whether the person has not what a workspace demands of everybody.
func (p *Person) lacks(s SignIn) bool {
	strong := s.Passkeys != PasskeysOff && p.UsablePasskey()
	return s.SecondFactor && p.SecondFactor.IsZero() && !strong || s.Passkeys == PasskeysRequired && !strong
}

func passkeyTags(p *Person) (l []string) {
	for _, k := range p.Passkeys {
		l = append(l, k.ETag())
	}
	return l
}

// ETag names the passkey, and whether it is suspect.
func (k *Passkey) ETag() string { return tag("passkey", k.ID, k.Label, k.Suspect) }

// Passkey finds a passkey of any person by what an authenticator calls it; nil for none, and for one that is bound to another name.
func (s *Snapshot) Passkey(credential []byte) *Passkey {
	if s.passkeyDigest == nil {
		return nil
	}
	digest, err := s.passkeyDigest(string(credential))
	if err != nil {
		return nil
	}
	if k := s.passkeys[digest]; k != nil && k.Bound {
		return k
	}
	return nil
}

// Person finds somebody by id; nil for none.
func (s *Snapshot) Person(id string) *Person { return s.people[id] }

// Where gives the workspaces that a person belongs to, by name, with what it is there.
func (s *Snapshot) Where(person string) (ws []*Workspace, as []*Principal) {
	for _, w := range s.workspaces {
		for id, p := range w.people {
			if p.ID == person {
				ws, as = append(ws, w), append(as, w.principals[id])
			}
		}
	}
	return ws, as
}

// AtHome gives the home workspace of a person, with what it is there; nil when it is gone.
func (s *Snapshot) AtHome(p *Person) (*Workspace, *Principal) {
	w := s.byID[p.Home]
	if w == nil {
		return nil, nil
	}
	for id, q := range w.people {
		if q.ID == p.ID {
			return w, w.principals[id]
		}
	}
	return w, nil
}

// Credential opens what an answer of the passkey is held against.
func (d *Directory) Credential(k *Passkey) (passkey.Credential, error) {
	b, err := openPasskey(d.vault, k.row)
	return b.Key, err
}

// Credentials opens those of a person that an authenticator may use.
func (d *Directory) Credentials(p *Person) (l []passkey.Credential, _ error) {
	for _, k := range p.Passkeys {
		if k.Bound {
			c, err := d.Credential(k)
			if err != nil {
				return nil, err
			}
			l = append(l, c)
		}
	}
	return l, nil
}

// Choices of a workspace about passkeys.
const (
	PasskeysAllowed  = "allowed"
	PasskeysRequired = "required" // a session that began without is good for adding one, and for nothing else
	PasskeysOff      = "off"      // nobody signs in by one, and none counts as a second factor
)

// PasskeysAreOff refuses what wants passkeys on a relay that has none.
func PasskeysAreOff() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginRelay, Message: "this relay has no passkeys", Hint: "the relay's operator can set sign_in.passkeys in relay.yaml"}
}

// byPasskey tells whether a passkey's proof counts for the session.
func (s *Session) byPasskey() bool {
	return s.ByPasskey && s.policy.Passkeys != PasskeysOff && s.Person.HoldsPasskey()
}

// Needs says what the session lacks, "" when nothing. A passkey stands for password and second factor. Who has one and no other
// second factor must show it where a factor is demanded: a password alone must not be enough to add another.
func (s *Session) Needs(now time.Time) string {
	has := !s.Person.SecondFactor.IsZero()
	switch {
	case s.policy.Passkeys == PasskeysRequired && !s.byPasskey():
		return NeedsPasskey
	case s.byPasskey():
		return ""
	case has && !s.ByCode:
		return NeedsCode
	case s.policy.SecondFactor && !has && s.policy.Passkeys != PasskeysOff && s.Person.HoldsPasskey():
		return NeedsPasskey
	case s.policy.SecondFactor && !has:
		return NeedsSecondFactor
	case s.policy.MaxAgeDays > 0 && now.After(s.Person.PasswordSet.AddDate(0, 0, s.policy.MaxAgeDays)):
		return NeedsPassword
	}
	return ""
}

// Fresh tells whether the person proved not long ago that it is there: with the second factor or a passkey, if it has one that counts
// in the workspace.
func (s *Session) Fresh(now time.Time) bool {
	return s.within(s.policy.StepUp, now) && (s.Strong() || s.Person.SecondFactor.IsZero() && s.policy.Passkeys == PasskeysOff)
}

// within tells whether the last proof is not older than so long, by clocks that may differ a little.
func (s *Session) within(long time.Duration, now time.Time) bool {
	return now.Before(s.Confirmed.Add(long)) && !now.Before(s.Confirmed.Add(-time.Minute))
}

// Strong tells whether a session has shown the best that its person has; a password alone is that for who has nothing else. What was guessed or
// phished alone must not end what the person does elsewhere.
func (s *Session) Strong() bool {
	return s.ByCode || s.ByPasskey || s.Person.SecondFactor.IsZero() && !s.Person.HoldsPasskey()
}

// FreshFor tells whether a session is fresh enough to change what its person signs in with. That counts in all workspaces of the person, so
// the strictest of them decides, not the one that the session is of: how long a proof lasts, and that a passkey is wanted of who has
// one. Otherwise a code that was phished would be enough to add a passkey where a passkey is demanded.
func (s *Snapshot) FreshFor(t *Session, now time.Time) bool {
	ws, _ := s.Where(t.Person.ID)
	long, passkeys := t.policy.StepUp, t.policy.Passkeys == PasskeysRequired
	for _, w := range ws {
		p := w.SignIn.InForce()
		long, passkeys = min(long, p.StepUp), passkeys || p.Passkeys == PasskeysRequired
	}
	return t.within(long, now) && t.Strong() && (t.ByPasskey || !passkeys || !t.Person.UsablePasskey())
}

// PasskeyLabel takes what a person calls a passkey (invalid).
func PasskeyLabel(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" || len(s) > MaxLabel || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
		return "", invalid("/label: not usable", fmt.Sprintf("give 1 to %d bytes without control characters, as \"laptop\"", MaxLabel))
	}
	return s, nil
}

// MayAddPasskey refuses one more where there are as many as there may be, and where the session's workspace has none.
func (d *Directory) MayAddPasskey(s *Session) error {
	switch {
	case d.conf.PasskeyID == "":
		return PasskeysAreOff()
	case s.policy.Passkeys == PasskeysOff:
		return switchedOff()
	case len(s.Person.Passkeys) >= MaxPasskeys:
		return tooManyPasskeys()
	}
	return nil
}

func switchedOff() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeConflict, Message: "the workspace has switched passkeys off", Hint: "an admin can allow them: fairlead sign-in-policy set --passkeys allowed"}
}

// MayConfirmByPasskey refuses a proof by a passkey where the session's workspace takes none.
func (d *Directory) MayConfirmByPasskey(s *Session) error {
	if s.policy.Passkeys == PasskeysOff {
		return switchedOff()
	}
	return nil
}

func tooManyPasskeys() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeConflict, Message: fmt.Sprintf("you have %d passkeys, and there cannot be more", MaxPasskeys), Hint: "remove one first: fairlead passkeys list"}
}

// AddPasskey gives a session's person a passkey that was just proven, ends its other sessions, and gives this one a new text. One
// that somebody has already is refused (conflict), whoever it is.
func (d *Directory) AddPasskey(ctx context.Context, s *Session, label string, c passkey.Credential) (*Passkey, *Session, secret.Bytes, error) {
	none := secret.Bytes{}
	if err := d.MayAddPasskey(s); err != nil {
		return nil, nil, none, err
	}
	label, err := PasskeyLabel(label)
	if err != nil {
		return nil, nil, none, err
	}
	digest, err := d.vault.Digest("", vault.PasskeyID, string(c.ID))
	if err != nil {
		return nil, nil, none, err
	}
	r := store.Passkey{ID: NewID("pky"), Person: s.Person.ID, Home: s.Person.Home, Digest: digest[:], Created: toMs(now()), Version: 1}
	if r.Sealed, err = seal(d.vault, place(r.Home, "passkeys", r.ID, 1), passkeyBody{ID: r.ID, Person: r.Person, Digest: r.Digest, Label: label, RP: d.conf.PasskeyID, Key: c}); err != nil {
		return nil, nil, none, err
	}
	b := s.body(s.ByCode)
	b.ByPasskey = true // it was verified just now, with its user
	t, text, err := d.putSession(ctx, s.Workspace, b, func(tx *store.Tx) error {
		n, err := tx.CountPasskeys(r.Person)
		if err != nil {
			return err
		}
		if n >= MaxPasskeys {
			return tooManyPasskeys()
		}
		if err := tx.DeleteSession(s.Workspace, s.ID); err != nil {
			return as(err, noSession(), nil)
		}
		if _, err := tx.DeleteSessionsOf(r.Person, ""); err != nil {
			return err
		}
		return as(tx.InsertPasskey(r), noUser(), &protocol.Error{Code: protocol.CodeConflict, Message: "the passkey is registered already", Hint: "make a new one: another authenticator, or remove it there first"})
	})
	if err != nil {
		return nil, nil, none, err
	}
	for _, k := range t.Person.Passkeys {
		if k.ID == r.ID {
			return k, t, text, nil
		}
	}
	return nil, nil, none, noPasskey() // removed in the same moment
}

func noPasskey() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "no such passkey", Hint: "list them: fairlead passkeys list"}
}

// RemovePasskey takes one of a person's passkeys away and ends its sessions but one, unless a workspace that it belongs to demands
// what the person then lacks (conflict).
func (d *Directory) RemovePasskey(ctx context.Context, p *Person, id, but string) error {
	return d.judgedIn(ctx, p.Home, func(tx *store.Tx, s *Snapshot, _ *Workspace) error {
		is := s.people[p.ID]
		if is == nil || !slices.ContainsFunc(is.Passkeys, func(k *Passkey) bool { return k.ID == id }) {
			return noPasskey()
		}
		left := *is
		left.Passkeys = slices.DeleteFunc(slices.Clone(is.Passkeys), func(k *Passkey) bool { return k.ID == id })
		if err := s.spares(is, &left); err != nil {
			return err
		}
		if err := tx.DeletePasskey(p.ID, id); err != nil {
			return as(err, noPasskey(), nil)
		}
		_, err := tx.DeleteSessionsOf(p.ID, but)
		return err
	})
}

// spares refuses (conflict) what takes from a person what a workspace that it belongs to demands.
func (s *Snapshot) spares(is, left *Person) error {
	ws, _ := s.Where(is.ID)
	loses := func(s SignIn) bool { return left.lacks(s) && !is.lacks(s) }
	for _, w := range ws {
		demands := w.SignIn
		if demands.SecondFactor = false; loses(demands) {
			return &protocol.Error{Code: protocol.CodeConflict, Message: "a workspace that you belong to demands a passkey", Hint: "add another one first"}
		}
		if demands = w.SignIn; demands.Passkeys == PasskeysRequired {
			demands.Passkeys = PasskeysAllowed
		}
		if !loses(demands) {
			continue
		}
		return &protocol.Error{Code: protocol.CodeConflict, Message: "a workspace that you belong to demands a second factor", Hint: "put another in its place: fairlead second-factor add, or another passkey"}
	}
	return nil
}

// editPasskey changes a passkey's body within a transaction.
func (d *Directory) editPasskey(tx *store.Tx, id string, f func(*passkeyBody) error) error {
	r, err := tx.Passkey(id)
	if err != nil {
		return as(err, noPasskey(), nil)
	}
	b, err := openPasskey(d.vault, r)
	if err != nil {
		return err
	}
	if err := f(&b); err != nil {
		return err
	}
	r.Version++
	if r.Sealed, err = seal(d.vault, place(r.Home, "passkeys", r.ID, r.Version), b); err != nil {
		return err
	}
	return as(tx.UpdatePasskey(r), protocol.Errorf(protocol.CodeConflict, "the passkey was changed meanwhile"), nil)
}

// SuspectPasskey marks a passkey as one that may have a copy. It lets nobody in any more, and all sessions of its person end: who has
// the copy may have been first.
func (d *Directory) SuspectPasskey(ctx context.Context, k *Passkey) error {
	return d.change(ctx, func(tx *store.Tx) error {
		if err := d.editPasskey(tx, k.ID, func(b *passkeyBody) error {
			b.Suspect = cmp.Or(b.Suspect, toMs(now()))
			return nil
		}); err != nil {
			return err
		}
		_, err := tx.DeleteSessionsOf(k.Person, "")
		return err
	})
}

// usePasskey notes a proof (ErrCode: the passkey is suspect, or its counter has moved on meanwhile).
func (d *Directory) usePasskey(tx *store.Tx, k *Passkey, u passkey.Used) error {
	return d.editPasskey(tx, k.ID, func(b *passkeyBody) error {
		if b.Suspect != 0 || u.Back || u.Count <= b.Key.Count && (u.Count != 0 || b.Key.Count != 0) {
			return ErrCode
		}
		b.Key.Count, b.Key.BackedUp, b.LastUsed = u.Count, u.BackedUp, toMs(now())
		return nil
	})
}

// PasskeySession says whose session to begin by a passkey, whose answer was verified.
type PasskeySession struct {
	NewSession // without what concerns passwords and codes
	Passkey    *Passkey
	Used       passkey.Used
}

// RenewSession gives a session a new text and leaves it as fresh as it was.
func (d *Directory) RenewSession(ctx context.Context, s *Session) (*Session, secret.Bytes, error) {
	b := s.body(s.ByCode)
	b.Confirmed = toMs(s.Confirmed)
	return d.putSession(ctx, s.Workspace, b, func(tx *store.Tx) error { return as(tx.DeleteSession(s.Workspace, s.ID), noSession(), nil) })
}

// BeginPasskeySession begins a session by a passkey (ErrCode), in one step with the passkey's counter.
func (d *Directory) BeginPasskeySession(ctx context.Context, workspace string, n PasskeySession) (*Session, secret.Bytes, error) {
	w, p, err := d.user(workspace, n.Principal)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	if p.ID != n.Passkey.Person {
		return nil, secret.Bytes{}, noUser()
	}
	b, network, err := d.newSession(w, p, n.NewSession)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	b.ByPasskey = true
	return d.putSession(ctx, w.ID, b, func(tx *store.Tx) error {
		if err := d.usePasskey(tx, n.Passkey, n.Used); err != nil {
			return err
		}
		return d.editPerson(tx, p.ID, func(_ *store.Tx, pb *personBody) error { pb.know(network); return nil })
	})
}

// ConfirmByPasskey replaces a session by one that is fresh, by a passkey of its person, whose answer was verified (ErrCode). The old
// text counts no more; the end stays.
func (d *Directory) ConfirmByPasskey(ctx context.Context, s *Session, k *Passkey, u passkey.Used) (*Session, secret.Bytes, error) {
	if k.Person != s.Person.ID {
		return nil, secret.Bytes{}, ErrCode
	}
	b := s.body(s.ByCode)
	b.ByPasskey = true
	return d.putSession(ctx, s.Workspace, b, func(tx *store.Tx) error {
		if err := tx.DeleteSession(s.Workspace, s.ID); err != nil {
			return as(err, noSession(), nil)
		}
		return d.usePasskey(tx, k, u)
	})
}
