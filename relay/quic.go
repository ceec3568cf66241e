package relay

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// listenQUIC takes the UDP port of the same address and number as the TCP port. Its packets do not pass the port's ALPN: only
// tunnels are spoken there.
func (r *Relay) listenQUIC(ctx context.Context, at net.Addr, conf *tls.Config) (*tunnel.QUICListener, error) {
	tcp, ok := at.(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("agents.quic: %s has no UDP port beside it", at)
	}
	// The same at each start, so that agents learn at once that the process before ended without a word.
	key, err := setting(ctx, r.dir, "", "quic-reset-key", func() (secret.Bytes, error) {
		b := make([]byte, 32)
		_, err := rand.Read(b)
		return secret.New(b), err
	})
	if err != nil {
		return nil, fmt.Errorf("read the key of QUIC resets: %w", err)
	}
	if len(key.Expose()) != 32 {
		return nil, errors.New("the key of QUIC resets is malformed")
	}
	sock, err := net.ListenUDP("udp", &net.UDPAddr{IP: tcp.IP, Port: tcp.Port, Zone: tcp.Zone})
	if err != nil {
		return nil, fmt.Errorf("listen on UDP %s for QUIC: %w (free the port, or set agents.quic: false)", at, err)
	}
	return tunnel.ListenQUIC(sock, conf, (*[32]byte)(key.Expose()), r.tcfg)
}

// acceptQUIC serves the tunnels of agents that come by QUIC until the listener stops, as acceptTunnels does those of the port.
func (r *Relay) acceptQUIC(ctx context.Context) {
	for {
		t, err := r.quic.Accept(ctx)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			r.opt.Logger.Debug("tunnel refused", "error", err)
		default:
			r.tunnels.Go(func() { r.ServeTunnel(ctx, t) })
		}
	}
}
