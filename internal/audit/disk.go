package audit

import (
	"errors"
	"os"
	"path/filepath"
)

// disk is what the log asks of the file system. Tests put their own functions here and fail the n-th call.
type disk struct {
	open    func(path string, flag int) (*os.File, error)
	write   func(f *os.File, p []byte) error
	sync    func(f *os.File) error // content and size; times may be lost
	grow    func(f *os.File, from, n int64) error
	close   func(f *os.File) error
	rename  func(from, to string) error
	remove  func(path string) error
	syncDir func(dir string) error
}

func realDisk() disk {
	return disk{
		open:    func(path string, flag int) (*os.File, error) { return os.OpenFile(path, flag, 0o600) },
		write:   func(f *os.File, p []byte) error { _, err := f.Write(p); return err },
		sync:    syncData,
		grow:    grow,
		close:   (*os.File).Close,
		rename:  os.Rename,
		remove:  os.Remove,
		syncDir: syncDir,
	}
}

// grow writes n zero bytes at from, without moving the place of the next write.
func grow(f *os.File, from, n int64) error {
	zeros := make([]byte, min(n, 64<<10))
	for at := from; at < from+n; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), from+n-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// replace puts data in the place of path so that a crash leaves the old content or the new, never a mixture.
func (d disk) replace(dir, path string, data ...[]byte) error {
	tmp := path + ".tmp"
	f, err := d.open(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	for _, p := range data {
		if err == nil && len(p) > 0 {
			err = d.write(f, p)
		}
	}
	if err == nil {
		err = d.sync(f)
	}
	if cerr := d.close(f); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.rename(tmp, path)
	}
	if err != nil {
		_ = d.remove(tmp)
		return err
	}
	return d.syncDir(dir)
}

// makeDir creates a folder and what is missing above it, and makes the new names durable: a synced file in a folder whose own
// name is lost is lost.
func (d disk) makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	parent := filepath.Dir(dir)
	switch {
	case err == nil:
		return d.syncDir(parent)
	case errors.Is(err, os.ErrNotExist) && parent != dir:
		if err := d.makeDir(parent); err != nil {
			return err
		}
		return d.makeDir(dir)
	}
	if info, serr := os.Stat(dir); serr == nil && info.IsDir() {
		return nil
	}
	return err
}
