package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// within measures that something happens in the time that a promise names.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	started := time.Now()
	testenv.Eventually(t, what, ok)
	if took := time.Since(started); took > limit {
		t.Fatalf("%s took %s, promised %s", what, took, limit)
	}
}

func count(t *testing.T, c *client.Client) error {
	t.Helper()
	rows, err := c.Query(ctx, "shop", client.QueryRequest{Statement: protocol.Statement{SQL: "select count(*) from customers"}})
	_, _, _, err = collect(t, rows, err)
	return err
}

// echoServer answers what it is sent, on loopback.
func echoServer(t *testing.T) net.Addr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr()
}

func echoYAML(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return shopYAML + fmt.Sprintf("tcp:\n  echo: {host: 127.0.0.1, port: %s}\n", port)
}

// openDial opens a raw dial and proves that it echoes.
func openDial(t *testing.T, c *client.Client, name string) client.Conn {
	t.Helper()
	conn, err := c.Dial(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "ping" {
		t.Fatalf("echo: %q, %v", b, err)
	}
	return conn
}

// cut reports when a conn was ended by the other side.
func cut(conn net.Conn) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(io.Discard, conn) }()
	return done
}

func expectCut(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s: an open stream lived on for 5 s", what)
	}
}

func TestRevokedAgentIsCutAtOnce(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("shop")
	w.Connection("echo")
	conn := openDial(t, w.Client, "echo")
	done := cut(conn)
	agents, err := w.Client.Agents(ctx)
	if err != nil || len(agents) != 1 || agents[0].State != client.AgentActive {
		t.Fatalf("%+v, %v", agents, err)
	}
	if err := w.Client.DisableAgent(ctx, agents[0].ID); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "disabled agent")
	if c, o := code(count(t, w.Client)); c != protocol.CodeUnavailable || o != protocol.OriginRelay {
		t.Fatalf("a disabled agent was asked: %s %s", c, o)
	}
	a, err := w.Client.Agent(ctx, agents[0].ID)
	if err != nil || a.State != client.AgentDisabled || a.Tunnels != 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	// It tries again, and that it was refused stands in the record.
	testenv.Eventually(t, "the refusal is recorded", func() bool {
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{Kind: string(audit.KindAgentRefused)}) {
			if err == nil && e.Agent == agents[0].ID && strings.Contains(string(e.Raw), `"reason":"the agent is disabled"`) && strings.Contains(string(e.Raw), `"certificate":`) {
				return true
			}
		}
		return false
	})
	// Enabled again, the agent is back by itself: it never gave up.
	if err := w.Client.EnableAgent(ctx, agents[0].ID); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the agent is back", func() bool { return count(t, w.Client) == nil })
}

// E8, P11: an agent whose address is no longer on the list of agents is cut, and back when it is.
func TestAgentsOffTheirAllowlistAreCut(t *testing.T) {
	t.Run("E8 agents off their list", testAgentsOffTheirAllowlistAreCut)
}

func testAgentsOffTheirAllowlistAreCut(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("shop")
	w.Connection("echo")
	done := cut(openDial(t, w.Client, "echo"))
	elsewhere := client.SetAllowlist{For: "agents", Prefixes: []string{"203.0.113.0/24"}}
	if _, err := w.Client.SetAllowlist(ctx, elsewhere); client.CodeOf(err) != protocol.CodeConflict || !strings.Contains(err.Error(), "would cut 1 tunnels") {
		t.Fatalf("agents were cut unawares: %v", err)
	}
	try := elsewhere
	try.DryRun = true
	if l, err := w.Client.SetAllowlist(ctx, try); err != nil || l.Lists != nil || l.WouldCut == nil || len(l.WouldCut.Agents) != 1 || !netip.MustParseAddr(l.WouldCut.Agents[0].Address).IsLoopback() || len(l.WouldCut.Tokens) != 0 {
		t.Fatalf("a dry run says %+v, %v", l.WouldCut, err)
	}
	if err := count(t, w.Client); err != nil {
		t.Fatal(err)
	}
	elsewhere.Confirm = true
	if _, err := w.Client.SetAllowlist(ctx, elsewhere); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "an agent off its list")
	testenv.Eventually(t, "its operations are refused", func() bool {
		c, _ := code(count(t, w.Client))
		return c == protocol.CodeUnavailable
	})
	testenv.Eventually(t, "the refusal is recorded", func() bool {
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{Kind: string(audit.KindAgentRefused)}) {
			if err == nil && e.Rule == "allowlist.agents" && e.SourceAddr != "" {
				return true
			}
		}
		return false
	})
	if _, err := w.Client.SetAllowlist(ctx, client.SetAllowlist{For: "agents", Prefixes: []string{"127.0.0.0/8", "::1/128"}}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the agent is back", func() bool { return count(t, w.Client) == nil })
}

// J8: what runs with a token ends with it.
func TestRevokedTokenIsCutAtOnce(t *testing.T) {
	t.Run("J8 a token that is revoked", testRevokedTokenIsCutAtOnce)
}

func testRevokedTokenIsCutAtOnce(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	tok, err := w.Client.CreateToken(ctx, client.NewToken{Name: "dev", Roles: []string{"operator"}})
	if err != nil {
		t.Fatal(err)
	}
	dev := w.NewClient(secret.FromString(tok.Token))
	done := cut(openDial(t, dev, "echo"))
	if err := w.Client.RevokeToken(ctx, tok.ID); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "revoked token")
	if _, err := dev.Whoami(ctx); err == nil {
		t.Fatal("a revoked token is taken")
	} else if c, _ := code(err); c != protocol.CodeUnauthenticated {
		t.Fatalf("got %v", err)
	}
}

func TestAllowlistNarrowedCutsOpenStreams(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	done := cut(openDial(t, w.Client, "echo"))
	if _, err := w.Client.SetAllowlist(ctx, client.SetAllowlist{Prefixes: []string{"203.0.113.0/24"}}); err == nil {
		t.Fatal("an admin locked himself out without saying so twice")
	} else if c, _ := code(err); c != protocol.CodeConflict {
		t.Fatalf("got %v", err)
	}
	if _, err := w.Client.SetAllowlist(ctx, client.SetAllowlist{Prefixes: []string{"203.0.113.0/24"}, Confirm: true}); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "narrowed allowlist")
	_, err := w.Client.Whoami(ctx)
	if c, _ := code(err); c != protocol.CodeDenied {
		t.Fatalf("got %v", err)
	}
}

func TestDeletedConnectionCutsItsStreams(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	done := cut(openDial(t, w.Client, "echo"))
	if err := w.Client.DeleteConnection(ctx, "echo"); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "deleted connection")
}

func TestRolesHoldOnConnections(t *testing.T) {
	w := shop(t, testenv.Options{})
	w.Connection("shop")
	w.Connection("till")
	w.Connection("papers")
	tok, err := w.Client.CreateToken(ctx, client.NewToken{Name: "reader", Roles: []string{"analyst"}})
	if err != nil {
		t.Fatal(err)
	}
	analyst := w.NewClient(secret.FromString(tok.Token))
	if err := count(t, analyst); err != nil {
		t.Fatalf("an analyst may read: %v", err)
	}
	for what, try := range map[string]func() error{
		"exec": func() error {
			_, err := analyst.Exec(ctx, "till", client.QueryRequest{Statement: protocol.Statement{SQL: "delete from customers"}})
			return err
		},
		"put": func() error {
			_, err := analyst.Put(ctx, "papers", "x.txt", strings.NewReader("x"), 1, client.PutOptions{})
			return err
		},
		"dial": func() error { _, err := analyst.Dial(ctx, "shop"); return err },
		"create connection": func() error {
			_, err := analyst.CreateConnection(ctx, client.NewConnection{Name: "x", Group: "default", Profile: "x"})
			return err
		},
		"list agents": func() error { _, err := analyst.Agents(ctx); return err },
		"join token": func() error {
			_, err := analyst.CreateJoinToken(ctx, client.NewJoinToken{Group: "default"})
			return err
		},
		"read audit": func() error { _, err := analyst.AuditKey(ctx); return err },
		"allowlist": func() error {
			_, err := analyst.SetAllowlist(ctx, client.SetAllowlist{Prefixes: []string{"0.0.0.0/0"}})
			return err
		},
		"make a token": func() error {
			_, err := analyst.CreateToken(ctx, client.NewToken{Name: "y", Roles: []string{"admin"}})
			return err
		},
	} {
		err := try()
		if c, o := code(err); c != protocol.CodeDenied || o != protocol.OriginRelay {
			t.Errorf("%s: got %v, want denied by the relay", what, err)
		}
	}
	// Nothing of what was denied had reached the site: what came after it, and is allowed, is in the record.
	if _, err := analyst.Schema(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the site's record of the last request", func() (last bool) {
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Source != w.Agent.ID() {
				continue
			}
			if e.Operation == "exec" || e.Operation == "write" || e.Operation == "dial" {
				t.Errorf("the agent saw a denied operation: %s", e.Raw)
			}
			last = last || e.Operation == "schema"
		}
		return last
	})
}

func TestJoinTokenCountsOnce(t *testing.T) {
	w := shop(t, testenv.Options{})
	token, err := mtls.ParseJoinToken(w.JoinToken())
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	try := func(dir, sec string) error {
		_, err := enroll.Enroll(ctx, enroll.Request{Dir: filepath.Join(w.Dir, dir), Addrs: token.Addrs, Pin: token.Pin, Secret: sec, Dial: d.DialContext})
		return err
	}
	t.Run("D10 two agents at once", func(t *testing.T) {
		res := make(chan error, 8)
		for i := range cap(res) {
			go func() { res <- try(fmt.Sprintf("race%d", i), token.SecretText()) }()
		}
		won := 0
		for range cap(res) {
			err := <-res
			if err == nil {
				won++
			} else if c, _ := code(err); c != protocol.CodeConflict {
				t.Errorf("a loser got %v", err)
			}
		}
		if won != 1 {
			t.Fatalf("%d agents enrolled with one token", won)
		}
	})
	t.Run("D10 replay and garbage", func(t *testing.T) {
		if c, _ := code(try("late", token.SecretText())); c != protocol.CodeConflict {
			t.Error("a used token is taken again")
		}
		if c, _ := code(try("odd", strings.Repeat("A", 43))); c != protocol.CodeUnauthenticated {
			t.Error("a made-up token is taken")
		}
		if _, err := os.Stat(filepath.Join(w.Dir, "late", "identity.json")); err == nil {
			t.Error("a failed enrolment left an identity")
		}
	})
	t.Run("D9 another CA in the middle", func(t *testing.T) {
		pin := append([]byte(nil), token.Pin...)
		pin[0]++
		_, err := enroll.Enroll(ctx, enroll.Request{Dir: filepath.Join(w.Dir, "mitm"), Addrs: token.Addrs, Pin: pin, Secret: "x", Dial: d.DialContext})
		if err == nil || !strings.Contains(err.Error(), "intercept") {
			t.Fatalf("got %v", err)
		}
	})
}

func TestAgentComesBackAfterRelayRestart(t *testing.T) {
	w := shop(t, testenv.Options{})
	w.Connection("shop")
	if err := count(t, w.Client); err != nil {
		t.Fatal(err)
	}
	w.RestartRelay()
	within(t, 10*time.Second, "the agent is back", func() bool { return count(t, w.Client) == nil })
}

func TestDrainFinishesWhatRuns(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t)), Drain: 20 * time.Second})
	w.Connection("papers")
	drainsAnUpload(t, w)
}

// drainsAnUpload stops the agent amid an upload to "papers": new work is refused, and the upload is finished.
func drainsAnUpload(t *testing.T, w *testenv.World) {
	t.Helper()
	pr, pw := io.Pipe()
	res := make(chan error, 1)
	go func() {
		_, err := w.Client.Put(ctx, "papers", "slow.txt", pr, -1, client.PutOptions{})
		res <- err
	}()
	if _, err := io.WriteString(pw, strings.Repeat("a", 200_000)); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); w.StopAgent() }()
	testenv.Eventually(t, "new work is refused", func() bool {
		_, err := w.Client.Stat(ctx, "papers", "slow.txt", "")
		c, _ := code(err)
		return c == protocol.CodeUnavailable
	})
	if _, err := io.WriteString(pw, "b"); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if err := <-res; err != nil {
		t.Fatalf("the running upload was cut: %v", err)
	}
	<-stopped
	if b, err := os.ReadFile(filepath.Join(w.Dir, "papers", "slow.txt")); err != nil || len(b) != 200_001 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
}

func TestSecondAgentOnTheSameDataIsRefused(t *testing.T) {
	w := shop(t, testenv.Options{})
	err := testenv.RunSecondAgent(w)
	if err == nil || !strings.Contains(err.Error(), "another fairlead-agent") {
		t.Fatalf("got %v", err)
	}
}

func TestForeignPathsAreRefused(t *testing.T) {
	w := shop(t, testenv.Options{})
	hc := w.HTTP()
	for _, c := range []struct {
		name, method, path, token string
		want                      int
	}{
		{"no token", "GET", "/api/v1/whoami", "", 401},
		{"token in the query", "GET", "/api/v1/whoami?token=" + w.Token.ExposeString(), "", 401},
		{"garbage token", "GET", "/api/v1/whoami", "flt_nonsense", 401},
		{"unknown route", "GET", "/api/v1/nothing", w.Token.ExposeString(), 404},
		{"J1 another workspace", "GET", "/api/v1/workspaces/other/agents", w.Token.ExposeString(), 404},
		{"J1 another workspace's connection", "GET", "/api/v1/workspaces/other/connections/x/schema", w.Token.ExposeString(), 404},
		{"E12 double slash", "GET", "/api/v1//whoami", w.Token.ExposeString(), 400},
		{"E12 dot segments", "GET", "/api/v1/workspaces/../whoami", w.Token.ExposeString(), 400},
		{"E12 escaped dots", "GET", "/api/v1/workspaces/%2e%2e/whoami", w.Token.ExposeString(), 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, "https://"+w.Address+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.token != "" {
				req.Header.Set("Authorization", "Bearer "+c.token)
			}
			req.Header.Set("X-Forwarded-For", "203.0.113.9")
			resp, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var p client.Problem
			if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Status != resp.StatusCode || p.RequestID == "" {
				t.Fatalf("not a problem: %+v, %v", p, err)
			}
			if resp.StatusCode != c.want {
				t.Fatalf("status %d, want %d: %+v", resp.StatusCode, c.want, p)
			}
		})
	}
}

func TestBadInputIsToldWhere(t *testing.T) {
	w := shop(t, testenv.Options{})
	w.Connection("shop")
	const ws = "/api/v1/workspaces/default"
	for _, c := range []struct{ name, method, path, body, want string }{
		{"not JSON", "POST", ws + "/connections/shop/query", `{"sql":`, "well-formed"},
		{"E15 unknown member", "POST", ws + "/connections/shop/query", `{"sql":"select 1","sudo":true}`, "sudo"},
		{"E15 doubled member", "POST", ws + "/connections/shop/query", `{"sql":"select 1","sql":"select canary"}`, "/sql: stands twice"},
		{"E15 trailing data", "POST", ws + "/connections/shop/query", `{"sql":"select 1"}{}`, "goes on"},
		{"E15 depth", "POST", ws + "/connections/shop/query", `{"args":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested"},
		{"wrong type", "POST", ws + "/connections/shop/query", `{"sql":["canary"]}`, "/sql: want a string"},
		{"neither sql nor statement", "POST", ws + "/connections/shop/query", `{}`, "/sql or /statement"},
		{"admin: unknown member", "POST", ws + "/groups", `{"name":"x","canary":1}`, "unexpected property"},
		{"admin: wrong type", "POST", ws + "/groups", `{"name":["canary"]}`, "expected string"},
		{"admin: bad name", "POST", ws + "/groups", `{"name":"can ary/"}`, "name"},
		{"admin: bad prefix", "PUT", ws + "/allowlist", `{"prefixes":["10.0.0.1/8"]}`, "nothing was changed"},
		{"admin: both profile and target", "POST", ws + "/connections", `{"name":"c","group":"default","profile":"p","target":{"host":"h","port":1}}`, "not both"},
		{"unknown parameter", "GET", ws + "/connections/shop/list?sudo=1", ``, "no such parameter"},
		{"parameter out of range", "GET", ws + "/connections/shop/list?page_size=0", ``, "page_size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, "https://"+w.Address+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+w.Token.ExposeString())
			req.Header.Set("Content-Type", "application/json")
			resp, err := w.HTTP().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			var p client.Problem
			if err := json.Unmarshal(b, &p); err != nil || p.Code != protocol.CodeInvalid || !strings.Contains(p.Detail+p.Hint, c.want) {
				t.Fatalf("status %d, want a problem that says %q: %s", resp.StatusCode, c.want, b)
			}
			if strings.Contains(string(b), "canary") && c.name != "admin: unknown member" {
				t.Fatalf("the answer echoes what was sent: %s", b)
			}
		})
	}
}

func TestCallerGoneCancelsAtTheSite(t *testing.T) {
	w := shop(t, testenv.Options{})
	w.Connection("till") // without a cap on rows
	qctx, cancel := context.WithCancel(ctx)
	rows, err := w.Client.Query(qctx, "till", client.QueryRequest{Statement: protocol.Statement{SQL: "with recursive n(i) as (select 1 union all select i+1 from n) select i from n"}, MaxRows: 0})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	rows.Close()
	within(t, 5*time.Second, "the site's outcome says canceled", func() bool {
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Source == w.Agent.ID() && e.Kind == "operation.outcome" && e.Code == string(protocol.CodeCanceled) {
				return true
			}
		}
		return false
	})
}

func TestStatesOfAnAgent(t *testing.T) {
	w := testenv.Bare(t, testenv.Options{YAML: "files:\n  papers: {base: DIR/papers, allow: [list]}\n"})
	state := func() client.Agent {
		t.Helper()
		agents, err := w.Client.Agents(ctx)
		if err != nil || len(agents) != 1 {
			t.Fatalf("%+v, %v", agents, err)
		}
		return agents[0]
	}
	if a := state(); a.State != client.AgentAwaitingSetup || a.ConnectedSince != nil {
		t.Fatalf("enrolled and never connected: %+v", a)
	}
	w.StartAgent()
	a := state()
	if a.State != client.AgentActive || a.Version != "test" || a.ConnectedSince == nil || a.SourceAddress != "127.0.0.1" || a.ConfigDigest != w.Agent.ConfigDigest() ||
		len(a.Profiles) != 1 || a.CertificateNotAfter == nil {
		t.Fatalf("connected: %+v", a)
	}
	w.StopAgent()
	testenv.Eventually(t, "no response", func() bool { return state().State == client.AgentNoResponse })
	if a := state(); a.LastSeen == nil || a.Version != "test" {
		t.Fatalf("gone: %+v", a)
	}
}
