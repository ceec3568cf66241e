package agent

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
)

const explainYAML = folderYAML + "tcp:\n  erp: {host: 127.0.0.1, port: 9}\n"

// askVerdict asks an agent to explain.
func askVerdict(t *testing.T, h http.Handler, r protocol.Request, body io.Reader) (v protocol.Verdict, status int) {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	r.Require = []string{protocol.RequireExplain}
	req, err := r.HTTP(t.Context(), body)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Host, req.Host = strings.TrimPrefix(srv.URL, "http://"), ""
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > protocol.MaxVerdictBytes {
		t.Errorf("a verdict of %d bytes", len(b))
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(b, &v); err != nil || resp.Header.Get(protocol.HeaderOrigin) != "" {
			t.Fatalf("%s: %v", b, err)
		}
	}
	if strings.Contains(string(b), `"line"`) {
		t.Errorf("the line left the site: %s", b)
	}
	return v, resp.StatusCode
}

func TestExplainTellsTheDecisionAndTouchesNothing(t *testing.T) {
	rec, l := recorder(t)
	p := &probe{calls: make(chan *connector.Call, 9)}
	h := tripsOn(t, rec, probeSite(t, explainYAML, p))

	v, status := askVerdict(t, h, read("a.txt"), nil)
	if status != 200 || !v.Allow || v.Rule != "files.papers.allow" || v.Code != "" {
		t.Errorf("%d %+v", status, v)
	}
	del := read("a.txt")
	del.Operation = protocol.OpDelete
	if v, status = askVerdict(t, h, del, nil); status != 200 || v.Allow || v.Rule != "files.papers.allow" || v.Code != protocol.CodeDenied || v.Hint == "" {
		t.Errorf("%d %+v", status, v)
	}
	// A dial is not begun: nothing is upgraded.
	dial := protocol.Request{ID: "req_1", Kind: protocol.KindTCP, Profile: "erp", Operation: protocol.OpDial}
	if v, status = askVerdict(t, h, dial, nil); status != 200 || !v.Allow || v.Rule != "tcp.erp" {
		t.Errorf("%d %+v", status, v)
	}
	if v, status = askVerdict(t, h, protocol.Request{ID: "req_1", Kind: protocol.KindTCP, Profile: protocol.NoProfile, Operation: protocol.OpDial, Host: "10.0.0.1", Port: 22}, nil); status != 200 || v.Allow {
		t.Errorf("%d %+v", status, v)
	}
	// A profile that is not there looks as one that does not allow.
	gone := del
	gone.Profile = "papern"
	other, _ := askVerdict(t, h, gone, nil)
	same, _ := askVerdict(t, h, del, nil)
	for _, text := range []*string{&other.Rule, &other.Reason, &other.Hint} {
		*text = strings.ReplaceAll(*text, "papern", "papers")
	}
	if other != same {
		t.Errorf("told apart:\n%+v\n%+v", other, same)
	}
	if len(p.calls) != 0 {
		t.Fatal("the target was touched")
	}
	want := string(audit.KindExplained)
	if got := kinds(t, l); len(got) != 6 || got[0] != want || got[1] != want+" denied" || got[2] != want {
		t.Errorf("recorded: %v", got)
	}
}

// Without a record nothing is told, and what is malformed is refused as it is when it is meant.
func TestExplainIsRecordedOrRefused(t *testing.T) {
	rec, l := recorder(t)
	h := tripsOn(t, rec, probeSite(t, explainYAML, &probe{calls: make(chan *connector.Call, 9)}))
	for _, r := range []protocol.Request{
		{Kind: protocol.KindDatabase, Profile: "sales", Operation: protocol.OpQuery},
		{Kind: protocol.KindTCP, Profile: protocol.NoProfile, Operation: protocol.OpDial},
	} {
		if _, status := askVerdict(t, h, r, strings.NewReader(`{"sql":"select 1","more":1}`)); status != 400 {
			t.Errorf("%s: %d", r.Operation, status)
		}
	}
	long := protocol.Request{Kind: protocol.KindDatabase, Profile: "sales", Operation: protocol.OpQuery}
	if v, status := askVerdict(t, h, long, strings.NewReader(`{"sql":"select `+strings.Repeat("\\u0001", 200_000)+`"}`)); status != 200 || v.Allow {
		t.Errorf("%d %+v", status, v)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, status := askVerdict(t, h, read("a.txt"), nil); status != protocol.CodeAuditUnavailable.Status() {
		t.Errorf("told without a record: %d", status)
	}
}

// A relay that asks over and over is answered no more for a while, and takes no place from the records of refusals.
func TestExplainHasABoundOfItsOwn(t *testing.T) {
	var a asked
	at := time.Now()
	for i := range askedBurst {
		if wait := a.admit(at); wait != 0 {
			t.Fatalf("question %d waits %v", i, wait)
		}
	}
	if wait := a.admit(at); wait <= 0 || wait > time.Second/askedRate {
		t.Errorf("beyond the burst: %v", wait)
	}
	if wait := a.admit(at.Add(time.Second / askedRate)); wait != 0 {
		t.Errorf("after its time: %v", wait)
	}

	rec, l := recorder(t)
	h := tripsOn(t, rec, probeSite(t, explainYAML, &probe{calls: make(chan *connector.Call, 9)}))
	h.asked.spent, h.asked.last = askedBurst, time.Now().Add(time.Hour) // used up, and time stands still
	if v, status := askVerdict(t, h, read("a.txt"), nil); status != protocol.CodeRateLimited.Status() || v.Allow {
		t.Errorf("%d %+v", status, v)
	}
	if got := kinds(t, l); len(got) != 0 || h.refusals.tokens < refusalBurst {
		t.Errorf("recorded: %v, %v left of the refusals' bound", got, h.refusals.tokens)
	}
}
