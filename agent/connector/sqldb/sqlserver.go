package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	mssql "github.com/microsoft/go-mssqldb"
	"github.com/microsoft/go-mssqldb/msdsn"

	"github.com/fairleadhq/fairlead/protocol"
)

// sqlserverFlavor is Microsoft SQL Server. It has no read-only transaction: a query's transaction is always rolled back.
type sqlserverFlavor struct{}

func openSQLServer(cfg *Config, log *slog.Logger) (func(context.Context) (session, error), error) {
	conf, err := sqlserverConfig(cfg)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (session, error) {
		ctx, cancel := context.WithTimeout(ctx, cfg.ConnTimeout)
		defer cancel()
		t := &tapper{cfg: cfg}
		// The driver's TLS handshake takes no context.
		defer context.AfterFunc(ctx, t.cut)()
		c := mssql.NewConnectorConfig(conf)
		c.Dialer = t
		conn, err := c.Connect(ctx)
		if err != nil {
			t.cut()
			return nil, connectFault(sqlserverFlavor{}, err)
		}
		g := &generic{cfg: cfg, log: log, flavor: sqlserverFlavor{}, conn: conn, tap: t}
		if err := checkServerRole(ctx, g); err != nil {
			g.close()
			return nil, connectFault(sqlserverFlavor{}, err)
		}
		return g, nil
	}, nil
}

// sqlserverConfig builds the driver's configuration field by field.
func sqlserverConfig(cfg *Config) (msdsn.Config, error) {
	tlsConf, err := tlsConfig(cfg)
	if err != nil {
		return msdsn.Config{}, err
	}
	c := msdsn.Config{
		Host: cfg.Host, Port: uint64(cfg.Port), Database: cfg.Database, User: cfg.Username, Password: cfg.Password.ExposeString(),
		AppName: "fairlead", Workstation: "fairlead", DisableRetry: true, ReadOnlyIntent: cfg.Mode == ModeReadOnly, NoTraceID: true,
		DialTimeout: -1, Protocols: []string{"tcp"}, Parameters: map[string]string{}, Encryption: msdsn.EncryptionRequired, TLSConfig: tlsConf,
	}
	if tlsConf == nil {
		c.Encryption = msdsn.EncryptionDisabled
	}
	return c, nil
}

// connectFault maps an error of connecting.
func connectFault(f flavor, err error) error {
	var e *protocol.Error
	if errors.As(err, &e) {
		return e
	}
	if e := f.fault(err); e != nil {
		e.Code = protocol.CodeUnavailable
		return e
	}
	return targetError(protocol.CodeUnavailable, "", "the database cannot be reached, or its TLS or sign-in is not as the profile demands", err)
}

// checkServerRole refuses roles that reach files, programs or other servers.
func checkServerRole(ctx context.Context, g *generic) error {
	rows, err := g.list(ctx, `select r.name from (values ('sysadmin'),('serveradmin'),('securityadmin'),('setupadmin'),('processadmin'),
 ('diskadmin'),('dbcreator'),('bulkadmin')) r(name) where is_srvrolemember(r.name) = 1
 union all select r.name from (values ('db_owner'),('db_securityadmin'),('db_accessadmin'),('db_backupoperator'),('db_ddladmin'),
 ('db_datawriter')) r(name) where is_rolemember(r.name) = 1`)
	if err != nil {
		return err
	}
	var much, fix []string
	for _, r := range rows {
		much, fix = append(much, "member of "+r[0]), append(fix, "ALTER ROLE "+r[0]+" DROP MEMBER <user>")
	}
	if len(much) == 0 {
		return nil
	}
	if g.cfg.Mode != ModeReadOnly {
		g.log.Warn("the profile's database role can do more than it needs", "too_much", much)
		return nil
	}
	return roleError(g.cfg, much, fix)
}

func (sqlserverFlavor) begin(ctx context.Context, g *generic, readOnly bool) error {
	for _, text := range []string{"set quoted_identifier on; set ansi_nulls on; set xact_abort on; set lock_timeout 10000; set dateformat ymd", "begin transaction"} {
		if _, err := g.run(ctx, text, nil); err != nil {
			return err
		}
	}
	if readOnly {
		_, err := g.list(ctx, "select 1")
		return err
	}
	return nil
}

func (sqlserverFlavor) end(ctx context.Context, g *generic, readOnly bool) error {
	if !readOnly {
		_, err := g.run(ctx, "commit transaction", nil)
		return err
	}
	rows, err := g.list(ctx, "select @@trancount")
	if err != nil {
		return err
	}
	if len(rows) != 1 || rows[0][0] != "1" {
		return errReadOnlyLost
	}
	_, err = g.run(ctx, "rollback transaction", nil)
	return err
}

// cancel implements flavor: the driver sends an attention when a context ends, and a closed socket ends a batch too.
func (sqlserverFlavor) cancel(*generic) {}
func (sqlserverFlavor) lastID() bool    { return false }

func (sqlserverFlavor) args(args []arg) ([]driver.NamedValue, error) {
	values := make([]driver.Value, len(args))
	for i, a := range args {
		values[i] = driverValue(a)
		if t, ok := parseStamp(a.text); ok && !a.null && a.typ == "timestamptz" {
			values[i] = t
		}
	}
	return named(values), nil
}

func (sqlserverFlavor) describe(_ *generic, _ string, rows driver.Rows) ([]genericColumn, error) {
	return describeRows(rows, sqlserverKind), nil
}

func sqlserverKind(database string) kind {
	switch database {
	case "TINYINT", "SMALLINT", "INT", "BIGINT":
		return kInt
	case "DECIMAL", "MONEY", "SMALLMONEY":
		return kDecimal
	case "REAL", "FLOAT":
		return kFloat
	case "BIT":
		return kBool
	case "BINARY", "VARBINARY", "IMAGE":
		return kBytes
	case "UNIQUEIDENTIFIER":
		return kUUID
	case "DATETIMEOFFSET":
		return kTimestampTZ
	case "DATETIME", "DATETIME2", "SMALLDATETIME":
		return kTimestamp
	case "DATE":
		return kDate
	case "TIME":
		return kTime
	case "TEXT", "NTEXT", "CHAR", "NCHAR", "VARCHAR", "NVARCHAR", "XML":
		return kText
	}
	return kBytes // CLR types come as they are stored
}

func (sqlserverFlavor) value(dst []byte, c *genericColumn, v driver.Value) []byte {
	switch v := v.(type) {
	case []byte:
		if c.kind == kUUID && len(v) == 16 {
			// The first three groups are little-endian on the wire.
			return append(fmt.Appendf(append(dst, '"'), "%02x%02x%02x%02x-%02x%02x-%02x%02x-%x-%x",
				v[3], v[2], v[1], v[0], v[5], v[4], v[7], v[6], v[8:10], v[10:]), '"')
		}
	case float64:
		if c.database == "REAL" {
			return appendFloat(dst, v, 32)
		}
	case time.Time:
		return appendTime(dst, c.kind, v)
	}
	return appendValue(dst, c, v)
}

var sqlserverState = map[int32]string{
	102: "42601", 105: "42601", 156: "42601", 207: "42703", 208: "42P01", 229: "42501", 230: "42501", 262: "42501", 515: "23502", 547: "23503",
	1205: "40001", 1222: "55P03", 2601: "23505", 2627: "23505", 4060: "3D000", 8134: "22012", 8115: "22003", 245: "22P02", 18456: "28000",
}

func (sqlserverFlavor) fault(err error) *protocol.Error {
	var ms mssql.Error
	if !errors.As(err, &ms) {
		return nil
	}
	e := stateError(sqlserverState[ms.Number], 0, err)
	e.Detail = strconv.Itoa(int(ms.Number))
	return e
}

func (f sqlserverFlavor) schema(ctx context.Context, g *generic) (*protocol.Schema, error) {
	return informationSchema(ctx, g, ` not in ('sys','INFORMATION_SCHEMA')`, [4]string{
		`select top 10001 table_schema, table_name, case table_type when 'BASE TABLE' then 'table' else 'view' end from information_schema.tables
 where table_schema#SYSTEM# order by 1, 2`,
		`select table_schema, table_name, column_name, data_type, is_nullable from information_schema.columns
 where table_schema#SYSTEM# order by 1, 2, ordinal_position`,
		`select k.table_schema, k.table_name, k.column_name from information_schema.key_column_usage k join information_schema.table_constraints c
 on c.constraint_schema = k.constraint_schema and c.constraint_name = k.constraint_name and c.constraint_type = 'PRIMARY KEY'
 where k.table_schema#SYSTEM# order by 1, 2, k.ordinal_position`,
		`select object_schema_name(f.parent_object_id), object_name(f.parent_object_id), object_name(f.constraint_object_id),
 col_name(f.parent_object_id, f.parent_column_id), object_schema_name(f.referenced_object_id) + '.' + object_name(f.referenced_object_id),
 col_name(f.referenced_object_id, f.referenced_column_id) from sys.foreign_key_columns f order by 1, 2, 3, f.constraint_column_id`,
	})
}
