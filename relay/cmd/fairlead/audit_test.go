package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/client/clienttest"
)

func TestAuditList(t *testing.T) {
	r := setup(t)
	res := run("audit", "list")
	res.want(t, 0, `x\x1b[31m`, "") // J11
	if !strings.Contains(res.out, "database.sales.allow.mode") || strings.Contains(res.out, "\x1b") {
		t.Errorf("%s", res.out)
	}
	res = run("audit", "list", "--after", "1", "--limit", "5", "--kind", "operation.end", "-o", "ndjson")
	if res.out != r.Events[1]+"\n" {
		t.Errorf("%q", res.out)
	}
	if r.Requested("GET /api/v1/workspaces/default/audit/events?after=1&kind=operation.end&limit=5") != 1 {
		t.Errorf("%q", r.Requests)
	}
	// Whoever pages from the beginning begins at 0, and must not get the newest for it.
	run("audit", "list", "--after", "0", "--limit", "1", "-o", "ndjson").want(t, 0, r.Events[0], "")
	if r.Requested("GET /api/v1/workspaces/default/audit/events?after=0&limit=1") != 1 {
		t.Errorf("%q", r.Requests)
	}
	if n := r.Requested("GET /api/v1/workspaces/default/connections"); n != 1 {
		t.Errorf("connections were asked for %d times: once for a table, never for lines", n)
	}
	res = run("audit", "list", "-o", "json")
	var events []map[string]any
	if err := json.Unmarshal([]byte(res.out), &events); err != nil || len(events) != len(r.Events) {
		t.Errorf("one JSON value with every event: %v %s", err, res.out)
	}
	r.Events = nil
	run("audit", "list", "-o", "json").want(t, 0, "[]\n", "")
	run("audit", "list", "--kind", "operation.nonsense").want(t, 0, "SEQ", "operation.denied")
	run("audit", "list", "--limit=-1").want(t, 64, "", "not negative")
}

func TestAuditTail(t *testing.T) {
	r := setup(t)
	out := newLocked()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	zero := uint64(0)
	done := make(chan error, 1)
	go func() {
		done <- (&auditTail{After: &zero, eventOutput: eventOutput{Output: "table"}}).Run(ctx,
			&cli.Term{In: strings.NewReader(""), Out: out, Err: io.Discard}, &relayFlags{Relay: r.Host, CA: r.CAFile})
	}()
	out.wait(t, `(?s)1  2026-11-21 12:00:00Z  -      operation.begin    allow    -               tok_1            -                sales .*\n    2  .*deny`)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Ctrl-C is the way to end it: %v", err)
	}
	// Without --after it begins behind what is there: nothing is printed, and the stream is asked for from there on.
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for r.Requested("GET /api/v1/workspaces/default/audit/events?after=2&follow=true") == 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		cancel()
	}()
	var late bytes.Buffer
	if err := (&auditTail{eventOutput: eventOutput{Output: "table"}}).Run(ctx, &cli.Term{Out: &late, Err: io.Discard}, &relayFlags{Relay: r.Host, CA: r.CAFile}); err != nil || late.Len() != 0 {
		t.Errorf("%v %q", err, late.String())
	}
	run("audit", "list", "--limit", "1").want(t, 0, "2  2026", "")
	t.Setenv("FAIRLEAD_TOKEN", "flt_wrong")
	run("audit", "tail").want(t, 77, "", "no valid API token")
}

func TestAuditRowsTellWhoWroteThem(t *testing.T) {
	r := setup(t)
	const id = "abcdefghijklmnopqrstuvwxyz"
	r.Events = []string{
		`{"seq":1,"time":"2026-11-21T12:00:00Z","kind":"operation.intent","source":"rel_` + id + `","request_id":"req_` + id + `","principal":"usr_` + id + `","source_address":"192.0.2.1","connection":"con_1","operation":"query","decision":"allow","rule":"gra_` + id + `"}`,
		`{"seq":2,"time":"2026-11-21T12:00:00Z","kind":"operation.denied","source":"agt_` + id + `","request_id":"req_` + id + `","claimed":{"connection":"con_` + id + `","principal":"usr_` + id + `"},"operation":"query","decision":"deny","code":"denied","rule":"database.sales.allow.mode","statement":"delete from t"}`,
		`{"seq":3,"time":"2026-11-21T12:00:00Z","kind":"operation.outcome","source":"rel_` + id + `","request_id":"req_` + id + `","principal":"usr_` + id + `","connection":"con_1","operation":"query","decision":"allow","status":"done","rows":1}`,
		`{"seq":4,"time":"2026-11-21T12:00:00Z","kind":"resource.changed","source":"rel_` + id + `","operation":"grants","target":"POST /grants","status":"done","detail":{"role":"analyst","principal":"usr_` + id + `"}}`,
	}
	const want = `SEQ  TIME                  BY     KIND               RESULT  REQUEST         WHO              FROM       CONNECTION      OPERATION  RULE                       WHAT
  1  2026-11-21 12:00:00Z  relay  operation.intent   allow   req_abcdefghij  usr_abcdefghij   192.0.2.1  sales           query      gra_abcdefghij
  2  2026-11-21 12:00:00Z  agent  operation.denied   denied  req_abcdefghij  usr_abcdefghij*             con_abcdefghij  query      database.sales.allow.mode  delete from t
  3  2026-11-21 12:00:00Z  relay  operation.outcome  done    req_abcdefghij  usr_abcdefghij              sales           query                                 1 row
  4  2026-11-21 12:00:00Z  relay  resource.changed   done                                                                grants                                POST /grants principal=usr_abcdefghij role=analyst
`
	if res := run("audit", "list"); res.status != 0 || res.out != want {
		t.Errorf("%d %s\n%s\nwant\n%s", res.status, res.errs, res.out, want)
	}
	if res := run("audit", "list", "-o", "json"); strings.Count(res.out, id) != 13 {
		t.Errorf("json has ids in full: %s", res.out)
	}
	// Names are a help; who may not list connections sees ids and all events.
	r.DenyConnections = true
	if res := run("audit", "list"); res.status != 0 || !strings.Contains(res.out, "con_1") || strings.Contains(res.out, "sales  ") || strings.Count(res.out, "\n") != 5 {
		t.Errorf("%d %s\n%s", res.status, res.errs, res.out)
	}
}

// chain makes a real log of n records and gives it to the relay.
func chain(t *testing.T, r *clienttest.Relay, n int) (dir, keyFile string) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	log, err := audit.Open(audit.Config{Dir: dir, Source: "rel_1", Key: priv, CheckpointEvery: 100, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var last *audit.Ticket
	for i := range n {
		if last, err = log.Append(fmt.Appendf(nil, `{"n":%d}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := last.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		r.AuditLog = append(r.AuditLog, b...)
	}
	if r.AuditCheckpoints, err = os.ReadFile(filepath.Join(dir, "checkpoints.jsonl")); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	r.AuditKey = client.AuditKey{ID: audit.KeyID(pub), Algorithm: "ed25519", PublicKey: string(text)}
	keyFile = filepath.Join(dir, "relay.pem")
	if err := os.WriteFile(keyFile, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, keyFile
}

func TestAuditVerify(t *testing.T) {
	r := setup(t)
	dir, key := chain(t, r, 250)
	run("audit", "verify", "--key", key).want(t, 0, "the log is whole: records 1 to ", "")
	run("audit", "verify").want(t, 0, "the log is whole", "pass --key to prove anything against the relay")
	res := run("audit", "verify", "--key", key, "-o", "json")
	res.want(t, 0, `"whole": true`, "")
	if !strings.Contains(res.out, `"key_given": true`) || !strings.Contains(res.out, `"anchored": true`) {
		t.Errorf("%s", res.out)
	}
	head := run("audit", "verify", "--key", key).out
	_, head, _ = strings.Cut(head, "last record     ")
	head, _, _ = strings.Cut(head, " ")
	run("audit", "verify", "--key", key, "--expect", head).want(t, 0, "whole", "")
	run("audit", "key").want(t, 0, "BEGIN PUBLIC KEY", "")
	run("audit", "key", "-o", "json").want(t, 0, r.AuditKey.ID, "")

	// Offline, from an export.
	logFile, cpFile := filepath.Join(dir, "export.log"), filepath.Join(dir, "export.cp")
	for file, args := range map[string][]string{logFile: {"audit", "export"}, cpFile: {"audit", "export", "--checkpoints"}} {
		res := run(args...)
		res.want(t, 0, `{"seq":`, "")
		if err := os.WriteFile(file, []byte(res.out), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := r.Requested("")
	run("audit", "verify", "--log", logFile, "--checkpoints", cpFile, "--key", key).want(t, 0, "whole", "")
	if r.Requested("") != n {
		t.Error("offline, and yet the relay was asked")
	}
	run("audit", "verify", "--log", logFile, "--key", key).want(t, 65, "", "no signed checkpoint")
	run("audit", "verify", "--checkpoints", cpFile).want(t, 64, "", "goes with --log")
	run("audit", "verify", "--key", logFile).want(t, 64, "", "no Ed25519 public key")
	run("audit", "verify", "--key", key+".no").want(t, 66, "", "read key")
	run("audit", "verify", "--expect", "x").want(t, 64, "", "SEQ:HASH")
}

func TestAuditVerifyFindsTampering(t *testing.T) {
	r := setup(t)
	_, key := chain(t, r, 250)
	good, goodCP := r.AuditLog, r.AuditCheckpoints
	lines := bytes.SplitAfter(good, []byte("\n"))
	join := func(parts ...[][]byte) []byte {
		var b []byte
		for _, p := range parts {
			b = append(b, bytes.Join(p, nil)...)
		}
		return b
	}
	_, otherKey := chain(t, &clienttest.Relay{}, 1)
	for what, log := range map[string][]byte{
		"a record is changed": bytes.Replace(good, []byte(`{"n":7}`), []byte(`{"n":8}`), 1),
		"a record is gone":    join(lines[:10], lines[11:]),
		"a record is doubled": join(lines[:11], lines[10:]),
		"two are swapped":     join(lines[:10], lines[11:12], lines[10:11], lines[12:]),
		"the tail is cut":     join(lines[:120]),
		"a line is torn":      good[:len(good)-5],
		"nothing is left":     {},
		"garbage":             []byte("<html>\n"),
	} {
		t.Run(what, func(t *testing.T) {
			r.AuditLog = log
			res := run("audit", "verify", "--key", key)
			res.want(t, 65, "", "NOT whole")
		})
	}
	r.AuditLog = good
	run("audit", "verify", "--key", otherKey).want(t, 65, "", "NOT whole")
	r.AuditCheckpoints = nil
	run("audit", "verify", "--key", key).want(t, 65, "", "no signed checkpoint")
	r.AuditCheckpoints = []byte("{\n")
	run("audit", "verify", "--key", key).want(t, 65, "", "NOT whole")
	// The tail is cut together with its checkpoints: only a head known from elsewhere shows it.
	r.AuditCheckpoints = goodCP
	head := run("audit", "verify", "--key", key).out
	_, head, _ = strings.Cut(head, "last record     ")
	head, _, _ = strings.Cut(head, " ")
	r.AuditLog, r.AuditCheckpoints = join(lines[:150]), bytes.SplitAfter(goodCP, []byte("\n"))[0]
	run("audit", "verify", "--key", key).want(t, 0, "whole", "")
	run("audit", "verify", "--key", key, "--expect", head).want(t, 65, "", "NOT whole")
}
