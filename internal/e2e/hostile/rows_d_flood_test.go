//go:build linux

package hostile_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// meanwhile runs honest operations until f is done, and gives how long the slowest of a hundred took.
func (h *house) meanwhile(t *testing.T, f func()) time.Duration {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	var took []time.Duration
	for {
		started := time.Now()
		if err := h.ask(t.Context()); err != nil {
			t.Errorf("an honest operation meanwhile: %v", err)
		}
		took = append(took, time.Since(started))
		select {
		case <-done:
			slices.Sort(took)
			return took[len(took)*99/100]
		default:
		}
	}
}

func floodRows(t *testing.T, h *house) {
	me := h.enrol(t, "flooder")

	h.row(t, "D7 handshakes that hang", func(t *testing.T) {
		before := h.relay.sockets(t)
		var held []net.Conn
		defer func() {
			for _, c := range held {
				reset(c)
			}
		}()
		// From forty addresses, so that no share of one source holds them back.
		for i := range 1200 {
			d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%40))}}
			c, err := d.Dial("tcp", h.address)
			if err != nil {
				continue // the relay's queue is full: that is one that does not hang
			}
			held = append(held, c)
			switch i % 3 {
			case 1: // a ClientHello that comes byte by byte, and never whole
				_, _ = c.Write([]byte{22, 3, 1, 2, 0})
			case 2: // a whole one, and then the client's certificate is withheld
				go func() { _ = tls.Client(mute{c}, tlsOf(me)).Handshake() }()
			}
		}
		if len(held) < 800 {
			t.Fatalf("only %d conns", len(held))
		}
		slowest := time.Duration(0)
		for range 20 {
			started := time.Now()
			var err error
			for range 3 { // an agent that is refused tries again
				var tn tunnel.Tunnel
				if tn, err = h.dial(t, me); err == nil {
					tn.Close()
					break
				}
			}
			if err != nil {
				t.Fatalf("an honest agent does not get in: %v", err)
			}
			slowest = max(slowest, time.Since(started))
		}
		if slowest > 2*time.Second {
			t.Errorf("an honest agent waited %s", slowest)
		}
		var wg sync.WaitGroup
		for _, c := range held {
			wg.Go(func() { ended(t, c, 15*time.Second) })
		}
		wg.Wait()
		if n := h.relay.sockets(t); n > before+50 {
			t.Errorf("the relay has %d sockets, %d before", n, before)
		}
	})
	h.row(t, "D8 handshake messages without end", func(t *testing.T) { handshakeFloods(t, h, tlsOf(me)) })
	h.row(t, "D16 frames that no peer sends", func(t *testing.T) {
		for name, frames := range brokenFrames(1) {
			t.Run(name, func(t *testing.T) {
				c := h.tls(t, tlsOf(me))
				_, _ = c.Write(frames)
				ended(t, c, 10*time.Second)
			})
		}
	})
	h.row(t, "D16 floods of frames", func(t *testing.T) {
		for name, next := range map[string]func(id uint32) []byte{
			"opens": func(id uint32) []byte { return frame(frameWindow, syn, id, 0) },
			"rapid reset": func(id uint32) []byte {
				return append(frame(frameWindow, syn, id, 0), frame(frameWindow, rst, id, 0)...)
			},
			"pings":           func(id uint32) []byte { return frame(framePing, syn, 0, id) },
			"window updates":  func(uint32) []byte { return frame(frameWindow, 0, 1, 1) },
			"empty data":      func(uint32) []byte { return frame(frameData, 0, 1, 0) },
			"go away":         func(uint32) []byte { return frame(frameGoAway, 0, 0, 0) },
			"opens with data": func(id uint32) []byte { return frame(frameData, syn, id, 1000, make([]byte, 1000)...) },
			"data after an end": func(id uint32) []byte {
				return append(frame(frameData, syn|fin, id, 1, 1), frame(frameData, 0, id, 1, 1)...)
			},
		} {
			t.Run(name, func(t *testing.T) {
				before := rssOf(t, h.relay.pid())
				c := h.tls(t, tlsOf(me))
				id := uint32(1)
				p99 := h.meanwhile(t, func() {
					_, _ = pour(c, 1500*time.Millisecond, func(int) []byte {
						var batch []byte
						for range 100 {
							batch = append(batch, next(id)...)
							id += 2
						}
						return batch
					})
				})
				if p99 > time.Second {
					t.Errorf("honest operations took %s meanwhile", p99)
				}
				if grown := rssOf(t, h.relay.pid()) - before; grown > 100<<20 {
					t.Errorf("the relay grew by %d MiB", grown>>20)
				}
			})
		}
	})
	h.row(t, "D17 streams that are never read", func(t *testing.T) {
		tn, err := h.dial(t, me)
		if err != nil {
			t.Fatal(err)
		}
		defer tn.Close()
		before := rssOf(t, h.relay.pid())
		send := func(text string) {
			s, err := tn.Open(t.Context())
			if err != nil {
				return
			}
			_ = s.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			_, _ = io.WriteString(s, text)
		}
		send(post(protocol.PathHello, plainHello))
		for i := range 900 {
			switch i % 3 {
			case 0: // an answer that nobody takes
				send(post("/v1/"+strings.Repeat("x", 4000), "{}"))
			case 1: // a body of the full size that stops short
				send(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n\r\n%s", protocol.PathStatus, protocol.MaxControlBytes, bytes.Repeat([]byte(" "), 64<<10)))
			case 2: // a head that never ends
				send("POST /v1/status HTTP/1.1\r\nX: ")
			}
		}
		h.works(t)
		if grown := rssOf(t, h.relay.pid()) - before; grown > 150<<20 {
			t.Errorf("900 stuck streams cost %d MiB", grown>>20)
		}
	})
	h.row(t, "D20 what an agent said, said again", func(t *testing.T) {
		said := h.middle.heard()
		if len(said) == 0 || len(said[0]) < 1000 {
			t.Fatal("nothing was recorded, so this test proves nothing")
		}
		for _, b := range said {
			c, err := net.Dial("tcp", h.address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(b)
			ended(t, c, 12*time.Second)
			c.Close()
		}
		if n := h.tunnels(t, h.id); n != 1 {
			t.Errorf("the agent that was recorded has %d tunnels", n)
		}
	})
	h.row(t, "D30 bodies of a gigabyte from anybody", func(t *testing.T) {
		before := rssOf(t, h.relay.pid())
		routes := []struct{ alpn, request string }{
			{protocol.ALPNEnroll, "POST " + protocol.PathEnroll}, {"http/1.1", "POST /api/v1/workspaces/default/connections/in/query"},
			{"http/1.1", "PUT /api/v1/workspaces/default/connections/in/files/a.txt"}, {"http/1.1", "POST /api/v1/workspaces/default/join-tokens"},
			{"http/1.1", "GET " + protocol.PathWebSocket}, {"http/1.1", "POST /nowhere"},
		}
		var wg sync.WaitGroup
		p99 := h.meanwhile(t, func() {
			for i := range 240 {
				wg.Go(func() {
					d := &net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i%40))}}
					r := routes[i%len(routes)]
					c, err := tls.DialWithDialer(d, "tcp", h.address, h.people(r.alpn))
					if err != nil {
						return
					}
					defer reset(c.NetConn())
					length, chunk := "Content-Length: 1073741824", ""
					if i%2 == 1 {
						length, chunk = "Transfer-Encoding: chunked", "10000\r\n"
					}
					_, _ = fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", r.request, length)
					block := append([]byte(chunk), make([]byte, 0x10000)...)
					if chunk != "" {
						block = append(block, "\r\n"...)
					}
					if n, err := pour(c, 5*time.Second, func(int) []byte { return block }); n > 1000 {
						t.Errorf("%s: %d MiB were taken (%v)", r.request, n>>4, err)
					}
				})
			}
			wg.Wait()
		})
		if grown := rssOf(t, h.relay.pid()) - before; grown > 64<<20 {
			t.Errorf("the relay grew by %d MiB", grown>>20)
		}
		if p99 > 5*time.Second {
			t.Errorf("honest operations took %s meanwhile", p99)
		}
	})
}

// mute sends what it is given and hears nothing.
type mute struct{ net.Conn }

func (mute) Read([]byte) (int, error) { return 0, io.EOF }
func (mute) Close() error             { return nil }

// handshakeFloods sends handshake messages that only somebody hostile would, before and after the handshake.
func handshakeFloods(t *testing.T, h *house, conf *tls.Config) {
	cheap := func(t *testing.T, f func(t *testing.T)) {
		before := cpuOf(t, h.relay.pid())
		f(t)
		if used := cpuOf(t, h.relay.pid()) - before; used > time.Second {
			t.Errorf("it cost the relay %s of CPU", used)
		}
	}
	for name, send := range map[string]func(t *testing.T, f *forger){
		"many KeyUpdates in a record": func(_ *testing.T, f *forger) { _, _ = f.Write(f.record(22, bytes.Repeat(keyUpdate(0), 64))) },
		"many that ask for one":       func(_ *testing.T, f *forger) { _, _ = f.Write(f.record(22, bytes.Repeat(keyUpdate(1), 64))) },
		"KeyUpdates one by one": func(t *testing.T, f *forger) {
			if n, err := pour(f, 5*time.Second, func(int) []byte {
				b := f.record(22, keyUpdate(1))
				f.secret = label(t, f.secret, "traffic upd", 32)
				f.rekey(t)
				return b
			}); n > 5000 {
				t.Errorf("%d were taken: %v", n, err)
			}
		},
		"empty records": func(_ *testing.T, f *forger) {
			_, _ = pour(f, 5*time.Second, func(int) []byte { return f.record(23, nil) })
		},
		"a second ClientHello": func(_ *testing.T, f *forger) { _, _ = f.Write(f.record(22, []byte{1, 0, 0, 4, 3, 3, 0, 0})) },
		"a message of 10 MB": func(_ *testing.T, f *forger) {
			_, _ = f.Write(f.record(22, append([]byte{4, 0x98, 0x96, 0x80}, make([]byte, 8000)...)))
		},
		"a CertificateRequest":        func(_ *testing.T, f *forger) { _, _ = f.Write(f.record(22, []byte{13, 0, 0, 3, 0, 0, 0})) },
		"a KeyUpdate of no kind":      func(_ *testing.T, f *forger) { _, _ = f.Write(f.record(22, keyUpdate(7))) },
		"a record that does not open": func(_ *testing.T, f *forger) { f.seq = 99; _, _ = f.Write(f.record(23, []byte("x"))) },
	} {
		t.Run(name, func(t *testing.T) {
			cheap(t, func(t *testing.T) {
				f := forge(t, h.address, conf)
				send(t, f)
				ended(t, f, 10*time.Second)
			})
		})
	}
	for name, record := range map[string][]byte{
		"ClientHello of 10 MB":    {22, 3, 1, 0x40, 0, 1, 0x98, 0x96, 0x80, 3, 3},
		"record beyond the limit": {22, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			cheap(t, func(t *testing.T) {
				c, err := net.Dial("tcp", h.address)
				if err != nil {
					t.Fatal(err)
				}
				defer reset(c)
				_, _ = c.Write(record)
				_, _ = pour(c, 2*time.Second, func(int) []byte { return append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 0x4000)...) })
				ended(t, c, 12*time.Second)
			})
		})
	}
	t.Run("a chain of 4000 certificates", func(t *testing.T) {
		cheap(t, func(t *testing.T) {
			cert, err := conf.GetClientCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			chain := slices.Clone(cert.Certificate)
			for len(chain) < 4000 {
				chain = append(chain, cert.Certificate[1])
			}
			// The relay hangs up at the message's length, long before its end: the reset can be here before the alert.
			n, err := h.knock(t, nobody(protocol.ALPNTunnel, chain, cert.PrivateKey))
			var op *net.OpError
			if n > 0 || !errors.As(err, &op) || op.Op != "remote error" && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("want an alert or a reset and no byte, got %d bytes, %v", n, err)
			}
		})
	})
}
