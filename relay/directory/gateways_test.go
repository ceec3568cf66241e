package directory_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"math/big"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/store"
)

// certPEM is a self-signed certificate, of an authority or not.
func certPEM(t *testing.T, name string, authority bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: authority, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func caPEM(t *testing.T, name string) []byte { return certPEM(t, name, true) }

func gateway(address string) directory.GatewayBody {
	return directory.GatewayBody{Address: netip.MustParseAddrPort(address), TLS: directory.GatewayPlain, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
}

func TestGatewayOfAConnection(t *testing.T) {
	d, in := start(t)
	ctx := t.Context()
	c, err := d.CreateConnection(ctx, "default", "default", profile("orders"))
	must(t, err)
	before := c
	c, err = d.SetGateway(ctx, "default", "orders", gateway("10.0.0.5:15432"))
	must(t, err)
	g := c.Gateway
	if g == nil || g.Connection != c.ID || g.Workspace != in.Workspace || !strings.HasPrefix(g.ID, "gwy_") || g.Address.String() != "10.0.0.5:15432" ||
		!g.Allowlist.Contains(netip.MustParseAddr("192.0.2.9")) || g.Allowlist.Contains(netip.MustParseAddr("192.0.3.9")) {
		t.Fatalf("%+v", g)
	}
	if before.Gateway != nil {
		t.Fatal("a snapshot changed under its reader")
	}
	// Another change keeps what was opened; a new gateway is another version of the same one.
	_, err = d.CreateGroup(ctx, "default", "west")
	must(t, err)
	w, _ := d.Snapshot().Workspace("default")
	if again, _ := w.Connection("orders"); again.Gateway != g {
		t.Error("the gateway was opened again though nothing changed")
	}
	mutual := gateway("10.0.0.5:15433")
	mutual.TLS, mutual.ClientCA, mutual.Allow = directory.GatewayMutual, caPEM(t, "clients"), nil
	c, err = d.SetGateway(ctx, "default", c.ID, mutual)
	must(t, err)
	if c.Gateway.ID != g.ID || c.Gateway.ClientCAs == nil || !c.Gateway.Allowlist.Empty() || c.Gateway.SameDoor(g) {
		t.Fatalf("%+v", c.Gateway)
	}
	must(t, d.DeleteGateway(ctx, "default", "orders"))
	want(t, d.DeleteGateway(ctx, "default", "orders"), protocol.CodeNotFound)
	if c, _ = d.Snapshot().Workspaces()[0].Connection("orders"); c == nil || c.Gateway != nil {
		t.Fatalf("%+v", c)
	}
	_, err = d.SetGateway(ctx, "default", "orders", gateway("10.0.0.5:15432"))
	must(t, err)
	must(t, d.DeleteConnection(ctx, "default", "orders"))
	c, err = d.CreateGatewayConnection(ctx, founder(d), "default", "default", profile("orders"), gateway("10.0.0.5:15432"))
	if err != nil || c.Gateway == nil {
		t.Fatalf("the address of a deleted connection stays taken: %v", err)
	}
}

// founder is who the first workspace was made with.
func founder(d *directory.Directory) directory.By {
	return directory.By{ID: d.Snapshot().Workspaces()[0].Principals[0].ID}
}

// Two gateways never have one port, whatever workspace they are of; and what is refused leaves nothing behind.
func TestGatewayAddressIsTakenOnce(t *testing.T) {
	d, _ := start(t)
	ctx := t.Context()
	_, err := d.CreateWorkspace(ctx, "other")
	must(t, err)
	for _, name := range []string{"a", "b"} {
		_, err := d.CreateConnection(ctx, "default", "default", profile(name))
		must(t, err)
	}
	_, err = d.CreateConnection(ctx, "other", "default", profile("c"))
	must(t, err)
	_, err = d.SetGateway(ctx, "default", "a", gateway("10.0.0.5:15432"))
	must(t, err)
	for _, address := range []string{"10.0.0.5:15432", "0.0.0.0:15432"} {
		_, err = d.SetGateway(ctx, "default", "b", gateway(address))
		want(t, err, protocol.CodeConflict)
		_, err = d.SetGateway(ctx, "other", "c", gateway(address))
		want(t, err, protocol.CodeConflict)
		_, err = d.CreateGatewayConnection(ctx, directory.By{}, "other", "default", profile("half"), gateway(address))
		want(t, err, protocol.CodeConflict)
	}
	other, _ := d.Snapshot().Workspace("other")
	if _, err := other.Connection("half"); err == nil {
		t.Error("a connection was made without its gateway")
	}
	for _, address := range []string{"[::]:15432", "10.0.0.6:15432", "10.0.0.5:15433"} {
		_, err = d.SetGateway(ctx, "other", "c", gateway(address))
		must(t, err)
	}
	_, err = d.SetGateway(ctx, "default", "a", gateway("0.0.0.0:15432")) // its own is not in its way
	must(t, err)
}

func TestBadGatewayIsRefused(t *testing.T) {
	d, _ := start(t)
	ctx := t.Context()
	_, err := d.CreateConnection(ctx, "default", "default", profile("a"))
	must(t, err)
	ca := caPEM(t, "clients")
	good := gateway("10.0.0.5:15432")
	for name, change := range map[string]func(*directory.GatewayBody){
		"no address":          func(b *directory.GatewayBody) { b.Address = netip.AddrPort{} },
		"port 0":              func(b *directory.GatewayBody) { b.Address = netip.MustParseAddrPort("10.0.0.5:0") },
		"a zone":              func(b *directory.GatewayBody) { b.Address = netip.MustParseAddrPort("[fe80::1%eth0]:5") },
		"IPv4 in IPv6 form":   func(b *directory.GatewayBody) { b.Address = netip.MustParseAddrPort("[::ffff:10.0.0.5]:5") },
		"multicast":           func(b *directory.GatewayBody) { b.Address = netip.MustParseAddrPort("224.0.0.1:5") },
		"no TLS mode":         func(b *directory.GatewayBody) { b.TLS = "" },
		"unknown TLS mode":    func(b *directory.GatewayBody) { b.TLS = "Server" },
		"mutual without a CA": func(b *directory.GatewayBody) { b.TLS = directory.GatewayMutual },
		"a CA without mutual": func(b *directory.GatewayBody) { b.ClientCA = ca },
		"host bits":           func(b *directory.GatewayBody) { b.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} },
		"an invalid prefix":   func(b *directory.GatewayBody) { b.Allow = []netip.Prefix{{}} },
		"a CA that is none":   func(b *directory.GatewayBody) { b.TLS, b.ClientCA = directory.GatewayMutual, certPEM(t, "leaf", false) },
		"a CA with more behind": func(b *directory.GatewayBody) {
			b.TLS, b.ClientCA = directory.GatewayMutual, append(append([]byte{}, ca...), "tail"...)
		},
		"a CA with a key": func(b *directory.GatewayBody) {
			b.TLS, b.ClientCA = directory.GatewayMutual, append(append([]byte{}, ca...), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"...)
		},
		"blank text for a CA": func(b *directory.GatewayBody) { b.TLS, b.ClientCA = directory.GatewayMutual, []byte("\n") },
	} {
		b := good
		change(&b)
		_, err := d.SetGateway(ctx, "default", "a", b)
		want(t, err, protocol.CodeInvalid)
		if c, _ := d.Snapshot().Workspaces()[0].Connection("a"); c.Gateway != nil {
			t.Fatalf("%s: something was kept", name)
		}
	}
	long := good
	for range directory.MaxGatewayAllow + 1 {
		long.Allow = append(long.Allow, netip.MustParsePrefix("192.0.2.0/24"))
	}
	_, err = d.SetGateway(ctx, "default", "a", long)
	want(t, err, protocol.CodeTooLarge)
	for _, missing := range [][2]string{{"default", "b"}, {"other", "a"}} {
		_, err = d.SetGateway(ctx, missing[0], missing[1], good)
		want(t, err, protocol.CodeNotFound)
		want(t, d.DeleteGateway(ctx, missing[0], missing[1]), protocol.CodeNotFound)
	}
}

// P14, P22: a gateway's row that was changed by hand opens nothing.
func TestGatewayRowChangedByHandIsRefused(t *testing.T) {
	for name, change := range map[string]string{
		"another id":         "UPDATE gateways SET id = 'gwy_aaaaaaaaaaaaaaaaaaaaaaaaaa' WHERE connection = ?",
		"another version":    "UPDATE gateways SET version = version + 1 WHERE connection = ?",
		"another connection": "UPDATE gateways SET connection = (SELECT id FROM connections WHERE id <> ?)",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := directory.DefaultConfig(dir)
			_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
			must(t, err)
			d, err := directory.Open(t.Context(), c)
			must(t, err)
			con, err := d.CreateGatewayConnection(t.Context(), founder(d), "default", "default", profile("a"), gateway("10.0.0.5:15432"))
			must(t, err)
			_, err = d.CreateConnection(t.Context(), "default", "default", profile("b"))
			must(t, err)
			must(t, d.Close())
			db, err := sql.Open("sqlite", filepath.Join(dir, store.File))
			must(t, err)
			_, err = db.Exec(change, con.ID)
			must(t, err)
			must(t, db.Close())
			if d, err := directory.Open(t.Context(), c); err == nil {
				d.Close()
				t.Fatal("it was taken")
			}
		})
	}
}
