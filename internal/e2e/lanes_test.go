package e2e_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

func lanesOf(t *testing.T, w *testenv.World) int {
	t.Helper()
	agents, err := w.Client.Agents(ctx)
	if err != nil || len(agents) == 0 {
		t.Fatalf("%+v, %v", agents, err)
	}
	return agents[0].Lanes
}

// transfer puts and gets a file of 3 MB and holds one against the other.
func transfer(t *testing.T, w *testenv.World, name string) {
	t.Helper()
	if _, err := w.Client.Connection(ctx, "papers"); err != nil {
		w.Connection("papers")
	}
	content := make([]byte, 3<<20)
	_, _ = rand.Read(content)
	if _, err := w.Client.Put(ctx, "papers", name, bytes.NewReader(content), int64(len(content)), client.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	f, err := w.Client.Get(ctx, "papers", name, client.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d of %d bytes, or others: %v", len(got), len(content), err)
	}
}

// An idle agent has no lane; transfers get some, each operation recorded as ever; nothing else changes.
func TestTransfersMoveToLanes(t *testing.T) {
	w := shop(t, testenv.Options{})
	if n := lanesOf(t, w); n != 0 {
		t.Fatalf("an idle agent has %d lanes", n)
	}
	transfer(t, w, "first.txt")
	testenv.Eventually(t, "a lane", func() bool { return lanesOf(t, w) > 0 })
	for range 20 {
		transfer(t, w, "again.txt")
	}
	if n := lanesOf(t, w); n > 8 {
		t.Errorf("%d lanes", n)
	}
	intents := 0
	for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Source == w.Agent.ID() && e.Kind == "operation.outcome" && (e.Operation == "write" || e.Operation == "read") {
			intents++
		}
	}
	if intents == 0 {
		t.Error("the agent recorded nothing of what went by lanes")
	}
}

// What the site refuses is refused on a lane, too, and costs neither lane nor tunnel.
func TestDeniedRequestDoesNotCloseLane(t *testing.T) {
	w := shop(t, testenv.Options{})
	transfer(t, w, "warm.txt")
	testenv.Eventually(t, "a lane", func() bool { return lanesOf(t, w) > 0 })
	for range 50 {
		_, err := w.Client.Get(ctx, "papers", "secret.key", client.GetOptions{})
		if client.CodeOf(err) == "" || client.CodeOf(err) == protocol.CodeInterrupted {
			t.Fatalf("want a refusal, got %v", err)
		}
	}
	if lanesOf(t, w) == 0 {
		t.Error("refusals cost the lane")
	}
	transfer(t, w, "after.txt")
}

// P11 holds for what runs on a lane: a dial on it ends with the agent's, the token's and the connection's right.
func TestRevocationCutsLanes(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	for range 3 { // warm: long enough to be taken for busy ones
		openDial(t, w.Client, "echo")
	}
	testenv.Eventually(t, "a lane", func() bool { return lanesOf(t, w) > 0 })
	conn := openDial(t, w.Client, "echo")
	agents, err := w.Client.Agents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cut := make(chan error, 1)
	go func() { _, err := io.ReadAll(conn); cut <- err }()
	if err := w.Client.DisableAgent(ctx, agents[0].ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-cut:
	case <-time.After(5 * time.Second):
		t.Fatal("the dial lives on")
	}
	testenv.Eventually(t, "no lane", func() bool { return lanesOf(t, w) == 0 })
}

// The site may want no lanes, and so may the operator.
func TestNoLanesWhereTheSiteWantsNone(t *testing.T) {
	w := shop(t, testenv.Options{YAML: strings.Replace(shopYAML, "files:", "relay: {lanes: 0}\nfiles:", 1)})
	for range 5 {
		transfer(t, w, "a.txt")
	}
	if n := lanesOf(t, w); n != 0 {
		t.Errorf("%d lanes", n)
	}
}

// A lane that nobody asked for, or asked for by another's name, gets no stream: see relay/hub. Here: a caller cannot use one.
func TestLanesAreNotForCallers(t *testing.T) {
	w := shop(t, testenv.Options{})
	resp, err := w.HTTP().Post("https://"+w.Address+protocol.PathLanes, "application/json", strings.NewReader(`{"tickets":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d", resp.StatusCode)
	}
}
