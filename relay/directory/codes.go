package directory

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// oneTime is a new one-time code, before it is somebody's.
type oneTime struct {
	text   secret.Bytes
	digest [32]byte
	life   time.Duration // 0: as long as is usual
	by     *giver
	mailed bool
}

// newCode makes a code (invalid: its life is out of range).
func (d *Directory) newCode(life time.Duration, by *giver, mailed bool) (oneTime, error) {
	if life != 0 && (life < time.Minute || life > MaxInviteLife) {
		return oneTime{}, invalid("the code's life is out of range", "give 1 minute to 14 days")
	}
	c := oneTime{text: secret.FromString(OneTimePrefix + randomText()), life: life, by: by, mailed: mailed}
	var err error
	c.digest, err = d.vault.Digest("", vault.OneTimeCode, c.text.ExposeString())
	return c, err
}

// into makes it the person's, in place of one that was open. Who has a password has no need of one that counts for long.
func (c oneTime) into(b *personBody) time.Time {
	life, most := InviteLife, MaxInviteLife
	if b.PasswordSet != 0 {
		life, most = ResetLife, ResetLife
	}
	if c.life != 0 {
		life = min(c.life, most)
	}
	until := now().Add(life)
	b.Invite, b.InviteUntil, b.InviteBy, b.Mailed = c.digest[:], toMs(until), c.by, c.mailed
	return until
}

// closeCode ends the open code.
func (b *personBody) closeCode() { b.Invite, b.InviteUntil, b.InviteBy, b.Mailed = nil, 0, nil, false }

// IssueCode gives a new one-time code that sets a user's password, and when it ends: after ResetLife at most for who has one. A code
// that was open counts no more. The user's password and sessions stay until the code is used, and the second factor beyond that. by may
// not hold less than the user (denied), neither now nor when the code is used: else it is void.
func (d *Directory) IssueCode(ctx context.Context, by By, workspace, principal string, life time.Duration) (secret.Bytes, time.Time, error) {
	return d.MailCode(ctx, by, workspace, principal, life, "")
}

// MailCode is IssueCode for a code that goes to the user's address, which must be that (conflict) and Reachable, now and when the code is
// used.
func (d *Directory) MailCode(ctx context.Context, by By, workspace, principal string, life time.Duration, to string) (secret.Bytes, time.Time, error) {
	c, err := d.newCode(life, nil, to != "")
	if err != nil {
		return secret.Bytes{}, time.Time{}, err
	}
	var until time.Time
	err = d.actFor(ctx, by, workspace, principal, func(_ *store.Tx, s *Snapshot, b *personBody) error {
		if to != "" && (b.Email != to || !s.Reachable(s.byID[b.Home], principal)) {
			return notReachable()
		}
		c.by = s.byID[b.Home].givenBy(by, authz.UsersEdit)
		until = c.into(b)
		return nil
	})
	if err != nil {
		return secret.Bytes{}, time.Time{}, err
	}
	return c.text, until, nil
}

// ErrCode says that a code is not good: wrong, used, or expired.
var ErrCode = errors.New("the code is not good")

// ErrVoid is an ErrCode of a one-time code that is right and open, but void: who gave it, or set the address that it went to, may not act
// for the person any more.
var ErrVoid = fmt.Errorf("who gave it may not act for the user any more: %w", ErrCode)

// JudgeCode refuses a one-time code that is not the person's, not open (ErrCode) or void (ErrVoid). It takes no slow hash: the code has
// 256 random bits.
func (d *Directory) JudgeCode(p *Person, code string) error {
	if p == nil {
		return ErrCode
	}
	b, err := d.body(p)
	if err != nil {
		return ErrCode
	}
	return d.judgeCode(d.Snapshot(), &b, code)
}

func (d *Directory) judgeCode(s *Snapshot, b *personBody, code string) error {
	digest, err := d.vault.Digest("", vault.OneTimeCode, code)
	if err != nil || len(b.Invite) != len(digest) || subtle.ConstantTimeCompare(b.Invite, digest[:]) != 1 || toMs(now()) >= b.InviteUntil {
		return ErrCode
	}
	w := s.byID[b.Home]
	if w == nil {
		return ErrCode
	}
	for id, p := range w.people {
		if p.ID == b.ID && s.still(b.InviteBy, w, id) && (!b.Mailed || s.still(b.EmailBy, w, id)) {
			return nil
		}
	}
	return ErrVoid
}

// TakeCode sets a password by a one-time code, of any number of callers once, and ends all sessions (ErrCode, ErrVoid: as things stand in
// this step).
func (d *Directory) TakeCode(ctx context.Context, p *Person, code, verifier string) error {
	err := d.judgedIn(ctx, p.Home, func(tx *store.Tx, s *Snapshot, _ *Workspace) error {
		return d.editPerson(tx, p.ID, func(tx *store.Tx, b *personBody) error {
			if err := d.judgeCode(s, b, code); err != nil {
				return err
			}
			b.distrustOwn()
			return d.putPassword(tx, b, verifier, "")
		})
	})
	if err != nil && protocol.AsError(err).Code == protocol.CodeNotFound { // the person went in this moment
		return ErrCode
	}
	return err
}
