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
func (s *pgSession) prepare(ctx context.Context, b *bound, name string) (*pgArguments, error) {
	args := newPGArguments(b)
	sd, err := s.conn.Prepare(ctx, name, b.sql, args.oids)
	if err != nil {
		return nil, pgStateError(err)
	}
	return args, args.fit(sd)
}

// beginPrepared begins a transaction and prepares its first statement in one round trip. The server parses the statement, and
// that is all, before it is known here that the transaction has begun.
func (s *pgSession) beginPrepared(ctx context.Context, b *bound, name string, readOnly bool) (*pgArguments, error) {
	args := newPGArguments(b)
	p := s.conn.StartPipeline(ctx)
	s.sendBegin(ctx, p, readOnly)
	p.SendPrepare(name, b.sql, args.oids)
	p.SendPipelineSync()
	sd, err := begunPrepared(p)
	if cerr := p.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, pgStateError(err)
	}
	if err := s.begun(); err != nil {
		return nil, err
	}
	return args, args.fit(sd)
}

func begunPrepared(p *pgconn.Pipeline) (*pgconn.StatementDescription, error) {
	if err := p.Flush(); err != nil {
		return nil, err
	}
	for range 2 {
		if _, err := pipelined(p); err != nil {
			return nil, err
		}
	}
	r, err := p.GetResults()
	if err != nil {
		return nil, err
	}
	sd, ok := r.(*pgconn.StatementDescription)
	if !ok {
		return nil, errProtocol
	}
	return sd, nil
}

// pgArguments are the arguments of one statement, and how the server describes what it gives.
type pgArguments struct {
	values  [][]byte
	oids    []uint32
	formats []int16
	fields  []pgconn.FieldDescription
}

func newPGArguments(b *bound) *pgArguments {
	values, oids, formats := pgArgs(b.args)
	return &pgArguments{values: values, oids: oids, formats: formats}
}

// fit refuses what does not fit the server's description.
func (a *pgArguments) fit(sd *pgconn.StatementDescription) error {
	if len(sd.ParamOIDs) != len(a.values) {
		return protocol.Errorf(protocol.CodeInvalid, "the statement has %d parameters, and %d arguments were given",
			len(sd.ParamOIDs), len(a.values))
	}
	if len(sd.Fields) > maxColumns {
		return errColumns
	}
	a.fields = sd.Fields
	return nil
}

// query implements session. It takes two round trips: what ends the transaction goes with the execution.
func (s *pgSession) query(ctx context.Context, b *bound, out *stream) error {
	args, err := s.beginPrepared(ctx, b, pgName, true)
	if err != nil {
		return err
	}
	cols, head, resultFormats, err := s.columns(ctx, b, args.fields)
	if err != nil {
		return err
	}
	p := s.conn.StartPipeline(ctx)
	p.SendQueryPrepared(pgName, args.values, args.formats, resultFormats)
	p.SendPipelineSync()
	s.sendEnd(p)
	if err := p.Flush(); err != nil {
		return err
	}
	err = s.results(p, cols, head, b, out)
	if err == nil || errors.As(err, new(*pgconn.PgError)) { // else the result is not drained: close cancels it
		if cerr := p.Close(); err == nil {
			err = cerr
		}
	}
	return pgStateError(err)
}

// results reads what query has sent.
func (s *pgSession) results(p *pgconn.Pipeline, cols []pgColumn, head []protocol.Column, b *bound, out *stream) error {
	r, err := p.GetResults()
	if err != nil {
		return err
	}
	rr, ok := r.(*pgconn.ResultReader)
	if !ok {
		return errProtocol
	}
	// The head waits for the first row or the end, so that an error before them is a plain error answer.
	more := rr.NextRow()
	if !more {
		if _, err := rr.Close(); err != nil {
			return err
		}
	}
	if err := out.head(head); err != nil {
		return err
	}
	if more {
		if err := pgRows(rr, cols, b, out); err != nil {
			return err
		}
		if _, err := rr.Close(); err != nil {
			return err
		}
	}
	if err := synced(p); err != nil {
		return err
	}
	if s.conn.TxStatus() != 'T' {
		return errReadOnlyLost
	}
	return s.ended(p)
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
	results := make([]protocol.ExecResult, len(sts))
	for i, b := range sts {
		// The unnamed statement: each Parse replaces the one before.
		var args *pgArguments
		var err error
		if i == 0 {
			args, err = s.beginPrepared(ctx, b, "", false)
		} else {
			args, err = s.prepare(ctx, b, "")
		}
		if err == nil {
			var tag pgconn.CommandTag
			// Rows of RETURNING are dropped as they come.
			rr := s.conn.ExecPrepared(ctx, "", args.values, args.formats, nil)
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
