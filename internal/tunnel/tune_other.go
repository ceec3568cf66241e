//go:build !linux

package tunnel

import (
	"fmt"
	"net"
)

func tune(net.Conn, string) {}

// resolveCongestion gives the name to set, which is none: the system decides.
func resolveCongestion(setting string) (string, error) {
	switch setting {
	case "", CongestionAuto, CongestionSystem:
		return "", nil
	}
	return "", fmt.Errorf("TCP congestion control %q cannot be set: this system has no such setting for a connection", setting)
}
