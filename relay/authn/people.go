package authn

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/passkey"
	"github.com/fairleadhq/fairlead/relay/password"
)

// PeopleConfig holds the limits of signing in.
type PeopleConfig struct {
	Slow      int           // slow hashes of passwords at a time; apart from those of tokens, so that strangers cannot hold these up
	Wait      time.Duration // how long somebody waits for a turn
	PerSource int           // turns that one network waits for at a time
	Attempts  AttemptLimits
	HandOver  HandOverLimits
	Passkeys  *passkey.Ceremonies // nil: there are none
}

// DefaultPeopleConfig gives 2 at a time, 10 s, 4, DefaultAttemptLimits and DefaultHandOverLimits.
func DefaultPeopleConfig() PeopleConfig {
	return PeopleConfig{Slow: 2, Wait: 10 * time.Second, PerSource: 4, Attempts: DefaultAttemptLimits(), HandOver: DefaultHandOverLimits()}
}

// People lets people sign in, and change what they sign in with. Safe for concurrent use.
type People struct {
	conf PeopleConfig
	dir  *directory.Directory
	slow chan struct{}
	att  attempts
	give handOvers

	hashed atomic.Int64

	mu      sync.Mutex // guards waiting
	waiting map[netip.Prefix]int
}

// NewPeople makes People on a directory.
func NewPeople(d *directory.Directory, c PeopleConfig) (*People, error) {
	if d == nil || c.Slow < 1 || c.Wait <= 0 || c.PerSource < 1 || !c.Attempts.valid() || !c.HandOver.valid() {
		return nil, errors.New("sign in: a directory, times and limits must be set")
	}
	return &People{conf: c, dir: d, slow: make(chan struct{}, c.Slow), att: attempts{lim: c.Attempts, of: map[attemptKey]*tries{}}, give: handOvers{of: map[[32]byte]handOver{}}, waiting: map[netip.Prefix]int{}}, nil
}

// Hashed is how many turns at the slow hash there were, for metrics.
func (p *People) Hashed() int64 { return p.hashed.Load() }

// RuleCode is the rule of the refusal that tells of a right password without a code.
const RuleCode = "sign_in.second_factor"

func refusedSignIn() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeUnauthenticated, Origin: protocol.OriginRelay, Message: "the relay does not let you in: workspace, user name, password, code and address do not all fit",
		Hint: "check them; your address must be on the workspace's allowlist; an admin can give you a new one-time code"}
}

func wantsCode() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeUnauthenticated, Origin: protocol.OriginRelay, Rule: RuleCode, Message: "a code of the second factor is wanted", Hint: "send the code that your authenticator app shows, or a recovery code"}
}

func wrongCode() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Message: "that is not the right answer", Hint: "a code counts once and for about a minute: wait for the next; check the clock of your phone"}
}

func tooMany(wait time.Duration) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeRateLimited, Origin: protocol.OriginRelay, Message: "too many attempts failed", Hint: "wait, then try again; only attempts from where you are count, and wrong codes",
		RetryAfterMs: max(wait, time.Second).Milliseconds()}
}

// SignIn is what somebody sends to sign in.
type SignIn struct {
	Workspace, User string
	Password        secret.Bytes
	Code            string // of the second factor, or a recovery code
	Source          netip.Addr
	Agent           string // the program
	Idle, Life      time.Duration
}

// Result tells what came of it, for the record.
type Result struct {
	Workspace *directory.Workspace // nil: there is none of this name
	Principal *directory.Principal // nil: nobody of this name
	Session   *directory.Session
	Text      secret.Bytes
	Passkey   *directory.Passkey // that was shown; nil: none that is known
	Marked    bool               // it was marked just now: there may be a copy of it
	Reason    string             // of a refusal, for the audit log and not for the caller
}

// SignIn begins a session. Whatever does not fit, the refusal is the same, and so is what it costs, for all who come from an address
// that the workspace admits.
func (p *People) SignIn(ctx context.Context, in SignIn) (Result, error) {
	var res Result
	account, open, err := p.find(in.Workspace, in.User, in.Source, &res)
	if err != nil {
		return res, err
	}
	var person *directory.Person
	if res.Principal != nil {
		person = res.Workspace.PersonOf(res.Principal.ID)
	}
	now := time.Now()
	done, wait, held := p.att.begin(account, in.Source, p.dir.Knows(person, in.Source), now)
	if wait > 0 {
		res.Reason = cmp.Or(res.Reason, "too many attempts failed")
		return res, tooMany(wait)
	}
	if !open {
		return res, refusedSignIn()
	}
	normal, bad := password.Normal(in.Password.ExposeString())
	var ok, stale bool
	n := directory.NewSession{Code: strings.TrimSpace(in.Code), Source: in.Source, Agent: in.Agent, Idle: in.Idle, Life: in.Life}
	err = p.turn(ctx, in.Source, func() error {
		ok, stale, n.Verifier = p.dir.VerifyPassword(person, normal)
		if ok && stale {
			v, err := p.dir.NewPasswordVerifier(normal)
			n.Rehashed = v
			return err
		}
		return nil
	})
	switch {
	case err != nil:
		done(false) // nothing was tried
		return res, err
	case !ok || bad != nil || res.Principal.Disabled:
		res.Reason = "the password is wrong"
		if person == nil {
			res.Reason = "no such user"
		} else if ok && res.Principal.Disabled {
			res.Reason = "the user is disabled"
		}
		if held > 0 { // what everybody in the network is told whom the relay does not know from there
			return res, tooMany(held)
		}
		return res, refusedSignIn()
	}
	n.Principal = res.Principal.ID
	right := func() {}
	if !person.SecondFactor.IsZero() {
		if n.Code == "" {
			done(false)
			res.Reason = "no code was sent"
			return res, wantsCode()
		}
		if right, wait = p.att.code(person.ID, now); wait > 0 {
			done(false)
			res.Reason = "too many wrong codes"
			return res, tooMany(wait)
		}
	} else {
		n.Code = ""
	}
	res.Session, res.Text, err = p.dir.BeginSession(ctx, res.Workspace.ID, n)
	switch {
	case errors.Is(err, directory.ErrCode):
		res.Reason = "the code is wrong or was used"
		return res, refusedSignIn()
	case err != nil:
		done(false)
		return res, err
	}
	right()
	done(false)
	p.att.clear(account, in.Source)
	return res, nil
}

// find looks for the workspace and the user, and names the account that attempts count for. open is false for a workspace that is not
// there, or does not admit the address: told after the attempt is counted, so that who has to wait learns of no workspace. An account is
// a name in a workspace, whoever it is: that two of them are one person is not to be seen by how long one has to wait.
func (p *People) find(workspace, user string, source netip.Addr, res *Result) (account string, open bool, _ error) {
	snap := p.dir.Snapshot()
	if snap.Stale {
		return "", false, stale()
	}
	name := directory.UserName(user)
	name = "\n" + name[:min(len(name), directory.MaxLabel)]
	w, err := snap.Workspace(workspace)
	if err == nil {
		if res.Workspace = w; w.Admits(directory.People, source) {
			res.Principal, _ = w.User(user)
			return w.ID + name, true, nil
		}
		res.Reason = "the source address is not on the workspace's allowlist"
	}
	// Apart from the account of this name: who is not admitted must not have others wait for it.
	return "outside\n" + workspace[:min(len(workspace), directory.MaxLabel)] + name, false, nil
}

// turn runs f when it may take the slow hash.
func (p *People) turn(ctx context.Context, source netip.Addr, f func() error) error {
	net := directory.Network(source)
	p.mu.Lock()
	if p.waiting[net] >= p.conf.PerSource {
		p.mu.Unlock()
		return tooMany(time.Second)
	}
	p.waiting[net]++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.waiting[net]--; p.waiting[net] == 0 {
			delete(p.waiting, net)
		}
	}()
	wait := time.NewTimer(p.conf.Wait)
	defer wait.Stop()
	select {
	case p.slow <- struct{}{}:
		defer func() { <-p.slow }()
	case <-wait.C:
		return &protocol.Error{Code: protocol.CodeUnavailable, Message: "too many passwords are being verified", Origin: protocol.OriginRelay, Hint: "try again in a moment"}
	case <-ctx.Done():
		return &protocol.Error{Code: protocol.CodeCanceled, Message: "the caller went away", Cause: ctx.Err()}
	}
	p.hashed.Add(1)
	return f()
}

// SetFirst sets a password by a one-time code. All refusals of code and user are the same. It begins no session. record is called
// when all is decided and nothing is done yet; its error ends it.
func (p *People) SetFirst(ctx context.Context, workspace, user, code string, text secret.Bytes, source netip.Addr, record func(Result) error) (Result, error) {
	var res Result
	account, open, err := p.find(workspace, user, source, &res)
	if err != nil {
		return res, err
	}
	done, wait, _ := p.att.begin(account, source, false, time.Now())
	if wait > 0 {
		res.Reason = cmp.Or(res.Reason, "too many attempts failed")
		return res, tooMany(wait)
	}
	if !open {
		return res, refusedSignIn()
	}
	var person *directory.Person
	if res.Principal != nil {
		person = res.Workspace.PersonOf(res.Principal.ID)
	}
	refused := func(err error) (Result, error) {
		res.Reason = "the one-time code is not good"
		if errors.Is(err, directory.ErrVoid) {
			res.Reason = "the one-time code is void: who gave it, or set the address that it went to, may not act for the user any more"
		}
		return res, refusedSignIn()
	}
	if err := p.dir.JudgeCode(person, code); err != nil || res.Principal.Disabled {
		return refused(err)
	}
	done(false) // whoever has the code is no guesser, whatever password comes next
	verifier, err := p.hash(ctx, source, person, res.Principal.Name, text)
	if err != nil {
		return res, err
	}
	if err := record(res); err != nil {
		return res, err
	}
	if err := p.dir.TakeCode(ctx, person, code, verifier); errors.Is(err, directory.ErrCode) {
		return refused(err)
	} else if err != nil {
		return res, err
	}
	return res, nil
}

// hash judges a new password and hashes it.
func (p *People) hash(ctx context.Context, source netip.Addr, person *directory.Person, user string, text secret.Bytes) (verifier string, err error) {
	normal, err := password.Normal(text.ExposeString())
	if err != nil {
		return "", err
	}
	return verifier, p.turn(ctx, source, func() error {
		if err := p.dir.JudgePassword(person, user, normal); err != nil {
			return err
		}
		verifier, err = p.dir.NewPasswordVerifier(normal)
		return err
	})
}

// prove verifies the password of a session's person again, and gives what it was held against.
func (p *People) prove(ctx context.Context, s *directory.Session, source netip.Addr, text secret.Bytes) (verifier string, err error) {
	done, wait, _ := p.att.begin(s.Person.ID, source, p.dir.Knows(s.Person, source), time.Now())
	if wait > 0 {
		return "", tooMany(wait)
	}
	normal, bad := password.Normal(text.ExposeString())
	ok := false
	if err := p.turn(ctx, source, func() error { ok, _, verifier = p.dir.VerifyPassword(s.Person, normal); return nil }); err != nil {
		done(false)
		return "", err
	}
	if !ok || bad != nil {
		return "", wrongCode()
	}
	done(false)
	p.att.clear(s.Person.ID, source)
	return verifier, nil
}

// ChangePassword changes the password of a session's person. All sessions end, and the one that asked gets a new text.
func (p *People) ChangePassword(ctx context.Context, s *directory.Session, source netip.Addr, old, text secret.Bytes) (*directory.Session, secret.Bytes, error) {
	was, err := p.prove(ctx, s, source, old)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	verifier, err := p.hash(ctx, source, s.Person, s.Principal.Name, text)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	if err := p.dir.SetPassword(ctx, s.Person, was, verifier, s.ID); err != nil {
		return nil, secret.Bytes{}, err
	}
	if s.Person.SecondFactor.IsZero() && !s.Person.HoldsPasskey() {
		return p.dir.RotateSession(ctx, s, s.ByCode)
	}
	return p.dir.RenewSession(ctx, s) // the password alone is no fresh proof
}

// Confirm makes a session fresh for dangerous acts: by a code, or by the password for who has neither a second factor nor a passkey. The old text counts
// no more.
func (p *People) Confirm(ctx context.Context, s *directory.Session, source netip.Addr, text secret.Bytes, code string) (*directory.Session, secret.Bytes, error) {
	var verifier string
	var err error
	right := func() {}
	if code = strings.TrimSpace(code); s.Person.SecondFactor.IsZero() && s.Person.HoldsPasskey() {
		return nil, secret.Bytes{}, wantsPasskey()
	} else if s.Person.SecondFactor.IsZero() {
		code = ""
		if verifier, err = p.prove(ctx, s, source, text); err != nil {
			return nil, secret.Bytes{}, err
		}
	} else {
		if code == "" {
			return nil, secret.Bytes{}, &protocol.Error{Code: protocol.CodeInvalid, Rule: RuleCode, Origin: protocol.OriginRelay, Message: "a code of the second factor is wanted", Hint: "the password alone proves nothing here"}
		}
		var wait time.Duration
		if right, wait = p.att.code(s.Person.ID, time.Now()); wait > 0 {
			return nil, secret.Bytes{}, tooMany(wait)
		}
	}
	t, out, err := p.dir.ConfirmSession(ctx, s, verifier, code)
	if errors.Is(err, directory.ErrCode) {
		return nil, secret.Bytes{}, wrongCode()
	}
	if err == nil {
		right()
	}
	return t, out, err
}

// ProveFactor puts a second factor in force by its first code, and gives recovery codes and the session's new text.
func (p *People) ProveFactor(ctx context.Context, s *directory.Session, code string) ([]secret.Bytes, *directory.Session, secret.Bytes, error) {
	right, wait := p.att.code(s.Person.ID, time.Now())
	if wait > 0 {
		return nil, nil, secret.Bytes{}, tooMany(wait)
	}
	codes, err := p.dir.ProveSecondFactor(ctx, s.Person, strings.TrimSpace(code), s.ID)
	if errors.Is(err, directory.ErrCode) {
		return nil, nil, secret.Bytes{}, wrongCode()
	}
	if err != nil {
		return nil, nil, secret.Bytes{}, err
	}
	right()
	t, text, err := p.dir.RotateSession(ctx, s, true)
	return codes, t, text, err
}
