package authn

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/netip"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// HandOverPrefix begins every code that hands a session over; 43 characters of base64url (256 random bits) follow.
const HandOverPrefix = "flh_"

// HandOverLimits bound the codes that are open, which are in memory alone: a relay that starts knows of none.
type HandOverLimits struct {
	Life   time.Duration // of a code
	Most   int           // open at a time
	Person int           // of one person; the oldest gives way
}

// DefaultHandOverLimits gives a minute, 10,000 and 5.
func DefaultHandOverLimits() HandOverLimits {
	return HandOverLimits{Life: time.Minute, Most: 10_000, Person: 5}
}

func (l HandOverLimits) valid() bool { return l.Life > 0 && l.Most > 0 && l.Person > 0 }

// handOvers holds the open codes by their digest, so that neither the map nor the time that it takes tells of them.
type handOvers struct {
	mu sync.Mutex // guards of
	of map[[32]byte]handOver
}

type handOver struct {
	session, person      string // who gives
	workspace, principal string // for the record, when the session is gone
	challenge            [32]byte
	idle, life           time.Duration
	begun                time.Time
}

// challengeSize and the verifier's bounds are those of RFC 7636.
const (
	challengeSize = 43
	minVerifier   = 43
	maxVerifier   = 128
)

// HandOver gives a code by which a program gets a session beside s, once and soon: the one that knows what the challenge was made of
// (RFC 7636, S256).
func (p *People) HandOver(s *directory.Session, challenge string, idle, life time.Duration) (secret.Bytes, time.Time, error) {
	h := handOver{session: s.ID, person: s.Person.ID, workspace: s.Workspace, principal: s.Principal.ID, idle: idle, life: life, begun: time.Now()}
	sum, err := base64.RawURLEncoding.Strict().DecodeString(challenge)
	if err != nil || len(challenge) != challengeSize || len(sum) != len(h.challenge) {
		return secret.Bytes{}, time.Time{}, &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginRelay, Message: "/challenge: malformed", Hint: "want the SHA-256 of the verifier in base64url without padding: 43 characters (RFC 7636, S256)"}
	}
	copy(h.challenge[:], sum)
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	code := HandOverPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	if !p.give.put(sha256.Sum256([]byte(code)), h, p.conf.HandOver) {
		return secret.Bytes{}, time.Time{}, &protocol.Error{Code: protocol.CodeRateLimited, Origin: protocol.OriginRelay, Message: "too many sessions are being handed over", Hint: "try again in a minute", RetryAfterMs: p.conf.HandOver.Life.Milliseconds()}
	}
	return secret.FromString(code), h.begun.Add(p.conf.HandOver.Life), nil
}

// put takes a code up; false when there is no room.
func (o *handOvers) put(key [32]byte, h handOver, l HandOverLimits) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	var oldest [32]byte
	var since time.Time
	own := 0
	for k, e := range o.of {
		switch {
		case h.begun.Sub(e.begun) >= l.Life:
			delete(o.of, k)
		case e.person == h.person:
			if own++; since.IsZero() || e.begun.Before(since) {
				oldest, since = k, e.begun
			}
		}
	}
	if own >= l.Person {
		delete(o.of, oldest)
	}
	if len(o.of) >= l.Most {
		return false
	}
	o.of[key] = h
	return true
}

// take gives what a code stands for, once.
func (o *handOvers) take(key [32]byte) (handOver, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h, ok := o.of[key]
	delete(o.of, key)
	return h, ok
}

// TakeOver is what a program sends for a session that was handed over.
type TakeOver struct {
	Code, Verifier string
	Source         netip.Addr
	Agent          string
	// Admit judges the workspace that the session would be of, by its id; nil admits each.
	Admit func(workspace string) error
}

func refusedHandOver() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeUnauthenticated, Origin: protocol.OriginRelay, Message: "the relay does not let you in: the code was used or has expired, or is not this program's",
		Hint: "begin again; your address must be on the workspace's allowlist"}
}

// TakeOver begins the session that a code stands for, and names the session that gave it. Whatever does not fit, the refusal is the
// same, and the code is gone. Attempts without a code that is open are slowed down for their network; a right code is always looked
// at, so that nobody is locked out by others.
func (p *People) TakeOver(ctx context.Context, in TakeOver) (res Result, giver string, _ error) {
	snap, at := p.dir.Snapshot(), time.Now()
	if snap.Stale {
		return res, "", stale()
	}
	h, ok := p.give.take(sha256.Sum256([]byte(in.Code)))
	if !ok {
		if wait := p.att.nameless(in.Source, at); wait > 0 {
			return res, "", tooMany(wait)
		}
		return res, "", refusedHandOver()
	}
	w, err := snap.Workspace(h.workspace)
	if err != nil { // nobody's log to tell it in
		return res, h.session, refusedHandOver()
	}
	const ended = "the session that was handed over has ended"
	res.Workspace, res.Principal = w, w.Principal(h.principal)
	s := snap.Session(h.session)
	if s == nil {
		res.Reason = ended
		return res, h.session, refusedHandOver()
	}
	sum := sha256.Sum256([]byte(in.Verifier))
	switch {
	case len(in.Verifier) < minVerifier || len(in.Verifier) > maxVerifier || subtle.ConstantTimeCompare(sum[:], h.challenge[:]) != 1:
		res.Reason = "the verifier of a session that was handed over is wrong"
	case at.Sub(h.begun) >= p.conf.HandOver.Life:
		res.Reason = "the code of a session that was handed over has expired"
	case !s.Live(at):
		res.Reason = ended
	case !w.Admits(directory.People, in.Source):
		res.Reason = "the source address is not on the workspace's allowlist"
	}
	if res.Reason != "" {
		return res, h.session, refusedHandOver()
	}
	if in.Admit != nil {
		if err := in.Admit(w.ID); err != nil {
			res.Reason = "the relay was called by a domain of another workspace"
			return res, h.session, err
		}
	}
	res.Session, res.Text, err = p.dir.HandOverSession(ctx, s, directory.HandOver{Source: in.Source, Agent: in.Agent, Idle: h.idle, Life: h.life})
	if e := protocol.AsError(err); err != nil && e.Code == protocol.CodeNotFound {
		res.Reason = ended
		return res, h.session, refusedHandOver()
	}
	return res, h.session, err
}

// nameless asks whether an attempt that names no account may be made now from a network, and counts it as failed.
func (t *attempts) nameless(from netip.Addr, now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.of)+1 > t.lim.Tracked {
		t.shrink(now)
	}
	net := t.get(attemptKey{network: wide(from)}, now)
	if wait = net.until.Sub(now); wait > 0 {
		return wait
	}
	net.failed++
	net.until = now.Add(delay(net.failed-t.lim.Network, t.lim.First, t.lim.NetMost))
	return 0
}
