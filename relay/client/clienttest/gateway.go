package clienttest

import (
	"encoding/json"
	"net/http"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// InUse is an address whose port the relay cannot open.
const InUse = "192.0.2.1:1"

func gatewayOf(g client.SetGateway) *client.Gateway {
	if g.TLS == "" {
		g.TLS = client.GatewayPlain
	}
	return &client.Gateway{ID: "gwy_1", Address: g.Address, TLS: g.TLS, Allow: g.Allow, ClientCA: g.ClientCA, ProxyProtocol: g.ProxyProtocol, State: client.GatewayOpen}
}

// gatewayRoutes are those of a connection's gateway.
func (r *Relay) gatewayRoutes(handle func(pattern string, h func(w http.ResponseWriter, q *http.Request))) {
	find := func(w http.ResponseWriter, q *http.Request) *client.Connection {
		for i := range r.Connections {
			if r.Connections[i].Name == q.PathValue("name") {
				return &r.Connections[i]
			}
		}
		Fail(w, missing("connection"))
		return nil
	}
	handle("PUT /connections/{name}/gateway", func(w http.ResponseWriter, q *http.Request) {
		c := find(w, q)
		var g client.SetGateway
		_ = json.NewDecoder(q.Body).Decode(&g)
		switch {
		case c == nil:
		case g.Address == InUse:
			Fail(w, &protocol.Error{Code: protocol.CodeConflict, Message: "the port cannot be opened: it is in use on the relay's machine", Origin: protocol.OriginRelay})
		default:
			c.Gateway = gatewayOf(g)
			answer(w, 200, c)
		}
	})
	handle("DELETE /connections/{name}/gateway", func(w http.ResponseWriter, q *http.Request) {
		c := find(w, q)
		switch {
		case c == nil:
		case c.Gateway == nil:
			Fail(w, missing("gateway"))
		default:
			c.Gateway = nil
			w.WriteHeader(http.StatusNoContent)
		}
	})
}
