//go:build linux

package hostile_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/enroll"
)

const installation, workspace, group = "in_hostile", "ws_hostile", "grp_hostile"

// rogue is a relay that owns the installation's keys and is bound by nothing. It answers the agent's control requests as
// an honest relay would, unless a test says otherwise.
type rogue struct {
	root *enroll.Authority
	ws   *enroll.WorkspaceCA
	addr string
	tls  *tls.Config // of tunnels
	cfg  tunnel.Config

	mu      sync.Mutex // guards the fields below
	enrols  int
	tunnels map[string]tunnel.Tunnel // by agent, the newest
	hellos  map[string]int
	lines   map[string][]json.RawMessage // audit lines by agent, as they came
	held    map[string]protocol.LogHead
	on      map[string]http.HandlerFunc // by path; replaces the honest answer
}

// newRogue serves until the test ends.
func newRogue(t testing.TB) *rogue {
	t.Helper()
	r := &rogue{tunnels: map[string]tunnel.Tunnel{}, hellos: map[string]int{}, lines: map[string][]json.RawMessage{}, held: map[string]protocol.LogHead{},
		on: map[string]http.HandlerFunc{}, cfg: tunnel.DefaultConfig()}
	r.cfg.MaxStreams, r.cfg.Backlog = 100_000, 100_000 // its own limits do not hold it back
	var err error
	if r.root, err = enroll.NewAuthority(installation); err != nil {
		t.Fatal(err)
	}
	if r.ws, err = r.root.NewWorkspace(workspace); err != nil {
		t.Fatal(err)
	}
	pair, err := r.root.IssueServer([]string{"localhost"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, mtls.Identity{Installation: installation, Role: mtls.RoleRelay, ID: "rel_hostile"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	reloader := mtls.NewReloader(pair)
	r.tls = mtls.TunnelTLS(reloader, r.root.Pool(), installation, nil)
	mux := tunnel.Listen(ln, map[string]*tls.Config{
		protocol.ALPNTunnel: r.tls,
		protocol.ALPNEnroll: mtls.EnrollServerTLS(reloader),
	}, r.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	enrolment := &http.Server{Handler: http.HandlerFunc(r.enrol), ReadHeaderTimeout: 10 * time.Second}
	wg.Go(func() { _ = mux.Serve(ctx) })
	wg.Go(func() { _ = enrolment.Serve(tunnel.HTTP1(mux.Conns(protocol.ALPNEnroll))) })
	wg.Go(func() {
		conns := mux.Conns(protocol.ALPNTunnel)
		for {
			conn, err := conns.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.serve(ctx, conn.(*tls.Conn)) })
		}
	})
	t.Cleanup(func() {
		cancel()
		enrolment.Close()
		wg.Wait()
	})
	return r
}

// token makes a join token.
func (r *rogue) token(t testing.TB) string {
	t.Helper()
	tok, err := mtls.NewJoinToken([]string{r.addr}, r.root.Pin())
	if err != nil {
		t.Fatal(err)
	}
	return tok.Text()
}

// identity is what it calls its n-th agent.
func identity(n int) mtls.Identity {
	return mtls.Identity{Installation: installation, Role: mtls.RoleAgent, Workspace: workspace, Group: group, ID: "agt_" + string(rune('a'+n))}
}

func (r *rogue) enrol(w http.ResponseWriter, req *http.Request) {
	var in protocol.EnrollRequest
	if json.NewDecoder(req.Body).Decode(&in) != nil {
		http.Error(w, "", 400)
		return
	}
	r.mu.Lock()
	id := identity(r.enrols)
	r.enrols++
	r.mu.Unlock()
	chain, err := r.sign(in.CSR, id)
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	reply(w, protocol.EnrollResponse{Agent: id.ID, Workspace: id.Workspace, Group: id.Group, Chain: chain, Root: r.root.Certificate().Raw, RelayAddrs: []string{r.addr}})
}

func (r *rogue) sign(csr []byte, id mtls.Identity) ([][]byte, error) {
	key, err := enroll.ParseRequest(csr)
	if err != nil {
		return nil, err
	}
	issued, err := r.ws.SignAgent(key, id, time.Hour)
	if err != nil {
		return nil, err
	}
	return issued.Chain, nil
}

// serve answers what the agent asks over one tunnel.
func (r *rogue) serve(ctx context.Context, conn *tls.Conn) {
	t, err := tunnel.Server(ctx, conn, r.cfg)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { t.Close() })
	defer stop()
	defer t.Close()
	agent := t.Peer().ID
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == protocol.PathHello { // whatever is answered, requests can be sent from now on
			r.mu.Lock()
			r.tunnels[agent] = t
			r.hellos[agent]++
			r.mu.Unlock()
		}
		r.mu.Lock()
		h := r.on[req.URL.Path]
		r.mu.Unlock()
		if h == nil {
			h = r.honest(t)
		}
		h(w, req)
	})}
	_ = srv.Serve(tunnel.NewListener(t)) // ends with the tunnel
	srv.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tunnels[agent] == t {
		delete(r.tunnels, agent)
	}
}

func (r *rogue) honest(t tunnel.Tunnel) http.HandlerFunc {
	agent := t.Peer().ID
	return func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case protocol.PathHello:
			r.mu.Lock()
			head := r.held[agent]
			r.mu.Unlock()
			reply(w, protocol.Welcome{Version: protocol.Version, Relay: "rel_hostile", Log: head, ServerTimeMs: time.Now().UnixMilli()})
		case protocol.PathEvents:
			reply(w, protocol.Receipt{Log: r.keep(agent, req)})
		case protocol.PathRenew:
			var in protocol.RenewRequest
			_ = json.NewDecoder(req.Body).Decode(&in)
			chain, err := r.sign(in.CSR, t.Peer())
			if err != nil {
				http.Error(w, err.Error(), 400)
				return
			}
			reply(w, protocol.RenewResponse{Chain: chain})
		default:
			reply(w, struct{}{})
		}
	}
}

// keep takes a batch of audit lines and gives the head that an honest relay would acknowledge: of what does not continue
// the chain it takes nothing.
func (r *rogue) keep(agent string, req *http.Request) protocol.LogHead {
	var b protocol.EventBatch
	_ = json.NewDecoder(req.Body).Decode(&b)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range b.Records {
		rec := parseLine(line)
		held := r.held[agent]
		if held.Seq == 0 {
			held.Hash = audit.GenesisHash
		}
		if rec.Seq == held.Seq+1 && rec.Prev == held.Hash {
			r.lines[agent] = append(r.lines[agent], line)
			r.held[agent] = protocol.LogHead{Seq: rec.Seq, Hash: hashOf(line)}
		}
	}
	return r.held[agent]
}

// answer replaces what is answered to path until the test ends; nil is honest again.
func (r *rogue) answer(t testing.TB, path string, h http.HandlerFunc) {
	set := func(h http.HandlerFunc) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.on[path] = h
	}
	set(h)
	t.Cleanup(func() { set(nil) })
}

// tunnel waits for the agent's tunnel.
func (r *rogue) tunnel(t testing.TB, agent string) (out tunnel.Tunnel) {
	t.Helper()
	testenv.Eventually(t, "a tunnel of "+agent, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		out = r.tunnels[agent]
		return out != nil
	})
	return out
}

func (r *rogue) helloCount(agent string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hellos[agent]
}

func (r *rogue) drop(t testing.TB, agent string) {
	t.Helper()
	r.tunnel(t, agent).Close()
}

// forget makes the relay one that holds nothing of the agent.
func (r *rogue) forget(agent string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.lines, agent)
	delete(r.held, agent)
}

func (r *rogue) received(agent string) []json.RawMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]json.RawMessage(nil), r.lines[agent]...)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// leafOf is the certificate that an agent's data folder holds.
func leafOf(t testing.TB, dir string) *x509.Certificate {
	t.Helper()
	k, err := mtls.ReadKeypairFile(filepath.Join(dir, "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return k.Leaf()
}
