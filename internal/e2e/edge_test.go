package e2e_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// people opens a bare conn to the relay's people side.
func people(t *testing.T, w *testenv.World) *tls.Conn {
	t.Helper()
	pem, err := os.ReadFile(w.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c, err := tls.Dial("tcp", w.Address, &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// answers reads every answer that comes until the conn ends or nothing comes for a moment.
func answers(c net.Conn) (statuses []int) {
	br := bufio.NewReader(c)
	for {
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return statuses
		}
		statuses = append(statuses, resp.StatusCode)
		_, _ = io.Copy(io.Discard, resp.Body)
	}
}

func TestSmuggledRequestsAreNotServed(t *testing.T) {
	w := shop(t, testenv.Options{Transport: testenv.Memory})
	w.Connection("shop")
	auth := "Host: localhost\r\nAuthorization: Bearer " + w.Token.ExposeString() + "\r\n"
	// A second request hides in the first one's body. Were it served, a group of its name would be there.
	inner := "POST /api/v1/workspaces/default/groups HTTP/1.1\r\n" + auth + "Content-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"name\":\"smuggled\"}\n"
	const post = "POST /api/v1/workspaces/default/connections/shop/query HTTP/1.1\r\n"
	for name, raw := range map[string]string{
		"E11 CL and TE":              post + auth + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
		"E11 TE twice":               post + auth + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner,
		"E11 TE odd":                 post + auth + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner,
		"E11 TE with a space":        post + auth + "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner,
		"E11 CL twice":               post + auth + "Content-Length: 5\r\nContent-Length: 300\r\n\r\n0\r\n\r\n" + inner,
		"E11 CL with a sign":         post + auth + "Content-Length: +5\r\n\r\n0\r\n\r\n" + inner,
		"E11 negative CL":            post + auth + "Content-Length: -1\r\n\r\n" + inner,
		"E11 bare LF in chunk":       post + auth + "Transfer-Encoding: chunked\r\n\r\n2\nxx\n0\n\n" + inner,
		"E11 huge chunk":             post + auth + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + inner,
		"E11 chunk size not hex":     post + auth + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + inner,
		"E11 folded header":          post + auth + fmt.Sprintf("X-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n", len(inner)) + inner,
		"E11 header without name":    post + auth + ": x\r\n\r\n" + inner,
		"E11 NUL in a header":        post + auth + "X-A: b\x00c\r\n\r\n" + inner,
		"E11 CR in a header":         post + auth + "X-A: b\rX-B: c\r\n\r\n" + inner,
		"E11 two Host":               post + auth + "Host: other\r\n\r\n" + inner,
		"E11 no Host":                "POST /api/v1/workspaces/default/groups HTTP/1.1\r\n\r\n" + inner,
		"E11 space in the target":    "GET /api/v1/whoami x HTTP/1.1\r\n" + auth + "\r\n" + inner,
		"E12 no leading slash":       "GET api/v1/whoami HTTP/1.1\r\n" + auth + "\r\n" + inner,
		"E11 version":                "GET /api/v1/whoami HTTP/1.1.1\r\n" + auth + "\r\n" + inner,
		"E11 HTTP/2 preface in text": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inner,
	} {
		t.Run(name, func(t *testing.T) {
			c := people(t, w)
			if _, err := io.WriteString(c, raw); err != nil {
				t.Fatal(err)
			}
			if got := answers(c); len(got) > 1 || len(got) == 1 && got[0] < 400 {
				t.Errorf("answers %v", got)
			}
		})
	}
	groups, err := w.Client.Groups(ctx)
	if err != nil || len(groups) != 1 {
		t.Fatalf("a smuggled request was served: %+v, %v", groups, err)
	}
}

// E13: who sends headers or a body a byte at a time, or not at all, does not keep a conn for long. The limits are the
// server's, so this takes as long as they are.
func TestSlowCallersAreCut(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the server's own time limits")
	}
	t.Parallel()
	w := shop(t, testenv.Options{Transport: testenv.Memory})
	w.Connection("shop")
	auth := "Host: localhost\r\nAuthorization: Bearer " + w.Token.ExposeString() + "\r\n"
	for name, c := range map[string]struct {
		raw  string
		most time.Duration
	}{
		"E13 nothing":            {"", 15 * time.Second},
		"E13 half a header":      {"GET /api/v1/whoami HTTP/1.1\r\nHost: loc", 15 * time.Second},
		"E13 body, no token":     {"POST /api/v1/workspaces/default/groups HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{", 45 * time.Second},
		"E13 body, unknown path": {"POST /api/v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{", 45 * time.Second},
		"E13 body of a query":    {"POST /api/v1/workspaces/default/connections/shop/query HTTP/1.1\r\n" + auth + "Content-Length: 20\r\n\r\n{", 45 * time.Second},
		"E13 body of an admin":   {"POST /api/v1/workspaces/default/groups HTTP/1.1\r\n" + auth + "Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{", 45 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := people(t, w)
			if _, err := io.WriteString(conn, c.raw); err != nil {
				t.Fatal(err)
			}
			started := time.Now()
			_ = conn.SetReadDeadline(started.Add(c.most))
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Fatalf("the conn stands after %s: %v", time.Since(started), err)
			}
		})
	}
}

// E8, P11: a caller who neither sends nor reads is as revoked as any other.
func TestRevocationReachesStalledCallers(t *testing.T) {
	t.Run("E8 callers who neither send nor take", testRevocationReachesStalledCallers)
}

func testRevocationReachesStalledCallers(t *testing.T) {
	w := shop(t, testenv.Options{Transport: testenv.Memory})
	w.Connection("papers")
	big := strings.Repeat("x", 9<<20)
	if err := os.WriteFile(filepath.Join(w.Dir, "papers", "big.txt"), []byte(big), 0o600); err != nil {
		t.Fatal(err)
	}
	const files = "/api/v1/workspaces/default/connections/papers/files/"
	for name, c := range map[string]struct{ request, begun string }{
		"an upload that waits":          {"PUT " + files + "up.txt HTTP/1.1\r\nContent-Length: 1000000\r\n", ""},
		"an answer that nobody takes":   {"GET " + files + "big.txt HTTP/1.1\r\n", "HTTP/1.1 200"},
		"the record, followed, untaken": {"GET /api/v1/workspaces/default/audit/events?follow=true HTTP/1.1\r\n", "HTTP/1.1 200"},
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := w.Client.CreateToken(ctx, client.NewToken{Name: name, Roles: []string{"operator"}})
			if err != nil {
				t.Fatal(err)
			}
			conn := people(t, w)
			if _, err := io.WriteString(conn, c.request+"Host: localhost\r\nAuthorization: Bearer "+tok.Token+"\r\n\r\nxxxx"[:len("\r\n\r\n")+min(4, len(c.request))]); err != nil {
				t.Fatal(err)
			}
			head := make([]byte, len(c.begun))
			if _, err := io.ReadFull(conn, head); err != nil || string(head) != c.begun {
				t.Fatalf("%q, %v", head, err)
			}
			testenv.Eventually(t, "the operation is under way", func() bool {
				for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
					if err != nil {
						t.Fatal(err)
					}
					if e.Principal != "" && (e.Operation == "write" || e.Operation == "read" || e.Kind == "audit.read") && e.Source != w.Agent.ID() {
						return true
					}
				}
				return false
			})
			if err := w.Client.RevokeToken(ctx, tok.ID); err != nil {
				t.Fatal(err)
			}
			started := time.Now()
			// Only now is anything read: what is on its way may come, and then the conn ends.
			testenv.Eventually(t, "the relay has let go", func() bool {
				return time.Since(started) > 4*time.Second
			})
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			n, err := io.Copy(io.Discard, conn)
			if ne, ok := err.(net.Error); ok && ne.Timeout() || n >= int64(len(big)) {
				t.Fatalf("%d bytes later the conn still stands: %v", n, err)
			}
		})
	}
}

func TestHeadOfAFileReadsNoBytes(t *testing.T) {
	w := shop(t, testenv.Options{Transport: testenv.Memory})
	w.Connection("papers")
	if err := os.WriteFile(filepath.Join(w.Dir, "papers", "a.txt"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(w.Dir, "papers", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	hc := w.HTTP()
	ask := func(method, path string, header ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, "https://"+w.Address+"/api/v1/workspaces/default/connections/papers/files/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+w.Token.ExposeString())
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	get, head := ask("GET", "a.txt"), ask("HEAD", "a.txt")
	for _, k := range []string{"Content-Length", "Etag", "Last-Modified", "Content-Type", "Accept-Ranges"} {
		if head.Header.Get(k) == "" || head.Header.Get(k) != get.Header.Get(k) {
			t.Errorf("%s: HEAD says %q, GET %q", k, head.Header.Get(k), get.Header.Get(k))
		}
	}
	etag := head.Header.Get("Etag")
	for _, c := range []struct {
		path   string
		want   int
		header []string
	}{{"a.txt", 304, []string{"If-None-Match", etag}}, {"a.txt", 200, []string{"If-None-Match", `"x"`}}, {"a.txt", 412, []string{"If-Match", `"x"`}}, {"a.txt", 200, []string{"If-Match", etag}},
		{"none.txt", 404, nil}, {"a.exe", 404, nil}, {"sub", 400, nil}} {
		if resp := ask("HEAD", c.path, c.header...); resp.StatusCode != c.want {
			t.Errorf("HEAD %s %v: %d, want %d", c.path, c.header, resp.StatusCode, c.want)
		}
	}
	reads := 0
	testenv.Eventually(t, "the site's record of the last request", func() (last bool) {
		reads = 0
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Source != w.Agent.ID() {
				continue
			}
			if e.Operation == "read" && e.Kind == "operation.intent" {
				reads++
			}
			last = last || e.Target == "sub"
		}
		return last
	})
	if reads != 1 {
		t.Errorf("%d reads at the site, want that of GET", reads)
	}
}

// A site's HTTP service cannot speak for the relay, and a connection may be called anything.
func TestTargetsAnswerSetsNoHeadersOfTheRelay(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	paths := make(chan string, 8)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths <- r.URL.EscapedPath()
		h := w.Header()
		h.Set("Strict-Transport-Security", "max-age=0")
		h.Set("Content-Security-Policy", "default-src *")
		h.Set("X-Content-Type-Options", "sniff")
		h.Set("Set-Cookie", "a=b")
		h.Set("Clear-Site-Data", `"*"`)
		h.Set("Alt-Svc", `h3=":443"`)
		h.Set("Fairlead-Request-Id", "req_forged")
		h.Set("Fairlead-Origin", "relay")
		h.Set("X-Own", "kept")
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	w := shop(t, testenv.Options{Transport: testenv.Memory, YAML: shopYAML + fmt.Sprintf("http:\n  http:\n    base_url: http://127.0.0.1:%s\n    allow: [{methods: [GET], path: /**}]\n", port)})
	w.Connection("http")
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+w.Address+"/api/v1/workspaces/default/connections/http/http/deep/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.Token.ExposeString())
	resp, err := w.HTTP().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	h := resp.Header
	if resp.StatusCode != 200 || h.Get("X-Own") != "kept" || h.Get("Strict-Transport-Security") != "max-age=31536000" || h.Get("X-Content-Type-Options") != "nosniff" ||
		strings.Contains(h.Get("Content-Security-Policy"), "*") || h.Get("Set-Cookie")+h.Get("Clear-Site-Data")+h.Get("Alt-Svc")+h.Get(protocol.HeaderOrigin) != "" || h.Get("Fairlead-Request-Id") == "req_forged" {
		t.Errorf("%d %v", resp.StatusCode, h)
	}
	if p := <-paths; p != "/deep/x" {
		t.Errorf("the target was asked for %s", p)
	}
}
