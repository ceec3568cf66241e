package audit

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// syncDir does nothing: Windows has no fsync of folders, and NTFS journals names itself.
func syncDir(string) error { return nil }

// lockFile takes the folder for this process until the file is closed; the kernel lets go when the process ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	const how = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	if err := windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, &windows.Overlapped{}); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("the log is in use by another process: %w", err)
	}
	return f, nil
}
