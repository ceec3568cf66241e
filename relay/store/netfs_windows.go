package store

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

// networkFS names the network file system that dir is on, or nothing.
func networkFS(dir string) string {
	root := filepath.VolumeName(dir)
	if strings.HasPrefix(root, `\\`) && !strings.HasPrefix(root, `\\?\`) && !strings.HasPrefix(root, `\\.\`) {
		return "share"
	}
	p, err := windows.UTF16PtrFromString(root + `\`)
	if err == nil && windows.GetDriveType(p) == windows.DRIVE_REMOTE {
		return "share"
	}
	return ""
}
