package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

const connectionPath = "/workspaces/{workspace}/connections/{connection}"

// forwarded are the caller's headers that go with an operation on a folder.
var forwarded = []string{"Content-Length", "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"}

// builder turns an HTTP request into an operation: it fills req and gives the body, nil when there is none.
type builder func(r *http.Request, req *protocol.Request) (io.Reader, error)

// data registers the data plane. These routes stream, so they stand on the mux itself; their rows of the OpenAPI
// document are written beside them.
func (a *API) data() {
	a.operation("POST", "/query", protocol.OpQuery, "Run a statement and stream its rows (NDJSON, or CSV by Accept)", statement)
	a.operation("POST", "/exec", protocol.OpExec, "Run one statement that changes data", statement)
	a.operation("POST", "/transaction", protocol.OpTransaction, "Run several statements, all or nothing", transaction)
	a.operation("GET", "/schema", protocol.OpSchema, "Tables, columns and keys", plain())
	a.operation("GET", "/list", protocol.OpList, "List a folder, a page at a time", plain("path", "recursive", "glob", "cursor", "page_size"))
	a.operation("GET", "/stat", protocol.OpStat, "One file's facts, or how far an upload has got", plain("path", "upload"))
	a.operation("POST", "/move", protocol.OpMove, "Rename a file", move)
	a.operation("POST", "/mkdir", protocol.OpMkdir, "Make a folder", mkdir)
	a.operation("GET", "/files/{path...}", protocol.OpRead, "Read a file; ranges and ETags as in RFC 9110", file())
	a.operation("HEAD", "/files/{path...}", protocol.OpStat, "A file's size, ETag and time, without its bytes", file())
	a.operation("PUT", "/files/{path...}", protocol.OpWrite, "Write a file, whole and atomic, or part of a resumable upload", file("upload", "offset", "partial"))
	a.operation("DELETE", "/files/{path...}", protocol.OpDelete, "Delete a file or an empty folder", file())
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		a.operation(m, "/http/{path...}", protocol.OpRequest, "Send a request to the HTTP service", request)
	}
	a.operation("POST", "/dial", protocol.OpDial, "Open raw bytes to the target (Upgrade: fairlead-dial, HTTP/1.1)", plain())
}

func (a *API) operation(method, path string, op protocol.Operation, summary string, build builder) {
	full := connectionPath + path
	a.routes = append(a.routes, Route{Method: method, Path: full, Action: string(authz.ForOperation(op, method))})
	a.describe(method, full, op, summary)
	a.mux.HandleFunc(method+" "+client.BasePath+full, func(w http.ResponseWriter, r *http.Request) {
		v, err := a.enter(r, r.PathValue("workspace"), authz.ForOperation(op, method), false)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		req := protocol.Request{ID: requestID(r.Context()), Operation: op, Header: http.Header{}}
		if op == protocol.OpRequest {
			req.Method = method
		}
		// Before the body is read: whoever may not, makes the relay hold nothing.
		if err := a.cfg.Dispatch.Refusal(r.Context(), a.call(r, v, req, nil)); err != nil {
			a.fail(w, r, err)
			return
		}
		body, err := build(r, &req)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		// The rules may have changed while the body came: what counts is what holds now.
		if a.cfg.Directory.Snapshot() != v.snap || time.Since(v.entered) > time.Second {
			if v, err = a.enter(r, r.PathValue("workspace"), v.action, false); err != nil {
				a.fail(w, r, err)
				return
			}
		}
		a.dispatch(w, r, v, req, body)
	})
}

func (a *API) call(r *http.Request, v *visit, req protocol.Request, body io.Reader) *dispatch.Call {
	return &dispatch.Call{Snapshot: v.snap, Principal: v.principal, Source: v.source, Workspace: r.PathValue("workspace"), Connection: r.PathValue("connection"), Request: req, Body: body}
}

// dispatch makes the trip and turns its end into HTTP.
func (a *API) dispatch(w http.ResponseWriter, r *http.Request, v *visit, req protocol.Request, payload io.Reader) {
	v.scope = authz.Scope{Workspace: v.principal.Workspace}
	if ws, err := v.snap.Workspace(v.principal.Workspace); err == nil {
		if c, err := ws.Connection(r.PathValue("connection")); err == nil {
			v.scope = c.Scope()
		}
	}
	ctx, leave := a.open.admit(r.Context(), v)
	defer leave()
	p, end := keepPace(ctx, w)
	defer end()
	w = p
	if payload == r.Body && payload != nil {
		payload = newBody(p, r.Body, a.cfg.BodyRate)
	}
	call := a.call(r, v, req, payload)
	var answer http.ResponseWriter = w
	var csv *csvWriter
	if req.Operation == protocol.OpQuery && wantsCSV(r) {
		csv = newCSVWriter(w)
		answer = csv
	}
	var head *headWriter
	if r.Method == http.MethodHead && r.PathValue("path") != "" && req.Operation == protocol.OpStat {
		head = &headWriter{ResponseWriter: w, r: r}
		answer = head
	}
	if req.Operation == protocol.OpDial {
		if !strings.EqualFold(r.Header.Get("Upgrade"), protocol.UpgradeDial) {
			a.fail(w, r, invalid("dial wants the header Upgrade: "+protocol.UpgradeDial, "use `fairlead connect`, or a client that upgrades"))
			return
		}
		if r.ProtoMajor != 1 {
			a.fail(w, r, &protocol.Error{Code: protocol.CodeUnsupported, Message: "dial wants HTTP/1.1", Hint: "offer only http/1.1 in ALPN"})
			return
		}
	}
	var dial *upgrading
	err := a.cfg.Dispatch.Do(ctx, call, answer, func(s *dispatch.Raw) (in, out int64) {
		if dial = a.upgrade(w, s); dial == nil {
			return 0, 0
		}
		return dial.serve(ctx)
	})
	if dial != nil {
		defer dial.conn.Close()
	}
	if err == nil && csv != nil {
		err = csv.finish()
	}
	if err == nil && head != nil {
		err = head.finish()
	}
	cut := errors.Is(err, dispatch.ErrCut)
	if err != nil && !cut && context.Cause(ctx) != nil && r.Context().Err() == nil {
		err = context.Cause(ctx) // the rules changed meanwhile
	}
	switch {
	case cut:
		panic(http.ErrAbortHandler) // the caller must see that the answer is not whole
	case err == nil:
	case dial != nil:
		dial.refuse(a, r, err)
	default:
		a.fail(w, r, err)
	}
}

// statement builds query and exec.
func statement(r *http.Request, req *protocol.Request) (io.Reader, error) {
	if err := noQuery(r); err != nil {
		return nil, err
	}
	var q client.QueryRequest
	if err := readJSON(r, protocol.MaxBodyBytes, &q); err != nil {
		return nil, err
	}
	if (q.SQL == "") == (q.Name == "") {
		return nil, invalid("want either /sql or /statement", "sql holds a statement; statement names one that the site declares")
	}
	if q.MaxRows < 0 {
		return nil, invalid("/max_rows: want a number that is not negative", "leave it out for the site's own cap")
	}
	req.Limits.MaxRows = q.MaxRows
	return encode(protocol.QueryBody{Statement: q.Statement})
}

func transaction(r *http.Request, _ *protocol.Request) (io.Reader, error) {
	if err := noQuery(r); err != nil {
		return nil, err
	}
	var t protocol.TransactionBody
	if err := readJSON(r, protocol.MaxBodyBytes, &t); err != nil {
		return nil, err
	}
	if len(t.Statements) == 0 {
		return nil, invalid("/statements: want at least one", "")
	}
	return encode(t)
}

func move(r *http.Request, req *protocol.Request) (io.Reader, error) {
	var m client.MoveRequest
	if err := readJSON(r, maxAdminBody, &m); err != nil {
		return nil, err
	}
	if m.From == "" || m.To == "" {
		return nil, invalid("want both /from and /to", "")
	}
	req.Path, req.To, req.Overwrite = m.From, m.To, m.Overwrite
	return nil, noQuery(r)
}

func mkdir(r *http.Request, req *protocol.Request) (io.Reader, error) {
	var m client.MkdirRequest
	if err := readJSON(r, maxAdminBody, &m); err != nil {
		return nil, err
	}
	if m.Path == "" {
		return nil, invalid("want /path", "")
	}
	req.Path = m.Path
	return nil, noQuery(r)
}

// plain builds operations whose parameters stand in the query string, those named and no others.
func plain(names ...string) builder {
	return func(r *http.Request, req *protocol.Request) (io.Reader, error) { return nil, params(r, req, names) }
}

func file(names ...string) builder {
	return func(r *http.Request, req *protocol.Request) (io.Reader, error) {
		req.Path = r.PathValue("path")
		if req.Path == "" {
			return nil, invalid("want a file's path behind /files/", "list a folder with /list?path=")
		}
		for _, k := range forwarded {
			if req.Operation == protocol.OpStat { // HEAD: finish looks at them
				break
			}
			if vs := r.Header.Values(k); len(vs) > 0 {
				req.Header[k] = vs
			}
		}
		if err := params(r, req, names); err != nil {
			return nil, err
		}
		if req.Operation == protocol.OpWrite {
			return r.Body, nil
		}
		return nil, nil
	}
}

func request(r *http.Request, req *protocol.Request) (io.Reader, error) {
	// The path goes on as it was written: the agent holds it against its rules before it decodes anything.
	rest, _ := r.Context().Value(keyTarget).(string)
	req.Method, req.Target = r.Method, "/"+rest
	if r.URL.RawQuery != "" {
		req.Target += "?" + r.URL.RawQuery
	}
	if len(req.Target) > protocol.MaxParamBytes {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "path and query are longer than %d bytes", protocol.MaxParamBytes)
	}
	if r.Header.Get("Upgrade") != "" {
		return nil, &protocol.Error{Code: protocol.CodeUnsupported, Origin: protocol.OriginRelay, Message: "a request that changes the protocol is not passed on",
			Hint: "raw bytes go by dial: `fairlead connect`"}
	}
	for k, vs := range r.Header {
		// The caller's token is for the relay; it never goes to the target. What is for this hop stays on it.
		if k != "Authorization" && k != "Cookie" && !strings.HasPrefix(k, protocol.HeaderPrefix) && !dispatch.HopHeader(r.Header, k) {
			req.Header[k] = vs
		}
	}
	if r.ContentLength >= 0 {
		req.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	return r.Body, nil
}

func params(r *http.Request, req *protocol.Request, names []string) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalid("the query string is not well-formed", "percent-encode reserved characters")
	}
	for k, vs := range q {
		known := false
		for _, n := range names {
			known = known || n == k
		}
		if !known {
			return invalid("this route takes no such parameter in its query string", "it takes: "+orNone(names))
		}
		if len(vs) != 1 {
			return invalid("parameter "+k+" stands more than once", "")
		}
		s := vs[0]
		bad := func(want string) error { return invalid("parameter "+k+": want "+want, "") }
		switch k {
		case "path":
			req.Path = s
		case "glob":
			req.Glob = s
		case "cursor":
			req.Cursor = s
		case "upload":
			req.Upload = s
		case "recursive", "partial":
			if s != "true" && s != "false" {
				return bad("true or false")
			}
			if k == "recursive" {
				req.Recursive = s == "true"
			} else {
				req.Partial = s == "true"
			}
		case "page_size":
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > 10000 {
				return bad("a number from 1 to 10000")
			}
			req.PageSize = n
		case "offset":
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil || n < 0 {
				return bad("a number that is not negative")
			}
			req.Offset = n
		}
	}
	return nil
}

func noQuery(r *http.Request) error { return params(r, nil, nil) }

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func encode(v any) (io.Reader, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, &protocol.Error{Code: protocol.CodeInternal, Message: "internal error", Cause: err}
	}
	return bytes.NewReader(b), nil
}

// describe adds a streamed route to the OpenAPI document.
func (a *API) describe(method, path string, op protocol.Operation, summary string) {
	o := &huma.Operation{Method: method, Path: strings.ReplaceAll(path, "...}", "}"), OperationID: string(op), Summary: summary, Tags: []string{"connections"},
		Responses: map[string]*huma.Response{"200": {Description: "The answer, streamed"}, "default": {Description: "A problem", Content: map[string]*huma.MediaType{client.ContentProblem: {Schema: a.schemaOf(client.Problem{})}}}}}
	if op == protocol.OpRequest || method == http.MethodHead {
		o.OperationID += "-" + strings.ToLower(method)
	}
	for _, name := range []string{"workspace", "connection"} {
		o.Parameters = append(o.Parameters, pathParam(name))
	}
	if strings.Contains(path, "{path...}") {
		o.Parameters = append(o.Parameters, pathParam("path"))
	}
	str := func(names ...string) {
		for _, n := range names {
			o.Parameters = append(o.Parameters, &huma.Param{Name: n, In: "query", Schema: &huma.Schema{Type: "string"}})
		}
	}
	body := func(v any) {
		o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: a.schemaOf(v)}}}
	}
	answer := func(media string, v any) {
		s := &huma.Schema{Type: "string", Format: "binary"}
		if v != nil {
			s = a.schemaOf(v)
		}
		o.Responses["200"].Content = map[string]*huma.MediaType{media: {Schema: s}}
	}
	switch op {
	case protocol.OpQuery:
		body(client.QueryRequest{})
		answer(protocol.ContentNDJSON, nil)
		o.Responses["200"].Content[client.ContentCSV] = &huma.MediaType{Schema: &huma.Schema{Type: "string"}}
	case protocol.OpExec:
		body(client.QueryRequest{})
		answer("application/json", protocol.ExecResult{})
	case protocol.OpTransaction:
		body(protocol.TransactionBody{})
		answer("application/json", protocol.TransactionResult{})
	case protocol.OpSchema:
		answer("application/json", protocol.Schema{})
	case protocol.OpList:
		str("path", "recursive", "glob", "cursor", "page_size")
		answer("application/json", protocol.FileList{})
	case protocol.OpStat:
		if method == http.MethodHead {
			o.Responses["304"] = &huma.Response{Description: "The file has the ETag that If-None-Match names"}
			break
		}
		str("path", "upload")
		answer("application/json", protocol.FileInfo{})
	case protocol.OpMove:
		body(client.MoveRequest{})
		answer("application/json", protocol.FileInfo{})
	case protocol.OpMkdir:
		body(client.MkdirRequest{})
		answer("application/json", protocol.FileInfo{})
		o.Responses["201"] = &huma.Response{Description: "The folder is new", Content: map[string]*huma.MediaType{"application/json": {Schema: a.schemaOf(protocol.FileInfo{})}}}
	case protocol.OpDelete:
		o.Responses = map[string]*huma.Response{"204": {Description: "It is gone"}, "default": o.Responses["default"]}
	case protocol.OpRead:
		answer("application/octet-stream", nil)
		o.Responses["206"] = &huma.Response{Description: "The range that was asked for", Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}
		o.Responses["304"] = &huma.Response{Description: "The file has the ETag that If-None-Match names"}
	case protocol.OpWrite:
		str("upload", "offset", "partial")
		answer("application/json", protocol.FileInfo{})
		o.Responses["201"] = &huma.Response{Description: "The file is new", Content: map[string]*huma.MediaType{"application/json": {Schema: a.schemaOf(protocol.FileInfo{})}}}
		o.RequestBody = &huma.RequestBody{Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}
	case protocol.OpRequest:
		if method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
			o.RequestBody = &huma.RequestBody{Description: "Whatever the service takes, of any media type.", Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}
		}
		o.Responses["200"].Description = "What the service answers, with its own status"
	case protocol.OpDial:
		o.Responses = map[string]*huma.Response{"101": {Description: "Raw bytes from here on"}, "default": o.Responses["default"]}
	}
	a.huma.OpenAPI().AddOperation(o)
}

func pathParam(name string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: "string"}}
}
