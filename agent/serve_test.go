package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
)

// recorder opens an audit log in a folder of the test.
func recorder(t *testing.T) (*audit.Recorder, *audit.Log) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(audit.Config{Dir: filepath.Join(t.TempDir(), "audit"), Source: "agt_test", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &audit.Recorder{Log: l, Masker: &audit.Masker{Key: secret.FromString("k")}, Source: "agt_test", Workspace: "ws_test"}, l
}

// probe is a connector that tells that it was reached.
type probe struct {
	calls chan *connector.Call
	do    func(ctx context.Context, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error)
}

func (p *probe) Do(ctx context.Context, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	p.calls <- c
	if p.do != nil {
		return p.do(ctx, c, w)
	}
	_, err := io.WriteString(w, "ok")
	return protocol.Outcome{}, err
}

func (p *probe) Close() error { return nil }

const folderYAML = "version: 1\nfiles:\n  papers: {base: BASE, allow: [list, read, write]}\n"

// probeSite is a site whose papers profile is the probe.
func probeSite(t *testing.T, yaml string, p connector.Connector) *site {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "papers"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(yaml, "BASE", filepath.Join(dir, "papers"))), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	pol, err := c.Policy()
	if err != nil {
		t.Fatal(err)
	}
	return &site{policy: pol, conns: map[target]connector.Connector{{protocol.KindFiles, "papers"}: p}, refs: 1}
}

func tripsOn(t *testing.T, rec *audit.Recorder, s *site) *trips {
	return newTrips(slog.New(slog.DiscardHandler), rec, func() *site { s.retain(); return s })
}

// ask sends an operation over a real HTTP server.
func ask(t *testing.T, h http.Handler, r protocol.Request, body io.Reader) (*http.Response, *protocol.Error, error) {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	req, err := r.HTTP(t.Context(), body)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Host, req.Host = strings.TrimPrefix(srv.URL, "http://"), ""
	resp, err := srv.Client().Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	var e *protocol.Error
	if resp.Header.Get(protocol.HeaderOrigin) != "" {
		e = &protocol.Error{}
		if err := json.Unmarshal(b, e); err != nil {
			t.Fatal(err)
		}
	}
	return resp, e, err
}

func read(path string) protocol.Request {
	return protocol.Request{ID: "req_1", Kind: protocol.KindFiles, Profile: "papers", Operation: protocol.OpRead, Path: path}
}

// settled waits until n records are durable and tells their kinds.
func settled(t *testing.T, l *audit.Log, n uint64) []string {
	t.Helper()
	for {
		changed := l.Changed()
		if l.Head().Seq >= n {
			return kinds(t, l)
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d records, want %d", l.Head().Seq, n)
		}
	}
}

func kinds(t *testing.T, l *audit.Log) (list []string) {
	t.Helper()
	recs, err := l.Read(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		var e struct{ Kind, Code, Rule string }
		if err := json.Unmarshal(r.Body, &e); err != nil {
			t.Fatal(err)
		}
		list = append(list, strings.TrimSuffix(e.Kind+" "+e.Code, " "))
	}
	return list
}

func TestNoActWithoutARecord(t *testing.T) {
	rec, l := recorder(t)
	p := &probe{calls: make(chan *connector.Call, 1)}
	if err := l.Close(); err != nil { // the log takes nothing any more
		t.Fatal(err)
	}
	_, e, err := ask(t, tripsOn(t, rec, probeSite(t, folderYAML, p)), read("a.txt"), nil)
	if err != nil || e == nil || e.Code != protocol.CodeAuditUnavailable {
		t.Fatalf("got %v, %v", e, err)
	}
	if len(p.calls) != 0 {
		t.Fatal("the target was touched without a record")
	}
}

func TestIntentIsDurableBeforeTheTargetIsTouched(t *testing.T) {
	rec, l := recorder(t)
	var seen []string
	p := &probe{calls: make(chan *connector.Call, 1)}
	p.do = func(_ context.Context, _ *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
		seen = kinds(t, l) // Read gives durable records only
		_, err := io.WriteString(w, "x")
		return protocol.Outcome{}, err
	}
	if _, e, err := ask(t, tripsOn(t, rec, probeSite(t, folderYAML, p)), read("a.txt"), nil); e != nil || err != nil {
		t.Fatal(e, err)
	}
	if len(seen) != 1 || seen[0] != string(audit.KindIntent) {
		t.Fatalf("durable when the target was touched: %v", seen)
	}
}

func TestDeniedRequestIsRecordedAndTouchesNothing(t *testing.T) {
	rec, l := recorder(t)
	p := &probe{calls: make(chan *connector.Call, 9)}
	h := tripsOn(t, rec, probeSite(t, folderYAML, p))
	del := read("a.txt")
	del.Operation = protocol.OpDelete
	other := read("a.txt")
	other.Profile = "secret"
	up := read("../a.txt")
	for _, r := range []protocol.Request{del, other, up} {
		if _, e, err := ask(t, h, r, nil); err != nil || e == nil || e.Code != protocol.CodeDenied && e.Code != protocol.CodeInvalid || e.Origin != protocol.OriginAgent {
			t.Fatalf("%s: %v, %v", r.Operation, e, err)
		}
	}
	if len(p.calls) != 0 {
		t.Fatal("a denied operation reached the target")
	}
	if got := kinds(t, l); len(got) != 3 || !strings.HasPrefix(got[0], string(audit.KindDenied)) {
		t.Fatalf("recorded: %v", got)
	}
}

func TestUnknownProfileAndForbiddenVerbLookAlike(t *testing.T) {
	rec, _ := recorder(t)
	h := tripsOn(t, rec, probeSite(t, folderYAML, &probe{calls: make(chan *connector.Call, 9)}))
	del := read("a.txt")
	del.Operation = protocol.OpDelete
	unknown := del
	unknown.Profile = "papern" // as long as the one that is there
	_, a, _ := ask(t, h, del, nil)
	_, b, _ := ask(t, h, unknown, nil)
	if a == nil || b == nil || a.Code != b.Code || len(a.Message) != len(b.Message) {
		t.Fatalf("told apart:\n %+v\n %+v", a, b)
	}
}

func TestPanicCostsOneStream(t *testing.T) {
	rec, l := recorder(t)
	p := &probe{calls: make(chan *connector.Call, 9)}
	p.do = func(context.Context, *connector.Call, http.ResponseWriter) (protocol.Outcome, error) {
		panic("row with canary")
	}
	h := tripsOn(t, rec, probeSite(t, folderYAML, p))
	for range 3 {
		if _, e, err := ask(t, h, read("a.txt"), nil); err != nil || e == nil || e.Code != protocol.CodeInternal || strings.Contains(e.Message, "canary") {
			t.Fatalf("got %v, %v", e, err)
		}
	}
	if got := settled(t, l, 6); len(got) != 6 || !strings.HasPrefix(got[1], string(audit.KindInternal)) {
		t.Fatalf("recorded: %v", got)
	}
}

func TestFailureMidwayIsSeenAsCut(t *testing.T) {
	rec, l := recorder(t)
	p := &probe{calls: make(chan *connector.Call, 1)}
	p.do = func(_ context.Context, _ *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		return protocol.Outcome{Bytes: 4}, protocol.Errorf(protocol.CodeUpstream, "disk fault")
	}
	if _, _, err := ask(t, tripsOn(t, rec, probeSite(t, folderYAML, p)), read("a.txt"), nil); err == nil {
		t.Fatal("a cut answer looks whole")
	}
	if got := settled(t, l, 2); got[1] != string(audit.KindOutcome)+" upstream" {
		t.Fatalf("recorded: %v", got)
	}
}

func TestRelaysDeadlineEndsTheOperation(t *testing.T) {
	rec, _ := recorder(t)
	p := &probe{calls: make(chan *connector.Call, 1)}
	p.do = func(ctx context.Context, _ *connector.Call, _ http.ResponseWriter) (protocol.Outcome, error) {
		<-ctx.Done()
		return protocol.Outcome{}, ctx.Err()
	}
	r := read("a.txt")
	r.Remaining = 30 * time.Millisecond
	if _, e, err := ask(t, tripsOn(t, rec, probeSite(t, folderYAML, p)), r, nil); err != nil || e == nil || e.Code != protocol.CodeTimeout {
		t.Fatalf("got %v, %v", e, err)
	}
}

func TestNarrowedPolicyEndsRunningTrips(t *testing.T) {
	rec, _ := recorder(t)
	p := &probe{calls: make(chan *connector.Call, 1)}
	p.do = func(ctx context.Context, _ *connector.Call, _ http.ResponseWriter) (protocol.Outcome, error) {
		<-ctx.Done()
		return protocol.Outcome{}, ctx.Err()
	}
	h := tripsOn(t, rec, probeSite(t, folderYAML, p))
	narrow := probeSite(t, strings.Replace(folderYAML, "read, ", "", 1), p).policy
	got := make(chan *protocol.Error, 1)
	go func() {
		_, e, _ := ask(t, h, read("a.txt"), nil)
		got <- e
	}()
	<-p.calls
	if n := h.narrow(narrow); n != 1 {
		t.Fatalf("%d trips ended", n)
	}
	if e := <-got; e == nil || e.Code != protocol.CodeDenied {
		t.Fatalf("got %v", e)
	}
}

func TestDrainRefusesNewTripsAndCancelsLateOnes(t *testing.T) {
	rec, _ := recorder(t)
	p := &probe{calls: make(chan *connector.Call, 1)}
	p.do = func(ctx context.Context, _ *connector.Call, _ http.ResponseWriter) (protocol.Outcome, error) {
		<-ctx.Done()
		return protocol.Outcome{}, ctx.Err()
	}
	h := tripsOn(t, rec, probeSite(t, folderYAML, p))
	got := make(chan *protocol.Error, 1)
	go func() {
		_, e, _ := ask(t, h, read("a.txt"), nil)
		got <- e
	}()
	<-p.calls
	dctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	h.drain(dctx)
	if e := <-got; e == nil || e.Code != protocol.CodeUnavailable {
		t.Fatalf("the late trip got %v", e)
	}
	if _, e, err := ask(t, h, read("b.txt"), nil); err != nil || e == nil || e.Code != protocol.CodeUnavailable {
		t.Fatalf("a new trip got %v, %v", e, err)
	}
}

func TestBodyOfADatabaseOperationIsReadStrictly(t *testing.T) {
	req := &protocol.Request{Operation: protocol.OpQuery}
	for name, body := range map[string]string{
		"empty": "", "no statement": "{}", "both": `{"sql":"a","statement":"b"}`, "unknown member": `{"sql":"a","x":1}`, "trailing": `{"sql":"a"} {}`,
		"trailing brace": `{"sql":"a"}}`, "array": `[]`, "cut": `{"sql":"a`, "too long": `{"sql":"` + strings.Repeat("a", protocol.MaxBodyBytes) + `"}`,
	} {
		if _, _, err := decodeStatements(req, strings.NewReader(body)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, list, err := decodeStatements(req, strings.NewReader(`{"sql":"select 1","args":[1]}`)); err != nil || len(list) != 1 {
		t.Fatal(err)
	}
}

func FuzzServe(f *testing.F) {
	f.Add("GET", "/v1/files/papers/read?path=a.txt", "")
	f.Add("POST", "/v1/database/sales/query", `{"sql":"select 1"}`)
	f.Fuzz(func(t *testing.T, method, target, body string) {
		req, err := http.NewRequest(method, "http://agent"+target, strings.NewReader(body))
		if err != nil || !strings.HasPrefix(target, "/") {
			return
		}
		rec, l := recorder(t)
		p := &probe{calls: make(chan *connector.Call, 1)}
		w := httptest.NewRecorder()
		tripsOn(t, rec, probeSite(t, folderYAML, p)).ServeHTTP(w, req)
		if len(p.calls) == 1 {
			c := <-p.calls
			if d := c.Decision; !d.Allow || c.Request.Profile != "papers" {
				t.Fatalf("reached the target: %+v", c.Request)
			}
		}
		if len(kinds(t, l)) == 0 {
			t.Fatal("nothing was recorded")
		}
	})
}
