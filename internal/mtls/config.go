package mtls

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// ErrUntrusted means that the peer's chain does not lead to the CA that this installation trusts. On the agent's side it
// usually means that something between agent and relay breaks TLS open, or that the address leads to another relay.
var ErrUntrusted = errors.New("certificate was not issued by this installation")

// ErrValidity means that a certificate is not valid at this host's time: it expired, or a clock is wrong.
var ErrValidity = errors.New("certificate is not valid now")

func base(alpn string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		SessionTicketsDisabled: true,
		// Long streams from the first byte on: small first records would cost more than they hide.
		DynamicRecordSizingDisabled: true,
	}
}

// AgentTLS is the agent's side of a tunnel. The relay's chain is checked against roots alone, and the relay must be of the
// same installation. Names are not checked: an address is only a way to a relay, never its identity. RootCAs is set to
// roots for RelayIdentity.
func AgentTLS(r *Reloader, roots *x509.CertPool, installation string) *tls.Config {
	return NewVerifier(roots, RoleRelay).AgentTLS(r, installation)
}

// AgentTLS is AgentTLS with the memory of v, a verifier of relays.
func (v *Verifier) AgentTLS(r *Reloader, installation string) *tls.Config {
	c := base(protocol.ALPNTunnel)
	c.GetClientCertificate = r.GetClientCertificate
	c.RootCAs = v.roots
	// crypto/tls can check a chain only together with a DNS name. VerifyConnection does all it skips here.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		i, _, err := v.Identity(cs)
		if err != nil {
			return err
		}
		if i.Installation != installation {
			return fmt.Errorf("%w: relay is of installation %s", ErrUntrusted, i.Installation)
		}
		return nil
	}
	return c
}

// TunnelTLS is the relay's side of a tunnel. check, called in each handshake after all else held, refuses what was
// revoked; it must answer at once and note nothing: TLS asks the peer only afterwards to prove that it has the key, so the
// identity is not proven before the handshake is done. nil checks nothing: for tests only.
func TunnelTLS(r *Reloader, roots *x509.CertPool, installation string,
	check func(Identity, *x509.Certificate) error) *tls.Config {
	c := base(protocol.ALPNTunnel)
	c.GetCertificate = r.GetCertificate
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.ClientCAs = roots
	c.VerifyConnection = agentOf(PeerIdentity, installation, check)
	return c
}

// TunnelTLS is TunnelTLS with the memory of v, a verifier of agents. crypto/tls verifies no chain here, v does in the
// handshake: PeerIdentity refuses such a connection, ask v.Identity who the peer is.
func (v *Verifier) TunnelTLS(r *Reloader, installation string, check func(Identity, *x509.Certificate) error) *tls.Config {
	c := base(protocol.ALPNTunnel)
	c.GetCertificate = r.GetCertificate
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = agentOf(v.Identity, installation, check)
	return c
}

// agentOf lets in agents of the installation that check does not refuse.
func agentOf(identity func(tls.ConnectionState) (Identity, *x509.Certificate, error), installation string,
	check func(Identity, *x509.Certificate) error) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		i, leaf, err := identity(cs)
		if err != nil {
			return err
		}
		if i.Role != RoleAgent {
			return fmt.Errorf("a tunnel wants an agent, not role %s", i.Role)
		}
		if i.Installation != installation {
			return fmt.Errorf("%w: agent is of installation %s", ErrUntrusted, i.Installation)
		}
		if check == nil {
			return nil
		}
		return check(i, leaf)
	}
}

// EnrollServerTLS is the relay's side of an enrolment: the agent has no certificate yet.
func EnrollServerTLS(r *Reloader) *tls.Config {
	c := base(protocol.ALPNEnroll)
	c.GetCertificate = r.GetCertificate
	return c
}

// EnrollClientTLS is the agent's side of an enrolment: it trusts only a relay whose chain leads to a root, sent with the
// chain, with this Pin. PeerRoot gives that root after the handshake.
func EnrollClientTLS(pin []byte) *tls.Config {
	c := base(protocol.ALPNEnroll)
	c.InsecureSkipVerify = true // VerifyConnection checks the whole chain against the pinned root
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		root, err := PeerRoot(cs, pin)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AddCert(root)
		_, _, err = RelayIdentity(cs, roots)
		return err
	}
	return c
}

// PeerRoot finds the root with this pin among the certificates that the peer sent.
func PeerRoot(cs tls.ConnectionState, pin []byte) (*x509.Certificate, error) {
	for _, c := range cs.PeerCertificates {
		if subtle.ConstantTimeCompare(Pin(c), pin) == 1 && c.IsCA && c.CheckSignatureFrom(c) == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrUntrusted, interception(cs))
}

// RelayIdentity verifies the relay's chain against roots and gives who it is. It is the client's counterpart of
// PeerIdentity: on a client's connection crypto/tls leaves VerifiedChains empty.
func RelayIdentity(cs tls.ConnectionState, roots *x509.CertPool) (Identity, *x509.Certificate, error) {
	if len(cs.PeerCertificates) == 0 || roots == nil {
		return Identity{}, nil, fmt.Errorf("%w: no certificate to check, or no root to check it against", ErrUntrusted)
	}
	chains, err := verify(cs, roots, RoleRelay, time.Now())
	if err != nil {
		return Identity{}, nil, err
	}
	i, leaf, err := identify(chains)
	if err == nil && i.Role != RoleRelay {
		err = fmt.Errorf("a tunnel leads to a relay, not to role %s", i.Role)
	}
	if err != nil {
		return Identity{}, nil, err
	}
	return i, leaf, nil
}

// PeerIdentity gives who the peer of a server's connection is, and its leaf certificate. It looks at the verified chain's
// leaf alone: what else the peer sent does not count.
func PeerIdentity(cs tls.ConnectionState) (Identity, *x509.Certificate, error) {
	return identify(cs.VerifiedChains)
}

// identify checks the shape of a verified chain: see the package documentation.
func identify(chains [][]*x509.Certificate) (Identity, *x509.Certificate, error) {
	if len(chains) == 0 || len(chains[0]) == 0 {
		return Identity{}, nil, fmt.Errorf("%w: the peer's chain is not verified", ErrUntrusted)
	}
	chain := chains[0]
	leaf := chain[0]
	if !strongKey(leaf) {
		return Identity{}, nil, errors.New("certificate's key is neither ECDSA P-256, P-384 nor Ed25519")
	}
	i, err := FromCertificate(leaf)
	if err != nil {
		return Identity{}, nil, err
	}
	switch i.Role {
	case RoleRelay:
		if len(chain) != 2 {
			return Identity{}, nil, errors.New("relay certificate was not issued by the root itself")
		}
	case RoleAgent:
		if len(chain) != 3 {
			return Identity{}, nil, errors.New("agent certificate was not issued by a workspace's CA")
		}
		want := WorkspaceURI(i.Installation, i.Workspace)
		if ca := chain[1]; len(ca.URIs) != 1 || *ca.URIs[0] != *want {
			return Identity{}, nil, errors.New("agent certificate was issued by the CA of another workspace")
		}
	}
	return i, leaf, nil
}

func strongKey(c *x509.Certificate) bool {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256() || k.Curve == elliptic.P384()
	case ed25519.PublicKey:
		return true
	}
	return false
}

// interception says what an admin should look for when a stranger's certificate came.
func interception(cs tls.ConnectionState) string {
	if len(cs.PeerCertificates) == 0 {
		return "the peer sent none"
	}
	return fmt.Sprintf("it names issuer %.100q; is there TLS interception on the way to the relay?",
		cs.PeerCertificates[0].Issuer.String())
}
