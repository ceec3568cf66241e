package sqldb

import (
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/mask"
)

// hides fails when an answer to one of the statements shows a part of a masked value.
func hides(t *testing.T, name string, db *DB, r mask.Rules, shown []string, statements ...string) {
	t.Helper()
	ran := 0
	for _, sql := range statements {
		a := masked(t, db, r, sql)
		if a.Err == nil {
			ran++
		}
		for _, s := range shown {
			if strings.Contains(strings.Join(a.Rows, ""), s) {
				t.Errorf("C26 %s: %s\n%s", name, sql, a.Rows)
				break
			}
		}
	}
	if ran < len(statements)/2 {
		t.Errorf("%s: only %d of %d statements ran", name, ran, len(statements))
	}
}

var ssnParts = []string{"111-22", "444-55", "22-3333", "33-22"}

// C26: a function after FROM gets the masked column or the row as its argument and gives it on under a name of its own;
// PostgreSQL calls a function for p.concat; SQLite tells an origin for what json_each gives.
func TestMaskedColumnIsNotFedToAFunction(t *testing.T) {
	hides(t, "postgresql", reader(t), ssnRule, ssnParts,
		"select p.row_to_json from people p", "select p.to_json::text from people p", "select p.concat from people p", `select p."to_jsonb" from people p`, "select people.json_agg from people",
		"select upper(p.concat) as u from people p", "select (select p.concat) from people p", "select q.concat || '' from (table people) q",
		"select k.* from people p, to_jsonb(p) k", "select k.value from people p, jsonb_each_text(to_jsonb(p)) k", "select value from people p, jsonb_each_text(to_jsonb(p))",
		"select k.value from people p join lateral jsonb_each_text(to_jsonb(p)) k on true", "select a.value from people p, jsonb_each_text(jsonb_build_object('x', p.ssn)) a",
		"select a.* from people p, unnest(array[p.ssn]) a", "select k.value from people p, jsonb_each_text(p.to_jsonb) k", "select x.* from people p, concat(p.*) x",
		"select upper(c) from people * p(a,b,c)", "select v from people p, xmltable('/r' passing xmlelement(name r, p.ssn) columns v text path '.') x",
		"select x.* from people p, coalesce(p.ssn) x", "select upper(x.x) from people p, concat(p) x", "select string_agg(x.x, '') from people p, concat(p) x",
		"select p from (people p cross join notes n)", "select concat(p) from ((people p cross join notes n))", "select concat(people) from only (people)",
		"select x.* from people connect, concat(connect) x", "select x.* from people qualify, concat(qualify) x", "select x.* from people as values, concat(values) x", "select concat(values) from people values",
		"select upper(c) from people values(a,b,c)", "select x.* from notes n join people p on p.id = n.person cross join concat(p) x",
	)
	hides(t, "mariadb", myReader(t), ssnRule, ssnParts,
		"select j.v from people p, json_table(json_array(p.ssn), '$[*]' columns(v varchar(20) path '$')) j", "select v from people p join json_table(json_array(p.ssn), '$[*]' columns(v varchar(20) path '$')) j",
		"select j.v from notes n join people p on p.id = n.person straight_join json_table(json_array(p.ssn), '$[*]' columns(v varchar(20) path '$')) j",
		"select j.v from people offset, json_table(json_array(offset.ssn), '$[*]' columns(v varchar(20) path '$')) j",
		// The plan tells what the optimizer has read already.
		"explain format=json select 1 from people a natural join (select ssn from people where 1 = 1) b where a.id = 1",
	)
	hides(t, "mariadb", myReader(t), mask.Rules{Columns: []string{"people.name"}}, []string{"Ada"},
		"explain format=json select 1 from people a join people b where a.id = 1 and b.email > a.email and b.name > a.name", "explain format=json select 1 from people a join (select id, email, salary, ssn, name from people) b using (id, email) where a.id = 1")
	lite := open(t, Config{Adapter: SQLite, Path: sqliteFile(t, sqlitePeople)})
	hides(t, "sqlite", lite, ssnRule, ssnParts,
		"select j.value from people p, json_each(json_array(p.ssn)) j", "select value from people, json_each(json_array(ssn))", "select j.atom from people p join json_tree(json_array(p.ssn)) j",
		"select j.* from people p, json_each(json_array(p.ssn)) j", "select j.value || '' from people p, json_each(json_array(p.ssn)) j", "select j.value from json_each((select json_group_array(ssn) from people)) j",
		"select k.value from people for, json_each(json_array(for.ssn)) k", "select k.value from people window, json_each(json_array(window.ssn)) k", "select value from people limit, json_each(json_array(ssn))",
	)
}

// C26: a key column has a name in the server that no schema shows.
func TestMaskedKeyHasNoOtherName(t *testing.T) {
	rule := mask.Rules{Columns: []string{"badges.number"}}
	lite := open(t, Config{Adapter: SQLite, Path: sqliteFile(t, "create table badges(number integer primary key, owner text); insert into badges values (90817, 'Ada'); create table other(a text); insert into other values ('x')")})
	hides(t, "sqlite", lite, rule, []string{"90817"}, "select rowid from badges", "select rowid + 0 from badges", "select max(_rowid_) from badges", "select b.oid || '' as x from badges b", "select RowId as owner from badges")
	if a := masked(t, lite, mask.Rules{Columns: []string{"badges.owner"}}, "select rowid, a from other"); a.Err != nil || a.Rows[0] != `[1,"x"]` {
		t.Errorf("%v %v", a.Err, a.Rows)
	}
	s := myServer(t)
	myAdmin(t, s, "create table if not exists badges(number int primary key, owner text); replace into badges values (90817, 'Ada')")
	hides(t, "mariadb", myReader(t), rule, []string{"90817"}, "select _rowid from badges", "select _rowid + 0 as x from badges", "select max(_rowid) from badges")
}

// Every function of the server that takes a row alone must be known, or p.function would give the row away.
func TestFunctionsThatTakeARowAreKnown(t *testing.T) {
	s := pgServer(t)
	c := pgConnect(t, s, s.User, s.Password)
	r := c.ExecParams(t.Context(), `select distinct proname, prokind from pg_catalog.pg_proc where pronargs - pronargdefaults <= 1 and pronargs >= 1
 and proargtypes[0]::regtype::text in ('record','"any"','anyelement','anynonarray','anycompatible','anycompatiblenonarray') order by 1`, nil, nil, nil, nil).Read()
	if r.Err != nil || len(r.Rows) < 20 {
		t.Fatal(r.Err, len(r.Rows))
	}
	safe := map[string]bool{"count": true, "cume_dist": true, "dense_rank": true, "percent_rank": true, "rank": true, "num_nonnulls": true, "num_nulls": true,
		"pg_collation_for": true, "pg_column_compression": true, "pg_column_size": true, "pg_column_toast_chunk_id": true, "pg_typeof": true, "oidvectortypes": true}
	for _, row := range r.Rows {
		if name := string(row[0]); !takesRow(name) && !safe[name] {
			t.Errorf("%s is not in takesRow", name)
		}
	}
}

// Dialects that cannot run here: the words must suffice.
func TestLineageOfOtherDialects(t *testing.T) {
	m := compile("people.ssn", "staff.emp#", "staff.tax id")
	for _, sql := range []string{
		"select name, ssn from people for json auto", "select * from people for xml path", "select * from people for json path", "select v from people unpivot (v for c in (ssn, name)) u",
		"select s.value from people p cross apply string_split(p.ssn, '-') s", "select s.value from notes n join people p on p.id = n.person outer apply string_split(p.ssn, '-') s",
		"select emp# as x from staff", "select upper(s.emp#) from staff s", "select [tax id] as x from staff", "select s.[tax id] + '' as x from staff s", "select $identity as x from staff", "select identitycol from staff",
		"select c from people model dimension by (id) measures (ssn c) rules ()", "select x.k from people t for system_time all cross apply openjson(t.ssn) x",
	} {
		if l := trace(sql, m); !l.column(0, 1) {
			t.Errorf("%s: the first column is not masked", sql)
		}
	}
	for _, sql := range []string{
		"select upper(p.name) from people p join notes n on n.person = p.id where n.id = 1 order by p.id limit 1", "select max(p.name) from (people p join notes n on n.person = p.id)", "select p.tags[1] from people p",
		"select upper(name) from people offset 2", "select e.value + 1 as x from people p, json_each(p.tags) e where p.id = 1", "explain select upper(name) from people",
	} {
		if l := trace(sql, m); l.column(0, 1) {
			t.Errorf("%s: masked for nothing", sql)
		}
	}
}
