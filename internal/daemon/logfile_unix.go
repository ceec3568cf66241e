//go:build unix

package daemon

import (
	"io/fs"
	"os"
	"syscall"
)

// openAppend does not follow a symbolic link at the end of path (row L6) and does not wait for the reader of a pipe.
func openAppend(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
}

// links is how many names a file has.
func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink) // its size differs between systems
	}
	return 1
}
