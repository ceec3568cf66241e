package relay

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// InitOptions say what a new installation starts with.
type InitOptions struct {
	Data          string // folder; made 0700
	Listen        string // "" means ":8443"
	PublicAddress string // "" means the host name and Listen's port
	Health        string
	Allow         []netip.Prefix // where callers of the first workspace may come from; empty means this machine only
}

// Initialised tells what Init made.
type Initialised struct {
	Installation  string
	ConfigFile    string
	RootFile      string
	KEKFile       string
	PublicAddress string
	Token         secret.Bytes // of the first admin; it is not kept anywhere
}

var relayYAML = template.Must(template.New("relay.yaml").Parse(`# Made by fairlead-relay init. Every key is explained in configs/relay.full.yaml.
version: 1
listen: {{printf "%q" .Listen}}
# Where agents and people reach the relay; it goes into join tokens and into the relay's certificate.
public_address: {{printf "%q" .PublicAddress}}
kek:
  file: kek.key        # opens everything that is sealed: keep a copy apart from backups of this folder
health:
  listen: {{printf "%q" .Health}}
`))

// Init makes a new installation: key file, state, CA, relay.yaml. It refuses a folder that holds one; a fault midway
// leaves a folder that Init refuses or completes, never one that serves half.
func Init(ctx context.Context, o InitOptions) (*Initialised, error) {
	if o.Listen == "" {
		o.Listen = ":8443"
	}
	if o.PublicAddress == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find this machine's name (give --public-address): %w", err)
		}
		_, port, err := net.SplitHostPort(o.Listen)
		if err != nil {
			return nil, protocol.Errorf(protocol.CodeInvalid, "listen %q is not an address and a port (such as :8443 or 127.0.0.1:8443)", o.Listen)
		}
		o.PublicAddress = net.JoinHostPort(host, port)
	}
	data, err := filepath.Abs(o.Data)
	if err != nil {
		return nil, fmt.Errorf("find the data folder: %w", err)
	}
	c := DefaultConfig()
	c.Version, c.Data, c.Listen, c.PublicAddress, c.Health.Listen = ConfigVersion, data, o.Listen, o.PublicAddress, o.Health
	c.KEK.File = filepath.Join(data, "kek.key")
	var faults []error
	c.validate(func(path, msg, hint string) { faults = append(faults, fmt.Errorf("%s %s (%s)", path, msg, hint)) })
	if len(faults) > 0 {
		return nil, protocol.Errorf(protocol.CodeInvalid, "%s", errors.Join(faults...))
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	file := filepath.Join(data, "relay.yaml")
	if _, err := os.Stat(file); err == nil {
		return nil, protocol.Errorf(protocol.CodeConflict, "%s exists already: this folder holds an installation; serve it, or name another --data", file)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for %s: %w", file, err)
	}
	dc := directoryConfig(c, nil)
	dc.Logger = directory.DefaultConfig(data).Logger
	first, err := directory.Init(ctx, directory.InitConfig{Config: dc, Relay: directory.Relay{Name: "relay", Addresses: []string{o.PublicAddress}}, Allow: o.Allow})
	if err != nil {
		return nil, err
	}
	dir, err := directory.Open(ctx, dc)
	if err != nil {
		return nil, err
	}
	auth, err := openAuthority(ctx, dir, first.Installation)
	if err == nil {
		_, err = auditKey(ctx, dir)
	}
	if cerr := dir.Close(); err != nil || cerr != nil {
		return nil, errors.Join(err, cerr)
	}
	out := &Initialised{Installation: first.Installation, ConfigFile: file, RootFile: filepath.Join(data, "ca.pem"), KEKFile: c.KEK.File, PublicAddress: o.PublicAddress, Token: first.Token}
	if err := os.WriteFile(out.RootFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: auth.root.Raw}), 0o644); err != nil {
		return nil, fmt.Errorf("write the CA certificate: %w", err)
	}
	var b bytes.Buffer
	if err := relayYAML.Execute(&b, o); err != nil {
		return nil, fmt.Errorf("write relay.yaml: %w", err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil { // last: it marks the folder as complete
		return nil, fmt.Errorf("write relay.yaml: %w", err)
	}
	return out, nil
}

// AdminToken makes a token of a new admin, or of a new owner, for who holds the relay's machine and key file. A relay that serves
// the same state takes it within a second or two.
func AdminToken(ctx context.Context, c Config, workspace, name string, owner bool, life time.Duration) (secret.Bytes, error) {
	dir, err := openOnHost(ctx, c)
	if err != nil {
		return secret.Bytes{}, err
	}
	create := dir.CreateAdminToken
	if owner {
		create = dir.CreateOwnerToken
	}
	_, token, err := create(ctx, workspace, name, life)
	return token, errors.Join(err, dir.Close())
}

// SetSources is SetAllowlist for the list of one side; prefixes that are nil take it away.
func SetSources(ctx context.Context, c Config, workspace string, s directory.Side, prefixes []netip.Prefix) error {
	dir, err := openOnHost(ctx, c)
	if err != nil {
		return err
	}
	if prefixes == nil {
		return errors.Join(dir.UnsetSources(ctx, workspace, s, s, netip.Addr{}, true), dir.Close())
	}
	return errors.Join(dir.SetSources(ctx, workspace, s, prefixes, s, netip.Addr{}, true, nil), dir.Close())
}

// SetAllowlist replaces a workspace's allowlist for who holds the relay's machine and key file. A relay that serves the
// same state takes it within a second or two.
func SetAllowlist(ctx context.Context, c Config, workspace string, prefixes []netip.Prefix) error {
	return SetSources(ctx, c, workspace, directory.Callers, append([]netip.Prefix{}, prefixes...))
}

// AdminUser makes an admin who signs in with a password, for who holds the relay's machine and key file, or gives one who is there
// a new one-time code. A relay that serves the same state takes it within a second or two.
func AdminUser(ctx context.Context, c Config, workspace, name string, life time.Duration) (secret.Bytes, error) {
	dir, err := openOnHost(ctx, c)
	if err != nil {
		return secret.Bytes{}, err
	}
	code, err := dir.CreateAdminUser(ctx, workspace, name, life)
	return code, errors.Join(err, dir.Close())
}
