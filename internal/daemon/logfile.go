package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// Defaults and bounds of log files.
const (
	DefaultLogSize = 20_000_000
	DefaultLogKeep = 5
	MinLogSize     = 64 << 10
	MaxLogKeep     = 1000
)

// Log says where the log of a program goes and what is in it.
type Log struct {
	Level   string // debug, info, warn, error; what else it says means info
	Format  string // text, json
	File    string // "" means stderr
	MaxSize int64  // bytes of the file before another is begun; 0 means DefaultLogSize
	Keep    int    // older files that stay: FILE.1 is the newest of them
}

// RunLogged is Run with a log. A Windows service has no stderr that anybody reads: started by its manager, and without a
// file of its own, it writes to NAME.log in its data folder. SIGHUP opens the file anew, then calls Reload. Why the program
// ended stands in the file, too. While fn runs, memory that a burst has left is given back, and a small heap has room before it
// is collected. early is an error that is known already (a configuration that was refused): service manager and log hear of
// it, and fn is not called.
func (s Service) RunLogged(ctx context.Context, l Log, early error, fn func(ctx context.Context, log *slog.Logger, ready func()) error) error {
	if l.File == "" && s.Managed && runtime.GOOS == "windows" {
		l.File = filepath.Join(s.DataDir, s.Name+".log")
	}
	log, file, err := l.open()
	if err != nil {
		early = errors.Join(early, err)
	}
	s.Log = log
	if file != nil {
		defer file.Close()
		reload := s.Reload
		s.Reload = func() {
			if err := file.Reopen(); err != nil {
				log.Warn("the log file could not be opened anew; the old one stays in use", "error", err)
			}
			if reload != nil {
				reload()
			}
		}
	}
	return s.Run(ctx, func(ctx context.Context, ready func()) error {
		err := early
		if err == nil {
			tctx, stop := context.WithCancel(ctx)
			var trimming sync.WaitGroup
			trimming.Go(func() { runTrim(tctx) })
			trimming.Go(func() { runCollector(tctx) })
			err = fn(ctx, log, ready)
			stop()
			trimming.Wait()
		}
		if err != nil && file != nil { // stderr has it from the command line
			log.Error(s.Name+" ends", "error", err)
		}
		return err
	})
}

// open makes the logger. The file is nil for stderr.
func (l Log) open() (*slog.Logger, *LogFile, error) {
	o := &slog.HandlerOptions{}
	var level slog.Level
	if level.UnmarshalText([]byte(strings.ToUpper(l.Level))) == nil {
		o.Level = level
	}
	if l.File == "" {
		return newLogger(os.Stderr, l.Format, o), nil, nil
	}
	file, err := OpenLogFile(l.File, l.MaxSize, l.Keep)
	if err != nil {
		return newLogger(io.Discard, l.Format, o), nil, err
	}
	file.json = l.Format == "json"
	return newLogger(file, l.Format, o), file, nil
}

func newLogger(w io.Writer, format string, o *slog.HandlerOptions) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// A LogFile is a file for log lines that begins anew when it is full: FILE becomes FILE.1, FILE.1 becomes FILE.2, and so
// on; the oldest goes. Lines are whole in one file. It is made with mode 0600. On Unix a symbolic link, a file with
// further names (hard links) and what is no regular file are refused, so that the log cannot be led onto another file.
//
// A write that fails (a full disk) is not tried again and holds nobody up: the line is lost, and the next line that can
// be written is preceded by one that says how many were. Safe for concurrent use.
type LogFile struct {
	path    string
	maxSize int64
	keep    int
	json    bool // how the note of lost lines is written; set before the first write

	mu     sync.Mutex // guards what follows
	file   *os.File   // nil after Close, or while it cannot be opened
	closed bool
	size   int64
	torn   bool  // the last write ended within a line
	lost   int64 // lines since the last good write
	retry  int64 // size at which rotating is tried again after it failed
	opened time.Time
}

// reopenWait bounds how often a file that cannot be opened is tried again.
const reopenWait = time.Second

// OpenLogFile opens a log file for appending; it is made when it does not exist, its folder is not. maxSize is in bytes,
// 0 means DefaultLogSize; keep is how many older files stay.
func OpenLogFile(path string, maxSize int64, keep int) (*LogFile, error) {
	if maxSize == 0 {
		maxSize = DefaultLogSize
	}
	if maxSize < 0 || keep < 0 || keep > MaxLogKeep {
		return nil, protocol.Errorf(protocol.CodeInvalid, "log file of %d bytes, %d older ones: out of range", maxSize, keep)
	}
	l := &LogFile{path: path, maxSize: maxSize, keep: keep}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// open opens the file at path. The caller holds mu or is alone.
func (l *LogFile) open() error {
	l.opened = time.Now()
	f, err := openAppend(l.path)
	if err != nil {
		return fmt.Errorf("open the log file: %w", err)
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || links(info) > 1) {
		err = protocol.Errorf(protocol.CodeInvalid, "%s is not a regular file with one name", l.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open the log file: %w", err), f.Close())
	}
	l.file, l.size, l.retry, l.torn = f, info.Size(), 0, false
	return nil
}

// Write writes one line, or several, into one file.
func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, fs.ErrClosed
	}
	if l.file == nil {
		if time.Since(l.opened) < reopenWait {
			l.lost++
			return 0, fs.ErrClosed
		}
		if err := l.open(); err != nil {
			l.lost++
			return 0, err
		}
	}
	if l.size > 0 && l.size+int64(len(p)) > l.maxSize && l.size >= l.retry {
		l.rotate()
		if l.file == nil {
			l.lost++
			return 0, fs.ErrClosed
		}
	}
	if l.torn || l.lost > 0 {
		if err := l.put(l.note()); err != nil {
			l.lost++
			return 0, err
		}
		l.lost = 0
	}
	if err := l.put(p); err != nil {
		l.lost++
		return 0, err
	}
	return len(p), nil
}

// note ends a torn line and tells of lost ones.
func (l *LogFile) note() []byte {
	var b bytes.Buffer
	if l.torn {
		b.WriteByte('\n')
	}
	if l.lost > 0 {
		format := "text"
		if l.json {
			format = "json"
		}
		newLogger(&b, format, nil).Warn("log lines were lost: they could not be written", "lines", l.lost)
	}
	return b.Bytes()
}

// put writes once and keeps account.
func (l *LogFile) put(p []byte) error {
	n, err := l.file.Write(p)
	l.size += int64(n)
	if n > 0 {
		l.torn = p[n-1] != '\n'
	}
	return err
}

// rotate moves the files on and begins a new one. Where that cannot be done (a reader on Windows holds the file) the file
// grows on, and is emptied at twice its size: a bounded disk is worth more than old lines.
func (l *LogFile) rotate() {
	err := l.file.Close()
	l.file = nil
	if l.keep == 0 {
		err = errors.Join(err, os.Remove(l.path))
	} else {
		_ = os.Remove(l.older(l.keep)) // what stays is replaced by the rename
		for i := l.keep - 1; i >= 1; i-- {
			if e := os.Rename(l.older(i), l.older(i+1)); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
		if err == nil {
			err = os.Rename(l.path, l.older(1))
		}
	}
	if l.open() != nil || err == nil {
		return
	}
	if l.size >= 2*l.maxSize && l.file.Truncate(0) == nil {
		l.size = 0
		return
	}
	l.retry = l.size + l.maxSize/20 + 1
}

func (l *LogFile) older(i int) string { return fmt.Sprintf("%s.%d", l.path, i) }

// Reopen opens the file at the path anew, for tools that have moved the old one away. When it cannot be opened the old
// one stays in use.
func (l *LogFile) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fs.ErrClosed
	}
	old := l.file
	if err := l.open(); err != nil {
		return err
	}
	if old != nil {
		return old.Close()
	}
	return nil
}

// Close ends it; what is written afterwards is lost. A second Close does nothing.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return f.Close()
}
