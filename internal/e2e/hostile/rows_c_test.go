//go:build linux

package hostile_test

import (
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/internal/testenv/servers"
	"github.com/fairleadhq/fairlead/protocol"
)

// databases is a site with the three databases, and a look at each that does not go through the agent.
type databases struct {
	*site
	pg, my, lite *sql.DB
	litePath     string
	greedy       *listener // a MySQL server that asks for files
	spied        *strings.Builder
	mu           sync.Mutex // guards spied
}

const people = `create table people(id int primary key, name varchar(50) not null, ssn varchar(50), email varchar(50));
insert into people values (1,'Ada','111-22-3333','ada@example.com'),(2,'Bo','444-55-6666','bo@example.com');
create table notes(id int primary key, body varchar(50)); insert into notes values (1,'first'),(2,'second');`

func newDatabases(t *testing.T) *databases {
	t.Helper()
	d := &databases{spied: &strings.Builder{}}
	pg, my := servers.PostgreSQL(t), servers.MariaDB(t)
	d.pg, d.my = openSQL(t, "pgx", pg.AdminDSN), openSQL(t, "mysql", my.AdminDSN+"?multiStatements=true")
	run := func(db *sql.DB, text string) {
		t.Helper()
		if _, err := db.Exec(text); err != nil {
			t.Fatalf("%.100s: %v", text, err)
		}
	}
	run(d.pg, people+"create role reader login password 'r'; grant select on people, notes to reader; create role writer login password 'w'; grant all on people, notes to writer;"+
		"create role boss login superuser password 'b'; create sequence tickets; grant all on sequence tickets to writer;")
	run(d.my, people+"create user reader@'%' identified by 'r'; grant select on "+my.Database+".* to reader@'%'; create user filer@'%' identified by 'f'; grant select on "+my.Database+".* to filer@'%'; grant file on *.* to filer@'%';")
	r := newRogue(t)
	dir := t.TempDir()
	d.litePath = filepath.Join(dir, "lite.db")
	d.lite = openSQL(t, "sqlite", d.litePath)
	run(d.lite, people)
	d.greedy = listen(t, "127.0.0.1", d.serveGreedy)
	profiles := "database:\n  lite: {adapter: sqlite, path: " + d.litePath + ", allow: {mode: read_only, max_rows: 1000, timeout: 3s}}\n"
	for name, p := range map[string]struct {
		adapter    string
		s          *servers.Server
		user, pass string
		extra      string
	}{
		"pg": {"postgresql", pg, "reader", "r", "max_rows: 1000, timeout: 3s}, queue_timeout: 1s, max_conns: 3"}, "pgwriter": {"postgresql", pg, "writer", "w", "timeout: 3s}"},
		"pgboss": {"postgresql", pg, "boss", "b", "timeout: 3s}"}, "masked": {"postgresql", pg, "reader", "r", `timeout: 3s}, mask: {columns: [ssn]}`},
		"my": {"mysql", my, "reader", "r", "max_rows: 1000, timeout: 3s}"}, "myfiler": {"mysql", my, "filer", "f", "timeout: 3s}"},
	} {
		pw := filepath.Join(dir, name+".pw")
		if err := os.WriteFile(pw, []byte(p.pass), 0o600); err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(p.s.CAFile) // a copy that is ours: the servers' own belongs to their user
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".ca"), ca, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		profiles += fmt.Sprintf("  %s: {adapter: %s, host: 127.0.0.1, port: %d, database: %s, username: %s, password_file: %s, ca_file: %s, allow: {mode: read_only, %s}\n", name, p.adapter, p.s.Port, p.s.Database, p.user, pw, filepath.Join(dir, name+".ca"), p.extra)
	}
	profiles += fmt.Sprintf("  greedy: {adapter: mysql, host: 127.0.0.1, port: %d, database: d, username: u, password_file: %s, tls: disable, allow: {mode: read_only, timeout: 5s}}\n", d.greedy.port, filepath.Join(dir, "my.pw"))
	d.site = newSite(t, r, profiles)
	return d
}

func openSQL(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// checksum covers what an attack could change in any of the three databases.
func (d *databases) checksum(t testing.TB) string {
	t.Helper()
	h := sha256.New()
	add := func(db *sql.DB, queries ...string) {
		for _, q := range queries {
			rows, err := db.Query(q)
			if err != nil {
				t.Fatal(q, err)
			}
			cols, _ := rows.Columns()
			values, into := make([]sql.RawBytes, len(cols)), make([]any, len(cols))
			for i := range values {
				into[i] = &values[i]
			}
			for rows.Next() {
				if err := rows.Scan(into...); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(h, "%q", values)
			}
			rows.Close()
		}
		fmt.Fprint(h, "|")
	}
	add(d.pg, "select * from people order by id", "select * from notes order by id", "select last_value, is_called from tickets", "select count(*) from pg_largeobject_metadata",
		"select relname, relacl::text from pg_class where relnamespace = 'public'::regnamespace order by oid", "select rolname, rolsuper, rolcanlogin from pg_roles order by 1",
		"select name, setting from pg_settings where source not in ('session','client') order by 1", "select count(*) from pg_prepared_xacts", "select count(*) from pg_locks where locktype = 'advisory'")
	add(d.my, "select * from people order by id", "select * from notes order by id", "select table_name from information_schema.tables where table_schema = database() order by 1",
		"select user, host from mysql.user order by 1, 2", "select @@global.general_log, @@global.read_only, @@global.local_infile")
	add(d.lite, "select * from people order by id", "select * from notes order by id", "select name, sql from sqlite_master order by name", "pragma user_version", "pragma journal_mode")
	return fmt.Sprintf("%x", h.Sum(nil))
}

func (d *databases) row(t *testing.T, name string, do func(t *testing.T)) {
	d.site.row(t, name, func(t *testing.T) {
		before := d.checksum(t)
		do(t)
		if d.checksum(t) != before {
			t.Error("a database has changed")
		}
		if _, err := os.Stat(pwned); err == nil {
			t.Errorf("%s was written", pwned)
			os.Remove(pwned)
		}
	})
}

// pwned is a file that the attacks try to write, where database servers may.
const pwned = "/tmp/fairlead-hostile-pwned"

func statement(sql string, args ...any) string {
	b, err := json.Marshal(map[string]any{"sql": sql, "args": args})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// attack tries statements by each operation on each profile; all must end in an error that gives nothing away.
func (d *databases) attack(t *testing.T, profiles []string, statements ...string) {
	t.Helper()
	for _, profile := range profiles {
		for _, text := range statements {
			for op, body := range map[protocol.Operation]string{protocol.OpQuery: statement(text), protocol.OpExec: statement(text), protocol.OpTransaction: `{"statements":[` + statement(text) + `]}`} {
				a := d.ask(t, database(op, profile), body)
				if a.code() == "" {
					t.Errorf("%s %s ran: %.100q: %.200s", profile, op, text, a.body)
				}
				if strings.Contains(a.body, "root:") || strings.Contains(a.body, "111-22") {
					t.Errorf("%s %s %.100q gave away: %.200s", profile, op, text, a.body)
				}
				if a.err != nil {
					t.Logf("%s %s %.60q: %v", profile, op, text, a.err)
				}
				d.event(t, a.id)
			}
		}
	}
}

// rows asks a query that must work and gives its rows.
func (d *databases) rows(t *testing.T, profile, body string) []string {
	t.Helper()
	a := d.ask(t, database(protocol.OpQuery, profile), body)
	d.went(t, a)
	lines := strings.Split(strings.TrimSpace(a.body), "\n")
	if len(lines) < 2 {
		return nil
	}
	return lines[1 : len(lines)-1]
}

func TestRowsC(t *testing.T) {
	d := newDatabases(t)
	pg, my, lite := []string{"pg", "pgwriter"}, []string{"my"}, []string{"lite"}
	all := []string{"pg", "pgwriter", "my", "lite"}

	d.row(t, "C0 what is allowed works", func(t *testing.T) {
		for _, profile := range all {
			if got := d.rows(t, profile, statement("select count(*) from notes")); len(got) != 1 || !strings.Contains(got[0], "2") {
				t.Errorf("%s: %v", profile, got)
			}
		}
	})
	d.row(t, "C1 two statements in one", func(t *testing.T) {
		d.attack(t, all, "commit; delete from notes", "select 1; delete from notes", "select 1; select 2", "select 1;commit;delete from notes;--")
	})
	d.row(t, "C2 set transaction", func(t *testing.T) {
		d.attack(t, pg, "set transaction read write", "set session characteristics as transaction read write", "set transaction_read_only = off", "set local transaction_read_only = off", "select set_config('transaction_read_only', 'off', false)")
		// Nothing of it stays for the next call, and a transaction of several is no way either.
		for _, profile := range pg {
			a := d.ask(t, database(protocol.OpTransaction, profile), `{"statements":[{"sql":"set transaction read write"},{"sql":"delete from notes"}]}`)
			d.refused(t, a)
		}
	})
	d.row(t, "C3 transaction control", func(t *testing.T) {
		d.attack(t, pg, "commit", "rollback", "end", "abort", "begin read write", "start transaction read write", "savepoint a", "release savepoint a", "prepare transaction 'x'", "commit prepared 'x'", "commit and chain")
	})
	d.row(t, "C4 copy", func(t *testing.T) {
		boss := append([]string{"pgboss"}, pg...)
		d.attack(t, boss, "copy (select 1) to program 'id > "+pwned+"'", "copy (select 1) to '"+pwned+"'", "copy notes from '/etc/passwd'", "copy notes from program 'id'", "copy notes to stdout", "COPY/**/notes TO PROGRAM 'id'")
		a := d.ask(t, database(protocol.OpQuery, "pgboss"), statement("select 1")) // a role with such rights is refused as a whole
		if a.code() != protocol.CodeDenied {
			t.Errorf("a superuser's profile in read_only works: %s", a.body)
		}
	})
	d.row(t, "C5 functions that reach out", func(t *testing.T) {
		d.attack(t, append([]string{"pgboss"}, pg...), "select lo_export(lo_from_bytea(0, 'x'), '"+pwned+"')", "select pg_read_file('/etc/passwd')", "select pg_ls_dir('/')", "select pg_reload_conf()", "select pg_terminate_backend(pg_backend_pid())",
			"select dblink_exec('x', 'delete from notes')", "select * from (select upper((select pg_read_file('/etc/passwd')))) x", "select \"pg_read_file\"('/etc/passwd')", "select pg_catalog.pg_read_file('/etc/passwd')",
			"select 1 order by pg_read_file('/etc/passwd')", "select U&\"pg_read\\005ffile\"('/etc/passwd')", "select query_to_xml('delete from notes', true, true, '')", "select pg_read_binary_file('/etc/passwd')")
	})
	d.row(t, "C6 side effects of a plain role", func(t *testing.T) {
		d.attack(t, pg, "select lo_from_bytea(0, 'x')", "select lo_create(0)", "select pg_notify('a', 'b')", "select pg_advisory_lock(1)", "lock table people in access exclusive mode", "select pg_logical_emit_message(false, 'a', 'b')",
			"select nextval('tickets')", "select setval('tickets', 1000)", "listen a", "select pg_advisory_xact_lock(1)")
	})
	d.row(t, "C7 statements that are more than they seem", func(t *testing.T) {
		d.attack(t, pg, "set role boss", "set session authorization boss", "set search_path = x", "set log_statement = 'all'", "do $$ begin delete from notes; end $$", "call x()", "execute x", "explain analyze delete from notes",
			"with x as (delete from notes returning *) select * from x", "select * into stolen from people", "select * from people for update", "create table x as select 1", "declare c cursor with hold for select 1", "values (1) union (with x as (delete from notes returning id) select id from x)")
	})
	d.row(t, "C8 ways round the guard", func(t *testing.T) {
		d.attack(t, all, "/* select */ delete from notes", "/* /* */ select 1 */ delete from notes", "\ufeffdelete from notes", "select 1\x00; delete from notes", ";;delete from notes", "-- select\ndelete from notes", "(delete from notes)", "\u00a0delete from notes", "", ";", "/*")
		d.attack(t, pg, "select $a$ ; $a$; delete from notes", `select '\\'; delete from notes --'`, `select E'\''; delete from notes --'`, "select U&\"d\\0061ta\" from notes; delete from notes", strings.Repeat(" ", 10<<20)+"delete from notes")
		a := d.ask(t, database(protocol.OpQuery, "pg"), statement(strings.Repeat("/**/", 6<<20)+"select 1")) // 24 MiB
		d.refused(t, a)
	})
	d.row(t, "C9 parameters", func(t *testing.T) {
		evil := "x'; delete from notes; --"
		for profile, text := range map[string]string{"pg": "select $1::text", "my": "select ?", "lite": "select ?"} {
			if got := d.rows(t, profile, statement(text, evil)); len(got) != 1 || !strings.Contains(got[0], "x'; delete from notes; --") {
				t.Errorf("%s: %v", profile, got)
			}
		}
		if got := d.rows(t, "pg", statement("select 5 -$1::int, $2::text", -1, " \n;drop table notes")); len(got) != 1 || !strings.HasPrefix(got[0], "[6,") {
			t.Errorf("-$1: %v", got)
		}
		d.attack(t, pg, "select $$ $1 $$ || $1; delete from notes", "select $1")
		d.failed(t, d.ask(t, database(protocol.OpQuery, "pg"), statement("select $1::text", strings.Repeat("x", 17<<20)))) // beyond the largest body
	})
	d.row(t, "C10 identifiers from jobs", func(t *testing.T) {
		// The protocol takes no identifier at all: a field or parameter that would is refused.
		for _, body := range []string{`{"sql":"select 1","order_by":"1;--"}`, `{"sql":"select 1","table":"notes"}`, `{"statement":"x\";--"}`, `{"sql":"select 1","statement":"x"}`, `{"SQL":"delete from notes","sql":"delete from notes"}`, `{"sql":"select 1"}{"sql":"delete from notes"}`, `[]`, `null`, `"select 1"`, strings.Repeat("[", 100_000)} {
			d.refused(t, d.ask(t, database(protocol.OpQuery, "pg"), body))
		}
		for _, query := range []string{"?table=notes", "?order=1%3b--", "?path=x"} {
			id := nextID()
			a, st := d.send(t, "GET /v1/database/pg/schema"+query+" HTTP/1.1\r\nHost: agent\r\nFairlead-Request-Id: "+id+"\r\n\r\n")
			st.Close()
			a.id = id
			d.refused(t, a)
		}
	})
	d.row(t, "C11 MariaDB, implicit commits", func(t *testing.T) {
		d.attack(t, my, "create table x(a int)", "drop table notes", "truncate notes", "alter table notes add z int", "rename table notes to x", "create temporary table y(a int)", "analyze table notes")
	})
	d.row(t, "C12 MariaDB, transaction control", func(t *testing.T) {
		d.attack(t, my, "begin", "commit", "set session transaction read write", "lock tables notes write", "set autocommit = 1", "start transaction read write", "set statement max_statement_time=0 for delete from notes", "xa start 'x'")
	})
	d.row(t, "C13 MariaDB, files", func(t *testing.T) {
		d.attack(t, []string{"my", "myfiler"}, "select * from people into outfile '"+pwned+"'", "select 'x' into dumpfile '"+pwned+"'", "select load_file('/etc/passwd')", "set global general_log = 1", "select 1 into @a", "load data local infile '/etc/passwd' into table notes",
			"select 1 union select load_file('/etc/passwd')", "select load_file /**/ ('/etc/passwd')")
	})
	d.row(t, "C15 MariaDB, smuggled statements", func(t *testing.T) {
		d.attack(t, my, "select 1; delete from notes", "select 1 /*!50000 ; delete from notes */", "/*! delete from notes */", "/*M! delete from notes */", `select '\'; delete from notes -- '`, "# select\ndelete from notes", "select 1 --\n; delete from notes")
	})
	d.row(t, "C16 a MySQL server that asks for files", func(t *testing.T) {
		d.failed(t, d.ask(t, database(protocol.OpQuery, "greedy"), statement("select 1")))
		d.mu.Lock()
		defer d.mu.Unlock()
		if got := d.spied.String(); got == "" || strings.Contains(got, "root:") {
			t.Errorf("the server was sent %d bytes: %.200q", len(got), got)
		}
	})
	d.row(t, "C21 SQLite, ways out of the file", func(t *testing.T) {
		d.attack(t, lite, "vacuum into '"+pwned+"'", "attach '"+pwned+"' as x", "pragma query_only = 0", "select load_extension('x')", "pragma writable_schema = 1", "select * from pragma_query_only(0)", "pragma journal_mode = delete",
			"create temp table x(a)", "select writefile('"+pwned+"', 'x')", "select readfile('/etc/passwd')", "select edit('x')", "delete from notes returning id", "pragma user_version = 9", "reindex", "detach main")
	})
	d.row(t, "C22 bombs", func(t *testing.T) { d.bombs(t) })
	d.row(t, "C26 masks evaded", func(t *testing.T) {
		for _, text := range []string{"select ssn from people", "select * from people", "select ssn as x from people", "select ssn || '' from people", "select upper(ssn) from people", "select row_to_json(p) from people p", "select p::text from people p",
			"select json_build_object('a', ssn) from people", "select string_agg(ssn, ',') from people", "select x from (select ssn as x from people) s", "with s(a,b,c,d) as (table people) select c || '' from s", "select 'x' union all select ssn from people",
			"select (select ssn from people limit 1)", "select substr(ssn, 1, 6) from people", "select encode(ssn::bytea, 'hex') from people", "select ssn::int from people", "select 1 / (length(ssn) - 11) from people", "select histogram_bounds::text from pg_stats", "select format('%s', ssn) from people",
			"select case when ssn like '1%' then 1/0 end from people", "select U&\"s\\0073n\" || '' from people", "select upper(c) from people as p(a,b,c)",
			"select p.row_to_json from people p", "select k.value from people p, jsonb_each_text(to_jsonb(p)) k", "select a.* from people p, unnest(array[p.ssn]) a", "select upper(c) from people * p(a,b,c)", "select concat(p) from (people p cross join people q)"} {
			a := d.ask(t, database(protocol.OpQuery, "masked"), statement(text))
			for _, secret := range []string{"111-22", "444-55", "22-3333", "3131312d3232"} {
				if strings.Contains(a.body, secret) {
					t.Errorf("%s: %.300s", text, a.body)
				}
			}
		}
		if got := d.rows(t, "masked", statement("select name from people order by id")); len(got) != 2 || !strings.Contains(got[0], "Ada") {
			t.Errorf("what is not masked is hidden too: %v", got)
		}
	})
	d.row(t, "C28 bombs inside values", func(t *testing.T) {
		laugh := `<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><l>&b;</l>`
		if got := d.rows(t, "pg", statement("select $1::text", laugh)); len(got) != 1 || strings.Contains(got[0], "haha") {
			t.Errorf("%v", got)
		}
		// 8 MB of a value travels as it is; nothing unpacks or parses it.
		a := d.ask(t, database(protocol.OpQuery, "pg"), statement(`select decode(repeat('1f8b0800', 2000000), 'hex')`))
		if a.code() != "" || len(a.body) < 8_000_000 {
			t.Errorf("%d bytes, %s", len(a.body), a.code())
		}
		deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
		_ = d.ask(t, database(protocol.OpQuery, "lite"), statement("select ?", deep))
	})
	d.row(t, "C29 one connection's credentials for another target", func(t *testing.T) {
		// No credential, host or option ever comes from the relay: what would name one is refused or only a claim.
		for _, body := range []string{`{"sql":"select 1","password":"b"}`, `{"sql":"select 1","username":"boss"}`, `{"sql":"select 1","host":"127.0.0.1"}`, `{"sql":"select 1","dsn":"x"}`} {
			d.refused(t, d.ask(t, database(protocol.OpQuery, "pg"), body))
		}
		r := database(protocol.OpQuery, "pg")
		r.Connection, r.Principal = "con_of_pgboss", "boss"
		a := d.ask(t, r, statement("select current_user::text"))
		if !strings.Contains(a.body, `["reader"]`) {
			t.Errorf("%s", a.body)
		}
		for _, profile := range []string{"pgboss/../pg", "PG", "pg%00", "pg "} {
			id := nextID()
			a, st := d.send(t, "POST /v1/database/"+strings.ReplaceAll(profile, " ", "%20")+"/query HTTP/1.1\r\nHost: agent\r\nFairlead-Request-Id: "+id+"\r\nContent-Length: 18\r\n\r\n"+`{"sql":"select 1"}`)
			st.Close()
			if a.code() == "" {
				t.Errorf("%q: %s", profile, a.body)
			}
		}
	})
	d.row(t, "C30 one caller takes all connections", func(t *testing.T) { d.exhaust(t) })
	if !t.Failed() {
		complete(t, "C")
	}
}

// bombs asks for more than the caps allow; the answers must end in time, and nothing must run on in the servers.
func (d *databases) bombs(t *testing.T) {
	for _, b := range []struct{ profile, text string }{
		{"pg", "select count(*) from generate_series(1,1000000000) a"}, {"pg", "select pg_sleep(60)"}, {"pg", "with recursive x(n) as (select 1 union all select n+1 from x) select count(*) from x"},
		{"pg", "select * from generate_series(1,100000) a, generate_series(1,100000) b"}, {"pg", "select repeat('x', 500000000)"}, {"pg", "select 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' ~ '(a*)*(a*)*(a*)*b'"},
		{"my", "select count(*) from information_schema.columns a, information_schema.columns b, information_schema.columns c"}, {"my", "select benchmark(1000000000, sha2('x', 512))"}, {"my", "select sleep(60)"},
		{"lite", "with recursive x(n) as (select 1 union all select n+1 from x) select count(*) from x"}, {"lite", "with recursive x(n) as (select 1 union all select n+1 from x) select n from x"}, {"lite", "select hex(zeroblob(900000000))"},
	} {
		started := time.Now()
		a := d.ask(t, database(protocol.OpQuery, b.profile), statement(b.text))
		if took := time.Since(started); took > 15*time.Second {
			t.Errorf("%s %s took %s", b.profile, b.text, took)
		}
		if a.code() == "" && !strings.Contains(a.body, `"truncated":"max_`) && !strings.Contains(b.text, "~") {
			t.Errorf("%s %s: %d bytes: %.200s", b.profile, b.text, len(a.body), a.body)
		}
		if rss := d.rss(t); rss > maxRSS {
			t.Errorf("%s %s: the agent holds %d MiB", b.profile, b.text, rss>>20)
		}
	}
	d.idle(t)
}

// idle waits until no statement of the agent runs in a server any more.
func (d *databases) idle(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, "no statement runs on in PostgreSQL", func() bool {
		var n int
		err := d.pg.QueryRow("select count(*) from pg_stat_activity where usename in ('reader','writer') and state = 'active'").Scan(&n)
		return err == nil && n == 0
	})
	testenv.Eventually(t, "no statement runs on in MariaDB", func() bool {
		var n int
		err := d.my.QueryRow("select count(*) from information_schema.processlist where user = 'reader' and command = 'Query'").Scan(&n)
		return err == nil && n == 0
	})
}

// exhaust asks for twelve slow queries at once of a profile that has three connections.
func (d *databases) exhaust(t *testing.T) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards codes
	codes := map[protocol.Code]int{}
	for range 12 {
		wg.Go(func() {
			a := d.ask(t, database(protocol.OpQuery, "pg"), statement("with recursive x(n) as (select 1 union all select n+1 from x) select count(*) from x"))
			mu.Lock()
			defer mu.Unlock()
			codes[a.code()]++
		})
	}
	most := 0
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-tick.C:
			var n int
			if err := d.pg.QueryRow("select count(*) from pg_stat_activity where usename = 'reader' and query like 'with recursive%' and state = 'active'").Scan(&n); err == nil {
				most = max(most, n)
			}
		}
	}
	if most > 3 || most == 0 {
		t.Errorf("%d connections at once, want 1 to 3", most)
	}
	if codes[""] > 0 || codes[protocol.CodeTimeout]+codes[protocol.CodeUpstream] == 12 {
		t.Errorf("ends: %v", codes)
	}
	// Other profiles do not wait for it.
	d.went(t, d.ask(t, database(protocol.OpQuery, "lite"), statement("select 1")))
	d.idle(t)
}

// serveGreedy is a MySQL server that answers any statement by asking for a local file.
func (d *databases) serveGreedy(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	packet := func(seq byte, b []byte) {
		_, _ = c.Write(append([]byte{byte(len(b)), byte(len(b) >> 8), byte(len(b) >> 16), seq}, b...))
	}
	read := func() ([]byte, bool) {
		h := make([]byte, 4)
		if _, err := io.ReadFull(c, h); err != nil {
			return nil, false
		}
		b := make([]byte, int(h[0])|int(h[1])<<8|int(h[2])<<16)
		_, err := io.ReadFull(c, b)
		d.mu.Lock()
		d.spied.Write(b)
		d.mu.Unlock()
		return append(h, b...), err == nil
	}
	greet := append([]byte{10}, "8.0.36\x00\x01\x00\x00\x00aaaaaaaa\x00"...)
	greet = append(greet, 0x0f, 0xa2, 45, 2, 0, 0x0f, 0x00, 21)
	greet = append(append(greet, make([]byte, 10)...), "bbbbbbbbbbbb\x00mysql_native_password\x00"...)
	packet(0, greet)
	if _, ok := read(); !ok {
		return
	}
	packet(2, []byte{0, 0, 0, 2, 0, 0, 0})
	for {
		p, ok := read()
		if !ok {
			return
		}
		packet(p[3]+1, append([]byte{0xfb}, "/etc/passwd"...))
	}
}
