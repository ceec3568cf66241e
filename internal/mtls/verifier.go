package mtls

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Verifier says who peers of one role are, by the roots of one installation. It gives the answers of RelayIdentity and of
// PeerIdentity after crypto/tls has verified, and remembers what made them, so that thousands of agents which come back at
// once, or one relay that is dialled again and again, do not cost a signature of the root's each.
//
// What is remembered is only what time cannot change. Whether a chain is good depends on the bytes of its certificates, the
// roots, the role and the clock, and on nothing else (revocation is the caller's check). So a chain that was good is good
// again when each of its certificates is valid at the time: that is asked each time. A leaf that is new, below a workspace's
// CA that was found good, is verified by crypto/x509 against that CA alone; what the root could say about the leaf itself
// (usages, name constraints, policies) is looked at beforehand, and a CA below a root that says any such thing is not
// remembered. Whatever memory does not answer with yes is verified in full: it never refuses.
//
// Only what leads to the roots gets in, so strangers cannot fill it. Safe for concurrent use. The roots must not change.
type Verifier struct {
	roots *x509.CertPool
	role  Role

	mu      sync.Mutex // guards the fields below
	issuers map[digest]*issuer
	leaves  map[digest]*issuer // whose whole chain was good; the issuer's cert is nil directly below the root
	before  map[digest]*issuer // the generation before: two of maxLeaves bound the memory
}

// What a Verifier remembers at most. Beyond, it begins anew.
const (
	maxIssuers = 4096
	maxLeaves  = 1024
)

type digest = [sha256.Size]byte

// issuer is a workspace's CA that the root has signed, or the root itself.
type issuer struct {
	cert *x509.Certificate // nil: leaves stand directly below the root
	root *x509.Certificate
	pool *x509.CertPool // of cert
}

// NewVerifier verifies peers of a role against roots.
func NewVerifier(roots *x509.CertPool, role Role) *Verifier {
	return &Verifier{roots: roots, role: role, issuers: map[digest]*issuer{}, leaves: map[digest]*issuer{}}
}

// Identity verifies the chain that the peer sent, and gives who the peer is and its leaf certificate.
func (v *Verifier) Identity(cs tls.ConnectionState) (Identity, *x509.Certificate, error) {
	if len(cs.PeerCertificates) == 0 || v.roots == nil {
		return Identity{}, nil, fmt.Errorf("%w: no certificate to check, or no root to check it against", ErrUntrusted)
	}
	now := time.Now()
	chain := v.remembered(cs.PeerCertificates, now)
	if chain == nil {
		chains, err := verify(cs, v.roots, v.role, now)
		if err != nil {
			return Identity{}, nil, err
		}
		chain = chains[0]
		v.remember(chain)
	}
	i, leaf, err := identify([][]*x509.Certificate{chain})
	if err == nil && i.Role != v.role {
		err = fmt.Errorf("a tunnel leads to role %s, not to role %s", v.role, i.Role)
	}
	if err != nil {
		return Identity{}, nil, err
	}
	return i, leaf, nil
}

// remembered gives a good chain of the leaf that the peer sent, or nil. Copies of CAs that are known are replaced in sent by
// the one that is held already: the connection keeps what it was sent for as long as it lives.
func (v *Verifier) remembered(sent []*x509.Certificate, now time.Time) []*x509.Certificate {
	leaf := sent[0]
	var known []*issuer
	v.mu.Lock()
	for n, c := range sent[1:min(len(sent), 4)] {
		if i := v.issuers[sha256.Sum256(c.Raw)]; i != nil && bytes.Equal(i.cert.Raw, c.Raw) {
			if sent[n+1] != i.cert {
				sent[n+1] = i.cert
			}
			known = append(known, i)
		}
	}
	key := sha256.Sum256(leaf.Raw)
	whole := v.leaves[key]
	if whole == nil {
		whole = v.before[key]
	}
	v.mu.Unlock()
	if whole != nil && valid(now, whole.chain(leaf)...) {
		return whole.chain(leaf)
	}
	for _, i := range known {
		if !valid(now, i.root) {
			continue
		}
		// The time of leaf and CA, the leaf's signature, usages and constraints: all but what the root has to do with it.
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: i.pool, CurrentTime: now, KeyUsages: usages(v.role)}); err == nil {
			v.mu.Lock()
			v.leaf(key, i)
			v.mu.Unlock()
			return i.chain(leaf)
		}
	}
	return nil
}

// remember keeps a chain that was verified in full.
func (v *Verifier) remember(chain []*x509.Certificate) {
	key := sha256.Sum256(chain[0].Raw)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch len(chain) {
	case 2:
		v.leaf(key, &issuer{root: chain[1]})
	case 3:
		i := &issuer{cert: chain[1], root: chain[2], pool: x509.NewCertPool()}
		i.pool.AddCert(i.cert)
		if plain(i.cert) && plain(i.root) && len(i.root.ExtKeyUsage)+len(i.root.UnknownExtKeyUsage) == 0 {
			if len(v.issuers) >= maxIssuers {
				clear(v.issuers)
			}
			v.issuers[sha256.Sum256(i.cert.Raw)] = i
		}
		v.leaf(key, i)
	}
}

// leaf keeps a leaf whose whole chain was good. v.mu is held.
func (v *Verifier) leaf(key digest, i *issuer) {
	if len(v.leaves) >= maxLeaves {
		v.before, v.leaves = v.leaves, map[digest]*issuer{}
	}
	v.leaves[key] = i
}

func (i *issuer) chain(leaf *x509.Certificate) []*x509.Certificate {
	if i.cert == nil {
		return []*x509.Certificate{leaf, i.root}
	}
	return []*x509.Certificate{leaf, i.cert, i.root}
}

// valid asks of each certificate what crypto/x509 asks of the time.
func valid(now time.Time, certs ...*x509.Certificate) bool {
	for _, c := range certs {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return false
		}
	}
	return true
}

// plain reports whether a CA says nothing about names or policies below it.
func plain(ca *x509.Certificate) bool {
	for _, e := range ca.Extensions {
		for _, id := range restricting {
			if e.Id.Equal(id) {
				return false
			}
		}
	}
	return true
}

// Name constraints, policies, their mappings, constraints and inhibition.
var restricting = []asn1.ObjectIdentifier{{2, 5, 29, 30}, {2, 5, 29, 32}, {2, 5, 29, 33}, {2, 5, 29, 36}, {2, 5, 29, 54}}

func usages(role Role) []x509.ExtKeyUsage {
	if role == RoleAgent {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
}

// verify is the whole check of a chain that a peer sent.
func verify(cs tls.ConnectionState, roots *x509.CertPool, role Role, now time.Time) ([][]*x509.Certificate, error) {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: usages(role)}
	for _, c := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := cs.PeerCertificates[0].Verify(opts)
	if err == nil {
		return chains, nil
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return nil, fmt.Errorf("%w: %s's is valid from %s to %s, this host's clock says %s", ErrValidity, role,
			invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339),
			now.UTC().Format(time.RFC3339))
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrUntrusted, interception(cs), err)
}
