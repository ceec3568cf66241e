package main

import (
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/authz"
)

// stillHeld refuses to take actions out of a role whose other actions hold them: nothing would be taken.
func stillHeld(actions, leaving []string) error {
	for _, gone := range leaving {
		for _, a := range actions {
			if set, err := authz.NewSet(authz.Action(a)); err == nil && a != gone && set.Has(authz.Action(gone)) {
				return cli.Usage("--remove %s: the role holds %s, which holds it; remove that, and add those of its actions that shall stay", gone, a)
			}
		}
	}
	return nil
}
