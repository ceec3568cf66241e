//go:build linux

package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// TestNetworkFaults are the rows of the fault catalog about network, sleep, dead peers and stops, on the real programs with
// a middle between them. They mostly wait, so they run side by side.
func TestNetworkFaults(t *testing.T) {
	echoes := listen(t, "127.0.0.1", echo)
	// rows share nothing, for each does to the line what it likes.
	row := func(name string, f func(t *testing.T, h *house)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, "", fmt.Sprintf("tcp:\n  echo: {host: 127.0.0.1, port: %d}\n", echoes.port))
			if _, err := h.client.CreateConnection(t.Context(), client.NewConnection{Name: "echo", Group: "default", Profile: "echo"}); err != nil {
				t.Fatal(err)
			}
			f(t, h)
			h.healthy(t)
			h.provable(t)
		})
	}
	row("Z5 the relay is frozen", frozenRelay)
	row("Z6 the agent is frozen", frozenAgent)
	row("Z13 the agent is there before the network", lateNetwork)
	row("Z29 dead in both directions", func(t *testing.T, h *house) { deadLine(t, h, true, true) })
	row("Z29 dead to the relay", func(t *testing.T, h *house) { deadLine(t, h, true, false) })
	row("Z29 dead to the agent", func(t *testing.T, h *house) { deadLine(t, h, false, true) })
	row("Z30 an idle tunnel is not silent", idleTunnel)
	row("Z32 a partition", partition)
	row("Z35 a narrow line", narrowLine)
	row("Z39 resets without end", resets)
	row("Z41 an uplink that flaps", flapping)
	row("Z46 streams without end", func(t *testing.T, h *house) { streamStorm(t, h) })
}

// provable asserts that what both halves recorded still proves itself.
func (h *house) provable(t *testing.T) {
	t.Helper()
	h.agent.signal(t, syscall.SIGTERM)
	select {
	case <-h.agent.gone:
	case <-time.After(40 * time.Second):
		t.Fatal("the agent does not stop")
	}
	if _, err := audit.Verify(h.path("agent/audit"), nil); err != nil {
		t.Errorf("the agent's log: %v", err)
	}
}

// dialled opens a dial through relay and agent, and proves that it echoes.
func (h *house) dialled(t *testing.T) client.Conn {
	t.Helper()
	c, err := h.client.Dial(t.Context(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := echoed(c, "ping"); err != nil {
		t.Fatal(err)
	}
	return c
}

func echoed(c io.ReadWriter, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		return fmt.Errorf("%q came back: %w", b, err)
	}
	return nil
}

// end gives what a read of c ended with, and when.
func end(c io.Reader) <-chan error {
	done := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, c); done <- err }()
	return done
}

func frozenRelay(t *testing.T, h *house) {
	// A short freeze costs nothing: nobody is taken for dead.
	c, dials := h.dialled(t), h.middle.conns.Load()
	h.relay.signal(t, syscall.SIGSTOP)
	<-time.After(5 * time.Second)
	h.relay.signal(t, syscall.SIGCONT)
	if err := echoed(c, "after 5 s"); err != nil || h.middle.conns.Load() != dials {
		t.Errorf("5 s ended the tunnel: %v, %d dials", err, h.middle.conns.Load()-dials)
	}
	// A long one is found by the agent, which knocks on; thawed, the relay serves it.
	h.relay.signal(t, syscall.SIGSTOP)
	<-time.After(25 * time.Second)
	if h.middle.conns.Load() == dials {
		t.Error("the agent does not see that the relay is frozen")
	}
	h.relay.signal(t, syscall.SIGCONT)
	t.Logf("Z5: back %s after the thaw", h.comesBack(t, 20*time.Second))
}

func frozenAgent(t *testing.T, h *house) {
	c := h.dialled(t)
	h.agent.signal(t, syscall.SIGSTOP)
	started := time.Now()
	gone := end(c)
	testenv.Eventually(t, "the relay sees it", func() bool { return h.tunnels(t, h.id) == 0 || time.Since(started) > 19*time.Second })
	testenv.Eventually(t, "the relay drops it", func() bool { return h.tunnels(t, h.id) == 0 })
	if took := time.Since(started); took > 25*time.Second {
		t.Errorf("the relay held it for %s", took)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the caller's dial is still open")
	}
	h.agent.signal(t, syscall.SIGCONT)
	if took := h.comesBack(t, 15*time.Second); took > 5*time.Second {
		t.Errorf("it was back after %s", took)
	}
}

func lateNetwork(t *testing.T, h *house) {
	h.agent.kill()
	h.middle.replace(func(c net.Conn) { reset(c) })
	h.startAgent(t)
	<-time.After(5 * time.Second)
	select {
	case <-h.agent.gone:
		t.Fatal("the agent gave up")
	default:
	}
	h.middle.replace(nil)
	h.comesBack(t, 10*time.Second)
}

// deadLine: bytes vanish without a word. Both ends find it, and the caller's dial ends.
func deadLine(t *testing.T, h *house, up, down bool) {
	c, dials := h.dialled(t), h.middle.conns.Load()
	h.middle.up.set(up)
	h.middle.down.set(down)
	started := time.Now()
	gone := end(c)
	var agent, relay time.Duration
	testenv.Eventually(t, "one end sees it", func() bool {
		if agent == 0 && h.middle.conns.Load() > dials {
			agent = time.Since(started)
		}
		if relay == 0 && h.tunnels(t, h.id) == 0 {
			relay = time.Since(started)
		}
		return agent > 0 && relay > 0 || time.Since(started) > 19*time.Second
	})
	testenv.Eventually(t, "both ends see it", func() bool {
		if agent == 0 && h.middle.conns.Load() > dials {
			agent = time.Since(started)
		}
		if relay == 0 && h.tunnels(t, h.id) == 0 {
			relay = time.Since(started)
		}
		return agent > 0 && relay > 0
	})
	t.Logf("Z29: the agent dialled after %s, the relay dropped it after %s", agent.Round(time.Millisecond), relay.Round(time.Millisecond))
	if max(agent, relay) > 25*time.Second {
		t.Errorf("found after %s by the agent, %s by the relay", agent, relay)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the caller's dial is still open")
	}
	h.middle.hold(false)
	h.comesBack(t, 30*time.Second)
}

// idleTunnel: what a NAT forgets after a minute must not be silent for so long, in either direction.
func idleTunnel(t *testing.T, h *house) {
	<-time.After(26 * time.Second)
	if up, down := h.middle.upGap.most(), h.middle.downGap.most(); max(up, down) > 12*time.Second {
		t.Errorf("silent for %s to the relay, %s to the agent", up, down)
	}
	if h.middle.conns.Load() != 1 {
		t.Error("the tunnel was replaced")
	}
}

// partition: thirty seconds of nothing. What was in flight fails with a type, nothing takes effect twice, and the agent's
// records come soon after.
func partition(t *testing.T, h *house) {
	h.middle.hold(true)
	started := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	_, err := h.client.Put(ctx, "in", "during.txt", strings.NewReader("once"), 4, client.PutOptions{})
	var e *protocol.Error
	if !errors.As(err, &e) {
		t.Errorf("in flight: %v", err)
	}
	if took := time.Since(started); took > 28*time.Second {
		t.Errorf("the caller waited %s", took)
	}
	<-time.After(time.Until(started.Add(30 * time.Second)))
	h.middle.hold(false)
	h.comesBack(t, 40*time.Second)
	// Whatever became of it, it is there whole or not at all.
	if b, err := os.ReadFile(h.path("in/during.txt")); err == nil && string(b) != "once" {
		t.Errorf("half of it is there: %q", b)
	}
	testenv.Eventually(t, "the agent's records are all at the relay", func() bool {
		n := 0
		for ev, err := range h.client.AuditEvents(t.Context(), client.AuditQuery{}) {
			if err != nil {
				return false
			}
			if ev.Source == h.id && ev.Kind == "operation.outcome" {
				n++
			}
		}
		return n >= 2
	})
}

// narrowLine: 64 kbit/s, with more to carry than it can. The ping stands behind the transfer for longer than a ping may, and
// nobody is taken for dead for it; short operations have their turn, late.
func narrowLine(t *testing.T, h *house) {
	if err := os.WriteFile(h.path("in/big.bin"), make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	h.middle.rate.Store(8000)
	f, err := h.client.Get(t.Context(), "in", "big.bin", client.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	read := end(f)
	var slowest time.Duration
	for stop := time.Now().Add(40 * time.Second); time.Now().Before(stop); {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		asked := time.Now()
		if err := h.ask(ctx); err != nil {
			t.Errorf("a short operation beside: %v", err)
		}
		cancel()
		slowest = max(slowest, time.Since(asked))
	}
	t.Logf("Z35: beside a transfer on the tunnel itself a short operation took %s", slowest)
	if strings.Contains(h.agentLog.String(), "no tunnel to the relay") || strings.Contains(h.log.String(), "tunnel ended") {
		t.Error("somebody was taken for dead")
	}
	select {
	case err := <-read:
		t.Errorf("the transfer ended: %v", err)
	default:
	}
	h.middle.rate.Store(0)
	f.Close()
	testenv.Eventually(t, "the line is free", func() bool {
		started := time.Now()
		return h.ask(t.Context()) == nil && time.Since(started) < time.Second
	})
}

// resets: a load balancer that kills what it carries, again and again, is answered with patience, not with a storm.
func resets(t *testing.T, h *house) {
	before := h.middle.conns.Load()
	stop := time.Now().Add(15 * time.Second)
	h.middle.replace(func(c net.Conn) { reset(c) })
	h.middle.cut()
	<-time.After(time.Until(stop))
	if n := h.middle.conns.Load() - before; n < 3 || n > 60 {
		t.Errorf("%d dials in 15 s", n)
	}
	h.middle.replace(nil)
	h.comesBack(t, 30*time.Second)
}

// flapping: the line goes away each three seconds. The relay keeps no more than one tunnel, and nothing of the others.
func flapping(t *testing.T, h *house) {
	before := h.relay.sockets(t)
	for range 8 {
		<-time.After(3 * time.Second)
		h.middle.cut()
		if n := h.tunnels(t, h.id); n > 1 {
			t.Errorf("%d tunnels at a time", n)
		}
	}
	// Each loss of a tunnel that did not live for 30 s doubles the pause before the next try, up to a minute.
	h.comesBack(t, 75*time.Second)
	testenv.Eventually(t, "one tunnel stays", func() bool { return h.tunnels(t, h.id) == 1 })
	if n := h.relay.sockets(t); n > before+5 {
		t.Errorf("the relay has %d sockets, %d before", n, before)
	}
}

// streamStorm: one agent that opens as many streams as it can is slowed down, and another's operations do not wait.
func streamStorm(t *testing.T, h *house) {
	me := h.enrol(t, "storm")
	tn, err := h.dial(t, me)
	if err != nil {
		t.Fatal(err)
	}
	say(t, tn, post(protocol.PathHello, plainHello))
	var taken atomic.Int64 // streams that the relay answered
	p99 := h.meanwhile(t, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		stop, _ := ctx.Deadline()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				for b := make([]byte, 1); ; {
					s, err := tn.Open(ctx)
					if err != nil {
						return
					}
					_ = s.SetDeadline(stop)
					_, _ = io.WriteString(s, post("/v1/nothing", "{}"))
					if n, _ := s.Read(b); n > 0 {
						taken.Add(1)
					}
					s.Close()
				}
			})
		}
		wg.Wait()
	})
	t.Logf("Z46: %d streams in 5 s, honest operations in %s", taken.Load(), p99)
	if n := taken.Load(); n > 10_000 {
		t.Errorf("%d streams were taken in 5 s", n)
	}
	if p99 > time.Second {
		t.Errorf("honest operations took %s", p99)
	}
}
