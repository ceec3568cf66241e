package audit

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// Logs holds one Log per workspace, each in a folder of its own below Dir and with a chain of its own, so that tenants stay apart
// and one can be exported or destroyed without the others. A log is opened when it is first asked for. Safe for concurrent
// use; set the fields before the first call.
type Logs struct {
	Config Config // of each log; Dir is the parent of the folders
	// Masker gives a workspace's Masker for its Recorder; nil: no masks, and sensitive fields are dropped.
	Masker func(workspace string) (*Masker, error)
	Seal   func(workspace string, plain []byte) ([]byte, error) // see Recorder.Seal

	mu     sync.Mutex
	open   map[string]*entry
	closed bool
}

type entry struct {
	once sync.Once
	rec  *Recorder
	err  error
}

// Get gives the workspace's log, opened if need be. The name is at most 128 ASCII letters, digits, "_" and "-". A failed opening
// is tried again at the next call.
func (s *Logs) Get(workspace string) (*Log, error) {
	r, err := s.Recorder(workspace)
	if err != nil {
		return nil, err
	}
	return r.Log, nil
}

// Recorder gives the workspace's Recorder. The error wraps ErrUnavailable.
func (s *Logs) Recorder(workspace string) (*Recorder, error) {
	if !validWorkspace(workspace) {
		return nil, fmt.Errorf("%w: the workspace name is malformed", ErrUnavailable)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	if s.open == nil {
		s.open = map[string]*entry{}
	}
	e := s.open[workspace]
	if e == nil {
		e = &entry{}
		s.open[workspace] = e
	}
	s.mu.Unlock()
	e.once.Do(func() { e.rec, e.err = s.start(workspace) }) // outside mu: one slow disk must not hold up the other workspaces
	if e.err == nil {
		return e.rec, nil
	}
	s.mu.Lock()
	if s.open[workspace] == e {
		delete(s.open, workspace)
	}
	s.mu.Unlock()
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, e.err)
}

func (s *Logs) start(workspace string) (*Recorder, error) {
	var m *Masker
	if s.Masker != nil {
		var err error
		if m, err = s.Masker(workspace); err != nil {
			return nil, fmt.Errorf("masker of workspace: %w", err)
		}
	}
	cfg := s.Config
	cfg.Dir = filepath.Join(s.Config.Dir, workspace)
	if cfg.Logger != nil {
		cfg.Logger = cfg.Logger.With(slog.String("workspace", workspace))
	}
	l, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	return &Recorder{Log: l, Masker: m, Workspace: workspace, Source: cfg.Source, Seal: s.Seal}, nil
}

// Workspaces lists those that have a folder, whether open or not.
func (s *Logs) Workspaces() ([]string, error) {
	entries, err := os.ReadDir(s.Config.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list audit logs: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && validWorkspace(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Close closes every log. Later calls of Get answer ErrClosed.
func (s *Logs) Close() error {
	s.mu.Lock()
	open := s.open
	s.open, s.closed = nil, true
	s.mu.Unlock()
	var errs []error
	for _, e := range open {
		e.once.Do(func() { e.err = ErrClosed }) // waits for an opening that is under way
		if e.err == nil {
			errs = append(errs, e.rec.Log.Close())
		}
	}
	return errors.Join(errs...)
}

func validWorkspace(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}
