package directory

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// ACMEItem is something that the ACME client keeps under a key of its own making, such as a path.
type ACMEItem struct {
	Key      string
	Value    []byte
	Modified time.Time
}

type acmeBody struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

func acmePlace(digest []byte, version int64) vault.Place {
	return place("", "acme", hex.EncodeToString(digest), version)
}

func (d *Directory) openACME(r store.ACMEItem) (ACMEItem, error) {
	var b acmeBody
	err := open(d.vault, acmePlace(r.KeyDigest, r.Version), r.Sealed, &b)
	return ACMEItem{b.Key, b.Value, fromMs(r.Modified)}, err
}

// ACMEItem reads what the ACME client keeps under a key; fs.ErrNotExist if it keeps nothing there.
func (d *Directory) ACMEItem(ctx context.Context, key string) (ACMEItem, error) {
	digest, err := d.vault.Digest("", vault.ACMEKey, key)
	if err != nil {
		return ACMEItem{}, err
	}
	var r store.ACMEItem
	err = d.store.Read(ctx, func(tx *store.Tx) (err error) {
		r, err = tx.ACMEItem(digest[:])
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return ACMEItem{}, fs.ErrNotExist
	case err != nil:
		return ACMEItem{}, err
	}
	return d.openACME(r)
}

// ACMEItems reads everything that the ACME client keeps: some entries for each name.
func (d *Directory) ACMEItems(ctx context.Context) ([]ACMEItem, error) {
	var rows []store.ACMEItem
	err := d.store.Read(ctx, func(tx *store.Tx) (err error) {
		rows, err = tx.ACMEItems()
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]ACMEItem, 0, len(rows))
	for _, r := range rows {
		i, err := d.openACME(r)
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

// PutACMEItem keeps a value under a key, in place of the one that was there.
func (d *Directory) PutACMEItem(ctx context.Context, key string, value []byte) error {
	digest, err := d.vault.Digest("", vault.ACMEKey, key)
	if err != nil {
		return err
	}
	return d.store.WriteQuiet(ctx, func(tx *store.Tx) error {
		old, err := tx.ACMEItem(digest[:])
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		r := store.ACMEItem{KeyDigest: digest[:], Modified: toMs(now()), Version: old.Version + 1}
		if r.Sealed, err = seal(d.vault, acmePlace(r.KeyDigest, r.Version), acmeBody{key, value}); err != nil {
			return fmt.Errorf("keep for ACME: %w", err)
		}
		return tx.PutACMEItem(r)
	})
}

// DeleteACMEItem removes what is kept under a key, if anything is.
func (d *Directory) DeleteACMEItem(ctx context.Context, key string) error {
	digest, err := d.vault.Digest("", vault.ACMEKey, key)
	if err != nil {
		return err
	}
	return d.store.WriteQuiet(ctx, func(tx *store.Tx) error { return tx.DeleteACMEItem(digest[:]) })
}

// AllDomains lists the domains of all workspaces.
func (s *Snapshot) AllDomains() []string {
	out := make([]string, 0, len(s.domains))
	for name := range s.domains {
		out = append(out, name)
	}
	return out
}
