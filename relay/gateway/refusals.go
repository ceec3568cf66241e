package gateway

import (
	"fmt"
	"strconv"
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

// tellRefusals records what was counted only.
func (m *Manager) tellRefusals() {
	for ws, n := range m.refusals.Take(time.Now()) {
		m.cfg.Logger.Warn("gateway conns refused in a flood", "workspace", ws, "count", n)
		_, err := m.cfg.Dispatch.Record(audit.Event{Kind: audit.KindDenied, Workspace: ws, Origin: string(protocol.OriginRelay), Operation: string(protocol.OpDial), Decision: "deny",
			Code: string(protocol.CodeRateLimited), Reason: fmt.Sprintf("refusals at gateways beyond %d a second are counted, not recorded one by one", refusalRate),
			Detail: map[string]string{"count": strconv.FormatInt(n, 10)}})
		if err != nil {
			m.cfg.Logger.Warn("refusals could not be recorded", "workspace", ws, "count", n, "error", err)
		}
	}
}
