package client

import (
	"context"
	"net/http"
)

// What a gateway's port speaks before the target's own bytes.
const (
	GatewayPlain  = "none"   // nothing: bytes pass as they are
	GatewayServer = "server" // TLS with the relay's certificate
	GatewayMutual = "mutual" // the same, and clients show a certificate of the gateway's CA
)

// States of a gateway.
const (
	GatewayOpen   = "open"
	GatewayFailed = "failed" // the port could not be opened: Error says why
)

// Gateway is a TCP port at the relay that leads to a connection's target.
type Gateway struct {
	ID      string `json:"id"` // the principal of who comes in through it
	Address string `json:"address"`
	TLS     string `json:"tls"`
	// Allow and ClientCA are shown to those who may read the workspace's allowlist.
	Allow         []string `json:"allow,omitempty"`
	ClientCA      string   `json:"client_ca,omitempty"` // PEM
	ProxyProtocol bool     `json:"proxy_protocol,omitempty"`
	State         string   `json:"state"`
	Error         string   `json:"error,omitempty"`
	Conns         int      `json:"conns"` // that are open now
}

// SetGateway asks for a gateway, in place of the one that is there. Allow empty admits nobody.
type SetGateway struct {
	Address       string   `json:"address"`
	TLS           string   `json:"tls,omitempty"` // "" means none
	Allow         []string `json:"allow,omitempty"`
	ClientCA      string   `json:"client_ca,omitempty"` // PEM; with mutual, and only there
	ProxyProtocol bool     `json:"proxy_protocol,omitempty"`
}

// SetGateway gives a connection a gateway, or replaces the one it has; what no longer fits is cut.
func (c *Client) SetGateway(ctx context.Context, connection string, g SetGateway) (Connection, error) {
	var k Connection
	return k, c.do(ctx, http.MethodPut, c.conn(connection, "gateway"), nil, g, &k)
}

// DeleteGateway closes a connection's gateway and cuts what runs through it.
func (c *Client) DeleteGateway(ctx context.Context, connection string) error {
	return c.do(ctx, http.MethodDelete, c.conn(connection, "gateway"), nil, nil, nil)
}
