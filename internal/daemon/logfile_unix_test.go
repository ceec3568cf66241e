//go:build unix

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLogFileIsNotLedElsewhere(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "x.log")
	for name, plant := range map[string]func() error{
		"L6 symbolic link":          func() error { return os.Symlink(victim, path) },
		"L6 hanging symbolic link":  func() error { return os.Symlink(filepath.Join(dir, "new"), path) },
		"L6 hard link":              func() error { return os.Link(victim, path) },
		"L6 pipe that nobody reads": func() error { return syscall.Mkfifo(path, 0o600) },
		"L6 folder":                 func() error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			defer os.Remove(path)
			if err := plant(); err != nil {
				t.Fatal(err)
			}
			if l, err := OpenLogFile(path, 0, 1); err == nil {
				t.Error("it was opened")
				l.Close()
			}
			// Planted while it runs: the log goes on in the file that it has.
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			l, err := OpenLogFile(path, 0, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := plant(); err != nil {
				t.Fatal(err)
			}
			if err := l.Reopen(); err == nil {
				t.Error("it was reopened")
			}
			if _, err := l.Write([]byte("line\n")); err != nil {
				t.Error(err)
			}
			if b, err := os.ReadFile(victim); err != nil || string(b) != "whole" {
				t.Errorf("%q %v", b, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "new")); err == nil {
				t.Error("a file was made behind the link")
			}
		})
	}
}

// A full disk costs lines, never time, and the log says so afterwards.
func TestLogFileSurvivesAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full on this system")
	}
	path := filepath.Join(t.TempDir(), "x.log")
	l, err := OpenLogFile(path, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := newLogger(l, "text", nil)
	log.Info("before")
	good := l.file
	l.mu.Lock()
	l.file, l.torn = full, true
	l.mu.Unlock()
	begin := time.Now()
	for range 1000 {
		log.Info("lost")
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	l.mu.Lock()
	l.file = good
	l.mu.Unlock()
	full.Close()
	log.Info("after")
	b, err := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if err != nil || len(lines) != 4 || lines[1] != "" || !strings.HasSuffix(lines[2], `"log lines were lost: they could not be written" lines=1000`) || !strings.HasSuffix(lines[3], "msg=after") {
		t.Errorf("%v %q", err, lines)
	}
}

// A tool moves the file away and sends SIGHUP.
func TestLogFileIsReopenedAfterItWasMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	l, err := OpenLogFile(path, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := newLogger(l, "json", nil)
	log.Info("one")
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	log.Info("two")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	log.Info("three")
	moved, err := os.ReadFile(path + ".moved")
	if err != nil || strings.Count(string(moved), "\n") != 2 {
		t.Errorf("%v %s", err, moved)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), `"three"`) || strings.Contains(string(b), `"two"`) {
		t.Errorf("%v %s", err, b)
	}
}

func TestHangupReopensTheLogFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	s := sample()
	reloaded := make(chan struct{}, 1)
	s.Reload = func() { reloaded <- struct{}{} }
	err := s.RunLogged(t.Context(), Log{File: path}, nil, func(ctx context.Context, log *slog.Logger, _ func()) error {
		log.Info("one")
		if err := os.Rename(path, path+".moved"); err != nil {
			return err
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			return err
		}
		select {
		case <-reloaded:
		case <-time.After(10 * time.Second):
			return errors.New("Reload was not called")
		}
		log.Info("two")
		return nil
	})
	if b, e := os.ReadFile(path); err != nil || e != nil || !strings.Contains(string(b), "two") || strings.Contains(string(b), "one") {
		t.Errorf("%v %v %s", err, e, b)
	}
}
