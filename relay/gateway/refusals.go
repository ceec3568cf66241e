package gateway

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
)

// Refusals of a workspace that are recorded one by one: so many at once, and so many a second for long. Beyond these they
// are counted, and one event at a time tells the count: anybody who reaches a port could otherwise fill the audit log.
const (
	refusalBurst = 100
	refusalRate  = 5
)

// refusals decides which refusals are recorded one by one. Safe for concurrent use.
type refusals struct {
	mu sync.Mutex // guards of
	of map[string]*allowance
}

// allowance is what a workspace has left.
type allowance struct {
	tokens  float64
	last    time.Time
	skipped int64
}

func (r *refusals) admit(workspace string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]*allowance{}
	}
	a := r.of[workspace]
	if a == nil {
		a = &allowance{tokens: refusalBurst, last: now}
		r.of[workspace] = a
	}
	a.tokens = min(refusalBurst, a.tokens+refusalRate*now.Sub(a.last).Seconds())
	a.last = now
	if a.tokens < 1 {
		a.skipped++
		return false
	}
	a.tokens--
	return true
}

// take gives what was skipped since the last time, and forgets workspaces that are at rest.
func (r *refusals) take(now time.Time) map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out map[string]int64
	for ws, a := range r.of {
		if a.skipped > 0 {
			if out == nil {
				out = map[string]int64{}
			}
			out[ws] = a.skipped
			a.skipped = 0
		} else if now.Sub(a.last).Seconds()*refusalRate > refusalBurst {
			delete(r.of, ws)
		}
	}
	return out
}

// tellRefusals records what was counted only.
func (m *Manager) tellRefusals() {
	for ws, n := range m.refusals.take(time.Now()) {
		m.cfg.Logger.Warn("gateway conns refused in a flood", "workspace", ws, "count", n)
		_, err := m.cfg.Dispatch.Record(audit.Event{Kind: audit.KindDenied, Workspace: ws, Origin: string(protocol.OriginRelay), Operation: string(protocol.OpDial), Decision: "deny",
			Code: string(protocol.CodeRateLimited), Reason: fmt.Sprintf("refusals at gateways beyond %d a second are counted, not recorded one by one", refusalRate),
			Detail: map[string]string{"count": strconv.FormatInt(n, 10)}})
		if err != nil {
			m.cfg.Logger.Warn("refusals could not be recorded", "workspace", ws, "count", n, "error", err)
		}
	}
}
