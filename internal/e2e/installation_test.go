//go:build linux

package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/relay/client"
)

// installation is a relay and an agent as people run them: built programs, each a process of its own.
type installation struct {
	t          *testing.T
	dir        string
	address    string
	health     string
	env        []string // of fairlead
	tokenFile  string
	relay      *process
	agent      *process
	client     *client.Client
	joinToken  string
	adminToken string
	said       bytes.Buffer // what programs printed, but for tokens
}

// install makes an installation with a relay that serves; yaml is agent.yaml without its version. The agent is enrolled
// and does not run yet.
func install(t *testing.T, yaml string) *installation {
	t.Helper()
	i := &installation{t: t, dir: t.TempDir(), address: testenv.LowPort(t, 12000), health: testenv.LowPort(t, 12000)}
	if err := os.Chmod(i.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"relay.log", "agent.log"} {
				b, _ := os.ReadFile(filepath.Join(i.dir, name))
				t.Logf("%s, the end:\n%s", name, b[max(0, len(b)-3000):])
			}
		}
	})
	i.tokenFile = filepath.Join(i.dir, "admin.token")
	i.must(program(t, "fairlead-relay"), "init", "--data", i.path("relay"), "--listen", i.address, "--public-address", i.address, "--health", i.health, "--token-file", i.tokenFile)
	token, err := os.ReadFile(i.tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	i.adminToken = strings.TrimSpace(string(token))
	i.appendTo("relay/relay.yaml", "log: {level: debug}\nsign_in: {passkeys: {id: localhost, origins: [\"https://localhost:8443\"]}}\n")
	i.env = []string{"HOME=" + i.dir, "FAIRLEAD_RELAY=" + i.address, "FAIRLEAD_TOKEN_FILE=" + i.tokenFile, "FAIRLEAD_CA=" + i.path("relay/ca.pem")}
	c, err := client.New(client.Config{Relay: i.address, Token: secret.FromString(i.adminToken), CAFile: i.path("relay/ca.pem")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	i.client = c
	i.startRelay()
	i.writeYAML(yaml)
	join := i.run("join-token", "create", "--group", "default")
	i.joinToken = strings.TrimSpace(join.Out)
	if join.Exit != 0 || !strings.HasPrefix(i.joinToken, "flj_") {
		t.Fatalf("join-token create: %s", join)
	}
	i.write("join.token", i.joinToken+"\n", 0o600)
	i.must(program(t, "fairlead-agent"), "enroll", "--data", i.path("agent"), "--token-file", i.path("join.token"))
	return i
}

func (i *installation) path(name string) string {
	return filepath.Join(i.dir, filepath.FromSlash(name))
}

func (i *installation) write(name, text string, mode os.FileMode) {
	i.t.Helper()
	if err := os.WriteFile(i.path(name), []byte(text), mode); err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) appendTo(name, text string) {
	i.t.Helper()
	b, err := os.ReadFile(i.path(name))
	if err != nil {
		i.t.Fatal(err)
	}
	i.write(name, string(b)+text, 0o600)
}

// writeYAML replaces agent.yaml; "DIR" in it becomes the installation's folder.
func (i *installation) writeYAML(body string) {
	i.t.Helper()
	i.write("agent.yaml.new", "version: 1\nlog: {level: debug}\n"+strings.ReplaceAll(body, "DIR", i.dir), 0o600)
	if err := os.Rename(i.path("agent.yaml.new"), i.path("agent.yaml")); err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) startRelay() {
	i.t.Helper()
	i.relay = start(i.t, nil, i.path("relay.log"), program(i.t, "fairlead-relay"), "serve", "--data", i.path("relay"))
	testenv.Eventually(i.t, "the relay answers", func() bool { _, err := i.client.Whoami(ctx); return err == nil })
}

func (i *installation) startAgent() {
	i.t.Helper()
	i.agent = start(i.t, nil, i.path("agent.log"), program(i.t, "fairlead-agent"), "run", "--config", i.path("agent.yaml"), "--data", i.path("agent"))
	i.connected()
}

// connected waits until the agent that runs now has a tunnel.
func (i *installation) connected() {
	i.t.Helper()
	testenv.Eventually(i.t, "the agent is connected", func() bool {
		a, err := i.client.Agents(ctx)
		return err == nil && len(a) == 1 && a[0].Tunnels > 0
	})
}

// run runs fairlead.
func (i *installation) run(args ...string) output {
	i.t.Helper()
	o := runProgram(i.t, i.env, "", program(i.t, "fairlead"), args...)
	if args[0] != "join-token" && args[0] != "tokens" {
		fmt.Fprintf(&i.said, "%s", o)
	}
	return o
}

// ok runs fairlead, which must exit with 0, and gives its standard output.
func (i *installation) ok(args ...string) string {
	i.t.Helper()
	o := i.run(args...)
	if o.Exit != 0 {
		i.t.Fatalf("fairlead %s: %s", strings.Join(args, " "), o)
	}
	return o.Out
}

// fails runs fairlead, which must exit with this status, and say these things on standard error.
func (i *installation) fails(exit int, says []string, args ...string) {
	i.t.Helper()
	o := i.run(args...)
	if o.Exit != exit {
		i.t.Errorf("fairlead %s: want exit status %d, got %s", strings.Join(args, " "), exit, o)
	}
	for _, s := range says {
		if !strings.Contains(o.Err, s) {
			i.t.Errorf("fairlead %s: %q is not in %s", strings.Join(args, " "), s, o)
		}
	}
}

func (i *installation) must(name string, args ...string) output {
	i.t.Helper()
	o := runProgram(i.t, i.env, "", name, args...)
	if o.Exit != 0 {
		i.t.Fatalf("%s %s: %s", filepath.Base(name), strings.Join(args, " "), o)
	}
	return o
}

// connections makes a connection to each profile.
func (i *installation) connections(profiles ...string) {
	i.t.Helper()
	for _, p := range profiles {
		i.ok("connections", "create", p, "--group", "default", "--profile", p)
	}
}

// term asks a process to stop and checks that it does, with status 0, in time.
func (i *installation) term(p *process, limit time.Duration) {
	i.t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		i.t.Fatal(err)
	}
	if status := p.ended(i.t, limit); status != 0 {
		i.t.Errorf("%s ended with status %d after SIGTERM", p.name, status)
	}
}

// peak is the most memory that a process has had, in bytes (VmHWM).
func peak(t testing.TB, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // it has ended
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	return 0
}
