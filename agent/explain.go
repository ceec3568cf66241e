package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
)

// Questions that are answered: so many at once, and so many a second for long. They have a bound of their own, so that whoever asks takes
// no place from the records of who tries.
const (
	askedBurst = 50
	askedRate  = 5
)

// asked counts questions. Safe for concurrent use; the zero value has the whole burst.
type asked struct {
	mu    sync.Mutex // guards the fields below
	spent float64
	last  time.Time
}

// admit reports whether one more is answered now, and else how long to wait.
func (a *asked) admit(now time.Time) (wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spent = max(0, a.spent-askedRate*now.Sub(a.last).Seconds())
	a.last = now
	if over := a.spent + 1 - askedBurst; over > 0 {
		return time.Duration(over / askedRate * float64(time.Second))
	}
	a.spent++
	return 0
}

// explain answers what was decided, and does nothing. Each answer is recorded, since a relay learns from it what it would from trying;
// beyond the bound there is none. What it may know is what a refusal says, so the line of the file stays here.
func (s *trips) explain(ctx context.Context, w http.ResponseWriter, ev audit.Event, d policy.Decision) {
	if wait := s.asked.admit(time.Now()); wait > 0 {
		writeProblem(w, &protocol.Error{Code: protocol.CodeRateLimited, Origin: protocol.OriginAgent, RequestID: ev.RequestID, RetryAfterMs: max(wait.Milliseconds(), 1), Message: "too many ask the agent what it would decide",
			Hint: "ask again shortly, or at the site: `fairlead-agent explain`"})
		return
	}
	v := protocol.Verdict{Allow: d.Allow, Rule: d.Rule, Reason: d.Reason, Hint: d.Hint, Statement: ev.Statement}
	ev.Kind, ev.Decision = audit.KindExplained, "allow"
	if d.Allow {
		v.MaxRows, v.MaxBytes, v.TimeoutMs = d.Limits.MaxRows, d.Limits.MaxBytes, d.Limits.Timeout.Milliseconds()
	} else {
		v.Code, ev.Decision, ev.Code = d.Code, "deny", string(d.Code)
	}
	if err := s.record(ctx, ev); err != nil {
		writeProblem(w, err)
		return
	}
	b, err := json.Marshal(v)
	for _, long := range []*string{&v.Statement, &v.Hint, &v.Reason} { // in the order in which they are missed least
		if err == nil && len(b) > protocol.MaxVerdictBytes {
			*long = ""
			b, err = json.Marshal(v)
		}
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}
