package hub_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/hub"
)

// laneSite is an agent that opens lanes when it is asked, on real connections.
type laneSite struct {
	t       *testing.T
	hub     *hub.Hub
	live    *hub.Live
	root    *mtlstest.Cert
	tickets chan []byte
	served  http.HandlerFunc
	cfg     tunnel.Config // of lanes
	socket  net.Conn      // of the agent's end of the lane that was dialled last
}

var other = mtls.Identity{Installation: "in_test", Role: mtls.RoleAgent, Workspace: "ws_test", Group: "grp_test", ID: "agt_other"}

// newLaneSite joins mtlstest.Agent to a hub. With answer false it takes tickets and dials nothing.
func newLaneSite(t *testing.T, most int) *laneSite {
	s := &laneSite{t: t, hub: hub.New(hub.Config{MaxLanes: most}), root: mtlstest.New(t), tickets: make(chan []byte, 100)}
	site, relay := tunnel.Memory(mtlstest.Agent, mtlstest.Relay, tunnel.DefaultConfig())
	s.served = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != protocol.PathLanes {
			_, _ = io.Copy(w, r.Body)
			return
		}
		var in protocol.Lanes
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		for _, ticket := range in.Tickets {
			s.tickets <- ticket
		}
		_, _ = io.WriteString(w, "{}")
	}
	srv := &http.Server{Handler: s.served}
	srv.SetKeepAlivesEnabled(false)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tunnel.NewListener(site)) }()
	s.live = s.hub.Add(relay, protocol.Hello{Version: 1, Lanes: 16})
	t.Cleanup(func() { site.Close(); relay.Close(); srv.Close(); <-done; s.hub.Remove(s.live) })
	return s
}

// dial opens a lane as id with ticket and says what the hub thinks of it.
func (s *laneSite) dial(id mtls.Identity, ticket []byte) (agent *tunnel.Lane, err error) {
	s.t.Helper()
	relayCert := s.root.Leaf(s.t, mtlstest.Relay, nil)
	agentCert := s.root.Workspace(s.t, id.Installation, id.Workspace).Leaf(s.t, id, nil)
	conf := mtls.TunnelTLS(relayCert.Reloader(s.t), s.root.Pool(), "in_test", nil)
	conf.NextProtos = []string{protocol.ALPNLane}
	ln, lerr := net.Listen("tcp", "127.0.0.1:0")
	if lerr != nil {
		s.t.Fatal(lerr)
	}
	defer ln.Close()
	res := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			res <- err
			return
		}
		l, got, err := tunnel.ServeLane(s.t.Context(), tls.Server(conn, conf), s.cfg)
		if err == nil {
			if err = s.hub.Lane(got, l); err != nil {
				l.Close()
			}
		}
		res <- err
	}()
	agent, derr := tunnel.DialLane(s.t.Context(), ln.Addr().String(), mtls.AgentTLS(agentCert.Reloader(s.t), s.root.Pool(), "in_test"),
		func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			s.socket = c
			return c, err
		}, ticket, s.cfg)
	if derr != nil {
		s.t.Fatal(derr)
	}
	s.t.Cleanup(func() { agent.Close() })
	return agent, <-res
}

// want makes the hub ask for lanes and gives the first ticket.
func (s *laneSite) want() []byte {
	s.t.Helper()
	s.read(1)
	select {
	case ticket := <-s.tickets:
		return ticket
	case <-time.After(10 * time.Second):
		s.t.Fatal("no lane is asked for")
		return nil
	}
}

// read makes a request of a heavy kind with n bytes both ways.
func (s *laneSite) read(n int) {
	s.t.Helper()
	body := make([]byte, n)
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://agent/v1/files/in/read", io.NopCloser(&zeros{n}))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.live.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || len(got) != len(body) {
		s.t.Fatal(len(got), err)
	}
}

type zeros struct{ n int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.n)
	clear(p[:n])
	z.n -= n
	return n, nil
}

func lanesOf(s *laneSite) int { return s.hub.Lanes() }

func TestLaneWithoutItsTicketIsRefused(t *testing.T) {
	s := newLaneSite(t, 8)
	ticket := s.want()
	guess := make([]byte, tunnel.TicketSize)
	_, _ = rand.Read(guess)
	if _, err := s.dial(mtlstest.Agent, guess); !errors.Is(err, hub.ErrTicket) {
		t.Errorf("a guessed ticket: %v", err)
	}
	if _, err := s.dial(other, ticket); !errors.Is(err, hub.ErrTicket) {
		t.Errorf("another agent's ticket: %v", err)
	}
	if n := lanesOf(s); n != 0 {
		t.Fatalf("%d lanes", n)
	}
	if _, err := s.dial(mtlstest.Agent, ticket); err != nil {
		t.Fatalf("the attempts of others cost the ticket: %v", err)
	}
	if _, err := s.dial(mtlstest.Agent, ticket); !errors.Is(err, hub.ErrTicket) {
		t.Errorf("a ticket counts twice: %v", err)
	}
	if n := lanesOf(s); n != 1 {
		t.Errorf("%d lanes", n)
	}
}

// Who would be outside is told with the addresses of lanes, too, each once.
func TestOutsideFromTellsOfLanes(t *testing.T) {
	s := newLaneSite(t, 2)
	if _, err := s.dial(mtlstest.Agent, s.want()); err != nil {
		t.Fatal(err)
	}
	site, relay := tunnel.Memory(mtlstest.Agent, mtlstest.Relay, tunnel.DefaultConfig())
	second := s.hub.Add(relay, protocol.Hello{Version: 1})
	t.Cleanup(func() { site.Close(); relay.Close(); s.hub.Remove(second) })
	here := netip.MustParseAddr("127.0.0.1")
	from := func(workspace string, admits func(netip.Addr) bool) string {
		return fmt.Sprint(s.hub.OutsideFrom(workspace, admits))
	}
	own := mtlstest.Agent.Workspace
	if got, want := from(own, func(a netip.Addr) bool { return a != here }), fmt.Sprint(map[string][]netip.Addr{mtlstest.Agent.ID: {here}}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := from(own, func(netip.Addr) bool { return false }), fmt.Sprint(map[string][]netip.Addr{mtlstest.Agent.ID: {{}, here}}); got != want { // tunnels in memory have no address
		t.Errorf("%s, want %s", got, want)
	}
	if got := from(own, func(netip.Addr) bool { return true }) + from("ws_other", func(netip.Addr) bool { return false }); got != "map[]map[]" {
		t.Error(got)
	}
}

func TestHeavyRequestsGoByLaneAndShortOnesDoNot(t *testing.T) {
	s := newLaneSite(t, 8)
	lane, err := s.dial(mtlstest.Agent, s.want())
	if err != nil {
		t.Fatal(err)
	}
	used := make(chan int64, 100)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(w, r.Body)
		used <- n
	})}
	srv.SetKeepAlivesEnabled(false)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tunnel.NewListener(lane)) }()
	defer func() { srv.Close(); lane.Close(); <-done }()
	s.read(2 << 20)
	if n := <-used; n != 2<<20 {
		t.Errorf("%d bytes by lane", n)
	}
	if _, err := get(t, s.live, t.Context()); err != nil { // path "/": not of a kind that is heavy
		t.Fatal(err)
	}
	// Reads that turn out to be small move back to the mux, where they cost no lane.
	for range 8 {
		s.read(10)
	}
	for len(used) > 0 {
		<-used
	}
	s.read(10)
	if len(used) > 0 {
		t.Error("a short request took a lane")
	}
}

func TestLanesEndWithTheirTunnel(t *testing.T) {
	for name, end := range map[string]func(s *laneSite){
		"kick":   func(s *laneSite) { s.hub.Kick(mtlstest.Agent.ID, "test") },
		"remove": func(s *laneSite) { s.hub.Remove(s.live) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newLaneSite(t, 8)
			lane, err := s.dial(mtlstest.Agent, s.want())
			if err != nil {
				t.Fatal(err)
			}
			gone := make(chan error, 1)
			go func() { _, err := lane.Accept(); gone <- err }()
			end(s)
			select {
			case err := <-gone:
				if err == nil {
					t.Error("a stream came")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the lane outlives its tunnel")
			}
			if _, err := s.dial(mtlstest.Agent, make([]byte, tunnel.TicketSize)); !errors.Is(err, hub.ErrTicket) {
				t.Error(err)
			}
		})
	}
}

func TestNoMoreLanesThanAllowed(t *testing.T) {
	s := newLaneSite(t, 2)
	asked := 0
	for range 10 { // nobody answers by dialling: what is outstanding counts
		s.read(300 << 10)
	}
	for len(s.tickets) > 0 {
		<-s.tickets
		asked++
	}
	if asked > 2 {
		t.Errorf("%d lanes are asked for, and 2 allowed", asked)
	}
	s = newLaneSite(t, 0)
	for range 20 {
		s.read(300 << 10)
	}
	if n := len(s.tickets); n > 0 {
		t.Errorf("%d lanes are asked for where none are allowed", n)
	}
}

// A caller who breaks off a transfer costs the lane; another is asked for before the next transfer misses it.
// A stream that moved much fills the pool: who moves much on one stream often moves it on several.
func TestBulkFillsThePool(t *testing.T) {
	s := newLaneSite(t, 6)
	asked := func(n int) {
		t.Helper()
		for range n {
			select {
			case <-s.tickets:
			case <-time.After(10 * time.Second):
				t.Fatal("no lane is asked for")
			}
		}
	}
	s.read(1 << 20) // heavy, not bulk: each asks for the one that it missed
	asked(1)
	s.read(1 << 20)
	asked(1)
	s.read(8 << 20)
	asked(1)
	if n := len(s.tickets); n > 0 {
		t.Fatalf("%d lanes were asked for without need", n)
	}
	s.read(1) // the next of its kind finds none, and the rest is asked for
	asked(3)
}

func TestLostLaneIsReplaced(t *testing.T) {
	s := newLaneSite(t, 8)
	lane, err := s.dial(mtlstest.Agent, s.want())
	if err != nil {
		t.Fatal(err)
	}
	for len(s.tickets) > 0 {
		<-s.tickets
	}
	go func() { _, _ = lane.Accept() }()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/v1/files/in/read", io.NopCloser(&zeros{64 << 20}))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		resp, err := s.live.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		ended <- err
	}()
	<-s.tickets // it took the last free lane, so one is asked for
	cancel()
	if err := <-ended; err == nil {
		t.Error("an answer came from nobody")
	}
	select {
	case <-s.tickets:
	case <-time.After(10 * time.Second):
		t.Fatal("no lane is asked for in its place")
	}
}
