package sqldb

import (
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/mask"
	"github.com/fairleadhq/fairlead/protocol"
)

var ssnRule = mask.Rules{Columns: []string{"people.ssn"}}

// C26: ways to get at a masked column. None may show a digit of it. "plain" ones must come through, for a mask that hides
// everything would pass too.
func TestMaskedColumnDoesNotLeave(t *testing.T) {
	secrets := []string{"111-22", "444-55", "22-3333", "33-22", "1112"}
	pg := []string{
		"select ssn from people", "select * from people", "select ssn as x from people", "select p.ssn as id from people p", "table people",
		"select ssn::varchar as x from people", "select ssn || '' as x from people", "select concat('a', ssn) from people", "select upper(ssn) u from people", "select reverse(ssn) from people",
		"select substr(ssn, 1, 6) from people", "select left(p.ssn, 6) from people p", "select row_to_json(p) from people p", "select to_jsonb(people) from people", "select p from people p", "select p::text from people p",
		"select (p).ssn as y from people p", "select json_build_object('a', ssn) from people", "select array_agg(ssn) from people", "select string_agg(ssn, ',') from people", "select x from (select ssn as x from people) s",
		"select upper(x) from (select ssn as x from people) s", "with s as (select ssn as x from people) select lower(x) from s", "with s(a,b,c,d,e) as (select * from people) select c || '' from s",
		"with s(a,b,c,d,e) as (table people) select c || '' from s", "select upper(c) from people as p(a,b,c)", "select upper(c) from people p(a,b,c)", "select 'x' union all select ssn from people", "select a from (select 'x' a union all select ssn from people) s",
		"select name, id::text x from people union select ssn, name from people", "select (select ssn from people limit 1)", "select array(select ssn from people)", "select coalesce(null, ssn) from people", "select case when true then ssn end from people",
		"select \"ssn\" || '' from people", "select U&\"s\\0073n\" || '' from people", "select max(ssn) from people", "select ssn || '' as \"count\" from people", "select upper(u) from people p, lateral (select p.ssn as u) l",
		"select upper(u) from people p cross join lateral unnest(array[p.ssn]) u", "select x.* from (select upper(ssn) k from people) x", "select json_agg(s) from (select * from people) s", "select s::text from (select * from people) s",
		"select row(p.*)::text from people p", "select most_common_vals::text from pg_stats where tablename = 'people'", "select histogram_bounds from pg_stats", "select count(*) from people group by ssn having ssn > '' union all select length(ssn) from people",
		"select format('%s', ssn) from people", "select ssn as name from people", "select /* ssn */ ssn||'' from people", "select distinct on (id) ssn || '' from people", "select name, (array_agg(p))[1]::text from people p group by name",
		"select max(x) from (values ((select ssn from people limit 1))) v(x)", "select length(ssn) || ssn from people order by ssn", "select encode(ssn::bytea, 'hex') from people", "select regexp_matches(ssn, '.*') from people",
		"select query_to_xml('select * from people', true, true, '')", "select table_to_xml('people', true, true, '')",
	}
	db := reader(t)
	pgAdmin(t, pgServer(t), "analyze people")
	for _, sql := range pg {
		a := masked(t, db, ssnRule, sql)
		for _, s := range secrets {
			if strings.Contains(strings.Join(a.Rows, ""), s) {
				t.Errorf("C26 postgresql: %s\n%s", sql, a.Rows)
				break
			}
		}
	}
	my := myReader(t)
	for _, sql := range []string{
		"select ssn from people", "select * from people", "select ssn as x from people", "select `ssn` x from people", "select concat(ssn, '') from people", "select x from (select ssn as x from people) s",
		"select id as a, ssn as b from people", "select 'x' union all select ssn from people", "with s(a,b,c,d,e) as (select * from people) select c from s", "select json_object('a', ssn) from people", "select group_concat(ssn) from people",
		"select (select ssn from people limit 1)", "select *, ssn as z from people", "select p.*, p.ssn q, 1 from people p", "select name n, ssn from people p union select ssn, name from people", "select max(ssn) m from people", "select a from (select 'x' a union all select ssn from people) s",
	} {
		a := masked(t, my, ssnRule, sql)
		for _, s := range secrets {
			if strings.Contains(strings.Join(a.Rows, ""), s) {
				t.Errorf("C26 mariadb: %s\n%s", sql, a.Rows)
				break
			}
		}
	}
	lite := open(t, Config{Adapter: SQLite, Path: sqliteFile(t, sqlitePeople)})
	for _, sql := range []string{"select ssn from people", "select * from people", "select ssn x, born from people", "select ssn || '' from people", "select x from (select ssn x from people)", "select json_object('a', ssn) from people",
		"with s(a,b,c,d,e,f,g) as (select * from people) select upper(c) from s"} {
		a := masked(t, lite, ssnRule, sql)
		for _, s := range secrets {
			if strings.Contains(strings.Join(a.Rows, ""), s) {
				t.Errorf("C26 sqlite: %s\n%s", sql, a.Rows)
				break
			}
		}
	}
}

func TestWhatIsNotMaskedComesThrough(t *testing.T) {
	for name, db := range map[string]*DB{"postgresql": reader(t), "mariadb": myReader(t), "sqlite": open(t, Config{Adapter: SQLite, Path: sqliteFile(t, sqlitePeople)})} {
		for sql, want := range map[string]string{
			"select id, name, ssn from people order by id":                                         `[1,"Ada","[masked]"][2,"Bo","[masked]"]`,
			"select upper(name) as u from people order by id":                                      `["ADA"]["BO"]`,
			"select count(*) from people":                                                          `[2]`,
			"select count(*) from people where ssn is not null":                                    `[2]`,
			"select id + 1 as n, upper(ssn) as s from people where id = 1":                         `[2,"[masked]"]`,
			"select n.id, p.name from notes n join people p on p.id = n.person where 1=0":          ``,
			"select upper(p.name) as u from people p where p.name like 'A%' and p.id in (1, 2, 3)": `["ADA"]`,
		} {
			if a := masked(t, db, ssnRule, sql); a.Err != nil || strings.Join(a.Rows, "") != want {
				t.Errorf("%s: %s: %v %v, want %s", name, sql, a.Err, a.Rows, want)
			}
		}
	}
	a := masked(t, reader(t), ssnRule, "select ssn, id from people limit 1")
	if c := a.Columns[0]; !c.Masked || c.Type != "text" || a.Columns[1].Masked {
		t.Errorf("%+v", a.Columns)
	}
	// NULL is not told either, and a named statement is the site's own.
	if a := masked(t, reader(t), ssnRule, "select null::text as ssn"); a.Rows[0] != `["[masked]"]` {
		t.Errorf("%v", a.Rows)
	}
	cfg := pgProfile(pgServer(t), "reader", "r")
	cfg.Statements = map[string]Statement{"last": {SQL: "select right(ssn, 2) as last from people order by id"}}
	m, _ := mask.Compile(ssnRule)
	if a := do(t, open(t, cfg), call(protocol.OpQuery, policy.Decision{Mask: m}, protocol.Statement{Name: "last"})); a.Err != nil || a.Rows[0] != `["33"]` {
		t.Errorf("%v %v", a.Err, a.Rows)
	}
}

func TestDetectorsRunOnValues(t *testing.T) {
	r := mask.Rules{Detect: []string{"payment_card", "email"}}
	for name, db := range map[string]*DB{"postgresql": reader(t), "mariadb": myReader(t), "sqlite": open(t, Config{Adapter: SQLite, Path: sqliteFile(t, sqlitePeople)})} {
		a := masked(t, db, r, "select 4111111111111111 as n, 'call 4111 1111 1111 1111 or ada@example.com' as t, 12 as ok, '4111111111111111.00' as d")
		if a.Err != nil || strings.Contains(a.Rows[0], "4111") || strings.Contains(a.Rows[0], "@") || !strings.Contains(a.Rows[0], ",12,") {
			t.Errorf("%s: %v %v", name, a.Err, a.Rows)
		}
	}
	a := masked(t, reader(t), r, `select '{"mail":"ada@example.com","n":1}'::jsonb, '{"card":4111111111111111}'::json, array['ada@example.com','x'], array[4111111111111111]`)
	if a.Err != nil || strings.Contains(a.Rows[0], "4111") || strings.Contains(a.Rows[0], "@") || !strings.Contains(a.Rows[0], `"x"`) {
		t.Errorf("%v %v", a.Err, a.Rows)
	}
}

func compile(columns ...string) *mask.Set {
	m, err := mask.Compile(mask.Rules{Columns: columns})
	if err != nil {
		panic(err)
	}
	return m
}
