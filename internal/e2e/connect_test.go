package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/splice"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// counted passes connections on to an address and counts them.
func counted(t *testing.T, to string) (address string, count *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	count = new(atomic.Int64)
	cctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			wg.Go(func() {
				defer c.Close()
				if r, err := net.Dial("tcp", to); err == nil {
					splice.Both(cctx, c, r)
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); cancel(); wg.Wait() })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return "localhost:" + port, count
}

// Many native connections of one "fairlead connect" go over one connection to the relay.
func TestConnectCarriesManyOverOneTunnel(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	front, count := counted(t, w.Address)
	log := filepath.Join(t.TempDir(), "connect.log")
	start(t, []string{"HOME=" + w.Dir, "FAIRLEAD_RELAY=" + front, "FAIRLEAD_TOKEN_FILE=" + w.TokenFile, "FAIRLEAD_CA=" + w.CAFile}, log, program(t, "fairlead"), "connect", "echo")
	said := func() string { b, _ := os.ReadFile(log); return string(b) }
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+) `)
	testenv.Eventually(t, "fairlead connect listens", func() bool { return listening.MatchString(said()) })
	local := listening.FindStringSubmatch(said())[1]
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			c, err := net.Dial("tcp", local)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			text := bytes.Repeat([]byte{byte('a' + i%26)}, 200_000)
			go func() { _, _ = c.Write(text); _ = c.(*net.TCPConn).CloseWrite() }()
			if b, err := io.ReadAll(c); err != nil || !bytes.Equal(b, text) {
				t.Errorf("%d of %d bytes, %v", len(b), len(text), err)
			}
		})
	}
	wg.Wait()
	if n := count.Load(); n > 2 { // one that asked about the connection, and the tunnel
		t.Errorf("%d connections to the relay for 30 native ones", n)
	}
	// The tunnel is made again when it was lost.
	w.RestartRelay()
	testenv.Eventually(t, "it goes on after the relay was restarted", func() bool {
		c, err := net.Dial("tcp", local)
		if err != nil {
			return false
		}
		defer c.Close()
		return echoes(c) == nil
	})
}

// openIn opens a dial in a tunnel and proves that it echoes.
func openIn(t *testing.T, tn *client.Tunnel, name string) client.Conn {
	t.Helper()
	c, err := tn.Dial(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := echoes(c); err != nil {
		t.Fatal(err)
	}
	return c
}

func newTunnel(t *testing.T, c *client.Client) *client.Tunnel {
	t.Helper()
	tn, err := c.Tunnel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tn.Close() })
	return tn
}

// refusal is what a dial in a tunnel that went wrong says.
func refusal(t *testing.T, tn *client.Tunnel, name string) *protocol.Error {
	t.Helper()
	c, err := tn.Dial(ctx, name)
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	var e *protocol.Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: got %v", name, err)
	}
	return e
}

// Each stream of a tunnel is let in or refused by itself; a refusal costs that stream alone and comes with its reason.
func TestTunnelStreamsAreDecidedOneByOne(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	w.Connection("shop")
	tn := newTunnel(t, w.Client)
	open := openIn(t, tn, "echo")
	if e := refusal(t, tn, "shop"); e.Code != protocol.CodeDenied || e.Origin != protocol.OriginAgent || e.Rule != "database.shop.allow.dial" {
		t.Errorf("%+v", e)
	}
	if e := refusal(t, tn, "nothing"); e.Code != protocol.CodeNotFound || e.Origin != protocol.OriginRelay {
		t.Errorf("%+v", e)
	}
	// An analyst may open a tunnel, and nothing in it.
	tok, err := w.Client.CreateToken(ctx, client.NewToken{Name: "reader", Roles: []string{"analyst"}})
	if err != nil {
		t.Fatal(err)
	}
	if e := refusal(t, newTunnel(t, w.NewClient(secret.FromString(tok.Token))), "echo"); e.Code != protocol.CodeDenied || e.Origin != protocol.OriginRelay {
		t.Errorf("%+v", e)
	}
	// What runs beside it lives on, and so do both when another connection goes.
	if err := w.Client.DeleteConnection(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	if err := echoes(open); err != nil {
		t.Fatal(err)
	}
	done := cut(open)
	if err := w.Client.DeleteConnection(ctx, "echo"); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "deleted connection")
	select {
	case <-tn.Done():
		t.Error("a deleted connection cost the tunnel")
	default:
	}
	// Every dial stands in the record, as one by itself.
	var intents int
	for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == "operation.intent" && e.Operation == "dial" && strings.HasPrefix(e.Source, "rel_") {
			intents++
		}
	}
	if intents != 2 { // echo, and shop, which the site refused
		t.Errorf("%d intents", intents)
	}
}

// The first bytes go with the dial: nobody waits for its answer, and an end of them that comes at once is no end of the dial.
func TestTunnelDialIsOneFlight(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	tn := newTunnel(t, w.Client)
	for _, text := range []string{"hello", "", strings.Repeat("x", 1<<20)} {
		c, err := tn.Dial(ctx, "echo")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(c, text); _ = c.CloseWrite() }()
		if b, err := io.ReadAll(c); err != nil || string(b) != text {
			t.Errorf("%d of %d bytes, %v", len(b), len(text), err)
		}
		c.Close()
	}
}

// P11: what let the caller in and is taken away cuts the tunnel with all that is in it.
func TestRevokedTokenCutsTheTunnel(t *testing.T) {
	for name, revoke := range map[string]func(w *testenv.World, token string) error{
		"the token is revoked": func(w *testenv.World, token string) error { return w.Client.RevokeToken(ctx, token) },
		"the allowlist is narrowed": func(w *testenv.World, _ string) error {
			_, err := w.Client.SetAllowlist(ctx, client.SetAllowlist{Prefixes: []string{"203.0.113.0/24"}, Confirm: true})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
			w.Connection("echo")
			tok, err := w.Client.CreateToken(ctx, client.NewToken{Name: "dev", Roles: []string{"operator"}})
			if err != nil {
				t.Fatal(err)
			}
			tn := newTunnel(t, w.NewClient(secret.FromString(tok.Token)))
			first, second := cut(openIn(t, tn, "echo")), cut(openIn(t, tn, "echo"))
			if err := revoke(w, tok.ID); err != nil {
				t.Fatal(err)
			}
			expectCut(t, first, name)
			expectCut(t, second, name)
			select {
			case <-tn.Done():
			case <-time.After(5 * time.Second):
				t.Fatal("the tunnel lived on for 5 s")
			}
			if _, err := tn.Dial(ctx, "echo"); err == nil {
				t.Fatal("the tunnel takes dials")
			}
		})
	}
}

// rawTunnel opens a tunnel and leaves to the test what its streams say.
func rawTunnel(t *testing.T, w *testenv.World, token string) tunnel.Tunnel {
	t.Helper()
	ca, err := os.ReadFile(w.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	c, err := tls.Dial("tcp", w.Address, &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(c, "POST /api/v1/workspaces/default/tunnel HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", token, protocol.UpgradeTunnel)
	if err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v, %v", resp, err)
	}
	early, _ := br.Peek(br.Buffered())
	tn, err := tunnel.Upgraded(c, early, true, tunnel.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tn.Close() })
	return tn
}

// A stream says which connection it wants, and nothing else of what it says counts: not who it is, not from where it comes,
// not another route.
func TestTunnelStreamsCannotClaimMore(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	tok, err := w.Client.CreateToken(ctx, client.NewToken{Name: "reader", Roles: []string{"analyst"}})
	if err != nil {
		t.Fatal(err)
	}
	tn := rawTunnel(t, w, tok.Token)
	ask := func(line, headers string) int {
		t.Helper()
		s, err := tn.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_ = s.SetDeadline(time.Now().Add(15 * time.Second))
		if _, err := io.WriteString(s, line+" HTTP/1.1\r\nHost: relay\r\n"+headers+"\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(s), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	const ws = "/api/v1/workspaces/default"
	const up = "Connection: Upgrade\r\nUpgrade: fairlead-dial\r\n"
	admin := "Authorization: Bearer " + w.Token.ExposeString() + "\r\n"
	if got := ask("POST "+ws+"/connections/echo/dial", up+admin); got != http.StatusForbidden {
		t.Errorf("another token in a stream: %d", got)
	}
	for _, line := range []string{"GET /api/v1/whoami", "GET " + ws + "/connections", "POST " + ws + "/tunnel", "GET " + ws + "/connections/echo/dial", "POST " + ws + "/connections/echo/query",
		"POST /api/v1/workspaces/other/connections/echo/dial", "POST " + ws + "/connections//dial", "POST " + ws + "/connections/a/../echo/dial", "POST " + ws + "/connections/x/files/dial", "POST /", "GET /api/v1/openapi.json"} {
		if got := ask(line, up+admin); got != http.StatusNotFound {
			t.Errorf("%s in a tunnel: %d", line, got)
		}
	}
	for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Operation == "dial" && e.Decision == "allow" {
			t.Errorf("a dial was let in: %s", e.Raw)
		}
	}
}
