package sqldb

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fairleadhq/fairlead/internal/testenv/servers"
)

func pgConnect(tb testing.TB, s *servers.Server, user, password string) *pgconn.PgConn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, s.URL("postgres", user, password, s.Database)+"?sslmode=disable")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

var pgOnce sync.Once

// pgServer has two roles: reader may only select, writer may change what is in the tables.
func pgServer(tb testing.TB) *servers.Server {
	tb.Helper()
	s := servers.PostgreSQL(tb)
	pgOnce.Do(func() {
		pgAdmin(tb, s, `create role reader login password 'r'; create role writer login password 'w';
create table people(id int primary key, name text not null, ssn text, email text, salary numeric(10,2));
insert into people values (1,'Ada','111-22-3333','ada@example.com',1000.50),(2,'Bo','444-55-6666','bo@example.com',2000.25);
create table notes(id serial primary key, person int references people(id), body text);
insert into notes(person, body) values (1,'first'),(2,'second');
grant select on all tables in schema public to reader;
grant select, insert, update, delete, truncate on all tables in schema public to writer; grant usage on all sequences in schema public to writer;`)
	})
	return s
}

func reader(tb testing.TB) *DB { return open(tb, pgProfile(pgServer(tb), "reader", "r")) }

func writer(tb testing.TB) *DB {
	cfg := pgProfile(pgServer(tb), "writer", "w")
	cfg.Mode = ModeReadWrite
	return open(tb, cfg)
}

func TestPostgreSQLTypesTravelExactly(t *testing.T) {
	db := reader(t)
	for _, c := range []struct{ sql, typ, want string }{
		{"9223372036854775807::int8", "int", "9223372036854775807"},
		{"(-9223372036854775808)::int8", "int", "-9223372036854775808"},
		{"32767::int2", "int", "32767"},
		{"4294967295::oid", "int", "4294967295"},
		{"123456789012345678901234567890.123456789012345678900::numeric", "decimal", `"123456789012345678901234567890.123456789012345678900"`},
		{"'NaN'::numeric", "decimal", `"NaN"`},
		{"0.1::float8", "float", "0.1"},
		{"1e300::float8", "float", "1e+300"},
		{"5e-324::float8", "float", "5e-324"},
		{"0.1::float4", "float", "0.1"},
		{"'NaN'::float8", "float", `"NaN"`},
		{"'-infinity'::float8", "float", `"-Infinity"`},
		{"true", "bool", "true"},
		{"false", "bool", "false"},
		{"'a\"b\\c\n\té\u2028😀'::text", "text", `"a\"b\\c\n\té` + "\u2028" + `😀"`},
		{"chr(1)", "text", `"\u0001"`},
		{"''::text", "text", `""`},
		{"'\\x00ff10'::bytea", "bytes", `"AP8Q"`},
		{"''::bytea", "bytes", `""`},
		{"'2024-02-29 12:34:56.123456+02'::timestamptz", "timestamptz", `"2024-02-29T10:34:56.123456Z"`},
		{"'infinity'::timestamptz", "timestamptz", `"infinity"`},
		{"'0044-03-15 12:00:00 BC'::timestamp", "timestamp", `"0044-03-15 12:00:00 BC"`},
		{"'2024-02-29 12:34:56.5'::timestamp", "timestamp", `"2024-02-29T12:34:56.5"`},
		{"'2024-02-29'::date", "date", `"2024-02-29"`},
		{"'23:59:59.999999'::time", "time", `"23:59:59.999999"`},
		{"'1 year 2 days 03:04:05'::interval", "interval", `"1 year 2 days 03:04:05"`},
		{`'{"a": [1, 2.50, "x"]}'::json`, "json", `{"a": [1, 2.50, "x"]}`},
		{`E'{"a":\n1}'::json`, "json", `{"a": 1}`},
		{`'{"b":1e2}'::jsonb`, "json", `{"b": 100}`},
		{"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "uuid", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
		{"array[1,null,3]", "int[]", "[1,null,3]"},
		{"array[[1,2],[3,4]]", "int[]", "[[1,2],[3,4]]"},
		{"'{}'::int[]", "int[]", "[]"},
		{"'[2:3]={7,8}'::int[]", "int[]", "[7,8]"},
		{`array['a,b','c"d','NULL',null,'{x}','']`, "text[]", `["a,b","c\"d","NULL",null,"{x}",""]`},
		{"array['NaN'::float8, 1.5]", "float[]", `["NaN",1.5]`},
		{"array[true,false]", "bool[]", "[true,false]"},
		{"array['\\x00ff'::bytea]", "bytes[]", `["AP8="]`},
		{`array['{"a":1}'::jsonb]`, "json[]", `[{"a": 1}]`},
		{"array['2024-01-01 00:00:00+00'::timestamptz]", "timestamptz[]", `["2024-01-01T00:00:00Z"]`},
		{"array['(1,1),(0,0)'::box, '(2,2),(1,1)'::box]", "text[]", `["(1,1),(0,0)","(2,2),(1,1)"]`},
		{"null::int", "int", "null"},
		{"'1.2.3.4/8'::inet", "text", `"1.2.3.4/8"`},
		{"int4range(1,5)", "text", `"[1,5)"`},
		{"row(1,'x')", "text", `"(1,x)"`},
		{"'$1.50'::money", "text", `"$1.50"`},
		{"b'101'", "text", `"101"`},
	} {
		a := query(t, db, "select "+c.sql+" as v")
		if a.Err != nil {
			t.Errorf("%s: %v", c.sql, a.Err)
			continue
		}
		if got := a.Columns[0].Type; got != c.typ {
			t.Errorf("%s: wire type %s, want %s (%s)", c.sql, got, c.typ, a.Columns[0].Database)
		}
		if got := a.Rows[0]; got != "["+c.want+"]" {
			t.Errorf("%s: %s, want [%s]", c.sql, got, c.want)
		}
	}
}

func TestPostgreSQLQuery(t *testing.T) {
	db := reader(t)
	a := query(t, db, "select id, name from people where id = $1 or name = $2 order by id", 1, "Bo")
	if a.Err != nil || strings.Join(a.Rows, "") != `[1,"Ada"][2,"Bo"]` {
		t.Fatalf("%v %v", a.Err, a.Rows)
	}
	if a := query(t, db, "select 1 where false"); a.Err != nil || len(a.Rows) != 0 || len(a.Columns) != 1 {
		t.Errorf("empty result: %+v", a)
	}
	if a := query(t, db, "select nope from people"); a.Err == nil || a.Err.Detail != "42703" || a.Err.Message != "no such column, at character 8 of the statement" {
		t.Errorf("undefined column: %+v", a.Err)
	}
	if a := query(t, db, "select id from people where id = $1"); a.code() != "invalid" {
		t.Errorf("missing argument: %+v", a.Err)
	}
	if a := query(t, db, "select 1/(id-1) from people order by id"); a.Err == nil || a.Err.Detail != "22012" {
		t.Errorf("error: %+v", a.Err)
	}
}

func TestManyRowsThenError(t *testing.T) {
	a := query(t, reader(t), "select 1/(5000-g) from generate_series(1,10000) g")
	if a.Err == nil || a.Err.Detail != "22012" || len(a.Rows) == 0 || a.Outcome.Code != a.Err.Code {
		t.Fatalf("%d rows, %+v", len(a.Rows), a.Err)
	}
}

func BenchmarkPostgreSQLNarrowRows(b *testing.B) {
	db := reader(b)
	const rows = 5_000_000
	sql := fmt.Sprintf("select g, 'row number ' || g from generate_series(1,%d) g", rows)
	b.Run("do", func(b *testing.B) {
		for b.Loop() {
			benchDo(b, db, sql, rows)
		}
		b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("pgx", func(b *testing.B) {
		for b.Loop() {
			benchPgx(b, pgServer(b), sql, rows)
		}
		b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
}
