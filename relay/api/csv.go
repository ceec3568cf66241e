package api

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

// maxRow bounds what is held of an agent's answer that has no end of line.
const maxRow = 32 << 20

// wantsCSV reports whether the caller asks for CSV by name.
func wantsCSV(r *http.Request) bool {
	for _, v := range r.Header.Values("Accept") {
		for _, part := range strings.Split(v, ",") {
			if t, _, err := mime.ParseMediaType(strings.TrimSpace(part)); err == nil && t == client.ContentCSV {
				return true
			}
		}
	}
	return false
}

// csvWriter turns a result's NDJSON into CSV (RFC 4180) as it passes, a line at a time; it never holds more than one row.
// CSV has no place for an error or a truncation after the head: an error cuts the answer, a truncation is told in the
// trailer Fairlead-Truncated. No cell is a formula to the spreadsheet that opens it.
type csvWriter struct {
	w      http.ResponseWriter
	enc    *csv.Writer
	line   bytes.Buffer
	ok     bool // 200: the body is a result
	begun  bool
	cols   []protocol.Column
	ended  bool
	failed *protocol.Error
}

func newCSVWriter(w http.ResponseWriter) *csvWriter { return &csvWriter{w: w, enc: csv.NewWriter(w)} }

func (c *csvWriter) Header() http.Header { return c.w.Header() }

func (c *csvWriter) WriteHeader(status int) {
	if c.ok = status == http.StatusOK; c.ok {
		h := c.w.Header()
		h.Set("Content-Type", client.ContentCSV+"; charset=utf-8; header=present")
		h.Del("Content-Length")
		h.Set("Trailer", "Fairlead-Truncated")
	}
	c.w.WriteHeader(status)
}

func (c *csvWriter) Unwrap() http.ResponseWriter { return c.w }

func (c *csvWriter) FlushError() error {
	c.enc.Flush()
	return http.NewResponseController(c.w).Flush()
}

func (c *csvWriter) Write(p []byte) (int, error) {
	if !c.ok {
		return c.w.Write(p)
	}
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			if c.line.Len()+len(p) > maxRow {
				return 0, fmt.Errorf("a row is longer than %d bytes", maxRow)
			}
			c.line.Write(p)
			break
		}
		line := p[:i]
		if c.line.Len() > 0 {
			c.line.Write(line)
			line = c.line.Bytes()
		}
		if err := c.row(line); err != nil {
			return 0, err
		}
		c.line.Reset()
		p = p[i+1:]
	}
	return n, nil
}

// row converts one line: the head, a row, or the end.
func (c *csvWriter) row(line []byte) error {
	if len(line) == 0 {
		return nil
	}
	if line[0] == '[' {
		var cells []json.RawMessage
		if err := json.Unmarshal(line, &cells); err != nil {
			return fmt.Errorf("decode a row: %w", err)
		}
		fields := make([]string, len(cells))
		for i, cell := range cells {
			fields[i] = text(cell)
			if len(cell) > 0 && cell[0] == '"' {
				fields[i] = client.NoFormula(c.column(i), fields[i])
			}
		}
		return c.enc.Write(fields)
	}
	if !c.begun {
		c.begun = true
		var head protocol.ResultHead
		if err := json.Unmarshal(line, &head); err != nil {
			return fmt.Errorf("decode the head of a result: %w", err)
		}
		c.cols = head.Columns
		names := make([]string, len(head.Columns))
		for i, col := range head.Columns {
			names[i] = client.NoFormula(protocol.Column{}, col.Name)
		}
		return c.enc.Write(names)
	}
	var end protocol.ResultEnd
	if err := json.Unmarshal(line, &end); err != nil {
		return fmt.Errorf("decode the end of a result: %w", err)
	}
	c.ended, c.failed = true, end.Error
	if end.End != nil && end.End.Truncated != "" {
		c.w.Header().Set("Fairlead-Truncated", end.End.Truncated)
	}
	return nil
}

// column is one of the head; the row is the agent's, so it may have more cells.
func (c *csvWriter) column(i int) protocol.Column {
	if i < len(c.cols) {
		return c.cols[i]
	}
	return protocol.Column{}
}

// finish writes what is buffered; a result that failed or has no end cuts the answer.
func (c *csvWriter) finish() error {
	c.enc.Flush()
	if c.ok && (!c.ended || c.failed != nil) {
		return dispatch.ErrCut
	}
	return c.enc.Error()
}

// text is a cell without JSON's quotes; NULL is empty.
func text(cell json.RawMessage) string {
	var s string
	switch {
	case len(cell) == 0 || string(cell) == "null":
		return ""
	case cell[0] == '"' && json.Unmarshal(cell, &s) == nil:
		return s
	}
	return string(cell)
}
