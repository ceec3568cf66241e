package tunnel_test

import (
	"context"
	"net"
	"testing"

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

func TestQUIC(t *testing.T) {
	conformance(t, quicPair, func(t *testing.T, f func(*testing.T)) { f(t) })
}
