package agent

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// lockDataDir keeps a second agent off the same data folder: two writers would break the audit chain.
func lockDataDir(dir string) (func(), error) {
	name, err := windows.UTF16PtrFromString(filepath.Join(dir, "agent.lock"))
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	// No sharing: a second open fails while this handle lives.
	h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_ALWAYS, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, fmt.Errorf("another fairlead-agent runs with the data folder %s (or it cannot be written); stop it, or use another --data: %w", dir, err)
	}
	return func() { _ = windows.CloseHandle(h) }, nil
}
