package tunnel

import (
	"net"

	"golang.org/x/sys/unix"
)

// sent tells what of a connection's bytes the peer's kernel has taken so far, and whether some still are on their way. ok is
// false where this cannot be seen.
func sent(c net.Conn) (acked uint64, more, ok bool) {
	tcp, ok := socket(c)
	if !ok {
		return 0, false, false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, false, false
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		return 0, false, false
	}
	return info.Bytes_acked, info.Unacked > 0 || info.Notsent_bytes > 0, true
}
