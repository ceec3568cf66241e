package dispatch_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
)

// asks has an agent explain a read of the workspace's connection.
func (g *rig) asks() (protocol.Verdict, string, error) {
	g.t.Helper()
	w, err := g.dir.Snapshot().Workspace("default")
	must(g.t, err)
	c, err := w.Connection("files")
	must(g.t, err)
	return g.Explain(g.t.Context(), c, protocol.Request{ID: "req_1", Operation: protocol.OpRead, Path: "a.txt", Principal: "usr_1", Header: http.Header{}}, nil)
}

// explaining is a rig whose agent knows how to explain, and answers so.
func explaining(t *testing.T, answer http.HandlerFunc) *rig {
	g := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("an agent was asked that cannot explain") })
	w, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	live, err := g.hub.Pick(w.Groups[0].ID, "files")
	must(t, err)
	g.hub.Remove(live)
	g.agent("agt_new", w, answer, protocol.RequireExplain)
	return g
}

// An agent that does not know how to explain would have to be trusted not to act: it is not asked.
func TestAgentThatCannotExplainIsNotAsked(t *testing.T) {
	var asked atomic.Int32
	g := newRig(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	if v, agent, err := g.asks(); protocol.AsError(err).Code != protocol.CodeUnsupported || v.Allow || agent != "agt_default" {
		t.Errorf("%+v %s %v", v, agent, err)
	}
	if asked.Load() != 0 {
		t.Error("it was asked")
	}
}

func TestExplainTakesNoSenselessVerdict(t *testing.T) {
	for what, c := range map[string]struct {
		status int
		body   string
		good   bool
	}{
		"an admission":                   {200, `{"allow":true,"rule":"files.papers.allow","reason":"r","max_bytes":5}`, true},
		"a refusal":                      {200, `{"allow":false,"code":"denied","reason":"r"}`, true},
		"a refusal without a code":       {200, `{"allow":false,"reason":"r"}`, false},
		"an admission with a code":       {200, `{"allow":true,"code":"denied"}`, false},
		"a code that there is not":       {200, `{"allow":false,"code":"made_up"}`, false},
		"no JSON":                        {200, `yes`, false},
		"nothing":                        {200, ``, false},
		"another status":                 {206, `{"allow":true}`, false},
		"one that is longer than it may": {200, `{"allow":true,"reason":"` + strings.Repeat("x", protocol.MaxVerdictBytes) + `"}`, false},
	} {
		g := explaining(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(protocol.HeaderRequire) != protocol.RequireExplain || r.Header.Get(protocol.HeaderPrincipal) != "usr_1" {
				t.Errorf("%s: asked with %v", what, r.Header)
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		v, agent, err := g.asks()
		if (err == nil) != c.good || agent != "agt_new" || err != nil && v != (protocol.Verdict{}) {
			t.Errorf("%s: %+v %s %v", what, v, agent, err)
		}
	}
}

func TestExplainCountsInTheBudgets(t *testing.T) {
	var g *rig
	second := make(chan error, 1)
	g = explaining(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _, err := g.asks() // while the first is under way
		second <- err
		_, _ = io.WriteString(w, `{"allow":true}`)
	})
	g.Limits = budget.Limits{Concurrent: 1}
	g.Sync(g.dir.Snapshot())
	if _, _, err := g.asks(); err != nil {
		t.Fatal(err)
	}
	if err := <-second; protocol.AsError(err).Code != protocol.CodeRateLimited {
		t.Errorf("%v", err)
	}
}
