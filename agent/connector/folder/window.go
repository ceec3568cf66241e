package folder

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sort"
	"time"
)

// Limits of a window: what a listing holds of one folder at a time.
const (
	windowNames = 1 << 16
	windowBytes = 4 << 20
	cacheSlots  = 4
	cacheFor    = time.Minute
)

// A window is a run of one folder's names in byte order: the smallest that are not below a starting name. Each window costs
// one pass over the folder, so a folder with a million entries costs sixteen passes, whatever the size of a page, and
// never more memory than one window.
type window struct {
	path  string // of the folder
	from  string // the smallest name it may hold
	names []string
	more  bool // names above the last one exist
	taken time.Time
}

// readWindow passes over dir once.
func readWindow(ctx context.Context, dir *os.Root, path, from string, maxNames, maxBytes int) (*window, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := &window{path: path, from: from, taken: time.Now()}
	size, limit := 0, "" // names at or above limit are known to be too far; "" means none are
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		batch, err := f.Readdirnames(1024)
		for _, n := range batch {
			if n < from || limit != "" && n >= limit || reserved(n) {
				continue
			}
			w.names = append(w.names, n)
			size += len(n)
		}
		if len(w.names) >= 2*maxNames || size >= 2*maxBytes {
			// What is thrown away now was below the old limit, so the new one is too.
			limit, size = w.trim(maxNames, maxBytes)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	w.trim(maxNames, maxBytes)
	return w, nil
}

// trim keeps the smallest names within both limits, at least one. It gives the smallest name that it threw away and the
// bytes of what is left.
func (w *window) trim(maxNames, maxBytes int) (limit string, size int) {
	slices.Sort(w.names)
	keep := 0
	for keep < len(w.names) && keep < maxNames && (keep == 0 || size+len(w.names[keep]) <= maxBytes) {
		size += len(w.names[keep])
		keep++
	}
	if keep < len(w.names) {
		w.more, limit = true, w.names[keep]
		clear(w.names[keep:]) // let go of the text
		w.names = w.names[:keep]
	}
	return limit, size
}

// windowCache keeps the windows that the last pages ended in, so that the next page need not pass over the folder again.
// It serves continued listings only: a listing from the start always looks afresh.
type windowCache []*window

func (c *windowCache) get(path, from string, now time.Time) *window {
	for _, w := range *c {
		if w.path != path || from < w.from || now.Sub(w.taken) > cacheFor {
			continue
		}
		i := sort.SearchStrings(w.names, from)
		if i < len(w.names) || !w.more {
			return &window{path: path, from: from, names: w.names[i:], more: w.more, taken: w.taken}
		}
	}
	return nil
}

func (c *windowCache) put(w *window, now time.Time) {
	kept := (*c)[:0:0]
	for _, have := range *c {
		if have.path != w.path && now.Sub(have.taken) <= cacheFor {
			kept = append(kept, have)
		}
	}
	if len(kept) >= cacheSlots {
		kept = kept[1:]
	}
	*c = append(kept, w)
}
