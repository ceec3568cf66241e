package tunnel_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// rawQUIC is an enrolled agent that does with QUIC what it likes.
func rawQUIC(t testing.TB, cfg tunnel.Config, conf *quic.Config) (*quic.Conn, tunnel.Tunnel) {
	t.Helper()
	w := newWorld(t)
	l := w.listenQUIC(t, cfg)
	conn, err := quic.DialAddr(t.Context(), l.Addr().String(), w.client, conf)
	must(t, err)
	tun, err := l.Accept(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = conn.CloseWithError(0, ""); _ = tun.Close() })
	return conn, tun
}

func controlMessage(kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, n)
}

func TestBrokenControlEndsTheTunnelOverQUIC(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, conn *quic.Conn, tun tunnel.Tunnel){
		"D16 unknown message": func(t *testing.T, conn *quic.Conn, _ tunnel.Tunnel) {
			c, err := conn.OpenUniStream()
			must(t, err)
			_, _ = c.Write(controlMessage(4, 1))
		},
		"D16 accepts more than was opened": func(t *testing.T, conn *quic.Conn, _ tunnel.Tunnel) {
			c, err := conn.OpenUniStream()
			must(t, err)
			_, _ = c.Write(controlMessage(1, 1))
		},
		"D16 ends the control stream": func(t *testing.T, conn *quic.Conn, _ tunnel.Tunnel) {
			c, err := conn.OpenUniStream()
			must(t, err)
			_, _ = c.Write([]byte{1})
			must(t, c.Close())
		},
		"D16 a stream that begins otherwise": func(t *testing.T, conn *quic.Conn, tun tunnel.Tunnel) {
			s, err := conn.OpenStream()
			must(t, err)
			_, _ = s.Write([]byte("GET / HTTP/1.1\r\n"))
			p, err := tun.Accept()
			must(t, err)
			if _, err := p.Read(make([]byte, 1)); !errors.Is(err, tunnel.ErrProtocol) {
				t.Errorf("read: %v", err)
			}
		},
		"D16 a stream that ends before it began": func(t *testing.T, conn *quic.Conn, tun tunnel.Tunnel) {
			s, err := conn.OpenStream()
			must(t, err)
			must(t, s.Close())
			p, err := tun.Accept()
			must(t, err)
			if _, err := p.Read(make([]byte, 1)); !errors.Is(err, tunnel.ErrProtocol) {
				t.Errorf("read: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, tun := rawQUIC(t, tunnel.DefaultConfig(), nil)
			do(t, conn, tun)
			within(t, 10*time.Second, "the end of the tunnel", tun.Done())
			if err := tun.Err(); !errors.Is(err, tunnel.ErrProtocol) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// Neither a second control stream nor a stream more than is allowed is to be had, whatever the peer tries.
func TestQUICStreamsBeyondTheLimitsAreRefused(t *testing.T) {
	cfg := tunnel.DefaultConfig()
	cfg.MaxStreams = 3
	conn, tun := rawQUIC(t, cfg, nil)
	for range 3 {
		s, err := conn.OpenStream()
		must(t, err)
		_, err = s.Write([]byte{0})
		must(t, err)
	}
	var full *quic.StreamLimitReachedError
	if _, err := conn.OpenStream(); !errors.As(err, &full) {
		t.Errorf("a fourth stream: %v", err)
	}
	if _, err := conn.OpenUniStream(); err != nil {
		t.Error(err)
	}
	if _, err := conn.OpenUniStream(); !errors.As(err, &full) {
		t.Errorf("a second control stream: %v", err)
	}
	eventually(t, "three streams", func() bool { return tun.Streams() == 3 })
	if err := conn.SendDatagram([]byte("x")); err == nil {
		t.Error("a datagram was sent")
	}
}

// What a hostile peer can make this side hold is bounded, whatever it opens and however little is read.
func TestFloodsAreBoundedOverQUIC(t *testing.T) {
	for name, flood := range map[string]func(ctx context.Context, conn *quic.Conn, control *quic.SendStream) error{
		"D16 opens": func(ctx context.Context, conn *quic.Conn, _ *quic.SendStream) error {
			s, err := conn.OpenStreamSync(ctx)
			if err == nil {
				_, err = s.Write([]byte{0})
			}
			return err
		},
		"D16 opens and resets": func(ctx context.Context, conn *quic.Conn, _ *quic.SendStream) error {
			s, err := conn.OpenStreamSync(ctx)
			if err == nil {
				_, err = s.Write([]byte{0})
				s.CancelWrite(0)
				s.CancelRead(0)
			}
			return err
		},
		"D17 opens with data": func(ctx context.Context, conn *quic.Conn, _ *quic.SendStream) error {
			s, err := conn.OpenStreamSync(ctx)
			if err == nil {
				_ = s.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
				_, err = s.Write(make([]byte, 64<<10))
			}
			if errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return nil
		},
		"D16 pings": func(_ context.Context, _ *quic.Conn, control *quic.SendStream) error {
			_, err := control.Write(controlMessage(2, 7))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := tunnel.DefaultConfig()
			cfg.MaxBuffered, cfg.Window = 1<<20, 256<<10
			conn, tun := rawQUIC(t, cfg, nil)
			var before runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			goroutines := runtime.NumGoroutine()
			control, err := conn.OpenUniStream()
			must(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_ = control.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			for ctx.Err() == nil {
				if err := flood(ctx, conn, control); err != nil {
					break
				}
			}
			if n := tun.Streams(); n > cfg.MaxStreams {
				t.Errorf("%d streams", n)
			}
			if n := runtime.NumGoroutine() - goroutines; n > 200 {
				t.Errorf("%d more goroutines", n)
			}
			var after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&after)
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 12<<20 { // both ends are in this process
				t.Errorf("%d bytes more", grown)
			}
			start := time.Now()
			must(t, tun.Close())
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("close took %v", d)
			}
		})
	}
}

// A peer whose QUIC answers and which takes no bytes, on no stream: who writes learns it, nobody waits for ever.
func TestWriteTimeoutOverQUIC(t *testing.T) {
	cfg := quick()
	cfg.KeepAlive, cfg.PingTimeout, cfg.WriteTimeout = 300*time.Millisecond, 5*time.Second, 500*time.Millisecond
	_, tun := rawQUIC(t, cfg, &quic.Config{InitialConnectionReceiveWindow: 4 << 10, MaxConnectionReceiveWindow: 4 << 10,
		KeepAlivePeriod: 50 * time.Millisecond, MaxIncomingStreams: 10, MaxIncomingUniStreams: 1})
	s, err := tun.Open(t.Context())
	must(t, err)
	if _, err := s.Write(make([]byte, 1<<20)); !errors.Is(err, tunnel.ErrWriteTimeout) {
		t.Errorf("write: %v", err)
	}
	within(t, 10*time.Second, "the end of the tunnel", tun.Done())
	if err := tun.Err(); !errors.Is(err, tunnel.ErrWriteTimeout) {
		t.Errorf("tunnel: %v", err)
	}
}

// Who may not open a tunnel over TCP may not over QUIC.
func TestQUICAdmitsAgentsAlone(t *testing.T) {
	w := newWorld(t)
	revoked := mtls.TunnelTLS(w.relay.Reloader(t), w.root.Pool(), "in_test", func(mtls.Identity, *x509.Certificate) error { return errors.New("revoked") })
	stranger := newWorld(t)
	for name, c := range map[string]struct {
		serve, client *tls.Config
	}{
		"no certificate":   {w.serve, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol.ALPNTunnel}}},
		"of another CA":    {w.serve, func() *tls.Config { c := stranger.client.Clone(); c.VerifyConnection = nil; return c }()},
		"revoked":          {revoked, w.client},
		"another protocol": {w.serve, func() *tls.Config { c := w.client.Clone(); c.NextProtos = []string{protocol.ALPNLane}; return c }()},
		"relay of another CA": {w.serve, func() *tls.Config {
			c := stranger.client.Clone()
			c.GetClientCertificate = w.client.GetClientCertificate
			return c
		}()},
		"a relay as an agent":  {w.serve, mtls.AgentTLS(w.relay.Reloader(t), w.root.Pool(), "in_test")},
		"another installation": {mtls.TunnelTLS(w.relay.Reloader(t), w.root.Pool(), "in_other", nil), w.client},
	} {
		t.Run(name, func(t *testing.T) {
			world := *w
			world.serve = c.serve
			l := world.listenQUIC(t, tunnel.DefaultConfig())
			ctx, cancel := context.WithCancel(t.Context())
			accepted := make(chan error, 1)
			go func() {
				tun, err := l.Accept(ctx)
				if err == nil {
					_ = tun.Close()
				}
				accepted <- err
			}()
			conn, err := quic.DialAddr(t.Context(), l.Addr().String(), c.client, nil)
			if err == nil { // in TLS 1.3 the client learns of a refusal later
				within(t, 10*time.Second, "the refusal", conn.Context().Done())
			}
			cancel()
			if err := <-accepted; err == nil {
				t.Error("a tunnel was made")
			}
		})
	}
}

// Z22: a tunnel does not outlive the certificate of its peer.
func TestQUICTunnelEndsWithCertificate(t *testing.T) {
	w := newWorld(t)
	w.agent = w.root.Workspace(t, "in_test", "ws_test").Leaf(t, mtlstest.Agent, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Second) })
	w.client = mtls.AgentTLS(w.agent.Reloader(t), w.root.Pool(), "in_test")
	a, b := w.connectQUIC(t, tunnel.DefaultConfig(), tunnel.DefaultConfig(), nil)
	s, _ := open(t, a, b)
	expires(t, b, s)
}

// Nothing of one tunnel makes the next one quicker, or lets data in before the peer is known (D6).
func TestQUICResumesNothing(t *testing.T) {
	w := newWorld(t)
	l := w.listenQUIC(t, tunnel.DefaultConfig())
	conf := w.client.Clone()
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(10)
	for range 2 {
		conn, err := quic.DialAddrEarly(t.Context(), l.Addr().String(), conf, nil)
		must(t, err)
		tun, err := l.Accept(t.Context())
		must(t, err)
		if _, err := tun.Ping(withTimeout(t, 100*time.Millisecond)); err == nil {
			t.Error("a peer that says nothing has answered")
		}
		if cs := conn.ConnectionState(); cs.TLS.DidResume || cs.Used0RTT {
			t.Errorf("resumed %v, 0-RTT %v", cs.TLS.DidResume, cs.Used0RTT)
		}
		must(t, tun.Close())
		<-conn.Context().Done()
	}
}

func withTimeout(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// firstFlights are the datagrams that begin n handshakes, which go nowhere.
func firstFlights(t *testing.T, w *world, n int) [][][]byte {
	t.Helper()
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer sink.Close()
	var all [][][]byte
	for range n {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = quic.DialAddr(ctx, sink.LocalAddr().String(), w.client, nil)
		}()
		var flight [][]byte
		for range 2 { // the key exchange after quantum computers takes two
			b := make([]byte, 2000)
			_ = sink.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := sink.Read(b)
			must(t, err)
			flight = append(flight, b[:n])
		}
		cancel()
		<-done
		for { // the rest
			_ = sink.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
			if _, err := sink.Read(make([]byte, 2000)); err != nil {
				break
			}
		}
		all = append(all, flight)
	}
	return all
}

const (
	packetInitial = 0
	packetRetry   = 3
)

// Clients that begin and say no more cost little: from some number on an address must be proven, and all have an end. An
// honest agent comes in meanwhile.
func TestHandshakesOverQUICAreBounded(t *testing.T) {
	w := newWorld(t)
	cfg := tunnel.DefaultConfig()
	cfg.RetryAbove, cfg.MaxHandshakes, cfg.HandshakeTimeout = 3, 5, 5*time.Second
	l := w.listenQUIC(t, cfg)
	var kinds []byte
	for _, flight := range firstFlights(t, w, 5) {
		sock, err := net.DialUDP("udp4", nil, l.Addr().(*net.UDPAddr))
		must(t, err)
		defer sock.Close()
		for _, b := range flight {
			_, err = sock.Write(b)
			must(t, err)
		}
		b := make([]byte, 2000)
		_ = sock.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err = sock.Read(b); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, b[0]>>4&3)
	}
	if string(kinds) != string([]byte{packetInitial, packetInitial, packetInitial, packetRetry, packetRetry}) {
		t.Errorf("answers %v: three handshakes, and then proofs of address", kinds)
	}
	go func() {
		tun, err := l.Accept(t.Context())
		if err == nil {
			t.Cleanup(func() { _ = tun.Close() })
		}
	}()
	a, err := tunnel.DialQUIC(t.Context(), l.Addr().String(), w.client, tunnel.DefaultConfig())
	must(t, err)
	_, err = a.Ping(t.Context())
	must(t, err)
	must(t, a.Close())
}

func TestHandshakesOverQUICHaveANumber(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*tunnel.Config){
		"in all":          func(c *tunnel.Config) { c.MaxHandshakes = 2 },
		"from one source": func(c *tunnel.Config) { c.MaxHandshakesPerSource = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := tunnel.DefaultConfig()
			cfg.RetryAbove = 1000
			cfg.HandshakeTimeout = 3 * time.Second
			change(&cfg)
			l := w.listenQUIC(t, cfg)
			for _, flight := range firstFlights(t, w, 2) {
				sock, err := net.DialUDP("udp4", nil, l.Addr().(*net.UDPAddr))
				must(t, err)
				defer sock.Close()
				for _, b := range flight {
					_, err = sock.Write(b)
					must(t, err)
				}
				_ = sock.SetReadDeadline(time.Now().Add(10 * time.Second))
				_, err = sock.Read(make([]byte, 2000))
				must(t, err)
			}
			_, err := tunnel.DialQUIC(withTimeout(t, time.Second), l.Addr().String(), w.client, tunnel.DefaultConfig())
			if err == nil {
				t.Fatal("one handshake too many was let in")
			}
			// They have an end, and then there is room.
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				if tun, err := l.Accept(ctx); err == nil {
					t.Cleanup(func() { _ = tun.Close() })
				}
			}()
			eventually(t, "room again", func() bool {
				a, err := tunnel.DialQUIC(withTimeout(t, time.Second), l.Addr().String(), w.client, tunnel.DefaultConfig())
				return err == nil && a.Close() == nil
			})
		})
	}
}
