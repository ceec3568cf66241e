package sqldb

import (
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/fairleadhq/fairlead/internal/testenv/servers"
	"github.com/fairleadhq/fairlead/protocol"
)

// attacks of security.md 4.C. Each must be refused, or at least change nothing: the checksum decides.
var pgAttacks = []struct{ id, sql string }{
	{"C1 two statements", "commit; delete from notes"},
	{"C1 two selects", "select 1; delete from notes"},
	{"C2 set transaction", "set transaction read write"},
	{"C3 commit", "commit"}, {"C3 rollback", "rollback"}, {"C3 end", "end"}, {"C3 abort", "abort"}, {"C3 begin", "begin read write"},
	{"C3 savepoint", "savepoint a"}, {"C3 prepare transaction", "prepare transaction 'x'"},
	{"C4 copy program", "copy (select 1) to program 'id > /tmp/flpwn'"}, {"C4 copy file", "copy (select 1) to '/tmp/flpwn'"},
	{"C5 lo_export", "select lo_export(lo_from_bytea(0, 'x'), '/tmp/flpwn')"}, {"C5 read file", "select pg_read_file('/etc/passwd')"},
	{"C5 ls dir", "select pg_ls_dir('/')"}, {"C5 reload", "select pg_reload_conf()"}, {"C5 terminate", "select pg_terminate_backend(1)"},
	{"C5 nested function", "select * from (select upper((select pg_read_file('/etc/passwd'))) ) x"},
	{"C6 large object", "select lo_from_bytea(0, 'x')"}, {"C6 notify", "select pg_notify('a', 'b')"}, {"C6 advisory lock", "select pg_advisory_lock(1)"},
	{"C6 lock table", "lock table people in access exclusive mode"}, {"C6 emit", "select pg_logical_emit_message(false, 'a', 'b')"},
	{"C6 nextval", "select nextval('notes_id_seq')"}, {"C6 setval", "select setval('notes_id_seq', 1000)"},
	{"C7 set role", "set role postgres"}, {"C7 session authorization", "set session authorization postgres"}, {"C7 search path", "set search_path = x"},
	{"C7 set config", "select set_config('transaction_read_only', 'off', false)"}, {"C7 do", "do $$ begin delete from notes; end $$"}, {"C7 call", "call x()"},
	{"C7 explain analyze", "explain analyze delete from notes"}, {"C7 writable cte", "with x as (delete from notes returning *) select * from x"},
	{"C7 select into", "select * into stolen from people"}, {"C7 for update", "select * from people for update"}, {"C7 create table as", "create table x as select 1"},
	{"C8 comment", "/* select */ delete from notes"}, {"C8 nested comment", "/* /* */ select 1 */ delete from notes"}, {"C8 bom", "\ufeffdelete from notes"},
	{"C8 nul", "select 1\x00; delete from notes"}, {"C8 dollar quotes", "select $a$ ; $a$; delete from notes"}, {"C8 escape", `select '\\'; delete from notes --'`},
	{"C8 semicolons", ";;delete from notes"}, {"C8 padding", strings.Repeat(" ", 1<<20) + "delete from notes"},
	{"plain insert", "insert into notes(body) values ('x')"}, {"plain update", "update people set ssn = null"}, {"plain delete", "delete from notes"},
	{"truncate", "truncate notes"}, {"drop", "drop table notes"}, {"grant", "grant all on people to public"}, {"merge", "merge into notes using people on true when matched then delete"},
	{"execute", "execute x"}, {"prepare", "prepare x as delete from notes"}, {"declare", "declare c cursor with hold for select 1"}, {"vacuum", "vacuum notes"},
	{"refresh", "refresh materialized view x"}, {"comment on", "comment on table notes is 'x'"}, {"listen", "listen a"}, {"discard", "discard all"}, {"reset", "reset all"},
}

// pgChecksum covers all rows of all tables, the sequences, the large objects and the roles.
func pgChecksum(t *testing.T, s *servers.Server) string {
	t.Helper()
	conn := pgConnect(t, s, s.User, s.Password)
	h := sha256.New()
	for _, sql := range []string{
		"select string_agg(x::text, '|' order by x.id) from people x", "select string_agg(x::text, '|' order by x.id) from notes x",
		"select last_value, is_called from notes_id_seq", "select count(*) from pg_largeobject_metadata",
		"select string_agg(relname || coalesce(relacl::text, ''), '|' order by oid) from pg_class where relnamespace = 'public'::regnamespace and relname !~ '^c2[36]'",
		"select string_agg(r::text, '|' order by rolname) from pg_roles r", "select string_agg(n::text, '|' order by name) from pg_settings n where source not in ('session','client')",
	} {
		res, err := conn.Exec(context.Background(), sql).ReadAll()
		if err != nil {
			t.Fatal(sql, err)
		}
		for _, row := range res[0].Rows {
			fmt.Fprintf(h, "%q", row)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestReadOnlyProfileChangesNothingOnPostgreSQL(t *testing.T) {
	s := pgServer(t)
	// The role of this profile could write, so that it is the guard and not the role that is tried.
	cfg := pgProfile(s, "writer", "w")
	for name, db := range map[string]*DB{"reading role": reader(t), "writing role": open(t, cfg)} {
		t.Run(name, func(t *testing.T) {
			before := pgChecksum(t, s)
			for _, a := range pgAttacks {
				t.Run(a.id, func(t *testing.T) {
					for _, op := range []protocol.Operation{protocol.OpQuery, protocol.OpExec, protocol.OpTransaction} {
						if got := do(t, db, call(op, allowed, protocol.Statement{SQL: a.sql})); got.Err == nil {
							t.Errorf("%s ran: %+v", op, got)
						}
					}
				})
			}
			if after := pgChecksum(t, s); after != before {
				t.Error("the database has changed")
			}
			if _, err := os.Stat("/tmp/flpwn"); err == nil {
				t.Error("a file was written")
			}
		})
	}
}

// The classifier is one layer of five. Without it the transaction alone must hold against what it was made for.
func TestTransactionHoldsWithoutTheClassifier(t *testing.T) {
	s := pgServer(t)
	before := pgChecksum(t, s)
	db := open(t, pgProfile(s, "writer", "w"))
	for _, sql := range []string{"delete from notes", "commit; delete from notes", "set transaction read write", "commit", "rollback", "truncate notes",
		"with x as (delete from notes returning *) select * from x", "begin read write", "select nextval('notes_id_seq')",
		"select set_config('transaction_read_only', 'off', true)", "select set_config('transaction_read_only', 'off', false)"} {
		sess, err := db.pool.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := newStream(&discard{h: map[string][]string{}}, 0, 0)
		if err := sess.query(t.Context(), &bound{sql: sql}, out); err == nil {
			t.Errorf("%s ran", sql)
		}
		out.stop()
		sess.close()
	}
	if pgChecksum(t, s) != before {
		t.Error("the database has changed")
	}
}

func TestRoleWithTooManyRightsIsRefused(t *testing.T) {
	s := pgServer(t)
	const pgRoles, myUsers = "boss, maker, filer, heir, repl", "filer@'%', editor@'%'"
	pgAdmin(t, s, "drop role if exists "+pgRoles) // left by a run before in this process
	pgAdmin(t, s, `create role boss login password 'x' superuser; create role maker login password 'x' createrole createdb; create role filer login password 'x';
grant pg_read_server_files to filer; create role heir login password 'x' noinherit; grant boss to heir; create role repl login password 'x' replication bypassrls;`)
	for user, want := range map[string][]string{
		"boss": {"SUPERUSER", "ALTER ROLE <role> NOSUPERUSER"}, "maker": {"CREATEROLE; CREATEDB", "NOCREATEDB"}, "heir": {"member of boss"},
		"filer": {"member of pg_read_server_files", `REVOKE "pg_read_server_files" FROM <role>`}, "repl": {"REPLICATION; BYPASSRLS"},
	} {
		a := query(t, open(t, pgProfile(s, user, "x")), "select 1")
		if a.code() != protocol.CodeDenied || a.Err.Rule != "database.test.username" {
			t.Errorf("%s: %+v", user, a.Err)
			continue
		}
		for _, w := range want {
			if !strings.Contains(a.Err.Message+a.Err.Hint, w) {
				t.Errorf("%s: %q is not in %q %q", user, w, a.Err.Message, a.Err.Hint)
			}
		}
	}
	my := myServer(t)
	myAdmin(t, my, "drop user if exists "+myUsers+"; drop role if exists editors")
	myAdmin(t, my, `create user filer@'%' identified by 'x'; grant select on test.* to filer@'%'; grant file on *.* to filer@'%';
create role editors; grant insert on test.* to editors; create user editor@'%' identified by 'x'; grant select on test.* to editor@'%'; grant editors to editor@'%'; set default role editors for editor@'%';`)
	for user, c := range map[string][2]string{"admin": {my.Password, "ALL PRIVILEGES"}, "writer": {"w", "INSERT, UPDATE, DELETE ON `test`.*"}, "filer": {"x", "FILE ON *.*"},
		"editor": {"x", "INSERT ON `test`.*"}} {
		a := query(t, open(t, myProfile(my, user, c[0])), "select 1")
		if a.code() != protocol.CodeDenied || !strings.Contains(a.Err.Message, c[1]) || !strings.Contains(a.Err.Hint, "REVOKE") {
			t.Errorf("MariaDB %s: %+v", user, a.Err)
		}
	}
}

var myAttacks = []struct{ id, sql string }{
	{"C11 create", "create table x(a int)"}, {"C11 drop", "drop table notes"}, {"C11 truncate", "truncate notes"}, {"C11 alter", "alter table notes add z int"},
	{"C11 rename", "rename table notes to x"}, {"C12 begin", "begin"}, {"C12 commit", "commit"}, {"C12 set transaction", "set session transaction read write"},
	{"C12 lock tables", "lock tables notes write"}, {"C12 set autocommit", "set autocommit = 1"}, {"C12 start transaction", "start transaction read write"},
	{"C13 outfile", "select * from people into outfile '/tmp/flpwn'"}, {"C13 dumpfile", "select 'x' into dumpfile '/tmp/flpwn'"}, {"C13 load file", "select load_file('/etc/passwd')"},
	{"C13 set global", "set global general_log = 1"}, {"C13 into variable", "select 1 into @a"}, {"C15 two statements", "select 1; delete from notes"},
	{"C15 version comment", "select 1 /*!50000 ; delete from notes */"}, {"C15 comment delete", "/*! delete from notes */"}, {"C15 mariadb comment", "/*M! delete from notes */"},
	{"load data", "load data local infile '/etc/passwd' into table notes"}, {"insert", "insert into notes(body) values('x')"}, {"update", "update people set ssn=''"},
	{"delete", "delete from notes"}, {"replace", "replace into notes(id) values(1)"}, {"call", "call x()"}, {"handler", "handler notes open"}, {"do sleep", "do sleep(1)"},
	{"for update", "select * from people for update"}, {"lock in share mode", "select * from people lock in share mode"}, {"get_lock", "select get_lock('a', 1)"},
	{"prepare", "prepare s from 'delete from notes'"}, {"execute immediate", "execute immediate 'delete from notes'"}, {"grant", "grant all on *.* to reader@'%'"},
	{"explain analyze", "analyze delete from notes"}, {"user variable", "select @a := 1"}, {"nextval", "select nextval(s)"}, {"kill", "kill 1"}, {"flush", "flush tables"},
	{"backslash", `select '\'; delete from notes -- '`}, {"hash comment", "# select\ndelete from notes"},
}

func myChecksum(t *testing.T, s *servers.Server) string {
	t.Helper()
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.DBName = s.User, s.Password, "tcp", s.Addr(), s.Database
	connector, err := mysql.NewConnector(c)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connector.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h := sha256.New()
	for _, sql := range []string{"select * from people order by id", "select * from notes order by id", "select table_name, auto_increment from information_schema.tables where table_schema = 'test' and table_name <> 'types'",
		"select user, host, authentication_string from mysql.user order by 1, 2", "select @@global.general_log, @@global.read_only"} {
		rows, err := conn.(driver.QueryerContext).QueryContext(t.Context(), sql, nil)
		if err != nil {
			t.Fatal(sql, err)
		}
		values := make([]driver.Value, len(rows.Columns()))
		for rows.Next(values) != io.EOF {
			fmt.Fprintf(h, "%q", values)
		}
		rows.Close()
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestReadOnlyProfileChangesNothingOnMariaDB(t *testing.T) {
	s := myServer(t)
	db := myReader(t)
	before := myChecksum(t, s)
	for _, a := range myAttacks {
		t.Run(a.id, func(t *testing.T) {
			for _, op := range []protocol.Operation{protocol.OpQuery, protocol.OpExec} {
				if got := do(t, db, call(op, allowed, protocol.Statement{SQL: a.sql})); got.Err == nil {
					t.Errorf("%s ran: %+v", op, got)
				}
			}
		})
	}
	// The role and the transaction must hold without the classifier too.
	for _, a := range myAttacks {
		sess, err := db.pool.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := newStream(&discard{h: map[string][]string{}}, 0, 0)
		_ = sess.query(t.Context(), &bound{sql: a.sql}, out)
		out.stop()
		sess.close()
	}
	if myChecksum(t, s) != before {
		t.Error("the database has changed")
	}
}

var sqliteAttacks = []struct{ id, sql string }{
	{"C21 vacuum into", "vacuum into '%s'"}, {"C21 attach", "attach '%s' as x"}, {"C21 query_only", "pragma query_only = 0"}, {"C21 extension", "select load_extension('x')"},
	{"C21 writable schema", "pragma writable_schema = 1"}, {"C21 pragma function", "select * from pragma_query_only(0)"}, {"detach", "detach main"}, {"insert", "insert into notes(body) values ('x')"},
	{"delete", "delete from notes"}, {"commit", "commit"}, {"begin", "begin exclusive"}, {"two statements", "select 1; delete from notes"}, {"drop", "drop table notes"},
	{"temp table", "create temp table x(a)"}, {"writefile", "select writefile('%s', 'x')"}, {"reindex", "reindex"}, {"journal", "pragma journal_mode = delete"}, {"user_version", "pragma user_version = 9"},
	{"cte delete", "with x as (select 1) delete from notes"}, {"returning", "delete from notes returning id"},
}

func TestReadOnlyProfileChangesNothingOnSQLite(t *testing.T) {
	path := sqliteFile(t, sqlitePeople+"insert into notes(body) values ('a');")
	before, _ := os.ReadFile(path)
	for _, mode := range []string{ModeReadOnly, ModeReadWrite} {
		db := open(t, Config{Adapter: SQLite, Path: path, Mode: mode})
		for _, a := range sqliteAttacks {
			t.Run(mode+" "+a.id, func(t *testing.T) {
				text := a.sql
				if strings.Contains(text, "%s") {
					text = fmt.Sprintf(text, path+".stolen")
				}
				if got := query(t, db, text); got.Err == nil {
					t.Errorf("ran: %+v", got)
				}
				// The handle alone must hold too, without the classifier.
				sess, err := newSQLite(t.Context(), &db.cfg, quiet(), path, "ro")
				if err != nil {
					t.Fatal(err)
				}
				defer sess.close()
				out := newStream(&discard{h: map[string][]string{}}, 0, 0)
				defer out.stop()
				_ = sess.query(t.Context(), &bound{sql: text}, out)
			})
		}
	}
	after, _ := os.ReadFile(path)
	if string(after) != string(before) {
		t.Error("the database has changed")
	}
	if _, err := os.Stat(path + ".stolen"); err == nil {
		t.Error("a file was written")
	}
}
