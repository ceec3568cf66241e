package e2e_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	bignum "math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/agent/uplink"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
)

// foreignCA is a certificate of somebody else's CA, as a load balancer or an inspecting proxy shows it.
func foreignCA(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: bignum.NewInt(1), Subject: pkix.Name{CommonName: "Corp Inspection CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// queue is a listener of conns that somebody else accepted.
type queue struct {
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
	addr net.Addr
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.ch:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}
func (q *queue) Close() error   { q.once.Do(func() { close(q.done) }); return nil }
func (q *queue) Addr() net.Addr { return q.addr }

// terminator ends TLS with a certificate of its own, speaks HTTP/1.1 alone, and forwards to the relay.
func terminator(t *testing.T, relay string) *queue {
	t.Helper()
	cert := foreignCA(t)
	q := &queue{ch: make(chan net.Conn), done: make(chan struct{}), addr: &net.TCPAddr{}}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}
	quiet := log.New(io.Discard, "", 0)
	rp := &httputil.ReverseProxy{Transport: tr, ErrorLog: quiet, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "https", Host: relay})
		r.SetXForwarded()
	}}
	srv := &http.Server{Handler: rp, ErrorLog: quiet}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(tls.NewListener(q, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}))
	}()
	t.Cleanup(func() { _ = srv.Close(); tr.CloseIdleConnections(); <-done })
	return q
}

// port serves each conn by a function of its own.
func port(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	_, p, _ := net.SplitHostPort(ln.Addr().String())
	return "localhost:" + p
}

func (q *queue) take(c net.Conn) {
	select {
	case q.ch <- c:
	case <-q.done:
		_ = c.Close()
	}
}

// relayOnlyBy makes a world whose agent reaches the relay by YAML's relay section alone.
func relayOnlyBy(t *testing.T, o testenv.Options, way func(relay string) string) *testenv.World {
	t.Helper()
	yaml := o.YAML
	o.YAML = "files: {}\n"
	w := testenv.Bare(t, o)
	w.WriteYAML(way(w.Address) + yaml)
	w.StartAgent()
	return w
}

func transports(t *testing.T, w *testenv.World) string {
	t.Helper()
	all, err := w.Client.Agents(ctx)
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	return strings.Join(all[0].Transports, ",")
}

func echoOnly(t *testing.T) string {
	_, p, _ := net.SplitHostPort(echoServer(t).String())
	return fmt.Sprintf("tcp:\n  echo: {host: 127.0.0.1, port: %s}\n", p)
}

// A load balancer that ends TLS and passes HTTP/1.1 alone: auto finds the way, and everything holds on it.
func TestWebSocketThroughTLSTermination(t *testing.T) {
	w := relayOnlyBy(t, testenv.Options{YAML: echoOnly(t), CertificateLifetime: 60 * time.Second}, func(relay string) string {
		return fmt.Sprintf("relay: {addresses: [%q]}\n", port(t, terminator(t, relay).take))
	})
	if got := transports(t, w); got != "websocket" {
		t.Fatalf("transports %q", got)
	}
	for _, s := range []string{"using WebSocket", "ends the outer TLS", "Corp Inspection CA", "transport=websocket"} {
		if !strings.Contains(w.Log.String(), s) {
			t.Errorf("the log does not say %q", s)
		}
	}
	if st := w.Agent.States(); len(st) != 1 || !st[0].Connected || st[0].Transport != "websocket" {
		t.Errorf("states %+v", st)
	}
	kept, err := uplink.ReadChoices(filepath.Join(w.Dir, "agent", "uplink.json"))
	if err != nil || len(kept) != 1 {
		t.Errorf("remembered %v, %v", kept, err)
	}
	w.Connection("echo")
	conn := openDial(t, w.Client, "echo")

	// Renewal: the open dial lives on, the new tunnel goes the same way.
	agents, err := w.Client.Agents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first := *agents[0].CertificateNotAfter
	<-time.After(1100 * time.Millisecond) // certificates count in seconds
	w.Agent.Renew()
	testenv.Eventually(t, "the renewed certificate is in use", func() bool {
		a, err := w.Client.Agent(ctx, agents[0].ID)
		return err == nil && a.CertificateNotAfter != nil && a.CertificateNotAfter.After(first)
	})
	b := make([]byte, 4)
	if _, err := io.WriteString(conn, "pong"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "pong" {
		t.Fatalf("%q, %v", b, err)
	}
	if got := transports(t, w); got != "websocket" {
		t.Fatalf("transports %q after the renewal", got)
	}

	// Revocation cuts at once; enabled again, the agent is back.
	done := cut(conn)
	if err := w.Client.DisableAgent(ctx, agents[0].ID); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "disabled agent")
	if err := w.Client.EnableAgent(ctx, agents[0].ID); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the agent is back", func() bool { return transports(t, w) == "websocket" })

	// A relay that restarts gets its agent back the same way, and both stop in order.
	w.RestartRelay()
	testenv.Eventually(t, "the agent is back", func() bool { return transports(t, w) == "websocket" })
	openDial(t, w.Client, "echo")
}

// An inspecting proxy shows a certificate of its own inside CONNECT: the tunnel does not trust it, and goes inside HTTP, where
// the proxy sees ciphertext alone. Enrolment goes the same way.
func TestWebSocketThroughInspectingProxy(t *testing.T) {
	var proxy string
	w := relayOnlyBy(t, testenv.Options{YAML: echoOnly(t)}, func(relay string) string {
		q := terminator(t, relay)
		proxy = port(t, func(c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil || req.Method != http.MethodConnect || req.Host != relay {
				_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
				_ = c.Close()
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			q.take(c)
		})
		return fmt.Sprintf("relay: {addresses: [%q], proxy: {url: \"http://%s\"}}\n", relay, proxy)
	})
	if got := transports(t, w); got != "websocket" {
		t.Fatalf("transports %q", got)
	}
	w.Connection("echo")
	openDial(t, w.Client, "echo")

	token, err := mtls.ParseJoinToken(w.JoinToken())
	if err != nil {
		t.Fatal(err)
	}
	p := uplink.Proxy{URL: &url.URL{Scheme: "http", Host: proxy}}
	req := enroll.Request{Dir: filepath.Join(w.Dir, "second"), Addrs: token.Addrs, Pin: token.Pin, Secret: token.SecretText(), Name: "second", Version: "test", Dial: p.Dial}
	if _, err := enroll.Enroll(ctx, req); err == nil || !uplink.Blocked(err) {
		t.Fatalf("an inspected enrolment: %v", err)
	}
	req.Fallback = func(cause error) func(context.Context, string, string) (net.Conn, error) {
		return uplink.WebSocketDial(p, nil)
	}
	if _, err := enroll.Enroll(ctx, req); err != nil {
		t.Fatalf("enrolment inside a WebSocket: %v", err)
	}
	if all, err := w.Client.Agents(ctx); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}

// A firewall that resets what it does not know: two resets in a row, and the agent goes inside HTTP.
func TestWebSocketPastAFirewallThatResets(t *testing.T) {
	w := relayOnlyBy(t, testenv.Options{YAML: echoOnly(t)}, func(relay string) string {
		return fmt.Sprintf("relay: {addresses: [%q]}\n", port(t, func(c net.Conn) {
			defer c.Close()
			br := bufio.NewReaderSize(c, 16<<10)
			head, err := br.Peek(5)
			if err != nil {
				return
			}
			hello, err := br.Peek(5 + int(binary.BigEndian.Uint16(head[3:])))
			if err != nil || strings.Contains(string(hello), protocol.ALPNTunnel) {
				_ = c.(*net.TCPConn).SetLinger(0)
				return
			}
			out, err := (&net.Dialer{}).Dial("tcp", relay)
			if err != nil {
				return
			}
			defer out.Close()
			done := make(chan struct{})
			go func() { defer close(done); _, _ = io.Copy(out, br); _ = out.Close() }()
			_, _ = io.Copy(c, out)
			_ = c.Close()
			<-done
		}))
	})
	if got := transports(t, w); got != "websocket" {
		t.Fatalf("transports %q", got)
	}
	if strings.Contains(w.Log.String(), "ends the outer TLS") {
		t.Error("the relay itself is taken for a stranger")
	}
}

// Where TCP passes, nothing else is tried; and an agent that is told to use TCP alone never goes inside HTTP.
func TestWebSocketIsNotUsedWithoutNeed(t *testing.T) {
	w := testenv.New(t, testenv.Options{YAML: echoOnly(t)})
	if got := transports(t, w); got != "tls" {
		t.Errorf("transports %q", got)
	}
	if _, err := os.Stat(filepath.Join(w.Dir, "agent", "uplink.json")); !os.IsNotExist(err) {
		t.Errorf("something is remembered: %v", err)
	}
	// An agent that is refused knocks again and again, and not at another door: the relay's word is no sign of the middle.
	agents, err := w.Client.Agents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Client.DisableAgent(ctx, agents[0].ID); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "three tries", func() bool { return strings.Count(w.Log.String(), "trying again") >= 3 })
	if err := w.Client.EnableAgent(ctx, agents[0].ID); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the agent is back", func() bool { return transports(t, w) == "tls" })
	if strings.Contains(w.Log.String(), "trying the other") {
		t.Error("a refused agent went inside HTTP")
	}
	w.StopAgent()
	asked := make(chan string, 64)
	w.WriteYAML(fmt.Sprintf("relay: {transport: tcp, addresses: [%q]}\n", port(t, func(c net.Conn) {
		defer c.Close()
		_ = tls.Server(c, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			select {
			case asked <- strings.Join(h.SupportedProtos, ","):
			default:
			}
			return nil, io.EOF
		}}).HandshakeContext(t.Context())
	})))
	w.RunAgent()
	for range 4 {
		if protos := <-asked; protos != protocol.ALPNTunnel {
			t.Fatalf("asked for %q", protos)
		}
	}
}

// What runs when the agent is told to stop is finished, over this way, too.
func TestDrainFinishesWhatRunsOverWebSocket(t *testing.T) {
	w := testenv.New(t, testenv.Options{Transport: testenv.WebSocket, Drain: 20 * time.Second, YAML: "files:\n  papers: {base: DIR/papers, allow: [list, read, write]}\n"})
	if err := os.MkdirAll(filepath.Join(w.Dir, "papers"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.Connection("papers")
	drainsAnUpload(t, w)
}
