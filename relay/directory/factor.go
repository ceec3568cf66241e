package directory

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/totp"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// BeginSecondFactor gives a secret that becomes the person's second factor, in place of one that is there, when a code proves it
// within 15 minutes.
func (d *Directory) BeginSecondFactor(ctx context.Context, p *Person) (secret.Bytes, error) {
	s := totp.NewSecret()
	return s, d.changePerson(ctx, p.ID, func(_ *store.Tx, b *personBody) error {
		b.Next, b.NextUntil = bytes.Clone(s.Expose()), toMs(now().Add(enrolLife))
		return nil
	})
}

// ProveSecondFactor puts the secret that BeginSecondFactor gave in force (ErrCode), ends the person's other sessions and gives
// new recovery codes. They are not kept.
func (d *Directory) ProveSecondFactor(ctx context.Context, p *Person, code, but string) ([]secret.Bytes, error) {
	codes, digests, err := d.newRecovery(p)
	if err != nil {
		return nil, err
	}
	return codes, d.changePerson(ctx, p.ID, func(tx *store.Tx, b *personBody) error {
		at := now()
		step, ok := totp.Match(secret.New(b.Next), code, at, 0)
		if !ok || len(b.Next) == 0 || toMs(at) >= b.NextUntil {
			return ErrCode
		}
		b.Secret, b.Next, b.NextUntil, b.Step, b.SecondFactor, b.Recovery = b.Next, nil, 0, max(step, b.Step), toMs(at), digests
		_, err := tx.DeleteSessionsOf(p.ID, but)
		return err
	})
}

// RemoveSecondFactor takes a person's second factor away, unless a workspace that it belongs to demands one and the person has no
// passkey in its place (conflict).
func (d *Directory) RemoveSecondFactor(ctx context.Context, p *Person, but string) error {
	return d.judgedIn(ctx, p.Home, func(tx *store.Tx, s *Snapshot, _ *Workspace) error {
		is := s.people[p.ID]
		if is == nil {
			return noUser()
		}
		left := *is
		left.SecondFactor = time.Time{}
		if err := s.spares(is, &left); err != nil {
			return err
		}
		return d.editPerson(tx, p.ID, func(tx *store.Tx, b *personBody) error { return d.dropFactor(tx, b, but) })
	})
}

// NewRecoveryCodes replaces a person's recovery codes.
func (d *Directory) NewRecoveryCodes(ctx context.Context, p *Person) ([]secret.Bytes, error) {
	codes, digests, err := d.newRecovery(p)
	if err != nil {
		return nil, err
	}
	return codes, d.changePerson(ctx, p.ID, func(_ *store.Tx, b *personBody) error {
		if b.SecondFactor == 0 {
			return protocol.Errorf(protocol.CodeConflict, "there is no second factor")
		}
		b.Recovery = digests
		return nil
	})
}

func (d *Directory) newRecovery(p *Person) (codes []secret.Bytes, digests [][]byte, err error) {
	for range RecoveryCodes {
		var b [10]byte // 80 bits: 16 characters
		_, _ = rand.Read(b[:])
		s := idText.EncodeToString(b[:])
		text := strings.Join([]string{s[:4], s[4:8], s[8:12], s[12:]}, "-")
		digest, err := d.recoveryDigest(p.ID, text)
		if err != nil {
			return nil, nil, err
		}
		codes, digests = append(codes, secret.FromString(text)), append(digests, digest)
	}
	return codes, digests, nil
}

func (d *Directory) recoveryDigest(person, code string) ([]byte, error) {
	code = strings.NewReplacer("-", "", " ", "").Replace(strings.ToLower(code))
	sum, err := d.vault.Digest("", vault.RecoveryCode, person+"\n"+code)
	return sum[:], err
}

// takeFactor takes a code of the second factor, or a recovery code, once (ErrCode).
func (d *Directory) takeFactor(b *personBody, code string) error {
	if b.SecondFactor == 0 {
		return ErrCode
	}
	if len(code) == totp.Digits {
		step, ok := totp.Match(secret.New(b.Secret), code, now(), b.Step)
		if !ok {
			return ErrCode
		}
		b.Step = step
		return nil
	}
	digest, err := d.recoveryDigest(b.ID, code)
	if err != nil {
		return err
	}
	for i, have := range b.Recovery {
		if subtle.ConstantTimeCompare(have, digest) == 1 {
			b.Recovery = slices.Delete(b.Recovery, i, i+1)
			return nil
		}
	}
	return ErrCode
}
