package mtls_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/protocol"
)

type edit = func(*x509.Certificate)

// meet lets both sides shake hands over TCP and send a byte each way. ok only if both bytes arrived.
func meet(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		c := tls.Server(conn, server)
		if err := c.Handshake(); err != nil {
			done <- err
			return
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			done <- err
			return
		}
		_, err = c.Write([]byte("x"))
		done <- err
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	c := tls.Client(raw, client)
	if clientErr = c.Handshake(); clientErr == nil {
		if _, clientErr = c.Write([]byte("x")); clientErr == nil {
			_, clientErr = io.ReadFull(c, make([]byte, 1))
		}
	}
	_ = raw.Close()
	return clientErr, <-done
}

type site struct {
	root, workspace, agent, relay *mtlstest.Cert
}

func newSite(t testing.TB) *site {
	s := &site{root: mtlstest.New(t)}
	s.workspace = s.root.Workspace(t, "in_test", "ws_test")
	s.agent = s.workspace.Leaf(t, mtlstest.Agent, nil)
	s.relay = s.root.Leaf(t, mtlstest.Relay, nil)
	return s
}

func (s *site) client(t testing.TB, c *mtlstest.Cert, extra ...*mtlstest.Cert) *tls.Config {
	return mtls.AgentTLS(c.Reloader(t, extra...), s.root.Pool(), "in_test")
}

func (s *site) server(t testing.TB, c *mtlstest.Cert, extra ...*mtlstest.Cert) *tls.Config {
	return mtls.TunnelTLS(c.Reloader(t, extra...), s.root.Pool(), "in_test", nil)
}

func TestTunnelHandshake(t *testing.T) {
	s := newSite(t)
	var seen mtls.Identity
	server := mtls.TunnelTLS(s.relay.Reloader(t), s.root.Pool(), "in_test", func(i mtls.Identity, c *x509.Certificate) error {
		seen = i
		if !c.Equal(s.agent.Cert) {
			t.Error("check was given another certificate")
		}
		return nil
	})
	if c, r := meet(t, s.client(t, s.agent), server); c != nil || r != nil {
		t.Fatalf("client %v, server %v", c, r)
	}
	if seen != mtlstest.Agent {
		t.Fatalf("seen %v", seen)
	}
}

// Whatever certificate an agent shows but its own good one: no byte passes.
func TestRelayRefusesAgent(t *testing.T) {
	s := newSite(t)
	other := newSite(t)
	otherWS := s.root.Workspace(t, "in_test", "ws_other")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	leaf := func(k crypto.Signer, e ...edit) *mtlstest.Cert { return s.workspace.Leaf(t, mtlstest.Agent, k, e...) }
	victimID := mtls.Identity{Installation: "in_test", Role: mtls.RoleAgent, Workspace: "ws_test", Group: "g", ID: "agt_victim"}
	victim := s.workspace.Leaf(t, victimID, nil)
	forged := other.workspace.Leaf(t, victimID, nil)

	cases := map[string]*tls.Config{
		"D1 self-made":           s.client(t, mtlstest.New(t, func(c *x509.Certificate) { *c = selfMade(*c) })),
		"D1 another CA":          s.client(t, other.agent),
		"D1 expired":             s.client(t, leaf(nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })),
		"D1 not yet valid":       s.client(t, leaf(nil, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })),
		"D1 wrong usage":         s.client(t, leaf(nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })),
		"D1 any usage":           s.client(t, leaf(nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })),
		"D1 no usage":            s.client(t, leaf(nil, func(c *x509.Certificate) { c.ExtKeyUsage = nil })),
		"D1 both usages":         s.client(t, leaf(nil, func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) })),
		"D1 wrong tenant CA":     s.client(t, otherWS.Leaf(t, mtlstest.Agent, nil)),
		"D1 issued by the root":  s.client(t, s.root.Leaf(t, mtlstest.Agent, nil)),
		"D1 RSA key":             s.client(t, leaf(rsaKey)),
		"D1 P-224 key":           s.client(t, leaf(key(elliptic.P224()))),
		"D1 P-521 key":           s.client(t, leaf(key(elliptic.P521()))),
		"D1 expired CA":          s.client(t, s.root.Workspace(t, "in_test", "ws_test", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }).Leaf(t, mtlstest.Agent, nil)),
		"D2 relay's certificate": s.client(t, s.relay),
		"D2 relay role from a workspace's CA": s.client(t, s.workspace.Leaf(t, mtlstest.Relay, nil, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})),
		"wrong installation": s.client(t, s.root.Workspace(t, "in_other", "ws_test").Leaf(t, mtls.Identity{
			Installation: "in_other", Role: mtls.RoleAgent, Workspace: "ws_test", Group: "g", ID: "a"}, nil)),
		"no URI":                     s.client(t, leaf(nil, func(c *x509.Certificate) { c.URIs = nil })),
		"two URIs":                   s.client(t, leaf(nil, func(c *x509.Certificate) { c.URIs = append(c.URIs, victim.Cert.URIs[0]) })),
		"a name beside the identity": s.client(t, leaf(nil, func(c *x509.Certificate) { c.DNSNames = []string{"relay.example"} })),
		"CA as leaf":                 s.client(t, leaf(nil, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })),
		"workspace's CA itself":      s.client(t, s.workspace),
		"D27 forged leaf, real certificate as filler": s.client(t, forged, s.agent, s.workspace, s.root),
		"D27 forged leaf, real filler right after it": {InsecureSkipVerify: true, NextProtos: []string{protocol.ALPNTunnel},
			Certificates: []tls.Certificate{{Certificate: [][]byte{forged.Cert.Raw, victim.Cert.Raw, s.workspace.Cert.Raw}, PrivateKey: forged.Key}}},
		"D27 victim's leaf without its key": {InsecureSkipVerify: true, NextProtos: []string{protocol.ALPNTunnel},
			Certificates: []tls.Certificate{{Certificate: [][]byte{victim.Cert.Raw, s.workspace.Cert.Raw}, PrivateKey: s.agent.Key}}},
		"D28 leaf signed by an agent's leaf": s.client(t, s.agent.Leaf(t, victimID, nil)),
	}
	cases["D1 no certificate"] = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol.ALPNTunnel}}
	for name, max := range map[string]uint16{"D1 TLS 1.2": tls.VersionTLS12, "D1 TLS 1.0": tls.VersionTLS10} {
		c := s.client(t, s.agent)
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, max
		cases[name] = c
	}
	weak := s.client(t, s.agent)
	weak.CurvePreferences = []tls.CurveID{tls.CurveP521}
	cases["D1 weak curves"] = weak
	alpn := s.client(t, s.agent)
	alpn.NextProtos = []string{"fairlead/99"}
	cases["another protocol"] = alpn
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			checked := false
			server := mtls.TunnelTLS(s.relay.Reloader(t), s.root.Pool(), "in_test",
				func(mtls.Identity, *x509.Certificate) error { checked = true; return nil })
			ce, se := meet(t, c, server)
			if ce == nil || se == nil {
				t.Errorf("client %v, server %v", ce, se)
			}
			// TLS asks for the proof of possession last.
			if checked && name != "D27 victim's leaf without its key" {
				t.Error("it got as far as the revocation check")
			}
		})
	}
	// The same from a verifier that has seen good agents of each workspace before, and each of the strangers.
	v := mtls.NewVerifier(s.root.Pool(), mtls.RoleAgent)
	checked := false
	warm := v.TunnelTLS(s.relay.Reloader(t), "in_test", func(mtls.Identity, *x509.Certificate) error { checked = true; return nil })
	for range 2 {
		for _, good := range []*mtlstest.Cert{s.agent, victim, otherWS.Leaf(t, mtls.Identity{Installation: "in_test", Role: mtls.RoleAgent, Workspace: "ws_other", Group: "g", ID: "a"}, nil)} {
			if ce, se := meet(t, s.client(t, good), warm); ce != nil || se != nil {
				t.Fatalf("client %v, server %v", ce, se)
			}
		}
		for name, c := range cases {
			t.Run("remembered: "+name, func(t *testing.T) {
				checked = false
				if ce, se := meet(t, c, warm); ce == nil || se == nil {
					t.Errorf("client %v, server %v", ce, se)
				}
				if checked && name != "D27 victim's leaf without its key" {
					t.Error("it got as far as the revocation check")
				}
			})
		}
	}
	t.Run("D27 real leaf, victim's certificate as filler is the real leaf", func(t *testing.T) {
		var seen mtls.Identity
		server := mtls.TunnelTLS(s.relay.Reloader(t), s.root.Pool(), "in_test",
			func(i mtls.Identity, _ *x509.Certificate) error { seen = i; return nil })
		ce, se := meet(t, s.client(t, s.agent, victim), server)
		if ce != nil || se != nil || seen != mtlstest.Agent {
			t.Errorf("client %v, server %v, seen %v", ce, se, seen)
		}
	})
}

func selfMade(c x509.Certificate) x509.Certificate {
	c.IsCA, c.BasicConstraintsValid = false, false
	c.URIs = []*url.URL{mtlstest.Agent.URI()}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return c
}

// Whatever a false relay shows: the agent sends no byte.
func TestAgentRefusesRelay(t *testing.T) {
	s := newSite(t)
	other := newSite(t)
	leaf := func(e ...edit) *mtlstest.Cert { return s.root.Leaf(t, mtlstest.Relay, nil, e...) }
	forged := other.root.Leaf(t, mtlstest.Relay, nil)
	cases := map[string]struct {
		cert *tls.Config
		want error
	}{
		"D9 another CA (interception)": {s.server(t, other.relay), mtls.ErrUntrusted},
		"D9 no chain": {&tls.Config{NextProtos: []string{protocol.ALPNTunnel}, Certificates: []tls.Certificate{
			{Certificate: [][]byte{forged.Cert.Raw}, PrivateKey: forged.Key}}}, mtls.ErrUntrusted},
		"D27 forged leaf, real certificate as filler": {s.server(t, forged, s.relay, s.root), mtls.ErrUntrusted},
		"Z24 expired":                             {s.server(t, leaf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })), mtls.ErrValidity},
		"Z24 not yet valid":                       {s.server(t, leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })), mtls.ErrValidity},
		"D2 agent's certificate":                  {s.server(t, s.agent), nil},
		"D2 agent's with the usage of a server":   {s.server(t, s.workspace.Leaf(t, mtlstest.Agent, nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), nil},
		"relay made by a workspace's CA":          {s.server(t, s.workspace.Leaf(t, mtlstest.Relay, nil)), nil},
		"relay made by a workspace's CA, any use": {s.server(t, s.root.Workspace(t, "in_test", "ws_test", func(c *x509.Certificate) { c.ExtKeyUsage = nil }).Leaf(t, mtlstest.Relay, nil)), nil},
		"D13 relay of another installation, same root": {s.server(t, s.root.Leaf(t, mtls.Identity{
			Installation: "in_other", Role: mtls.RoleRelay, ID: "rel_x"}, nil)), mtls.ErrUntrusted},
		"no identity": {s.server(t, leaf(func(c *x509.Certificate) { c.URIs = nil; c.DNSNames = []string{"relay.example"} })), nil},
	}
	warm := s.client(t, s.agent)
	for _, client := range []*tls.Config{s.client(t, s.agent), warm} {
		if client == warm { // it has seen the good relay
			if ce, se := meet(t, warm, s.server(t, s.relay)); ce != nil || se != nil {
				t.Fatalf("client %v, server %v", ce, se)
			}
		}
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				ce, se := meet(t, client, c.cert)
				if ce == nil || se == nil {
					t.Fatalf("client %v, server %v", ce, se)
				}
				if c.want != nil && !errors.Is(ce, c.want) {
					t.Fatalf("client %v, want %v", ce, c.want)
				}
			})
		}
	}
	t.Run("D1 TLS 1.2", func(t *testing.T) {
		c := s.server(t, s.relay)
		c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		if ce, se := meet(t, s.client(t, s.agent), c); ce == nil || se == nil {
			t.Fatalf("client %v, server %v", ce, se)
		}
	})
}

func TestRevokedIsRefused(t *testing.T) {
	s := newSite(t)
	revoked := errors.New("revoked")
	spki := mtls.Pin(s.agent.Cert)
	server := mtls.TunnelTLS(s.relay.Reloader(t), s.root.Pool(), "in_test", func(_ mtls.Identity, c *x509.Certificate) error {
		if bytes.Equal(mtls.Pin(c), spki) {
			return revoked
		}
		return nil
	})
	t.Run("D5 revoked certificate", func(t *testing.T) {
		if ce, se := meet(t, s.client(t, s.agent), server); ce == nil || !errors.Is(se, revoked) {
			t.Fatalf("client %v, server %v", ce, se)
		}
	})
	t.Run("D5 signature written in another way", func(t *testing.T) {
		// (r, s) and (r, n-s) are both signatures: the certificate's hash changes, its key does not.
		twin := &mtlstest.Cert{Key: s.agent.Key, Above: s.agent.Above, Cert: remake(t, s.agent.Cert)}
		if bytes.Equal(twin.Cert.Raw, s.agent.Cert.Raw) || twin.Cert.CheckSignatureFrom(s.workspace.Cert) != nil {
			t.Fatal("the twin is none")
		}
		if ce, se := meet(t, s.client(t, twin), server); ce == nil || !errors.Is(se, revoked) {
			t.Fatalf("client %v, server %v", ce, se)
		}
	})
}

// remake replaces s by n-s in the signature of c.
func remake(t *testing.T, c *x509.Certificate) *x509.Certificate {
	var outer struct {
		TBS asn1.RawValue
		Alg asn1.RawValue
		Sig asn1.BitString
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(c.Raw, &outer); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(outer.Sig.Bytes, &sig); err != nil {
		t.Fatal(err)
	}
	sig.S.Sub(elliptic.P256().Params().N, sig.S)
	b, err := asn1.Marshal(sig)
	if err != nil {
		t.Fatal(err)
	}
	outer.Sig = asn1.BitString{Bytes: b, BitLength: 8 * len(b)}
	der, err := asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return twin
}

func TestNoResumption(t *testing.T) {
	s := newSite(t)
	server := s.server(t, s.relay)
	client := s.client(t, s.agent)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	verified := 0
	verify := server.VerifyConnection
	server.VerifyConnection = func(cs tls.ConnectionState) error {
		verified++
		if cs.DidResume {
			t.Error("D6 a session was resumed")
		}
		return verify(cs)
	}
	for range 3 {
		if ce, se := meet(t, client, server); ce != nil || se != nil {
			t.Fatal(ce, se)
		}
	}
	if verified != 3 {
		t.Errorf("verified %d times", verified)
	}
	for name, c := range map[string]*tls.Config{
		"agent": s.client(t, s.agent), "tunnel": server, "enroll server": mtls.EnrollServerTLS(s.relay.Reloader(t)),
		"enroll client": mtls.EnrollClientTLS(mtls.Pin(s.root.Cert)),
	} {
		if !c.SessionTicketsDisabled || c.MinVersion != tls.VersionTLS13 || c.Renegotiation != tls.RenegotiateNever {
			t.Errorf("%s: settings are not strict", name)
		}
	}
	if s.client(t, s.agent).ClientSessionCache != nil {
		t.Error("an agent caches sessions")
	}
}

func TestHybridKeyExchange(t *testing.T) {
	s := newSite(t)
	for name, c := range map[string]struct {
		client []tls.CurveID
		want   tls.CurveID
	}{
		"both":     {nil, tls.X25519MLKEM768},
		"fallback": {[]tls.CurveID{tls.X25519}, tls.X25519},
	} {
		client, server := s.client(t, s.agent), s.server(t, s.relay)
		if c.client != nil {
			client.CurvePreferences = c.client
		}
		verify := server.VerifyConnection
		server.VerifyConnection = func(cs tls.ConnectionState) error {
			if cs.CurveID != c.want {
				t.Errorf("%s: %v", name, cs.CurveID)
			}
			return verify(cs)
		}
		if ce, se := meet(t, client, server); ce != nil || se != nil {
			t.Error(name, ce, se)
		}
	}
}

func TestEnrollPin(t *testing.T) {
	s, other := newSite(t), newSite(t)
	pin := mtls.Pin(s.root.Cert)
	good := mtls.EnrollServerTLS(s.relay.Reloader(t))
	if ce, se := meet(t, mtls.EnrollClientTLS(pin), good); ce != nil || se != nil {
		t.Fatal(ce, se)
	}
	forged := other.root.Leaf(t, mtlstest.Relay, nil)
	for name, c := range map[string]*tls.Config{
		"D9 another root":            mtls.EnrollServerTLS(other.relay.Reloader(t)),
		"D27 pinned root as filler":  mtls.EnrollServerTLS(forged.Reloader(t, s.root)),
		"D27 pinned chain as filler": mtls.EnrollServerTLS(forged.Reloader(t, s.relay, s.root)),
		"D2 agent's certificate":     mtls.EnrollServerTLS(s.agent.Reloader(t)),
		"made by a workspace's CA":   mtls.EnrollServerTLS(s.workspace.Leaf(t, mtlstest.Relay, nil).Reloader(t)),
		"root is not sent":           {NextProtos: []string{protocol.ALPNEnroll}, Certificates: []tls.Certificate{{Certificate: [][]byte{s.relay.Cert.Raw}, PrivateKey: s.relay.Key}}},
		"expired":                    mtls.EnrollServerTLS(s.root.Leaf(t, mtlstest.Relay, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }).Reloader(t)),
	} {
		if ce, se := meet(t, mtls.EnrollClientTLS(pin), c); ce == nil || se == nil {
			t.Errorf("%s: client %v, server %v", name, ce, se)
		}
	}
	for name, p := range map[string][]byte{"empty": nil, "cut": pin[:31], "leaf's": mtls.Pin(s.relay.Cert)} {
		if ce, _ := meet(t, mtls.EnrollClientTLS(p), good); !errors.Is(ce, mtls.ErrUntrusted) {
			t.Errorf("%s pin: %v", name, ce)
		}
	}
}

func TestPeerIdentityWantsVerifiedChain(t *testing.T) {
	s := newSite(t)
	cs := tls.ConnectionState{PeerCertificates: []*x509.Certificate{s.agent.Cert}}
	if _, _, err := mtls.PeerIdentity(cs); !errors.Is(err, mtls.ErrUntrusted) {
		t.Errorf("certificate that was only presented: %v", err)
	}
	if _, _, err := mtls.RelayIdentity(tls.ConnectionState{PeerCertificates: []*x509.Certificate{s.relay.Cert}}, nil); !errors.Is(err, mtls.ErrUntrusted) {
		t.Errorf("no roots: %v", err)
	}
}
