package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/wan"
)

// labEnv asks for the tests below: the real programs, with an emulated wide-area line between agent and relay. make lab sets
// it; they want root on Linux. They hold what the line must not break, and no speed of this machine.
const labEnv = "FAIRLEAD_TEST_LAB"

// rig is an installation whose agent and target are at the far end of a line.
type rig struct {
	*site
	line  *wan.Line
	cfg   wan.Config
	entry string // a gateway port that leads to the target
}

// lab starts one. more is text that agent.yaml says under relay.
func lab(t *testing.T, cfg wan.Config, more string) *rig {
	t.Helper()
	if os.Getenv(labEnv) == "" {
		t.Skip("SKIPPED, NOT TESTED: make lab runs it, as root on Linux")
	}
	o := Quick()
	o.Bin, o.Self = programs(t), []string{os.Args[0]}
	o.Dir = t.TempDir()
	b := newBench(o)
	t.Cleanup(b.metrics.CloseIdleConnections)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.openLine())
	t.Cleanup(func() {
		if err := b.line.Close(); err != nil {
			t.Error(err)
		}
	})
	target, err := b.startTarget(t.Context())
	must(err)
	t.Cleanup(target.stop)
	s, err := b.newSite(t.Context(), b.dir, 0, false)
	must(err)
	t.Cleanup(s.stop)
	if more != "" {
		text, err := os.ReadFile(s.path("agent.yaml"))
		must(err)
		const as = "relay: {congestion: system}"
		if !bytes.Contains(text, []byte(as)) {
			t.Fatalf("agent.yaml does not say %q", as)
		}
		must(os.WriteFile(s.path("agent.yaml"), bytes.Replace(text, []byte(as), []byte("relay: {congestion: system, "+more+"}"), 1), 0o600))
		must(s.restart(t.Context()))
	}
	r := &rig{site: s, line: b.line, cfg: cfg}
	r.entry, err = s.gateway(t.Context(), "target")
	must(err)
	r.set(t, cfg.Loss)
	return r
}

// set changes the loss of the line.
func (r *rig) set(t *testing.T, loss float64) {
	t.Helper()
	cfg := r.cfg
	cfg.Loss = loss
	if err := r.line.Set(cfg); err != nil {
		t.Fatal(err)
	}
}

// dial opens a conn through the gateway that echoes.
func (r *rig) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := dial(t.Context(), r.entry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte{modeEcho}); err != nil {
		t.Fatal(err)
	}
	return c
}

// trip sends a number and awaits it.
func trip(c net.Conn, n uint64) error {
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint64(nil, n)
	if _, err := c.Write(b); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if got := binary.BigEndian.Uint64(b); got != n {
		return fmt.Errorf("%d came back for %d", got, n)
	}
	return nil
}

// until asks again and again until f gives nil, for as long as limit.
func until(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	if err := every(t.Context(), limit, func(context.Context) error { return f() }); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// lost tells whether the agent has noted, behind an offset of its log, that it has no tunnel.
func (r *rig) lost(from int) error {
	b, err := os.ReadFile(r.agent.log)
	if err == nil && !strings.Contains(string(b[from:]), "no tunnel to the relay") {
		err = errors.New("the agent does not say that it has no tunnel")
	}
	return err
}

func (r *rig) logged(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(r.agent.log)
	if err != nil {
		t.Fatal(err)
	}
	return len(b)
}

// gauge awaits a value of the relay's metrics.
func (r *rig) gauge(t *testing.T, limit time.Duration, name string, good func(float64) bool) {
	t.Helper()
	until(t, limit, name, func() error {
		v, err := r.metric(t.Context(), name)
		if err == nil && !good(v) {
			err = fmt.Errorf("it is %v", v)
		}
		return err
	})
}

func middle(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)/2]
}

// TestLabAFirstAnswerTakesOneRoundTrip counts round trips: on a line of 200 ms a busy machine does not look like one more.
func TestLabAFirstAnswerTakesOneRoundTrip(t *testing.T) {
	const rtt = 200 * time.Millisecond
	r := lab(t, wan.Config{Delay: rtt / 2, Rate: 50e6, Queue: 10_000_000, Seed: 1}, "")
	for name, act := range map[string]func() error{
		"an operation": func() error { _, err := r.client.Stat(t.Context(), "bulk", "", ""); return err },
		"a connection through a gateway, whose caller speaks first": func() error { return once(t.Context(), r.entry) },
	} {
		var took []time.Duration
		for range 7 {
			begin := time.Now()
			if err := act(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			took = append(took, time.Since(begin))
		}
		mid := middle(took)
		if took[0] < rtt {
			t.Errorf("%s was answered within %s, on a line of %s there and back", name, took[0], rtt)
		}
		if mid >= 2*rtt {
			t.Errorf("%s is answered after %s: %.1f round trips, where one is enough", name, mid, mid.Seconds()/rtt.Seconds())
		}
		t.Logf("%s: %s", name, mid)
	}
}

// TestLabATunnelOutlivesLossAndABlackOut: 5 % each way, and then 3 seconds of nothing, cost time and no stream.
func TestLabATunnelOutlivesLossAndABlackOut(t *testing.T) {
	r := lab(t, wan.Config{Delay: 20 * time.Millisecond, Rate: 50e6, Queue: 2_000_000, Seed: 5}, "lanes: 0")
	c, n := r.dial(t), uint64(0)
	from := r.logged(t)
	r.set(t, 0.05)
	for begin := time.Now(); ; n++ {
		if err := trip(c, n); err != nil {
			t.Fatalf("round trip %d at 5 %% loss: %v", n, err)
		}
		counts, err := r.line.Counts()
		if err != nil {
			t.Fatal(err)
		}
		if counts.Up.Lost >= 3 && counts.Down.Lost >= 3 {
			break
		}
		if time.Since(begin) > 2*time.Minute {
			t.Fatalf("the line loses too little: %+v", counts)
		}
	}
	for range 2 {
		r.set(t, 1)
		n++
		back := make(chan error, 1)
		go func() { back <- trip(c, n) }()
		over := time.NewTimer(3 * time.Second)
		select {
		case <-over.C:
		case err := <-back:
			t.Fatalf("a round trip over a dead line: %v", err)
		}
		r.set(t, 0.05)
		if err := <-back; err != nil {
			t.Fatalf("the stream did not outlive 3 s of nothing: %v", err)
		}
	}
	if r.lost(from) == nil {
		t.Error("the agent lost its tunnel")
	}
}

// TestLabADeadLineIsFoundByBothEnds, and the agent comes back when it heals. The tunnel promises 20 s (KeepAlive and
// PingTimeout); the rest is for a busy machine.
func TestLabADeadLineIsFoundByBothEnds(t *testing.T) {
	const promised, busy = 20 * time.Second, 5 * time.Second
	r := lab(t, wan.Config{Delay: 20 * time.Millisecond, Rate: 50e6, Queue: 2_000_000, Seed: 1}, "lanes: 0")
	c := r.dial(t)
	if err := trip(c, 1); err != nil {
		t.Fatal(err)
	}
	from := r.logged(t)
	r.set(t, 1)
	dead := time.Now()
	found := make(chan error, 1)
	go func() {
		found <- every(t.Context(), promised+busy, func(context.Context) error { return r.lost(from) })
	}()
	r.gauge(t, promised+busy, "fairlead_tunnels", func(v float64) bool { return v == 0 })
	t.Logf("the relay has found it after %s", time.Since(dead).Round(time.Millisecond))
	if err := <-found; err != nil {
		t.Errorf("the agent does not find that its line is dead: %v", err)
	}
	t.Logf("both have found it after %s", time.Since(dead).Round(time.Millisecond))
	// Who waits on a stream learns that it was cut, and does not take it for an end.
	if err := c.SetReadDeadline(time.Now().Add(busy)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("a stream over a line that died ends with %v", err)
	}
	if _, err := r.client.Stat(t.Context(), "bulk", "", ""); err == nil {
		t.Error("an operation on an agent that is not there has an answer")
	}
	r.set(t, 0)
	healed := time.Now()
	if err := r.answers(t.Context()); err != nil {
		t.Fatalf("the line has healed, and the agent does not come back: %v", err)
	}
	t.Logf("the agent is back after %s", time.Since(healed).Round(time.Millisecond))
}

// TestLabAStalledReaderCostsOthersNothing: on the mux, where streams share one connection.
func TestLabAStalledReaderCostsOthersNothing(t *testing.T) {
	const rtt = 100 * time.Millisecond
	r := lab(t, wan.Config{Delay: rtt / 2, Rate: 50e6, Queue: 2_000_000, Seed: 1}, "lanes: 0")
	stalled, err := dial(t.Context(), r.entry)
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.Close()
	if err := stalled.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	// The target says that it is there, awaits a byte, and sends without end. Nobody reads it.
	if _, err := stalled.Write([]byte{modeDown}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stalled, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := stalled.Write([]byte{'.'}); err != nil {
		t.Fatal(err)
	}
	before, still := int64(0), 0
	until(t, time.Minute, "the stream does not stall", func() error {
		counts, err := r.line.Counts()
		if err != nil {
			return err
		}
		moved := counts.Down.Bytes - before
		before = counts.Down.Bytes
		if still++; moved > 10_000 || before < 1_000_000 {
			still = 0
		}
		if still < 10 { // half a second of quiet
			return fmt.Errorf("%d bytes have come down, %d of them just now", before, moved)
		}
		return nil
	})
	c := r.dial(t)
	var took []time.Duration
	for n := range uint64(41) {
		begin := time.Now()
		if err := trip(c, n); err != nil {
			t.Fatal(err)
		}
		if n > 0 { // the first one opens the way
			took = append(took, time.Since(begin))
		}
	}
	if mid := middle(took); mid > rtt+rtt/2 {
		t.Errorf("beside a reader that has stalled a round trip takes %s on a line of %s", mid, rtt)
	} else {
		t.Logf("round trips beside it: %s", mid)
	}
	if v, err := r.metric(t.Context(), "fairlead_lanes"); err != nil || v != 0 {
		t.Errorf("there are %v lanes (%v): this was not the mux", v, err)
	}
}

// TestLabAPingBesideBulkStaysQuick, with lanes: 3 round trips for nine of ten. The line's own queue may add 40 ms to 100.
func TestLabAPingBesideBulkStaysQuick(t *testing.T) {
	const rtt, most = 100 * time.Millisecond, 3
	r := lab(t, wan.Config{Delay: rtt / 2, Rate: 20e6, Queue: 800_000, Seed: 1}, "")
	if _, _, err := bulkDown(t.Context(), r.entry, 2, time.Second); err != nil {
		t.Fatal(err)
	}
	r.gauge(t, 30*time.Second, "fairlead_lanes", func(v float64) bool { return v >= 2 })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	type result struct {
		bytes float64
		err   error
	}
	bulk := make(chan result, 1)
	go func() {
		bytes, _, err := bulkDown(ctx, r.entry, 1, time.Hour)
		bulk <- result{bytes, err}
	}()
	counts, err := r.line.Counts()
	if err != nil {
		t.Fatal(err)
	}
	begun := counts.Down.Bytes
	until(t, time.Minute, "the bulk does not run", func() error {
		counts, err := r.line.Counts()
		if err == nil && counts.Down.Bytes < begun+20_000_000 {
			err = fmt.Errorf("%d bytes have come", counts.Down.Bytes-begun)
		}
		return err
	})
	took, err := paced(t.Context(), r.entry, 50*time.Millisecond, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if got := <-bulk; got.bytes < 20_000_000 {
		t.Errorf("the bulk beside it moved %.0f bytes and ended with %v", got.bytes, got.err)
	}
	p50, p90 := quantile(took, 0.5), quantile(took, 0.9)
	if p90 > most*rtt.Seconds() {
		t.Errorf("beside bulk one ping of ten takes more than %.0f ms, on a line of %s", p90*1e3, rtt)
	}
	t.Logf("pings beside bulk: p50 %.0f ms, p90 %.0f ms", p50*1e3, p90*1e3)
}
