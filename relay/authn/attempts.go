package authn

import (
	"net/netip"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/relay/directory"
)

// AttemptLimits say how guessing is slowed down. Delays double with each failure.
type AttemptLimits struct {
	Free     int           // failures of one account from one network that cost no delay
	First    time.Duration // the first delay …
	Most     time.Duration // … and the longest
	Window   time.Duration // after which failures are forgotten
	Account  int           // failures of one account in a window, from wherever, after which a network that the person is not known from has one try at a time
	Network  int           // failures of one network, for whichever accounts, that cost no delay
	NetMost  time.Duration // the longest delay of a network
	Codes    int           // wrong codes of one person, from wherever, in a CodeTime
	CodeTime time.Duration
	Tracked  int // accounts, networks and pairs remembered
}

// DefaultAttemptLimits gives 3 free failures, 1 s to 15 min, an hour, 100 of an account, 20 of a network up to 1 min, 5 codes in 5
// min, 100,000 remembered.
func DefaultAttemptLimits() AttemptLimits {
	return AttemptLimits{Free: 3, First: time.Second, Most: 15 * time.Minute, Window: time.Hour, Account: 100, Network: 20, NetMost: time.Minute,
		Codes: 5, CodeTime: 5 * time.Minute, Tracked: 100_000}
}

func (l AttemptLimits) valid() bool {
	return l.Free >= 0 && l.First > 0 && l.Most >= l.First && l.Window >= l.Most && l.Account > 0 && l.Network > 0 && l.NetMost > 0 && l.NetMost <= l.Window &&
		l.Codes > 0 && l.CodeTime > 0 && l.Tracked >= 16
}

// attempts counts failures. An attempt counts as failed when it begins, so that many at once are no way round the delay.
type attempts struct {
	lim AttemptLimits

	mu sync.Mutex // guards of
	of map[attemptKey]*tries
}

// attemptKey names a pair (both set), an account or a network (one set), or the codes of a person.
type attemptKey struct {
	account string
	network netip.Prefix
	code    bool
	past    bool // of a pair: the tries while its network was held
}

type tries struct {
	failed int
	until  time.Time // no try before
	since  time.Time // of the first failure that counts
}

// wide is what one site has of addresses: an IPv4 address, an IPv6 /48.
func wide(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return directory.Network(a)
	}
	p, _ := a.Prefix(48)
	return p
}

// begin asks whether an attempt may be made now. Else it says how long to wait. known says that the person signed in from this
// network before: then neither what others try, nor what others in the network try, is held against it. Whom else that would hold is told
// so, if it fails: held is how long (0: not). Such tries are counted apart and touch nothing that others are told by: else the waits
// of this name, here and later, would be others than those of a name that is not known, and tell who signs in from here.
func (t *attempts) begin(account string, from netip.Addr, known bool, now time.Time) (done func(failed bool), wait, held time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.of)+4 > t.lim.Tracked {
		t.shrink(now)
	}
	pair, whole, net := t.get(attemptKey{account: account, network: directory.Network(from)}, now), t.get(attemptKey{account: account}, now), t.get(attemptKey{network: wide(from)}, now)
	own, held := pair.until.Sub(now), max(0, net.until.Sub(now))
	wait = max(own, held)
	if known && held > 0 && own <= 0 {
		return t.beginPast(attemptKey{account: account, network: directory.Network(from), past: true}, held, now)
	}
	if wait > 0 {
		return nil, wait, 0
	}
	before, netBefore := *pair, *net
	pair.failed++
	if !known && whole.failed >= t.lim.Account {
		pair.until = now.Add(t.lim.Most)
	} else {
		pair.until = now.Add(delay(pair.failed-t.lim.Free, t.lim.First, t.lim.Most))
	}
	net.failed++
	net.until = now.Add(delay(net.failed-t.lim.Network, t.lim.First, t.lim.NetMost))
	if !known {
		whole.failed++
	}
	return func(failed bool) {
		if failed {
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		pair.failed, pair.until = max(0, pair.failed-1), before.until
		net.failed, net.until = max(0, net.failed-1), netBefore.until
		if !known {
			whole.failed = max(0, whole.failed-1)
		}
	}, 0, 0
}

// beginPast is begin for who is let past a network that is held: delayed as a pair is, and told what the network is. t.mu is held.
func (t *attempts) beginPast(key attemptKey, held time.Duration, now time.Time) (done func(failed bool), wait, _ time.Duration) {
	past := t.get(key, now)
	if past.until.After(now) {
		return nil, held, 0
	}
	past.failed++
	past.until = now.Add(delay(past.failed-t.lim.Free, t.lim.First, t.lim.Most))
	return func(failed bool) {
		if failed {
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		past.failed, past.until = max(0, past.failed-1), now
	}, 0, held
}

// clear forgets the failures of a pair: its person is there.
func (t *attempts) clear(account string, from netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, past := range []bool{false, true} {
		delete(t.of, attemptKey{account: account, network: directory.Network(from), past: past})
	}
}

// code asks whether a code may be tried now, from wherever. It counts as wrong until right is called. A right password does not
// set the count back.
func (t *attempts) code(person string, now time.Time) (right func(), wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.of)+1 > t.lim.Tracked {
		t.shrink(now)
	}
	key := attemptKey{account: person, code: true}
	c := t.get(key, now)
	if now.Sub(c.since) >= t.lim.CodeTime {
		*c = tries{since: now}
	}
	if c.failed >= t.lim.Codes {
		return nil, c.since.Add(t.lim.CodeTime).Sub(now)
	}
	c.failed++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.of, key)
	}, 0
}

// get finds or makes an entry. t.mu is held.
func (t *attempts) get(k attemptKey, now time.Time) *tries {
	e := t.of[k]
	if e != nil && now.Sub(e.since) >= t.lim.Window && !e.until.After(now) {
		e = nil
	}
	if e == nil {
		e = &tries{since: now}
		t.of[k] = e
	}
	return e
}

// shrink drops what no longer counts, and when all of it does, what has failed least: many names that were tried once must not push
// out the one that is being guessed at.
func (t *attempts) shrink(now time.Time) {
	for k, e := range t.of {
		if now.Sub(e.since) >= t.lim.Window && !e.until.After(now) || e.failed == 0 {
			delete(t.of, k)
		}
	}
	for least := 1; len(t.of) > t.lim.Tracked*3/4 && least < 1<<20; least *= 2 {
		for k, e := range t.of {
			if e.failed <= least {
				delete(t.of, k)
			}
		}
	}
}

func delay(n int, first, most time.Duration) time.Duration {
	if n <= 0 {
		return 0
	}
	d := first
	for ; n > 1 && d < most; n-- {
		d *= 2
	}
	return min(d, most)
}
