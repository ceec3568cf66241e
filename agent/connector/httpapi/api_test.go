package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// rig is an API with a target that the test plays.
type rig struct {
	t      *testing.T
	api    *API
	target *httptest.Server

	mu     sync.Mutex
	dialed []string
	got    []*http.Request // bodies are read
	bodies []string
}

// dial records the address asked for; names ending in .corp and everything else lead to the target.
func (r *rig) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	r.mu.Lock()
	r.dialed = append(r.dialed, addr)
	r.mu.Unlock()
	var d net.Dialer
	return d.DialContext(ctx, network, r.target.Listener.Addr().String())
}

func newRig(t *testing.T, handler http.HandlerFunc, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t}
	r.target = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		r.got, r.bodies = append(r.got, q), append(r.bodies, string(b))
		r.mu.Unlock()
		if handler != nil {
			handler(w, q)
		}
	}))
	cfg := Config{Name: "crm", BaseURL: "http://crm.corp:8080/base", Dial: r.dial}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.api, err = New(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.api.Close(); r.target.Close() })
	return r
}

type result struct {
	*httptest.ResponseRecorder
	out protocol.Outcome
	err error
}

func (r result) code() protocol.Code {
	if r.err == nil {
		return ""
	}
	return protocol.AsError(r.err).Code
}

func (r *rig) do(method, target string, h http.Header, body io.Reader) result {
	return r.doLimits(method, target, h, body, policy.Limits{})
}

func (r *rig) doLimits(method, target string, h http.Header, body io.Reader, l policy.Limits) result {
	if h == nil {
		h = http.Header{}
	}
	w := httptest.NewRecorder()
	q := &protocol.Request{Kind: protocol.KindHTTP, Profile: "crm", Operation: protocol.OpRequest, Method: method, Target: target, Header: h}
	out, err := r.api.Do(context.Background(), &connector.Call{Request: q, Body: body, Decision: policy.Decision{Allow: true, Limits: l}}, w)
	return result{w, out, err}
}

// last is what the target saw last; nil when it saw nothing since.
func (r *rig) last() (*http.Request, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.got) == 0 {
		return nil, ""
	}
	n := len(r.got) - 1
	q, b := r.got[n], r.bodies[n]
	r.got, r.bodies = nil, nil
	return q, b
}

func TestForwards(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Fairlead-Rule", "forged")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Strict-Transport-Security", "max-age=1")
		w.Header()["Content-Type"] = nil
		w.WriteHeader(418)
		io.WriteString(w, "<html>short and stout")
	}, nil)
	res := r.do("POST", "/pots/a%20b?x=1&y=%2f", http.Header{"Content-Type": {"text/x"}, "X-Own": {"1", "2"}}, strings.NewReader("water"))
	if res.err != nil || res.Code != 418 || res.Body.String() != "<html>short and stout" || res.out.Status != 418 || res.out.BytesIn != 5 || res.out.Bytes != 21 {
		t.Fatalf("got %d %q %+v %v", res.Code, res.Body, res.out, res.err)
	}
	q, body := r.last()
	if q.Method != "POST" || q.RequestURI != "/base/pots/a%20b?x=1&y=%2f" || body != "water" || q.Host != "crm.corp:8080" || len(q.Header["X-Own"]) != 2 || q.Header.Get("Content-Type") != "text/x" {
		t.Fatalf("target saw %s %s %q %q %v", q.Method, q.RequestURI, body, q.Host, q.Header)
	}
	h := res.Header()
	if h.Get("Set-Cookie") != "a=b" || h.Get("Fairlead-Rule") != "" || h.Get("X-Hop") != "" || h.Get("Strict-Transport-Security") != "" || h.Get("Content-Type") != "" {
		t.Fatalf("answer headers %v", h)
	}
	for _, m := range []string{"GET", "HEAD", "DELETE", "OPTIONS"} {
		if res := r.do(m, "/x", nil, http.NoBody); res.err != nil {
			t.Fatal(m, res.err)
		}
		if q, _ := r.last(); q.Method != m || q.ContentLength != 0 || len(q.TransferEncoding) != 0 {
			t.Errorf("%s went out with a body: %d %v", m, q.ContentLength, q.TransferEncoding)
		}
	}
	if res := r.do("GET", "/x", nil, strings.NewReader("")); res.err != nil {
		t.Fatal(res.err)
	}
	if q, _ := r.last(); len(q.TransferEncoding) != 0 {
		t.Error("an empty body of unknown length went out as chunks")
	}
}

func TestCompressedAnswersPassAsTheyAre(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Accept-Encoding") == "gzip" {
			w.Header().Set("Content-Encoding", "gzip")
		}
		w.Write([]byte{0x1f, 0x8b, 1, 2, 3})
	}, nil)
	if res := r.do("GET", "/", http.Header{"Accept-Encoding": {"gzip"}}, nil); !bytes.Equal(res.Body.Bytes(), []byte{0x1f, 0x8b, 1, 2, 3}) || res.Header().Get("Content-Encoding") != "gzip" {
		t.Fatalf("got %v %v", res.Body.Bytes(), res.Header())
	}
	if res := r.do("GET", "/", nil, nil); res.Header().Get("Content-Encoding") != "" {
		t.Fatal("the agent asked for gzip by itself")
	}
}

func TestHeadKeepsTheLengthOffTheStream(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) { w.Header().Set("Content-Length", "1234") }, nil)
	res := r.do("HEAD", "/", nil, nil)
	if res.err != nil || res.Header().Get("Content-Length") != "" || res.Header().Get(HeaderLength) != "1234" {
		t.Fatalf("got %v %v", res.Header(), res.err)
	}
}

func TestCapsOnBothBodies(t *testing.T) {
	var n atomic.Int64 // a handler of a refused request may still run
	n.Store(100)
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Query().Has("chunked") {
			http.NewResponseController(w).Flush()
		}
		w.Write(make([]byte, n.Load()))
	}, func(c *Config) { c.MaxBodyBytes, c.MaxAnswerBytes = 100, 100 })
	if res := r.do("POST", "/", nil, strings.NewReader(strings.Repeat("x", 100))); res.err != nil {
		t.Fatal(res.err)
	}
	for name, h := range map[string]http.Header{"declared": {"Content-Length": {"101"}}, "streamed": nil} {
		if res := r.do("POST", "/", h, strings.NewReader(strings.Repeat("x", 101))); res.code() != protocol.CodeTooLarge {
			t.Errorf("request body %s: %v", name, res.err)
		}
	}
	n.Store(101)
	for _, p := range []string{"/", "/?chunked"} {
		res := r.do("GET", p, nil, nil)
		if res.code() != protocol.CodeTooLarge || res.Body.Len() > 100 {
			t.Errorf("%s: %v after %d bytes", p, res.err, res.Body.Len())
		}
	}
	n.Store(10)
	if res := r.doLimits("GET", "/", nil, nil, policy.Limits{MaxBytes: 9}); res.code() != protocol.CodeTooLarge {
		t.Errorf("decision's cap: %v", res.err)
	}
}

func TestSiteCredentialsReplaceTheCallers(t *testing.T) {
	r := newRig(t, nil, func(c *Config) {
		c.Headers = []Header{{"X-Api-Key", secret.FromString("k1")}}
		c.Username, c.Password = "svc", secret.FromString("pw")
	})
	r.do("GET", "/", http.Header{"Authorization": {"Bearer caller"}, "X-Api-Key": {"caller"}}, nil)
	q, _ := r.last()
	if u, p, ok := q.BasicAuth(); !ok || u != "svc" || p != "pw" || q.Header.Get("X-Api-Key") != "k1" || len(q.Header["X-Api-Key"]) != 1 {
		t.Fatalf("target saw %v", q.Header)
	}
	plain := newRig(t, nil, nil)
	plain.do("GET", "/", http.Header{"Authorization": {"Bearer caller"}}, nil)
	if q, _ := plain.last(); q.Header.Get("Authorization") != "" {
		t.Error("the caller's Authorization was passed on though the profile does not say so")
	}
	open := newRig(t, nil, func(c *Config) { c.ForwardAuthorization = true })
	open.do("GET", "/", http.Header{"Authorization": {"Bearer caller"}}, nil)
	if q, _ := open.last(); q.Header.Get("Authorization") != "Bearer caller" {
		t.Error("the caller's Authorization was not passed on")
	}
}

func TestAnswersStreamAndEndWithTheContext(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		io.WriteString(w, "first")
		http.NewResponseController(w).Flush()
		select {
		case <-q.Context().Done():
		case <-release:
		}
	}, nil)
	defer close(release)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		p := &protocol.Request{Operation: protocol.OpRequest, Method: "GET", Target: "/", Header: http.Header{}}
		if _, err := r.api.Do(q.Context(), &connector.Call{Request: p, Body: q.Body}, w); err != nil {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	q, _ := http.NewRequestWithContext(ctx, "POST", server.URL, nil)
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("got %q %v before the answer's end", first, err)
	}
	cancel()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Fatal("the answer ended as if it were whole")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestCutAnswerIsAnError(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}, nil)
	if res := r.do("GET", "/", nil, nil); res.code() != protocol.CodeUpstream || res.Body.String() != "half" {
		t.Fatalf("got %q %v", res.Body, res.err)
	}
}

func TestUnreachableTarget(t *testing.T) {
	own := &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginTarget, Message: "the target refuses the connection"}
	for name, c := range map[string]struct {
		dial DialFunc
		code protocol.Code
	}{
		"dialer's own word": {func(context.Context, string, string) (net.Conn, error) { return nil, own }, protocol.CodeUnavailable},
		"not HTTP": {func(context.Context, string, string) (net.Conn, error) {
			c, s := net.Pipe()
			go func() { bufio.NewReader(s).ReadString('\n'); io.WriteString(s, "220 smtp\r\n"); s.Close() }()
			return c, nil
		}, protocol.CodeUpstream},
		"no answer": {func(context.Context, string, string) (net.Conn, error) {
			c, s := net.Pipe()
			go io.Copy(io.Discard, s)
			return c, nil
		}, protocol.CodeTimeout},
	} {
		r := newRig(t, nil, func(cfg *Config) { cfg.Dial, cfg.HeaderTimeout = c.dial, 30*time.Millisecond })
		res := r.do("GET", "/", nil, nil)
		if res.code() != c.code || protocol.AsError(res.err).Origin != protocol.OriginTarget {
			t.Errorf("%s: %v", name, res.err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no") }
	for _, u := range []string{"", "crm.corp", "ftp://crm.corp", "http://", "http://u:p@crm.corp", "http://crm.corp?x", "http://crm.corp/#f", "http://crm.corp:", "file:///etc/passwd", "http:crm", "http://a b"} {
		if _, err := New(Config{BaseURL: u, Dial: dial}, quiet); err == nil {
			t.Errorf("base_url %q was accepted", u)
		}
	}
	for _, h := range []Header{{"Host", secret.FromString("x")}, {"X-Forwarded-For", secret.FromString("x")}, {"a b", secret.FromString("x")}, {"X", secret.FromString("a\r\nb: c")}, {"Connection", secret.FromString("x")}} {
		if _, err := New(Config{BaseURL: "http://a", Dial: dial, Headers: []Header{h}}, quiet); err == nil {
			t.Errorf("header %q was accepted", h.Name)
		}
	}
	if _, err := New(Config{BaseURL: "http://a"}, quiet); err == nil {
		t.Error("accepted without a dialer")
	}
	if _, err := New(Config{BaseURL: "http://a", Dial: dial, Redirects: true}, quiet); err == nil {
		t.Error("redirects that nothing decides were accepted")
	}
}

func FuzzTargetKeepsHostAndBase(f *testing.F) {
	for _, s := range []string{"/", "/a/b?x=1", "//evil", "/%2e%2e/", "/a;b/c", "/a%2fb", "/é", "/a?http://evil/", "/x?", "/%c3%a9", "/:80/", "/@evil"} {
		f.Add(s)
	}
	a, err := New(Config{Name: "crm", BaseURL: "https://crm.corp:8443/ba%20se", Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no") }}, quiet)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		h, err := a.first(&protocol.Request{Method: "GET", Target: target, Header: http.Header{}})
		if err != nil {
			return
		}
		if h.url.Host != "crm.corp:8443" || h.url.Scheme != "https" || h.url.RequestURI() != "/ba%20se"+target {
			t.Fatalf("%q became %q", target, h.url)
		}
		// What goes on the wire must be read back as the same, with no way out of the base.
		u, err := url.ParseRequestURI(h.url.RequestURI())
		if err != nil || u.Host != "" || !strings.HasPrefix(u.Path, "/ba se/") {
			t.Fatalf("%q is read as %+v, %v", target, u, err)
		}
		for _, s := range strings.Split(u.Path, "/") {
			if s == ".." || s == "." {
				t.Fatalf("%q has dots: %q", target, u.Path)
			}
		}
	})
}
