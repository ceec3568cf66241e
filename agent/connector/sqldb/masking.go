package sqldb

import (
	"encoding/json"

	"github.com/fairleadhq/fairlead/internal/mask"
)

const maskedJSON = `"` + mask.Masked + `"`

// maskColumns says which columns of a result leave as mask.Masked. paths are the tables' columns that they come from
// (schema, table, column), nil where the database does not tell.
//
// A column is masked when its own name or its origin says so. Of an origin that is not known, in a statement that a caller
// wrote, more is masked rather than less: see lineage. A named statement is the site's own, so its computed columns are
// masked by name alone.
func maskColumns(b *bound, names []string, paths [][]string) []bool {
	masked := make([]bool, len(names))
	if !b.mask.HasColumns() {
		return masked
	}
	var l *lineage
	if !b.named {
		l = trace(b.sql, b.mask, b.hidden...)
		// MySQL's plan tells values that it has read already (attached_condition, const tables).
		if b.adapter == MySQL && l.plan {
			l.whole, l.clean = true, false
		}
	}
	for i, name := range names {
		switch p := paths[i]; {
		case p != nil && b.mask.ColumnPath(p...):
			masked[i] = true
		case p != nil && p[len(p)-1] == name:
			masked[i] = l != nil && l.statistics
		default:
			masked[i] = b.mask.ColumnPath(name) || l != nil && (l.statistics || p == nil && l.column(i, len(names)))
		}
	}
	return masked
}

// maskText applies the detectors. A fault in them drops the value.
func maskText(m *mask.Set, v string) (t string, changed bool) {
	defer func() {
		if recover() != nil {
			t, changed = mask.Masked, true
		}
	}()
	return m.Text(v)
}

// appendDetected writes one value of PostgreSQL with what the detectors find in it replaced.
func appendDetected(dst []byte, c *pgColumn, v []byte, m *mask.Set) []byte {
	switch {
	case c.kind == kBytes:
		return c.append(dst, v)
	case c.array:
		return appendArray(dst, c.kind, c.delim, v, m)
	}
	t, changed := maskText(m, string(v))
	if !changed {
		return c.append(dst, v)
	}
	return appendReplaced(dst, c.kind, t)
}

// appendReplaced writes a text in which something was replaced: as text, unless it still is the JSON document it was.
func appendReplaced(dst []byte, k kind, t string) []byte {
	if k == kJSON && json.Valid([]byte(t)) {
		return appendJSON(dst, []byte(t))
	}
	return appendString(dst, t)
}
