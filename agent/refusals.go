package agent

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
)

// Refusals that are recorded and logged one by one: so many at once, and so many a second for long. Beyond these they are
// counted, and one event a second tells the count; and their answers wait, so that no more than answerRate leave a second. A
// relay that scans the site's network can so neither fill the audit log, nor keep disk and processor busy (a refusal costs a
// quarter of a millisecond), and is seen all the same.
const (
	refusalBurst  = 1000
	refusalRate   = 50
	answerRate    = 200
	answerLatest  = 10 * time.Second // no answer waits longer
	answerSpacing = time.Second / answerRate
)

// refusals decides which refusals are recorded one by one. Safe for concurrent use.
type refusals struct {
	tell func(count int64)

	mu      sync.Mutex // guards the fields below
	tokens  float64
	last    time.Time
	skipped int64     // since the last tell
	answer  time.Time // when the next one that waits may be answered
}

func newRefusals(tell func(count int64)) *refusals {
	return &refusals{tell: tell, tokens: refusalBurst, last: time.Now()}
}

// admit reports whether a refusal shall be recorded by itself. One that is not will be told of within a second.
func (r *refusals) admit() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.tokens = min(refusalBurst, r.tokens+refusalRate*now.Sub(r.last).Seconds())
	r.last = now
	if r.tokens >= 1 {
		r.tokens--
		return true
	}
	if r.skipped++; r.skipped == 1 {
		time.AfterFunc(time.Second, r.flush)
	}
	return false
}

// wait lets a refusal that was not admitted wait for its turn to be answered; false: ctx ended before.
func (r *refusals) wait(ctx context.Context) bool {
	r.mu.Lock()
	now := time.Now()
	if r.answer.Before(now) {
		r.answer = now
	}
	r.answer = r.answer.Add(answerSpacing)
	if latest := now.Add(answerLatest); r.answer.After(latest) {
		r.answer = latest
	}
	turn := time.NewTimer(r.answer.Sub(now))
	r.mu.Unlock()
	defer turn.Stop()
	select {
	case <-turn.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// flush tells how many were skipped; nothing when there were none.
func (r *refusals) flush() {
	r.mu.Lock()
	n := r.skipped
	r.skipped = 0
	r.mu.Unlock()
	if n > 0 {
		r.tell(n)
	}
}

func (s *trips) tellRefusals(count int64) {
	s.log.Warn("operations refused in a flood", "count", count)
	_, err := s.rec.Record(audit.Event{Kind: audit.KindDenied, Origin: string(protocol.OriginAgent), Decision: "deny", Code: string(protocol.CodeRateLimited),
		Reason: fmt.Sprintf("refusals beyond %d a second are counted, not recorded one by one", refusalRate), Detail: map[string]string{"count": strconv.FormatInt(count, 10)}})
	if err != nil {
		s.log.Warn("refusals could not be recorded", "count", count, "error", err)
	}
}
