package folder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

// Hardlinks says for which operations a file with more than one link is refused.
type Hardlinks string

const (
	RejectOnWrite Hardlinks = "write"  // write, delete and move; the default
	RejectAlways  Hardlinks = "always" // read and stat too; such files are not listed
	RejectNever   Hardlinks = "never"
)

// Config describes one files profile. Which verbs the site allows is the policy's question, asked before Do; Do asks
// again what only the file system knows.
type Config struct {
	Name string // of the profile
	Base string // absolute path of the folder; may itself be a link. A base that is absent is unavailable until it appears

	// Own are files and folders of the agent itself: its configuration, keys, spool. New refuses a base that holds one.
	Own []string

	ReadOnly bool // refuse everything that changes the folder, and do not sweep it

	MaxSize   int64     // bytes of one file, read or written; 0 means no limit. A Decision can only lower it
	Hardlinks Hardlinks // "" means RejectOnWrite

	// What stays free on the disk: the larger of the two. 0 means 1 GiB and 5 percent, a negative value none. The percent
	// hold for the inodes too.
	ReserveBytes   int64
	ReservePercent float64

	PageSize   int           // entries of a page when the caller names none; 0 means 1,000. No page has more than 10,000
	UploadKeep time.Duration // how long a partial upload is kept after its last byte; 0 means 24 h
}

const (
	maxPage    = 10_000
	createMode = 0o640
	folderMode = 0o750
)

// Folder is the Connector of one files profile.
type Folder struct {
	cfg Config
	log *slog.Logger

	ctx   context.Context // ends at Close
	stop  context.CancelFunc
	wg    sync.WaitGroup
	sweep chan struct{} // a word to the sweeper that something was written

	commit sync.Mutex // held from the last check of a target to its change

	mu     sync.Mutex               // guards the fields below
	root   *os.Root                 // nil while the base is absent
	active map[string]chan struct{} // temporary files in use, by path; closed when its request leaves
	cache  windowCache

	window int           // names in one window; tests lower it
	wait   time.Duration // uploadWait; tests lower it

	space func(*os.File) (space, error) // of the file system that holds the file
	sync  func(*os.File) error
}

var _ connector.Connector = (*Folder)(nil)

// New opens the base and starts a sweeper that removes what cut uploads left behind. Close ends both. An error names
// what is wrong with the configuration; a base that does not exist (a mount that comes late) is not one.
func New(cfg Config, log *slog.Logger) (*Folder, error) {
	if !filepath.IsAbs(cfg.Base) {
		return nil, fmt.Errorf("files profile %s: base %q is not an absolute path", cfg.Name, cfg.Base)
	}
	switch cfg.Hardlinks {
	case "":
		cfg.Hardlinks = RejectOnWrite
	case RejectOnWrite, RejectAlways, RejectNever:
	default:
		return nil, fmt.Errorf("files profile %s: reject_hardlinks is %q; want write, always or never", cfg.Name, cfg.Hardlinks)
	}
	if cfg.ReserveBytes == 0 {
		cfg.ReserveBytes = 1 << 30
	}
	if cfg.ReservePercent == 0 {
		cfg.ReservePercent = 5
	}
	if cfg.PageSize <= 0 {
		cfg.PageSize = 1000
	}
	if cfg.UploadKeep <= 0 {
		cfg.UploadKeep = 24 * time.Hour
	}
	f := &Folder{cfg: cfg, log: log.With("profile", cfg.Name), sweep: make(chan struct{}, 1), active: map[string]chan struct{}{}, window: windowNames, wait: uploadWait, space: diskSpace, sync: (*os.File).Sync}
	f.ctx, f.stop = context.WithCancel(context.Background())
	if _, err := f.open(); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.stop()
			return nil, err
		}
		f.log.Warn("the folder does not exist yet", "base", cfg.Base)
	}
	if !cfg.ReadOnly {
		f.wg.Go(f.sweeper)
	}
	return f, nil
}

// open gives the root, opening it when it is not open yet.
func (f *Folder) open() (*os.Root, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.root != nil {
		return f.root, nil
	}
	if f.ctx.Err() != nil {
		return nil, fmt.Errorf("files profile %s is closed: %w", f.cfg.Name, context.Canceled)
	}
	r, err := os.OpenRoot(f.cfg.Base)
	if err != nil {
		return nil, fmt.Errorf("files profile %s: open base: %w", f.cfg.Name, err)
	}
	st, err := r.Stat(".")
	if err == nil {
		err = f.refuseOwn(st)
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	f.root = r
	return r, nil
}

// drop forgets a root that has gone stale (an NFS server that restarted), so that the next call opens it anew.
func (f *Folder) drop(r *os.Root) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.root == r && f.ctx.Err() == nil {
		_ = r.Close()
		f.root = nil
	}
}

// refuseOwn refuses a base that holds a file of the agent itself (B19). Folders are compared by identity, so that no
// link or second mount hides one.
func (f *Folder) refuseOwn(base fs.FileInfo) error {
	for _, own := range f.cfg.Own {
		abs, err := filepath.Abs(own)
		if err != nil {
			return fmt.Errorf("files profile %s: %w", f.cfg.Name, err)
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		for at := abs; ; at = filepath.Dir(at) {
			if st, err := os.Stat(at); err == nil && os.SameFile(st, base) {
				return fmt.Errorf("files profile %s: base %s holds the agent's own %s; choose another folder or move the agent's files", f.cfg.Name, f.cfg.Base, own)
			}
			if filepath.Dir(at) == at {
				break
			}
		}
	}
	return nil
}

// Close ends the calls that run, joins the sweeper and closes the base.
func (f *Folder) Close() error {
	f.stop()
	f.wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cache = nil
	if f.root == nil {
		return nil
	}
	err := f.root.Close()
	f.root = nil
	return err
}

// Do implements connector.Connector.
func (f *Folder) Do(ctx context.Context, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(f.ctx, func() { cancel(errClosed) })()
	if c.Request.Writes() && f.cfg.ReadOnly {
		return protocol.Outcome{}, denied("this folder is offered for reading only")
	}
	root, err := f.open()
	if err != nil {
		return protocol.Outcome{}, &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginTarget, Message: "the folder cannot be opened at the site", Cause: err}
	}
	var out protocol.Outcome
	switch c.Request.Operation {
	case protocol.OpList:
		out, err = f.list(ctx, root, c, w)
	case protocol.OpStat:
		out, err = f.stat(root, c, w)
	case protocol.OpRead:
		out, err = f.read(ctx, root, c, w)
	case protocol.OpWrite:
		out, err = f.write(ctx, root, c, w)
	case protocol.OpDelete:
		out, err = f.remove(root, c, w)
	case protocol.OpMove:
		out, err = f.move(ctx, root, c, w)
	case protocol.OpMkdir:
		out, err = f.mkdir(root, c, w)
	default:
		err = protocol.Errorf(protocol.CodeUnsupported, "a files profile does not know operation %s", c.Request.Operation)
	}
	if stale(err) {
		f.drop(root)
	}
	if err != nil && context.Cause(ctx) == errClosed {
		err = errClosed
	}
	return out, fault(err)
}

var errClosed = &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginAgent, Message: "the agent ended the operation: it stops, or the profile changed"}

// fault makes what the operating system says into an error that may be shown.
func fault(err error) error {
	var e *protocol.Error
	if err == nil || errors.As(err, &e) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	code, message := classify(err)
	return &protocol.Error{Code: code, Message: message, Origin: protocol.OriginTarget, Detail: errnoName(err), Cause: err}
}

func classify(err error) (protocol.Code, string) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return protocol.CodeNotFound, "no such file or folder"
	case notEmpty(err): // first: on Unix it counts as ErrExist, too
		return protocol.CodeConflict, "the folder is not empty"
	case errors.Is(err, fs.ErrExist):
		return protocol.CodeConflict, "a file or folder of that name exists"
	case errors.Is(err, fs.ErrPermission):
		return protocol.CodeDenied, "the site's file system does not let the agent do this"
	case diskFull(err):
		return protocol.CodeQuota, "the disk or quota at the site is exhausted"
	case notFolder(err):
		return protocol.CodeNotFound, "a part of the path is not a folder"
	case badName(err):
		return protocol.CodeInvalid, "the site's file system does not take this name"
	case crossDevice(err):
		return protocol.CodeUnsupported, "source and destination are on different file systems"
	case stale(err):
		return protocol.CodeUnavailable, "the site's file system is not there at the moment"
	}
	return protocol.CodeUpstream, "the site's file system answered with an error"
}

func denied(message string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginAgent, Message: message}
}

// visible asks the site's globs; those of the decision, so that a call is judged by one configuration from end to end.
func visible(m *policy.Globs, path string, folder bool) bool {
	if folder {
		return m.Folder(path)
	}
	return m.File(path)
}

// allowed refuses a path outside the site's globs, once it is known whether it is a folder.
func (f *Folder) allowed(m *policy.Globs, path string, folder bool) error {
	if visible(m, path, folder) {
		return nil
	}
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginAgent, Message: "the path is outside what this profile offers", Rule: "files." + f.cfg.Name + ".match"}
}

// limit is the size that a file may have; 0 means any.
func (f *Folder) limit(c *connector.Call) int64 {
	a, b := f.cfg.MaxSize, c.Decision.Limits.MaxSize
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) (protocol.Outcome, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return protocol.Outcome{}, fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	n, err := w.Write(append(b, '\n'))
	return protocol.Outcome{Bytes: int64(n), Status: status}, err
}

const isWindows = runtime.GOOS == "windows"
