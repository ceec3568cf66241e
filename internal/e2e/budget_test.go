package e2e_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

func refusedBy(err error) *protocol.Error {
	var e *protocol.Error
	if errors.As(err, &e) {
		return e
	}
	return &protocol.Error{}
}

// overTunnel dials through the caller's tunnel and gives what it reads first.
func overTunnel(t *testing.T, w *testenv.World, connection string) error {
	t.Helper()
	tun, err := w.Client.Tunnel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	c, err := tun.Dial(ctx, connection)
	if err != nil {
		return err
	}
	defer c.Close()
	return echoes(c)
}

// A budget holds for every way in, at the relay and at the agent: API, dial, the caller's tunnel, gateway. Each refusal names who
// and what, and costs neither the tunnel nor what runs.
func TestConcurrencyBudgetHoldsForEveryWayIn(t *testing.T) {
	for _, at := range []struct {
		name, yaml, rule string
		origin           protocol.Origin
	}{{"relay", "", "workspace.budget.concurrent", protocol.OriginRelay}, {"agent", "limits: {concurrent: 1}\n", "limits.concurrent", protocol.OriginAgent}} {
		t.Run(at.name, func(t *testing.T) {
			w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t)) + at.yaml, RelayConfig: gateways})
			w.Connection("echo")
			w.Connection("shop")
			w.Connection("papers")
			address := freeAddress(t, "127.0.0.1")
			if _, err := w.Client.SetGateway(ctx, "echo", client.SetGateway{Address: address, Allow: loopback}); err != nil {
				t.Fatal(err)
			}
			if at.yaml == "" {
				b, err := w.Client.SetBudget(ctx, "", client.Limits{Concurrent: 1})
				if err != nil || b.InForce.Concurrent != 1 {
					t.Fatal(b, err)
				}
			}
			held := openDial(t, w.Client, "echo")
			defer held.Close()
			_, dialErr := w.Client.Dial(ctx, "echo")
			_, queryErr := w.Client.Query(ctx, "shop", client.QueryRequest{Statement: protocol.Statement{SQL: "select 1"}})
			_, fileErr := w.Client.Get(ctx, "papers", "a.csv", client.GetOptions{})
			for name, err := range map[string]error{"dial": dialErr, "tunnel": overTunnel(t, w, "echo"), "query": queryErr, "files": fileErr} {
				if e := refusedBy(err); e.Code != protocol.CodeRateLimited || e.Origin != at.origin || e.Rule != at.rule || e.RetryAfterMs <= 0 {
					t.Errorf("%s: %+v", name, err)
				}
			}
			if _, err := through(t, address, ""); err == nil {
				t.Error("a gateway let a conn through beyond the budget")
			}
			if err := echoes(held); err != nil {
				t.Errorf("what ran was cut: %v", err)
			}
			testenv.Eventually(t, "refusals of each way on record", func() bool {
				n := 0
				for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
					if err != nil {
						t.Fatal(err)
					}
					if e.Rule == at.rule && strings.Contains(string(e.Raw), string(protocol.CodeRateLimited)) {
						n++
					}
				}
				return n >= 5
			})
			held.Close()
			testenv.Eventually(t, "room again", func() bool {
				c, err := w.Client.Dial(ctx, "echo")
				if err != nil {
					return false
				}
				defer c.Close()
				return echoes(c) == nil
			})
			agents, err := w.Client.Agents(ctx)
			if err != nil || len(agents) != 1 || agents[0].Tunnels != 1 {
				t.Errorf("%+v %v", agents, err)
			}
		})
	}
}

// Egress is shaped on every way, at the relay and at the agent: all bytes come, at the pace of the budget, and streams share it.
func TestEgressBudgetShapesEveryWay(t *testing.T) {
	const size = 2 << 20
	for _, at := range []string{"relay", "agent"} {
		t.Run(at, func(t *testing.T) {
			yaml := echoYAML(echoServer(t))
			if at == "agent" {
				yaml += "limits: {egress: 2MiB}\n"
			}
			w := shop(t, testenv.Options{YAML: yaml, RelayConfig: gateways})
			w.Connection("echo")
			w.Connection("papers")
			address := freeAddress(t, "127.0.0.1")
			if _, err := w.Client.SetGateway(ctx, "echo", client.SetGateway{Address: address, Allow: loopback}); err != nil {
				t.Fatal(err)
			}
			if at == "relay" {
				if _, err := w.Client.SetBudget(ctx, "", client.Limits{Egress: size}); err != nil {
					t.Fatal(err)
				}
			}
			content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
			if err := os.WriteFile(filepath.Join(w.Dir, "papers", "big.csv"), content, 0o644); err != nil {
				t.Fatal(err)
			}
			echo := func(c client.Conn) ([]byte, error) {
				defer c.Close()
				go func() { _, _ = c.Write(content); _ = c.CloseWrite() }()
				return io.ReadAll(c)
			}
			ways := map[string]func() ([]byte, error){
				"file": func() ([]byte, error) {
					f, err := w.Client.Get(ctx, "papers", "big.csv", client.GetOptions{})
					if err != nil {
						return nil, err
					}
					defer f.Close()
					return io.ReadAll(f)
				},
				"dial": func() ([]byte, error) {
					c, err := w.Client.Dial(ctx, "echo")
					if err != nil {
						return nil, err
					}
					return echo(c)
				},
				"gateway": func() ([]byte, error) {
					c, err := through(t, address, "")
					if err != nil {
						return nil, err
					}
					return echo(c.(client.Conn))
				},
			}
			from := time.Now()
			var wg sync.WaitGroup
			for name, way := range ways {
				wg.Go(func() {
					got, err := way()
					if err != nil || !bytes.Equal(got, content) {
						t.Errorf("%s: %d of %d bytes: %v", name, len(got), size, err)
					}
					// Three share it evenly, so none is done long before its third.
					if took := time.Since(from); took < 1500*time.Millisecond {
						t.Errorf("%s was done after %s", name, took)
					}
				})
			}
			wg.Wait()
			if took := time.Since(from); took < 2500*time.Millisecond || took > 10*time.Second {
				t.Errorf("6 MiB at 2 MiB/s took %s", took)
			}
		})
	}
}

// New limits in agent.yaml are taken up while a dial runs, which goes on.
func TestReloadOfLimitsCutsNothing(t *testing.T) {
	yaml := echoYAML(echoServer(t))
	w := shop(t, testenv.Options{YAML: yaml})
	w.Connection("echo")
	held := openDial(t, w.Client, "echo")
	defer held.Close()
	w.WriteYAML(strings.Replace(yaml, "tcp:\n  echo: {", "tcp:\n  echo: {limits: {concurrent: 1}, ", 1))
	testenv.Eventually(t, "the new limit refuses", func() bool {
		c, err := w.Client.Dial(ctx, "echo")
		if err == nil {
			c.Close()
			return false
		}
		return refusedBy(err).Rule == "tcp.echo.limits.concurrent"
	})
	if err := echoes(held); err != nil {
		t.Errorf("the reload cut what ran: %v", err)
	}
}
