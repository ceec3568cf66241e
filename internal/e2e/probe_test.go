//go:build linux

package e2e_test

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/agent/uplink"
	"github.com/fairleadhq/fairlead/internal/testenv"
)

// The admin asks which ways to the relay pass: all with QUIC on, then without UDP, through a proxy that refuses, and not at all.
func TestProbeTellsWhichWaysPass(t *testing.T) {
	i := install(t, "")
	agent := program(t, "fairlead-agent")
	probe := func(more ...string) (output, map[string]uplink.Finding) {
		t.Helper()
		args := append([]string{"probe", "--config", i.path("agent.yaml"), "--data", i.path("agent"), "--timeout", "3s"}, more...)
		o := runProgram(t, nil, "", agent, append(args, "--output", "json")...)
		var all []uplink.Finding
		if err := json.NewDecoder(strings.NewReader(o.Out)).Decode(&all); err != nil {
			t.Fatalf("%v: %s", err, o)
		}
		byWay := map[string]uplink.Finding{}
		for _, f := range all {
			byWay[f.Transport] = f
		}
		return o, byWay
	}

	// The relay's QUIC is off, so UDP is not answered; that is no harm for an agent that may take TCP.
	o, ways := probe()
	if tcp, ws, quic := ways["tcp"], ways["websocket"], ways["quic"]; o.Exit != 0 || tcp.Result != uplink.ProbePasses || tcp.RoundTrip <= 0 ||
		tcp.Connected <= 0 || !tcp.Used || ws.Result != uplink.ProbePasses || quic.Result != uplink.ProbeFails || !strings.Contains(quic.Reason, "UDP") {
		t.Errorf("%+v\n%s", ways, o)
	}
	// Nothing was taken for an agent that serves.
	if agents, err := i.client.Agents(ctx); err != nil || len(agents) != 1 || agents[0].Tunnels != 0 {
		t.Errorf("%+v, %v", agents, err)
	}
	// For one that may take QUIC alone it is.
	i.writeYAML("relay: {transport: quic}\n")
	if o, ways := probe(); o.Exit != 69 || ways["tcp"].Used || !strings.Contains(o.Err, "relay.transport: quic") {
		t.Errorf("%+v\n%s", ways, o)
	}
	i.relay.kill()
	i.appendTo("relay/relay.yaml", "agents: {quic: true}\n")
	i.startRelay()
	if o, ways := probe(); o.Exit != 0 || ways["quic"].Result != uplink.ProbePasses || ways["quic"].RoundTrip <= 0 {
		t.Errorf("%+v\n%s", ways, o)
	}
	// For people, beside the agent that runs.
	i.writeYAML("")
	i.startAgent()
	if o := runProgram(t, nil, "", agent, "probe", "--config", i.path("agent.yaml"), "--data", i.path("agent")); o.Exit != 0 ||
		strings.Count(o.Out, "passes ") != 3 || !strings.Contains(o.Out, "round trip") {
		t.Errorf("%s", o)
	}

	// A proxy that lets nobody in is named.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = c.Write([]byte("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"))
			}
			_ = c.Close()
		}
	}()
	i.writeYAML("relay: {proxy: {url: 'http://" + ln.Addr().String() + "'}}\n")
	o, ways = probe()
	if tcp := ways["tcp"]; o.Exit != 69 || tcp.Result != uplink.ProbeFails || !tcp.Proxy || !strings.Contains(tcp.Reason, "403") ||
		!strings.Contains(tcp.Reason, ln.Addr().String()) || ways["quic"].Result != uplink.ProbeSkipped {
		t.Errorf("%+v\n%s", ways, o)
	}
	// Nothing listens there.
	i.writeYAML("relay: {addresses: ['" + testenv.LowPort(t, 12000) + "']}\n")
	if o, ways := probe(); o.Exit != 69 || !strings.Contains(ways["tcp"].Reason, "refused") {
		t.Errorf("%+v\n%s", ways, o)
	}
}
