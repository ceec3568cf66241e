package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// ALPN is the protocol by which an ACME server proves a name (RFC 8737, 6.2).
const ALPN = "acme-tls/1"

// Config says whom to ask, and for what.
type Config struct {
	URL   string         // of the ACME server's directory, https
	Email string         // of the account; may be empty
	KeyID string         // binds the account to one that the authority knows (RFC 8555, 7.3.4); "": no binding
	Key   secret.Bytes   // its MAC key in base64url; with KeyID, and only there
	Roots *x509.CertPool // of the ACME server's own certificate; nil: the system's
	Port  net.Addr       // the relay's port, which answers challenges
	// OrderTimeout bounds one try for a certificate; 0: 90 s. Tries that fail are made again, ever more seldom, for as long as the
	// domain is there.
	OrderTimeout time.Duration
	Directory    *directory.Directory
	Logger       *slog.Logger
}

// Manager has certificates for domains. Safe for concurrent use; Run it.
type Manager struct {
	conf  Config
	cache *certmagic.Cache
	magic *certmagic.Config

	mu    sync.Mutex // guards names
	names map[string]context.CancelFunc
}

// New makes a Manager; Run starts it, and must be called so that it leaves nothing behind.
func New(c Config) (*Manager, error) {
	if c.URL == "" || c.Directory == nil || c.Port == nil || c.Logger == nil {
		return nil, errors.New("get certificates: the ACME server, the relay's port, state and logger must be set")
	}
	if (c.KeyID == "") != c.Key.IsZero() {
		return nil, errors.New("get certificates: the account's binding wants a key's id and the key")
	}
	if c.OrderTimeout == 0 {
		c.OrderTimeout = 90 * time.Second
	}
	host, text, err := net.SplitHostPort(c.Port.String())
	if err != nil {
		return nil, fmt.Errorf("get certificates: %w", err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("get certificates: port %q: %w", text, err)
	}
	m := &Manager{conf: c, names: map[string]context.CancelFunc{}}
	log := zap.New(&core{log: c.Logger})
	m.cache = certmagic.NewCache(certmagic.CacheOptions{Logger: log, GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return m.magic, nil }})
	m.magic = certmagic.New(m.cache, certmagic.Config{Storage: &storage{dir: c.Directory, locks: map[string]chan struct{}{}}, Logger: log,
		OCSP: certmagic.OCSPConfig{DisableStapling: true}})
	var binding *acme.EAB
	if c.KeyID != "" {
		binding = &acme.EAB{KeyID: c.KeyID, MACKey: c.Key.ExposeString()}
	}
	// The port is taken, by the relay: it answers the challenges, and no other listener is opened for them.
	m.magic.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(m.magic, certmagic.ACMEIssuer{CA: c.URL, TestCA: c.URL, Email: c.Email, ExternalAccount: binding, Agreed: true, TrustedRoots: c.Roots,
		DisableHTTPChallenge: true, DisableDistributedSolvers: true, ListenHost: host, AltTLSALPNPort: port, CertObtainTimeout: c.OrderTimeout, Logger: log})}
	return m, nil
}

// Run gets a certificate for each domain that there is, and for those that come, until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	defer m.cache.Stop()
	for ctx.Err() == nil {
		changed := m.conf.Directory.Changed()
		if s := m.conf.Directory.Snapshot(); !s.Stale {
			m.follow(ctx, s.AllDomains())
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// follow begins with names that are new, and lets go of those that are no domain any more.
func (m *Manager) follow(ctx context.Context, names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, stop := range m.names {
		if !slices.Contains(names, name) {
			stop()
			delete(m.names, name)
			m.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name}})
		}
	}
	if err := m.sweep(ctx, names); err != nil && ctx.Err() == nil {
		m.conf.Logger.Warn("certificates of domains that are gone could not be removed; tried again at the next change", "error", err)
	}
	for _, name := range names {
		if m.names[name] != nil {
			continue
		}
		one, stop := context.WithCancel(ctx)
		m.names[name] = stop
		if err := m.magic.ManageAsync(one, []string{name}); err != nil {
			m.conf.Logger.Error("a certificate cannot be asked for", "domain", name, "error", err)
		}
	}
}

// sweep removes certificates and keys of names that are no domain any more: certificates/ISSUER/NAME/FILE.
func (m *Manager) sweep(ctx context.Context, names []string) error {
	items, err := m.conf.Directory.ACMEItems(ctx)
	if err != nil {
		return err
	}
	for _, i := range items {
		parts := strings.Split(i.Key, "/")
		if len(parts) == 4 && parts[0] == "certificates" && !slices.Contains(names, parts[2]) {
			if err := m.conf.Directory.DeleteACMEItem(ctx, i.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Manager) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names[name] != nil
}

// Certificate gives the certificate for the name of a handshake; nil for one that is no domain, or has none yet.
func (m *Manager) Certificate(h *tls.ClientHelloInfo) *tls.Certificate {
	if !m.has(directory.DomainName(h.ServerName)) {
		return nil
	}
	if c, err := m.magic.GetCertificate(h); err == nil {
		return c
	}
	return nil
}

// Leaf gives the certificate that there is for a domain, nil for none.
func (m *Manager) Leaf(name string) *x509.Certificate {
	if !m.has(name) {
		return nil
	}
	for _, c := range m.cache.AllMatchingCertificates(name) {
		if c.Leaf != nil {
			return c.Leaf
		}
	}
	return nil
}

// Challenge is the TLS of a conn by which an ACME server proves a name. Nothing is spoken on it but the handshake.
func (m *Manager) Challenge() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{ALPN}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if !m.has(directory.DomainName(h.ServerName)) || !slices.Contains(h.SupportedProtos, ALPN) {
			return nil, errors.New("no certificate is being asked for this name")
		}
		return m.magic.GetCertificate(h)
	}}
}

// Answer closes the conns of a listener as they come: their handshake was the answer. It returns when the listener is closed.
func Answer(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		_ = c.Close()
	}
}
