package e2e_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// rogue is an agent with a valid certificate that says what it wants.
type rogue struct {
	t  *testing.T
	id *enroll.Identity
	tn tunnel.Tunnel
}

func dialRogue(t *testing.T, w *testenv.World, id *enroll.Identity) *rogue {
	t.Helper()
	tn, err := tunnel.Dial(ctx, w.Address, mtls.AgentTLS(mtls.NewReloader(id.Keypair), id.Roots, id.Installation), nil, tunnel.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tn.Close() })
	return &rogue{t, id, tn}
}

// raw sends bytes on a stream of its own and reads the answer; status 0 means that there was none.
func (r *rogue) raw(text string) (status int, e protocol.Error, body string) {
	r.t.Helper()
	s, err := r.tn.Open(ctx)
	if err != nil {
		return 0, e, err.Error()
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(s, text); err != nil {
		return 0, e, err.Error()
	}
	resp, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		return 0, e, err.Error()
	}
	b, _ := io.ReadAll(resp.Body)
	_ = json.Unmarshal(b, &e)
	return resp.StatusCode, e, string(b)
}

func (r *rogue) post(path, body string) (int, protocol.Error, string) {
	r.t.Helper()
	return r.raw(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body))
}

const plainHello = `{"version":1,"min_version":1,"agent_version":"rogue"}`

func (r *rogue) hello() {
	r.t.Helper()
	if st, _, body := r.post(protocol.PathHello, plainHello); st != 200 {
		r.t.Fatalf("hello: %d %s", st, body)
	}
}

var controlPaths = []string{protocol.PathHello, protocol.PathRenew, protocol.PathEvents, protocol.PathStatus, protocol.PathDrain}

// D28, D30, D31, K3, D11: an agent that was taken over, with its own valid certificate, against every control path.
func TestRogueAgentGetsNoFurtherThanItself(t *testing.T) {
	w := shop(t, testenv.Options{})
	w.Connection("shop")
	me := w.Enroll("rogue")

	t.Run("D28 nothing before hello", func(t *testing.T) {
		r := dialRogue(t, w, me)
		for _, p := range controlPaths[1:] {
			if st, e, body := r.post(p, "{}"); st != 400 || e.Code != protocol.CodeInvalid || !strings.Contains(e.Message, "hello") {
				t.Errorf("%s: %d %s", p, st, body)
			}
		}
	})
	t.Run("D28 hello is said once", func(t *testing.T) {
		r := dialRogue(t, w, me)
		r.hello()
		if st, _, body := r.post(protocol.PathHello, plainHello); st != 400 {
			t.Errorf("%d %s", st, body)
		}
		// Also when all are sent at the same time.
		r = dialRogue(t, w, me)
		res := make(chan int, 16)
		for range cap(res) {
			go func() { st, _, _ := r.post(protocol.PathHello, plainHello); res <- st }()
		}
		won := 0
		for range cap(res) {
			if <-res == 200 {
				won++
			}
		}
		if won != 1 {
			t.Errorf("%d of 16 hellos were taken", won)
		}
	})
	t.Run("D28 other paths and methods", func(t *testing.T) {
		r := dialRogue(t, w, me)
		r.hello()
		for _, p := range []string{"/", "/v1/enroll", "/v1/notice", "/api/v1/whoami", "/metrics", "/debug/pprof/", "/v1/hello/", "/v1//hello", "/v1/../v1/renew", "/V1/renew", "/v1/database/shop/query"} {
			if st, e, body := r.post(p, "{}"); st != 404 || e.Code != protocol.CodeNotFound {
				t.Errorf("%s: %d %s", p, st, body)
			}
		}
		for _, m := range []string{"GET", "PUT", "DELETE", "CONNECT", "TRACE"} {
			if st, _, body := r.raw(m + " /v1/renew HTTP/1.1\r\nHost: relay\r\n\r\n"); st/100 != 4 {
				t.Errorf("%s: %d %s", m, st, body)
			}
		}
	})
	t.Run("D31 absent, null and foreign values", func(t *testing.T) {
		full := map[string]string{
			protocol.PathHello: `{"version":1,"min_version":1,"agent_version":"r","instance":"i","hostname":"h","os":"linux","arch":"amd64","constraints":["limits"],"status":{"config_digest":"d","reload_error":"e","profiles":[{"name":"p","kind":"files","operations":["read"]}]},"log":{"seq":1,"hash":"x"},"started_ms":1,"profiles":[{"name":"p","kind":"files","operations":["read"]}]}`,
			protocol.PathRenew: `{"csr":"eA=="}`, protocol.PathEvents: `{"records":[{}]}`, protocol.PathStatus: `{"config_digest":"d","reload_error":"e","profiles":[{"name":"p","kind":"files","adapter":"a","operations":["read"]}]}`, protocol.PathDrain: `{}`,
		}
		for _, p := range controlPaths {
			var members map[string]json.RawMessage
			if err := json.Unmarshal([]byte(full[p]), &members); err != nil {
				t.Fatal(err)
			}
			bodies := []string{"", "null", "[]", "0", `""`, "{", "{}", `{"x":1}`, "\x00\xff", strings.Repeat("[", 200_000)}
			for name := range members {
				for _, v := range []string{"", "null", "[]", "[null]", "{}", `""`, "-1", "1e400", "9223372036854775808", "true", `[[]]`, `[{"name":null,"kind":null,"operations":null}]`, `{"profiles":[null],"seq":-1}`} {
					m := map[string]json.RawMessage{}
					for k, have := range members {
						m[k] = have
					}
					delete(m, name)
					if v == "1e400" || v == "9223372036854775808" || json.Valid([]byte(v)) {
						m[name] = json.RawMessage(v)
					}
					b, err := json.Marshal(m)
					if err != nil {
						t.Fatal(err)
					}
					bodies = append(bodies, string(b))
				}
			}
			r := dialRogue(t, w, me)
			if p != protocol.PathHello {
				r.hello()
			}
			for _, b := range bodies {
				if st, e, body := r.post(p, b); st == 0 || st >= 500 && e.Code != protocol.CodeUnsupported {
					t.Errorf("%s %.120q: %d %s", p, b, st, body)
				}
			}
		}
		if testenv.Panicked(w.Log.String()) != "" {
			t.Error("something panicked")
		}
	})
	t.Run("D30 large bodies", func(t *testing.T) {
		r := dialRogue(t, w, me)
		r.hello()
		big := strings.Repeat(" ", protocol.MaxControlBytes+1)
		for _, p := range controlPaths[1:4] {
			if st, e, body := r.post(p, big); st != http.StatusRequestEntityTooLarge || e.Code != protocol.CodeTooLarge {
				t.Errorf("%s: %d %.200s", p, st, body)
			}
		}
		// All at once, without end, in chunks: they take turns, and an honest request of the same tunnel has its turn, too.
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				s, err := r.tn.Open(ctx)
				if err != nil {
					return
				}
				defer s.Close()
				_ = s.SetDeadline(time.Now().Add(20 * time.Second))
				_, _ = io.WriteString(s, "POST /v1/status HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n")
				chunk := "10000\r\n" + strings.Repeat(" ", 0x10000) + "\r\n"
				for range 80 {
					if _, err := io.WriteString(s, chunk); err != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		if st, _, body := r.post(protocol.PathStatus, `{"config_digest":"d"}`); st != 200 {
			t.Errorf("after the flood: %d %.200s", st, body)
		}
		if err := count(t, w.Client); err != nil {
			t.Errorf("another agent's operation after the flood: %v", err)
		}
	})
	t.Run("K3 events of another agent", func(t *testing.T) {
		r := dialRogue(t, w, me)
		r.hello()
		genesis := strings.Repeat("A", 43)
		for name, body := range map[string]string{
			"source":        fmt.Sprintf(`{"source":%q,"workspace":%q,"kind":"operation.intent"}`, w.Agent.ID(), me.Workspace),
			"workspace":     fmt.Sprintf(`{"source":%q,"workspace":"ws_other","kind":"operation.intent"}`, me.Agent),
			"doubled":       fmt.Sprintf(`{"source":%q,"workspace":%q,"source":%q}`, w.Agent.ID(), me.Workspace, me.Agent),
			"in other case": fmt.Sprintf(`{"source":%q,"workspace":%q,"SOURCE":%q}`, w.Agent.ID(), me.Workspace, me.Agent),
			"none":          `{}`,
		} {
			line := fmt.Sprintf(`{"seq":1,"prev":%q,"time":"2026-01-02T03:04:05Z","body":%s}`, genesis, body)
			if st, _, ans := r.post(protocol.PathEvents, `{"records":[`+line+`]}`); st != 400 && st != 409 {
				t.Errorf("%s: %d %s", name, st, ans)
			}
		}
		line := fmt.Sprintf(`{"seq":7,"prev":%q,"time":"2026-01-02T03:04:05Z","body":{}}`, genesis)
		if st, _, ans := r.post(protocol.PathEvents, `{"records":[`+line+`]}`); st != 409 {
			t.Errorf("a gap: %d %s", st, ans)
		}
		if st, _, ans := r.post(protocol.PathEvents, `{"records":[`+strings.Repeat("{},", protocol.MaxEventBatch)+`{}]}`); st != 400 {
			t.Errorf("too many: %d %s", st, ans)
		}
	})
	t.Run("D11 renewal takes the key and nothing else", func(t *testing.T) {
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		victim, _ := url.Parse(fmt.Sprintf("fairlead://%s/ws/%s/group/%s/agent/%s", me.Installation, me.Workspace, me.Group, w.Agent.ID()))
		ca, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
		greedy, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: w.Agent.ID()}, URIs: []*url.URL{victim}, DNSNames: []string{"localhost"},
			ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}, {Id: []int{1, 2, 3}, Value: ca}}}, key)
		if err != nil {
			t.Fatal(err)
		}
		r := dialRogue(t, w, me)
		r.hello()
		b, _ := json.Marshal(protocol.RenewRequest{CSR: greedy})
		st, e, body := r.post(protocol.PathRenew, string(b))
		if st == 200 {
			var ans protocol.RenewResponse
			if err := json.Unmarshal([]byte(body), &ans); err != nil || len(ans.Chain) == 0 {
				t.Fatal(body)
			}
			leaf, err := x509.ParseCertificate(ans.Chain[0])
			if err != nil {
				t.Fatal(err)
			}
			id, err := mtls.FromCertificate(leaf)
			if err != nil || id.ID != me.Agent || leaf.IsCA || len(leaf.DNSNames) != 0 || len(leaf.URIs) != 1 || leaf.Subject.CommonName == w.Agent.ID() {
				t.Errorf("the certificate says more than it should: %+v, %v", id, err)
			}
		} else if e.Code != protocol.CodeInvalid {
			t.Errorf("%d %s", st, body)
		}
		weak, _ := rsa.GenerateKey(rand.Reader, 2048)
		rsaCSR, _ := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
		forged := append([]byte(nil), greedy...)
		forged[len(forged)-1] ^= 1
		for name, csr := range map[string][]byte{"RSA": rsaCSR, "broken signature": forged, "garbage": []byte("x"), "1 MB": make([]byte, 1<<20), "none": nil} {
			r := dialRogue(t, w, me) // a tunnel of its own, for renewals have their pace
			r.hello()
			b, _ := json.Marshal(protocol.RenewRequest{CSR: csr})
			if st, e, body := r.post(protocol.PathRenew, string(b)); st != 400 && st != 413 || e.Code != protocol.CodeInvalid && e.Code != protocol.CodeTooLarge {
				t.Errorf("%s: %d %s", name, st, body)
			}
		}
	})
	t.Run("D28 a certificate opens tunnels and nothing else", func(t *testing.T) {
		// The agent's certificate is no way into the API, and enrolment asks for a token whoever comes.
		cert := me.Keypair.Certificate()
		for alpn, req := range map[string]string{"http/1.1": "GET /api/v1/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n",
			protocol.ALPNEnroll: "POST /v1/enroll HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"} {
			c, err := tls.Dial("tcp", w.Address, &tls.Config{RootCAs: me.Roots, ServerName: "localhost", NextProtos: []string{alpn}, Certificates: []tls.Certificate{cert}})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(c, req); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode/100 != 4 {
				t.Errorf("%s: %v, %v", alpn, resp, err)
			}
			c.Close()
		}
		// And without one there is no tunnel.
		c, err := tls.Dial("tcp", w.Address, &tls.Config{RootCAs: me.Roots, ServerName: "localhost", NextProtos: []string{protocol.ALPNTunnel}})
		if err == nil { // TLS 1.3: the refusal comes with the first read
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if ne, ok := err.(net.Error); err == nil || ok && ne.Timeout() {
			t.Errorf("a tunnel without a certificate: %v", err)
		}
	})
	t.Run("D30 enrolment reads 64 KiB at most", func(t *testing.T) {
		c, err := tls.Dial("tcp", w.Address, &tls.Config{RootCAs: me.Roots, ServerName: "localhost", NextProtos: []string{protocol.ALPNEnroll}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		_, _ = io.WriteString(c, "POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n")
		sent := 0
		for block := make([]byte, 64<<10); sent < 64<<20; {
			n, err := c.Write(block)
			sent += n
			if err != nil {
				break
			}
		}
		if sent >= 64<<20 {
			t.Errorf("%d bytes were taken", sent)
		}
	})
	t.Run("D5 disabled in the middle", func(t *testing.T) {
		r := dialRogue(t, w, me)
		r.hello()
		if err := w.Client.DisableAgent(ctx, me.Agent); err != nil {
			t.Fatal(err)
		}
		select {
		case <-r.tn.Done():
		case <-time.After(5 * time.Second):
			t.Error("the tunnel stands")
		}
		tn, err := tunnel.Dial(ctx, w.Address, mtls.AgentTLS(mtls.NewReloader(me.Keypair), me.Roots, me.Installation), nil, tunnel.DefaultConfig())
		if err == nil {
			if _, err = tn.Ping(ctx); err == nil {
				t.Error("a disabled agent has a tunnel")
			}
			tn.Close()
		}
	})
	if err := count(t, w.Client); err != nil {
		t.Errorf("the honest agent, after all: %v", err)
	}
}
