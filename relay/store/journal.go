package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

const (
	// keptGenerations is how far back the journal tells. Whoever is further behind reads everything.
	keptGenerations = 1000
	// maxTouched is how many rows of a table one generation, or all that a reader lacks, names; for more it is the table.
	maxTouched = 500
)

// touched is what a write changed, by table: keys of rows, or nil for any row. Keys are those that Load patches by.
type touched struct {
	tables map[string][]string
	all    bool
}

func (c *touched) table(name string) { c.tables[name] = nil }

func (c *touched) row(table, key string) {
	if have, ok := c.tables[table]; ok && have == nil || slices.Contains(have, key) {
		return
	}
	if c.tables[table] = append(c.tables[table], key); len(c.tables[table]) > maxTouched {
		c.table(table)
	}
}

// note takes from a statement what it may change: its table; if it deletes, all tables that refer to that one, too. A form that
// it does not know counts as a change of everything, so that what is forgotten here costs time and nothing else.
func (c *touched) note(q string, referring map[string][]string) {
	verb, rest, _ := strings.Cut(q, " ")
	switch verb {
	case "SELECT":
		return
	case "INSERT", "DELETE": // INTO, FROM
		_, rest, _ = strings.Cut(rest, " ")
	case "UPDATE":
	default:
		c.all = true
		return
	}
	table, _, ok := strings.Cut(rest, " ")
	if _, known := referring[table]; !ok || !known {
		c.all = true
		return
	}
	c.table(table)
	if verb == "DELETE" {
		for _, t := range referring[table] {
			c.table(t)
		}
	}
}

// touch says that what the returned transaction does changes this row, of all that a snapshot shows: without it, a statement
// counts for its whole table. Times of use are no change: who holds a snapshot knows newer ones.
func (t *Tx) touch(table, key string) *Tx {
	if t.touched != nil {
		t.touched.row(table, key)
	}
	return t.silent()
}

// silent is the transaction for statements that change nothing that a snapshot shows, beyond what was said by touch.
func (t *Tx) silent() *Tx {
	s := *t
	s.quiet = true
	return &s
}

func (t *Tx) note(q string) {
	if t.touched != nil && !t.quiet {
		t.touched.note(q, t.referring)
	}
}

// referring gives for each table those whose rows may go with a row of it, at any depth.
func referring(ctx context.Context, db *sql.DB) (map[string][]string, error) {
	rows, err := db.QueryContext(ctx, `SELECT m.name, COALESCE(f."table", '') FROM sqlite_schema m LEFT JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`)
	if err != nil {
		return nil, fmt.Errorf("read what refers to what: %w", wrap(err))
	}
	defer rows.Close()
	direct := map[string][]string{}
	for rows.Next() {
		var child, parent string
		if err := rows.Scan(&child, &parent); err != nil {
			return nil, err
		}
		if _, ok := direct[child]; !ok {
			direct[child] = nil
		}
		if parent != "" {
			direct[parent] = append(direct[parent], child)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, wrap(err)
	}
	all := map[string][]string{}
	for table := range direct {
		var walk func(string)
		walk = func(t string) {
			for _, c := range direct[t] {
				if !slices.Contains(all[table], c) {
					all[table] = append(all[table], c)
					walk(c)
				}
			}
		}
		all[table] = nil
		walk(table)
	}
	return all, nil
}

// journal writes what a generation changed.
func (t *Tx) journal(generation int64) error {
	var text []byte
	if !t.touched.all {
		var err error
		if text, err = json.Marshal(t.touched.tables); err != nil {
			return err
		}
	}
	if _, err := t.silent().count("INSERT INTO journal (generation, touched) VALUES (?, ?)", generation, string(text)); err != nil {
		return err
	}
	_, err := t.silent().count("DELETE FROM journal WHERE generation <= ?", generation-keptGenerations)
	return err
}

// since gives what was changed after a generation, up to the one that the transaction sees. False: it cannot be told.
func (t *Tx) since(from, to int64) (*touched, bool, error) {
	if to-from > keptGenerations {
		return nil, false, nil
	}
	notes, err := list(t, func(r *sql.Rows, v *string) error { return r.Scan(v) },
		"SELECT touched FROM journal WHERE generation > ? AND generation <= ?", from, to)
	if err != nil || int64(len(notes)) != to-from {
		return nil, false, err
	}
	c := &touched{tables: map[string][]string{}}
	for _, text := range notes {
		var one map[string][]string
		if json.Unmarshal([]byte(text), &one) != nil { // of an empty text, too: anything may have changed
			return nil, false, nil
		}
		for table, keys := range one {
			if keys == nil {
				c.table(table)
			}
			for _, k := range keys {
				c.row(table, k)
			}
		}
	}
	return c, true, nil
}
