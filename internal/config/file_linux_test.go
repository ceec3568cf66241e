package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairleadhq/fairlead/internal/config"
)

// TestReadOnlyMountMayBeWide is a Kubernetes ConfigMap: its folder has mode 0777 and is mounted read-only.
func TestReadOnlyMountMayBeWide(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0777"); err != nil {
		// No promise of ours rests on mounts being at hand: what is refused without one is tested elsewhere.
		t.Skipf("mounts are not permitted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "agent.yaml")
	write(t, path, "version: 1\n", 0o644)
	if _, err := config.ReadFile(path); !errors.Is(err, config.ErrInsecure) {
		t.Errorf("writable: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "mode=0777"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if _, err := config.ReadFile(path); err != nil {
		t.Errorf("read-only: %v", err)
	}
}
