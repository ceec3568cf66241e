package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

var (
	errLink    = denied("the path leads through something that is not a regular file or folder; links are not followed")
	errChanged = &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginTarget, Message: "the path changed while it was being used; try again"}
)

// A place is an open folder and one name in it. Holding the folder open means that what happens to its path afterwards
// cannot lead an operation elsewhere.
type place struct {
	dir    *os.Root
	parts  []string // of the whole path
	folder string   // path of dir
	name   string   // "." for the base itself
}

func (p place) path() string {
	if p.name == "." {
		return ""
	}
	return join(p.folder, p.name)
}

// step opens the folder name in dir without following a link: what Lstat saw must be what was opened.
func step(dir *os.Root, name string) (*os.Root, error) {
	before, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		if before.Mode().IsRegular() {
			return nil, &protocol.Error{Code: protocol.CodeNotFound, Origin: protocol.OriginTarget, Message: "a part of the path is not a folder"}
		}
		return nil, errLink
	}
	next, err := dir.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	after, err := next.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = errChanged
	}
	if err != nil {
		_ = next.Close()
		return nil, err
	}
	return next, nil
}

// descend opens the folder at parts. The caller closes it.
func descend(root *os.Root, parts []string) (*os.Root, error) {
	dir, err := root.OpenRoot(".")
	for _, name := range parts {
		if err != nil {
			return nil, err
		}
		var next *os.Root
		next, err = step(dir, name)
		_ = dir.Close()
		dir = next
	}
	return dir, err
}

// locate opens the folder that holds path. The caller closes place.dir.
func locate(root *os.Root, path string) (place, error) {
	parts, err := split(path)
	if err != nil {
		return place{}, err
	}
	if len(parts) == 0 {
		dir, err := descend(root, nil)
		return place{dir: dir, name: "."}, err
	}
	last := len(parts) - 1
	dir, err := descend(root, parts[:last])
	return place{dir: dir, parts: parts, folder: strings.Join(parts[:last], "/"), name: parts[last]}, err
}

// info gives the facts of what stands at the place, refusing what is neither a regular file nor a folder.
func (p place) info() (fs.FileInfo, error) {
	st, err := p.dir.Lstat(p.name)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() && !st.Mode().IsRegular() {
		return nil, errLink
	}
	return st, nil
}

// same reports an error unless the path still leads to the folder that is held open.
func (p place) same(root *os.Root) error {
	now, err := descend(root, p.parts[:max(0, len(p.parts)-1)])
	if err != nil {
		return err
	}
	defer now.Close()
	a, err := now.Stat(".")
	if err != nil {
		return err
	}
	b, err := p.dir.Stat(".")
	if err != nil {
		return err
	}
	if !os.SameFile(a, b) {
		return errChanged
	}
	return nil
}

// openFile opens a regular file: what Lstat saw must be what was opened, and O_NONBLOCK keeps a pipe that is put there
// in between from holding us up (B8).
func (p place) openFile(flag int) (*os.File, fs.FileInfo, error) {
	before, err := p.info()
	if err != nil {
		return nil, nil, err
	}
	if before.IsDir() {
		return nil, nil, &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginTarget, Message: "this is a folder, not a file"}
	}
	file, err := p.dir.OpenFile(p.name, flag|nonblock, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := file.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = errLink
	case !os.SameFile(before, st):
		err = errChanged
	}
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return file, st, nil
}

// soleLink refuses a file that has other names: one of them may stand outside the base (B5).
func (f *Folder) soleLink(p place, st fs.FileInfo, writing bool) error {
	if st.IsDir() || f.cfg.Hardlinks == RejectNever || !writing && f.cfg.Hardlinks != RejectAlways {
		return nil
	}
	n, err := links(p.dir, p.name, st)
	if err != nil {
		return fmt.Errorf("count links: %w", err)
	}
	if n > 1 {
		return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginAgent, Message: "the file has more than one hard link",
			Rule: "files." + f.cfg.Name + ".reject_hardlinks", Hint: "the site can allow this with reject_hardlinks: never"}
	}
	return nil
}

// etag is strong: made of size, time of change to the nanosecond and the file's identity. A file that is replaced gets
// another even when its size and time are the same.
func etag(st fs.FileInfo) string {
	return `"` + strconv.FormatInt(st.Size(), 36) + "-" + strconv.FormatInt(st.ModTime().UnixNano(), 36) + "-" + strconv.FormatUint(identity(st), 36) + `"`
}

func fileInfo(path string, st fs.FileInfo) protocol.FileInfo {
	i := protocol.FileInfo{Path: display(path), Folder: st.IsDir(), ModTime: st.ModTime().UTC().Format(time.RFC3339Nano)}
	if !i.Folder {
		i.Size, i.ETag = st.Size(), etag(st)
	}
	return i
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
