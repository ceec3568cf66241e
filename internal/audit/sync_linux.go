package audit

import (
	"fmt"
	"os"
	"syscall"
)

// syncData makes what was written durable, and of what the file system knows of the file only what is needed to find it again.
// Within bytes that are there already that is nothing, and no journal stands in the way.
func syncData(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := c.Control(func(fd uintptr) {
		for serr = syscall.EINTR; serr == syscall.EINTR; {
			serr = syscall.Fdatasync(int(fd))
		}
	}); err != nil {
		return err
	}
	if serr != nil {
		return fmt.Errorf("fdatasync %s: %w", f.Name(), serr)
	}
	return nil
}
