package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// open makes a relay on a new installation in dir, or on the one that is there.
func open(t testing.TB, dir string) *Relay {
	t.Helper()
	ctx := context.Background()
	if _, err := os.Stat(filepath.Join(dir, "relay.yaml")); err != nil {
		if _, err := Init(ctx, InitOptions{Data: dir, Listen: "127.0.0.1:0", PublicAddress: "localhost:1"}); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := LoadConfig(filepath.Join(dir, "relay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(ctx, Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// site is an agent's side of the story: its own log.
type site struct {
	agent, workspace string
	log              *audit.Log
	rec              *audit.Recorder
}

func newSite(t testing.TB, r *Relay, name string) *site {
	t.Helper()
	ctx := context.Background()
	ws := r.dir.Snapshot().Workspaces()[0]
	_, sec, err := r.dir.CreateJoinToken(ctx, ws.ID, "default", 0, "test")
	if err != nil {
		t.Fatal(err)
	}
	pub, key, _ := ed25519.GenerateKey(nil)
	spki := make([]byte, 32)
	copy(spki, name)
	a, err := r.dir.Enroll(ctx, sec, directory.Enrolment{Name: name, SPKI: spki, LogKey: pub}, func(string, string, string) (directory.Certificate, error) {
		return directory.Certificate{Serial: name, SPKI: spki, NotAfter: r.server.Get().Leaf().NotAfter}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(audit.Config{Dir: filepath.Join(t.TempDir(), name), Source: a.ID, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &site{a.ID, ws.ID, l, &audit.Recorder{Log: l, Masker: &audit.Masker{Key: secret.FromString("k")}, Source: a.ID, Workspace: ws.ID}}
}

// write adds n events to the site's log and returns all lines after seq.
func (s *site) write(t testing.TB, n int, after uint64) (lines []json.RawMessage) {
	t.Helper()
	for range n {
		tk, err := s.rec.Record(audit.Event{Kind: audit.KindIntent, Operation: "query"})
		if err == nil {
			err = tk.Wait(context.Background())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	recs, err := s.log.Read(after, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		lines = append(lines, r.Line)
	}
	return lines
}

func batch(lines []json.RawMessage) protocol.EventBatch { return protocol.EventBatch{Records: lines} }

// held counts what the relay's log holds of the agent.
func held(t *testing.T, r *Relay, s *site) (seqs []uint64) {
	t.Helper()
	l, err := r.logs.Get(s.workspace)
	if err != nil {
		t.Fatal(err)
	}
	recs, err := l.Read(0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range recs {
		var b sealedRecord
		if json.Unmarshal(rec.Body, &b) == nil && b.Agent == s.agent {
			seqs = append(seqs, b.AgentSeq)
		}
	}
	return seqs
}

func consecutive(seqs []uint64, n int) bool {
	if len(seqs) != n {
		return false
	}
	for i, s := range seqs {
		if s != uint64(i+1) {
			return false
		}
	}
	return true
}

func TestAgentRecordsAreTakenInOrderAndOnce(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "relay")
	r := open(t, dir)
	s, other := newSite(t, r, "one"), newSite(t, r, "two")
	lines := s.write(t, 10, 0)

	head, err := r.take(ctx, s.workspace, s.agent, batch(lines[:6]))
	if err != nil || head.Seq != 6 {
		t.Fatalf("%+v, %v", head, err)
	}
	// The receipt was lost: all of it comes again, and more.
	if head, err = r.take(ctx, s.workspace, s.agent, batch(lines)); err != nil || head.Seq != 10 {
		t.Fatalf("%+v, %v", head, err)
	}
	if head, err = r.take(ctx, s.workspace, s.agent, batch(lines[2:4])); err != nil || head.Seq != 10 {
		t.Fatalf("an old batch moved the head: %+v, %v", head, err)
	}
	if got := held(t, r, s); !consecutive(got, 10) {
		t.Fatalf("held: %v", got)
	}
	refused := func(name string, workspace, agent string, lines []json.RawMessage, want protocol.Code) {
		t.Run(name, func(t *testing.T) {
			_, err := r.take(ctx, workspace, agent, batch(lines))
			var e *protocol.Error
			if !errors.As(err, &e) || e.Code != want {
				t.Fatalf("got %v, want %s", err, want)
			}
		})
	}
	more := s.write(t, 5, 10)
	changed := json.RawMessage(bytes.Replace(more[0], []byte(`"query"`), []byte(`"quarry"`), 1))
	refused("K4 a record cut out", s.workspace, s.agent, more[1:], protocol.CodeConflict)
	refused("K4 records swapped", s.workspace, s.agent, []json.RawMessage{more[1], more[0]}, protocol.CodeConflict)
	refused("K4 a record changed, its successor refused", s.workspace, s.agent, []json.RawMessage{changed, more[1]}, protocol.CodeConflict)
	refused("K3 another agent's records", s.workspace, other.agent, s.write(t, 0, 0)[:1], protocol.CodeInvalid)
	if head := r.ingest.agents[s.agent].head; head.Seq != 10 {
		t.Fatalf("a refused batch moved the head to %d", head.Seq)
	}
	refused("garbage", s.workspace, s.agent, []json.RawMessage{json.RawMessage(`{"seq":11}`)}, protocol.CodeInvalid)

	if got := held(t, r, s); !consecutive(got, 10) {
		t.Fatalf("a refused batch left something in the log: %v", got)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

func TestCursorCatchesUpWithTheLogAfterACrash(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "relay")
	r := open(t, dir)
	s := newSite(t, r, "one")
	lines := s.write(t, 8, 0)
	if _, err := r.take(ctx, s.workspace, s.agent, batch(lines[:3])); err != nil {
		t.Fatal(err)
	}
	if err := r.storeCursors(ctx); err != nil {
		t.Fatal(err)
	}
	stored, err := r.dir.AuditCursor(ctx, s.agent)
	if err != nil || stored.Seq != 3 {
		t.Fatalf("%+v, %v", stored, err)
	}
	// As if the process had died after the append of 4 and 5 and before the cursor was stored: the records are put into
	// the log by another relay whose store does not outlive it.
	if _, err := r.take(ctx, s.workspace, s.agent, batch(lines[3:5])); err != nil {
		t.Fatal(err)
	}
	r.ingest = ingest{} // what a new process knows
	cur := r.ingest.lock(s.agent)
	err = cur.find(ctx, r, s.workspace, s.agent, mustLog(t, r, s.workspace))
	if cur.mu.Unlock(); err != nil || cur.head.Seq != 5 {
		t.Fatalf("%+v, %v", cur.head, err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}

	r = open(t, dir)
	defer r.close()
	head, err := r.take(ctx, s.workspace, s.agent, batch(lines))
	if err != nil || head.Seq != 8 {
		t.Fatalf("%+v, %v", head, err)
	}
	if got := held(t, r, s); !consecutive(got, 8) {
		t.Fatalf("held: %v", got)
	}
}

func mustLog(t *testing.T, r *Relay, workspace string) *audit.Log {
	t.Helper()
	l, err := r.logs.Get(workspace)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// kinds counts the relay's own events about the agent.
func kinds(t *testing.T, r *Relay, s *site, kind string) (n int) {
	t.Helper()
	log := mustLog(t, r, s.workspace)
	tk, err := log.Append([]byte(`{}`))
	if err == nil {
		err = tk.Wait(t.Context()) // and with it what nobody waited for
	}
	if err != nil {
		t.Fatal(err)
	}
	recs, err := log.Read(0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range recs {
		var b audit.Sealed
		if json.Unmarshal(rec.Body, &b) == nil && string(b.Kind) == kind {
			n++
		}
	}
	return n
}

// A relay that was put back to an older state asks for what it lacks, instead of refusing for ever what comes behind it.
func TestRestoredRelayAsksForWhatItLacks(t *testing.T) {
	ctx := context.Background()
	r, s := relayAndSite(t)
	lines := s.write(t, 10, 0)
	first, err := r.take(ctx, s.workspace, s.agent, batch(lines[:4]))
	if err != nil {
		t.Fatal(err)
	}
	gap := func(oldest uint64) (protocol.LogHead, error) {
		return r.take(ctx, s.workspace, s.agent, protocol.EventBatch{Records: lines[6:], Oldest: oldest})
	}
	for _, oldest := range []uint64{1, 5} { // asked twice: the first answer may have been lost
		if head, err := gap(oldest); err != nil || head != first {
			t.Fatalf("%+v, %v, want %+v", head, err, first)
		}
	}
	if got := held(t, r, s); !consecutive(got, 4) {
		t.Fatalf("something was kept behind a gap: %v", got)
	}
	if n := kinds(t, r, s, "agent.log_behind"); n != 1 {
		t.Fatalf("the gap stands %d times in the record", n)
	}
	// The agent goes back. What does not continue by its hash is no way to fill a gap.
	swapped := []json.RawMessage{bytes.Replace(bytes.Clone(lines[4]), []byte(`"query"`), []byte(`"quarry"`), 1), lines[5]}
	if _, err := r.take(ctx, s.workspace, s.agent, protocol.EventBatch{Records: swapped, Oldest: 1}); client.CodeOf(err) != protocol.CodeConflict {
		t.Fatalf("K4 a gap filled with another record: %v", err)
	}
	if head, err := r.take(ctx, s.workspace, s.agent, protocol.EventBatch{Records: lines[4:], Oldest: 1}); err != nil || head.Seq != 10 {
		t.Fatalf("%+v, %v", head, err)
	}
	if got := held(t, r, s); !consecutive(got, 10) {
		t.Fatalf("held: %v", got)
	}
}

// What the agent no longer holds cannot be filled: that stays a conflict, and stands in the record.
func TestGapThatCannotBeFilledStaysAConflict(t *testing.T) {
	ctx := context.Background()
	r, s := relayAndSite(t)
	lines := s.write(t, 10, 0)
	if _, err := r.take(ctx, s.workspace, s.agent, batch(lines[:4])); err != nil {
		t.Fatal(err)
	}
	for name, oldest := range map[string]uint64{"released": 6, "begins with the batch": 7, "not told": 0, "nonsense": 1 << 63} {
		if _, err := r.take(ctx, s.workspace, s.agent, protocol.EventBatch{Records: lines[6:], Oldest: oldest}); client.CodeOf(err) != protocol.CodeConflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := kinds(t, r, s, "agent.log_forked"); n != 1 {
		t.Errorf("it stands %d times in the record", n)
	}
	if got := held(t, r, s); !consecutive(got, 4) {
		t.Fatalf("held: %v", got)
	}
}

// While the store does not take cursors no batch is taken: after a crash the log's end would not reach back to them.
func TestNoBatchIsTakenWhileTheStoreFails(t *testing.T) {
	ctx := context.Background()
	r, s := relayAndSite(t)
	lines := s.write(t, 6, 0)
	if _, err := r.take(ctx, s.workspace, s.agent, batch(lines[:3])); err != nil {
		t.Fatal(err)
	}
	store := func(ctx context.Context, agent string, want uint64) {
		t.Helper()
		if h, err := r.dir.AuditCursor(ctx, agent); err != nil || h.Seq != want {
			t.Fatalf("the store has %+v, %v; want %d", h, err, want)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.storeCursors(gone); err == nil {
		t.Fatal("stored in spite of it")
	}
	store(ctx, s.agent, 0)
	// A malformed head stands for a store that fails: the same path, and nothing else in the process breaks.
	r.ingest.lag["agt_broken"] = protocol.LogHead{Seq: 1}
	if _, err := r.take(ctx, s.workspace, s.agent, batch(lines[3:])); err == nil {
		t.Fatal("a batch was taken")
	}
	if got := held(t, r, s); !consecutive(got, 3) {
		t.Fatalf("held: %v", got)
	}
	delete(r.ingest.lag, "agt_broken")
	if _, err := r.take(ctx, s.workspace, s.agent, batch(lines[3:])); err != nil {
		t.Fatal(err)
	}
	store(ctx, s.agent, 3) // made good before the batch
	if err := r.storeCursors(ctx); err != nil {
		t.Fatal(err)
	}
	store(ctx, s.agent, 6)
}

// In a copy whose parts are not of one moment the store may know of records that the log has not: they are asked for.
func TestCursorAheadOfTheLogDoesNotHideALoss(t *testing.T) {
	ctx := context.Background()
	r, s := relayAndSite(t)
	lines := s.write(t, 8, 0)
	if _, err := r.take(ctx, s.workspace, s.agent, batch(lines[:3])); err != nil {
		t.Fatal(err)
	}
	six, err := audit.ParseLine(lines[5])
	if err == nil {
		err = r.dir.SetAuditCursors(ctx, map[string]protocol.LogHead{s.agent: six.Head()})
	}
	if err != nil {
		t.Fatal(err)
	}
	r.ingest = ingest{} // as after a start
	if head, err := r.take(ctx, s.workspace, s.agent, protocol.EventBatch{Records: lines[6:], Oldest: 1}); err != nil || head.Seq != 3 {
		t.Fatalf("%+v, %v", head, err)
	}
	for _, part := range [][]json.RawMessage{lines[3:5], lines[5:]} { // the cursor in the store does not go back
		if _, err := r.take(ctx, s.workspace, s.agent, batch(part)); err != nil {
			t.Fatal(err)
		}
	}
	if got := held(t, r, s); !consecutive(got, 8) {
		t.Fatalf("held: %v", got)
	}
	if err := r.storeCursors(ctx); err != nil {
		t.Fatal(err)
	}
	if h, err := r.dir.AuditCursor(ctx, s.agent); err != nil || h.Seq != 8 {
		t.Fatalf("%+v, %v", h, err)
	}
}

// A record whose text encoding/json would write in another way could not be proven from what the relay keeps; one that is
// too long for the log would stop half of a batch. Both are refused before any of the batch is kept.
func TestRecordsThatCouldNotBeProvenAreRefused(t *testing.T) {
	ctx := context.Background()
	r, s := relayAndSite(t)
	lines := s.write(t, 1, 0)
	one, err := audit.ParseLine(lines[0])
	if err != nil {
		t.Fatal(err)
	}
	meta := `"workspace":"` + s.workspace + `","source":"` + s.agent + `"`
	for name, body := range map[string]string{
		"K3 no kind":        `{` + meta + `}`,
		"K3 kind of 1":      `{` + meta + `,"kind":1}`,
		"K3 kind of null":   `{` + meta + `,"kind":null}`,
		"K3 kind of {}":     `{` + meta + `,"kind":{}}`,
		"P18 blanks":        `{` + meta + `, "kind":"x"}`,
		"P18 plain <":       `{` + meta + `,"kind":"<"}`,
		"P18 not UTF-8":     `{` + meta + `,"kind":"` + "\xff" + `"}`,
		"P21 far too long":  `{` + meta + `,"kind":"` + strings.Repeat("x", audit.MaxBodyBytes-300) + `"}`,
		"P21 deeply nested": `{` + meta + `,"kind":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			bad := json.RawMessage(fmt.Sprintf(`{"seq":2,"prev":"%s","time":"2026-01-02T03:04:05Z","body":%s}`, one.Hash, body))
			if _, err := r.take(ctx, s.workspace, s.agent, batch([]json.RawMessage{lines[0], bad})); client.CodeOf(err) != protocol.CodeInvalid && client.CodeOf(err) != protocol.CodeConflict {
				t.Errorf("got %v", err)
			}
			if got := held(t, r, s); len(got) != 0 {
				t.Errorf("part of a refused batch stands in the log: %v", got)
			}
		})
	}
}

// One reading of the log's end serves every agent, and nobody's records are taken for another's.
func TestAllAgentsAreFoundInOneReading(t *testing.T) {
	ctx := context.Background()
	r, one := relayAndSite(t)
	two := newSite(t, r, "two")
	for _, s := range []*site{one, two} {
		if _, err := r.take(ctx, s.workspace, s.agent, batch(s.write(t, 3, 0))); err != nil {
			t.Fatal(err)
		}
	}
	more := two.write(t, 2, 3)
	if _, err := r.take(ctx, two.workspace, two.agent, batch(more)); err != nil {
		t.Fatal(err)
	}
	r.ingest = ingest{}
	end, err := r.ingest.end(one.workspace, mustLog(t, r, one.workspace))
	if err != nil || len(end.heads) != 2 || end.heads[one.agent].Seq != 3 || end.heads[two.agent].Seq != 5 {
		t.Fatalf("%+v, %v", end, err)
	}
	if again, err := r.ingest.end(one.workspace, mustLog(t, r, one.workspace)); err != nil || again != end {
		t.Fatal("read again")
	}
}

// A batch whose end is not known (the disk was slow, a write failed half way) is looked for in the log before anything is
// added: it must not stand there twice.
func TestBatchOfUnknownEndIsNotKeptTwice(t *testing.T) {
	ctx := context.Background()
	r, s := relayAndSite(t)
	lines := s.write(t, 6, 0)
	if _, err := r.take(ctx, s.workspace, s.agent, batch(lines[:2])); err != nil {
		t.Fatal(err)
	}
	// Records 3 and 4 are handed to the log, and the request that brought them ends before it is told.
	cur := r.ingest.lock(s.agent)
	log := mustLog(t, r, s.workspace)
	for _, line := range lines[2:4] {
		rec, err := audit.ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		body, err := r.wrap(s.workspace, s.agent, rec)
		if err == nil {
			cur.unsure, err = log.Append(body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cur.known = false
	cur.mu.Unlock()
	if head, err := r.take(ctx, s.workspace, s.agent, batch(lines)); err != nil || head.Seq != 6 {
		t.Fatalf("%+v, %v", head, err)
	}
	if got := held(t, r, s); !consecutive(got, 6) {
		t.Fatalf("held: %v", got)
	}
}
