package sqldb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy/statement"
	"github.com/fairleadhq/fairlead/internal/mask"
	"github.com/fairleadhq/fairlead/protocol"
)

// DB is the connector of one database profile. Safe for concurrent use.
type DB struct {
	cfg  Config
	log  *slog.Logger
	pool *pool
}

var _ connector.Connector = (*DB)(nil)

// New checks the configuration and reads the CA file. It does not connect: the first call does. log must not be nil.
func New(cfg Config, log *slog.Logger) (*DB, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	db := &DB{cfg: cfg, log: log.With("profile", "database."+cfg.Name)}
	open, err := opener(&db.cfg, db.log)
	if err != nil {
		return nil, err
	}
	db.pool = newPool(db.cfg.MaxConns, db.cfg.QueueTimeout, open)
	return db, nil
}

// opener gives what makes one connection of the profile's adapter.
func opener(cfg *Config, log *slog.Logger) (func(context.Context) (session, error), error) {
	switch cfg.Adapter {
	case PostgreSQL, Redshift:
		return openPG(cfg, log)
	case MySQL:
		return openMySQL(cfg, log)
	case SQLServer:
		return openSQLServer(cfg, log)
	case Oracle:
		return openOracle(cfg, log)
	}
	return openSQLite(cfg, log)
}

// Close drops idle connections.
func (db *DB) Close() error {
	db.pool.close()
	return nil
}

// bound is one statement, ready to run.
type bound struct {
	sql   string
	args  []arg
	named bool // from the site's own file
	class statement.Class
	mask  *mask.Set

	adapter string
	hidden  []string // names, in lower case, that give a masked column beside its own
}

// Do runs one operation. See connector.Connector for what it writes and returns.
func (db *DB) Do(ctx context.Context, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	timeout := db.cfg.Timeout
	if t := c.Decision.Limits.Timeout; t > 0 {
		timeout = t
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch c.Request.Operation {
	case protocol.OpQuery:
		return db.query(ctx, c, w)
	case protocol.OpExec, protocol.OpTransaction:
		return db.exec(ctx, c, w)
	case protocol.OpSchema:
		return db.schema(ctx, c, w)
	}
	return protocol.Outcome{}, db.cfg.fail(protocol.CodeUnsupported, nil, "operation %s is not one of a database", c.Request.Operation)
}

// bind resolves a statement, checks its class once more (the policy did so before) and reads its arguments.
func (db *DB) bind(st protocol.Statement, m *mask.Set) (*bound, error) {
	b := &bound{sql: st.SQL, mask: m, adapter: db.cfg.Adapter}
	var declared []string
	if st.Name != "" {
		have, ok := db.cfg.Statements[st.Name]
		if !ok || st.SQL != "" {
			e := db.cfg.fail(protocol.CodeNotFound, nil, "the profile has no such named statement")
			e.Rule = db.cfg.rule("statements")
			return nil, e
		}
		b.sql, b.named, declared = have.SQL, true, have.Params
	} else if db.cfg.Mode == ModeStatements {
		e := db.cfg.fail(protocol.CodeDenied, nil, "the profile runs named statements only")
		e.Rule, e.Hint = db.cfg.rule("allow.mode"), `send {"statement": NAME, "args": […]}`
		return nil, e
	}
	a := statement.Analyze(dialect(db.cfg.Adapter), b.sql)
	if a.Class != statement.ClassRead && a.Class != statement.ClassWrite {
		e := db.cfg.fail(protocol.CodeDenied, nil, "the statement is refused: %s", a.Reason)
		e.Rule = db.cfg.rule("allow.mode")
		return nil, e
	}
	b.class = a.Class
	var err error
	b.args, err = decodeArgs(db.cfg.Adapter, st.Args, declared, b.named)
	return b, err
}

// session gets a connection, waiting for a free one no longer than the queue time-out.
func (db *DB) session(ctx context.Context, c *connector.Call) (*pooled, error) {
	var s *pooled
	err := db.guard(func() (err error) {
		s, err = db.pool.get(ctx, c.Request.Connection)
		return err
	})
	if err == nil {
		return s, nil
	}
	if e := contextError(ctx); e != nil {
		return nil, e
	}
	if errors.Is(err, errQueue) {
		e := db.cfg.fail(protocol.CodeUnavailable, err, "all %d connections of the profile are in use", db.cfg.MaxConns)
		e.Hint = "try again later, or ask the on-prem admin to raise max_conns"
		return nil, e
	}
	var e *protocol.Error
	if !errors.As(err, &e) {
		e = targetError(protocol.CodeUnavailable, "", "the database cannot be reached", err)
		e.Hint = "the agent's log has the reason under the request id"
	}
	db.log.WarnContext(ctx, "connect to database", "request", c.Request.ID, "error", errors.Unwrap(e))
	return nil, e
}

// guard turns a panic into an error: drivers parse what a hostile server sends.
func (db *DB) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginTarget, Message: errProtocol.Message,
				Cause: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
		}
	}()
	return f()
}

// settle gives the session back, or closes it after an error.
func (db *DB) settle(s *pooled, err error) {
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		clean := false
		if db.guard(func() error { clean = s.reset(ctx); return nil }) == nil && clean {
			db.pool.put(s)
			return
		}
	}
	if err := db.guard(func() error { db.pool.drop(s); return nil }); err != nil {
		db.log.Error("close database connection", "error", err)
	}
}

// explain turns what a session gave into an error that may leave.
func (db *DB) explain(ctx context.Context, c *connector.Call, err error) *protocol.Error {
	if e := contextError(ctx); e != nil {
		return e
	}
	var e *protocol.Error
	if !errors.As(err, &e) {
		e = targetError(protocol.CodeUpstream, "", "the database did not complete the statement", err)
	}
	db.log.InfoContext(ctx, "database operation failed", "request", c.Request.ID, "code", e.Code, "detail", e.Detail, "message", e.Message)
	if e.Cause != nil {
		db.log.DebugContext(ctx, "database error", "request", c.Request.ID, "error", e.Cause)
	}
	return e
}

func (db *DB) query(ctx context.Context, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	if c.Database == nil || c.Database.Query == nil {
		return protocol.Outcome{}, db.cfg.fail(protocol.CodeInvalid, nil, "query wants a statement")
	}
	b, err := db.bind(c.Database.Query.Statement, c.Decision.Mask)
	if err != nil {
		return protocol.Outcome{}, err
	}
	if b.class != statement.ClassRead {
		e := db.cfg.fail(protocol.CodeDenied, nil, "query runs statements that read; this one writes")
		e.Rule, e.Hint = db.cfg.rule("allow.mode"), "use exec in a profile whose mode is read_write"
		return protocol.Outcome{}, e
	}
	s, err := db.session(ctx, c)
	if err != nil {
		return protocol.Outcome{}, err
	}
	out := newStream(w, c.Decision.Limits.MaxRows, c.Decision.Limits.MaxBytes)
	defer out.stop()
	// A caller that does not read must not hold the connection past the time limit.
	stop := context.AfterFunc(ctx, func() { _ = out.rc.SetWriteDeadline(time.Now().Add(5 * time.Second)) })
	defer func() {
		if !stop() {
			_ = out.rc.SetWriteDeadline(time.Time{})
		}
	}()
	err = db.guard(func() error { return s.query(ctx, b, out) })
	var e *protocol.Error
	if err != nil && !errors.Is(err, errCut) {
		e = db.explain(ctx, c, err)
		if errors.Is(err, errCaller) {
			e = &protocol.Error{Code: protocol.CodeCanceled, Origin: protocol.OriginAgent, Message: "the caller went away; the statement was cancelled"}
		}
	}
	if !out.headed {
		db.settle(s, err)
		if e == nil {
			e = errProtocol // a session must give a head before it succeeds
		}
		return protocol.Outcome{}, e
	}
	if e != nil {
		e.RequestID = c.Request.ID
	}
	werr := out.finish(e, err != nil) // to end a statement at the server can take its time
	db.settle(s, err)
	o := protocol.Outcome{Rows: out.rows, Bytes: out.bytes, Truncated: out.truncated}
	if e != nil {
		o.Code, o.Rule = e.Code, e.Rule
	} else if werr != nil {
		o.Code = protocol.CodeCanceled
	}
	return o, nil
}

func (db *DB) exec(ctx context.Context, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	var list []protocol.Statement
	switch one := c.Request.Operation == protocol.OpExec; {
	case c.Database != nil && one && c.Database.Query != nil:
		list = []protocol.Statement{c.Database.Query.Statement}
	case c.Database != nil && !one && c.Database.Transaction != nil:
		list = c.Database.Transaction.Statements
	}
	if len(list) == 0 {
		return protocol.Outcome{}, db.cfg.fail(protocol.CodeInvalid, nil, "%s wants a statement", c.Request.Operation)
	}
	if db.cfg.Mode == ModeReadOnly {
		e := db.cfg.fail(protocol.CodeDenied, nil, "the profile is read-only")
		e.Rule = db.cfg.rule("allow.mode")
		return protocol.Outcome{}, e
	}
	sts := make([]*bound, len(list))
	for i, st := range list {
		b, err := db.bind(st, c.Decision.Mask)
		if err != nil {
			return protocol.Outcome{}, numbered(err, i, len(list))
		}
		sts[i] = b
	}
	s, err := db.session(ctx, c)
	if err != nil {
		return protocol.Outcome{}, err
	}
	var res []protocol.ExecResult
	err = db.guard(func() (err error) { res, err = s.exec(ctx, sts); return err })
	db.settle(s, err)
	if err != nil {
		var e *protocol.Error
		if errors.As(err, &e) && e.Code == protocol.CodeInterrupted {
			return protocol.Outcome{}, e // whether it took effect is not known; no time-out may hide that
		}
		return protocol.Outcome{}, db.explain(ctx, c, err)
	}
	var o protocol.Outcome
	for _, r := range res {
		o.Rows += r.RowsAffected
	}
	var body any = protocol.TransactionResult{Results: res}
	if c.Request.Operation == protocol.OpExec {
		body = res[0]
	}
	return writeJSON(w, body, o)
}

// numbered says which statement of several an error is about.
func numbered(err error, i, n int) error {
	var e *protocol.Error
	if n == 1 || !errors.As(err, &e) {
		return err
	}
	c := *e
	c.Message = fmt.Sprintf("statement %d of %d, of which none took effect: %s", i+1, n, e.Message)
	return &c
}

func (db *DB) schema(ctx context.Context, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	s, err := db.session(ctx, c)
	if err != nil {
		return protocol.Outcome{}, err
	}
	var sch *protocol.Schema
	err = db.guard(func() (err error) { sch, err = s.schema(ctx); return err })
	db.settle(s, err)
	if err != nil {
		return protocol.Outcome{}, db.explain(ctx, c, err)
	}
	if sch.Tables == nil {
		sch.Tables = []protocol.Table{}
	}
	for i := range sch.Tables {
		t := &sch.Tables[i]
		for j := range t.Columns {
			t.Columns[j].Masked = c.Decision.Mask.ColumnPath(t.Schema, t.Name, t.Columns[j].Name)
		}
	}
	return writeJSON(w, sch, protocol.Outcome{Rows: int64(len(sch.Tables))})
}

func writeJSON(w http.ResponseWriter, v any, o protocol.Outcome) (protocol.Outcome, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return protocol.Outcome{}, err
	}
	w.Header().Set("Content-Type", "application/json")
	n, err := w.Write(append(b, '\n'))
	o.Bytes = int64(n)
	if err != nil {
		o.Code = protocol.CodeCanceled
	}
	return o, nil
}
