package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	mathbig "math/big"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/relay/client"
)

// authority is a CA of clients that a test plays.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{SerialNumber: mathbig.NewInt(1), Subject: pkix.Name{CommonName: "clients"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	c.NotBefore = time.Now().Add(-time.Hour)
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// client makes a client's certificate.
func (a *authority) client(change func(*x509.Certificate)) *tls.Certificate {
	c := &x509.Certificate{SerialNumber: mathbig.NewInt(2), Subject: pkix.Name{CommonName: "reporting"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(c)
	}
	cert, key := a.sign(c)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// secure dials a gateway that speaks TLS.
func secure(t *testing.T, w *testenv.World, address string, own *tls.Certificate, change func(*tls.Config)) (*tls.Conn, error) {
	t.Helper()
	ca, err := os.ReadFile(w.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	conf.RootCAs.AppendCertsFromPEM(ca)
	if own != nil {
		conf.Certificates = []tls.Certificate{*own}
	}
	if change != nil {
		change(conf)
	}
	raw, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, conf)
	t.Cleanup(func() { c.Close() })
	cctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := c.HandshakeContext(cctx); err != nil {
		return nil, err
	}
	return c, echoes(c)
}

func TestGatewayServerTLS(t *testing.T) {
	w, address := gatewayWorld(t, client.SetGateway{Allow: loopback, TLS: client.GatewayServer})
	c, err := secure(t, w, address, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The end of one direction passes, as without TLS.
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Fatalf("%q, %v", b, err)
	}
	// A client of a protocol that insists on its ALPN gets it; others get none.
	for _, name := range []string{"postgresql", "h2"} {
		c, err := secure(t, w, address, nil, func(conf *tls.Config) { conf.NextProtos = []string{name} })
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().NegotiatedProtocol; (got == name) != (name == "postgresql") {
			t.Errorf("offered %q, got %q", name, got)
		}
	}
	if _, err := through(t, address, ""); err == nil {
		t.Fatal("bytes without TLS were carried")
	}
	expectEvent(t, w, "no TLS", func(e client.AuditEvent, _ string) bool {
		return e.Kind == "operation.denied" && e.Rule == "gateway.tls"
	})
}

// With mutual TLS nobody comes in without a certificate of the gateway's CA, and its name stands in the record.
func TestGatewayMutualTLSAdmitsItsCAAlone(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	w, address := gatewayWorld(t, client.SetGateway{Allow: loopback, TLS: client.GatewayMutual, ClientCA: ours.pem()})
	good := ours.client(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "corp", Path: "/reporting"}} })
	open, err := secure(t, w, address, good, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(good.Certificate[0])
	expectEvent(t, w, "the certificate's name", func(e client.AuditEvent, raw string) bool {
		var ev struct {
			PrincipalName string `json:"principal_name"`
			Detail        map[string]string
		}
		if json.Unmarshal([]byte(raw), &ev) != nil || e.Kind != "operation.intent" {
			return false
		}
		if strings.Contains(raw, "reporting") {
			t.Fatalf("the name stands in the clear: %s", raw)
		}
		return strings.HasPrefix(ev.PrincipalName, "tok_") && ev.Detail["certificate"] == "sha256:"+hex.EncodeToString(sum[:])
	})
	for name, c := range map[string]struct {
		own  *tls.Certificate
		says string
	}{
		"no certificate": {nil, "showed no certificate"},
		"another CA's":   {theirs.client(nil), "not of the gateway's CA"},
		"expired":        {ours.client(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "not valid now"},
		"for servers":    {ours.client(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "not for clients"},
	} {
		t.Run(name, func(t *testing.T) {
			// The client's own library would hold back a certificate that the server does not ask for.
			_, err := secure(t, w, address, nil, func(conf *tls.Config) {
				conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if c.own == nil {
						return &tls.Certificate{}, nil
					}
					return c.own, nil
				}
			})
			if err == nil {
				t.Fatal("let in")
			}
			expectEvent(t, w, name, func(e client.AuditEvent, raw string) bool {
				return e.Kind == "operation.denied" && e.Rule == "gateway.tls" && strings.Contains(raw, c.says)
			})
		})
	}
	t.Run("another CA is set", func(t *testing.T) {
		done := cut(open)
		if _, err := w.Client.SetGateway(ctx, "echo", client.SetGateway{Address: address, Allow: loopback, TLS: client.GatewayMutual, ClientCA: theirs.pem()}); err != nil {
			t.Fatal(err)
		}
		expectCut(t, done, "another CA")
		if _, err := secure(t, w, address, good, nil); err == nil {
			t.Fatal("a certificate of the former CA was let in")
		}
		if _, err := secure(t, w, address, theirs.client(nil), nil); err != nil {
			t.Fatal(err)
		}
	})
}

// P19: a certificate that ends while its conn is open ends the conn.
func TestGatewayConnEndsWithItsCertificate(t *testing.T) {
	ca := newAuthority(t)
	w, address := gatewayWorld(t, client.SetGateway{Allow: loopback, TLS: client.GatewayMutual, ClientCA: ca.pem()})
	c, err := secure(t, w, address, ca.client(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(4 * time.Second) }), nil)
	if err != nil {
		t.Fatal(err)
	}
	done := cut(c)
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		t.Fatal("it lives on")
	}
	expectEvent(t, w, "why", func(e client.AuditEvent, raw string) bool {
		return e.Kind == "operation.outcome" && e.Code == "denied" && strings.Contains(raw, "certificate has expired")
	})
}
