package sqldb

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fairleadhq/fairlead/protocol"
)

// pgName is the prepared statement that runs the caller's text. It is not the unnamed one, which our own statements use.
const pgName = "fairlead"

// pgColumn is how one column of a result is written.
type pgColumn struct {
	kind   kind
	array  bool
	delim  byte // between elements of an array
	masked bool
}

// prepare parses the caller's statement at the server, by the extended protocol: more than one statement is an error there.
func (s *pgSession) prepare(ctx context.Context, b *bound, name string) (*pgconn.StatementDescription, [][]byte, []int16, error) {
	values, oids, formats := pgArgs(b.args)
	sd, err := s.conn.Prepare(ctx, name, b.sql, oids)
	if err != nil {
		return nil, nil, nil, pgStateError(err)
	}
	if len(sd.ParamOIDs) != len(values) {
		return nil, nil, nil, protocol.Errorf(protocol.CodeInvalid, "the statement has %d parameters, and %d arguments were given",
			len(sd.ParamOIDs), len(values))
	}
	if len(sd.Fields) > maxColumns {
		return nil, nil, nil, errColumns
	}
	return sd, values, formats, nil
}

// query implements session.
func (s *pgSession) query(ctx context.Context, b *bound, out *stream) error {
	if err := s.begin(ctx, true); err != nil {
		return pgStateError(err)
	}
	sd, values, formats, err := s.prepare(ctx, b, pgName)
	if err != nil {
		return err
	}
	cols, head, resultFormats, err := s.columns(ctx, b, sd.Fields)
	if err != nil {
		return err
	}
	rr := s.conn.ExecPrepared(ctx, pgName, values, formats, resultFormats)
	// The head waits for the first row or the end, so that an error before them is a plain error answer.
	more := rr.NextRow()
	if !more {
		if _, err := rr.Close(); err != nil {
			return pgStateError(err)
		}
	}
	if err := out.head(head); err != nil {
		return err
	}
	if more {
		if err := pgRows(rr, cols, b, out); err != nil {
			return err // the result is not drained: close cancels it
		}
		if _, err := rr.Close(); err != nil {
			return pgStateError(err)
		}
	}
	return s.end(ctx, true)
}

// pgRows writes rows from the one that rr stands on. It allocates nothing a row unless values are searched for masks.
func pgRows(rr *pgconn.ResultReader, cols []pgColumn, b *bound, out *stream) error {
	detect := b.mask.Detects()
	line := make([]byte, 0, 4096)
	for more := true; more; more = rr.NextRow() {
		values := rr.Values()
		if len(values) != len(cols) {
			return errProtocol
		}
		line = append(line[:0], '[')
		for i, v := range values {
			if i > 0 {
				line = append(line, ',')
			}
			c := &cols[i]
			switch {
			case c.masked:
				line = append(line, maskedJSON...)
			case v == nil:
				line = append(line, "null"...)
			case detect:
				line = appendDetected(line, c, v, b.mask)
			case c.kind == kInt && !c.array:
				line = appendInt(line, v)
			default:
				line = c.append(line, v)
			}
		}
		line = append(line, ']', '\n')
		if err := out.row(line); err != nil {
			return err
		}
	}
	return nil
}

func (c *pgColumn) append(dst, v []byte) []byte {
	switch {
	case c.array:
		return appendArray(dst, c.kind, c.delim, v, nil)
	case c.kind == kBytes:
		return appendBytes(dst, v) // in binary format
	}
	return appendText(dst, c.kind, v)
}

// exec implements session.
func (s *pgSession) exec(ctx context.Context, sts []*bound) ([]protocol.ExecResult, error) {
	if err := s.begin(ctx, false); err != nil {
		return nil, pgStateError(err)
	}
	results := make([]protocol.ExecResult, len(sts))
	for i, b := range sts {
		// The unnamed statement: each Parse replaces the one before.
		_, values, formats, err := s.prepare(ctx, b, "")
		if err == nil {
			var tag pgconn.CommandTag
			// Rows of RETURNING are dropped as they come.
			rr := s.conn.ExecPrepared(ctx, "", values, formats, nil)
			for rr.NextRow() {
			}
			tag, err = rr.Close()
			results[i].RowsAffected = tag.RowsAffected()
			err = pgStateError(err)
		}
		if err != nil {
			return nil, numbered(err, i, len(sts))
		}
	}
	err := s.end(ctx, false)
	if errors.Is(err, errReadOnlyLost) {
		err = errProtocol
	}
	return results, pgStateError(err)
}
