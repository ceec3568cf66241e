package folder

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

// Limits of one page beside its number of entries. A page that meets one ends early, with a cursor.
const (
	pageExamined = 200_000 // entries looked at, whether they are shown or not
	pageBytes    = 4 << 20 // of paths
	walkBytes    = 8 << 20 // of names held for all levels of a recursive listing
)

// list answers one page. Entries come in byte order of their names, a folder before what it holds. The order, and so the
// cursor, depends on nothing but the names: any agent with the same folder can continue a listing, also after a restart.
// Whatever exists while all pages are read is listed exactly once; what comes or goes meanwhile may be or may not. A page
// may be shorter than asked, even empty, and still have a cursor.
func (f *Folder) list(ctx context.Context, root *os.Root, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	r := c.Request
	parts, err := split(r.Path)
	if err != nil {
		return protocol.Outcome{}, err
	}
	if err := f.allowed(c.Decision.Match, r.Path, true); err != nil {
		return protocol.Outcome{}, err
	}
	g, err := compileGlob(r.Glob)
	if err != nil {
		return protocol.Outcome{}, err
	}
	after, err := parseCursor(r.Cursor)
	if err != nil {
		return protocol.Outcome{}, err
	}
	dir, err := descend(root, parts)
	if err != nil {
		return protocol.Outcome{}, err
	}
	defer dir.Close()
	size := r.PageSize
	if size <= 0 {
		size = f.cfg.PageSize
	}
	l := &lister{f: f, ctx: ctx, match: c.Decision.Match, base: r.Path, glob: g, recursive: r.Recursive, limit: min(size, maxPage), out: []protocol.FileInfo{}}
	more, err := l.folder(dir, r.Path, after, walkBytes, 0)
	if err != nil {
		return protocol.Outcome{}, err
	}
	page := protocol.FileList{Files: l.out}
	if more {
		page.Cursor = base64.RawURLEncoding.EncodeToString([]byte("1" + l.last))
	}
	out, err := answer(w, http.StatusOK, page)
	out.Rows = int64(len(page.Files))
	return out, err
}

// parseCursor gives the parts of the path, relative to the listed folder, where the last page ended. They are compared
// with names and never opened by themselves.
func parseCursor(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 2 || b[0] != '1' {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginAgent, Message: "the cursor is malformed", Hint: "pass the cursor of the last page as it came, or none"}
	}
	return strings.Split(string(b[1:]), "/"), nil
}

// lister gathers one page.
type lister struct {
	f         *Folder
	ctx       context.Context
	base      string
	match     *policy.Globs
	glob      *glob
	recursive bool
	limit     int

	out      []protocol.FileInfo
	size     int
	examined int
	last     string // relative path of the last entry looked at
}

func (l *lister) full() bool {
	return len(l.out) >= l.limit || l.size >= pageBytes || l.examined >= pageExamined
}

// folder goes through one folder from where the last page ended; budget bounds the bytes of names that it and what is
// below it hold. It reports whether the page filled up before the end.
func (l *lister) folder(dir *os.Root, path string, after []string, budget, depth int) (more bool, err error) {
	from, resumed := "", len(after) > 0
	if resumed {
		from = after[0]
	}
	for {
		w, err := l.window(dir, path, from, resumed, budget/2)
		if err != nil {
			return false, err
		}
		for _, name := range w.names {
			if l.examined%256 == 0 && l.ctx.Err() != nil {
				return false, l.ctx.Err()
			}
			var below []string
			again := resumed && name == after[0] // shown on an earlier page; only what is below it is left
			if again {
				below = after[1:]
			}
			if !again && l.full() {
				l.keep(w)
				return true, nil
			}
			more, err := l.entry(dir, path, name, again, below, budget/2, depth)
			if err != nil {
				return false, err
			}
			if more {
				l.keep(w)
				return true, nil
			}
		}
		if !w.more {
			return false, nil
		}
		from = w.names[len(w.names)-1] + "\x00"
	}
}

// entry shows one name and, in a recursive listing, what is below it. What cannot be looked at is left out.
func (l *lister) entry(dir *os.Root, folder, name string, again bool, below []string, budget, depth int) (more bool, err error) {
	path := join(folder, name)
	rel := strings.TrimPrefix(path[len(l.base):], "/")
	l.examined++
	st, err := dir.Lstat(name)
	if err != nil || !st.IsDir() && !st.Mode().IsRegular() || !visible(l.match, path, st.IsDir()) {
		if !again {
			l.last = rel
		}
		return false, nil
	}
	if !again {
		l.last = rel
		sole := !st.Mode().IsRegular() || l.f.cfg.Hardlinks != RejectAlways || l.f.soleLink(place{dir: dir, name: name}, st, false) == nil
		if l.glob.match(rel) && sole {
			i := fileInfo(path, st)
			l.out = append(l.out, i)
			l.size += len(i.Path)
		}
	}
	if !l.recursive || !st.IsDir() || depth >= maxDepth {
		return false, nil
	}
	sub, err := step(dir, name)
	if err != nil {
		return false, nil
	}
	defer sub.Close()
	more, err = l.folder(sub, path, below, budget, depth+1)
	if err != nil && l.ctx.Err() == nil {
		var e *protocol.Error
		if !errors.As(err, &e) {
			l.f.log.Debug("folder left out of a listing", "error", err)
			return false, nil
		}
	}
	return more, err
}

func (l *lister) window(dir *os.Root, path, from string, resumed bool, budget int) (*window, error) {
	if resumed {
		l.f.mu.Lock()
		w := l.f.cache.get(path, from, time.Now())
		l.f.mu.Unlock()
		if w != nil {
			return w, nil
		}
	}
	budget = min(max(budget, 4<<10), windowBytes)
	return readWindow(l.ctx, dir, path, from, min(l.f.window, budget/16), budget)
}

// keep remembers a window for the next page when reading it again would cost.
func (l *lister) keep(w *window) {
	if len(w.names) < 1024 && !w.more {
		return
	}
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	if l.f.ctx.Err() == nil {
		l.f.cache.put(w, time.Now())
	}
}
