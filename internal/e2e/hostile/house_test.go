//go:build linux

package hostile_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/relay/client"
)

// running is a program that runs until it is stopped, or the test ends.
type running struct {
	cmd  *exec.Cmd
	log  *testenv.Log
	gone chan struct{} // closed when the process has ended
}

func run(t testing.TB, log *testenv.Log, name string, args ...string) *running {
	t.Helper()
	return runCommand(t, log, name, exec.Command(program(t, name), args...))
}

func runCommand(t testing.TB, log *testenv.Log, name string, cmd *exec.Cmd) *running {
	t.Helper()
	p := &running{cmd: cmd, log: log, gone: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.gone); _ = p.cmd.Wait() }()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text := log.String()
			t.Logf("log of %s, the end:\n%s", name, text[max(0, len(text)-3000):])
		}
	})
	return p
}

func (p *running) pid() int { return p.cmd.Process.Pid }

func (p *running) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (p *running) kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// sockets counts the sockets that a process holds.
func (p *running) sockets(t testing.TB) (n int) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.pid()))
	if err != nil || len(fds) == 0 {
		t.Fatalf("no descriptors: %v", err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "socket:[") {
			n++
		}
	}
	return n
}

// maxRelayRSS is what the relay may ever hold while it is attacked.
const maxRelayRSS = 400 << 20

// house is a real relay, and an honest agent of it that must not notice what is done to the relay. Between the two is a
// middle.
type house struct {
	dir     string
	address string
	health  string
	client  *client.Client
	roots   *x509.CertPool
	relay   *running
	log     *testenv.Log
	middle  *middle

	agent    *running
	agentLog *testenv.Log
	id       string // of the honest agent
}

// newHouse starts a relay with more text in relay.yaml, and an agent that offers a folder, and says further things of
// relay and profiles in agent.yaml.
func newHouse(t testing.TB, relayYAML, agentYAML string) *house {
	t.Helper()
	h := &house{dir: t.TempDir(), address: testenv.LowPort(t, 20000), health: testenv.LowPort(t, 20000), log: &testenv.Log{}, agentLog: &testenv.Log{}}
	if err := os.Chmod(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.must(t, "fairlead-relay", "init", "--data", h.path("relay"), "--listen", h.address, "--public-address", h.address, "--health", h.health, "--token-file", h.path("admin.token"))
	token, err := os.ReadFile(h.path("admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := os.ReadFile(h.path("relay/relay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "relay/relay.yaml", string(yaml)+"log: {level: debug}\n"+relayYAML)
	if h.client, err = client.New(client.Config{Relay: h.address, Token: secret.FromString(strings.TrimSpace(string(token))), CAFile: h.path("relay/ca.pem")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.client.Close)
	pem, err := os.ReadFile(h.path("relay/ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	h.roots = x509.NewCertPool()
	h.roots.AppendCertsFromPEM(pem)
	h.startRelay(t)

	h.middle = newMiddle(t, h.address)
	if err := os.Mkdir(h.path("in"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.write(t, "in/a.txt", "hello")
	h.write(t, "agent.yaml", fmt.Sprintf("version: 1\nlog: {level: debug}\nrelay: {addresses: [%q]}\nfiles:\n  in: {base: %s, allow: [list, stat, read, write]}\n", h.middle.addr, h.path("in"))+agentYAML)
	h.write(t, "join.token", h.token(t))
	h.must(t, "fairlead-agent", "enroll", "--data", h.path("agent"), "--token-file", h.path("join.token"))
	h.startAgent(t)
	h.connected(t)
	agents, err := h.client.Agents(t.Context())
	if err != nil || len(agents) != 1 {
		t.Fatalf("%v, %v", agents, err)
	}
	h.id = agents[0].ID
	if _, err := h.client.CreateConnection(t.Context(), client.NewConnection{Name: "in", Group: "default", Profile: "in"}); err != nil {
		t.Fatal(err)
	}
	h.works(t)
	return h
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

func (h *house) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h *house) must(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, args[0], err, out)
	}
}

func (h *house) startRelay(t testing.TB) {
	t.Helper()
	h.relay = run(t, h.log, "fairlead-relay", "serve", "--data", h.path("relay"))
	testenv.Eventually(t, "the relay answers", func() bool { _, err := h.client.Whoami(t.Context()); return err == nil })
}

func (h *house) startAgent(t testing.TB) {
	t.Helper()
	h.agent = run(t, h.agentLog, "fairlead-agent", "run", "--config", h.path("agent.yaml"), "--data", h.path("agent"))
}

func (h *house) token(t testing.TB) string {
	t.Helper()
	tok, err := h.client.CreateJoinToken(t.Context(), client.NewJoinToken{Group: "default"})
	if err != nil {
		t.Fatal(err)
	}
	return tok.Token
}

// tunnels is how many the relay says that an agent has.
func (h *house) tunnels(t testing.TB, id string) int {
	t.Helper()
	a, err := h.client.Agent(t.Context(), id)
	if err != nil {
		return -1
	}
	return a.Tunnels
}

func (h *house) connected(t testing.TB) {
	t.Helper()
	testenv.Eventually(t, "the honest agent is connected", func() bool {
		a, err := h.client.Agents(t.Context())
		return err == nil && len(a) > 0 && a[0].Tunnels > 0
	})
}

// ask is an honest operation at the honest agent.
func (h *house) ask(ctx context.Context) error {
	_, err := h.client.Stat(ctx, "in", "a.txt", "")
	return err
}

// works asserts that an honest operation goes well, and soon.
func (h *house) works(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	started := time.Now()
	if err := h.ask(ctx); err != nil {
		t.Errorf("an honest operation: %v", err)
	} else if took := time.Since(started); took > 2*time.Second {
		t.Errorf("an honest operation took %s", took)
	}
}

// comesBack asserts that honest operations go well again within a limit, and gives how long it took.
func (h *house) comesBack(t testing.TB, limit time.Duration) time.Duration {
	t.Helper()
	started := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		octx, done := context.WithTimeout(ctx, 5*time.Second)
		err := h.ask(octx)
		done()
		if err == nil {
			return time.Since(started)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("honest operations do not go well again within %s: %v", limit, err)
		}
	}
}

// row runs a row of the catalog, then checks that the relay and its honest agent are as they were.
func (h *house) row(t *testing.T, name string, f func(t *testing.T)) {
	ran[strings.Fields(name)[0]] = true
	t.Run(name, func(t *testing.T) {
		dials := h.middle.conns.Load()
		f(t)
		h.healthy(t)
		if n := h.middle.conns.Load(); n != dials {
			t.Errorf("the honest agent dialled %d times meanwhile", n-dials)
		}
	})
}

// healthy asserts that the relay lives, serves and is lean.
func (h *house) healthy(t testing.TB) {
	t.Helper()
	select {
	case <-h.relay.gone:
		t.Fatal("the relay has ended")
	case <-h.agent.gone:
		t.Fatal("the agent has ended")
	default:
	}
	h.works(t)
	if rss := rssOf(t, h.relay.pid()); rss > maxRelayRSS {
		t.Errorf("the relay holds %d MiB", rss>>20)
	}
	for _, log := range []*testenv.Log{h.log, h.agentLog} {
		if line := testenv.Panicked(log.String()); line != "" {
			t.Errorf("something panicked: %s", line)
		}
	}
}

// enrol makes one more agent, of which the test has the keys.
func (h *house) enrol(t testing.TB, name string) *enroll.Identity {
	t.Helper()
	tok, err := mtls.ParseJoinToken(h.token(t))
	if err != nil {
		t.Fatal(err)
	}
	id, err := enroll.Enroll(t.Context(), enroll.Request{Dir: h.path(name), Addrs: tok.Addrs, Pin: tok.Pin, Secret: tok.SecretText(), Name: name, Version: "rogue", Dial: (&net.Dialer{}).DialContext})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func tlsOf(id *enroll.Identity) *tls.Config {
	return mtls.AgentTLS(mtls.NewReloader(id.Keypair), id.Roots, id.Installation)
}

// dial opens a tunnel as an agent would, and proves it.
func (h *house) dial(t testing.TB, id *enroll.Identity) (tunnel.Tunnel, error) {
	t.Helper()
	cfg := tunnel.DefaultConfig()
	cfg.MaxStreams, cfg.Backlog = 100_000, 100_000 // its own limits do not hold it back
	tn, err := tunnel.Dial(t.Context(), h.address, tlsOf(id), nil, cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { tn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := tn.Ping(ctx); err != nil {
		return nil, err
	}
	return tn, nil
}

// tls opens TLS with a valid certificate and leaves what is said on it to the test.
func (h *house) tls(t testing.TB, conf *tls.Config) *tls.Conn {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", h.address, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reset(c.NetConn()) })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// people is TLS as callers of the API speak it, with these protocols.
func (h *house) people(alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: h.roots, ServerName: "127.0.0.1", NextProtos: alpn}
}

const plainHello = `{"version":1,"min_version":1,"agent_version":"rogue"}`

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}
