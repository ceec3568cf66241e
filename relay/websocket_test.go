package relay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/websocket"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// lines collects a log. Safe for concurrent use.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await waits until the log says something: a line comes after what it tells of.
func (l *lines) await(t *testing.T, what string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !strings.Contains(l.String(), what) {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("the log does not say %q:\n%s", what, l)
		}
	}
}

// running is a relay that serves, with its debug log.
func running(t *testing.T, change func(*Config)) (*Relay, *lines) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "relay")
	if _, err := Init(context.Background(), InitOptions{Data: dir, Listen: "127.0.0.1:0", PublicAddress: "localhost:1"}); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(filepath.Join(dir, "relay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Health.Listen = ""
	if change != nil {
		change(&cfg)
	}
	log := &lines{}
	r, err := New(context.Background(), Options{Config: cfg, Drain: time.Second, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	<-r.Ready()
	return r, log
}

func httpTLS(t *testing.T, r *Relay, protos ...string) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", r.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: protos})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// ask sends an upgrade with more headers and gives the answer.
func ask(t *testing.T, r *Relay, more string) (*tls.Conn, *http.Response, protocol.Code) {
	t.Helper()
	c := httpTLS(t, r, "http/1.1")
	_, err := io.WriteString(c, "GET "+protocol.PathWebSocket+" HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: "+websocket.Protocol+"\r\n"+more+"\r\n")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	var p client.Problem
	if resp.StatusCode != http.StatusSwitchingProtocols {
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			t.Fatalf("%d: %v", resp.StatusCode, err)
		}
	}
	return c, resp, p.Code
}

// P7, P10: the route wants no token, and lets nobody further than a handshake that wants an agent's certificate.
func TestWebSocketRouteIsGuardedByTheHandshakeInside(t *testing.T) {
	r, log := running(t, func(c *Config) { c.TrustedProxies = []string{"127.0.0.0/8"} })
	open := 0
	for _, route := range r.API().Routes() {
		if route.Action == "" && route.Method+" "+client.BasePath+route.Path == "GET "+protocol.PathWebSocket {
			open++
		}
	}
	if open != 1 {
		t.Errorf("the route stands %d times in the list that the permission test walks", open)
	}
	t.Run("browsers are refused", func(t *testing.T) {
		for _, origin := range []string{"https://evil.example", "null", "https://relay"} {
			if _, resp, code := ask(t, r, "Origin: "+origin+"\r\n"); resp.StatusCode != http.StatusForbidden || code != protocol.CodeDenied {
				t.Errorf("origin %s: %d %s", origin, resp.StatusCode, code)
			}
		}
	})
	t.Run("a request that is no upgrade", func(t *testing.T) {
		if _, resp, code := ask(t, r, "Sec-WebSocket-Key: x\r\n"); resp.StatusCode != http.StatusBadRequest || code != protocol.CodeInvalid || resp.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Errorf("%d %s", resp.StatusCode, code)
		}
	})
	t.Run("HTTP/2 is not upgraded", func(t *testing.T) {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get("https://" + r.Addr().String() + protocol.PathWebSocket)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s %d", resp.Proto, resp.StatusCode)
		}
	})
	t.Run("a token opens nothing, and garbage inside is cut", func(t *testing.T) {
		c, resp, _ := ask(t, r, "Authorization: Bearer flt_x\r\nX-Forwarded-For: 203.0.113.9\r\n")
		if resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%d", resp.StatusCode)
		}
		_, _ = c.Write([]byte{0x82, 0x85, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'})
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("it stands: %v", err)
		}
		// The bounds of handshakes and the log know who stands behind a trusted proxy.
		log.await(t, "from=203.0.113.9:0")
	})
	t.Run("no certificate, no tunnel", func(t *testing.T) {
		c := httpTLS(t, r, "http/1.1")
		ws, err := websocket.Client(t.Context(), c, "relay", protocol.PathWebSocket)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		in := tls.Client(ws, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol.ALPNTunnel}})
		err = in.HandshakeContext(t.Context())
		if err == nil {
			_, err = in.Read(make([]byte, 1))
		}
		if err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("got %v", err)
		}
		if n := tunnels(r); n != 0 {
			t.Errorf("%d tunnels", n)
		}
	})
}

func TestWebSocketCanBeClosed(t *testing.T) {
	r, _ := running(t, func(c *Config) { c.Agents.WebSocket = false })
	if _, resp, code := ask(t, r, ""); resp.StatusCode != http.StatusNotFound || code != protocol.CodeNotFound {
		t.Errorf("%d %s", resp.StatusCode, code)
	}
	for _, route := range r.API().Routes() {
		if client.BasePath+route.Path == protocol.PathWebSocket {
			t.Error("the route is there")
		}
	}
}

// Whoever is not a trusted proxy names nobody.
func TestWebSocketIgnoresForwardedForOfStrangers(t *testing.T) {
	r, log := running(t, nil)
	c, resp, _ := ask(t, r, "X-Forwarded-For: 203.0.113.9\r\n")
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%d", resp.StatusCode)
	}
	_, _ = c.Write([]byte{0x82, 0x85, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'})
	_, _ = io.Copy(io.Discard, c)
	log.await(t, "msg=handshake from="+c.LocalAddr().String())
	if s := log.String(); strings.Contains(s, "203.0.113.9") {
		t.Errorf("the log takes a stranger's word:\n%s", s)
	}
}
