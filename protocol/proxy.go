package protocol

import (
	"net/netip"
	"strings"
)

// Proxy names the two ends of a client's connection at the relay, for a target that shall learn them by the PROXY
// protocol, version 2. The relay takes them from the socket; what a client says of itself never gets here.
//
// Wire form: "SOURCE DESTINATION", each an address and port, IPv6 in brackets.
type Proxy struct {
	Source, Destination netip.AddrPort
}

// Valid reports whether both ends are named.
func (p Proxy) Valid() bool { return p.Source.IsValid() && p.Destination.IsValid() }

func (p Proxy) String() string { return p.Source.String() + " " + p.Destination.String() }

func parseProxy(s string) (Proxy, error) {
	bad := Errorf(CodeInvalid, "header %s is malformed", HeaderProxy)
	source, destination, ok := strings.Cut(s, " ")
	if !ok {
		return Proxy{}, bad
	}
	var p Proxy
	var err error
	if p.Source, err = netip.ParseAddrPort(source); err != nil {
		return Proxy{}, bad
	}
	if p.Destination, err = netip.ParseAddrPort(destination); err != nil {
		return Proxy{}, bad
	}
	for _, ap := range []netip.AddrPort{p.Source, p.Destination} {
		if a := ap.Addr(); a.Zone() != "" || a.Is4In6() || ap.Port() == 0 {
			return Proxy{}, bad
		}
	}
	if p.String() != s { // one form, so that nobody reads another
		return Proxy{}, bad
	}
	return p, nil
}
