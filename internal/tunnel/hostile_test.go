package tunnel_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// A raw peer is an enrolled agent that speaks whatever frames it likes.
type raw struct {
	*tls.Conn
	t testing.TB
}

func rawPeer(t testing.TB, cfg tunnel.Config) (*raw, tunnel.Tunnel) {
	w := newWorld(t)
	ln := listen(t)
	type result struct {
		t   tunnel.Tunnel
		err error
	}
	ch := make(chan result, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			ch <- result{nil, err}
			return
		}
		s, err := tunnel.Server(t.Context(), tls.Server(conn, w.serve), cfg)
		ch <- result{s, err}
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), w.client)
	if err != nil {
		t.Fatal(err)
	}
	r := <-ch
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = conn.Close(); _ = r.t.Close() })
	return &raw{conn, t}, r.t
}

const (
	data, window, ping, goAway = 0, 1, 2, 3
	syn, ack, fin, rst         = 1, 2, 4, 8
)

func frame(typ byte, flags uint16, id, length uint32, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, typ}, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, length)
	return append(b, body...)
}

func (r *raw) send(frames ...[]byte) {
	_ = r.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, _ = r.Write(bytes.Join(frames, nil)) // the other end may have hung up already
}

// next reads a frame.
func (r *raw) next() (typ byte, flags uint16, id, length uint32, err error) {
	_ = r.SetReadDeadline(time.Now().Add(10 * time.Second))
	h := make([]byte, 12)
	if _, err = io.ReadFull(r, h); err != nil {
		return
	}
	typ, flags, id, length = h[1], binary.BigEndian.Uint16(h[2:]), binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	if typ == data {
		_, err = io.CopyN(io.Discard, r, int64(length))
	}
	return
}

func within(t testing.TB, d time.Duration, what string, ch <-chan struct{}) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ch:
	case <-timer.C:
		t.Fatalf("not within %v: %s", d, what)
	}
}

// Frames that no honest peer sends end the tunnel.
func TestBrokenFramesEndTheTunnel(t *testing.T) {
	open := frame(window, syn, 1, 0)
	for name, frames := range map[string][][]byte{
		"D16 version":               {{9, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}},
		"D16 type unknown":          {frame(7, 0, 1, 0)},
		"D16 length 2^32-1":         {open, frame(data, 0, 1, 1<<32-1)},
		"D16 length of the SYN":     {frame(data, syn, 1, 1<<32-1)},
		"D16 beyond the window":     {open, frame(data, 0, 1, 4<<20, make([]byte, 1<<20)...)},
		"D16 stream 0":              {frame(data, syn, 0, 1, 1)},
		"D16 wrong parity":          {frame(window, syn, 2, 0)},
		"D16 stream opened twice":   {open, open},
		"D16 ended twice":           {open, frame(window, fin, 1, 0), frame(window, fin, 1, 0)},
		"D16 go away, protocol":     {frame(goAway, 0, 0, 1)},
		"D16 go away, unknown code": {frame(goAway, 0, 0, 77)},
		"D16 rubbish":               {bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 100)},
	} {
		t.Run(name, func(t *testing.T) {
			peer, tun := rawPeer(t, tunnel.DefaultConfig())
			peer.send(frames...)
			within(t, 10*time.Second, "the end of the tunnel", tun.Done())
			if err := tun.Err(); !errors.Is(err, tunnel.ErrProtocol) {
				t.Fatalf("got %v", err)
			}
		})
	}
	t.Run("D16 frame cut", func(t *testing.T) {
		peer, tun := rawPeer(t, tunnel.DefaultConfig())
		peer.send(open[:7])
		_ = peer.Close()
		within(t, 10*time.Second, "the end of the tunnel", tun.Done())
		if err := tun.Err(); !errors.Is(err, tunnel.ErrPeerClosed) {
			t.Fatalf("got %v", err)
		}
	})
}

// Frames that come late or for nothing are passed over: the tunnel stays, and yamux holds nothing for them.
func TestStrayFramesArePassedOver(t *testing.T) {
	for name, frames := range map[string][][]byte{
		"D16 data before SYN":           {frame(data, 0, 5, 3, 1, 2, 3)},
		"D16 FIN of an unknown stream":  {frame(window, fin, 5, 0)},
		"D16 RST of an unknown stream":  {frame(window, rst, 5, 0)},
		"D16 window update overflow":    {frame(window, syn, 1, 0), frame(window, 0, 1, 1<<32-1), frame(window, 0, 1, 1<<32-1)},
		"D16 window of unknown streams": {bytes.Repeat(frame(window, 0, 9, 1), 1000)},
		"D16 unasked ping answers":      {bytes.Repeat(frame(ping, ack, 0, 9), 50)},
		"D16 stream id reuse":           {frame(window, syn, 1, 0), frame(window, rst, 1, 0), frame(window, syn, 1, 0)},
		"D16 rapid reset":               {bytes.Repeat(append(frame(window, syn, 1, 0), frame(window, rst, 1, 0)...), 200)},
	} {
		t.Run(name, func(t *testing.T) {
			peer, tun := rawPeer(t, tunnel.DefaultConfig())
			var count atomic.Int64
			wait := serve(tun, &count)
			defer wait()
			defer tun.Close()
			peer.send(frames...)
			peer.send(frame(ping, syn, 0, 4711))
			for {
				typ, flags, _, length, err := peer.next()
				if err != nil {
					t.Fatalf("%v; tunnel: %v", err, tun.Err())
				}
				if typ == ping && flags == ack && length == 4711 {
					break
				}
			}
			// Streams still open and close.
			peer.send(frame(window, syn, 101, 0), frame(data, fin, 101, 2, 'h', 'i'))
			eventually(t, "the stream is done", func() bool { return count.Load() > 0 && tun.Streams() <= 1 })
		})
	}
}

func TestRefusedStreamIsReset(t *testing.T) {
	cfg := tunnel.DefaultConfig()
	cfg.MaxStreams, cfg.Backlog = 2, 100
	peer, tun := rawPeer(t, cfg)
	for id := uint32(1); id < 21; id += 2 {
		peer.send(frame(data, syn, id, 1, 'x'))
	}
	resets := map[uint32]bool{}
	for len(resets) < 8 {
		typ, flags, id, _, err := peer.next()
		if err != nil {
			t.Fatal(err)
		}
		if typ != window || flags != rst || id < 5 || resets[id] {
			t.Fatalf("frame %d %d of stream %d", typ, flags, id)
		}
		resets[id] = true
	}
	if n := tun.Streams(); n != 2 {
		t.Fatalf("%d streams", n)
	}
}

// What a hostile peer can make this side hold is bounded, whatever it opens and however little is read.
func TestFloodsAreBounded(t *testing.T) {
	for name, flood := range map[string]func(id uint32) []byte{
		"D16 opens":                 func(id uint32) []byte { return frame(window, syn, id, 0) },
		"D16 opens and resets":      func(id uint32) []byte { return append(frame(window, syn, id, 0), frame(window, rst, id, 0)...) },
		"D16 pings":                 func(id uint32) []byte { return frame(ping, syn, 0, id) },
		"D16 window updates":        func(uint32) []byte { return frame(window, 0, 1, 1) },
		"D16 empty data":            func(uint32) []byte { return frame(data, 0, 1, 0) },
		"D16 go away":               func(uint32) []byte { return frame(goAway, 0, 0, 0) },
		"D17 opens with data":       func(id uint32) []byte { return frame(data, syn, id, 1000, make([]byte, 1000)...) },
		"D16 data of ended streams": func(id uint32) []byte { return append(frame(data, syn|fin, id, 1, 1), frame(data, 0, id, 1, 1)...) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := tunnel.DefaultConfig()
			cfg.MaxBuffered = 1 << 20
			peer, tun := rawPeer(t, cfg)
			var before runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			goroutines := runtime.NumGoroutine()
			// The peer reads nothing either.
			stop := time.Now().Add(300 * time.Millisecond)
			_ = peer.SetWriteDeadline(stop)
			var batch []byte
			for id := uint32(1); time.Now().Before(stop); {
				batch = batch[:0]
				for range 100 {
					batch = append(batch, flood(id)...)
					id += 2
				}
				if _, err := peer.Write(batch); err != nil {
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
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
				t.Errorf("%d bytes more", grown)
			}
			// It ends at once all the same.
			start := time.Now()
			must(t, tun.Close())
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("close took %v", d)
			}
		})
	}
}

// faulty is a connection that can go bad.
type faulty struct {
	net.Conn
	deaf, dumb atomic.Bool   // what comes is dropped; what is sent vanishes
	stuck      atomic.Bool   // nothing is read any more, so that the kernel's buffers fill
	stubborn   atomic.Bool   // Close does not wake Read: release does
	release    chan struct{} // closed to wake Reads that are stuck or stubborn
	once       sync.Once
}

func newFaulty(c net.Conn) *faulty { return &faulty{Conn: c, release: make(chan struct{})} }

func (f *faulty) Read(p []byte) (int, error) {
	for {
		if f.stuck.Load() {
			<-f.release
			return 0, net.ErrClosed
		}
		n, err := f.Conn.Read(p)
		if err != nil && f.stubborn.Load() {
			<-f.release
		}
		if n > 0 && f.deaf.Load() {
			continue
		}
		return n, err
	}
}

func (f *faulty) Write(p []byte) (int, error) {
	if f.dumb.Load() {
		return len(p), nil
	}
	return f.Conn.Write(p)
}

func (f *faulty) Close() error {
	if !f.stubborn.Load() {
		f.letGo()
	}
	return f.Conn.Close()
}

func (f *faulty) letGo() { f.once.Do(func() { close(f.release) }) }

func quick() tunnel.Config {
	cfg := tunnel.DefaultConfig()
	cfg.KeepAlive, cfg.PingTimeout, cfg.WriteTimeout = 50*time.Millisecond, 200*time.Millisecond, 300*time.Millisecond
	return cfg
}

// A connection over which nothing comes any more, without a word from the network.
func TestPeerDeathIsSeen(t *testing.T) {
	for name, stop := range map[string]func(*faulty){
		"Z29 both directions": func(f *faulty) { f.deaf.Store(true); f.dumb.Store(true) },
		"Z29 to the peer":     func(f *faulty) { f.dumb.Store(true) },
		"Z29 from the peer":   func(f *faulty) { f.deaf.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			var f *faulty
			a, b := newWorld(t).connect(t, quick(), tunnel.DefaultConfig(), func(c net.Conn) net.Conn { f = newFaulty(c); return f }, nil)
			s, _ := open(t, a, b)
			got := make(chan error, 1)
			go func() { _, err := s.Read(make([]byte, 1)); got <- err }()
			// It lives as long as pings come back, many times the limit.
			idle := time.NewTimer(600 * time.Millisecond)
			defer idle.Stop()
			select {
			case <-a.Done():
				t.Fatal(a.Err())
			case <-idle.C:
			}
			stop(f)
			start := time.Now()
			within(t, 10*time.Second, "the end of the tunnel", a.Done())
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("it took %v", d)
			}
			if !errors.Is(a.Err(), tunnel.ErrPeerLost) {
				t.Errorf("tunnel: %v", a.Err())
			}
			if err := <-got; !errors.Is(err, tunnel.ErrPeerLost) {
				t.Errorf("stream: %v", err)
			}
		})
	}
}

// A peer that takes no more bytes: writers and readers on both sides learn it, nobody waits for ever (yamux #142).
func TestWriteTimeoutEndsBothSides(t *testing.T) {
	cfg := quick()
	cfg.KeepAlive, cfg.PingTimeout = time.Minute, time.Minute
	cfg.Window, cfg.MaxBuffered = 16<<20, 1<<30
	var f *faulty
	a, b := newWorld(t).connect(t, cfg, cfg, nil, func(c net.Conn) net.Conn { f = newFaulty(c); return f })
	var streams []tunnel.Stream
	for range 8 { // the windows of all take more than the kernel's buffers
		s, p := open(t, a, b)
		streams = append(streams, s)
		go func() { _, _ = p.Read(make([]byte, 1)) }()
	}
	idle, _ := open(t, a, b)
	f.stuck.Store(true)
	writersFindOut(t, a, streams, idle, 20*time.Second)
	f.letGo()
	within(t, 20*time.Second, "the end of the other side", b.Done())
}

// yamux's blocked calls spin from the session's shutdown until its reader returns. With a connection whose Read outlives
// its Close, one idle stream burned a core; none may now, whoever ends the tunnel.
func TestNoSpinOnShutdown(t *testing.T) {
	for name, end := range map[string]func(f *faulty, a tunnel.Tunnel){
		"closed here":          func(_ *faulty, a tunnel.Tunnel) { go func() { _ = a.Close() }() },
		"peer does not answer": func(f *faulty, _ tunnel.Tunnel) { f.deaf.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			var f *faulty
			cfg := quick()
			cfg.PingTimeout = 2 * time.Second // four writers on a busy machine must not look like a dead peer
			a, b := newWorld(t).connect(t, cfg, tunnel.DefaultConfig(), func(c net.Conn) net.Conn { f = newFaulty(c); return f }, nil)
			defer func() {
				f.letGo()
				_ = a.Close()
			}()
			var wg sync.WaitGroup
			defer wg.Wait()
			for range 4 {
				s, _ := open(t, a, b)
				wg.Go(func() {
					_, err := s.Read(make([]byte, 1))
					if !errors.Is(err, a.Err()) {
						t.Errorf("read: %v, tunnel: %v", err, a.Err())
					}
					// No deadline brings it back to sleep.
					_ = s.SetDeadline(time.Time{})
					if _, err := s.Read(make([]byte, 1)); !errors.Is(err, a.Err()) {
						t.Errorf("read: %v", err)
					}
				})
				w, _ := open(t, a, b)
				wg.Go(func() {
					for {
						if _, err := w.Write(make([]byte, 1<<20)); err != nil {
							return
						}
					}
				})
			}
			f.stubborn.Store(true)
			end(f, a)
			within(t, 10*time.Second, "the end of the tunnel", a.Done())
			wg.Wait() // streams are woken although the connection's Read still hangs
			before := cpu()
			pause := time.NewTimer(500 * time.Millisecond)
			<-pause.C
			if used := cpu() - before; used > 100*time.Millisecond {
				t.Errorf("%v of CPU in 500 ms of nothing", used)
			}
		})
	}
}

// Z22: a tunnel does not outlive the certificate of its peer, on either side.
func TestTunnelEndsWithCertificate(t *testing.T) {
	soon := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Second) }
	for _, who := range []string{"agent", "relay"} {
		t.Run("Z22 "+who, func(t *testing.T) {
			w := newWorld(t)
			if who == "agent" {
				w.agent = w.root.Workspace(t, "in_test", "ws_test").Leaf(t, mtlstest.Agent, nil, soon)
			} else {
				w.relay = w.root.Leaf(t, mtlstest.Relay, nil, soon)
			}
			w.client = mtls.AgentTLS(w.agent.Reloader(t), w.root.Pool(), "in_test")
			w.serve = mtls.TunnelTLS(w.relay.Reloader(t), w.root.Pool(), "in_test", nil)
			a, b := w.connect(t, tunnel.DefaultConfig(), tunnel.DefaultConfig(), nil, nil)
			checker := a
			if who == "agent" {
				checker = b
			}
			s, _ := open(t, a, b)
			expires(t, checker, s)
		})
	}
}

// expires asserts that the tunnel ends with its peer's certificate, and that a stream of it does not take that for a true end.
func expires(t *testing.T, checker tunnel.Tunnel, s tunnel.Stream) {
	t.Helper()
	got := make(chan error, 1)
	go func() { _, err := s.Read(make([]byte, 1)); got <- err }()
	within(t, 10*time.Second, "the end of the tunnel", checker.Done())
	if err := checker.Err(); !errors.Is(err, tunnel.ErrExpired) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(checker.PeerCertificate().NotAfter); d < 0 || d > 2*time.Second {
		t.Errorf("it ended %v after the certificate", d)
	}
	if err := <-got; err == nil || err == io.EOF {
		t.Errorf("stream: %v", err)
	}
}

// The frames of a stream's bytes are not split: a header goes with its body, in one record and one system call.
func TestHeaderAndBodyGoTogether(t *testing.T) {
	var c *counting
	a, b := newWorld(t).connect(t, tunnel.DefaultConfig(), tunnel.DefaultConfig(), func(n net.Conn) net.Conn { c = &counting{Conn: n}; return c }, nil)
	s, p := open(t, a, b)
	for _, size := range []int{1, 1000, 16<<10 - 12, 16 << 10, 32 << 10} {
		before := c.writes.Load()
		if _, err := s.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if n := c.writes.Load() - before; n != 1 {
			t.Errorf("%d bytes took %d writes", size, n)
		}
	}
}

type counting struct {
	net.Conn
	writes atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}
