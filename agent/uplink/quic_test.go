package uplink

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// A port is a relay's: TCP, and UDP on a way that a firewall may stop.
type port struct {
	t        *testing.T
	addr     string
	agent    *tls.Config
	stopped  atomic.Bool // UDP is
	helloes  chan string // the transport of each tunnel that said hello
	silent   atomic.Bool // welcomes over QUIC are not answered
	noOffer  bool
	mu       sync.Mutex // guards tunnels
	tunnels  []tunnel.Tunnel
	draining atomic.Int64
}

func quickTunnels() tunnel.Config {
	cfg := tunnel.DefaultConfig()
	cfg.KeepAlive, cfg.PingTimeout = 100*time.Millisecond, 2*time.Second
	return cfg
}

// udpBeside takes the UDP port of the same number as a TCP port.
func udpBeside(t *testing.T) (net.Listener, *net.UDPConn) {
	t.Helper()
	for range 20 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ln.Addr().(*net.TCPAddr).Port})
		if err == nil {
			return ln, sock
		}
		_ = ln.Close()
	}
	t.Fatal("no port is free for both TCP and UDP")
	return nil, nil
}

func newPort(t *testing.T) *port {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	root := mtlstest.New(t)
	serve := mtls.TunnelTLS(root.Leaf(t, mtlstest.Relay, nil).Reloader(t), root.Pool(), "in_test", nil)
	p := &port{t: t, helloes: make(chan string, 100)}
	p.agent = mtls.AgentTLS(root.Workspace(t, "in_test", "ws_test").Leaf(t, mtlstest.Agent, nil).Reloader(t), root.Pool(), "in_test")
	ln, near := udpBeside(t)
	p.addr = ln.Addr().String()
	sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	ql, err := tunnel.ListenQUIC(sock, serve, nil, quickTunnels())
	must(t, err)
	m := tunnel.Listen(ln, map[string]*tls.Config{protocol.ALPNTunnel: serve}, quickTunnels())
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = m.Serve(ctx) })
	tasks.Go(func() {
		for {
			c, err := m.Conns(protocol.ALPNTunnel).Accept()
			if err != nil {
				return
			}
			if t, err := tunnel.Server(ctx, c.(*tls.Conn), quickTunnels()); err == nil {
				p.serve(&tasks, t)
			}
		}
	})
	tasks.Go(func() {
		for {
			t, err := ql.Accept(ctx)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				p.serve(&tasks, t)
			}
		}
	})
	stop := p.road(near, sock.LocalAddr().(*net.UDPAddr))
	t.Cleanup(func() {
		cancel()
		p.cut()
		tasks.Wait()
		must(t, ql.Close())
		stop()
	})
	return p
}

// road carries datagrams between the agent's sockets and the relay's.
func (p *port) road(near *net.UDPConn, relay *net.UDPAddr) (stop func()) {
	var tasks sync.WaitGroup
	far := map[string]*net.UDPConn{} // of the goroutine below
	tasks.Go(func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := near.ReadFromUDP(b)
			if err != nil {
				break
			}
			c := far[from.String()]
			if c == nil {
				if c, err = net.DialUDP("udp4", nil, relay); err != nil {
					break
				}
				far[from.String()] = c
				tasks.Go(func() {
					b := make([]byte, 64<<10)
					for {
						n, err := c.Read(b)
						if errors.Is(err, net.ErrClosed) {
							return
						}
						if err == nil && !p.stopped.Load() {
							_, _ = near.WriteToUDP(b[:n], from)
						}
					}
				})
			}
			if !p.stopped.Load() {
				_, _ = c.Write(b[:n])
			}
		}
		for _, c := range far {
			_ = c.Close()
		}
	})
	return func() { _ = near.Close(); tasks.Wait() }
}

func (p *port) serve(tasks *sync.WaitGroup, t tunnel.Tunnel) {
	p.mu.Lock()
	p.tunnels = append(p.tunnels, t)
	p.mu.Unlock()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case protocol.PathHello:
			var h protocol.Hello
			if err := json.NewDecoder(r.Body).Decode(&h); err != nil || (h.Lanes > 0) != (t.Transport() == "tls") {
				p.t.Errorf("hello over %s: %+v, %v", t.Transport(), h, err)
			}
			if t.Transport() == "quic" && p.silent.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			p.helloes <- t.Transport()
			_ = json.NewEncoder(w).Encode(protocol.Welcome{Version: protocol.Version, Relay: "rel_test", ServerTimeMs: time.Now().UnixMilli(), QUIC: !p.noOffer})
		case protocol.PathDrain:
			p.draining.Add(1)
			_, _ = w.Write([]byte("{}"))
		}
	})}
	tasks.Go(func() { _ = srv.Serve(tunnel.NewListener(t)); _ = t.Close(); _ = srv.Close() })
}

// cut ends all tunnels with a word.
func (p *port) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.tunnels {
		_ = t.Close()
	}
	p.tunnels = nil
}

func (p *port) start(change func(*Config)) *Uplink {
	cfg := Config{Addresses: []string{p.addr}, TLS: p.agent, Tunnel: quickTunnels(), Lanes: 2, Logger: quiet,
		Choices: filepath.Join(p.t.TempDir(), "uplink.json"), QUICTimeout: 500 * time.Millisecond, QUICRetry: time.Hour,
		MinWait: time.Millisecond, MaxWait: 10 * time.Millisecond,
		Hello:   func() protocol.Hello { return protocol.Hello{Version: protocol.Version} },
		Handler: http.NotFoundHandler()}
	if change != nil {
		change(&cfg)
	}
	u := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = u.Run(ctx) }()
	p.t.Cleanup(func() { cancel(); <-done })
	return u
}

// expect waits for tunnels that say hello, in this order.
func (p *port) expect(transports ...string) {
	p.t.Helper()
	for i, want := range transports {
		select {
		case got := <-p.helloes:
			if got != want {
				p.t.Fatalf("tunnel %d came over %s, want %s", i+1, got, want)
			}
		case <-time.After(20 * time.Second):
			p.t.Fatalf("no tunnel over %s", want)
		}
	}
}

// nothing shows that for a while no tunnel says hello.
func (p *port) nothing(d time.Duration) {
	p.t.Helper()
	select {
	case got := <-p.helloes:
		p.t.Fatalf("another tunnel came, over %s", got)
	case <-time.After(d):
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func over(u *Uplink) string { return u.States()[0].Transport }

func TestAutoMovesToQUIC(t *testing.T) {
	p := newPort(t)
	u := p.start(nil)
	p.expect("tls", "quic")
	eventually(t, "QUIC is in use, and TCP was drained", func() bool { return over(u) == "quic" && p.draining.Load() == 1 })
	// What is remembered comes first from then on.
	p.cut()
	p.expect("quic")
	u.Cycle()
	p.expect("quic")
	p.nothing(200 * time.Millisecond)
	if kept, err := ReadChoices(u.cfg.Choices); err != nil || kept[p.addr].Transport != TransportQUIC {
		t.Errorf("remembered %v, %v", kept, err)
	}
}

func TestAutoStaysOnTCPWhereUDPIsStopped(t *testing.T) {
	p := newPort(t)
	p.stopped.Store(true)
	u := p.start(func(c *Config) { c.QUICRetry = time.Second })
	p.expect("tls")
	kept := func() Choice {
		all, err := ReadChoices(u.cfg.Choices)
		must(t, err)
		return all[p.addr]
	}
	eventually(t, "it is remembered", func() bool { return kept().Transport == TransportTCP })
	if k := kept(); !strings.Contains(k.Reason, "nothing comes back over UDP") || k.Failures != 1 {
		t.Errorf("remembered %+v", k)
	}
	if over(u) != "tls" || p.draining.Load() != 0 {
		t.Errorf("the tunnel over TCP was touched: %s", over(u))
	}
	// It is tried again in its time, without a word of it to the tunnel that serves.
	p.stopped.Store(false)
	p.expect("quic")
	eventually(t, "QUIC is in use", func() bool { return over(u) == "quic" })
}

func TestAutoFallsBackWhenUDPDies(t *testing.T) {
	p := newPort(t)
	u := p.start(nil)
	p.expect("tls", "quic")
	eventually(t, "QUIC is in use", func() bool { return over(u) == "quic" })
	start := time.Now()
	p.stopped.Store(true)
	p.expect("tls")
	if d := time.Since(start); d > 10*time.Second { // found within 2.1 s, and one wait; the machine may be busy
		t.Errorf("it took %v", d)
	}
	p.nothing(time.Second)
	if over(u) != "tls" {
		t.Errorf("in use: %s", over(u))
	}
	// Remembered: the next tunnel does not wait for QUIC.
	u.Cycle()
	p.expect("tls")
	p.nothing(time.Second)
}

// A relay that lets the agent in over QUIC and then does not welcome it costs nothing but the try.
func TestAutoKeepsServingWhenQUICIsNotWelcomed(t *testing.T) {
	p := newPort(t)
	p.silent.Store(true)
	u := p.start(nil)
	p.expect("tls", "tls")
	eventually(t, "the first was drained, when the next was welcomed", func() bool { return p.draining.Load() == 1 })
	p.nothing(time.Second)
	if over(u) != "tls" {
		t.Errorf("in use: %s", over(u))
	}
}

// Nobody tries UDP at a relay that does not offer it, or where a proxy stands on the way.
func TestAutoTriesQUICOnlyWhereItCanBe(t *testing.T) {
	t.Run("not offered", func(t *testing.T) {
		p := newPort(t)
		p.noOffer = true
		p.start(nil)
		p.expect("tls")
		p.nothing(time.Second)
	})
	t.Run("tcp alone", func(t *testing.T) {
		p := newPort(t)
		p.start(func(c *Config) { c.Transport = TransportTCP })
		p.expect("tls")
		p.nothing(time.Second)
	})
	t.Run("through a proxy", func(t *testing.T) {
		u := New(Config{Proxy: Proxy{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}}, Logger: quiet, Transport: TransportQUIC})
		if _, err := u.dial(t.Context(), "127.0.0.1:1", TransportQUIC); err == nil || !strings.Contains(err.Error(), "QUIC does not go through it") {
			t.Errorf("got %v", err)
		}
		t.Setenv("HTTPS_PROXY", "http://proxy.corp:3128")
		t.Setenv("NO_PROXY", "relay.corp")
		p := Proxy{FromEnvironment: true}
		for addr, want := range map[string]bool{"relay.example.com:443": true, "relay.corp:443": false} {
			if p.Applies(addr) != want {
				t.Errorf("%s through a proxy: %v", addr, !want)
			}
		}
	})
}

func TestQUICAlone(t *testing.T) {
	p := newPort(t)
	u := p.start(func(c *Config) { c.Transport = TransportQUIC })
	p.expect("quic")
	eventually(t, "it is welcomed", func() bool { return u.States()[0].Connected })
	p.stopped.Store(true)
	eventually(t, "the tunnel is lost", func() bool { return !u.States()[0].Connected })
	p.nothing(time.Second)
	p.stopped.Store(false)
	p.expect("quic")
}

func TestQUICIsExplained(t *testing.T) {
	sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}) // takes all, says nothing
	must(t, err)
	defer sock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	u := New(Config{Logger: quiet, Transport: TransportQUIC, TLS: &tls.Config{NextProtos: []string{protocol.ALPNTunnel}}})
	_, err = u.dial(ctx, sock.LocalAddr().String(), TransportQUIC)
	if got := explain(err); !strings.Contains(got, "a firewall on the way drops UDP, or the relay's agents.quic is off") {
		t.Errorf("%v is explained as %q", err, got)
	}
}
