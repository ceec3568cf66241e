package protocol

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Header names that the two halves exchange. All begin with "Fairlead-"; the agent strips this prefix from what it
// forwards to a target and from what a target answers.
const (
	HeaderPrefix     = "Fairlead-"
	HeaderRequestID  = "Fairlead-Request-Id"
	HeaderDeadline   = "Fairlead-Deadline-Ms" // remaining milliseconds, never a clock time
	HeaderRequire    = "Fairlead-Require"     // constraints the agent must know, comma-separated
	HeaderPrincipal  = "Fairlead-Principal"   // id of who asks; the agent records it as claimed by the relay
	HeaderConnection = "Fairlead-Connection"  // id of the connection at the relay
	HeaderLimits     = "Fairlead-Limits"      // JSON of Limits
	HeaderProxy      = "Fairlead-Proxy"       // dial: the addresses that the target is told (Proxy)
	HeaderRule       = "Fairlead-Rule"        // answer: the agent's rule that decided
	HeaderOrigin     = "Fairlead-Origin"      // answer: set on an Error body, so that it is not taken for the target's
	HeaderNotBegun   = "Fairlead-Not-Begun"   // answer, beside HeaderOrigin: nothing was done, and another agent may be asked
	TrailerOutcome   = "Fairlead-Outcome"     // answer trailer: JSON of Outcome
)

// Limits on one request at the parser. They bound what a hostile peer can make the other side hold.
const (
	MaxParamBytes = 16 << 10 // any one path, target or name
	MaxBodyBytes  = 16 << 20 // a JSON body (statement and parameters)
	MaxProfile    = 63       // bytes in a profile name
	NoProfile     = "-"      // stands for "no profile": a dial to a host and port of the allow list
)

// Constraints that an agent of Version 1 knows. A relay names in HeaderRequire those that must be honoured; an agent
// that does not know a name answers CodeUnsupported and does nothing.
const (
	RequireLimits = "limits" // HeaderLimits must be applied
	RequireProxy  = "proxy"  // HeaderProxy must be told to the target, before any other byte
	// RequireExplain: the agent decides, records that it was asked, answers a Verdict and does nothing. A dial has no upgrade then.
	RequireExplain = "explain"
)

// Constraints is the set of names this build honours.
var Constraints = map[string]bool{RequireLimits: true, RequireProxy: true, RequireExplain: true}

// Limits are caps and masks by which the relay narrows one request. Zero means "no further limit". They can only take
// away: the agent applies the smaller of its own and these, and masks the union of columns.
type Limits struct {
	MaxRows     int64    `json:"max_rows,omitempty"`
	MaxBytes    int64    `json:"max_bytes,omitempty"`
	MaskColumns []string `json:"mask_columns,omitempty"`
	ReadOnly    bool     `json:"read_only,omitempty"` // refuse every operation that writes
}

// Request is one operation asked of an agent: what stands on the request line and in the headers. The body (statement,
// file content, forwarded body) streams beside it.
//
// Wire form: METHOD /v1/{kind}/{profile}/{operation}?{parameters}, HTTP/1.1, one request a stream.
type Request struct {
	ID         string
	Kind       Kind
	Profile    string // NoProfile for a dial to an allow-list target
	Operation  Operation
	Principal  string
	Connection string
	Remaining  time.Duration // time left; 0 means the agent's own limit alone
	Require    []string
	Limits     Limits

	Path      string // files: slash-separated, relative to the profile's base; "" is the base itself
	To        string // move: destination
	Overwrite bool   // move: replace an existing destination
	Recursive bool   // list; delete never recurses
	Glob      string // list: pattern on the path relative to Path
	Cursor    string // list: where the last page ended
	PageSize  int    // list: 0 means the agent's default
	Upload    string // write, stat: id of a resumable upload, 32 hex digits chosen by the caller
	Offset    int64  // write: first byte of the body inside an upload
	Partial   bool   // write: more parts follow; do not put the file in place yet

	Method string // http: the method for the target
	Target string // http: path and query for the target, beginning with "/"

	Host string // dial by allow list: a name or literal address
	Port uint16

	Proxy Proxy // dial: whom the target is told that the bytes come from; the zero value tells nothing

	Header http.Header // headers of the caller that go with the operation (Range, If-Match, http: all forwarded ones)
}

// Explains reports whether the request asks for the agent's verdict alone.
func (r *Request) Explains() bool { return contains(r.Require, RequireExplain) }

// upgrades reports whether the request's stream is one of raw bytes after its answer.
func (r *Request) upgrades() bool { return r.Operation == OpDial && !r.Explains() }

// Writes reports whether the operation may change the target. A dial may: nobody reads the raw bytes.
func (r *Request) Writes() bool {
	switch r.Operation {
	case OpExec, OpTransaction, OpWrite, OpDelete, OpMove, OpMkdir, OpDial:
		return true
	case OpRequest:
		return r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions
	}
	return false
}

func (r *Request) params() url.Values {
	v := url.Values{}
	set := func(k, s string) {
		if s != "" {
			v.Set(k, s)
		}
	}
	flag := func(k string, b bool) {
		if b {
			v.Set(k, "true")
		}
	}
	set("path", r.Path)
	set("to", r.To)
	flag("overwrite", r.Overwrite)
	flag("recursive", r.Recursive)
	set("glob", r.Glob)
	set("cursor", r.Cursor)
	if r.PageSize != 0 {
		v.Set("page_size", strconv.Itoa(r.PageSize))
	}
	set("upload", r.Upload)
	if r.Offset != 0 {
		v.Set("offset", strconv.FormatInt(r.Offset, 10))
	}
	flag("partial", r.Partial)
	set("method", r.Method)
	set("target", r.Target)
	set("host", r.Host)
	if r.Port != 0 {
		v.Set("port", strconv.Itoa(int(r.Port)))
	}
	return v
}

// HTTP builds the wire form. body may be nil. The context ends the request.
func (r *Request) HTTP(ctx context.Context, body io.Reader) (*http.Request, error) {
	form, ok := forms[r.Operation]
	if !ok {
		return nil, Errorf(CodeInvalid, "unknown operation %q", string(r.Operation))
	}
	u := &url.URL{Scheme: "http", Host: "agent", Path: "/v1/" + string(r.Kind) + "/" + r.Profile + "/" + string(r.Operation), RawQuery: r.params().Encode()}
	req, err := http.NewRequestWithContext(ctx, form.method, u.String(), body)
	if err != nil {
		return nil, Errorf(CodeInvalid, "request cannot be put on the wire: kind %q, profile %q", string(r.Kind), r.Profile)
	}
	for k, vs := range r.Header {
		if !strings.HasPrefix(k, HeaderPrefix) {
			req.Header[k] = append([]string(nil), vs...)
		}
	}
	set := func(k, s string) {
		if s != "" {
			req.Header.Set(k, s)
		}
	}
	set(HeaderRequestID, r.ID)
	set(HeaderPrincipal, r.Principal)
	set(HeaderConnection, r.Connection)
	if r.Remaining > 0 {
		req.Header.Set(HeaderDeadline, strconv.FormatInt(max(1, r.Remaining.Milliseconds()), 10))
	}
	require := append([]string(nil), r.Require...)
	if r.Proxy.Valid() {
		req.Header.Set(HeaderProxy, r.Proxy.String())
		if !contains(require, RequireProxy) {
			require = append(require, RequireProxy)
		}
	}
	if !r.Limits.zero() {
		b, err := json.Marshal(r.Limits)
		if err != nil {
			return nil, Errorf(CodeInvalid, "limits cannot be encoded")
		}
		req.Header.Set(HeaderLimits, string(b))
		if !contains(require, RequireLimits) {
			require = append(require, RequireLimits)
		}
	}
	if len(require) > 0 {
		sort.Strings(require)
		req.Header.Set(HeaderRequire, strings.Join(require, ","))
	}
	if r.upgrades() {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", UpgradeDial)
	}
	return req, nil
}

func (l Limits) zero() bool {
	return l.MaxRows == 0 && l.MaxBytes == 0 && len(l.MaskColumns) == 0 && !l.ReadOnly
}

// ParseRequest reads the wire form that a peer sent. Every field is checked for form here, once; whether the site
// allows it is the policy's question. A wrong form gives an Error with CodeInvalid, an unknown constraint
// CodeUnsupported.
func ParseRequest(req *http.Request) (*Request, error) {
	// The raw path is used: a profile or operation never needs an escape, so one that has an escape is not ours.
	if req.URL.RawPath != "" || strings.Contains(req.URL.EscapedPath(), "%") {
		return nil, Errorf(CodeInvalid, "escaped characters in the request path")
	}
	parts := strings.Split(req.URL.Path, "/")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "v1" {
		return nil, Errorf(CodeNotFound, "no such path; want /v1/{kind}/{profile}/{operation}")
	}
	r := &Request{Kind: Kind(parts[2]), Profile: parts[3], Operation: Operation(parts[4]), Header: http.Header{}}
	form, ok := forms[r.Operation]
	if !ok || !r.Operation.validFor(r.Kind) {
		return nil, Errorf(CodeUnsupported, "operation %q is not one of kind %q", clip(parts[4]), clip(parts[2]))
	}
	if req.Method != form.method {
		return nil, Errorf(CodeInvalid, "operation %s wants method %s", r.Operation, form.method)
	}
	if r.Profile == NoProfile {
		if r.Operation != OpDial || r.Kind != KindTCP {
			return nil, Errorf(CodeInvalid, "operation %s wants a profile", r.Operation)
		}
	} else if !ValidProfile(r.Profile) {
		return nil, Errorf(CodeInvalid, "profile name %q is malformed", clip(r.Profile))
	}
	if err := r.parseParams(req.URL.RawQuery); err != nil {
		return nil, err
	}
	if err := r.parseHeaders(req.Header); err != nil {
		return nil, err
	}
	return r, r.checkParams()
}

func (r *Request) parseParams(raw string) error {
	if len(raw) > 4*MaxParamBytes {
		return Errorf(CodeTooLarge, "parameters are longer than %d bytes", 4*MaxParamBytes)
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return Errorf(CodeInvalid, "parameters are not well-formed")
	}
	for k, vs := range q {
		if len(vs) != 1 {
			return Errorf(CodeInvalid, "parameter %q stands %d times", clip(k), len(vs))
		}
		s := vs[0]
		if len(s) > MaxParamBytes {
			return Errorf(CodeTooLarge, "parameter %q is longer than %d bytes", clip(k), MaxParamBytes)
		}
		bad := func() error { return Errorf(CodeInvalid, "parameter %q has a value that does not fit", clip(k)) }
		switch k {
		case "path":
			r.Path = s
		case "to":
			r.To = s
		case "glob":
			r.Glob = s
		case "cursor":
			r.Cursor = s
		case "method":
			r.Method = s
		case "target":
			r.Target = s
		case "host":
			r.Host = s
		case "upload":
			if !validUpload(s) {
				return bad()
			}
			r.Upload = s
		case "overwrite", "recursive", "partial":
			if s != "true" && s != "false" {
				return bad()
			}
			b := s == "true"
			switch k {
			case "overwrite":
				r.Overwrite = b
			case "recursive":
				r.Recursive = b
			case "partial":
				r.Partial = b
			}
		case "page_size":
			n, ok := decimal(s, 1_000_000)
			if !ok {
				return bad()
			}
			r.PageSize = int(n)
		case "offset":
			n, ok := decimal(s, 1<<62)
			if !ok {
				return bad()
			}
			r.Offset = n
		case "port":
			n, ok := decimal(s, 65535)
			if !ok || n == 0 {
				return bad()
			}
			r.Port = uint16(n)
		default:
			return Errorf(CodeUnsupported, "parameter %q is not known", clip(k))
		}
	}
	return nil
}

func (r *Request) parseHeaders(h http.Header) error {
	one := func(k string) (string, error) {
		vs := h[k]
		if len(vs) > 1 {
			return "", Errorf(CodeInvalid, "header %s stands %d times", k, len(vs))
		}
		if len(vs) == 0 {
			return "", nil
		}
		if len(vs[0]) > MaxParamBytes {
			return "", Errorf(CodeTooLarge, "header %s is longer than %d bytes", k, MaxParamBytes)
		}
		return vs[0], nil
	}
	var err error
	fetch := func(k string) string {
		s, e := one(k)
		if e != nil && err == nil {
			err = e
		}
		return s
	}
	r.ID, r.Principal, r.Connection = fetch(HeaderRequestID), fetch(HeaderPrincipal), fetch(HeaderConnection)
	deadline, limits, require, proxy := fetch(HeaderDeadline), fetch(HeaderLimits), fetch(HeaderRequire), fetch(HeaderProxy)
	if err != nil {
		return err
	}
	for _, id := range []string{r.ID, r.Principal, r.Connection} {
		if !validID(id) {
			return Errorf(CodeInvalid, "an id in the headers is malformed")
		}
	}
	if deadline != "" {
		ms, ok := decimal(deadline, int64(365*24*time.Hour/time.Millisecond))
		if !ok || ms == 0 {
			return Errorf(CodeInvalid, "header %s is not a number of milliseconds", HeaderDeadline)
		}
		r.Remaining = time.Duration(ms) * time.Millisecond
	}
	if require != "" {
		for _, name := range strings.Split(require, ",") {
			if !Constraints[name] {
				return Errorf(CodeUnsupported, "constraint %q is not known to this agent", clip(name))
			}
			r.Require = append(r.Require, name)
		}
	}
	if limits != "" {
		dec := json.NewDecoder(strings.NewReader(limits))
		dec.DisallowUnknownFields()
		if dec.Decode(&r.Limits) != nil || dec.More() || r.Limits.MaxRows < 0 || r.Limits.MaxBytes < 0 {
			return Errorf(CodeInvalid, "header %s is malformed", HeaderLimits)
		}
	}
	// One without the other would be a target that takes the agent for the client, or an agent that does not know of it.
	if (proxy != "") != contains(r.Require, RequireProxy) || proxy != "" && r.Operation != OpDial {
		return Errorf(CodeInvalid, "header %s and the constraint %q belong together, and to a dial", HeaderProxy, RequireProxy)
	}
	if proxy != "" {
		if r.Proxy, err = parseProxy(proxy); err != nil {
			return err
		}
	}
	for k, vs := range h {
		if strings.HasPrefix(k, HeaderPrefix) || (r.upgrades() && (k == "Connection" || k == "Upgrade")) {
			continue
		}
		r.Header[k] = append([]string(nil), vs...)
	}
	if r.upgrades() && (!strings.EqualFold(h.Get("Upgrade"), UpgradeDial) || !strings.EqualFold(h.Get("Connection"), "Upgrade")) {
		return Errorf(CodeInvalid, "operation dial wants Upgrade: %s", UpgradeDial)
	}
	return nil
}

// checkParams refuses parameters that the operation does not take, so that none is silently ignored.
func (r *Request) checkParams() error {
	takes := map[Operation]string{
		OpList: "path recursive glob cursor page_size", OpStat: "path upload", OpRead: "path", OpWrite: "path upload offset partial",
		OpDelete: "path", OpMove: "path to overwrite", OpMkdir: "path", OpRequest: "method target", OpDial: "host port",
	}[r.Operation]
	for k := range r.params() {
		if !contains(strings.Fields(takes), k) {
			return Errorf(CodeInvalid, "operation %s does not take parameter %q", r.Operation, k)
		}
	}
	switch {
	case r.Operation == OpDial && r.Profile == NoProfile && (r.Host == "" || r.Port == 0),
		r.Operation == OpDial && r.Profile != NoProfile && (r.Host != "" || r.Port != 0):
		return Errorf(CodeInvalid, "dial wants either a profile or both host and port")
	case r.Operation == OpRequest && (r.Method == "" || !strings.HasPrefix(r.Target, "/")):
		return Errorf(CodeInvalid, "request wants a method and a target that begins with /")
	case (r.Offset != 0 || r.Partial) && r.Upload == "":
		return Errorf(CodeInvalid, "offset and partial want an upload id")
	case r.Operation == OpMove && (r.Path == "" || r.To == ""):
		return Errorf(CodeInvalid, "move wants path and to")
	}
	return nil
}

// ValidProfile reports whether s can name a profile: a letter or digit, then up to 62 letters, digits, '_', '-' or '.'.
func ValidProfile(s string) bool {
	if s == "" || len(s) > MaxProfile {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '-' && c != '.') {
			return false
		}
	}
	return true
}

// validID admits an empty id or up to 128 visible ASCII characters.
func validID(s string) bool {
	if len(s) > 128 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func validUpload(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// decimal parses a plain decimal number: digits only, no sign, no leading zero, at most limit.
func decimal(s string, limit int64) (int64, bool) {
	if s == "" || len(s) > 19 || (len(s) > 1 && s[0] == '0') {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n <= limit
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

// clip shortens text from a peer before it stands in a message.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
