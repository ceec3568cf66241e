//go:build unix

package cli

import (
	"syscall"
	"testing"
)

func TestSecondSignalEndsTheProcess(t *testing.T) {
	exited := make(chan int, 1)
	ctx, stop := signalContext(func(status int) { exited <- status })
	defer stop()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	select {
	case <-exited:
		t.Fatal("the first signal ended the process")
	default:
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if status := <-exited; status != 130 {
		t.Errorf("status %d", status)
	}
}
