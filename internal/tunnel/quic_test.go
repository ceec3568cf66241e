package tunnel_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// listenQUIC takes agents in as the relay does.
func (w *world) listenQUIC(t testing.TB, cfg tunnel.Config) *tunnel.QUICListener {
	t.Helper()
	sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	l, err := tunnel.ListenQUIC(sock, w.serve, nil, cfg)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// connectQUIC makes a tunnel over QUIC. With via, it goes there, and from there to the listener.
func (w *world) connectQUIC(t testing.TB, cfgC, cfgS tunnel.Config, via func(relay net.Addr) string) (tunnel.Tunnel, tunnel.Tunnel) {
	t.Helper()
	l := w.listenQUIC(t, cfgS)
	type result struct {
		t   tunnel.Tunnel
		err error
	}
	ch := make(chan result, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		s, err := l.Accept(ctx)
		ch <- result{s, err}
	}()
	addr := l.Addr().String()
	if via != nil {
		addr = via(l.Addr())
	}
	c, err := tunnel.DialQUIC(t.Context(), addr, w.client, cfgC)
	if err != nil {
		t.Fatal(err)
	}
	r := <-ch
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = r.t.Close() })
	return c, r.t
}

func quicPair(t *testing.T, cfg tunnel.Config) (tunnel.Tunnel, tunnel.Tunnel) {
	return newWorld(t).connectQUIC(t, cfg, cfg, nil)
}

// A relay that died without a word and is back says so to who still sends to the one before: nobody waits for a time-out.
func TestRestartIsSeenAtOnceOverQUIC(t *testing.T) {
	w := newWorld(t)
	cfg := tunnel.DefaultConfig()
	cfg.KeepAlive, cfg.PingTimeout = 400*time.Millisecond, time.Minute
	listen := func(at *net.UDPAddr, key byte) *tunnel.QUICListener {
		sock, err := net.ListenUDP("udp4", at)
		must(t, err)
		l, err := tunnel.ListenQUIC(sock, w.serve, &[32]byte{key}, cfg)
		must(t, err)
		t.Cleanup(func() { must(t, l.Close()) })
		return l
	}
	l := listen(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, 1)
	ch := make(chan tunnel.Tunnel, 1)
	go func() {
		s, err := l.Accept(t.Context())
		if err != nil {
			t.Error(err)
		}
		ch <- s
	}()
	a, err := tunnel.DialQUIC(t.Context(), l.Addr().String(), w.client, cfg)
	must(t, err)
	defer a.Close()
	s := <-ch
	_, err = a.Ping(t.Context())
	must(t, err)
	must(t, l.Close()) // without a word
	within(t, 10*time.Second, "the end at the relay", s.Done())
	listen(l.Addr().(*net.UDPAddr), 1)
	within(t, 10*time.Second, "the end at the agent", a.Done())
	if err := a.Err(); !errors.Is(err, tunnel.ErrPeerClosed) {
		t.Errorf("got %v", err)
	}
}

func TestQUIC(t *testing.T) {
	conformance(t, quicPair, quicFaults, func(t *testing.T, f func(*testing.T)) { f(t) })
}
