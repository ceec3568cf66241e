package tunnel_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// faults are what the suite can do to the line between a pair, or nothing where there is none.
type faults struct {
	die   func() // nothing comes from the client's peer any more and nothing goes there, without a word from the network
	stick func() // the line takes no more of the client's bytes
	letGo func() // wakes what stick holds up

	stuck func() tunnel.Tunnel // instead of stick: one that has such a peer from the start
}

// A faultyPair makes both ends of a tunnel as a pairFunc does, and what can be done to the line between them.
type faultyPair func(t *testing.T, cfg tunnel.Config) (client, server tunnel.Tunnel, line faults)

func tlsFaults(t *testing.T, cfg tunnel.Config) (tunnel.Tunnel, tunnel.Tunnel, faults) {
	var c *stalling
	a, b := newWorld(t).connect(t, cfg, cfg, func(conn net.Conn) net.Conn { c = newStalling(conn); return c }, nil)
	return a, b, c.faults()
}

func webSocketFaults(t *testing.T, cfg tunnel.Config) (tunnel.Tunnel, tunnel.Tunnel, faults) {
	var c *stalling
	a, b := newWorld(t).connectWebSocket(t, cfg, cfg, func(conn net.Conn) net.Conn { c = newStalling(conn); return c })
	return a, b, c.faults()
}

func newStalling(c net.Conn) *stalling {
	return &stalling{faulty: newFaulty(c), full: make(chan struct{})}
}

func (s *stalling) faults() faults {
	return faults{
		die:   func() { s.deaf.Store(true); s.dumb.Store(true) },
		stick: func() { close(s.full) },
		letGo: s.letGo,
	}
}

// Read keeps an end to itself that the peer sent after it died: a dead line carries no goodbye.
func (s *stalling) Read(p []byte) (int, error) {
	n, err := s.faulty.Read(p)
	if err != nil && s.deaf.Load() {
		<-s.release
	}
	return n, err
}

// stalling is a connection whose Write waits, once full is closed, until the connection is closed: a kernel's buffer that is full.
type stalling struct {
	*faulty
	full chan struct{}
}

func (s *stalling) Write(p []byte) (int, error) {
	select {
	case <-s.full:
		<-s.release
		return 0, net.ErrClosed
	default:
		return s.faulty.Write(p)
	}
}

func quicFaults(t *testing.T, cfg tunnel.Config) (tunnel.Tunnel, tunnel.Tunnel, faults) {
	var r *road
	a, b := newWorld(t).connectQUIC(t, cfg, cfg, func(relay net.Addr) string { r = newRoad(t, relay); return r.addr() })
	return a, b, faults{
		die: func() { r.lose.Store(true); r.block.Store(true) },
		stuck: func() tunnel.Tunnel { // a line that takes no datagrams is a dead one: what is slow to take bytes is the peer
			_, tun := rawQUIC(t, cfg, &quic.Config{InitialConnectionReceiveWindow: 4 << 10, MaxConnectionReceiveWindow: 4 << 10,
				KeepAlivePeriod: 50 * time.Millisecond, MaxIncomingStreams: 10, MaxIncomingUniStreams: 1})
			return tun
		},
	}
}

// Nothing lies between the ends of a tunnel in memory.
func memoryFaults(t *testing.T, cfg tunnel.Config) (tunnel.Tunnel, tunnel.Tunnel, faults) {
	a, b := memoryPair(t, cfg)
	return a, b, faults{}
}

// A faultCase is held by every transport but those that it names with the reason.
type faultCase struct {
	name   string
	test   func(*testing.T, faultyPair)
	cannot map[string]string // transport: why it cannot have the fault
}

var faultCases = []faultCase{
	{"Z29 peer death ends everything that waits", testPeerDeath, map[string]string{
		"memory": "both ends are one process: neither can be there without the other; that a closed one is seen is \"close while streams are open\"",
	}},
	{"a line that takes no bytes ends at the write time-out", testWriteTimeout, map[string]string{
		"memory": "a Write puts its bytes into the reader's window, there is no line that could take none; that it waits for the window alone is \"D17 never-read stream is bounded\"",
	}},
	{"drain loses nothing of closed streams", testDrain, nil},
}

// Whoever waits learns it, each for the same reason: readers, those who accept, who opens next.
func testPeerDeath(t *testing.T, pair faultyPair) {
	cfg := tunnel.DefaultConfig()
	cfg.KeepAlive, cfg.PingTimeout = 200*time.Millisecond, 2*time.Second
	a, b, line := pair(t, cfg)
	s, p := open(t, a, b)
	_, err := s.Write([]byte("before"))
	must(t, err)
	if _, err := io.ReadFull(p, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	go func() { _, err := s.Read(make([]byte, 1)); errs <- err }()
	go func() { _, err := a.Accept(); errs <- err }()
	line.die()
	within(t, 20*time.Second, "the end at the client", a.Done())
	within(t, 20*time.Second, "the end at the server", b.Done())
	if !errors.Is(a.Err(), tunnel.ErrPeerLost) {
		t.Errorf("tunnel: %v", a.Err())
	}
	for range 2 {
		if err := <-errs; !errors.Is(err, tunnel.ErrPeerLost) {
			t.Errorf("what waited: %v", err)
		}
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, tunnel.ErrPeerLost) {
		t.Errorf("write: %v", err)
	}
	if _, err := a.Open(t.Context()); !errors.Is(err, tunnel.ErrPeerLost) {
		t.Errorf("open: %v", err)
	}
}

// The pings have all the time of the world here: writers alone must find out, and tell the others.
func testWriteTimeout(t *testing.T, pair faultyPair) {
	cfg := tunnel.DefaultConfig()
	cfg.KeepAlive, cfg.PingTimeout, cfg.WriteTimeout = 300*time.Millisecond, time.Minute, 500*time.Millisecond
	cfg.Window, cfg.MaxBuffered = 16<<20, 1<<30
	a, _, line := pair(t, cfg)
	if line.stuck != nil {
		a = line.stuck()
	}
	var streams []tunnel.Stream
	for range 8 { // the windows of all take more than the kernel's buffers
		s, err := a.Open(t.Context())
		must(t, err)
		streams = append(streams, s)
	}
	idle, err := a.Open(t.Context())
	must(t, err)
	if line.stick != nil {
		line.stick()
	}
	writersFindOut(t, a, streams, idle, 30*time.Second)
	if err := a.Err(); !errors.Is(err, tunnel.ErrWriteTimeout) {
		t.Errorf("tunnel: %v", err)
	}
	if line.letGo != nil {
		line.letGo()
	}
}

// What was written to streams that are closed is not lost with the tunnel, however slow its reader.
func testDrain(t *testing.T, pair faultyPair) {
	a, b, _ := pair(t, tunnel.DefaultConfig())
	want := random(3 << 20)
	var wg sync.WaitGroup
	for range 5 {
		s, p := open(t, a, b)
		wg.Go(func() {
			got, err := io.ReadAll(io.MultiReader(io.LimitReader(slowReader{p}, 1<<20), p))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			_ = p.Close()
		})
		if _, err := s.Write(want); err != nil {
			t.Fatal(err)
		}
		must(t, s.Close())
	}
	must(t, tunnel.Settle(t.Context(), a))
	if a.Transport() == "quic" { // the others hand on what was sent before, a goodbye included
		must(t, a.Close())
	}
	wg.Wait()
}

// writersFindOut writes to all streams until the tunnel has ended, and expects its reason from each, and from the reader of an idle one.
func writersFindOut(t *testing.T, a tunnel.Tunnel, streams []tunnel.Stream, idle tunnel.Stream, limit time.Duration) {
	t.Helper()
	errs := make(chan error, len(streams)+1)
	for _, s := range streams {
		go func() {
			var err error
			for err == nil {
				_, err = s.Write(make([]byte, 64<<10))
			}
			errs <- err
		}()
	}
	go func() { _, err := idle.Read(make([]byte, 1)); errs <- err }()
	within(t, limit, "the end of the tunnel", a.Done())
	for range len(streams) + 1 {
		if err := <-errs; !errors.Is(err, tunnel.ErrWriteTimeout) {
			t.Errorf("got %v", err)
		}
	}
}
