package tunnel

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// tcpInfo is what the kernel tells of a connection; nil where it tells nothing.
func tcpInfo(c net.Conn) *unix.TCPInfo {
	tcp, ok := socket(c)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		return nil
	}
	return info
}

// sent tells what of a connection's bytes the peer's kernel has taken so far, and whether some still are on their way. ok is
// false where this cannot be seen.
func sent(c net.Conn) (acked uint64, more, ok bool) {
	info := tcpInfo(c)
	if info == nil {
		return 0, false, false
	}
	return info.Bytes_acked, info.Unacked > 0 || info.Notsent_bytes > 0, true
}

// seeTCP tells how a connection's road looks. ok is false where this cannot be seen.
func seeTCP(c net.Conn) (s sight, ok bool) {
	info := tcpInfo(c)
	if info == nil {
		return sight{}, false
	}
	return sightOf(info), true
}

// sightOf judges what the kernel tells. A peer that shut its window while bytes were flying gets them again and again, and refuses
// them each time: that is an answer. Of what was sent and answered in one millisecond the order is not known: it was answered, or
// the next time it is sent is later. While the window is open such an answer is none: a peer that nothing reaches sends its own
// bytes again, too, with what it acknowledged before.
func sightOf(info *unix.TCPInfo) sight {
	flying, open := info.Unacked > 0, info.Snd_wnd > 0
	s := sight{flying: flying, any: !flying || !open, acked: info.Bytes_acked, quiet: time.Duration(info.Last_ack_recv) * time.Millisecond}
	switch {
	case info.Probes > 0:
		s.owed = true
	case flying && open:
		s.owed = info.Retransmits > 0 // it is 0 again once more is acknowledged
	case flying:
		s.owed = info.Last_data_sent < info.Last_ack_recv
	}
	return s
}
