package certificate_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/challtestsrv"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/certificate"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// text collects what is logged.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) has(s string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Contains(t.b.String(), s)
}

// authority is an ACME server (pebble) that proves names at a port of this machine.
type authority struct {
	url, caFile string
	root        *x509.Certificate
	log         *text
}

// keys are MAC keys by their ids, one of which the server then wants each account to be bound to.
func newAuthority(t *testing.T, port int, keys map[string]string) *authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "20") // of a hundred nonces: a client must take that
	a := &authority{log: &text{}}
	logger := log.New(a.log, "", 0)
	dns := testenv.LowPort(t, 20000)
	names, err := challtestsrv.New(challtestsrv.Config{Log: logger, DNSAddrs: []string{dns}})
	must(t, err)
	names.SetDefaultDNSIPv4("127.0.0.1")
	names.SetDefaultDNSIPv6("")
	go names.Run()
	t.Cleanup(names.Shutdown)
	store := db.NewMemoryStore()
	for id, key := range keys {
		must(t, store.AddExternalAccountKeyByID(id, key))
	}
	issuer := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default", ValidityPeriod: 7776000}})
	front := wfe.New(logger, store, va.New(logger, 1, port, true, dns, store), issuer, []string{"pebble.example"}, true, len(keys) > 0, 1, 1)
	srv := httptest.NewTLSServer(front.Handler())
	t.Cleanup(srv.Close)
	a.url, a.caFile = srv.URL+wfe.DirectoryPath, filepath.Join(t.TempDir(), "acme-ca.pem")
	must(t, os.WriteFile(a.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600))
	a.root = issuer.GetRootCert(0).Cert
	return a
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is a relay's folder, whose relay is started and stopped.
type site struct {
	dir, token string
	ln         net.Listener
	log        *text
}

func (s *site) start(t *testing.T) (stop func()) {
	t.Helper()
	cfg, err := relay.LoadConfig(filepath.Join(s.dir, "relay.yaml"))
	must(t, err)
	cfg.Health.Listen = ""
	if s.ln == nil {
		s.ln, err = net.Listen("tcp", cfg.Listen)
		must(t, err)
	}
	r, err := relay.New(context.Background(), relay.Options{Config: cfg, Listener: s.ln, Drain: time.Second, Logger: slog.New(slog.NewTextHandler(s.log, nil))})
	must(t, err)
	s.ln = nil
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func (s *site) ask(t *testing.T, addr, method, path, body string, into any) int {
	t.Helper()
	req, err := http.NewRequest(method, "https://"+addr+client.BasePath+path, strings.NewReader(body))
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+s.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} //nolint:gosec // whose certificate it is, is looked at elsewhere
	resp, err := h.Do(req)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
	}
	return resp.StatusCode
}

// shown is the certificate that a name is shown, nil for one that the authority did not give.
func shown(t *testing.T, a *authority, addr, name string) *x509.Certificate {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // what is shown is looked at
	must(t, err)
	defer c.Close()
	chain := c.ConnectionState().PeerCertificates
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.root)
	for _, one := range chain[1:] {
		between.AddCert(one)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between}); err != nil {
		return nil
	}
	return chain[0]
}

// newSite makes the folder of a relay that listens at an address, with more in the section acme of its relay.yaml.
func newSite(t *testing.T, keys map[string]string, more string) (a *authority, s *site, addr string) {
	t.Helper()
	addr = testenv.LowPort(t, 20000)
	_, text16, err := net.SplitHostPort(addr)
	must(t, err)
	port, err := strconv.Atoi(text16)
	must(t, err)
	a = newAuthority(t, port, keys)
	s = &site{dir: filepath.Join(t.TempDir(), "relay"), log: &text{}}
	in, err := relay.Init(context.Background(), relay.InitOptions{Data: s.dir, Listen: addr, PublicAddress: "localhost:1"})
	must(t, err)
	s.token = in.Token.ExposeString()
	yaml := filepath.Join(s.dir, "relay.yaml")
	b, err := os.ReadFile(yaml)
	must(t, err)
	must(t, os.WriteFile(yaml, append(b, "api:\n  domains: [\"*.apps.example.com\"]\n  acme: {directory: \""+a.url+"\", ca: \""+a.caFile+"\", email: ops@example.com, agree: true"+more+"}\n"...), 0o600))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the relay's log:\n%s\nthe authority's:\n%s", s.log.b.String(), a.log.b.String())
		}
	})
	return a, s, addr
}

// A domain gets its certificate by itself, proven at the relay's own port, and keeps it over a restart; a name that is no domain gets
// none by being asked for; nothing of it stands in the clear; and with the domain it goes.
func TestDomainsGetCertificatesByACME(t *testing.T) {
	a, s, addr := newSite(t, nil, "")
	stop := s.start(t)
	defer func() { stop() }()
	const ws, name = "/workspaces/default", "sales.apps.example.com"
	if shown(t, a, addr, name) != nil {
		t.Fatal("there is a certificate before there is a domain")
	}
	if code := s.ask(t, addr, "POST", ws+"/domains", `{"name":"`+name+`"}`, nil); code != 201 {
		t.Fatal(code)
	}
	var got *x509.Certificate
	testenv.Eventually(t, "there is a certificate", func() bool { got = shown(t, a, addr, name); return got != nil })
	var d client.Domain
	if s.ask(t, addr, "GET", ws+"/domains/"+name, "", &d); d.CertificateEndsAt == nil || !d.CertificateEndsAt.Equal(got.NotAfter) {
		t.Errorf("the API says %+v, the certificate ends %s", d, got.NotAfter)
	}
	if !s.log.has("certificate obtained successfully") {
		t.Error("the relay's log does not tell of it")
	}
	for _, other := range []string{"wages.apps.example.com", "evil.example", "localhost"} {
		if shown(t, a, addr, other) != nil || a.log.has(other) {
			t.Errorf("%s got a certificate, or one was asked for", other)
		}
	}
	for _, hello := range []*tls.Config{{ServerName: "evil.example", NextProtos: []string{certificate.ALPN}}, {ServerName: name, NextProtos: []string{certificate.ALPN}}, {NextProtos: []string{certificate.ALPN}}} {
		hello.InsecureSkipVerify = true //nolint:gosec // that there is none is what is looked for
		if c, err := tls.Dial("tcp", addr, hello); err == nil {
			_ = c.Close()
			t.Errorf("a challenge that nobody made was answered for %q", hello.ServerName)
		}
	}
	stop()
	files, err := filepath.Glob(filepath.Join(s.dir, "*"))
	must(t, err)
	for _, f := range files {
		if i, err := os.Stat(f); err != nil || i.IsDir() {
			continue
		}
		b, err := os.ReadFile(f)
		must(t, err)
		for _, canary := range []string{"PRIVATE KEY", name, "ops@example.com"} {
			if bytes.Contains(b, []byte(canary)) && filepath.Base(f) != "relay.yaml" && !strings.HasSuffix(f, ".pem") {
				t.Errorf("%q stands in %s", canary, filepath.Base(f))
			}
		}
	}
	stop = s.start(t)
	var again *x509.Certificate
	testenv.Eventually(t, "it is there after a restart", func() bool { again = shown(t, a, addr, name); return again != nil })
	if again.SerialNumber.Cmp(got.SerialNumber) != 0 {
		t.Error("it was ordered again")
	}
	if code := s.ask(t, addr, "DELETE", ws+"/domains/"+name, "", nil); code != 204 {
		t.Fatal(code)
	}
	testenv.Eventually(t, "it is gone with its domain", func() bool { return shown(t, a, addr, name) == nil })
	// J13: with its key.
	stop()
	d2, err := directory.Open(t.Context(), directory.DefaultConfig(s.dir))
	must(t, err)
	defer d2.Close()
	items, err := d2.ACMEItems(t.Context())
	must(t, err)
	account := 0
	for _, i := range items {
		if strings.Contains(i.Key, name) {
			t.Errorf("J13 %s is left", i.Key)
		}
		if strings.HasPrefix(i.Key, "acme/") {
			account++
		}
	}
	if account == 0 {
		t.Errorf("nothing is kept at all: %d items", len(items))
	}
}

// An authority that wants accounts bound to its own customers gives certificates to who has the key, and to nobody else; the key stands
// in no log.
func TestAccountsAreBoundToTheAuthoritysCustomer(t *testing.T) {
	const good, bad = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W", "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH"
	for what, c := range map[string]struct {
		key   string
		bound bool
	}{"the key": {good + "==\n", true}, "another key": {bad, false}} {
		t.Run(what, func(t *testing.T) {
			a, s, addr := newSite(t, map[string]string{"kid-1": good}, ", key_id: kid-1, key_file: mac.key")
			must(t, os.WriteFile(filepath.Join(s.dir, "mac.key"), []byte(c.key), 0o600))
			stop := s.start(t)
			defer stop()
			const name = "sales.apps.example.com"
			if code := s.ask(t, addr, "POST", "/workspaces/default/domains", `{"name":"`+name+`"}`, nil); code != 201 {
				t.Fatal(code)
			}
			if c.bound {
				testenv.Eventually(t, "there is a certificate", func() bool { return shown(t, a, addr, name) != nil })
			} else {
				testenv.Eventually(t, "the log says that it was refused", func() bool { return s.log.has("unauthorized") || s.log.has("externalAccount") })
				if shown(t, a, addr, name) != nil {
					t.Error("a certificate without the key")
				}
			}
			if s.log.has(good[:20]) || s.log.has(bad[:20]) {
				t.Error("the key stands in the log")
			}
		})
	}
}
