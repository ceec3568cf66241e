package uplink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// Applies reports whether the way to addr leads through a proxy.
func (p Proxy) Applies(addr string) bool {
	if !p.FromEnvironment {
		return p.URL != nil
	}
	e, err := p.fromEnvironment(addr)
	return err != nil || e.URL != nil // one that cannot be understood is no leave to go round it
}

// udp reports whether UDP can be sent to addr: a proxy carries none.
func (u *Uplink) udp(addr string) bool { return !u.cfg.Proxy.Applies(addr) }

func (u *Uplink) dialQUIC(ctx context.Context, addr string) (tunnel.Tunnel, error) {
	if !u.udp(addr) {
		return nil, outError{errors.New("a proxy stands on the way to the relay, and QUIC does not go through it: use relay.transport: auto, or name the relay in NO_PROXY")}
	}
	t, err := tunnel.DialQUIC(ctx, addr, u.cfg.TLS, u.cfg.Tunnel)
	if err != nil {
		return nil, fmt.Errorf("dial over QUIC: %w", err)
	}
	return t, nil
}

// offer tries QUIC beside a tunnel over TCP that serves meanwhile, now or when its time has come, until it works. Then it
// hands the new tunnel over. Nothing is lost by a try that fails.
func (u *Uplink) offer(ctx context.Context, addr string, better chan<- tunnel.Tunnel) {
	for {
		wait := time.NewTimer(u.ways.untilQUIC(addr))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		t, err := u.proveQUIC(ctx, addr)
		if err == nil {
			select {
			case better <- t:
			case <-ctx.Done():
				_ = t.Close()
			}
			return
		}
		if ctx.Err() != nil {
			return
		}
		u.ways.stay(addr, err)
	}
}

// proveQUIC dials, and lets a round trip to the relay show that it let us in.
func (u *Uplink) proveQUIC(ctx context.Context, addr string) (tunnel.Tunnel, error) {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.QUICTimeout)
	defer cancel()
	t, err := u.dialQUIC(ctx, addr)
	if err != nil {
		return nil, err
	}
	if _, err := t.Ping(ctx); err != nil {
		_ = t.Close()
		return nil, err
	}
	return t, nil
}
