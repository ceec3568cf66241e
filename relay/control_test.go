package relay

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// onTunnel is the relay's side of a tunnel of the site's agent.
func onTunnel(t *testing.T, r *Relay, s *site) *control {
	t.Helper()
	ws := r.dir.Snapshot().Workspaces()[0]
	a, err := ws.Agent(s.agent)
	if err != nil {
		t.Fatal(err)
	}
	me := mtls.Identity{Installation: r.auth.inst, Role: mtls.RoleAgent, Workspace: ws.ID, Group: a.Group, ID: a.ID}
	near, far := tunnel.Memory(me, mtls.Identity{Installation: r.auth.inst, Role: mtls.RoleRelay, ID: r.id}, tunnel.DefaultConfig())
	t.Cleanup(func() { near.Close(); far.Close() })
	return &control{relay: r, tunnel: far, helloed: make(chan struct{}), turns: make(chan struct{}, maxControl)}
}

func post(path string, v any) *http.Request {
	b, _ := json.Marshal(v)
	return httptest.NewRequest(http.MethodPost, path, bytes.NewReader(b))
}

func goodHello() protocol.Hello {
	return protocol.Hello{Version: protocol.Version, MinVersion: protocol.MinVersion, AgentVersion: "t"}
}

func relayAndSite(t *testing.T) (*Relay, *site) {
	t.Helper()
	r := open(t, filepath.Join(t.TempDir(), "relay"))
	t.Cleanup(func() { r.close() })
	return r, newSite(t, r, "one")
}

func tunnels(r *Relay) int { _, n := r.hub.Count(); return n }

// The kick that disabling causes finds only tunnels that are in the hub already; one that is added a moment later must
// find out by itself.
func TestAgentDisabledWhileItSaysHelloIsNotAdmitted(t *testing.T) {
	r, s := relayAndSite(t)
	c := onTunnel(t, r, s)
	if err := r.dir.DisableAgent(context.Background(), s.workspace, s.agent); err != nil {
		t.Fatal(err)
	}
	if _, err := c.hello(post(protocol.PathHello, goodHello())); client.CodeOf(err) != protocol.CodeDenied {
		t.Fatalf("got %v", err)
	}
	if n := tunnels(r); n != 0 {
		t.Fatalf("%d tunnels of a disabled agent are live", n)
	}
}

// A Hello that is still worked on when the tunnel ends must not leave a dead tunnel among the live ones for ever.
func TestHelloAfterTheTunnelEndedLeavesNothingBehind(t *testing.T) {
	r, s := relayAndSite(t)
	c := onTunnel(t, r, s)
	c.leave()
	if _, err := c.hello(post(protocol.PathHello, goodHello())); err == nil {
		t.Fatal("taken")
	}
	if n := tunnels(r); n != 0 {
		t.Fatalf("%d dead tunnels stay", n)
	}
}

func TestControlRequestsOfOneTunnelAreBounded(t *testing.T) {
	r, s := relayAndSite(t)
	c := onTunnel(t, r, s)
	for range maxControl {
		c.turns <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	body := &counted{}
	req := httptest.NewRequest(http.MethodPost, protocol.PathHello, body).WithContext(ctx)
	c.ServeHTTP(httptest.NewRecorder(), req)
	if body.n != 0 {
		t.Fatalf("%d bytes of a body were read out of turn", body.n)
	}
	<-c.turns
	w := httptest.NewRecorder()
	if c.ServeHTTP(w, post(protocol.PathHello, goodHello())); w.Code != http.StatusOK {
		t.Fatalf("a turn is free and the answer is %d: %s", w.Code, w.Body)
	}
}

type counted struct{ n int }

func (c *counted) Read(p []byte) (int, error) { c.n += len(p); return len(p), nil }

func TestHelloKeepsNoMoreThanItsBounds(t *testing.T) {
	r, s := relayAndSite(t)
	long := strings.Repeat("x", 5000)
	offer := protocol.ProfileOffer{Name: "p", Kind: protocol.KindFiles}
	for name, spoil := range map[string]func(*protocol.Hello){
		"version":     func(h *protocol.Hello) { h.AgentVersion = long },
		"hostname":    func(h *protocol.Hello) { h.Hostname = long },
		"instance":    func(h *protocol.Hello) { h.Instance = long },
		"hash":        func(h *protocol.Hello) { h.Log.Hash = long },
		"digest":      func(h *protocol.Hello) { h.Status.ConfigDigest = long },
		"constraints": func(h *protocol.Hello) { h.Constraints = make([]string, 100_000) },
		"constraint":  func(h *protocol.Hello) { h.Constraints = []string{long} },
		"profiles":    func(h *protocol.Hello) { h.Status.Profiles = make([]protocol.ProfileOffer, 5000) },
		"profile":     func(h *protocol.Hello) { h.Profiles = []protocol.ProfileOffer{{Name: "../x"}} },
		"kind": func(h *protocol.Hello) {
			o := offer
			o.Kind = protocol.Kind(long)
			h.Profiles = []protocol.ProfileOffer{o}
		},
		"adapter": func(h *protocol.Hello) { o := offer; o.Adapter = long; h.Profiles = []protocol.ProfileOffer{o} },
		"operation": func(h *protocol.Hello) {
			o := offer
			o.Operations = []protocol.Operation{protocol.Operation(long)}
			h.Profiles = []protocol.ProfileOffer{o}
		},
	} {
		h := goodHello()
		spoil(&h)
		if _, err := onTunnel(t, r, s).hello(post(protocol.PathHello, h)); client.CodeOf(err) != protocol.CodeInvalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// What stands beside a status that is used is not kept.
	h := goodHello()
	h.Status.Profiles = []protocol.ProfileOffer{offer}
	h.Profiles = make([]protocol.ProfileOffer, 100_000)
	c := onTunnel(t, r, s)
	if _, err := c.hello(post(protocol.PathHello, h)); err != nil || len(c.live.Info().Hello.Profiles) != 0 {
		t.Errorf("%v, %d offers kept", err, len(c.live.Info().Hello.Profiles))
	}
}

// A new tunnel gives no new turn: each renewal makes the relay sign, write and build its rules anew.
func TestRenewalsAreNotAHammer(t *testing.T) {
	r, s := relayAndSite(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := onTunnel(t, r, s).renew(post(protocol.PathRenew, protocol.RenewRequest{CSR: []byte("x")})); client.CodeOf(err) != protocol.CodeInvalid {
		t.Fatalf("garbage: %v", err)
	}
	r.renewals.last = map[string]time.Time{s.agent: time.Now().Add(time.Hour)} // a moment ago, however slow this machine is
	for range 2 {
		if _, err := onTunnel(t, r, s).renew(post(protocol.PathRenew, protocol.RenewRequest{CSR: csr})); client.CodeOf(err) != protocol.CodeRateLimited {
			t.Fatalf("got %v", err)
		}
	}
	r.renewals.last[s.agent] = time.Now().Add(-renewPause)
	if _, err := onTunnel(t, r, s).renew(post(protocol.PathRenew, protocol.RenewRequest{CSR: csr})); err != nil {
		t.Fatal(err)
	}
	if since := time.Since(r.renewals.last[s.agent]); since < 0 || since > time.Hour {
		t.Fatalf("the renewal was noted %v ago", since)
	}
}

func TestAgentSpeaksForItselfAlone(t *testing.T) {
	for body, want := range map[string]bool{
		`{"source":"a","workspace":"w"}`:                                  true,
		`{"source":"a","workspace":"w","detail":{"x":1,"x":2}}`:           true, // below the top nothing is decided
		`{"source":"victim","workspace":"w","source":"a"}`:                false,
		`{"source":"victim","workspace":"w","Source":"a"}`:                false,
		`{"source":"victim","workspace":"w","` + "\u017f" + `ource":"a"}`: false,
		`{"seq":7,"source":"a"}`:                                          false,
		`{"a":"\\\\","b":["]",{"c":"\"},"}],"d":-1.5e3,"source":"a"}`:     true,
		`{"a":["x,\"source\":1",{}],"source":"a","b":null,"source":"c"}`:  false,
		`{"\u0073ource":"victim","source":"a"}`:                           false,
		`{}`:                                                              true,
		`{"source":"a",`:                                                  false,
		`{"source":`:                                                      false,
		`{"source":"a"}{"source":"b"}`:                                    false,
		``:                                                                false,
		`["source"]`:                                                      false,
		`null`:                                                            false,
		`{"source":"a"`:                                                   false,
	} {
		if _, _, _, got := plainMembers([]byte(body)); got != want {
			t.Errorf("K3 %s: %v", body, got)
		}
	}
}

func TestInFlightIsWaitedFor(t *testing.T) {
	var f inFlight
	f.add(1)
	f.add(1)
	if f.wait(20 * time.Millisecond) {
		t.Fatal("two were in flight")
	}
	f.add(-1)
	done := make(chan bool)
	go func() { done <- f.wait(10 * time.Second) }()
	f.add(-1)
	if !<-done {
		t.Fatal("nothing was in flight")
	}
}

// D7, P16: whoever sends an enrolment slowly holds up nobody else's.
func TestSlowEnrolmentsDoNotHoldUpOthers(t *testing.T) {
	r, _ := relayAndSite(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(release)
	for range maxEnrolling {
		wg.Go(func() {
			r.serveEnroll(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, protocol.PathEnroll, &slowBody{arrived, release}))
		})
		<-arrived
	}
	w := httptest.NewRecorder()
	if r.serveEnroll(w, post(protocol.PathEnroll, protocol.EnrollRequest{Token: "x", CSR: []byte("x")})); w.Code != http.StatusBadRequest {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

// slowBody begins and does not go on until it is released.
type slowBody struct{ arrived, release chan struct{} }

func (b *slowBody) Read([]byte) (int, error) {
	b.arrived <- struct{}{}
	<-b.release
	return 0, io.ErrUnexpectedEOF
}

// P11: an enrolment signs within its transaction, which holds the only turn to write; a CA that is made at that moment waits
// for the turn. Neither may wait for the other, or nothing is written and no agent is cut any more.
func TestEnrolmentWhileAnAuthorityIsMadeDoesNotStandStill(t *testing.T) {
	r, s := relayAndSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	other, err := r.dir.CreateWorkspace(ctx, "other")
	if err != nil {
		t.Fatal(err)
	}
	_, sec, err := r.dir.CreateJoinToken(ctx, s.workspace, "default", 0, "test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := r.auth.checkCSR(csr)
	if err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	signed := make(chan error, 1)
	go func() {
		_, err := r.dir.Enroll(ctx, sec, directory.Enrolment{Name: "late", SPKI: spki, LogKey: make([]byte, 32)}, func(workspace, group, agent string) (directory.Certificate, error) {
			go func() { made <- r.auth.provide(ctx, other.ID) }()
			// The other workspace's CA cannot be there before this transaction ends: to sign for it is refused, not waited for.
			if _, _, err := r.auth.signAgent(ctx, csr, r.auth.agent(other.ID, group, agent), time.Hour); client.CodeOf(err) != protocol.CodeUnavailable {
				t.Errorf("got %v", err)
			}
			_, cert, err := r.auth.signAgent(ctx, csr, r.auth.agent(workspace, group, agent), time.Hour)
			return cert, err
		})
		signed <- err
	}()
	for _, c := range []chan error{signed, made} {
		select {
		case err := <-c:
			if err != nil {
				t.Fatal(err)
			}
		case <-ctx.Done():
			t.Fatal("enrolment and authority wait for each other")
		}
	}
	if ca, err := r.auth.workspace(ctx, other.ID); err != nil || ca.Workspace() != other.ID {
		t.Fatal(err)
	}
}
