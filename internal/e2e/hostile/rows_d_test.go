//go:build linux

package hostile_test

import (
	"bufio"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// TestHostileAgent is 4.D from the agent's side: with and without a valid certificate, against the real relay, beside an
// agent that is honest and must not notice.
func TestHostileAgent(t *testing.T) {
	h := newHouse(t, "", "")
	identityRows(t, h)
	enrolmentRows(t, h)
	floodRows(t, h)
	webSocketRows(t, h)
	exposureRows(t, h)
}

// refused asserts that TLS with these settings comes to nothing: an alert, and not a byte besides.
func (h *house) refused(t *testing.T, conf *tls.Config) {
	t.Helper()
	var op *net.OpError
	if n, err := h.knock(t, conf); n > 0 || !errors.As(err, &op) || op.Op != "remote error" {
		t.Errorf("want an alert and no byte, got %d bytes, %v", n, err)
	}
}

// knock tries for a tunnel with conf, and reports how many bytes of data came and how it ended.
func (h *house) knock(t *testing.T, conf *tls.Config) (int, error) {
	t.Helper()
	raw, err := net.DialTimeout("tcp", h.address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer reset(raw)
	c := tls.Client(raw, conf)
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	n, err := 0, c.Handshake()
	if err == nil { // in TLS 1.3 the refusal comes with the first read
		n, err = c.Read(make([]byte, 1))
	}
	return n, err
}

// nobody is TLS for a tunnel with any certificate.
func nobody(alpn string, chain [][]byte, key crypto.PrivateKey) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}
	if chain != nil {
		// GetClientCertificate, for Certificates is not sent when the server names other issuers.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: chain, PrivateKey: key}, nil
		}
	}
	return c
}

// bigRSA is a key that is dear to check against and cannot sign.
type bigRSA struct{ rsa.PublicKey }

func (b bigRSA) Public() crypto.PublicKey { return &b.PublicKey }
func (b bigRSA) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, b.Size()), nil
}

func identityRows(t *testing.T, h *house) {
	me := h.enrol(t, "rogue")
	victim := mtls.Identity{Installation: me.Installation, Role: mtls.RoleAgent, Workspace: me.Workspace, Group: me.Group, ID: h.id}
	// Another installation that calls itself by the same names.
	other := mtlstest.New(t)
	theirs := other.Workspace(t, me.Installation, me.Workspace).Leaf(t, victim, nil)
	self := mtlstest.New(t, func(c *x509.Certificate) {
		c.IsCA, c.URIs, c.KeyUsage, c.ExtKeyUsage = false, []*url.URL{victim.URI()}, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	stranger := other.Leaf(t, mtls.Identity{Installation: me.Installation, Role: mtls.RoleRelay, ID: "rel_x"}, nil)
	below := me.Keypair.Chain()[:2:2] // leaf, workspace's CA
	victimLeaf := leafOf(t, h.path("agent")).Raw

	h.row(t, "D1 certificates and versions", func(t *testing.T) {
		for name, conf := range map[string]*tls.Config{
			"no certificate":            nobody(protocol.ALPNTunnel, nil, nil),
			"self-made":                 nobody(protocol.ALPNTunnel, [][]byte{self.Cert.Raw}, self.Key),
			"another CA":                nobody(protocol.ALPNTunnel, theirs.Keypair(t).Chain(), theirs.Key),
			"another CA's leaf, our CA": nobody(protocol.ALPNTunnel, [][]byte{theirs.Cert.Raw, below[1]}, theirs.Key),
			"no key for it":             nobody(protocol.ALPNTunnel, [][]byte{victimLeaf, below[1]}, theirs.Key),
			"RSA of 16384 bits":         huge(t, other),
		} {
			t.Run(name, func(t *testing.T) {
				before := cpuOf(t, h.relay.pid())
				h.refused(t, conf)
				if used := cpuOf(t, h.relay.pid()) - before; used > 500*time.Millisecond {
					t.Errorf("it cost the relay %s of CPU", used)
				}
			})
		}
		for name, edit := range map[string]func(*tls.Config){
			"TLS 1.2":     func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
			"TLS 1.0":     func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 },
			"other curve": func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521} },
		} {
			t.Run(name, func(t *testing.T) {
				c := tlsOf(me)
				edit(c)
				h.refused(t, c)
			})
		}
		// What all of them lack is the certificate alone.
		if _, err := h.dial(t, me); err != nil {
			t.Errorf("with its own certificate: %v", err)
		}
	})
	h.row(t, "D2 a certificate in another's place", func(t *testing.T) {
		h.refused(t, nobody(protocol.ALPNTunnel, stranger.Keypair(t).Chain(), stranger.Key))
		// An agent's certificate is no token of the API.
		conf := h.people("http/1.1")
		conf.Certificates = []tls.Certificate{me.Keypair.Certificate()}
		c := h.tls(t, conf)
		_, _ = io.WriteString(c, "GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %v, %v", resp, err)
		}
	})
	h.row(t, "D6 nothing is resumed", func(t *testing.T) {
		for _, alpn := range []string{protocol.ALPNTunnel, protocol.ALPNLane, protocol.ALPNEnroll} {
			conf := tlsOf(me)
			conf.NextProtos, conf.VerifyConnection = []string{alpn}, nil
			conf.ClientSessionCache, conf.ServerName = tls.NewLRUClientSessionCache(8), "relay"
			for range 2 {
				c := h.tls(t, conf)
				_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)) // a ticket would come now
				_, _ = c.Read(make([]byte, 1))
				if c.ConnectionState().DidResume {
					t.Errorf("%s: a session was resumed", alpn)
				}
				reset(c.NetConn())
			}
			if s, ok := conf.ClientSessionCache.Get("relay"); ok {
				t.Errorf("%s: a ticket came: %v", alpn, s)
			}
		}
	})
	h.row(t, "D27 filler in the chain", func(t *testing.T) {
		forged := append([][]byte{theirs.Cert.Raw}, me.Keypair.Chain()...)
		h.refused(t, nobody(protocol.ALPNTunnel, forged, theirs.Key))
		h.refused(t, nobody(protocol.ALPNTunnel, append([][]byte{victimLeaf}, me.Keypair.Chain()...), me.Keypair.Key()))
		// The real leaf with the victim's after it is the real leaf, and nobody else.
		c := h.tls(t, nobody(protocol.ALPNTunnel, append(me.Keypair.Chain(), victimLeaf), me.Keypair.Key()))
		hello := post(protocol.PathHello, plainHello)
		_, _ = c.Write(frame(frameData, syn, 1, uint32(len(hello)), []byte(hello)...))
		testenv.Eventually(t, "the rogue's tunnel", func() bool { return h.tunnels(t, me.Agent) == 1 })
		if n := h.tunnels(t, h.id); n != 1 {
			t.Errorf("the victim has %d tunnels", n)
		}
	})
	h.row(t, "D28 every kind of conn without an identity", func(t *testing.T) {
		for _, alpn := range []string{protocol.ALPNTunnel, protocol.ALPNLane} {
			h.refused(t, nobody(alpn, nil, nil))
			h.refused(t, nobody(alpn, [][]byte{self.Cert.Raw}, self.Key))
			h.refused(t, nobody(alpn, theirs.Keypair(t).Chain(), theirs.Key))
			h.refused(t, nobody(alpn, stranger.Keypair(t).Chain(), stranger.Key))
		}
		// A protocol of yesterday, or of tomorrow, is none.
		for _, alpn := range []string{"fairlead/0", "fairlead/2", "fairlead", "fairlead-lane/0", "FAIRLEAD/1"} {
			raw, err := net.Dial("tcp", h.address)
			if err != nil {
				t.Fatal(err)
			}
			c := tls.Client(raw, nobody(alpn, me.Keypair.Chain(), me.Keypair.Key()))
			if err := c.Handshake(); err == nil {
				t.Errorf("%s is spoken as %q", alpn, c.ConnectionState().NegotiatedProtocol)
			}
			reset(raw)
		}
		// A lane wants a ticket besides.
		conf := tlsOf(me)
		conf.NextProtos = []string{protocol.ALPNLane}
		c := h.tls(t, conf)
		_, _ = c.Write(make([]byte, 64))
		if said := ended(t, c, 15*time.Second); len(said) > 64 {
			t.Errorf("a lane without a ticket says %.100q", said)
		}
	})
	h.row(t, "D5 disabled in the middle", func(t *testing.T) {
		tn, err := h.dial(t, me)
		if err != nil {
			t.Fatal(err)
		}
		if status := say(t, tn, post(protocol.PathHello, plainHello)); status != http.StatusOK {
			t.Fatalf("hello: %d", status)
		}
		silent, err := h.dial(t, me)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.client.DisableAgent(t.Context(), me.Agent); err != nil {
			t.Fatal(err)
		}
		select {
		case <-tn.Done():
		case <-time.After(5 * time.Second):
			t.Error("the tunnel stands")
		}
		// One that has said nothing yet has no right, and gets none any more.
		if status := say(t, silent, post(protocol.PathHello, plainHello)); status != http.StatusForbidden {
			t.Errorf("hello after it was disabled: %d", status)
		}
		for _, alpn := range []string{protocol.ALPNTunnel, protocol.ALPNLane} {
			conf := tlsOf(me)
			conf.NextProtos = []string{alpn}
			h.refused(t, conf)
		}
	})
}

// say sends a request on a stream of its own and gives the status of the answer; 0: there was none.
func say(t testing.TB, tn tunnel.Tunnel, text string) int {
	t.Helper()
	s, err := tn.Open(t.Context())
	if err != nil {
		return 0
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(s, text)
	resp, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		return 0
	}
	return resp.StatusCode
}

// huge is a leaf with a key of 16384 bits: it must be refused by its length.
func huge(t *testing.T, ca *mtlstest.Cert) *tls.Config {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 16384))
	if err != nil {
		t.Fatal(err)
	}
	key := bigRSA{rsa.PublicKey{N: n.SetBit(n, 16383, 1).SetBit(n, 0, 1), E: 65537}}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, ca.Cert, &key.PublicKey, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return nobody(protocol.ALPNTunnel, [][]byte{der}, key)
}

func enrolmentRows(t *testing.T, h *house) {
	h.row(t, "D10 the token is in no argument and no log", func(t *testing.T) {
		b, err := os.ReadFile(h.path("join.token"))
		if err != nil {
			t.Fatal(err)
		}
		tok, err := mtls.ParseJoinToken(string(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []*running{h.relay, h.agent} {
			args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid()))
			if err != nil || len(args) == 0 {
				t.Fatal(err)
			}
			for _, text := range []string{string(args), p.log.String()} {
				if strings.Contains(text, string(b)) || strings.Contains(text, tok.SecretText()) {
					t.Error("the join token is there to read")
				}
			}
		}
		// It is used: whoever has it late is told so, and gets nothing.
		_, err = enroll.Enroll(t.Context(), enroll.Request{Dir: h.path("late"), Addrs: tok.Addrs, Pin: tok.Pin, Secret: tok.SecretText(), Dial: (&net.Dialer{}).DialContext})
		var e *protocol.Error
		if !errors.As(err, &e) || e.Code != protocol.CodeConflict {
			t.Errorf("replayed: %v", err)
		}
	})
	h.row(t, "D29 who asks does not choose the issuer", func(t *testing.T) {
		ask := func(token, more, headers string) (int, protocol.EnrollResponse) {
			key, err := mtls.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := json.Marshal(protocol.EnrollRequest{Token: token, CSR: csr, Name: "x", LogKey: make([]byte, 32)})
			text := strings.TrimSuffix(string(body), "}") + more + "}"
			c := h.tls(t, h.people(protocol.ALPNEnroll))
			_, _ = io.WriteString(c, strings.Replace(post(protocol.PathEnroll, text), "\r\n\r\n", headers+"\r\n\r\n", 1))
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			var out protocol.EnrollResponse
			_ = json.NewDecoder(resp.Body).Decode(&out)
			return resp.StatusCode, out
		}
		secretOf := func() string {
			tok, err := mtls.ParseJoinToken(h.token(t))
			if err != nil {
				t.Fatal(err)
			}
			return tok.SecretText()
		}
		status, out := ask(secretOf(), fmt.Sprintf(`,"workspace":"ws_other","group":"grp_other","agent":%q,"issuer":"root","audience":"relay","chain":["eA=="],"root":"eA=="`, h.id), "\r\nX-Workspace: ws_other\r\nX-Fairlead-Issuer: root\r\nForwarded: host=other")
		if status == http.StatusOK && (out.Workspace == "ws_other" || out.Group == "grp_other" || out.Agent == h.id) {
			t.Errorf("it chose: %+v", out)
		} else if status != http.StatusOK && status/100 != 4 {
			t.Errorf("status %d", status)
		}
		// What was made for another door opens none here, and the other way round.
		admin, err := os.ReadFile(h.path("admin.token"))
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{strings.TrimSpace(string(admin)), "", "eyJhbGciOiJub25lIn0.eyJhdWQiOiJyZWxheSJ9."} {
			if status, out := ask(token, "", ""); status/100 != 4 || out.Agent != "" {
				t.Errorf("%.8q: status %d", token, status)
			}
		}
		c := h.tls(t, h.people("http/1.1"))
		_, _ = fmt.Fprintf(c, "GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", secretOf())
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a join token at the API: %v, %v", resp, err)
		}
	})
}
