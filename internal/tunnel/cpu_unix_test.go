//go:build !windows

package tunnel_test

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpu is the CPU time of the process.
func cpu() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
