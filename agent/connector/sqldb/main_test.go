package sqldb

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/mask"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv/servers"
	"github.com/fairleadhq/fairlead/protocol"
)

func TestMain(m *testing.M) {
	os.Exit(servers.Main(m, func() int {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}))
}

var allowed = policy.Decision{Allow: true}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// open makes a connector that is closed with the test.
func open(tb testing.TB, cfg Config) *DB {
	tb.Helper()
	if cfg.Name == "" {
		cfg.Name = "test"
	}
	if cfg.Adapter != SQLite && cfg.Dial == nil {
		cfg.Dial = dial
	}
	db, err := New(cfg, quiet())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// answer is what a query answered.
type answer struct {
	Columns []protocol.Column
	Rows    []string // each line as it travelled
	End     *protocol.End
	Outcome protocol.Outcome
	Err     *protocol.Error
}

func (a *answer) code() protocol.Code {
	if a.Err == nil {
		return ""
	}
	return a.Err.Code
}

func args(list ...any) (raw []json.RawMessage) {
	for _, v := range list {
		if r, ok := v.(json.RawMessage); ok {
			raw = append(raw, r)
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		raw = append(raw, b)
	}
	return raw
}

func call(op protocol.Operation, d policy.Decision, sts ...protocol.Statement) *connector.Call {
	c := &connector.Call{Request: &protocol.Request{ID: "req_1", Kind: protocol.KindDatabase, Profile: "test", Operation: op, Connection: "con_1"}, Decision: d}
	switch op {
	case protocol.OpQuery, protocol.OpExec:
		c.Database = &connector.DatabaseBody{Query: &protocol.QueryBody{Statement: sts[0]}}
	case protocol.OpTransaction:
		c.Database = &connector.DatabaseBody{Transaction: &protocol.TransactionBody{Statements: sts}}
	}
	return c
}

func do(tb testing.TB, db *DB, c *connector.Call) *answer {
	tb.Helper()
	return doContext(tb, tb.Context(), db, c)
}

func doContext(tb testing.TB, ctx context.Context, db *DB, c *connector.Call) *answer {
	tb.Helper()
	rec := httptest.NewRecorder()
	o, err := db.Do(ctx, c, rec)
	a := &answer{Outcome: o}
	if err != nil {
		a.Err = protocol.AsError(err)
		if rec.Body.Len() > 0 {
			tb.Errorf("Do gave an error after it had written %q", rec.Body)
		}
		return a
	}
	if c.Request.Operation != protocol.OpQuery {
		a.Rows = []string{strings.TrimSpace(rec.Body.String())}
		return a
	}
	if ct := rec.Header().Get("Content-Type"); ct != protocol.ContentNDJSON {
		tb.Errorf("content type %q", ct)
	}
	lines := bytes.Split(bytes.TrimSuffix(rec.Body.Bytes(), []byte("\n")), []byte("\n"))
	for _, l := range lines {
		if !json.Valid(l) {
			tb.Fatalf("line is not JSON: %q", l)
		}
	}
	var head protocol.ResultHead
	if err := json.Unmarshal(lines[0], &head); err != nil || head.Columns == nil {
		tb.Fatalf("bad head %q: %v", lines[0], err)
	}
	a.Columns = head.Columns
	var end protocol.ResultEnd
	if err := json.Unmarshal(lines[len(lines)-1], &end); err != nil {
		tb.Fatal(err)
	}
	a.End, a.Err = end.End, end.Error
	if (a.End == nil) == (a.Err == nil) {
		tb.Fatalf("bad end %q", lines[len(lines)-1])
	}
	for _, l := range lines[1 : len(lines)-1] {
		a.Rows = append(a.Rows, string(l))
	}
	if a.Err == nil && a.End.Rows != int64(len(a.Rows)) || o.Rows != int64(len(a.Rows)) {
		tb.Errorf("%d rows came, end says %+v, outcome %+v", len(a.Rows), a.End, o)
	}
	return a
}

func query(tb testing.TB, db *DB, sql string, list ...any) *answer {
	tb.Helper()
	return do(tb, db, call(protocol.OpQuery, policy.Decision{Allow: true}, protocol.Statement{SQL: sql, Args: args(list...)}))
}

func execute(tb testing.TB, db *DB, sql string, list ...any) *answer {
	tb.Helper()
	return do(tb, db, call(protocol.OpExec, policy.Decision{Allow: true}, protocol.Statement{SQL: sql, Args: args(list...)}))
}

func masked(tb testing.TB, db *DB, r mask.Rules, sql string, list ...any) *answer {
	tb.Helper()
	m, err := mask.Compile(r)
	if err != nil {
		tb.Fatal(err)
	}
	return do(tb, db, call(protocol.OpQuery, policy.Decision{Allow: true, Mask: m}, protocol.Statement{SQL: sql, Args: args(list...)}))
}

// discard is a ResponseWriter that keeps nothing.
type discard struct {
	n int64
	h http.Header
}

func (d *discard) Header() http.Header { return d.h }
func (d *discard) WriteHeader(int)     {}
func (d *discard) Write(p []byte) (int, error) {
	d.n += int64(len(p))
	return len(p), nil
}

// pgAdmin runs statements as the superuser, by the simple protocol.
func pgAdmin(tb testing.TB, s *servers.Server, sql string) {
	tb.Helper()
	conn := pgConnect(tb, s, s.User, s.Password)
	if _, err := conn.Exec(context.Background(), sql).ReadAll(); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

// pgProfile is a profile of the server with the user's rights.
func pgProfile(s *servers.Server, user, password string) Config {
	return Config{Adapter: PostgreSQL, Host: s.Host, Port: s.Port, Database: s.Database, Username: user, Password: secret.FromString(password),
		CAFile: s.CAFile}
}
