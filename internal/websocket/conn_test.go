package websocket_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/websocket"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server takes WebSockets and gives them out.
func server(t testing.TB) (addr string, conns <-chan *websocket.Conn) {
	ch := make(chan *websocket.Conn, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r)
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		ch <- c
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), ch
}

func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func pair(t testing.TB) (client, srv *websocket.Conn) {
	t.Helper()
	addr, conns := server(t)
	client, err := websocket.Client(t.Context(), dial(t, addr), addr, "/")
	must(t, err)
	srv = <-conns
	t.Cleanup(func() { _ = client.Close(); _ = srv.Close() })
	return client, srv
}

// rawPair is a peer that speaks whatever it likes, and our end.
func rawPair(t testing.TB, ours string) (raw net.Conn, conn *websocket.Conn) {
	t.Helper()
	if ours == "server" {
		addr, conns := server(t)
		raw = dial(t, addr)
		_, err := io.WriteString(raw, "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: "+websocket.Protocol+"\r\n\r\n")
		must(t, err)
		head := readHead(t, raw)
		if !strings.Contains(head, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") { // the example of RFC 6455, 1.3
			t.Fatalf("answer %q", head)
		}
		conn = <-conns
		t.Cleanup(func() { _ = conn.Close() })
		return raw, conn
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	ch := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		key := strings.TrimSpace(strings.Split(strings.Split(readHead(t, c), "Sec-WebSocket-Key:")[1], "\r\n")[0])
		_, _ = io.WriteString(c, "HTTP/1.1 101 Fine\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+acceptOf(key)+
			"\r\nSec-WebSocket-Protocol: "+websocket.Protocol+"\r\n\r\n")
		ch <- c
	}()
	conn, err = websocket.Client(t.Context(), dial(t, ln.Addr().String()), "x", "/")
	must(t, err)
	raw = <-ch
	t.Cleanup(func() { _ = conn.Close(); _ = raw.Close() })
	return raw, conn
}

func readHead(t testing.TB, c net.Conn) string {
	var b []byte
	one := make([]byte, 1)
	for !bytes.HasSuffix(b, []byte("\r\n\r\n")) {
		if _, err := c.Read(one); err != nil {
			t.Errorf("read a head: %v", err)
			break
		}
		b = append(b, one[0])
	}
	return string(b)
}

// frame builds a frame; a client masks it.
func frame(first byte, client bool, body []byte) []byte {
	b := []byte{first, 0}
	switch n := len(body); {
	case n <= 125:
		b[1] = byte(n)
	case n <= 0xffff:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if !client {
		return append(b, body...)
	}
	b[1] |= 0x80
	key := []byte{1, 2, 3, 4}
	b = append(b, key...)
	for i, x := range body {
		b = append(b, x^key[i&3])
	}
	return b
}

func TestBytesPassBothWays(t *testing.T) {
	a, b := pair(t)
	for _, ends := range [][2]net.Conn{{a, b}, {b, a}} {
		for _, size := range []int{1, 2, 3, 125, 126, 127, 1000, 65535, 64 << 10, 64<<10 + 1, 1 << 20} {
			want := make([]byte, size)
			_, _ = rand.Read(want)
			go func() { _, _ = ends[0].Write(want) }()
			got := make([]byte, size)
			for at := 0; at < size; { // in odd pieces, so that the mask's place counts
				n, err := ends[1].Read(got[at:min(at+at%7+1+at/3, size)])
				must(t, err)
				at += n
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bytes came out different", size)
			}
		}
	}
}

// A frame that breaks RFC 6455 ends the connection for good.
func TestBrokenFramesAreRefused(t *testing.T) {
	for _, ours := range []string{"server", "client"} {
		peer := ours == "server" // the peer is a client
		for name, send := range map[string][]byte{
			"masked by the wrong side":      frame(0x82, !peer, []byte("x")),
			"reserved bit":                  frame(0xc2, peer, []byte("x")),
			"text":                          frame(0x81, peer, []byte("x")),
			"opcode 3":                      frame(0x83, peer, []byte("x")),
			"opcode 11":                     frame(0x8b, peer, nil),
			"continuation of nothing":       frame(0x80, peer, []byte("x")),
			"message within a message":      append(frame(0x02, peer, nil), frame(0x82, peer, nil)...),
			"ping in pieces":                frame(0x09, peer, []byte("x")),
			"long ping":                     frame(0x89, peer, make([]byte, 126)),
			"close of one byte":             frame(0x88, peer, []byte{3}),
			"a frame of 2^63 bytes":         append([]byte{0x82, 127 | frame(0, peer, nil)[1], 0x80, 0, 0, 0, 0, 0, 0, 0}, 1, 2, 3, 4),
			"a frame of 17 MiB":             append([]byte{0x82, 127 | frame(0, peer, nil)[1], 0, 0, 0, 0, 1, 16, 0, 0}, 1, 2, 3, 4),
			"nothing but pings":             bytes.Repeat(frame(0x89, peer, []byte("hello")), 300),
			"nothing but pongs":             bytes.Repeat(frame(0x8a, peer, nil), 300),
			"nothing but empty frames":      bytes.Repeat(frame(0x82, peer, nil), 300),
			"an HTTP answer where bytes go": []byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>"),
		} {
			t.Run(ours+" "+name, func(t *testing.T) {
				raw, conn := rawPair(t, ours)
				must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
				_, _ = raw.Write(send)
				for range 2 { // it stays so
					if n, err := conn.Read(make([]byte, 8)); n != 0 || !errors.Is(err, websocket.ErrProtocol) {
						t.Fatalf("read %d bytes, %v", n, err)
					}
				}
				if _, err := conn.Write([]byte("x")); !errors.Is(err, websocket.ErrProtocol) {
					t.Errorf("write: %v", err)
				}
			})
		}
	}
}

// What proxies do to a stream and may: split and join messages, ping, send empty frames.
func TestFramesOfProxiesAreTaken(t *testing.T) {
	raw, conn := rawPair(t, "server")
	var send []byte
	for range 300 { // bytes between the pings: no flood
		send = append(send, frame(0x02, true, []byte("a"))...)
		send = append(send, frame(0x89, true, []byte("are you there"))...)
		send = append(send, frame(0x00, true, nil)...)
		send = append(send, frame(0x80, true, []byte("b"))...)
		send = append(send, frame(0x8a, true, []byte("unasked"))...)
	}
	go func() { _, _ = raw.Write(send) }()
	go func() { _, _ = io.Copy(io.Discard, raw) }()
	got := make([]byte, 600)
	_, err := io.ReadFull(conn, got)
	must(t, err)
	if string(got) != strings.Repeat("ab", 300) {
		t.Fatalf("got %q", got)
	}
}

func TestPingIsAnswered(t *testing.T) {
	raw, conn := rawPair(t, "server")
	go func() { _, _ = conn.Read(make([]byte, 1)) }()
	_, err := raw.Write(frame(0x89, true, []byte("42")))
	must(t, err)
	got := make([]byte, 4)
	_, err = io.ReadFull(raw, got)
	must(t, err)
	if want := frame(0x8a, false, []byte("42")); !bytes.Equal(got, want) {
		t.Fatalf("got %x, want %x", got, want)
	}
}

// A peer that pings and reads nothing stops its own stream, not our reader.
func TestPingsDoNotStopTheReader(t *testing.T) {
	raw, conn := rawPair(t, "server")
	blocked := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = conn.Write(make([]byte, 64<<10))
		}
		blocked <- err
	}()
	go func() {
		for range 100 {
			_, _ = raw.Write(append(frame(0x89, true, []byte("ping")), frame(0x82, true, []byte("x"))...))
		}
	}()
	_, err := io.ReadFull(conn, make([]byte, 100))
	must(t, err)
	must(t, conn.Close())
	if err := <-blocked; err == nil {
		t.Fatal("the writer ended without a reason")
	}
}

// A deadline in the middle of a header, a payload or a control frame loses nothing.
func TestDeadlineLosesNothing(t *testing.T) {
	raw, conn := rawPair(t, "server")
	send := append(frame(0x89, true, []byte("a ping of some length")), frame(0x02, true, []byte("hello "))...)
	send = append(send, frame(0x80, true, bytes.Repeat([]byte("w"), 300))...)
	var got []byte
	for _, b := range send {
		_, err := raw.Write([]byte{b})
		must(t, err)
		must(t, conn.SetReadDeadline(time.Now().Add(500*time.Microsecond)))
		p := make([]byte, 16)
		n, err := conn.Read(p)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		got = append(got, p[:n]...)
	}
	must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	rest := make([]byte, 306-len(got))
	_, err := io.ReadFull(conn, rest)
	must(t, err)
	if want := "hello " + strings.Repeat("w", 300); string(got)+string(rest) != want {
		t.Fatalf("got %q%q", got, rest)
	}
}

func TestEndIsTrue(t *testing.T) {
	t.Run("closed", func(t *testing.T) {
		a, b := pair(t)
		_, err := a.Write([]byte("last words"))
		must(t, err)
		must(t, a.Close())
		got, err := io.ReadAll(b)
		if string(got) != "last words" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, websocket.ErrClosedByPeer) {
			t.Errorf("write: %v", err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after Close: %v", err)
		}
	})
	t.Run("cut", func(t *testing.T) {
		raw, conn := rawPair(t, "server")
		_, _ = raw.Write(frame(0x82, true, []byte("hello"))[:8])
		_ = raw.Close()
		if got, err := io.ReadAll(conn); string(got) != "he" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("cut between frames", func(t *testing.T) {
		raw, conn := rawPair(t, "client")
		_ = raw.Close()
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %d, %v", n, err)
		}
	})
	t.Run("closed for a reason", func(t *testing.T) {
		raw, conn := rawPair(t, "client")
		_, _ = raw.Write(frame(0x88, false, binary.BigEndian.AppendUint16(nil, 1008)))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, websocket.ErrClosedByPeer) {
			t.Errorf("got %d, %v", n, err)
		}
	})
}

// Close waits for nobody, and wakes who waits here.
func TestCloseDoesNotWait(t *testing.T) {
	_, conn := rawPair(t, "server") // the peer reads nothing
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if _, err := conn.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	wg.Go(func() { _, _ = conn.Read(make([]byte, 1)) })
	done := make(chan struct{})
	go func() { defer close(done); _ = conn.Close(); wg.Wait() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("Close or a blocked call hangs")
	}
}

// Another implementation understands us, and we it, in both roles.
func TestOtherImplementationAgrees(t *testing.T) {
	want := make([]byte, 200_000)
	_, _ = rand.Read(want)
	echo := func(t *testing.T, c net.Conn) {
		t.Helper()
		wrote := make(chan error, 1)
		go func() { _, err := c.Write(want); wrote <- err }()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("echo: %v", err)
		}
		must(t, <-wrote) // a Close beside it would say no goodbye
	}
	t.Run("our server", func(t *testing.T) {
		addr, conns := server(t)
		go func() {
			c := <-conns
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		c, _, err := coder.Dial(t.Context(), "ws://"+addr, &coder.DialOptions{HTTPClient: &http.Client{Transport: tr}, Subprotocols: []string{websocket.Protocol}})
		must(t, err)
		c.SetReadLimit(-1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		echo(t, coder.NetConn(ctx, c, coder.MessageBinary))
		must(t, c.Close(coder.StatusNormalClosure, ""))
	})
	t.Run("our client", func(t *testing.T) {
		ended := make(chan error, 1)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := coder.Accept(w, r, &coder.AcceptOptions{Subprotocols: []string{websocket.Protocol}})
			if err != nil {
				ended <- err
				return
			}
			c.SetReadLimit(-1)
			nc := coder.NetConn(r.Context(), c, coder.MessageBinary)
			_, err = io.Copy(nc, nc)
			ended <- err
		}))
		defer srv.Close()
		addr := srv.Listener.Addr().String()
		c, err := websocket.Client(t.Context(), dial(t, addr), addr, "/")
		must(t, err)
		echo(t, c)
		must(t, c.Close())
		must(t, <-ended) // it read our close frame as a true end
	})
}

// Whatever comes, nothing is made up, and nothing panics.
func FuzzRead(f *testing.F) {
	f.Add(frame(0x82, true, []byte("hello")), true)
	f.Add(append(frame(0x02, true, []byte("a")), frame(0x80, true, []byte("b"))...), true)
	f.Add(frame(0x88, false, []byte{3, 232}), false)
	f.Add(append([]byte{0x82, 127}, bytes.Repeat([]byte{0xff}, 12)...), false)
	f.Fuzz(func(t *testing.T, in []byte, server bool) {
		conn := websocket.Over(&script{in: in}, !server)
		got, err := io.ReadAll(conn)
		if len(got) > len(in) {
			t.Fatalf("%d bytes became %d", len(in), len(got))
		}
		if err == nil && !bytes.Contains(in, []byte{0x88}) {
			t.Fatal("an end without a close frame")
		}
	})
}

// script is a connection that says in and swallows the rest.
type script struct {
	net.Conn
	in []byte
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}
func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
