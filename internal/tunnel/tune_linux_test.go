package tunnel

import (
	"crypto/tls"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// congestionOf reads what a connection uses.
func congestionOf(t *testing.T, c net.Conn) string {
	t.Helper()
	tcp, ok := socket(c)
	if !ok {
		t.Fatal("no TCP connection")
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	if err := raw.Control(func(fd uintptr) { name, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) }); err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(name, "\x00")
}

func loopback(t *testing.T) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestCongestionControlIsSetWhereTheKernelAllows(t *testing.T) {
	b, err := os.ReadFile(allowedControls)
	if err != nil {
		t.Fatal(err)
	}
	allowed := strings.Fields(string(b))
	has := map[string]bool{}
	for _, name := range allowed {
		has[name] = true
	}
	system := congestionOf(t, loopback(t))
	want := map[string]string{CongestionSystem: system, "": system, CongestionAuto: system, "no_such_thing": system, "cubic": system}
	if has["bbr"] {
		want[""], want[CongestionAuto] = "bbr", "bbr"
	}
	for _, name := range allowed { // reno is always one of them
		want[name] = name
	}
	for setting, name := range want {
		c := loopback(t)
		// Below a coat it is the socket that counts.
		tune(tls.Client(c, &tls.Config{MinVersion: tls.VersionTLS13}), setting)
		if got := congestionOf(t, c); got != name {
			t.Errorf("%q: the socket has %s, want %s", setting, got, name)
		}
		refused := CheckCongestion(setting) != nil
		if named := setting != "" && setting != CongestionAuto && setting != CongestionSystem; refused != (named && !has[setting]) {
			t.Errorf("%q: refused %v: %v", setting, refused, CheckCongestion(setting))
		}
	}
	// A connection that is no socket is left alone.
	a, _ := net.Pipe()
	defer a.Close()
	tune(a, "bbr")
}

func TestNamesOfCongestionControls(t *testing.T) {
	for name, ok := range map[string]bool{"": true, "auto": true, "system": true, "bbr": true, "bbr2": true, "cdg-x": true, "BBR": false, "bbr cubic": false, "x\x00y": false, strings.Repeat("a", 16): false} {
		if err := ValidCongestion(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
