package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestLogFileRotatesUnderConcurrentWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	const writers, lines, size, keep = 8, 400, 4 << 10, 100
	l, err := OpenLogFile(path, size, keep)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(l, nil))
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range lines {
				log.Info("line", "writer", w, "n", i)
				if w == 0 && i%100 == 99 {
					if err := l.Reopen(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("late\n")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < writers*lines*50/size {
		t.Fatalf("%v %q", err, files)
	}
	newest := make([]int, writers) // order is kept: the older file holds the older lines
	for i := range newest {
		newest[i] = -1
	}
	total := 0
	for i := len(files) - 1; i >= 0; i-- {
		name := path
		if i > 0 {
			name = l.older(i)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(name); err != nil || info.Size() > size || os.PathSeparator == '/' && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), info.Size())
		}
		for line := range strings.Lines(string(b)) {
			var w, n int
			_, rest, ok := strings.Cut(line, "msg=line ")
			if _, err := fmt.Sscanf(rest, "writer=%d n=%d\n", &w, &n); err != nil || !ok || !strings.HasPrefix(line, "time=") || !strings.HasSuffix(line, "\n") {
				t.Fatalf("%s: torn line %q", name, line)
			}
			if n != newest[w]+1 {
				t.Fatalf("%s: writer %d: %d after %d", name, w, n, newest[w])
			}
			newest[w] = n
			total++
		}
	}
	if total != writers*lines {
		t.Errorf("%d lines, want %d", total, writers*lines)
	}
}

func TestLogFileGoesOnWhereItEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	for range 3 {
		l, err := OpenLogFile(path, 25, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := l.Write([]byte("0123456789\n")); err != nil || n != 11 {
			t.Fatal(n, err)
		}
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(path + "*")
	if b, _ := os.ReadFile(path); err != nil || len(files) != 1 || string(b) != "0123456789\n" {
		t.Errorf("keep 0: %q %q %v", files, b, err)
	}
	l, err := OpenLogFile(path, 25, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 10 {
		if _, err := fmt.Fprintf(l, "line %013d\n", i); err != nil { // one a file
			t.Fatal(err)
		}
	}
	for i, name := range []string{path, path + ".1", path + ".2"} {
		if b, err := os.ReadFile(name); err != nil || string(b) != fmt.Sprintf("line %013d\n", 9-i) {
			t.Errorf("%s: %q %v", name, b, err)
		}
	}
	if files, _ := filepath.Glob(path + "*"); len(files) != 3 {
		t.Errorf("keep 2: %q", files)
	}
	for _, c := range []struct{ size, keep int }{{-1, 0}, {0, -1}, {0, MaxLogKeep + 1}} {
		if _, err := OpenLogFile(path, int64(c.size), c.keep); err == nil {
			t.Errorf("%v was taken", c)
		}
	}
	if _, err := OpenLogFile(filepath.Join(t.TempDir(), "no", "x.log"), 0, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// Rotating fails where the older file's place cannot be taken; the file stays bounded all the same.
func TestLogFileIsBoundedWhenItCannotBeMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.MkdirAll(filepath.Join(path+".1", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLogFile(path, 1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	line := []byte(strings.Repeat("x", 99) + "\n")
	for range 1000 {
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() > 2100 {
			t.Fatalf("%v %v", info.Size(), err)
		}
	}
}

func TestRunLogged(t *testing.T) {
	s := sample()
	path := filepath.Join(t.TempDir(), "x.log")
	l := Log{Level: "warn", Format: "json", File: path, Keep: 1}
	failed := errors.New("it ended badly")
	err := s.RunLogged(t.Context(), l, nil, func(_ context.Context, log *slog.Logger, ready func()) error {
		ready()
		log.Info("no")
		log.Warn("yes")
		return failed
	})
	b, e := os.ReadFile(path)
	if !errors.Is(err, failed) || e != nil || bytes.Contains(b, []byte(`"no"`)) || !bytes.Contains(b, []byte(`"yes"`)) || !bytes.Contains(b, []byte("it ended badly")) || b[0] != '{' {
		t.Errorf("%v %v %s", err, e, b)
	}
	never := func(context.Context, *slog.Logger, func()) error { t.Error("it ran"); return nil }
	refused := errors.New("line 3 is wrong")
	if err := s.RunLogged(t.Context(), l, refused, never); !errors.Is(err, refused) {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Contains(b, []byte("line 3 is wrong")) {
		t.Errorf("%v %s", err, b)
	}
	l.File = t.TempDir()
	if err := s.RunLogged(t.Context(), l, nil, never); err == nil {
		t.Error("a folder is no log file")
	}
	err = s.RunLogged(t.Context(), Log{Level: "debug"}, nil, func(ctx context.Context, log *slog.Logger, _ func()) error {
		if !log.Enabled(ctx, slog.LevelDebug) {
			t.Error("the level is not debug")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
