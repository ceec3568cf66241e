package protocol

import (
	"errors"
	"fmt"
	"log/slog"
)

// Code says what kind of answer an error is. Codes go on the wire: append only, never rename.
type Code string

const (
	CodeInvalid          Code = "invalid"           // malformed request; retrying it unchanged is useless
	CodeUnauthenticated  Code = "unauthenticated"   // who is it? unknown
	CodeDenied           Code = "denied"            // known, and may not
	CodeNotFound         Code = "not_found"         // no such thing, or not visible to the caller
	CodeConflict         Code = "conflict"          // the thing exists already, or changed meanwhile
	CodePrecondition     Code = "precondition"      // If-Match or If-None-Match did not hold
	CodeTooLarge         Code = "too_large"         // a size cap was hit
	CodeRange            Code = "range"             // requested range or offset does not fit
	CodeRateLimited      Code = "rate_limited"      // retry after the time named
	CodeQuota            Code = "quota"             // disk or quota exhausted at the site
	CodeUnsupported      Code = "unsupported"       // the peer does not know an operation or a required constraint
	CodeUnavailable      Code = "unavailable"       // no live agent or target; may be retried
	CodeAuditUnavailable Code = "audit_unavailable" // the act could not be recorded, so it was not done
	CodeTimeout          Code = "timeout"           // the time limit ended it
	CodeCanceled         Code = "canceled"          // the caller went away
	CodeUpstream         Code = "upstream"          // the target answered with an error of its own
	CodeInterrupted      Code = "interrupted"       // the tunnel or the peer was lost midway; the outcome is unknown
	CodeInternal         Code = "internal"          // a fault of ours; details are in the log under the request id
)

// Codes lists every code. Tables that map codes (HTTP status, exit code) are tested to be complete against it.
var Codes = []Code{
	CodeInvalid, CodeUnauthenticated, CodeDenied, CodeNotFound, CodeConflict, CodePrecondition, CodeTooLarge, CodeRange,
	CodeRateLimited, CodeQuota, CodeUnsupported, CodeUnavailable, CodeAuditUnavailable, CodeTimeout, CodeCanceled,
	CodeUpstream, CodeInterrupted, CodeInternal,
}

var statusOf = map[Code]int{
	CodeInvalid: 400, CodeUnauthenticated: 401, CodeDenied: 403, CodeNotFound: 404, CodeConflict: 409,
	CodePrecondition: 412, CodeTooLarge: 413, CodeRange: 416, CodeRateLimited: 429, CodeQuota: 507,
	CodeUnsupported: 501, CodeUnavailable: 503, CodeAuditUnavailable: 503, CodeTimeout: 504, CodeCanceled: 499,
	CodeUpstream: 502, CodeInterrupted: 502, CodeInternal: 500,
}

// Status is the HTTP status of the code; 500 for a code this build does not know.
func (c Code) Status() int {
	if s, ok := statusOf[c]; ok {
		return s
	}
	return 500
}

var exitOf = map[Code]int{
	CodeInvalid: 64, CodeUnauthenticated: 77, CodeDenied: 77, CodeNotFound: 66, CodeConflict: 73, CodePrecondition: 73,
	CodeTooLarge: 65, CodeRange: 65, CodeRateLimited: 75, CodeQuota: 73, CodeUnsupported: 69, CodeUnavailable: 69,
	CodeAuditUnavailable: 69, CodeTimeout: 75, CodeCanceled: 130, CodeUpstream: 76, CodeInterrupted: 75, CodeInternal: 70,
}

// ExitCode is the process exit status of the code (values of BSD sysexits where one fits); 70 for an unknown code.
func (c Code) ExitCode() int {
	if s, ok := exitOf[c]; ok {
		return s
	}
	return 70
}

// Origin says which side refused or failed, for the user must know whom to ask.
type Origin string

const (
	OriginRelay  Origin = "relay"
	OriginAgent  Origin = "agent"
	OriginTarget Origin = "target" // the database, file system or service behind the agent
)

// Error is the only error whose text may leave the process. Message and Hint are safe to show to the caller: they
// never hold a secret, a parameter, a row or an inner error's text. Everything else becomes CodeInternal at the edge.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Origin  Origin `json:"origin,omitempty"`
	Rule    string `json:"rule,omitempty"` // the rule that decided, e.g. "files.hr.allow"
	Hint    string `json:"hint,omitempty"` // what would be right, or whom to ask
	// Detail is the target's own short error code where it is safe to show (SQLSTATE, errno name).
	Detail string `json:"detail,omitempty"`
	// RetryAfterMs says when to try again, of a refusal by a budget; 0: not told.
	RetryAfterMs int64  `json:"retry_after_ms,omitempty"`
	RequestID    string `json:"request_id,omitempty"`
	// NotBegun says that this agent refused before it did anything, for a reason that is its own: it stops, or its budget is
	// used up. It goes to the relay as HeaderNotBegun.
	NotBegun bool `json:"-"`
	// Cause is for the log on this side only. It is never encoded.
	Cause error `json:"-"`
}

func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Message
	if e.Rule != "" {
		s += " (rule " + e.Rule + ")"
	}
	return s
}

// Unwrap gives the inner cause for the log and for errors.Is on this side.
func (e *Error) Unwrap() error { return e.Cause }

// LogValue keeps the cause out of structured logs unless it is logged on purpose.
func (e *Error) LogValue() slog.Value {
	return slog.GroupValue(slog.String("code", string(e.Code)), slog.String("message", e.Message), slog.String("rule", e.Rule))
}

// Errorf makes an Error whose message is safe to show.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// AsError returns err's Error. An error that has none becomes CodeInternal with err as its cause, so that inner text
// stays inside.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Message: "internal error; the details are in the log under the request id", Cause: err}
}
