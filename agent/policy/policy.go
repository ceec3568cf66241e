package policy

import (
	"time"

	"github.com/fairleadhq/fairlead/internal/mask"
	"github.com/fairleadhq/fairlead/protocol"
)

// Operation is what is asked: the request as parsed, and for query, exec and transaction the statements of its body.
type Operation struct {
	Request    *protocol.Request
	Statements []protocol.Statement
}

// Limits are the caps in force: the smaller of the site's and the relay's. 0 means no cap.
type Limits struct {
	MaxRows  int64
	MaxBytes int64         // of an answer
	Timeout  time.Duration // of the whole operation
	MaxSize  int64         // of one file, or of a request's body
}

// Decision is the answer to an Operation. The zero Decision denies.
type Decision struct {
	Allow bool
	Rule  string // the place in agent.yaml that decided, such as "files.hr.allow" or "deny[0]"
	Line  int    // of that place in the file, 0 when unknown. For the site's own eyes
	// Reason and Hint are safe to show to the caller.
	Reason, Hint string
	Code         protocol.Code // of a denial
	Limits       Limits

	Mask        *mask.Set // for answers
	EventMask   *mask.Set // for events
	Fingerprint string    // of the statements, without literals; set on denials too where they could be read

	SQL      []string // query, exec, transaction: what to run, in order, names replaced by their statements
	Path, To string   // files: the cleaned paths
	// Match says what a files profile shows (nil-safe). A folder on the way to a match is admitted by Folder; whoever finds a
	// file there must ask File as well.
	Match  *Globs
	Target string // request: path and query, checked; what to append to the profile's base URL
}

// Decide decides one operation. It never allows more for a Request with Limits than without.
func (p *Policy) Decide(op Operation) Decision {
	r := op.Request
	if r == nil {
		return deny(rule{}, protocol.CodeInvalid, "there is no request", "")
	}
	known := false
	for _, o := range protocol.Operations(r.Kind) {
		known = known || o == r.Operation
	}
	if !known {
		no := deny(rule{}, protocol.CodeUnsupported, "the operation is not one of this kind of profile", "")
		no.EventMask = p.masks.events
		return no
	}
	relayMask, err := mask.Compile(mask.Rules{Columns: r.Limits.MaskColumns})
	if err != nil || r.Limits.MaxRows < 0 || r.Limits.MaxBytes < 0 || r.Remaining < 0 {
		no := deny(rule{}, protocol.CodeInvalid, "the limits that came with the request are malformed", "the relay sent them; see the roles at the relay")
		no.EventMask = p.masks.events
		return no
	}
	var d Decision
	switch {
	case r.Operation == protocol.OpDial:
		d = p.decideDial(r)
	case r.Kind == protocol.KindDatabase:
		d = p.decideDatabase(op)
	case r.Kind == protocol.KindFiles:
		d = p.decideFiles(r)
	case r.Kind == protocol.KindHTTP:
		d = p.decideRequest(r)
	default:
		d = deny(rule{}, protocol.CodeUnsupported, "the operation is not one of this kind of profile", "")
	}
	if d.EventMask = mask.Union(mask.Union(p.masks.events, d.EventMask), relayMask); !d.Allow {
		return d
	}
	if r.Limits.ReadOnly && r.Writes() {
		no := deny(rule{path: "relay.read_only"}, protocol.CodeDenied, "the relay allows reading only on this connection", "ask the workspace's admin for a role that writes")
		no.EventMask, no.Fingerprint = d.EventMask, d.Fingerprint
		return no
	}
	d.Mask = mask.Union(mask.Union(p.masks.answers, d.Mask), relayMask)
	d.Limits.MaxRows = narrow(d.Limits.MaxRows, r.Limits.MaxRows)
	d.Limits.MaxBytes = narrow(d.Limits.MaxBytes, r.Limits.MaxBytes)
	d.Limits.Timeout = narrow(d.Limits.Timeout, r.Remaining)
	return d
}

// narrow is the smaller of two caps of which 0 means none.
func narrow[T int64 | time.Duration](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func allow(r rule) Decision {
	return Decision{Allow: true, Rule: r.path, Line: r.line, Reason: "allowed by " + r.path}
}

func deny(r rule, code protocol.Code, reason, hint string) Decision {
	return Decision{Rule: r.path, Line: r.line, Code: code, Reason: reason, Hint: hint}
}

const askAdmin = "ask the site's admin to allow it in agent.yaml"

// notAllowed denies an operation on a profile. It is the same whether the profile lacks the permission or does not exist,
// so that nobody learns the site's profiles from it; only the line, which stays here, differs.
func notAllowed(kind protocol.Kind, name string, op string, line int) Decision {
	path := Path(kind, name) + ".allow"
	switch {
	case kind == protocol.KindTCP:
		path = Path(kind, name)
	case kind == protocol.KindDatabase && op == string(protocol.OpDial):
		path += ".dial"
	}
	return deny(rule{path, line}, protocol.CodeDenied, "the site does not allow "+op+" on "+string(kind)+" profile "+name, askAdmin+" under "+path)
}
