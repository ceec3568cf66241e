package tunnel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// allowedControls lists what the kernel lets every program set.
const allowedControls = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"

// tune keeps what waits to be sent in our own queue, where streams share it fairly and a ping does not stand behind
// megabytes, and sets the congestion control. Without either the tunnel works all the same.
func tune(c net.Conn, congestion string) {
	if tcp, ok := socket(c); ok {
		TuneConn(tcp)
		setCongestion(tcp, congestion)
	}
}

// TuneConn keeps what waits to be sent out of the kernel, as a tunnel does, where that can be set.
func TuneConn(c *net.TCPConn) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 128<<10) })
	}
}

// TuneListener has the connections that a listener takes from now on begin with the congestion control of that setting (see
// Config.Congestion). They have the system's where it cannot be set.
func TuneListener(ln *net.TCPListener, congestion string) { setCongestion(ln, congestion) }

func setCongestion(c syscall.Conn, congestion string) {
	name, _ := resolveCongestion(congestion)
	if name == "" {
		return
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name) })
	}
}

// growUDP asks for socket buffers of a size, and gives what the smaller of the two became.
func growUDP(c *net.UDPConn, size int) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("look at a UDP socket: %w", err)
	}
	_, _ = c.SetReadBuffer(size), c.SetWriteBuffer(size)
	var in, out int
	var errIn, errOut error
	err = raw.Control(func(fd uintptr) {
		in, errIn = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		out, errOut = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
	})
	return min(in, out), errors.Join(err, errIn, errOut)
}

// resolveCongestion gives the name to set; "" leaves the system's. The error says that a name asked for cannot be had. The
// list is read each time, for a module may be loaded while we run. Root could set more, and would make the kernel load
// modules by it: the list is the admin's word, so it counts for root, too.
func resolveCongestion(setting string) (string, error) {
	if setting == CongestionSystem {
		return "", nil
	}
	name := setting
	if setting == "" || setting == CongestionAuto {
		name = congestionWished
	}
	b, err := os.ReadFile(allowedControls)
	if err == nil && !slices.Contains(strings.Fields(string(b)), name) {
		err = fmt.Errorf("it is not in net.ipv4.tcp_allowed_congestion_control (%s)", strings.TrimSpace(string(b)))
	}
	switch {
	case err == nil:
		return name, nil
	case name != setting:
		return "", nil // auto takes what there is
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission):
		return name, nil // no list to be seen: the socket will tell
	}
	return "", fmt.Errorf("TCP congestion control %q cannot be set: %w", name, err)
}
