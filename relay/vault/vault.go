package vault

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/fairleadhq/fairlead/internal/envelope"
)

// KEK is the key-encryption key, see internal/envelope.
type KEK = envelope.KEK

// Place is the one place that a sealed value belongs to. Workspace "" is the installation's own.
type Place = envelope.Context

// ErrOpen says that a sealed value does not open here: moved, changed, or sealed by another key.
var ErrOpen = envelope.ErrOpen

// ErrNoKey says that the workspace's key is not loaded, or was forgotten.
var ErrNoKey = errors.New("the key of this workspace is not loaded")

// Config names where the KEK comes from: exactly one must be set.
type Config struct {
	KEKFile string // path of a key file
	KEKEnv  string // name of an environment variable; it is removed after reading
}

// NewKEKFile makes a key file; it never overwrites one.
func NewKEKFile(path string) (KEK, error) { return envelope.NewKEKFile(path) }

// LoadKEK loads the KEK that c names. It refuses a weak or exposed key (see envelope.LoadKEKFile).
func LoadKEK(c Config) (KEK, error) {
	switch {
	case c.KEKFile != "" && c.KEKEnv != "":
		return nil, errors.New("load the key-encryption key: name a file or an environment variable, not both")
	case c.KEKFile != "":
		return envelope.LoadKEKFile(c.KEKFile)
	case c.KEKEnv != "":
		return envelope.EnvKEK(c.KEKEnv)
	}
	return nil, errors.New("load the key-encryption key: no file and no environment variable is named")
}

// ring is one workspace's key and what is derived from it.
type ring struct {
	key     *envelope.Key
	digests [purposes]*mac
}

// A Purpose is what a keyed digest is for; digests of different purposes never match.
type Purpose int

// Purposes of digests.
const (
	NameOfWorkspace Purpose = iota
	NameOfGroup
	NameOfConnection
	NameOfPrincipal
	APIToken
	JoinToken
	Grant
	GatewayAddress
	NameOfRole
	NameOfTeam
	TeamMember
	Session
	User
	OneTimeCode
	RecoveryCode
	SourceNetwork
	RepeatKey
	NameOfDomain
	ACMEKey
	NameOfProject
	PathOfFolder
	Placement
	PasskeyID
	purposes
)

var purposeNames = [purposes]string{
	"workspace name", "group name", "connection name", "principal name", "api token", "join token", "grant",
	"gateway address", "role name", "team name", "team member", "session", "user", "one-time code", "recovery code", "source network", "idempotency key", "domain", "acme key",
	"project name", "folder path", "placement", "passkey",
}

// mac is a pool of HMACs under one key: the hot path allocates nothing.
type mac struct{ pool sync.Pool }

func newMAC(key []byte) *mac {
	m := &mac{}
	m.pool.New = func() any { return hmac.New(sha256.New, key) }
	return m
}

func (m *mac) sum(text string) (out [sha256.Size]byte) {
	h := m.pool.Get().(hash.Hash)
	h.Reset()
	var buf [128]byte
	h.Write(append(buf[:0], text...))
	h.Sum(out[:0])
	m.pool.Put(h)
	return out
}

// Vault holds the keys. Safe for concurrent use.
type Vault struct {
	mu    sync.RWMutex
	kek   KEK
	rings map[string]*ring // "" is the installation's
}

// New makes a vault without keys. It refuses a KEK that does not work now.
func New(ctx context.Context, kek KEK) (*Vault, error) {
	if kek == nil {
		return nil, errors.New("open the vault: no key-encryption key")
	}
	if err := kek.Health(ctx); err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	return &Vault{kek: kek, rings: map[string]*ring{}}, nil
}

// KEKID names the KEK in force.
func (v *Vault) KEKID() string { v.mu.RLock(); defer v.mu.RUnlock(); return v.kek.ID() }

// Health tells whether the KEK can be used now.
func (v *Vault) Health(ctx context.Context) error {
	v.mu.RLock()
	kek := v.kek
	v.mu.RUnlock()
	return kek.Health(ctx)
}

// keyPlace binds a wrapped key to its installation and workspace.
func keyPlace(installation, workspace string) Place {
	return Place{Workspace: workspace, Table: "key", Row: installation, Column: "key_wrapped", Version: 1}
}

// CreateKey makes the key of a workspace ("" is the installation's), holds it, and gives it wrapped by the KEK. It refuses to
// replace a key that is loaded.
func (v *Vault) CreateKey(ctx context.Context, installation, workspace string) (wrapped []byte, kek string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rings[workspace] != nil {
		return nil, "", errors.New("create a key: the workspace has one")
	}
	k := envelope.NewKey()
	if wrapped, err = envelope.WrapKey(ctx, v.kek, k, keyPlace(installation, workspace)); err != nil {
		return nil, "", fmt.Errorf("wrap a key: %w", err)
	}
	v.rings[workspace] = newRing(k)
	return wrapped, v.kek.ID(), nil
}

// LoadKey unwraps a workspace's key and holds it. One that is loaded already stays.
func (v *Vault) LoadKey(ctx context.Context, installation, workspace string, wrapped []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rings[workspace] != nil {
		return nil
	}
	k, err := envelope.UnwrapKey(ctx, v.kek, wrapped, keyPlace(installation, workspace))
	if err != nil {
		what := "the installation's key"
		if workspace != "" {
			what = "the key of workspace " + workspace
		}
		return fmt.Errorf("unwrap %s by the key-encryption key %s: is it the one that this state was made with? %w", what, v.kek.ID(), err)
	}
	v.rings[workspace] = newRing(k)
	return nil
}

// Forget drops a workspace's key from memory. With its wrapped key deleted too, its data is gone.
func (v *Vault) Forget(workspace string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.rings, workspace)
}

// Rewrap unwraps a key by the KEK in force and wraps it by another; a key that the new one opens already comes back as it is,
// so that an interrupted rotation can run again. Nothing else changes: the keys themselves, and all that they seal, stay.
func (v *Vault) Rewrap(ctx context.Context, to KEK, installation, workspace string, wrapped []byte) ([]byte, error) {
	place := keyPlace(installation, workspace)
	if _, err := envelope.UnwrapKey(ctx, to, wrapped, place); err == nil {
		return wrapped, nil
	}
	v.mu.RLock()
	from := v.kek
	v.mu.RUnlock()
	k, err := envelope.UnwrapKey(ctx, from, wrapped, place)
	if err != nil {
		return nil, fmt.Errorf("unwrap the key of workspace %q by %s: %w", workspace, from.ID(), err)
	}
	out, err := envelope.WrapKey(ctx, to, k, place)
	if err != nil {
		return nil, fmt.Errorf("wrap the key of workspace %q by %s: %w", workspace, to.ID(), err)
	}
	return out, nil
}

// UseKEK puts a KEK in force after every key was rewrapped by it.
func (v *Vault) UseKEK(kek KEK) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kek = kek
}

func newRing(k *envelope.Key) *ring {
	r := &ring{key: k}
	for p := range r.digests {
		r.digests[p] = newMAC(k.Derive("digest " + purposeNames[p]))
	}
	return r
}

func (v *Vault) ring(workspace string) *ring {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.rings[workspace]
}

// Seal seals a value for its place with the key of the place's workspace.
func (v *Vault) Seal(p Place, plaintext []byte) ([]byte, error) {
	r := v.ring(p.Workspace)
	if r == nil {
		return nil, ErrNoKey
	}
	return envelope.Seal(r.key, plaintext, p), nil
}

// Open opens what Seal sealed for the same place, else ErrOpen or ErrNoKey.
func (v *Vault) Open(p Place, sealed []byte) ([]byte, error) {
	r := v.ring(p.Workspace)
	if r == nil {
		return nil, ErrNoKey
	}
	return envelope.Open(r.key, sealed, p)
}

// Digest is the keyed digest of a text (HMAC-SHA256): the same text gives the same digest within a workspace and purpose, and
// nothing can be told from it without the key.
func (v *Vault) Digest(workspace string, p Purpose, text string) ([sha256.Size]byte, error) {
	r := v.ring(workspace)
	if r == nil {
		return [sha256.Size]byte{}, ErrNoKey
	}
	return r.digests[p].sum(text), nil
}

// IsMissing reports whether LoadKEK failed because the key file is not there.
func IsMissing(err error) bool { return envelope.IsMissing(err) }
