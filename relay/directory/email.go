package directory

import (
	"context"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
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
// (denied), and must be of its home workspace. The same address once more counts as set by who does it.
func (d *Directory) SetEmail(ctx context.Context, by By, workspace, principal, address string) (was string, err error) {
	if address, err = checkEmail(address); err != nil {
		return "", err
	}
	err = d.actFor(ctx, by, workspace, principal, func(_ *store.Tx, s *Snapshot, b *personBody) error {
		was = b.setEmail(address, s.byID[b.Home].givenBy(by, authz.UsersEdit))
		return nil
	})
	return was, err
}

// SetOwnEmail is SetEmail by the person itself: codes go there whatever becomes of it.
func (d *Directory) SetOwnEmail(ctx context.Context, p *Person, address string) (was string, err error) {
	if address, err = checkEmail(address); err != nil {
		return "", err
	}
	err = d.changePerson(ctx, p.ID, func(_ *store.Tx, b *personBody) error {
		was = b.setEmail(address, &giver{Self: true})
		return nil
	})
	return was, err
}

// distrustOwn has no code go to an address that the person set for itself, until it is set again: what it signs in with was replaced by
// somebody else's doing, so whoever set the address may have been that one.
func (b *personBody) distrustOwn() {
	if b.EmailBy != nil && b.EmailBy.Self {
		b.EmailBy = nil
	}
}

func (b *personBody) setEmail(address string, by *giver) (was string) {
	if was = b.Email; was != address {
		if was != "" {
			b.closeCode()
		}
		b.Email, b.EmailSet = address, max(toMs(now()), b.EmailSet+1)
	}
	if b.EmailBy = nil; address != "" {
		b.EmailBy = by
	}
	return was
}

// Reachable tells whether a one-time code may go to a user's address: whoever set it may act for the user as both stand now.
// Otherwise who set it for a small user would get the code of who that user has become.
func (s *Snapshot) Reachable(w *Workspace, principal string) bool {
	p := w.people[principal]
	return p != nil && p.Home == w.ID && p.Email != "" && s.still(p.emailBy, w, principal)
}

func notReachable() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeConflict, Message: "the user's e-mail address is another, or was set by somebody who may not act for the user any more: no code goes to it",
		Hint: "look at the address and set it again: fairlead users email NAME ADDRESS; or give the code in another way: --no-send"}
}
