package folder

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

// moveLimit is how many entries a folder may hold that is moved in a profile with globs: all of them are checked first.
const moveLimit = 100_000

var errBase = &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginAgent, Message: "the profile's folder itself stays where it is"}

// remove deletes a file or an empty folder.
func (f *Folder) remove(root *os.Root, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	r := c.Request
	if r.Path == "" {
		return protocol.Outcome{}, errBase
	}
	p, err := locate(root, r.Path)
	if err != nil {
		return protocol.Outcome{}, err
	}
	defer p.dir.Close()
	f.commit.Lock()
	defer f.commit.Unlock()
	st, err := p.info()
	if err != nil {
		return protocol.Outcome{}, f.hide(c.Decision.Match, r.Path, err)
	}
	if err := f.allowed(c.Decision.Match, r.Path, st.IsDir()); err != nil {
		return protocol.Outcome{}, err
	}
	if err := f.soleLink(p, st, true); err != nil {
		return protocol.Outcome{}, err
	}
	if err := precondition(r.Header, st); err != nil {
		return protocol.Outcome{}, err
	}
	if err := p.same(root); err != nil {
		return protocol.Outcome{}, err
	}
	if err := p.dir.Remove(p.name); err != nil {
		return protocol.Outcome{}, err
	}
	if err := syncFolder(p.dir, f.sync); err != nil {
		return protocol.Outcome{}, err
	}
	w.WriteHeader(http.StatusNoContent)
	return protocol.Outcome{Status: http.StatusNoContent}, nil
}

// move renames a file or a folder inside the profile. An existing file is replaced only if the caller says so, a folder
// never is.
func (f *Folder) move(ctx context.Context, root *os.Root, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	r := c.Request
	if r.Path == "" || r.To == "" {
		return protocol.Outcome{}, errBase
	}
	from, err := locate(root, r.Path)
	if err != nil {
		return protocol.Outcome{}, err
	}
	defer from.dir.Close()
	to, err := locate(root, r.To)
	if err != nil {
		return protocol.Outcome{}, err
	}
	defer to.dir.Close()
	f.commit.Lock()
	defer f.commit.Unlock()
	st, err := from.info()
	if err != nil {
		return protocol.Outcome{}, f.hide(c.Decision.Match, r.Path, err)
	}
	for _, path := range []string{r.Path, r.To} {
		if err := f.allowed(c.Decision.Match, path, st.IsDir()); err != nil {
			return protocol.Outcome{}, err
		}
	}
	if err := f.soleLink(from, st, true); err != nil {
		return protocol.Outcome{}, err
	}
	if err := precondition(r.Header, st); err != nil {
		return protocol.Outcome{}, err
	}
	if st.IsDir() {
		if r.To == r.Path || strings.HasPrefix(r.To, r.Path+"/") {
			return protocol.Outcome{}, &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginAgent, Message: "a folder cannot be moved into itself"}
		}
		if err := f.movable(ctx, c.Decision.Match, from, r.To); err != nil {
			return protocol.Outcome{}, err
		}
	}
	have, err := to.info()
	switch {
	case absent(err):
	case err != nil:
		return protocol.Outcome{}, err
	case have.IsDir() || st.IsDir() || !r.Overwrite:
		return protocol.Outcome{}, fs.ErrExist
	default:
		if err := f.soleLink(to, have, true); err != nil {
			return protocol.Outcome{}, err
		}
	}
	if err := errors.Join(from.same(root), to.same(root)); err != nil {
		return protocol.Outcome{}, err
	}
	if r.Overwrite && !st.IsDir() {
		err = rename(root, from, to)
	} else {
		err = renameNew(root, from, to, st.IsDir())
	}
	if err != nil {
		return protocol.Outcome{}, err
	}
	if err := errors.Join(syncFolder(to.dir, f.sync), syncFolder(from.dir, f.sync)); err != nil {
		return protocol.Outcome{}, err
	}
	if st, err = to.info(); err != nil {
		return protocol.Outcome{}, err
	}
	return answer(w, http.StatusOK, fileInfo(r.To, st))
}

// movable refuses to move a folder that holds anything the site's globs do not show, under its old path or its new one:
// that would be a way to touch hidden files.
func (f *Folder) movable(ctx context.Context, m *policy.Globs, from place, to string) error {
	if m == nil {
		return nil
	}
	dir, err := step(from.dir, from.name)
	if err != nil {
		return err
	}
	defer dir.Close()
	left := moveLimit
	return movableBelow(ctx, m, dir, from.path(), to, &left, 0)
}

func movableBelow(ctx context.Context, m *policy.Globs, dir *os.Root, from, to string, left *int, depth int) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		batch, err := d.ReadDir(1024)
		for _, e := range batch {
			if *left--; *left < 0 || depth >= maxDepth || ctx.Err() != nil {
				return &protocol.Error{Code: protocol.CodeTooLarge, Origin: protocol.OriginAgent, Message: "the folder holds too much to be checked against the profile's globs"}
			}
			if reserved(e.Name()) {
				continue
			}
			a, b := join(from, e.Name()), join(to, e.Name())
			if !e.IsDir() && !e.Type().IsRegular() || !visible(m, a, e.IsDir()) || !visible(m, b, e.IsDir()) {
				return denied("the folder holds something that this profile does not offer")
			}
			if e.IsDir() {
				sub, err := step(dir, e.Name())
				if err != nil {
					return err
				}
				err = movableBelow(ctx, m, sub, a, b, left, depth+1)
				_ = sub.Close()
				if err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// mkdir makes a folder and the parents that are missing. A folder that exists is left as it is and is no error.
func (f *Folder) mkdir(root *os.Root, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	r := c.Request
	parts, err := split(r.Path)
	if err != nil {
		return protocol.Outcome{}, err
	}
	if len(parts) == 0 {
		return protocol.Outcome{}, errBase
	}
	for i := range parts {
		if err := f.allowed(c.Decision.Match, strings.Join(parts[:i+1], "/"), true); err != nil {
			return protocol.Outcome{}, err
		}
	}
	dir, err := descend(root, nil)
	if err != nil {
		return protocol.Outcome{}, err
	}
	defer func() { _ = dir.Close() }()
	status := http.StatusOK
	for _, name := range parts {
		err := dir.Mkdir(name, folderMode)
		if err == nil {
			status = http.StatusCreated
			err = syncFolder(dir, f.sync)
		} else if errors.Is(err, fs.ErrExist) {
			err = nil
			if st, serr := dir.Lstat(name); serr == nil && st.Mode().IsRegular() {
				err = fs.ErrExist
			}
		}
		if err != nil {
			return protocol.Outcome{}, err
		}
		next, err := step(dir, name)
		if err != nil {
			return protocol.Outcome{}, err
		}
		_ = dir.Close()
		dir = next
	}
	st, err := dir.Stat(".")
	if err != nil {
		return protocol.Outcome{}, err
	}
	return answer(w, status, fileInfo(r.Path, st))
}
