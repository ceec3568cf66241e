package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	goora "github.com/sijms/go-ora/v2"
	"github.com/sijms/go-ora/v2/network"

	"github.com/fairleadhq/fairlead/protocol"
)

// oracleFlavor is Oracle Database.
type oracleFlavor struct{}

func openOracle(cfg *Config, log *slog.Logger) (func(context.Context) (session, error), error) {
	if cfg.Password.IsZero() || strings.EqualFold(cfg.Username, "sys") {
		// Without a password the driver would sign in as the user of the operating system; SYS is always SYSDBA.
		return nil, fmt.Errorf("database.%s: adapter oracle wants a username other than sys, and a password", cfg.Name)
	}
	tlsConf, err := tlsConfig(cfg)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (session, error) {
		ctx, cancel := context.WithTimeout(ctx, cfg.ConnTimeout)
		defer cancel()
		t := &tapper{cfg: cfg}
		defer context.AfterFunc(ctx, t.cut)()
		// The driver takes its settings only as a URL; this one is built and escaped here.
		options := map[string]string{"SSL": "false", "LOB FETCH": "PRE", "TIMEOUT": "0"}
		if tlsConf != nil {
			options["SSL"], options["SSL VERIFY"] = "true", "true"
		}
		c, ok := goora.NewConnector(goora.BuildUrl(cfg.Host, cfg.Port, cfg.Database, cfg.Username, cfg.Password.ExposeString(), options)).(*goora.OracleConnector)
		if !ok {
			return nil, errors.New("oracle driver has another connector")
		}
		c.Dialer(t)
		if tlsConf != nil {
			c.WithTLSConfig(tlsConf.Clone()) // the driver changes it
		}
		conn, err := c.Connect(ctx)
		if err != nil {
			t.cut()
			return nil, connectFault(oracleFlavor{}, err)
		}
		g := &generic{cfg: cfg, log: log, flavor: oracleFlavor{}, conn: conn, tap: t, prepared: true}
		if err := checkOracleRole(ctx, g); err != nil {
			g.close()
			return nil, connectFault(oracleFlavor{}, err)
		}
		return g, nil
	}, nil
}

// checkOracleRole refuses system privileges beyond signing in and reading, and rights to change tables of others.
func checkOracleRole(ctx context.Context, g *generic) error {
	rows, err := g.list(ctx, `select privilege from session_privs where privilege not in ('CREATE SESSION', 'SELECT ANY TABLE', 'READ ANY TABLE',
 'SET CONTAINER', 'SELECT ANY SEQUENCE', 'ALTER SESSION') and rownum <= 50`)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return nil
	}
	var much, fix []string
	for _, r := range rows {
		much, fix = append(much, r[0]), append(fix, "REVOKE "+r[0]+" FROM <user>")
	}
	if g.cfg.Mode != ModeReadOnly {
		g.log.Warn("the profile's database role can do more than it needs", "too_much", much)
		return nil
	}
	return roleError(g.cfg, much, fix)
}

// begin implements flavor. Oracle opens a transaction by itself; SET TRANSACTION must be its first statement.
func (oracleFlavor) begin(ctx context.Context, g *generic, readOnly bool) error {
	list := []string{"alter session set nls_date_format = 'YYYY-MM-DD\"T\"HH24:MI:SS' nls_numeric_characters = '.,'", "rollback"}
	if readOnly {
		list = append(list, "set transaction read only")
	} else {
		list = append(list, "set transaction read write")
	}
	for _, text := range list {
		if _, err := g.run(ctx, text, nil); err != nil {
			return err
		}
	}
	if readOnly {
		_, err := g.list(ctx, "select 1 from dual")
		return err
	}
	return nil
}

func (oracleFlavor) end(ctx context.Context, g *generic, readOnly bool) error {
	text := "commit"
	if readOnly {
		text = "rollback"
	}
	_, err := g.run(ctx, text, nil)
	return err
}

// cancel implements flavor: the driver sends a break when a context ends.
func (oracleFlavor) cancel(*generic) {}
func (oracleFlavor) lastID() bool    { return false }

func (oracleFlavor) args(args []arg) ([]driver.NamedValue, error) {
	values := make([]driver.Value, len(args))
	for i, a := range args {
		values[i] = driverValue(a)
		if b, ok := values[i].(bool); ok {
			values[i] = int64(0)
			if b {
				values[i] = int64(1)
			}
		}
		if a.null {
			continue
		}
		switch a.typ {
		case "timestamptz":
			t, _ := parseStamp(a.text)
			values[i] = t
		case "timestamp", "date":
			for _, l := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
				if t, err := time.Parse(l, a.text); err == nil {
					values[i] = t
					break
				}
			}
		}
	}
	return named(values), nil
}

func (oracleFlavor) describe(_ *generic, _ string, rows driver.Rows) ([]genericColumn, error) {
	return describeRows(rows, oracleKind), nil
}

func oracleKind(database string) kind {
	d := strings.ToUpper(database)
	switch {
	case d == "NUMBER":
		return kDecimal
	case d == "IBFLOAT" || d == "IBDOUBLE" || d == "BFLOAT" || d == "BDOUBLE":
		return kFloat
	case d == "RAW" || d == "LONGRAW" || strings.Contains(d, "BLOB") || d == "LONGVARRAW":
		return kBytes
	case strings.Contains(d, "TZ"):
		return kTimestampTZ
	case d == "DATE" || strings.HasPrefix(d, "TIMESTAMP"):
		return kTimestamp // an Oracle DATE has a time of day
	case strings.HasPrefix(d, "INTERVAL"):
		return kInterval
	}
	return kText
}

func (oracleFlavor) value(dst []byte, c *genericColumn, v driver.Value) []byte {
	return appendValue(dst, c, v)
}

var oracleState = map[int]string{
	1: "23505", 54: "55P03", 60: "40001", 900: "42601", 903: "42P01", 904: "42703", 907: "42601", 911: "42601", 923: "42601", 933: "42601",
	936: "42601", 942: "42P01", 1017: "28000", 1013: "57014", 1031: "42501", 1400: "23502", 1438: "22003", 1456: "25006", 1476: "22012",
	1722: "22P02", 2290: "23514", 2291: "23503", 2292: "23503", 12514: "3D000",
}

func (oracleFlavor) fault(err error) *protocol.Error {
	var o *network.OracleError
	if !errors.As(err, &o) {
		return nil
	}
	e := stateError(oracleState[o.ErrCode], 0, err)
	e.Detail = "ORA-" + fmt.Sprintf("%05d", o.ErrCode)
	return e
}

func (f oracleFlavor) schema(ctx context.Context, g *generic) (*protocol.Schema, error) {
	return informationSchema(ctx, g, ` not in (select username from all_users where oracle_maintained = 'Y')`, [4]string{
		`select * from (select owner, object_name, case object_type when 'TABLE' then 'table' else 'view' end from all_objects
 where object_type in ('TABLE', 'VIEW', 'MATERIALIZED VIEW') and owner#SYSTEM# order by 1, 2) where rownum <= ` + strconv.Itoa(maxTables+1),
		`select owner, table_name, column_name, data_type, nullable from all_tab_columns where owner#SYSTEM# order by 1, 2, column_id`,
		`select k.owner, k.table_name, k.column_name from all_cons_columns k join all_constraints c on c.owner = k.owner and
 c.constraint_name = k.constraint_name and c.constraint_type = 'P' where k.owner#SYSTEM# order by 1, 2, k.position`,
		`select k.owner, k.table_name, k.constraint_name, k.column_name, r.owner || '.' || r.table_name, r.column_name from all_constraints c
 join all_cons_columns k on k.owner = c.owner and k.constraint_name = c.constraint_name join all_cons_columns r on r.owner = c.r_owner and
 r.constraint_name = c.r_constraint_name and r.position = k.position where c.constraint_type = 'R' and k.owner#SYSTEM# order by 1, 2, 3, k.position`,
	})
}
