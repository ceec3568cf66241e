package sqldb

import (
	"context"
	"errors"
	"fmt"

	"github.com/fairleadhq/fairlead/protocol"
)

var errRowSize = &protocol.Error{Code: protocol.CodeTooLarge, Origin: protocol.OriginAgent,
	Message: fmt.Sprintf("a row is larger than %d MiB", MaxRowBytes>>20), Hint: "select fewer or shorter columns"}

var errColumns = &protocol.Error{Code: protocol.CodeTooLarge, Origin: protocol.OriginAgent,
	Message: fmt.Sprintf("the result has more than %d columns", maxColumns)}

var errProtocol = &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginTarget,
	Message: "the database's answer does not follow its own protocol"}

var errReadOnlyLost = &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginAgent,
	Message: "the statement left the read-only transaction; the connection was closed"}

// wordless is an error of a server or driver without its text, which may hold values, literals and parameters: not even the
// log at debug level gets those.
type wordless struct{ err error }

func (w wordless) Error() string {
	err := w.err
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return fmt.Sprintf("%T, whose text may hold values", err)
}

func (w wordless) Unwrap() error { return w.err }

// targetError makes an error of the target's. Only the database's short code stands in it: the text may hold values. The
// text of a cause stays when nothing was asked yet, for it then tells why the database is not reached.
func targetError(code protocol.Code, detail, message string, cause error) *protocol.Error {
	if cause != nil && (detail != "" || code == protocol.CodeUpstream) {
		cause = wordless{cause}
	}
	return &protocol.Error{Code: code, Origin: protocol.OriginTarget, Message: message, Detail: detail, Cause: cause}
}

// contextError tells why ctx ended, or gives nil if it has not.
func contextError(ctx context.Context) *protocol.Error {
	if ctx.Err() == nil {
		return nil
	}
	cause := context.Cause(ctx)
	var e *protocol.Error
	switch {
	case errors.As(cause, &e):
		return e
	case errors.Is(cause, context.DeadlineExceeded):
		return &protocol.Error{Code: protocol.CodeTimeout, Origin: protocol.OriginAgent, Message: "the time limit ended the statement",
			Hint: "narrow the statement, or ask the on-prem admin for a longer timeout"}
	}
	return &protocol.Error{Code: protocol.CodeCanceled, Origin: protocol.OriginAgent, Message: "the caller went away; the statement was cancelled"}
}

// sqlState says what a SQLSTATE means in words that hold no value. Longest prefix wins.
var sqlState = map[string]struct {
	code protocol.Code
	text string
}{
	"08":    {protocol.CodeUnavailable, "the connection to the database was lost"},
	"0A":    {protocol.CodeUpstream, "the database does not support that"},
	"21":    {protocol.CodeUpstream, "the statement gives more than one row where one is wanted"},
	"22":    {protocol.CodeUpstream, "a value does not fit its type or range"},
	"22012": {protocol.CodeUpstream, "division by zero"},
	"22021": {protocol.CodeUpstream, "a text is not valid in the database's encoding"},
	"22P02": {protocol.CodeUpstream, "a value is not of the type wanted"},
	"23":    {protocol.CodeConflict, "a constraint of the database forbids that"},
	"23502": {protocol.CodeConflict, "a column that must not be null would be null"},
	"23503": {protocol.CodeConflict, "a foreign key forbids that"},
	"23505": {protocol.CodeConflict, "a row with that key exists already"},
	"23514": {protocol.CodeConflict, "a check constraint forbids that"},
	"25006": {protocol.CodeUpstream, "the transaction is read-only, and the statement would write"},
	"26":    {protocol.CodeUpstream, "no such prepared statement"},
	"28":    {protocol.CodeUnavailable, "the database refused the profile's username or password"},
	"3D000": {protocol.CodeUnavailable, "the profile's database does not exist"},
	"3F000": {protocol.CodeUpstream, "no such schema"},
	"40":    {protocol.CodeConflict, "the transaction collided with another one; try again"},
	"42":    {protocol.CodeUpstream, "the database refused the statement"},
	"42501": {protocol.CodeUpstream, "the profile's database role may not do that"},
	"42601": {protocol.CodeUpstream, "syntax error"},
	"42702": {protocol.CodeUpstream, "a column name is ambiguous"},
	"42703": {protocol.CodeUpstream, "no such column"},
	"42704": {protocol.CodeUpstream, "no such object"},
	"42804": {protocol.CodeUpstream, "types do not match"},
	"42883": {protocol.CodeUpstream, "no such function or operator for these types"},
	"42P01": {protocol.CodeUpstream, "no such table"},
	"42P02": {protocol.CodeUpstream, "a parameter has no argument"},
	"42P18": {protocol.CodeUpstream, "the type of a parameter cannot be told; give it as {\"type\": …, \"value\": …}"},
	"42S02": {protocol.CodeUpstream, "no such table"},
	"42S22": {protocol.CodeUpstream, "no such column"},
	"53":    {protocol.CodeUnavailable, "the database is out of a resource"},
	"53300": {protocol.CodeUnavailable, "the database has no connection left"},
	"54":    {protocol.CodeUpstream, "the statement is too large or too complex for the database"},
	"55P03": {protocol.CodeConflict, "a lock is held by another transaction"},
	"57014": {protocol.CodeTimeout, "the database ended the statement: time limit"},
	"57P01": {protocol.CodeUnavailable, "the database is shutting down"},
	"57P02": {protocol.CodeUnavailable, "the database has crashed and restarts"},
	"57P03": {protocol.CodeUnavailable, "the database is starting or stopping"},
}

func stateError(state string, position int, cause error) *protocol.Error {
	e := targetError(protocol.CodeUpstream, state, "the database refused the statement", cause)
	for n := len(state); n >= 2; n-- {
		if s, ok := sqlState[state[:n]]; ok {
			e.Code, e.Message = s.code, s.text
			break
		}
	}
	if position > 0 {
		e.Message += fmt.Sprintf(", at character %d of the statement", position)
	}
	return e
}
