package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// statementArgs name one statement and its parameters.
type statementArgs struct {
	Connection string   `arg:"" help:"Name of the connection."`
	SQL        string   `arg:"" optional:"" help:"The statement; @FILE reads it from a file, - from standard input."`
	Statement  string   `placeholder:"NAME" help:"Run a statement that the site declares under this name, instead of SQL."`
	Arg        []string `sep:"none" placeholder:"V" help:"Parameter, in order; bound, never spliced. Text, or TYPE:VALUE with TYPE int, decimal, float, bool, null, json, bytes (base64), timestamptz, timestamp, date, time, interval, uuid or text."`
}

func (k statementArgs) statement(t *cli.Term) (protocol.Statement, error) {
	s := protocol.Statement{Name: k.Statement}
	if (k.SQL == "") == (k.Statement == "") {
		return s, &protocol.Error{Code: protocol.CodeInvalid, Message: "want either a statement or --statement NAME", Hint: "quote it: fairlead query sales 'select 1'"}
	}
	var err error
	if s.SQL, err = text(t, k.SQL); err != nil {
		return s, err
	}
	for _, a := range k.Arg {
		v, err := argument(a)
		if err != nil {
			return s, err
		}
		s.Args = append(s.Args, v)
	}
	return s, nil
}

// text gives s itself, or what stands in the file @NAME, or standard input for "-".
func text(t *cli.Term, s string) (string, error) {
	r := t.In
	switch name, ok := strings.CutPrefix(s, "@"); {
	case ok:
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("read statement: %w", err)
		}
		defer f.Close()
		r = f
	case s != "-":
		return s, nil
	}
	b, err := io.ReadAll(io.LimitReader(r, protocol.MaxBodyBytes+1))
	if err != nil {
		return "", fmt.Errorf("read statement: %w", err)
	}
	if len(b) > protocol.MaxBodyBytes {
		return "", protocol.Errorf(protocol.CodeTooLarge, "the statement is larger than %d bytes", protocol.MaxBodyBytes)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return "", cli.Usage("the statement is empty")
	}
	return string(b), nil
}

// typed are the parameter types whose value travels as text beside its type.
var typed = map[string]bool{
	"decimal": true, "float": true, "bytes": true, "bytea": true, "timestamptz": true, "timestamp": true, "date": true, "time": true,
	"interval": true, "uuid": true,
}

// argument reads one --arg: text, unless it begins with the name of a type and a colon.
func argument(s string) (json.RawMessage, error) {
	typ, value, ok := strings.Cut(s, ":")
	bad := func(want string) (json.RawMessage, error) {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: fmt.Sprintf("--arg %q: %s", s, want), Hint: "text that begins like a type is written text:VALUE"}
	}
	if !ok {
		return json.Marshal(s)
	}
	switch {
	case typ == "text":
		return json.Marshal(value)
	case typ == "null":
		if value != "" {
			return bad("want null: with nothing behind it")
		}
		return json.RawMessage("null"), nil
	case typ == "bool":
		if value != "true" && value != "false" {
			return bad("want bool:true or bool:false")
		}
		return json.RawMessage(value), nil
	case typ == "int":
		digits := strings.TrimPrefix(value, "-")
		if digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > 1 && digits[0] == '0' {
			return bad("want a whole number, for example int:-5")
		}
		return json.RawMessage(value), nil
	case typ == "json", strings.HasSuffix(typ, "[]") && (typed[strings.TrimSuffix(typ, "[]")] || strings.Contains("int[] bool[] text[]", typ)):
		if !json.Valid([]byte(value)) {
			return bad("the value is not JSON")
		}
		return json.Marshal(map[string]any{"type": typ, "value": json.RawMessage(value)})
	case typed[typ]:
		if typ == "bytes" || typ == "bytea" {
			if _, err := base64.StdEncoding.DecodeString(value); err != nil {
				return bad("the value is not base64")
			}
		}
		if typ == "float" {
			if _, err := strconv.ParseFloat(value, 64); err != nil {
				return bad("want a number, for example float:1.5e3")
			}
		}
		return json.Marshal(map[string]string{"type": typ, "value": value})
	}
	return json.Marshal(s) // "https://…" and the like
}

type queryCommand struct {
	statementArgs
	MaxRows int64 `placeholder:"N" help:"Ask for at most N rows; the site's own cap holds all the same."`
	CSVSafe bool  `name:"csv-safe" default:"true" negatable:"" help:"CSV: put ' before text that a spreadsheet would run as a formula (= + - @)."`
	cli.RowOutput
}

func (*queryCommand) Examples() []string {
	return []string{
		`fairlead query sales 'select id, total from orders where status = $1' --arg open`,
		`fairlead query sales 'select * from orders where id = $1' --arg int:7 --output json`,
		`fairlead query sales @report.sql --output csv > report.csv`,
		"# a statement that the site declares",
		`fairlead query sales --statement open_orders --arg open`,
	}
}

func (k *queryCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	s, err := k.statement(t)
	if err != nil {
		return err
	}
	if k.MaxRows < 0 {
		return cli.Usage("--max-rows %d: want a number that is not negative", k.MaxRows)
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	rows, err := c.Query(ctx, k.Connection, client.QueryRequest{Statement: s, MaxRows: k.MaxRows})
	if err != nil {
		return about(k.Connection, err)
	}
	defer rows.Close()
	out := printers[k.Output](t, rows.Columns, k.CSVSafe)
	err = out.begin(rows)
	for err == nil && rows.Next() {
		err = out.row(rows)
	}
	// What came before a failure is printed; the status and the remark below say that it is not all.
	err = errors.Join(err, out.end(rows))
	if err != nil {
		return fmt.Errorf("print rows: %w", err)
	}
	if err := rows.Err(); err != nil {
		t.Notef("THE ANSWER IS NOT WHOLE: it failed after %s\n", count(out.rows(), "row"))
		return err
	}
	end := rows.End()
	if end.Truncated != "" {
		t.Notef("THE ANSWER IS NOT WHOLE: the cap %s cut it after %s\n", cli.Clean(end.Truncated), count(end.Rows, "row"))
	}
	if k.Output == "table" {
		t.Notef("(%s, %d ms)\n", count(end.Rows, "row"), end.ElapsedMs)
	}
	return nil
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

type execCommand struct {
	statementArgs
	cli.Output
}

func (*execCommand) Examples() []string {
	return []string{`fairlead exec sales 'update orders set status = $1 where id = $2' --arg shipped --arg int:7`}
}

func (k *execCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	s, err := k.statement(t)
	if err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := c.Exec(ctx, k.Connection, client.QueryRequest{Statement: s})
	if err != nil {
		return about(k.Connection, err)
	}
	if k.JSON() {
		return t.JSON(res)
	}
	return execTable(t, []protocol.ExecResult{res})
}

func execTable(t *cli.Term, results []protocol.ExecResult) error {
	rows := make([][]string, len(results))
	for i, res := range results {
		id := ""
		if res.LastInsertID != nil {
			id = strconv.FormatInt(*res.LastInsertID, 10)
		}
		rows[i] = []string{strconv.Itoa(i + 1), strconv.FormatInt(res.RowsAffected, 10), id}
	}
	return t.Table([]string{"statement", "rows affected", "last insert id"}, rows)
}

type transactionCommand struct {
	Connection string `arg:"" help:"Name of the connection."`
	File       string `arg:"" type:"path" help:"JSON file with the statements; - reads standard input."`
	cli.Output
}

func (*transactionCommand) Examples() []string {
	return []string{
		"fairlead transaction sales move.json",
		`# move.json: {"statements": [{"sql": "update a set n = n - $1", "args": [5]}, {"sql": "update b set n = n + $1", "args": [5]}]}`,
	}
}

func (k *transactionCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	name := "-"
	if k.File != "-" {
		name = "@" + k.File
	}
	b, err := text(t, name)
	if err != nil {
		return err
	}
	var body protocol.TransactionBody
	dec := json.NewDecoder(strings.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil || dec.More() {
		if err == nil {
			err = errors.New("something stands behind the closing brace")
		}
		line := strings.Count(b[:min(int(dec.InputOffset()), len(b))], "\n") + 1
		return &protocol.Error{
			Code: protocol.CodeInvalid, Message: fmt.Sprintf("%s, near line %d: %v", k.File, line, err),
			Hint: `want {"statements": [{"sql": "...", "args": [...]}, ...]}`,
		}
	}
	if len(body.Statements) == 0 {
		return cli.Usage("%s holds no statements", k.File)
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := c.Transaction(ctx, k.Connection, body)
	if err != nil {
		return about(k.Connection, err)
	}
	if k.JSON() {
		return t.JSON(res)
	}
	return execTable(t, res.Results)
}

type schemaCommand struct {
	Connection string `arg:"" help:"Name of the connection."`
	Table      string `arg:"" optional:"" help:"Show this table alone: NAME or SCHEMA.NAME."`
	cli.Output
}

func (*schemaCommand) Examples() []string {
	return []string{"fairlead schema sales", "fairlead schema sales public.orders", "fairlead schema sales --output json"}
}

func (k *schemaCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Schema(ctx, k.Connection)
	if err != nil {
		return about(k.Connection, err)
	}
	if k.Table != "" {
		var found []protocol.Table
		for _, table := range s.Tables {
			if strings.EqualFold(k.Table, table.Name) || strings.EqualFold(k.Table, table.Schema+"."+table.Name) {
				found = append(found, table)
			}
		}
		if len(found) == 0 {
			return &protocol.Error{Code: protocol.CodeNotFound, Message: fmt.Sprintf("there is no table %q that you may see", k.Table), Hint: "fairlead schema " + k.Connection}
		}
		s.Tables = found
	}
	if s.Truncated {
		t.Notef("THE LIST IS NOT WHOLE: there are more tables than the agent lists\n")
	}
	if k.JSON() {
		return t.JSON(s)
	}
	w := cli.NewTable(t.Out, []string{"TABLE", "KIND", "COLUMN", "TYPE", "NULL", "KEY", "MASKED"}, nil)
	for _, table := range s.Tables {
		if err := schemaRows(w, table); err != nil {
			return err
		}
	}
	return w.Flush()
}

func schemaRows(w *cli.TableWriter, table protocol.Table) error {
	name := table.Name
	if table.Schema != "" {
		name = table.Schema + "." + name
	}
	key := map[string]string{}
	for _, f := range table.ForeignKeys {
		for i, col := range f.Columns {
			key[col] = "-> " + f.References
			if i < len(f.To) {
				key[col] += "." + f.To[i]
			}
		}
	}
	for _, col := range table.PrimaryKey {
		key[col] = strings.TrimSpace("primary " + key[col])
	}
	for _, col := range table.Columns {
		null, masked := "no", ""
		if col.Nullable {
			null = "yes"
		}
		if col.Masked {
			masked = "yes"
		}
		if err := w.Row(name, table.Type, col.Name, col.Type, null, key[col.Name], masked); err != nil {
			return err
		}
	}
	return nil
}
