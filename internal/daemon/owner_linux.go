package daemon

import (
	"io/fs"
	"syscall"
)

// owner is the user id of a file's owner; -1 when the file system does not say.
func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}
