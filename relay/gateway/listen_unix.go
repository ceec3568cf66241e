//go:build unix

package gateway

import (
	"errors"
	"syscall"
)

// Why a port cannot be opened, as far as people can do something about it.
func inUse(err error) bool   { return errors.Is(err, syscall.EADDRINUSE) }
func notHere(err error) bool { return errors.Is(err, syscall.EADDRNOTAVAIL) }
func forbidden(err error) bool {
	return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
}
