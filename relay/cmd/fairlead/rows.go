package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// A printer writes rows as they come. end is called once, also after a failure, and must not make a cut answer look whole.
type printer interface {
	begin(*client.Rows) error
	row(*client.Rows) error
	end(*client.Rows) error
	rows() int64
}

var printers = map[string]func(*cli.Term, []protocol.Column, bool) printer{
	"table": func(t *cli.Term, columns []protocol.Column, _ bool) printer {
		names, right := make([]string, len(columns)), make([]bool, len(columns))
		for i, c := range columns {
			names[i], right[i] = c.Name, client.Numeric(c)
		}
		return &tablePrinter{w: cli.NewTable(t.Out, names, right)}
	},
	"json": func(t *cli.Term, columns []protocol.Column, _ bool) printer {
		return &jsonPrinter{w: bufio.NewWriterSize(t.Data(), 64<<10), keys: keys(columns)}
	},
	"ndjson": func(t *cli.Term, _ []protocol.Column, _ bool) printer {
		return &ndjsonPrinter{w: bufio.NewWriterSize(t.Data(), 64<<10)}
	},
	"csv": func(t *cli.Term, columns []protocol.Column, safe bool) printer {
		w := csv.NewWriter(t.Data())
		w.UseCRLF = true // RFC 4180
		return &csvPrinter{w: w, columns: columns, safe: safe}
	},
}

// cell is a value as text; null has a word of its own.
func cell(v json.RawMessage, null string) (string, error) {
	switch {
	case len(v) == 0 || v[0] == 'n':
		return null, nil
	case v[0] == '"':
		var s string
		err := json.Unmarshal(v, &s)
		return s, err
	case v[0] == '{' || v[0] == '[':
		var b bytes.Buffer
		err := json.Compact(&b, v)
		return b.String(), err
	}
	return string(v), nil
}

type tablePrinter struct {
	w *cli.TableWriter
	n int64
}

func (p *tablePrinter) rows() int64              { return p.n }
func (p *tablePrinter) begin(*client.Rows) error { return nil }
func (p *tablePrinter) end(*client.Rows) error   { return p.w.Flush() }

func (p *tablePrinter) row(r *client.Rows) error {
	values, err := r.Row()
	if err != nil {
		return err
	}
	cells := make([]string, len(values))
	for i, v := range values {
		if cells[i], err = cell(v, "NULL"); err != nil {
			return fmt.Errorf("decode value: %w", err)
		}
	}
	p.n++
	return p.w.Row(cells...)
}

// A jsonPrinter writes an array of objects. The array of an answer that is not whole is left open: no reader takes it for
// the whole.
type jsonPrinter struct {
	w    *bufio.Writer
	keys [][]byte
	n    int64
}

// keys are the columns' names as JSON; a name that comes again gets a number, so that no value is lost.
func keys(columns []protocol.Column) [][]byte {
	seen := map[string]bool{}
	out := make([][]byte, len(columns))
	for i, c := range columns {
		name := c.Name
		for n := 2; seen[name]; n++ {
			name = fmt.Sprintf("%s_%d", c.Name, n)
		}
		seen[name] = true
		out[i], _ = json.Marshal(name) // a string always encodes
	}
	return out
}

func (p *jsonPrinter) rows() int64 { return p.n }

func (p *jsonPrinter) begin(*client.Rows) error {
	_, err := p.w.WriteString("[")
	return err
}

func (p *jsonPrinter) row(r *client.Rows) error {
	values, err := r.Row()
	if err != nil {
		return err
	}
	if p.n > 0 {
		_, _ = p.w.WriteString(",")
	}
	p.n++
	_, _ = p.w.WriteString("\n  {")
	for i, v := range values {
		if i > 0 {
			_, _ = p.w.WriteString(", ")
		}
		_, _ = p.w.Write(p.keys[i])
		_, _ = p.w.WriteString(": ")
		_, err = p.w.Write(v)
	}
	_, _ = p.w.WriteString("}")
	return err
}

func (p *jsonPrinter) end(r *client.Rows) error {
	if r.End() != nil {
		if p.n > 0 {
			_, _ = p.w.WriteString("\n")
		}
		_, _ = p.w.WriteString("]\n")
	}
	return p.w.Flush()
}

// A ndjsonPrinter passes the lines on as they came.
type ndjsonPrinter struct {
	w *bufio.Writer
	n int64
}

func (p *ndjsonPrinter) rows() int64                { return p.n }
func (p *ndjsonPrinter) begin(r *client.Rows) error { return p.line(r.HeadLine()) }
func (p *ndjsonPrinter) row(r *client.Rows) error   { p.n++; return p.line(r.Line()) }

func (p *ndjsonPrinter) end(r *client.Rows) error {
	if line := r.Line(); r.End() != nil || bytes.HasPrefix(line, []byte(`{"error"`)) {
		if err := p.line(line); err != nil {
			return err
		}
	}
	return p.w.Flush()
}

func (p *ndjsonPrinter) line(b []byte) error {
	_, _ = p.w.Write(b)
	return p.w.WriteByte('\n')
}

type csvPrinter struct {
	w       *csv.Writer
	columns []protocol.Column
	safe    bool
	n       int64
}

func (p *csvPrinter) rows() int64 { return p.n }

func (p *csvPrinter) begin(*client.Rows) error {
	names := make([]string, len(p.columns))
	for i, c := range p.columns {
		names[i] = p.formula(protocol.Column{}, c.Name)
	}
	return p.w.Write(names)
}

func (p *csvPrinter) row(r *client.Rows) error {
	values, err := r.Row()
	if err != nil {
		return err
	}
	cells := make([]string, len(values))
	for i, v := range values {
		if cells[i], err = cell(v, ""); err != nil {
			return fmt.Errorf("decode value: %w", err)
		}
		if v[0] == '"' {
			cells[i] = p.formula(p.columns[i], cells[i])
		}
	}
	p.n++
	return p.w.Write(cells)
}

// formula keeps text from being run by a spreadsheet, unless that is not wanted.
func (p *csvPrinter) formula(c protocol.Column, s string) string {
	if p.safe {
		return client.NoFormula(c, s)
	}
	return s
}

func (p *csvPrinter) end(*client.Rows) error {
	p.w.Flush()
	return p.w.Error()
}

// ndjson prints values one a line.
func ndjson(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
