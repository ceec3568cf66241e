//go:build !windows

package envelope

import (
	"fmt"
	"io/fs"
)

// ownerOnly refuses a mode that lets the group or others in.
func ownerOnly(m fs.FileMode) error {
	if m.Perm()&0o077 != 0 {
		return fmt.Errorf("mode %04o lets others in; it must be 0600", m.Perm())
	}
	return nil
}
