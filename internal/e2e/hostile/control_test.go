//go:build linux

package hostile_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/enroll"
)

const littleYAML = "files:\n  in: {base: DIR/in, allow: [list, read]}\n"

func newLittle(t *testing.T) *site {
	t.Helper()
	return newLittleOf(t, newRogue(t))
}

func newLittleOf(t *testing.T, r *rogue) *site {
	t.Helper()
	s := newSite(t, r, littleYAML)
	if err := os.Mkdir(filepath.Join(s.dir, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// works asserts that the agent serves, over a tunnel that it has said hello on and been welcomed to.
func (s *site) works(t testing.TB) {
	t.Helper()
	testenv.Eventually(t, "the agent works", func() bool {
		s.relay.mu.Lock()
		live := s.relay.tunnels[s.id] != nil
		s.relay.mu.Unlock()
		if !live {
			return false
		}
		st, err := s.relay.tunnel(t, s.id).Open(t.Context())
		if err != nil {
			return false
		}
		defer st.Close()
		_ = st.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(st, "GET /v1/files/in/list HTTP/1.1\r\nHost: agent\r\n\r\n")
		b := make([]byte, 12)
		_, err = io.ReadFull(st, b)
		return err == nil && string(b) == "HTTP/1.1 200"
	})
}

// TestAbsurdWelcomes: whatever a relay answers to hello, the agent does not crash, grow, go elsewhere or give up.
func TestAbsurdWelcomes(t *testing.T) {
	s := newLittle(t)
	elsewhere := listen(t, "127.0.0.1", nil)
	for name, h := range map[string]http.HandlerFunc{
		"version 0":    func(w http.ResponseWriter, _ *http.Request) { reply(w, protocol.Welcome{Relay: "r"}) },
		"version 2^31": func(w http.ResponseWriter, _ *http.Request) { reply(w, protocol.Welcome{Version: 1 << 31}) },
		"version -1":   func(w http.ResponseWriter, _ *http.Request) { reply(w, protocol.Welcome{Version: -1}) },
		"overflow": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":99999999999999999999}`)
		},
		"not JSON":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>proxy login</html>") },
		"nothing":      func(http.ResponseWriter, *http.Request) {},
		"deep nesting": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat(`{"x":`, 1<<20)) },
		"a refusal of 3M": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			reply(w, protocol.Errorf(protocol.CodeDenied, "%s", strings.Repeat("x", 3<<20)))
		},
		"come in a century": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3000000000")
			w.WriteHeader(503)
		},
		"redirect": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", fmt.Sprintf("http://127.0.0.1:%d/", elsewhere.port))
			w.WriteHeader(302)
		},
		"endless answer": func(w http.ResponseWriter, r *http.Request) {
			flood(w, r, []byte(`{"relay":"`), bytes.Repeat([]byte("x"), 64<<10))
		},
		"endless spaces": func(w http.ResponseWriter, r *http.Request) { flood(w, r, nil, bytes.Repeat([]byte(" "), 64<<10)) },
		"endless 103": func(w http.ResponseWriter, r *http.Request) {
			for range 100_000 {
				if r.Context().Err() != nil {
					return
				}
				w.Header().Set("Link", strings.Repeat("x", 1000))
				w.WriteHeader(103)
			}
		},
		"huge head": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 8<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			s.relay.answer(t, protocol.PathHello, h)
			before := s.relay.helloCount(s.id)
			s.relay.drop(t, s.id)
			testenv.Eventually(t, "it is asked", func() bool { return s.relay.helloCount(s.id) > before })
			if rss := s.rss(t); rss > maxRSS {
				t.Errorf("%d MiB", rss>>20)
			}
			s.relay.answer(t, protocol.PathHello, nil)
			s.kill() // rather than wait out its growing patience
			s.start(t)
			s.works(t)
		})
	}
	// Values that are only told, never trusted.
	s.relay.answer(t, protocol.PathHello, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, protocol.Welcome{Version: 1, Relay: strings.Repeat("r", 1<<20) + "\nlevel=ERROR msg=forged \x1b[2J", Log: protocol.LogHead{Seq: 1 << 63, Hash: strings.Repeat("h", 1<<20)}, HeartbeatMs: -1, ServerTimeMs: -1 << 62,
			RenewAfterMs: 1, RelayAddrs: []string{elsewhere.Addr().String(), "evil.example:1"}, RetryAfterMs: 1 << 62})
	})
	s.relay.drop(t, s.id)
	s.works(t)
	s.relay.answer(t, protocol.PathHello, nil)
	s.relay.drop(t, s.id)
	s.works(t)
	s.healthy(t)
	if n := elsewhere.count.Load(); n > 0 {
		t.Errorf("the agent went where the relay sent it: %d times", n)
	}
	if text := s.log.String(); strings.Contains(text, "\x1b") || strings.Contains(text, "\nlevel=ERROR msg=forged") {
		t.Error("the agent's log was forged")
	}
	if n := len(s.log.String()); n > 1<<20 {
		t.Errorf("the agent's log has %d KiB", n>>10)
	}
}

// flood writes for ever.
func flood(w http.ResponseWriter, r *http.Request, head, more []byte) {
	_, err := w.Write(head)
	for err == nil && r.Context().Err() == nil {
		_, err = w.Write(more)
	}
}

// TestHelloIsAnsweredLate: an answer after 20 s is none; the agent tries again and does not hang.
func TestHelloIsAnsweredLate(t *testing.T) {
	s := newLittle(t)
	var late atomic.Int64
	s.relay.answer(t, protocol.PathHello, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see that the agent has gone
		late.Add(1)
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Second):
			reply(w, protocol.Welcome{Version: 1, Relay: "late"})
		}
	})
	s.relay.drop(t, s.id)
	testenv.Eventually(t, "hello", func() bool { return late.Load() == 1 })
	first := s.relay.helloCount(s.id)
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for s.relay.helloCount(s.id) == first {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the agent waits for a relay that does not answer")
		}
	}
	s.relay.answer(t, protocol.PathHello, nil)
	s.kill()
	s.start(t)
	s.works(t)
	s.healthy(t)
}

// TestForgedRenewals: a renewed certificate is taken only for our own key and name, from our own CA.
func TestForgedRenewals(t *testing.T) {
	s := newLittle(t)
	r := s.relay
	me := identity(0)
	other, err := enroll.NewAuthority(installation)
	if err != nil {
		t.Fatal(err)
	}
	otherWS, err := other.NewWorkspace(workspace)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(ca *enroll.WorkspaceCA, csr []byte, id mtls.Identity, ttl time.Duration) [][]byte {
		key, err := enroll.ParseRequest(csr)
		if err != nil {
			t.Error(err)
			return nil
		}
		issued, err := ca.SignAgent(key, id, ttl)
		if err != nil {
			t.Error(err)
			return nil
		}
		return issued.Chain
	}
	strange, err := mtls.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	strangeCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, strange)
	if err != nil {
		t.Fatal(err)
	}
	victim, elsewhere, boss := me, me, me
	victim.ID, elsewhere.Group, boss.Installation = "agt_victim", "grp_other", "in_other"
	for name, chain := range map[string]func(csr []byte) [][]byte{
		"another agent":        func(csr []byte) [][]byte { return sign(r.ws, csr, victim, time.Hour) },
		"another group":        func(csr []byte) [][]byte { return sign(r.ws, csr, elsewhere, time.Hour) },
		"another key":          func([]byte) [][]byte { return sign(r.ws, strangeCSR, me, time.Hour) },
		"another CA":           func(csr []byte) [][]byte { return sign(otherWS, csr, me, time.Hour) },
		"another CA, our root": func(csr []byte) [][]byte { return append(sign(otherWS, csr, me, time.Hour), r.root.Certificate().Raw) },
		"filler": func(csr []byte) [][]byte {
			return append(sign(otherWS, csr, me, time.Hour), sign(r.ws, csr, me, time.Hour)...)
		},
		"no chain":      func([]byte) [][]byte { return nil },
		"leaf alone":    func(csr []byte) [][]byte { return sign(r.ws, csr, me, time.Hour)[:1] },
		"the CA itself": func([]byte) [][]byte { return [][]byte{r.ws.Certificate().Raw, r.root.Certificate().Raw} },
		"garbage":       func([]byte) [][]byte { return [][]byte{bytes.Repeat([]byte{0x30}, 1<<20)} },
		"10,000 certificates": func(csr []byte) [][]byte {
			c := sign(r.ws, csr, victim, time.Hour)
			for len(c) < 3000 {
				c = append(c, r.ws.Certificate().Raw)
			}
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := leafOf(t, s.data())
			asked := make(chan struct{}, 100)
			r.answer(t, protocol.PathRenew, func(w http.ResponseWriter, req *http.Request) {
				var in protocol.RenewRequest
				_ = json.NewDecoder(req.Body).Decode(&in)
				reply(w, protocol.RenewResponse{Chain: chain(in.CSR)})
				asked <- struct{}{}
			})
			s.renewNow(t)
			select {
			case <-asked:
			case <-time.After(10 * time.Second):
				t.Fatal("no renewal was asked for")
			}
			testenv.Eventually(t, "the refusal is logged", func() bool { return strings.Contains(s.log.String(), "certificate was not renewed") })
			if !leafOf(t, s.data()).Equal(before) {
				t.Error("a forged certificate is on disk")
			}
			s.works(t)
			s.kill() // after a refusal it waits a minute; and what is on disk must still work
			s.log = &testenv.Log{}
			r.answer(t, protocol.PathRenew, nil)
			s.start(t)
			s.works(t)
		})
	}
	before := leafOf(t, s.data())
	hellos := r.helloCount(s.id)
	s.renewNow(t)
	testenv.Eventually(t, "an honest renewal", func() bool { return !leafOf(t, s.data()).Equal(before) && r.helloCount(s.id) > hellos })
	s.works(t)
	s.healthy(t)
}

func (s *site) renewNow(t testing.TB) {
	t.Helper()
	body := `{"kind":"renew"}`
	a, st := s.send(t, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: agent\r\nContent-Length: %d\r\n\r\n%s", protocol.PathNotice, len(body), body))
	st.Close()
	if a.status != 200 {
		t.Fatalf("notice: %d %s", a.status, a.body)
	}
}

// TestRenewalsOnDemandAreFew: a relay that asks for a renewal all the time does not keep the agent busy with it.
func TestRenewalsOnDemandAreFew(t *testing.T) {
	s := newLittle(t)
	var renewals atomic.Int64
	s.relay.answer(t, protocol.PathRenew, func(w http.ResponseWriter, r *http.Request) {
		renewals.Add(1)
		var in protocol.RenewRequest
		_ = json.NewDecoder(r.Body).Decode(&in)
		chain, _ := s.relay.sign(in.CSR, identity(0))
		reply(w, protocol.RenewResponse{Chain: chain})
	})
	for started := time.Now(); time.Since(started) < 5*time.Second; {
		st, err := s.relay.tunnel(t, s.id).Open(t.Context())
		if err != nil {
			continue
		}
		body := `{"kind":"renew"}`
		_ = st.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = fmt.Fprintf(st, "POST %s HTTP/1.1\r\nHost: agent\r\nContent-Length: %d\r\n\r\n%s", protocol.PathNotice, len(body), body)
		_, _ = io.Copy(io.Discard, st)
		st.Close()
	}
	if n := renewals.Load(); n < 1 || n > 2 {
		t.Errorf("%d renewals in five seconds", n)
	}
	s.works(t)
	s.healthy(t)
}

// TestLanesOnDemandAreFew: a relay that asks for lanes all the time, and answers none of the dials, costs the site little.
func TestLanesOnDemandAreFew(t *testing.T) {
	s := newLittle(t)
	one := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for i := range 500 {
		n := 1 + i%20
		body := `{"tickets":["` + strings.Join(slices.Repeat([]string{one}, n), `","`) + `"]}`
		a, st := s.send(t, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: agent\r\nContent-Length: %d\r\n\r\n%s", protocol.PathLanes, len(body), body))
		st.Close()
		if n > protocol.MaxLanes && a.status != 400 {
			t.Fatalf("%d lanes at once: %d %s", n, a.status, a.body)
		}
	}
	if rss := s.rss(t); rss > maxRSS {
		t.Errorf("%d MiB", rss>>20)
	}
	s.works(t)
	s.healthy(t)
}

// TestEventsSurviveALyingRelay: receipts for what was never sent, or of less than was held, or of another record, lose
// nothing: after a crash all events come to a relay that has none, whole and in order.
func TestEventsSurviveALyingRelay(t *testing.T) {
	r := newRogue(t)
	// It lies from the first record on: what an honest receipt named, the agent would not owe it again.
	r.answer(t, protocol.PathEvents, func(w http.ResponseWriter, _ *http.Request) { reply(w, protocol.Receipt{}) })
	s := newLittleOf(t, r)
	asked := map[string]bool{}
	provoke := func() {
		for range 10 {
			a := s.ask(t, dialTo("192.0.2.1", 22), "")
			s.refused(t, a)
			asked[a.id] = true
		}
	}
	for name, head := range map[string]func(honest protocol.LogHead) any{
		"far beyond what was sent": func(protocol.LogHead) any { return protocol.Receipt{Log: protocol.LogHead{Seq: 1 << 62, Hash: "x"}} },
		"one beyond": func(h protocol.LogHead) any {
			return protocol.Receipt{Log: protocol.LogHead{Seq: h.Seq + 1, Hash: h.Hash}}
		},
		"another record": func(h protocol.LogHead) any {
			return protocol.Receipt{Log: protocol.LogHead{Seq: h.Seq, Hash: hashOf([]byte("forged"))}}
		},
		"nothing": func(protocol.LogHead) any { return protocol.Receipt{} },
		"one less": func(h protocol.LogHead) any {
			return protocol.Receipt{Log: protocol.LogHead{Seq: h.Seq - 1, Hash: h.Hash}}
		},
		"negative":   func(protocol.LogHead) any { return json.RawMessage(`{"log":{"seq":-1}}`) },
		"overflow":   func(protocol.LogHead) any { return json.RawMessage(`{"log":{"seq":18446744073709551615,"hash":""}}`) },
		"no receipt": func(protocol.LogHead) any { return json.RawMessage(`"thanks"`) },
	} {
		s.relay.answer(t, protocol.PathEvents, func(w http.ResponseWriter, r *http.Request) { reply(w, head(s.relay.keep(s.id, r))) })
		provoke()
		testenv.Eventually(t, name+": the events are sent", func() bool {
			s.relay.mu.Lock()
			defer s.relay.mu.Unlock()
			return s.relay.held[s.id].Seq > 0
		})
		s.relay.forget(s.id)
		s.kill()
		s.start(t)
	}
	s.relay.forget(s.id)
	s.relay.answer(t, protocol.PathEvents, nil)
	provoke()
	s.kill()
	s.start(t)
	provoke()
	arrived := func() (lines []json.RawMessage, missing int) {
		lines = s.relay.received(s.id)
		have := map[string]bool{}
		for _, l := range lines {
			var e event
			_ = json.Unmarshal(parseLine(l).Body, &e)
			have[e.RequestID] = true
		}
		for id := range asked {
			if !have[id] {
				missing++
			}
		}
		return lines, missing
	}
	testenv.Eventually(t, "every event arrives", func() bool { _, missing := arrived(); return missing == 0 })
	s.healthy(t)
	lines, _ := arrived()
	for i, l := range lines {
		rec := parseLine(l)
		if rec.Seq != uint64(i+1) || i > 0 && rec.Prev != hashOf(lines[i-1]) {
			t.Fatalf("the chain breaks at record %d (sequence %d)", i+1, rec.Seq)
		}
	}
	s.stop(t)
	pub := s.auditKey(t)
	rep, err := audit.Verify(filepath.Join(s.data(), "audit"), pub)
	if err != nil {
		t.Fatalf("the agent's own log does not verify: %v (%+v)", err, rep)
	}
}

// auditKey is the public half of the key that signs the agent's checkpoints.
func (s *site) auditKey(t testing.TB) ed25519.PublicKey {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.data(), "audit.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatal("no audit key")
	}
	return ed25519.NewKeyFromSeed(block.Bytes).Public().(ed25519.PublicKey)
}
