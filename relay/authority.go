package relay

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/enroll"
)

// rootSetting and workspaceSetting are the names under which the directory keeps the authorities, sealed.
const (
	rootSetting      = "root-ca"
	workspaceSetting = "workspace-ca-"
)

// authority signs: the installation's root, and one intermediate for each workspace, made when it is first needed. The
// root's key is opened only for a moment: to make an intermediate and to issue the relay's own certificate.
type authority struct {
	dir   *directory.Directory
	root  *x509.Certificate
	roots *x509.CertPool
	inst  string

	mu  sync.Mutex // guards cas, and the making of one
	cas map[string]*enroll.WorkspaceCA
}

// openAuthority reads the root, or makes it for a new installation.
func openAuthority(ctx context.Context, dir *directory.Directory, installation string) (*authority, error) {
	a := &authority{dir: dir, inst: installation, cas: map[string]*enroll.WorkspaceCA{}}
	root, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	if root.Installation() != installation {
		return nil, fmt.Errorf("the certificate authority is of installation %s, the state of %s", root.Installation(), installation)
	}
	a.root, a.roots = root.Certificate(), root.Pool()
	return a, nil
}

func (a *authority) open(ctx context.Context) (*enroll.Authority, error) {
	v, err := setting(ctx, a.dir, "", rootSetting, func() (secret.Bytes, error) {
		root, err := enroll.NewAuthority(a.inst)
		if err != nil {
			return secret.Bytes{}, err
		}
		return root.Marshal()
	})
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	return enroll.ParseAuthority(v)
}

// workspace gives the CA of a workspace's id.
func (a *authority) workspace(ctx context.Context, id string) (*enroll.WorkspaceCA, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// A year before its end a new one is made, so that an agent's certificate is never cut short by it.
	if ca := a.cas[id]; ca != nil && time.Until(ca.Certificate().NotAfter) > 180*24*time.Hour {
		return ca, nil
	}
	root, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	// Kept as the installation's, not the workspace's: a workspace must not be able to sign for itself.
	v, err := a.dir.Setting(ctx, "", workspaceSetting+id)
	if err == nil {
		ca, err := root.ParseWorkspaceCA(v)
		if err != nil {
			return nil, err
		}
		if time.Until(ca.Certificate().NotAfter) > 180*24*time.Hour {
			a.cas[id] = ca
			return ca, nil
		}
	} else if client.CodeOf(err) != protocol.CodeNotFound {
		return nil, err
	}
	ca, err := root.NewWorkspace(id)
	if err != nil {
		return nil, err
	}
	if v, err = ca.Marshal(); err != nil {
		return nil, err
	}
	if err := a.dir.PutSetting(ctx, "", workspaceSetting+id, v); err != nil {
		return nil, fmt.Errorf("keep the workspace's certificate authority: %w", err)
	}
	a.cas[id] = ca
	return ca, nil
}

// agent is the identity of an agent of this installation.
func (a *authority) agent(workspace, group, id string) mtls.Identity {
	return mtls.Identity{Installation: a.inst, Role: mtls.RoleAgent, Workspace: workspace, Group: group, ID: id}
}

// checkCSR reads a certificate request and gives the digest of its key.
func (a *authority) checkCSR(der []byte) ([]byte, error) {
	q, err := enroll.ParseRequest(der)
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeInvalid, "%s", err)
	}
	return q.SPKI, nil
}

// signAgent gives an identity its certificate for the key of a request.
func (a *authority) signAgent(ctx context.Context, csr []byte, id mtls.Identity, life time.Duration) ([][]byte, directory.Certificate, error) {
	var none directory.Certificate
	q, err := enroll.ParseRequest(csr)
	if err != nil {
		return nil, none, protocol.Errorf(protocol.CodeInvalid, "%s", err)
	}
	ca, err := a.workspace(ctx, id.Workspace)
	if err != nil {
		return nil, none, err
	}
	cert, err := ca.SignAgent(q, id, life)
	if err != nil {
		return nil, none, err
	}
	return cert.Chain, directory.Certificate{Serial: cert.Serial, SPKI: cert.SPKI, Issued: time.Now(), NotAfter: cert.Leaf.NotAfter}, nil
}

// issueServer makes the relay's own keypair.
func (a *authority) issueServer(names []string, ips []netip.Addr, relay string, life time.Duration) (*mtls.Keypair, error) {
	root, err := a.open(context.Background())
	if err != nil {
		return nil, err
	}
	return root.IssueServer(names, ips, mtls.Identity{Installation: a.inst, Role: mtls.RoleRelay, ID: relay}, life)
}

// joinToken makes the text of a join token around its secret, which the directory made.
func (r *Relay) joinToken(s secret.Bytes) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(s.ExposeString())
	if err != nil {
		return "", fmt.Errorf("make the join token's text: %w", err)
	}
	return mtls.JoinToken{Addrs: []string{r.opt.Config.PublicAddress}, Pin: mtls.Pin(r.auth.root), Secret: secret.New(raw)}.Text(), nil
}
