package relay

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/certificate"
)

// API holds what concerns the listener that people and programs call. Agents' tunnels are always mutual TLS 1.3, with the relay's
// own certificate.
type API struct {
	MinTLS  string `yaml:"min_tls"`  // "1.2" or "1.3"
	MinHTTP string `yaml:"min_http"` // "1.0" or "1.1"
	// Certificates are shown, instead of the relay's own, to callers who ask for one of their names.
	Certificates []SuppliedCertificate `yaml:"certificates"`
	// Domains are the names that workspaces may make their own: hosts, or "*." and a suffix.
	Domains       []string `yaml:"domains"`
	DomainMinHTTP string   `yaml:"domain_min_http"` // "1.0" or "1.1": under these names
	ACME          ACME     `yaml:"acme"`
	Pages         bool     `yaml:"pages"` // serve the account pages, below /account/
}

// ACME says where certificates for workspaces' domains come from.
type ACME struct {
	Directory string `yaml:"directory"` // URL of the ACME server's directory; "" (default): nowhere
	Email     string `yaml:"email"`     // of the account, for the authority's notices; may be empty
	CA        string `yaml:"ca"`        // PEM file of the server's own authority; "": the system's
	Agree     bool   `yaml:"agree"`     // to the authority's terms of service, which wants to be said
	// KeyID and KeyFile bind the account to one that the authority knows (RFC 8555, 7.3.4). The file holds the MAC key in base64url, as
	// authorities give it; a relative path is taken from relay.yaml's folder. "": no binding.
	KeyID   string `yaml:"key_id"`
	KeyFile string `yaml:"key_file"`
}

// roots reads the file of the ACME server's authority; nil without one.
func (a ACME) roots() (*x509.CertPool, error) {
	if a.CA == "" {
		return nil, nil
	}
	b, err := os.ReadFile(a.CA)
	if err != nil {
		return nil, fmt.Errorf("read the ACME server's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("read the ACME server's authority: %s holds no certificate", a.CA)
	}
	return pool, nil
}

// key reads the MAC key of the account's binding; empty without one.
func (a ACME) key() (secret.Bytes, error) {
	if a.KeyFile == "" {
		return secret.Bytes{}, nil
	}
	k, err := config.SecretRef{File: a.KeyFile}.Resolve("")
	if err != nil {
		return k, err
	}
	text := strings.TrimRight(strings.TrimSpace(k.ExposeString()), "=")
	if raw, err := base64.RawURLEncoding.DecodeString(text); err != nil || len(raw) < 16 {
		return secret.Bytes{}, errors.New("the file holds no key of 16 bytes or more in base64url") // the decoder's words tell of the key
	}
	return secret.FromString(text), nil
}

// SuppliedCertificate is a certificate of somebody else's authority, in PEM files. Relative paths are taken from relay.yaml's folder.
type SuppliedCertificate struct {
	Certificate string `yaml:"certificate"` // the leaf first, then what leads to its authority
	Key         string `yaml:"key"`
}

const (
	maxSupplied   = 100
	suppliedEvery = 10 * time.Second // how often the files are looked at, at most
)

func (a API) minTLS() uint16 {
	if a.MinTLS == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

// load reads a certificate and its key, and gives the names that it is for.
func (s SuppliedCertificate) load() (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(s.Certificate, s.Key)
	if err != nil {
		return nil, fmt.Errorf("load the certificate: %w", err)
	}
	if len(c.Leaf.DNSNames) == 0 {
		return nil, fmt.Errorf("load the certificate: %s names no host (subject alternative name)", s.Certificate)
	}
	return &c, nil
}

// stamp tells whether the files are others than before.
func (s SuppliedCertificate) stamp() string {
	text := ""
	for _, f := range []string{s.Certificate, s.Key} {
		if i, err := os.Stat(f); err == nil {
			text += fmt.Sprintf("%s %d %d\n", f, i.Size(), i.ModTime().UnixNano())
		}
	}
	return text
}

// supplied chooses certificates by the name that a caller asks for. It takes up changed files by itself; with a fault in them, the
// certificates of before go on. Safe for concurrent use.
type supplied struct {
	files  []SuppliedCertificate
	own    func(*tls.ClientHelloInfo) (*tls.Certificate, error) // of the relay
	acme   *certificate.Manager                                 // for what no file is for; nil: there is none
	logger *slog.Logger

	mu     sync.Mutex // guards the fields below
	looked time.Time
	stamps []string
	certs  []*tls.Certificate
	byName map[string]*tls.Certificate
}

func newSupplied(files []SuppliedCertificate, own func(*tls.ClientHelloInfo) (*tls.Certificate, error), logger *slog.Logger) (*supplied, error) {
	s := &supplied{files: files, own: own, logger: logger, looked: time.Now(), stamps: make([]string, len(files)), certs: make([]*tls.Certificate, len(files))}
	for i, f := range files {
		c, err := f.load()
		if err != nil {
			return nil, fmt.Errorf("api.certificates[%d]: %w", i, err)
		}
		s.certs[i], s.stamps[i] = c, f.stamp()
		s.warn(f, c)
	}
	s.index()
	return s, nil
}

// warn tells of a certificate that callers will refuse, or soon.
func (s *supplied) warn(f SuppliedCertificate, c *tls.Certificate) {
	if now := time.Now(); now.Before(c.Leaf.NotBefore) || c.Leaf.NotAfter.Before(now.Add(7*24*time.Hour)) {
		s.logger.Warn("a supplied certificate is not valid, or ends within a week", "file", f.Certificate, "not_before", c.Leaf.NotBefore, "not_after", c.Leaf.NotAfter)
	}
}

// index puts certificates under their names; of two that share one, the first counts.
func (s *supplied) index() {
	s.byName = map[string]*tls.Certificate{}
	for _, c := range s.certs {
		for _, n := range c.Leaf.DNSNames {
			if n = strings.ToLower(n); s.byName[n] == nil {
				s.byName[n] = c
			}
		}
	}
}

// refresh takes up files that were changed since it last looked.
func (s *supplied) refresh(now time.Time) {
	if now.Sub(s.looked) < suppliedEvery {
		return
	}
	s.looked = now
	changed := false
	for i, f := range s.files {
		stamp := f.stamp()
		if stamp == s.stamps[i] {
			continue
		}
		c, err := f.load()
		if err != nil { // certificate and key are two files: one may be new already
			s.logger.Warn("a supplied certificate cannot be read; the one of before goes on", "file", f.Certificate, "error", err)
			continue
		}
		s.certs[i], s.stamps[i], changed = c, stamp, true
		s.warn(f, c)
		s.logger.Info("a supplied certificate was changed", "file", f.Certificate, "not_after", c.Leaf.NotAfter)
	}
	if changed {
		s.index()
	}
}

// certificate is for tls.Config.GetCertificate. A name that no certificate is for gets the relay's own.
func (s *supplied) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if h.ServerName == "" {
		return s.own(h)
	}
	c := s.find(h.ServerName)
	if c == nil && s.acme != nil {
		c = s.acme.Certificate(h)
	}
	if c == nil {
		return s.own(h)
	}
	return c, nil
}

// find gives the supplied certificate for a name, nil for none.
func (s *supplied) find(name string) *tls.Certificate {
	if len(s.files) == 0 {
		return nil
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh(time.Now())
	c := s.byName[name]
	if _, rest, ok := strings.Cut(name, "."); c == nil && ok {
		c = s.byName["*."+rest]
	}
	return c
}

// of gives the certificate that callers of a name are shown, nil where that is the relay's own.
func (s *supplied) of(name string) *x509.Certificate {
	if c := s.find(name); c != nil {
		return c.Leaf
	}
	if s.acme != nil {
		return s.acme.Leaf(name)
	}
	return nil
}
