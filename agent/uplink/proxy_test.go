package uplink

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listener serves each conn by a function of its own and joins them all at the end of the test.
func listener(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards conns
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				serve(c)
				_ = c.Close()
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// stranger is a certificate that this installation did not issue, for name.
func stranger(t testing.TB, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Corp Inspection CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// proxyServer is a real CONNECT proxy. It wants user and password when user is set, and leads every name to target, or to
// what was asked for when target is empty.
func proxyServer(t testing.TB, target, user, password string, cert *tls.Certificate) string {
	return listener(t, func(c net.Conn) {
		if cert != nil {
			c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12})
		}
		br := bufio.NewReader(c)
		req, err := http.ReadRequest(br)
		if err != nil || req.Method != http.MethodConnect {
			_, _ = io.WriteString(c, "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
			return
		}
		if user != "" && req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)) {
			_, _ = io.WriteString(c, "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: Basic realm=\"a, NTLM x\"\r\nContent-Length: 0\r\n\r\n")
			return
		}
		to := target
		if to == "" {
			to = req.Host
		}
		out, err := (&net.Dialer{}).Dial("tcp", to)
		if err != nil {
			_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
			return
		}
		defer out.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		done := make(chan struct{})
		go func() { defer close(done); _, _ = io.Copy(out, br); _ = out.(*net.TCPConn).CloseWrite() }()
		_, _ = io.Copy(c, out)
		_ = c.Close()
		<-done
	})
}

func echo(t testing.TB) string {
	return listener(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

func parse(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	must(t, err)
	return u
}

func passes(t *testing.T, p Proxy, addr string) {
	t.Helper()
	c, err := p.Dial(t.Context(), "tcp", addr)
	must(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "hello")
	must(t, err)
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// refusal is the error of a dial that must fail. It must say all of says, and never the password.
func refusal(t *testing.T, p Proxy, addr string, says ...string) error {
	t.Helper()
	c, err := p.Dial(t.Context(), "tcp", addr)
	if err == nil {
		c.Close()
		t.Fatal("it was let through")
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
	if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte("svc:"+canary))) {
		t.Errorf("the password stands in %q", err)
	}
	if readSign(err) != signNone {
		t.Errorf("a proxy's refusal is taken for a reason to try WebSocket: %v", err)
	}
	return err
}

const canary = "Sup3r-s3cret"

func TestProxyLeadsThrough(t *testing.T) {
	to := echo(t)
	cert, pool := stranger(t, "proxy.corp")
	for name, p := range map[string]Proxy{
		"none":       {},
		"http":       {URL: parse(t, "http://"+proxyServer(t, "", "", "", nil))},
		"http+basic": {URL: parse(t, "http://"+proxyServer(t, "", "svc", canary, nil)), Username: "svc", Password: secret.FromString(canary)},
		"https":      {URL: parse(t, "https://"+proxyServer(t, "", "svc", canary, &cert)), Username: "svc", Password: secret.FromString(canary), CAs: pool},
	} {
		t.Run(name, func(t *testing.T) { passes(t, p, to) })
	}
}

func TestProxyRefusalsSayWhatToDo(t *testing.T) {
	cert, pool := stranger(t, "proxy.corp")
	_, otherPool := stranger(t, "proxy.corp")
	answer := func(text string) string {
		return "http://" + listener(t, func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, text)
		})
	}
	status := func(line string, headers ...string) string {
		return answer("HTTP/1.1 " + line + "\r\n" + strings.Join(append(headers, "Content-Length: 0"), "\r\n") + "\r\n\r\n")
	}
	basic := func(p Proxy) Proxy { p.Username, p.Password = "svc", secret.FromString(canary); return p }
	for name, c := range map[string]struct {
		p    Proxy
		addr string
		says []string
	}{
		"407, nothing set":    {Proxy{URL: parse(t, "http://"+proxyServer(t, "", "svc", "x", nil))}, "", []string{"407", "set relay.proxy.username"}},
		"407, wrong password": {basic(Proxy{URL: parse(t, "http://"+proxyServer(t, "", "svc", "x", nil))}), "", []string{"407", "refused", "relay.proxy.username"}},
		"407 NTLM":            {basic(Proxy{URL: parse(t, status("407 X", "Proxy-Authenticate: Negotiate", "Proxy-Authenticate: NTLM"))}), "", []string{"Negotiate, NTLM", "Basic alone"}},
		"407 Kerberos, one header": {basic(Proxy{URL: parse(t, status("407 X", "Proxy-Authenticate: Kerberos, Digest realm=\"a\", nonce=\"b\""))}), "",
			[]string{"Kerberos, Digest", "Basic alone"}},
		"407 of no kind":     {Proxy{URL: parse(t, status("407 X"))}, "", []string{"407", "relay.proxy.username"}},
		"403":                {Proxy{URL: parse(t, status("403 X"))}, "relay.example.com:8443", []string{"403 Forbidden", "ask its admin", "port 443 alone"}},
		"403 on 443":         {Proxy{URL: parse(t, status("403 X"))}, "relay.example.com:443", []string{"403 Forbidden", "ask its admin"}},
		"502":                {Proxy{URL: parse(t, status("502 X"))}, "", []string{"502 Bad Gateway", "does not reach the relay"}},
		"504":                {Proxy{URL: parse(t, status("504 X"))}, "", []string{"504", "does not reach the relay"}},
		"redirect":           {Proxy{URL: parse(t, status("302 X", "Location: http://login.corp/"))}, "", []string{"302", "sign-in"}},
		"400":                {Proxy{URL: parse(t, status("400 X"))}, "", []string{"400", "whether it allows CONNECT"}},
		"a page after 200":   {Proxy{URL: parse(t, answer("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12\r\n\r\n<html>sign in"))}, "", []string{"body of its own", "sign-in page"}},
		"bytes after 200":    {Proxy{URL: parse(t, answer("HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n"))}, "", []string{"body of its own"}},
		"early close":        {Proxy{URL: parse(t, answer(""))}, "", []string{"closed the conn without an answer"}},
		"cut head":           {Proxy{URL: parse(t, answer("HTTP/1.1 200 OK\r\nX-Y: "))}, "", []string{"closed the conn without an answer"}},
		"no HTTP":            {Proxy{URL: parse(t, answer("SSH-2.0-OpenSSH \x1b[31m"+canary+"\r\n\r\n"))}, "", []string{"does not speak HTTP"}},
		"TLS where http was": {Proxy{URL: parse(t, "http://"+proxyServer(t, "", "", "", &cert))}, "", []string{"https://"}},
		"http where TLS was": {basic(Proxy{URL: parse(t, "https://"+listenerOf(t, "HTTP/1.1 400 Bad Request\r\n\r\n")), CAs: pool}), "", []string{"speaks no TLS", "http://"}},
		"https, other CA":    {basic(Proxy{URL: parse(t, "https://"+proxyServer(t, "", "", "", &cert)), CAs: otherPool}), "", []string{"relay.proxy.ca_file"}},
		"not there":          {Proxy{URL: parse(t, "http://127.0.0.1:1")}, "", []string{"dial proxy 127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.addr == "" {
				c.addr = "relay.example.com:443"
			}
			err := refusal(t, c.p, c.addr, c.says...)
			if name == "403 on 443" && strings.Contains(err.Error(), "port 443 alone") {
				t.Errorf("a hint that does not help: %v", err)
			}
		})
	}
}

// listenerOf reads a little and answers, whoever asks.
func listenerOf(t testing.TB, text string) string {
	return listener(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1<<10))
		_, _ = io.WriteString(c, text)
		_, _ = io.Copy(io.Discard, c)
	})
}

// A proxy can neither hold the agent up nor make it hold much.
func TestHostileProxyIsBounded(t *testing.T) {
	flood := func(first, piece string) string {
		return "http://" + listener(t, func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, err := io.WriteString(c, first)
			for err == nil {
				_, err = io.WriteString(c, piece)
			}
		})
	}
	for name, c := range map[string][2]string{
		"endless headers":       {flood("HTTP/1.1 200 OK\r\n", "X-A: "+strings.Repeat("a", 200)+"\r\n"), "longer than 16384 bytes"},
		"one endless header":    {flood("HTTP/1.1 200 OK\r\nX-A: ", strings.Repeat("a", 2000)), "longer than 16384 bytes"},
		"endless status line":   {flood("HTTP/1.1 200 ", strings.Repeat("a", 2000)), "longer than 16384 bytes"},
		"nothing but 1xx":       {flood("", "HTTP/1.1 100 Continue\r\n\r\n"), "interim"},
		"long 1xx":              {flood("", "HTTP/1.1 102 X\r\nX-A: "+strings.Repeat("a", 3000)+"\r\n\r\n"), "longer than 16384 bytes"},
		"endless body of a 407": {flood("HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM\r\n\r\n", strings.Repeat("a", 2000)), "NTLM"},
	} {
		t.Run(name, func(t *testing.T) {
			refusal(t, Proxy{URL: parse(t, c[0])}, "relay.example.com:443", c[1])
		})
	}
	t.Run("interim answers before the one that counts", func(t *testing.T) {
		addr := listener(t, func(c net.Conn) {
			br := bufio.NewReader(c)
			_, _ = http.ReadRequest(br)
			_, _ = io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
			_, _ = io.Copy(c, br)
		})
		passes(t, Proxy{URL: parse(t, "http://"+addr)}, "relay.example.com:443")
	})
	for name, first := range map[string]string{"silence": "", "drops": "HTTP/1.1 200 OK\r\nX-"} {
		t.Run(name, func(t *testing.T) {
			p := Proxy{URL: parse(t, "http://"+listenerOf(t, first))}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := p.Dial(ctx, "tcp", "relay.example.com:443")
			if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "no answer to CONNECT in time") || readSign(err) != signNone {
				t.Fatalf("got %v", err)
			}
		})
	}
	t.Run("silence in TLS", func(t *testing.T) {
		p := Proxy{URL: parse(t, "https://"+listener(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := p.Dial(ctx, "tcp", "relay.example.com:443"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
	})
}

// The environment is asked only where agent.yaml says so, and then as everybody expects.
func TestProxyOfTheEnvironment(t *testing.T) {
	to := echo(t)
	open := proxyServer(t, to, "", "", nil)
	closed := proxyServer(t, to, "svc", canary, nil)
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "no_proxy", "NO_PROXY", "HTTPS_PROXY"} {
		t.Setenv(name, "")
	}
	// relay.test does not resolve: only a proxy leads there.
	const there = "relay.test:443"
	t.Run("never used unless asked", func(t *testing.T) {
		t.Setenv("HTTPS_PROXY", "http://"+open)
		refusal(t, Proxy{}, "127.0.0.1:1", "firewall")
		// One that agent.yaml names is not replaced either.
		refusal(t, Proxy{URL: parse(t, "http://127.0.0.1:1")}, there, "dial proxy 127.0.0.1:1")
	})
	p := Proxy{FromEnvironment: true}
	for name, value := range map[string]string{
		"HTTPS_PROXY": "http://" + open, "https_proxy": open /* without a scheme */} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			passes(t, p, there)
		})
	}
	t.Run("user and password", func(t *testing.T) {
		t.Setenv("HTTPS_PROXY", fmt.Sprintf("http://svc:%s@%s", canary, closed))
		passes(t, p, there)
		t.Setenv("HTTPS_PROXY", fmt.Sprintf("http://svc:%sx@%s", canary, closed))
		refusal(t, p, there, "407", "HTTPS_PROXY")
	})
	t.Run("HTTP_PROXY is for http", func(t *testing.T) {
		t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
		t.Setenv("HTTPS_PROXY", "http://"+open)
		passes(t, p, there)
	})
	t.Run("NO_PROXY", func(t *testing.T) {
		t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
		passes(t, p, to) // loopback is never led through a proxy
		t.Setenv("NO_PROXY", "other.test,.test")
		if e, err := p.fromEnvironment(there); err != nil || e.URL != nil {
			t.Errorf("the proxy %v would be asked (%v)", e.URL, err)
		}
		t.Setenv("NO_PROXY", "other.test")
		if e, err := p.fromEnvironment(there); err != nil || e.URL == nil {
			t.Errorf("the proxy would not be asked (%v)", err)
		}
	})
	t.Run("none set", func(t *testing.T) { passes(t, p, to) })
	for name, value := range map[string]string{
		"socks": "socks5://svc:" + canary + "@127.0.0.1:1080", "broken": "http://svc:" + canary + "@[::1", "no host": "http://svc:" + canary + "@",
		"bad escape": "http://svc:" + canary + "%zz@127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HTTPS_PROXY", value)
			refusal(t, p, there, "HTTPS_PROXY")
		})
	}
}
