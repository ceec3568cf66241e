package api

import (
	"context"
	"net/netip"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// syncTime is how long a change waits for the ports to be as it says. They will be all the same.
const syncTime = 5 * time.Second

type inNamed[T any] struct {
	Workspace string `path:"workspace" doc:"name or id"`
	Name      string `path:"name" doc:"name or id"`
	Body      T
}

func (a *API) gatewayRoutes() {
	const path = "/workspaces/{workspace}/connections/{name}/gateway"
	route(a, "PUT", path, authz.GatewaysEdit, "Give a connection a TCP port at the relay, or replace it; what no longer fits is cut", 200, func(ctx context.Context, v *visit, i *inNamed[client.SetGateway]) (*out[client.Connection], error) {
		c, err := v.workspace.Connection(i.Name)
		if err != nil {
			return nil, err
		}
		g, err := gatewayBody("", i.Body)
		if err != nil {
			return nil, err
		}
		release, err := a.reserve(g, c.ID)
		if err != nil {
			return nil, err
		}
		defer release()
		if c, err = a.cfg.Directory.SetGateway(ctx, v.workspace.ID, c.ID, g); err != nil {
			return nil, err
		}
		a.syncGateways(ctx)
		return &out[client.Connection]{a.connection(v, c)}, nil
	})
	route(a, "DELETE", path, authz.GatewaysDelete, "Close a connection's TCP port; what runs through it is cut", 204, func(ctx context.Context, v *visit, i *inName) (*none, error) {
		if err := a.cfg.Directory.DeleteGateway(ctx, v.workspace.ID, i.Name); err != nil {
			return nil, err
		}
		a.syncGateways(ctx)
		return nil, nil
	})
}

// createWithGateway makes a connection and its gateway, or neither.
func (a *API) createWithGateway(ctx context.Context, v *visit, group string, b directory.ConnectionBody, s client.SetGateway) (*out[client.Connection], error) {
	if d := authz.Decide(v.principal, authz.GatewaysEdit, authz.Scope{Workspace: v.workspace.ID}, v.at()); !d.Allow {
		return nil, a.deniedIn(ctx, v, mayNot(authz.GatewaysEdit, d))
	}
	g, err := gatewayBody("/gateway", s)
	if err != nil {
		return nil, err
	}
	release, err := a.reserve(g, "")
	if err != nil {
		return nil, err
	}
	defer release()
	c, err := a.cfg.Directory.CreateGatewayConnection(ctx, v.by(), v.workspace.ID, group, b, g)
	if err != nil {
		return nil, a.recorded(ctx, v, err)
	}
	a.syncGateways(ctx)
	return &out[client.Connection]{a.connection(v, c)}, nil
}

// reserve opens the port before anything is written.
func (a *API) reserve(g directory.GatewayBody, connection string) (release func(), err error) {
	if err := directory.CheckGateway(g); err != nil {
		return nil, err
	}
	return a.cfg.Gateways.Reserve(g.Address, connection)
}

func (a *API) syncGateways(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncTime)
	defer cancel()
	a.cfg.Gateways.Sync(ctx)
}

// gatewayBody reads what was asked for; at is where it stands in the body.
func gatewayBody(at string, s client.SetGateway) (directory.GatewayBody, error) {
	b := directory.GatewayBody{TLS: s.TLS, ClientCA: []byte(s.ClientCA), ProxyProtocol: s.ProxyProtocol}
	if b.TLS == "" {
		b.TLS = directory.GatewayPlain
	}
	var err error
	if b.Address, err = netip.ParseAddrPort(s.Address); err != nil {
		return b, invalid(at+"/address: not an address and port", "give an address of the relay's machine, no name: 10.0.0.5:15432 or [2001:db8::5]:15432")
	}
	b.Allow, err = parsePrefixes(at+"/allow", s.Allow)
	return b, err
}

// gateway tells of a connection's gateway; who may come in is told to those who may read allowlists.
func (a *API) gateway(v *visit, c *directory.Connection) *client.Gateway {
	g := c.Gateway
	if g == nil {
		return nil
	}
	o := &client.Gateway{ID: g.ID, Address: g.Address.String(), TLS: g.TLS, ProxyProtocol: g.ProxyProtocol, State: client.GatewayOpen}
	if authz.Decide(v.principal, authz.AllowlistRead, authz.Scope{Workspace: v.workspace.ID}, v.at()).Allow {
		o.Allow, o.ClientCA = prefixes(g.Allow), string(g.ClientCA)
	}
	st := a.cfg.Gateways.Status(c.ID)
	if !st.Open {
		o.State, o.Error = client.GatewayFailed, st.Fault
	}
	o.Conns = st.Conns
	return o
}
