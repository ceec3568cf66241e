package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
)

// Exit statuses that no protocol.Code has.
const (
	ExitFailure = 1  // a local failure that fits nothing else
	ExitConfig  = 78 // a configuration file was refused
)

// ExitError gives err an exit status of its own. A nil Err ends the process silently with Status.
type ExitError struct {
	Status int
	Err    error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Status)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Usage makes an error with status 64: the command line is wrong. The text should say what would be right.
func Usage(format string, args ...any) error {
	return protocol.Errorf(protocol.CodeInvalid, format, args...)
}

// BadConfig makes an error with status 78: a configuration file was refused. The message should name file and line, and say
// what would be right.
func BadConfig(message, hint string) error {
	return &ExitError{Status: ExitConfig, Err: &protocol.Error{Code: protocol.CodeInvalid, Message: message, Hint: hint}}
}

// ExitStatus is the exit status of err; docs/exit-codes.md lists them.
func ExitStatus(err error) int {
	var exit *ExitError
	var perr *protocol.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Status
	case errors.As(err, &perr):
		return perr.Code.ExitCode()
	}
	return report(err).Code.exit()
}

// Fail prints err on t.Err as one block, or as one line of JSON, and gives its exit status.
func Fail(t *Term, err error, asJSON bool) int {
	if err == nil {
		return 0
	}
	status := ExitStatus(err)
	var exit *ExitError
	if errors.As(err, &exit) && exit.Err == nil {
		return status
	}
	r := report(err)
	r.ExitStatus = status
	if asJSON {
		_ = json.NewEncoder(t.Err).Encode(map[string]any{"error": r})
		return status
	}
	r.print(t.Err, t.Program)
	return status
}

// code is a protocol.Code, or one of the local words below.
type code protocol.Code

const (
	codeLocal  code = "failed"     // local, fits nothing else
	codeNoFile code = "no_file"    // a local file does not exist
	codePerm   code = "permission" // a local file may not be opened
)

func (c code) exit() int {
	switch c {
	case codeLocal:
		return ExitFailure
	case codeNoFile:
		return protocol.CodeNotFound.ExitCode()
	case codePerm:
		return protocol.CodeDenied.ExitCode()
	}
	return protocol.Code(c).ExitCode()
}

// A failure is what is printed of an error.
type failure struct {
	Code       code            `json:"code"`
	Message    string          `json:"message"`
	Origin     protocol.Origin `json:"origin,omitempty"`
	Rule       string          `json:"rule,omitempty"`
	Hint       string          `json:"hint,omitempty"`
	Detail     string          `json:"detail,omitempty"`
	RequestID  string          `json:"request_id,omitempty"`
	ExitStatus int             `json:"exit_status"`
}

// report finds the words for err. What a wrapper says before a protocol.Error is kept: it tells what was attempted.
func report(err error) failure {
	var e *protocol.Error
	switch {
	case errors.As(err, &e):
		return failure{
			Code: code(e.Code), Message: strings.TrimSuffix(err.Error(), e.Error()) + e.Message, Origin: e.Origin, Rule: e.Rule,
			Hint: e.Hint, Detail: e.Detail, RequestID: e.RequestID,
		}
	case errors.Is(err, context.Canceled):
		return failure{Code: code(protocol.CodeCanceled), Message: "interrupted"}
	case errors.Is(err, context.DeadlineExceeded):
		return failure{Code: code(protocol.CodeTimeout), Message: err.Error()}
	case errors.Is(err, fs.ErrNotExist):
		return failure{Code: codeNoFile, Message: err.Error()}
	case errors.Is(err, fs.ErrPermission):
		return failure{Code: codePerm, Message: err.Error()}
	}
	return failure{Code: codeLocal, Message: err.Error()}
}

var origins = map[protocol.Origin]string{
	protocol.OriginRelay:  "the relay",
	protocol.OriginAgent:  "the agent at the site",
	protocol.OriginTarget: "the target behind the agent",
}

func (f failure) print(w io.Writer, program string) {
	var b strings.Builder
	first, rest, _ := strings.Cut(strings.TrimRight(f.Message, "\n"), "\n")
	fmt.Fprintf(&b, "%s: %s\n", program, Clean(first))
	if rest != "" {
		for line := range strings.SplitSeq(rest, "\n") {
			fmt.Fprintf(&b, "  %s\n", Clean(line))
		}
	}
	who := origins[f.Origin]
	if who == "" {
		who = string(f.Origin)
	}
	by := "said by"
	if f.Code == code(protocol.CodeDenied) {
		by = "refused by"
	}
	for _, line := range [][2]string{{by, who}, {"rule", f.Rule}, {"target code", f.Detail}, {"hint", f.Hint}, {"request id", f.RequestID}} {
		if line[1] != "" {
			fmt.Fprintf(&b, "  %-12s %s\n", line[0]+":", Clean(line[1]))
		}
	}
	_, _ = io.WriteString(w, b.String())
}
