package connector

import (
	"context"
	"io"
	"net/http"
	"net/netip"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

// Call is one allowed operation.
type Call struct {
	Request  *protocol.Request
	Decision policy.Decision
	Body     io.Reader     // files, http: the body as it streams in; nil when there is none
	Database *DatabaseBody // database operations: the decoded body; nil for schema and everything else
	// Connected, when set, is told which address a raw dial has reached, so that the policy can be asked again about it.
	Connected func(netip.AddrPort)
	// Later, when set, is given what is left of a raw dial once its answer has been sent: Do returns then, and its Outcome does not
	// count. rest, called once, returns at once; it calls ended with the Outcome when the dial has ended. A dial may idle for days:
	// it shall hold nothing of what it took to begin it, and no goroutine that does nothing but wait.
	Later func(rest func(ended func(protocol.Outcome)))
}

// DatabaseBody is the decoded body of a database operation: exactly one field is set.
type DatabaseBody struct {
	Query       *protocol.QueryBody       // query, exec
	Transaction *protocol.TransactionBody // transaction
}

// Connector does the operations of one profile. It is safe for concurrent use.
type Connector interface {
	// Do carries out c and writes the answer. The end of ctx reaches the target: a running query is cancelled there, a
	// transfer is cut.
	//
	// An error returned before anything was written is for the caller to write as a problem. After the first byte a
	// query reports an error in its ResultEnd and Do returns an Outcome with a Code and no error; a streamed file or http
	// body returns the error, and the caller aborts the stream so that the cut is seen.
	Do(ctx context.Context, c *Call, w http.ResponseWriter) (protocol.Outcome, error)
	// Close drops idle connections to the target. Calls that run end with an error.
	Close() error
}
