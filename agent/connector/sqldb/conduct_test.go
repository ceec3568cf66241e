package sqldb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/mask"
	"github.com/fairleadhq/fairlead/internal/testenv/servers"
	"github.com/fairleadhq/fairlead/protocol"
)

func limited(l policy.Limits, sql string) *connector.Call {
	return call(protocol.OpQuery, policy.Decision{Allow: true, Limits: l}, protocol.Statement{SQL: sql})
}

// each runs a test on every database that can be had here.
func each(t *testing.T, f func(t *testing.T, db *DB, series func(n int) string)) {
	t.Run("postgresql", func(t *testing.T) {
		f(t, reader(t), func(n int) string { return fmt.Sprintf("select generate_series(1,%d) as n", n) })
	})
	t.Run("mariadb", func(t *testing.T) {
		f(t, myReader(t), func(n int) string { return fmt.Sprintf("select seq as n from seq_1_to_%d", n) })
	})
	t.Run("sqlite", func(t *testing.T) {
		f(t, open(t, Config{Adapter: SQLite, Path: sqliteFile(t, sqlitePeople)}), func(n int) string {
			return fmt.Sprintf("with recursive s(n) as (select 1 union all select n+1 from s where n < %d) select n from s", n)
		})
	})
}

func TestCapsCutTheAnswerAndSayso(t *testing.T) {
	each(t, func(t *testing.T, db *DB, series func(int) string) {
		a := do(t, db, limited(policy.Limits{MaxRows: 10}, series(1_000_000_000)))
		if a.Err != nil || len(a.Rows) != 10 || a.End.Truncated != "max_rows" || a.Outcome.Truncated != "max_rows" || a.Rows[9] != "[10]" {
			t.Errorf("max_rows: %d rows, %+v %v", len(a.Rows), a.End, a.Err)
		}
		a = do(t, db, limited(policy.Limits{MaxRows: 10}, series(10)))
		if a.Err != nil || len(a.Rows) != 10 || a.End.Truncated != "" {
			t.Errorf("a whole answer of exactly the cap is said to be cut: %+v %v", a.End, a.Err)
		}
		a = do(t, db, limited(policy.Limits{MaxBytes: 1000}, series(100_000)))
		if a.Err != nil || a.End.Truncated != "max_bytes" || len(a.Rows) < 50 || a.Outcome.Bytes > 1100 {
			t.Errorf("max_bytes: %d rows, %+v %v", len(a.Rows), a.End, a.Err)
		}
	})
}

func TestTimeoutEndsTheStatement(t *testing.T) {
	each(t, func(t *testing.T, db *DB, series func(int) string) {
		begin := time.Now()
		a := do(t, db, limited(policy.Limits{Timeout: 500 * time.Millisecond}, "select count(*) from ("+series(2_000_000_000)+") x"))
		if a.code() != protocol.CodeTimeout {
			t.Errorf("%+v", a.Err)
		}
		if d := time.Since(begin); d > 8*time.Second {
			t.Errorf("it took %v", d)
		}
		// After the first row, too.
		a = do(t, db, limited(policy.Limits{Timeout: 4 * time.Second}, series(2_000_000_000)))
		if a.code() != protocol.CodeTimeout || len(a.Rows) == 0 {
			t.Errorf("%d rows, %+v", len(a.Rows), a.Err)
		}
	})
}

func TestRowTooLarge(t *testing.T) {
	for name, c := range map[string]struct {
		db  *DB
		sql string
	}{"postgresql": {reader(t), "select repeat('x', 20000000)"}, "mariadb": {myReader(t), "select repeat('x', 15000000), repeat('x', 15000000)"},
		"sqlite": {open(t, Config{Adapter: SQLite, Path: sqliteFile(t, sqlitePeople)}), "select hex(zeroblob(10000000))"}} {
		if a := query(t, c.db, c.sql); a.code() != protocol.CodeTooLarge {
			t.Errorf("%s: %+v", name, a.Err)
		}
	}
	if a := query(t, reader(t), "select repeat('x', 16000000)"); a.Err != nil {
		t.Errorf("a row that fits: %v", a.Err)
	}
}

// waiter lets a test wait for the first bytes of an answer, and then reads no more until it is told to.
type waiter struct {
	discard
	first chan struct{}
	once  sync.Once
}

func newWaiter() *waiter {
	return &waiter{discard: discard{h: http.Header{}}, first: make(chan struct{})}
}

func (w *waiter) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.first) })
	return w.discard.Write(p)
}

// until polls a condition.
func until(t *testing.T, limit time.Duration, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(limit)
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

func pgActivity(t *testing.T, s *servers.Server, like string) int {
	t.Helper()
	conn := pgConnect(t, s, s.User, s.Password)
	defer conn.Close(context.Background())
	res, err := conn.Exec(context.Background(), "select 1 from pg_stat_activity where state <> 'idle' and pid <> pg_backend_pid() and query like '%"+like+"%'").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return len(res[0].Rows)
}

func myActivity(t *testing.T, s *servers.Server, like string) int {
	t.Helper()
	cfg := myProfile(s, s.User, s.Password)
	cfg.Mode, cfg.Name = ModeReadWrite, "admin"
	db := open(t, cfg)
	defer db.Close()
	a := query(t, db, "select id from information_schema.processlist where id <> connection_id() and command <> 'Sleep' and info like '%"+like+"%'")
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	return len(a.Rows)
}

// C22: the end of the caller's context ends the statement at the server, before the first row and in the middle of rows.
func TestCancelReachesTheServer(t *testing.T) {
	pg, my := pgServer(t), myServer(t)
	for _, c := range []struct {
		name   string
		db     *DB
		slow   string
		active func() int
	}{
		{"C22 postgresql before rows", reader(t), "with recursive s(n) as (select 1 union all select n+1 from s) select count(*) as marker1 from s", func() int { return pgActivity(t, pg, "marker1") }},
		{"C22 postgresql amid rows", reader(t), "select generate_series(1,2000000000) as marker2", func() int { return pgActivity(t, pg, "marker2") }},
		{"C22 mariadb before rows", myReader(t), "select count(*) as marker3 from seq_1_to_1000000 a, seq_1_to_1000000 b where a.seq + b.seq > 0", func() int { return myActivity(t, my, "marker3") }},
		{"C22 mariadb amid rows", myReader(t), "select seq as marker4 from seq_1_to_4000000000", func() int { return myActivity(t, my, "marker4") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan protocol.Code, 1)
			w := newWaiter()
			go func() {
				o, err := c.db.Do(ctx, limited(policy.Limits{Timeout: time.Minute}, c.slow), w)
				if err != nil {
					o.Code = protocol.AsError(err).Code
				}
				done <- o.Code
			}()
			until(t, 20*time.Second, "statement runs", func() bool { return c.active() > 0 })
			if strings.Contains(c.name, "amid") {
				select {
				case <-w.first:
				case code := <-done:
					t.Fatalf("it ended with %q before a row came", code)
				}
			}
			cancel()
			begin := time.Now()
			if code := <-done; code != protocol.CodeCanceled {
				t.Errorf("code %q", code)
			}
			// The promise is 2 s (C23); a busy machine takes longer, and the statement alone would go on for minutes.
			until(t, 20*time.Second, "statement has ended at the server", func() bool { return c.active() == 0 })
			t.Logf("gone after %v", time.Since(begin))
		})
	}
}

func TestCallerThatWritesNoMoreCancels(t *testing.T) {
	s := pgServer(t)
	o, err := reader(t).Do(t.Context(), limited(policy.Limits{Timeout: time.Minute}, "select generate_series(1,2000000000) as marker5"), &broken{discard{h: http.Header{}}})
	if err != nil || o.Code != protocol.CodeCanceled {
		t.Errorf("%+v %v", o, err)
	}
	until(t, 20*time.Second, "statement has ended", func() bool { return pgActivity(t, s, "marker5") == 0 })
}

type broken struct{ discard }

func (b *broken) Write(p []byte) (int, error) {
	if b.n += int64(len(p)); b.n > 1<<20 {
		return 0, errors.New("gone")
	}
	return len(p), nil
}

func TestFirstRowsDoNotWait(t *testing.T) {
	w := newWaiter()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	// One row at once, and the second only after much work.
	go func() {
		_, err := reader(t).Do(ctx, limited(policy.Limits{Timeout: time.Minute}, "with recursive s(n) as (select 1 union all select n+1 from s) select repeat('x', 100) from generate_series(1, 400) union all select count(*)::text from s"), w)
		done <- err
	}()
	select {
	case <-w.first:
	case <-time.After(15 * time.Second):
		t.Error("the first row waited for the second")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// C23: rows of one caller never reach another, though calls are cancelled all the time.
func TestCallersDoNotSeeEachOther(t *testing.T) {
	each(t, func(t *testing.T, db *DB, series func(int) string) {
		var wg sync.WaitGroup
		for caller := range 6 {
			wg.Go(func() {
				canary := fmt.Sprintf("canary-%d", caller)
				for i := range 12 {
					ctx, cancel := context.WithCancel(t.Context())
					if i%3 == 1 {
						time.AfterFunc(time.Duration(i)*time.Millisecond, cancel)
					}
					c := call(protocol.OpQuery, allowed, protocol.Statement{SQL: "select '" + canary + "' as c, x.n from (" + series(2000) + ") x"})
					c.Request.Connection = fmt.Sprintf("con_%d", caller%3)
					a := doContext(t, ctx, db, c)
					cancel()
					for _, r := range a.Rows {
						if !strings.HasPrefix(r, `["`+canary+`",`) {
							t.Errorf("caller %d got %s", caller, r)
							return
						}
					}
					if i%3 != 1 && (a.Err != nil || len(a.Rows) != 2000) {
						t.Errorf("caller %d: %d rows, %v", caller, len(a.Rows), a.Err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// C24: nothing of a session is left to the next call.
func TestNoSessionStateIsLeft(t *testing.T) {
	s := pgServer(t)
	cfg := pgProfile(s, "writer", "w")
	cfg.Mode, cfg.MaxConns = ModeReadWrite, 1
	db := open(t, cfg)
	// Straight at the session, for the classifier would refuse all of this.
	p, err := db.pool.get(t.Context(), "con_1")
	if err != nil {
		t.Fatal(err)
	}
	pg := p.session.(*pgSession)
	pid := pg.conn.PID()
	for _, sql := range []string{"create temp table leak(a int)", "set search_path = pg_catalog", "set application_name = 'leak'", "prepare leak as select 1", "select pg_advisory_lock(42)", "listen leak"} {
		if _, err := pg.rows(t.Context(), sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	db.settle(p, nil)
	a := query(t, db, `select pg_backend_pid(), current_setting('search_path'), current_setting('application_name'), (select count(*) from pg_prepared_statements where name = 'leak'),
 (select count(*) from pg_locks where locktype = 'advisory'), to_regclass('pg_temp.leak') is null, current_setting('statement_timeout') <> '0'`)
	if want := fmt.Sprintf(`[%d,"\"$user\", public","fairlead",0,0,true,true]`, pid); a.Err != nil || a.Rows[0] != want {
		t.Errorf("%v %v, want %s", a.Err, a.Rows, want)
	}
	// Another connection of the relay never gets this session.
	c := call(protocol.OpQuery, allowed, protocol.Statement{SQL: "select pg_backend_pid()"})
	c.Request.Connection = "con_2"
	if a := do(t, db, c); a.Err != nil || a.Rows[0] == fmt.Sprintf("[%d]", pid) {
		t.Errorf("shared: %v %v", a.Err, a.Rows)
	}
	// Nor does anybody after an error.
	first := query(t, db, "select pg_backend_pid()").Rows[0]
	query(t, db, "select 1/0")
	if again := query(t, db, "select pg_backend_pid()").Rows[0]; again == first {
		t.Error("a session was used again after an error")
	}
}

// C30: a profile's connections are capped, and who waits too long is told so.
func TestPoolIsCapped(t *testing.T) {
	s := pgServer(t)
	cfg := pgProfile(s, "reader", "r")
	cfg.MaxConns, cfg.QueueTimeout = 2, 300*time.Millisecond
	db := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			_, _ = db.Do(ctx, limited(policy.Limits{Timeout: time.Minute}, "with recursive s(n) as (select 1 union all select n+1 from s) select count(*) as marker6 from s"), &discard{h: http.Header{}})
		})
	}
	until(t, 20*time.Second, "both run", func() bool { return pgActivity(t, s, "marker6") == 2 })
	a := query(t, db, "select 1")
	if a.code() != protocol.CodeUnavailable || !strings.Contains(a.Err.Message, "all 2 connections") {
		t.Errorf("%+v", a.Err)
	}
	cancel()
	wg.Wait()
	if a := query(t, db, "select 1"); a.Err != nil {
		t.Errorf("after the others have gone: %v", a.Err)
	}
	// More callers than connections, all served in turn, of different keys.
	for i := range 12 {
		wg.Go(func() {
			c := call(protocol.OpQuery, allowed, protocol.Statement{SQL: "select 1"})
			c.Request.Connection = fmt.Sprint("con_", i%4)
			for range 3 {
				if a := do(t, db, c); a.Err != nil && a.Err.Code != protocol.CodeUnavailable {
					t.Error(a.Err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(db.pool.slots); n != len(db.pool.idle) || n > 2 {
		t.Errorf("%d slots are held, %d idle", n, len(db.pool.idle))
	}
}

func TestPostgreSQLExecAndTransaction(t *testing.T) {
	db := writer(t)
	if a := execute(t, db, "insert into notes(person, body) values ($1, $2), (2, $2) returning id", 1, "hello"); a.Err != nil || a.Rows[0] != `{"rows_affected":2}` {
		t.Fatalf("%v %v", a.Err, a.Rows)
	}
	a := do(t, db, call(protocol.OpTransaction, allowed, protocol.Statement{SQL: "update people set name = 'X'"}, protocol.Statement{SQL: "insert into notes(person) values ($1)", Args: args(99)}))
	if a.code() != protocol.CodeConflict || a.Err.Detail != "23503" || !strings.HasPrefix(a.Err.Message, "statement 2 of 2, of which none took effect") {
		t.Fatalf("%+v", a.Err)
	}
	a = do(t, db, call(protocol.OpTransaction, allowed, protocol.Statement{SQL: "update people set name = 'X'"}, protocol.Statement{SQL: "commit"}))
	if a.code() != protocol.CodeDenied {
		t.Fatalf("commit in the middle: %+v", a.Err)
	}
	a = do(t, db, call(protocol.OpTransaction, allowed, protocol.Statement{SQL: "update people set name = name || $1 where id = 1", Args: args("!")},
		protocol.Statement{SQL: "update people set name = 'Ada' where name = 'Ada!'"}))
	if a.Err != nil || a.Rows[0] != `{"results":[{"rows_affected":1},{"rows_affected":1}]}` {
		t.Fatalf("%v %v", a.Err, a.Rows)
	}
	if a := query(t, db, "select name from people order by id"); a.Err != nil || strings.Join(a.Rows, "") != `["Ada"]["Bo"]` {
		t.Errorf("half a transaction took effect: %v", a.Rows)
	}
	if a := query(t, db, "insert into notes(body) values ('x') returning id"); a.code() != protocol.CodeDenied {
		t.Errorf("a query wrote: %+v", a)
	}
}

func TestStatementsModeRunsNamedStatementsOnly(t *testing.T) {
	cfg := pgProfile(pgServer(t), "writer", "w")
	cfg.Mode = ModeStatements
	cfg.Statements = map[string]Statement{
		"by_id": {SQL: "select name from people where id = $1", Params: []string{"int"}},
		"note":  {SQL: "insert into notes(person, body) values ($1, $2)", Params: []string{"int", "text"}},
	}
	db := open(t, cfg)
	ask := func(op protocol.Operation, st protocol.Statement) *answer { return do(t, db, call(op, allowed, st)) }
	if a := ask(protocol.OpQuery, protocol.Statement{Name: "by_id", Args: args(2)}); a.Err != nil || a.Rows[0] != `["Bo"]` {
		t.Errorf("%v %v", a.Err, a.Rows)
	}
	if a := ask(protocol.OpExec, protocol.Statement{Name: "note", Args: args(2, "x")}); a.Err != nil || a.Rows[0] != `{"rows_affected":1}` {
		t.Errorf("%v %v", a.Err, a.Rows)
	}
	for name, c := range map[string]struct {
		st   protocol.Statement
		code protocol.Code
	}{
		"raw text":       {protocol.Statement{SQL: "select 1"}, protocol.CodeDenied},
		"name and text":  {protocol.Statement{Name: "by_id", SQL: "select 1"}, protocol.CodeNotFound},
		"unknown":        {protocol.Statement{Name: "x"}, protocol.CodeNotFound},
		"too few":        {protocol.Statement{Name: "by_id"}, protocol.CodeInvalid},
		"too many":       {protocol.Statement{Name: "by_id", Args: args(1, 2)}, protocol.CodeInvalid},
		"wrong type":     {protocol.Statement{Name: "by_id", Args: args("1 or 1=1")}, protocol.CodeInvalid},
		"another type":   {protocol.Statement{Name: "by_id", Args: args(map[string]string{"type": "text", "value": "1"})}, protocol.CodeInvalid},
		"a write, asked": {protocol.Statement{Name: "note", Args: args(1, "x")}, protocol.CodeDenied},
	} {
		if a := ask(protocol.OpQuery, c.st); a.code() != c.code {
			t.Errorf("%s: %+v", name, a.Err)
		}
	}
}

func TestPostgreSQLSchema(t *testing.T) {
	m, _ := mask.Compile(mask.Rules{Columns: []string{"people.ssn"}})
	a := do(t, reader(t), call(protocol.OpSchema, policy.Decision{Mask: m}))
	for _, want := range []string{`{"schema":"public","name":"notes","type":"table","columns":[{"name":"id","type":"integer","nullable":false},{"name":"person","type":"integer","nullable":true}`,
		`"primary_key":["id"],"foreign_keys":[{"columns":["person"],"references":"public.people","to":["id"]}]`, `{"name":"ssn","type":"text","nullable":true,"masked":true}`} {
		if a.Err != nil || !strings.Contains(a.Rows[0], want) {
			t.Errorf("%v: %s is not in %s", a.Err, want, a.Rows)
		}
	}
}

func TestEnvironmentIsIgnored(t *testing.T) {
	s := pgServer(t)
	for k, v := range map[string]string{"PGHOST": "192.0.2.1", "PGPORT": "1", "PGUSER": "postgres", "PGPASSWORD": "x", "PGDATABASE": "x", "PGSERVICE": "nope", "PGSSLMODE": "bogus",
		"PGOPTIONS": "-c default_transaction_read_only=off", "PGSSLROOTCERT": "/nonexistent", "PGCONNECT_TIMEOUT": "x", "PGREQUIREAUTH": "none", "PGTARGETSESSIONATTRS": "standby"} {
		t.Setenv(k, v)
	}
	if a := query(t, open(t, pgProfile(s, "reader", "r")), "select current_user"); a.Err != nil || a.Rows[0] != `["reader"]` {
		t.Errorf("%v %v", a.Err, a.Rows)
	}
}

// fakeSession never forgets.
type fakeSession struct{ readies, closes int }

func (f *fakeSession) query(context.Context, *bound, *stream) error                  { return nil }
func (f *fakeSession) exec(context.Context, []*bound) ([]protocol.ExecResult, error) { return nil, nil }
func (f *fakeSession) schema(context.Context) (*protocol.Schema, error)              { return nil, nil }
func (f *fakeSession) reset(context.Context) bool                                    { return true }
func (f *fakeSession) ready() bool                                                   { f.readies++; return false }
func (f *fakeSession) close()                                                        { f.closes++ }

// A session is used again only when it has said that it forgot what was.
func TestPoolClosesWhatIsNotReady(t *testing.T) {
	opened := 0
	p := newPool(2, time.Second, func(context.Context) (session, error) { opened++; return &fakeSession{}, nil })
	defer p.close()
	a, err := p.get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	p.put(a)
	b, err := p.get(t.Context(), "k")
	if err != nil || b == a || opened != 2 {
		t.Fatalf("%v, the same session %v, %d opened", err, b == a, opened)
	}
	if f := a.session.(*fakeSession); f.readies != 1 || f.closes != 1 || len(p.slots) != 1 {
		t.Errorf("asked %d times, closed %d times, %d slots are held", f.readies, f.closes, len(p.slots))
	}
	p.drop(b)
}
