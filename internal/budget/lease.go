package budget

import (
	"context"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// Names of limits, as they stand behind a budget's rule.
const (
	LimitRate       = "rate"
	LimitConcurrent = "concurrent"
	LimitEgressDay  = "egress_day"
)

// Refusal says which limit of which budget refused.
type Refusal struct {
	What   string // whose budget
	Rule   string // the place of its limits
	Limit  string // LimitRate and its like
	Number int64
	After  time.Duration // when to try again
}

// Error is for the log; Problem is for the caller.
func (r *Refusal) Error() string { return r.Rule + "." + r.Limit + " is used up" }

// Problem is the refusal as a caller may see it.
func (r *Refusal) Problem(origin protocol.Origin) *protocol.Error {
	has := ""
	switch r.Limit {
	case LimitRate:
		has = fmt.Sprintf("%d operations a second", r.Number)
	case LimitConcurrent:
		has = fmt.Sprintf("%d operations at a time", r.Number)
	case LimitEgressDay:
		has = fmt.Sprintf("%d bytes a day", r.Number)
	}
	after := max(r.After, time.Millisecond).Round(time.Millisecond)
	raise := "an admin of the workspace or the relay's operator can raise it"
	if origin == protocol.OriginAgent {
		raise = "the site's admin can raise it in agent.yaml under " + r.Rule
	}
	return &protocol.Error{Code: protocol.CodeRateLimited, Origin: origin, Rule: r.Rule + "." + r.Limit, RetryAfterMs: after.Milliseconds(),
		Message: fmt.Sprintf("the %s refuses: the budget of %s, %s, is used up", origin, r.What, has),
		Hint:    fmt.Sprintf("try again in %s; %s", after, raise)}
}

// Lease is one operation in the budgets that it counts in. The zero value counts in none.
type Lease struct{ in []*Budget }

// Begin counts an operation in all budgets, or in none and says which refused. The narrowest comes first. End must be called
// once after a nil Refusal.
func Begin(in ...*Budget) (Lease, *Refusal) {
	for i, b := range in {
		if r := b.begin(); r != nil {
			for _, done := range in[:i] {
				done.undo()
			}
			return Lease{}, r
		}
	}
	return Lease{in}, nil
}

// Peek says which budget would refuse an operation that begins now, and counts that as a refusal; nil when none would. It takes
// nothing: what it lets pass, Begin may still refuse.
func Peek(in ...*Budget) *Refusal {
	for _, b := range in {
		if r := b.peek(); r != nil {
			return r
		}
	}
	return nil
}

// End counts the operation out.
func (l Lease) End() {
	for _, b := range l.in {
		b.end()
	}
}

// Wait returns when n bytes more may leave by all budgets; see Budget.Wait.
func (l Lease) Wait(ctx context.Context, n int) error {
	for _, b := range l.in {
		if err := b.Wait(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// Waits reports whether bytes may have to wait by the limits in force now.
func (l Lease) Waits() bool {
	for _, b := range l.in {
		if k := b.limits.Load(); k != nil && (k.Egress > 0 || k.EgressDay > 0) {
			return true
		}
	}
	return false
}
