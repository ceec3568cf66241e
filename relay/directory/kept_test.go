package directory

import (
	"context"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
)

// AsGivenBefore makes an open one-time code, and the address, such as a release keeps them that knew no verbs.
func AsGivenBefore(ctx context.Context, d *Directory, p *Person) error {
	return d.changePerson(ctx, p.ID, func(_ *store.Tx, b *personBody) error {
		for _, g := range []*giver{b.InviteBy, b.EmailBy} {
			if g != nil {
				g.Action = ""
			}
		}
		return nil
	})
}

// KeptOf gives a custom role's actions as they are stored.
func KeptOf(d *Directory, r *Role) ([]authz.Action, error) {
	var b roleBody
	err := open(d.vault, place(r.Workspace, "roles", r.ID, r.Version), r.sealed, &b)
	return b.Actions, err
}
