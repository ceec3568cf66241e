package hub_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// join makes a tunnel whose agent serves h and adds the relay's end to the hub.
func join(t *testing.T, hb *hub.Hub, agent, group string, profiles []string, h http.HandlerFunc) (*hub.Live, tunnel.Tunnel) {
	t.Helper()
	site, relay := tunnel.Memory(mtls.Identity{Installation: "in_x", Role: mtls.RoleAgent, Workspace: "ws_x", Group: group, ID: agent},
		mtls.Identity{Installation: "in_x", Role: mtls.RoleRelay, ID: "rel_x"}, tunnel.DefaultConfig())
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tunnel.NewListener(site)) }()
	t.Cleanup(func() { site.Close(); relay.Close(); srv.Close(); <-done })
	hello := protocol.Hello{Version: 1}
	for _, p := range profiles {
		hello.Profiles = append(hello.Profiles, protocol.ProfileOffer{Name: p, Kind: protocol.KindDatabase})
	}
	return hb.Add(relay, hello), relay
}

func get(t *testing.T, l *hub.Live, ctx context.Context) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://agent/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := l.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func say(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
}

func TestNoLiveAgentIsUnavailableAtOnce(t *testing.T) {
	_, err := hub.New(hub.Config{}).Pick("grp_a", "sales")
	var e *protocol.Error
	if !errors.As(err, &e) || e.Code != protocol.CodeUnavailable || e.Hint == "" {
		t.Fatalf("got %v", err)
	}
}

func TestPickPrefersWhoOffersAndIsLeastBusy(t *testing.T) {
	hb := hub.New(hub.Config{})
	gate := make(chan struct{})
	busy := func(w http.ResponseWriter, _ *http.Request) { <-gate }
	a, _ := join(t, hb, "agt_a", "grp_x", []string{"sales"}, busy)
	b, _ := join(t, hb, "agt_b", "grp_x", []string{"sales"}, say("b"))
	join(t, hb, "agt_c", "grp_x", []string{"hr"}, say("c"))
	join(t, hb, "agt_d", "grp_y", []string{"sales"}, say("d"))

	running := make(chan struct{})
	go func() { defer close(running); _, _ = get(t, a, t.Context()) }()
	defer func() { close(gate); <-running }()
	for a.Info().InFlight == 0 { // the request has left
		select {
		case <-t.Context().Done():
			t.Fatal("never in flight")
		case <-time.After(time.Millisecond):
		}
	}
	if l, err := hb.Pick("grp_x", "sales"); err != nil || l != b {
		t.Fatalf("picked %v, %v: want the idle one of the group", l, err)
	}
	if l, err := hb.Pick("grp_x", "hr"); err != nil || l.Agent() != "agt_c" {
		t.Fatalf("picked %v, %v: want the one that offers it", l, err)
	}
	if _, err := hb.Pick("grp_x", "nobody's"); err != nil {
		t.Fatal("a profile that nobody offers is the agent's to refuse, not the hub's")
	}
	b.Drained()
	if l, err := hb.Pick("grp_x", "sales"); err != nil || l != a {
		t.Fatalf("picked %v, %v: want the one that does not drain", l, err)
	}
}

// The agent with the fewest requests in all is asked, on its tunnel with the fewest; equals take turns.
func TestPickIsLeastOutstandingByAgentThenTunnel(t *testing.T) {
	hb := hub.New(hub.Config{})
	gate := make(chan struct{})
	var wg sync.WaitGroup
	busy := func(w http.ResponseWriter, _ *http.Request) { <-gate }
	a1, _ := join(t, hb, "agt_a", "grp_x", []string{"sales"}, busy)
	a2, _ := join(t, hb, "agt_a", "grp_x", []string{"sales"}, busy)
	b, _ := join(t, hb, "agt_b", "grp_x", []string{"sales"}, busy)
	hold := func(l *hub.Live) {
		n := l.Info().InFlight
		wg.Go(func() { _, _ = get(t, l, t.Context()) })
		for l.Info().InFlight == n {
			runtime.Gosched()
		}
	}
	defer wg.Wait()
	defer close(gate)
	seen := map[*hub.Live]int{}
	for range 300 {
		l, err := hb.Pick("grp_x", "sales")
		if err != nil {
			t.Fatal(err)
		}
		seen[l]++
	}
	if len(seen) != 3 {
		t.Errorf("idle tunnels do not take turns: %v", seen)
	}
	hold(a1)
	hold(b)
	hold(b)
	want := func(l *hub.Live, why string) {
		t.Helper()
		for range 10 {
			if got, err := hb.Pick("grp_x", "sales"); err != nil || got != l {
				t.Fatalf("%s: %v", why, err)
			}
		}
	}
	want(a2, "agent a has 1, b has 2: a's idle tunnel")
	hold(a2)
	hold(a2)
	want(b, "a's tunnels have 3 together, b has 2")
	if got := len(hb.Beside(a1)); got != 2 {
		t.Errorf("%d tunnels of agent a", got)
	}
}

func TestKickEndsOpenRequests(t *testing.T) {
	hb := hub.New(hub.Config{})
	entered := make(chan struct{})
	l, _ := join(t, hb, "agt_a", "grp_x", nil, func(_ http.ResponseWriter, r *http.Request) { close(entered); <-r.Context().Done() })
	got := make(chan error, 1)
	go func() { _, err := get(t, l, t.Context()); got <- err }()
	<-entered
	if n := hb.Kick("agt_a", "test"); n != 1 {
		t.Fatalf("%d tunnels cut", n)
	}
	var e *protocol.Error
	if err := <-got; !errors.As(err, &e) || e.Code != protocol.CodeInterrupted {
		t.Fatalf("got %v", err)
	}
	hb.Remove(l)
	if agents, tunnels := hb.Count(); agents != 0 || tunnels != 0 {
		t.Fatalf("%d agents, %d tunnels left", agents, tunnels)
	}
}

func TestEndOfTheCallerEndsTheStreamAtTheAgent(t *testing.T) {
	hb := hub.New(hub.Config{})
	entered, left := make(chan struct{}), make(chan struct{})
	l, _ := join(t, hb, "agt_a", "grp_x", nil, func(_ http.ResponseWriter, r *http.Request) { close(entered); <-r.Context().Done(); close(left) })
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() { _, err := get(t, l, ctx); got <- err }()
	<-entered
	cancel()
	<-left
	var e *protocol.Error
	if err := <-got; !errors.As(err, &e) || e.Code != protocol.CodeCanceled {
		t.Fatalf("got %v", err)
	}
}

func TestDrainWaitsForWhatRuns(t *testing.T) {
	hb := hub.New(hub.Config{})
	entered, gate, told := make(chan struct{}), make(chan struct{}), make(chan struct{})
	l, tun := join(t, hb, "agt_a", "grp_x", nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == protocol.PathNotice {
			close(told)
			return
		}
		close(entered)
		<-gate
		_, _ = io.WriteString(w, "done")
	})
	got := make(chan string, 1)
	go func() { s, _ := get(t, l, t.Context()); got <- s }()
	<-entered
	drained := make(chan struct{})
	// A notice alone closes nothing to what is on its way.
	hb.Tell(t.Context(), protocol.Notice{Kind: protocol.NoticeDrain})
	<-told
	if _, err := hb.Pick("grp_x", ""); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(drained); hb.Drain(t.Context()) }()
	for picked := true; picked; {
		_, err := hb.Pick("grp_x", "")
		picked = err == nil
	}
	select {
	case <-tun.Done():
		t.Fatal("the tunnel was closed with a request in flight")
	default:
	}
	close(gate)
	if s := <-got; s != "done" {
		t.Fatalf("the running request got %q", s)
	}
	<-drained
	<-tun.Done()
}

func TestTunnelsOfAFlappingAgentDoNotPileUp(t *testing.T) {
	hb := hub.New(hub.Config{MaxTunnelsPerAgent: 3})
	var first tunnel.Tunnel
	for i := range 4 {
		_, tun := join(t, hb, "agt_a", "grp_x", nil, say(""))
		if i == 0 {
			first = tun
		}
	}
	select {
	case <-first.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the oldest tunnel was not closed")
	}
}

// late is a body that is there when the agent has answered and closed the stream.
type late struct {
	io.Reader
	gone <-chan struct{}
}

func (l late) Read(p []byte) (int, error) {
	<-l.gone
	return l.Reader.Read(p)
}

// An agent that refuses an upload before it has taken it: the caller sees the refusal, not a tunnel that was lost.
func TestAnAnswerThatComesBeforeTheWholeRequestIsNotLost(t *testing.T) {
	site, relay := tunnel.Memory(mtls.Identity{Installation: "in_x", Role: mtls.RoleAgent, Workspace: "ws_x", Group: "g", ID: "a"},
		mtls.Identity{Installation: "in_x", Role: mtls.RoleRelay, ID: "rel_x"}, tunnel.DefaultConfig())
	defer site.Close()
	defer relay.Close()
	l := hub.New(hub.Config{}).Add(relay, protocol.Hello{Version: 1})
	for i := range 40 {
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			s, err := site.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if _, err := http.ReadRequest(bufio.NewReaderSize(s, 16)); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(s, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
		}()
		req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://agent/", late{bytes.NewReader(make([]byte, 1<<20)), gone})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := l.Do(req)
		if err != nil {
			t.Fatalf("round %d: %v: %v", i, err, errors.Unwrap(err))
		}
		b, err := io.ReadAll(resp.Body)
		if resp.StatusCode != 404 || string(b) != "no" || err != nil {
			t.Errorf("%d %q %v", resp.StatusCode, b, err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		<-gone
	}
	// A stream that is lost without an answer is still told of as lost.
	go func() {
		s, err := site.Accept()
		if err == nil {
			_ = s.Close()
		}
	}()
	req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://agent/", bytes.NewReader(make([]byte, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Do(req); protocol.AsError(err).Code != protocol.CodeInterrupted {
		t.Errorf("without an answer: %v", err)
	}
}
