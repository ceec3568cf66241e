package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/client"
)

// gateways lets a relay open gateways on the loopback addresses that tests use.
func gateways(c *relay.Config) {
	c.Gateway.Addresses = []string{"127.0.0.1:1024-65535", "127.0.0.2:1024-65535", "[::1]:1024-65535"}
}

// freeAddress is an address and port of the machine that nothing listens on.
func freeAddress(t *testing.T, host string) string {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: no address %s: %v", host, err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// gatewayWorld has a connection "echo" with a gateway.
func gatewayWorld(t *testing.T, g client.SetGateway) (*testenv.World, string) {
	t.Helper()
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t)), RelayConfig: gateways})
	w.Connection("echo")
	if g.Address == "" {
		g.Address = freeAddress(t, "127.0.0.1")
	}
	if _, err := w.Client.SetGateway(ctx, "echo", g); err != nil {
		t.Fatal(err)
	}
	return w, g.Address
}

var loopback = []string{"127.0.0.0/8", "::1/128"}

// through dials a gateway from an address ("" is any) and proves that it echoes.
func through(t *testing.T, address, from string) (net.Conn, error) {
	t.Helper()
	d := net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c, echoes(c)
}

func echoes(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	defer c.SetDeadline(time.Time{})
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != "ping" {
		return fmt.Errorf("echo: %q", b)
	}
	return nil
}

// events gives the relay's own events about gateways' dials, oldest first.
func gatewayEvents(t *testing.T, w *testenv.World) (list []client.AuditEvent) {
	t.Helper()
	for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(e.Principal, "gwy_") && strings.HasPrefix(e.Source, "rel_") {
			list = append(list, e)
		}
	}
	return list
}

// expectEvent waits for an event about a gateway that ok accepts.
func expectEvent(t *testing.T, w *testenv.World, what string, ok func(client.AuditEvent, string) bool) {
	t.Helper()
	testenv.Eventually(t, "the event: "+what, func() bool {
		for _, e := range gatewayEvents(t, w) {
			if ok(e, string(e.Raw)) {
				return true
			}
		}
		return false
	})
}

func TestGatewayCarriesBytesBothWays(t *testing.T) {
	w, address := gatewayWorld(t, client.SetGateway{Allow: loopback})
	c, err := through(t, address, "")
	if err != nil {
		t.Fatal(err)
	}
	// A half-close passes, and not a byte is lost.
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(sent), err)
	}
	k, err := w.Client.Connection(ctx, "echo")
	if err != nil || k.Gateway == nil || k.Gateway.State != client.GatewayOpen || k.Gateway.Address != address {
		t.Fatalf("%+v, %v", k.Gateway, err)
	}
	var intent, outcome bool
	expectEvent(t, w, "intent and outcome", func(e client.AuditEvent, raw string) bool {
		intent = intent || e.Kind == "operation.intent" && e.Principal == k.Gateway.ID && e.SourceAddr == "127.0.0.1" && e.Operation == "dial"
		outcome = outcome || e.Kind == "operation.outcome" && e.Status == "done" && strings.Contains(raw, fmt.Sprintf(`"bytes_in":%d`, len(sent)+4))
		return intent && outcome
	})
	// The agent recorded it, too, as a dial of the gateway's.
	testenv.Eventually(t, "the agent's record", func() bool {
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
			if err == nil && e.Source == w.Agent.ID() && e.Kind == "operation.intent" && e.Claimed["principal"] == k.Gateway.ID {
				return true
			}
		}
		return false
	})
}

// P7 of the design: an empty list admits nobody; both lists must admit the source; and the refusal is a reset, before a byte.
func TestGatewayAllowlistsBothDecide(t *testing.T) {
	w, address := gatewayWorld(t, client.SetGateway{})
	refused := func(what, rule string) {
		t.Helper()
		if _, err := through(t, address, ""); err == nil {
			t.Fatalf("%s: let in", what)
		}
		expectEvent(t, w, what, func(e client.AuditEvent, _ string) bool {
			return e.Kind == "operation.denied" && e.Rule == rule && e.Decision == "deny" && e.SourceAddr == "127.0.0.1"
		})
	}
	refused("an empty list admits nobody", "gateway.allow")
	set := func(allow ...string) {
		t.Helper()
		if _, err := w.Client.SetGateway(ctx, "echo", client.SetGateway{Address: address, Allow: allow}); err != nil {
			t.Fatal(err)
		}
	}
	set("127.0.0.2/32", "::1/128")
	refused("another address's entry", "gateway.allow")
	if _, err := through(t, address, "127.0.0.2"); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("an address on both lists: %v", err)
	}
	set("127.0.0.0/8")
	if _, err := through(t, address, ""); err != nil {
		t.Fatal(err)
	}
	// The workspace's list is held against it all the same. ::1 stays, so that the test itself is not locked out.
	if _, err := w.Client.SetAllowlist(ctx, client.SetAllowlist{Prefixes: []string{"203.0.113.0/24"}, Confirm: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := through(t, address, ""); err == nil {
		t.Fatal("an address that is not on the workspace's allowlist was let in")
	}
}

// P11: what opened a conn and is taken away cuts it within 5 s.
func TestGatewayRevocationCutsOpenConns(t *testing.T) {
	for name, revoke := range map[string]func(w *testenv.World, address string) error{
		"the connection is deleted": func(w *testenv.World, _ string) error { return w.Client.DeleteConnection(ctx, "echo") },
		"the gateway is turned off": func(w *testenv.World, _ string) error { return w.Client.DeleteGateway(ctx, "echo") },
		"its allowlist is narrowed": func(w *testenv.World, address string) error {
			_, err := w.Client.SetGateway(ctx, "echo", client.SetGateway{Address: address, Allow: []string{"203.0.113.0/24"}})
			return err
		},
		"the workspace's is": func(w *testenv.World, _ string) error {
			_, err := w.Client.SetAllowlist(ctx, client.SetAllowlist{Prefixes: []string{"203.0.113.0/24"}, Confirm: true})
			return err
		},
		"TLS is asked for": func(w *testenv.World, address string) error {
			_, err := w.Client.SetGateway(ctx, "echo", client.SetGateway{Address: address, Allow: loopback, TLS: client.GatewayServer})
			return err
		},
		"the agent is disabled": func(w *testenv.World, _ string) error { return w.Client.DisableAgent(ctx, w.Agent.ID()) },
		"the site narrows":      func(w *testenv.World, _ string) error { w.WriteYAML(shopYAML); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w, address := gatewayWorld(t, client.SetGateway{Allow: loopback})
			c, err := through(t, address, "")
			if err != nil {
				t.Fatal(err)
			}
			done := cut(c)
			if err := revoke(w, address); err != nil {
				t.Fatal(err)
			}
			expectCut(t, done, name)
			if c, err := through(t, address, ""); err == nil {
				c.Close()
				t.Fatal("it is let in again")
			}
		})
	}
}

// A port is open exactly while the rules say so: from the relay's start on, and not a moment after it was turned off.
func TestGatewayPortsFollowTheState(t *testing.T) {
	w, address := gatewayWorld(t, client.SetGateway{Allow: loopback})
	w.RestartRelay()
	testenv.Eventually(t, "the gateway after a restart", func() bool { _, err := through(t, address, ""); return err == nil })
	moved := freeAddress(t, "127.0.0.1")
	if _, err := w.Client.SetGateway(ctx, "echo", client.SetGateway{Address: moved, Allow: loopback}); err != nil {
		t.Fatal(err)
	}
	if _, err := through(t, moved, ""); err != nil {
		t.Fatal(err)
	}
	closed := func(address string) {
		t.Helper()
		if c, err := net.DialTimeout("tcp", address, 5*time.Second); err == nil {
			c.Close()
			t.Errorf("%s is open", address)
		}
	}
	closed(address)
	if err := w.Client.DeleteGateway(ctx, "echo"); err != nil {
		t.Fatal(err)
	}
	closed(moved)
	made, err := w.Client.CreateConnection(ctx, client.NewConnection{Name: "second", Group: "default", Profile: "echo", Gateway: &client.SetGateway{Address: moved, Allow: loopback}})
	if err != nil || made.Gateway == nil || made.Gateway.State != client.GatewayOpen {
		t.Fatalf("%+v, %v", made.Gateway, err)
	}
	if _, err := through(t, moved, ""); err != nil {
		t.Fatal(err)
	}
}

// What cannot be is refused as a whole, and says why.
func TestGatewayRefusedLeavesNothing(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t)), RelayConfig: func(c *relay.Config) { gateways(c); c.Gateway.Addresses = c.Gateway.Addresses[:1] }})
	w.Connection("echo")
	taken := echoServer(t).String()
	tok, err := w.Client.CreateToken(ctx, client.NewToken{Name: "op", Roles: []string{"operator"}})
	if err != nil {
		t.Fatal(err)
	}
	operator := w.NewClient(secret.FromString(tok.Token))
	for name, c := range map[string]struct {
		by   *client.Client
		g    client.SetGateway
		want protocol.Code
		says string
	}{
		"a port in use":                    {w.Client, client.SetGateway{Address: taken}, protocol.CodeConflict, "in use"},
		"an address that is not permitted": {w.Client, client.SetGateway{Address: "127.0.0.2:15432"}, protocol.CodeDenied, "gateway.addresses"},
		"all addresses":                    {w.Client, client.SetGateway{Address: "0.0.0.0:15432"}, protocol.CodeDenied, "gateway.addresses"},
		"a name":                           {w.Client, client.SetGateway{Address: "localhost:15432"}, protocol.CodeInvalid, "/address"},
		"a prefix with host bits":          {w.Client, client.SetGateway{Address: freeAddress(t, "127.0.0.1"), Allow: []string{"10.0.0.1/8"}}, protocol.CodeInvalid, "/allow/0"},
		"an operator, who may not":         {operator, client.SetGateway{Address: freeAddress(t, "127.0.0.1"), Allow: loopback}, protocol.CodeDenied, "gateways.edit"},
		"a CA that is none":                {w.Client, client.SetGateway{Address: freeAddress(t, "127.0.0.1"), TLS: client.GatewayMutual, ClientCA: "x"}, protocol.CodeInvalid, "CA"},
	} {
		t.Run(name, func(t *testing.T) {
			check := func(err error) {
				t.Helper()
				var e *protocol.Error
				if !errors.As(err, &e) || e.Code != c.want || !strings.Contains(e.Message+e.Hint+e.Rule, c.says) {
					t.Errorf("got %v (%+v)", err, e)
				}
			}
			_, err := c.by.SetGateway(ctx, "echo", c.g)
			check(err)
			_, err = c.by.CreateConnection(ctx, client.NewConnection{Name: "half", Group: "default", Profile: "echo", Gateway: &c.g})
			check(err)
			list, err := w.Client.Connections(ctx)
			if err != nil || len(list) != 1 || list[0].Gateway != nil {
				t.Fatalf("something was left: %+v, %v", list, err)
			}
			if ln, err := net.Listen("tcp", c.g.Address); err == nil {
				ln.Close()
			} else if c.g.Address != taken && !strings.Contains(c.g.Address, "127.0.0.2") {
				t.Errorf("the port is still held: %v", err)
			}
		})
	}
	t.Run("the feature is off unless the operator says so", func(t *testing.T) {
		w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
		w.Connection("echo")
		_, err := w.Client.SetGateway(ctx, "echo", client.SetGateway{Address: freeAddress(t, "127.0.0.1")})
		var e *protocol.Error
		if !errors.As(err, &e) || e.Code != protocol.CodeDenied || !strings.Contains(e.Hint, "gateway.addresses") {
			t.Fatalf("got %v", err)
		}
	})
}

// A port that cannot be opened at the start is told of, and opened as soon as it can be.
func TestGatewayThatCannotOpenIsToldOf(t *testing.T) {
	w, address := gatewayWorld(t, client.SetGateway{Allow: loopback})
	w.StopRelay()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	w.RestartRelay()
	k, err := w.Client.Connection(ctx, "echo")
	if err != nil || k.Gateway.State != client.GatewayFailed || !strings.Contains(k.Gateway.Error, "in use") {
		t.Fatalf("%+v, %v", k.Gateway, err)
	}
	if !strings.Contains(w.Log.String(), "a gateway's port is not open") {
		t.Error("the log does not tell")
	}
	ln.Close()
	testenv.Eventually(t, "the port is opened once it is free", func() bool { _, err := through(t, address, ""); return err == nil })
}

// A refusal of the site is a reset for the client, and stands with its reason in the record.
func TestGatewayRefusalOfTheSiteIsAReset(t *testing.T) {
	w, address := gatewayWorld(t, client.SetGateway{Allow: loopback})
	w.WriteYAML(shopYAML)
	testenv.Eventually(t, "the site has narrowed", func() bool {
		c, _ := code(func() error { _, err := w.Client.Dial(ctx, "echo"); return err }())
		return c == protocol.CodeDenied
	})
	_, err := through(t, address, "")
	if err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("got %v, want a reset", err)
	}
	expectEvent(t, w, "the reason", func(e client.AuditEvent, raw string) bool {
		return e.Kind == "operation.outcome" && e.Code == "denied" && e.Origin == "agent" && strings.Contains(raw, `"reason":"`)
	})
}

// The target learns the client's address from the agent and from nobody else.
func TestGatewayTellsTheSourceByPROXY(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	w := shop(t, testenv.Options{YAML: echoYAML(target.Addr()), RelayConfig: gateways})
	w.Connection("echo")
	address := freeAddress(t, "127.0.0.1")
	if _, err := w.Client.SetGateway(ctx, "echo", client.SetGateway{Address: address, Allow: loopback, ProxyProtocol: true}); err != nil {
		t.Fatal(err)
	}
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const forged = "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"
	if _, err := io.WriteString(c, forged); err != nil {
		t.Fatal(err)
	}
	s, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(15 * time.Second))
	got := make([]byte, 28+len(forged))
	if _, err := io.ReadFull(s, got); err != nil {
		t.Fatal(err)
	}
	local, remote := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	want := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 127, 0, 0, 1, 127, 0, 0, 1, byte(local.Port>>8), byte(local.Port), byte(remote.Port>>8), byte(remote.Port))
	if !bytes.Equal(got[:28], want) || string(got[28:]) != forged {
		t.Fatalf("got %q", got)
	}
}

// TestGatewayNativeClient: psql, unchanged, with TLS of its own through a gateway's port.
func TestGatewayNativeClient(t *testing.T) {
	psql := need(t, "psql")
	w := databasesWith(t, testenv.Options{Transport: testenv.TLS, RelayConfig: gateways}, "", postgresql)
	address := freeAddress(t, "127.0.0.1")
	if _, err := w.Client.SetGateway(ctx, "pg_native", client.SetGateway{Address: address, Allow: loopback}); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(address)
	run := func(sql string) output {
		return runProgram(t, []string{"PGPASSWORD=w-secret", "PGCONNECT_TIMEOUT=20"}, sql, psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", port, "-U", "writer",
			"-d", "sslmode=verify-full sslrootcert="+filepath.Join(w.Dir, "pg.pem")+" dbname=test")
	}
	if o := run("select name from people order by id;"); o.Exit != 0 || o.Out != "Ada\nBo\n" {
		t.Fatalf("%s", o)
	}
	if _, err := w.Client.SetGateway(ctx, "pg_guarded", client.SetGateway{Address: freeAddress(t, "127.0.0.1"), Allow: loopback}); err != nil {
		t.Fatal(err)
	}
	k, err := w.Client.Connection(ctx, "pg_guarded")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(k.Gateway.Address)
	if o := run("select 1;"); o.Exit == 0 {
		t.Fatalf("a guarded profile was dialled: %s", o)
	}
}
