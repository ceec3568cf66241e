package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
)

func TestCatalogA(t *testing.T) {
	t.Run("A20 redirects", catalogA20)
	t.Run("A21 another host or path", func(t *testing.T) {
		r := newRig(t, nil, nil)
		evil := http.Header{
			"Host": {"evil"}, "X-Forwarded-Host": {"evil"}, "X-Forwarded-For": {"127.0.0.1"}, "X_Forwarded_Proto": {"x"}, "Forwarded": {"host=evil"}, "X-Real-Ip": {"127.0.0.1"}, "X-Original-Url": {"/admin"}, "X-Original-Uri": {"/admin"}, "X-Envoy-Original-Path": {"/admin"},
			"X-Forwarded": {"evil"}, "X-Remote-Addr": {"127.0.0.1"}, "X-Originating-Ip": {"127.0.0.1"}, "X_original_method": {"DELETE"},
			"X-Rewrite-Url": {"/admin"}, "X_rewrite_url": {"/admin"}, "X-Http-Method-Override": {"DELETE"}, "Fairlead-Principal": {"usr_x"}, "Proxy-Authorization": {"x"}, "Proxy-Connection": {"x"},
			"Connection": {"close, X-Named"}, "X-Named": {"1"}, "Keep-Alive": {"1"}, "Te": {"trailers"}, "Trailer": {"X"}, "Transfer-Encoding": {"chunked"}, "Via": {"x"}, "Content-Length": {"0"}, "Expect": {"100-continue"},
		}
		if res := r.do("GET", "/x", evil, nil); res.err != nil {
			t.Fatal(res.err)
		}
		q, _ := r.last()
		if q.Host != "crm.corp:8080" || q.RequestURI != "/base/x" {
			t.Errorf("target saw host %q path %q", q.Host, q.RequestURI)
		}
		for k := range q.Header {
			if k != "User-Agent" {
				t.Errorf("target saw %s: %q", k, q.Header[k])
			}
		}
		r.mu.Lock()
		if fmt.Sprint(r.dialed) != "[crm.corp:8080]" {
			t.Errorf("dialled %v", r.dialed)
		}
		r.mu.Unlock()
		for _, p := range []string{"//evil/", "http://evil/", "evil", "", "/../x", "/a/../../x", "/%2e%2e/x", "/..%2fx", "/a//b", `/\evil`, "/a%5cb", "/a b", "/a\r\nX: y", "/x?a\r\nb", "/a%00", "/;/x", "/..;/x", "/%252e%252e/", "/x#f", "@evil/"} {
			if res := r.do("GET", p, nil, nil); res.code() != protocol.CodeInvalid {
				t.Errorf("%q: %v", p, res.err)
			}
			if q, _ := r.last(); q != nil {
				t.Errorf("%q reached the target as %q", p, q.RequestURI)
			}
		}
	})
	t.Run("A22 other methods and protocols", func(t *testing.T) {
		r := newRig(t, nil, nil)
		for _, m := range []string{"CONNECT", "TRACE", "get", "PRI", "PROPFIND", "", "GET /x HTTP/1.1\r\nX:", "DEBUG"} {
			if res := r.do(m, "/x", nil, nil); res.code() != protocol.CodeDenied {
				t.Errorf("%q: %v", m, res.err)
			}
		}
		for _, h := range []http.Header{{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, {"Upgrade": {"h2c"}}, {"Connection": {"keep-alive, upgrade"}}, {"Http2-Settings": {"AAMAAABk"}}} {
			if res := r.do("GET", "/x", h, nil); res.code() != protocol.CodeDenied {
				t.Errorf("%v: %v", h, res.err)
			}
		}
		if q, _ := r.last(); q != nil {
			t.Errorf("%s reached the target", q.Method)
		}
		forced := newRig(t, nil, func(c *Config) {
			c.Dial = func(context.Context, string, string) (net.Conn, error) {
				c, s := net.Pipe()
				go func() {
					http.ReadRequest(bufio.NewReader(s))
					io.WriteString(s, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
					io.Copy(io.Discard, s)
				}()
				return c, nil
			}
		})
		if res := forced.do("GET", "/", nil, nil); res.code() != protocol.CodeUpstream {
			t.Errorf("a 101 that nobody asked for: %d %v", res.Code, res.err)
		}
	})
	t.Run("A23 proxies of the environment", func(t *testing.T) {
		for _, k := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
			t.Setenv(k, "http://192.0.2.1:3128")
		}
		r := newRig(t, nil, nil)
		if res := r.do("GET", "/x", nil, nil); res.err != nil || fmt.Sprint(r.dialed) != "[crm.corp:8080]" {
			t.Fatalf("dialled %v, %v", r.dialed, res.err)
		}
	})
	t.Run("A25 TLS to the target", catalogA25)
}

func catalogA20(t *testing.T) {
	status, location := 302, ""
	handler := func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/base/start" {
			w.Header().Set("Location", location)
			w.WriteHeader(status)
			return
		}
		if n := 0; strings.HasPrefix(q.URL.Path, "/base/loop/") {
			fmt.Sscanf(q.URL.Path, "/base/loop/%d", &n)
			w.Header().Set("Location", fmt.Sprintf("/base/loop/%d", n+1))
			w.WriteHeader(302)
			return
		}
		io.WriteString(w, "arrived "+q.URL.Path)
	}
	off := newRig(t, handler, nil)
	for _, location = range []string{"http://169.254.169.254/latest/", "file:///etc/passwd", "/base/other", "http://crm.corp:9999/"} {
		if res := off.do("GET", "/start", nil, nil); res.err != nil || res.Code != 302 || len(off.got) != 1 {
			t.Fatalf("redirects are off: %d %v", res.Code, res.err)
		}
		off.last()
	}
	decide := func(op policy.Operation) policy.Decision {
		return policy.Decision{Allow: strings.HasPrefix(op.Request.Target, "/ok") && op.Request.Method == "GET", Rule: "test"}
	}
	var left []string
	on := newRig(t, handler, func(c *Config) {
		c.Redirects, c.Decide = true, decide
		c.Headers, c.Username, c.Password, c.ForwardAuthorization = []Header{{"X-Api-Key", secret.FromString("k")}}, "svc", secret.FromString("pw"), true
	})
	elsewhere := func(ctx context.Context, network, addr string) (net.Conn, error) {
		left = append(left, addr)
		if addr != "friend.corp:80" {
			return nil, &protocol.Error{Code: protocol.CodeDenied, Message: "the site does not allow this target"}
		}
		return on.dial(ctx, network, addr)
	}
	follow := func(to string, code int) result {
		on.last()
		status, location, left = code, to, nil
		return on.do("GET", "/start", http.Header{"Cookie": {"c=1"}}, nil)
	}
	res := follow("/base/ok/1?x=2", 302)
	if q, _ := on.last(); res.err != nil || res.Code != 200 || q.RequestURI != "/base/ok/1?x=2" || q.Header.Get("X-Api-Key") != "k" {
		t.Fatalf("allowed hop: %d %v", res.Code, res.err)
	}
	for _, to := range []string{
		"/base/secret", "/other", "/base", "/basement/ok", "/base/ok/../secret", "//evil/ok", "http://169.254.169.254/latest/", "http://crm.corp:9999/base/ok", "file:///etc/passwd", "gopher://crm.corp/", "http://u:p@crm.corp:8080/base/ok",
		"javascript:alert(1)", "http://friend.corp/", "http://CRM.corp.evil:8080/base/ok", "/base/ok%2f..%2fsecret",
	} {
		res := follow(to, 302)
		on.mu.Lock()
		seen := len(on.got)
		on.mu.Unlock()
		if res.code() != protocol.CodeDenied && res.code() != protocol.CodeInvalid || seen != 1 {
			t.Errorf("%q: %d %v after %d requests", to, res.Code, res.err, seen)
		}
	}
	if res := follow("/base/ok", 307); res.err != nil || res.Code != 200 {
		t.Errorf("307 without a body: %d %v", res.Code, res.err)
	}
	status, location = 307, "/base/ok"
	if res := on.do("POST", "/start", nil, strings.NewReader("x")); res.err != nil || res.Code != 307 {
		t.Errorf("307 with a body is passed on: %d %v", res.Code, res.err)
	}
	loop := newRig(t, handler, func(c *Config) {
		c.Redirects, c.Decide = true, func(policy.Operation) policy.Decision { return policy.Decision{Allow: true} }
	})
	if res := loop.do("GET", "/loop/0", nil, nil); res.code() != protocol.CodeUpstream || len(loop.got) != 6 {
		t.Errorf("ten redirects: %v after %d requests", res.err, len(loop.got))
	}

	// To another origin: only where the dialer says so, and without what was meant for the first.
	api, err := New(Config{Name: "crm", BaseURL: "http://crm.corp:8080/base", Dial: on.dial, Redirects: true, Decide: decide, ElsewhereDial: elsewhere, ForwardAuthorization: true,
		Headers: []Header{{"X-Api-Key", secret.FromString("k")}}}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	on.api.Close()
	on.api = api
	on.last()
	status, location, left = 302, "http://friend.corp/hello", nil
	res = on.do("GET", "/start", http.Header{"Cookie": {"c=1"}, "Authorization": {"Bearer t"}, "Referer": {"http://crm.corp/secret"}, "Accept": {"x/y"}}, nil)
	q, _ := on.last()
	if res.err != nil || res.Body.String() != "arrived /hello" || q.Host != "friend.corp" {
		t.Fatalf("to a friend: %q %v", res.Body, res.err)
	}
	for _, k := range []string{"Cookie", "Authorization", "X-Api-Key", "Referer"} {
		if q.Header.Get(k) != "" {
			t.Errorf("another origin saw %s", k)
		}
	}
	if q.Header.Get("Accept") != "x/y" {
		t.Error("a plain header was lost")
	}
	if res := follow("http://169.254.169.254/latest/", 302); res.code() != protocol.CodeDenied || fmt.Sprint(left) != "[169.254.169.254:80]" {
		t.Errorf("metadata: %v, dialled %v", res.err, left)
	}
}

// authority issues certificates for the rows of A25.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "crm.corp"}, DNSNames: []string{"crm.corp"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	change(tmpl)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func catalogA25(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	plain := func(*x509.Certificate) {}
	for name, c := range map[string]struct {
		cert   tls.Certificate
		max    uint16
		base   string
		detail string
		any    bool
		ok     bool
	}{
		"good":                      {cert: ca.issue(t, plain), ok: true},
		"unknown CA":                {cert: stranger.issue(t, plain), detail: "unknown authority"},
		"wrong name":                {cert: ca.issue(t, func(c *x509.Certificate) { c.DNSNames = []string{"other.corp"} }), detail: "name mismatch"},
		"expired":                   {cert: ca.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), detail: "expired or not yet valid"},
		"name in the CN only":       {cert: ca.issue(t, func(c *x509.Certificate) { c.DNSNames = nil }), detail: "name mismatch"},
		"address without an IP SAN": {cert: ca.issue(t, func(c *x509.Certificate) { c.DNSNames = []string{"10.0.0.5"} }), base: "https://10.0.0.5/", detail: "name mismatch"},
		"any name":                  {cert: ca.issue(t, func(c *x509.Certificate) { c.DNSNames = []string{"other.corp"} }), any: true, ok: true},
		"any name, unknown CA":      {cert: stranger.issue(t, plain), any: true, detail: "unknown authority"},
		"any name, expired":         {cert: ca.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), any: true, detail: "expired or not yet valid"},
		"any name, for clients":     {cert: ca.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), any: true},
		"for clients":               {cert: ca.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })},
		"TLS 1.0":                   {cert: ca.issue(t, plain), max: tls.VersionTLS10},
		"TLS 1.1":                   {cert: ca.issue(t, plain), max: tls.VersionTLS11},
	} {
		t.Run(name, func(t *testing.T) {
			reached := false
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
			srv.TLS = &tls.Config{Certificates: []tls.Certificate{c.cert}, MaxVersion: c.max, MinVersion: tls.VersionTLS10}
			srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			srv.StartTLS()
			defer srv.Close()
			r := newRig(t, nil, func(cfg *Config) {
				cfg.BaseURL, cfg.CAs, cfg.AnyName = "https://crm.corp", pool, c.any
				if c.base != "" {
					cfg.BaseURL = c.base
				}
				cfg.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
					var d net.Dialer
					return d.DialContext(ctx, network, srv.Listener.Addr().String())
				}
				cfg.Password = secret.FromString("canary")
			})
			res := r.do("GET", "/", nil, nil)
			if c.ok != (res.err == nil) || c.ok != reached {
				t.Fatalf("got %v, request seen: %v", res.err, reached)
			}
			if !c.ok {
				e := protocol.AsError(res.err)
				if e.Code != protocol.CodeUpstream || e.Detail != c.detail || e.Origin != protocol.OriginTarget {
					t.Errorf("got %+v", e)
				}
			}
			if r.api.Insecure() {
				t.Error("says that it is insecure")
			}
		})
	}
	t.Run("plaintext on a TLS port", func(t *testing.T) {
		r := newRig(t, nil, func(c *Config) { c.BaseURL = "https://crm.corp" })
		if res := r.do("GET", "/", nil, nil); res.code() != protocol.CodeUpstream {
			t.Fatalf("got %v", res.err)
		}
		if q, _ := r.last(); q != nil {
			t.Fatal("the request went out in plaintext")
		}
	})
	t.Run("insecure only by its own word", func(t *testing.T) {
		srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer srv.Close()
		var log bytes.Buffer
		a, err := New(Config{Name: "crm", BaseURL: "https://crm.corp", Insecure: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, srv.Listener.Addr().String())
		}}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		r := &rig{t: t, api: a}
		if res := r.do("GET", "/", nil, nil); res.err != nil || !a.Insecure() || !strings.Contains(log.String(), "not verified") {
			t.Fatalf("got %v, log %q", res.err, log.String())
		}
	})
}
