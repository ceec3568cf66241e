package statement

import (
	"reflect"
	"strings"
	"testing"
)

func TestFingerprint(t *testing.T) {
	for _, c := range []struct {
		d         Dialect
		sql, want string
	}{
		{PostgreSQL, "SELECT  id, Name FROM users -- all of them\nWHERE id IN (1,2, 3) AND pw='it''s' ;",
			"select id, name from users where id in (?) and pw = ?;"},
		{PostgreSQL, "select $$secret$$, E'a\\'b', -5, - 5, a-5, x'ff', 1e9 from \"My Table\"",
			"select ?, a - ?, ? from \"My Table\""},
		{PostgreSQL, "select data->>'k' from t where tags ?| array['a','b'] and n=-1",
			"select data ->> ? from t where tags ?| array[?] and n = ?"},
		{MySQL, "select * from `t` where name = \"bob\" and x = 0xFF # gone", "select * from `t` where name = ? and x = ?"},
		{MySQL, "insert into t (a,b) values (1,'x'),(2,'y'),(3,'z')", "insert into t(a, b) values (?)"},
		{SQLite, "select \"a\".\"b\" from \"a\" where c = \"secret\"", "select \"a\".\"b\" from \"a\" where c = ?"},
		{PostgreSQL, "select count( * ), t.*, a*b, 2 * -3 from t", "select count(*), t.*, a * b, ? * ? from t"},
		{Oracle, "select q'[it's]' from dual where a = :1", "select ? from dual where a = ?"},
		{SQLServer, "select [a b] from dbo.[t] where c = N'x' /* c */", "select [a b] from dbo.[t] where c = ?"},
	} {
		if got := Analyze(c.d, c.sql).Fingerprint; got != c.want {
			t.Errorf("%s %s\n got %s\nwant %s", c.d, c.sql, got, c.want)
		}
	}
	if got := Analyze(PostgreSQL, "select 'open").Fingerprint; !strings.HasPrefix(got, "[unparsed sha256:") ||
		!strings.HasSuffix(got, " 12 bytes]") {
		t.Errorf("unparsed: %s", got)
	}
}

func TestVerbAndTables(t *testing.T) {
	for _, c := range []struct {
		d         Dialect
		sql, verb string
		tables    []string
	}{
		{PostgreSQL, "select * from public.orders o join \"Line Items\" l on l.o = o.id, customers c where x in (select y from z)",
			"select", []string{"public.orders", "customers", "Line Items", "z"}},
		{PostgreSQL, "with a as (select * from t1) select extract(year from ts) from a left join t2 using (id)",
			"select", []string{"t1", "t2"}},
		{PostgreSQL, "insert into logs (a) select b from src", "insert", []string{"logs", "src"}},
		{PostgreSQL, "update only accounts set n = 1", "update", []string{"accounts"}},
		{MySQL, "create table if not exists x (a int)", "create table", []string{"x"}},
		{SQLServer, "select * from [dbo].[Order Details]", "select", []string{"dbo.Order Details"}},
		{PostgreSQL, "hunter2 select", "", nil},
	} {
		a := Analyze(c.d, c.sql)
		if a.Verb != c.verb || !reflect.DeepEqual(a.Tables, c.tables) {
			t.Errorf("%s: verb %q tables %q", c.sql, a.Verb, a.Tables)
		}
	}
}
