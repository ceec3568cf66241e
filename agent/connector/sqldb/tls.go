package sqldb

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// tlsConfig gives the client side of TLS for the profile; nil when it is explicitly disabled.
func tlsConfig(c *Config) (*tls.Config, error) {
	if c.TLS == TLSDisable {
		return nil, nil
	}
	var roots *x509.CertPool // nil: the system's
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("database.%s: read CA file: %w", c.Name, err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("database.%s: CA file %s holds no PEM certificate", c.Name, c.CAFile)
		}
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: c.Host}
	if c.TLS == TLSVerifyCA {
		// The chain is checked by hand, for crypto/tls cannot check it without the name.
		conf.InsecureSkipVerify = true
		conf.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errors.New("server sent no certificate")
			}
			opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
			for _, c := range cs.PeerCertificates[1:] {
				opts.Intermediates.AddCert(c)
			}
			_, err := cs.PeerCertificates[0].Verify(opts)
			return err
		}
	}
	return conf, nil
}
