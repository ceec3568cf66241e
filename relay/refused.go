package relay

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/enroll"
)

// refusedAgents tells when it is time to record that an agent was refused: it tries again and again, and one event says as much
// as a thousand.
type refusedAgents struct {
	mu sync.Mutex // guards of
	of map[string]*refusedAgent
}

type refusedAgent struct {
	reason string
	told   time.Time
	more   int64 // since then
}

const (
	refusedPause   = 10 * time.Minute // between two events of one agent for one reason
	refusedTracked = 10_000           // agents; of the rest nothing is recorded until others have been quiet
)

// tell counts a refusal. It is to be recorded when ok; more were not recorded since the last one that was.
func (f *refusedAgents) tell(agent, reason string, now time.Time) (more int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = map[string]*refusedAgent{}
	}
	a := f.of[agent]
	if a != nil && a.reason == reason && now.Sub(a.told) < refusedPause {
		a.more++
		return 0, false
	}
	if a == nil && len(f.of) >= refusedTracked {
		for id, old := range f.of {
			if now.Sub(old.told) >= refusedPause {
				delete(f.of, id)
			}
		}
		if len(f.of) >= refusedTracked {
			return 0, false
		}
	}
	if a != nil {
		more = a.more
	}
	f.of[agent] = &refusedAgent{reason: reason, told: now}
	return more, true
}

// refuse records, in the workspace that the certificate names, that an agent was not let in. The certificate is of this
// installation's CA; that who showed it has its key, nobody has proven yet when a handshake ends here.
func (r *Relay) refuse(id mtls.Identity, c *x509.Certificate, err error) {
	r.refuseAgent(id, c, netip.Addr{}, err)
}

// refuseAgent is refuse where it is known from where the agent came.
func (r *Relay) refuseAgent(id mtls.Identity, c *x509.Certificate, from netip.Addr, err error) {
	e := protocol.AsError(err)
	if e.Code != protocol.CodeDenied {
		return
	}
	if ws, werr := r.dir.Snapshot().Workspace(id.Workspace); werr != nil || ws.ID != id.Workspace {
		return // there is no log for it
	}
	more, ok := r.refusals.tell(id.ID, e.Message, time.Now())
	if !ok {
		return
	}
	ev := audit.Event{Kind: audit.KindAgentRefused, Workspace: id.Workspace, Agent: id.ID, Group: id.Group, Origin: string(protocol.OriginRelay), Decision: "deny", Code: string(e.Code), Reason: e.Message,
		Rule: e.Rule, Detail: map[string]string{}}
	if c != nil {
		ev.Detail["certificate"] = enroll.Serial(c)
	}
	if from.IsValid() {
		ev.SourceAddress = from.String()
	}
	if more > 0 {
		ev.Detail["count"] = fmt.Sprint(more)
	}
	r.note(ev)
}
