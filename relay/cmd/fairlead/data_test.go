package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client/clienttest"
)

func TestQueryFormats(t *testing.T) { t.Run("J11 the formats of a result", testQueryFormats) }

func testQueryFormats(t *testing.T) {
	setup(t)
	run("query", "sales", "rows 2").want(t, 0, "id  name\n 0  name 0\n 1  name 1\n", "(2 rows, 12 ms)")
	res := run("query", "sales", "types")
	res.want(t, 0, `=cmd()\x1b[31m,"q"\nx`, "2 rows")
	for _, text := range []string{"12345678901234567890.10", "9223372036854775807", `{"a":[1,2.50]}`, "NULL", "[masked]"} {
		if !strings.Contains(res.out, text) {
			t.Errorf("no %s in %s", text, res.out)
		}
	}
	res = run("query", "sales", "types", "--output", "json")
	var rows []map[string]json.RawMessage
	if err := json.Unmarshal([]byte(res.out), &rows); err != nil || len(rows) != 2 || string(rows[1]["n"]) != "9223372036854775807" || string(rows[0]["n"]) != `"12345678901234567890.10"` {
		t.Errorf("%v %s", err, res.out)
	}
	res = run("query", "sales", "types", "--output", "ndjson")
	if lines := strings.Split(strings.TrimSpace(res.out), "\n"); len(lines) != 4 || !strings.HasPrefix(lines[0], `{"columns"`) || !strings.HasPrefix(lines[3], `{"end"`) {
		t.Errorf("%s", res.out)
	}
	res = run("query", "sales", "types", "--output", "csv")
	table, err := csv.NewReader(strings.NewReader(res.out)).ReadAll()
	if err != nil || len(table) != 3 || !strings.Contains(res.out, "\r\n") {
		t.Fatalf("%v %q", err, res.out)
	}
	if table[1][0] != "12345678901234567890.10" || table[1][1] != "'=cmd()\x1b[31m,\"q\"\nx" || table[1][4] != "" || table[2][1] != "'-1" {
		t.Errorf("J11 formula: %q", table)
	}
	if res = run("query", "sales", "types", "-o", "csv", "--no-csv-safe"); strings.Contains(res.out, "'") {
		t.Errorf("%s", res.out)
	}
	run("query", "sales", "rows 0", "--output", "json").want(t, 0, "[]\n", "")
	run("query", "sales", "rows 0").want(t, 0, "id  name\n", "(0 rows")
	run("query", "sales", "rows 1", "--output", "xml").want(t, 64, "", "must be one of")
}

// A failure after the first row: what came is printed, nothing of it looks whole, the status is the error's.
func TestAnswersThatAreNotWhole(t *testing.T) {
	setup(t)
	for _, format := range []string{"table", "json", "ndjson", "csv"} {
		res := run("query", "sales", "late", "--output", format)
		res.want(t, 75, "x", "THE ANSWER IS NOT WHOLE: it failed after 1 row")
		if !strings.Contains(res.errs, "the statement ran longer than 30s") || !strings.Contains(res.errs, "database.sales.allow.timeout") {
			t.Errorf("%s: %s", format, res.errs)
		}
		if format == "json" && json.Valid([]byte(res.out)) {
			t.Errorf("looks whole: %s", res.out)
		}
		if format == "ndjson" && !strings.Contains(res.out, `{"error":`) {
			t.Errorf("the error line is missing: %s", res.out)
		}
		run("query", "sales", "cut", "--output", format).want(t, 75, "x", "THE ANSWER IS NOT WHOLE")
		run("query", "sales", "short", "--output", format).want(t, 75, "x", "broke off")
		run("query", "sales", "capped", "--output", format).want(t, 0, "x", "THE ANSWER IS NOT WHOLE: the cap max_rows cut it after 1 row")
	}
	res := run("query", "sales", "delete from x", "--output", "json")
	res.want(t, 77, "", `"rule":"database.sales.allow.mode"`)
	run("query", "nothing", "rows 1").want(t, 66, "", "no such connection")
}

func TestQueryStatementAndArguments(t *testing.T) {
	r := setup(t)
	args := []string{
		"plain", "int:-5", "text:int:5", "null:", "bool:true", `json:{"a": [1]}`, "decimal:1.50", "bytes:aGk=", "https://x", "a,b", "int[]:[1,2]",
		"timestamptz:2026-11-21T12:00:00Z", "int:123456789012345678901234567890", "",
	}
	cmd := []string{"query", "sales", "rows 1", "--max-rows", "9"}
	for _, a := range args {
		cmd = append(cmd, "--arg", a)
	}
	run(cmd...).want(t, 0, "name 0", "1 row")
	want := `{"sql":"rows 1","args":["plain",-5,"int:5",null,true,{"type":"json","value":{"a":[1]}},{"type":"decimal","value":"1.50"},` +
		`{"type":"bytes","value":"aGk="},"https://x","a,b",{"type":"int[]","value":[1,2]},{"type":"timestamptz","value":"2026-11-21T12:00:00Z"},` +
		`123456789012345678901234567890,""],"max_rows":9}`
	if r.LastBody() != want {
		t.Errorf("got  %s\nwant %s", r.LastBody(), want)
	}
	n := r.Requested("POST")
	for _, bad := range []string{"int:x", "int:1.5", "int:", "int:007", "null:x", "bool:yes", "json:{", "bytes:!!", "float:x"} {
		run("query", "sales", "rows 1", "--arg", bad).want(t, 64, "", "text:VALUE")
	}
	run("query", "sales").want(t, 64, "", "either a statement or --statement")
	run("query", "sales", "rows 1", "--statement", "x").want(t, 64, "", "either a statement or --statement")
	run("query", "sales", "rows 1", "--max-rows=-1").want(t, 64, "", "not negative")
	run("query", "sales", "@/nonexistent.sql").want(t, 66, "", "read statement")
	runIn(strings.NewReader(" \n"), "query", "sales", "-").want(t, 64, "", "empty")
	if r.Requested("POST") != n {
		t.Error("bad input went to the relay")
	}
	runIn(strings.NewReader("rows 1"), "query", "sales", "-").want(t, 0, "name 0", "1 row")
	file := filepath.Join(t.TempDir(), "q.sql")
	if err := os.WriteFile(file, []byte("rows 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("query", "sales", "@"+file).want(t, 0, "name 0", "1 row")
	run("exec", "sales", "--statement", "close_orders", "--arg", "int:1").want(t, 0, "3", "")
	if r.LastBody() != `{"statement":"close_orders","args":[1]}` {
		t.Errorf("%s", r.LastBody())
	}
}

func TestExecTransactionSchema(t *testing.T) {
	r := setup(t)
	run("exec", "sales", "update x", "-o", "json").want(t, 0, `"rows_affected": 3`, "")
	run("exec", "sales", "denied").want(t, 77, "", "refused by:  the agent at the site")
	file := filepath.Join(t.TempDir(), "tx.json")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"statements": [{"sql": "a", "args": [12345678901234567890]}, {"sql": "b"}]}`)
	run("transaction", "sales", file).want(t, 0, "2", "")
	if r.LastBody() != `{"statements":[{"sql":"a","args":[12345678901234567890]},{"sql":"b"}]}` {
		t.Errorf("%s", r.LastBody())
	}
	runIn(strings.NewReader(`{"statements":[{"sql":"a"}]}`), "transaction", "sales", "-", "-o", "json").want(t, 0, `"results"`, "")
	for text, want := range map[string]string{
		"{\n \"statement\": []}": "line 2", "{\n": "near line", `{"statements":[]}`: "no statements", `{"statements":[{"sql":"a"}]} x`: "closing brace", "": "empty",
	} {
		write(text)
		run("transaction", "sales", file).want(t, 64, "", want)
	}
	run("transaction", "sales", file+".no").want(t, 66, "", "read statement")
	run("schema", "sales").want(t, 0, "public.orders  table  ssn     text  yes            yes", "")
	run("schema", "sales", "orders", "-o", "json").want(t, 0, `"primary_key"`, "")
	run("schema", "sales", "nothing").want(t, 66, "", "there is no table")
}

func TestFiles(t *testing.T) {
	r := setup(t)
	dir := t.TempDir()
	t.Chdir(dir)
	run("files", "ls", "hr:").want(t, 0, "  12  2026-11-21 12:00:00Z  a.csv\n      2026-11-21 12:00:00Z  in/\n", "")
	if res := run("files", "ls", "hr:", "--relay", "127.0.0.1:1"); res.status != 69 || res.out != "" || !strings.Contains(res.errs, "ls hr:: the relay") {
		t.Errorf("a list that failed has no header, and names what was asked: %+v", res)
	}
	run("files", "ls", "hr:/in/", "-o", "json").want(t, 0, `"path": "in/b.txt"`, "")
	r.PageSize = 1
	res := run("files", "ls", "hr:", "--recursive", "--glob", "*", "-o", "ndjson")
	r.PageSize = 0
	if n := strings.Count(res.out, "\n"); n != 2 || res.status != 0 {
		t.Errorf("%+v", res)
	}
	if r.Requested("GET /api/v1/workspaces/default/connections/hr/list?glob=%2A&path=&recursive=true") != 1 {
		t.Errorf("%q", r.Requests)
	}
	run("files", "ls", "hr").want(t, 64, "", "want CONNECTION:PATH")
	run("files", "stat", "hr:a.csv").want(t, 0, clienttest.ETag(r.Files["a.csv"]), "")
	run("files", "stat", "hr:none").want(t, 66, "", "target code: ENOENT")

	run("files", "get", "hr:a.csv").want(t, 0, "", "")
	if b, err := os.ReadFile("a.csv"); err != nil || string(b) != "id,name\n1,x\n" {
		t.Errorf("%q %v", b, err)
	}
	if info, err := os.Stat("a.csv"); err != nil || !info.ModTime().Equal(clienttest.Time) {
		t.Errorf("%v %v", info, err)
	}
	run("files", "get", "hr:a.csv").want(t, 73, "", "--force replaces it")
	run("files", "get", "hr:a.csv", "--force").want(t, 0, "", "")
	run("files", "get", "hr:in/b.txt", "-").want(t, 0, "hello", "")
	run("files", "get", "hr:none").want(t, 66, "", "get hr:none: there is no such file")
	run("files", "get", "hr:").want(t, 64, "", "path of a file")
	run("files", "get", "hr:../x").want(t, 64, "", "malformed")
	run("files", "get", "hr:x/..").want(t, 64, "", "no name for a local file")
	run("files", "get", `hr:a\b`).want(t, 64, "", "no name for a local file")
	if left, _ := filepath.Glob("*.part*"); len(left) != 0 {
		t.Errorf("left %v", left)
	}

	if err := os.WriteFile("new.txt", []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("files", "put", "new.txt", "hr:in/").want(t, 0, "", "hr:in/new.txt: 3 B written")
	if string(r.Files["in/new.txt"]) != "new" {
		t.Errorf("%q", r.Files)
	}
	run("files", "put", "new.txt", "hr:in/new.txt", "--no-overwrite").want(t, 73, "", "there is a file of this name")
	run("files", "put", "new.txt", "hr:in/new.txt", "--if-match", clienttest.ETag([]byte("new")), "-o", "json").want(t, 0, `"etag"`, "")
	runIn(strings.NewReader("piped"), "files", "put", "-", "hr:p").want(t, 0, "", "hr:p: 5 B written")
	run("files", "put", "-", "hr:").want(t, 64, "", "has no name")
	run("files", "put", "nofile", "hr:x").want(t, 66, "", "read local file")
	run("files", "put", ".", "hr:x").want(t, 64, "", "is not a file")
	run("files", "put", "new.txt", "hr:x", "--if-match", "x", "--no-overwrite").want(t, 64, "", "exclude each other")

	run("files", "mv", "hr:p", "hr:in/").want(t, 0, "", "")
	if _, ok := r.Files["in/p"]; !ok {
		t.Errorf("%v", r.Files)
	}
	run("files", "mv", "hr:in/p", "hr:a.csv").want(t, 73, "", "the destination exists")
	run("files", "mv", "hr:in/p", "hr:a.csv", "--force").want(t, 0, "", "")
	run("files", "mv", "hr:a", "other:b").want(t, 64, "", "within one connection")
	run("files", "mkdir", "hr:done/").want(t, 0, "", "")
	run("files", "mkdir", "hr:").want(t, 64, "", "path of a file")
	run("files", "rm", "hr:a.csv", "hr:").want(t, 64, "", "path of a file")
	if _, ok := r.Files["a.csv"]; !ok {
		t.Error("half of a bad command was done")
	}
	run("files", "rm", "hr:a.csv", "hr:none").want(t, 66, "", "1 file deleted before this one failed")
	run("files", "rm", "hr:in/b.txt", "--if-match", `"no"`).want(t, 73, "", "another version")
}

func TestDownloadResumes(t *testing.T) {
	r := setup(t)
	t.Chdir(t.TempDir())
	content := make([]byte, 1<<20)
	_, _ = rand.Read(content)
	r.Files["big"] = content
	// An earlier run was broken off.
	if err := os.WriteFile("big.part", content[:700_000], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("big.part.etag", []byte(clienttest.ETag(content)), 0o600); err != nil {
		t.Fatal(err)
	}
	run("files", "get", "hr:big").want(t, 0, "", "resuming at 683.6 KiB")
	same := func() {
		t.Helper()
		if b, err := os.ReadFile("big"); err != nil || !bytes.Equal(b, content) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		if left, _ := filepath.Glob("*.part*"); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	}
	same()
	// The part is of another version: begin anew.
	for name, b := range map[string][]byte{"big.part": []byte("old"), "big.part.etag": []byte(`"old"`)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run("files", "get", "hr:big", "--force").want(t, 0, "", "")
	same()
	// The part is whole already, or longer than the file.
	for name, b := range map[string][]byte{"big.part": append(content, "more"...), "big.part.etag": []byte(clienttest.ETag(content))} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run("files", "get", "hr:big", "--force").want(t, 0, "", "")
	same()
	// The connection breaks in the middle.
	r.CutReads = 1
	run("files", "get", "hr:big", "--force").want(t, 0, "", "")
	same()
}

func TestUploadResumes(t *testing.T) {
	r := setup(t)
	t.Chdir(t.TempDir())
	content := make([]byte, 1<<20)
	_, _ = rand.Read(content)
	if err := os.WriteFile("big", content, 0o600); err != nil {
		t.Fatal(err)
	}
	r.CutWrites = 1
	run("files", "put", "big", "hr:big").want(t, 0, "", "resuming at")
	if !bytes.Equal(r.Files["big"], content) {
		t.Errorf("%d bytes", len(r.Files["big"]))
	}
}

// The upload before this one was cut, and wrote on after this one had asked how far it came.
func TestUploadResumesWhereTheOneBeforeItLeft(t *testing.T) {
	r := setup(t)
	t.Chdir(t.TempDir())
	content := make([]byte, 1<<20)
	_, _ = rand.Read(content)
	if err := os.WriteFile("big", content, 0o600); err != nil {
		t.Fatal(err)
	}
	var late sync.Once
	r.BeforePut = func(upload string) {
		late.Do(func() {
			r.Lock()
			defer r.Unlock()
			r.Uploads[upload] = content[:1<<18]
		})
	}
	run("files", "put", "big", "hr:big").want(t, 0, "", "resuming at 256.0 KiB")
	if !bytes.Equal(r.Files["big"], content) {
		t.Errorf("%d bytes", len(r.Files["big"]))
	}
}

func TestRequest(t *testing.T) {
	setup(t)
	run("request", "crm", "get", "/a?b=1").want(t, 0, `GET /a?b=1  ""`, "")
	run("request", "crm", "POST", "/a", "--data", "body", "--header", "X-Test: v").want(t, 0, `POST /a v "body"`, "")
	runIn(strings.NewReader("piped"), "request", "crm", "PUT", "/a", "--data", "@-").want(t, 0, `"piped"`, "")
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte("from file"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("request", "crm", "POST", "/a", "-d", "@"+file, "--include").want(t, 0, "X-Target: yes", "")
	run("request", "crm", "GET", "/teapot").want(t, 76, "GET /teapot", "the service answered 418")
	run("request", "crm", "GET", "/denied").want(t, 77, "", "http.crm.allow")
	run("request", "crm", "GET", "nopath").want(t, 64, "", "not a path")
	run("request", "crm", "GET", "/a", "--header", "nocolon").want(t, 64, "", "NAME: VALUE")
	run("request", "crm", "GET", "/a", "--header", "Fairlead-Principal: x").want(t, 64, "", "NAME: VALUE")
	run("request", "crm", "POST", "/a", "--data", "@/nonexistent").want(t, 66, "", "read body")
	run("request", "crm", "B AD", "/a").want(t, 64, "", "malformed")
}

// A lockedBuffer is written by a command and read by the test at the same time.
type lockedBuffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{}
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.b.Write(p)
}

// wait returns the text once it matches.
func (l *lockedBuffer) wait(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		l.mu.Lock()
		m := re.FindStringSubmatch(l.b.String())
		text := l.b.String()
		l.mu.Unlock()
		if m != nil {
			return m
		}
		select {
		case <-l.more:
		case <-deadline.C:
			t.Fatalf("no %q in %q", pattern, text)
		}
	}
}

func newLocked() *lockedBuffer { return &lockedBuffer{more: make(chan struct{}, 1)} }

// connect runs the command until the test ends it.
func connect(t *testing.T, k *connectCommand) (errs *lockedBuffer, stop func() error) {
	t.Helper()
	errs = newLocked()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	term := &cli.Term{In: strings.NewReader(""), Out: io.Discard, Err: errs, Program: "fairlead"}
	flags := &relayFlags{Relay: os.Getenv("FAIRLEAD_RELAY"), CA: os.Getenv("FAIRLEAD_CA")}
	go func() { done <- k.Run(ctx, term, flags) }()
	return errs, sync.OnceValue(func() error { cancel(); return <-done })
}

func TestConnect(t *testing.T) {
	setup(t)
	errs, stop := connect(t, &connectCommand{Connection: "sales", Listen: "127.0.0.1:0"})
	defer stop()
	addr := errs.wait(t, `listening on (\S+) for sales`)[1]
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	errs.wait(t, fmt.Sprintf("psql -h %s -p %s -U USER DATABASE", host, port))
	var wg sync.WaitGroup
	for i := range 8 { // many at a time
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			text := strings.Repeat(fmt.Sprint(i), 100_000)
			if _, err := io.WriteString(conn, text); err != nil {
				t.Error(err)
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Error(err)
			}
			b, err := io.ReadAll(conn)
			if want := "hello\n" + text + "\nbye after 100000"; err != nil || string(b) != want {
				t.Errorf("%v, %d bytes", err, len(b))
			}
		})
	}
	wg.Wait()
	// One that is still open when the command is ended.
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Errorf("%v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived the command")
	}
	if strings.Contains(errs.b.String(), "WARNING") {
		t.Errorf("%s", errs.b.String())
	}
}

func TestConnectRefusedByTheSite(t *testing.T) {
	r := setup(t)
	r.Connections = append(r.Connections, r.Connections[0])
	r.Connections[1].Name = "hr"
	errs, stop := connect(t, &connectCommand{Connection: "hr", Listen: "0.0.0.0:0"})
	defer stop()
	errs.wait(t, "WARNING: .* can be reached from other machines")
	port := errs.wait(t, `listening on \S+?:(\d+) for`)[1]
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("got %v, want a reset: an end of the data would be an answer", err)
	}
	errs.wait(t, "(?s)raw bytes are not allowed here.*database.hr.allow.dial")
	if err := stop(); err != nil {
		t.Errorf("%v", err)
	}
	run("connect", "none").want(t, 66, "", "no such connection")
	run("connect", "sales", "--listen", "nowhere").want(t, 1, "", "listen for native clients")
}

func TestConnectStdio(t *testing.T) {
	setup(t)
	runIn(strings.NewReader("ping"), "connect", "sales", "--stdio").want(t, 0, "hello\nping\nbye after 4", "")
	run("connect", "hr", "--stdio").want(t, 77, "", "raw bytes")
}

// A relay that hides what a caller may not see does not repeat its name; the command line knows what it asked for.
func TestErrorsNameWhatWasAskedFor(t *testing.T) {
	setup(t)
	run("query", "nope", "rows 1").want(t, 66, "", "nope: there is no such connection")
	run("connect", "nope").want(t, 66, "", "nope: there is no such connection")
	run("connections", "show", "nope").want(t, 66, "", "nope: there is no such connection")
	run("allowlist", "set", "10.0.0.1/8").want(t, 64, "", "did you mean 10.0.0.0/8")
	run("whoami", "--relay", "localhost:99999").want(t, 64, "", "a port is a number from 1 to 65535")
	t.Setenv("FAIRLEAD_TOKEN", "flj_abc")
	run("whoami").want(t, 64, "", "a join token is for fairlead-agent enroll")
}
