package tunnel

import (
	"net"

	"golang.org/x/sys/unix"
)

// tune keeps what waits to be sent in our own queue, where streams share it fairly and a ping does not stand behind
// megabytes. It changes nothing about what may be in flight.
func tune(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	// Without it the tunnel works all the same.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 128<<10)
	})
}
