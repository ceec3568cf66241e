//go:build unix

package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Run does fn's work until it returns or ctx ends (the command line's context ends with SIGTERM), and then for the drain
// time at most. It tells systemd when the work is ready and when it stops. SIGHUP calls Reload; a storm of them is one
// call after another. An error that says that the drain time was overrun means that fn still runs: end the process.
func (s Service) Run(ctx context.Context, fn RunFunc) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	_ = os.Unsetenv("NOTIFY_SOCKET") // not for children
	tell := func(format string, args ...any) {
		if err := notify(socket, fmt.Sprintf(format, args...)); err != nil {
			s.log().Warn("systemd was not told", "error", err)
		}
	}
	signal.Ignore(syscall.SIGPIPE) // a log pipe that closes must not end the service
	defer signal.Reset(syscall.SIGPIPE)
	hups := make(chan os.Signal, 1) // one pending is enough: it reloads what is there then
	signal.Notify(hups, syscall.SIGHUP)
	over := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(over)
	defer signal.Stop(hups)
	wg.Go(func() {
		for {
			select {
			case <-hups:
				if s.Reload != nil {
					s.Reload()
				}
			case <-over:
				return
			}
		}
	})
	ready := sync.OnceFunc(func() { tell("READY=1") })
	told := false
	err := s.supervise(ctx, fn, ready, func(time.Duration) {
		if !told {
			told = true
			tell("STOPPING=1")
		}
	})
	return err
}

// notify sends one message of the sd_notify protocol. No socket means that nobody listens.
func notify(socket, message string) error {
	if socket == "" {
		return nil
	}
	if strings.HasPrefix(socket, "@") {
		socket = "\x00" + socket[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(message)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
