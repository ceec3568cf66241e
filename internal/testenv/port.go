package testenv

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// LowPort is a free address on the loopback with one of the 8000 ports from from on: below the range of outgoing connections,
// so that it is still free after a restart. Packages whose tests run side by side take different ranges.
func LowPort(tb testing.TB, from int) string {
	tb.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(from+rand.IntN(8000)))
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr
		}
	}
	tb.Fatal("no free port")
	return ""
}
