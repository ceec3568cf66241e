package sqldb

import (
	"context"
	"database/sql/driver"
	"strings"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv/servers"
	"github.com/fairleadhq/fairlead/protocol"
)

func myProfile(s *servers.Server, user, password string) Config {
	return Config{Adapter: MySQL, Host: s.Host, Port: s.Port, Database: s.Database, Username: user, Password: secret.FromString(password), CAFile: s.CAFile}
}

// myAdmin runs statements as the superuser, several in one text, and gives the rows of the last.
func myAdmin(tb testing.TB, s *servers.Server, sql string) {
	tb.Helper()
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.DBName, c.MultiStatements = s.User, s.Password, "tcp", s.Addr(), s.Database, true
	connector, err := mysql.NewConnector(c)
	if err != nil {
		tb.Fatal(err)
	}
	conn, err := connector.Connect(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.(driver.ExecerContext).ExecContext(context.Background(), sql, nil); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

var myOnce sync.Once

func myServer(tb testing.TB) *servers.Server {
	tb.Helper()
	s := servers.MariaDB(tb)
	myOnce.Do(func() {
		myAdmin(tb, s, `create table people(id int primary key, name varchar(100) not null, ssn varchar(20), email varchar(100), salary decimal(10,2));
insert into people values (1,'Ada','111-22-3333','ada@example.com',1000.50),(2,'Bo','444-55-6666','bo@example.com',2000.25);
create table notes(id int auto_increment primary key, person int, body text, constraint whose foreign key (person) references people(id));
insert into notes(person, body) values (1,'first'),(2,'second');
create user reader@'%' identified by 'r'; grant select, show view on test.* to reader@'%';
create user writer@'%' identified by 'w'; grant select, insert, update, delete on test.* to writer@'%';`)
	})
	return s
}

func myReader(tb testing.TB) *DB { return open(tb, myProfile(myServer(tb), "reader", "r")) }

func myWriter(tb testing.TB) *DB {
	cfg := myProfile(myServer(tb), "writer", "w")
	cfg.Mode = ModeReadWrite
	return open(tb, cfg)
}

func TestMariaDBTypesTravelExactly(t *testing.T) {
	s := myServer(t)
	myAdmin(t, s, `create or replace table types(
 c01 bigint, c02 bigint unsigned, c03 tinyint, c04 tinyint unsigned, c05 mediumint, c06 year, c07 decimal(65,30), c08 float, c09 double,
 c10 varchar(50), c11 text, c12 varbinary(10), c13 blob, c14 bit(9), c15 date, c16 datetime(6), c17 timestamp(6) null, c18 time(6),
 c19 enum('a','b'), c20 set('x','y'), c21 json, c22 char(5), c23 datetime) character set utf8mb4;
set time_zone = '+02:00';
insert into types values (9223372036854775807, 18446744073709551615, -128, 255, -8388608, 2024, 12345678901234567890123456789012345.123456789012345678901234567890,
 16777216, 1e300, 'é"\\', 'line\nbreak', x'00ff', x'', b'100000001', '9999-12-31', '2024-02-29 12:34:56.123456', '2024-02-29 12:34:56.5', '-838:59:58.5',
 'b', 'x,y', '{"a":1.50}', 'ab', '0000-00-00'),
 (-9223372036854775808, 0, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null);`)
	a := query(t, myReader(t), "select * from types order by c01 desc")
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	want := `[9223372036854775807,18446744073709551615,-128,255,-8388608,2024,"12345678901234567890123456789012345.123456789012345678901234567890",` +
		`16777216,1e+300,"é\"\\","line\nbreak","AP8=","","AQE=","9999-12-31","2024-02-29T12:34:56.123456","2024-02-29T10:34:56.500000Z","-838:59:58.500000",` +
		`"b","x,y","{\"a\":1.50}","ab","0000-00-00 00:00:00"]`
	if a.Rows[0] != want {
		t.Errorf("got\n%s, want\n%s", a.Rows[0], want)
	}
	if want := `[-9223372036854775808,0` + strings.Repeat(",null", 21) + `]`; a.Rows[1] != want {
		t.Errorf("got %s, want %s", a.Rows[1], want)
	}
	var types []string
	for _, c := range a.Columns {
		types = append(types, c.Type)
	}
	if got := strings.Join(types, " "); got != "int int int int int int decimal float float text text bytes bytes bytes date timestamp timestamptz time text text text text timestamp" {
		t.Error(got)
	}
}

func TestMariaDBArguments(t *testing.T) {
	a := query(t, myReader(t), "select ?, ?, ?, ?, hex(?), cast(? as decimal(20,10)), cast(? as datetime(3))", "x' or 1=1 --", 42, true, nil,
		map[string]string{"type": "bytes", "value": "AP8="}, map[string]string{"type": "decimal", "value": "1.0000000001"},
		map[string]string{"type": "timestamptz", "value": "2024-01-01T02:00:00.125+02:00"})
	if a.Err != nil || a.Rows[0] != `["x' or 1=1 --",42,1,null,"00FF","1.0000000001","2024-01-01T00:00:00.125"]` {
		t.Errorf("%v %v", a.Err, a.Rows)
	}
	if a := query(t, myReader(t), "select ?"); a.code() != protocol.CodeInvalid {
		t.Errorf("missing argument: %v", a.Err)
	}
}

func TestMariaDBExecAndTransaction(t *testing.T) {
	db := myWriter(t)
	if a := execute(t, db, "insert into notes(person, body) values (?, ?)", 1, "hello"); a.Err != nil || !strings.HasPrefix(a.Rows[0], `{"rows_affected":1,"last_insert_id":`) {
		t.Fatalf("%v %v", a.Err, a.Rows)
	}
	a := do(t, db, call(protocol.OpTransaction, allowed, protocol.Statement{SQL: "update people set name = 'X'"},
		protocol.Statement{SQL: "insert into notes(person) values (99)"}))
	if a.code() != protocol.CodeConflict || a.Err.Detail != "1452" || !strings.HasPrefix(a.Err.Message, "statement 2 of 2, of which none took effect") {
		t.Fatalf("%+v", a.Err)
	}
	if a := query(t, db, "select name from people where id = 1"); a.Err != nil || a.Rows[0] != `["Ada"]` {
		t.Errorf("half a transaction took effect: %v", a.Rows)
	}
	if a := query(t, db, "select nope from people"); a.Err == nil || a.Err.Detail != "1054" || strings.Contains(a.Err.Error(), "nope") {
		t.Errorf("%v", a.Err)
	}
}

func TestMariaDBSchema(t *testing.T) {
	a := do(t, myReader(t), call(protocol.OpSchema, allowed))
	for _, want := range []string{`{"schema":"test","name":"notes","type":"table","columns":[{"name":"id","type":"int(11)","nullable":false},{"name":"person","type":"int(11)","nullable":true}`,
		`"primary_key":["id"],"foreign_keys":[{"columns":["person"],"references":"test.people","to":["id"]}]`} {
		if a.Err != nil || !strings.Contains(a.Rows[0], want) {
			t.Errorf("%v: %s is not in %s", a.Err, want, a.Rows)
		}
	}
}

func TestGrantsThatAreTooMuch(t *testing.T) {
	for line, want := range map[string]string{
		"GRANT USAGE ON *.* TO `r`@`%` IDENTIFIED BY PASSWORD '*AB'":     "",
		"GRANT SELECT, SHOW VIEW ON `test`.* TO `r`@`%`":                 "",
		"GRANT SELECT (`a`, `b`) ON `test`.`t` TO `r`@`%`":               "",
		"GRANT SELECT (`a`), INSERT (`a`, `b`) ON `test`.`t` TO `r`@`%`": "INSERT (`a`, `b`) ON `test`.`t`",
		"GRANT ALL PRIVILEGES ON *.* TO `r`@`%` WITH GRANT OPTION":       "ALL PRIVILEGES, GRANT OPTION ON *.*",
		"GRANT SELECT ON `test`.* TO `r`@`%` WITH GRANT OPTION":          "GRANT OPTION ON `test`.*",
		"GRANT FILE, SUPER ON *.* TO `r`@`%`":                            "FILE, SUPER ON *.*",
		"GRANT EXECUTE ON PROCEDURE `test`.`p` TO `r`@`%`":               "EXECUTE ON PROCEDURE `test`.`p`",
		"GRANT PROXY ON ''@'%' TO 'root'@'localhost' WITH GRANT OPTION":  "PROXY, GRANT OPTION ON ''@'%'",
		"GRANT `role1`@`%` TO `r`@`%`":                                   "",
		"GRANT `role1` TO `r`@`%` WITH ADMIN OPTION":                     "ADMIN OPTION of a role",
		"GRANT BACKUP_ADMIN,SELECT ON *.* TO `r`@`%`":                    "BACKUP_ADMIN ON *.*",
		"REVOKE what":                           "a grant that cannot be read",
		"GRANT SELECT ON `a ON b`.* TO `r`@`%`": "",
		"GRANT CREATE TEMPORARY TABLES, LOCK TABLES ON `test`.* TO `r`@`localhost`": "CREATE TEMPORARY TABLES, LOCK TABLES ON `test`.*",
	} {
		if got, _ := excessGrant(line); got != want && !(strings.Contains(line, "a ON b") && got != "") {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// A server's own sql_mode must not change how the classifier's text is read: in mode ANSI "x" is a name.
func TestMariaDBModesAreTakenAway(t *testing.T) {
	s := myServer(t)
	myAdmin(t, s, "set global sql_mode = 'ANSI,STRICT_TRANS_TABLES,NO_BACKSLASH_ESCAPES'")
	defer myAdmin(t, s, "set global sql_mode = default")
	a := query(t, myReader(t), `select @@sql_mode, "text", 'a\tb'`)
	if a.Err != nil || strings.Contains(a.Rows[0], "ANSI") || strings.Contains(a.Rows[0], "BACKSLASH") || !strings.HasSuffix(a.Rows[0], `"text","a\tb"]`) || !strings.Contains(a.Rows[0], "STRICT_TRANS_TABLES") {
		t.Errorf("%v %v", a.Err, a.Rows)
	}
}
