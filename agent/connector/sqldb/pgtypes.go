package sqldb

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fairleadhq/fairlead/internal/mask"
	"github.com/fairleadhq/fairlead/protocol"
)

// pgType is what the head tells of a type.
type pgType struct {
	name  string
	kind  kind
	array bool
	delim byte
}

// pgBuiltin are the types whose OIDs are fixed. Others are looked up by name in the catalog.
var pgBuiltin = func() map[uint32]pgType {
	m := map[uint32]pgType{}
	for _, t := range []struct {
		oid, array uint32
		name       string
		kind       kind
	}{
		{16, 1000, "bool", kBool}, {17, 1001, "bytea", kBytes}, {18, 1002, "char", kText}, {19, 1003, "name", kText},
		{20, 1016, "int8", kInt}, {21, 1005, "int2", kInt}, {23, 1007, "int4", kInt}, {26, 1028, "oid", kInt},
		{25, 1009, "text", kText}, {114, 199, "json", kJSON}, {142, 143, "xml", kText}, {700, 1021, "float4", kFloat},
		{701, 1022, "float8", kFloat}, {1042, 1014, "bpchar", kText}, {1043, 1015, "varchar", kText}, {1082, 1182, "date", kDate},
		{1083, 1183, "time", kTime}, {1114, 1115, "timestamp", kTimestamp}, {1184, 1185, "timestamptz", kTimestampTZ},
		{1186, 1187, "interval", kInterval}, {1266, 1270, "timetz", kTime}, {1700, 1231, "numeric", kDecimal},
		{2950, 2951, "uuid", kUUID}, {3802, 3807, "jsonb", kJSON}, {790, 791, "money", kText}, {869, 1041, "inet", kText},
		{650, 651, "cidr", kText}, {829, 1040, "macaddr", kText}, {1560, 1561, "bit", kText}, {1562, 1563, "varbit", kText},
	} {
		m[t.oid] = pgType{name: t.name, kind: t.kind}
		m[t.array] = pgType{name: t.name + "[]", kind: t.kind, array: true, delim: ','}
	}
	return m
}()

// pgCatalog remembers for a short time what the catalog says, for all connections of a profile.
type pgCatalog struct {
	mu      sync.Mutex
	types   map[uint32]pgType
	origins map[uint32]map[uint16][3]string // table OID → column number → schema, table, column
	expires time.Time
}

const catalogTime = 30 * time.Second

// columns decides how each column is written.
func (s *pgSession) columns(ctx context.Context, b *bound, fields []pgconn.FieldDescription) ([]pgColumn, []protocol.Column, []int16, error) {
	types, origins, err := s.lookup(ctx, fields, b.mask.HasColumns())
	if err != nil {
		return nil, nil, nil, pgStateError(err)
	}
	names, paths := make([]string, len(fields)), make([][]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
		if o, ok := origins[f.TableOID][f.TableAttributeNumber]; ok {
			paths[i] = o[:]
		}
	}
	masked := maskColumns(b, names, paths)
	cols, head, formats := make([]pgColumn, len(fields)), make([]protocol.Column, len(fields)), make([]int16, len(fields))
	for i, f := range fields {
		t := types[f.DataTypeOID]
		cols[i] = pgColumn{kind: t.kind, array: t.array, delim: t.delim, masked: masked[i]}
		head[i] = protocol.Column{Name: f.Name, Type: t.kind.String(), Database: t.name}
		if t.array {
			head[i].Type += "[]"
		} else if t.kind == kBytes {
			formats[i] = 1
		}
		if masked[i] {
			head[i].Type, head[i].Masked = kText.String(), true
		}
	}
	return cols, head, formats, nil
}

// lookup gives the types of the fields and, if wanted, the tables' columns that they come from.
func (s *pgSession) lookup(ctx context.Context, fields []pgconn.FieldDescription, origins bool) (map[uint32]pgType, map[uint32]map[uint16][3]string, error) {
	types, tables := map[uint32]pgType{}, map[uint32]map[uint16][3]string{}
	var newTypes, newTables []string
	c := s.catalog
	c.mu.Lock()
	if now := time.Now(); now.After(c.expires) {
		c.types, c.origins, c.expires = map[uint32]pgType{}, map[uint32]map[uint16][3]string{}, now.Add(catalogTime)
	}
	for _, f := range fields {
		if t, ok := pgBuiltin[f.DataTypeOID]; ok {
			types[f.DataTypeOID] = t
		} else if t, ok := c.types[f.DataTypeOID]; ok {
			types[f.DataTypeOID] = t
		} else if _, ok := types[f.DataTypeOID]; !ok {
			types[f.DataTypeOID] = pgType{name: "oid " + strconv.FormatUint(uint64(f.DataTypeOID), 10)}
			newTypes = append(newTypes, strconv.FormatUint(uint64(f.DataTypeOID), 10))
		}
		if !origins || f.TableOID == 0 {
			continue
		}
		if t, ok := c.origins[f.TableOID]; ok {
			tables[f.TableOID] = t
		} else if _, ok := tables[f.TableOID]; !ok {
			tables[f.TableOID] = map[uint16][3]string{}
			newTables = append(newTables, strconv.FormatUint(uint64(f.TableOID), 10))
		}
	}
	c.mu.Unlock()
	if len(newTypes) > 0 {
		if err := s.lookupTypes(ctx, newTypes, types); err != nil {
			return nil, nil, err
		}
	}
	if len(newTables) > 0 {
		if err := s.lookupTables(ctx, newTables, tables); err != nil {
			return nil, nil, err
		}
	}
	c.mu.Lock()
	for _, o := range newTypes {
		c.types[parseOID(o)] = types[parseOID(o)]
	}
	for _, o := range newTables {
		c.origins[parseOID(o)] = tables[parseOID(o)]
	}
	c.mu.Unlock()
	return types, tables, nil
}

func parseOID(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

// lookupTypes reads extension types, enums, composites and their arrays.
func (s *pgSession) lookupTypes(ctx context.Context, oids []string, types map[uint32]pgType) error {
	rows, err := s.rows(ctx, `select t.oid, pg_catalog.format_type(t.oid, null), t.typelem, t.typlen, t.typcategory, e.typdelim
 from pg_catalog.pg_type t left join pg_catalog.pg_type e on e.oid = t.typelem where t.oid = any($1::oid[])`, "{"+strings.Join(oids, ",")+"}")
	if err != nil {
		return err
	}
	for _, r := range rows {
		if len(r) != 6 {
			return errProtocol
		}
		t := pgType{name: r[1]}
		if r[2] != "0" && r[3] == "-1" && r[4] == "A" && len(r[5]) == 1 {
			t.array, t.delim = true, r[5][0]
			t.kind = pgBuiltin[parseOID(r[2])].kind
		}
		types[parseOID(r[0])] = t
	}
	return nil
}

func (s *pgSession) lookupTables(ctx context.Context, oids []string, tables map[uint32]map[uint16][3]string) error {
	rows, err := s.rows(ctx, `select a.attrelid, a.attnum, n.nspname, c.relname, a.attname from pg_catalog.pg_attribute a
 join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where a.attrelid = any($1::oid[]) and not a.attisdropped`, "{"+strings.Join(oids, ",")+"}")
	if err != nil {
		return err
	}
	for _, r := range rows {
		if len(r) != 5 {
			return errProtocol
		}
		n, _ := strconv.ParseInt(r[1], 10, 16)
		tables[parseOID(r[0])][uint16(n)] = [3]string{r[2], r[3], r[4]}
	}
	return nil
}

// appendArray writes PostgreSQL's array literal as nested JSON arrays. Lower bounds other than 1 are not told. What the
// detectors of m find in an element is replaced.
func appendArray(dst []byte, k kind, delim byte, v []byte, m *mask.Set) []byte {
	in := v
	if len(in) > 0 && in[0] == '[' { // [2:4]={…}
		for i, c := range in {
			if c == '=' {
				in = in[i+1:]
				break
			}
		}
	}
	from, depth, first := len(dst), 0, true
	var item []byte
	for i := 0; i < len(in); {
		switch c := in[i]; {
		case c == '{':
			if depth > 0 && !first {
				dst = append(dst, ',')
			}
			dst, first = append(dst, '['), true
			depth++
			i++
		case c == '}':
			dst, first = append(dst, ']'), false
			depth--
			i++
			if depth == 0 && i == len(in) {
				return dst
			}
		case depth <= 0:
			return appendOdd(dst[:from], v, m)
		case c == delim:
			i++
		default:
			quoted := c == '"'
			if quoted {
				i++
			}
			item = item[:0]
			for i < len(in) && (quoted && in[i] != '"' || !quoted && in[i] != delim && in[i] != '}') {
				if in[i] == '\\' && i+1 < len(in) {
					i++
				}
				item = append(item, in[i])
				i++
			}
			if quoted {
				i++
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			switch {
			case !quoted && string(item) == "NULL":
				dst = append(dst, "null"...)
			case k == kBytes:
				dst = appendHex(dst, item)
			default:
				t, changed := "", false
				if m.Detects() {
					t, changed = maskText(m, string(item))
				}
				if changed {
					dst = appendReplaced(dst, k, t)
				} else {
					dst = appendText(dst, k, item)
				}
			}
		}
	}
	return appendOdd(dst[:from], v, m)
}

// appendOdd writes what is no array literal after all.
func appendOdd(dst, v []byte, m *mask.Set) []byte {
	if m.Detects() {
		t, _ := maskText(m, string(v))
		return appendString(dst, t)
	}
	return appendString(dst, v)
}

// appendHex writes \x… as base64.
func appendHex(dst, v []byte) []byte {
	if len(v) < 2 || v[0] != '\\' || v[1] != 'x' || len(v)%2 != 0 {
		return appendString(dst, v)
	}
	raw := make([]byte, 0, len(v)/2)
	for i := 2; i+1 < len(v); i += 2 {
		n, err := strconv.ParseUint(string(v[i:i+2]), 16, 8)
		if err != nil {
			return appendString(dst, v)
		}
		raw = append(raw, byte(n))
	}
	return appendBytes(dst, raw)
}
