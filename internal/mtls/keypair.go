package mtls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
)

// Keypair is a certificate chain (leaf first) and the leaf's private key. Immutable.
type Keypair struct {
	chain [][]byte
	leaf  *x509.Certificate
	key   crypto.Signer
}

// NewKey makes an ECDSA P-256 key.
func NewKey() (crypto.Signer, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// NewKeypair joins a chain (DER, leaf first) with its key. They must belong together.
func NewKeypair(chain [][]byte, key crypto.Signer) (*Keypair, error) {
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	k := &Keypair{key: key}
	for n, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse certificate %d of the chain: %w", n+1, err)
		}
		if n == 0 {
			k.leaf = c
		}
		k.chain = append(k.chain, bytes.Clone(der))
	}
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(k.leaf.PublicKey) {
		return nil, errors.New("private key does not belong to the certificate")
	}
	return k, nil
}

// ParseKeypair reads a PEM chain (leaf first) and a PKCS #8 key in PEM. Both may be the same bytes.
func ParseKeypair(pemChain, pemKey []byte) (*Keypair, error) {
	var chain [][]byte
	for b, rest := pem.Decode(pemChain); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == "CERTIFICATE" {
			chain = append(chain, b.Bytes)
		}
	}
	for b, rest := pem.Decode(pemKey); b != nil; b, rest = pem.Decode(rest) {
		if b.Type != "PRIVATE KEY" {
			continue
		}
		parsed, err := x509.ParsePKCS8PrivateKey(b.Bytes)
		if err != nil {
			return nil, errors.New("private key is not well-formed PKCS #8")
		}
		switch key := parsed.(type) {
		case *ecdsa.PrivateKey:
			return NewKeypair(chain, key)
		case ed25519.PrivateKey:
			return NewKeypair(chain, key)
		}
		return nil, errors.New("private key is neither ECDSA nor Ed25519")
	}
	return nil, errors.New("no private key")
}

// Marshal gives chain and key in one PEM text. It is a secret.
func (k *Keypair) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	var b bytes.Buffer
	for _, c := range k.chain {
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c}); err != nil {
			return nil, err
		}
	}
	err = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return b.Bytes(), err
}

// Certificate is the form that crypto/tls wants. The slices are shared: do not change them.
func (k *Keypair) Certificate() tls.Certificate {
	return tls.Certificate{Certificate: k.chain, PrivateKey: k.key, Leaf: k.leaf}
}

// Leaf is the first certificate of the chain.
func (k *Keypair) Leaf() *x509.Certificate { return k.leaf }

// Key is the leaf's private key.
func (k *Keypair) Key() crypto.Signer { return k.key }

// Chain is the chain in DER, leaf first. Do not change it.
func (k *Keypair) Chain() [][]byte { return k.chain }

// Root is the last certificate of the chain. A relay's chain ends with the root.
func (k *Keypair) Root() (*x509.Certificate, error) {
	return x509.ParseCertificate(k.chain[len(k.chain)-1])
}

// maxKeypairFile bounds what ReadKeypairFile takes in.
const maxKeypairFile = 256 << 10

// WriteKeypairFile writes chain and key into one file, readable by its owner only, so that key and certificate are
// replaced together or not at all. It returns after the data is on disk.
func WriteKeypairFile(path string, k *Keypair) (err error) {
	text, err := k.Marshal()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".keypair-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write key file %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write key file %s: %w", path, err)
		}
	}()
	if _, err = f.Write(text); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// ReadKeypairFile reads what WriteKeypairFile wrote. On Unix a file that group or others may read or write is refused;
// on Windows the folder's access list protects it.
func ReadKeypairFile(path string) (*Keypair, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	defer f.Close()
	if err := checkMode(f); err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeypairFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	if len(text) > maxKeypairFile {
		return nil, fmt.Errorf("read key file %s: longer than %d bytes", path, maxKeypairFile)
	}
	k, err := ParseKeypair(text, text)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	return k, nil
}

// Reloader holds the Keypair in use. A new one is used from the next handshake on. Safe for concurrent use.
type Reloader struct{ k atomic.Pointer[Keypair] }

// NewReloader starts with k.
func NewReloader(k *Keypair) *Reloader {
	r := &Reloader{}
	r.Set(k)
	return r
}

// Set replaces the keypair.
func (r *Reloader) Set(k *Keypair) { r.k.Store(k) }

// Get gives the keypair in use; nil if none was set.
func (r *Reloader) Get() *Keypair { return r.k.Load() }

func (r *Reloader) certificate() (*tls.Certificate, error) {
	k := r.Get()
	if k == nil {
		return nil, errors.New("no certificate is loaded")
	}
	c := k.Certificate()
	return &c, nil
}

// GetCertificate is for tls.Config.GetCertificate.
func (r *Reloader) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return r.certificate()
}

// GetClientCertificate is for tls.Config.GetClientCertificate.
func (r *Reloader) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return r.certificate()
}
