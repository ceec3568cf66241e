package e2e_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

var ctx = context.Background()

// shopYAML is a site with a small SQLite database and a folder.
const shopYAML = `
database:
  shop:
    adapter: sqlite
    path: DIR/shop.db
    allow: {mode: read_only, max_rows: 1000, timeout: 30s}
    mask: {columns: ["*.email"]}
  till:
    adapter: sqlite
    path: DIR/till.db
    allow: {mode: read_write}
files:
  papers:
    base: DIR/papers
    allow: [list, read, write]
    match: ["**/*.txt", "*.csv"]
    max_size: 10MB
`

func shop(t *testing.T, o testenv.Options) *testenv.World {
	t.Helper()
	if o.YAML == "" {
		o.YAML = shopYAML
	}
	w := testenv.Bare(t, o)
	for _, name := range []string{"shop.db", "till.db"} {
		db, err := sql.Open("sqlite", filepath.Join(w.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(`create table customers (id integer primary key, name text, email text, total decimal(10,2));
			insert into customers values (1,'Ada','ada@example.com',12.50),(2,'Grace','grace@example.com',9007199254740993)`); err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	if err := os.MkdirAll(filepath.Join(w.Dir, "papers"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.StartAgent()
	return w
}

// collect reads a whole result.
func collect(t *testing.T, rows *client.Rows, err error) (head []protocol.Column, lines []string, end protocol.End, failed error) {
	t.Helper()
	if err != nil {
		return nil, nil, end, err
	}
	defer rows.Close()
	for rows.Next() {
		row, err := rows.Row()
		if err != nil {
			t.Fatal(err)
		}
		var cells []string
		for _, c := range row {
			cells = append(cells, string(c))
		}
		lines = append(lines, strings.Join(cells, "|"))
	}
	if rows.End() != nil {
		end = *rows.End()
	}
	return rows.Columns, lines, end, rows.Err()
}

// code gives the code and origin of a refusal.
func code(err error) (protocol.Code, protocol.Origin) {
	var e *protocol.Error
	if !errors.As(err, &e) {
		return "", ""
	}
	return e.Code, e.Origin
}

// args are JSON texts of statement arguments.
func args(texts ...string) (list []json.RawMessage) {
	for _, s := range texts {
		list = append(list, json.RawMessage(s))
	}
	return list
}

func forEachTransport(t *testing.T, f func(t *testing.T, transport string), more ...string) {
	for _, tr := range append([]string{testenv.TLS, testenv.Memory}, more...) {
		t.Run(tr, func(t *testing.T) { f(t, tr) })
	}
}

func TestTheWholeTrip(t *testing.T) {
	forEachTransport(t, func(t *testing.T, transport string) {
		w := shop(t, testenv.Options{Transport: transport})
		shopName, papers, till := w.Connection("shop"), w.Connection("papers"), w.Connection("till")

		t.Run("query with a parameter, masked where the site says", func(t *testing.T) {
			rows, err := w.Client.Query(ctx, shopName, client.QueryRequest{Statement: protocol.Statement{SQL: "select id, name, email, total from customers where id > ? order by id", Args: args(`0`)}})
			cols, lines, end, err := collect(t, rows, err)
			if err != nil {
				t.Fatal(err)
			}
			if len(cols) != 4 || !cols[2].Masked || end.Rows != 2 || end.Truncated != "" {
				t.Fatalf("columns %+v, end %+v", cols, end)
			}
			if lines[0] != `1|"Ada"|"[masked]"|12.5` && lines[0] != `1|"Ada"|"[masked]"|"12.5"` {
				t.Fatalf("first row: %s", lines[0])
			}
		})
		t.Run("the relay's cap narrows and is told", func(t *testing.T) {
			rows, err := w.Client.Query(ctx, shopName, client.QueryRequest{Statement: protocol.Statement{SQL: "select id from customers"}, MaxRows: 1})
			_, lines, end, err := collect(t, rows, err)
			if err != nil || len(lines) != 1 || end.Truncated != "max_rows" {
				t.Fatalf("%d rows, end %+v, %v", len(lines), end, err)
			}
		})
		t.Run("a write on a read-only profile is refused by the site", func(t *testing.T) {
			rows, err := w.Client.Query(ctx, shopName, client.QueryRequest{Statement: protocol.Statement{SQL: "delete from customers"}})
			_, _, _, err = collect(t, rows, err)
			if c, o := code(err); c != protocol.CodeDenied || o != protocol.OriginAgent {
				t.Fatalf("got %v", err)
			}
			_, err = w.Client.Exec(ctx, shopName, client.QueryRequest{Statement: protocol.Statement{SQL: "delete from customers"}})
			if c, o := code(err); c != protocol.CodeDenied || o != protocol.OriginAgent {
				t.Fatalf("got %v", err)
			}
		})
		t.Run("exec and transaction, all or nothing", func(t *testing.T) {
			res, err := w.Client.Exec(ctx, till, client.QueryRequest{Statement: protocol.Statement{SQL: "update customers set total = total + 1 where id = ?", Args: args(`1`)}})
			if err != nil || res.RowsAffected != 1 {
				t.Fatalf("%+v, %v", res, err)
			}
			_, err = w.Client.Transaction(ctx, till, protocol.TransactionBody{Statements: []protocol.Statement{
				{SQL: "update customers set name = 'X'"}, {SQL: "insert into customers (id) values (1)"}}})
			if err == nil {
				t.Fatal("a transaction with a failing statement went through")
			}
			rows, err := w.Client.Query(ctx, till, client.QueryRequest{Statement: protocol.Statement{SQL: "select count(*) from customers where name = 'X'"}})
			if _, lines, _, err := collect(t, rows, err); err != nil || lines[0] != "0" {
				t.Fatalf("half a transaction stayed: %v %v", lines, err)
			}
		})
		t.Run("schema", func(t *testing.T) {
			s, err := w.Client.Schema(ctx, shopName)
			if err != nil || len(s.Tables) != 1 || s.Tables[0].Name != "customers" {
				t.Fatalf("%+v, %v", s, err)
			}
		})
		t.Run("files: put, list, get, range, precondition", func(t *testing.T) {
			body := strings.Repeat("line of text\n", 5000)
			info, err := w.Client.Put(ctx, papers, "notes/a.txt", strings.NewReader(body), int64(len(body)), client.PutOptions{})
			if c, _ := code(err); c != protocol.CodeNotFound {
				t.Fatalf("a folder that is not there: %+v %v", info, err)
			}
			if info, err = w.Client.Put(ctx, papers, "a.txt", strings.NewReader(body), int64(len(body)), client.PutOptions{}); err != nil || info.Size != int64(len(body)) {
				t.Fatalf("%+v, %v", info, err)
			}
			f, err := w.Client.Get(ctx, papers, "a.txt", client.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := io.ReadAll(f)
			if err != nil || string(got) != body {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			var names []string
			for fi, err := range w.Client.Files(ctx, papers, client.ListOptions{}) {
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, fi.Path)
			}
			if strings.Join(names, " ") != "a.txt" {
				t.Fatalf("listed %v", names)
			}
			if err := w.Client.Delete(ctx, papers, "a.txt", ""); err == nil {
				t.Fatal("delete is not among the profile's verbs and went through")
			}
			if _, err := w.Client.Stat(ctx, papers, "secret.key", ""); err == nil {
				t.Fatal("a file outside match was told of")
			}
		})
		t.Run("TestDeniedRequestDoesNotCloseTunnel", func(t *testing.T) {
			before := w.Agent.States()[0].Since
			for range 50 {
				_, err := w.Client.Stat(ctx, papers, "../../etc/passwd", "")
				if err == nil {
					t.Fatal("a path outside was told of")
				}
			}
			if after := w.Agent.States()[0]; !after.Connected || after.Since != before {
				t.Fatalf("the tunnel was lost: %+v", after)
			}
		})
		t.Run("both ends keep the record", func(t *testing.T) {
			testenv.Eventually(t, "the agent's record at the relay", func() bool {
				var relaySaid, agentSaid bool
				for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
					if err != nil {
						t.Fatal(err)
					}
					if e.Kind == "operation.intent" && e.Operation == "query" {
						relaySaid = relaySaid || strings.HasPrefix(e.Source, "rel_")
						agentSaid = agentSaid || e.Source == w.Agent.ID()
					}
					if strings.Contains(string(e.Raw), "ada@") || strings.Contains(string(e.Raw), "'X'") {
						t.Fatalf("a value stands in an event: %s", e.Raw)
					}
				}
				return relaySaid && agentSaid
			})
		})
	}, testenv.WebSocket, testenv.QUIC)
}
