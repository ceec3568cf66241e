package statement

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"

	"github.com/fairleadhq/fairlead/internal/testenv/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

const pgSchema = `
drop schema if exists public cascade;
create schema public;
create table t (a int primary key, b int, c text, arr int[], r int4range, q int4range, ip inet, ts timestamptz, d bytea,
	status text, update_count int, delete_flag bool, into_stock int, data jsonb, created_at timestamptz, updated_at timestamptz,
	set_date date, call_log text, deleted bool, name text);
create table u (a int, b int, c text);
create table docs (id int, data jsonb);
create table events (id int, ts timestamptz, c text);
create table shifts (start int, release int, lock int, load int, notify int, open int, close int, comment int, "end" int);
create table audit_marks ("delete" int);
create view v as select a from t;
create sequence s;
insert into t (a, b, c, name) values (1, 10, 'x', 'n'), (2, 20, 'y', 'm');
insert into u values (1, 1, 'y');
insert into docs values (1, '{"a": 1}');
drop role if exists writer;
create role writer login password 'writer';
grant all on schema public to writer;
grant all on all tables in schema public to writer;
grant all on all sequences in schema public to writer;
`

// pgChecksum covers the rows, the definitions, the sequence, large objects, roles, settings, locks and advisory locks.
// It runs in the connection of the role, whose transaction would see its own writes.
func pgChecksum(t *testing.T, c *pgx.Conn) string {
	t.Helper()
	h := sha256.New()
	for _, q := range []string{"select * from t order by a", "select * from u", "select * from docs", "select * from events",
		"select * from shifts", "select * from audit_marks", "select last_value, is_called from s",
		"select oid::text, relname, relkind::text, relacl::text from pg_class where relnamespace <> 'pg_toast'::regnamespace order by oid",
		"select oid::text from pg_largeobject_metadata order by 1", "select rolname::text, rolsuper from pg_roles order by 1",
		"select oid::text, proname::text from pg_proc where oid > 16384 order by 1",
		"select name, setting from pg_settings where name not like '%timeout' order by 1",
		"select mode::text from pg_locks where pid = pg_backend_pid() and mode not in ('AccessShareLock', 'ExclusiveLock') order by 1",
		"select objid::text from pg_locks where locktype = 'advisory' order by 1", "select pg_current_xact_id_if_assigned()::text",
		"select name::text from pg_prepared_statements order by 1", "select name from pg_cursors order by 1",
		"select * from pg_listening_channels() order by 1", "select current_user::text, session_user::text"} {
		rows, err := c.Query(context.Background(), q, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		for rows.Next() {
			fmt.Fprintln(h, q, rows.RawValues())
		}
		if err := rows.Err(); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// runPG sends sql by the simple protocol, which takes stacked statements, inside the open transaction, and takes a fault
// back to the savepoint.
func runPG(t *testing.T, c *pgx.Conn, sql string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := c.Exec(ctx, "savepoint sample"); err != nil {
		t.Fatal(err)
	}
	res := c.PgConn().Exec(ctx, sql)
	_, err := res.ReadAll()
	back := "release savepoint sample"
	if err != nil {
		back = "rollback to savepoint sample"
	}
	if _, e := c.Exec(ctx, back); e != nil {
		t.Fatalf("%s: %v (after %v)", sql, e, err)
	}
	return err
}

// TestReadsLeavePostgreSQLUnchanged: P3 with a role that may write, in a transaction that may write, over the protocol that
// takes several statements at once: whatever this package lets through must still change nothing.
func TestReadsLeavePostgreSQLUnchanged(t *testing.T) {
	srv := servers.PostgreSQL(t)
	ctx := context.Background()
	admin, err := pgx.Connect(ctx, srv.AdminDSN)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	if _, err := admin.PgConn().Exec(ctx, pgSchema).ReadAll(); err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(ctx, strings.Replace(srv.AdminDSN, "postgres:"+srv.Password, "writer:writer", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "begin read write"); err != nil {
		t.Fatal(err)
	}
	before, ran := pgChecksum(t, c), 0
	values := strings.NewReplacer("$1", "null", "$2", "null", "$3", "null") // the simple protocol binds none
	samples := reads(t, PostgreSQL)
	for _, b := range bypasses(t, PostgreSQL) {
		samples = append(samples, b[2]) // those that the classifier would let through, of which there must be none
	}
	for _, sql := range samples {
		if Analyze(PostgreSQL, sql).Class != ClassRead {
			continue
		}
		if strings.Contains(sql, "$$") {
			err = runPG(t, c, sql)
		} else {
			err = runPG(t, c, values.Replace(sql))
		}
		if err == nil {
			ran++
		} else {
			t.Logf("%s: %v", sql, err)
		}
		if after := pgChecksum(t, c); after != before {
			t.Fatalf("changed by %s", sql)
		}
	}
	t.Logf("%d of %d statements ran", ran, len(reads(t, PostgreSQL)))
	if ran < 80 {
		t.Errorf("only %d statements ran", ran)
	}
	// The oracle must be able to fail.
	for _, sql := range []string{"insert into u values (5)", "select nextval('s')", "select lo_create(0)", "create temp table x (a int)",
		"select pg_advisory_lock(1)", "set local work_mem = '1MB'", "select * from t for update", "listen a", "prepare p as select 1"} {
		if Analyze(PostgreSQL, sql).Class == ClassRead {
			t.Errorf("passes as a read: %s", sql)
		}
		if sql == "listen a" { // takes effect at commit
			continue
		}
		if err := runPG(t, c, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		} else if after := pgChecksum(t, c); after == before {
			t.Errorf("the checksum does not see %s", sql)
		} else {
			before = after
		}
	}
}

const mariaSchema = `
drop database if exists shop; create database shop; use shop;
create table t (a int primary key, b int, c varchar(50), d int, name varchar(20), city varchar(20), ts datetime, data json,
	password varchar(10), start int, ` + "`release` int, open int, close int, begin int, comment int, start_date date, `update` int, `delete` int, `key` int," + `
	created_at datetime, updated_at datetime, set_date date, call_log int, deleted int, values_count int, order_lock int,
	index ix (a), fulltext (c)) engine=InnoDB;
create table u (a int, b int, c varchar(50));
create view v as select a from t;
create sequence s;
insert into t (a, b, c) values (1, 10, 'x'), (2, 20, 'y');
insert into u values (1, 1, 'y');
`

func mariaChecksum(t *testing.T, c *sql.Conn) string {
	t.Helper()
	h := sha256.New()
	for _, q := range []string{"select * from t order by a", "select * from u", "select next_not_cached_value from s",
		"select table_name, create_time from information_schema.tables where table_schema = 'shop' order by 1",
		"select table_schema, count(*) from information_schema.tables group by 1 order by 1",
		"select user, host, authentication_string from mysql.user order by 1, 2", "select user, db from mysql.db order by 1, 2",
		"select variable_name, variable_value from information_schema.session_variables where variable_name not in ('TIMESTAMP'," +
			"'RAND_SEED1','RAND_SEED2','ERROR_COUNT','WARNING_COUNT','LAST_GTID','GTID_BINLOG_POS','IDENTITY','LAST_INSERT_ID'," +
			"'PSEUDO_THREAD_ID','IN_TRANSACTION') order by 1",
		"select last_insert_id(), @a, is_used_lock('a')"} {
		rows, err := c.QueryContext(context.Background(), q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		dump(t, h, q, rows)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func dump(t *testing.T, w io.Writer, q string, rows *sql.Rows) {
	t.Helper()
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		vals, ptrs := make([]sql.RawBytes, len(cols)), make([]any, len(cols))
		for i := range vals {
			ptrs[i] = &vals[i]
		}
		if err := rows.Scan(ptrs...); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(w, "%s %q\n", q, vals)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

// runMaria sends sql as it is and reads every result of it.
func runMaria(c *sql.Conn, stmt string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	rows, err := c.QueryContext(ctx, stmt)
	if err != nil {
		return err
	}
	defer rows.Close()
	for more := true; more; more = rows.NextResultSet() {
		for rows.Next() {
		}
	}
	return rows.Err()
}

// TestReadsLeaveMariaDBUnchanged: the same on MariaDB, as its superuser, with several statements at once switched on, under
// each sql_mode that moves the borders of tokens.
func TestReadsLeaveMariaDBUnchanged(t *testing.T) {
	srv := servers.MariaDB(t)
	db, err := sql.Open("mysql", srv.AdminDSN+"?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxIdleConns(0) // each mode starts with a fresh session
	for _, mode := range []string{"", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "IGNORE_SPACE", "ORACLE"} {
		t.Run("mode "+mode, func(t *testing.T) {
			ctx := context.Background()
			c, err := db.Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, q := range []string{mariaSchema, "set session sql_mode = '" + mode + "'"} {
				if _, err := c.ExecContext(ctx, q); err != nil {
					t.Fatal(err)
				}
			}
			var set string
			if err := c.QueryRowContext(ctx, "select @@sql_mode").Scan(&set); err != nil || !strings.Contains(set, mode) {
				t.Fatalf("sql_mode %q: %v", set, err)
			}
			before, ran := mariaChecksum(t, c), 0
			samples := reads(t, MySQL)
			for _, b := range bypasses(t, MySQL) {
				samples = append(samples, b[2])
			}
			for i, stmt := range samples {
				if Analyze(MySQL, stmt).Class != ClassRead {
					continue
				}
				if err := runMaria(c, stmt); err == nil {
					ran++
				} else {
					t.Logf("%s: %v", stmt, err)
				}
				if (mode == "" || i%20 == 0) && mariaChecksum(t, c) != before {
					t.Fatalf("changed by %s, or one shortly before", stmt)
				}
			}
			if mariaChecksum(t, c) != before {
				t.Fatal("changed by one of the last statements")
			}
			t.Logf("%d statements ran", ran)
			if ran < 60 {
				t.Errorf("only %d statements ran", ran)
			}
			for _, stmt := range []string{"insert into u values (5, 5, 'x')", "select nextval(s)", "select @a := 1", "select get_lock('a', 1)",
				"create table x (a int)", "select last_insert_id(7)", "set session sort_buffer_size = 65536"} {
				if err := runMaria(c, stmt); err != nil {
					t.Errorf("%s: %v", stmt, err)
				} else if after := mariaChecksum(t, c); after == before {
					t.Errorf("the checksum does not see %s", stmt)
				} else {
					before = after
				}
			}
		})
	}
}
