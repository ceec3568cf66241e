package agent

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
)

// explain answers what was decided, and does nothing. It is recorded, and slowed down as refusals are, since a relay learns from it
// what it would from trying. What it may know is what a refusal says, so the line of the file stays here.
func (s *trips) explain(ctx context.Context, w http.ResponseWriter, ev audit.Event, d policy.Decision) {
	v := protocol.Verdict{Allow: d.Allow, Rule: d.Rule, Reason: d.Reason, Hint: d.Hint, Statement: ev.Statement}
	ev.Kind, ev.Decision = audit.KindExplained, "allow"
	if d.Allow {
		v.MaxRows, v.MaxBytes, v.TimeoutMs = d.Limits.MaxRows, d.Limits.MaxBytes, d.Limits.Timeout.Milliseconds()
	} else {
		v.Code, ev.Decision, ev.Code = d.Code, "deny", string(d.Code)
	}
	if !s.refusals.admit() {
		if !s.refusals.wait(ctx) {
			return
		}
	} else if err := s.record(ctx, ev); err != nil {
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
