package gateway

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/fairleadhq/fairlead/internal/allowlist"
)

// Range is an address of the relay's machine and the ports of it that gateways may use. The unspecified address stands for
// every address of its family.
type Range struct {
	Addr        netip.Addr
	First, Last uint16
}

// ParseRange reads ADDRESS:PORT or ADDRESS:FIRST-LAST; an IPv6 address stands in brackets.
func ParseRange(s string) (Range, error) {
	host, ports, ok := cut(s)
	if !ok {
		return Range{}, fmt.Errorf("%q is not ADDRESS:PORT or ADDRESS:FIRST-LAST", s)
	}
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.Is6() != strings.HasPrefix(s, "[") {
		return Range{}, fmt.Errorf("%q does not begin with an address", s)
	}
	first, last, ok := strings.Cut(ports, "-")
	if !ok {
		last = first
	}
	r := Range{Addr: a}
	if r.First, err = allowlist.ParsePort(first); err != nil {
		return Range{}, fmt.Errorf("%q has no valid port: %w", s, err)
	}
	if r.Last, err = allowlist.ParsePort(last); err != nil {
		return Range{}, fmt.Errorf("%q has no valid last port: %w", s, err)
	}
	if r.First > r.Last {
		return Range{}, fmt.Errorf("%q has its ports the wrong way round", s)
	}
	return r, nil
}

func cut(s string) (host, ports string, ok bool) {
	if rest, bracket := strings.CutPrefix(s, "["); bracket {
		host, ports, ok = strings.Cut(rest, "]:")
		return host, ports, ok
	}
	return strings.Cut(s, ":")
}

func (r Range) contains(ap netip.AddrPort) bool {
	a := ap.Addr()
	return ap.Port() >= r.First && ap.Port() <= r.Last && (a == r.Addr || r.Addr.IsUnspecified() && a.Is4() == r.Addr.Is4())
}
