package relay

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/relay/client"
)

// certify writes a certificate for names that signs itself, and its key.
func certify(t *testing.T, s SuppliedCertificate, serial int64, names ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{s.Certificate: {Type: "CERTIFICATE", Bytes: der}, s.Key: {Type: "PRIVATE KEY", Bytes: k}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateIsChosenByNameAndTakenUpAnew(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) SuppliedCertificate {
		return SuppliedCertificate{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
	}
	one, two := file("one"), file("two")
	certify(t, one, 1, "relay.example.com", "*.apps.example.com")
	certify(t, two, 2, "other.example.com", "relay.example.com")
	own := &tls.Certificate{Leaf: &x509.Certificate{SerialNumber: big.NewInt(99)}}
	s, err := newSupplied([]SuppliedCertificate{one, two}, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own, nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	shown := func(name string) int64 {
		t.Helper()
		s.looked = time.Time{}
		c, err := s.certificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.Int64()
	}
	for name, want := range map[string]int64{"relay.example.com": 1, "RELAY.example.com.": 1, "x.apps.example.com": 1, "x.y.apps.example.com": 99, "apps.example.com": 99,
		"other.example.com": 2, "another.example.com": 99, "": 99, ".": 99, "*.apps.example.com": 1} {
		if got := shown(name); got != want {
			t.Errorf("%q is shown certificate %d, want %d", name, got, want)
		}
	}
	// A key that does not belong: what was there goes on, until both are there.
	key, err := os.ReadFile(one.Key)
	if err != nil {
		t.Fatal(err)
	}
	certify(t, one, 11, "relay.example.com", "new.example.com")
	fresh, err := os.ReadFile(one.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(one.Key, append(key, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := shown("relay.example.com"); got != 1 {
		t.Errorf("half a change is shown: %d", got)
	}
	if err := os.WriteFile(one.Key, append(fresh, "\n\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, b := shown("relay.example.com"), shown("new.example.com"); a != 11 || b != 11 {
		t.Errorf("a changed certificate is not shown: %d, %d", a, b)
	}
	if got := shown("x.apps.example.com"); got != 99 {
		t.Errorf("a name that it is not for any more: %d", got)
	}
	// Files that are gone.
	if err := os.Remove(two.Certificate); err != nil {
		t.Fatal(err)
	}
	if got := shown("other.example.com"); got != 2 {
		t.Errorf("a file that is gone: %d", got)
	}
	// What names nobody, or does not belong together, is told at the start.
	certify(t, two, 3)
	for _, bad := range []SuppliedCertificate{two, {one.Certificate, two.Key}, {filepath.Join(dir, "none"), one.Key}} {
		if _, err := newSupplied([]SuppliedCertificate{one, bad}, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "api.certificates[1]") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// What a relay's operator demands of callers holds at the port, and its names show what was supplied.
func TestListenerOfCallersKeepsToItsSettings(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).close()
	file := filepath.Join(dir, "relay.yaml")
	yaml, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	certify(t, SuppliedCertificate{filepath.Join(dir, "a.pem"), filepath.Join(dir, "a.key")}, 7, "people.example.com")
	for name, c := range map[string]struct {
		api     string
		oldTLS  bool
		oldHTTP int
	}{
		"default": {"api: {certificates: [{certificate: a.pem, key: a.key}]}\n", true, http.StatusUnauthorized},
		"strict":  {"api: {min_tls: \"1.3\", min_http: \"1.1\", certificates: [{certificate: a.pem, key: a.key}]}\n", false, http.StatusHTTPVersionNotSupported},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, append(yaml[:len(yaml):len(yaml)], c.api...), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := LoadConfig(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Listen, cfg.Health.Listen = "127.0.0.1:0", ""
			r, err := New(context.Background(), Options{Config: cfg})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			defer func() {
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			dial := func(server string, most uint16, alpn ...string) (*tls.Conn, error) {
				raw, err := net.Dial("tcp", r.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				conn := tls.Client(raw, &tls.Config{ServerName: server, MaxVersion: most, MinVersion: tls.VersionTLS12, NextProtos: alpn, InsecureSkipVerify: true}) //nolint:gosec // what is shown is looked at
				if err := conn.Handshake(); err != nil {
					_ = raw.Close()
					return nil, err
				}
				t.Cleanup(func() { _ = conn.Close() })
				return conn, nil
			}
			for server, want := range map[string]bool{"people.example.com": true, "localhost": false} {
				conn, err := dial(server, 0, "http/1.1")
				if err != nil {
					t.Fatal(err)
				}
				if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64() == 7; got != want {
					t.Errorf("%s is shown the supplied certificate: %v", server, got)
				}
			}
			// Enrolment is by the relay's own CA, whatever name is asked for.
			if conn, err := dial("people.example.com", 0, "fairlead-enroll/1"); err != nil || conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64() == 7 {
				t.Errorf("P2 enrolment shows a supplied certificate, or none: %v", err)
			}
			if _, err := dial("localhost", tls.VersionTLS12, "http/1.1"); (err == nil) != c.oldTLS {
				t.Errorf("TLS 1.2: %v", err)
			}
			conn, err := dial("localhost", 0, "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, "GET /api/v1/whoami HTTP/1.0\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != c.oldHTTP || resp.Header.Get("Content-Type") != client.ContentProblem {
				t.Errorf("HTTP/1.0: %d %s", resp.StatusCode, body)
			}
		})
	}
}
