package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/websocket"
	"github.com/fairleadhq/fairlead/protocol"
)

// WebSocketDial dials through p and then asks for a WebSocket to the relay, whose stream leads to the relay's port. seen,
// which may be nil, is told of the outer TLS: it is a coat that a load balancer or proxy may end (see mtls.CoatTLS).
func WebSocketDial(p Proxy, seen func(tls.ConnectionState)) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("address of the relay: %w", err)
		}
		conn, err := p.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		t := tls.Client(conn, mtls.CoatTLS(host))
		if err := t.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("outer TLS: %w", err)
		}
		if seen != nil {
			seen(t.ConnectionState())
		}
		ws, err := websocket.Client(ctx, outer{t}, addr, protocol.PathWebSocket)
		if err != nil {
			conn.Close()
			return nil, explainWebSocket(err)
		}
		return ws, nil
	}
}

func explainWebSocket(err error) error {
	var refused *websocket.RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	switch {
	case refused.HTML:
		return fmt.Errorf("%w (a proxy's sign-in or block page? ask its admin to except this destination)", err)
	case refused.Status == 404:
		return fmt.Errorf("%w (the relay's agents.websocket is off, or it is older than this agent, or the load balancer does not pass %s on)", err, protocol.PathWebSocket)
	case refused.Status == 400 || refused.Status == 426:
		return fmt.Errorf("%w (a proxy or load balancer on the way takes the Upgrade header out: it must pass WebSocket)", err)
	case refused.Status == 502 || refused.Status == 503 || refused.Status == 504:
		return fmt.Errorf("%w (what ends TLS on the way does not reach the relay, or the relay is stopping)", err)
	}
	return err
}

// noteCoat logs who ends the outer TLS, when it is not the relay itself.
func noteCoat(log *slog.Logger, addr string, roots *tls.Config) func(tls.ConnectionState) {
	return func(cs tls.ConnectionState) {
		if len(cs.PeerCertificates) == 0 {
			return
		}
		if _, _, err := mtls.RelayIdentity(cs, roots.RootCAs); err != nil {
			log.Info("something on the way ends the outer TLS; the tunnel inside is encrypted from end to end",
				"relay", addr, "issuer", clip(cs.PeerCertificates[0].Issuer.String(), 100))
		}
	}
}
