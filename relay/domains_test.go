package relay

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/relay/client"
)

// E10, E22: over real TLS, a name of a workspace's own is shown its certificate, and a conn that was opened for it serves no other
// name; the admin API tells until when the certificate is good.
func TestDomainOfAWorkspaceOverTLS(t *testing.T) {
	dir := t.TempDir()
	pem := SuppliedCertificate{filepath.Join(dir, "a.pem"), filepath.Join(dir, "a.key")}
	certify(t, pem, 7, "*.apps.example.com")
	r, _ := running(t, func(c *Config) {
		c.API.Certificates, c.API.Domains = []SuppliedCertificate{pem}, []string{"*.apps.example.com"}
	})
	if _, err := r.dir.CreateDomain(t.Context(), "default", "sales.apps.example.com"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		opened, asked, says, version string
		status                       int
	}{
		{"sales.apps.example.com", "sales.apps.example.com", "no valid", "HTTP/1.1", http.StatusUnauthorized},
		{"sales.apps.example.com", "localhost", "opened for another name", "HTTP/1.1", http.StatusMisdirectedRequest},
		{"localhost", "sales.apps.example.com", "opened for another name", "HTTP/1.1", http.StatusMisdirectedRequest},
		{"sales.apps.example.com", "sales.apps.example.com", "HTTP/1.1 and HTTP/2", "HTTP/1.0", http.StatusHTTPVersionNotSupported},
		{"localhost", "localhost", "no valid", "HTTP/1.0", http.StatusUnauthorized},
		{"localhost", "127.0.0.1", "no valid", "HTTP/1.1", http.StatusUnauthorized},
	} {
		conn, err := tls.Dial("tcp", r.Addr().String(), &tls.Config{ServerName: c.opened, InsecureSkipVerify: true}) //nolint:gosec // what is shown is looked at
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64() == 7; got != strings.HasPrefix(c.opened, "sales") {
			t.Errorf("%s is shown the supplied certificate: %v", c.opened, got)
		}
		if _, err := io.WriteString(conn, "GET /api/v1/whoami "+c.version+"\r\nHost: "+c.asked+"\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		_ = conn.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.says) || resp.Header.Get("Content-Type") != client.ContentProblem {
			t.Errorf("E10 opened for %s, asked for %s: %d %s", c.opened, c.asked, resp.StatusCode, body)
		}
	}
	certs, err := newSupplied([]SuppliedCertificate{pem}, r.server.GetCertificate, r.opt.Logger)
	if err != nil {
		t.Fatal(err)
	}
	if c := certs.of("sales.apps.example.com"); c == nil || c.NotAfter.Before(time.Now()) {
		t.Errorf("%v", c)
	}
	if c := certs.of("sales.elsewhere.example.com"); c != nil {
		t.Errorf("a certificate for %v", c.DNSNames)
	}
}
