//go:build unix

package daemon

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestRunTellsSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	read := func() string {
		b := make([]byte, 100)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	finish := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- sample().Run(ctx, func(ctx context.Context, ready func()) error {
			ready()
			ready() // once is enough
			<-ctx.Done()
			<-finish
			return nil
		})
	}()
	if got := read(); got != "READY=1" {
		t.Errorf("got %q", got)
	}
	if os.Getenv("NOTIFY_SOCKET") != "" {
		t.Error("children would inherit the socket")
	}
	cancel()
	if got := read(); got != "STOPPING=1" {
		t.Errorf("got %q", got)
	}
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRunGivesTheErrorOfItsWork(t *testing.T) {
	want := &os.PathError{Op: "open", Path: "x", Err: os.ErrNotExist}
	if err := sample().Run(t.Context(), func(context.Context, func()) error { return want }); err != want {
		t.Errorf("got %v", err)
	}
}

// L14: a storm of SIGHUP is one reload after another, never two at a time, and the last one is not lost.
func TestReloadStorm(t *testing.T) {
	t.Run("L14 SIGHUP storm", func(t *testing.T) {
		var running, calls atomic.Int32
		entered, gate := make(chan struct{}, 1000), make(chan struct{})
		s := sample()
		s.Reload = func() {
			if running.Add(1) != 1 {
				t.Error("two reloads at a time")
			}
			calls.Add(1)
			entered <- struct{}{}
			<-gate
			running.Add(-1)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		up, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- s.Run(ctx, func(ctx context.Context, ready func()) error { close(up); <-ctx.Done(); return nil })
		}()
		<-up
		hup := func() {
			if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		hup()
		<-entered // the first reload is under way
		for range 1000 {
			hup()
		}
		close(gate)
		<-entered // what came meanwhile is one more at least
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := calls.Load(); n < 2 || n > 20 {
			t.Errorf("%d reloads for 1001 signals", n)
		}
	})
}
