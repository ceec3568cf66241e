package tunnel

import (
	"net"
	"testing"
)

// E7: a machine that takes one address of its network after the other is one source to the limits of handshakes, and an address
// within IPv6 that stands for one of IPv4 is that.
func TestHandshakesOfASiteShareOneLimit(t *testing.T) {
	t.Run("E7 one limit for all addresses of a site", testHandshakesOfASiteShareOneLimit)
}

func testHandshakesOfASiteShareOneLimit(t *testing.T) {
	of := func(text string) string {
		return sourceOfAddr(&net.TCPAddr{IP: net.ParseIP(text), Port: 4711}).String()
	}
	for _, same := range [][2]string{{"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"}, {"::ffff:192.0.2.7", "192.0.2.7"}} {
		if of(same[0]) != of(same[1]) {
			t.Errorf("%s is %s, %s is %s", same[0], of(same[0]), same[1], of(same[1]))
		}
	}
	for _, apart := range [][2]string{{"2001:db8:1:2::1", "2001:db8:1:3::1"}, {"192.0.2.7", "192.0.2.8"}, {"192.0.2.7", "2001:db8::7"}} {
		if of(apart[0]) == of(apart[1]) {
			t.Errorf("%s and %s are both %s", apart[0], apart[1], of(apart[0]))
		}
	}
}
