package agent

import (
	"fmt"
	"strconv"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
)

// serveRest has a raw dial go on from its answer to its end, without what began it: the request, its buffers, its goroutine and the
// stack of that. drain waits for it as for each trip.
func (s *trips) serveRest(ev *audit.Event, started time.Time, rest func(ended func(protocol.Outcome)), release func()) {
	rest(func(out protocol.Outcome) {
		defer release()
		defer func() {
			if p := recover(); p != nil { // the dial fails, the agent lives
				s.log.Error("operation panicked", "request_id", ev.RequestID, "panic", fmt.Sprintf("%T", p))
				ev.Kind, ev.Code = audit.KindInternal, string(protocol.CodeInternal)
				_, _ = s.rec.Record(*ev)
			}
		}()
		if out.Code == protocol.CodeInternal {
			s.log.Error("operation panicked", "request_id", ev.RequestID)
		}
		s.conclude(ev, started, out)
	})
}

// conclude records how a trip ended.
func (s *trips) conclude(ev *audit.Event, started time.Time, out protocol.Outcome) {
	ev.Kind, ev.Status = audit.KindOutcome, "done"
	if out.Code != "" {
		ev.Status = "failed"
	}
	ev.Code, ev.Rows, ev.Bytes, ev.BytesIn, ev.Truncated = string(out.Code), out.Rows, out.Bytes, out.BytesIn, out.Truncated != ""
	if out.Status != 0 {
		ev.Detail = map[string]string{"status_code": strconv.Itoa(out.Status)}
	}
	ev.DurationMs = time.Since(started).Milliseconds()
	if _, err := s.rec.Record(*ev); err != nil {
		s.log.Error("the outcome could not be recorded", "request_id", ev.RequestID, "error", err)
	}
}
