package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fairleadhq/fairlead/internal/testenv/servers"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

const (
	pgReader = "bench_reader"
	pgRows   = "select id, name from narrow"
	pgOneRow = "select id, name from narrow where id = $1"
)

// database is a PostgreSQL server of the run's own, filled.
type database struct {
	*servers.Server
	readerPassword string
	end            func() error
}

func (b *bench) pgAddr() string {
	if b.pg == nil {
		return ""
	}
	return b.pg.Addr()
}

// startDatabase starts PostgreSQL and fills the tables of the query cells.
func (b *bench) startDatabase(ctx context.Context) error {
	s, end, err := servers.StartPostgreSQL()
	if err != nil {
		return err
	}
	b.pg = &database{Server: s, readerPassword: "bench-reader", end: end}
	conn, err := pgx.Connect(ctx, s.AdminDSN)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range []string{
		fmt.Sprintf("create table narrow as select g as id, 'row number ' || g as name from generate_series(1, %d) g", b.opt.Rows),
		"alter table narrow add primary key (id)", "analyze narrow",
		"create role " + pgReader + " login password 'bench-reader' nosuperuser nocreatedb nocreaterole noinherit",
		"revoke create on schema public from public", "revoke temporary on database " + s.Database + " from public",
		"grant usage on schema public to " + pgReader, "grant select on all tables in schema public to " + pgReader,
		"revoke execute on function lo_from_bytea(oid, bytea), lo_create(oid), lo_creat(integer), lo_unlink(oid) from public",
		"select count(*) from narrow", // so that it is in memory
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare PostgreSQL: %w", err)
		}
	}
	if b.pgbench, err = exec.LookPath("pgbench"); err != nil {
		b.pgbenchMissing = "pgbench is not on PATH"
		return nil
	}
	_, err = run(ctx, b.pgEnv(), b.pgbench, "-i", "-q", "-s", strconv.Itoa(b.opt.Scale), "-h", s.Host, "-p", strconv.Itoa(s.Port), "-U", s.User, s.Database)
	return err
}

func (b *bench) pgEnv() []string { return []string{"PGPASSWORD=" + b.pg.Password, "PGSSLMODE=disable"} }

var tps = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

// runPgbench gives transactions a second of "pgbench -S" through addr.
func (b *bench) runPgbench(ctx context.Context, addr string, clients int) (float64, error) {
	host, port, err := splitAddr(addr)
	if err != nil {
		return 0, err
	}
	length := []string{"-T", strconv.Itoa(int(math.Ceil(b.opt.Cell.Seconds())))}
	if b.opt.Cell < time.Second {
		length = []string{"-t", "100"}
	}
	argv := append([]string{b.pgbench, "-n", "-S", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(clients, 2))}, length...)
	out, err := run(ctx, b.pgEnv(), append(argv, "-h", host, "-p", port, "-U", b.pg.User, b.pg.Database)...)
	if err != nil {
		return 0, err
	}
	m := tps.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench said no rate: %s", clip(out, 300))
	}
	return strconv.ParseFloat(m[1], 64)
}

func (b *bench) readerConn(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, b.pg.URL("postgres", pgReader, b.pg.readerPassword, b.pg.Database)+"?sslmode=disable")
}

// askDirect asks for one row again and again by the driver alone.
func (b *bench) askDirect(ctx context.Context) (*rounds, error) {
	conn, err := b.readerConn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	n := 0
	return repeat(ctx, 1, b.opt.Cell, func(int) error {
		n = n%b.opt.Rows + 1
		var id int32
		var name string
		if err := conn.QueryRow(ctx, pgOneRow, n).Scan(&id, &name); err != nil {
			return err
		}
		if int(id) != n {
			return fmt.Errorf("asked for row %d and got %d", n, id)
		}
		return nil
	})
}

// askAPI asks for one row again and again by the operation query.
func (b *bench) askAPI(ctx context.Context, c *client.Client) (*rounds, error) {
	n := 0
	return repeat(ctx, 1, b.opt.Cell, func(int) error {
		n = n%b.opt.Rows + 1
		rows, err := c.Query(ctx, "rows", client.QueryRequest{Statement: protocol.Statement{SQL: pgOneRow, Args: []json.RawMessage{json.RawMessage(strconv.Itoa(n))}}})
		if err != nil {
			return err
		}
		got := 0
		for rows.Next() {
			row, err := rows.Row()
			if err != nil {
				return err
			}
			if string(row[0]) != strconv.Itoa(n) {
				return fmt.Errorf("asked for row %d and got %s", n, row[0])
			}
			got++
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		if got != 1 {
			return fmt.Errorf("%d rows came instead of one", got)
		}
		return nil
	})
}

// readDirect reads the whole table by the driver alone, each value decoded. It gives rows a second.
func (b *bench) readDirect(ctx context.Context) (float64, error) {
	conn, err := b.readerConn(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	begin := time.Now()
	rows, err := conn.Query(ctx, pgRows)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var id int32
		var name string
		if err := rows.Scan(&id, &name); err != nil {
			return 0, err
		}
		n++
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	return b.rate(n, begin)
}

// readAPI reads the whole table by the operation query, line by line as it comes.
func (b *bench) readAPI(ctx context.Context, c *client.Client) (float64, error) {
	begin := time.Now()
	rows, err := c.Query(ctx, "rows", client.QueryRequest{Statement: protocol.Statement{SQL: pgRows}})
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	return b.rate(n, begin)
}

func (b *bench) rate(rows int, begin time.Time) (float64, error) {
	if rows != b.opt.Rows {
		return 0, fmt.Errorf("%d rows came instead of %d", rows, b.opt.Rows)
	}
	return float64(rows) / time.Since(begin).Seconds(), nil
}
