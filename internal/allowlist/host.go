package allowlist

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseAddr parses a literal address without zone and unmaps it: ::ffff:10.0.0.5 gives 10.0.0.5.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", clip(s))
	}
	if a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q has a zone; addresses with zones are not supported", clip(s))
	}
	return a.Unmap(), nil
}

// ParsePrefix parses a network such as 10.0.0.0/8, or a bare address as /32 or /128. It refuses what is most likely a slip:
// host bits (10.0.0.5/8), IPv4-mapped forms, leading zeros, zones.
func ParsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not an IP address or network; write 10.20.0.0/16 or 10.20.0.5", clip(s))
		}
		if a.Is4In6() {
			return netip.Prefix{}, fmt.Errorf("%q is an IPv4 address in IPv6 form; write %s", clip(s), a.Unmap())
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is not an IP network; write 10.20.0.0/16", clip(s))
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 network in IPv6 form; write it as IPv4", clip(s))
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind the mask; did you mean %s, or the one address %s?", clip(s), p.Masked(), p.Addr())
	}
	return p, nil
}

// maxHost is the longest name in DNS (RFC 1035, 2.3.4), without the trailing dot.
const maxHost = 253

// CanonicalHost gives a host its one form: lower-case ASCII without trailing dot, or the canonical text of a literal
// address, which is then also returned as addr (valid only in that case). It refuses brackets, ports, zones, characters
// outside letters, digits, '-', '_' and '.', labels that are empty or over 63 bytes, and names whose last label is a number
// or begins with 0x: resolvers take those for addresses. An international name must be given in its xn-- form.
func CanonicalHost(s string) (host string, addr netip.Addr, err error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return "", netip.Addr{}, errors.New("addresses with zones are not supported")
		}
		a = a.Unmap()
		return a.String(), a, nil
	}
	h, err := canonicalName(s, false)
	return h, netip.Addr{}, err
}

// canonicalName checks a name; with wild, a label may be "*".
func canonicalName(s string, wild bool) (string, error) {
	if strings.Contains(s, "@") { // a URL with a password, perhaps: it is not repeated
		return "", errors.New("the host has an @, which no host name has")
	}
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if name == "" || len(name) > maxHost {
		return "", fmt.Errorf("host %q is empty or longer than %d bytes", clip(s), maxHost)
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if wild && l == "*" {
			continue
		}
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return "", fmt.Errorf("host %q has an empty or malformed label", clip(s))
		}
		for i := 0; i < len(l); i++ {
			c := l[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return "", fmt.Errorf("host %q has a character that no host name has", clip(s))
			}
		}
	}
	last := labels[len(labels)-1]
	if strings.HasPrefix(last, "0x") || strings.Trim(last, "0123456789") == "" {
		return "", fmt.Errorf("host %q looks like a number; write the address in full (10.20.0.5) or a name", clip(s))
	}
	return name, nil
}

// Pattern matches host names label by label; "*" stands for exactly one label. The zero Pattern matches nothing.
type Pattern struct {
	labels []string
	wild   bool
}

// ParsePattern parses a host name in which whole labels may be "*". Literal addresses are no patterns.
func ParsePattern(s string) (Pattern, error) {
	name, err := canonicalName(s, true)
	if err != nil {
		return Pattern{}, err
	}
	labels := strings.Split(name, ".")
	if labels[len(labels)-1] == "*" {
		return Pattern{}, fmt.Errorf("host %q: the last label must be a name; * stands for one label before it", clip(s))
	}
	return Pattern{labels, strings.Contains(name, "*")}, nil
}

// Match reports whether a canonical host name fits. Literal addresses never do.
func (p Pattern) Match(host string) bool {
	if len(p.labels) == 0 {
		return false
	}
	rest := host
	for i, l := range p.labels {
		label, tail, more := strings.Cut(rest, ".")
		if label == "" || l != "*" && l != label || more != (i < len(p.labels)-1) {
			return false
		}
		rest = tail
	}
	return true
}

// Literal returns the name when the pattern holds no "*", else "".
func (p Pattern) Literal() string {
	if p.wild {
		return ""
	}
	return strings.Join(p.labels, ".")
}

// String is the pattern in canonical form.
func (p Pattern) String() string { return strings.Join(p.labels, ".") }

// ParsePort parses 1 to 65535 as plain digits: no sign, space or leading zero.
func ParsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' || s[0] == '+' {
		return 0, fmt.Errorf("%q is not a port; write a number from 1 to 65535", clip(s))
	}
	return uint16(n), nil
}

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// ParsePortRange parses "5432" or "8000-8100".
func ParsePortRange(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	a, err := ParsePort(first)
	if err != nil {
		return PortRange{}, fmt.Errorf(`%q is not a port or range; write 5432 or "8000-8100"`, clip(s))
	}
	if !isRange {
		return PortRange{a, a}, nil
	}
	b, err := ParsePort(last)
	if err != nil || b < a {
		return PortRange{}, fmt.Errorf(`%q is not a port range; write "8000-8100", the lower one first`, clip(s))
	}
	return PortRange{a, b}, nil
}

// UnmarshalText implements encoding.TextUnmarshaler, so that YAML can hold 5432 and "8000-8100" alike.
func (r *PortRange) UnmarshalText(text []byte) error {
	v, err := ParsePortRange(string(text))
	if err == nil {
		*r = v
	}
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String is "5432" or "8000-8100".
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Ports is a set of ports; empty contains none.
type Ports []PortRange

// Contains reports whether port is in the set. Port 0 never is.
func (p Ports) Contains(port uint16) bool {
	for _, r := range p {
		if port != 0 && port >= r.First && port <= r.Last {
			return true
		}
	}
	return false
}

// clip shortens text from outside before it stands in a message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
