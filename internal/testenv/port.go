package testenv

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// lowPorts are those that were given: whoever got one may not listen yet, or be about to start again.
var lowPorts sync.Map

// LowPort is a free address on the loopback with one of the 8000 ports from from on: below the range of outgoing connections,
// so that it is still free after a restart. It gives no port twice, and packages whose tests run side by side take different ranges:
// 12000 and 20000; the database servers of all of them are above 28000.
func LowPort(tb testing.TB, from int) string {
	tb.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(from+rand.IntN(8000)))
		if _, given := lowPorts.LoadOrStore(addr, true); given {
			continue
		}
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr
		}
	}
	tb.Fatal("no free port")
	return ""
}
