package relay

import (
	"errors"
	"net"
	"net/http"
	"net/netip"

	"github.com/fairleadhq/fairlead/internal/websocket"
	"github.com/fairleadhq/fairlead/protocol"
)

// serveWebSocket takes an agent in that reaches the relay by HTTP alone. Nothing is believed of the request, nor of the TLS
// that it came in: its bytes pass the gate of the port (tunnel.Mux.Hand), so the certificate inside says who it is, and the
// bounds of the port hold. source is a name for the log and the bounds.
func (r *Relay) serveWebSocket(w http.ResponseWriter, req *http.Request, source netip.Addr) error {
	select {
	case <-r.stopping:
		return protocol.Errorf(protocol.CodeUnavailable, "the relay is stopping")
	default:
	}
	conn, err := websocket.Accept(w, req)
	var fault *websocket.HandshakeError
	switch {
	case errors.As(err, &fault) && fault.Status == http.StatusForbidden:
		return protocol.Errorf(protocol.CodeDenied, "%s", fault.Message)
	case errors.As(err, &fault):
		w.Header().Set("Sec-WebSocket-Version", "13")
		return protocol.Errorf(protocol.CodeInvalid, "%s", fault.Message)
	case err != nil:
		r.opt.Logger.Debug("WebSocket", "from", req.RemoteAddr, "error", err)
		return nil // the conn is gone; there is nobody to tell
	}
	// A trusted proxy names who stands behind it; one that names nobody leaves its own address.
	if at, err := netip.ParseAddrPort(req.RemoteAddr); err == nil && source.IsValid() && source != at.Addr().Unmap().WithZone("") {
		conn.SetRemoteAddr(net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0)))
	}
	if err := r.mux.Hand(conn); err != nil {
		r.opt.Logger.Debug("WebSocket refused", "from", conn.RemoteAddr().String(), "error", err)
	}
	return nil
}
