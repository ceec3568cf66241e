package policy

import (
	"fmt"
	"net/netip"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/protocol"
)

const localhost = "localhost" // always loopback (RFC 6761, 6.3)

const (
	deniedTarget = "the site does not allow this target"
	deniedHint   = "ask the site's admin to allow host and port in agent.yaml under allow, or to remove what denies it"
)

// target is an entry of allow or deny, or a profile's own endpoint.
type target struct {
	rule     rule
	pattern  allowlist.Pattern // of an entry with a name
	prefix   netip.Prefix      // of an entry with a network or a literal address
	ports    allowlist.Ports
	allPorts bool

	host string     // a profile's endpoint, canonical
	addr netip.Addr // valid when host is a literal address
	port uint16
}

func (k *compiler) target(path string, t Target) *target {
	out := &target{rule: k.rule(path), ports: t.Ports}
	var err error
	switch {
	case (t.Host == "") == (t.CIDR == ""):
		k.fault(path, "wants either host or cidr", `{host: "*.corp", ports: [5432]} or {cidr: 10.20.0.0/16, ports: [3306]}`)
	case t.CIDR != "":
		if out.prefix, err = allowlist.ParsePrefix(t.CIDR); err != nil {
			k.fault(path+".cidr", err.Error(), "")
		}
	default:
		if _, addr, err := allowlist.CanonicalHost(t.Host); err == nil && addr.IsValid() {
			out.prefix = netip.PrefixFrom(addr, addr.BitLen())
			break
		}
		if out.pattern, err = allowlist.ParsePattern(t.Host); err != nil {
			k.fault(path+".host", err.Error(), "")
		}
	}
	for i, r := range t.Ports {
		if r.First == 0 || r.Last < r.First {
			k.fault(fmt.Sprintf("%s.ports[%d]", path, i), "is not a port or range", "1 to 65535")
		}
	}
	return out
}

// endpoint checks the host and port of a profile.
func (k *compiler) endpoint(path, host string, port uint16) *target {
	h, addr, err := allowlist.CanonicalHost(host)
	switch {
	case host == "":
		k.fault(path, "host is missing", "")
	case err != nil:
		k.fault(path+".host", err.Error(), "")
	}
	if port == 0 {
		k.fault(path, "port is missing", "a number from 1 to 65535")
	}
	return &target{rule: k.rule(path), host: h, addr: addr, port: port}
}

// denies returns the deny entry that covers a profile's own host, as far as its text tells.
func (k *compiler) denies(t *target) *target {
	for _, d := range k.p.deny {
		if d.covers(t.host, t.addr, t.port) {
			return d
		}
	}
	return nil
}

// covers reports whether an entry matches a target, by its name or by its address; addr may be invalid.
func (t *target) covers(host string, addr netip.Addr, port uint16) bool {
	if !t.allPorts && !t.ports.Contains(port) {
		return false
	}
	return t.pattern.Match(host) || t.prefix.IsValid() && addr.IsValid() && t.prefix.Contains(addr)
}

// Dial is a raw dial about to be made.
type Dial struct {
	Host string         // as asked for: a name or a literal address
	Addr netip.AddrPort // what it resolved to
	// Guarded are the addresses that the hosts of GuardedHosts(Addr.Port()) resolve to. A caller that cannot resolve them must
	// not dial.
	Guarded []netip.Addr
}

// GuardedHosts lists the hosts of database profiles that refuse raw dials and are on the given port. Whoever dials raw to an
// allow-list target resolves them first, so that a guarded database is not reached by another name of its host.
func (p *Policy) GuardedHosts(port uint16) []string {
	var hosts []string
	for _, d := range p.guarded {
		if d.target.port == port {
			hosts = append(hosts, d.target.host)
		}
	}
	return hosts
}

// DecideAddr is DecideDial without Guarded: the guard then sees equal names, equal literal addresses and this host's own.
func (p *Policy) DecideAddr(host string, a netip.AddrPort) Decision {
	return p.DecideDial(Dial{Host: host, Addr: a})
}

// DecideDial decides one address of a raw dial after resolution: that the allow list admits host and port and no deny
// entry, no guard and no block stands against the address; or that it is a tcp profile's own target. Call it for each
// address, and dial exactly what it allowed.
func (p *Policy) DecideDial(d Dial) Decision {
	host, lit, err := allowlist.CanonicalHost(d.Host)
	addr := d.Addr.Addr().Unmap()
	if err != nil || !addr.IsValid() || addr.Zone() != "" || d.Addr.Port() == 0 || lit.IsValid() && lit != addr {
		return deny(rule{path: "allow"}, protocol.CodeInvalid, "the target is malformed", "a host name or an IP address, and a port from 1 to 65535")
	}
	ap := netip.AddrPortFrom(addr, d.Addr.Port())
	for i, g := range d.Guarded {
		if i == 0 {
			d.Guarded = append([]netip.Addr(nil), d.Guarded...)
		}
		d.Guarded[i] = g.Unmap()
	}
	verdict := p.decideListed(host, lit, ap, d.Guarded)
	if verdict.Allow {
		return verdict
	}
	for _, t := range p.tcp {
		if t.host == host && t.port == ap.Port() {
			if v := p.decideEndpoint(t, ap); v.Allow {
				return v
			}
		}
	}
	return verdict
}

// DecideProfileAddr decides one resolved address of a profile's own target (database, http, tcp): deny entries and blocks
// hold for these too. An http connector that follows a redirect to another host asks DecideDial instead.
func (p *Policy) DecideProfileAddr(kind protocol.Kind, profile string, a netip.AddrPort) Decision {
	var t *target
	switch kind {
	case protocol.KindDatabase:
		if d := p.database[profile]; d != nil {
			t = d.target
		}
	case protocol.KindHTTP:
		if w := p.http[profile]; w != nil {
			t = w.target
		}
	case protocol.KindTCP:
		t = p.tcp[profile]
	}
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	if t == nil || !a.IsValid() || a.Port() != t.port || t.addr.IsValid() && t.addr != a.Addr() {
		return deny(rule{path: Path(kind, profile)}, protocol.CodeDenied, deniedTarget, deniedHint)
	}
	return p.decideEndpoint(t, a)
}

func (p *Policy) decideEndpoint(t *target, a netip.AddrPort) Decision {
	if d := p.denied(t.host, a); d != nil {
		return deny(d.rule, protocol.CodeDenied, deniedTarget, deniedHint)
	}
	if t.addr == a.Addr() { // written out in the file
		return allow(t.rule)
	}
	if why := block(a.Addr()); why != "" && !(why == "loopback" && t.host == localhost) && !p.listed(a) {
		return blocked(why)
	}
	return allow(t.rule)
}

// decideDial decides the operation dial, before anything is resolved.
func (p *Policy) decideDial(r *protocol.Request) Decision {
	if r.Profile != protocol.NoProfile {
		var t *target
		line := 0
		if r.Kind == protocol.KindTCP {
			t = p.tcp[r.Profile]
		} else if d := p.database[r.Profile]; d != nil {
			line = d.dialRule.line
			if d.dial && d.target != nil {
				t = &target{rule: d.dialRule, host: d.target.host, addr: d.target.addr, port: d.target.port}
			}
		}
		if t == nil {
			return notAllowed(r.Kind, r.Profile, string(r.Operation), line)
		}
		if d := p.denied(t.host, netip.AddrPortFrom(t.addr, t.port)); d != nil {
			return deny(d.rule, protocol.CodeDenied, deniedTarget, deniedHint)
		}
		return allow(t.rule)
	}
	host, lit, err := allowlist.CanonicalHost(r.Host)
	if err != nil || r.Port == 0 {
		return deny(rule{path: "allow"}, protocol.CodeInvalid, "the target is malformed", "a host name or an IP address, and a port from 1 to 65535")
	}
	return p.decideListed(host, lit, netip.AddrPortFrom(lit, r.Port), nil)
}

// decideListed decides a target of the allow list. The address in a is invalid as long as a name is not resolved.
//
// A name needs an entry with a host: networks admit literal addresses only. Else a hostile relay could have the site look up
// any name it likes, and carry data out in the questions.
func (p *Policy) decideListed(host string, lit netip.Addr, a netip.AddrPort, near []netip.Addr) Decision {
	if d := p.denied(host, a); d != nil {
		return deny(d.rule, protocol.CodeDenied, deniedTarget, deniedHint)
	}
	var found *target
	for _, t := range p.allow {
		if t.covers(host, lit, a.Port()) {
			found = t
			break
		}
	}
	if found == nil {
		return deny(rule{path: "allow"}, protocol.CodeDenied, deniedTarget, deniedHint)
	}
	// After the allow list: what is not on it must not be told apart (A29), or a scan would find where the databases are.
	for _, g := range p.guarded {
		if g.sameTarget(p, host, a, near) {
			return deny(g.dialRule, protocol.CodeDenied, deniedTarget, "it is a database that the site guards; use its profile, or "+askAdmin+" with dial: true")
		}
	}
	if !a.Addr().IsValid() {
		return allow(found.rule)
	}
	why := block(a.Addr())
	if why == "" && p.own(a.Addr()) {
		why = "own"
	}
	if why == "" || why == "loopback" && found.pattern.Literal() == localhost || p.listed(a) {
		return allow(found.rule)
	}
	return blocked(why)
}

func blocked(why string) Decision {
	return deny(rule{path: "block." + why}, protocol.CodeDenied, deniedTarget,
		"addresses of this kind (loopback, link-local, metadata, multicast, broadcast, the agent's own) must be listed one by one in agent.yaml under allow")
}

// denied returns the first deny entry that covers the name or the address.
func (p *Policy) denied(host string, a netip.AddrPort) *target {
	inner := embedded(a.Addr())
	for _, d := range p.deny {
		if d.covers(host, a.Addr(), a.Port()) || inner.IsValid() && d.covers("", inner, a.Port()) {
			return d
		}
	}
	return nil
}

// listed reports whether the allow list names the very address, with the port.
func (p *Policy) listed(a netip.AddrPort) bool {
	for _, t := range p.allow {
		if t.prefix.IsSingleIP() && t.prefix.Addr() == a.Addr() && t.ports.Contains(a.Port()) {
			return true
		}
	}
	return false
}

var (
	metadata = []netip.Addr{
		netip.MustParseAddr("169.254.169.254"), // AWS, Azure, Google, OpenStack
		netip.MustParseAddr("fd00:ec2::254"),   // AWS over IPv6
		netip.MustParseAddr("fd20:ce::254"),    // Google over IPv6
		netip.MustParseAddr("100.100.100.200"), // Alibaba
		netip.MustParseAddr("168.63.129.16"),   // Azure's host agent
		netip.MustParseAddr("192.0.0.192"),     // Oracle
	}
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8") // RFC 1122, 3.2.1.3; Linux takes 0.0.0.0 for loopback
	broadcast   = netip.MustParseAddr("255.255.255.255")

	// embedding are IPv6 networks whose addresses carry an IPv4 address, at the byte offset.
	embedding = []struct {
		prefix netip.Prefix
		offset int
	}{
		{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64, RFC 6052
		{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // NAT64 for local use, RFC 8215
		{netip.MustParsePrefix("2002::/16"), 2},        // 6to4, RFC 3056
		{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // SIIT, RFC 2765
		{netip.MustParsePrefix("::/96"), 12},           // IPv4-compatible, RFC 4291
	}
)

// embedded returns the IPv4 address that a gateway would make of an IPv6 address, or an invalid one.
func embedded(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return netip.Addr{}
	}
	for _, e := range embedding {
		if e.prefix.Contains(a) {
			b := a.As16()
			return netip.AddrFrom4([4]byte(b[e.offset : e.offset+4]))
		}
	}
	return netip.Addr{}
}

// block says why an address is refused unless it is listed literally, or "".
func block(a netip.Addr) string {
	for _, m := range metadata {
		if a == m {
			return "metadata"
		}
	}
	switch {
	case a.IsUnspecified() || a.Is4() && thisNetwork.Contains(a):
		return "unspecified"
	case a.IsLoopback():
		return "loopback"
	case a.IsLinkLocalUnicast():
		return "link_local"
	case a.IsMulticast():
		return "multicast"
	case a == broadcast:
		return "broadcast"
	}
	if inner := embedded(a); inner.IsValid() {
		return block(inner)
	}
	return ""
}
