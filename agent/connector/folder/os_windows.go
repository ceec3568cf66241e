package folder

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

const nonblock = 0

func links(dir *os.Root, name string, _ fs.FileInfo) (uint64, error) {
	f, err := dir.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &info); err != nil {
		return 0, err
	}
	return uint64(info.NumberOfLinks), nil
}

// identity is the time of creation: the file index would want an open handle for each entry of a listing.
func identity(st fs.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Win32FileAttributeData); ok {
		return uint64(s.CreationTime.HighDateTime)<<32 | uint64(s.CreationTime.LowDateTime)
	}
	return 0
}

func diskSpace(f *os.File) (space, error) {
	buf := make([]uint16, windows.MAX_LONG_PATH)
	n, err := windows.GetFinalPathNameByHandle(windows.Handle(f.Fd()), &buf[0], uint32(len(buf)), 0)
	if err != nil {
		return space{}, err
	}
	// The folder, not the file: the call wants a folder.
	for n > 0 && buf[n-1] != '\\' {
		n--
	}
	buf[n] = 0
	var s space
	err = windows.GetDiskFreeSpaceEx(&buf[0], &s.free, &s.total, nil)
	return s, err
}

// tryLock takes the file's lock, which ends with the open file. ok is false while somebody else holds it. The range lies
// beyond every file, for a lock here would keep others from the bytes.
func tryLock(f *os.File) (ok bool, err error) {
	at := windows.Overlapped{Offset: 0xffffffff, OffsetHigh: 0x7fffffff}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

func rename(root *os.Root, from, to place) error { return root.Rename(from.path(), to.path()) }

// renameNew renames unless the new name exists.
func renameNew(root *os.Root, from, to place, folder bool) error {
	if !folder {
		if err := root.Link(from.path(), to.path()); err == nil || errors.Is(err, fs.ErrExist) {
			if err != nil {
				return err
			}
			return root.Remove(from.path())
		}
	}
	// No links on this file system, or a folder: the check is all there is, made under the profile's lock.
	if _, err := to.dir.Lstat(to.name); err == nil {
		return windows.ERROR_FILE_EXISTS
	}
	return root.Rename(from.path(), to.path())
}

// syncFolder does nothing: NTFS journals names, and a folder cannot be flushed.
func syncFolder(*os.Root, func(*os.File) error) error { return nil }

func errnoName(error) string { return "" }

func notEmpty(err error) bool { return errors.Is(err, windows.ERROR_DIR_NOT_EMPTY) }
func notFolder(err error) bool {
	return errors.Is(err, windows.ERROR_DIRECTORY) || errors.Is(err, syscall.ENOTDIR)
}
func crossDevice(err error) bool { return errors.Is(err, windows.ERROR_NOT_SAME_DEVICE) }
func stale(err error) bool {
	return errors.Is(err, windows.ERROR_BAD_NETPATH) || errors.Is(err, windows.ERROR_NETNAME_DELETED) || errors.Is(err, windows.ERROR_NOT_READY)
}
func diskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) || errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
func badName(err error) bool {
	return errors.Is(err, windows.ERROR_INVALID_NAME) || errors.Is(err, windows.ERROR_FILENAME_EXCED_RANGE)
}
