package sqldb

import (
	"context"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
)

// gather builds a schema from the rows of catalog queries. The rows come in order of schema, table and position.
//
// tables: schema, name, type ("table" or "view"). columns: schema, table, column, type, nullable ("t"). primary: schema,
// table, column. foreign: schema, table, constraint, column, referenced "schema.table", referenced column.
func gather(tables, columns, primary, foreign [][]string) (*protocol.Schema, error) {
	sch := &protocol.Schema{Tables: []protocol.Table{}}
	at := map[[2]string]int{}
	for _, r := range tables {
		if len(r) != 3 {
			return nil, errProtocol
		}
		if len(sch.Tables) == maxTables {
			sch.Truncated = true
			break
		}
		at[[2]string{r[0], r[1]}] = len(sch.Tables)
		sch.Tables = append(sch.Tables, protocol.Table{Schema: r[0], Name: r[1], Type: r[2], Columns: []protocol.TableColumn{}})
	}
	each := func(rows [][]string, width int, f func(t *protocol.Table, r []string)) error {
		for _, r := range rows {
			if len(r) != width {
				return errProtocol
			}
			if i, ok := at[[2]string{r[0], r[1]}]; ok {
				f(&sch.Tables[i], r)
			}
		}
		return nil
	}
	if err := each(columns, 5, func(t *protocol.Table, r []string) {
		t.Columns = append(t.Columns, protocol.TableColumn{Name: r[2], Type: r[3], Nullable: r[4] == "t" || r[4] == "1" || r[4] == "YES" || r[4] == "Y"})
	}); err != nil {
		return nil, err
	}
	if err := each(primary, 3, func(t *protocol.Table, r []string) { t.PrimaryKey = append(t.PrimaryKey, r[2]) }); err != nil {
		return nil, err
	}
	last := ""
	err := each(foreign, 6, func(t *protocol.Table, r []string) {
		if id := strings.Join(r[:3], "\x00"); id != last {
			last = id
			t.ForeignKeys = append(t.ForeignKeys, protocol.ForeignKey{References: r[4]})
		}
		k := &t.ForeignKeys[len(t.ForeignKeys)-1]
		k.Columns, k.To = append(k.Columns, r[3]), append(k.To, r[5])
	})
	return sch, err
}

// schema implements session.
func (s *pgSession) schema(ctx context.Context) (*protocol.Schema, error) {
	if err := s.begin(ctx, true); err != nil {
		return nil, pgStateError(err)
	}
	const mine = ` n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\_toast%' and n.nspname not like 'pg\_temp%'
 and has_schema_privilege(n.oid, 'USAGE') and has_table_privilege(c.oid, 'SELECT')`
	var parts [4][][]string
	for i, sql := range []string{
		`select n.nspname, c.relname, case when c.relkind in ('v','m') then 'view' else 'table' end from pg_class c
 join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r','p','v','m','f') and` + mine + ` order by 1, 2 limit 10001`,
		`select n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), not a.attnotnull from pg_attribute a
 join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
 where a.attnum > 0 and not a.attisdropped and c.relkind in ('r','p','v','m','f') and` + mine + ` order by 1, 2, a.attnum`,
		pgPrimary + mine + ` order by 1, 2, k.n`,
		pgForeign + mine + ` order by 1, 2, 3, k.n`,
	} {
		if i > 1 && s.cfg.Adapter == Redshift {
			continue // its keys are not enforced, and its old parser knows no WITH ORDINALITY
		}
		rows, err := s.rows(ctx, sql)
		if err != nil {
			return nil, pgStateError(err)
		}
		parts[i] = rows
	}
	sch, err := gather(parts[0], parts[1], parts[2], parts[3])
	if err != nil {
		return nil, err
	}
	return sch, pgStateError(s.end(ctx, true))
}

const (
	pgPrimary = `select n.nspname, c.relname, a.attname from pg_constraint o join pg_class c on c.oid = o.conrelid
 join pg_namespace n on n.oid = c.relnamespace, unnest(o.conkey) with ordinality k(num, n)
 join pg_attribute a on a.attnum = k.num where a.attrelid = o.conrelid and o.contype = 'p' and`
	pgForeign = `select n.nspname, c.relname, o.conname, a.attname, fn.nspname || '.' || fc.relname, fa.attname from pg_constraint o
 join pg_class c on c.oid = o.conrelid join pg_namespace n on n.oid = c.relnamespace join pg_class fc on fc.oid = o.confrelid
 join pg_namespace fn on fn.oid = fc.relnamespace, unnest(o.conkey, o.confkey) with ordinality k(num, fnum, n)
 join pg_attribute a on a.attnum = k.num join pg_attribute fa on fa.attnum = k.fnum
 where a.attrelid = o.conrelid and fa.attrelid = o.confrelid and o.contype = 'f' and`
)

// schema implements flavor.
func (f *sqliteFlavor) schema(ctx context.Context, g *generic) (*protocol.Schema, error) {
	if err := f.begin(ctx, g, true); err != nil {
		return nil, err
	}
	const from = ` from sqlite_schema m`
	const where = ` where m.type in ('table', 'view') and m.name not like 'sqlite\_%' escape '\'`
	var parts [4][][]string
	for i, text := range []string{
		`select '', m.name, m.type` + from + where + ` order by m.name limit 10001`,
		`select '', m.name, c.name, c.type, case when c."notnull" = 0 and c.pk = 0 then 't' else 'f' end` + from + `, pragma_table_info(m.name) c` + where + ` order by m.name, c.cid`,
		`select '', m.name, c.name` + from + `, pragma_table_info(m.name) c` + where + ` and c.pk > 0 order by m.name, c.pk`,
		`select '', m.name, k.id, k."from", k."table", coalesce(k."to", '')` + from + `, pragma_foreign_key_list(m.name) k` + where + ` order by m.name, k.id, k.seq`,
	} {
		rows, err := g.list(ctx, text)
		if err != nil {
			return nil, err
		}
		parts[i] = rows
	}
	sch, err := gather(parts[0], parts[1], parts[2], parts[3])
	if err != nil {
		return nil, err
	}
	return sch, f.end(ctx, g, true)
}
