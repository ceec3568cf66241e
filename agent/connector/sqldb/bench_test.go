package sqldb

import (
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/testenv/servers"
	"github.com/fairleadhq/fairlead/protocol"
)

func benchDo(b *testing.B, db *DB, sql string, rows int64) {
	w := &discard{h: http.Header{}}
	c := call(protocol.OpQuery, policy.Decision{Limits: policy.Limits{Timeout: 5 * time.Minute}}, protocol.Statement{SQL: sql})
	o, err := db.Do(b.Context(), c, w)
	if err != nil || o.Code != "" || o.Rows != rows {
		b.Fatal(o, err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapSys)/(1<<20), "heap-MiB")
}

// benchPgx is what one writes by hand: rows scanned into variables.
func benchPgx(b *testing.B, s *servers.Server, sql string, rows int64) {
	conn, err := pgx.Connect(b.Context(), s.URL("postgres", "reader", "r", s.Database)+"?sslmode=require")
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(b.Context())
	res, err := conn.Query(b.Context(), sql)
	if err != nil {
		b.Fatal(err)
	}
	var n, got int64
	var text string
	for res.Next() {
		if err := res.Scan(&n, &text); err != nil {
			b.Fatal(err)
		}
		got++
	}
	if res.Err() != nil || got != rows {
		b.Fatal(res.Err(), got)
	}
}
