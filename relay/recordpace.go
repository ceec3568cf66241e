package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// recordPace holds each agent to its rate of records: a rogue one could else fill the disk, and keep it from the others (K10).
// Nothing is dropped: the batch waits, and with it the acknowledgement, and the agent sends no more meanwhile.
type recordPace struct {
	agents budget.Book

	mu   sync.Mutex // guards told
	told map[string]time.Time
}

const (
	ofAgent    = "the agent"
	recordUnit = 1 << 10          // a record counts once for each KiB that it begins
	slowWait   = time.Second      // a wait from which it is told that an agent is slowed
	slowPause  = 10 * time.Minute // between two events that tell so of one agent
)

func weigh(records []json.RawMessage) (n int) {
	for _, r := range records {
		n += (len(r)/recordUnit + 1) * recordUnit
	}
	return n
}

// wait returns when the agent may add the records, and tells for how long they waited.
func (p *recordPace) wait(ctx context.Context, agent string, rate int, records []json.RawMessage) (time.Duration, error) {
	b := p.agents.Get(agent, ofAgent, "audit.agent_rate")
	b.Set(budget.Limits{Egress: int64(rate) * recordUnit})
	started := time.Now()
	err := b.Wait(ctx, weigh(records))
	return time.Since(started), err
}

// tell reports whether it is time to record that the agent is slowed.
func (p *recordPace) tell(agent string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told == nil {
		p.told = map[string]time.Time{}
	}
	if last, ok := p.told[agent]; ok && now.Sub(last) < slowPause {
		return false
	}
	p.told[agent] = now
	return true
}

// keep forgets agents that are no more.
func (p *recordPace) keep(s *directory.Snapshot) {
	if s.Stale {
		return
	}
	p.agents.Keep(func(id string) bool { return s.Agent(id) != nil })
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.told {
		if s.Agent(id) == nil {
			delete(p.told, id)
		}
	}
}

// slowRecords waits until the agent may add the batch.
func (r *Relay) slowRecords(ctx context.Context, workspace, agent string, records []json.RawMessage) error {
	waited, err := r.pace.wait(ctx, agent, r.opt.Config.Audit.AgentRate, records)
	if err != nil {
		return &protocol.Error{Code: protocol.CodeCanceled, Message: "the agent went away", Cause: err}
	}
	if waited > slowWait && r.pace.tell(agent, time.Now()) {
		r.opt.Logger.Warn("an agent sends more audit records than it may; its acknowledgements wait", "agent", agent, "waited", waited.Round(time.Millisecond), "rate", r.opt.Config.Audit.AgentRate)
		r.note(audit.Event{Kind: "agent.log_slowed", Workspace: workspace, Agent: agent, Rule: "audit.agent_rate", Detail: map[string]string{"limit": fmt.Sprint(r.opt.Config.Audit.AgentRate)}})
	}
	return nil
}
