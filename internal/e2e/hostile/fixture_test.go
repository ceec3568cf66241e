//go:build linux

package hostile_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

func testLog() *log.Logger { return log.New(io.Discard, "", 0) }

// canary is what must never leave the site.
const canary = "CANARY-5d1f0c9e"

// lan is the site of the rows of 4.A: a few allowed targets, and many that are not.
type lan struct {
	*site
	echo   *listener // 127.0.0.1, listed literally
	canary *listener // 127.0.0.1, not listed
	wide   *listener // all addresses of this machine; its port is allowed for 0.0.0.0/0 and ::/0
	proxy  *listener // what HTTP_PROXY and its like name
	web    *webTarget
	lost   *webTarget            // where redirects lead
	tls    map[string]*webTarget // by what is wrong with them; profile tls-NAME
	mitm   *listener             // a PostgreSQL server that does not do TLS
}

const lanYAML = `
allow:
  - {host: 127.0.0.1, ports: [ECHO]}
  - {host: LOCALHOST, ports: [ECHO]}
  - {cidr: 0.0.0.0/0, ports: [WIDE]}
  - {cidr: "::/0", ports: [WIDE]}
  - {host: "*.corp", ports: [WIDE]}
  - {host: "HOSTNAME", ports: [WIDE]}
  - {cidr: 127.0.0.9/32, ports: [ECHO]}
  - {cidr: 10.0.0.0/8, ports: [ECHO]}
deny:
  - {cidr: 127.0.0.9/32}
  - {cidr: 10.0.0.5/32}
tcp:
  erp: {host: 127.0.0.1, port: ECHO}
http:
  web:
    base_url: http://127.0.0.1:WEB/api
    allow: [{methods: [GET, POST], path: /v1/**}]
    timeout: 10s
  follow:
    base_url: http://127.0.0.1:WEB/api
    allow: [{methods: [GET], path: /v1/**}]
    redirects: follow
    timeout: 10s
  far:
    base_url: http://192.0.2.1:81
    allow: [{methods: [GET], path: /**}]
    timeout: 1s
TLSPROFILES
database:
  mitm:
    adapter: postgresql
    host: 127.0.0.1
    port: MITM
    database: d
    username: reader
    password_file: db.pw
    conn_timeout: 3s
    allow: {mode: read_only, timeout: 5s}
  guarded:
    adapter: postgresql
    host: 127.0.0.1
    port: CANARYPORT
    database: d
    username: reader
    password_file: db.pw
    allow: {mode: read_only}
`

// newLAN builds targets, a rogue relay and the agent between.
func newLAN(t testing.TB) *lan {
	t.Helper()
	l := &lan{tls: map[string]*webTarget{}}
	l.echo, l.canary, l.proxy = listen(t, "127.0.0.1", echo), listen(t, "127.0.0.1", echo), listen(t, "127.0.0.1", nil)
	l.wide = listen(t, "", echo)
	l.mitm = listen(t, "127.0.0.1", refuseTLS)
	l.lost = newWeb(t, (*httptest.Server).Start, nil)
	l.web = newWeb(t, (*httptest.Server).Start, l.serveWeb)

	dir := t.TempDir()
	profiles := l.badTLS(t, dir)
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	_, web, _ := net.SplitHostPort(l.web.Listener.Addr().String())
	yaml := strings.NewReplacer("ECHO", strconv.Itoa(l.echo.port), "WIDE", strconv.Itoa(l.wide.port), "WEB", web, "MITM", strconv.Itoa(l.mitm.port),
		"CANARYPORT", strconv.Itoa(l.canary.port), "HOSTNAME", strings.ToLower(hostname), "TLSPROFILES", profiles, "db.pw", filepath.Join(dir, "db.pw")).Replace(lanYAML)
	if err := os.WriteFile(filepath.Join(dir, "db.pw"), []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := "http://127.0.0.1:" + strconv.Itoa(l.proxy.port)
	l.site = newSite(t, newRogue(t), yaml, "HTTP_PROXY="+proxy, "HTTPS_PROXY="+proxy, "ALL_PROXY="+proxy, "http_proxy="+proxy, "https_proxy="+proxy, "all_proxy="+proxy, "NO_PROXY=")
	return l
}

// serveWeb is the HTTP target: it redirects to wherever the path says.
func (l *lan) serveWeb(w http.ResponseWriter, r *http.Request) {
	_, to, ok := strings.Cut(r.URL.Path, "/redirect/")
	switch {
	case !ok:
		_, _ = io.WriteString(w, "hello from the target")
		return
	case to == "port":
		to = l.lost.URL + "/stolen"
	case to == "metadata":
		to = "http://169.254.169.254:" + strconv.Itoa(l.wide.port) + "/latest/meta-data/"
	case to == "own":
		to = "http://localhost:" + strconv.Itoa(l.wide.port) + "/"
	case to == "file":
		to = "file:///etc/passwd"
	case to == "loop":
		to = r.URL.Path
	case to == "denied-path":
		to = "/admin"
	}
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusFound)
}

// refuseTLS is a PostgreSQL server, or someone between, that answers N to SSLRequest and hopes for a password.
func refuseTLS(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 8)
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	_, _ = io.WriteString(c, "N")
	_, _ = io.Copy(io.Discard, c)
}

// badTLS starts HTTPS targets that each have one thing wrong, and a good one; it gives their profiles.
func (l *lan) badTLS(t testing.TB, dir string) string {
	t.Helper()
	ca, caKey := certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "site CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	other, otherKey := certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "site CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	leaf := func(c x509.Certificate) *x509.Certificate {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if c.Subject.CommonName == "" {
			c.Subject.CommonName = "localhost"
		}
		return &c
	}
	good := x509.Certificate{DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	old := good
	old.NotAfter = time.Now().Add(-time.Hour)
	type target struct {
		host   string
		cert   *x509.Certificate
		parent *x509.Certificate
		key    *ecdsa.PrivateKey
		max    uint16
	}
	profiles := ""
	for name, c := range map[string]target{
		"good":      {"localhost", leaf(good), ca, caKey, 0},
		"stranger":  {"localhost", leaf(good), other, otherKey, 0},
		"self":      {"localhost", leaf(good), nil, nil, 0},
		"name":      {"localhost", leaf(x509.Certificate{Subject: pkix.Name{CommonName: "x"}, DNSNames: []string{"other.corp"}}), ca, caKey, 0},
		"cn":        {"localhost", leaf(x509.Certificate{}), ca, caKey, 0},
		"ip":        {"127.0.0.1", leaf(x509.Certificate{DNSNames: []string{"localhost"}}), ca, caKey, 0},
		"expired":   {"localhost", leaf(old), ca, caKey, 0},
		"tls10":     {"localhost", leaf(good), ca, caKey, tls.VersionTLS11},
		"plaintext": {"localhost", nil, nil, nil, 0},
	} {
		web := newWeb(t, func(s *httptest.Server) {
			if c.cert == nil {
				s.Start()
				return
			}
			cert, key := certificate(t, c.cert, c.parent, c.key)
			s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}, MinVersion: tls.VersionTLS10, MaxVersion: c.max}
			s.StartTLS()
		}, nil)
		l.tls[name] = web
		_, port, _ := net.SplitHostPort(web.Listener.Addr().String())
		profiles += fmt.Sprintf("  tls-%s:\n    base_url: https://%s:%s\n    ca_file: %s\n    allow: [{methods: [GET], path: /**}]\n    timeout: 10s\n", name, c.host, port, filepath.Join(dir, "ca.pem"))
	}
	return profiles
}

// certificate signs c by parent, or by itself.
func certificate(t testing.TB, c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-24*time.Hour)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out, key
}

// Requests that the rows are made of.

func dialTo(host string, port int) protocol.Request {
	return protocol.Request{Kind: protocol.KindTCP, Profile: protocol.NoProfile, Operation: protocol.OpDial, Host: host, Port: uint16(port)}
}

func request(profile, method, target string) protocol.Request {
	return protocol.Request{Kind: protocol.KindHTTP, Profile: profile, Operation: protocol.OpRequest, Method: method, Target: target}
}

func file(op protocol.Operation, profile, path string) protocol.Request {
	return protocol.Request{Kind: protocol.KindFiles, Profile: profile, Operation: op, Path: path}
}

func database(op protocol.Operation, profile string) protocol.Request {
	return protocol.Request{Kind: protocol.KindDatabase, Profile: profile, Operation: op}
}
