package e2e_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/internal/testenv/servers"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// engine is a real database server and what its dialect calls things.
type engine struct {
	name    string // and the prefix of its profiles
	dialect string // of the statement files
	server  func(testing.TB) *servers.Server
	setup   []string // once a process, as the superuser
	sums    []string // cover everything that a statement could change; run as the superuser
	active  string   // counts the statements of others that hold a mark
	p       string   // the first placeholder
	types   string   // a statement with exact types
	typed   string   // its row
	args    []string
	series  string // a statement of very many rows, with a mark
	excess  [2]string
}

var postgresql = &engine{
	name: "pg", dialect: "postgresql", server: servers.PostgreSQL, p: "$1",
	setup: []string{`create role reader login password 'r-secret'`, `create role writer login password 'w-secret'`,
		`create role boss login superuser password 'b-secret'`,
		`create table people(id int primary key, name text not null, ssn text, email text, salary numeric(10,2))`,
		`insert into people values (1,'Ada','111-22-3333','ada@example.com',1000.50),(2,'Bo','444-55-6666','bo@example.com',2000.25)`,
		`create table notes(id serial primary key, person int references people(id), body text)`,
		`insert into notes(person, body) values (1,'first'),(2,'second')`,
		`create table t(a int, b int, c text)`, `insert into t values (1,2,'x')`,
		`grant select on all tables in schema public to reader`,
		`grant select, insert, update, delete on all tables in schema public to writer`, `grant usage on all sequences in schema public to writer`},
	sums: []string{"select x::text from people x order by id", "select x::text from notes x order by id", "select x::text from t x order by x::text",
		"select last_value::text || is_called::text from notes_id_seq", "select oid::text from pg_largeobject_metadata order by 1",
		"select oid::text || relname || relfilenode::text || coalesce(relacl::text, '') from pg_class where relkind in ('r','v','m','S','i') and relnamespace = 'public'::regnamespace order by 1",
		"select oid::text || proname from pg_proc where oid >= 16384 order by 1", "select datname::text || coalesce(datacl::text,'') from pg_database order by 1",
		"select r.rolname::text || r.rolsuper::text || r.rolcanlogin::text || coalesce(r.rolconfig::text,'') from pg_roles r order by 1",
		"select rolname::text || coalesce(rolpassword,'') from pg_authid order by 1",
		"select name || setting from pg_settings where source not in ('session','client') order by 1", "select objid::text from pg_locks where locktype = 'advisory' order by 1"},
	active: "select count(*) from pg_stat_activity where state <> 'idle' and pid <> pg_backend_pid() and query like $1",
	types:  `select $1::int8, $2::numeric, $3::bytea, $4::timestamptz, '{"b":1e2}'::jsonb, array['a,b',null], 'NaN'::float8, null::int, 1.10::numeric(5,2)`,
	args: []string{`{"type":"int","value":"9223372036854775807"}`, `{"type":"decimal","value":"123456789012345678901234567890.1234567890"}`,
		`{"type":"bytes","value":"AP8Q"}`, `{"type":"timestamptz","value":"2024-02-29T12:34:56.123456+02:00"}`},
	typed:  `9223372036854775807|"123456789012345678901234567890.1234567890"|"AP8Q"|"2024-02-29T10:34:56.123456Z"|{"b": 100}|["a,b",null]|"NaN"|null|"1.10"`,
	series: "select generate_series(1, 2000000000) as %s",
	excess: [2]string{"SUPERUSER", "NOSUPERUSER"},
}

var mariadb = &engine{
	name: "my", dialect: "mysql", server: servers.MariaDB, p: "?",
	setup: []string{`create table people(id int primary key, name varchar(100) not null, ssn varchar(20), email varchar(100), salary decimal(10,2))`,
		`insert into people values (1,'Ada','111-22-3333','ada@example.com',1000.50),(2,'Bo','444-55-6666','bo@example.com',2000.25)`,
		`create table notes(id int auto_increment primary key, person int, body text, foreign key (person) references people(id))`,
		`insert into notes(person, body) values (1,'first'),(2,'second')`,
		`create table t(a int, b int, c varchar(10))`, `insert into t values (1,2,'x')`,
		`create user reader@'%' identified by 'r-secret'`, `grant select, show view on test.* to reader@'%'`,
		`create user writer@'%' identified by 'w-secret'`, `grant select, insert, update, delete on test.* to writer@'%'`,
		`create user boss@'%' identified by 'b-secret'`, `grant all on *.* to boss@'%'`},
	sums: []string{"select concat_ws('|', id, name, ssn, email, salary) from people order by 1", "select concat_ws('|', id, person, body) from notes order by 1",
		"select concat_ws('|', a, b, c) from t order by 1",
		"select concat_ws('|', table_schema, table_name, coalesce(auto_increment,''), coalesce(create_time,'')) from information_schema.tables where table_schema not in ('information_schema','performance_schema') order by 1",
		"select concat_ws('|', user, host, coalesce(authentication_string,'')) from mysql.user order by 1",
		"select concat_ws('|', variable_name, variable_value) from information_schema.global_variables where variable_name not like '%gtid%' and variable_name not like '%timestamp%' and variable_name not like 'innodb_buffer_pool_load%' order by 1",
		"select coalesce(is_used_lock('a'), 'free')"},
	active: "select count(*) from information_schema.processlist where id <> connection_id() and command <> 'Sleep' and info like ?",
	types:  "select cast(? as signed), cast(? as decimal(50,10)), hex(?), cast(? as datetime(6)), cast(18446744073709551615 as unsigned), null, cast('1.10' as decimal(5,2))",
	args: []string{`{"type":"int","value":"9223372036854775807"}`, `{"type":"decimal","value":"123456789012345678901234567890.1234567890"}`,
		`{"type":"bytes","value":"AP8Q"}`, `{"type":"timestamptz","value":"2024-02-29T12:34:56.123456+02:00"}`},
	typed:  `9223372036854775807|"123456789012345678901234567890.1234567890"|"00FF10"|"2024-02-29T10:34:56.123456"|18446744073709551615|null|"1.10"`,
	series: "select seq as %s from seq_1_to_2000000000",
	excess: [2]string{"ALL PRIVILEGES", "REVOKE"},
}

var setUp sync.Map // engine name → *sync.Once

// open gives the engine's server, set up, and a superuser's connections to it.
func (e *engine) open(t *testing.T) (*servers.Server, *sql.DB) {
	t.Helper()
	s := e.server(t)
	driver := "pgx"
	if e == mariadb {
		driver = "mysql"
	}
	db, err := sql.Open(driver, s.AdminDSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	once, _ := setUp.LoadOrStore(e.name, &sync.Once{})
	once.(*sync.Once).Do(func() {
		for _, stmt := range e.setup {
			if _, err := db.Exec(stmt); err != nil {
				t.Fatalf("%s: %v", stmt, err)
			}
		}
	})
	return s, db
}

// yaml gives the engine's profiles: PREFIX_sales (guarded), PREFIX_office (writing), PREFIX_named (statements),
// PREFIX_boss (read_only with a superuser's role).
func (e *engine) yaml(s *servers.Server) string {
	profile := func(name, user, rest string) string {
		return fmt.Sprintf("  %s_%s:\n    adapter: %s\n    host: 127.0.0.1\n    port: %d\n    database: %s\n    username: %s\n    password_file: %s.pw\n    ca_file: %s.pem\n    max_conns: 4\n%s",
			e.name, name, e.dialect, s.Port, s.Database, user, user, e.name, rest)
	}
	return profile("sales", "reader", "    allow: {mode: read_only, max_rows: 5000, timeout: 60s}\n    mask: {columns: [ssn, \"*.email\"]}\n") +
		profile("capped", "reader", "    allow: {mode: read_only, max_bytes: 1MB}\n") +
		profile("long", "reader", "    allow: {mode: read_only, timeout: 120s}\n") +
		profile("office", "writer", "    allow: {mode: read_write}\n") +
		profile("native", "writer", "    allow: {mode: read_write, dial: true}\n") +
		profile("guarded", "writer", "    allow: {mode: read_only}\n") +
		profile("named", "reader", "    allow: {mode: statements}\n    statements:\n      person: {sql: \"select name from people where id = "+e.p+"\", params: [int]}\n") +
		profile("boss", "boss", "    allow: {mode: read_only}\n")
}

// databases builds a world on the servers of the engines, with a connection to each profile.
func databases(t *testing.T, transport, more string, engines ...*engine) *testenv.World {
	t.Helper()
	return databasesWith(t, testenv.Options{Transport: transport}, more, engines...)
}

func databasesWith(t *testing.T, o testenv.Options, more string, engines ...*engine) *testenv.World {
	t.Helper()
	y := "database:\n"
	for _, e := range engines {
		s, _ := e.open(t)
		y += e.yaml(s)
	}
	o.YAML = y + more
	w := testenv.Bare(t, o)
	for user, pw := range map[string]string{"reader": "r-secret", "writer": "w-secret", "boss": "b-secret"} {
		if err := os.WriteFile(filepath.Join(w.Dir, user+".pw"), []byte(pw+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copyCAs(t, w.Dir, engines...)
	w.StartAgent()
	for _, e := range engines {
		for _, p := range []string{"sales", "capped", "long", "office", "native", "guarded", "named", "boss"} {
			w.Connection(e.name + "_" + p)
		}
	}
	return w
}

// copyCAs copies the servers' CA certificates to where an agent takes them from: files that it or root owns.
func copyCAs(t *testing.T, dir string, engines ...*engine) {
	t.Helper()
	for _, e := range engines {
		pem, err := os.ReadFile(e.server(t).CAFile)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, e.name+".pem"), pem, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (e *engine) checksum(t *testing.T, db *sql.DB) string {
	t.Helper()
	h := sha256.New()
	for _, q := range e.sums {
		rows, err := db.Query(q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
			fmt.Fprintf(h, "%q\n", s)
		}
		if err := rows.Err(); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		fmt.Fprintln(h, q)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func forEachDatabase(t *testing.T, f func(t *testing.T, w *testenv.World, e *engine, admin *sql.DB)) {
	forEachTransport(t, func(t *testing.T, transport string) {
		for _, e := range []*engine{postgresql, mariadb} {
			t.Run(e.name, func(t *testing.T) {
				_, admin := e.open(t)
				f(t, databases(t, transport, "", e), e, admin)
			})
		}
	})
}

func sqlText(text string, list ...string) client.QueryRequest {
	return client.QueryRequest{Statement: protocol.Statement{SQL: text, Args: args(list...)}}
}

// ask runs a query to its end.
func ask(t *testing.T, w *testenv.World, connection string, q client.QueryRequest) ([]protocol.Column, []string, protocol.End, error) {
	t.Helper()
	rows, err := w.Client.Query(ctx, connection, q)
	return collect(t, rows, err)
}

func TestRealDatabases(t *testing.T) {
	forEachDatabase(t, func(t *testing.T, w *testenv.World, e *engine, admin *sql.DB) {
		sales, office := e.name+"_sales", e.name+"_office"
		t.Run("exact types, both ways", func(t *testing.T) {
			_, lines, _, err := ask(t, w, sales, sqlText(e.types, e.args...))
			if err != nil || len(lines) != 1 || lines[0] != e.typed {
				t.Fatalf("got  %v, %v\nwant %s", lines, err, e.typed)
			}
		})
		t.Run("a parameter is a value, never text of the statement", func(t *testing.T) {
			_, lines, _, err := ask(t, w, sales, sqlText("select id from people where name = "+e.p, `"x' or '1'='1"`))
			if err != nil || len(lines) != 0 {
				t.Fatalf("%v, %v", lines, err)
			}
		})
		t.Run("masks of the site", func(t *testing.T) {
			cols, lines, _, err := ask(t, w, sales, sqlText("select id, ssn as harmless, email, concat(email, '') as x from people where id = 1"))
			if err != nil || len(lines) != 1 || strings.Contains(lines[0], "111-22") || strings.Contains(lines[0], "ada@") {
				t.Fatalf("%v, %v", lines, err)
			}
			if !cols[1].Masked || !cols[2].Masked || !cols[3].Masked {
				t.Fatalf("columns %+v", cols)
			}
		})
		t.Run("caps with their marker", func(t *testing.T) {
			_, lines, end, err := ask(t, w, sales, sqlText(fmt.Sprintf(e.series, "n")))
			if err != nil || len(lines) != 5000 || end.Truncated != "max_rows" || end.Rows != 5000 {
				t.Fatalf("%d rows, %+v, %v", len(lines), end, err)
			}
			wide := "select repeat('x', 10000) from (" + fmt.Sprintf(e.series, "n") + ") s"
			_, lines, end, err = ask(t, w, e.name+"_capped", sqlText(wide))
			if err != nil || len(lines) > 110 || len(lines) < 90 || end.Truncated != "max_bytes" {
				t.Fatalf("%d rows, %+v, %v", len(lines), end, err)
			}
		})
		t.Run("exec", func(t *testing.T) {
			res, err := w.Client.Exec(ctx, office, sqlText("update people set salary = salary + 1 where id = "+e.p, `1`))
			if err != nil || res.RowsAffected != 1 {
				t.Fatalf("%+v, %v", res, err)
			}
			_, err = w.Client.Exec(ctx, office, sqlText("insert into people(id, name) values (1, 'twice')"))
			if c, o := code(err); c != protocol.CodeConflict || o != protocol.OriginTarget {
				t.Fatalf("a doubled key: %v", err)
			}
		})
		t.Run("transaction, all or nothing", func(t *testing.T) {
			before := e.count(t, admin, "notes")
			_, err := w.Client.Transaction(ctx, office, protocol.TransactionBody{Statements: []protocol.Statement{
				{SQL: "insert into notes(person, body) values (1, 'half')"}, {SQL: "insert into notes(person, body) values (99, 'no such person')"}}})
			if err == nil || e.count(t, admin, "notes") != before {
				t.Fatalf("half a transaction stayed, or none failed: %v", err)
			}
			res, err := w.Client.Transaction(ctx, office, protocol.TransactionBody{Statements: []protocol.Statement{
				{SQL: "insert into notes(person, body) values (1, 'a')"}, {SQL: "delete from notes where body = 'a'"}}})
			if err != nil || len(res.Results) != 2 || res.Results[1].RowsAffected != 1 {
				t.Fatalf("%+v, %v", res, err)
			}
		})
		t.Run("schema", func(t *testing.T) {
			s, err := w.Client.Schema(ctx, sales)
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]protocol.Table{}
			for _, tab := range s.Tables {
				found[tab.Name] = tab
			}
			p, n := found["people"], found["notes"]
			if len(p.Columns) != 5 || strings.Join(p.PrimaryKey, " ") != "id" || !p.Columns[2].Masked || p.Columns[1].Nullable || len(n.ForeignKeys) != 1 {
				t.Fatalf("people %+v\nnotes %+v", p, n)
			}
		})
		t.Run("statements by name alone", func(t *testing.T) {
			named := e.name + "_named"
			_, lines, _, err := ask(t, w, named, client.QueryRequest{Statement: protocol.Statement{Name: "person", Args: args(`2`)}})
			if err != nil || len(lines) != 1 || lines[0] != `"Bo"` {
				t.Fatalf("%v, %v", lines, err)
			}
			for what, q := range map[string]client.QueryRequest{
				"text": sqlText("select 1"), "another name": {Statement: protocol.Statement{Name: "persons"}},
				"both":               {Statement: protocol.Statement{SQL: "select 1", Name: "person"}},
				"a missing argument": {Statement: protocol.Statement{Name: "person"}},
			} {
				if _, _, _, err := ask(t, w, named, q); err == nil {
					t.Errorf("%s went through", what)
				}
			}
		})
		t.Run("read_only with a role that may do more is refused, and says what to fix", func(t *testing.T) {
			_, _, _, err := ask(t, w, e.name+"_boss", sqlText("select 1"))
			if c, o := code(err); c != protocol.CodeDenied || o != protocol.OriginAgent || !strings.Contains(fullText(err), e.excess[0]) || !strings.Contains(fullText(err), e.excess[1]) {
				t.Fatalf("got %v", fullText(err))
			}
		})
	})
}

func (e *engine) count(t *testing.T, db *sql.DB, table string) (n int) {
	t.Helper()
	if err := db.QueryRow("select count(*) from " + table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// fullText is everything that a caller is told.
func fullText(err error) string {
	var e *protocol.Error
	if errors.As(err, &e) {
		return e.Message + " | " + e.Hint + " | " + e.Rule + " | " + e.Detail
	}
	return fmt.Sprint(err)
}

// TestCallerGoneEndsTheStatement: C22 over the whole path. The caller's going away empties the server's activity table
// within two seconds, before the first row and in the middle of rows, and when its connection is cut without a word.
func TestCallerGoneEndsTheStatement(t *testing.T) {
	forEachDatabase(t, func(t *testing.T, w *testenv.World, e *engine, admin *sql.DB) {
		active := func(mark string) int {
			var n int
			if err := admin.QueryRow(e.active, "%"+mark+"%").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		for _, c := range []struct{ name, text string }{
			{"before the first row", "select count(*) as %s from (" + fmt.Sprintf(e.series, "n") + ") s"},
			{"amid rows", e.series},
		} {
			t.Run(c.name, func(t *testing.T) {
				mark := fmt.Sprintf("mark_%d", time.Now().UnixNano())
				text := fmt.Sprintf(c.text, mark)
				cctx, cancel := context.WithCancel(ctx)
				defer cancel()
				ended := make(chan error, 1)
				go func() {
					rows, err := w.Client.Query(cctx, e.name+"_long", sqlText(text))
					if err != nil {
						ended <- err
						return
					}
					defer rows.Close()
					for range 100 { // and then it reads no more: the flow control of the whole path holds the server up
						rows.Next()
					}
					<-cctx.Done()
					ended <- nil
				}()
				testenv.Eventually(t, "the statement runs", func() bool { return active(mark) > 0 })
				cancel()
				within(t, 2*time.Second, "the activity table is empty", func() bool { return active(mark) == 0 })
				<-ended
			})
		}
	})
}

var statementChars = strings.NewReplacer("{LF}", "\n", "{CR}", "\r", "{NUL}", "\x00", "{BOM}", "\ufeff", "{VT}", "\v", "{FF}", "\f",
	"{NBSP}", "\u00a0", "{LS}", "\u2028", "{ZWSP}", "\u200b", "{RLO}", "\u202e", "{FW;}", "\uff1b", "{PAD}", strings.Repeat(" ", 900_000))

// bypasses are the statements of the attack catalog for a dialect: id and text.
func bypasses(t *testing.T, dialect string) (list [][2]string) {
	t.Helper()
	for _, name := range []string{"all.txt", dialect + ".txt"} {
		f, err := os.Open(filepath.Join("..", "..", "agent", "policy", "statement", "testdata", "bypass", name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s := bufio.NewScanner(f)
		for s.Scan() {
			if p := strings.SplitN(s.Text(), " ", 3); len(p) == 3 {
				list = append(list, [2]string{p[0], statementChars.Replace(p[2])})
			}
		}
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// TestBypassStatementsChangeNothing: P3 over the whole path. Every statement of the catalog, as query, exec and in a
// transaction, through a read_only profile with a proper role and through one whose role could write: the database is the
// same afterwards, to the last bit of what a checksum of everything sees.
func TestBypassStatementsChangeNothing(t *testing.T) {
	for _, e := range []*engine{postgresql, mariadb} {
		t.Run(e.name, func(t *testing.T) {
			_, admin := e.open(t)
			w := databases(t, testenv.TLS, "", e)
			before := e.checksum(t, admin)
			list, ran := bypasses(t, e.dialect), 0
			for _, profile := range []string{"_sales", "_guarded"} {
				for _, b := range list {
					if _, _, _, err := ask(t, w, e.name+profile, sqlText(b[1])); err == nil {
						t.Errorf("%s: %.200q ran as a query on %s", b[0], b[1], profile)
					}
					if _, err := w.Client.Exec(ctx, e.name+profile, sqlText(b[1])); err == nil {
						t.Errorf("%s: %.200q ran as exec on %s", b[0], b[1], profile)
					}
					if _, err := w.Client.Transaction(ctx, e.name+profile, protocol.TransactionBody{Statements: []protocol.Statement{{SQL: b[1]}}}); err == nil {
						t.Errorf("%s: %.200q ran in a transaction on %s", b[0], b[1], profile)
					}
					ran += 3
				}
			}
			if after := e.checksum(t, admin); after != before {
				t.Error("the database has changed")
			}
			if len(list) < 250 {
				t.Fatalf("only %d statements in the catalog", len(list))
			}
			t.Logf("%d statements, %d calls", len(list), ran)
			// After all of them the profile still works, and the checksum can fail.
			if _, lines, _, err := ask(t, w, e.name+"_sales", sqlText("select count(*) from people")); err != nil || lines[0] != "2" {
				t.Fatalf("%v, %v", lines, err)
			}
			if _, err := w.Client.Exec(ctx, e.name+"_office", sqlText("update t set b = b + 1")); err != nil {
				t.Fatal(err)
			}
			if e.checksum(t, admin) == before {
				t.Fatal("the checksum does not see a write")
			}
		})
	}
}
