package client_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/splice"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/client/clienttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) (*clienttest.Relay, *client.Client) {
	t.Helper()
	r := clienttest.New(t)
	c, err := client.New(client.Config{Relay: r.URL, Token: secret.FromString(clienttest.Token), CAFile: r.CAFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return r, c
}

func TestRelayAddress(t *testing.T) {
	for in, want := range map[string]string{
		"relay": "https://relay:8443", "relay:443": "https://relay:443", "https://relay/": "https://relay:8443",
		"https://[2001:db8::1]": "https://[2001:db8::1]:8443", "http://relay": "", "": "", "https://u:p@relay": "", "relay/api": "", "relay?x": "", "ftp://x": "", "https://": "",
	} {
		c, err := client.New(client.Config{Relay: in})
		switch {
		case want == "" && client.CodeOf(err) != protocol.CodeInvalid:
			t.Errorf("%q: %v", in, err)
		case want != "" && (err != nil || c.Relay() != want):
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestOnlyTheGivenCAIsTrusted(t *testing.T) {
	r := clienttest.New(t)
	for what, conf := range map[string]client.Config{
		"no CA given": {Relay: r.URL},
		"another CA":  {Relay: r.URL, CAFile: otherCA(t)},
		"wrong name":  {Relay: strings.Replace(r.URL, "127.0.0.1", "localhost", 1), CAFile: r.CAFile},
	} {
		conf.Token = secret.FromString(clienttest.Token)
		c, err := client.New(conf)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Whoami(t.Context())
		if client.CodeOf(err) != protocol.CodeUnauthenticated {
			t.Errorf("%s: %v", what, err)
		}
		c.Close()
	}
	if n := r.Requested(""); n != 0 {
		t.Errorf("%d requests, and with them the token, went to a relay that is not trusted", n)
	}
}

func otherCA(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "other.pem")
	if err := os.WriteFile(file, []byte(otherPEM), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// A CONNECT proxy between caller and relay: TLS goes through it end to end, raw bytes too.
func TestProxy(t *testing.T) {
	r := clienttest.New(t)
	var asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method != http.MethodConnect || q.Header.Get("Proxy-Authorization") != "Basic dXNlcjpwYXNz" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		asked.Add(1)
		to, err := net.Dial("tcp", q.Host)
		if err != nil {
			t.Error(err)
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		splice.Both(q.Context(), conn, to)
	}))
	defer proxy.Close()
	address := strings.Replace(proxy.URL, "http://", "http://user:pass@", 1)
	c, err := client.New(client.Config{Relay: r.URL, CAFile: r.CAFile, Token: secret.FromString(clienttest.Token), Proxy: address})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Whoami(t.Context()); err != nil {
		t.Error(err)
	}
	conn, err := c.Dial(t.Context(), "sales")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "hello\n\nbye after 0" {
		t.Errorf("%q %v", b, err)
	}
	conn.Close()
	if asked.Load() == 0 {
		t.Error("the proxy was not asked")
	}
	for _, bad := range []string{"proxy:3128", "socks5://p:1", "http://", "http://p/x"} {
		if _, err := client.New(client.Config{Relay: r.URL, Proxy: bad}); client.CodeOf(err) != protocol.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	c, err := client.New(client.Config{Relay: addr})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Whoami(t.Context())
	if client.CodeOf(err) != protocol.CodeUnavailable || !strings.Contains(err.Error(), "nothing listens there") {
		t.Errorf("%v", err)
	}

	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	if c, err = client.New(client.Config{Relay: strings.TrimPrefix(plain.URL, "http://")}); err != nil {
		t.Fatal(err)
	}
	if _, err = c.Whoami(t.Context()); !strings.Contains(fmt.Sprint(err), "does not speak TLS") {
		t.Errorf("%v", err)
	}
}

func TestProblemBecomesError(t *testing.T) {
	_, c := start(t)
	_, err := c.Exec(t.Context(), "sales", client.QueryRequest{Statement: protocol.Statement{SQL: "denied"}})
	var e *protocol.Error
	if !errors.As(err, &e) || e.Code != protocol.CodeDenied || e.Origin != protocol.OriginAgent || e.Rule != "database.sales.allow.mode" ||
		e.Hint == "" || e.RequestID != "req_test" || e.Message != "the statement writes" {
		t.Errorf("%+v", err)
	}
}

// Answers that no relay of ours gives must become errors with a fitting code, never a panic or a success.
func TestOddAnswers(t *testing.T) {
	var h http.HandlerFunc
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(w, r) }))
	defer s.Close()
	pool := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c, err := client.New(client.Config{Relay: s.URL, CA: pool, Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for what, want := range map[string]struct {
		h    http.HandlerFunc
		code protocol.Code
		text string
	}{
		"html error": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) }, protocol.CodeUpstream, "502"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example", http.StatusFound)
		}, protocol.CodeInvalid, "not followed"},
		"not JSON": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, protocol.CodeInternal, "Fairlead relay"},
		"problem, not JSON": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", client.ContentProblem)
			w.WriteHeader(403)
			fmt.Fprint(w, "{")
		}, protocol.CodeDenied, "403"},
		"rate": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "7"); w.WriteHeader(429) }, protocol.CodeRateLimited, "429"},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		}, protocol.CodeInterrupted, "broke off"},
		"closed": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, protocol.CodeInterrupted, "closed the connection"},
		"strange code": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", client.ContentProblem)
			w.WriteHeader(418)
			fmt.Fprint(w, `{"code":"teapot","detail":"short and stout"}`)
		}, "teapot", "stout"},
	} {
		h = want.h
		_, err := c.Whoami(t.Context())
		if client.CodeOf(err) != want.code || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	h = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	if _, err := c.Whoami(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Whoami(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestListsFollowTheirCursor(t *testing.T) {
	r, c := start(t)
	r.PageSize = 1
	agents, err := c.Agents(t.Context())
	if err != nil || len(agents) != 2 || r.Requested("GET /api/v1/workspaces/default/agents") != 2 {
		t.Errorf("%v %v", agents, err)
	}
	n := 0
	for _, err := range c.Files(t.Context(), "hr", client.ListOptions{Recursive: true}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("%d files", n)
	}
}

func TestConnectionIsReused(t *testing.T) {
	dials := 0
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			dials++
		}
	}
	s.StartTLS()
	defer s.Close()
	c, err := client.New(client.Config{Relay: s.URL, CA: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := c.Whoami(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	s.Close()
	if dials != 1 {
		t.Errorf("%d connections for 10 calls", dials)
	}
}

func ask(t *testing.T, c *client.Client, sql string) (*client.Rows, error) {
	t.Helper()
	return c.Query(t.Context(), "sales", client.QueryRequest{Statement: protocol.Statement{SQL: sql}})
}

func TestQueryStreams(t *testing.T) {
	_, c := start(t)
	rows, err := ask(t, c, "rows 10000")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		row, err := rows.Row()
		if err != nil || string(row[0]) != fmt.Sprint(n) {
			t.Fatal(row, err)
		}
		n++
	}
	if rows.Err() != nil || n != 10000 || rows.End() == nil || rows.End().Rows != 10000 || len(rows.Columns) != 2 {
		t.Errorf("%d rows, %v, %+v", n, rows.Err(), rows.End())
	}
}

func TestQueryFailures(t *testing.T) {
	_, c := start(t)
	for sql, want := range map[string]protocol.Code{"late": protocol.CodeTimeout, "cut": protocol.CodeInterrupted, "short": protocol.CodeInterrupted, "odd": protocol.CodeInternal} {
		rows, err := ask(t, c, sql)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			continue
		}
		if client.CodeOf(rows.Err()) != want || rows.End() != nil || rows.Next() {
			t.Errorf("%s: %v", sql, rows.Err())
		}
		rows.Close()
	}
	if _, err := ask(t, c, "denied"); client.CodeOf(err) != protocol.CodeDenied {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	rows, err := c.Query(ctx, "sales", client.QueryRequest{Statement: protocol.Statement{SQL: "wait"}})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	cancel()
	if rows.Next() || !errors.Is(rows.Err(), context.Canceled) {
		t.Errorf("%v", rows.Err())
	}
}

func TestGetTakesUpWhereItBroke(t *testing.T) {
	r, c := start(t)
	content := make([]byte, 1<<20)
	_, _ = rand.Read(content)
	r.Files["big"] = content
	r.CutReads = 2
	f, err := c.Get(t.Context(), "hr", "big", client.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, content) || f.Size != int64(len(content)) {
		t.Errorf("%v, %d bytes of %d", err, len(got), len(content))
	}
	if n := r.Requested("GET /api/v1/workspaces/default/connections/hr/files/big"); n != 3 {
		t.Errorf("%d requests", n)
	}
}

func TestGetFromAnOffset(t *testing.T) {
	r, c := start(t)
	r.Files["f"] = []byte("0123456789")
	for _, k := range []struct {
		etag string
		want string
		at   int64
	}{{clienttest.ETag(r.Files["f"]), "6789", 6}, {`"another"`, "0123456789", 0}} {
		f, err := c.Get(t.Context(), "hr", "f", client.GetOptions{Offset: 6, ETag: k.etag})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil || string(b) != k.want || f.Offset != k.at || f.Size != 10 {
			t.Errorf("%s: %q %v at %d", k.etag, b, err, f.Offset)
		}
		f.Close()
	}
}

func TestGetOfAFileThatChanges(t *testing.T) {
	r, c := start(t)
	r.Files["big"] = bytes.Repeat([]byte("a"), 1<<20)
	r.CutReads = 1
	f, err := c.Get(t.Context(), "hr", "big", client.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	r.Lock()
	r.Files["big"] = bytes.Repeat([]byte("b"), 1<<20)
	r.Unlock()
	if _, err := io.Copy(io.Discard, f); client.CodeOf(err) != protocol.CodeConflict {
		t.Errorf("%v", err)
	}
}

func TestPaths(t *testing.T) {
	r, c := start(t)
	r.Files["a b/ü?#%.csv"] = []byte("x")
	f, err := c.Get(t.Context(), "hr", "a b/ü?#%.csv", client.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, bad := range []string{"", "/a", "a//b", "../a", "a/..", "./a", "a/"} {
		if _, err := c.Get(t.Context(), "hr", bad, client.GetOptions{}); client.CodeOf(err) != protocol.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestPutTakesUpWhereItBroke(t *testing.T) {
	r, c := start(t)
	content := make([]byte, 1<<20)
	_, _ = rand.Read(content)
	r.CutWrites = 2
	var offsets []int64
	info, err := c.Put(t.Context(), "hr", "new", bytes.NewReader(content), int64(len(content)), client.PutOptions{
		Upload: client.NewUpload(), Progress: func(n int64) { offsets = append(offsets, n) },
	})
	if err != nil || info.Size != int64(len(content)) || info.ETag != clienttest.ETag(content) {
		t.Errorf("%+v %v", info, err)
	}
	if !bytes.Equal(r.Files["new"], content) || len(offsets) != 3 || offsets[0] != 0 || offsets[2] <= offsets[1] {
		t.Errorf("wrong content, or offsets %v", offsets)
	}
}

func TestPutConditions(t *testing.T) {
	r, c := start(t)
	put := func(o client.PutOptions) error {
		_, err := c.Put(t.Context(), "hr", "a.csv", strings.NewReader("new"), 3, o)
		return err
	}
	if err := put(client.PutOptions{Create: true}); client.CodeOf(err) != protocol.CodePrecondition {
		t.Errorf("create: %v", err)
	}
	if err := put(client.PutOptions{IfMatch: `"no"`, Upload: client.NewUpload()}); client.CodeOf(err) != protocol.CodePrecondition {
		t.Errorf("if-match: %v", err)
	}
	if string(r.Files["a.csv"]) == "new" {
		t.Fatal("written all the same")
	}
	if err := put(client.PutOptions{IfMatch: clienttest.ETag(r.Files["a.csv"])}); err != nil || string(r.Files["a.csv"]) != "new" {
		t.Errorf("%v", err)
	}
	// Of unknown length, and empty.
	if _, err := c.Put(t.Context(), "hr", "s", io.MultiReader(strings.NewReader("ab"), strings.NewReader("c")), -1, client.PutOptions{}); err != nil || string(r.Files["s"]) != "abc" {
		t.Errorf("%v %q", err, r.Files["s"])
	}
	if info, err := c.Put(t.Context(), "hr", "e", strings.NewReader(""), 0, client.PutOptions{Upload: client.NewUpload()}); err != nil || info.Size != 0 || r.Requested("PUT /api/v1/workspaces/default/connections/hr/files/e?upload=") != 1 {
		t.Errorf("%v %+v", err, info)
	}
	if err := c.Delete(t.Context(), "hr", "a.csv", `"no"`); client.CodeOf(err) != protocol.CodePrecondition {
		t.Errorf("%v", err)
	}
	if err := c.Delete(t.Context(), "hr", "a.csv", ""); err != nil || r.Files["a.csv"] != nil {
		t.Errorf("%v", err)
	}
}

func TestDial(t *testing.T) {
	_, c := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := c.Dial(ctx, "sales")
	cancel() // bounds the dial, not the conn
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil || string(b) != "hello\nping\nbye after 4" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := c.Dial(t.Context(), "hr"); client.CodeOf(err) != protocol.CodeDenied {
		t.Errorf("%v", err)
	}
	if _, err := c.Dial(ctx, "sales"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if conn, err = c.Dial(t.Context(), "sales"); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestRequest(t *testing.T) {
	_, c := start(t)
	resp, err := c.Request(t.Context(), "crm", "POST", "/a%2Fb/teapot?q=1&r=x%20y", http.Header{"X-Test": {"v"}}, strings.NewReader("body"), 4)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 418 || string(b) != `POST /a%2Fb/teapot?q=1&r=x%20y v "body"` {
		t.Errorf("%d %q %v", resp.StatusCode, b, err)
	}
	if _, err := c.Request(t.Context(), "crm", "GET", "/denied", nil, nil, 0); client.CodeOf(err) != protocol.CodeDenied {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "x", "//host/x", "https://h/x", "/x#f"} {
		if _, err := c.Request(t.Context(), "crm", "GET", bad, nil, nil, 0); client.CodeOf(err) != protocol.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestAuditEvents(t *testing.T) {
	_, c := start(t)
	var seqs []uint64
	for e, err := range c.AuditEvents(t.Context(), client.AuditQuery{}) {
		if err != nil || len(e.Raw) == 0 {
			t.Fatal(err)
		}
		seqs = append(seqs, e.Seq)
	}
	if fmt.Sprint(seqs) != "[1 2]" {
		t.Errorf("%v", seqs)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for e, err := range c.AuditEvents(ctx, client.AuditQuery{After: 1, Follow: true}) {
		if err == nil && e.Seq != 2 {
			t.Errorf("event %d", e.Seq)
		}
		last = err
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("%v", last)
	}
}

func TestProblemRoundTrip(t *testing.T) {
	for _, code := range protocol.Codes {
		e := &protocol.Error{Code: code, Message: "m", Origin: protocol.OriginTarget, Rule: "r", Hint: "h", Detail: "42501", RequestID: "req_1"}
		p := client.NewProblem(e)
		if got := p.Err(); *got != *e || p.Status != code.Status() || p.Title == "" {
			t.Errorf("%s: %+v from %+v", code, got, p)
		}
	}
}

func TestTokenIsNotPrinted(t *testing.T) {
	r := clienttest.New(t)
	conf := client.Config{Relay: r.URL, CAFile: r.CAFile, Token: secret.FromString("flt_verysecret")}
	c, err := client.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Whoami(t.Context())
	if client.CodeOf(err) != protocol.CodeUnauthenticated {
		t.Errorf("%v", err)
	}
	for _, s := range []string{fmt.Sprintf("%+v %#v", conf, conf), fmt.Sprintf("%+v", c), fmt.Sprint(err)} {
		if strings.Contains(s, "verysecret") {
			t.Errorf("printed: %s", s)
		}
	}
}

// otherPEM is a root that has nothing to do with the server's.
const otherPEM = `-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIUMzeGseKhXva1mbEE5hUkZQYD77QwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFb3RoZXIwIBcNMjYxMTIxMjMwNjM5WhgPMjEyNjEwMjgyMzA2
MzlaMBAxDjAMBgNVBAMMBW90aGVyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
PvwNGBEhzS4IFmhlAkdOvSSAt9x5fVUyO9dQgUimNT+501RzfulRo5lHu+cQPwMD
p8lj9khpfRs+RpGKQoWS16NTMFEwHQYDVR0OBBYEFHdehOyMxO02c149ojkvkJQv
PilTMB8GA1UdIwQYMBaAFHdehOyMxO02c149ojkvkJQvPilTMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIgWNHw3Bn77Egq9Ivroslm20A54+8e5KzA
/wMldixe9xUCIQDTKbk64ohuy4049UDJnKG8hN76Db9w5YpVJ1z4Belbig==
-----END CERTIFICATE-----
`
