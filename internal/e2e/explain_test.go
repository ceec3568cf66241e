package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// One question is answered by both halves: the relay's grants, and the site's own rules, which the agent that runs decides by. Nothing
// is done for it, and the agent's log tells who asked.
func TestExplainAsksTheSite(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t)) + "allow:\n  - {host: 127.0.0.1, ports: [9]}\n"})
	for _, name := range []string{"shop", "till", "papers", "echo"} {
		w.Connection(name)
	}
	if _, err := w.Client.CreateConnection(ctx, client.NewConnection{Name: "erp", Group: "default", Target: &client.Target{Host: "127.0.0.1", Port: 9}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Client.CreateConnection(ctx, client.NewConnection{Name: "wages", Group: "default", Target: &client.Target{Host: "10.9.8.7", Port: 22}}); err != nil {
		t.Fatal(err)
	}
	somebody(t, w, "dev")
	give(t, w, client.NewGrant{Role: "operator", Principal: "dev"})
	ask := func(q client.ExplainQuery) client.Explanation {
		t.Helper()
		q.Principal = "dev"
		e, err := w.Client.Explain(ctx, q)
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		return e
	}
	asked := 0
	for _, c := range []struct {
		q     client.ExplainQuery
		allow bool
		rule  string
	}{
		{client.ExplainQuery{Action: "query", Connection: "shop", SQL: "select * from customers where name = 'Ada'"}, true, "database.shop.allow.mode"},
		{client.ExplainQuery{Action: "query", Connection: "shop", SQL: "delete from customers"}, false, "database.shop.allow.mode"},
		{client.ExplainQuery{Action: "query", Connection: "shop", Statement: "gone"}, false, ""},
		{client.ExplainQuery{Action: "exec", Connection: "shop", SQL: "delete from customers"}, false, "database.shop.allow"},
		{client.ExplainQuery{Action: "transaction", Connection: "till", SQL: "delete from customers"}, true, "database.till.allow.mode"},
		{client.ExplainQuery{Action: "schema", Connection: "shop"}, true, "database.shop.allow.mode"},
		{client.ExplainQuery{Action: "connection.read", Connection: "papers", Path: "a/b.txt"}, true, "files.papers.allow"},
		{client.ExplainQuery{Action: "read", Connection: "papers", Path: "../b.txt"}, false, ""},
		{client.ExplainQuery{Action: "write", Connection: "papers", Path: "b.exe"}, false, "files.papers.match"},
		{client.ExplainQuery{Action: "delete", Connection: "papers", Path: "a.txt"}, false, "files.papers.allow"},
		{client.ExplainQuery{Action: "list", Connection: "papers"}, true, "files.papers.allow"},
		{client.ExplainQuery{Action: "dial", Connection: "echo"}, true, "tcp.echo"},
		{client.ExplainQuery{Action: "dial", Connection: "erp"}, true, "allow[0]"},
		{client.ExplainQuery{Action: "dial", Connection: "wages"}, false, ""},
	} {
		e := ask(c.q)
		asked++
		if e.Agent != client.AgentAnswered || e.Site == nil || !e.Allow {
			t.Errorf("%+v: %+v", c.q, e)
			continue
		}
		s := e.Site
		if s.Allow != c.allow || c.rule != "" && s.Rule != c.rule || s.Reason == "" || !strings.HasPrefix(s.Agent, "agt_") || s.Allow != (s.Code == "") {
			t.Errorf("%+v: %+v", c.q, *s)
		}
		if strings.Contains(s.Statement, "Ada") || c.q.SQL != "" && s.Statement == "" {
			t.Errorf("%+v: the event would be %q", c.q, s.Statement)
		}
	}
	if e := ask(client.ExplainQuery{Action: "query", Connection: "shop", SQL: "select 1"}); e.Site == nil || e.Site.MaxRows != 1000 || e.Site.TimeoutMs != 30_000 {
		t.Errorf("%+v", e.Site)
	}
	asked++

	// too little was said for the site to be asked, or it does not offer it at all
	for _, c := range []struct {
		q     client.ExplainQuery
		agent string
		hint  string
	}{
		{client.ExplainQuery{Action: "query", Connection: "shop"}, client.AgentOffers, "--sql"},
		{client.ExplainQuery{Action: "read", Connection: "papers"}, client.AgentOffers, "--path"},
		{client.ExplainQuery{Action: "delete", Connection: "papers"}, client.AgentOffersNo, ""},
		{client.ExplainQuery{Action: "connections.read", Connection: "papers"}, client.AgentNotAsked, ""},
	} {
		if e := ask(c.q); e.Agent != c.agent || e.Site != nil || !strings.Contains(e.AgentHint, c.hint) {
			t.Errorf("%+v: %+v", c.q, e)
		}
	}
	for _, q := range []client.ExplainQuery{
		{Action: "query", Connection: "shop", Path: "a.txt"}, {Action: "read", Connection: "papers", SQL: "select 1"}, {Action: "dial", Connection: "echo", Target: "/"},
		{Action: "query", Connection: "shop", SQL: "select 1", Statement: "x"}, {Action: "connections.read", Connection: "shop", SQL: "select 1"}, {Action: "agents.read", SQL: "select 1"},
	} {
		q.Principal = "dev"
		if _, err := w.Client.Explain(ctx, q); err == nil {
			t.Errorf("%+v is taken", q)
		} else if c, _ := code(err); c != protocol.CodeInvalid {
			t.Errorf("%+v: %v", q, err)
		}
	}

	// nothing was done
	if _, err := os.Stat(filepath.Join(w.Dir, "papers", "b.exe")); err == nil {
		t.Error("a file was written")
	}
	rows, err := w.Client.Query(ctx, "till", client.QueryRequest{Statement: protocol.Statement{SQL: "select count(*) from customers"}})
	if _, lines, _, failed := collect(t, rows, err); failed != nil || len(lines) != 1 || lines[0] != "2" {
		t.Errorf("%v %v", lines, failed)
	}
	who, err := w.Client.Whoami(ctx)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the agent's records tell of each question", func() bool {
		n := 0
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{Oldest: true, Kind: "operation.explained"}) {
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(e.Source, "rel_") { // the relay's own
				if e.Principal != who.Principal || e.Connection == "" || e.Agent == "" {
					t.Errorf("%s", e.Raw)
				}
				continue
			}
			n++
			var ev struct{ Decision, Reason string }
			if err := json.Unmarshal(e.Raw, &ev); err != nil || ev.Decision == "" || e.Claimed["principal"] != who.Principal || strings.Contains(string(e.Raw), "Ada") {
				t.Errorf("%s", e.Raw)
			}
		}
		return n == asked
	})
}
