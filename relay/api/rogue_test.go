package api_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
)

// An agent that answers with what is no answer gets a plain failure out of it, and each intent has its outcome.
func TestAnswersThatMakeNoSenseAreRefused(t *testing.T) {
	g := newRig(t)
	grp, err := g.own.Group("site")
	must(t, err)
	site, relay := tunnel.Memory(mtls.Identity{Installation: "in_x", Role: mtls.RoleAgent, Workspace: g.own.ID, Group: grp.ID, ID: "agt_rogue"},
		mtls.Identity{Installation: "in_x", Role: mtls.RoleRelay, ID: "rel_x"}, tunnel.DefaultConfig())
	defer relay.Close()
	say := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			s, err := site.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(s, <-say)
			}
			s.Close()
		}
	}()
	defer func() { site.Close(); <-done }()
	g.hub.Add(relay, protocol.Hello{Version: 1})
	const conn = "/workspaces/default/connections/default-shop"
	rows := map[string]string{
		"no upgrade was asked": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw",
		"status 999":           "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
		"status 000":           "HTTP/1.1 000 Odd\r\nContent-Length: 0\r\n\r\n",
		"no HTTP":              "SSH-2.0-OpenSSH\r\n\r\n",
		"nothing":              "",
		"headers without end":  "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 200_000) + "\r\n\r\n",
	}
	asked := 0
	for name, raw := range rows {
		for _, req := range [][2]string{{"GET", "/schema"}, {"GET", "/files/a.txt"}, {"HEAD", "/files/a.txt"}, {"GET", "/http/x"}} {
			t.Run(name+" "+req[0]+" "+req[1], func(t *testing.T) {
				say <- raw
				asked++
				a := g.ask(req[0], conn+req[1], g.token[authz.Admin], "")
				if a.status != http.StatusBadGateway || a.problem.Code != protocol.CodeUpstream && a.problem.Code != protocol.CodeInterrupted {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
	}
	// No act without a record, and no record without its end.
	log, err := g.logs.Get(g.own.ID)
	must(t, err)
	count := map[string]int{}
	deadline := time.After(10 * time.Second)
	for count["operation.outcome failed"] < asked {
		clear(count)
		changed := log.Changed()
		recs, err := log.Read(0, 1000)
		must(t, err)
		for _, rec := range recs {
			plain, err := audit.Unseal(rec.Body, g.dir.OpenEvent)
			must(t, err)
			var e struct{ Kind, Status string }
			must(t, json.Unmarshal(plain, &e))
			count[strings.TrimSpace(e.Kind+" "+e.Status)]++
		}
		if count["operation.intent"] > asked || count["operation.intent"] < count["operation.outcome failed"] {
			t.Fatalf("%d requests, in the record: %v", asked, count)
		}
		if count["operation.outcome failed"] == asked {
			break
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%d requests, in the record: %v", asked, count)
		}
	}
}
