package statement

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"modernc.org/sqlite"
)

// target is a writable SQLite database in memory, behind one connection.
type target struct {
	db   *sql.DB
	conn *sql.Conn
	sum  string
}

const sqliteSchema = `
create table t (a integer primary key, b int, c text);
create table u (a int, b int, c text);
create table kv (start int, release int, key text, value text);
create index ix on t (a, b);
create view v as select a from t;
create trigger tr after insert on u begin update t set b = b + 1; end;
insert into t values (1, 10, '{"a": 1}'), (2, 20, 'x'), (3, 30, null);
insert into u values (1, 1, 'y'), (2, 2, 'z');
pragma user_version = 7;
`

func newTarget(t testing.TB) *target {
	t.Helper()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	ctx := context.Background()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for id, most := range map[int]int{0: 1 << 20, 3: 50, 9: 100} { // bytes of a value, expression depth, variables
		if _, err := sqlite.Limit(conn, id, most); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.ExecContext(ctx, sqliteSchema); err != nil {
		t.Fatal(err)
	}
	g := &target{db: db, conn: conn}
	t.Cleanup(func() { g.conn.Close(); g.db.Close() })
	g.sum = g.checksum(t)
	return g
}

// checksum covers the schema, every row, every setting and SQLite's own count of changed rows.
func (g *target) checksum(t testing.TB) string {
	t.Helper()
	h := sha256.New()
	for _, q := range []string{"select * from sqlite_schema order by 1, 2", "select * from t order by a", "select * from u order by a",
		"select * from kv", "select * from sqlite_temp_schema", "select total_changes()", "pragma database_list",
		"pragma user_version", "pragma application_id", "pragma schema_version", "pragma journal_mode", "pragma query_only",
		"pragma writable_schema", "pragma foreign_keys", "pragma encoding", "pragma synchronous", "pragma temp_store",
		"pragma cache_size", "pragma trusted_schema", "pragma recursive_triggers", "pragma locking_mode", "pragma page_count",
		"pragma busy_timeout", "pragma secure_delete", "pragma defer_foreign_keys", "pragma ignore_check_constraints"} {
		rows, err := g.conn.QueryContext(context.Background(), q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		cols, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(h, q, cols)
		for rows.Next() {
			vals, ptrs := make([]any, len(cols)), make([]any, len(cols))
			for i := range vals {
				ptrs[i] = &vals[i]
			}
			if err := rows.Scan(ptrs...); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(h, "%q\n", vals)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// run executes stmt and reads at most 1,000 rows of every result; it gives the server's error.
func (g *target) run(stmt string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	rows, err := g.conn.QueryContext(ctx, stmt, args(stmt)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for n := 0; rows.Next() && n < 1000; n++ {
	}
	return rows.Err()
}

// args fills the placeholders of the samples.
func args(stmt string) []any {
	if strings.Contains(stmt, ":name") {
		return []any{1, 2, sql.Named("name", "x")}
	}
	return nil
}

// TestReadsLeaveSQLiteUnchanged: P3 on a real SQLite that would take the write.
func TestReadsLeaveSQLiteUnchanged(t *testing.T) {
	g, ran := newTarget(t), 0
	for _, sql := range reads(t, SQLite) {
		if err := g.run(sql); err == nil {
			ran++
		} else if !strings.Contains(err.Error(), "missing argument") {
			t.Logf("%s: %v", sql, err)
		}
		if g.checksum(t) != g.sum {
			t.Fatalf("changed by %s", sql)
		}
	}
	t.Logf("%d statements ran", ran)
	if ran < 60 {
		t.Errorf("only %d statements ran", ran)
	}
}

// TestChecksumSeesChanges proves that the oracle of the tests here can fail.
func TestChecksumSeesChanges(t *testing.T) {
	for _, sql := range []string{"insert into u values (9, 9, 'w')", "delete from t where a = 1", "create table x (a)", "drop view v",
		"pragma user_version = 8", "pragma query_only = 1", "pragma foreign_keys = 1", "create temp table x (a)",
		"attach ':memory:' as x", "analyze", "update t set b = b", "pragma writable_schema = 1"} {
		g := newTarget(t)
		if err := g.run(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if g.checksum(t) == g.sum {
			t.Errorf("not seen: %s", sql)
		}
	}
}

// FuzzSQLite runs what passes as a read on a real, writable database and looks for any change.
func FuzzSQLite(f *testing.F) {
	for _, sql := range reads(f, SQLite) {
		f.Add(sql)
	}
	for _, b := range bypasses(f, SQLite) {
		if len(b[2]) < 300 {
			f.Add(b[2])
		}
	}
	for _, sql := range append(lines(f, "write", "all.txt"), lines(f, "write", "sqlite.txt")...) {
		f.Add(sql)
		f.Add("select 1 /* */ -- \n " + sql)
		f.Add("with x as (select 1) " + sql)
		f.Add("select 'a''', \"b\"\"\", [c], `d` from t " + sql)
	}
	g := newTarget(f)
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 1000 || Analyze(SQLite, sql).Class != ClassRead {
			return
		}
		_ = g.run(sql) // most mutations are faulty; only their effect matters
		if g.checksum(t) != g.sum {
			g = newTarget(f)
			t.Fatalf("changed by %q", sql)
		}
	})
}
