//go:build unix

package splice

import (
	"net"

	"golang.org/x/sys/unix"
)

// awaitSocket is AwaitRead of a TCP socket. The goroutine that waits calls nothing deep, so that its stack stays as small as it began.
func awaitSocket(c *net.TCPConn, f func()) bool {
	if f == nil {
		return true
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	go func() {
		_ = raw.Read(readable) // an error shows in the next Read of the conn
		f()
	}()
	return true
}

// readable reports whether a read of the socket would not wait.
func readable(fd uintptr) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p[:], 0)
	return n > 0 || err != nil && err != unix.EINTR
}
