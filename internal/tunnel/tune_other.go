//go:build !linux

package tunnel

import (
	"errors"
	"fmt"
	"net"
)

func tune(net.Conn, string) {}

// TuneConn sets nothing on this system.
func TuneConn(*net.TCPConn) {}

// TuneListener sets nothing on this system.
func TuneListener(*net.TCPListener, string) {}

// growUDP asks for socket buffers of a size. What they became is not asked: these systems refuse rather than give less.
func growUDP(c *net.UDPConn, size int) (int, error) {
	if err := errors.Join(c.SetReadBuffer(size), c.SetWriteBuffer(size)); err != nil {
		return 0, fmt.Errorf("size of a UDP socket's buffers: %w", err)
	}
	return size, nil
}

// resolveCongestion gives the name to set, which is none: the system decides.
func resolveCongestion(setting string) (string, error) {
	switch setting {
	case "", CongestionAuto, CongestionSystem:
		return "", nil
	}
	return "", fmt.Errorf("TCP congestion control %q cannot be set: this system has no such setting for a connection", setting)
}
