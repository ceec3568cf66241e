package tunnel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// lanePair makes both ends of a lane over loopback. wrap may put something between the agent's TLS and its socket.
func lanePair(t testing.TB, wrap func(net.Conn) net.Conn) (agent, relay *tunnel.Lane) {
	t.Helper()
	return lanePairOf(t, tunnel.Config{}, wrap)
}

func lanePairOf(t testing.TB, cfg tunnel.Config, wrap func(net.Conn) net.Conn) (agent, relay *tunnel.Lane) {
	t.Helper()
	w := newWorld(t)
	w.serve.NextProtos = []string{protocol.ALPNLane}
	ln := listen(t)
	ticket := make([]byte, tunnel.TicketSize)
	_, _ = rand.Read(ticket)
	type result struct {
		l      *tunnel.Lane
		ticket []byte
		err    error
	}
	ch := make(chan result, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			ch <- result{err: err}
			return
		}
		l, got, err := tunnel.ServeLane(t.Context(), tls.Server(conn, w.serve), cfg)
		ch <- result{l, got, err}
	}()
	agent, err := tunnel.DialLane(t.Context(), ln.Addr().String(), w.client, func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil && wrap != nil {
			conn = wrap(conn)
		}
		return conn, err
	}, ticket, cfg)
	r := <-ch
	if err != nil || r.err != nil {
		t.Fatalf("dial: %v, serve: %v", err, r.err)
	}
	if !bytes.Equal(r.ticket, ticket) || r.l.Peer() != mtlstest.Agent {
		t.Fatalf("another ticket or peer came: %v", r.l.Peer())
	}
	t.Cleanup(func() { _ = agent.Close(); _ = r.l.Close() })
	return agent, r.l
}

// openLane waits until the lane is free, which its last stream may keep it from for a moment.
func openLane(t testing.TB, relay *tunnel.Lane) (s tunnel.Stream) {
	t.Helper()
	eventually(t, "a free lane", func() bool {
		var err error
		if s, err = relay.Open(); err != nil && !errors.Is(err, tunnel.ErrTooManyStreams) {
			t.Fatal(err)
		}
		return err == nil
	})
	return s
}

// laneStreams opens a stream; its first byte has come when they are returned.
func laneStreams(t testing.TB, agent, relay *tunnel.Lane) (a, r tunnel.Stream) {
	t.Helper()
	r = openLane(t, relay)
	if _, err := r.Write([]byte{'!'}); err != nil {
		t.Fatal(err)
	}
	a, err := agent.Accept()
	must(t, err)
	var b [1]byte
	if _, err := io.ReadFull(a, b[:]); err != nil || b[0] != '!' {
		t.Fatal(b, err)
	}
	return a, r
}

func TestLaneCarriesStreamsOneAfterTheOther(t *testing.T) {
	agent, relay := lanePair(t, nil)
	for i := range 200 {
		a, r := laneStreams(t, agent, relay)
		if _, err := relay.Open(); !errors.Is(err, tunnel.ErrTooManyStreams) {
			t.Fatalf("a second stream at a time: %v", err)
		}
		out := bytes.Repeat([]byte{byte(i)}, i*997)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.Write(out); err != nil {
				t.Error(err)
			}
			must(t, r.CloseWrite())
		})
		got, err := io.ReadAll(a)
		if err != nil || !bytes.Equal(got, out) {
			t.Fatalf("round %d: %d of %d bytes, %v", i, len(got), len(out), err)
		}
		wg.Wait()
		// The other way after the half-close, and the two ends in either order.
		if _, err := a.Write(out); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			must(t, a.Close())
		} else {
			must(t, a.CloseWrite())
		}
		if got, err = io.ReadAll(r); err != nil || !bytes.Equal(got, out) {
			t.Fatalf("round %d back: %d of %d bytes, %v", i, len(got), len(out), err)
		}
		must(t, r.Close())
		must(t, a.Close())
	}
	if agent.Err() != nil || relay.Err() != nil {
		t.Error(agent.Err(), relay.Err())
	}
}

func TestLaneDoesNotMixStreams(t *testing.T) {
	agent, relay := lanePair(t, nil)
	a, r := laneStreams(t, agent, relay)
	// What the peer had sent when the stream was closed here must not show in the next one.
	if _, err := a.Write(bytes.Repeat([]byte("old"), 1000)); err != nil {
		t.Fatal(err)
	}
	must(t, a.Close())
	must(t, r.Close())
	a2, r2 := laneStreams(t, agent, relay)
	must(t, a2.CloseWrite())
	if got, err := io.ReadAll(r2); err != nil || len(got) > 0 {
		t.Errorf("%q of the stream before, %v", got, err)
	}
	// Neither must its deadlines, nor calls on it.
	if err := r.SetDeadline(time.Unix(1, 0)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed stream sets deadlines: %v", err)
	}
	if _, err := r.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed stream writes: %v", err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed stream reads: %v", err)
	}
	must(t, r2.CloseWrite())
	if got, err := io.ReadAll(a2); err != nil || len(got) > 0 {
		t.Errorf("%q of the stream before, %v", got, err)
	}
}

func TestLaneReadsOnAfterADeadline(t *testing.T) {
	agent, relay := lanePair(t, nil)
	a, r := laneStreams(t, agent, relay)
	for range 3 { // the first of these hits the read that watched over the idle lane
		must(t, r.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("want the deadline's error, got %v", err)
		}
	}
	must(t, r.SetReadDeadline(time.Time{}))
	if _, err := a.Write([]byte("after")); err != nil {
		t.Fatal(err)
	}
	must(t, a.Close())
	if got, err := io.ReadAll(r); err != nil || string(got) != "after" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestLaneCloseWakesReaderAndWriter(t *testing.T) {
	agent, relay := lanePair(t, nil)
	_, r := laneStreams(t, agent, relay)
	read, wrote := make(chan error, 1), make(chan error, 1)
	go func() { _, err := r.Read(make([]byte, 1)); read <- err }()
	go func() {
		var err error
		for err == nil { // the agent does not read: this waits before long
			_, err = r.Write(make([]byte, 1<<20))
		}
		wrote <- err
	}()
	must(t, r.SetReadDeadline(time.Now().Add(300*time.Millisecond))) // time for the writer to fill what lies between
	if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	must(t, r.SetReadDeadline(time.Time{}))
	go func() { _, err := r.Read(make([]byte, 1)); read <- err }()
	must(t, r.Close())
	for what, ch := range map[string]chan error{"read": read, "write": wrote} {
		select {
		case err := <-ch:
			if err == nil {
				t.Errorf("%s: no error", what)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("Close left a %s waiting", what)
		}
	}
}

// A slow reader holds back its writer by TCP alone, and nothing is lost.
func TestLaneSlowReader(t *testing.T) {
	agent, relay := lanePair(t, nil)
	a, r := laneStreams(t, agent, relay)
	out := make([]byte, 20<<20)
	_, _ = rand.Read(out)
	go func() { _, _ = r.Write(out); _ = r.CloseWrite() }()
	got := make([]byte, 0, len(out))
	for b := make([]byte, 1000); ; {
		n, err := a.Read(b[:1+len(got)%1000])
		got = append(got, b[:n]...)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
	}
	if !bytes.Equal(got, out) {
		t.Errorf("%d of %d bytes, or others", len(got), len(out))
	}
}

// A cut must never look like an end.
func TestLaneCutIsNotAnEnd(t *testing.T) {
	for _, who := range []string{"agent", "relay"} {
		agent, relay := lanePair(t, nil)
		a, r := laneStreams(t, agent, relay)
		_, err := a.Write([]byte("x"))
		must(t, err)
		_, err = r.Write([]byte("x"))
		must(t, err)
		left := r
		if who == "agent" {
			must(t, agent.Close())
		} else {
			left = a
			must(t, relay.Close())
		}
		if _, err := io.ReadAll(left); err == nil {
			t.Errorf("the %s's death looks like an end", who)
		}
	}
}

func TestIdleLaneSeesItsEnd(t *testing.T) {
	agent, relay := lanePair(t, nil)
	must(t, agent.Close())
	select {
	case <-relay.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the relay holds a dead lane for a good one")
	}
	if _, err := relay.Open(); err == nil {
		t.Error("a stream on a dead lane")
	}
}

// An unread rest that is longer than a lane is worth costs the lane, and no more.
func TestLaneIsDroppedWithAnUnreadRest(t *testing.T) {
	agent, relay := lanePair(t, nil)
	a, r := laneStreams(t, agent, relay)
	wrote := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = a.Write(make([]byte, 64<<10))
		}
		wrote <- err
	}()
	must(t, r.Close())
	select {
	case <-relay.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the lane reads on for ever")
	}
	if err := <-wrote; err == nil {
		t.Error("the writer was not told")
	}
}

func TestLaneGivesBackIsTold(t *testing.T) {
	agent, relay := lanePair(t, nil)
	freed := make(chan struct{}, 1)
	relay.OnFree(func() { freed <- struct{}{} })
	a, r := laneStreams(t, agent, relay)
	if !relay.Busy() {
		t.Error("a stream is open and the lane is not busy")
	}
	must(t, r.Close())
	must(t, a.Close())
	select {
	case <-freed:
	case <-time.After(10 * time.Second):
		t.Fatal("not given back")
	}
	if relay.Busy() {
		t.Error("busy")
	}
}

// Frames that no honest peer sends end the lane.
func TestLaneRefusesBrokenFrames(t *testing.T) {
	frame := func(typ byte, n int, body string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(typ)<<24|uint32(n)), body...)
	}
	for name, bad := range map[string][]byte{
		"unknown type": frame(9, 1, "x"), "empty data": frame(0, 0, ""), "data too long": frame(0, 1<<20, "x"), "end with a body": frame(1, 1, "x"),
		"a second ticket": frame(2, 32, "12345678901234567890123456789012"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.serve.NextProtos = []string{protocol.ALPNLane}
			conf := w.client.Clone()
			conf.NextProtos = []string{protocol.ALPNLane}
			ln := listen(t)
			go func() {
				conn, err := tls.Dial("tcp", ln.Addr().String(), conf)
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Write(frame(2, tunnel.TicketSize, string(make([]byte, tunnel.TicketSize))))
				b := make([]byte, 5)
				_, _ = io.ReadFull(conn, b) // the first byte of the stream
				_, _ = conn.Write(bad)
				_, _ = io.Copy(io.Discard, conn)
			}()
			conn, err := ln.Accept()
			must(t, err)
			relay, _, err := tunnel.ServeLane(t.Context(), tls.Server(conn, w.serve), tunnel.Config{})
			must(t, err)
			defer relay.Close()
			s, err := relay.Open()
			must(t, err)
			_, err = s.Write([]byte("!"))
			must(t, err)
			if _, err := s.Read(make([]byte, 10)); !errors.Is(err, tunnel.ErrProtocol) {
				t.Errorf("want ErrProtocol, got %v", err)
			}
			if !errors.Is(relay.Err(), tunnel.ErrProtocol) {
				t.Errorf("the lane lives on: %v", relay.Err())
			}
		})
	}
}

func TestAgentThatSpeaksOnAnIdleLaneLosesIt(t *testing.T) {
	agent, relay := lanePair(t, nil)
	a, r := laneStreams(t, agent, relay)
	must(t, r.CloseWrite())
	must(t, a.CloseWrite())
	_, _ = io.ReadAll(r)
	must(t, r.Close())
	must(t, a.Close())
	eventually(t, "free", func() bool { return !relay.Busy() })
	must(t, tunnel.SpeakOnIdleLane(agent))
	select {
	case <-relay.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it lives")
	}
	if !errors.Is(relay.Err(), tunnel.ErrProtocol) {
		t.Error(relay.Err())
	}
}

// Nobody gets a lane by a tunnel's name, without a ticket, or in silence.
func TestLaneWantsItsTicketInTime(t *testing.T) {
	for name, first := range map[string][]byte{"silence": nil, "no ticket": []byte("GET / HTTP/1.1\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), "half a ticket": {2, 0, 0, 32, 1, 2, 3}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.serve.NextProtos = []string{protocol.ALPNLane}
			conf := w.client.Clone()
			conf.NextProtos = []string{protocol.ALPNLane}
			ln := listen(t)
			go func() {
				conn, err := tls.Dial("tcp", ln.Addr().String(), conf)
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Write(first)
				_, _ = io.Copy(io.Discard, conn)
			}()
			conn, err := ln.Accept()
			must(t, err)
			if l, _, err := tunnel.ServeLane(t.Context(), tls.Server(conn, w.serve), tunnel.Config{HandshakeTimeout: 500 * time.Millisecond}); err == nil {
				_ = l.Close()
				t.Error("a lane without a ticket")
			}
		})
	}
	// A tunnel's certificate on a tunnel's ALPN is no lane.
	w := newWorld(t)
	ln := listen(t)
	go func() {
		if conn, err := tls.Dial("tcp", ln.Addr().String(), w.client); err == nil {
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	conn, err := ln.Accept()
	must(t, err)
	if _, _, err := tunnel.ServeLane(t.Context(), tls.Server(conn, w.serve), tunnel.Config{}); !errors.Is(err, tunnel.ErrProtocol) {
		t.Errorf("want ErrProtocol, got %v", err)
	}
}

func TestLaneEndsWithCertificate(t *testing.T) {
	w := newWorld(t)
	w.serve = mtls.TunnelTLS(w.relay.Reloader(t), w.root.Pool(), "in_test", nil)
	w.serve.NextProtos = []string{protocol.ALPNLane}
	short := w.root.Workspace(t, "in_test", "ws_test").Leaf(t, mtlstest.Agent, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Second) })
	w.client = mtls.AgentTLS(short.Reloader(t), w.root.Pool(), "in_test")
	ln := listen(t)
	go func() {
		l, err := tunnel.DialLane(t.Context(), ln.Addr().String(), w.client, nil, make([]byte, tunnel.TicketSize), tunnel.Config{})
		if err == nil {
			_, _ = l.Accept() // which sees the end
			_ = l.Close()
		}
	}()
	conn, err := ln.Accept()
	must(t, err)
	l, _, err := tunnel.ServeLane(t.Context(), tls.Server(conn, w.serve), tunnel.Config{})
	must(t, err)
	defer l.Close()
	select {
	case <-l.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the lane outlives the certificate")
	}
	if !errors.Is(l.Err(), tunnel.ErrExpired) {
		t.Error(l.Err())
	}
}

// HTTP/1.1 as the halves speak it, over one lane again and again: also after upgrades, aborts and callers who left.
func TestHTTPOnALane(t *testing.T) {
	agent, relay := lanePair(t, nil)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/dial" {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
			_, _ = io.Copy(c, rw)
			return
		}
		_, _ = io.Copy(w, r.Body)
	})}
	srv.SetKeepAlivesEnabled(false)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(tunnel.NewListener(agent)) })
	defer wg.Wait()
	defer relay.Close()
	defer agent.Close()
	defer srv.Close()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		for tick := time.NewTicker(time.Millisecond); ; {
			s, err := relay.Open()
			if !errors.Is(err, tunnel.ErrTooManyStreams) {
				return s, err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}}
	for i := range 100 {
		body := bytes.Repeat([]byte("x"), i*i*20)
		path := "/echo"
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://agent"+path, bytes.NewReader(body))
		must(t, err)
		resp, err := tr.RoundTrip(req)
		must(t, err)
		got, err := io.ReadAll(resp.Body)
		must(t, resp.Body.Close())
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("round %d: %d of %d bytes, %v", i, len(got), len(body), err)
		}
	}
	s := openLane(t, relay)
	_, err := io.WriteString(s, "POST /dial HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nin the same flight")
	must(t, err)
	must(t, s.CloseWrite())
	got, err := io.ReadAll(s)
	if err != nil || !bytes.HasSuffix(got, []byte("\r\n\r\nin the same flight")) {
		t.Errorf("%q, %v", got, err)
	}
	must(t, s.Close())
	s = openLane(t, relay) // the lane outlived the raw bytes
	must(t, s.Close())
}

// A listener that is closed must not wait for the lane's end: http.Server.Shutdown waits for it.
func TestLaneListenerCloses(t *testing.T) {
	agent, relay := lanePair(t, nil)
	ln := tunnel.NewListener(agent)
	ended := make(chan error, 1)
	go func() { _, err := ln.Accept(); ended <- err }()
	must(t, ln.Close())
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Accept goes on")
	}
	if agent.Err() != nil || relay.Err() != nil {
		t.Error("the lane ended with its listener", agent.Err(), relay.Err())
	}
}
