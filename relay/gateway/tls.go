package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// rawProtocols are ALPN names of protocols whose clients insist on one. The relay does not speak them: it only agrees.
var rawProtocols = []string{"postgresql", "tds/8.0"}

// settings are the TLS settings of a gateway. Nothing outlives a conn: no tickets, so that each shows its certificate.
func (m *Manager) settings(g *directory.Gateway) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: m.cfg.Certificate, SessionTicketsDisabled: true}
	if g.TLS == directory.GatewayMutual {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, g.ClientCAs
	}
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		for _, name := range h.SupportedProtos {
			if slices.Contains(rawProtocols, name) {
				with := c.Clone()
				with.NextProtos = []string{name}
				return with, nil
			}
		}
		return nil, nil
	}
	return c
}

// handshake speaks TLS with the client, and gives its certificate where the gateway wants one.
func (m *Manager) handshake(k *conn) (*tls.Conn, *x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(k.ctx, m.cfg.HandshakeTimeout)
	defer cancel()
	c := tls.Server(k.raw, m.settings(k.gateway))
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, nil, handshakeError(ctx, err)
	}
	if k.gateway.TLS != directory.GatewayMutual {
		return c, nil, nil
	}
	chains := c.ConnectionState().VerifiedChains
	if len(chains) == 0 || len(chains[0]) == 0 { // cannot be: crypto/tls has verified it
		return nil, nil, denied("the client's certificate was not verified")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, cert := range chains[0] {
		if k.until.IsZero() || cert.NotAfter.Before(k.until) {
			k.until = cert.NotAfter
		}
	}
	return c, chains[0][0], nil
}

func denied(message string) error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: "gateway.tls", Message: message}
}

// handshakeError says what went wrong in words of our own: what the client sent is in the error's.
func handshakeError(ctx context.Context, err error) error {
	var verify *tls.CertificateVerificationError
	var invalid x509.CertificateInvalidError
	var timeout net.Error
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return denied("the client's certificate is not valid now")
	case errors.As(err, &verify):
		return denied("the client's certificate is not of the gateway's CA, or not for clients")
	case strings.Contains(err.Error(), "client didn't provide a certificate"): // crypto/tls has no value for it
		return denied("the client showed no certificate")
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &protocol.Error{Code: protocol.CodeTimeout, Origin: protocol.OriginRelay, Rule: "gateway.tls", Message: "the TLS handshake was not done in time"}
	}
	return denied("the TLS handshake failed")
}

// maxLeafName bounds what a certificate may call its holder.
const maxLeafName = 128

// leafName is what a certificate calls its holder: a URI, mail address or host name of its own, else its common name.
func leafName(c *x509.Certificate) string {
	var names []string
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	names = append(append(append(names, c.EmailAddresses...), c.DNSNames...), c.Subject.CommonName, c.Subject.String())
	for _, n := range names {
		if n != "" && len(n) <= maxLeafName && utf8.ValidString(n) && !strings.ContainsFunc(n, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return n
		}
	}
	return "certificate without a name"
}

// leafDetail tells the certificates of one name apart.
func leafDetail(c *x509.Certificate) map[string]string {
	sum := sha256.Sum256(c.Raw)
	return map[string]string{"certificate": "sha256:" + hex.EncodeToString(sum[:])}
}
