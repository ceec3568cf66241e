package mtlstest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
)

// Cert is a certificate with its key and the chain above it.
type Cert struct {
	Cert  *x509.Certificate
	Key   crypto.Signer
	Above []*Cert // issuer first, root last
}

// New makes a root. For the rest of the package a fault in making certificates ends the test.
func New(t testing.TB, edit ...func(*x509.Certificate)) *Cert {
	t.Helper()
	return issue(t, nil, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, edit)
}

// Workspace makes a workspace's CA below the root c.
func (c *Cert) Workspace(t testing.TB, installation, workspace string, edit ...func(*x509.Certificate)) *Cert {
	t.Helper()
	return issue(t, c, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test workspace " + workspace}, IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{mtls.WorkspaceURI(installation, workspace)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, edit)
}

// Leaf makes a leaf for id below c; key may be nil.
func (c *Cert) Leaf(t testing.TB, id mtls.Identity, key crypto.Signer, edit ...func(*x509.Certificate)) *Cert {
	t.Helper()
	usage := x509.ExtKeyUsageServerAuth
	if id.Role == mtls.RoleAgent {
		usage = x509.ExtKeyUsageClientAuth
	}
	return issue(t, c, key, &x509.Certificate{
		Subject: pkix.Name{CommonName: id.ID}, KeyUsage: x509.KeyUsageDigitalSignature, URIs: []*url.URL{id.URI()},
		ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, edit)
}

// issue signs with above; nil means that the certificate signs itself.
func issue(t testing.TB, above *Cert, key crypto.Signer, tpl *x509.Certificate, edit []func(*x509.Certificate)) *Cert {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatal(err)
	}
	tpl.SerialNumber = serial
	tpl.NotBefore, tpl.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	for _, e := range edit {
		e(tpl)
	}
	if key == nil {
		if key, err = mtls.NewKey(); err != nil {
			t.Fatal(err)
		}
	}
	c := &Cert{Key: key}
	parent, signer := tpl, key
	if above != nil {
		parent, signer = above.Cert, above.Key
		c.Above = append([]*Cert{above}, above.Above...)
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if c.Cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

// Pool holds c alone.
func (c *Cert) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.Cert)
	return p
}

// Keypair is the whole chain, root included, with extra certificates after it.
func (c *Cert) Keypair(t testing.TB, extra ...*Cert) *mtls.Keypair {
	t.Helper()
	chain := [][]byte{c.Cert.Raw}
	for _, a := range append(c.Above, extra...) {
		chain = append(chain, a.Cert.Raw)
	}
	k, err := mtls.NewKeypair(chain, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Reloader holds the Keypair.
func (c *Cert) Reloader(t testing.TB, extra ...*Cert) *mtls.Reloader {
	t.Helper()
	return mtls.NewReloader(c.Keypair(t, extra...))
}

// Identities of the tests.
var (
	Relay = mtls.Identity{Installation: "in_test", Role: mtls.RoleRelay, ID: "rel_test"}
	Agent = mtls.Identity{Installation: "in_test", Role: mtls.RoleAgent, Workspace: "ws_test", Group: "grp_test", ID: "agt_test"}
)
