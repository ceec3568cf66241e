package directory

import (
	"context"

	"github.com/fairleadhq/fairlead/relay/mail"
	"github.com/fairleadhq/fairlead/relay/store"
)

func checkEmail(address string) (string, error) {
	if address == "" {
		return "", nil
	}
	address, err := mail.Address(address)
	if err != nil {
		return "", invalid("the e-mail address is not usable", "a plain one such as bert@example.com, in ASCII and without a name before it")
	}
	return address, nil
}

// SetEmail replaces a user's e-mail address, "" for none, and gives the one that was. Where there was one, an open one-time code
// counts no more: it may have gone there. Whoever sets an address can have a code sent to it, so by may not hold less than the user
// (denied), and must be of its home workspace.
func (d *Directory) SetEmail(ctx context.Context, by By, workspace, principal, address string) (was string, err error) {
	w, p, err := d.atHome(workspace, principal)
	if err == nil {
		err = d.MayActFor(by, w, principal)
	}
	if err == nil {
		address, err = checkEmail(address)
	}
	if err != nil {
		return "", err
	}
	err = d.changePerson(ctx, p.ID, func(_ *store.Tx, b *personBody) error {
		if was = b.Email; was == address {
			return nil
		}
		if was != "" {
			b.Invite, b.InviteUntil = nil, 0
		}
		b.Email, b.EmailSet = address, max(toMs(now()), b.EmailSet+1)
		return nil
	})
	return was, err
}
