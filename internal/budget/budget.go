package budget

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Limits are the numbers of one budget; 0 in a field is no limit.
type Limits struct {
	Rate       int64 `json:"rate,omitempty"`       // operations begun a second
	Burst      int64 `json:"burst,omitempty"`      // operations begun at once; 0: as many as Rate
	Concurrent int64 `json:"concurrent,omitempty"` // operations at a time
	Egress     int64 `json:"egress,omitempty"`     // bytes a second towards callers
	EgressDay  int64 `json:"egress_day,omitempty"` // bytes a day (UTC) towards callers
}

// Bounds of Limits that make sense.
const (
	MaxRate       = 1_000_000
	MaxBurst      = 10_000_000
	MaxConcurrent = 1_000_000
	MinEgress     = 16 << 10 // below it an answer of a few rows takes seconds
	MaxEgress     = 1 << 40
	MaxEgressDay  = 1 << 60
)

// Check gives the field that is out of its bounds, and what they are; "" when all is well.
func (l Limits) Check() (field, want string) {
	switch {
	case l.Rate < 0 || l.Rate > MaxRate:
		return "rate", "1 to 1000000 operations a second, or 0 for no limit"
	case l.Burst < 0 || l.Burst > MaxBurst:
		return "burst", "1 to 10000000 operations, or 0 for as many as rate"
	case l.Burst > 0 && l.Rate == 0:
		return "burst", "rate beside it"
	case l.Concurrent < 0 || l.Concurrent > MaxConcurrent:
		return "concurrent", "1 to 1000000 operations, or 0 for no limit"
	case l.Egress != 0 && l.Egress < MinEgress || l.Egress > MaxEgress:
		return "egress", "16KiB to 1TiB a second, or 0 for no limit"
	case l.EgressDay < 0 || l.EgressDay > MaxEgressDay:
		return "egress_day", "a number of bytes, or 0 for no limit"
	}
	return "", ""
}

// Narrow takes the smaller of two limits in each field.
func (l Limits) Narrow(o Limits) Limits {
	least := func(a, b int64) int64 {
		if a == 0 || b != 0 && b < a {
			return b
		}
		return a
	}
	n := Limits{Rate: least(l.Rate, o.Rate), Concurrent: least(l.Concurrent, o.Concurrent), Egress: least(l.Egress, o.Egress), EgressDay: least(l.EgressDay, o.EgressDay)}
	if n.Rate > 0 { // a burst that was not named is the rate's own
		n.Burst = least(l.burst(), o.burst())
	}
	return n
}

func (l Limits) burst() int64 {
	if l.Burst == 0 {
		return l.Rate
	}
	return l.Burst
}

// Budget is what one party may use. Make it with New. It is safe for concurrent use.
type Budget struct {
	what, rule string
	limits     atomic.Pointer[Limits] // nil: none
	running    atomic.Int64

	begun, refusedRate, refusedConcurrent, refusedDay, bytes, waits, waited atomic.Int64

	mu      sync.Mutex // guards the fields below
	tokens  float64
	last    time.Time     // when tokens was true
	next    time.Time     // when the bytes that were let go so far will have left by Egress
	changed chan struct{} // closed by Set: who waits looks again
	day     int64         // since the epoch, UTC
	today   int64         // bytes of day
}

// New makes a budget without limits. what says whose it is, as in "the workspace"; rule is the place of its limits.
func New(what, rule string) *Budget {
	return &Budget{what: what, rule: rule, changed: make(chan struct{})}
}

// Set puts limits in force. What runs goes on; who waits for bytes looks again.
func (b *Budget) Set(l Limits) {
	old := b.limits.Load()
	if old == nil && l == (Limits{}) || old != nil && *old == l {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	switch {
	case l.Rate == 0:
	case old == nil || old.Rate == 0:
		b.tokens, b.last = float64(l.burst()), now
	default: // what was used stays used
		b.fill(*old, now)
		b.tokens = min(b.tokens, float64(l.burst()))
	}
	b.next = time.Time{} // who waits takes a new place
	if l == (Limits{}) {
		b.limits.Store(nil)
	} else {
		b.limits.Store(&l)
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// Limits in force.
func (b *Budget) Limits() Limits {
	if l := b.limits.Load(); l != nil {
		return *l
	}
	return Limits{}
}

// fill adds the tokens that have come since last. b.mu is held.
func (b *Budget) fill(l Limits, now time.Time) {
	if d := now.Sub(b.last); d > 0 {
		b.tokens = min(float64(l.burst()), b.tokens+float64(l.Rate)*d.Seconds())
		b.last = now
	}
}

// begin counts one operation in, or says why not.
func (b *Budget) begin() *Refusal {
	n := b.running.Add(1)
	l := b.limits.Load()
	if l == nil {
		return nil
	}
	r := b.admit(*l, n)
	if r != nil {
		b.running.Add(-1)
		return r
	}
	b.begun.Add(1)
	return nil
}

func (b *Budget) admit(l Limits, running int64) *Refusal {
	if l.Concurrent > 0 && running > l.Concurrent {
		b.refusedConcurrent.Add(1)
		return &Refusal{What: b.what, Rule: b.rule, Limit: LimitConcurrent, Number: l.Concurrent, After: time.Second}
	}
	if l.Rate == 0 && l.EgressDay == 0 {
		return nil
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.EgressDay > 0 {
		if b.turn(now); b.today >= l.EgressDay {
			return b.dayOver(l, now)
		}
	}
	if l.Rate > 0 {
		if b.fill(l, now); b.tokens < 1 {
			b.refusedRate.Add(1)
			return &Refusal{What: b.what, Rule: b.rule, Limit: LimitRate, Number: l.Rate, After: time.Duration((1 - b.tokens) / float64(l.Rate) * float64(time.Second))}
		}
		b.tokens--
	}
	return nil
}

// peek says whether an operation that begins now would be refused. It takes nothing.
func (b *Budget) peek() *Refusal {
	l := b.limits.Load()
	if l == nil {
		return nil
	}
	r := b.admit(*l, b.running.Load()+1)
	if r == nil && l.Rate > 0 {
		b.mu.Lock()
		b.tokens = min(float64(l.burst()), b.tokens+1)
		b.mu.Unlock()
	}
	return r
}

// end counts one operation out.
func (b *Budget) end() { b.running.Add(-1) }

// undo takes a begin back that came to nothing, for another budget refused.
func (b *Budget) undo() {
	b.end()
	if l := b.limits.Load(); l != nil {
		b.begun.Add(-1)
		b.mu.Lock()
		defer b.mu.Unlock()
		if l.Rate > 0 {
			b.tokens = min(float64(l.burst()), b.tokens+1)
		}
	}
}

// piece is what a stream sends before another one has its turn.
const piece = 16 << 10

// slack is for how long bytes that were not sent may be sent later, at once.
const slack = 100 * time.Millisecond

// Wait returns when n bytes more may leave, or with the end of ctx. A *Refusal says that the day's bytes are used up.
func (b *Budget) Wait(ctx context.Context, n int) error {
	l := b.limits.Load()
	if l == nil || l.Egress == 0 && l.EgressDay == 0 {
		return nil
	}
	for n > 0 {
		k := min(n, piece)
		if err := b.wait(ctx, k); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// wait lets one piece go. A place in the line is a time, so that the line needs nobody who serves it.
func (b *Budget) wait(ctx context.Context, n int) error {
	counted := false
	for {
		b.mu.Lock()
		l := b.limits.Load()
		if l == nil {
			b.mu.Unlock()
			return nil
		}
		now := time.Now()
		if l.EgressDay > 0 && !counted {
			if b.turn(now); b.today >= l.EgressDay {
				defer b.mu.Unlock()
				return b.dayOver(*l, now)
			}
			b.today += int64(n)
		}
		if !counted {
			counted = true
			b.bytes.Add(int64(n))
		}
		if l.Egress == 0 {
			b.mu.Unlock()
			return nil
		}
		if first := now.Add(-slack); b.next.Before(first) {
			b.next = first
		}
		takes := time.Duration(float64(n) / float64(l.Egress) * float64(time.Second))
		b.next = b.next.Add(takes)
		due, changed := b.next.Sub(now), b.changed
		b.mu.Unlock()
		if due <= 0 {
			return nil
		}
		again, err := b.sleep(ctx, due, changed)
		if err != nil { // its place goes to who stands behind
			b.mu.Lock()
			if b.changed == changed {
				b.next = b.next.Add(-takes)
			}
			b.mu.Unlock()
		}
		if !again {
			return err
		}
	}
}

// sleep waits for a turn; again says that the limits changed meanwhile.
func (b *Budget) sleep(ctx context.Context, due time.Duration, changed <-chan struct{}) (again bool, err error) {
	from := time.Now()
	b.waits.Add(1)
	defer func() { b.waited.Add(int64(time.Since(from))) }()
	timer := time.NewTimer(due)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false, nil
	case <-changed:
		return true, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// turn begins the day that it is. b.mu is held.
func (b *Budget) turn(now time.Time) {
	if d := dayOf(now); d != b.day {
		b.day, b.today = d, 0
	}
}

func dayOf(t time.Time) int64 { return t.Unix() / 86400 }

func (b *Budget) dayOver(l Limits, now time.Time) *Refusal {
	b.refusedDay.Add(1)
	return &Refusal{What: b.what, Rule: b.rule, Limit: LimitEgressDay, Number: l.EgressDay, After: time.Unix((dayOf(now)+1)*86400, 0).Sub(now)}
}

// Day gives the bytes of a day, for who keeps them over a restart.
func (b *Budget) Day() (day, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(time.Now())
	return b.day, b.today
}

// Restore adds the bytes of a day that were counted before a restart; those of another day are forgotten.
func (b *Budget) Restore(day, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.turn(time.Now()); day == b.day && bytes > 0 {
		b.today += bytes
	}
}

// Counts tell what became of a budget. All but Running are counted only while there are limits.
type Counts struct {
	Running           int64 // now
	Begun             int64
	RefusedRate       int64
	RefusedConcurrent int64
	RefusedDay        int64
	Bytes             int64 // that were let go
	Today             int64 // of these, this day
	Waits             int64 // times that bytes had to wait
	Waited            time.Duration
}

// Counts since the budget was made.
func (b *Budget) Counts() Counts {
	_, today := b.Day()
	return Counts{Running: b.running.Load(), Begun: b.begun.Load(), RefusedRate: b.refusedRate.Load(), RefusedConcurrent: b.refusedConcurrent.Load(),
		RefusedDay: b.refusedDay.Load(), Bytes: b.bytes.Load(), Today: today, Waits: b.waits.Load(), Waited: time.Duration(b.waited.Load())}
}

// Add sums counts.
func (c *Counts) Add(o Counts) {
	c.Running += o.Running
	c.Begun += o.Begun
	c.RefusedRate += o.RefusedRate
	c.RefusedConcurrent += o.RefusedConcurrent
	c.RefusedDay += o.RefusedDay
	c.Bytes += o.Bytes
	c.Today += o.Today
	c.Waits += o.Waits
	c.Waited += o.Waited
}
