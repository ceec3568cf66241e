package e2e_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// serve gives each dial that reaches the rogue, after its head was read, to f.
func (r *rogue) serve(f func(s net.Conn, br *bufio.Reader)) {
	go func() {
		for {
			s, err := r.tn.Accept()
			if err != nil {
				return
			}
			br := bufio.NewReader(s)
			if req, err := http.ReadRequest(br); err == nil && strings.HasSuffix(req.URL.Path, "/dial") {
				f(s, br)
			} else if err == nil {
				_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
			}
			s.Close()
		}
	}()
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol.UpgradeDial + "\r\n\r\n"

// rogueWorld has a gateway and a connection "echo" that a rogue agent serves alone.
func rogueWorld(t *testing.T) (*testenv.World, string, *rogue) {
	t.Helper()
	w, address := gatewayWorld(t, client.SetGateway{Allow: loopback})
	w.StopAgent()
	r := dialRogue(t, w, w.Enroll("rogue"))
	if st, _, body := r.post(protocol.PathHello, `{"version":1,"min_version":1,"agent_version":"rogue","profiles":[{"name":"echo","kind":"tcp","operations":["dial"]}],"status":{"config_digest":"d"}}`); st != 200 {
		t.Fatalf("hello: %d %s", st, body)
	}
	return w, address, r
}

// ways are those by which a caller's bytes can be on their way before the answer.
func ways(t *testing.T, w *testenv.World, address string) map[string]func() (client.Conn, error) {
	tn := newTunnel(t, w.Client)
	return map[string]func() (client.Conn, error){
		"tunnel": func() (client.Conn, error) { return tn.Dial(ctx, "echo") },
		"gateway": func() (client.Conn, error) {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return nil, err
			}
			return c.(*net.TCPConn), nil
		},
	}
}

// The first bytes do not wait for the agent's answer; nothing comes back before it.
func TestDialIsOneFlightUpToTheAgent(t *testing.T) {
	w, address, r := rogueWorld(t)
	got := make(chan string, 1)
	answer := make(chan struct{})
	r.serve(func(s net.Conn, br *bufio.Reader) {
		b := make([]byte, 5)
		_, _ = io.ReadFull(br, b)
		got <- string(b)
		<-answer
		_, _ = io.WriteString(s, switching+"world")
	})
	for name, dial := range ways(t, w, address) {
		t.Run(name, func(t *testing.T) {
			c, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, "hello"); err != nil {
				t.Fatal(err)
			}
			select {
			case b := <-got:
				if b != "hello" {
					t.Fatalf("the agent got %q", b)
				}
			case <-time.After(15 * time.Second):
				t.Fatal("the bytes waited for the agent's answer")
			}
			answer <- struct{}{}
			if b, err := io.ReadAll(c); string(b) != "world" {
				t.Fatalf("%q, %v", b, err)
			}
		})
	}
}

// A refusal reaches the caller as what it is, however much he has sent on, and what he sent is nobody's request.
func TestRefusedDialTakesNothingOfWhatFollowed(t *testing.T) {
	w, address := gatewayWorld(t, client.SetGateway{Allow: loopback})
	w.WriteYAML(shopYAML)
	testenv.Eventually(t, "the site has narrowed", func() bool {
		c, _ := code(func() error { _, err := w.Client.Dial(ctx, "echo"); return err }())
		return c == protocol.CodeDenied
	})
	w.Connection("shop")
	smuggled := "POST /v1/database/shop/schema HTTP/1.1\r\nHost: agent\r\n" + protocol.HeaderRequestID + ": req_smuggled\r\n\r\n"
	for name, dial := range ways(t, w, address) {
		t.Run(name, func(t *testing.T) {
			for range 8 { // on the mux, and on lanes when they are there
				c, err := dial()
				if name == "gateway" && errors.Is(err, syscall.ECONNRESET) {
					continue // the reset overtook the dial's own end
				}
				if err != nil {
					t.Fatal(err)
				}
				wrote := make(chan error, 1)
				go func() {
					for {
						if _, err := io.WriteString(c, strings.Repeat(smuggled, 500)); err != nil {
							wrote <- err
							return
						}
					}
				}()
				_, err = io.ReadAll(c)
				c.Close()
				werr := <-wrote
				if name == "gateway" && err == nil && errors.Is(werr, syscall.ECONNRESET) {
					err = werr // the kernel tells of a reset once
				}
				var e *protocol.Error
				switch {
				case name == "gateway" && err == nil:
					t.Errorf("no reset: %v", werr)
				case name == "tunnel" && (!errors.As(err, &e) || e.Code != protocol.CodeDenied || e.Origin != protocol.OriginAgent):
					t.Errorf("%v", err)
				}
			}
		})
	}
	for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(e.Raw), "req_smuggled") {
			t.Fatalf("a request was smuggled: %s", e.Raw)
		}
	}
	if _, err := w.Client.Schema(ctx, "shop"); err != nil {
		t.Errorf("the tunnel suffered: %v", err)
	}
}

// A caller who ends his bytes at once still gets his answer: no end comes before the agent's 101.
func TestEarlyEndIsHeldBackUntilTheAnswer(t *testing.T) {
	w, address := gatewayWorld(t, client.SetGateway{Allow: loopback})
	for name, dial := range ways(t, w, address) {
		t.Run(name, func(t *testing.T) {
			for _, text := range []string{"", "hello", strings.Repeat("x", 1<<20)} {
				c, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				go func() { _, _ = io.WriteString(c, text); _ = c.CloseWrite() }()
				if b, err := io.ReadAll(c); err != nil || string(b) != text {
					t.Errorf("%d of %d bytes, %v", len(b), len(text), err)
				}
				c.Close()
			}
		})
	}
}

// A caller who gives up while the agent has not answered leaves an outcome that says so, and nothing that runs.
func TestCallerWhoLeavesBeforeTheAnswer(t *testing.T) {
	w, address, r := rogueWorld(t)
	arrived, left := make(chan struct{}), make(chan struct{})
	r.serve(func(s net.Conn, br *bufio.Reader) {
		arrived <- struct{}{}
		_, _ = io.Copy(io.Discard, br)
		left <- struct{}{}
	})
	for name, dial := range ways(t, w, address) {
		t.Run(name, func(t *testing.T) {
			c, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			<-arrived
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			c.Close()
			select {
			case <-left:
			case <-time.After(15 * time.Second):
				t.Fatal("the agent's stream lives on")
			}
		})
	}
	testenv.Eventually(t, "both outcomes", func() bool {
		n := 0
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind == "operation.outcome" && e.Code == string(protocol.CodeCanceled) && e.Operation == "dial" {
				n++
			}
		}
		return n == 2
	})
}
