package agent

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/agent/uplink"
	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
)

// A reload that comes while a trip takes its site must find the trip, or the trip must find the new site.
func TestReloadWhileATripBeginsNarrowsIt(t *testing.T) {
	rec, _ := recorder(t)
	p := &probe{calls: make(chan *connector.Call, 1)}
	p.do = func(ctx context.Context, _ *connector.Call, _ http.ResponseWriter) (protocol.Outcome, error) {
		select {
		case <-ctx.Done():
			return protocol.Outcome{}, ctx.Err()
		case <-time.After(10 * time.Second):
			return protocol.Outcome{}, nil
		}
	}
	old := probeSite(t, folderYAML, p)
	narrow := probeSite(t, strings.Replace(folderYAML, "read, ", "", 1), p).policy
	var h *trips
	h = newTrips(slog.New(slog.DiscardHandler), rec, func() *site {
		old.retain()
		h.narrow(narrow) // the swap and what follows it, at the worst moment
		return old
	})
	if _, e, err := ask(t, h, read("a.txt"), nil); err != nil || e == nil || e.Code != protocol.CodeDenied {
		t.Fatalf("an operation that the new file forbids went on: %v, %v", e, err)
	}
}

// The audit log closes after drain: what was cancelled has put down its outcome by then.
func TestDrainWaitsForTheOutcomeOfWhatItCancels(t *testing.T) {
	rec, l := recorder(t)
	p := &probe{calls: make(chan *connector.Call, 1)}
	release := make(chan struct{})
	p.do = func(ctx context.Context, _ *connector.Call, _ http.ResponseWriter) (protocol.Outcome, error) {
		<-ctx.Done()
		<-release // a target that takes its time to let go
		return protocol.Outcome{}, ctx.Err()
	}
	h := tripsOn(t, rec, probeSite(t, folderYAML, p))
	got := make(chan struct{})
	go func() { defer close(got); _, _, _ = ask(t, h, read("a.txt"), nil) }()
	<-p.calls
	drained := make(chan struct{})
	dctx, cancel := context.WithCancel(t.Context())
	cancel()
	go func() { defer close(drained); h.drain(dctx) }()
	select {
	case <-drained:
		t.Error("drain did not wait for the trip that it cancelled")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	<-drained
	h.mu.Lock()
	left := len(h.active)
	h.mu.Unlock()
	if left != 0 {
		t.Errorf("%d trips were left after drain", left)
	}
	<-got
	if k := settled(t, l, 2); !slices.Contains(k, string(audit.KindOutcome)+" unavailable") {
		t.Errorf("no outcome stands in the log: %q", k)
	}
}

// A password that was rotated behind the same name applies without a restart, and a missing file is told, not ignored.
func TestSecretFilesAreWatched(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		tmp := filepath.Join(dir, name+".new")
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("db.pw", "one\n")
	write("agent.yaml", "version: 1\nrelay: {addresses: [\"localhost:1\"]}\ndatabase:\n  sales: {adapter: postgresql, host: db.corp, database: sales, username: u, password_file: db.pw, tls: verify-full, allow: {mode: read_only}}\n")
	cfg, err := Load(filepath.Join(dir, "agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSite(cfg, filepath.Join(dir, "data"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	rec, _ := recorder(t)
	a := watched(t, cfg, s, rec)
	first := a.site.Load()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); a.watch(ctx) }()
	defer func() { cancel(); <-done; a.site.Load().release() }()

	write("db.pw", "two\n")
	eventually(t, "the new password is in force", func() bool { return a.site.Load() != first })
	second := a.site.Load()
	if err := os.Remove(filepath.Join(dir, "agent.yaml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a missing file is reported", func() bool { return a.status().ReloadError != "" })
	if a.site.Load() != second {
		t.Fatal("the good configuration is gone with its file")
	}
}

// watched is an agent of which only the watch runs.
func watched(t *testing.T, cfg *Config, s *site, rec *audit.Recorder) *Agent {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	a := &Agent{opt: Options{Logger: log, Poll: 50 * time.Millisecond, DataDir: filepath.Join(t.TempDir(), "data")}, cfg: cfg, id: &enroll.Identity{Agent: "agt_test"}, rec: rec,
		up: uplink.New(uplink.Config{Logger: log})}
	a.site.Store(s)
	a.trips = newTrips(log, rec, a.acquire)
	return a
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("did not come: %s", what)
		case <-tick.C:
		}
	}
}
