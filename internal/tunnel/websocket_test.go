package tunnel_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/internal/websocket"
	"github.com/fairleadhq/fairlead/protocol"
)

// webSocketWorld is a port whose people's listener takes WebSockets, as the relay's does.
func (w *world) webSocketWorld(t testing.TB, cfg tunnel.Config) *tunnel.Mux {
	m := tunnel.Listen(listen(t), map[string]*tls.Config{protocol.ALPNTunnel: w.serve, "": w.people(t)}, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx) }()
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(rw, r)
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		_ = m.Hand(conn) // what is refused is closed
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(m.Conns("")) }()
	t.Cleanup(func() {
		cancel()
		_ = srv.Close()
		<-served
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return m
}

// throughWebSocket dials as an agent does that finds no other way.
func throughWebSocket(wrap func(net.Conn) net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if wrap != nil {
			conn = wrap(conn)
		}
		outer := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		if err := outer.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		ws, err := websocket.Client(ctx, outer, addr, "/")
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return ws, nil
	}
}

func (w *world) connectWebSocket(t testing.TB, cfgC, cfgS tunnel.Config, wrap func(net.Conn) net.Conn) (tunnel.Tunnel, tunnel.Tunnel) {
	t.Helper()
	m := w.webSocketWorld(t, cfgS)
	type result struct {
		t   tunnel.Tunnel
		err error
	}
	ch := make(chan result, 1)
	go func() {
		conn, err := m.Conns(protocol.ALPNTunnel).Accept()
		if err != nil {
			ch <- result{nil, err}
			return
		}
		s, err := tunnel.Server(context.Background(), conn.(*tls.Conn), cfgS)
		ch <- result{s, err}
	}()
	c, err := tunnel.Dial(t.Context(), m.Addr().String(), w.client, throughWebSocket(wrap), cfgC)
	if err != nil {
		t.Fatal(err)
	}
	r := <-ch
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = r.t.Close() })
	return c, r.t
}

func webSocketPair(t *testing.T, cfg tunnel.Config) (tunnel.Tunnel, tunnel.Tunnel) {
	return newWorld(t).connectWebSocket(t, cfg, cfg, nil)
}

func TestWebSocket(t *testing.T) {
	conformance(t, webSocketPair, webSocketFaults, func(t *testing.T, f func(*testing.T)) { f(t) })
}

func TestWebSocketIsNamed(t *testing.T) {
	a, b := webSocketPair(t, tunnel.DefaultConfig())
	if a.Transport() != "websocket" || b.Transport() != "websocket" {
		t.Errorf("transports %q, %q", a.Transport(), b.Transport())
	}
	if a, b := tlsPair(t, tunnel.DefaultConfig()); a.Transport() != "tls" || b.Transport() != "tls" {
		t.Errorf("transports %q, %q", a.Transport(), b.Transport())
	}
}

// A dead peer is found by the tunnel's own round trip, whatever carries it.
func TestPeerDeathIsSeenThroughWebSocket(t *testing.T) {
	var f *faulty
	a, b := newWorld(t).connectWebSocket(t, quick(), tunnel.DefaultConfig(), func(c net.Conn) net.Conn { f = newFaulty(c); return f })
	open(t, a, b)
	f.deaf.Store(true)
	within(t, 10*time.Second, "the end of the tunnel", a.Done())
	if !errors.Is(a.Err(), tunnel.ErrPeerLost) {
		t.Errorf("tunnel: %v", a.Err())
	}
	f.letGo()
}

// What comes inside a WebSocket passes the same gate as the port: certificate, protocol, number and time.
func TestHandedConnectionsPassTheSameGate(t *testing.T) {
	dial := func(t *testing.T, m *tunnel.Mux) net.Conn {
		t.Helper()
		c, err := throughWebSocket(nil)(t.Context(), "tcp", m.Addr().String())
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	refused := func(t *testing.T, c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read %d bytes, %v", n, err)
		}
	}
	t.Run("no certificate", func(t *testing.T) {
		m := newWorld(t).webSocketWorld(t, tunnel.DefaultConfig())
		conn := tls.Client(dial(t, m), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol.ALPNTunnel}})
		if err := conn.HandshakeContext(t.Context()); err == nil {
			refused(t, conn)
		}
	})
	t.Run("the API is not nested", func(t *testing.T) {
		m := newWorld(t).webSocketWorld(t, tunnel.DefaultConfig())
		for _, protos := range [][]string{nil, {"http/1.1"}, {"h2", "http/1.1"}} {
			conn := tls.Client(dial(t, m), &tls.Config{InsecureSkipVerify: true, NextProtos: protos})
			if err := conn.HandshakeContext(t.Context()); err == nil {
				t.Errorf("ALPN %v was let in", protos)
			}
		}
	})
	t.Run("silence has an end", func(t *testing.T) {
		cfg := tunnel.DefaultConfig()
		cfg.HandshakeTimeout = 200 * time.Millisecond
		refused(t, dial(t, newWorld(t).webSocketWorld(t, cfg)))
	})
	t.Run("one source has its share", func(t *testing.T) {
		cfg := tunnel.DefaultConfig()
		cfg.MaxHandshakesPerSource, cfg.HandshakeGrace, cfg.HandshakeTimeout, cfg.HandshakeWait = 2, time.Hour, time.Hour, 100*time.Millisecond
		m := newWorld(t).webSocketWorld(t, cfg)
		dial(t, m)
		dial(t, m)
		// The coat of a third is not done before one of the two makes way; the port itself refuses it.
		if c, err := throughWebSocket(nil)(t.Context(), "tcp", m.Addr().String()); err == nil {
			defer c.Close()
			refused(t, c)
		}
	})
	t.Run("a port that is closed takes nothing in", func(t *testing.T) {
		w := newWorld(t)
		m := tunnel.Listen(listen(t), map[string]*tls.Config{protocol.ALPNTunnel: w.serve}, tunnel.DefaultConfig())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		must(t, m.Serve(ctx))
		a, b := net.Pipe()
		defer a.Close()
		if err := m.Hand(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("the connection is open")
		}
	})
	t.Run("the end of the port cuts a handshake", func(t *testing.T) {
		cfg := tunnel.DefaultConfig()
		cfg.HandshakeTimeout = time.Hour
		w := newWorld(t)
		m := tunnel.Listen(listen(t), map[string]*tls.Config{protocol.ALPNTunnel: w.serve}, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Serve(ctx) }()
		a, b := net.Pipe()
		defer a.Close()
		must(t, m.Hand(b))
		cancel()
		must(t, <-done)
	})
}

// BenchmarkWebSocket is what the coat costs, beside BenchmarkBulk and BenchmarkRoundTrip.
func BenchmarkWebSocket(b *testing.B) {
	for _, way := range []string{"up", "down"} {
		b.Run(way, func(b *testing.B) {
			a, p := newWorld(b).connectWebSocket(b, tunnel.DefaultConfig(), tunnel.DefaultConfig(), nil)
			from, to := open(b, a, p)
			if way == "down" {
				from, to = to, from
			}
			defer from.Close()
			defer to.Close()
			b.ResetTimer()
			bulk(b, from, to)
		})
	}
	b.Run("round trip", func(b *testing.B) {
		a, p := newWorld(b).connectWebSocket(b, tunnel.DefaultConfig(), tunnel.DefaultConfig(), nil)
		near, far := open(b, a, p)
		echoBench(b, near, far)
	})
}
