package enroll

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fairleadhq/fairlead/internal/mtls"
)

// Files in the data folder.
const (
	fileKeypair  = "identity.pem"
	fileIdentity = "identity.json"
	fileRoot     = "ca.pem"
	fileAuditKey = "audit.key"
)

// ErrNotEnrolled means that the data folder holds no identity.
var ErrNotEnrolled = errors.New("this agent is not enrolled yet; run `fairlead-agent enroll`")

// Identity is what the agent is, as kept on disk.
type Identity struct {
	Agent        string   `json:"agent"`
	Workspace    string   `json:"workspace"`
	Group        string   `json:"group"`
	Installation string   `json:"installation"`
	RelayAddrs   []string `json:"relay_addresses"`

	Keypair  *mtls.Keypair      `json:"-"`
	Roots    *x509.CertPool     `json:"-"`
	AuditKey ed25519.PrivateKey `json:"-"`
}

// Load reads the identity from the data folder, and makes the key of the audit log's checkpoints when there is none yet. A
// key file that others may read is refused.
func Load(dir string) (*Identity, error) {
	id, err := Read(dir)
	if err != nil {
		return nil, err
	}
	if id.AuditKey, err = auditKey(dir); err != nil {
		return nil, err
	}
	return id, nil
}

// Read is Load for a look: it makes nothing, and AuditKey stays nil.
func Read(dir string) (*Identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, fileIdentity))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	id := &Identity{}
	if err := json.Unmarshal(b, id); err != nil {
		return nil, fmt.Errorf("read identity %s: %w", filepath.Join(dir, fileIdentity), err)
	}
	if id.Keypair, err = mtls.ReadKeypairFile(filepath.Join(dir, fileKeypair)); err != nil {
		return nil, fmt.Errorf("read key and certificate: %w", err)
	}
	pemRoot, err := os.ReadFile(filepath.Join(dir, fileRoot))
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	id.Roots = x509.NewCertPool()
	if !id.Roots.AppendCertsFromPEM(pemRoot) {
		return nil, fmt.Errorf("no certificate in %s", filepath.Join(dir, fileRoot))
	}
	named, err := mtls.FromCertificate(id.Keypair.Leaf())
	if err != nil {
		return nil, fmt.Errorf("read the identity in the certificate: %w", err)
	}
	if named.ID != id.Agent || named.Workspace != id.Workspace || named.Installation != id.Installation {
		return nil, fmt.Errorf("%s and %s are not of the same agent; enrol again", fileIdentity, fileKeypair)
	}
	return id, nil
}

// auditKey reads the checkpoint key, or makes it when there is none yet.
func auditKey(dir string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, fileAuditKey)
	b, err := os.ReadFile(path)
	if err == nil {
		block, _ := pem.Decode(b)
		if block == nil || block.Type != "FAIRLEAD AUDIT KEY" || len(block.Bytes) != ed25519.SeedSize {
			return nil, fmt.Errorf("%s does not hold an audit key", path)
		}
		return ed25519.NewKeyFromSeed(block.Bytes), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read audit key: %w", err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make audit key: %w", err)
	}
	if err := writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "FAIRLEAD AUDIT KEY", Bytes: key.Seed()}), 0o600); err != nil {
		return nil, err
	}
	return key, nil
}

// writeFile replaces a file as a whole: temp file, fsync, rename.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone already after the rename
	defer f.Close()
	if err := f.Chmod(mode); err != nil {
		return fmt.Errorf("set mode of %s: %w", path, err)
	}
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("put %s in place: %w", path, err)
	}
	return nil
}
