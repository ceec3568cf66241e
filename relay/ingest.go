package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/api"
)

// ingest takes agents' audit records into the workspace's log, in order, once each.
//
// An agent sends from what it believes is acknowledged; a receipt that was lost makes it send again. What is held already
// is skipped, so nothing is doubled; a record that does not continue the chain is refused, so nothing is cut out or
// changed unseen. The cursor in the store may lag behind the log by a crash: recover reads the log's end to catch up.
type ingest struct {
	mu     sync.Mutex // guards agents
	agents map[string]*agentCursor
}

// agentCursor is how far an agent's log is held. Its lock also keeps two tunnels of one agent from interleaving.
type agentCursor struct {
	mu    sync.Mutex
	known bool
	told  bool // that the log forked stands in the record already
	// forked: at its last hello the agent's log was shorter than what is held of it, or ends otherwise. What it sends then
	// bears numbers that are held already, and must not be taken for those.
	forked bool
	head   protocol.LogHead
}

// sealedRecord is the body of an agent's record in the workspace's log: ids in the clear, the line sealed.
type sealedRecord struct {
	audit.Sealed
	Agent     string `json:"agent"`
	AgentSeq  uint64 `json:"agent_seq"`
	AgentHash string `json:"agent_hash"`
}

// recoverRecords bounds how much of the log's end is read after a start. A batch is written and its cursor stored within
// one request, so what can be missing is far less.
const recoverRecords = 100_000

func (c *control) events(r *http.Request) (any, error) {
	var b protocol.EventBatch
	if err := decode(r, &b); err != nil {
		return nil, err
	}
	if len(b.Records) == 0 || len(b.Records) > protocol.MaxEventBatch {
		return nil, protocol.Errorf(protocol.CodeInvalid, "want 1 to %d records", protocol.MaxEventBatch)
	}
	head, err := c.relay.take(r.Context(), c.tunnel.Peer().Workspace, c.tunnel.Peer().ID, b.Records)
	if err != nil {
		return nil, err
	}
	return protocol.Receipt{Log: head}, nil
}

func (r *Relay) take(ctx context.Context, workspace, agent string, records []json.RawMessage) (protocol.LogHead, error) {
	var none protocol.LogHead
	log, err := r.logs.Get(workspace)
	if err != nil {
		return none, &protocol.Error{Code: protocol.CodeAuditUnavailable, Message: "the relay cannot write its audit log", Cause: err}
	}
	cur := r.ingest.lock(agent)
	defer cur.mu.Unlock()
	if err := cur.find(ctx, r, agent, log); err != nil {
		return none, err
	}
	if cur.forked {
		return none, r.forked(cur, workspace, agent, cur.head.Seq)
	}
	// The batch is judged whole before any of it is kept: what a refusal followed would stand in the log for good.
	for len(records) > 0 {
		rec, err := audit.ParseLine(records[0])
		if err != nil {
			return none, &protocol.Error{Code: protocol.CodeInvalid, Message: "a record is not a line of an audit log", Cause: err}
		}
		if rec.Seq > cur.head.Seq {
			break
		}
		if rec.Seq == cur.head.Seq && rec.Hash != cur.head.Hash {
			return none, r.forked(cur, workspace, agent, rec.Seq)
		}
		records = records[1:] // held already
	}
	recs, err := audit.Follow(cur.head, records)
	if err != nil {
		return none, r.forked(cur, workspace, agent, cur.head.Seq+uint64(len(recs))+1)
	}
	bodies := make([][]byte, len(recs))
	for i, rec := range recs {
		if bodies[i], err = r.wrap(workspace, agent, rec); err != nil {
			return none, err
		}
	}
	var last *audit.Ticket
	head := cur.head
	for i, rec := range recs {
		if last, err = log.Append(bodies[i]); err != nil {
			cur.known = false // part of the batch may be in the log: the next one reads from there
			return none, &protocol.Error{Code: protocol.CodeAuditUnavailable, Message: "the relay cannot write its audit log", Cause: err}
		}
		head = rec.Head()
	}
	if last == nil {
		return cur.head, nil
	}
	// Acknowledged only after fsync. An agent that hangs up does not end the wait: the records stand in the log, and the
	// next batch must find them there.
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := last.Wait(wctx); err != nil {
		cur.known = false // what is durable is not known now: the next batch reads it from the log
		return none, &protocol.Error{Code: protocol.CodeAuditUnavailable, Message: "the relay cannot write its audit log", Cause: err}
	}
	cur.head = head
	if err := r.dir.SetAuditCursor(wctx, agent, head); err != nil {
		return none, err
	}
	return head, nil
}

// held tells how far the agent's log is held, and holds against that what the agent says of its log at hello: a log that
// lost records which the relay has (its folder was emptied, or restored from a copy) is found at once.
func (r *Relay) held(ctx context.Context, workspace, agent string, says protocol.LogHead) (protocol.LogHead, error) {
	log, err := r.logs.Get(workspace)
	if err != nil {
		// Without its audit log the relay does nothing, but the agent is let in: it is asked for nothing either.
		return r.dir.AuditCursor(ctx, agent)
	}
	cur := r.ingest.lock(agent)
	defer cur.mu.Unlock()
	if err := cur.find(ctx, r, agent, log); err != nil {
		return protocol.LogHead{}, err
	}
	if r.hub.Live(agent) {
		// Another tunnel of the same process may have sent records since this hello was written.
		return cur.head, nil
	}
	cur.forked = says.Seq < cur.head.Seq || says.Seq == cur.head.Seq && says.Seq > 0 && says.Hash != cur.head.Hash
	if cur.forked {
		_ = r.forked(cur, workspace, agent, says.Seq+1) // recorded; the refusal comes with the first batch
	}
	return cur.head, nil
}

// wrap seals an agent's record for the workspace's log. An agent speaks for itself alone (K3).
func (r *Relay) wrap(workspace, agent string, rec audit.Record) ([]byte, error) {
	var meta struct {
		Workspace string `json:"workspace"`
		Source    string `json:"source"`
	}
	if err := json.Unmarshal(rec.Body, &meta); err != nil || !plainMembers(rec.Body) || meta.Workspace != workspace || meta.Source != agent {
		return nil, protocol.Errorf(protocol.CodeInvalid, "record %d is not of this agent", rec.Seq)
	}
	plain, err := json.Marshal(api.AgentRecord{Agent: agent, Line: rec.Line})
	if err != nil {
		return nil, fmt.Errorf("encode a record: %w", err)
	}
	sealed, err := r.dir.SealEvent(workspace, plain)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(sealedRecord{Sealed: audit.Sealed{ID: audit.NewID(), Time: rec.Time, Workspace: workspace, Kind: api.KindAgentRecord, Sealed: sealed}, Agent: agent, AgentSeq: rec.Seq, AgentHash: rec.Hash})
	if err != nil {
		return nil, fmt.Errorf("encode a record: %w", err)
	}
	return body, nil
}

// plainMembers refuses an object in which a reader could find another value than we did: a member that stands twice, or in
// other case ("Source" beside "source", which encoding/json takes for the same), and "seq", which the API puts in front.
func plainMembers(body []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return false
	}
	seen := map[string]bool{"seq": true}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok || seen[name] || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_0123456789") != "" {
			return false
		}
		seen[name] = true
		var skip json.RawMessage
		if dec.Decode(&skip) != nil {
			return false
		}
	}
	_, err := dec.Token() // the closing brace
	return err == nil
}

// forked is recorded once a process, however often the agent tries, and refused each time: an agent's log that was cut,
// changed or restored must not be patched over.
func (r *Relay) forked(cur *agentCursor, workspace, agent string, seq uint64) error {
	r.opt.Logger.Error("an agent's audit log does not continue what the relay holds", "agent", agent, "seq", seq)
	if !cur.told {
		cur.told = true
		r.note(audit.Event{Kind: "agent.log_forked", Workspace: workspace, Agent: agent, Detail: map[string]string{"seq": fmt.Sprint(seq)}})
	}
	return &protocol.Error{Code: protocol.CodeConflict, Message: fmt.Sprintf("record %d does not continue the log that the relay holds of this agent", seq),
		Hint: "the agent's data folder was changed or restored from a copy; enrol the agent anew"}
}

// lock gives the agent's cursor, locked: from the look at where the log stands until the batch is durable nobody else of
// the same agent comes between.
func (g *ingest) lock(agent string) *agentCursor {
	g.mu.Lock()
	if g.agents == nil {
		g.agents = map[string]*agentCursor{}
	}
	cur := g.agents[agent]
	if cur == nil {
		cur = &agentCursor{}
		g.agents[agent] = cur
	}
	g.mu.Unlock()
	cur.mu.Lock()
	return cur
}

// find sees to it that head is known: from the store and, after a start, from the log's end. cur.mu is held.
func (cur *agentCursor) find(ctx context.Context, r *Relay, agent string, log *audit.Log) error {
	if cur.known {
		return nil
	}
	head, err := r.dir.AuditCursor(ctx, agent)
	if err != nil {
		return err
	}
	last := log.Head().Seq
	after := uint64(0)
	if o := log.Oldest(); o > 0 {
		after = o - 1
	}
	if last > recoverRecords && last-recoverRecords > after {
		after = last - recoverRecords
	}
	for after < last {
		recs, err := log.Read(after, 1000)
		if err != nil {
			return fmt.Errorf("read the end of the audit log: %w", err)
		}
		if len(recs) == 0 {
			break
		}
		for _, rec := range recs {
			after = rec.Seq
			var s sealedRecord
			if bytes.Contains(rec.Body, []byte(agent)) && json.Unmarshal(rec.Body, &s) == nil && s.Agent == agent && s.AgentSeq > head.Seq {
				head = protocol.LogHead{Seq: s.AgentSeq, Hash: s.AgentHash}
			}
		}
	}
	cur.head, cur.known = head, true
	return nil
}
