package tunnel_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// A road is a way for datagrams between an agent and a relay, as a NAT or a firewall is: it can lose them, and come from
// another port all at once.
type road struct {
	t           testing.TB
	near        *net.UDPConn
	relay       *net.UDPAddr
	lose, block atomic.Bool // what goes to the relay, what comes from it
	carried     atomic.Int64

	mu    sync.Mutex // guards the fields below
	agent *net.UDPAddr
	far   *net.UDPConn
	tasks sync.WaitGroup
}

func newRoad(t testing.TB, relay net.Addr) *road {
	near, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	r := &road{t: t, near: near, relay: relay.(*net.UDPAddr)}
	r.rebind()
	r.tasks.Go(r.there)
	t.Cleanup(func() {
		_ = near.Close()
		r.mu.Lock()
		_ = r.far.Close()
		r.mu.Unlock()
		r.tasks.Wait()
	})
	return r
}

func (r *road) addr() string { return r.near.LocalAddr().String() }

// rebind sends from another port from now on, and forgets the old one.
func (r *road) rebind() {
	far, err := net.DialUDP("udp4", nil, r.relay)
	must(r.t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.far != nil {
		_ = r.far.Close()
	}
	r.far = far
	r.tasks.Go(func() { r.back(far) })
}

func (r *road) there() {
	b := make([]byte, 64<<10)
	for {
		n, from, err := r.near.ReadFromUDP(b)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.agent = from
		far := r.far
		r.mu.Unlock()
		if !r.lose.Load() {
			r.carried.Add(int64(n))
			_, _ = far.Write(b[:n])
		}
	}
}

func (r *road) back(far *net.UDPConn) {
	b := make([]byte, 64<<10)
	for {
		n, err := far.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		r.mu.Lock()
		to := r.agent
		r.mu.Unlock()
		if err == nil && to != nil && !r.block.Load() {
			_, _ = r.near.WriteToUDP(b[:n], to)
		}
	}
}

// Datagrams that are lost from some moment on, without a word from the network: UDP that a firewall stops.
func TestPeerDeathIsSeenOverQUIC(t *testing.T) {
	for name, stop := range map[string]func(*road){
		"Z29 both directions": func(r *road) { r.lose.Store(true); r.block.Store(true) },
		"Z29 to the peer":     func(r *road) { r.lose.Store(true) },
		"Z29 from the peer":   func(r *road) { r.block.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			var r *road
			cfg := quick()
			cfg.PingTimeout, cfg.WriteTimeout = 500*time.Millisecond, 2*time.Second
			a, b := newWorld(t).connectQUIC(t, cfg, cfg, func(relay net.Addr) string { r = newRoad(t, relay); return r.addr() })
			s, p := open(t, a, b)
			got := make(chan error, 2)
			go func() { _, err := s.Read(make([]byte, 1)); got <- err }()
			go func() { _, err := p.Read(make([]byte, 1)); got <- err }()
			// It lives as long as pings come back, many times the limit.
			idle := time.NewTimer(1500 * time.Millisecond)
			defer idle.Stop()
			select {
			case <-a.Done():
				t.Fatal(a.Err())
			case <-b.Done():
				t.Fatal(b.Err())
			case <-idle.C:
			}
			stop(r)
			start := time.Now()
			within(t, 10*time.Second, "the end at the agent", a.Done())
			within(t, 10*time.Second, "the end at the relay", b.Done())
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("it took %v", d)
			}
			lost := 0
			for _, e := range []tunnel.Tunnel{a, b} {
				if errors.Is(e.Err(), tunnel.ErrPeerLost) {
					lost++
				} else if !errors.Is(e.Err(), tunnel.ErrPeerClosed) { // the other side's goodbye came through
					t.Errorf("tunnel: %v", e.Err())
				}
			}
			if lost == 0 {
				t.Error("neither side found out by itself")
			}
			for range 2 {
				if err := <-got; !errors.Is(err, tunnel.ErrPeerLost) && !errors.Is(err, tunnel.ErrPeerClosed) {
					t.Errorf("stream: %v", err)
				}
			}
		})
	}
}

// The agent's address changes under a transfer, as a NAT does it that forgot, or a laptop that changes networks: no byte is lost.
func TestTunnelOutlivesAChangeOfAddress(t *testing.T) {
	var r *road
	a, b := newWorld(t).connectQUIC(t, tunnel.DefaultConfig(), tunnel.DefaultConfig(), func(relay net.Addr) string { r = newRoad(t, relay); return r.addr() })
	before := b.RemoteAddr().String()
	s, p := open(t, a, b)
	want := random(1 << 20)
	for round := range 3 {
		go func() { _, _ = s.Write(want) }()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(p, got[:100<<10]); err != nil {
			t.Fatal(err)
		}
		r.rebind()
		if _, err := io.ReadFull(p, got[100<<10:]); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	eventually(t, "the relay knows the new address", func() bool {
		_, err := b.Ping(t.Context())
		return err == nil && b.RemoteAddr().String() != before
	})
}

// slowReader reads less than it could, with a pause.
type slowReader struct{ r io.Reader }

func (s slowReader) Read(p []byte) (int, error) {
	<-time.After(5 * time.Millisecond)
	return s.r.Read(p[:min(len(p), 32<<10)])
}
