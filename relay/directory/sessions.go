package directory

import (
	"bytes"
	"cmp"
	"context"
	"crypto/subtle"
	"net/netip"
	"slices"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/password"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// SessionPrefix begins every session's text; 43 characters of base64url (256 random bits) follow.
const SessionPrefix = "fls_"

// maxSessions of one person in one workspace; the oldest gives way.
const maxSessions = 20

// SignIn is what a workspace demands of who signs in. The zero value stands for the defaults.
type SignIn struct {
	password.Policy
	SecondFactor bool          `json:"second_factor,omitempty"` // demanded of everybody
	Passkeys     string        `json:"passkeys,omitempty"`      // PasskeysRequired, PasskeysOff; "" or PasskeysAllowed
	Idle         time.Duration `json:"idle,omitempty"`          // a session that is not used for so long ends; 0: 1 h
	Absolute     time.Duration `json:"absolute,omitempty"`      // and each after this; 0: 12 h
	StepUp       time.Duration `json:"step_up,omitempty"`       // how long a proof lasts for dangerous acts; 0: 5 min
	// PersonalTokens is how old an API token may get that somebody made for themselves; 0: there are none.
	PersonalTokens time.Duration `json:"personal_tokens,omitempty"`
}

// What holds where a workspace sets nothing (NIST SP 800-63B-4, AAL2: at most 24 h, 1 h idle).
const (
	DefaultIdle     = time.Hour
	DefaultAbsolute = 12 * time.Hour
	DefaultStepUp   = 5 * time.Minute
)

// InForce fills the defaults in.
func (s SignIn) InForce() SignIn {
	s.MinLength = s.Least(s.SecondFactor)
	s.Passkeys = cmp.Or(s.Passkeys, PasskeysAllowed)
	if s.Idle == 0 {
		s.Idle = DefaultIdle
	}
	if s.Absolute == 0 {
		s.Absolute = DefaultAbsolute
	}
	if s.StepUp == 0 {
		s.StepUp = DefaultStepUp
	}
	return s
}

func (s SignIn) check() error {
	field, want := s.Check()
	if !slices.Contains([]string{"", PasskeysAllowed, PasskeysRequired, PasskeysOff}, s.Passkeys) {
		return invalid("/passkeys: not a choice", "want allowed, required or off")
	}
	for _, l := range []struct {
		name     string
		d        time.Duration
		min, max time.Duration
		want     string
	}{{"idle_seconds", s.Idle, time.Minute, 30 * 24 * time.Hour, "60 to 2592000, or 0 for the default"},
		{"absolute_seconds", s.Absolute, 5 * time.Minute, 90 * 24 * time.Hour, "300 to 7776000, or 0 for the default"},
		{"step_up_seconds", s.StepUp, time.Minute, time.Hour, "60 to 3600, or 0 for the default"},
		{"personal_token_seconds", s.PersonalTokens, time.Minute, MaxTokenLife, "60 to 158112000, or 0 for none at all"}} {
		if l.d != 0 && (l.d < l.min || l.d > l.max) {
			field, want = l.name, l.want
		}
	}
	if field != "" {
		return invalid("/"+field+": out of range", "want "+want)
	}
	return nil
}

// Session is a person's in one workspace. Its text is not kept.
type Session struct {
	ID, Workspace    string
	Principal        *Principal
	Person           *Person
	Created, Expires time.Time
	Since            time.Time // of the sign-in: before Created for one that was handed over
	Confirmed        time.Time // when the person last proved that it is there
	ByCode           bool      // by the second factor
	ByPasskey        bool      // by a passkey, now or before
	Source, Agent    string    // where it began, and with which program

	policy SignIn // in force
	idle   time.Duration
	digest [32]byte
	used   *usage
	sealed []byte
}

type sessionBody struct {
	Principal string        `json:"principal"`
	Digest    []byte        `json:"digest"`
	Created   int64         `json:"created"`
	Since     int64         `json:"since,omitempty"` // 0: Created
	Expires   int64         `json:"expires"`
	Confirmed int64         `json:"confirmed"`
	ByCode    bool          `json:"by_code,omitempty"`
	ByPasskey bool          `json:"by_passkey,omitempty"`
	Idle      time.Duration `json:"idle,omitempty"` // the person's own wish, shorter than the workspace's
	Source    string        `json:"source,omitempty"`
	Agent     string        `json:"agent,omitempty"`
}

// LastUsed is when the session was used last, to the second.
func (s *Session) LastUsed() time.Time { return fromMs(s.used.last.Load()) }

// Used notes that the session was used. It writes nothing; the directory does, in batches.
func (s *Session) Used(now time.Time) {
	if ms := now.UnixMilli(); ms-s.used.last.Load() >= 1000 {
		s.used.last.Store(ms)
	}
}

// Ends is when the session ends if it is not used any more.
func (s *Session) Ends() time.Time {
	idle := s.policy.Idle
	if s.idle > 0 {
		idle = min(idle, s.idle)
	}
	ends := s.Expires
	for _, t := range []time.Time{s.Since.Add(s.policy.Absolute), s.LastUsed().Add(idle)} {
		if t.Before(ends) {
			ends = t
		}
	}
	return ends
}

// Live tells whether the session may be used: neither too old nor idle for too long, and its principal is enabled. What the
// workspace demands counts as it is now, not as it was when the session began: one that has nothing but a passkey to show for itself ends
// when passkeys are switched off.
func (s *Session) Live(now time.Time) bool {
	return now.Before(s.Ends()) && !s.Principal.Disabled && (s.policy.Passkeys != PasskeysOff || !s.ByPasskey || s.ByCode)
}

// What a session can lack; until it has it, only the person's own account can be seen and changed.
const (
	NeedsCode         = "code"          // the person has a second factor, and the session began without
	NeedsSecondFactor = "second_factor" // the workspace demands one
	NeedsPassword     = "password"      // the password has expired
	NeedsPasskey      = "passkey"       // the person has passkeys and must prove one, or the workspace demands one
)

// FindSession finds a session by its text, without judging it.
func (s *Snapshot) FindSession(text string) (*Session, bool) {
	if s.sessionDigest == nil {
		return nil, false
	}
	digest, err := s.sessionDigest(text)
	if err != nil {
		return nil, false
	}
	t, ok := s.sessions[digest]
	return t, ok
}

// Session finds a session of any workspace by its id; nil for none.
func (s *Snapshot) Session(id string) *Session { return s.sessionsByID[id] }

// SessionsOf lists a person's sessions in all workspaces, the newest first.
func (s *Snapshot) SessionsOf(p *Person) (out []*Session) {
	for _, t := range s.sessions {
		if t.Person.ID == p.ID {
			out = append(out, t)
		}
	}
	sortSessions(out)
	return out
}

func sortSessions(l []*Session) {
	slices.SortFunc(l, func(a, b *Session) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return bytes.Compare(a.digest[:], b.digest[:])
	})
}

// NewSession says whose session to begin.
type NewSession struct {
	Principal  string // id
	Verifier   string // what the password was held against: it must be in force still
	Rehashed   string // its successor, when it is stale
	Code       string // of the second factor; "" when the person has none
	Source     netip.Addr
	Agent      string
	Idle, Life time.Duration // shorter than the workspace's; 0: as long as the workspace's
}

// BeginSession takes the code and begins a session, in one step (ErrCode). Its text is not kept.
func (d *Directory) BeginSession(ctx context.Context, workspace string, n NewSession) (*Session, secret.Bytes, error) {
	w, p, err := d.user(workspace, n.Principal)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	b, network, err := d.newSession(w, p, n)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	b.ByCode = n.Code != ""
	return d.putSession(ctx, w.ID, b, func(tx *store.Tx) error {
		return d.editPerson(tx, p.ID, func(_ *store.Tx, pb *personBody) error {
			if pb.Verifier != n.Verifier || pb.Verifier == "" {
				return ErrCode // the password was changed in this moment
			}
			if pb.SecondFactor != 0 || n.Code != "" {
				if err := d.takeFactor(pb, n.Code); err != nil {
					return err
				}
			}
			if n.Rehashed != "" {
				pb.Verifier = n.Rehashed
			}
			pb.know(network)
			return nil
		})
	})
}

// newSession is what a session begins with, and the digest of where from.
func (d *Directory) newSession(w *Workspace, p *Person, n NewSession) (b sessionBody, network []byte, err error) {
	if n.Idle < 0 || n.Life < 0 || n.Idle > 0 && n.Idle < time.Minute || n.Life > 0 && n.Life < time.Minute {
		return b, nil, invalid("the session's time is out of range", "give a minute or more")
	}
	at, life := now(), w.SignIn.InForce().Absolute
	if n.Life > 0 {
		life = min(life, n.Life)
	}
	network, err = d.network(p, n.Source)
	return sessionBody{Principal: n.Principal, Created: toMs(at), Expires: toMs(at.Add(life)), Confirmed: toMs(at), Idle: n.Idle, Source: n.Source.String(), Agent: n.Agent}, network, err
}

// know puts a network first among those that the person signed in from.
func (b *personBody) know(network []byte) {
	b.Known = slices.DeleteFunc(b.Known, func(k []byte) bool { return subtle.ConstantTimeCompare(k, network) == 1 })
	b.Known = append([][]byte{network}, b.Known...)
	b.Known = b.Known[:min(len(b.Known), knownNetworks)]
}

// body is what a session goes on with when it has proven itself anew.
func (s *Session) body(byCode bool) sessionBody {
	return sessionBody{Principal: s.Principal.ID, Created: toMs(s.Created), Since: toMs(s.Since), Expires: toMs(s.Expires), Confirmed: toMs(now()), ByCode: byCode, ByPasskey: s.ByPasskey, Idle: s.idle,
		Source: s.Source, Agent: s.Agent}
}

// ConfirmSession replaces a session by one that is fresh: the password was verified (code ""), or the code is good (ErrCode). The
// old text counts no more; the end stays.
func (d *Directory) ConfirmSession(ctx context.Context, s *Session, verifier, code string) (*Session, secret.Bytes, error) {
	return d.putSession(ctx, s.Workspace, s.body(code != ""), func(tx *store.Tx) error {
		if err := tx.DeleteSession(s.Workspace, s.ID); err != nil {
			return as(err, noSession(), nil)
		}
		return d.editPerson(tx, s.Person.ID, func(_ *store.Tx, pb *personBody) error {
			if pb.SecondFactor == 0 && code == "" {
				if pb.Verifier != verifier || verifier == "" {
					return ErrCode
				}
				return nil
			}
			return d.takeFactor(pb, code)
		})
	})
}

// RotateSession gives a session a new text after what proves itself: a second factor that was just proven, a new password.
func (d *Directory) RotateSession(ctx context.Context, s *Session, byCode bool) (*Session, secret.Bytes, error) {
	return d.putSession(ctx, s.Workspace, s.body(byCode), func(tx *store.Tx) error { return as(tx.DeleteSession(s.Workspace, s.ID), noSession(), nil) })
}

func (d *Directory) putSession(ctx context.Context, workspace string, b sessionBody, first func(*store.Tx) error) (*Session, secret.Bytes, error) {
	text := secret.FromString(SessionPrefix + randomText())
	digest, err := d.vault.Digest("", vault.Session, text.ExposeString())
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	id := NewID("ses")
	b.Digest = digest[:]
	sealed, err := seal(d.vault, place(workspace, "sessions", id, 1), b)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	err = d.change(ctx, func(tx *store.Tx) error {
		if err := first(tx); err != nil {
			return err
		}
		if err := tx.InsertSession(store.Session{ID: id, Workspace: workspace, Principal: b.Principal, Digest: digest[:], Created: b.Created,
			Expires: b.Expires, LastUsed: toMs(now()), Version: 1, Sealed: sealed}); err != nil {
			return as(err, noUser(), nil)
		}
		return tx.TrimSessions(b.Principal, maxSessions, toMs(now()))
	})
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	s := d.Snapshot().Session(id)
	if s == nil {
		return nil, secret.Bytes{}, noSession() // ended in the same moment
	}
	return s, text, nil
}

func noSession() *protocol.Error { return protocol.Errorf(protocol.CodeNotFound, "no such session") }

// EndSession ends a session at once. A workspace (name or id) and a person (id) that are not empty must be whose it is (not_found).
func (d *Directory) EndSession(ctx context.Context, workspace, id, person string) error {
	snap := d.Snapshot()
	if workspace != "" {
		w, err := snap.Workspace(workspace)
		if err != nil {
			return err
		}
		workspace = w.ID
	}
	s := snap.Session(id)
	if s == nil || workspace != "" && s.Workspace != workspace || person != "" && s.Person.ID != person {
		return noSession()
	}
	return d.change(ctx, func(tx *store.Tx) error { return as(tx.DeleteSession(s.Workspace, id), noSession(), nil) })
}

// EndSessions ends a person's sessions in all workspaces, but one ("" for all).
func (d *Directory) EndSessions(ctx context.Context, p *Person, but string) error {
	return d.change(ctx, func(tx *store.Tx) error { _, err := tx.DeleteSessionsOf(p.ID, but); return err })
}

// network is the keyed digest of where an address stands: itself, or its /64.
func (d *Directory) network(p *Person, a netip.Addr) ([]byte, error) {
	sum, err := d.vault.Digest("", vault.SourceNetwork, p.ID+"\n"+Network(a).String())
	return sum[:], err
}

// Network is what one household or machine has of addresses: an IPv4 address, an IPv6 /64.
func Network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the invalid address has the invalid prefix
	return p
}

// Knows tells whether a person signed in from an address's network not long ago. It takes as long for nil.
func (d *Directory) Knows(p *Person, a netip.Addr) bool {
	of := p
	if of == nil {
		of = &Person{}
	}
	network, err := d.network(of, a)
	return err == nil && a.IsValid() && slices.ContainsFunc(of.known, func(k []byte) bool { return subtle.ConstantTimeCompare(k, network) == 1 })
}

// SetSignIn replaces what a workspace demands of who signs in. Sessions that it does not admit end at once.
func (d *Directory) SetSignIn(ctx context.Context, workspace string, p SignIn) error {
	if err := p.check(); err != nil {
		return err
	}
	if p.Passkeys == PasskeysRequired && d.conf.PasskeyID == "" {
		return PasskeysAreOff()
	}
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	return d.change(ctx, func(tx *store.Tx) error {
		old, err := tx.SignInPolicy(w.ID)
		if err != nil && err != store.ErrNotFound { //nolint:errorlint // the store's own, bare
			return err
		}
		r := store.SignInPolicy{Workspace: w.ID, Version: old.Version + 1}
		if r.Sealed, err = seal(d.vault, place(w.ID, "sign_in_policies", w.ID, r.Version), p); err != nil {
			return err
		}
		return as(tx.PutSignInPolicy(r), protocol.Errorf(protocol.CodeConflict, "it was changed meanwhile"), nil)
	})
}
