package directory

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// What a gateway's port speaks before the target's own bytes.
const (
	GatewayPlain  = "none"   // nothing: bytes pass as they are
	GatewayServer = "server" // TLS with the relay's certificate
	GatewayMutual = "mutual" // the same, and the client's certificate must be of the gateway's CA
)

// Limits of a gateway.
const (
	MaxGatewayAllow = 1000     // prefixes
	MaxGatewayCA    = 64 << 10 // bytes of its CA in PEM form
	maxGatewayCerts = 16
)

// GatewayBody is what people gave.
type GatewayBody struct {
	Address  netip.AddrPort `json:"address"`
	TLS      string         `json:"tls"`
	Allow    []netip.Prefix `json:"allow,omitempty"`     // where clients may come from; empty admits nobody
	ClientCA []byte         `json:"client_ca,omitempty"` // PEM; with GatewayMutual, and only there
	// ProxyProtocol has the agent tell the target the client's address.
	ProxyProtocol bool `json:"proxy_protocol,omitempty"`
}

// Gateway is a TCP port at the relay that leads to a connection's target.
type Gateway struct {
	ID, Workspace string
	Connection    string // id
	GatewayBody
	Allowlist *allowlist.List // of Allow
	ClientCAs *x509.CertPool  // of ClientCA, nil without

	sealed []byte
}

// gatewaySeal repeats the id, so that a gateway's id that was changed by hand is noticed.
type gatewaySeal struct {
	ID string `json:"id"`
	GatewayBody
}

// SameDoor reports whether whoever was let in through one would have been through the other, but for their allowlists: same
// address, same TLS, same CA.
func (g *Gateway) SameDoor(o *Gateway) bool {
	return g.ID == o.ID && g.Address == o.Address && g.TLS == o.TLS && bytes.Equal(g.ClientCA, o.ClientCA) && g.ProxyProtocol == o.ProxyProtocol
}

// CheckGateway tells what is wrong with what people gave.
func CheckGateway(b GatewayBody) error {
	a := b.Address.Addr()
	switch {
	case !b.Address.IsValid() || b.Address.Port() == 0 || a.Zone() != "" || a.Is4In6() || a.IsMulticast():
		return invalid("the gateway's address is not usable", "give an address of the relay's machine and a port, such as 10.0.0.5:15432 or [2001:db8::5]:15432")
	case b.TLS != GatewayPlain && b.TLS != GatewayServer && b.TLS != GatewayMutual:
		return invalid("the gateway's TLS mode is not one", "use none, server or mutual")
	case b.TLS == GatewayMutual && len(b.ClientCA) == 0:
		return invalid("mutual TLS wants the CA of the clients' certificates", "give the CA's certificates in PEM form")
	case b.TLS != GatewayMutual && len(b.ClientCA) > 0:
		return invalid("a CA of clients is of use with mutual TLS alone", "use TLS mode mutual, or leave the CA out")
	case len(b.Allow) > MaxGatewayAllow:
		return &protocol.Error{Code: protocol.CodeTooLarge, Message: "the gateway's allowlist is too long", Hint: fmt.Sprintf("give at most %d prefixes", MaxGatewayAllow)}
	}
	for _, p := range b.Allow {
		if !plainPrefix(p) {
			return invalid("a prefix is not in its plain form", "give prefixes like 10.0.0.0/8 or 2001:db8::/32, without host bits")
		}
	}
	if b.TLS == GatewayMutual {
		_, err := clientCAs(b.ClientCA)
		return err
	}
	return nil
}

func plainPrefix(p netip.Prefix) bool {
	return p.IsValid() && p.Masked() == p && !p.Addr().Is4In6() && p.Addr().Zone() == ""
}

// clientCAs reads certificates of authorities, and nothing else.
func clientCAs(text []byte) (*x509.CertPool, error) {
	if len(text) > MaxGatewayCA {
		return nil, &protocol.Error{Code: protocol.CodeTooLarge, Message: "the CA of the clients is too long", Hint: fmt.Sprintf("give at most %d bytes", MaxGatewayCA)}
	}
	pool, n := x509.NewCertPool(), 0
	for rest := bytes.TrimSpace(text); len(rest) > 0; n++ {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil || b.Type != "CERTIFICATE" || n == maxGatewayCerts {
			return nil, invalid("the CA of the clients is not a list of certificates", fmt.Sprintf("give 1 to %d certificates in PEM form and nothing else: no key belongs there", maxGatewayCerts))
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil || !c.IsCA || !c.BasicConstraintsValid {
			return nil, invalid("the CA of the clients holds what is no certificate of an authority", "give the certificate that signs the clients' own")
		}
		pool.AddCert(c)
		rest = bytes.TrimSpace(rest)
	}
	if n == 0 {
		return nil, invalid("the CA of the clients is empty", "give the CA's certificates in PEM form")
	}
	return pool, nil
}

// SetGateway gives a connection (name or id) a gateway, or replaces what it has. An address that another gateway has, or
// that overlaps with another's, is refused (conflict).
func (d *Directory) SetGateway(ctx context.Context, workspace, connection string, b GatewayBody) (*Connection, error) {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return nil, err
	}
	c, err := w.Connection(connection)
	if err != nil {
		return nil, err
	}
	d.gateways.Lock()
	defer d.gateways.Unlock()
	if err := d.checkGateway(c.ID, b); err != nil {
		return nil, err
	}
	if err := d.change(ctx, func(tx *store.Tx) error { return d.putGateway(tx, w.ID, c.ID, b) }); err != nil {
		return nil, err
	}
	return d.Snapshot().before(w.ID).Connection(c.ID)
}

// CreateGatewayConnection is CreateConnectionBy with a gateway: both are there afterwards, or neither.
func (d *Directory) CreateGatewayConnection(ctx context.Context, by By, workspace, group string, b ConnectionBody, g GatewayBody) (*Connection, error) {
	d.gateways.Lock()
	defer d.gateways.Unlock()
	if err := d.checkGateway("", g); err != nil {
		return nil, err
	}
	return d.createConnection(ctx, &by, workspace, group, b, func(tx *store.Tx, workspace, connection string) error {
		return d.putGateway(tx, workspace, connection, g)
	})
}

// checkGateway also looks at the addresses of all others, of whatever workspace: the relay's ports are shared. d.gateways is
// held.
func (d *Directory) checkGateway(connection string, b GatewayBody) error {
	if err := CheckGateway(b); err != nil {
		return err
	}
	for _, w := range d.Snapshot().Workspaces() {
		for _, c := range w.Connections {
			if o := c.Gateway; o != nil && c.ID != connection && overlap(o.Address, b.Address) {
				return addressTaken()
			}
		}
	}
	return nil
}

func addressTaken() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeConflict, Message: "another gateway has this address and port", Hint: "choose another port"}
}

// overlap: an unspecified address takes the port of all addresses of its family.
func overlap(a, b netip.AddrPort) bool {
	x, y := a.Addr(), b.Addr()
	return a.Port() == b.Port() && (x == y || x.Is4() == y.Is4() && (x.IsUnspecified() || y.IsUnspecified()))
}

func (d *Directory) putGateway(tx *store.Tx, workspace, connection string, b GatewayBody) error {
	old, err := tx.Gateway(workspace, connection)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	g := store.Gateway{ID: old.ID, Workspace: workspace, Connection: connection, Version: old.Version + 1}
	if g.ID == "" {
		g.ID = NewID("gwy")
	}
	digest, err := d.vault.Digest("", vault.GatewayAddress, b.Address.String())
	if err != nil {
		return err
	}
	b.Allow = slices.Clone(b.Allow)
	slices.SortFunc(b.Allow, comparePrefix)
	b.Allow = slices.Compact(b.Allow)
	g.AddressDigest = digest[:]
	if g.Sealed, err = seal(d.vault, place(workspace, "gateways", connection, g.Version), gatewaySeal{g.ID, b}); err != nil {
		return err
	}
	return as(tx.PutGateway(g), protocol.Errorf(protocol.CodeNotFound, "no such connection"), addressTaken())
}

// DeleteGateway takes a connection's gateway away. The connection stays.
func (d *Directory) DeleteGateway(ctx context.Context, workspace, connection string) error {
	w, err := d.Snapshot().Workspace(workspace)
	if err != nil {
		return err
	}
	c, err := w.Connection(connection)
	if err != nil {
		return err
	}
	return d.change(ctx, func(tx *store.Tx) error {
		return as(tx.DeleteGateway(w.ID, c.ID), protocol.Errorf(protocol.CodeNotFound, "the connection has no gateway"), nil)
	})
}

// addGateways gives connections their gateways. It comes after addConnections.
func (s *Snapshot) addGateways(v *vault.Vault, st *store.State, prev *Snapshot) error {
	for _, r := range st.Gateways {
		w, err := s.in("gateway", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		c := w.connections[r.Connection]
		if c == nil {
			return fmt.Errorf("gateway %s belongs to no connection", r.ID)
		}
		var g *Gateway
		if old := prev.before(r.Workspace).connections[r.Connection]; old != nil {
			g = old.Gateway
		}
		if g == nil || g.ID != r.ID || !bytes.Equal(g.sealed, r.Sealed) {
			var body gatewaySeal
			if err := open(v, place(r.Workspace, "gateways", r.Connection, r.Version), r.Sealed, &body); err != nil {
				return err
			}
			g = &Gateway{ID: r.ID, Workspace: r.Workspace, Connection: r.Connection, GatewayBody: body.GatewayBody, Allowlist: allowlist.NewList(body.Allow), sealed: r.Sealed}
			err := CheckGateway(g.GatewayBody)
			if err == nil && body.ID != r.ID {
				err = errors.New("its id was changed")
			}
			if err == nil && g.TLS == GatewayMutual {
				g.ClientCAs, err = clientCAs(g.ClientCA)
			}
			if err != nil {
				return fmt.Errorf("gateway %s: %w", r.ID, err)
			}
		}
		c.Gateway = g
	}
	return nil
}
