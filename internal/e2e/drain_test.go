package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// load asks all kinds of things until stop is called, which gives how many there were and what went wrong.
func load(t *testing.T, w *testenv.World) (stop func() (int64, []string)) {
	t.Helper()
	for _, name := range []string{"shop", "papers", "echo"} {
		w.Connection(name)
	}
	lctx, cancel := context.WithCancel(ctx)
	var asked atomic.Int64
	var mu sync.Mutex // guards faults
	var faults []string
	var wg sync.WaitGroup
	content := bytes.Repeat([]byte("x"), 20_000)
	worker := func(name string, do func(n int) error) {
		wg.Go(func() {
			for n := 0; lctx.Err() == nil; n++ {
				asked.Add(1)
				if err := do(n); err != nil {
					mu.Lock()
					faults = append(faults, fmt.Sprintf("%s: %v", name, err))
					mu.Unlock()
				}
			}
		})
	}
	for i := range 2 {
		worker("query", func(int) error { return count(t, w.Client) })
		worker("upload", func(n int) error {
			_, err := w.Client.Put(ctx, "papers", fmt.Sprintf("f%d-%d.txt", i, n%10), bytes.NewReader(content), int64(len(content)), client.PutOptions{})
			return err
		})
		worker("dial", func(int) error {
			c, err := w.Client.Dial(ctx, "echo")
			if err != nil {
				return err
			}
			defer c.Close()
			return echoes(c)
		})
		worker("list", func(int) error {
			_, err := w.Client.Stat(ctx, "papers", "none.txt", "")
			if c, _ := code(err); c == protocol.CodeNotFound {
				return nil
			}
			return err
		})
	}
	return func() (int64, []string) {
		cancel()
		wg.Wait()
		return asked.Load(), faults
	}
}

const drainYAML = `relay: {tunnels: 2}
database:
  shop: {adapter: sqlite, path: DIR/shop.db, allow: {mode: read_only}}
files:
  papers: {base: DIR/papers, allow: [list, stat, read, write]}
`

func drainWorld(t *testing.T, life time.Duration) *testenv.World {
	t.Helper()
	_, port, _ := strings.Cut(echoServer(t).String(), ":")
	return shop(t, testenv.Options{YAML: drainYAML + "tcp:\n  echo: {host: 127.0.0.1, port: " + port + "}\n", Drain: 10 * time.Second, CertificateLifetime: life})
}

// P20: agents of a group stop one after the other under load, and no request is lost.
func TestStoppingAgentsLoseNoRequest(t *testing.T) {
	w := drainWorld(t, 0)
	stopSecond := w.Another("second")
	finish := load(t, w)
	for i := range 3 {
		stopThird := w.Another(fmt.Sprint("agent-", i))
		stopSecond()
		stopSecond = stopThird
	}
	n, faults := finish()
	for i, f := range faults {
		if i < 10 {
			t.Error(f)
		}
	}
	if n < 100 {
		t.Errorf("only %d requests", n)
	}
	t.Logf("%d requests, %d lost", n, len(faults))
	agents, err := w.Client.Agents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range agents {
		if a.State == client.AgentActive && a.Tunnels != 2 {
			t.Errorf("agent %s has %d tunnels", a.Name, a.Tunnels)
		}
	}
}

// P20: each renewal of a certificate changes every tunnel under load, and no request is lost.
func TestRenewalsLoseNoRequest(t *testing.T) {
	w := drainWorld(t, 9*time.Second)
	agents, err := w.Client.Agents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	last := *agents[0].CertificateNotAfter
	finish := load(t, w)
	for range 2 {
		testenv.Eventually(t, "the next certificate is in use alone", func() bool {
			a, err := w.Client.Agent(ctx, agents[0].ID)
			if err != nil || a.CertificateNotAfter == nil || !a.CertificateNotAfter.After(last) || a.Tunnels != 2 {
				return false
			}
			last = *a.CertificateNotAfter
			return true
		})
	}
	n, faults := finish()
	for i, f := range faults {
		if i < 10 {
			t.Error(f)
		}
	}
	t.Logf("%d requests, %d lost", n, len(faults))
}

// P20: a relay that stops answers what it has let in: nobody hears that no agent is there, or that the outcome is not known.
func TestStoppingRelayLosesNothingThatItLetIn(t *testing.T) {
	w := drainWorld(t, 0)
	finish := load(t, w)
	held := openDial(t, w.Client, "echo")
	// A query of which the relay has read no more than the head.
	body, rest := io.Pipe()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+w.Address+client.BasePath+"/workspaces/default/connections/shop/query", body)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+w.Token.ExposeString())
	q.Header.Set("Content-Type", "application/json")
	answer := make(chan error, 1)
	go func() {
		resp, err := w.HTTP().Do(q)
		if err == nil {
			defer resp.Body.Close()
			if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 {
				err = fmt.Errorf("%d %s", resp.StatusCode, b)
			}
		}
		answer <- err
	}()
	if _, err := io.WriteString(rest, `{"sql":`); err != nil {
		t.Fatal(err)
	}
	pause := time.NewTimer(300 * time.Millisecond)
	<-pause.C
	stopped := make(chan struct{})
	go func() { defer close(stopped); w.StopRelay() }()
	testenv.Eventually(t, "the relay takes nothing new", func() bool {
		c, err := net.Dial("tcp", w.Address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if _, err := io.WriteString(rest, `"select 1"}`); err != nil {
		t.Fatal(err)
	}
	rest.Close()
	if err := <-answer; err != nil {
		t.Errorf("a request that was let in before the stop: %v", err)
	}
	// A dial that runs may finish.
	for range 10 {
		if err := echoes(held); err != nil {
			t.Errorf("a running dial was cut: %v", err)
			break
		}
	}
	_ = held.CloseWrite()
	_, _ = io.Copy(io.Discard, held)
	held.Close()
	<-stopped
	n, faults := finish()
	for _, f := range faults {
		if strings.Contains(f, "no agent") || strings.Contains(f, "tunnel") {
			t.Error(f)
		}
	}
	// A request may come too late to be read at all; what the relay began is done, and stands so in its log.
	w.RestartRelay()
	began := 0
	for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{Oldest: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(e.Source, "rel_") || e.Kind != "operation.outcome" {
			continue
		}
		if began++; strings.Contains(string(e.Raw), `"code":"interrupted"`) || strings.Contains(string(e.Raw), `"code":"unavailable"`) {
			t.Errorf("lost: %s", e.Raw)
		}
	}
	t.Logf("%d requests, of which the relay began %d", n, began)
}
