package enroll_test

import (
	"bytes"
	"crypto"
	//lint:ignore SA1019 a hostile request may hold such a key
	"crypto/dsa"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/enroll"
)

var (
	agentID = mtls.Identity{Installation: "in_a", Role: mtls.RoleAgent, Workspace: "ws_a", Group: "grp_a", ID: "agt_a"}
	relayID = mtls.Identity{Installation: "in_a", Role: mtls.RoleRelay, ID: "rel_a"}
)

type house struct {
	root *enroll.Authority
	ws   *enroll.WorkspaceCA
}

func newHouse(t testing.TB) house {
	root, err := enroll.NewAuthority("in_a")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := root.NewWorkspace("ws_a")
	if err != nil {
		t.Fatal(err)
	}
	return house{root, ws}
}

func request(t testing.TB, key crypto.Signer, tpl x509.CertificateRequest) []byte {
	der, err := x509.CreateCertificateRequest(rand.Reader, &tpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newKey(t testing.TB) crypto.Signer {
	k, err := mtls.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h house) agent(t testing.TB, key crypto.Signer, ttl time.Duration) *enroll.Issued {
	r, err := enroll.ParseRequest(request(t, key, x509.CertificateRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	i, err := h.ws.SignAgent(r, agentID, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// What is issued opens a tunnel's handshake, in both directions, and survives storing.
func TestIssuedCertificatesMeet(t *testing.T) {
	h := newHouse(t)
	sealed, err := h.root.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	root, err := enroll.ParseAuthority(sealed)
	if err != nil || root.Installation() != "in_a" || !bytes.Equal(root.Pin(), h.root.Pin()) {
		t.Fatal(root, err)
	}
	sealed, err = h.ws.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	ws, err := root.ParseWorkspaceCA(sealed)
	if err != nil || ws.Workspace() != "ws_a" {
		t.Fatal(ws, err)
	}
	h = house{root, ws}
	key := newKey(t)
	issued := h.agent(t, key, time.Hour)
	pair, err := mtls.NewKeypair(issued.Chain, key)
	if err != nil {
		t.Fatal(err)
	}
	server, err := root.IssueServer([]string{"relay.example"}, []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1")}, relayID, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if len(server.Chain()) != 2 {
		t.Fatalf("the relay's chain has %d certificates", len(server.Chain()))
	}
	var seen mtls.Identity
	handshake(t, mtls.AgentTLS(mtls.NewReloader(pair), root.Pool(), "in_a"),
		mtls.TunnelTLS(mtls.NewReloader(server), root.Pool(), "in_a", func(i mtls.Identity, _ *x509.Certificate) error { seen = i; return nil }))
	if seen != agentID {
		t.Errorf("seen %v", seen)
	}
	handshake(t, mtls.EnrollClientTLS(root.Pin()), mtls.EnrollServerTLS(mtls.NewReloader(server)))
	// People's clients check names as usual.
	for _, name := range []string{"relay.example", "127.0.0.1"} {
		handshake(t, &tls.Config{RootCAs: root.Pool(), ServerName: name}, &tls.Config{GetCertificate: mtls.NewReloader(server).GetCertificate})
	}
}

func handshake(t *testing.T, client, server *tls.Config) {
	t.Helper()
	c, s := net.Pipe()
	defer c.Close()
	done := make(chan error, 1)
	go func() {
		defer s.Close()
		conn := tls.Server(s, server)
		_, err := conn.Write([]byte("x"))
		done <- err
	}()
	_, err := io.ReadFull(tls.Client(c, client), make([]byte, 1))
	if e := <-done; err != nil || e != nil {
		t.Errorf("client %v, server %v", err, e)
	}
}

func TestCertificateTemplates(t *testing.T) {
	h := newHouse(t)
	root, ws := h.root.Certificate(), h.ws.Certificate()
	if k, ok := root.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P384() {
		t.Error("root's key is not P-384")
	}
	if d := time.Until(root.NotAfter); d < 19*365*24*time.Hour {
		t.Errorf("root lives %v", d)
	}
	if !ws.MaxPathLenZero || !ws.IsCA || ws.MaxPathLen != 0 {
		t.Error("a workspace's CA may make CAs")
	}
	i := h.agent(t, newKey(t), 7*24*time.Hour)
	leaf := i.Leaf
	if d := time.Since(leaf.NotBefore); d < 5*time.Minute-time.Second || d > 6*time.Minute {
		t.Errorf("leaf reaches back %v", d)
	}
	if d := time.Until(leaf.NotAfter); d > 7*24*time.Hour || d < 7*24*time.Hour-time.Minute {
		t.Errorf("leaf lives %v", d)
	}
	if len(i.Serial) != 32 || i.Serial != enroll.Serial(leaf) || !bytes.Equal(i.SPKI, mtls.Pin(leaf)) {
		t.Errorf("serial %q", i.Serial)
	}
	if a, b := h.agent(t, newKey(t), time.Hour), h.agent(t, newKey(t), time.Hour); a.Serial == b.Serial {
		t.Error("serial numbers repeat")
	}
	// No leaf outlives its CA.
	if i := h.agent(t, newKey(t), 100*365*24*time.Hour); i.Leaf.NotAfter.After(ws.NotAfter) {
		t.Error("a leaf outlives its CA")
	}
}

func TestSignAgentRefuses(t *testing.T) {
	h := newHouse(t)
	r, err := enroll.ParseRequest(request(t, newKey(t), x509.CertificateRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	with := func(f func(*mtls.Identity)) mtls.Identity { i := agentID; f(&i); return i }
	for name, id := range map[string]mtls.Identity{
		"another workspace":    with(func(i *mtls.Identity) { i.Workspace = "ws_b" }),
		"another installation": with(func(i *mtls.Identity) { i.Installation = "in_b" }),
		"D2 relay":             relayID,
		"relay of a workspace": with(func(i *mtls.Identity) { i.Role = mtls.RoleRelay }),
		"no group":             with(func(i *mtls.Identity) { i.Group = "" }),
		"slash in the id":      with(func(i *mtls.Identity) { i.ID = "a/agent/b" }),
		"nothing":              {},
	} {
		if _, err := h.ws.SignAgent(r, id, time.Hour); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
	if _, err := h.ws.SignAgent(r, agentID, 0); err == nil {
		t.Error("no lifetime was signed")
	}
	if _, err := h.ws.SignAgent(enroll.Request{}, agentID, time.Hour); err == nil {
		t.Error("no key was signed")
	}
	for name, id := range map[string]mtls.Identity{"D2 agent": agentID, "another installation": {Installation: "in_b", Role: mtls.RoleRelay, ID: "r"}} {
		if _, err := h.root.IssueServer(nil, nil, id, time.Hour); err == nil {
			t.Errorf("%s got a relay's certificate", name)
		}
	}
	for _, bad := range []string{"", "WS", "a/b", "a.b"} {
		if _, err := h.root.NewWorkspace(bad); err == nil {
			t.Errorf("workspace %q got a CA", bad)
		}
		if _, err := enroll.NewAuthority(bad); err == nil {
			t.Errorf("installation %q got a root", bad)
		}
	}
}

// Of a hostile request only the key is taken.
func TestHostileRequestIsStripped(t *testing.T) {
	h := newHouse(t)
	evil := mtls.Identity{Installation: "in_a", Role: mtls.RoleAgent, Workspace: "ws_b", Group: "g", ID: "agt_victim"}
	ext := func(oid asn1.ObjectIdentifier, v any) pkix.Extension {
		b, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return pkix.Extension{Id: oid, Critical: true, Value: b}
	}
	for name, tpl := range map[string]x509.CertificateRequest{
		"D11 other identity": {URIs: []*url.URL{evil.URI()}},
		"D11 other names":    {DNSNames: []string{"relay.example", "*"}, EmailAddresses: []string{"a@b"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}},
		"D11 CA:true": {ExtraExtensions: []pkix.Extension{ext(asn1.ObjectIdentifier{2, 5, 29, 19}, struct {
			CA      bool
			PathLen int
		}{true, 9})}},
		"D11 every usage":       {ExtraExtensions: []pkix.Extension{ext(asn1.ObjectIdentifier{2, 5, 29, 37}, []asn1.ObjectIdentifier{{2, 5, 29, 37, 0}})}},
		"D11 key usage":         {ExtraExtensions: []pkix.Extension{ext(asn1.ObjectIdentifier{2, 5, 29, 15}, asn1.BitString{Bytes: []byte{0xff}, BitLength: 8})}},
		"D11 unknown extension": {ExtraExtensions: []pkix.Extension{ext(asn1.ObjectIdentifier{1, 2, 3, 4}, "x")}},
		"D11 subject":           {Subject: pkix.Name{CommonName: evil.String(), Organization: []string{strings.Repeat("x", 1000)}}},
		"D29 picks the issuer":  {Subject: pkix.Name{CommonName: "Fairlead in_a"}},
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey(t)
			r, err := enroll.ParseRequest(request(t, key, tpl))
			if err != nil {
				t.Fatal(err)
			}
			i, err := h.ws.SignAgent(r, agentID, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			want := h.agent(t, key, time.Hour).Leaf
			got := i.Leaf
			id, err := mtls.FromCertificate(got)
			if err != nil || id != agentID {
				t.Errorf("identity %v, %v", id, err)
			}
			if got.IsCA || got.KeyUsage != want.KeyUsage || len(got.ExtKeyUsage) != 1 || len(got.UnknownExtKeyUsage) != 0 ||
				len(got.DNSNames)+len(got.IPAddresses)+len(got.EmailAddresses) != 0 || got.Subject.String() != want.Subject.String() ||
				len(got.Extensions) != len(want.Extensions) || got.Issuer.String() != want.Issuer.String() {
				t.Error("something of the request got into the certificate")
			}
		})
	}
}

func TestRequestsRefused(t *testing.T) {
	good := request(t, newKey(t), x509.CertificateRequest{})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	unsigned := bytes.Clone(good)
	unsigned[len(unsigned)-1] ^= 1
	cases := map[string][]byte{
		"D11 empty": nil,
		"D11 1 MB of extensions": request(t, newKey(t), x509.CertificateRequest{ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, 1<<20)}}}),
		"D11 RSA key":             request(t, rsaKey, x509.CertificateRequest{}),
		"D11 P-224 key":           request(t, ec(elliptic.P224()), x509.CertificateRequest{}),
		"D11 P-521 key":           request(t, ec(elliptic.P521()), x509.CertificateRequest{}),
		"D11 signature broken":    unsigned,
		"D11 cut":                 good[:len(good)-1],
		"D11 something after":     append(bytes.Clone(good), 0),
		"D11 a certificate":       newHouse(t).root.Certificate().Raw,
		"D1 DSA key":              dsaRequest(t, good),
		"D11 another's key":       swapKey(t, good, request(t, newKey(t), x509.CertificateRequest{})),
		"D11 PEM in place of DER": []byte("-----BEGIN CERTIFICATE REQUEST-----\n"),
	}
	for name, der := range cases {
		t.Run(name, func(t *testing.T) {
			if r, err := enroll.ParseRequest(der); err == nil {
				t.Errorf("taken: %T", r.Key)
			}
		})
	}
	for name, key := range map[string]crypto.Signer{"P-256": ec(elliptic.P256()), "P-384": ec(elliptic.P384()), "Ed25519": edKey(t)} {
		if _, err := enroll.ParseRequest(request(t, key, x509.CertificateRequest{})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func edKey(t *testing.T) crypto.Signer {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

type csrShape struct {
	Info struct {
		Version    int
		Subject    asn1.RawValue
		PublicKey  asn1.RawValue
		Attributes asn1.RawValue `asn1:"optional,tag:0"`
	}
	Alg asn1.RawValue
	Sig asn1.BitString
}

func reshape(t *testing.T, der []byte, f func(*csrShape)) []byte {
	var c csrShape
	if _, err := asn1.Unmarshal(der, &c); err != nil {
		t.Fatal(err)
	}
	f(&c)
	out, err := asn1.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// swapKey puts the key of another request beneath the signature of der.
func swapKey(t *testing.T, der, other []byte) []byte {
	var o csrShape
	if _, err := asn1.Unmarshal(other, &o); err != nil {
		t.Fatal(err)
	}
	return reshape(t, der, func(c *csrShape) { c.Info.PublicKey = o.Info.PublicKey })
}

func dsaRequest(t *testing.T, der []byte) []byte {
	var k dsa.PrivateKey
	if err := dsa.GenerateParameters(&k.Parameters, rand.Reader, dsa.L1024N160); err != nil {
		t.Fatal(err)
	}
	if err := dsa.GenerateKey(&k, rand.Reader); err != nil {
		t.Fatal(err)
	}
	params, err := asn1.Marshal(k.Parameters)
	if err != nil {
		t.Fatal(err)
	}
	y, err := asn1.Marshal(k.Y)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := asn1.Marshal(struct {
		Alg pkix.AlgorithmIdentifier
		Key asn1.BitString
	}{
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, Parameters: asn1.RawValue{FullBytes: params}},
		asn1.BitString{Bytes: y, BitLength: 8 * len(y)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return reshape(t, der, func(c *csrShape) { c.Info.PublicKey = asn1.RawValue{FullBytes: spki} })
}

// D11, D5: the same key is the same SPKI, whatever surrounds it; it is also what the certificate's Pin is.
func TestKeyReuseIsSeen(t *testing.T) {
	h := newHouse(t)
	key := newKey(t)
	a, err := enroll.ParseRequest(request(t, key, x509.CertificateRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := enroll.ParseRequest(request(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "other"}}))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.SPKI, b.SPKI) || !bytes.Equal(a.SPKI, h.agent(t, key, time.Hour).SPKI) {
		t.Error("D11 the same key has two hashes")
	}
	c, err := enroll.ParseRequest(request(t, newKey(t), x509.CertificateRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a.SPKI, c.SPKI) {
		t.Error("two keys have one hash")
	}
}

func TestParseRefuses(t *testing.T) {
	h := newHouse(t)
	other, err := enroll.NewAuthority("in_a")
	if err != nil {
		t.Fatal(err)
	}
	rootSealed, err := h.root.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	wsSealed, err := h.ws.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.ParseWorkspaceCA(wsSealed); err == nil {
		t.Error("a workspace's CA of another installation was taken")
	}
	if _, err := h.root.ParseWorkspaceCA(rootSealed); err == nil {
		t.Error("a root was taken for a workspace's CA")
	}
	if _, err := enroll.ParseAuthority(wsSealed); err == nil {
		t.Error("a workspace's CA was taken for a root")
	}
	if _, err := enroll.ParseAuthority(secret.FromString("x")); err == nil {
		t.Error("rubbish was taken")
	}
	if s := fmt.Sprint(rootSealed, h.root); strings.Contains(s, "PRIVATE KEY") {
		t.Error("a private key prints")
	}
}

func FuzzParseRequest(f *testing.F) {
	root, err := enroll.NewAuthority("in_a")
	if err != nil {
		f.Fatal(err)
	}
	ws, err := root.NewWorkspace("ws_a")
	if err != nil {
		f.Fatal(err)
	}
	good := request(f, newKey(f), x509.CertificateRequest{})
	f.Add(good)
	f.Add(good[:50])
	f.Add(request(f, newKey(f), x509.CertificateRequest{URIs: []*url.URL{relayID.URI()}, DNSNames: []string{"x"}}))
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := enroll.ParseRequest(der)
		if err != nil {
			return
		}
		i, err := ws.SignAgent(r, agentID, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := mtls.FromCertificate(i.Leaf); err != nil || id != agentID || !bytes.Equal(i.SPKI, r.SPKI) {
			t.Fatal(id, err)
		}
	})
}
