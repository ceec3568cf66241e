package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// serve accepts at b: each stream is closed when its peer is.
func serve(b tunnel.Tunnel, count *atomic.Int64) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			p, err := b.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			wg.Go(func() {
				_, _ = io.Copy(io.Discard, p)
				_ = p.Close()
			})
		}
	})
	return wg.Wait
}

func testOpenFlood(t *testing.T, pair pairFunc) {
	cfg := tunnel.DefaultConfig()
	cfg.OpenRate, cfg.OpenBurst = 100, 20
	a, b := pair(t, cfg)
	var count atomic.Int64
	wait := serve(b, &count)
	start := time.Now()
	for time.Since(start) < 300*time.Millisecond || count.Load() < 20 { // the burst passes, however slow the machine is
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if s, err := a.Open(ctx); err == nil {
			_ = s.Close()
		}
		cancel()
		if time.Since(start) > 20*time.Second {
			t.Fatalf("%d streams in 20 s", count.Load())
		}
	}
	n := count.Load()
	if took := time.Since(start); n > int64(20+100*took.Seconds()+2) {
		t.Fatalf("%d streams in %v", n, took)
	}
	_ = a.Close()
	wait()
}

func testOpenRate(t *testing.T, pair pairFunc) {
	cfg := tunnel.DefaultConfig()
	cfg.OpenRate, cfg.OpenBurst = 200, 10
	a, b := pair(t, cfg)
	var count atomic.Int64
	wait := serve(b, &count)
	start := time.Now()
	for range 50 { // 10 at once, 40 in 200 ms
		s, err := a.Open(t.Context())
		must(t, err)
		must(t, s.Close())
	}
	eventually(t, "all arrive", func() bool { return count.Load() == 50 })
	if d := time.Since(start); d < 180*time.Millisecond {
		t.Fatalf("50 streams in %v", d)
	}
	_ = a.Close()
	wait()
}

func testMaxStreams(t *testing.T, pair pairFunc) {
	cfg := tunnel.DefaultConfig()
	cfg.MaxStreams = 3
	a, b := pair(t, cfg)
	var all []tunnel.Stream
	for range 3 {
		s, p := open(t, a, b)
		all = append(all, s, p)
	}
	if _, err := a.Open(t.Context()); !errors.Is(err, tunnel.ErrTooManyStreams) {
		t.Fatalf("got %v", err)
	}
	// The other direction has a count of its own.
	s, p := open(t, b, a)
	for _, s := range append(all, s, p) {
		must(t, s.Close())
	}
	eventually(t, "room again", func() bool { return a.Streams() == 0 && b.Streams() == 0 })
	open(t, a, b)
}

func testDeadlines(t *testing.T, pair pairFunc) {
	cfg := tunnel.DefaultConfig()
	cfg.Window = 256 << 10
	a, b := pair(t, cfg)
	s, p := open(t, a, b)
	must(t, s.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	_, err := s.Read(make([]byte, 1))
	var ne net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Fatalf("got %v", err)
	}
	// As net/http does it to take a connection back from its background read.
	got := make(chan error, 1)
	must(t, s.SetReadDeadline(time.Time{}))
	go func() { _, err := s.Read(make([]byte, 1)); got <- err }()
	must(t, s.SetReadDeadline(time.Unix(1, 0)))
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	must(t, s.SetReadDeadline(time.Time{}))
	if _, err := p.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	must(t, s.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
	wrote, err := s.Write(make([]byte, 8<<20)) // how much is a matter of the machine
	if !errors.Is(err, os.ErrDeadlineExceeded) || wrote > int(cfg.Window) {
		t.Fatalf("wrote %d, %v", wrote, err)
	}
	// A deadline costs the stream's caller, not the stream: the bytes that were written are read, and more may follow.
	must(t, s.SetWriteDeadline(time.Time{}))
	if _, err := io.ReadFull(p, make([]byte, wrote)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
}

func testCloseWithStreams(t *testing.T, pair pairFunc) {
	for _, closer := range []string{"this side", "the peer"} {
		a, b := pair(t, tunnel.DefaultConfig())
		var wg sync.WaitGroup
		for range 10 {
			s, p := open(t, a, b)
			for _, c := range []struct {
				s tunnel.Stream
				t tunnel.Tunnel
			}{{s, a}, {p, b}} {
				wg.Go(func() {
					n, err := c.s.Read(make([]byte, 1))
					if n != 0 || err == nil || err == io.EOF {
						t.Errorf("a cut read as an end: %d, %v", n, err)
					}
					if e := c.t.Err(); !errors.Is(err, e) && !errors.Is(e, err) {
						t.Errorf("stream says %v, tunnel %v", err, e)
					}
					if _, err := c.s.Write([]byte("x")); err == nil {
						t.Error("write after the end of the tunnel")
					}
				})
			}
		}
		accepting := make(chan error, 2)
		for _, e := range []tunnel.Tunnel{a, b} {
			go func() { _, err := e.Accept(); accepting <- err }()
		}
		first, second := a, b
		if closer == "the peer" {
			first, second = b, a
		}
		must(t, first.Close())
		<-second.Done()
		wg.Wait()
		for range 2 {
			if err := <-accepting; err == nil {
				t.Error("accept after the end")
			}
		}
		if err := first.Err(); !errors.Is(err, tunnel.ErrClosed) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("closer: %v", err)
		}
		if err := second.Err(); !errors.Is(err, tunnel.ErrPeerClosed) {
			t.Errorf("other: %v", err)
		}
		if _, err := first.Open(t.Context()); !errors.Is(err, tunnel.ErrClosed) {
			t.Errorf("open: %v", err)
		}
		if _, err := second.Ping(t.Context()); !errors.Is(err, tunnel.ErrPeerClosed) {
			t.Errorf("ping: %v", err)
		}
		must(t, second.Close())
		must(t, first.Close())
		if err := second.Err(); !errors.Is(err, tunnel.ErrPeerClosed) {
			t.Errorf("a later Close changed the reason: %v", err)
		}
	}
}

func testMany(t *testing.T, pair pairFunc) {
	a, b := pair(t, tunnel.DefaultConfig())
	var wg sync.WaitGroup
	for _, ends := range [][2]tunnel.Tunnel{{a, b}, {b, a}} {
		wg.Go(func() {
			for range 100 {
				p, err := ends[1].Accept()
				if err != nil {
					t.Error(err)
					return
				}
				wg.Go(func() {
					_, _ = io.Copy(p, p)
					_ = p.Close()
				})
			}
		})
		for range 100 {
			wg.Go(func() {
				s, err := ends[0].Open(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				want := random(100_000)
				wg.Go(func() { _, _ = s.Write(want); _ = s.CloseWrite() })
				if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
					t.Errorf("got %d bytes, %v", len(got), err)
				}
			})
		}
	}
	wg.Wait()
	eventually(t, "no streams left", func() bool { return a.Streams() == 0 && b.Streams() == 0 })
}

func testPing(t *testing.T, pair pairFunc) {
	a, b := pair(t, tunnel.DefaultConfig())
	for _, e := range []tunnel.Tunnel{a, b} {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if d, err := e.Ping(t.Context()); err != nil || d <= 0 {
					t.Errorf("ping: %v, %v", d, err)
				}
			})
		}
		wg.Wait()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Ping(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func testFacts(t *testing.T, pair pairFunc) {
	a, b := pair(t, tunnel.DefaultConfig())
	if a.Peer() != mtlstest.Relay || b.Peer() != mtlstest.Agent {
		t.Fatalf("peers: %v, %v", a.Peer(), b.Peer())
	}
	if a.Err() != nil || b.Err() != nil {
		t.Fatalf("errors: %v, %v", a.Err(), b.Err())
	}
	if a.RemoteAddr().String() != b.LocalAddr().String() || a.Transport() == "" {
		t.Fatalf("addresses: %v, %v", a.RemoteAddr(), b.LocalAddr())
	}
	s, p := open(t, a, b)
	if a.Streams() != 1 || b.Streams() != 1 || s.RemoteAddr().String() != p.LocalAddr().String() {
		t.Fatalf("streams: %d, %d", a.Streams(), b.Streams())
	}
}

func testListener(t *testing.T, pair pairFunc) {
	a, b := pair(t, tunnel.DefaultConfig())
	ln := tunnel.NewListener(b)
	got := make(chan error, 1)
	go func() { _, err := ln.Accept(); got <- err }()
	must(t, ln.Close())
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if b.Err() != nil {
		t.Fatalf("tunnel ended: %v", b.Err())
	}
	open(t, a, b)
}
