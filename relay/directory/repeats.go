package directory

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// Repeat is a request that its caller may send again, under a key of its own choice, without its being done twice.
type Repeat struct {
	Workspace, Principal string // ids: a key is the principal's own
	Key                  string
	Request              []byte        // a digest of what is asked
	Life                 time.Duration // how long it is remembered
	Most                 int           // how many a principal may have remembered
}

// Earlier is what came of a request that was made before under the same key.
type Earlier struct {
	Request []byte          `json:"request"`
	At      time.Time       `json:"at"`
	ID      string          `json:"id,omitempty"`   // of what it made; empty when the relay stopped before it could be noted
	Body    json.RawMessage `json:"body,omitempty"` // the answer, of one that tells no secret
}

// Same reports whether the earlier request asked for the same.
func (e *Earlier) Same(r *Repeat) bool { return bytes.Equal(e.Request, r.Request) }

func (d *Directory) repeatRow(r *Repeat, version int64, at time.Time, e Earlier) (store.Repeat, error) {
	digest, err := d.vault.Digest(r.Workspace, vault.RepeatKey, r.Principal+"\n"+r.Key)
	if err != nil {
		return store.Repeat{}, err
	}
	row := store.Repeat{Workspace: r.Workspace, Principal: r.Principal, KeyDigest: digest[:], Expires: toMs(at.Add(r.Life)), Version: version}
	if version > 0 {
		row.Sealed, err = seal(d.vault, repeatPlace(row), e)
	}
	return row, err
}

func repeatPlace(r store.Repeat) vault.Place {
	return place(r.Workspace, "repeats", r.Principal+"/"+hex.EncodeToString(r.KeyDigest), r.Version)
}

// FindEarlier finds what came of an earlier request under the key, nil when there was none or it was too long ago.
func (d *Directory) FindEarlier(ctx context.Context, r *Repeat) (*Earlier, error) {
	row, err := d.repeatRow(r, 0, now(), Earlier{})
	if err != nil {
		return nil, err
	}
	err = d.store.Read(ctx, func(tx *store.Tx) error {
		row, err = tx.Repeat(row.Workspace, row.Principal, row.KeyDigest, toMs(now()))
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fail(err)
	}
	var e Earlier
	if err := open(d.vault, repeatPlace(row), row.Sealed, &e); err != nil {
		return nil, err
	}
	return &e, nil
}

// note writes, in the transaction of what is made, that it is made under the key: both are there afterwards, or neither.
func (d *Directory) note(tx *store.Tx, r *Repeat) error {
	at := now()
	n, err := tx.CountRepeats(r.Workspace, r.Principal, toMs(at))
	if err != nil {
		return err
	}
	if n >= r.Most {
		return &protocol.Error{Code: protocol.CodeTooLarge, Message: fmt.Sprintf("%d idempotency keys of yours are remembered, and no more are", n),
			Hint: fmt.Sprintf("wait until the oldest is %s old, or send the request without one", r.Life)}
	}
	row, err := d.repeatRow(r, 1, at, Earlier{Request: r.Request, At: at})
	if err != nil {
		return err
	}
	return as(tx.InsertRepeat(row, toMs(at)), noPrincipal(), protocol.Errorf(protocol.CodeConflict, "a request with this idempotency key was done in this moment"))
}

// KeepAnswer notes what was made, and the answer if it may be given again.
func (d *Directory) KeepAnswer(ctx context.Context, r *Repeat, id string, body json.RawMessage) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
	defer cancel()
	at := now()
	row, err := d.repeatRow(r, 2, at, Earlier{Request: r.Request, At: at, ID: id, Body: body})
	if err != nil {
		return err
	}
	return fail(d.store.WriteQuiet(ctx, func(tx *store.Tx) error { return tx.UpdateRepeat(row) }))
}
