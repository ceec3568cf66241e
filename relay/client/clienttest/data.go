package clienttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// ETag is the ETag of a file with this content.
func ETag(content []byte) string { return fmt.Sprintf(`"%x"`, sha256.Sum256(content)) }

// dataRoutes answer by what the statement says: "rows N" gives N rows, "types" one row of many types, "late" an error
// after a row, "cut" breaks off, "capped" says that a cap cut the answer, "denied" is refused by the agent, "wait" goes
// on until the caller leaves.
func (r *Relay) dataRoutes(mux *http.ServeMux, con string) {
	mux.HandleFunc("POST "+con+"/query", func(w http.ResponseWriter, q *http.Request) {
		var s client.QueryRequest
		_ = json.NewDecoder(q.Body).Decode(&s)
		if q.PathValue("connection") != "sales" {
			Fail(w, missing("connection"))
			return
		}
		query(w, q, s)
	})
	mux.HandleFunc("POST "+con+"/exec", func(w http.ResponseWriter, q *http.Request) {
		var s client.QueryRequest
		_ = json.NewDecoder(q.Body).Decode(&s)
		if s.SQL == "denied" {
			Fail(w, denied())
			return
		}
		id := int64(7)
		answer(w, 200, protocol.ExecResult{RowsAffected: 3, LastInsertID: &id})
	})
	mux.HandleFunc("POST "+con+"/transaction", func(w http.ResponseWriter, q *http.Request) {
		var t protocol.TransactionBody
		_ = json.NewDecoder(q.Body).Decode(&t)
		answer(w, 200, protocol.TransactionResult{Results: make([]protocol.ExecResult, len(t.Statements))})
	})
	mux.HandleFunc("GET "+con+"/schema", func(w http.ResponseWriter, q *http.Request) {
		answer(w, 200, protocol.Schema{Tables: []protocol.Table{{
			Schema: "public", Name: "orders", Type: "table", PrimaryKey: []string{"id"},
			Columns:     []protocol.TableColumn{{Name: "id", Type: "int8"}, {Name: "ssn", Type: "text", Nullable: true, Masked: true}},
			ForeignKeys: []protocol.ForeignKey{{Columns: []string{"customer"}, References: "public.customers", To: []string{"id"}}},
		}}})
	})
	mux.HandleFunc(con+"/http/", func(w http.ResponseWriter, q *http.Request) {
		if strings.HasSuffix(q.URL.Path, "/denied") {
			Fail(w, &protocol.Error{Code: protocol.CodeDenied, Message: "this path is not allowed", Origin: protocol.OriginAgent, Rule: "http.crm.allow", RequestID: "req_test"})
			return
		}
		b, _ := io.ReadAll(q.Body)
		w.Header().Set("X-Target", "yes")
		if strings.HasSuffix(q.URL.Path, "/teapot") {
			w.WriteHeader(http.StatusTeapot)
		}
		_, at, _ := strings.Cut(q.URL.RequestURI(), "/http")
		_, _ = fmt.Fprintf(w, "%s %s %s %q", q.Method, at, q.Header.Get("X-Test"), b)
	})
	mux.HandleFunc("POST "+con+"/dial", dial)
	r.fileRoutes(mux, con)
}

func denied() *protocol.Error {
	return &protocol.Error{
		Code: protocol.CodeDenied, Message: "the statement writes", Origin: protocol.OriginAgent, Rule: "database.sales.allow.mode",
		Hint: "the profile is read_only", RequestID: "req_test",
	}
}

func query(w http.ResponseWriter, q *http.Request, s client.QueryRequest) {
	line := func(text string) { _, _ = io.WriteString(w, text+"\n") }
	begin := func() {
		w.Header().Set("Content-Type", protocol.ContentNDJSON)
		line(`{"columns":[{"name":"id","type":"int","database_type":"int8"},{"name":"name","type":"text","database_type":"text"}]}`)
	}
	word, arg, _ := strings.Cut(s.SQL, " ")
	switch word {
	case "rows":
		n, _ := strconv.Atoi(arg)
		begin()
		for i := range n {
			line(fmt.Sprintf(`[%d,"name %d"]`, i, i))
		}
		line(fmt.Sprintf(`{"end":{"rows":%d,"elapsed_ms":12}}`, n))
	case "types":
		w.Header().Set("Content-Type", protocol.ContentNDJSON)
		line(`{"columns":[{"name":"n","type":"decimal","database_type":"numeric"},{"name":"t","type":"text","database_type":"text"},{"name":"b","type":"bool","database_type":"bool"},{"name":"j","type":"json","database_type":"jsonb"},{"name":"z","type":"text","database_type":"text"},{"name":"m","type":"text","database_type":"text","masked":true}]}`)
		line(`["12345678901234567890.10","=cmd()\u001b[31m,\"q\"\nx",true,{"a":[1,2.50]},null,"[masked]"]`)
		line(`[9223372036854775807,"-1",false,[],null,"[masked]"]`)
		line(`{"end":{"rows":2,"elapsed_ms":1}}`)
	case "late":
		begin()
		line(`[1,"x"]`)
		line(`{"error":{"code":"timeout","message":"the statement ran longer than 30s","origin":"agent","rule":"database.sales.allow.timeout","request_id":"req_test"}}`)
	case "cut":
		begin()
		line(`[1,"x"]`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "short": // ends without its last line, as if all was well
		begin()
		line(`[1,"x"]`)
	case "capped":
		begin()
		line(`[1,"x"]`)
		line(`{"end":{"rows":1,"truncated":"max_rows","elapsed_ms":1}}`)
	case "wait":
		begin()
		line(`[1,"x"]`)
		_ = http.NewResponseController(w).Flush()
		<-q.Context().Done()
	case "odd":
		begin()
		line(`"what"`)
	default:
		Fail(w, denied())
	}
}

func dial(w http.ResponseWriter, q *http.Request) {
	if q.PathValue("connection") != "sales" {
		Fail(w, &protocol.Error{Code: protocol.CodeDenied, Message: "raw bytes are not allowed here", Origin: protocol.OriginAgent, Rule: "database.hr.allow.dial"})
		return
	}
	if q.Header.Get("Upgrade") != protocol.UpgradeDial {
		Fail(w, protocol.Errorf(protocol.CodeInvalid, "no upgrade"))
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	// The greeting comes in the same flight, as from a database that speaks first.
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol.UpgradeDial+"\r\n\r\nhello\n")
	n, _ := io.Copy(conn, buf) // echo until the caller closes its side
	_, _ = fmt.Fprintf(conn, "\nbye after %d", n)
}

func (r *Relay) fileRoutes(mux *http.ServeMux, con string) {
	info := func(path string) protocol.FileInfo {
		b := r.Files[path]
		return protocol.FileInfo{Path: path, Size: int64(len(b)), ModTime: "2026-11-21T12:00:00Z", ETag: ETag(b)}
	}
	handle := func(pattern string, h func(w http.ResponseWriter, q *http.Request)) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+con+path, h)
	}
	noFile := func(w http.ResponseWriter) {
		Fail(w, &protocol.Error{Code: protocol.CodeNotFound, Message: "there is no such file", Origin: protocol.OriginTarget, Detail: "ENOENT", RequestID: "req_test"})
	}
	handle("GET /list", func(w http.ResponseWriter, q *http.Request) {
		r.Lock()
		defer r.Unlock()
		v := q.URL.Query()
		var files []protocol.FileInfo
		for p := range r.Files {
			if v.Get("path") != "" && !strings.HasPrefix(p, v.Get("path")+"/") {
				continue
			}
			rest := strings.TrimPrefix(strings.TrimPrefix(p, v.Get("path")), "/")
			if dir, _, deep := strings.Cut(rest, "/"); deep && v.Get("recursive") != "true" {
				p = strings.TrimSuffix(p, strings.TrimPrefix(rest, dir))
				if !slices.ContainsFunc(files, func(f protocol.FileInfo) bool { return f.Path == p }) {
					files = append(files, protocol.FileInfo{Path: p, Folder: true, ModTime: "2026-11-21T12:00:00Z"})
				}
				continue
			}
			files = append(files, info(p))
		}
		sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
		l := protocol.FileList{Files: files}
		if r.PageSize > 0 {
			from, _ := strconv.Atoi(v.Get("cursor"))
			to := min(from+r.PageSize, len(files))
			l.Files = files[from:to]
			if to < len(files) {
				l.Cursor = strconv.Itoa(to)
			}
		}
		answer(w, 200, l)
	})
	handle("GET /stat", func(w http.ResponseWriter, q *http.Request) {
		r.Lock()
		defer r.Unlock()
		v := q.URL.Query()
		if b, ok := r.Uploads[v.Get("upload")]; ok {
			n := int64(len(b))
			answer(w, 200, protocol.FileInfo{Path: v.Get("path"), Uploaded: &n})
			return
		}
		if _, ok := r.Files[v.Get("path")]; !ok {
			noFile(w)
			return
		}
		answer(w, 200, info(v.Get("path")))
	})
	handle("POST /move", func(w http.ResponseWriter, q *http.Request) {
		r.Lock()
		defer r.Unlock()
		var m client.MoveRequest
		_ = json.NewDecoder(q.Body).Decode(&m)
		b, ok := r.Files[m.From]
		if !ok {
			noFile(w)
			return
		}
		if _, there := r.Files[m.To]; there && !m.Overwrite {
			Fail(w, &protocol.Error{Code: protocol.CodeConflict, Message: "the destination exists", Origin: protocol.OriginTarget})
			return
		}
		delete(r.Files, m.From)
		r.Files[m.To] = b
		w.WriteHeader(http.StatusNoContent)
	})
	handle("POST /mkdir", func(w http.ResponseWriter, q *http.Request) { w.WriteHeader(http.StatusNoContent) })
	handle("GET /files/{path...}", func(w http.ResponseWriter, q *http.Request) {
		r.Lock()
		b, ok := r.Files[q.PathValue("path")]
		cut := ok && r.CutReads > 0
		if cut {
			r.CutReads--
		}
		r.Unlock()
		if !ok {
			noFile(w)
			return
		}
		w.Header().Set("ETag", ETag(b))
		w.Header().Set("Content-Type", "application/octet-stream")
		if cut {
			http.ServeContent(&cutWriter{ResponseWriter: w, left: len(b) / 4}, q, "", Time, bytes.NewReader(b))
			return
		}
		http.ServeContent(w, q, "", Time, bytes.NewReader(b))
	})
	handle("PUT /files/{path...}", r.put)
	handle("DELETE /files/{path...}", func(w http.ResponseWriter, q *http.Request) {
		r.Lock()
		defer r.Unlock()
		b, ok := r.Files[q.PathValue("path")]
		switch m := q.Header.Get("If-Match"); {
		case !ok:
			noFile(w)
		case m != "" && m != ETag(b):
			Fail(w, &protocol.Error{Code: protocol.CodePrecondition, Message: "the file is another version", Origin: protocol.OriginAgent})
		default:
			delete(r.Files, q.PathValue("path"))
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// A cutWriter breaks the answer off after a number of bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b[:min(len(b), c.left)])
	c.left -= n
	if c.left == 0 {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func (r *Relay) put(w http.ResponseWriter, q *http.Request) {
	path, id := q.PathValue("path"), q.URL.Query().Get("upload")
	offset, _ := strconv.ParseInt(q.URL.Query().Get("offset"), 10, 64)
	if r.BeforePut != nil {
		r.BeforePut(id)
	}
	r.Lock()
	old, there := r.Files[path]
	cut := r.CutWrites > 0
	if cut {
		r.CutWrites--
	}
	have := r.Uploads[id]
	r.Unlock()
	if m := q.Header.Get("If-Match"); q.Header.Get("If-None-Match") == "*" && there || m != "" && (!there || m != ETag(old)) {
		Fail(w, &protocol.Error{Code: protocol.CodePrecondition, Message: "the file is another version", Origin: protocol.OriginAgent, RequestID: "req_test"})
		return
	}
	if offset != int64(len(have)) {
		Fail(w, &protocol.Error{Code: protocol.CodeRange, Message: "the upload does not end there", Origin: protocol.OriginAgent})
		return
	}
	body := io.Reader(q.Body)
	if cut {
		body = io.LimitReader(q.Body, q.ContentLength/2)
	}
	b, err := io.ReadAll(body)
	r.Lock()
	defer r.Unlock()
	if cut || err != nil {
		if id != "" {
			r.Uploads[id] = append(have, b...)
		}
		panic(http.ErrAbortHandler)
	}
	delete(r.Uploads, id)
	r.Files[path] = append(slices.Clone(have), b...)
	w.Header().Set("ETag", ETag(r.Files[path]))
	status := http.StatusCreated
	if there {
		status = http.StatusOK
	}
	answer(w, status, protocol.FileInfo{Path: path, Size: int64(len(r.Files[path])), ModTime: "2026-11-21T12:00:00Z", ETag: ETag(r.Files[path])})
}
