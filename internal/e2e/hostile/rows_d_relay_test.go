//go:build linux

package hostile_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/internal/websocket"
	"github.com/fairleadhq/fairlead/protocol"
)

// behind makes an agent that reaches its relay through a middle alone; relay is further text of agent.yaml's relay section.
func behind(t *testing.T, r *rogue, relay string, env ...string) (*site, *middle) {
	t.Helper()
	m := newMiddle(t, r.addr)
	return newSite(t, r, fmt.Sprintf("relay: {addresses: [%q]%s}\n", m.addr, relay)+littleYAML, env...), m
}

// away runs f in the relay's place until the agent has dialled n times more, and gives the relay back. The agent must live,
// listen on nothing, and come back by itself.
func (s *site) away(t *testing.T, m *middle, n int64, f func(net.Conn)) {
	t.Helper()
	hellos := s.relay.helloCount(s.id)
	dials := m.conns.Load()
	m.replace(f)
	m.cut()
	testenv.Eventually(t, "the agent tries again and again", func() bool { return m.conns.Load() >= dials+n })
	if got := s.relay.helloCount(s.id); got != hellos {
		t.Errorf("the agent said hello %d times meanwhile", got-hellos)
	}
	m.replace(nil)
	testenv.Eventually(t, "the agent is back by itself", func() bool { return s.relay.helloCount(s.id) > hellos })
	s.healthy(t)
}

// impostor shows a certificate, and counts what the agent says to it.
type impostor struct {
	conf *tls.Config
	done atomic.Int64 // handshakes that the agent took part in to the end
	said atomic.Int64 // bytes
}

func (i *impostor) serve(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	tc := tls.Server(c, i.conf)
	if tc.Handshake() != nil {
		return
	}
	i.done.Add(1)
	n, _ := io.Copy(io.Discard, tc)
	i.said.Add(n)
}

// TestHostileRelayAndMiddle is 4.D from the other side: whoever stands in the relay's place, or on the way to it, against
// the real agent.
func TestHostileRelayAndMiddle(t *testing.T) {
	t.Run("certificates", certificateRows)
	t.Run("interception", interceptionRows)
	t.Run("proxies", proxyRows)
	t.Run("frames", frameRows)
	t.Run("D14 killed at any moment of a renewal", renewalRows)
}

// certificateRows: an agent that is led elsewhere, be it by DNS, by a stolen node or by a slip, sends nothing there.
func certificateRows(t *testing.T) {
	r := newRogue(t)
	s, m := behind(t, r, ", transport: tcp")
	held, err := r.root.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, rest := pem.Decode(held.Expose())
	block, _ := pem.Decode(rest)
	signer, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	// The root's own key signs what a real authority would not.
	root := &mtlstest.Cert{Cert: r.root.Certificate(), Key: signer.(crypto.Signer)}
	issue := func(installation string, edit ...func(*x509.Certificate)) *tls.Config {
		id := mtls.Identity{Installation: installation, Role: mtls.RoleRelay, ID: "rel_other"}
		return mtls.TunnelTLS(root.Leaf(t, id, nil, edit...).Reloader(t), r.root.Pool(), installation, nil)
	}
	key, err := mtls.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := r.sign(csr, identity(7))
	if err != nil {
		t.Fatal(err)
	}
	other := newRogue(t) // of the same names, with a root of its own
	for _, c := range []struct {
		name string
		conf *tls.Config
		says string
	}{
		{"D2 an agent's certificate in the relay's place", nobodyServer(chain, key), ""},
		{"D13 a relay of another installation below the same root", issue("in_other"), "in_other"},
		{"D13 an old certificate of the relay", issue(installation, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "not valid"},
		{"Z24 ended two days ago by the agent's clock", issue(installation, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-72*time.Hour), time.Now().Add(-48*time.Hour)
		}), "clock"},
		{"Z24 begins in two days by the agent's clock", issue(installation, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(48*time.Hour), time.Now().Add(72*time.Hour)
		}), "clock"},
		{"Z24 begins in 2099", issue(installation, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
		}), "clock"},
		{"D26 led to another relay", other.tls, "not issued by this installation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := &impostor{conf: c.conf}
			s.kill()
			s.log = &testenv.Log{}
			s.start(t) // anew, rather than wait out its growing patience
			s.away(t, m, 2, i.serve)
			if i.said.Load() > 0 || i.done.Load() > 0 {
				t.Errorf("the agent took part in %d handshakes and said %d bytes", i.done.Load(), i.said.Load())
			}
			if !strings.Contains(s.log.String(), c.says) {
				t.Errorf("the log does not say %q", c.says)
			}
		})
	}
}

// nobodyServer is TLS for the relay's place with any certificate.
func nobodyServer(chain [][]byte, key any) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}}, NextProtos: []string{protocol.ALPNTunnel}, ClientAuth: tls.RequestClientCert}
}

// publicName is a certificate for a name that signs itself.
func publicName(name string) *x509.Certificate {
	return &x509.Certificate{IsCA: true, BasicConstraintsValid: true, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
}

// interceptionRows: D9, TLS is broken open by somebody whom all the world trusts, but for the agent.
func interceptionRows(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, publicName("localhost"), nil, nil)
	ca := filepath.Join(dir, "public.pem")
	write(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	t.Run("D9 a public CA on TCP alone", func(t *testing.T) {
		s, m := behind(t, newRogue(t), ", transport: tcp", "SSL_CERT_FILE="+ca)
		i := &impostor{conf: nobodyServer([][]byte{cert.Raw}, key)}
		s.away(t, m, 3, i.serve)
		if i.done.Load() > 0 || i.said.Load() > 0 {
			t.Errorf("the agent took part in %d handshakes and said %d bytes", i.done.Load(), i.said.Load())
		}
		if !strings.Contains(s.log.String(), "intercept") {
			t.Error("the log does not tell of interception")
		}
	})
	t.Run("D9 a public CA inside and outside of a WebSocket", func(t *testing.T) {
		s, m := behind(t, newRogue(t), "", "SSL_CERT_FILE="+ca)
		i := &impostor{conf: nobodyServer([][]byte{cert.Raw}, key)}
		var asked, inner atomic.Int64
		coat := &tls.Config{Certificates: i.conf.Certificates, NextProtos: []string{"http/1.1"}}
		s.away(t, m, 4, func(c net.Conn) {
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			tc := tls.Server(c, coat)
			if tc.Handshake() != nil {
				return
			}
			q := &once{conn: tc, done: make(chan struct{})}
			srv := &http.Server{ErrorLog: testLog(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer q.Close()
				asked.Add(1)
				for name := range r.Header {
					if !strings.HasPrefix(name, "Sec-Websocket") && name != "Upgrade" && name != "Connection" && name != "User-Agent" {
						t.Errorf("the agent tells whoever listens %s: %q", name, r.Header[name])
					}
				}
				ws, err := websocket.Accept(w, r)
				if err != nil {
					t.Error(err)
					return
				}
				defer ws.Close()
				i.serve(ws)
				inner.Add(1)
			})}
			_ = srv.Serve(q)
		})
		if asked.Load() == 0 || inner.Load() == 0 {
			t.Error("the agent did not try the other way, so this test proves less")
		}
		if i.done.Load() > 0 || i.said.Load() > 0 {
			t.Errorf("the agent took part in %d handshakes and said %d bytes", i.done.Load(), i.said.Load())
		}
	})
}

// once is a listener of one conn, which ends when that is served.
type once struct {
	conn  net.Conn
	taken atomic.Bool
	end   sync.Once
	done  chan struct{}
}

func (o *once) Accept() (net.Conn, error) {
	if o.taken.CompareAndSwap(false, true) {
		return o.conn, nil
	}
	<-o.done
	return nil, net.ErrClosed
}
func (o *once) Close() error   { o.end.Do(func() { close(o.done) }); return nil }
func (o *once) Addr() net.Addr { return o.conn.LocalAddr() }

// proxyRows: D24, a proxy that does what it likes costs the agent nothing and learns nothing but its own password.
func proxyRows(t *testing.T) {
	const password = "Pr0xy-" + canary
	dir := t.TempDir()
	write(t, filepath.Join(dir, "proxy.pw"), []byte(password))
	r := newRogue(t)
	m := newMiddle(t, r.addr)
	honest := func(c net.Conn) {
		br := bufio.NewReader(c)
		req, err := http.ReadRequest(br)
		if err != nil || req.Method != http.MethodConnect || req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("svc:"+password)) {
			_, _ = io.WriteString(c, "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n")
			return
		}
		out, err := net.Dial("tcp", r.addr)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() { defer close(done); _, _ = io.Copy(out, br); reset(out) }()
		_, _ = io.Copy(c, out)
		reset(c)
		<-done
	}
	m.replace(honest)
	s := newSite(t, r, fmt.Sprintf("relay: {addresses: [%q], proxy: {url: \"http://%s\", username: svc, password_file: %s}}\n", r.addr, m.addr, filepath.Join(dir, "proxy.pw"))+littleYAML)
	answer := func(text string, more []byte) func(net.Conn) {
		return func(c net.Conn) {
			_ = c.SetDeadline(time.Now().Add(3 * time.Second))
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, err := io.WriteString(c, text)
			for err == nil && more != nil {
				_, err = c.Write(more)
			}
		}
	}
	for name, f := range map[string]func(net.Conn){
		"407 for ever":        answer("HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n", nil),
		"NTLM":                answer("HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n", nil),
		"200, and a page":     answer("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>sign in, svc:"+password+"</html>", nil),
		"echo of what it got": answer("HTTP/1.1 403 "+password+"\r\nX: "+base64.StdEncoding.EncodeToString([]byte("svc:"+password))+"\r\nContent-Length: 0\r\n\r\n", nil),
		"headers for ever":    answer("HTTP/1.1 200 OK\r\n", []byte("X-A: "+strings.Repeat("a", 2000)+"\r\n")),
		"a body for ever":     answer("HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\r\n", bytes.Repeat([]byte("a"), 64<<10)),
		"redirect":            answer("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", nil),
		"reset":               reset,
	} {
		t.Run("D24 "+name, func(t *testing.T) {
			s.log = &testenv.Log{}
			s.kill()
			m.replace(honest)
			s.start(t) // anew, rather than wait out its growing patience
			dials := m.conns.Load()
			m.replace(f)
			s.relay.drop(t, s.id)
			testenv.Eventually(t, "the agent tries again and again", func() bool { return m.conns.Load() >= dials+2 })
			m.replace(honest)
			hellos := r.helloCount(s.id)
			testenv.Eventually(t, "the agent is back by itself", func() bool { return r.helloCount(s.id) > hellos || s.connected() })
			s.healthy(t)
			for _, secret := range []string{password, base64.StdEncoding.EncodeToString([]byte("svc:" + password))} {
				if strings.Contains(s.log.String(), secret) {
					t.Error("the proxy's password stands in the log")
				}
			}
			if len(s.log.String()) > 64<<10 {
				t.Error("the log was filled")
			}
		})
	}
}

// connected says whether the relay has a tunnel of the agent.
func (s *site) connected() bool {
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	return s.relay.tunnels[s.id] != nil
}

// frameRows: D16 from the relay's side.
func frameRows(t *testing.T) {
	r := newRogue(t)
	s, m := behind(t, r, ", transport: tcp")
	floods := map[string]func(id uint32) []byte{
		"flood of opens": func(id uint32) []byte { return frame(frameWindow, syn, id, 0) },
		"rapid reset": func(id uint32) []byte {
			return append(frame(frameWindow, syn, id, 0), frame(frameWindow, rst, id, 0)...)
		},
		"flood of pings":   func(id uint32) []byte { return frame(framePing, syn, 0, id) },
		"flood of go away": func(uint32) []byte { return frame(frameGoAway, 0, 0, 0) },
	}
	try := func(name string, send func(*tls.Conn), ends bool) {
		t.Run("D16 "+name, func(t *testing.T) {
			s.kill()
			s.start(t)
			var shaken atomic.Int64
			before := s.rss(t)
			s.away(t, m, 2, func(c net.Conn) {
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				tc := tls.Server(c, r.tls)
				if tc.Handshake() != nil {
					return
				}
				shaken.Add(1)
				send(tc)
				if ends {
					started := time.Now()
					_, _ = io.Copy(io.Discard, tc)
					if took := time.Since(started); took > 10*time.Second {
						t.Errorf("the agent held the conn for %s", took)
					}
				}
			})
			if shaken.Load() == 0 {
				t.Error("the frames were never sent")
			}
			if grown := s.rss(t) - before; grown > 100<<20 {
				t.Errorf("the agent grew by %d MiB", grown>>20)
			}
		})
	}
	for name, frames := range brokenFrames(2) {
		try(name, func(c *tls.Conn) { _, _ = c.Write(frames) }, true)
	}
	for name, next := range floods {
		try(name, func(c *tls.Conn) {
			id := uint32(2)
			_, _ = pour(c, time.Second, func(int) []byte {
				var batch []byte
				for range 100 {
					batch = append(batch, next(id)...)
					id += 2
				}
				return batch
			})
		}, false)
	}
}

// renewalRows: D14, an agent that is killed at whatever moment of a renewal has a certificate and its key: the old, or the new.
func renewalRows(t *testing.T) {
	s := newLittle(t)
	var old, renewed int
	for range 12 {
		before := leafOf(t, s.data())
		s.renewNow(t)
		<-time.After(time.Duration(mathrand.IntN(40)) * time.Millisecond)
		s.kill()
		if leafOf(t, s.data()).Equal(before) { // it reads, and its key fits
			old++
		} else {
			renewed++
		}
		s.start(t)
		s.works(t)
	}
	t.Logf("D14: killed %d times with the old certificate, %d with the new one", old, renewed)
	s.healthy(t)
}

func write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
