package allowlist

import (
	"net/netip"
	"slices"
)

// List is an immutable set of networks. A nil or empty List contains nothing. Safe for concurrent use.
type List struct{ v4, v6 []span }

// A span is a run of addresses, both ends included. Spans of a List are sorted and apart from each other, so one binary
// search answers.
type span struct{ first, last netip.Addr }

// NewList builds a List. IPv4-mapped prefixes of 96 bits or more count as the IPv4 networks they are; invalid ones are left
// out.
func NewList(prefixes []netip.Prefix) *List {
	l := &List{}
	for _, p := range prefixes {
		if !p.IsValid() {
			continue
		}
		a, bits := p.Addr(), p.Bits()
		if a.Is4In6() && bits >= 96 {
			a, bits = a.Unmap(), bits-96
		}
		p = netip.PrefixFrom(a, bits).Masked()
		s := span{p.Addr(), lastAddr(p)}
		if a.Is4() {
			l.v4 = append(l.v4, s)
		} else {
			l.v6 = append(l.v6, s)
		}
	}
	l.v4, l.v6 = merge(l.v4), merge(l.v6)
	return l
}

// Contains reports whether a is in one of the networks. It unmaps a and ignores its zone.
func (l *List) Contains(a netip.Addr) bool {
	if l == nil || !a.IsValid() {
		return false
	}
	a = a.Unmap().WithZone("")
	spans := l.v6
	if a.Is4() {
		spans = l.v4
	}
	lo, hi := 0, len(spans) // the first span that begins behind a
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if a.Less(spans[mid].first) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo > 0 && !spans[lo-1].last.Less(a)
}

// Empty reports whether the list contains nothing.
func (l *List) Empty() bool { return l == nil || len(l.v4)+len(l.v6) == 0 }

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && !out[n-1].last.Less(s.first) {
			if out[n-1].last.Less(s.last) {
				out[n-1].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return slices.Clip(out)
}
