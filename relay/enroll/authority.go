package enroll

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/secret"
)

// Lifetimes.
const (
	RootLifetime      = 20 * 365 * 24 * time.Hour
	WorkspaceLifetime = 2 * 365 * 24 * time.Hour
	// skew is how far a certificate reaches back, for hosts whose clock is behind.
	skew = mtls.Backdate
)

// authority is a CA's certificate and key.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Authority is the root of an installation. Immutable.
type Authority struct {
	authority
	installation string
}

// WorkspaceCA signs the agents of one workspace. Immutable.
type WorkspaceCA struct {
	authority
	installation, workspace string
}

// NewAuthority makes the root of a new installation.
func NewAuthority(installation string) (*Authority, error) {
	id := mtls.Identity{Installation: installation, Role: mtls.RoleRelay, ID: "x"}
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("make root: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make root: %w", err)
	}
	tpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Fairlead " + installation},
		URIs:    []*url.URL{rootURI(installation)},
		IsCA:    true, BasicConstraintsValid: true, MaxPathLen: 1,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if err := window(tpl, RootLifetime); err != nil {
		return nil, err
	}
	cert, err := sign(tpl, tpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make root: %w", err)
	}
	return &Authority{authority{cert, key}, installation}, nil
}

func rootURI(installation string) *url.URL {
	return &url.URL{Scheme: "fairlead", Host: installation, Path: "/root"}
}

// ParseAuthority reads what Marshal gave.
func ParseAuthority(data secret.Bytes) (*Authority, error) {
	a, err := parse(data.Expose())
	if err != nil {
		return nil, fmt.Errorf("read root: %w", err)
	}
	if len(a.cert.URIs) != 1 || *a.cert.URIs[0] != *rootURI(a.cert.URIs[0].Host) {
		return nil, errors.New("read root: certificate is not that of a root")
	}
	return &Authority{*a, a.cert.URIs[0].Host}, nil
}

// Installation is the installation whose root this is.
func (a *Authority) Installation() string { return a.installation }

// NewWorkspace makes the CA of a workspace. Call it again to renew: agents of the older one stay valid as long as that is.
func (a *Authority) NewWorkspace(workspace string) (*WorkspaceCA, error) {
	id := mtls.Identity{Installation: a.installation, Role: mtls.RoleAgent, Workspace: workspace, Group: "x", ID: "x"}
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("make workspace CA: %w", err)
	}
	key, err := mtls.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make workspace CA: %w", err)
	}
	tpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Fairlead workspace " + workspace},
		URIs:    []*url.URL{mtls.WorkspaceURI(a.installation, workspace)},
		IsCA:    true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:    x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if err := a.window(tpl, WorkspaceLifetime); err != nil {
		return nil, fmt.Errorf("make workspace CA: %w", err)
	}
	cert, err := sign(tpl, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("make workspace CA: %w", err)
	}
	return &WorkspaceCA{authority{cert, key}, a.installation, workspace}, nil
}

// ParseWorkspaceCA reads what Marshal gave, and checks that a signed it.
func (a *Authority) ParseWorkspaceCA(data secret.Bytes) (*WorkspaceCA, error) {
	w, err := parse(data.Expose())
	if err != nil {
		return nil, fmt.Errorf("read workspace CA: %w", err)
	}
	if err := w.cert.CheckSignatureFrom(a.cert); err != nil {
		return nil, fmt.Errorf("read workspace CA: not of this installation: %w", err)
	}
	if len(w.cert.URIs) == 1 {
		ws, ok := strings.CutPrefix(w.cert.URIs[0].Path, "/ws/")
		if ok && *w.cert.URIs[0] == *mtls.WorkspaceURI(a.installation, ws) {
			return &WorkspaceCA{*w, a.installation, ws}, nil
		}
	}
	return nil, errors.New("read workspace CA: certificate is not that of a workspace")
}

// Workspace is the workspace whose agents it signs.
func (w *WorkspaceCA) Workspace() string { return w.workspace }

// IssueServer makes a relay's keypair, for tunnels, enrolment and the API alike: the chain is leaf and root. names and ips
// are what people's clients check; tunnels do not look at them.
func (a *Authority) IssueServer(names []string, ips []netip.Addr, id mtls.Identity, ttl time.Duration) (*mtls.Keypair, error) {
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("issue relay certificate: %w", err)
	}
	if id.Role != mtls.RoleRelay || id.Installation != a.installation {
		return nil, fmt.Errorf("issue relay certificate: %s is no relay of installation %s", id, a.installation)
	}
	key, err := mtls.NewKey()
	if err != nil {
		return nil, fmt.Errorf("issue relay certificate: %w", err)
	}
	tpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Fairlead relay " + id.ID}, URIs: []*url.URL{id.URI()}, DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, ip := range ips {
		tpl.IPAddresses = append(tpl.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	if err := a.window(tpl, ttl); err != nil {
		return nil, fmt.Errorf("issue relay certificate: %w", err)
	}
	leaf, err := sign(tpl, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("issue relay certificate: %w", err)
	}
	return mtls.NewKeypair([][]byte{leaf.Raw, a.cert.Raw}, key)
}

// Certificate is the CA's own.
func (a *authority) Certificate() *x509.Certificate { return a.cert }

// CertificatePEM is the CA's own as text.
func (a *authority) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Pool holds the root alone: what tunnels trust.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// Pin is what join tokens carry: see mtls.Pin.
func (a *Authority) Pin() []byte { return mtls.Pin(a.cert) }

// Marshal gives certificate and private key, for the caller to seal.
func (a *authority) Marshal() (secret.Bytes, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("encode CA key: %w", err)
	}
	b := bytes.NewBuffer(a.CertificatePEM())
	if err := pem.Encode(b, &pem.Block{Type: "PRIVATE KEY", Bytes: der}); err != nil {
		return secret.Bytes{}, fmt.Errorf("encode CA key: %w", err)
	}
	return secret.New(b.Bytes()), nil
}

func parse(data []byte) (*authority, error) {
	k, err := mtls.ParseKeypair(data, data)
	if err != nil {
		return nil, err
	}
	if !k.Leaf().IsCA {
		return nil, errors.New("certificate is not that of a CA")
	}
	return &authority{k.Leaf(), k.Key()}, nil
}

// window sets the time of validity, within the CA's own.
func (a *authority) window(tpl *x509.Certificate, ttl time.Duration) error {
	if err := window(tpl, ttl); err != nil {
		return err
	}
	if tpl.NotBefore.Before(a.cert.NotBefore) {
		tpl.NotBefore = a.cert.NotBefore
	}
	if tpl.NotAfter.After(a.cert.NotAfter) {
		tpl.NotAfter = a.cert.NotAfter
	}
	if !tpl.NotAfter.After(time.Now()) {
		return fmt.Errorf("CA expired at %s", a.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

func window(tpl *x509.Certificate, ttl time.Duration) error {
	if ttl <= 0 {
		return errors.New("lifetime is not positive")
	}
	now := time.Now().UTC()
	tpl.NotBefore, tpl.NotAfter = now.Add(-skew).Truncate(time.Second), now.Add(ttl).Truncate(time.Second)
	return nil
}

func sign(tpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	tpl.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
