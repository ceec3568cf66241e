package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/fairleadhq/fairlead/protocol"
)

// sqliteFlavor is SQLite, in this process. There is no server: what a query may do is bounded by the handle (read-only file,
// query_only, defensive, no attached databases) and by the classifier.
type sqliteFlavor struct {
	mu sync.Mutex // guards db against an interrupt while it is closed
	db uintptr    // the handle, for interrupts; 0 once closed
}

func openSQLite(cfg *Config, log *slog.Logger) (func(context.Context) (session, error), error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("database.%s: %w", cfg.Name, err)
	}
	return func(ctx context.Context) (session, error) {
		if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
			return nil, targetError(protocol.CodeUnavailable, "", "the database file is not there", err)
		}
		mode := "ro"
		if cfg.Mode != ModeReadOnly {
			mode = "rw" // never created
		}
		return newSQLite(ctx, cfg, log, path, mode)
	}, nil
}

// sqliteDSN names the file as a URI, so that no character of the path means anything to SQLite.
func sqliteDSN(path, mode string) string {
	p := filepath.ToSlash(path)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p // C:/…
	}
	q := url.Values{"mode": {mode}, "_defensive": {"1"}, "_busy_timeout": {"5000"},
		"_pragma": {"trusted_schema(0)", "cell_size_check(1)", "foreign_keys(1)", "temp_store(2)"}}
	return "file://" + (&url.URL{Path: p}).EscapedPath() + "?" + q.Encode()
}

func newSQLite(ctx context.Context, cfg *Config, log *slog.Logger, path, mode string) (session, error) {
	c, err := sqlite.NewConnector(sqliteDSN(path, mode))
	if err != nil {
		return nil, fmt.Errorf("open sqlite: %w", err)
	}
	// database/sql is used to open and limit the handle alone; its connection is then used directly.
	pool := sql.OpenDB(c)
	pool.SetMaxOpenConns(1)
	conn, err := pool.Conn(ctx)
	if err != nil {
		_ = pool.Close()
		return nil, targetError(protocol.CodeUnavailable, "", "the database file cannot be opened", err)
	}
	f := &sqliteFlavor{}
	g := &generic{cfg: cfg, log: log, flavor: f}
	g.closer = func() error {
		f.mu.Lock()
		f.db = 0
		f.mu.Unlock()
		return errors.Join(conn.Close(), pool.Close())
	}
	for id, limit := range map[int]int{
		sqlite3.SQLITE_LIMIT_ATTACHED: 0, // neither ATTACH nor VACUUM INTO
		sqlite3.SQLITE_LIMIT_LENGTH:   MaxRowBytes,
	} {
		if _, err := sqlite.Limit(conn, id, limit); err != nil {
			_ = g.closer()
			return nil, fmt.Errorf("limit sqlite: %w", err)
		}
	}
	err = conn.Raw(func(dc any) error {
		g.conn = dc.(driver.Conn)
		// The driver interrupts only until the first row. The handle is read here to interrupt later steps too.
		v := reflect.ValueOf(dc)
		if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
			return errors.New("driver connection has no handle")
		}
		h := v.Elem().FieldByName("db")
		if !h.IsValid() || h.Kind() != reflect.Uintptr {
			return errors.New("driver connection has no handle")
		}
		f.db = uintptr(h.Uint())
		return nil
	})
	if err != nil {
		_ = g.closer()
		return nil, fmt.Errorf("open sqlite: %w", err)
	}
	g.rewrite = func(text string) string { return f.exact(g, text) }
	return g, nil
}

// begin implements flavor.
func (f *sqliteFlavor) begin(ctx context.Context, g *generic, readOnly bool) error {
	context.AfterFunc(ctx, f.interrupt) // a late one finds the handle closed: connections serve one call
	only, begin := "on", "begin"
	if !readOnly {
		only, begin = "off", "begin immediate"
	}
	for _, text := range []string{"pragma query_only = " + only, begin} {
		if _, err := g.run(ctx, text, nil); err != nil {
			return err
		}
	}
	if readOnly {
		_, err := g.list(ctx, "select count(*) from sqlite_schema")
		return err
	}
	return nil
}

func (f *sqliteFlavor) interrupt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.db != 0 {
		sqlite3.Xsqlite3_interrupt(nil, f.db) // one atomic store
	}
}

// end implements flavor.
func (f *sqliteFlavor) end(ctx context.Context, g *generic, readOnly bool) error {
	if !readOnly {
		_, err := g.run(ctx, "commit", nil)
		return err
	}
	rows, err := g.list(ctx, "pragma query_only")
	if err != nil {
		return err
	}
	if len(rows) != 1 || rows[0][0] != "1" {
		return errReadOnlyLost
	}
	_, err = g.run(ctx, "rollback", nil)
	return err
}

func (f *sqliteFlavor) cancel(*generic) { f.interrupt() }
func (f *sqliteFlavor) lastID() bool    { return true }

func (f *sqliteFlavor) args(args []arg) ([]driver.NamedValue, error) {
	values := make([]driver.Value, len(args))
	for i, a := range args {
		values[i] = driverValue(a)
	}
	return named(values), nil
}

func (f *sqliteFlavor) info(g *generic, text string) ([]sqlite.ColumnInfo, error) {
	ci, ok := g.conn.(interface {
		ColumnInfo(string) ([]sqlite.ColumnInfo, error)
	})
	if !ok {
		return nil, errors.New("driver tells no column origins")
	}
	return ci.ColumnInfo(text)
}

// exact wraps a statement whose result has columns declared DATE, DATETIME or TIMESTAMP: the driver would read their text as
// a time and lose how it was written. A unary plus takes the declared type away and leaves the value.
func (f *sqliteFlavor) exact(g *generic, text string) string {
	cols, err := f.info(g, text)
	if err != nil {
		return text // it fails again where it runs
	}
	dated := false
	names, items := make([]string, len(cols)), make([]string, len(cols))
	for i, c := range cols {
		names[i] = "c" + strconv.Itoa(i)
		items[i] = names[i]
		if t := strings.ToUpper(c.DeclType); t == "DATE" || t == "DATETIME" || t == "TIMESTAMP" {
			dated, items[i] = true, "+"+names[i]
		}
	}
	if !dated {
		return text
	}
	inner := text
	for _, t := range lex(text) {
		if t.kind == ';' { // there is one statement: what follows is comment
			inner = text[:t.pos]
			break
		}
	}
	wrapped := "with fairlead(" + strings.Join(names, ",") + ") as (\n" + inner + "\n) select " +
		strings.Join(items, ",") + " from fairlead"
	if _, err := f.info(g, wrapped); err != nil {
		return text
	}
	return wrapped
}

// describe implements flavor.
func (f *sqliteFlavor) describe(g *generic, text string, rows driver.Rows) ([]genericColumn, error) {
	info, err := f.info(g, text)
	if err != nil {
		return nil, err
	}
	if len(info) != len(rows.Columns()) {
		return nil, errProtocol
	}
	cols := make([]genericColumn, len(info))
	for i, c := range info {
		cols[i] = genericColumn{name: c.Name, kind: affinity(c.DeclType), database: c.DeclType}
		if c.TableName != "" && c.OriginName != "" {
			cols[i].origin = []string{c.DatabaseName, c.TableName, c.OriginName}
		}
	}
	return cols, nil
}

// knowTables corrects the origins for masks. SQLite tells one for the columns of a table-valued function too, whose values
// come from its arguments: only those of stored tables count. And rowid is another name of an integer primary key.
func (f *sqliteFlavor) knowTables(ctx context.Context, g *generic, b *bound, cols []genericColumn, paths [][]string) error {
	rows, err := g.list(ctx, `select s.name, coalesce(max(case when lower(c.type) = 'integer' and c.pk > 0 then c.name end), '')
 from sqlite_schema s, pragma_table_xinfo(s.name) c where s.type = 'table' and s.rootpage > 0 group by s.name`)
	if err != nil {
		return err
	}
	stored := map[string]bool{}
	for _, r := range rows {
		stored[strings.ToLower(r[0])] = true
		if r[1] != "" && b.mask.ColumnPath("main", r[0], r[1]) {
			b.hidden = []string{"rowid", "_rowid_", "oid"}
		}
	}
	for i, p := range paths {
		if len(p) == 3 && (!stored[strings.ToLower(p[1])] || slices.Contains(b.hidden, strings.ToLower(p[2]))) {
			cols[i].origin, paths[i] = nil, nil
		}
	}
	return nil
}

// affinity is SQLite's rule from a declared type to what is stored by preference (datatype3, section 3.1).
func affinity(decl string) kind {
	d := strings.ToUpper(decl)
	has := func(list ...string) bool {
		for _, s := range list {
			if strings.Contains(d, s) {
				return true
			}
		}
		return false
	}
	switch {
	case has("INT"):
		return kInt
	case has("CHAR", "CLOB", "TEXT"):
		return kText
	case has("BLOB"):
		return kBytes
	case has("REAL", "FLOA", "DOUB"):
		return kFloat
	}
	return kAny
}

// value implements flavor. A blob outside a blob column, and text in one, say their type, for both are JSON strings.
func (f *sqliteFlavor) value(dst []byte, c *genericColumn, v driver.Value) []byte {
	switch v := v.(type) {
	case []byte:
		if c.kind == kBytes {
			return appendBytes(dst, v)
		}
		dst = appendBytes(append(dst, `{"type":"bytes","value":`...), v)
		return append(dst, '}')
	case string:
		if c.kind == kBytes {
			dst = appendString(append(dst, `{"type":"text","value":`...), v)
			return append(dst, '}')
		}
		return appendString(dst, v)
	}
	return appendValue(dst, c, v)
}

// fault implements flavor.
func (f *sqliteFlavor) fault(err error) *protocol.Error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return nil
	}
	detail := "SQLITE_" + strconv.Itoa(e.Code())
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_ERROR:
		return targetError(protocol.CodeUpstream, detail, "the database refused the statement: a syntax error, or no such table, column or function", err)
	case sqlite3.SQLITE_CONSTRAINT:
		return targetError(protocol.CodeConflict, detail, "a constraint of the database forbids that", err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH:
		return targetError(protocol.CodeUpstream, detail, "the database is open read-only, and the statement would write", err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return targetError(protocol.CodeConflict, detail, "a lock is held by another transaction", err)
	case sqlite3.SQLITE_INTERRUPT:
		return targetError(protocol.CodeTimeout, detail, "the statement was interrupted", err)
	case sqlite3.SQLITE_TOOBIG:
		return &protocol.Error{Code: protocol.CodeTooLarge, Origin: protocol.OriginTarget, Message: errRowSize.Message, Detail: detail, Cause: wordless{err}}
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL:
		return targetError(protocol.CodeUnavailable, detail, "the database file cannot be used", err)
	}
	return targetError(protocol.CodeUpstream, detail, "the database refused the statement", err)
}
