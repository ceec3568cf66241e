package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/relay/api"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

// An agent writes its records itself. One of a form that nobody else would give it must not keep what stands behind it from its
// readers, for the log holds it for good.
func TestOneSourcesRecordHidesNoOthers(t *testing.T) {
	g := newRig(t)
	log, err := g.logs.Get(g.own.ID)
	must(t, err)
	bodies := []string{`{"kind":1}`, `{"kind":{"a":[1]}}`, `{"kind":null}`, `{}`, `{"kind":"operation.outcome","time":5,"rows":"x","detail":[1],"claimed":{"a":1},"principal":"usr_1"}`, `{"kind":"operation.outcome","time":"never","code":"x"}`}
	for _, body := range bodies {
		line := fmt.Sprintf(`{"seq":1,"prev":"%s","time":"2026-01-02T03:04:05Z","body":%s}`, audit.GenesisHash, body)
		plain, err := json.Marshal(api.AgentRecord{Agent: "agt_1", Line: json.RawMessage(line)})
		must(t, err)
		sealed, err := g.dir.SealEvent(g.own.ID, plain)
		must(t, err)
		record, err := json.Marshal(audit.Sealed{ID: audit.NewID(), Time: time.Now().UTC(), Workspace: g.own.ID, Kind: api.KindAgentRecord, Sealed: sealed})
		must(t, err)
		ticket, err := log.Append(record)
		must(t, err)
		must(t, ticket.Wait(t.Context()))
	}
	admin := g.token[authz.Admin]
	g.get("POST", "/workspaces/default/groups", admin, `{"name":"behind"}`, nil)
	for _, query := range []string{"", "?limit=1", "?kind=resource"} {
		a := g.ask("GET", "/workspaces/default/audit/events"+query, admin, "")
		behind := "POST /workspaces/default/groups"
		if query == "?limit=1" {
			behind = "GET /workspaces/default/audit/events" // the reading before
		}
		if a.status != 200 || !strings.Contains(a.body, behind) {
			t.Errorf("%q: %d %s", query, a.status, a.body)
		}
		if want := map[string]int{"": len(bodies)}[query]; strings.Count(a.body, "\n") < want {
			t.Errorf("%q: records are left out: %s", query, a.body)
		}
		for _, line := range strings.Split(strings.TrimSpace(a.body), "\n") {
			var e client.AuditEvent
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Seq == 0 || string(e.Raw) != line {
				t.Errorf("%s: %v", line, err)
			}
			if strings.Contains(line, `"usr_1"`) && (e.Principal != "usr_1" || e.Kind != "operation.outcome" || !e.Time.IsZero()) {
				t.Errorf("what was of the right type is gone: %+v", e)
			}
		}
	}
}

// The method says which of the two actions a request would be: explain must not answer for the other one.
func TestExplainJudgesTheRequestThatItWouldBe(t *testing.T) {
	g := newRig(t)
	g.nobody("dev")
	g.give(`{"role":"operator","principal":"dev"}`)
	const path = "/workspaces/default/explain?principal=dev&connection=default-shop&action="
	for q, want := range map[string]string{
		"request&method=get&target=/x": "connection.request_get", "request_get&method=DELETE&target=/x": "connection.request", "request&method=POST&target=/x": "connection.request",
		"request_get": "connection.request_get", "request": "connection.request",
	} {
		var e client.Explanation
		if g.get("GET", path+q, g.token[authz.Admin], "", &e); e.Action != want {
			t.Errorf("%s: %s", q, e.Action)
		}
	}
	for _, q := range []string{"request&method=GET&target=/", "read&path=", "move&path=a&to="} {
		if a := g.ask("GET", path+q+strings.Repeat("x", 16<<10+1), g.token[authz.Admin], ""); a.status != 400 || !strings.Contains(a.body, "too long") {
			t.Errorf("%.30s: %d %s", q, a.status, a.body)
		}
	}
}
