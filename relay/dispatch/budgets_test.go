package dispatch_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/dispatch"
	"github.com/fairleadhq/fairlead/relay/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var source = netip.MustParseAddr("192.0.2.7")

// rig is a dispatcher with two workspaces, each with a connection "files" and an agent.
type rig struct {
	*dispatch.Dispatcher
	t   *testing.T
	dir *directory.Directory
	hub *hub.Hub

	mu     sync.Mutex // guards the fields below
	events []audit.Event
	broken bool // the log takes nothing
}

func newRig(t *testing.T, agent http.HandlerFunc) *rig {
	t.Helper()
	dc := directory.DefaultConfig(t.TempDir())
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: dc, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	must(t, err)
	g := &rig{t: t, hub: hub.New(hub.Config{})}
	g.dir, err = directory.Open(t.Context(), dc)
	must(t, err)
	t.Cleanup(func() { g.dir.Close() })
	_, err = g.dir.CreateWorkspace(t.Context(), "other")
	must(t, err)
	must(t, g.dir.SetAllowlist(t.Context(), "other", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, netip.Addr{}, true))
	_, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	logs := &audit.Logs{Config: audit.Config{Dir: filepath.Join(t.TempDir(), "audit"), Source: "rel_test", Key: key}, Seal: g.dir.SealEvent}
	t.Cleanup(func() { logs.Close() })
	g.Dispatcher = &dispatch.Dispatcher{Hub: g.hub, Logger: slog.New(slog.DiscardHandler), Record: func(ev audit.Event) (*audit.Ticket, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.broken {
			return nil, audit.ErrUnavailable
		}
		g.events = append(g.events, ev)
		rec, err := logs.Recorder(ev.Workspace)
		if err != nil {
			return nil, err
		}
		return rec.Record(ev)
	}}
	for _, name := range []string{"default", "other"} {
		_, err := g.dir.CreateConnection(t.Context(), name, "default", directory.ConnectionBody{Name: "files", Profile: "files"})
		must(t, err)
		ws, err := g.dir.Snapshot().Workspace(name)
		must(t, err)
		g.agent("agt_"+name, ws, agent)
	}
	g.Sync(g.dir.Snapshot())
	return g
}

// agent plays an agent of the workspace.
func (g *rig) agent(id string, w *directory.Workspace, h http.HandlerFunc, constraints ...string) *hub.Live {
	site, relay := tunnel.Memory(mtls.Identity{Installation: "in_x", Role: mtls.RoleAgent, Workspace: w.ID, Group: w.Groups[0].ID, ID: id},
		mtls.Identity{Installation: "in_x", Role: mtls.RoleRelay, ID: "rel_x"}, tunnel.DefaultConfig())
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tunnel.NewListener(site)) }()
	g.t.Cleanup(func() { site.Close(); relay.Close(); srv.Close(); <-done })
	return g.hub.Add(relay, protocol.Hello{Version: 1, Constraints: constraints, Profiles: []protocol.ProfileOffer{{Name: "files", Kind: protocol.KindFiles}}})
}

// call is a read of the workspace's connection by an operator with a token.
func (g *rig) call(workspace, token string, op protocol.Operation) *dispatch.Call {
	g.t.Helper()
	s := g.dir.Snapshot()
	w, err := s.Workspace(workspace)
	must(g.t, err)
	p := authz.NewPrincipal("tok_"+token, w.ID, token, authz.Service, []authz.Grant{{ID: "gra_1", Role: authz.Operator, Workspace: w.ID}})
	p.Token = token
	return &dispatch.Call{Snapshot: s, Principal: p, Source: source, Workspace: workspace, Connection: "files", Request: protocol.Request{ID: "req_1", Operation: op, Path: "a", Header: http.Header{}}}
}

// read makes the trip and gives the refusal.
func (g *rig) read(workspace, token string) *protocol.Error {
	err := g.Do(g.t.Context(), g.call(workspace, token, protocol.OpRead), httptest.NewRecorder(), nil)
	var e *protocol.Error
	if errors.As(err, &e) {
		return e
	}
	if err != nil {
		g.t.Errorf("%v", err)
	}
	return nil
}

func (g *rig) set(workspace, connection string, l budget.Limits) {
	g.t.Helper()
	must(g.t, g.dir.SetBudget(g.t.Context(), workspace, connection, l))
	g.Sync(g.dir.Snapshot())
}

func (g *rig) count(ok func(audit.Event) bool) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		if ok(e) {
			n++
		}
	}
	return n
}

func answerOK(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// A workspace that is over its rate is refused with who, what and when, the refusal is on record, and no other workspace and
// no tunnel notices.
func TestRateBudgetRefusesOneWorkspaceAndCostsAnotherNothing(t *testing.T) {
	g := newRig(t, answerOK)
	g.set("default", "", budget.Limits{Rate: 1, Burst: 2})
	for range 2 {
		if e := g.read("default", "a"); e != nil {
			t.Fatal(e)
		}
	}
	for range 5 {
		e := g.read("default", "a")
		if e == nil || e.Code != protocol.CodeRateLimited || e.Origin != protocol.OriginRelay || e.Rule != "workspace.budget.rate" || e.RetryAfterMs <= 0 || e.RequestID == "" ||
			!strings.Contains(e.Message, "1 operations a second") {
			t.Fatalf("%+v", e)
		}
	}
	for range 20 {
		if e := g.read("other", "b"); e != nil {
			t.Fatalf("another workspace pays for it: %v", e)
		}
	}
	if n := g.count(func(e audit.Event) bool {
		return e.Kind == audit.KindDenied && e.Rule == "workspace.budget.rate" && e.Decision == "deny" && e.Connection != ""
	}); n != 5 {
		t.Errorf("%d refusals on record", n)
	}
	if a, n := g.hub.Count(); a != 2 || n != 2 {
		t.Errorf("a refusal cost a tunnel: %d agents, %d tunnels", a, n)
	}
	w, _ := g.dir.Snapshot().Workspace("default")
	if _, c := g.Use(w.ID); c.Begun != 2 || c.RefusedRate != 5 || c.Running != 0 {
		t.Errorf("%+v", c)
	}
}

// A connection's budget holds beside its workspace's; a limit that is set while operations run counts them, and cuts none.
func TestConcurrencyBudgetCountsWhatRunsAndCutsNothing(t *testing.T) {
	release := make(chan struct{})
	begun := make(chan struct{}, 10)
	g := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		answerOK(w, r)
	})
	results := make(chan *protocol.Error, 3)
	for range 3 {
		go func() { results <- g.read("default", "a") }()
		<-begun
	}
	g.set("default", "files", budget.Limits{Concurrent: 2})
	e := g.read("default", "a")
	if e == nil || e.Code != protocol.CodeRateLimited || e.Rule != "connection.budget.concurrent" {
		t.Fatalf("%+v", e)
	}
	close(release)
	for range 3 {
		if e := <-results; e != nil {
			t.Errorf("what ran was cut: %v", e)
		}
	}
	if e := g.read("default", "a"); e != nil {
		t.Errorf("room was not given back: %v", e)
	}
}

// Who is over the budget is told before the relay reads the body, and asking takes nothing.
func TestBudgetRefusesBeforeTheBodyIsRead(t *testing.T) {
	g := newRig(t, answerOK)
	g.set("default", "", budget.Limits{Rate: 1, Burst: 1})
	for range 10 {
		if err := g.Refusal(t.Context(), g.call("default", "a", protocol.OpRead)); err != nil {
			t.Fatal(err)
		}
	}
	if e := g.read("default", "a"); e != nil {
		t.Fatal(e)
	}
	var e *protocol.Error
	if err := g.Refusal(t.Context(), g.call("default", "a", protocol.OpRead)); !errors.As(err, &e) || e.Rule != "workspace.budget.rate" {
		t.Errorf("%v", err)
	}
	if n := g.count(func(e audit.Event) bool { return e.Kind == audit.KindDenied }); n != 1 {
		t.Errorf("%d refusals on record", n)
	}
}

// The relay's own limits hold whatever a workspace's admins set.
func TestAdminsOnlyNarrowTheRelaysLimits(t *testing.T) {
	g := newRig(t, answerOK)
	g.Limits = budget.Limits{Rate: 1, Burst: 1}
	g.set("default", "", budget.Limits{Rate: 1000, Burst: 1000})
	if e := g.read("default", "a"); e != nil {
		t.Fatal(e)
	}
	if e := g.read("default", "a"); e == nil || e.Rule != "workspace.budget.rate" {
		t.Errorf("an admin widened the relay's limits: %+v", e)
	}
}

// A workspace that the operator gave limits of its own has those in place of everybody's.
func TestLimitsOfSingleWorkspacesStandInPlaceOfAll(t *testing.T) {
	g := newRig(t, answerOK)
	g.Limits, g.LimitsOf = budget.Limits{Rate: 1, Burst: 1}, map[string]budget.Limits{"default": {Rate: 2, Burst: 2}}
	g.set("default", "", budget.Limits{Rate: 1000, Burst: 1000})
	for range 2 {
		if e := g.read("default", "a"); e != nil {
			t.Fatal(e)
		}
	}
	if e := g.read("default", "a"); e == nil || e.Rule != "workspace.budget.rate" {
		t.Errorf("an admin widened the workspace's limits: %+v", e)
	}
}

// A snapshot that comes late does not undo what a newer one set.
func TestAnOlderSnapshotSetsNoBudget(t *testing.T) {
	g := newRig(t, answerOK)
	old := g.dir.Snapshot()
	g.set("default", "", budget.Limits{Concurrent: 7})
	g.Sync(old)
	w, _ := g.dir.Snapshot().Workspace("default")
	if l, _ := g.Use(w.ID); l.Concurrent != 7 {
		t.Errorf("%+v", l)
	}
}

// What waits for its turn is not taken for a caller who has stopped taking: the deadline of the write before is lifted.
func TestEgressWaitLiftsTheDeadlineOfTheWriteBefore(t *testing.T) {
	g := newRig(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 128<<10)) })
	g.set("default", "", budget.Limits{Egress: 1 << 20})
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	must(t, g.Do(t.Context(), g.call("default", "a", protocol.OpRead), w, nil))
	if w.lifted == 0 || w.Body.Len() != 128<<10 {
		t.Errorf("lifted %d times, %d bytes", w.lifted, w.Body.Len())
	}
}

type deadlines struct {
	*httptest.ResponseRecorder
	lifted int
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		d.lifted++
	}
	return nil
}

// Answers and dials are shaped: their bytes all come, as fast as the budget says.
func TestEgressBudgetShapesAnswersAndDials(t *testing.T) {
	const size, rate = 1 << 20, 2 << 20
	g := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = w.Write(make([]byte, size))
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol.UpgradeDial+"\r\n\r\n")
		_, _ = c.Write(make([]byte, size))
	})
	g.set("default", "", budget.Limits{Egress: rate})
	for name, do := range map[string]func() int{
		"answer": func() int {
			w := httptest.NewRecorder()
			must(t, g.Do(t.Context(), g.call("default", "a", protocol.OpRead), w, nil))
			return w.Body.Len()
		},
		"dial": func() int {
			var got bytes.Buffer
			must(t, g.Do(t.Context(), g.call("default", "a", protocol.OpDial), nil, func(s *dispatch.Raw) (in, out int64) {
				n, err := io.Copy(&got, s)
				must(t, err)
				return 0, n
			}))
			return got.Len()
		},
	} {
		from := time.Now()
		if n := do(); n != size {
			t.Errorf("%s: %d of %d bytes", name, n, size)
		}
		if took := time.Since(from); took < 300*time.Millisecond || took > 5*time.Second {
			t.Errorf("%s: %s for half a second's bytes", name, took)
		}
	}
	w, _ := g.dir.Snapshot().Workspace("default")
	if _, c := g.Use(w.ID); c.Bytes != 2*size || c.Waited == 0 {
		t.Errorf("%+v", c)
	}
}

// A caller who goes away while its bytes wait ends the operation at once.
func TestEgressWaitEndsWithTheCaller(t *testing.T) {
	g := newRig(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 4<<20)) })
	g.set("default", "", budget.Limits{Egress: budget.MinEgress})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- g.Do(ctx, g.call("default", "a", protocol.OpRead), httptest.NewRecorder(), nil) }()
	w, _ := g.dir.Snapshot().Workspace("default")
	for begun := false; !begun; {
		_, c := g.Use(w.ID)
		begun = c.Waits > 0
	}
	cancel()
	if err := <-done; !errors.Is(err, dispatch.ErrCut) {
		t.Error(err)
	}
	if n := g.count(func(e audit.Event) bool {
		return e.Kind == audit.KindOutcome && e.Code == string(protocol.CodeCanceled)
	}); n != 1 {
		t.Errorf("%d outcomes", n)
	}
}

// K10: the refusals of one token beyond its budget are counted, and the count is on record, whatever happens to the log in
// between. Another token's are recorded one by one all the while.
func TestDeniedEventsOfOneTokenAreCountedAndNoneIsLost(t *testing.T) {
	g := newRig(t, answerOK)
	g.DeniedRate, g.DeniedBurst = 1, 10
	missing := func(token string) {
		c := g.call("default", token, protocol.OpRead)
		c.Connection = "missing"
		if err := g.Do(t.Context(), c, httptest.NewRecorder(), nil); err == nil {
			t.Fatal("not refused")
		}
	}
	for range 300 {
		missing("noisy")
	}
	missing("quiet")
	of := func(token string, counted bool) func(audit.Event) bool {
		return func(e audit.Event) bool {
			return e.Kind == audit.KindDenied && e.Principal == "tok_"+token && (e.Detail["count"] != "") == counted
		}
	}
	alone := g.count(of("noisy", false))
	if alone < 10 || alone > 20 || g.count(of("quiet", false)) != 1 {
		t.Errorf("%d and %d recorded one by one", alone, g.count(of("quiet", false)))
	}
	g.mu.Lock()
	g.broken = true
	g.mu.Unlock()
	g.TellDenied()
	g.mu.Lock()
	g.broken = false
	g.mu.Unlock()
	g.TellDenied()
	g.TellDenied()
	total := alone
	g.count(func(e audit.Event) bool {
		if of("noisy", true)(e) {
			n, _ := strconv.Atoi(e.Detail["count"])
			total += n
			if e.SourceAddress != source.String() || e.Code != string(protocol.CodeRateLimited) || e.Workspace == "" {
				t.Errorf("%+v", e)
			}
		}
		return false
	})
	if total != 300 || g.count(of("noisy", true)) != 1 {
		t.Errorf("%d of 300 are on record, in %d counts", total, g.count(of("noisy", true)))
	}
}

// What is counted is told within seconds, and at the end.
func TestDeniedCountsAreToldAtTheEnd(t *testing.T) {
	g := newRig(t, answerOK)
	g.DeniedRate, g.DeniedBurst = 1, 1
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx) }()
	for i := range 5 {
		c := g.call("default", "noisy", protocol.OpRead)
		c.Connection = fmt.Sprint("missing", i)
		_ = g.Do(t.Context(), c, httptest.NewRecorder(), nil)
	}
	cancel()
	<-done
	if n := g.count(func(e audit.Event) bool { return e.Detail["count"] != "" }); n != 1 {
		t.Errorf("%d counts", n)
	}
}
