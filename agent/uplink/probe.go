package uplink

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// Results of a Finding.
const (
	ProbePasses  = "passes"
	ProbeFails   = "fails"
	ProbeSkipped = "skipped"
)

// Finding is what Probe found of one way to one relay.
type Finding struct {
	Address   string  `json:"address"`
	Transport string  `json:"transport"` // TransportTCP, TransportWebSocket or TransportQUIC
	Proxy     bool    `json:"proxy"`     // the way leads through a proxy
	Result    string  `json:"result"`
	Connected float64 `json:"connected_ms,omitempty"`  // until both sides had shown who they are
	RoundTrip float64 `json:"round_trip_ms,omitempty"` // within the tunnel
	Reason    string  `json:"reason,omitempty"`        // of a failure, and what to do about it; or why it was skipped
	Used      bool    `json:"used"`                    // the agent's setting lets it take this way
}

// Probe tries every way to every address of cfg and tells found of each as it is known: connection, both certificates, one round
// trip within the tunnel. Each has timeout for itself. It offers nothing and asks for nothing, so the relay takes it for no
// agent that serves, and the agent itself may run meanwhile. Of cfg it reads Addresses, Proxy, TLS, Tunnel, Transport and Dial.
func Probe(ctx context.Context, cfg Config, timeout time.Duration, found func(Finding)) {
	u := &Uplink{cfg: cfg}
	for _, addr := range cfg.Addresses {
		for _, way := range []string{TransportTCP, TransportWebSocket, TransportQUIC} {
			f := Finding{Address: addr, Transport: way, Proxy: cfg.Proxy.Applies(addr),
				Used: cfg.Transport == "" || cfg.Transport == TransportAuto || cfg.Transport == way}
			if way == TransportQUIC && f.Proxy {
				f.Result, f.Reason = ProbeSkipped, "the way leads through a proxy, and QUIC does not go through one"
			} else {
				u.probe(ctx, timeout, &f)
			}
			found(f)
			if ctx.Err() != nil {
				return
			}
		}
	}
}

func (u *Uplink) probe(ctx context.Context, timeout time.Duration, f *Finding) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	f.Result = ProbeFails
	begun := time.Now()
	t, err := u.probeDial(ctx, f.Address, f.Transport)
	if err != nil {
		f.Reason = explain(err)
		return
	}
	defer t.Close()
	f.Connected = millis(time.Since(begun))
	// In TLS 1.3 a client sees only by the first answer whether the relay took its certificate.
	asked := time.Now()
	if _, err := t.Ping(ctx); err != nil {
		f.Reason = explain(fmt.Errorf("the relay does not answer within the tunnel: %w", err))
		return
	}
	f.Result, f.RoundTrip = ProbePasses, millis(time.Since(asked))
}

func (u *Uplink) probeDial(ctx context.Context, addr, way string) (tunnel.Tunnel, error) {
	switch {
	case u.cfg.Dial != nil:
		return u.cfg.Dial(ctx, addr)
	case way == TransportQUIC:
		return u.dialQUIC(ctx, addr)
	case way == TransportWebSocket:
		return tunnel.Dial(ctx, addr, u.cfg.TLS, WebSocketDial(u.cfg.Proxy, nil), u.cfg.Tunnel)
	}
	return tunnel.Dial(ctx, addr, u.cfg.TLS, func(ctx context.Context, network, addr string) (net.Conn, error) {
		return u.cfg.Proxy.Dial(ctx, network, addr)
	}, u.cfg.Tunnel)
}

func millis(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}
