//go:build unix

package config

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFile does not wait for the writer of a named pipe.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

func checkFile(f *os.File, info os.FileInfo, isSecret bool) error {
	mode := info.Mode().Perm()
	switch {
	case isSecret && mode&0o027 != 0:
		return fmt.Errorf("mode %04o lets other users at a secret; run: chmod 600 %s", mode, f.Name())
	case mode&0o022 != 0:
		return fmt.Errorf("mode %04o lets other users change it; run: chmod go-w %s", mode, f.Name())
	}
	return checkOwner(info, f.Name())
}

func checkOwner(info os.FileInfo, name string) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("owner is user %d, neither root nor the user that runs this program; run: chown root %s", st.Uid, name)
	}
	return nil
}

// checkFolder lets a sticky folder pass, where only the owner can replace a file, and one that is mounted read-only:
// Kubernetes mounts secrets as 1777 and configuration as 0777, the latter read-only.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o002 != 0 && info.Mode()&os.ModeSticky == 0 && !errors.Is(unix.Access(dir, unix.W_OK), unix.EROFS) {
		return fmt.Errorf("mode %04o lets every user replace files in it; run: chmod o-w %s", info.Mode().Perm(), dir)
	}
	return nil
}
