package sqldb

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
)

// sqliteFile makes a database with the statements given.
func sqliteFile(tb testing.TB, script string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "a b?%#.db")
	pool, err := sql.Open("sqlite", sqliteDSN(path, "rwc"))
	if err != nil {
		tb.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(script); err != nil {
		tb.Fatal(err)
	}
	return path
}

const sqlitePeople = `create table people(id integer primary key, name text not null, ssn text, born date, at timestamp, photo blob, pay decimal(10,2));
insert into people values (1,'Ada','111-22-3333','1815-12-10','2024-01-02 03:04:05.600',x'00ff',10.5),(2,'Bo','444-55-6666',null,1700000000,null,'x');
create table notes(id integer primary key autoincrement, person int references people(id), body text);
create view v as select id, name from people;`

func TestSQLiteTypesTravelExactly(t *testing.T) {
	db := open(t, Config{Adapter: SQLite, Path: sqliteFile(t, sqlitePeople)})
	a := query(t, db, "select * from people order by id desc; -- end")
	if a.Err != nil || strings.Join(a.Rows, "\n") != `[2,"Bo","444-55-6666",null,1700000000,null,"x"]`+"\n"+
		`[1,"Ada","111-22-3333","1815-12-10","2024-01-02 03:04:05.600","AP8=",10.5]` {
		t.Errorf("%v %s", a.Err, strings.Join(a.Rows, "\n"))
	}
	var types []string
	for _, c := range a.Columns {
		types = append(types, c.Name+" "+c.Type+" "+c.Database)
	}
	if got := strings.Join(types, ", "); got != "id int INTEGER, name text TEXT, ssn text TEXT, born any date, at any timestamp, photo bytes BLOB, pay any decimal(10,2)" &&
		got != "id int integer, name text text, ssn text text, born any date, at any timestamp, photo bytes blob, pay any decimal(10,2)" {
		t.Error(got)
	}
	for _, c := range []struct{ sql, want string }{
		{"9223372036854775807", "9223372036854775807"}, {"-9223372036854775808", "-9223372036854775808"},
		{"1e999", `"Infinity"`}, {"0.1", "0.1"}, {"x'00ff'", `{"type":"bytes","value":"AP8="}`}, {"null", "null"}, {"'a''b'", `"a'b"`},
	} {
		if a := query(t, db, "select "+c.sql); a.Err != nil || a.Rows[0] != "["+c.want+"]" {
			t.Errorf("%s: %v %v", c.sql, a.Err, a.Rows)
		}
	}
	if a := query(t, db, "select ?, ?, ?, ?, typeof(?)", int64(1)<<62, "x", nil, true, map[string]string{"type": "bytes", "value": "AP8="}); a.Err != nil ||
		a.Rows[0] != `[4611686018427387904,"x",null,1,"blob"]` {
		t.Errorf("%v %v", a.Err, a.Rows)
	}
}

func TestSQLiteExecAndTransaction(t *testing.T) {
	db := open(t, Config{Adapter: SQLite, Mode: ModeReadWrite, Path: sqliteFile(t, sqlitePeople)})
	if a := execute(t, db, "insert into notes(person, body) values (?, ?)", 1, "hello"); a.Err != nil || a.Rows[0] != `{"rows_affected":1,"last_insert_id":1}` {
		t.Fatalf("%v %v", a.Err, a.Rows)
	}
	a := do(t, db, call(protocol.OpTransaction, allowed, protocol.Statement{SQL: "update people set name = 'X'"},
		protocol.Statement{SQL: "insert into notes(person) values (99)"}))
	if a.code() != protocol.CodeConflict || !strings.HasPrefix(a.Err.Message, "statement 2 of 2, of which none took effect") {
		t.Fatalf("%+v", a.Err)
	}
	if a := query(t, db, "select name from people where id = 1"); a.Rows[0] != `["Ada"]` {
		t.Errorf("half a transaction took effect: %v", a.Rows)
	}
	if a := query(t, db, "update people set name = 'X' returning id"); a.code() != protocol.CodeDenied {
		t.Errorf("query wrote: %+v", a)
	}
}

func TestSQLiteSchema(t *testing.T) {
	db := open(t, Config{Adapter: SQLite, Path: sqliteFile(t, sqlitePeople)})
	a := do(t, db, call(protocol.OpSchema, allowed))
	for _, want := range []string{`{"name":"notes","type":"table","columns":[{"name":"id","type":"INTEGER","nullable":false}`,
		`"primary_key":["id"],"foreign_keys":[{"columns":["person"],"references":"people","to":["id"]}]`, `{"name":"v","type":"view"`} {
		if a.Err != nil || !strings.Contains(a.Rows[0], want) {
			t.Errorf("%v: %s is not in %s", a.Err, want, a.Rows)
		}
	}
}
