package enroll

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
)

// MaxCSRBytes bounds a certificate request.
const MaxCSRBytes = 16 << 10

// Request is what is taken from a certificate request: a public key whose private half the sender has.
type Request struct {
	Key  crypto.PublicKey
	SPKI []byte // SHA-256 of the SubjectPublicKeyInfo; refuse one that another agent has or had
}

// ParseRequest reads a PKCS #10 request (DER) and checks its signature. Only ECDSA P-256 and P-384 and Ed25519 keys are
// taken. All else in the request is ignored. Errors are safe to show.
func ParseRequest(der []byte) (Request, error) {
	if len(der) > MaxCSRBytes {
		return Request{}, fmt.Errorf("certificate request is longer than %d bytes", MaxCSRBytes)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, errors.New("certificate request is malformed")
	}
	// The key first: checking a signature of a key that is not wanted may be dear.
	switch key := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return Request{}, errors.New("certificate request has an ECDSA key of another curve than P-256, P-384")
		}
	case ed25519.PublicKey:
	default:
		return Request{}, errors.New("certificate request has a key that is neither ECDSA nor Ed25519")
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, errors.New("certificate request is not signed by its own key")
	}
	// Hashed as the certificate will hold it, so that another encoding of the same key gives the same hash.
	spki, err := x509.MarshalPKIXPublicKey(csr.PublicKey)
	if err != nil {
		return Request{}, errors.New("certificate request has a malformed key")
	}
	sum := sha256.Sum256(spki)
	return Request{csr.PublicKey, sum[:]}, nil
}

// Issued is an agent's new certificate. Chain (DER) is leaf, workspace's CA: with the root, which the agent has, that is all.
type Issued struct {
	Chain  [][]byte
	Leaf   *x509.Certificate
	Serial string // hexadecimal, for revocation
	SPKI   []byte // as in Request
}

// SignAgent gives the agent of a request its certificate. The caller has checked the request's SPKI against those of other
// agents. The lifetime ends with the CA's at the latest.
func (w *WorkspaceCA) SignAgent(r Request, id mtls.Identity, ttl time.Duration) (*Issued, error) {
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("sign agent: %w", err)
	}
	if id.Role != mtls.RoleAgent || id.Installation != w.installation || id.Workspace != w.workspace {
		return nil, fmt.Errorf("sign agent: %s is no agent of workspace %s", id, w.workspace)
	}
	if r.Key == nil {
		return nil, errors.New("sign agent: no key")
	}
	tpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: id.ID}, URIs: []*url.URL{id.URI()},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if err := w.window(tpl, ttl); err != nil {
		return nil, fmt.Errorf("sign agent: %w", err)
	}
	leaf, err := sign(tpl, w.cert, r.Key, w.key)
	if err != nil {
		return nil, fmt.Errorf("sign agent: %w", err)
	}
	return &Issued{
		Chain: [][]byte{leaf.Raw, w.cert.Raw}, Leaf: leaf, Serial: Serial(leaf), SPKI: mtls.Pin(leaf),
	}, nil
}

// Serial is the certificate's serial number as text, for storing and comparing: 32 lower-case hexadecimal digits.
func Serial(c *x509.Certificate) string { return fmt.Sprintf("%032x", c.SerialNumber) }
