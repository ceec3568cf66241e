package tunnel_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// people is the settings of the default listener.
func (w *world) people(t testing.TB) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: w.relay.Reloader(t).GetCertificate,
	}
}

func (w *world) mux(t *testing.T, cfg tunnel.Config) *tunnel.Mux {
	m := tunnel.Listen(listen(t), map[string]*tls.Config{
		protocol.ALPNTunnel: w.serve,
		protocol.ALPNEnroll: mtls.EnrollServerTLS(w.relay.Reloader(t)),
		"":                  w.people(t),
	}, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return m
}

func TestMuxSplitsByALPN(t *testing.T) {
	w := newWorld(t)
	m := w.mux(t, tunnel.DefaultConfig())

	tunnels := make(chan tunnel.Tunnel, 1)
	go func() {
		conn, err := m.Conns(protocol.ALPNTunnel).Accept()
		if err != nil {
			t.Error(err)
			return
		}
		s, err := tunnel.Server(t.Context(), conn.(*tls.Conn), tunnel.DefaultConfig())
		if err != nil {
			t.Error(err)
			return
		}
		tunnels <- s
	}()
	c, err := tunnel.Dial(t.Context(), m.Addr().String(), w.client, nil, tunnel.DefaultConfig())
	must(t, err)
	defer c.Close()
	s := <-tunnels
	defer s.Close()
	if _, err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}

	// One handler behind each of the other two, to see who is who.
	var wg sync.WaitGroup
	for alpn, name := range map[string]string{"": "people", protocol.ALPNEnroll: "enroll"} {
		srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(rw, name+" "+r.Proto)
		})}
		ln := m.Conns(alpn)
		if alpn != "" {
			ln = tunnel.HTTP1(ln)
		}
		wg.Go(func() { _ = srv.Serve(ln) })
		t.Cleanup(func() { _ = srv.Close() })
	}
	for _, h2 := range []bool{true, false} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
		if !h2 {
			tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
		}
		resp, err := (&http.Client{Transport: tr}).Get("https://" + m.Addr().String() + "/")
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		_ = resp.Body.Close()
		tr.CloseIdleConnections()
		want := "people HTTP/1.1"
		if h2 {
			want = "people HTTP/2.0"
		}
		if string(body) != want {
			t.Errorf("h2 %v: got %q, want %q", h2, body, want)
		}
	}
	conn, err := tls.Dial("tcp", m.Addr().String(), mtls.EnrollClientTLS(mtls.Pin(w.root.Cert)))
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "enroll HTTP/1.1" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
}

// An agent that is not enrolled gets no further than the handshake, whatever it names itself.
func TestMuxTunnelWantsCertificate(t *testing.T) {
	w := newWorld(t)
	m := w.mux(t, tunnel.DefaultConfig())
	conn, err := tls.Dial("tcp", m.Addr().String(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{protocol.ALPNTunnel, "h2"},
	})
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil || err == io.EOF {
		t.Fatalf("got %v", err)
	}
}

func TestMuxWithoutDefaultRefusesOthers(t *testing.T) {
	w := newWorld(t)
	m := tunnel.Listen(listen(t), map[string]*tls.Config{protocol.ALPNTunnel: w.serve}, tunnel.DefaultConfig())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx) }()
	for _, protos := range [][]string{nil, {"h2"}, {"fairlead/2"}} {
		if conn, err := tls.Dial("tcp", m.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: protos}); err == nil {
			_ = conn.Close()
			t.Errorf("ALPN %v was let in", protos)
		}
	}
	cancel()
	must(t, <-done)
	if _, err := m.Conns(protocol.ALPNTunnel).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after the end: %v", err)
	}
}

// Clients that hang in the handshake cost the others nothing: neither from elsewhere nor from the same address.
func TestMuxHandshakeStall(t *testing.T) {
	cfg := tunnel.DefaultConfig()
	cfg.MaxHandshakes, cfg.MaxHandshakesPerSource = 20, 10
	cfg.HandshakeGrace = 30 * time.Millisecond
	cfg.HandshakeTimeout = 2 * time.Second
	w := newWorld(t)
	m := w.mux(t, cfg)
	go func() {
		for {
			conn, err := m.Conns(protocol.ALPNTunnel).Accept()
			if err != nil {
				return
			}
			go func() {
				s, err := tunnel.Server(t.Context(), conn.(*tls.Conn), cfg)
				if err == nil {
					<-s.Done()
					_ = s.Close()
				}
			}()
		}
	}()
	stalls := map[string]func(net.Conn){
		"D7 send nothing": func(net.Conn) {},
		"D7 ClientHello byte by byte": func(c net.Conn) {
			for _, b := range []byte{0x16, 3, 1, 2, 0} {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
		},
		"D7 half a handshake": func(c net.Conn) {
			// A hello that is whole, and then nothing: the certificate is withheld.
			go func() { _ = tls.Client(stuck{c}, w.client.Clone()).Handshake() }()
		},
	}
	for name, stall := range stalls {
		t.Run(name, func(t *testing.T) {
			var held []net.Conn
			for range 100 {
				c, err := net.Dial("tcp", m.Addr().String())
				must(t, err)
				stall(c)
				held = append(held, c)
			}
			defer func() {
				for _, c := range held {
					_ = c.Close()
				}
			}()
			start := time.Now()
			var c tunnel.Tunnel
			// The first tries may be refused: an agent retries.
			eventually(t, "an honest agent gets in", func() bool {
				var err error
				c, err = tunnel.Dial(t.Context(), m.Addr().String(), w.client, nil, cfg)
				return err == nil
			})
			defer c.Close()
			if d := time.Since(start); d > time.Second {
				t.Errorf("it took %v", d)
			}
			// Those who hang are let go.
			for _, h := range held {
				_ = h.SetReadDeadline(time.Now().Add(10 * time.Second))
				var err error
				for b := make([]byte, 4096); err == nil; {
					_, err = h.Read(b)
				}
				var ne net.Error
				if errors.As(err, &ne) && ne.Timeout() {
					t.Fatal("a connection that hangs is kept")
				}
			}
		})
	}
}

// stuck sends what it is given and answers nothing until it is closed.
type stuck struct{ net.Conn }

func (s stuck) Read(p []byte) (int, error) {
	return 0, io.EOF
}

func (s stuck) Close() error { return nil }

func TestMuxStormIsServed(t *testing.T) {
	cfg := tunnel.DefaultConfig()
	cfg.MaxHandshakes, cfg.MaxHandshakesPerSource = 8, 1000
	w := newWorld(t)
	m := w.mux(t, cfg)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			conn, err := m.Conns(protocol.ALPNTunnel).Accept()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = conn.Write([]byte("x"))
			_ = conn.Close()
		}
	})
	for range 100 {
		wg.Go(func() {
			conn, err := tls.Dial("tcp", m.Addr().String(), w.client)
			if err == nil {
				_, err = io.ReadFull(conn, make([]byte, 1))
				_ = conn.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestDialRefusals(t *testing.T) {
	w := newWorld(t)
	m := w.mux(t, tunnel.DefaultConfig())
	other := mtlstest.New(t)
	conf := mtls.AgentTLS(w.agent.Reloader(t), other.Pool(), "in_test")
	if _, err := tunnel.Dial(t.Context(), m.Addr().String(), conf, nil, tunnel.DefaultConfig()); !errors.Is(err, mtls.ErrUntrusted) {
		t.Errorf("D9 another CA: %v", err)
	}
	conf = mtls.AgentTLS(w.agent.Reloader(t), w.root.Pool(), "in_test")
	conf.RootCAs = nil
	if _, err := tunnel.Dial(t.Context(), m.Addr().String(), conf, nil, tunnel.DefaultConfig()); !errors.Is(err, mtls.ErrUntrusted) {
		t.Errorf("no roots: %v", err)
	}
	conf = mtls.AgentTLS(w.agent.Reloader(t), w.root.Pool(), "in_test")
	conf.NextProtos = []string{"http/1.1"}
	if _, err := tunnel.Dial(t.Context(), m.Addr().String(), conf, nil, tunnel.DefaultConfig()); !errors.Is(err, tunnel.ErrProtocol) {
		t.Errorf("another protocol: %v", err)
	}
	ln := listen(t) // accepts in the kernel and says nothing
	cfg := tunnel.DefaultConfig()
	cfg.HandshakeTimeout = 50 * time.Millisecond
	start := time.Now()
	if _, err := tunnel.Dial(t.Context(), ln.Addr().String(), conf, nil, cfg); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("silent relay: %v after %v", err, time.Since(start))
	}
}
