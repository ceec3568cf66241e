//go:build !windows

package uplink

import (
	"errors"
	"syscall"
)

// isReset finds a connection that was cut by the network.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED)
}
