package relay

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"maps"
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

// authority signs: the installation's root, and one intermediate for each workspace, made before it is needed. The
// root's key is opened only for a moment: to make an intermediate and to issue the relay's own certificate.
type authority struct {
	dir   *directory.Directory
	root  *x509.Certificate
	roots *x509.CertPool
	inst  string

	mu  sync.Mutex // guards cas; held for no longer than a look at it
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

// renewAuthority is how long before its end a workspace's CA is followed by a new one, so that no agent's certificate is cut
// short by it.
const renewAuthority = 180 * 24 * time.Hour

// workspace gives the CA of a workspace's id. It never makes one and waits for no writer: an enrolment calls it within its
// transaction, which holds the only turn to write.
func (a *authority) workspace(ctx context.Context, id string) (*enroll.WorkspaceCA, error) {
	a.mu.Lock()
	ca := a.cas[id]
	a.mu.Unlock()
	if ca != nil {
		return ca, nil
	}
	ca, err := a.stored(ctx, id)
	if client.CodeOf(err) == protocol.CodeNotFound {
		return nil, &protocol.Error{Code: protocol.CodeUnavailable, Message: "the workspace's certificate authority is still being made", Hint: "try again in a moment"}
	}
	return ca, err
}

// stored reads a workspace's CA and remembers it. CodeNotFound says that there is none.
func (a *authority) stored(ctx context.Context, id string) (*enroll.WorkspaceCA, error) {
	root, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	// Kept as the installation's, not the workspace's: a workspace must not be able to sign for itself.
	v, err := a.dir.Setting(ctx, "", workspaceSetting+id)
	if err != nil {
		return nil, err
	}
	ca, err := root.ParseWorkspaceCA(v)
	if err != nil {
		return nil, err
	}
	a.remember(id, ca)
	return ca, nil
}

func (a *authority) remember(id string, ca *enroll.WorkspaceCA) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cas[id] = ca
}

// keep forgets the CAs of workspaces that are gone.
func (a *authority) keep(s *directory.Snapshot) {
	if s.Stale {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.cas, func(id string, _ *enroll.WorkspaceCA) bool { _, err := s.Workspace(id); return err != nil })
}

// provide sees to it that the workspace has a CA that lasts. One caller at a time; it must not be within a transaction.
func (a *authority) provide(ctx context.Context, id string) error {
	lasts := func(ca *enroll.WorkspaceCA) bool {
		return ca != nil && time.Until(ca.Certificate().NotAfter) > renewAuthority
	}
	a.mu.Lock()
	ca := a.cas[id]
	a.mu.Unlock()
	if lasts(ca) {
		return nil
	}
	ca, err := a.stored(ctx, id) // another process may have made the next one
	if err == nil && lasts(ca) || err != nil && client.CodeOf(err) != protocol.CodeNotFound {
		return err
	}
	root, err := a.open(ctx)
	if err != nil {
		return err
	}
	if ca, err = root.NewWorkspace(id); err != nil {
		return err
	}
	v, err := ca.Marshal()
	if err != nil {
		return err
	}
	if err := a.dir.PutSetting(ctx, "", workspaceSetting+id, v); err != nil {
		return fmt.Errorf("keep the workspace's certificate authority: %w", err)
	}
	a.remember(id, ca)
	return nil
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
