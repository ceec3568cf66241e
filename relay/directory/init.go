package directory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// InitConfig says what a new installation starts with.
type InitConfig struct {
	Config
	Relay Relay // name and addresses of the first relay
	// Allow is where callers of the first workspace may come from. Empty: from this machine only.
	Allow   []netip.Prefix
	Admin   string        // name of the first principal and token; empty: "admin"
	Expires time.Duration // of the first token; 0: a year
}

// Initial is what Init made. Token is the only time that the first token's text is seen.
type Initial struct {
	Installation, Relay, Workspace, Group, Principal, TokenID string
	Token                                                     secret.Bytes
}

// Init makes a new installation in a folder: the key file when it is named and missing, the database, a relay, the workspace
// "default", its agent group "default" and a first principal, its owner, with a token. It refuses (conflict) a folder that has one.
func Init(ctx context.Context, c InitConfig) (*Initial, error) {
	if c.Admin == "" {
		c.Admin = "admin"
	}
	if c.Expires == 0 {
		c.Expires = 365 * 24 * time.Hour
	}
	if len(c.Allow) == 0 {
		c.Allow = ownMachine()
	}
	if c.Expires < 0 || c.Expires > MaxTokenLife {
		return nil, invalid("the token's life is out of range", "give at most 5 years")
	}
	if err := checkLabel(c.Admin); err != nil {
		return nil, err
	}
	d, err := prepare(ctx, c.Config, true)
	if err != nil {
		return nil, err
	}
	defer d.store.Close()
	err = d.store.Read(ctx, func(tx *store.Tx) error { _, err := tx.Installation(); return err })
	if err == nil {
		return nil, &protocol.Error{Code: protocol.CodeConflict, Message: "the folder holds a relay's state already",
			Hint: "serve it, or name another folder"}
	}
	if !errors.Is(err, store.ErrNotFound) {
		return nil, fail(err)
	}
	out := &Initial{Installation: NewID("in"), Relay: NewID("rel"), Workspace: NewID("ws"), Group: NewID("grp"), Principal: NewID("usr"),
		TokenID: NewID("tok")}
	installationKey, kek, err := d.vault.CreateKey(ctx, out.Installation, "")
	if err != nil {
		return nil, err
	}
	text, digest, verifier, err := d.newTokenText()
	if err != nil {
		return nil, err
	}
	at := now()
	relay, err := seal(d.vault, place("", "relays", out.Relay, 1), c.Relay)
	if err != nil {
		return nil, err
	}
	_, err = d.store.Write(ctx, func(tx *store.Tx) error {
		if err := tx.PutInstallation(store.Installation{ID: out.Installation, Created: toMs(at), KEK: kek,
			KeyWrapped: installationKey}); err != nil {
			return err
		}
		if err := tx.PutRelay(store.Relay{ID: out.Relay, Created: toMs(at), Version: 1, Sealed: relay}); err != nil {
			return err
		}
		if err := d.insertWorkspace(ctx, tx, out.Installation, out.Workspace, "default", at); err != nil {
			return err
		}
		if err := d.insertGroup(tx, out.Workspace, out.Group, groupBody{Name: "default"}, at); err != nil {
			return err
		}
		if err := d.writeLists(tx, out.Workspace, map[Side][]netip.Prefix{Callers: sortedPrefixes(c.Allow)}); err != nil {
			return err
		}
		if err := d.insertPrincipal(tx, out.Workspace, out.Principal, c.Admin, authz.User, at); err != nil {
			return err
		}
		if err := d.insertGrant(tx, store.Grant{Workspace: out.Workspace, Principal: out.Principal, Role: string(authz.Owner), Created: toMs(at)}, nil); err != nil {
			return err
		}
		if err := d.noteOwners(tx); err != nil {
			return err
		}
		return d.insertToken(tx, store.APIToken{ID: out.TokenID, Workspace: out.Workspace, Principal: out.Principal,
			Digest: digest[:], Verifier: verifier, Created: toMs(at), Expires: toMs(at.Add(c.Expires))}, c.Admin, nil)
	})
	if err != nil {
		return nil, fail(err)
	}
	out.Token = text
	return out, nil
}

// CreateWorkspace adds a workspace with a key of its own, and a first group "default". Nobody belongs to it, and its allowlist is empty:
// nobody is let in until one is set. FoundWorkspace makes one that somebody owns.
func (d *Directory) CreateWorkspace(ctx context.Context, name string) (*Workspace, error) {
	return d.makeWorkspace(ctx, name, func(*store.Tx, string, time.Time) error { return nil })
}

// DeleteWorkspace removes a workspace, all that belongs to it, and its key. A backup made before holds the wrapped key still:
// it is forgotten there when the key-encryption key of that time is.
func (d *Directory) DeleteWorkspace(ctx context.Context, workspace string) error {
	_, err := d.DestroyWorkspace(ctx, workspace)
	return err
}

// DestroyWorkspace is DeleteWorkspace, and gives what people whose home it was were in other workspaces: they are gone there, too.
func (d *Directory) DestroyWorkspace(ctx context.Context, workspace string) (elsewhere []*Principal, err error) {
	err = d.guardedIn(ctx, workspace, func(tx *store.Tx, s *Snapshot, w *Workspace) error {
		elsewhere = s.Elsewhere(w, "")
		return as(tx.DeleteWorkspace(w.ID), protocol.Errorf(protocol.CodeNotFound, "no such workspace"), nil)
	})
	return elsewhere, err
}

func (d *Directory) insertWorkspace(ctx context.Context, tx *store.Tx, installation, id, name string, at time.Time) error {
	wrapped, kek, err := d.vault.CreateKey(ctx, installation, id)
	if err != nil {
		return err
	}
	digest, err := d.vault.Digest("", vault.NameOfWorkspace, name)
	if err != nil {
		return err
	}
	sealed, err := seal(d.vault, place(id, "workspaces", id, 1), nameBody{name})
	if err != nil {
		return err
	}
	return tx.InsertWorkspace(store.Workspace{ID: id, State: stateActive, Created: toMs(at), Version: 1, NameDigest: digest[:],
		KEK: kek, KeyWrapped: wrapped, Sealed: sealed})
}

func mustExist(path string) error {
	switch _, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w (%s is not there)", ErrNotInitialised, path)
	default:
		return err
	}
}

func newKEKFile(path string) (vault.KEK, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the key's folder: %w", err)
	}
	return vault.NewKEKFile(path)
}

func invalid(message, hint string) error {
	return &protocol.Error{Code: protocol.CodeInvalid, Message: message, Hint: hint}
}
