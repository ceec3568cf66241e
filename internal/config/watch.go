package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Defaults of a Watcher.
const (
	// DefaultSettle is how long a file must stay unchanged. Writers that truncate and write in steps pause for up to half a
	// second between them.
	DefaultSettle = 750 * time.Millisecond
	// DefaultPoll bounds how late a change is seen where no events come: network file systems, exhausted inotify limits.
	DefaultPoll = 10 * time.Second
)

// Watcher tells when a file has new content, however it was saved: in place, by renaming another file over it, by renaming
// it away first, or by swapping a symbolic link on the way to it (Kubernetes). It watches the folder, not the file, and
// looks at the file itself at every Poll besides.
//
// Content that looks cut (no line break at its end, or the beginning of what was in force) must stay unchanged for twice as
// long; an empty file is never handed on. A writer that pauses for longer than that in the middle of a file can only be told from one that has
// finished by what it wrote: rename a complete file into place to be sure.
type Watcher struct {
	Path   string
	Also   func() []string // further files (secrets) whose change counts too; may be nil. Asked at each look
	Poll   time.Duration   // DefaultPoll when 0
	Settle time.Duration   // DefaultSettle when 0

	// Apply gets content that has settled and differs from what it got before; or that is the same while a further file has
	// changed. The first call comes with what stands there at the start, unless that is Have: so no change is lost between a
	// first read and the watch. Calls do not overlap.
	Apply func([]byte)
	Have  []byte // what the caller read already; may be nil
	// Failed gets the reason for which the file cannot be read (gone, empty, insecure) when that has settled, once until it
	// changes. May be nil.
	Failed func(error)
	Log    *slog.Logger // may be nil
}

// Watch runs a Watcher with its defaults until ctx ends, and returns nil then. poll 0 means DefaultPoll.
func Watch(ctx context.Context, path string, poll time.Duration, apply func([]byte)) error {
	return (&Watcher{Path: path, Poll: poll, Apply: apply}).Run(ctx)
}

// look is what one look at the files found.
type look struct {
	data  []byte
	err   error
	print [sha256.Size]byte // of content, further files and error text
}

// Run watches until ctx ends and returns nil then. It returns an error at once when Path or Apply is missing; it starts no
// goroutine but fsnotify's own, which ends with it. If the system cannot send events it polls, and logs one warning.
func (w *Watcher) Run(ctx context.Context) error {
	if w.Path == "" || w.Apply == nil {
		return errors.New("watch: path and apply are wanted")
	}
	path, err := filepath.Abs(w.Path)
	if err != nil {
		return fmt.Errorf("watch %s: %w", w.Path, err)
	}
	poll, settle := w.Poll, w.Settle
	if poll <= 0 {
		poll = DefaultPoll
	}
	if settle <= 0 {
		settle = DefaultSettle
	}
	ev := &events{log: w.Log}
	ev.open()
	defer ev.close()
	ev.follow(path)

	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	check := time.NewTimer(0) // fires when the candidate may have settled
	defer check.Stop()

	var (
		inForce   = w.Have // what Apply got last
		done      [sha256.Size]byte
		candidate look
		since     time.Time
		first     = w.Have != nil
	)
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-ev.changes():
			if !ok {
				ev.fail(errors.New("event queue was closed"))
				continue
			}
			// A storm of events is one reason to look: the look itself is put off, and happens at most every tenth of settle.
			if since.IsZero() {
				since = time.Now()
				check.Reset(settle / 10)
			}
			continue
		case err := <-ev.errors():
			ev.warn(err) // an overflow lost events: look now
		case <-ticker.C:
		case <-check.C:
		}
		ev.follow(path)
		now := time.Now()
		found := w.look(path)
		if found.print != candidate.print {
			candidate, since = found, now
		}
		if candidate.print == done {
			since = time.Time{}
			continue
		}
		if since.IsZero() {
			since = now
		}
		need := settle
		if candidate.err != nil || suspect(candidate.data, inForce) {
			need = 2 * settle
		}
		if wait := need - now.Sub(since); wait > 0 {
			check.Reset(min(wait, settle/5+time.Millisecond))
			continue
		}
		done, since = candidate.print, time.Time{}
		if candidate.err != nil {
			if w.Failed != nil {
				w.Failed(candidate.err)
			}
			continue
		}
		known := first && bytes.Equal(candidate.data, w.Have)
		first, inForce = false, candidate.data
		if !known {
			w.Apply(candidate.data)
		}
	}
}

// suspect reports whether content looks like the first part of a file that is still being written.
func suspect(data, inForce []byte) bool {
	return data[len(data)-1] != '\n' || len(data) < len(inForce) && bytes.HasPrefix(inForce, data)
}

// look reads the file and takes the fingerprints of the further ones.
func (w *Watcher) look(path string) look {
	var l look
	h := sha256.New()
	if l.data, l.err = ReadFile(path); l.err == nil && len(l.data) == 0 {
		l.err = fmt.Errorf("%s is empty", path) // truncated, and not written yet
	}
	if l.err != nil {
		l.data = nil
		_, _ = fmt.Fprintf(h, "error %s\n", l.err)
	} else {
		_, _ = fmt.Fprintf(h, "file %d\n", len(l.data))
		_, _ = h.Write(l.data)
	}
	if w.Also != nil {
		also := slices.Clone(w.Also())
		slices.Sort(also) // their order says nothing: it may come from a map
		for _, p := range also {
			_, _ = fmt.Fprintf(h, "also %q ", p)
			if data, err := os.ReadFile(p); err == nil && len(data) <= MaxBytes {
				sum := sha256.Sum256(data)
				_, _ = h.Write(sum[:])
			}
		}
	}
	h.Sum(l.print[:0])
	return l
}

// events holds the folders on the way to a file under watch. Without fsnotify its channels are nil and block for ever, which
// leaves the poll.
type events struct {
	log     *slog.Logger
	watcher *fsnotify.Watcher
	folders map[string]bool
	warned  bool
}

func (e *events) open() {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		e.warn(err)
		return
	}
	e.watcher, e.folders = w, map[string]bool{}
}

func (e *events) close() {
	if e.watcher != nil {
		_ = e.watcher.Close() // nothing is written through it
	}
}

func (e *events) changes() <-chan fsnotify.Event {
	if e.watcher == nil {
		return nil
	}
	return e.watcher.Events
}

func (e *events) errors() <-chan error {
	if e.watcher == nil {
		return nil
	}
	return e.watcher.Errors
}

func (e *events) fail(err error) {
	e.warn(err)
	e.close()
	e.watcher = nil
}

// warn says once that events are not to be relied on.
func (e *events) warn(err error) {
	if !e.warned && e.log != nil && err != nil {
		e.log.Warn("changes of the configuration are found by polling alone", "error", err)
	}
	e.warned = true
}

// follow watches the folder that the path names and the one that its symbolic links lead to. Adding a folder again costs
// nothing, and catches one that was removed and made anew.
func (e *events) follow(path string) {
	if e.watcher == nil {
		return
	}
	want := map[string]bool{filepath.Dir(path): true}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		want[filepath.Dir(real)] = true
	}
	for dir := range e.folders {
		if !want[dir] {
			_ = e.watcher.Remove(dir) // it may be gone with its watch
			delete(e.folders, dir)
		}
	}
	for dir := range want {
		if err := e.watcher.Add(dir); err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				e.warn(err)
			}
			continue
		}
		e.folders[dir] = true
	}
}
