package config_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/config"
)

// watched runs a Watcher on a folder and records what it hands on.
type watched struct {
	t       *testing.T
	dir     string
	path    string
	applied chan []byte
	failed  chan error
	mu      sync.Mutex
	all     [][]byte
}

func startWatch(t *testing.T, w config.Watcher, first string) *watched {
	t.Helper()
	s := &watched{t: t, dir: t.TempDir(), applied: make(chan []byte, 10000), failed: make(chan error, 10000)}
	s.path = filepath.Join(s.dir, "agent.yaml")
	if first != "" {
		s.save(s.path, first)
	}
	s.run(w)
	return s
}

func (s *watched) run(w config.Watcher) {
	w.Path = s.path
	w.Apply = func(b []byte) {
		s.mu.Lock()
		s.all = append(s.all, b)
		s.mu.Unlock()
		s.applied <- b
	}
	w.Failed = func(err error) { s.failed <- err }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("Run: %v", err)
		}
	})
}

func (s *watched) save(path, content string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *watched) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// want waits for exactly this content as the next one handed on.
func (s *watched) want(content string, within time.Duration) {
	s.t.Helper()
	select {
	case got := <-s.applied:
		if string(got) != content {
			s.t.Fatalf("handed on %q, want %q", got, content)
		}
	case err := <-s.failed:
		s.t.Fatalf("failed: %v", err)
	case <-time.After(within):
		s.t.Fatalf("%q was not handed on within %s", content, within)
	}
}

// drain waits for this content and drops what comes before it.
func (s *watched) drain(content string) {
	s.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case got := <-s.applied:
			if string(got) == content {
				return
			}
		case <-s.failed:
		case <-deadline:
			s.t.Fatalf("%q was not handed on", content)
		}
	}
}

func pause(d time.Duration) { <-time.After(d) }

// content makes a whole file whose every line break is a place where a half of it would parse.
func content(n int) string {
	return fmt.Sprintf("version: 1\n# %d\nallow:\n  - {cidr: 10.0.0.0/8, ports: [%d]}\ndeny:\n  - {cidr: 10.9.0.0/16}\n", n, n+1)
}

// TestHalfWrittenFileIsNeverApplied is Z60 with the default times: each way to save gives exactly one reload, of the whole
// file. On an idle machine that comes within a second after the last write.
func TestHalfWrittenFileIsNeverApplied(t *testing.T) {
	half := func(s string) (string, string) {
		i := strings.Index(s, "deny:")
		return s[:i], s[i:]
	}
	styles := map[string]func(s *watched, n string){
		"truncate and write in two steps 500 ms apart": func(s *watched, n string) {
			a, b := half(n)
			f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_TRUNC, 0)
			s.must(err)
			_, err = f.WriteString(a)
			s.must(err)
			pause(500 * time.Millisecond)
			_, err = f.WriteString(b)
			s.must(err)
			s.must(f.Close())
		},
		"truncate, then write 500 ms later": func(s *watched, n string) {
			s.must(os.Truncate(s.path, 0))
			pause(500 * time.Millisecond)
			s.save(s.path, n)
		},
		"two closed writes 500 ms apart": func(s *watched, n string) {
			a, _ := half(n)
			s.save(s.path, a)
			pause(500 * time.Millisecond)
			s.save(s.path, n)
		},
		"many small writes": func(s *watched, n string) {
			f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_TRUNC, 0)
			s.must(err)
			for i := 0; i < len(n); i += 16 {
				_, err = f.WriteString(n[i:min(i+16, len(n))])
				s.must(err)
				pause(50 * time.Millisecond)
			}
			s.must(f.Close())
		},
		"atomic rename": func(s *watched, n string) {
			s.save(s.path+".tmp", n)
			s.must(os.Rename(s.path+".tmp", s.path))
		},
		"vim: backup by rename, then a new file": func(s *watched, n string) {
			s.must(os.Rename(s.path, s.path+"~"))
			pause(100 * time.Millisecond)
			s.save(s.path, n)
			s.must(os.Remove(s.path + "~"))
		},
		"remove and create": func(s *watched, n string) {
			s.must(os.Remove(s.path))
			pause(300 * time.Millisecond)
			s.save(s.path, n)
		},
		"cp over it":     func(s *watched, n string) { s.save(s.path, n) },
		"sed -i, by tmp": func(s *watched, n string) { s.save(s.dir+"/sedAb1", n); s.must(os.Rename(s.dir+"/sedAb1", s.path)) },
		"hard link swap": func(s *watched, n string) {
			s.save(s.dir+"/other", n)
			s.must(os.Remove(s.path))
			s.must(os.Link(s.dir+"/other", s.path))
		},
	}
	for name, save := range styles {
		t.Run("Z60 "+name, func(t *testing.T) {
			t.Parallel()
			s := startWatch(t, config.Watcher{Have: []byte(content(0)), Poll: time.Hour}, content(0))
			for n := 1; ; n++ {
				start := time.Now()
				save(s, content(n))
				if took := time.Since(start); took > config.DefaultSettle && n < 10 {
					// The machine held the writer up for longer than any style pauses: nothing can be said of this save.
					s.drain(content(n))
					continue
				}
				start = time.Now()
				s.want(content(n), 10*time.Second)
				t.Logf("applied after %s", time.Since(start))
				return
			}
		})
	}
	t.Run("Z60 no events at all, as on NFS", func(t *testing.T) {
		t.Parallel()
		// Written through a second hard link in another folder, of which the watched folder is told nothing.
		s := startWatch(t, config.Watcher{Have: []byte(content(0)), Poll: 200 * time.Millisecond}, content(0))
		elsewhere := filepath.Join(t.TempDir(), "agent.yaml")
		s.must(os.Link(s.path, elsewhere))
		s.save(elsewhere, content(1))
		s.want(content(1), 10*time.Second)
	})
}

// TestRandomSavesApplyNothingHalf saves in random styles as fast as it can: whatever is handed on is a whole file, and the
// last one arrives. A save that this machine held up for longer than the time to settle counts as one at rest.
func TestRandomSavesApplyNothingHalf(t *testing.T) {
	const n, settle = 3000, 150 * time.Millisecond
	s := startWatch(t, config.Watcher{Settle: settle, Poll: 50 * time.Millisecond}, content(0))
	whole, slowest := map[string]bool{content(0): true}, time.Duration(0)
	for i := 1; i <= n; i++ {
		c := content(i)
		whole[c] = true
		start := time.Now()
		switch i % 4 {
		case 0:
			s.save(s.path, c)
		case 1:
			s.save(s.path+".tmp", c)
			s.must(os.Rename(s.path+".tmp", s.path))
		case 2:
			s.save(s.path, c[:len(c)/2])
			s.save(s.path, c)
		default:
			_ = os.Rename(s.path, s.path+"~")
			s.save(s.path, c)
		}
		slowest = max(slowest, time.Since(start))
		if i%500 == 0 {
			pause(2*settle + 50*time.Millisecond)
		}
	}
	deadline := time.After(20 * time.Second)
	for {
		select {
		case got := <-s.applied:
			if !whole[string(got)] && slowest < settle {
				t.Fatalf("half a file was handed on: %q", got)
			}
			if string(got) == content(n) {
				return
			}
		case <-s.failed: // the moment between two renames may settle on a loaded machine
		case <-deadline:
			t.Fatal("the last file was never handed on")
		}
	}
}

// TestConfigMapSwap is Z61: Kubernetes swaps the link ..data; the file's own name never changes.
func TestConfigMapSwap(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege on Windows, and Kubernetes mounts so on Linux")
	}
	s := &watched{t: t, dir: t.TempDir(), applied: make(chan []byte, 10000), failed: make(chan error, 10000)}
	s.path = filepath.Join(s.dir, "agent.yaml")
	swap := func(n int) {
		real := fmt.Sprintf("..2026_%d", n)
		s.must(os.Mkdir(filepath.Join(s.dir, real), 0o755))
		s.save(filepath.Join(s.dir, real, "agent.yaml"), content(n))
		s.must(os.Symlink(real, filepath.Join(s.dir, "..data_tmp")))
		s.must(os.Rename(filepath.Join(s.dir, "..data_tmp"), filepath.Join(s.dir, "..data")))
		if n > 0 {
			s.must(os.RemoveAll(filepath.Join(s.dir, fmt.Sprintf("..2026_%d", n-1))))
		}
	}
	swap(0)
	s.must(os.Symlink("..data/agent.yaml", s.path))
	s.run(config.Watcher{Have: []byte(content(0)), Settle: 10 * time.Millisecond, Poll: time.Hour})
	for n := 1; n <= 200; n++ { // the poll is off: each swap must be seen by its event
		swap(n)
		s.want(content(n), 5*time.Second)
	}
}

// TestPollWithoutEvents is Z64: the folder cannot be watched, so that no event ever comes.
func TestPollWithoutEvents(t *testing.T) {
	var log lockedBuffer
	s := &watched{t: t, dir: t.TempDir(), applied: make(chan []byte, 100), failed: make(chan error, 100)}
	// The folder does not exist when the watch starts, which refuses the watch and leaves the poll.
	s.path = filepath.Join(s.dir, "later", "agent.yaml")
	s.run(config.Watcher{Settle: 20 * time.Millisecond, Poll: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	select {
	case err := <-s.failed:
		if !os.IsNotExist(err) {
			t.Errorf("got %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("absence was not told")
	}
	s.must(os.Mkdir(filepath.Dir(s.path), 0o700))
	s.save(s.path, content(1))
	s.want(content(1), 5*time.Second)
	s.must(os.RemoveAll(filepath.Dir(s.path)))
	<-s.failed
	s.must(os.Mkdir(filepath.Dir(s.path), 0o700))
	s.save(s.path, content(2))
	s.want(content(2), 5*time.Second)
	if n := strings.Count(log.String(), "polling alone"); n > 1 {
		t.Errorf("%d warnings, want one at most", n)
	}
}

// TestEventStorm is Z64: 100,000 events in the folder cost neither the change nor a second reload.
func TestEventStorm(t *testing.T) {
	s := startWatch(t, config.Watcher{Have: []byte(content(0)), Settle: 100 * time.Millisecond, Poll: time.Second}, content(0))
	noise, err := os.Create(filepath.Join(s.dir, "noise"))
	s.must(err)
	defer noise.Close()
	for range 100_000 {
		_, err := noise.WriteAt([]byte("x"), 0)
		s.must(err)
	}
	s.save(s.path, content(1))
	s.want(content(1), 12*time.Second)
	select {
	case got := <-s.applied:
		t.Fatalf("handed on again: %q", got)
	case <-time.After(500 * time.Millisecond):
	}
}

func TestInsecureFileIsNotApplied(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are a Unix matter")
	}
	s := startWatch(t, config.Watcher{Have: []byte(content(0)), Settle: 20 * time.Millisecond, Poll: 50 * time.Millisecond}, content(0))
	tmp := s.path + ".tmp"
	s.save(tmp, content(1))
	s.must(os.Chmod(tmp, 0o666))
	s.must(os.Rename(tmp, s.path))
	select {
	case got := <-s.applied:
		t.Fatalf("handed on %q", got)
	case err := <-s.failed:
		if !strings.Contains(err.Error(), "insecure") {
			t.Errorf("got %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("nothing was told")
	}
	s.must(os.Chmod(s.path, 0o600))
	s.want(content(1), 5*time.Second)
}

// TestSecretChangeReloads rotates a password file while agent.yaml stays as it is.
func TestSecretChangeReloads(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "a.pw")
	if err := os.WriteFile(secret, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startWatch(t, config.Watcher{Settle: 20 * time.Millisecond, Poll: 50 * time.Millisecond, Also: func() []string { return []string{secret} }}, content(0))
	s.want(content(0), 5*time.Second)
	s.save(secret, "two")
	s.want(content(0), 5*time.Second)
}

// TestOrderOfFurtherFilesDoesNotCount: their list may come from a map. A list in another order is no change, and keeps
// nothing from settling.
func TestOrderOfFurtherFilesDoesNotCount(t *testing.T) {
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "a.pw"), filepath.Join(dir, "b.pw")}
	for _, f := range files {
		if err := os.WriteFile(f, []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	turn := 0
	s := startWatch(t, config.Watcher{Settle: 100 * time.Millisecond, Poll: 20 * time.Millisecond, Also: func() []string {
		turn++ // by the one goroutine of the watcher
		return []string{files[turn%2], files[(turn+1)%2]}
	}}, content(0))
	s.want(content(0), 5*time.Second)
	s.save(s.path, content(1))
	s.want(content(1), 5*time.Second)
	select {
	case <-s.applied:
		t.Error("another order of the files was taken for a change")
	case <-time.After(500 * time.Millisecond):
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(content(0)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	err := config.Watch(ctx, path, 0, func(b []byte) {
		if string(b) != content(0) {
			t.Errorf("got %q", b)
		}
		cancel()
	})
	if err != nil {
		t.Errorf("got %v", err)
	}
	if (&config.Watcher{}).Run(context.Background()) == nil {
		t.Error("a watcher of nothing ran")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var _ io.Writer = (*lockedBuffer)(nil)
