package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// open makes a relay on a new installation in dir, or on the one that is there.
func open(t *testing.T, dir string) *Relay {
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

func newSite(t *testing.T, r *Relay, name string) *site {
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
func (s *site) write(t *testing.T, n int, after uint64) (lines []json.RawMessage) {
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

	head, err := r.take(ctx, s.workspace, s.agent, lines[:6])
	if err != nil || head.Seq != 6 {
		t.Fatalf("%+v, %v", head, err)
	}
	// The receipt was lost: all of it comes again, and more.
	if head, err = r.take(ctx, s.workspace, s.agent, lines); err != nil || head.Seq != 10 {
		t.Fatalf("%+v, %v", head, err)
	}
	if head, err = r.take(ctx, s.workspace, s.agent, lines[2:4]); err != nil || head.Seq != 10 {
		t.Fatalf("an old batch moved the head: %+v, %v", head, err)
	}
	if got := held(t, r, s); !consecutive(got, 10) {
		t.Fatalf("held: %v", got)
	}
	refused := func(name string, workspace, agent string, lines []json.RawMessage, want protocol.Code) {
		t.Run(name, func(t *testing.T) {
			_, err := r.take(ctx, workspace, agent, lines)
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
	if _, err := r.take(ctx, s.workspace, s.agent, lines[:3]); err != nil {
		t.Fatal(err)
	}
	stored, err := r.dir.AuditCursor(ctx, s.agent)
	if err != nil || stored.Seq != 3 {
		t.Fatalf("%+v, %v", stored, err)
	}
	// As if the process had died after the append of 4 and 5 and before the cursor was stored: the records are put into
	// the log by another relay whose store does not outlive it.
	if _, err := r.take(ctx, s.workspace, s.agent, lines[3:5]); err != nil {
		t.Fatal(err)
	}
	r.ingest.agents = nil // what a new process knows
	cur := r.ingest.lock(s.agent)
	err = cur.find(ctx, r, s.agent, mustLog(t, r, s.workspace))
	if cur.mu.Unlock(); err != nil || cur.head.Seq != 5 {
		t.Fatalf("%+v, %v", cur.head, err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}

	r = open(t, dir)
	defer r.close()
	head, err := r.take(ctx, s.workspace, s.agent, lines)
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
