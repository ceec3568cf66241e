package enroll

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/protocol"
)

// Request says how to enrol. Dial is the way out (through the proxy when there is one).
type Request struct {
	Dir     string   // data folder; made 0700 when missing
	Addrs   []string // of the join token
	Pin     []byte
	Secret  string
	Name    string // what the agent shall be called; "" means its host name
	Version string
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	// Fallback gives another way to dial after the first has failed for a cause; nil, or one that gives nil, means none.
	Fallback func(cause error) func(ctx context.Context, network, addr string) (net.Conn, error)
	Force    bool // replace an identity that is there
}

// Enroll spends the token and writes the identity. Nothing is written but the audit key unless the relay answered with
// a certificate for our key that chains to the pinned CA. The addresses are tried in order; only a failure before the
// token was sent moves on to the next.
func Enroll(ctx context.Context, r Request) (*Identity, error) {
	if _, err := os.Stat(filepath.Join(r.Dir, fileIdentity)); err == nil && !r.Force {
		return nil, protocol.Errorf(protocol.CodeConflict, "%s holds an identity already; use --force to replace it, or another --data folder", r.Dir)
	}
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	logKey, err := auditKey(r.Dir)
	if err != nil {
		return nil, err
	}
	key, csr, err := newKey()
	if err != nil {
		return nil, err
	}
	hostname, _ := os.Hostname()
	body, err := json.Marshal(protocol.EnrollRequest{Token: r.Secret, CSR: csr, Name: r.Name, Hostname: hostname, OS: runtime.GOOS,
		Arch: runtime.GOARCH, Version: r.Version, LogKey: logKey.Public().(ed25519.PublicKey)})
	if err != nil {
		return nil, fmt.Errorf("encode enrolment: %w", err)
	}
	var conn *tls.Conn
	var faults []error
	for _, addr := range r.Addrs {
		if conn, err = dialPinned(ctx, r, r.Dial, addr); err == nil {
			break
		}
		if r.Fallback != nil {
			if dial := r.Fallback(err); dial != nil {
				faults = append(faults, fmt.Errorf("%s: %w", addr, err))
				if conn, err = dialPinned(ctx, r, dial, addr); err == nil {
					break
				}
			}
		}
		faults = append(faults, fmt.Errorf("%s: %w", addr, err))
	}
	if conn == nil {
		return nil, fmt.Errorf("reach a relay: %w", errors.Join(faults...))
	}
	defer conn.Close()
	ans, err := exchange(conn, body)
	if err != nil {
		return nil, err
	}
	return install(r, key, logKey, ans)
}

func dialPinned(ctx context.Context, r Request, dial func(ctx context.Context, network, addr string) (net.Conn, error), addr string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	raw, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, mtls.EnrollClientTLS(r.Pin))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS handshake: %w (if the certificate is not the relay's own, a proxy or firewall on the way intercepts TLS)", err)
	}
	return conn, nil
}

func exchange(conn *tls.Conn, body []byte) (*protocol.EnrollResponse, error) {
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	req, err := http.NewRequest(http.MethodPost, "https://relay"+protocol.PathEnroll, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("build enrolment: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("send enrolment: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return nil, fmt.Errorf("read the relay's answer: %w", err)
	}
	defer resp.Body.Close()
	limited := io.LimitReader(resp.Body, protocol.MaxControlBytes)
	if resp.StatusCode != http.StatusOK {
		e := &protocol.Error{}
		if json.NewDecoder(limited).Decode(e) != nil || e.Code == "" {
			e = protocol.Errorf(protocol.CodeUpstream, "relay answered the enrolment with status %d", resp.StatusCode)
		}
		return nil, e
	}
	ans := &protocol.EnrollResponse{}
	if err := json.NewDecoder(limited).Decode(ans); err != nil {
		return nil, fmt.Errorf("decode the relay's answer: %w", err)
	}
	return ans, nil
}

// install checks the answer and writes the identity. The file that makes an agent enrolled, identity.json, comes last.
func install(r Request, key *ecdsa.PrivateKey, logKey ed25519.PrivateKey, ans *protocol.EnrollResponse) (*Identity, error) {
	root, err := x509.ParseCertificate(ans.Root)
	if err != nil {
		return nil, fmt.Errorf("parse the CA certificate: %w", err)
	}
	if !bytes.Equal(mtls.Pin(root), r.Pin) {
		return nil, errors.New("the CA certificate in the answer is not the one that the join token pins")
	}
	kp, named, err := check(key, ans.Chain, root)
	if err != nil {
		return nil, err
	}
	if named.ID != ans.Agent || named.Workspace != ans.Workspace || named.Group != ans.Group {
		return nil, errors.New("the certificate names another agent than the answer")
	}
	id := &Identity{Agent: named.ID, Workspace: named.Workspace, Group: named.Group, Installation: named.Installation, RelayAddrs: ans.RelayAddrs,
		Keypair: kp, Roots: x509.NewCertPool(), AuditKey: logKey}
	if len(id.RelayAddrs) == 0 {
		id.RelayAddrs = r.Addrs
	}
	id.Roots.AddCert(root)
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	if err := mtls.WriteKeypairFile(filepath.Join(r.Dir, fileKeypair), kp); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(r.Dir, fileRoot), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), 0o644); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(r.Dir, fileIdentity), append(b, '\n'), 0o600); err != nil {
		return nil, err
	}
	return id, nil
}

// check verifies that chain is for our key, for an agent, and ends in root.
func check(key *ecdsa.PrivateKey, chain [][]byte, root *x509.Certificate) (*mtls.Keypair, mtls.Identity, error) {
	var none mtls.Identity
	if len(chain) == 0 {
		return nil, none, errors.New("the relay's answer holds no certificate")
	}
	var certs []*x509.Certificate
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, none, fmt.Errorf("parse a certificate of the answer: %w", err)
		}
		certs = append(certs, c)
	}
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, c := range certs[1:] {
		inter.AddCert(c)
	}
	if _, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return nil, none, fmt.Errorf("verify the certificate (is this machine's clock right?): %w", err)
	}
	named, err := mtls.FromCertificate(certs[0])
	if err != nil {
		return nil, none, fmt.Errorf("read the identity in the certificate: %w", err)
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, none, errors.New("the certificate is for another key than ours")
	}
	kp, err := mtls.NewKeypair(chain, key)
	if err != nil {
		return nil, none, err
	}
	return kp, named, nil
}

// newKey makes a P-256 key and a certificate request that says nothing but it: the relay fills in the rest.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	return key, csr, nil
}
