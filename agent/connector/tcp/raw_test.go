package tcp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

var quiet = slog.New(slog.DiscardHandler)

// rig is a Raw connector behind a real HTTP server, with a target that the test plays.
type rig struct {
	t        *testing.T
	raw      *Raw
	server   *httptest.Server
	target   net.Listener
	outcomes chan protocol.Outcome
	cancel   context.CancelFunc // ends the context of the calls
	dialled  *[]string
}

func newRig(t *testing.T, change func(*Config, *policy.Limits)) *rig {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, target: ln, outcomes: make(chan protocol.Outcome, 16), dialled: new([]string)}
	ap := netip.MustParseAddrPort(ln.Addr().String())
	var mu sync.Mutex
	d := &Dialer{Decide: func(policy.Dial) policy.Decision { return policy.Decision{Allow: true} }}
	d.connect = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
		mu.Lock()
		*r.dialled = append(*r.dialled, a.String())
		mu.Unlock()
		return dialExactly(ctx, a)
	}
	cfg, limits := Config{Name: "erp", Host: ap.Addr().String(), Port: ap.Port(), Dialer: d}, policy.Limits{}
	if change != nil {
		change(&cfg, &limits)
	}
	if r.raw, err = New(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		q, err := protocol.ParseRequest(req)
		if err != nil {
			t.Error(err)
			return
		}
		out, err := r.raw.Do(ctx, &connector.Call{Request: q, Body: req.Body, Decision: policy.Decision{Allow: true, Limits: limits}}, w)
		if err != nil {
			out.Code = protocol.AsError(err).Code
			w.WriteHeader(out.Code.Status())
		}
		r.outcomes <- out
	}))
	t.Cleanup(func() { cancel(); r.raw.Close(); r.server.Close(); ln.Close() })
	return r
}

const request = "POST /v1/tcp/erp/dial HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: fairlead-dial\r\n\r\n"

// open sends the request with early data in the same flight and reads the head of the answer.
func (r *rig) open(early string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	r.t.Helper()
	return r.send(request + early)
}

// send writes a whole request and reads the head of the answer.
func (r *rig) send(text string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodPost})
	if err != nil {
		r.t.Fatal(err)
	}
	return c.(*net.TCPConn), br, resp
}

func (r *rig) accept() *net.TCPConn {
	r.t.Helper()
	c, err := r.target.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

func (r *rig) outcome() protocol.Outcome {
	r.t.Helper()
	select {
	case o := <-r.outcomes:
		return o
	case <-time.After(20 * time.Second):
		r.t.Fatal("the call did not end")
		panic("unreachable")
	}
}

func TestDialHalfCloseBothWays(t *testing.T) {
	r := newRig(t, nil)
	c, br, resp := r.open("early ")
	if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != protocol.UpgradeDial {
		t.Fatalf("got %v", resp.Status)
	}
	tc := r.accept()
	if _, err := io.WriteString(c, "late"); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	got, err := io.ReadAll(tc) // sees the end while it can still answer
	if err != nil || string(got) != "early late" {
		t.Fatalf("target got %q %v", got, err)
	}
	if _, err := io.WriteString(tc, "answer"); err != nil {
		t.Fatal(err)
	}
	_ = tc.CloseWrite()
	if got, err = io.ReadAll(br); err != nil || string(got) != "answer" {
		t.Fatalf("caller got %q %v", got, err)
	}
	if o := r.outcome(); o != (protocol.Outcome{Bytes: 6, BytesIn: 10, Status: 101}) {
		t.Fatalf("outcome %+v", o)
	}
}

func TestDialTargetEndsFirst(t *testing.T) {
	r := newRig(t, nil)
	c, br, _ := r.open("")
	tc := r.accept()
	if _, err := io.WriteString(tc, "bye"); err != nil {
		t.Fatal(err)
	}
	_ = tc.CloseWrite()
	if got, err := io.ReadAll(br); err != nil || string(got) != "bye" {
		t.Fatalf("caller got %q %v", got, err)
	}
	if _, err := io.WriteString(c, "still heard"); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if got, err := io.ReadAll(tc); err != nil || string(got) != "still heard" {
		t.Fatalf("target got %q %v", got, err)
	}
	if o := r.outcome(); o.Code != "" {
		t.Fatalf("outcome %+v", o)
	}
}

func TestDialCarriesMuchDataBothWaysUnchanged(t *testing.T) {
	r := newRig(t, nil)
	c, br, _ := r.open("")
	tc := r.accept()
	const size = 24 << 20
	send := func(w *net.TCPConn, seed uint64) []byte {
		h, src, buf := sha256.New(), rand.New(rand.NewPCG(seed, 1)), make([]byte, 100_003)
		for left := size; left > 0; {
			n := min(left, 1+src.IntN(len(buf)))
			for i := 0; i < n; i += 64 {
				buf[i] = byte(src.Uint32())
			}
			h.Write(buf[:n])
			if _, err := w.Write(buf[:n]); err != nil {
				t.Error(err)
				return nil
			}
			left -= n
		}
		_ = w.CloseWrite()
		return h.Sum(nil)
	}
	receive := func(rd io.Reader) []byte {
		h := sha256.New()
		if n, err := io.Copy(h, rd); err != nil || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
		return h.Sum(nil)
	}
	var sent, got [2][]byte
	var wg sync.WaitGroup
	wg.Go(func() { sent[0] = send(c, 1) })
	wg.Go(func() { sent[1] = send(tc, 2) })
	wg.Go(func() { got[0] = receive(tc) })
	wg.Go(func() { got[1] = receive(br) })
	wg.Wait()
	if !bytes.Equal(sent[0], got[0]) || !bytes.Equal(sent[1], got[1]) {
		t.Fatal("the bytes changed on the way")
	}
	if o := r.outcome(); o.Bytes != size || o.BytesIn != size || o.Code != "" {
		t.Fatalf("outcome %+v", o)
	}
}

func TestDialEnds(t *testing.T) {
	gone := func(t *testing.T, c *net.TCPConn) {
		t.Helper()
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection is still open: %v", err)
		}
	}
	t.Run("idle", func(t *testing.T) {
		r := newRig(t, func(c *Config, _ *policy.Limits) { c.Idle = 30 * time.Millisecond })
		c, _, _ := r.open("x")
		tc := r.accept()
		if o := r.outcome(); o.Code != protocol.CodeTimeout || o.BytesIn != 1 {
			t.Fatalf("outcome %+v", o)
		}
		gone(t, c)
		gone(t, tc)
	})
	t.Run("not idle while bytes move one way", func(t *testing.T) {
		r := newRig(t, func(c *Config, _ *policy.Limits) { c.Idle = 200 * time.Millisecond })
		_, br, _ := r.open("")
		tc := r.accept()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range 25 {
			<-tick.C
			if _, err := tc.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := br.ReadByte(); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("context", func(t *testing.T) {
		r := newRig(t, nil)
		c, _, _ := r.open("")
		tc := r.accept()
		r.cancel()
		if o := r.outcome(); o.Code != protocol.CodeCanceled {
			t.Fatalf("outcome %+v", o)
		}
		gone(t, c)
		gone(t, tc)
	})
	t.Run("close of the connector", func(t *testing.T) {
		r := newRig(t, nil)
		c, _, _ := r.open("")
		tc := r.accept()
		r.raw.Close()
		if o := r.outcome(); o.Code != protocol.CodeUnavailable {
			t.Fatalf("outcome %+v", o)
		}
		gone(t, c)
		gone(t, tc)
	})
	t.Run("target resets", func(t *testing.T) {
		r := newRig(t, nil)
		c, _, _ := r.open("")
		tc := r.accept()
		_ = tc.SetLinger(0)
		tc.Close()
		if o := r.outcome(); o.Code != protocol.CodeUpstream {
			t.Fatalf("outcome %+v", o)
		}
		gone(t, c)
	})
	t.Run("byte cap", func(t *testing.T) {
		r := newRig(t, func(_ *Config, l *policy.Limits) { l.MaxBytes = 1000 })
		_, br, _ := r.open("")
		tc := r.accept()
		if _, err := tc.Write(make([]byte, 5000)); err != nil {
			t.Fatal(err)
		}
		n, _ := io.Copy(io.Discard, br)
		if o := r.outcome(); n != 1000 || o.Bytes != 1000 || o.Code != protocol.CodeTooLarge || o.Truncated != "max_bytes" {
			t.Fatalf("%d bytes, outcome %+v", n, o)
		}
	})
}

func TestFailedDialIsAnAnswerBeforeTheUpgrade(t *testing.T) {
	for name, c := range map[string]struct {
		connect func(context.Context, netip.AddrPort) (net.Conn, error)
		decide  bool
		code    protocol.Code
	}{
		"unreachable": {func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, errors.New("no route") }, true, protocol.CodeUnavailable},
		"silent":      {func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }, true, protocol.CodeTimeout},
		"denied":      {nil, false, protocol.CodeDenied},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(cfg *Config, _ *policy.Limits) {
				cfg.Dialer = &Dialer{Timeout: 20 * time.Millisecond, connect: c.connect, Decide: func(policy.Dial) policy.Decision { return policy.Decision{Allow: c.decide} }}
			})
			_, _, resp := r.open("data that must not be taken for an answer")
			if resp.StatusCode != c.code.Status() {
				t.Fatalf("got %s", resp.Status)
			}
			if o := r.outcome(); o.Code != c.code {
				t.Fatalf("outcome %+v", o)
			}
		})
	}
}

func TestTooManyDials(t *testing.T) {
	r := newRig(t, func(c *Config, _ *policy.Limits) { c.MaxConns = 1 })
	c, _, _ := r.open("")
	tc := r.accept()
	if _, _, resp := r.open(""); resp.StatusCode != protocol.CodeRateLimited.Status() {
		t.Fatalf("got %s", resp.Status)
	}
	r.outcome()
	c.Close()
	tc.Close()
	r.outcome()
	if _, _, resp := r.open(""); resp.StatusCode != 101 {
		t.Fatalf("a slot was not given back: %s", resp.Status)
	}
}

func TestCatalogRaw(t *testing.T) {
	t.Run("A3 a later frame does not change the target", func(t *testing.T) {
		r := newRig(t, nil)
		second := strings.Replace(request, "/erp/dial", "/-/dial?host=evil.com&port=22", 1)
		c, _, _ := r.open(second)
		tc := r.accept()
		if _, err := io.WriteString(c, second); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		got, err := io.ReadAll(tc)
		if err != nil || string(got) != second+second {
			t.Fatalf("target got %q %v: after the answer bytes are bytes", got, err)
		}
		tc.Close()
		if o := r.outcome(); o.BytesIn != int64(2*len(second)) || len(*r.dialled) != 1 {
			t.Fatalf("outcome %+v, dialled %v", o, *r.dialled)
		}
	})
	t.Run("A1 the profile's target cannot be overridden", func(t *testing.T) {
		r := newRig(t, nil)
		w := httptest.NewRecorder()
		q := &protocol.Request{Kind: protocol.KindTCP, Profile: "erp", Operation: protocol.OpDial, Host: "192.0.2.1", Port: 22}
		_, err := r.raw.Do(t.Context(), &connector.Call{Request: q, Decision: policy.Decision{Allow: true}}, w)
		if err == nil { // a recorder cannot be hijacked
			t.Fatal("no error")
		}
		r.accept()
		if want := fmt.Sprint([]string{r.target.Addr().String()}); fmt.Sprint(*r.dialled) != want {
			t.Fatalf("dialled %v, want %s", *r.dialled, want)
		}
	})
}

// TestA14NothingElseDials reads the connectors' source: a check and a dial can come apart only where something dials a
// host by name, so nothing does.
func TestA14NothingElseDials(t *testing.T) {
	files, err := filepath.Glob("../*/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			continue // not ours to judge here: the compiler does
		}
		seen++
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, _ := sel.X.(*ast.Ident)
			full := sel.Sel.Name
			if pkg != nil {
				full = pkg.Name + "." + full
			}
			switch full {
			case "net.Dial", "net.DialTimeout", "net.DialTCP", "tls.Dial", "tls.DialWithDialer", "http.DefaultTransport", "http.DefaultClient", "http.ProxyFromEnvironment", "http.Get":
				t.Errorf("%s uses %s", name, full)
			case "net.Dialer":
				if filepath.Base(name) != "dialer.go" {
					t.Errorf("%s makes its own net.Dialer", name)
				}
			}
			return true
		})
	}
	if seen < 10 {
		t.Fatalf("only %d files were read", seen)
	}
}

func TestConfigOfRaw(t *testing.T) {
	ok := &Dialer{Decide: func(policy.Dial) policy.Decision { return policy.Decision{} }}
	for name, c := range map[string]Config{
		"no dialer": {Name: "erp", Host: "h", Port: 1}, "dialer without decision": {Name: "erp", Host: "h", Port: 1, Dialer: &Dialer{}},
		"no port": {Name: "erp", Host: "h", Dialer: ok}, "no host": {Name: "erp", Dialer: ok}, "allow list with host": {Name: "-", Host: "h", Port: 1, Dialer: ok},
	} {
		if _, err := New(c, quiet); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
