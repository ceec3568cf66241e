package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/agent/uplink"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/client"
)

func withQUIC(c *relay.Config) { c.Agents.QUIC = true }

func pong(t *testing.T, conn io.ReadWriter) {
	t.Helper()
	b := make([]byte, 4)
	if _, err := io.WriteString(conn, "pong"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "pong" {
		t.Fatalf("%q, %v", b, err)
	}
}

// Query, raw stream and files over QUIC; renewal leaves an open dial alone, revocation cuts it at once, and a relay that was
// away is found again. The trip itself is in TestTheWholeTrip.
func TestInstallationOnQUIC(t *testing.T) {
	w := shop(t, testenv.Options{Transport: testenv.QUIC, YAML: echoYAML(echoServer(t)), CertificateLifetime: time.Minute})
	if got := transports(t, w); got != "quic" {
		t.Fatalf("transports %q", got)
	}
	w.Connection("shop")
	w.Connection("echo")
	if err := count(t, w.Client); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		transfer(t, w, "over.txt")
	}
	if n := lanesOf(t, w); n != 0 {
		t.Errorf("%d lanes beside QUIC, which needs none", n)
	}
	conn := openDial(t, w.Client, "echo")
	pong(t, conn)

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
	pong(t, conn)

	done := cut(conn)
	if err := w.Client.DisableAgent(ctx, agents[0].ID); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "disabled agent")
	if c, o := code(count(t, w.Client)); c != protocol.CodeUnavailable || o != protocol.OriginRelay {
		t.Fatalf("a disabled agent was asked: %s %s", c, o)
	}
	if err := w.Client.EnableAgent(ctx, agents[0].ID); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the agent is back", func() bool { return count(t, w.Client) == nil })
	w.RestartRelay()
	within(t, 10*time.Second, "the agent is back after a restart", func() bool { return count(t, w.Client) == nil })
	if got := transports(t, w); got != "quic" {
		t.Errorf("transports %q", got)
	}
	testenv.Eventually(t, "the record names the way", func() bool {
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(e.Raw), `"transport":"quic"`) {
				return true
			}
		}
		return false
	})
}

// With auto the agent begins over TCP and moves on; what runs meanwhile is not touched.
func TestAutoMovesToQUIC(t *testing.T) {
	w := testenv.Bare(t, testenv.Options{YAML: echoYAML(echoServer(t)), RelayConfig: withQUIC})
	w.StartAgent()
	w.Connection("echo")
	conn := openDial(t, w.Client, "echo")
	testenv.Eventually(t, "QUIC is in use", func() bool { return w.Agent.States()[0].Transport == "quic" })
	pong(t, conn)
	_ = conn.Close()
	testenv.Eventually(t, "TCP was drained", func() bool { return transports(t, w) == "quic" })
	conn = openDial(t, w.Client, "echo")
	pong(t, conn)
	if kept, err := uplink.ReadChoices(filepath.Join(w.Dir, "agent", "uplink.json")); err != nil || kept[w.Address].Transport != "quic" {
		t.Errorf("remembered %v, %v", kept, err)
	}
}

// By default the relay takes no UDP.
func TestRelayTakesNoQUICUnlessItIsTold(t *testing.T) {
	w := testenv.New(t, testenv.Options{YAML: "files: {}\n"})
	c, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := quic.DialAddr(c, w.Address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol.ALPNTunnel}}, nil); err == nil {
		t.Error("QUIC was answered")
	}
}

// What an agent may not do in its tunnel it may not over QUIC: a Hello that is too large or malformed, none at all, and
// nothing before it.
func TestHostileAgentOverQUIC(t *testing.T) {
	w := testenv.Bare(t, testenv.Options{Transport: testenv.QUIC, YAML: "files: {}\n"})
	id, err := enroll.Load(filepath.Join(w.Dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	dial := func() tunnel.Tunnel {
		tn, err := tunnel.DialQUIC(ctx, w.Address, mtls.AgentTLS(mtls.NewReloader(id.Keypair), id.Roots, id.Installation), tunnel.DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tn.Close() })
		return tn
	}
	for name, body := range map[string]string{
		"oversized": fmt.Sprintf(`{"version":1,"hostname":%q}`, strings.Repeat("a", protocol.MaxControlBytes)),
		"malformed": "{",
		"too long":  fmt.Sprintf(`{"version":1,"hostname":%q}`, strings.Repeat("a", 300)),
	} {
		tn := dial()
		s, err := tn.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = fmt.Fprintf(s, "POST %s HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n\r\n%s", protocol.PathHello, len(body), body)
		answer := make([]byte, 12)
		if _, err := io.ReadFull(s, answer); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 4") {
			t.Errorf("%s hello: %q, %v", name, answer, err)
		}
	}
	if all, err := w.Client.Agents(ctx); err != nil || len(all) != 1 || all[0].Tunnels != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// What runs when the agent is told to stop is finished, over this way, too.
func TestDrainFinishesWhatRunsOverQUIC(t *testing.T) {
	w := testenv.New(t, testenv.Options{Transport: testenv.QUIC, Drain: 20 * time.Second, YAML: "files:\n  papers: {base: DIR/papers, allow: [list, read, write]}\n"})
	if err := os.MkdirAll(filepath.Join(w.Dir, "papers"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.Connection("papers")
	drainsAnUpload(t, w)
}
