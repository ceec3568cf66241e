package sqldb

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/fairleadhq/fairlead/protocol"
)

// mysqlFlavor is MySQL and MariaDB.
type mysqlFlavor struct {
	base    *mysql.Config
	maria   bool
	modern  bool // knows @@transaction_read_only
	id      string
	timeout time.Duration // to sign in, for the side connection that cancels
}

func openMySQL(cfg *Config, log *slog.Logger) (func(context.Context) (session, error), error) {
	conf, err := mysqlConfig(cfg)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (session, error) {
		ctx, cancel := context.WithTimeout(ctx, cfg.ConnTimeout)
		defer cancel()
		f := &mysqlFlavor{base: conf, timeout: cfg.ConnTimeout}
		g := &generic{cfg: cfg, log: log, flavor: f, prepared: true}
		var err error
		if g.conn, g.tap, err = mysqlConnect(ctx, cfg, conf); err != nil {
			return nil, f.connectError(err)
		}
		greeted := false
		defer func() {
			if !greeted {
				g.close()
			}
		}()
		if err := f.greet(ctx, g); err != nil {
			return nil, f.connectError(err)
		}
		greeted = true
		return g, nil
	}, nil
}

// mysqlConfig builds the driver's configuration field by field.
func mysqlConfig(cfg *Config) (*mysql.Config, error) {
	tlsConf, err := tlsConfig(cfg)
	if err != nil {
		return nil, err
	}
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = cfg.Username, cfg.Password.ExposeString(), cfg.Database
	c.Net, c.Addr = "tcp", net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port))
	c.TLS, c.AllowFallbackToPlaintext = tlsConf, false
	c.Collation, c.Loc, c.ParseTime = "utf8mb4_general_ci", time.UTC, false
	c.AllowAllFiles, c.AllowCleartextPasswords, c.AllowOldPasswords = false, false, false
	c.MultiStatements, c.InterpolateParams = false, false
	c.MaxAllowedPacket = MaxRowBytes
	c.Logger = &mysql.NopLogger{}
	c.ConnectionAttributes = "program_name:fairlead"
	return c, nil
}

func mysqlConnect(ctx context.Context, cfg *Config, base *mysql.Config) (driver.Conn, *tapper, error) {
	t := &tapper{cfg: cfg, greet: mysqlGreeting}
	if cfg.TLS == TLSDisable {
		t.write = refusePassword
	}
	c := base.Clone()
	c.DialFunc = t.DialContext
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, nil, fmt.Errorf("configure mysql driver: %w", err)
	}
	connected := false
	defer func() {
		if !connected { // also when the driver panics at what a server sends
			t.cut()
		}
	}()
	conn, err := connector.Connect(ctx)
	connected = err == nil
	return conn, t, err
}

// mysqlGreeting reads the server's first packet, which the driver takes apart without looking at its length, and refuses one
// that is too short (protocol HandshakeV10).
func mysqlGreeting(conn net.Conn) ([]byte, error) {
	const header, limit = 4, 4096
	b := make([]byte, header, 256)
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, err
	}
	n := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	if n == 0 || n > limit {
		return nil, errProtocol
	}
	b = append(b, make([]byte, n)...)
	if _, err := io.ReadFull(conn, b[header:]); err != nil {
		return nil, err
	}
	body := b[header:]
	if body[0] == 0xff {
		if n < 9 {
			return nil, errProtocol
		}
		return b, nil // an error, such as too many connections
	}
	version := bytes.IndexByte(body[1:], 0)
	// Connection id, 8 bytes of salt, filler, capabilities, character set, status, capabilities, length of the salt,
	// reserved bytes, 12 more bytes of salt and its end.
	if version < 0 || n < 1+version+1+4+8+1+2+1+2+2+1+10+13 {
		return nil, errProtocol
	}
	return b, nil
}

// refusePassword stops, where there is no TLS, what would give the password to a server that only pretends: asking it for
// an RSA key to encrypt the password with. One packet is one write of the driver.
func refusePassword(p []byte) error {
	const header = 4
	if len(p) <= header || p[3] == 0 { // sequence 0: a command, so signed in already
		return nil
	}
	body := p[header:]
	if len(body) == 1 && (body[0] == 1 || body[0] == 2) || bytes.Contains(body, []byte("\x00sha256_password\x00")) {
		return errors.New("the server wants the password without TLS")
	}
	return nil
}

func (f *mysqlFlavor) connectError(err error) error {
	var e *protocol.Error
	if errors.As(err, &e) {
		return e
	}
	var my *mysql.MySQLError
	if errors.As(err, &my) {
		return targetError(protocol.CodeUnavailable, strconv.Itoa(int(my.Number)), "the database refused the connection", err)
	}
	return targetError(protocol.CodeUnavailable, "", "the database cannot be reached, or its TLS or sign-in is not as the profile demands", err)
}

// greet learns what the server is and checks the role.
func (f *mysqlFlavor) greet(ctx context.Context, g *generic) error {
	rows, err := g.list(ctx, "select version(), connection_id()")
	if err != nil {
		return err
	}
	if len(rows) != 1 || len(rows[0]) != 2 {
		return errProtocol
	}
	f.id = rows[0][1]
	if _, err := strconv.ParseUint(f.id, 10, 64); err != nil {
		return errProtocol
	}
	f.maria = strings.Contains(strings.ToLower(rows[0][0]), "maria")
	f.modern = !f.maria
	return f.checkRole(ctx, g)
}

// mysqlHarmless are the privileges that a reading role may have.
var mysqlHarmless = map[string]bool{"USAGE": true, "SELECT": true, "SHOW VIEW": true, "SHOW DATABASES": true}

// checkRole refuses rights beyond reading: in MySQL a READ ONLY transaction does not hold against what commits implicitly.
func (f *mysqlFlavor) checkRole(ctx context.Context, g *generic) error {
	much, roles, err := f.grants(ctx, g, "show grants")
	if err != nil {
		return err
	}
	switch {
	case len(roles) > 0 && f.maria:
		for _, r := range roles {
			more, _, err := f.grants(ctx, g, "show grants for "+r)
			if err != nil {
				return err
			}
			much = append(much, more...)
		}
	case len(roles) > 0:
		more, _, err := f.grants(ctx, g, "show grants for current_user() using "+strings.Join(roles, ", "))
		if err != nil {
			return err
		}
		much = append(much, more...)
	}
	if len(much) == 0 {
		return nil
	}
	if g.cfg.Mode != ModeReadOnly {
		for _, m := range much {
			if strings.Contains(m, "SUPER") || strings.Contains(m, "FILE") || strings.Contains(m, "ALL PRIVILEGES ON *.*") {
				g.log.Warn("the profile's database role can do more than it needs", "too_much", much)
				break
			}
		}
		return nil
	}
	fix := make([]string, len(much))
	for i, m := range much {
		fix[i] = "REVOKE " + m + " FROM <user>"
	}
	return roleError(g.cfg, much, fix)
}

// grants gives what is too much, as "INSERT, FILE ON db.*", and the roles that are held.
func (f *mysqlFlavor) grants(ctx context.Context, g *generic, sql string) (much, roles []string, err error) {
	rows, err := g.list(ctx, sql)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range rows {
		bad, role := excessGrant(r[0])
		if bad != "" {
			much = append(much, bad)
		}
		if role != "" {
			roles = append(roles, role)
		}
	}
	return much, roles, nil
}

// excessGrant reads one line of SHOW GRANTS. What it cannot read is too much.
func excessGrant(line string) (much, role string) {
	rest, ok := strings.CutPrefix(line, "GRANT ")
	if !ok {
		if strings.HasPrefix(line, "SET DEFAULT ROLE ") {
			return "", ""
		}
		return "a grant that cannot be read", ""
	}
	to := strings.LastIndex(rest, " TO ")
	if to < 0 {
		return "a grant that cannot be read", ""
	}
	head, tail := rest[:to], rest[to:]
	on := strings.LastIndex(head, " ON ")
	if on < 0 {
		if strings.Contains(tail, "WITH ADMIN OPTION") {
			return "ADMIN OPTION of a role", head
		}
		return "", head
	}
	object := head[on+len(" ON "):]
	var bad []string
	depth, from := 0, 0
	for i := 0; i <= on; i++ {
		if i < on && (head[i] == '(' || head[i] == ')') {
			depth += map[byte]int{'(': 1, ')': -1}[head[i]]
		}
		if i < on && (head[i] != ',' || depth > 0) {
			continue
		}
		p := strings.TrimSpace(head[from:i])
		from = i + 1
		name := p
		if open := strings.IndexByte(p, '('); open > 0 {
			name = strings.TrimSpace(p[:open])
		}
		if !mysqlHarmless[strings.ToUpper(name)] {
			bad = append(bad, p)
		}
	}
	if strings.Contains(tail, "WITH GRANT OPTION") {
		bad = append(bad, "GRANT OPTION")
	}
	if len(bad) == 0 {
		return "", ""
	}
	return strings.Join(bad, ", ") + " ON " + object, ""
}

// begin implements flavor. The modes that change how a text is read are taken away, for the classifier knows the default.
func (f *mysqlFlavor) begin(ctx context.Context, g *generic, readOnly bool) error {
	limit := g.cfg.Timeout
	if d, ok := ctx.Deadline(); ok {
		limit = time.Until(d)
	}
	limit = max(limit, 0) + 500*time.Millisecond // ours fires first
	mode := "@@sql_mode"
	// The last ones stand for several modes, ANSI_QUOTES among them, and would bring it back.
	for _, m := range []string{"ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "IGNORE_SPACE", "ORACLE", "ANSI", "DB2", "MAXDB", "MSSQL", "POSTGRESQL"} {
		mode = "replace(" + mode + ", '" + m + "', '')"
	}
	settings := "set session time_zone = '+00:00', lock_wait_timeout = 10, innodb_lock_wait_timeout = 10, sql_mode = " + mode
	if f.maria {
		settings += fmt.Sprintf(", max_statement_time = %.3f", limit.Seconds())
	} else {
		settings += fmt.Sprintf(", max_execution_time = %d", limit.Milliseconds())
	}
	list := []string{settings, "start transaction"}
	if readOnly {
		list = []string{settings, "set session transaction read only", "start transaction read only", "do 1"}
	}
	for _, text := range list {
		if _, err := g.run(ctx, text, nil); err != nil {
			return err
		}
	}
	if readOnly {
		_, err := g.list(ctx, "select 1 from information_schema.schemata limit 1")
		return err
	}
	return nil
}

// end implements flavor.
func (f *mysqlFlavor) end(ctx context.Context, g *generic, readOnly bool) error {
	if !readOnly {
		_, err := g.run(ctx, "commit", nil)
		return err
	}
	sql := "select @@session.tx_read_only, @@in_transaction"
	if f.modern {
		sql = "select @@session.transaction_read_only, 1"
	}
	rows, err := g.list(ctx, sql)
	if err != nil {
		return err
	}
	if len(rows) != 1 || rows[0][0] != "1" {
		return errReadOnlyLost
	}
	_, err = g.run(ctx, "rollback", nil)
	return err
}

// cancel implements flavor: the driver only closes its socket, which a working server does not look at.
func (f *mysqlFlavor) cancel(g *generic) {
	ctx, cancel := context.WithTimeout(context.Background(), min(f.timeout, 5*time.Second))
	defer cancel()
	conn, _, err := mysqlConnect(ctx, g.cfg, f.base)
	if err != nil {
		g.log.Warn("cancel a statement", "error", err)
		return
	}
	defer conn.Close()
	if e, ok := conn.(driver.ExecerContext); ok {
		_, err = e.ExecContext(ctx, "kill query "+f.id, nil)
	}
	var my *mysql.MySQLError
	if err != nil && !(errors.As(err, &my) && my.Number == 1094) { // 1094: it has ended by itself
		g.log.Warn("cancel a statement", "error", err)
	}
}

func (f *mysqlFlavor) lastID() bool { return true }

// args implements flavor.
func (f *mysqlFlavor) args(args []arg) ([]driver.NamedValue, error) {
	values := make([]driver.Value, len(args))
	for i, a := range args {
		switch {
		case !a.null && a.typ == "timestamptz":
			t, _ := parseStamp(a.text)
			values[i] = t.UTC().Format("2006-01-02 15:04:05.999999")
		case !a.null && a.typ == "timestamp":
			values[i] = strings.Replace(a.text, "T", " ", 1)
		default:
			values[i] = driverValue(a)
		}
	}
	return named(values), nil
}

// describe implements flavor. The driver drops the origin that the server tells.
func (f *mysqlFlavor) describe(_ *generic, _ string, rows driver.Rows) ([]genericColumn, error) {
	return describeRows(rows, mysqlKind), nil
}

func mysqlKind(database string) kind {
	switch strings.TrimPrefix(database, "UNSIGNED ") {
	case "TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT", "YEAR":
		return kInt
	case "DECIMAL":
		return kDecimal
	case "FLOAT", "DOUBLE":
		return kFloat
	case "BINARY", "VARBINARY", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB", "BIT", "GEOMETRY", "VECTOR":
		return kBytes
	case "TIMESTAMP":
		return kTimestampTZ
	case "DATETIME":
		return kTimestamp
	case "DATE":
		return kDate
	case "TIME":
		return kTime
	case "JSON":
		return kJSON
	}
	return kText
}

// describeRows asks the driver what it knows of the columns.
func describeRows(rows driver.Rows, kindOf func(string) kind) []genericColumn {
	names := rows.Columns()
	cols := make([]genericColumn, len(names))
	for i, name := range names {
		cols[i].name = name
		if t, ok := rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
			cols[i].database = t.ColumnTypeDatabaseTypeName(i)
		}
		if t, ok := rows.(driver.RowsColumnTypeNullable); ok {
			if n, ok := t.ColumnTypeNullable(i); ok {
				cols[i].nullable = &n
			}
		}
		cols[i].kind = kindOf(cols[i].database)
	}
	return cols
}

// value implements flavor.
func (f *mysqlFlavor) value(dst []byte, c *genericColumn, v driver.Value) []byte {
	if b, ok := v.([]byte); ok && (c.kind == kTimestampTZ || c.kind == kTimestamp) {
		if bytes.HasPrefix(b, []byte("0000-00-00")) {
			return appendString(dst, b) // MySQL's zero date is no date
		}
		if c.kind == kTimestampTZ {
			b = append(b[:len(b):len(b)], "+00"...) // the session's zone
		}
		return appendStamp(dst, b)
	}
	return appendValue(dst, c, v)
}

// mysqlState maps the server's numbers to the SQLSTATE whose meaning they have here.
var mysqlState = map[uint16]string{
	1044: "42501", 1045: "28000", 1049: "3D000", 1054: "42703", 1062: "23505", 1064: "42601", 1040: "53300", 1048: "23502", 1142: "42501",
	1143: "42501", 1146: "42P01", 1205: "55P03", 1213: "40001", 1216: "23503", 1217: "23503", 1227: "42501", 1264: "22003", 1292: "22007",
	1305: "42883", 1317: "57014", 1365: "22012", 1366: "22P02", 1406: "22001", 1451: "23503", 1452: "23503", 1690: "22003", 1792: "25006",
	1969: "57014", 3024: "57014", 3819: "23514", 4025: "23514", 1053: "57P01",
}

// fault implements flavor.
func (f *mysqlFlavor) fault(err error) *protocol.Error {
	var my *mysql.MySQLError
	if !errors.As(err, &my) {
		return nil
	}
	e := stateError(mysqlState[my.Number], 0, err)
	e.Detail = strconv.Itoa(int(my.Number))
	return e
}

// schema implements flavor.
func (f *mysqlFlavor) schema(ctx context.Context, g *generic) (*protocol.Schema, error) {
	return informationSchema(ctx, g, ` not in ('information_schema','mysql','performance_schema','sys')`, [4]string{
		`select table_schema, table_name, case table_type when 'BASE TABLE' then 'table' else 'view' end from information_schema.tables
 where table_schema#SYSTEM# order by 1, 2 limit 10001`,
		`select table_schema, table_name, column_name, column_type, is_nullable from information_schema.columns
 where table_schema#SYSTEM# order by 1, 2, ordinal_position`,
		`select table_schema, table_name, column_name from information_schema.key_column_usage
 where constraint_name = 'PRIMARY' and table_schema#SYSTEM# order by 1, 2, ordinal_position`,
		`select table_schema, table_name, constraint_name, column_name, concat(referenced_table_schema, '.', referenced_table_name),
 referenced_column_name from information_schema.key_column_usage where referenced_table_name is not null and table_schema#SYSTEM#
 order by 1, 2, 3, ordinal_position`,
	})
}

// informationSchema runs four catalog queries in a read-only transaction; #SYSTEM# stands for the test of a schema's name.
func informationSchema(ctx context.Context, g *generic, system string, list [4]string) (*protocol.Schema, error) {
	if err := g.flavor.begin(ctx, g, true); err != nil {
		return nil, err
	}
	var parts [4][][]string
	for i, text := range list {
		rows, err := g.list(ctx, strings.ReplaceAll(text, "#SYSTEM#", system))
		if err != nil {
			return nil, err
		}
		parts[i] = rows
	}
	sch, err := gather(parts[0], parts[1], parts[2], parts[3])
	if err != nil {
		return nil, err
	}
	return sch, g.flavor.end(ctx, g, true)
}
