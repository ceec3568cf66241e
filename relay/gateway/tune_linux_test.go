package gateway

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairleadhq/fairlead/relay/directory"
)

// What a gateway's port takes sends as the operator set it, and keeps what waits out of the kernel.
func TestConnsOfAGatewaySendAsTheOperatorSet(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
	must(t, err)
	allowed := strings.Fields(string(b)) // reno is always one of them
	b, err = os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	must(t, err)
	system := strings.TrimSpace(string(b))
	want := map[string]string{"system": system, "no_such_thing": system, "reno": "reno", "auto": system}
	if slices.Contains(allowed, "bbr") {
		want["auto"] = "bbr"
	}
	for setting, name := range want {
		g := newRig(t, directory.GatewayPlain, func(c *Config) { c.Congestion = setting })
		must(t, echoes(g.dial()))
		var raw *net.TCPConn
		g.m.mu.Lock()
		for k := range g.m.conns {
			raw = k.raw
		}
		g.m.mu.Unlock()
		if raw == nil {
			t.Fatal("no conn")
		}
		sys, err := raw.SyscallConn()
		must(t, err)
		var got string
		var lowat int
		must(t, sys.Control(func(fd uintptr) {
			got, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
			lowat, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
		}))
		must(t, err)
		if got = strings.TrimRight(got, "\x00"); got != name || lowat != 128<<10 {
			t.Errorf("%q: the conn has %s and %d bytes, want %s and %d", setting, got, lowat, name, 128<<10)
		}
		g.stop()
	}
}
