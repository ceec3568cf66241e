package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Role is what a certificate's owner is to the installation.
type Role string

// Roles.
const (
	RoleAgent Role = "agent"
	RoleRelay Role = "relay"
)

// Identity names one agent or relay of one installation. Each part is 1 to 64 of a-z, 0-9 and "_".
type Identity struct {
	Installation string
	Role         Role
	Workspace    string // agents only
	Group        string // agents only
	ID           string
}

const scheme = "fairlead"

// URI is the form that stands in certificates:
//
//	fairlead://INSTALLATION/relay/ID
//	fairlead://INSTALLATION/ws/WORKSPACE/group/GROUP/agent/ID
func (i Identity) URI() *url.URL {
	u := &url.URL{Scheme: scheme, Host: i.Installation}
	switch i.Role {
	case RoleRelay:
		u.Path = "/relay/" + i.ID
	case RoleAgent:
		u.Path = "/ws/" + i.Workspace + "/group/" + i.Group + "/agent/" + i.ID
	}
	return u
}

// String is the URI as text.
func (i Identity) String() string { return i.URI().String() }

// Validate reports whether the identity can stand in a certificate.
func (i Identity) Validate() error {
	parts := []string{i.Installation, i.ID}
	switch i.Role {
	case RoleAgent:
		parts = append(parts, i.Workspace, i.Group)
	case RoleRelay:
		if i.Workspace != "" || i.Group != "" {
			return errors.New("a relay's identity has neither workspace nor group")
		}
	default:
		return fmt.Errorf("unknown role %q", string(i.Role))
	}
	for _, p := range parts {
		if !validPart(p) {
			return fmt.Errorf("identity part %.80q is not 1 to 64 of a-z, 0-9, _", p)
		}
	}
	return nil
}

func validPart(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// ParseIdentity reads the exact form that URI writes. Anything else (other case, escapes, port, query, fragment, empty
// parts) is an error.
func ParseIdentity(u *url.URL) (Identity, error) {
	if u == nil {
		return Identity{}, errors.New("no identity")
	}
	i := Identity{Installation: u.Host}
	switch p := strings.Split(u.Path, "/"); {
	case len(p) == 3 && p[1] == "relay":
		i.Role, i.ID = RoleRelay, p[2]
	case len(p) == 7 && p[1] == "ws" && p[3] == "group" && p[5] == "agent":
		i.Role, i.Workspace, i.Group, i.ID = RoleAgent, p[2], p[4], p[6]
	default:
		return Identity{}, fmt.Errorf("not an identity: %.200q", u.String())
	}
	if err := i.Validate(); err != nil {
		return Identity{}, fmt.Errorf("not an identity: %.200q: %w", u.String(), err)
	}
	// What was not looked at above (user, query, fragment, escapes) would show here.
	if *u != *i.URI() {
		return Identity{}, fmt.Errorf("not an identity: %.200q", u.String())
	}
	return i, nil
}

// FromCertificate reads the identity that c carries: exactly one URI SAN, which must be one, no other names on an
// agent's certificate, and the extended key usage of the role alone. It does not verify c: see PeerIdentity.
func FromCertificate(c *x509.Certificate) (Identity, error) {
	if len(c.URIs) != 1 {
		return Identity{}, fmt.Errorf("certificate has %d URI names, want 1", len(c.URIs))
	}
	i, err := ParseIdentity(c.URIs[0])
	if err != nil {
		return Identity{}, err
	}
	if c.IsCA {
		return Identity{}, errors.New("certificate of a CA does not identify a peer")
	}
	want := x509.ExtKeyUsageServerAuth
	if i.Role == RoleAgent {
		want = x509.ExtKeyUsageClientAuth
		if len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses) != 0 {
			return Identity{}, errors.New("agent certificate has names beside its identity")
		}
	}
	if len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != want || len(c.UnknownExtKeyUsage) != 0 {
		return Identity{}, fmt.Errorf("certificate usage does not fit role %s", i.Role)
	}
	return i, nil
}

// WorkspaceURI is the name of a workspace's CA: fairlead://INSTALLATION/ws/WORKSPACE.
func WorkspaceURI(installation, workspace string) *url.URL {
	return &url.URL{Scheme: scheme, Host: installation, Path: "/ws/" + workspace}
}

// Pin is the SHA-256 of the certificate's SubjectPublicKeyInfo. Unlike a hash of the certificate it does not change when
// someone writes the same signature in another way.
func Pin(c *x509.Certificate) []byte {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return sum[:]
}

// Backdate is how far a certificate's NotBefore lies before its making, so that a site whose clock is somewhat slow can
// use it at once. Who counts a certificate's life begins after it.
const Backdate = 5 * time.Minute
