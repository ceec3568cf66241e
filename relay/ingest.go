package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/plainjson"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/api"
)

// ingest takes agents' audit records into the workspace's log, in order, once each.
//
// An agent sends from what it believes is acknowledged; a receipt that was lost makes it send again. What is held already
// is skipped, so nothing is doubled; a record that does not continue the chain is refused, so nothing is cut out or
// changed unseen. A relay that was restored from a copy holds less than an agent believes: it names what it holds, and the
// agent goes back as far as its own log still reaches.
//
// The log is the truth. The cursor in the store lags behind it by cursorLag, or a crash, and may be ahead of it in a copy
// whose parts are not of one moment, so the log's end is read once after a start.
type ingest struct {
	mu     sync.Mutex // guards the fields below
	agents map[string]*agentCursor
	ends   map[string]*logEnd          // by workspace
	lag    map[string]protocol.LogHead // cursors that the store has not yet
	failed bool                        // the store did not take them last time

	store sync.Mutex // held while cursors go there
}

// cursorLag is how long a cursor may be newer than the store's: a synced write for each batch would stand in the way of
// the records that operations wait for.
const cursorLag = time.Second

// logEnd is what the end of a workspace's log held when it was first asked for. One reading serves all agents: each for
// itself would read it thousands of times when they come back together.
type logEnd struct {
	mu    sync.Mutex
	known bool
	heads map[string]protocol.LogHead // of the agents that stand there
}

// agentCursor is how far an agent's log is held. Its lock also keeps two tunnels of one agent from interleaving.
type agentCursor struct {
	mu    sync.Mutex
	known bool // head is what the log holds, unless pending says otherwise
	told  bool // that the log forked stands in the record already
	// forked: at its last hello the agent's log was shorter than what is held of it, or ends otherwise. What it sends then
	// bears numbers that are held already, and must not be taken for those.
	forked bool
	head   protocol.LogHead
	stored uint64        // how far the cursor in the store is, or will be with the next storeCursors
	found  bool          // head was found once; from then on only what came behind at is looked at
	at     uint64        // the workspace's log was looked through up to here
	unsure *audit.Ticket // of a batch whose end is not known: it may yet become durable
	asked  uint64        // the record that the agent was last asked for
}

// sealedRecord is the body of an agent's record in the workspace's log: ids in the clear, the line sealed.
type sealedRecord struct {
	audit.Sealed
	Agent     string `json:"agent"`
	AgentSeq  uint64 `json:"agent_seq"`
	AgentHash string `json:"agent_hash"`
}

// encode gives what json.Marshal gives.
func (s sealedRecord) encode() ([]byte, error) {
	b, err := s.Sealed.AppendJSON(make([]byte, 0, 512+len(s.Sealed.Sealed)*4/3))
	if err != nil {
		return nil, err
	}
	b = plainjson.AppendString(append(b[:len(b)-1], `,"agent":`...), s.Agent)
	b = strconv.AppendUint(append(b, `,"agent_seq":`...), s.AgentSeq, 10)
	b = plainjson.AppendString(append(b, `,"agent_hash":`...), s.AgentHash)
	return append(b, '}'), nil
}

// recoverRecords bounds how much of the log's end is read after a start. A cursor is stored cursorLag after its batch, and
// while the store takes none no batch is taken, so what can be missing is far less.
const recoverRecords = 100_000

func (c *control) events(r *http.Request) (any, error) {
	data, err := readBody(r)
	if err != nil {
		return nil, err
	}
	b, err := audit.ParseBatch(data)
	if err != nil {
		return nil, notJSON(err)
	}
	if len(b.Records) == 0 || len(b.Records) > protocol.MaxEventBatch {
		return nil, protocol.Errorf(protocol.CodeInvalid, "want 1 to %d records", protocol.MaxEventBatch)
	}
	if err := c.relay.slowRecords(r.Context(), c.tunnel.Peer().Workspace, c.tunnel.Peer().ID, b.Records); err != nil {
		return nil, err
	}
	head, err := c.relay.take(r.Context(), c.tunnel.Peer().Workspace, c.tunnel.Peer().ID, b)
	if err != nil {
		return nil, err
	}
	return protocol.Receipt{Log: head}, nil
}

// take keeps what a batch adds to the agent's log and gives how far that is held then.
func (r *Relay) take(ctx context.Context, workspace, agent string, b protocol.EventBatch) (protocol.LogHead, error) {
	var none protocol.LogHead
	log, err := r.logs.Get(workspace)
	if err != nil {
		return none, cannotKeep(err)
	}
	r.ingest.mu.Lock()
	failed := r.ingest.failed
	r.ingest.mu.Unlock()
	if failed {
		if err := r.storeCursors(context.WithoutCancel(ctx)); err != nil {
			return none, err
		}
	}
	cur := r.ingest.lock(agent)
	defer cur.mu.Unlock()
	if err := cur.find(ctx, r, workspace, agent, log); err != nil {
		return none, err
	}
	if cur.forked {
		return none, r.forked(cur, workspace, agent, cur.head.Seq)
	}
	// The batch is judged whole before any of it is kept: what a refusal followed would stand in the log for good.
	records := b.Records
	for len(records) > 0 {
		rec, err := audit.ParseLine(records[0])
		if err != nil {
			return none, &protocol.Error{Code: protocol.CodeInvalid, Message: "a record is not a line of an audit log", Cause: err}
		}
		if rec.Seq > cur.head.Seq {
			if rec.Seq > cur.head.Seq+1 && 0 < b.Oldest && b.Oldest <= cur.head.Seq+1 {
				return r.ask(cur, workspace, agent, rec.Seq), nil
			}
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
	if err := cur.keep(ctx, log, recs, bodies); err != nil {
		return none, err
	}
	// What is durable is held, whether the store says so or not: after a start the log's end tells.
	if cur.head.Seq > cur.stored {
		r.ingest.mu.Lock()
		if r.ingest.lag == nil {
			r.ingest.lag = map[string]protocol.LogHead{}
		}
		r.ingest.lag[agent] = cur.head
		r.ingest.mu.Unlock()
		cur.stored = cur.head.Seq
	}
	return cur.head, nil
}

// keepCursors stores what is known of agents' logs now and then, until ctx ends.
func (r *Relay) keepCursors(ctx context.Context) {
	tick := time.NewTicker(cursorLag)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.storeCursors(ctx); err != nil && ctx.Err() == nil {
			r.opt.Logger.Error("the store does not take how far agents' audit logs are held; their records are refused until it does", "error", err)
		}
	}
}

// storeCursors makes the store know what is known of agents' logs. What it does not take now is taken the next time.
func (r *Relay) storeCursors(ctx context.Context) error {
	g := &r.ingest
	g.store.Lock()
	defer g.store.Unlock()
	g.mu.Lock()
	lag := g.lag
	g.lag = nil
	g.mu.Unlock()
	if len(lag) == 0 {
		return nil
	}
	err := r.dir.SetAuditCursors(ctx, lag)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed = err != nil
	if err == nil {
		return nil
	}
	maps.Copy(lag, g.lag) // what came meanwhile is newer
	g.lag = lag
	return fmt.Errorf("store how far agents' audit logs are held: %w", err)
}

// keep writes records to the workspace's log and waits until they are durable: only then they are acknowledged.
func (cur *agentCursor) keep(ctx context.Context, log *audit.Log, recs []audit.Record, bodies [][]byte) error {
	if len(recs) == 0 {
		return nil
	}
	cur.known = false // until all of it is durable: what a failure leaves, the next batch reads from the log
	for i := range recs {
		t, err := log.AppendMarshalled(bodies[i])
		if err != nil {
			return cannotKeep(err)
		}
		cur.unsure = t
	}
	// An agent that hangs up does not end the wait: the records stand in the log, and the next batch must find them there.
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := cur.unsure.Wait(wctx); err != nil {
		return cannotKeep(err)
	}
	cur.at, cur.head, cur.unsure, cur.known = cur.unsure.Seq(), recs[len(recs)-1].Head(), nil, true
	return nil
}

func cannotKeep(err error) error {
	return &protocol.Error{Code: protocol.CodeAuditUnavailable, Message: "the relay cannot write its audit log", Cause: err}
}

// ask tells an agent that sent on from record got how far its log is held, so that it fills the gap: that there is one
// stands in the record, for an agent that never fills it hides what it did.
func (r *Relay) ask(cur *agentCursor, workspace, agent string, got uint64) protocol.LogHead {
	if want := cur.head.Seq + 1; cur.asked != want {
		cur.asked = want
		r.opt.Logger.Warn("an agent believes that the relay holds more of its audit log; asking for what is missing", "agent", agent, "from", want, "before", got)
		r.note(audit.Event{Kind: "agent.log_behind", Workspace: workspace, Agent: agent, Detail: map[string]string{"from": fmt.Sprint(want), "before": fmt.Sprint(got)}})
	}
	return cur.head
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
	if err := cur.find(ctx, r, workspace, agent, log); err != nil {
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
	w, s, k, ok := plainMembers(rec.Body)
	if !ok || !isText(w, workspace) || !isText(s, agent) {
		return nil, protocol.Errorf(protocol.CodeInvalid, "record %d is not of this agent", rec.Seq)
	}
	if len(k) == 0 || k[0] != '"' {
		return nil, protocol.Errorf(protocol.CodeInvalid, "record %d does not say what it is of: kind wants a text", rec.Seq)
	}
	// An api.AgentRecord. json.Marshal would go through the line once more, to find that it is what ParseLine has taken.
	plain := append(make([]byte, 0, len(rec.Line)+128), `{"agent":`...)
	plain = append(plainjson.AppendString(plain, agent), `,"line":`...)
	sealed, err := r.dir.SealEvent(workspace, append(append(plain, rec.Line...), '}'))
	if err != nil {
		return nil, err
	}
	body, err := sealedRecord{Sealed: audit.Sealed{ID: audit.NewID(), Time: rec.Time, Workspace: workspace, Kind: api.KindAgentRecord, Sealed: sealed}, Agent: agent, AgentSeq: rec.Seq, AgentHash: rec.Hash}.encode()
	if err != nil {
		return nil, fmt.Errorf("encode a record: %w", err)
	}
	if len(body) > audit.MaxBodyBytes { // an agent's own events are far smaller
		return nil, protocol.Errorf(protocol.CodeInvalid, "record %d is too long", rec.Seq)
	}
	return body, nil
}

// plainMembers gives the values of an object's members workspace, source and kind, nil for one that is not there. It refuses an object
// in which a reader could find another value than we did: a member that stands twice, or in other case ("Source" beside "source",
// which encoding/json takes for the same), and "seq", which the API puts in front. body is valid JSON without white space, as a log
// writes it.
func plainMembers(body []byte) (workspace, source, kind []byte, ok bool) {
	if len(body) < 2 || body[0] != '{' {
		return nil, nil, nil, false
	}
	if string(body) == "{}" {
		return nil, nil, nil, true
	}
	var few [40][]byte // more than an event has
	names := append(few[:0], []byte("seq"))
	for p := body[1:]; ; p = p[1:] { // behind { or a comma
		if len(p) == 0 {
			return nil, nil, nil, false
		}
		n := 1
		for n < len(p) && (p[n] >= 'a' && p[n] <= 'z' || p[n] == '_' || p[n] >= '0' && p[n] <= '9') {
			n++
		}
		if p[0] != '"' || n+1 >= len(p) || p[n] != '"' || p[n+1] != ':' {
			return nil, nil, nil, false
		}
		name, value := p[1:n], p[n+2:]
		if p = skipValue(value); len(p) == 0 {
			return nil, nil, nil, false
		}
		names, value = append(names, name), value[:len(value)-len(p)]
		switch string(name) {
		case "workspace":
			workspace = value
		case "source":
			source = value
		case "kind":
			kind = value
		}
		if p[0] == '}' {
			ok = len(p) == 1
			break
		}
	}
	slices.SortFunc(names, bytes.Compare)
	for i := range names[1:] {
		ok = ok && !bytes.Equal(names[i], names[i+1])
	}
	return workspace, source, kind, ok
}

// isText reports whether a JSON value is the string want.
func isText(value []byte, want string) bool {
	if plainjson.Plain(want) && len(value) == len(want)+2 && string(value[1:len(value)-1]) == want && value[0] == '"' {
		return true
	}
	var got *string
	return json.Unmarshal(value, &got) == nil && got != nil && *got == want
}

// skipValue gives what is behind the first value of p: a comma or a bracket that closes what it stands in.
func skipValue(p []byte) []byte {
	depth := 0
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '"':
			for i++; i < len(p) && p[i] != '"'; i++ {
				if p[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return p[i:]
			}
			depth--
		case ',':
			if depth == 0 {
				return p[i:]
			}
		}
	}
	return nil
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

// find sees to it that head is known. cur.mu is held.
func (cur *agentCursor) find(ctx context.Context, r *Relay, workspace, agent string, log *audit.Log) error {
	if cur.unsure != nil {
		// Until it is known whether these are in the log, nothing can be appended: it could stand there twice.
		if err := cur.unsure.Wait(ctx); err != nil && !errors.Is(err, audit.ErrUnavailable) {
			return cannotKeep(err)
		}
		cur.unsure = nil
	}
	if cur.known {
		return nil
	}
	if !cur.found {
		end, err := r.ingest.end(workspace, log)
		if err != nil {
			return err
		}
		// Nobody but this cursor, whose first use this is, adds records of the agent.
		at := log.Head().Seq
		head, err := r.dir.AuditCursor(ctx, agent)
		if err != nil {
			return err
		}
		cur.stored = head.Seq
		if h, ok := end.heads[agent]; ok {
			head = h
		}
		cur.head, cur.at, cur.found, cur.known = head, at, true, true
		return nil
	}
	heads := map[string]protocol.LogHead{}
	at, err := readHeads(log, cur.at, heads)
	if err != nil {
		return err
	}
	if h, ok := heads[agent]; ok {
		cur.head = h
	}
	cur.at, cur.known = at, true
	return nil
}

// end reads the end of the workspace's log, once.
func (g *ingest) end(workspace string, log *audit.Log) (*logEnd, error) {
	g.mu.Lock()
	if g.ends == nil {
		g.ends = map[string]*logEnd{}
	}
	e := g.ends[workspace]
	if e == nil {
		e = &logEnd{}
		g.ends[workspace] = e
	}
	g.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known {
		return e, nil
	}
	after := max(log.Oldest(), 1) - 1
	if last := log.Head().Seq; last > recoverRecords {
		after = max(after, last-recoverRecords)
	}
	e.heads = map[string]protocol.LogHead{}
	if _, err := readHeads(log, after, e.heads); err != nil {
		return nil, err
	}
	e.known = true
	return e, nil
}

// readHeads notes the newest record of each agent that stands in the log behind after, and gives how far it read.
func readHeads(log *audit.Log, after uint64, heads map[string]protocol.LogHead) (uint64, error) {
	for last := log.Head().Seq; after < last; {
		recs, err := log.Read(after, 1000)
		if err != nil {
			return after, fmt.Errorf("read the end of the audit log: %w", err)
		}
		if len(recs) == 0 {
			break
		}
		for _, rec := range recs {
			after = rec.Seq
			var s sealedRecord
			if bytes.Contains(rec.Body, []byte(`"agent_seq":`)) && json.Unmarshal(rec.Body, &s) == nil && s.Agent != "" && s.AgentSeq > 0 {
				heads[s.Agent] = protocol.LogHead{Seq: s.AgentSeq, Hash: s.AgentHash}
			}
		}
	}
	return after, nil
}
