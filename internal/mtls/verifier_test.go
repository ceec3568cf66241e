package mtls_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
)

// sent is what a peer shows.
func sent(c *mtlstest.Cert, more ...*mtlstest.Cert) tls.ConnectionState {
	cs := tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Cert}}
	for _, a := range append(more, c.Above...) {
		cs.PeerCertificates = append(cs.PeerCertificates, a.Cert)
	}
	return cs
}

func agentID(n int) mtls.Identity {
	i := mtlstest.Agent
	i.ID = fmt.Sprintf("agt_%d", n)
	return i
}

// What is remembered never outlives a certificate: of the leaf, of the workspace's CA, of the root.
func TestMemoryDoesNotOutliveACertificate(t *testing.T) {
	for name, ends := range map[string][3]time.Duration{
		"leaf": {time.Hour, 9 * time.Hour, 9 * time.Hour}, "workspace's CA": {9 * time.Hour, time.Hour, 9 * time.Hour}, "root": {9 * time.Hour, 9 * time.Hour, time.Hour},
	} {
		t.Run("D1 "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				until := func(d time.Duration) edit { return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(d) } }
				root := mtlstest.New(t, until(ends[2]))
				ws := root.Workspace(t, "in_test", "ws_test", until(ends[1]))
				seen, fresh := ws.Leaf(t, agentID(1), nil, until(ends[0])), ws.Leaf(t, agentID(2), nil, until(ends[0]))
				relay := root.Leaf(t, mtlstest.Relay, nil, until(ends[0]))
				v, r := mtls.NewVerifier(root.Pool(), mtls.RoleAgent), mtls.NewVerifier(root.Pool(), mtls.RoleRelay)
				for range 2 {
					_, _, err := v.Identity(sent(seen))
					_, _, rerr := r.Identity(sent(relay))
					if err != nil || rerr != nil {
						t.Fatal(err, rerr)
					}
				}
				time.Sleep(time.Hour + time.Second)
				for _, c := range []*mtlstest.Cert{seen, fresh} { // the whole chain is remembered; the CA is
					if _, _, err := v.Identity(sent(c)); err == nil {
						t.Errorf("%s was let in", c.Cert.Subject.CommonName)
					}
				}
				if _, _, err := r.Identity(sent(relay)); (err == nil) != (name == "workspace's CA") {
					t.Errorf("relay: %v", err)
				}
			})
		})
	}
	t.Run("D1 not yet valid", func(t *testing.T) {
		s := newSite(t)
		v := mtls.NewVerifier(s.root.Pool(), mtls.RoleAgent)
		if _, _, err := v.Identity(sent(s.agent)); err != nil {
			t.Fatal(err)
		}
		early := s.workspace.Leaf(t, agentID(3), nil, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
		if _, _, err := v.Identity(sent(early)); !errors.Is(err, mtls.ErrValidity) {
			t.Errorf("got %v", err)
		}
	})
}

// Whoever is no agent of ours is none after thousands of ours were seen.
func TestMemoryLetsNobodyElseIn(t *testing.T) {
	s, other := newSite(t), newSite(t)
	v := mtls.NewVerifier(s.root.Pool(), mtls.RoleAgent)
	for range 2 {
		if i, leaf, err := v.Identity(sent(s.agent)); err != nil || i != mtlstest.Agent || !leaf.Equal(s.agent.Cert) {
			t.Fatal(i, err)
		}
	}
	tampered := bytes.Clone(s.agent.Cert.Raw)
	tampered[len(tampered)-1] ^= 1 // of the signature
	broken, err := x509.ParseCertificate(tampered)
	if err != nil {
		t.Fatal(err)
	}
	renamed := bytes.Replace(s.agent.Cert.Raw, []byte(mtlstest.Agent.ID), bytes.Repeat([]byte("x"), len(mtlstest.Agent.ID)), -1)
	stolen, err := x509.ParseCertificate(renamed)
	if err != nil {
		t.Fatal(err)
	}
	twin := other.root.Workspace(t, "in_test", "ws_test") // the same name, another key
	for name, cs := range map[string]tls.ConnectionState{
		"D1 tampered signature":              sent(&mtlstest.Cert{Cert: broken, Above: s.agent.Above}),
		"D1 tampered identity":               sent(&mtlstest.Cert{Cert: stolen, Above: s.agent.Above}),
		"D1 another root":                    sent(other.agent),
		"D27 another root, ours as filler":   sent(other.agent, s.agent, s.workspace, s.root),
		"D27 CA of the same name as filler":  sent(twin.Leaf(t, mtlstest.Agent, nil), s.workspace, s.root),
		"D28 below a leaf that was seen":     sent(s.agent.Leaf(t, agentID(9), nil)),
		"D2 the relay":                       sent(s.relay),
		"the workspace's CA itself":          sent(s.workspace),
		"D1 another workspace's, seen CA":    sent(s.workspace.Leaf(t, mtls.Identity{Installation: "in_test", Role: mtls.RoleAgent, Workspace: "ws_other", Group: "g", ID: "a"}, nil)),
		"D1 usage of a server, below the CA": sent(s.workspace.Leaf(t, agentID(4), nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })),
		"a CA below the CA":                  sent(s.workspace.Workspace(t, "in_test", "ws_test").Leaf(t, agentID(5), nil)),
		"nothing":                            {},
	} {
		for range 2 {
			if _, _, err := v.Identity(cs); err == nil {
				t.Errorf("%s: let in", name)
			}
		}
	}
	if _, _, err := v.Identity(sent(s.workspace.Leaf(t, agentID(6), nil), s.agent)); err != nil {
		t.Errorf("a good one after them: %v", err)
	}
	t.Run("D27 only the leaf says who it is", func(t *testing.T) {
		if i, _, err := v.Identity(sent(s.workspace.Leaf(t, agentID(7), nil), s.agent)); err != nil || i != agentID(7) {
			t.Error(i, err)
		}
	})
	t.Run("one role's memory is not the other's", func(t *testing.T) {
		r := mtls.NewVerifier(s.root.Pool(), mtls.RoleRelay)
		if _, _, err := r.Identity(sent(s.agent)); err == nil {
			t.Error("an agent is no relay")
		}
		if i, _, err := r.Identity(sent(s.relay)); err != nil || i != mtlstest.Relay {
			t.Error(i, err)
		}
	})
}

// What a CA or the root says about those below holds for a leaf that comes after others of that CA.
func TestMemoryKeepsConstraints(t *testing.T) {
	onlyEvil := func(c *x509.Certificate) {
		c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"in_elsewhere"}, true
	}
	for name, c := range map[string]struct{ root, ws edit }{
		"root's name constraints": {onlyEvil, nil},
		"CA's name constraints":   {nil, onlyEvil},
		"root's usages":           {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, nil},
		"CA's usages":             {nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }},
		"root's path length":      {func(c *x509.Certificate) { c.MaxPathLenZero = true }, nil},
		"CA that is none":         {nil, func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false }},
		"CA that may not sign":    {nil, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }},
	} {
		none := func(*x509.Certificate) {}
		if c.root == nil {
			c.root = none
		}
		if c.ws == nil {
			c.ws = none
		}
		root := mtlstest.New(t, c.root)
		ws := root.Workspace(t, "in_test", "ws_test", c.ws)
		v := mtls.NewVerifier(root.Pool(), mtls.RoleAgent)
		for n := range 3 {
			if _, _, err := v.Identity(sent(ws.Leaf(t, agentID(n), nil))); err == nil {
				t.Errorf("%s: let in", name)
			}
		}
	}
	// A root that restricts nothing that an agent has: its CAs are good, and verified in full each time.
	mail, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	root := mtlstest.New(t, func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"example.com"} })
	ws := root.Workspace(t, "in_test", "ws_test", func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: mail}}
	})
	v := mtls.NewVerifier(root.Pool(), mtls.RoleAgent)
	if _, _, err := v.Identity(sent(ws.Leaf(t, agentID(1), nil))); err != nil {
		t.Fatal(err)
	}
	bad := ws.Leaf(t, agentID(2), nil, func(c *x509.Certificate) { c.EmailAddresses = []string{"a@elsewhere.example"} })
	if _, _, err := v.Identity(sent(bad)); err == nil {
		t.Error("the root's constraint was forgotten")
	}
	if issuers, _ := v.Held(); issuers != 0 {
		t.Error("a CA below a root that restricts is remembered")
	}
}

// D5: revocation is asked in each handshake, remembered or not.
func TestMemoryKnowsNoRevocation(t *testing.T) {
	s := newSite(t)
	var revoked error
	v := mtls.NewVerifier(s.root.Pool(), mtls.RoleAgent)
	server := v.TunnelTLS(s.relay.Reloader(t), "in_test", func(mtls.Identity, *x509.Certificate) error { return revoked })
	client := s.client(t, s.agent)
	for range 2 {
		if ce, se := meet(t, client, server); ce != nil || se != nil {
			t.Fatal(ce, se)
		}
	}
	revoked = errors.New("revoked")
	if ce, se := meet(t, client, server); ce == nil || !errors.Is(se, revoked) {
		t.Fatalf("client %v, server %v", ce, se)
	}
	// And who asks crypto/tls who the peer is, is told nothing: it has not verified.
	if _, _, err := mtls.PeerIdentity(sent(s.agent)); !errors.Is(err, mtls.ErrUntrusted) {
		t.Errorf("got %v", err)
	}
}

// Copies of a CA that each agent sends are held once; a copy that differs is not taken for it.
func TestMemoryHoldsACAOnce(t *testing.T) {
	s := newSite(t)
	v := mtls.NewVerifier(s.root.Pool(), mtls.RoleAgent)
	show := func(n int) tls.ConnectionState {
		cs := sent(s.workspace.Leaf(t, agentID(n), nil))
		for i, c := range cs.PeerCertificates {
			copied, err := x509.ParseCertificate(bytes.Clone(c.Raw))
			if err != nil {
				t.Fatal(err)
			}
			cs.PeerCertificates[i] = copied
		}
		return cs
	}
	first := show(1)
	for n, cs := range []tls.ConnectionState{first, show(2), show(3)} {
		if _, _, err := v.Identity(cs); err != nil {
			t.Fatal(err)
		}
		if cs.PeerCertificates[1] != first.PeerCertificates[1] {
			t.Errorf("the CA of connection %d is one more copy", n)
		}
	}
}

// The memory is bounded, and agents beyond the bound are let in all the same.
func TestMemoryIsBounded(t *testing.T) {
	s := newSite(t)
	v := mtls.NewVerifier(s.root.Pool(), mtls.RoleAgent)
	key, err := mtls.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2*mtls.MaxLeaves + 10 {
		if _, _, err := v.Identity(sent(s.workspace.Leaf(t, agentID(n), key))); err != nil {
			t.Fatal(err)
		}
	}
	if issuers, leaves := v.Held(); issuers != 1 || leaves > 2*mtls.MaxLeaves {
		t.Errorf("%d CAs, %d leaves", issuers, leaves)
	}
}

func BenchmarkVerify(b *testing.B) {
	s := newSite(b)
	cs := sent(s.agent)
	b.Run("in full", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := mtls.NewVerifier(s.root.Pool(), mtls.RoleAgent).Identity(cs); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("remembered", func(b *testing.B) {
		v := mtls.NewVerifier(s.root.Pool(), mtls.RoleAgent)
		for b.Loop() {
			if _, _, err := v.Identity(cs); err != nil {
				b.Fatal(err)
			}
		}
	})
}
