package uplink

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isReset finds a connection that was cut by the network. Windows has numbers of its own for it.
func isReset(err error) bool {
	return errors.Is(err, windows.WSAECONNRESET) || errors.Is(err, windows.WSAECONNABORTED)
}
