//go:build linux

package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/relay/client"
)

// TestProgramsAsAUserRunsThem is the demo's way through the three programs, with what they print and their statuses.
func TestProgramsAsAUserRunsThem(t *testing.T) {
	i := install(t, "")
	agent := program(t, "fairlead-agent")
	i.must(agent, "sample", "--dir", i.path("site"))
	sample, err := os.ReadFile(i.path("site/agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if out := i.must(agent, "check", "--config", i.path("site/agent.yaml")).Out; !strings.Contains(out, "is in order") || !strings.Contains(out, "papers") {
		t.Errorf("check: %s", out)
	}
	i.write("agent.yaml", string(sample), 0o600)
	i.startAgent()

	if out := i.ok("whoami"); !strings.Contains(out, "admin") || !strings.Contains(out, "127.0.0.1") {
		t.Errorf("whoami: %s", out)
	}
	if out := i.ok("agents", "list"); !strings.Contains(out, "agt_") || !strings.Contains(out, "active") {
		t.Errorf("agents list: %s", out)
	}
	i.connections("shop", "papers")
	out := i.ok("query", "shop", "select id, name, email, total from customers where total > ? order by total desc limit 3", "--arg", "int:100")
	if !strings.Contains(out, "Barbara Liskov") || !strings.Contains(out, "[masked]") || strings.Contains(out, "@example.com") || strings.Contains(out, "Dijkstra") {
		t.Errorf("query: %s", out)
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(i.ok("query", "shop", "select id, name from customers order by id limit 1", "--output", "json")), &rows); err != nil || len(rows) != 1 || rows[0]["name"] != "Ada Lovelace" {
		t.Errorf("query as json: %v %v", rows, err)
	}
	if out := i.ok("query", "shop", "select id, name from customers order by id limit 1", "--output", "csv"); out != "id,name\n1,Ada Lovelace\n" && out != "id,name\r\n1,Ada Lovelace\r\n" {
		t.Errorf("query as csv: %q", out)
	}
	if out := i.ok("schema", "shop"); !strings.Contains(out, "customers") {
		t.Errorf("schema: %s", out)
	}
	i.write("note.txt", "written through the relay\n", 0o600)
	i.ok("files", "put", i.path("note.txt"), "papers:note.txt")
	if out := i.ok("files", "ls", "papers:"); !strings.Contains(out, "note.txt") {
		t.Errorf("files ls: %s", out)
	}
	if out := i.ok("files", "get", "papers:note.txt", "-"); out != "written through the relay\n" {
		t.Errorf("files get: %q", out)
	}

	// Refusals: the status of each, who refused, and by which rule.
	i.fails(77, []string{"refused by", "agent", "database.shop.allow.mode"}, "query", "shop", "delete from customers")
	i.fails(77, []string{"refused by", "agent", "files.papers.allow"}, "files", "rm", "papers:note.txt")
	i.fails(66, nil, "files", "get", "papers:nothing.txt", "-")
	i.fails(66, nil, "query", "nowhere", "select 1")
	i.fails(73, nil, "connections", "create", "shop", "--group", "default", "--profile", "shop")
	i.fails(73, nil, "files", "put", i.path("note.txt"), "papers:note.txt", "--no-overwrite")
	i.fails(64, nil, "query")
	i.fails(64, nil, "nonsense")
	if o := runProgram(t, i.env, "", agent, "explain", "--config", i.path("agent.yaml"), "query", "shop", "delete from customers"); o.Exit != 77 {
		t.Errorf("explain: %s", o)
	}
	stranger := append([]string{}, i.env...)
	i.write("bad.token", "flt_"+strings.Repeat("A", 43), 0o600)
	if o := runProgram(t, append(stranger, "FAIRLEAD_TOKEN_FILE="+i.path("bad.token")), "", program(t, "fairlead"), "whoami"); o.Exit != 77 {
		t.Errorf("a made-up token: %s", o)
	}
	if o := runProgram(t, append(stranger, "FAIRLEAD_RELAY="+testenv.LowPort(t, 12000)), "", program(t, "fairlead"), "whoami"); o.Exit != 69 {
		t.Errorf("no relay: %s", o)
	}

	if out := i.ok("audit", "list", "--limit", "0"); !strings.Contains(out, "operation") || strings.Contains(out, "@example.com") {
		t.Errorf("audit list: %.2000s", out)
	}
	if out := i.ok("audit", "verify"); out == "" {
		t.Error("audit verify says nothing")
	}
	listensOnNothing(t, i.agent.Process.Pid)

	// Both drain and go.
	i.term(i.agent, 10*time.Second)
	i.fails(69, nil, "query", "shop", "select 1")
	i.term(i.relay, 10*time.Second)
	for _, name := range []string{"relay.log", "agent.log"} {
		if b, _ := os.ReadFile(i.path(name)); testenv.Panicked(string(b)) != "" || strings.Contains(string(b), "level=ERROR") {
			t.Errorf("%s has an error:\n%s", name, b)
		}
	}
}

// listensOnNothing: P1. No socket of the process listens, whatever its kind; UDP sockets are not even bound to a port that
// others reach (those of DNS questions are connected).
func listensOnNothing(t *testing.T, pid int) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("no descriptors of process %d: %v", pid, err)
	}
	own := map[string]bool{}
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && strings.HasPrefix(link, "socket:[") {
			own[strings.Trim(link, "socket:[]")] = true
		}
	}
	if len(own) == 0 {
		t.Fatal("the agent has no socket at all, so this test proves nothing")
	}
	seen := 0
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "unix"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			c := strings.Fields(s.Text())
			if table == "unix" {
				if len(c) >= 7 && own[c[6]] && c[3] == "00010000" {
					t.Errorf("the agent listens on a Unix socket: %s", s.Text())
				}
				continue
			}
			if len(c) < 10 || !own[c[9]] {
				continue
			}
			seen++
			if table[0] == 't' && c[3] == "0A" || table[0] == 'u' && c[3] == "07" {
				t.Errorf("the agent listens: %s %s", table, s.Text())
			}
		}
		f.Close()
	}
	if seen == 0 {
		t.Fatal("the tunnel's socket is not in the tables, so this test proves nothing")
	}
}

// TestKillCycles: 20 times one half is killed amid work. What was acknowledged is done, and is in the record of both ends;
// the chains verify; the agent comes back by itself.
func TestKillCycles(t *testing.T) {
	i := install(t, "files:\n  papers: {base: DIR/papers, allow: [list, read, write]}\n")
	if err := os.Mkdir(i.path("papers"), 0o755); err != nil {
		t.Fatal(err)
	}
	i.startAgent()
	i.connections("papers")
	var acked []string
	const cycles = 20
	for n := range cycles {
		var mu sync.Mutex
		var wg sync.WaitGroup
		stop := make(chan struct{})
		enough := make(chan struct{})
		var once sync.Once
		for k := range 3 {
			wg.Go(func() {
				for m := 0; ; m++ {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprintf("c%02d-%d-%04d.txt", n, k, m)
					if _, err := i.client.Put(ctx, "papers", name, strings.NewReader(name), int64(len(name)), client.PutOptions{}); err == nil {
						mu.Lock()
						acked = append(acked, name)
						mu.Unlock()
						if m >= 2+rand.IntN(4) {
							once.Do(func() { close(enough) })
						}
					}
				}
			})
		}
		select {
		case <-enough:
		case <-time.After(30 * time.Second):
			t.Fatalf("cycle %d: no work gets done", n)
		}
		if n%2 == 0 {
			i.agent.kill()
		} else {
			i.relay.kill()
		}
		close(stop)
		wg.Wait()
		if n%2 == 0 {
			i.startAgent()
		} else {
			i.startRelay()
			begin := time.Now()
			i.connected()
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("cycle %d: the agent came back after %s", n, took)
			}
		}
		if n%5 == 4 {
			i.ok("audit", "verify")
		}
	}
	// Work still gets done.
	if _, err := i.client.Put(ctx, "papers", "last.txt", strings.NewReader("x"), 1, client.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	acked = append(acked, "last.txt")
	for _, name := range acked {
		if b, err := os.ReadFile(i.path("papers/" + name)); err != nil || name != "last.txt" && string(b) != name {
			t.Errorf("acknowledged and not there: %s %q %v", name, b, err)
		}
	}
	agents, err := i.client.Agents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// The agent's record arrives at the relay on its own time.
	missing := func() (list []string) {
		said := map[string]map[string]bool{"relay": {}, "agent": {}}
		for e, err := range i.client.AuditEvents(ctx, client.AuditQuery{}) {
			if err != nil {
				return []string{err.Error()}
			}
			if e.Kind != "operation.intent" {
				continue
			}
			who := "relay"
			if e.Source == agents[0].ID {
				who = "agent"
			}
			said[who][e.Target] = true
		}
		for _, name := range acked {
			for who, targets := range said {
				if !targets[name] {
					list = append(list, who+" "+name)
				}
			}
		}
		return list
	}
	var left []string
	deadline := time.Now().Add(20 * time.Second)
	for left = missing(); len(left) > 0 && time.Now().Before(deadline); left = missing() {
	}
	if len(left) > 0 {
		t.Errorf("%d of %d acknowledged operations are not in the record of both: %.600v", len(left), len(acked), left)
	}
	i.ok("audit", "verify")
	i.term(i.agent, 10*time.Second)
	i.term(i.relay, 10*time.Second)
	verifyAgentLog(t, i.path("agent"))
	t.Logf("%d cycles, %d acknowledged operations", cycles, len(acked))
}

// verifyAgentLog checks the chain of the agent's own log, and that the check can fail.
func verifyAgentLog(t *testing.T, data string) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(data, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		segments, _ := filepath.Glob(filepath.Join(p, "0*.log"))
		if len(segments) == 0 {
			return nil
		}
		found++
		if _, err := audit.Verify(p, nil); err != nil {
			t.Errorf("%s: %v", p, err)
		}
		b, err := os.ReadFile(segments[0])
		if err != nil || len(b) < 1000 {
			return errors.Join(err, errors.New("the agent's log is empty"))
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(segments[0], b, 0o600); err != nil {
			return err
		}
		if _, err := audit.Verify(p, nil); err == nil {
			t.Error("a changed log verifies")
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Fatalf("%d logs found: %v", found, err)
	}
}
