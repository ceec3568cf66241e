package gateway

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
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

// rig is a manager on a state of its own, with an agent that echoes.
type rig struct {
	t       *testing.T
	m       *Manager
	dir     *directory.Directory
	address string
	stop    func() // ends Run

	mu     sync.Mutex // guards events
	events []audit.Event
}

func newRig(t *testing.T, tlsMode string, change func(*Config)) *rig {
	t.Helper()
	dc := directory.DefaultConfig(t.TempDir())
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: dc})
	must(t, err)
	g := &rig{t: t}
	g.dir, err = directory.Open(t.Context(), dc)
	must(t, err)
	t.Cleanup(func() { g.dir.Close() })
	_, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	logs := &audit.Logs{Config: audit.Config{Dir: filepath.Join(t.TempDir(), "audit"), Source: "rel_test", Key: key}, Seal: g.dir.SealEvent}
	t.Cleanup(func() { logs.Close() })
	h := hub.New(hub.Config{})
	d := &dispatch.Dispatcher{Hub: h, Logger: slog.New(slog.DiscardHandler), Record: func(ev audit.Event) (*audit.Ticket, error) {
		g.mu.Lock()
		g.events = append(g.events, ev)
		g.mu.Unlock()
		rec, err := logs.Recorder(ev.Workspace)
		if err != nil {
			return nil, err
		}
		return rec.Record(ev)
	}}
	cfg := DefaultConfig()
	cfg.Addresses, cfg.Directory, cfg.Dispatch = []Range{{netip.MustParseAddr("127.0.0.1"), 1, 65535}}, g.dir, d
	cfg.Certificate = certificate(t)
	if change != nil {
		change(&cfg)
	}
	g.m = New(cfg)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g.address = ln.Addr().String()
	ln.Close()
	w := g.dir.Snapshot().Workspaces()[0]
	_, err = g.dir.CreateGatewayConnection(t.Context(), directory.By{ID: w.Principals[0].ID}, w.ID, "default", directory.ConnectionBody{Name: "echo", Profile: "echo"}, directory.GatewayBody{
		Address: netip.MustParseAddrPort(g.address), TLS: tlsMode, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	must(t, err)
	agent(t, h, w)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); g.m.Run(ctx) }()
	g.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(g.stop)
	g.m.Sync(t.Context())
	return g
}

// agent plays an agent of the workspace that answers dials by an echo.
func agent(t *testing.T, h *hub.Hub, w *directory.Workspace) {
	site, relay := tunnel.Memory(mtls.Identity{Installation: "in_x", Role: mtls.RoleAgent, Workspace: w.ID, Group: w.Groups[0].ID, ID: "agt_x"},
		mtls.Identity{Installation: "in_x", Role: mtls.RoleRelay, ID: "rel_x"}, tunnel.DefaultConfig())
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol.UpgradeDial+"\r\n\r\n")
		_, _ = io.Copy(c, buf)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tunnel.NewListener(site)) }()
	t.Cleanup(func() { site.Close(); relay.Close(); srv.Close(); <-done })
	h.Add(lossy{relay}, protocol.Hello{Version: 1, Profiles: []protocol.ProfileOffer{{Name: "echo", Kind: protocol.KindTCP}}})
}

func certificate(t *testing.T) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	pub, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay"}, DNSNames: []string{"relay"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, c, c, pub, key)
	must(t, err)
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
	}
}

func (g *rig) dial() net.Conn {
	g.t.Helper()
	c, err := net.Dial("tcp", g.address)
	must(g.t, err)
	g.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func echoes(c net.Conn) error {
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	b := make([]byte, 4)
	_, err := io.ReadFull(c, b)
	return err
}

// refused dials and expects the other side to end it, which may come before the dial has returned.
func (g *rig) refused() {
	g.t.Helper()
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	ended(g.t, c)
}

// ended waits until the other side has ended c.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("the conn lives on")
	} else if n, ok := err.(net.Error); ok && n.Timeout() {
		t.Fatal("the conn lives on")
	}
}

func (g *rig) recorded(ok func(audit.Event) bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		if ok(e) {
			return true
		}
	}
	return false
}

// P16: a handshake that hangs is ended in time, and recorded.
func TestHandshakeThatHangsIsEnded(t *testing.T) {
	g := newRig(t, directory.GatewayServer, func(c *Config) { c.HandshakeTimeout = 100 * time.Millisecond })
	silent, slow := g.dial(), g.dial()
	_, _ = slow.Write([]byte{0x16, 0x03, 0x01}) // the first bytes of a ClientHello, and then nothing
	ended(t, silent)
	ended(t, slow)
	eventually(t, "the record", func() bool {
		return g.recorded(func(e audit.Event) bool {
			return e.Kind == audit.KindDenied && e.Rule == "gateway.tls" && e.Code == string(protocol.CodeTimeout)
		})
	})
	eventually(t, "both are counted and gone", func() bool { c := g.m.Counts(); return c.Refused == 2 && c.Conns == 0 })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("did not come: %s", what)
		case <-tick.C:
		}
	}
}

// P16: handshakes that are not done are bounded for each source, and those beyond cost no more than a socket.
func TestHandshakesAreBoundedInNumber(t *testing.T) {
	g := newRig(t, directory.GatewayServer, func(c *Config) { c.HandshakeTimeout, c.MaxHandshakesPerSource = time.Minute, 3 })
	var hanging []net.Conn
	for range 3 {
		hanging = append(hanging, g.dial())
	}
	eventually(t, "three hang", func() bool { return g.m.Counts().Conns == 3 })
	g.refused()
	if !g.recorded(func(e audit.Event) bool {
		return e.Kind == audit.KindDenied && e.Code == string(protocol.CodeRateLimited) && e.Rule == "gateway.tls"
	}) {
		t.Error("the refusal is not recorded")
	}
	hanging[0].Close() // room again
	eventually(t, "one has ended", func() bool { return g.m.Counts().Conns == 2 })
	c := tls.Client(g.dial(), &tls.Config{InsecureSkipVerify: true})
	must(t, c.Handshake())
	must(t, echoes(c))
	// Those that are done do not count against those that come.
	d := tls.Client(g.dial(), &tls.Config{InsecureSkipVerify: true})
	must(t, d.Handshake())
	must(t, echoes(d))
}

func TestConnsAreBounded(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"gateway.max_conns":             func(c *Config) { c.MaxConns = 2 },
		"gateway.max_conns_per_gateway": func(c *Config) { c.MaxConnsPerGateway = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, directory.GatewayPlain, change)
			first, second := g.dial(), g.dial()
			must(t, echoes(first))
			must(t, echoes(second))
			g.refused()
			if !g.recorded(func(e audit.Event) bool {
				return e.Kind == audit.KindDenied && e.Code == string(protocol.CodeRateLimited) && e.Rule == name
			}) {
				t.Error("the refusal is not recorded")
			}
			first.Close()
			eventually(t, "room again", func() bool { return g.m.Counts().Conns == 1 })
			must(t, echoes(g.dial()))
			must(t, echoes(second))
		})
	}
}

// P6: when the intent cannot be recorded, no byte is carried.
func TestNoRecordNoConn(t *testing.T) {
	g := newRig(t, directory.GatewayPlain, func(c *Config) {
		c.Dispatch.Record = func(audit.Event) (*audit.Ticket, error) { return nil, errors.New("disk full") }
	})
	if c, err := net.Dial("tcp", g.address); err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if echoes(c) == nil {
			t.Fatal("a conn was carried without a record")
		}
	}
}

// A flood of refusals does not fill the log, and none is lost from the count.
func TestFloodOfRefusalsIsCounted(t *testing.T) {
	r := budget.Flood{Rate: refusalRate, Burst: refusalBurst}
	now := time.Now()
	alone := 0
	for i := range 10_000 { // ten seconds of a thousand a second
		if r.Admit("ws_a", now.Add(time.Duration(i)*time.Millisecond)) {
			alone++
		}
	}
	if alone < refusalBurst || alone > refusalBurst+10*refusalRate+1 {
		t.Errorf("%d recorded one by one", alone)
	}
	end := now.Add(10 * time.Second)
	if !r.Admit("ws_b", end) {
		t.Error("one workspace's flood silences another's")
	}
	if told := r.Take(end); told["ws_a"] != int64(10_000-alone) || len(told) != 1 {
		t.Errorf("told %v of %d", told, 10_000-alone)
	}
	if told := r.Take(end.Add(time.Hour)); len(told) != 0 {
		t.Errorf("after the flood: %v", told)
	}
}

// P20: a stop lets conns finish for as long as it may, and cuts what is left.
func TestDrainLetsConnsFinish(t *testing.T) {
	g := newRig(t, directory.GatewayPlain, nil)
	c := g.dial()
	must(t, echoes(c))
	drained := make(chan struct{})
	go func() { defer close(drained); g.m.Drain(context.Background()) }()
	eventually(t, "the port is closed", func() bool { return g.m.Counts().Open == 0 })
	if more, err := net.Dial("tcp", g.address); err == nil {
		more.Close()
		t.Error("a conn was taken while draining")
	}
	must(t, echoes(c))
	select {
	case <-drained:
		t.Fatal("it did not wait")
	default:
	}
	c.Close()
	<-drained
	g.stop()

	g = newRig(t, directory.GatewayPlain, nil)
	c = g.dial()
	must(t, echoes(c))
	g.stop()
	ended(t, c)
	if !g.recorded(func(e audit.Event) bool {
		return e.Kind == audit.KindOutcome && e.Code == string(protocol.CodeUnavailable)
	}) {
		t.Error("the cut conn has no outcome")
	}
}

// A reserved port belongs to nobody until it is taken over, and is given back.
func TestReservedPortIsGivenBack(t *testing.T) {
	g := newRig(t, directory.GatewayPlain, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	free := netip.MustParseAddrPort(ln.Addr().String())
	if _, err := g.m.Reserve(free, "con_x"); err == nil {
		t.Fatal("a port in use was reserved")
	}
	ln.Close()
	release, err := g.m.Reserve(free, "con_x")
	must(t, err)
	if _, err := g.m.Reserve(free, "con_y"); err == nil {
		t.Fatal("it was reserved twice")
	}
	release()
	if ln, err = net.Listen("tcp", free.String()); err != nil {
		t.Fatal("it is still held")
	}
	ln.Close()
	if own, err := g.m.Reserve(netip.MustParseAddrPort(g.address), g.dir.Snapshot().Workspaces()[0].Connections[0].ID); err != nil {
		t.Error(err)
	} else {
		own()
		must(t, echoes(g.dial()))
	}
}

func TestNameOfACertificate(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 200))
	for want, c := range map[string]*x509.Certificate{
		"a@corp":                     {EmailAddresses: []string{"a@corp"}, Subject: pkix.Name{CommonName: "cn"}},
		"host.corp":                  {DNSNames: []string{"host.corp"}, Subject: pkix.Name{CommonName: "cn"}},
		"cn":                         {DNSNames: []string{long, "evil\x1b[2J"}, Subject: pkix.Name{CommonName: "cn"}},
		"O=Corp":                     {Subject: pkix.Name{Organization: []string{"Corp"}}},
		"certificate without a name": {DNSNames: []string{long}},
	} {
		if got := leafName(c); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
