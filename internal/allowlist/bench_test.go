package allowlist_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/fairleadhq/fairlead/internal/allowlist"
)

// A look-up among 100,000 prefixes, half of them IPv6: 1 µs at most.
func BenchmarkContains100k(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	address := func(i int) netip.Addr {
		if i%2 == 0 {
			return netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
		}
		a := [16]byte{0x20, 0x01}
		for j := 2; j < 16; j++ {
			a[j] = byte(r.Uint32())
		}
		return netip.AddrFrom16(a)
	}
	list := make([]netip.Prefix, 100_000)
	for i := range list {
		a := address(i)
		list[i], _ = a.Prefix(a.BitLen() - 4)
	}
	l := allowlist.NewList(list)
	asked := make([]netip.Addr, 4096)
	for i := range asked {
		asked[i] = address(i)
		if i%4 < 2 {
			asked[i] = list[i].Addr().Next()
		}
	}
	b.ReportAllocs()
	n, hits := 0, 0
	for b.Loop() {
		if l.Contains(asked[n%len(asked)]) {
			hits++
		}
		n++
	}
	if hits == 0 {
		b.Fatal("nothing was found")
	}
}
