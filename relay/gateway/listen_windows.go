package gateway

import (
	"errors"

	"golang.org/x/sys/windows"
)

// Why a port cannot be opened, as far as people can do something about it.
func inUse(err error) bool     { return errors.Is(err, windows.WSAEADDRINUSE) }
func notHere(err error) bool   { return errors.Is(err, windows.WSAEADDRNOTAVAIL) }
func forbidden(err error) bool { return errors.Is(err, windows.WSAEACCES) }
