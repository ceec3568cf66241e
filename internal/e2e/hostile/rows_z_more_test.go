//go:build linux

package hostile_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// upload begins one that is half done; more sends the rest, and result tells what became of it.
func (h *house) upload(t *testing.T, name string) (more *io.PipeWriter, result <-chan error) {
	t.Helper()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := h.client.Put(t.Context(), "in", name, pr, -1, client.PutOptions{})
		pr.CloseWithError(fmt.Errorf("the upload has ended: %w", err))
		done <- err
	}()
	if _, err := io.WriteString(pw, strings.Repeat("a", 200_000)); err != nil {
		t.Fatal(err)
	}
	return pw, done
}

// TestStops are Z9 and Z10 on the real programs: the first signal lets what runs finish and takes nothing new, the second
// ends the program, and what it recorded still proves itself.
func TestStops(t *testing.T) {
	h := newHouse(t, "", "")
	for _, who := range []string{"agent", "relay"} {
		p := func() *running {
			if who == "agent" {
				return h.agent
			}
			return h.relay
		}
		restart := func() { // it outlives the row
			if who == "agent" {
				h.startAgent(t)
			} else {
				h.startRelay(t)
			}
			h.comesBack(t, 20*time.Second)
		}
		t.Run("Z9 one signal to the "+who, func(t *testing.T) {
			more, done := h.upload(t, who+".txt")
			p().signal(t, syscall.SIGTERM)
			testenv.Eventually(t, "nothing new is taken", func() bool {
				err := h.ask(t.Context())
				var e *protocol.Error
				return errors.As(err, &e) && e.Code == protocol.CodeUnavailable
			})
			if _, err := io.WriteString(more, "b"); err != nil {
				t.Fatal(err)
			}
			more.Close()
			if err := <-done; err != nil {
				t.Errorf("what ran was cut: %v", err)
			}
			select {
			case <-p().gone:
			case <-time.After(10 * time.Second):
				t.Fatal("it does not end although nothing runs")
			}
			if b, err := os.ReadFile(h.path("in/" + who + ".txt")); err != nil || len(b) != 200_001 {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			restart()
		})
		t.Run("Z10 two signals to the "+who, func(t *testing.T) {
			more, done := h.upload(t, who+"-cut.txt")
			defer more.Close()
			p().signal(t, syscall.SIGTERM)
			testenv.Eventually(t, "nothing new is taken", func() bool { return h.ask(t.Context()) != nil })
			p().signal(t, syscall.SIGTERM)
			select {
			case <-p().gone:
			case <-time.After(2 * time.Second):
				t.Error("it lives 2 s after the second signal")
			}
			more.CloseWithError(io.ErrUnexpectedEOF)
			if err := <-done; err == nil {
				t.Error("an upload that was cut is told to be done")
			}
			if _, err := os.Stat(h.path("in/" + who + "-cut.txt")); !os.IsNotExist(err) {
				t.Errorf("half of it is there: %v", err)
			}
			if who == "agent" {
				if _, err := audit.Verify(h.path("agent/audit"), nil); err != nil {
					t.Errorf("the agent's log: %v", err)
				}
			}
			restart()
		})
	}
	h.healthy(t)
}

// TestNames is Z38, and D26 by DNS: what a site's resolver says is no identity, and when it says nothing the agent goes where
// the name led before, or goes on asking. The agent has an /etc/hosts and a resolver of its own.
func TestNames(t *testing.T) {
	if out, err := exec.Command("unshare", "-rm", "mount", "--bind", "/etc/hosts", "/etc/hosts").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no mount namespace: %v %s", err, out)
		}
		t.Skipf("SKIPPED, NOT TESTED: no mount namespace: %v %s", err, out)
	}
	h := newHouse(t, "", "")
	h.agent.kill()
	_, port, _ := net.SplitHostPort(h.middle.addr)
	yaml, err := os.ReadFile(h.path("agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "agent.yaml", strings.Replace(string(yaml), h.middle.addr, "relay.test:"+port, 1))
	says := func(hosts string) { // in place, for the file is mounted
		f, err := os.OpenFile(h.path("hosts"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("127.0.0.1 localhost\n" + hosts); err != nil {
			t.Fatal(err)
		}
	}
	says("127.0.0.1 relay.test\n")
	h.write(t, "resolv.conf", "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n") // nobody is there
	launch := func() {
		h.agent = runCommand(t, h.agentLog, "the agent", exec.Command("unshare", "-rm", "sh", "-c", `mount --bind "$1/hosts" /etc/hosts && mount --bind "$1/resolv.conf" /etc/resolv.conf && exec "$2" run --config "$1/agent.yaml" --data "$1/agent"`, "sh", h.dir, program(t, "fairlead-agent")))
	}
	start := func(t *testing.T) {
		launch()
		h.comesBack(t, 20*time.Second)
	}
	away := func(t *testing.T, hosts string, seen func() bool) {
		start(t) // anew, rather than wait out its growing patience
		says(hosts)
		<-time.After(6 * time.Second) // what was read of the file holds for five seconds
		h.middle.cut()
		testenv.Eventually(t, "the agent asks again", seen)
		select {
		case <-h.agent.gone:
			t.Fatal("the agent gave up")
		default:
		}
		if n := h.tunnels(t, h.id); n != 0 {
			t.Errorf("%d tunnels meanwhile", n)
		}
		says("127.0.0.1 relay.test\n")
		t.Logf("back after %s", h.comesBack(t, 30*time.Second))
		h.healthy(t)
		h.agent.kill()
	}
	logged := func(times int, text string) func() bool {
		before := strings.Count(h.agentLog.String(), text)
		return func() bool { return strings.Count(h.agentLog.String(), text) >= before+times }
	}
	t.Run("Z38 the resolver is gone", func(t *testing.T) {
		start(t)
		says("")
		<-time.After(6 * time.Second) // what was read of the file holds for five seconds
		before := logged(1, "it was reached where it was before")
		h.middle.cut()
		testenv.Eventually(t, "the agent goes where the name led before", before)
		t.Logf("back after %s", h.comesBack(t, 20*time.Second))
		h.healthy(t)
		h.agent.kill()
	})
	t.Run("Z38 the resolver was never there", func(t *testing.T) {
		says("")
		asks := logged(1, "lookup relay.test")
		launch()
		testenv.Eventually(t, "the agent asks", asks)
		if n := h.tunnels(t, h.id); n != 0 {
			t.Errorf("%d tunnels meanwhile", n)
		}
		says("127.0.0.1 relay.test\n")
		t.Logf("back after %s", h.comesBack(t, 30*time.Second))
		h.healthy(t)
		h.agent.kill()
	})
	t.Run("Z38 an address where nobody is", func(t *testing.T) { away(t, "127.0.0.77 relay.test\n", logged(2, "connection refused")) })
	t.Run("D26 Z38 an address where somebody else is", func(t *testing.T) {
		cert, key := certificate(t, publicName("relay.test"), nil, nil)
		i := &impostor{conf: nobodyServer([][]byte{cert.Raw}, key)}
		thief := newMiddle(t, "")
		thief.replace(i.serve)
		thief.listen(t, "127.0.0.9:"+port)
		away(t, "127.0.0.9 relay.test\n", func() bool { return thief.conns.Load() >= 2 })
		if i.done.Load() > 0 || i.said.Load() > 0 {
			t.Errorf("the agent took part in %d handshakes and said %d bytes", i.done.Load(), i.said.Load())
		}
	})
}
