package authn

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// Config holds the limits.
type Config struct {
	Remember time.Duration // how long a verified token is not verified again
	Slow     int           // slow hashes at a time
	Wait     time.Duration // how long a request waits for its turn at the slow hash
	MaxKnown int           // tokens remembered
}

// DefaultConfig gives 5 minutes, 2 at a time, 10 s, 100,000.
func DefaultConfig() Config {
	return Config{Remember: 5 * time.Minute, Slow: 2, Wait: 10 * time.Second, MaxKnown: 100_000}
}

// Authenticator tells who asks. Safe for concurrent use.
type Authenticator struct {
	conf Config
	slow chan struct{}

	hashed atomic.Int64

	mu    sync.RWMutex
	known map[[32]byte]verified // by keyed digest
}

type verified struct {
	verifier string // what it was verified against
	until    int64  // Unix milliseconds
}

// New makes an Authenticator that remembers nothing yet.
func New(c Config) (*Authenticator, error) {
	if c.Remember <= 0 || c.Slow < 1 || c.Wait <= 0 || c.MaxKnown < 1 {
		return nil, errors.New("authenticate: times and limits must be set")
	}
	return &Authenticator{conf: c, slow: make(chan struct{}, c.Slow), known: map[[32]byte]verified{}}, nil
}

// refused is the one answer to everything that does not authenticate.
func refused() error {
	return &protocol.Error{Code: protocol.CodeUnauthenticated, Message: "the API token or session is missing or not valid",
		Origin: protocol.OriginRelay, Hint: `send "Authorization: Bearer flt_…" with a token that is neither expired nor revoked, or sign in again; with the CLI, use "fairlead login" or --token-file`}
}

// busy says that the slow hash could not be had in time.
func busy() error {
	return &protocol.Error{Code: protocol.CodeUnavailable, Message: "too many tokens are being verified", Origin: protocol.OriginRelay,
		Hint: "try again in a moment"}
}

// stale says that nobody is let in while the state cannot be read.
func stale() error {
	return &protocol.Error{Code: protocol.CodeUnavailable, Message: "the relay cannot read its state", Origin: protocol.OriginRelay,
		Hint: "try again shortly"}
}

// tokenSize is the length of a token's text.
const tokenSize = len(directory.TokenPrefix) + 43

// Authenticate gives the principal of a bearer token or session. header is the value of the one Authorization header: the scheme
// in any case, one space, the text. Everything else is refused, by the same error whatever is wrong with it. The principal's Token
// is the id of the token or session; source is noted as where it was used from, if the allowlist admits it. What a session lacks (Session.Needs) is for the caller
// to judge.
func (a *Authenticator) Authenticate(ctx context.Context, s *directory.Snapshot, header string, source netip.Addr) (authz.Principal, error) {
	if s.Stale {
		return authz.Principal{}, stale()
	}
	const scheme = "Bearer "
	if len(header) != len(scheme)+tokenSize || !strings.EqualFold(header[:len(scheme)], scheme) {
		return authz.Principal{}, refused()
	}
	text := header[len(scheme):]
	if strings.HasPrefix(text, directory.SessionPrefix) {
		t, err := session(s, text, "")
		if err != nil {
			return authz.Principal{}, err
		}
		if admits(s, acting(t), source) {
			t.Used(time.Now())
		}
		return acting(t), nil
	}
	if !strings.HasPrefix(text, directory.TokenPrefix) {
		return authz.Principal{}, refused()
	}
	t, digest, ok := s.FindToken(text)
	at := time.Now()
	if !ok || !t.Live(at) {
		return authz.Principal{}, refused()
	}
	a.mu.RLock()
	v, known := a.known[digest]
	a.mu.RUnlock()
	if !known || v.until <= at.UnixMilli() || v.verifier != t.Verifier() {
		if err := a.verify(ctx, t, text, digest); err != nil {
			return authz.Principal{}, err
		}
	}
	p := t.Acting()
	if admits(s, p, source) {
		t.Used(at, source)
	}
	return p, nil
}

// admits tells whether the allowlist lets the principal in from there: who is refused has not used anything. Otherwise a stolen
// session could be kept from its idle time-out by tries from anywhere.
func admits(s *directory.Snapshot, p authz.Principal, source netip.Addr) bool {
	w, err := s.Workspace(p.Workspace)
	return err == nil && w.Admits(s.Side(p), source)
}

// Still tells whether a header that Authenticate took, for the token or session with this id, is good now. It never takes the slow way:
// that the text is the token's was proven when it came, and whether it is revoked, expired or its principal disabled must be
// known at once, for thousands of open streams. A stream that is open counts as use of its session.
func (a *Authenticator) Still(s *directory.Snapshot, header, token string) (authz.Principal, error) {
	if s.Stale {
		return authz.Principal{}, stale()
	}
	const scheme = "Bearer "
	if len(header) != len(scheme)+tokenSize {
		return authz.Principal{}, refused()
	}
	if strings.HasPrefix(header[len(scheme):], directory.SessionPrefix) {
		t, err := session(s, header[len(scheme):], token)
		if err != nil {
			return authz.Principal{}, err
		}
		t.Used(time.Now())
		return acting(t), nil
	}
	t, _, ok := s.FindToken(header[len(scheme):])
	if !ok || t.ID != token || !t.Live(time.Now()) {
		return authz.Principal{}, refused()
	}
	return t.Acting(), nil
}

// session needs no slow hash: its text has 256 random bits, and the keyed digest that it is found by tells nothing without the
// key. It is looked up anew for every request and every look at a stream, so that one that was ended is refused at once.
func session(s *directory.Snapshot, text, id string) (*directory.Session, error) {
	t, ok := s.FindSession(text)
	if !ok || id != "" && t.ID != id || !t.Live(time.Now()) {
		return nil, refused()
	}
	return t, nil
}

func acting(t *directory.Session) authz.Principal {
	p := t.Principal.Principal
	p.Token = t.ID
	return p
}

// verify takes the slow way, in turn, and remembers.
func (a *Authenticator) verify(ctx context.Context, t *directory.Token, text string, digest [32]byte) error {
	wait := time.NewTimer(a.conf.Wait)
	defer wait.Stop()
	select {
	case a.slow <- struct{}{}:
		defer func() { <-a.slow }()
	case <-wait.C:
		return busy()
	case <-ctx.Done():
		return &protocol.Error{Code: protocol.CodeCanceled, Message: "the caller went away", Cause: ctx.Err()}
	}
	// Many requests may have waited for the same token: one of them did the work.
	a.mu.RLock()
	v, known := a.known[digest]
	a.mu.RUnlock()
	if known && v.until > time.Now().UnixMilli() && v.verifier == t.Verifier() {
		return nil
	}
	a.hashed.Add(1)
	if !t.Verify(text) {
		return refused()
	}
	at := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= a.conf.MaxKnown {
		for k, v := range a.known {
			if v.until <= at.UnixMilli() {
				delete(a.known, k)
			}
		}
	}
	if len(a.known) >= a.conf.MaxKnown {
		clear(a.known) // they verify again; better than growing
	}
	a.known[digest] = verified{t.Verifier(), at.Add(a.conf.Remember).UnixMilli()}
	return nil
}

// Hashed is how many slow hashes there were since New, for metrics.
func (a *Authenticator) Hashed() int64 { return a.hashed.Load() }
