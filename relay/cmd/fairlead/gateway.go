package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

// gatewayFlags say how a gateway lets clients in.
type gatewayFlags struct {
	Allow         []string `placeholder:"PREFIX" help:"Where clients may come from, beside the workspace's allowlist: 192.0.2.0/24, 198.51.100.7. May be given several times. Without it, nobody."`
	TLS           string   `name:"tls" placeholder:"none" help:"What the port speaks: none (bytes pass as they are), server (TLS with the relay's certificate), mutual (and clients show one)."`
	ClientCA      string   `name:"client-ca" type:"path" placeholder:"FILE" help:"With mutual: the CA that clients' certificates must be of, in PEM form."`
	ProxyProtocol bool     `help:"Have the agent tell the target the client's address (PROXY protocol, version 2)."`
}

// set gives the request for a gateway at an address; nil when there is none and no flag asks for one.
func (f gatewayFlags) set(address, prefix string) (*client.SetGateway, error) {
	given := len(f.Allow) > 0 || f.TLS != "" || f.ClientCA != "" || f.ProxyProtocol
	if address == "" {
		if given {
			return nil, cli.Usage("--%sallow and its like want an address and port beside them", prefix)
		}
		return nil, nil
	}
	if ap, err := netip.ParseAddrPort(address); err != nil || ap.Port() == 0 {
		return nil, cli.Usage("%q is not ADDRESS:PORT of the relay's machine; want 10.0.0.5:15432 or [2001:db8::5]:15432", address)
	}
	g := &client.SetGateway{Address: address, TLS: f.TLS, Allow: f.Allow, ProxyProtocol: f.ProxyProtocol}
	switch f.TLS {
	case "", client.GatewayPlain, client.GatewayServer, client.GatewayMutual:
	default:
		return nil, cli.Usage("--%stls %q: want none, server or mutual", prefix, f.TLS)
	}
	if (f.TLS == client.GatewayMutual) != (f.ClientCA != "") {
		return nil, cli.Usage("--%stls mutual and --%sclient-ca FILE belong together", prefix, prefix)
	}
	if f.ClientCA != "" {
		b, err := os.ReadFile(f.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("read the CA of clients: %w", err)
		}
		g.ClientCA = string(b)
	}
	return g, nil
}

type connectionsGateway struct {
	Name    string `arg:"" help:"Name or id of the connection."`
	Address string `arg:"" placeholder:"ADDRESS:PORT" help:"Address and port of the relay's machine, which relay.yaml must allow; or \"off\"."`
	gatewayFlags
	cli.Output
	ifMatch
}

func (*connectionsGateway) Examples() []string {
	return []string{
		"fairlead connections gateway sales 10.0.0.5:15432 --allow 192.0.2.0/24",
		"fairlead connections gateway sales 10.0.0.5:15432 --allow 192.0.2.0/24 --tls mutual --client-ca clients.pem",
		"fairlead connections gateway sales off",
	}
}

func (k *connectionsGateway) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	var g *client.SetGateway
	if k.Address == "off" {
		if _, err := k.set("", ""); err != nil {
			return cli.Usage("off takes no further flag")
		}
	} else {
		var err error
		if g, err = k.set(k.Address, ""); err != nil {
			return err
		}
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if g == nil {
		if err := k.on(c).DeleteGateway(ctx, k.Name); err != nil {
			return err
		}
		t.Notef("the gateway of %s is off; what ran through it is cut\n", cli.Clean(k.Name))
		return nil
	}
	made, err := k.on(c).SetGateway(ctx, k.Name, *g)
	if err != nil {
		return err
	}
	if k.JSON() {
		return t.JSON(made)
	}
	noteGateway(t, made.Gateway)
	return nil
}

// noteGateway says what became of a gateway that was asked for.
func noteGateway(t *cli.Term, g *client.Gateway) {
	if g == nil {
		return
	}
	t.Notef("gateway at %s: %s\n", cli.Clean(g.Address), cli.Clean(gatewayState(g)))
	if len(g.Allow) == 0 {
		t.Notef("it admits nobody: its allowlist is empty\n")
	}
	if g.TLS == client.GatewayPlain {
		t.Notef("bytes pass as they are: what the client does not encrypt itself can be read on the way to the relay\n")
	}
}

func gatewayState(g *client.Gateway) string {
	if g.State == client.GatewayFailed {
		return "failed: " + g.Error
	}
	return g.State
}

// gatewayCell is a gateway in a table of connections.
func gatewayCell(g *client.Gateway) string {
	switch {
	case g == nil:
		return ""
	case g.State != client.GatewayOpen:
		return g.Address + " (" + gatewayState(g) + ")"
	}
	return g.Address
}

func printGateway(t *cli.Term, g *client.Gateway) {
	if g == nil {
		return
	}
	proxy := ""
	if g.ProxyProtocol {
		proxy = "yes"
	}
	t.Printf("\n")
	for _, line := range [][2]string{{"gateway", g.Address}, {"state", gatewayState(g)}, {"TLS", g.TLS}, {"admits", strings.Join(g.Allow, " ")}, {"PROXY protocol", proxy},
		{"open conns", fmt.Sprint(g.Conns)}, {"principal", g.ID}} {
		if line[1] != "" {
			t.Printf("%-22s %s\n", line[0]+":", cli.Clean(line[1]))
		}
	}
}
