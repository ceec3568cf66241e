package daemon

import (
	"io/fs"
	"os"
)

// openAppend relies on the access list of the folder: making links takes rights that others do not have there.
func openAppend(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}

func links(fs.FileInfo) uint64 { return 1 }
