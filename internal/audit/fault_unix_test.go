//go:build !windows

package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestFolderGone: the folder vanishes under a running log. Windows does not let a folder go whose files are open.
func TestFolderGone(t *testing.T) {
	t.Run("Z18 renamed", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "log")
		l := openTest(t, Config{Dir: dir, Key: testKey, SegmentBytes: 300, RetryEvery: time.Millisecond})
		add(t, l, body(1))
		if err := os.Rename(dir, dir+"x"); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool {
			tk, err := l.Append([]byte(body(2)))
			if err == nil {
				err = tk.Wait(context.Background())
			}
			return errors.Is(err, ErrUnavailable)
		})
		if err := os.Rename(dir+"x", dir); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return l.Status().Err == nil })
		add(t, l, body(3))
		head := l.Head()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		mustVerify(t, dir, head)
	})
}
