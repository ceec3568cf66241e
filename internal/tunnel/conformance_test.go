package tunnel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// net/http's servers do not wait, on Close, for connections that they leave half closed for half a second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// A pairFunc makes both ends of a tunnel: the client's (agent) first.
type pairFunc func(t *testing.T, cfg tunnel.Config) (client, server tunnel.Tunnel)

func memoryPair(t *testing.T, cfg tunnel.Config) (tunnel.Tunnel, tunnel.Tunnel) {
	c, s := tunnel.Memory(mtlstest.Agent, mtlstest.Relay, cfg)
	t.Cleanup(func() { _ = c.Close(); _ = s.Close() })
	return c, s
}

type world struct {
	root          *mtlstest.Cert
	agent, relay  *mtlstest.Cert
	client, serve *tls.Config
}

func newWorld(t testing.TB) *world {
	w := &world{root: mtlstest.New(t)}
	w.relay = w.root.Leaf(t, mtlstest.Relay, nil)
	w.agent = w.root.Workspace(t, "in_test", "ws_test").Leaf(t, mtlstest.Agent, nil)
	w.client = mtls.AgentTLS(w.agent.Reloader(t), w.root.Pool(), "in_test")
	w.serve = mtls.TunnelTLS(w.relay.Reloader(t), w.root.Pool(), "in_test", nil)
	return w
}

func listen(t testing.TB) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// connect makes a tunnel over loopback. wrapC and wrapS may put something between TLS and the socket.
func (w *world) connect(t testing.TB, cfgC, cfgS tunnel.Config, wrapC, wrapS func(net.Conn) net.Conn) (tunnel.Tunnel, tunnel.Tunnel) {
	t.Helper()
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
		if wrapS != nil {
			conn = wrapS(conn)
		}
		s, err := tunnel.Server(t.Context(), tls.Server(conn, w.serve), cfgS)
		ch <- result{s, err}
	}()
	c, err := tunnel.Dial(t.Context(), ln.Addr().String(), w.client, func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil && wrapC != nil {
			conn = wrapC(conn)
		}
		return conn, err
	}, cfgC)
	r := <-ch
	if err != nil || r.err != nil {
		t.Fatalf("dial: %v, server: %v", err, r.err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = r.t.Close() })
	return c, r.t
}

func tlsPair(t *testing.T, cfg tunnel.Config) (tunnel.Tunnel, tunnel.Tunnel) {
	return newWorld(t).connect(t, cfg, cfg, nil, nil)
}

func TestTLS(t *testing.T) {
	conformance(t, tlsPair, tlsFaults, func(t *testing.T, f func(*testing.T)) { f(t) })
}

// In memory the same suite runs on real clocks and on fake ones.
func TestMemory(t *testing.T) {
	conformance(t, memoryPair, memoryFaults, func(t *testing.T, f func(*testing.T)) { f(t) })
}
func TestMemoryInBubble(t *testing.T) { conformance(t, memoryPair, memoryFaults, synctest.Test) }

func open(t testing.TB, a, b tunnel.Tunnel) (tunnel.Stream, tunnel.Stream) {
	t.Helper()
	s, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls with a ticker, for effects that cross the network.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// conformance holds a transport to the words of Tunnel and Stream.
func conformance(t *testing.T, pair pairFunc, broken faultyPair, in func(*testing.T, func(*testing.T))) {
	for _, c := range []struct {
		name string
		test func(*testing.T, pairFunc)
	}{
		{"echo both ways", testEcho},
		{"half close both directions", testHalfClose},
		{"close wakes own read and write", testCloseWakes},
		{"close delivers what was written", testCloseDelivers},
		{"writer to a closed stream is reset", testLateWriter},
		{"silent peer of a closed stream is cut", testLinger},
		{"open is canceled", testOpenCanceled},
		{"slow reader does not block others", testSlowReader},
		{"D17 never-read stream is bounded", testNeverRead},
		{"D17 budget of all streams", testBudget},
		{"D16 flood of opens is limited", testOpenFlood},
		{"D16 opens beyond the rate wait", testOpenRate},
		{"streams beyond the limit are refused", testMaxStreams},
		{"deadlines", testDeadlines},
		{"close while streams are open", testCloseWithStreams},
		{"many at once", testMany},
		{"ping", testPing},
		{"facts", testFacts},
		{"listener ends alone", testListener},
	} {
		t.Run(c.name, func(t *testing.T) { in(t, func(t *testing.T) { c.test(t, pair) }) })
	}
	for _, c := range faultCases {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				if a, _ := pair(t, tunnel.DefaultConfig()); c.cannot[a.Transport()] != "" {
					t.Logf("not over %s: %s", a.Transport(), c.cannot[a.Transport()])
					return
				}
				c.test(t, broken)
			})
		})
	}
}

func testEcho(t *testing.T, pair pairFunc) {
	a, b := pair(t, tunnel.DefaultConfig())
	for _, ends := range [][2]tunnel.Tunnel{{a, b}, {b, a}} {
		for _, size := range []int{0, 1, 12, 16<<10 - 12, 32 << 10, 32<<10 + 1, 1 << 20, 9 << 20} {
			s, p := open(t, ends[0], ends[1])
			want := random(size)
			var wg sync.WaitGroup
			wg.Go(func() {
				_, _ = io.Copy(p, p)
				_ = p.CloseWrite()
			})
			wg.Go(func() {
				_, _ = s.Write(want)
				_ = s.CloseWrite()
			})
			got, err := io.ReadAll(s)
			wg.Wait()
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("size %d: got %d bytes, %v", size, len(got), err)
			}
			_, _ = s.Close(), p.Close()
		}
	}
	eventually(t, "no streams left", func() bool { return a.Streams() == 0 && b.Streams() == 0 })
}

func testHalfClose(t *testing.T, pair pairFunc) {
	a, b := pair(t, tunnel.DefaultConfig())
	s, p := open(t, a, b)
	must(t, s.CloseWrite())
	if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("write after CloseWrite: %v", err)
	}
	if n, err := p.Read(make([]byte, 8)); n != 0 || err != io.EOF {
		t.Fatalf("read after the peer's CloseWrite: %d, %v", n, err)
	}
	// The other direction still works, both ways round.
	if _, err := p.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	must(t, p.CloseWrite())
	if got, err := io.ReadAll(s); string(got) != "still here" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	must(t, s.Close())
	must(t, s.Close())
	must(t, p.Close())
}

func testCloseWakes(t *testing.T, pair pairFunc) {
	cfg := tunnel.DefaultConfig()
	cfg.Window = 256 << 10
	a, b := pair(t, cfg)
	s, _ := open(t, a, b)
	errs := make(chan error, 2)
	go func() { _, err := s.Read(make([]byte, 1)); errs <- err }()
	blocked := make(chan struct{})
	go func() {
		close(blocked)
		_, err := s.Write(make([]byte, 8<<20))
		errs <- err
	}()
	<-blocked
	must(t, s.Close())
	for range 2 {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Fatalf("blocked call: %v", err)
		}
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("read after close: %v", err)
	}
	if err := s.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("deadline after close: %v", err)
	}
}

func testCloseDelivers(t *testing.T, pair pairFunc) {
	a, b := pair(t, tunnel.DefaultConfig())
	s, p := open(t, a, b)
	want := random(1 << 20)
	if _, err := s.Write(want); err != nil {
		t.Fatal(err)
	}
	must(t, s.Close())
	got, err := io.ReadAll(p)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
}

func testLateWriter(t *testing.T, pair pairFunc) {
	a, b := pair(t, tunnel.DefaultConfig())
	s, p := open(t, a, b)
	must(t, s.Close())
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := p.Write(make([]byte, 1000)); err != nil {
			if !errors.Is(err, tunnel.ErrReset) {
				t.Fatalf("got %v", err)
			}
			break
		}
		<-tick.C
	}
	eventually(t, "no streams left", func() bool { return a.Streams() == 0 && b.Streams() == 0 })
}

func testLinger(t *testing.T, pair pairFunc) {
	cfg := tunnel.DefaultConfig()
	cfg.CloseTimeout = 50 * time.Millisecond
	a, b := pair(t, cfg)
	s, p := open(t, a, b)
	must(t, s.Close())
	eventually(t, "no streams left", func() bool { return a.Streams() == 0 && b.Streams() == 0 })
	if _, err := p.Write([]byte("x")); !errors.Is(err, tunnel.ErrReset) {
		t.Fatalf("got %v", err)
	}
	// A stream that is only half closed may wait as long as it likes.
	s, p = open(t, a, b)
	must(t, s.CloseWrite())
	<-time.After(150 * time.Millisecond)
	if _, err := p.Write([]byte("late answer")); err != nil {
		t.Fatal(err)
	}
	must(t, p.Close())
	if got, err := io.ReadAll(s); string(got) != "late answer" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
}

func testOpenCanceled(t *testing.T, pair pairFunc) {
	cfg := tunnel.DefaultConfig()
	cfg.Backlog = 4
	a, b := pair(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Open(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	// Nobody accepts, so opens block in the end.
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var err error
	for n := 0; err == nil; n++ {
		if n > cfg.Backlog {
			t.Fatalf("%d opens with a backlog of %d", n, cfg.Backlog)
		}
		_, err = a.Open(ctx)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	// The tunnel is none the worse.
	for range cfg.Backlog {
		p, err := b.Accept()
		must(t, err)
		_ = p.Close()
	}
	s, err := a.Open(t.Context())
	must(t, err)
	_ = s.Close()
}

func testSlowReader(t *testing.T, pair pairFunc) {
	cfg := tunnel.DefaultConfig()
	cfg.Window = 256 << 10
	a, b := pair(t, cfg)
	slow, _ := open(t, a, b)
	blocked := make(chan error, 1)
	go func() { _, err := slow.Write(make([]byte, 16<<20)); blocked <- err }()
	for range 20 {
		s, p := open(t, a, b)
		want := random(1 << 20)
		go func() { _, _ = s.Write(want); _ = s.Close() }()
		got, err := io.ReadAll(p)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
		_ = p.Close()
	}
	select {
	case err := <-blocked:
		t.Fatalf("the peer read nothing, yet 16 MiB were written (%v)", err)
	default:
	}
	_ = slow.Close()
	<-blocked
}

func testNeverRead(t *testing.T, pair pairFunc) {
	cfg := tunnel.DefaultConfig()
	cfg.Window = 512 << 10
	a, b := pair(t, cfg)
	s, _ := open(t, a, b)
	n := 0
	for round := 0; n < 256<<10 && round < 20; round++ { // a busy machine takes more than one
		must(t, s.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
		m, err := s.Write(make([]byte, 16<<20))
		if n += m; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("wrote %d bytes, %v", n, err)
		}
	}
	if n > int(cfg.Window) || n < 256<<10 {
		t.Fatalf("peer took %d bytes unread with a window of %d", n, cfg.Window)
	}
}

func testBudget(t *testing.T, pair pairFunc) {
	cfg := tunnel.DefaultConfig()
	cfg.Window = 1 << 20
	cfg.MaxBuffered = 2 << 20
	a, b := pair(t, cfg)
	big, bigPeer := open(t, a, b)
	_, err := big.Write(make([]byte, 1<<20))
	must(t, err)
	var others []tunnel.Stream
	for range 5 {
		s, p := open(t, a, b)
		_ = s.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := s.Write(make([]byte, 200<<10)); err != nil {
			t.Fatal(err)
		}
		others = append(others, p)
	}
	// 2 MiB are exceeded by the last one: the greatest goes, the others stay whole.
	s, p := open(t, a, b)
	_, err = s.Write(make([]byte, 200<<10))
	must(t, err)
	eventually(t, "the greatest is cut", func() bool {
		_ = bigPeer.SetReadDeadline(time.Now())
		_, err := bigPeer.Read(make([]byte, 1))
		return errors.Is(err, tunnel.ErrOverBudget)
	})
	for _, o := range append(others, p) {
		if _, err := io.ReadFull(o, make([]byte, 200<<10)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "its writer learns it", func() bool {
		_, err := big.Write([]byte("x"))
		return errors.Is(err, tunnel.ErrReset)
	})
}
