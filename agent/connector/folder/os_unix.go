//go:build unix

package folder

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const nonblock = unix.O_NONBLOCK

func links(_ *os.Root, _ string, st fs.FileInfo) (uint64, error) {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.New("the file system does not tell the number of links")
	}
	return uint64(s.Nlink), nil
}

func identity(st fs.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Ino)
	}
	return 0
}

func diskSpace(f *os.File) (space, error) {
	var st unix.Statfs_t
	var err error
	cerr := control(f, func(fd int) { err = unix.Fstatfs(fd, &st) })
	if cerr != nil {
		err = cerr
	}
	return space{free: uint64(st.Bavail) * uint64(st.Bsize), total: uint64(st.Blocks) * uint64(st.Bsize), freeFiles: uint64(st.Ffree), files: uint64(st.Files)}, err
}

// tryLock takes the file's lock, which ends with the open file. ok is false while somebody else holds it.
func tryLock(f *os.File) (ok bool, err error) {
	if cerr := control(f, func(fd int) { err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }); cerr != nil {
		return false, cerr
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func control(f *os.File, do func(fd int)) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return c.Control(func(fd uintptr) { do(int(fd)) })
}

// withFolders runs do with descriptors of both folders.
func withFolders(a, b *os.Root, do func(a, b int) error) error {
	fa, err := a.Open(".")
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := b.Open(".")
	if err != nil {
		return err
	}
	defer fb.Close()
	cerr := control(fa, func(x int) {
		if e := control(fb, func(y int) { err = do(x, y) }); e != nil {
			err = e
		}
	})
	return errors.Join(cerr, err)
}

func rename(_ *os.Root, from, to place) error {
	return withFolders(from.dir, to.dir, func(a, b int) error { return unix.Renameat(a, from.name, b, to.name) })
}

// renameNew renames unless the new name exists.
func renameNew(_ *os.Root, from, to place, folder bool) error {
	return withFolders(from.dir, to.dir, func(a, b int) error {
		err := renameExclusive(a, from.name, b, to.name)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
		// The file system cannot do it in one step. Two links for a moment are as good for a file; for a folder the check
		// is all there is, made under the profile's lock.
		if !folder {
			if err := unix.Linkat(a, from.name, b, to.name, 0); err != nil {
				return err
			}
			return unix.Unlinkat(a, from.name, 0)
		}
		if _, err := to.dir.Lstat(to.name); err == nil {
			return unix.EEXIST
		}
		return unix.Renameat(a, from.name, b, to.name)
	})
}

func syncFolder(dir *os.Root, sync func(*os.File) error) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := sync(f); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err // EINVAL: the file system does not sync folders and has nothing to say about it
	}
	return nil
}

func errnoName(err error) string {
	var e syscall.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return ""
}

func notEmpty(err error) bool  { return errors.Is(err, unix.ENOTEMPTY) }
func notFolder(err error) bool { return errors.Is(err, unix.ENOTDIR) }
func diskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}
func crossDevice(err error) bool { return errors.Is(err, unix.EXDEV) }
func stale(err error) bool       { return errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOTCONN) }
func badName(err error) bool {
	return errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EILSEQ)
}
