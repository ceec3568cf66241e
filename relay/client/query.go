package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/fairleadhq/fairlead/protocol"
)

// maxLine bounds one line of an NDJSON answer: one row, or one event.
const maxLine = 64 << 20

// Rows is the answer of a query, one row at a time. Not for concurrent use. Close it, also after Next gave false.
type Rows struct {
	Columns []protocol.Column

	ctx   context.Context
	c     *Client
	body  io.ReadCloser
	lines *bufio.Reader
	head  []byte
	line  []byte
	end   *protocol.End
	err   error
	done  bool
}

// Query asks for the rows of one statement. It returns when the first line is there, so an error that the site found
// before the first row is given here.
func (c *Client) Query(ctx context.Context, connection string, q QueryRequest) (*Rows, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	resp, err := c.send(ctx, call{
		method: http.MethodPost, escaped: c.conn(connection, "query"), body: bytes.NewReader(b), size: int64(len(b)),
		header: http.Header{"Content-Type": {"application/json"}, "Accept": {protocol.ContentNDJSON + ", " + ContentProblem}},
	})
	if err != nil {
		return nil, err
	}
	r := &Rows{ctx: ctx, c: c, body: resp.Body, lines: bufio.NewReaderSize(resp.Body, 64<<10)}
	if err := r.readHead(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Rows) readHead() error {
	if err := r.read(); err != nil {
		return err
	}
	var first struct {
		Columns *[]protocol.Column `json:"columns"`
		protocol.ResultEnd
	}
	if json.Unmarshal(r.line, &first) != nil || first.Columns == nil && first.Error == nil {
		return protocol.Errorf(protocol.CodeInternal, "the answer does not begin with its columns")
	}
	if first.Error != nil {
		return first.Error
	}
	r.Columns = *first.Columns
	r.head = append([]byte(nil), r.line...)
	return nil
}

// Next reads the next row. false means the end, or an error: see Err.
func (r *Rows) Next() bool {
	if r.done {
		return false
	}
	if r.err = r.read(); r.err != nil {
		r.done = true
		return false
	}
	if len(r.line) > 0 && r.line[0] == '[' {
		return true
	}
	r.done = true
	var end protocol.ResultEnd
	switch err := json.Unmarshal(r.line, &end); {
	case err != nil || end.End == nil && end.Error == nil:
		r.err = protocol.Errorf(protocol.CodeInternal, "the answer has a line that is neither a row nor the end")
	case end.Error != nil:
		r.err = end.Error
	default:
		r.end = end.End
		_, _ = r.lines.Discard(1) // the end of the body, so that the connection is reused
	}
	return false
}

// read gets one line, without its line break. An answer that ends without its last line was cut.
func (r *Rows) read() error {
	line, err := readLine(r.lines, r.line[:0])
	r.line = line
	if err == nil {
		return nil
	}
	if errors.Is(err, errLongLine) {
		return protocol.Errorf(protocol.CodeTooLarge, "a row of the answer is larger than %d bytes", maxLine)
	}
	return r.c.cut(r.ctx, err)
}

var errLongLine = errors.New("line too long")

// readLine appends the next line to buf. A line without its line break is not a line: io.ErrUnexpectedEOF.
func readLine(r *bufio.Reader, buf []byte) ([]byte, error) {
	for {
		part, err := r.ReadSlice('\n')
		buf = append(buf, part...)
		switch {
		case len(buf) > maxLine:
			return buf, errLongLine
		case err == nil:
			return buf[:len(buf)-1], nil
		case errors.Is(err, io.EOF) && len(buf) > 0:
			return buf, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return buf, err
		}
	}
}

// Line is the current line as it came: a row while Next gives true, the last line after it. Valid until the next call.
func (r *Rows) Line() []byte { return r.line }

// HeadLine is the first line as it came.
func (r *Rows) HeadLine() []byte { return r.head }

// Row decodes the current row. Numbers stay as text, so nothing is lost of them.
func (r *Rows) Row() ([]json.RawMessage, error) {
	var row []json.RawMessage
	if err := json.Unmarshal(r.line, &row); err != nil || len(row) != len(r.Columns) {
		return nil, protocol.Errorf(protocol.CodeInternal, "a row of the answer is malformed")
	}
	return row, nil
}

// End sums the answer up. It is nil unless the answer is complete.
func (r *Rows) End() *protocol.End { return r.end }

// Err is why Next gave false; nil at the proper end.
func (r *Rows) Err() error { return r.err }

// Close ends the query; one that still runs is cancelled at the site.
func (r *Rows) Close() error { return r.body.Close() }

// Exec runs one statement that changes data.
func (c *Client) Exec(ctx context.Context, connection string, q QueryRequest) (protocol.ExecResult, error) {
	var e protocol.ExecResult
	return e, c.doLong(ctx, http.MethodPost, c.conn(connection, "exec"), nil, q, &e)
}

// Transaction runs all statements, or none.
func (c *Client) Transaction(ctx context.Context, connection string, t protocol.TransactionBody) (protocol.TransactionResult, error) {
	var r protocol.TransactionResult
	return r, c.doLong(ctx, http.MethodPost, c.conn(connection, "transaction"), nil, t, &r)
}

// Schema lists tables, columns and keys.
func (c *Client) Schema(ctx context.Context, connection string) (protocol.Schema, error) {
	var s protocol.Schema
	return s, c.doLong(ctx, http.MethodGet, c.conn(connection, "schema"), nil, nil, &s)
}
