package directory

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// Authority is a certificate authority with its private key.
type Authority struct {
	Workspace string // id; empty: the root of the installation
	Created   time.Time
	Chain     []*x509.Certificate // its own certificate first, up to the root
	Key       secret.Bytes        // PKCS #8, DER
}

// keyOf binds an authority's key. It is the installation's, for a workspace must not be able to sign for itself.
func keyOf(scope string, version int64) vault.Place {
	return vault.Place{Table: "authorities", Row: scope, Column: "key_sealed", Version: version}
}

// Authority gives the certificate authority of a workspace's id, "" for the root. It opens the key each time: keep it no longer
// than needed.
func (d *Directory) Authority(ctx context.Context, workspace string) (*Authority, error) {
	var r store.Authority
	err := d.store.Read(ctx, func(tx *store.Tx) (err error) {
		r, err = tx.Authority(workspace)
		return err
	})
	if err != nil {
		return nil, fail(as(err, protocol.Errorf(protocol.CodeNotFound, "no certificate authority was made yet"), nil))
	}
	chain, err := x509.ParseCertificates(r.Chain)
	if err != nil || len(chain) == 0 {
		return nil, fmt.Errorf("read the certificate authority of %q: %w", workspace, errors.Join(err, errors.New("no certificates")))
	}
	key, err := d.vault.Open(keyOf(workspace, r.Version), r.KeySealed)
	if err != nil {
		return nil, fmt.Errorf("open the key of the certificate authority of %q: %w", workspace, err)
	}
	return &Authority{Workspace: workspace, Created: fromMs(r.Created), Chain: chain, Key: secret.New(key)}, nil
}

// PutAuthority keeps a certificate authority. One that is there is replaced only when replace is set, else refused (conflict).
func (d *Directory) PutAuthority(ctx context.Context, a Authority, replace bool) error {
	if len(a.Chain) == 0 || a.Key.IsZero() {
		return errors.New("keep a certificate authority: certificates or key are missing")
	}
	if a.Workspace != "" {
		if _, err := d.Snapshot().Workspace(a.Workspace); err != nil {
			return err
		}
	}
	var der []byte
	for _, c := range a.Chain {
		der = append(der, c.Raw...)
	}
	return d.change(ctx, func(tx *store.Tx) error {
		version := int64(1)
		switch old, err := tx.Authority(a.Workspace); {
		case err == nil && !replace:
			return protocol.Errorf(protocol.CodeConflict, "the certificate authority exists")
		case err == nil:
			version = old.Version + 1
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		sealed, err := d.vault.Seal(keyOf(a.Workspace, version), a.Key.Expose())
		if err != nil {
			return err
		}
		return tx.PutAuthority(store.Authority{Scope: a.Workspace, Created: toMs(now()), Version: version, Chain: der, KeySealed: sealed})
	})
}

// Setting gives a named value of a workspace's id, "" for the installation; not_found when it was never set. Names are the
// program's own and stand in the clear; values are sealed.
func (d *Directory) Setting(ctx context.Context, workspace, name string) (secret.Bytes, error) {
	var r store.Setting
	err := d.store.Read(ctx, func(tx *store.Tx) (err error) {
		r, err = tx.Setting(workspace, name)
		return err
	})
	if err != nil {
		return secret.Bytes{}, fail(as(err, protocol.Errorf(protocol.CodeNotFound, "no such setting"), nil))
	}
	b, err := d.vault.Open(place(workspace, "settings", name, r.Version), r.Sealed)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("open setting %s: %w", name, err)
	}
	return secret.New(b), nil
}

// PutSetting keeps a named value: a key of the relay's own (audit signing, TLS), or a setting.
func (d *Directory) PutSetting(ctx context.Context, workspace, name string, value secret.Bytes) error {
	if workspace != "" && d.Snapshot().byID[workspace] == nil {
		return protocol.Errorf(protocol.CodeNotFound, "no such workspace")
	}
	return d.change(ctx, func(tx *store.Tx) error {
		old, err := tx.Setting(workspace, name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		version := old.Version + 1
		sealed, err := d.vault.Seal(place(workspace, "settings", name, version), value.Expose())
		if err != nil {
			return err
		}
		return tx.PutSetting(store.Setting{Scope: workspace, Name: name, Version: version, Sealed: sealed})
	})
}

// PutRelay writes what is known of a relay; one without an id gets a new one. It gives the id.
func (d *Directory) PutRelay(ctx context.Context, r Relay) (string, error) {
	version := int64(1)
	if r.ID == "" {
		r.ID, r.Created = NewID("rel"), now()
	} else {
		found := false
		for _, old := range d.Snapshot().Relays {
			if old.ID == r.ID {
				found, version, r.Created = true, old.version+1, old.Created
			}
		}
		if !found {
			return "", protocol.Errorf(protocol.CodeNotFound, "no such relay")
		}
	}
	sealed, err := seal(d.vault, place("", "relays", r.ID, version), r)
	if err != nil {
		return "", err
	}
	return r.ID, d.change(ctx, func(tx *store.Tx) error {
		return tx.PutRelay(store.Relay{ID: r.ID, Created: toMs(r.Created), Version: version, Sealed: sealed})
	})
}

// RotateKEK wraps every key by another key-encryption key, all in one transaction: either all are wrapped by the new one, or
// none. Nothing else is rewritten. Keep the old one until this has returned without an error, and for backups made before.
func (d *Directory) RotateKEK(ctx context.Context, c vault.Config) error {
	to, err := vault.LoadKEK(c)
	if err != nil {
		return err
	}
	if err := to.Health(ctx); err != nil {
		return fmt.Errorf("rotate the key-encryption key: %w", err)
	}
	err = d.change(ctx, func(tx *store.Tx) error {
		in, err := tx.Installation()
		if err != nil {
			return err
		}
		id := in.ID
		if in.KeyWrapped, err = d.vault.Rewrap(ctx, to, id, "", in.KeyWrapped); err != nil {
			return err
		}
		in.KEK = to.ID()
		if err := tx.PutInstallation(in); err != nil {
			return err
		}
		all, err := tx.Workspaces()
		if err != nil {
			return err
		}
		for _, w := range all {
			wrapped, err := d.vault.Rewrap(ctx, to, id, w.ID, w.KeyWrapped)
			if err != nil {
				return err
			}
			if err := tx.SetWorkspaceKey(w.ID, to.ID(), wrapped); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.vault.UseKEK(to)
	return nil
}
