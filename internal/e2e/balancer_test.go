package e2e_test

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/client"
)

// balancerAt is the address that balancers here have towards the relay; everybody else has 127.0.0.1.
const balancerAt = "127.0.0.2"

// fromBalancer dials the relay as a balancer's machine does.
func fromBalancer(t *testing.T, relay string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(balancerAt)}, Timeout: 10 * time.Second}
	_, p, _ := net.SplitHostPort(relay)
	c, err := d.Dial("tcp", net.JoinHostPort("127.0.0.1", p))
	if err != nil {
		t.Fatalf("%v (a system with one loopback address alone wants another: macOS: ifconfig lo0 alias %s)", err, balancerAt)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// headerFor is a PROXY v2 header of a balancer that speaks for source.
func headerFor(source string) []byte {
	at := netip.MustParseAddrPort(source)
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), at.Addr().AsSlice()...)
	b = append(b, 10, 0, 0, 5)
	return append(binary.BigEndian.AppendUint16(b, at.Port()), 1, 187)
}

// balancer passes TCP on to the relay, and says for each conn that it comes from source.
func balancer(t *testing.T, relay, source string) string {
	t.Helper()
	var mu sync.Mutex // guards the two below
	var open []net.Conn
	ended := false
	_, p, _ := net.SplitHostPort(relay)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(balancerAt)}, Timeout: 10 * time.Second}
	at := port(t, func(in net.Conn) {
		out, err := d.Dial("tcp", net.JoinHostPort("127.0.0.1", p))
		if err != nil {
			_ = in.Close()
			return
		}
		mu.Lock()
		if open = append(open, in, out); ended {
			_, _ = in.Close(), out.Close()
		}
		mu.Unlock()
		_, _ = out.Write(headerFor(source))
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(in, out)
			_ = in.Close()
		}()
		_, _ = io.Copy(out, in)
		_ = out.Close()
		<-done
	})
	t.Cleanup(func() { // before port's own, which waits for each
		mu.Lock()
		defer mu.Unlock()
		ended = true
		for _, c := range open {
			_ = c.Close()
		}
	})
	return at
}

// Agents and callers behind a balancer that passes TCP on are seen, and judged, by their own addresses.
func TestBalancerNamesAgentsAndCallers(t *testing.T) {
	const caller, agents = "203.0.113.7", "198.51.100.9"
	for setting, transport := range map[string]string{"tcp": "tls", "websocket": "websocket"} {
		t.Run(transport, func(t *testing.T) {
			o := testenv.Options{YAML: echoOnly(t), RelayConfig: func(c *relay.Config) { c.ProxyProtocol = []string{balancerAt} }}
			w := relayOnlyBy(t, o, func(relay string) string {
				_ = fromBalancer(t, relay) // skips where there is no such address
				return fmt.Sprintf("relay: {transport: %s, addresses: [%q]}\n", setting, balancer(t, relay, agents+":41000"))
			})
			w.Connection("echo")
			c, err := client.New(client.Config{Relay: balancer(t, w.Address, caller+":40312"), Token: w.Token, CAFile: w.CAFile})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			allow := func(list string, prefixes ...string) {
				t.Helper()
				if _, err := w.Client.SetAllowlist(ctx, client.SetAllowlist{For: list, Prefixes: prefixes, Confirm: true}); err != nil {
					t.Fatal(err)
				}
			}
			admitted := func(want bool) {
				t.Helper()
				me, err := c.Whoami(ctx)
				if want && (err != nil || me.SourceAddress != caller) {
					t.Fatalf("%+v, %v; want to come from %s", me, err, caller)
				}
				if !want && client.CodeOf(err) != protocol.CodeDenied {
					t.Fatalf("%+v, %v; want a refusal", me, err)
				}
			}
			if got := transports(t, w); got != transport {
				t.Fatalf("transports %q", got)
			}
			agent := func() string {
				all, err := w.Client.Agents(ctx)
				if err != nil || len(all) != 1 {
					t.Fatalf("%+v, %v", all, err)
				}
				if !strings.Contains(strings.Join(all[0].Transports, ","), transport) {
					return ""
				}
				return all[0].SourceAddress
			}
			if got := agent(); got != agents {
				t.Errorf("the agent is seen at %q, and comes from %s", got, agents)
			}

			// E2: the caller's own address counts, and the balancer's does not.
			admitted(false) // the list that init made holds loopback alone
			allow("", "127.0.0.1/32", caller+"/32")
			admitted(true)
			conn := openDial(t, c, "echo")
			allow("", "127.0.0.1/32", balancerAt+"/32")
			expectCut(t, cut(conn), "a caller off the list")
			admitted(false)

			// The same for agents.
			allow("agents", "127.0.0.1/32", balancerAt+"/32")
			testenv.Eventually(t, "an agent off the list is cut", func() bool { return agent() == "" })
			allow("agents", agents+"/32")
			testenv.Eventually(t, "the agent is back", func() bool { return agent() == agents })
		})
	}
}

func TestPROXYHeaderIsReadOfBalancersAlone(t *testing.T) {
	w := testenv.Bare(t, testenv.Options{YAML: "files: {}\n", RelayConfig: func(c *relay.Config) { c.ProxyProtocol = []string{balancerAt} }})
	shake := func(c net.Conn) error {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		return tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake()
	}
	t.Run("E2 a balancer without a header", func(t *testing.T) {
		if err := shake(fromBalancer(t, w.Address)); err == nil {
			t.Error("it got in")
		}
	})
	t.Run("E2 somebody else with a header", func(t *testing.T) {
		_, p, _ := net.SplitHostPort(w.Address)
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", p))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(headerFor("203.0.113.7:1")); err != nil {
			t.Fatal(err)
		}
		if err := shake(c); err == nil {
			t.Error("it got in")
		}
	})
	t.Run("E2 a balancer with one", func(t *testing.T) {
		c := fromBalancer(t, w.Address)
		if _, err := c.Write(headerFor("203.0.113.7:1")); err != nil {
			t.Fatal(err)
		}
		if err := shake(c); err != nil {
			t.Error(err)
		}
	})
	testenv.Eventually(t, "the log says why the balancer is refused", func() bool {
		return strings.Contains(w.Log.String(), "a load balancer's connection is refused")
	})
}
