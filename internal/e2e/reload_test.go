package e2e_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

func TestReload(t *testing.T) {
	echo := echoServer(t)
	w := shop(t, testenv.Options{YAML: echoYAML(echo)})
	w.Connection("shop")
	w.Connection("echo")
	t.Run("Z62 a bad file never replaces a good one", func(t *testing.T) {
		digest := w.Agent.ConfigDigest()
		w.WriteYAML("database:\n  shop: {adaptor: sqlite}\n")
		testenv.Eventually(t, "the relay is told", func() bool {
			a, err := w.Client.Agents(ctx)
			return err == nil && strings.Contains(a[0].ReloadError, "adapter")
		})
		if w.Agent.ConfigDigest() != digest || count(t, w.Client) != nil {
			t.Fatal("the good configuration is gone")
		}
	})
	t.Run("Z63 narrowing cuts open streams", func(t *testing.T) {
		done := cut(openDial(t, w.Client, "echo"))
		w.WriteYAML(shopYAML) // without the tcp profile
		expectCut(t, done, "narrowed agent.yaml")
		if _, err := w.Client.Dial(ctx, "echo"); err == nil {
			t.Fatal("a removed profile is dialled")
		} else if c, o := code(err); c != protocol.CodeDenied || o != protocol.OriginAgent {
			t.Fatalf("got %v", err)
		}
		a, err := w.Client.Agents(ctx)
		if err != nil || a[0].ReloadError != "" || a[0].ConfigDigest != w.Agent.ConfigDigest() {
			t.Fatalf("the relay was not told of the good file: %+v, %v", a, err)
		}
	})
	t.Run("widening by the site takes effect without a restart", func(t *testing.T) {
		w.WriteYAML(echoYAML(echo))
		testenv.Eventually(t, "the profile is back", func() bool {
			c, err := w.Client.Dial(ctx, "echo")
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	})
}

func TestNewDenyEntryCutsWhatItNames(t *testing.T) {
	echo := echoServer(t)
	_, port, _ := net.SplitHostPort(echo.String())
	byName := shopYAML + fmt.Sprintf("allow:\n  - {host: localhost, ports: [%s]}\n", port)
	w := shop(t, testenv.Options{YAML: byName})
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Client.CreateConnection(ctx, client.NewConnection{Name: "echo", Group: "default", Target: &client.Target{Host: "localhost", Port: uint16(n)}}); err != nil {
		t.Fatal(err)
	}
	w.Connection("till")
	dialled := cut(openDial(t, w.Client, "echo"))
	rows, err := w.Client.Query(ctx, "till", client.QueryRequest{Statement: protocol.Statement{SQL: "with recursive n(i) as (select 1 union all select i+1 from n) select i as email from n"}})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	answered := make(chan error, 1)
	go func() {
		for rows.Next() {
		}
		answered <- rows.Err()
	}()
	// The name is allowed as before; the address behind it is denied now, and a column is masked that was not.
	w.WriteYAML(byName + "deny:\n  - {cidr: 127.0.0.0/8}\n  - {cidr: \"::1/128\"}\nmask: {columns: [email]}\n")
	expectCut(t, dialled, "Z63 an address that is denied now")
	select {
	case err := <-answered:
		if err == nil {
			t.Fatal("an answer without the new mask went on to its end")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("an answer without the new mask goes on")
	}
}
