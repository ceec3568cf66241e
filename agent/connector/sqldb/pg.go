package sqldb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/fairleadhq/fairlead/protocol"
)

// pgMessage is the largest message taken from the server: one row, and what frames it.
const pgMessage = MaxRowBytes + 64<<10

// pgSession is one connection to PostgreSQL or Redshift.
type pgSession struct {
	cfg     *Config
	log     *slog.Logger
	conn    *pgconn.PgConn
	catalog *pgCatalog
	tail    *pgconn.Pipeline // a reset that was sent, whose answer is not read yet; nil: none
}

func openPG(cfg *Config, log *slog.Logger) (func(context.Context) (session, error), error) {
	tlsConf, err := tlsConfig(cfg)
	if err != nil {
		return nil, err
	}
	base, err := pgConfig(cfg, tlsConf)
	if err != nil {
		return nil, fmt.Errorf("database.%s: configure driver: %w", cfg.Name, err)
	}
	catalog := &pgCatalog{}
	return func(ctx context.Context) (session, error) {
		ctx, cancel := context.WithTimeout(ctx, cfg.ConnTimeout)
		defer cancel()
		conf := base.Copy()
		conf.DialFunc = pgDial(cfg)
		conn, err := pgconn.ConnectConfig(ctx, conf)
		if err != nil {
			return nil, pgConnectError(err)
		}
		s := &pgSession{cfg: cfg, log: log, conn: conn, catalog: catalog}
		if err := s.checkRole(ctx); err != nil {
			s.close()
			return nil, err
		}
		return s, nil
	}, nil
}

// envMu guards the moment in pgConfig in which PGSERVICE is taken away.
var envMu sync.Mutex

// pgConfig builds the driver's configuration field by field. The driver insists on making the struct itself and reads the
// environment and files of the user's home for it, so it is made from fixed settings that override all of those, and every
// field that matters is then set from the profile alone.
func pgConfig(cfg *Config, tlsConf *tls.Config) (*pgconn.Config, error) {
	envMu.Lock()
	defer envMu.Unlock()
	if v, ok := os.LookupEnv("PGSERVICE"); ok { // the one variable that no setting overrides
		os.Unsetenv("PGSERVICE")
		defer os.Setenv("PGSERVICE", v)
	}
	c, err := pgconn.ParseConfig("host=localhost port=5432 user=x password=x dbname=x sslmode=disable sslcertmode=disable sslnegotiation=postgres " +
		"connect_timeout=10 target_session_attrs=any min_protocol_version=3.0 max_protocol_version=3.0 channel_binding=prefer require_auth='' sslrootcert='' sslcert='' sslkey=''")
	if err != nil {
		return nil, err
	}
	c.Host, c.Port, c.Database = cfg.Host, uint16(cfg.Port), cfg.Database
	c.User, c.Password = cfg.Username, cfg.Password.ExposeString()
	c.TLSConfig, c.Fallbacks, c.SSLNegotiation = tlsConf, nil, "postgres"
	c.KerberosSrvName, c.KerberosSpn = "", ""
	c.ConnectTimeout = 0 // by context
	c.ValidateConnect, c.AfterConnect, c.AfterNetConnect, c.OAuthTokenProvider = nil, nil, nil, nil
	c.MaxProtocolMessageBodyLen = pgMessage
	c.RuntimeParams = map[string]string{"client_encoding": "UTF8", "application_name": "fairlead"}
	if tlsConf == nil {
		c.RequireAuth = "!password,!md5,!gss" // nothing that tells the password to who listens or pretends
	}
	// The name goes to Dial as it is: resolving and checking are one step there.
	c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	c.BuildFrontend = pgproto3.NewFrontend
	return c, nil
}

// pgDial gives the dialer of one connection. The driver calls it first to connect, and then to cancel with the literal
// address that it is connected to; the name is dialled then too, and the literal address only if the name now leads
// elsewhere.
func pgDial(cfg *Config) pgconn.DialFunc {
	addr := net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port))
	var peer string
	return func(ctx context.Context, network, want string) (net.Conn, error) {
		conn, err := cfg.Dial(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		got := conn.RemoteAddr().String()
		switch {
		case peer == "":
			peer = got
		case got != peer:
			_ = conn.Close()
			return cfg.Dial(ctx, "tcp", peer)
		}
		return conn, nil
	}
}

func pgConnectError(err error) error {
	var p *pgconn.PgError
	if errors.As(err, &p) {
		e := stateError(p.Code, 0, err)
		e.Code = protocol.CodeUnavailable
		return e
	}
	return targetError(protocol.CodeUnavailable, "", "the database cannot be reached, or its TLS or sign-in is not as the profile demands", err)
}

// pgStateError maps an error of a running statement.
func pgStateError(err error) error {
	var p *pgconn.PgError
	if errors.As(err, &p) {
		return stateError(p.Code, int(p.Position), err)
	}
	var big *pgproto3.ExceededMaxBodyLenErr
	if errors.As(err, &big) {
		return errRowSize
	}
	return err
}

// rows runs a statement of ours, by the extended protocol, and gives its rows as text; NULL is "".
func (s *pgSession) rows(ctx context.Context, sql string, args ...string) ([][]string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	res := s.conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	if res.Err != nil {
		return nil, res.Err
	}
	out := make([][]string, len(res.Rows))
	for i, r := range res.Rows {
		out[i] = make([]string, len(r))
		for j, v := range r {
			out[i][j] = string(v)
		}
	}
	return out, nil
}

// begin opens a transaction and sets what holds in it alone. In a read-only one the settings are read by a query, after
// which PostgreSQL refuses to change the transaction's mode.
func (s *pgSession) begin(ctx context.Context, readOnly bool) error {
	p := s.conn.StartPipeline(ctx)
	s.sendBegin(ctx, p, readOnly)
	p.SendPipelineSync()
	if err := errors.Join(p.Flush(), p.Close()); err != nil {
		return err
	}
	return s.begun()
}

// sendBegin queues what begin does: two statements.
func (s *pgSession) sendBegin(ctx context.Context, p *pgconn.Pipeline, readOnly bool) {
	sql := "begin read write"
	if readOnly {
		sql = "begin read only"
	}
	limit := s.cfg.Timeout
	if d, ok := ctx.Deadline(); ok {
		limit = time.Until(d)
	}
	ms := strconv.FormatInt(max(1, limit.Milliseconds())+500, 10) // ours fires first; this one is the belt
	settings := pgSettings
	if s.cfg.Adapter == Redshift {
		settings = "select set_config('statement_timeout', $1, true)"
	}
	p.SendQueryParams(sql, nil, nil, nil, nil)
	p.SendQueryParams(settings, [][]byte{[]byte(ms)}, []uint32{25}, nil, nil)
}

func (s *pgSession) begun() error {
	if s.conn.TxStatus() != 'T' {
		return errProtocol
	}
	return nil
}

const pgSettings = `select set_config('statement_timeout', $1, true), set_config('lock_timeout', '10000', true),
 set_config('idle_in_transaction_session_timeout', '60000', true), set_config('TimeZone', 'UTC', true),
 set_config('DateStyle', 'ISO, YMD', true), set_config('IntervalStyle', 'postgres', true),
 set_config('extra_float_digits', '3', true), set_config('xmloption', 'content', true)`

// end closes a transaction. A read-only one must still be what it was: open, and read-only.
func (s *pgSession) end(ctx context.Context, readOnly bool) error {
	if s.conn.TxStatus() != 'T' {
		return errReadOnlyLost
	}
	if !readOnly {
		return s.commit(ctx)
	}
	p := s.conn.StartPipeline(ctx)
	s.sendEnd(p)
	if err := p.Flush(); err != nil {
		return err
	}
	if err := s.ended(p); err != nil {
		return err
	}
	return p.Close()
}

// sendEnd queues what ends a read-only transaction, and a sync behind it.
func (s *pgSession) sendEnd(p *pgconn.Pipeline) {
	if s.cfg.Adapter != Redshift {
		p.SendQueryParams("select pg_catalog.current_setting('transaction_read_only')", nil, nil, nil, nil)
	}
	p.SendQueryParams("rollback", nil, nil, nil, nil)
	p.SendPipelineSync()
}

// ended reads what sendEnd has queued.
func (s *pgSession) ended(p *pgconn.Pipeline) error {
	if s.cfg.Adapter != Redshift {
		v, err := pipelined(p)
		if err != nil {
			return err
		}
		if len(v) != 1 || len(v[0]) != 1 || string(v[0][0]) != "on" {
			return errReadOnlyLost
		}
	}
	if _, err := pipelined(p); err != nil {
		return err
	}
	if err := synced(p); err != nil {
		return err
	}
	if s.conn.TxStatus() != 'I' {
		return errProtocol
	}
	return nil
}

// pipelined reads the rows of the next statement of a pipeline.
func pipelined(p *pgconn.Pipeline) ([][][]byte, error) {
	r, err := p.GetResults()
	if err != nil {
		return nil, err
	}
	rr, ok := r.(*pgconn.ResultReader)
	if !ok {
		return nil, errProtocol
	}
	res := rr.Read()
	return res.Rows, res.Err
}

// synced reads the end of what stands before a sync of a pipeline.
func synced(p *pgconn.Pipeline) error {
	r, err := p.GetResults()
	if err != nil {
		return err
	}
	if _, ok := r.(*pgconn.PipelineSync); !ok {
		return errProtocol
	}
	return nil
}

func (s *pgSession) commit(ctx context.Context) error {
	res := s.conn.ExecParams(ctx, "commit", nil, nil, nil, nil).Read()
	var p *pgconn.PgError
	switch {
	case errors.As(res.Err, &p):
		return res.Err // the server says that it did not take effect
	case res.Err != nil:
		return &protocol.Error{Code: protocol.CodeInterrupted, Origin: protocol.OriginAgent, Cause: wordless{res.Err},
			Message: "the connection was lost during commit; whether the change took effect is not known"}
	case res.CommandTag.String() != "COMMIT":
		return errProtocol
	}
	return nil
}

// reset implements session: the server is told to forget the session, and nobody waits for it before the next call. Redshift
// has no DISCARD.
func (s *pgSession) reset(context.Context) bool {
	if s.cfg.Adapter == Redshift || s.conn.IsClosed() || s.conn.TxStatus() != 'I' {
		return false
	}
	p := s.conn.StartPipeline(context.Background()) // it outlives the call
	p.SendQueryParams("discard all", nil, nil, nil, nil)
	if p.Sync() != nil {
		return false
	}
	s.tail = p
	return true
}

// pgResetTime is how long the server may take to forget a session.
const pgResetTime = 5 * time.Second

// ready implements session: the server has forgotten what was.
func (s *pgSession) ready() bool {
	p := s.tail
	if s.tail = nil; p == nil {
		return true
	}
	conn := s.conn.Conn()
	if conn.SetDeadline(time.Now().Add(pgResetTime)) != nil {
		return false
	}
	_, err := pipelined(p)
	if err == nil {
		err = p.Close()
	}
	return err == nil && s.conn.TxStatus() == 'I' && conn.SetDeadline(time.Time{}) == nil
}

// pgCancelEvery is how often a cancel request is repeated while the server goes on.
const pgCancelEvery = 200 * time.Millisecond

// close implements session. When the server may still work on something it gets a cancel request first, for it would notice
// the closed socket only when it next sends. PostgreSQL drops a cancel request that it gets to between two messages, such as
// Bind and Execute, and then runs the statement; so the request is repeated until the server has closed its end.
func (s *pgSession) close() {
	s.ready() // what it has to forget is soon forgotten; nothing is to be cancelled for that
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gone := s.conn.CleanupDone() // the driver is at it by itself when a context ended
	switch {
	case s.conn.IsBusy():
		done := make(chan struct{})
		gone = done
		conn := s.conn.Conn()
		go func() { defer close(done); drain(ctx, conn) }()
		defer func() {
			_ = conn.Close()
			<-done
			_ = s.conn.Close(ctx) // lets go of the caller's context
		}()
		_ = s.conn.CancelRequest(ctx)
	case s.conn.IsClosed():
	default:
		_ = s.conn.Close(ctx)
	}
	tick := time.NewTicker(pgCancelEvery)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = s.conn.CancelRequest(ctx)
		}
	}
}

// drain tells the server that nothing more comes and reads what it still sends, until it closes or ctx ends.
func drain(ctx context.Context, conn net.Conn) {
	end, _ := ctx.Deadline()
	_ = conn.SetDeadline(end)
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	for {
		_, err := io.Copy(io.Discard, conn)
		if !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return
		}
		_ = conn.SetDeadline(end) // the driver had moved it, for the caller's context has ended meanwhile
	}
}

// pgDangerous are predefined roles, also of cloud services, by which a role reaches files, programs or other sessions.
const pgDangerous = `'pg_execute_server_program','pg_read_server_files','pg_write_server_files','pg_signal_backend','pg_write_all_data',
 'pg_checkpoint','pg_create_subscription','pg_maintain','pg_use_reserved_connections','rds_superuser','rds_replication','rds_password',
 'azure_pg_admin','cloudsqlsuperuser','cloudsqladmin','alloydbsuperuser'`

// checkRole refuses a role that could do more than read past a READ ONLY transaction. It holds in every mode: no profile
// needs a superuser.
func (s *pgSession) checkRole(ctx context.Context) error {
	sql := `select r.rolname = current_user, r.rolname, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls
 from pg_catalog.pg_roles r where (r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolbypassrls
 or r.rolname in (` + pgDangerous + `)) and pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER') order by 1 desc, 2`
	if s.cfg.Adapter == Redshift {
		sql = `select true, usename, usesuper, false, usecreatedb, false, false from pg_catalog.pg_user
 where usename = current_user and (usesuper or usecreatedb)`
	}
	rows, err := s.rows(ctx, sql)
	if err != nil {
		return pgConnectError(err)
	}
	var much, fix []string
	attrs := []string{"SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS"}
	for _, r := range rows {
		if len(r) != 7 {
			return errProtocol
		}
		if r[0] != "t" {
			if len(much) == 0 || much[0] != "SUPERUSER" { // a superuser counts as member of everything
				much, fix = append(much, "member of "+r[1]), append(fix, "REVOKE "+quoteIdent(r[1])+" FROM <role>")
			}
			continue
		}
		for i, a := range attrs {
			if r[2+i] == "t" {
				much, fix = append(much, a), append(fix, "ALTER ROLE <role> NO"+a)
			}
		}
	}
	if len(much) == 0 {
		return nil
	}
	if s.cfg.Mode == ModeReadWrite {
		s.log.Warn("the profile's database role can do more than it needs", "too_much", much)
		return nil
	}
	return roleError(s.cfg, much, fix)
}

// roleError refuses a profile whose role has too many rights. The names are the database's own, of roles and privileges.
func roleError(cfg *Config, much, fix []string) error {
	e := cfg.fail(protocol.CodeDenied, nil, "the profile is %s, but its database role has more rights than that: %s", cfg.Mode, clipList(much))
	e.Rule = cfg.rule("username")
	e.Hint = "an admin of the database runs: " + clipList(fix) + "; or gives the profile a role of its own that may only read"
	return e
}

func clipList(list []string) string {
	s := strings.Join(list, "; ")
	if len(s) > 600 {
		s = strings.ToValidUTF8(s[:600], "") + "…"
	}
	return s
}

func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
