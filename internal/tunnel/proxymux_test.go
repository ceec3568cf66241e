package tunnel_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// proxyHeader is what a balancer says before it passes on what source sends.
func proxyHeader(source string) []byte {
	at := netip.MustParseAddrPort(source)
	b := []byte(proxySignature + "\x21")
	if at.Addr().Is4() {
		b = append(append(b, 0x11, 0, 12), at.Addr().AsSlice()...)
		b = append(b, 10, 0, 0, 5)
	} else {
		b = append(append(b, 0x21, 0, 36), at.Addr().AsSlice()...)
		b = append(b, netip.MustParseAddr("2001:db8::5").AsSlice()...)
	}
	return append(binary.BigEndian.AppendUint16(b, at.Port()), 1, 187)
}

// behind dials as a balancer does that speaks for source.
func behind(source string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			_, err = c.Write(proxyHeader(source))
		}
		return c, err
	}
}

// withBalancers is a port whose load balancers are those of the list.
func withBalancers(list ...string) tunnel.Config {
	cfg := tunnel.DefaultConfig()
	for _, p := range list {
		cfg.ProxyProtocol = append(cfg.ProxyProtocol, netip.MustParsePrefix(p))
	}
	return cfg
}

// seen gives the address of who comes to the default listener next.
func seen(m *tunnel.Mux) <-chan string {
	ch := make(chan string, 1)
	go func() {
		c, err := m.Conns("").Accept()
		if err != nil {
			ch <- err.Error()
			return
		}
		ch <- c.RemoteAddr().String()
		_, _ = c.Write([]byte("hello"))
		_ = c.Close()
	}()
	return ch
}

func TestBalancerNamesTheSource(t *testing.T) {
	w := newWorld(t)
	m := w.mux(t, withBalancers("192.0.2.0/24", "127.0.0.1/32"))
	local := proxySignature + "\x20\x00\x00\x00"
	tlv := proxyHeader("203.0.113.7:40312")
	tlv[15] += 7
	tlv = append(tlv, 3, 0, 4, 0, 0, 0, 0)
	for _, c := range []struct{ name, header, want string }{
		{"E2 IPv4", string(proxyHeader("203.0.113.7:40312")), "203.0.113.7:40312"},
		{"E2 extensions", string(tlv), "203.0.113.7:40312"},
		{"E6 IPv6", string(proxyHeader("[2001:db8::7]:1")), "[2001:db8::7]:1"},
		{"E6 mapped", string(proxyHeader("[::ffff:203.0.113.7]:40312")), "203.0.113.7:40312"},
		{"E2 LOCAL is the balancer itself", local, ""},
	} {
		for _, split := range []int{0, 1, 13, len(c.header)} {
			t.Run(c.name, func(t *testing.T) {
				got := seen(m)
				raw, err := net.Dial("tcp", m.Addr().String())
				must(t, err)
				defer raw.Close()
				_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
				// What is split off goes out with the ClientHello: not a byte of that is lost.
				_, err = raw.Write([]byte(c.header[:split]))
				must(t, err)
				conn := tls.Client(&first{raw, []byte(c.header[split:])}, &tls.Config{InsecureSkipVerify: true})
				if b, err := io.ReadAll(conn); err != nil || string(b) != "hello" {
					t.Fatalf("%q, %v", b, err)
				}
				want := c.want
				if want == "" {
					want = raw.LocalAddr().String()
				}
				if got := <-got; got != want {
					t.Errorf("it is taken for %s, want %s", got, want)
				}
			})
		}
	}
}

// first sends something before the first write, in one packet with it.
type first struct {
	net.Conn
	before []byte
}

func (f *first) Write(b []byte) (int, error) {
	n, err := f.Conn.Write(append(f.before, b...))
	n = max(0, n-len(f.before))
	f.before = nil
	return n, err
}

// E2: tunnels and lanes, which set options of their socket, come through a balancer as well.
func TestTunnelThroughABalancer(t *testing.T) {
	w := newWorld(t)
	m := w.mux(t, withBalancers("127.0.0.1/32"))
	got := make(chan tunnel.Tunnel, 1)
	go func() {
		defer close(got)
		conn, err := m.Conns(protocol.ALPNTunnel).Accept()
		if err != nil {
			return
		}
		if s, err := tunnel.Server(t.Context(), conn.(*tls.Conn), tunnel.DefaultConfig()); err == nil {
			got <- s
		}
	}()
	a, err := tunnel.Dial(t.Context(), m.Addr().String(), w.client, behind("203.0.113.7:40312"), tunnel.DefaultConfig())
	must(t, err)
	defer a.Close()
	b := <-got
	if b == nil {
		t.Fatal("not accepted")
	}
	defer b.Close()
	if b.RemoteAddr().String() != "203.0.113.7:40312" || b.Transport() != "tls" {
		t.Errorf("%s over %s", b.RemoteAddr(), b.Transport())
	}
	s, p := open(t, a, b)
	sent := random(3 << 20)
	wrote := make(chan error, 1)
	go func() {
		_, err := p.Write(sent)
		wrote <- errors.Join(err, p.CloseWrite())
	}()
	back, err := io.ReadAll(s)
	must(t, err)
	must(t, <-wrote)
	if string(back) != string(sent) {
		t.Error("what came is not what was sent")
	}
	if _, err := b.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// end reads to the end and gives what came; it must come within the time.
func end(t *testing.T, c net.Conn) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		t.Fatal("it stands")
	}
	return string(b)
}

// Whoever is on the list and says nothing, something else or too little is closed without an answer.
func TestBalancerWithoutAHeaderIsRefused(t *testing.T) {
	w := newWorld(t)
	cfg := withBalancers("127.0.0.1/32")
	cfg.HandshakeTimeout = 200 * time.Millisecond
	m := w.mux(t, cfg)
	good := string(proxyHeader("203.0.113.7:40312"))
	for name, sends := range map[string]string{
		"E2 ClientHello at once":      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 512),
		"E2 HTTP":                     "GET / HTTP/1.1\r\nHost: relay\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n",
		"E2 version 1":                "PROXY TCP4 203.0.113.7 10.0.0.5 40312 443\r\n",
		"E2 UNSPEC":                   proxySignature + "\x21\x00\x00\x00",
		"E2 UDP":                      proxySignature + "\x21\x12\x00\x0c" + good[16:],
		"E2 UNIX":                     proxySignature + "\x21\x31\x00\xd8" + strings.Repeat("x", 216),
		"E2 too long":                 proxySignature + "\x21\x11\xff\xff" + good[16:],
		"E2 too short":                proxySignature + "\x21\x11\x00\x04" + good[16:20],
		"E2 slow: nothing":            "",
		"E2 slow: within signature":   good[:5],
		"E2 slow: before the length":  good[:14],
		"E2 slow: within addresses":   good[:20],
		"E2 slow: extensions missing": proxySignature + "\x21\x11\x00\x20" + good[16:],
		"E2 header, and then nothing": good,
		"E2 two headers":              good + good, // the second is a bad record of TLS
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", m.Addr().String())
			must(t, err)
			defer c.Close()
			_, err = c.Write([]byte(sends))
			must(t, err)
			if got := end(t, c); got != "" && name != "E2 two headers" {
				t.Errorf("it was answered: %q", got)
			}
		})
	}
	t.Run("E2 TLS itself", func(t *testing.T) {
		t.Parallel()
		if conn, err := tls.Dial("tcp", m.Addr().String(), &tls.Config{InsecureSkipVerify: true}); err == nil {
			_ = conn.Close()
			t.Error("a balancer that names nobody got in")
		}
	})
}

// A header of anybody else is nothing but a bad record of TLS.
func TestHeaderOfStrangersIsRefused(t *testing.T) {
	w := newWorld(t)
	for name, cfg := range map[string]tunnel.Config{"E2 no list": tunnel.DefaultConfig(), "E2 not on the list": withBalancers("192.0.2.0/24", "2001:db8::/32")} {
		t.Run(name, func(t *testing.T) {
			m := w.mux(t, cfg)
			c, err := behind("203.0.113.7:40312")(t.Context(), "tcp", m.Addr().String())
			must(t, err)
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if err := tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
				t.Error("it got in")
			}
			// Without one, they are who they are.
			got := seen(m)
			conn, err := tls.Dial("tcp", m.Addr().String(), &tls.Config{InsecureSkipVerify: true})
			must(t, err)
			defer conn.Close()
			if got := <-got; got != conn.LocalAddr().String() {
				t.Errorf("it is taken for %s, and is %s", got, conn.LocalAddr())
			}
		})
	}
}

// D7 behind a balancer: who hangs takes the room of the own source, and not that of all who come through the same balancer.
func TestHandshakesBehindABalancerCountForTheirSource(t *testing.T) {
	w := newWorld(t)
	cfg := withBalancers("127.0.0.1/32")
	cfg.MaxHandshakesPerSource, cfg.HandshakesAtOnce, cfg.MaxHandshakes = 2, 2, 8
	cfg.HandshakeGrace, cfg.HandshakeTimeout, cfg.HandshakeWait = time.Hour, time.Hour, time.Hour
	m := w.mux(t, cfg)
	for range 20 {
		c, err := behind("203.0.113.7:1")(t.Context(), "tcp", m.Addr().String())
		must(t, err)
		defer c.Close()
	}
	got := seen(m)
	c, err := behind("203.0.113.8:1")(t.Context(), "tcp", m.Addr().String())
	must(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	must(t, tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake())
	if got := <-got; got != "203.0.113.8:1" {
		t.Errorf("it is taken for %s", got)
	}
	// The flood's own next one waits for ever here.
	c, err = behind("203.0.113.7:1")(t.Context(), "tcp", m.Addr().String())
	must(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if err := tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("there is no bound for one source")
	}
}

// D7: balancers that hang with their header keep out neither those who send it nor those who need none, and are let go.
func TestHeadersThatDoNotComeMakeWay(t *testing.T) {
	w := newWorld(t)
	cfg := withBalancers("127.0.0.1/32")
	cfg.MaxHandshakes, cfg.MaxHandshakesPerSource = 20, 10
	cfg.HandshakeGrace, cfg.HandshakeTimeout = 30*time.Millisecond, 2*time.Second
	m := w.mux(t, cfg)
	var held []net.Conn
	for i := range 100 {
		c, err := net.Dial("tcp", m.Addr().String())
		must(t, err)
		defer c.Close()
		_, err = c.Write(proxyHeader("203.0.113.7:40312")[:i%20])
		must(t, err)
		held = append(held, c)
	}
	start := time.Now()
	got := seen(m)
	c, err := behind("203.0.113.8:1")(t.Context(), "tcp", m.Addr().String())
	must(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	must(t, tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake())
	if got := <-got; got != "203.0.113.8:1" {
		t.Errorf("it is taken for %s", got)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("it took %v", d)
	}
	for _, h := range held {
		end(t, h)
	}
}

// The port's end closes those whose header is on its way, too.
func TestEndOfThePortClosesHeadersUnderWay(t *testing.T) {
	w := newWorld(t)
	cfg := withBalancers("127.0.0.1/32")
	cfg.HandshakeTimeout, cfg.HandshakeGrace, cfg.HandshakeWait, cfg.HandshakesAtOnce = time.Hour, time.Hour, time.Hour, 2
	m := tunnel.Listen(listen(t), map[string]*tls.Config{"": w.people(t)}, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx) }()
	var held []net.Conn
	for range 5 { // two whose header is waited for, three in line
		c, err := net.Dial("tcp", m.Addr().String())
		must(t, err)
		defer c.Close()
		held = append(held, c)
	}
	cancel()
	must(t, <-done)
	for _, c := range held {
		end(t, c)
	}
}
