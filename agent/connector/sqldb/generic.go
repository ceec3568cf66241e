package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"

	"github.com/go-sql-driver/mysql"

	"github.com/fairleadhq/fairlead/protocol"
)

// flavor is what differs between the databases reached by a database/sql driver. The driver's own connection is used, not
// database/sql: a connection is closed after each call, and values are wanted as the driver has them.
type flavor interface {
	// begin opens a transaction, read-only if so said, in which the caller's next statement cannot change that.
	begin(ctx context.Context, g *generic, readOnly bool) error
	// end closes it: commit, or for a read-only one a check that it still is one, then rollback.
	end(ctx context.Context, g *generic, readOnly bool) error
	// cancel ends at the server what still runs there.
	cancel(g *generic)
	// args makes the driver's parameters.
	args(args []arg) ([]driver.NamedValue, error)
	// describe gives the columns' names, kinds, database types and, where the driver knows, origins. It may give another text
	// to run that gives the same rows more exactly.
	describe(g *generic, sql string, rows driver.Rows) ([]genericColumn, error)
	// value writes one value that is not nil.
	value(dst []byte, c *genericColumn, v driver.Value) []byte
	// schema lists tables.
	schema(ctx context.Context, g *generic) (*protocol.Schema, error)
	// fault maps a driver's error; nil when it is not the database's own.
	fault(err error) *protocol.Error
	// lastID reports whether the driver's last insert id means something.
	lastID() bool
}

type genericColumn struct {
	name     string
	kind     kind
	database string
	nullable *bool
	origin   []string // schema, table, column
	masked   bool
}

// generic is a session by a database/sql driver.
type generic struct {
	cfg     *Config
	log     *slog.Logger
	flavor  flavor
	conn    driver.Conn
	rewrite func(sql string) string // SQLite: see sqliteFlavor.exact
	tap     *tapper                 // the network connection; nil for SQLite
	running bool                    // something may still run at the server
	done    func()                  // closes the open rows
	// prepared: run every query as a prepared statement, for its values come more exact than as text.
	prepared bool
	closer   func() error // instead of conn.Close
}

func (g *generic) query(ctx context.Context, b *bound, out *stream) error {
	args, err := g.flavor.args(b.args)
	if err != nil {
		return err
	}
	g.running = true
	if err := g.flavor.begin(ctx, g, true); err != nil {
		return g.fault(err)
	}
	text := b.sql
	if g.rewrite != nil {
		text = g.rewrite(text)
	}
	rows, done, err := g.open(ctx, text, args)
	if err != nil {
		return g.fault(err)
	}
	g.done = done // not deferred: closing rows early would drain them
	cols, err := g.flavor.describe(g, b.sql, rows)
	if err != nil {
		return g.fault(err)
	}
	if len(cols) > maxColumns {
		return errColumns
	}
	names, paths := make([]string, len(cols)), make([][]string, len(cols))
	for i, c := range cols {
		names[i], paths[i] = c.name, c.origin
	}
	if f, ok := g.flavor.(*sqliteFlavor); ok && b.mask.HasColumns() && !b.named {
		if err := f.knowTables(ctx, g, b, cols, paths); err != nil {
			return g.fault(err)
		}
	}
	head := make([]protocol.Column, len(cols))
	for i, m := range maskColumns(b, names, paths) {
		c := &cols[i]
		c.masked = m
		head[i] = protocol.Column{Name: c.name, Type: c.kind.String(), Database: c.database, Nullable: c.nullable, Masked: m}
		if m {
			head[i].Type = kText.String()
		}
	}
	if err := g.rows(rows, cols, head, b, out); err != nil {
		return g.fault(err)
	}
	done()
	if err := g.flavor.end(ctx, g, true); err != nil {
		return g.fault(err)
	}
	g.running = false
	return nil
}

// open runs a statement. Drivers that take no arguments directly are given a prepared statement.
func (g *generic) open(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, func(), error) {
	if g.tap != nil {
		g.tap.conn().refill()
	}
	if q, ok := g.conn.(driver.QueryerContext); ok && !g.prepared {
		rows, err := q.QueryContext(ctx, text, args)
		if err == nil {
			return rows, closeOnce(rows, nil), nil
		}
		if !errors.Is(err, driver.ErrSkip) {
			return nil, nil, err
		}
	}
	st, err := g.prepare(ctx, text, len(args))
	if my := (*mysql.MySQLError)(nil); len(args) == 0 && errors.As(err, &my) && my.Number == 1295 { // some SHOW cannot be prepared
		if q, ok := g.conn.(driver.QueryerContext); ok {
			rows, err := q.QueryContext(ctx, text, args)
			return rows, closeOnce(rows, nil), err
		}
	}
	if err != nil {
		return nil, nil, err
	}
	q, ok := st.(driver.StmtQueryContext)
	if !ok {
		_ = st.Close()
		return nil, nil, errors.New("driver statement takes no context")
	}
	rows, err := q.QueryContext(ctx, args)
	if err != nil {
		_ = st.Close()
		return nil, nil, err
	}
	return rows, closeOnce(rows, st), nil
}

func closeOnce(rows driver.Rows, st driver.Stmt) func() {
	open := rows != nil
	return func() {
		if !open {
			return
		}
		open = false
		_ = rows.Close()
		if st != nil {
			_ = st.Close()
		}
	}
}

func (g *generic) prepare(ctx context.Context, text string, args int) (driver.Stmt, error) {
	p, ok := g.conn.(driver.ConnPrepareContext)
	if !ok {
		return nil, errors.New("driver connection takes no context")
	}
	st, err := p.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	if n := st.NumInput(); n >= 0 && n != args {
		_ = st.Close()
		return nil, protocol.Errorf(protocol.CodeInvalid, "the statement has %d parameters, and %d arguments were given", n, args)
	}
	return st, nil
}

func (g *generic) rows(rows driver.Rows, cols []genericColumn, head []protocol.Column, b *bound, out *stream) error {
	detect := b.mask.Detects()
	values := make([]driver.Value, len(cols))
	line := make([]byte, 0, 4096)
	for {
		if g.tap != nil {
			g.tap.conn().refill()
		}
		err := rows.Next(values)
		if err != nil && err != io.EOF {
			return err
		}
		if !out.headed {
			if err := out.head(head); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		line = append(line[:0], '[')
		for i, v := range values {
			if i > 0 {
				line = append(line, ',')
			}
			c := &cols[i]
			switch {
			case c.masked:
				line = append(line, maskedJSON...)
			case v == nil:
				line = append(line, "null"...)
			case detect:
				line = g.appendDetected(line, c, v, b)
			default:
				line = g.flavor.value(line, c, v)
			}
			if len(line) > MaxRowBytes {
				return errRowSize
			}
		}
		line = append(line, ']', '\n')
		if err := out.row(line); err != nil {
			return err
		}
	}
}

// appendDetected writes a value with what the detectors find replaced. They see it as it would travel.
func (g *generic) appendDetected(dst []byte, c *genericColumn, v driver.Value, b *bound) []byte {
	from := len(dst)
	dst = g.flavor.value(dst, c, v)
	if _, raw := v.([]byte); raw && c.kind == kBytes {
		return dst
	}
	text := string(dst[from:])
	if dst[from] == '"' {
		text, _ = jsonString(dst[from:])
	}
	if t, changed := maskText(b.mask, text); changed {
		return appendReplaced(dst[:from], c.kind, t)
	}
	return dst
}

func (g *generic) fault(err error) error {
	var e *protocol.Error
	if err == nil || errors.As(err, &e) || errors.Is(err, errCut) || errors.Is(err, errCaller) {
		return err
	}
	if g.tap != nil && g.tap.conn().flood.Load() { // drivers do not hand the cause on
		return errRowSize
	}
	if f := g.flavor.fault(err); f != nil {
		return f
	}
	return err
}

func (g *generic) exec(ctx context.Context, sts []*bound) ([]protocol.ExecResult, error) {
	g.running = true
	if err := g.flavor.begin(ctx, g, false); err != nil {
		return nil, g.fault(err)
	}
	results := make([]protocol.ExecResult, len(sts))
	for i, b := range sts {
		if err := g.execOne(ctx, b, &results[i]); err != nil {
			return nil, numbered(g.fault(err), i, len(sts))
		}
	}
	if err := g.flavor.end(ctx, g, false); err != nil {
		if f := g.flavor.fault(err); f != nil {
			return nil, f
		}
		return nil, &protocol.Error{Code: protocol.CodeInterrupted, Origin: protocol.OriginAgent, Cause: wordless{err},
			Message: "the connection was lost during commit; whether the change took effect is not known"}
	}
	g.running = false
	return results, nil
}

func (g *generic) execOne(ctx context.Context, b *bound, r *protocol.ExecResult) error {
	args, err := g.flavor.args(b.args)
	if err != nil {
		return err
	}
	res, err := g.run(ctx, b.sql, args)
	if err != nil {
		return err
	}
	if r.RowsAffected, err = res.RowsAffected(); err != nil {
		return err
	}
	if g.flavor.lastID() {
		if id, err := res.LastInsertId(); err == nil && id != 0 {
			r.LastInsertID = &id
		}
	}
	return nil
}

// run executes a statement that gives no rows.
func (g *generic) run(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := g.conn.(driver.ExecerContext); ok {
		res, err := e.ExecContext(ctx, text, args)
		if !errors.Is(err, driver.ErrSkip) {
			return res, err
		}
	}
	st, err := g.prepare(ctx, text, len(args))
	if err != nil {
		return nil, err
	}
	defer st.Close()
	e, ok := st.(driver.StmtExecContext)
	if !ok {
		return nil, errors.New("driver statement takes no context")
	}
	return e.ExecContext(ctx, args)
}

// list runs a statement of ours and gives its rows as text; NULL is "".
func (g *generic) list(ctx context.Context, text string, args ...string) ([][]string, error) {
	named := make([]driver.NamedValue, len(args))
	for i, a := range args {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	rows, done, err := g.open(ctx, text, named)
	if err != nil {
		return nil, err
	}
	defer done()
	var out [][]string
	values := make([]driver.Value, len(rows.Columns()))
	for len(out) < 1_000_000 {
		switch err := rows.Next(values); {
		case err == io.EOF:
			return out, nil
		case err != nil:
			return nil, err
		}
		r := make([]string, len(values))
		for i, v := range values {
			r[i] = driverText(v)
		}
		out = append(out, r)
	}
	return out, nil
}

func (g *generic) schema(ctx context.Context) (*protocol.Schema, error) {
	g.running = true
	sch, err := g.flavor.schema(ctx, g)
	if err == nil {
		g.running = false
	}
	return sch, g.fault(err)
}

// reset implements session: the drivers have no way to make a session as new.
func (g *generic) reset(context.Context) bool { return false }
func (g *generic) ready() bool                { return false }

// close implements session. The order matters: what runs is cancelled first, then the socket goes, so that no driver waits
// for the rest of a result or for a server that is gone; open rows must be closed before SQLite's handle.
func (g *generic) close() {
	if g.running {
		g.flavor.cancel(g)
		if g.tap != nil {
			g.tap.cut()
		}
	}
	if g.done != nil {
		g.done()
	}
	if g.closer != nil {
		_ = g.closer()
		return
	}
	_ = g.conn.Close()
}
