package policy_test

import (
	"net/netip"
	"testing"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/protocol"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func site(t *testing.T) *policy.Policy {
	own := netip.MustParseAddr("10.20.0.7")
	guarded := policy.Database{Adapter: "postgresql", Host: "db1.corp", Port: 5432, Mode: "read_only"}
	literal := policy.Database{Adapter: "mysql", Host: "10.20.5.5", Port: 3306, Mode: "read_only"}
	local := policy.Database{Adapter: "mysql", Host: "localhost", Port: 3307, Mode: "read_only"}
	open := policy.Database{Adapter: "postgresql", Host: "db2.corp", Port: 5432, Mode: "read_only", Dial: true}
	shut := policy.Database{Adapter: "postgresql", Host: "db3.secret.corp", Port: 5432, Mode: "read_only", Dial: true}
	return compile(t, policy.Config{
		Database: map[string]policy.Database{"guarded": guarded, "literal": literal, "local": local, "open": open, "shut": shut},
		HTTP:     map[string]policy.HTTP{"crm": {Host: "crm.corp", Port: 443, Allow: []policy.HTTPRule{{Methods: []string{"GET"}, Path: "/**"}}}},
		TCP:      map[string]policy.TCP{"erp": {Host: "erp.corp", Port: 3200}, "me": {Host: "localhost", Port: 22}, "lo": {Host: "127.0.0.1", Port: 23}, "bad": {Host: "10.20.99.4", Port: 1}},
		Allow: []policy.Target{
			{Host: "*.corp", Ports: ports(5432, 443)},
			{CIDR: "10.20.0.0/16", Ports: allowlist.Ports{{First: 3306, Last: 3309}}},
			{CIDR: "127.0.0.1", Ports: ports(9000)},
			{Host: "169.254.169.254", Ports: ports(80)},
			{CIDR: "0.0.0.0/0", Ports: ports(7777)},
			{CIDR: "::/0", Ports: ports(7777)},
			{Host: "localhost", Ports: ports(8080)},
			{Host: "exact.example.com", Ports: ports(8443)},
		},
		Deny: []policy.Target{
			{CIDR: "10.20.99.0/24"},
			{Host: "*.secret.corp"},
			{Host: "evil.corp", Ports: ports(443)},
			{CIDR: "10.30.0.0/16"},
		},
		Own: func(a netip.Addr) bool { return a == own },
	})
}

func TestDial(t *testing.T) {
	p := site(t)
	for _, c := range []struct {
		row, host string
		port      uint16
		allow     bool
		rule      string
	}{
		{"A1 not listed", "evil.example", 5432, false, "allow"},
		{"A1 not listed", "8.8.8.8", 443, false, "allow"},
		{"A2 other port", "web.corp", 5433, false, "allow"},
		{"A2 port 0", "web.corp", 0, false, "allow"},
		{"A4 loopback", "127.0.0.1", 7777, false, "block.loopback"},
		{"A4 loopback", "127.8.8.8", 7777, false, "block.loopback"},
		{"A4 loopback", "::1", 7777, false, "block.loopback"},
		{"A4 unspecified", "0.0.0.0", 7777, false, "block.unspecified"},
		{"A4 unspecified", "0.1.2.3", 7777, false, "block.unspecified"},
		{"A4 unspecified", "::", 7777, false, "block.unspecified"},
		{"A4 brackets", "[::]", 7777, false, "allow"},
		{"A4 own address", "10.20.0.7", 3308, false, "block.own"},
		{"A4 localhost not listed for the port", "localhost", 7777, false, "allow"},
		{"A4 localhost listed", "localhost", 8080, true, "allow[6]"},
		{"A4 listed literally", "127.0.0.1", 9000, true, "allow[2]"},
		{"A5 metadata", "169.254.169.254", 7777, false, "block.metadata"},
		{"A5 metadata", "fd00:ec2::254", 7777, false, "block.metadata"},
		{"A5 metadata", "100.100.100.200", 7777, false, "block.metadata"},
		{"A5 link-local", "169.254.1.1", 7777, false, "block.link_local"},
		{"A5 link-local", "fe80::1", 7777, false, "block.link_local"},
		{"A5 multicast", "224.0.0.1", 7777, false, "block.multicast"},
		{"A5 multicast", "ff02::1", 7777, false, "block.multicast"},
		{"A5 broadcast", "255.255.255.255", 7777, false, "block.broadcast"},
		{"A5 through NAT64", "64:ff9b::a9fe:a9fe", 7777, false, "block.metadata"},
		{"A5 through 6to4", "2002:7f00:1::", 7777, false, "block.loopback"},
		{"A5 IPv4-compatible", "::169.254.169.254", 7777, false, "block.metadata"},
		{"A5 listed literally", "169.254.169.254", 80, true, "allow[3]"},
		{"A6 mapped, allowed", "::ffff:10.20.1.1", 3306, true, "allow[1]"},
		{"A6 mapped, denied", "::ffff:10.20.99.1", 3306, false, "deny[0]"},
		{"A6 mapped loopback", "::ffff:127.0.0.1", 7777, false, "block.loopback"},
		{"A6 denied through NAT64", "64:ff9b::10.20.99.1", 7777, false, "deny[0]"},
		{"A8", "2130706433", 7777, false, "allow"},
		{"A8", "127.1", 9000, false, "allow"},
		{"A9", "WEB.corp.", 443, true, "allow[0]"},
		{"A9", "web.corp..", 443, false, "allow"},
		{"A10", "[web.corp]", 443, false, "allow"},
		{"A17", "corp", 443, false, "allow"},
		{"A17", "evilcorp", 443, false, "allow"},
		{"A17", "a.b.corp", 443, false, "allow"},
		{"A17", "corp.evil.com", 443, false, "allow"},
		{"a name needs an entry with a host", "web.other", 3306, false, "allow"},
		{"a host entry admits no literal address", "10.9.9.9", 443, false, "allow"},
		{"range", "10.20.1.1", 3309, true, "allow[1]"},
		{"range", "10.20.1.1", 3310, false, "allow"},
		{"deny wins over allow", "10.20.99.1", 3306, false, "deny[0]"},
		{"deny wins over a later allow", "10.30.1.1", 7777, false, "deny[3]"},
		{"deny by name", "a.secret.corp", 443, false, "deny[1]"},
		{"deny by name and port", "evil.corp", 443, false, "deny[2]"},
		{"deny by name and port, other port", "evil.corp", 5432, true, "allow[0]"},
		{"guarded by name", "db1.corp", 5432, false, "database.guarded.allow.dial"},
		{"guarded by name in another spelling", "DB1.CORP.", 5432, false, "database.guarded.allow.dial"},
		{"guarded by literal address", "10.20.5.5", 3306, false, "database.literal.allow.dial"},
		{"guarded by mapped address", "::ffff:10.20.5.5", 3306, false, "database.literal.allow.dial"},
		{"guarded on this host", "10.20.0.7", 3307, false, "database.local.allow.dial"},
		{"guarded host, other port", "db1.corp", 443, true, "allow[0]"},
		{"profile with dial: true, listed too", "db2.corp", 5432, true, "allow[0]"},
	} {
		t.Run(c.row+" "+c.host, func(t *testing.T) {
			d := p.Decide(dial(c.host, c.port))
			want(t, d, c.allow, c.rule)
			if addr, err := netip.ParseAddr(c.host); err == nil && c.port != 0 {
				want(t, p.DecideAddr(c.host, netip.AddrPortFrom(addr, c.port)), c.allow, c.rule)
			}
		})
	}
}

// TestNotAllowedTargetsLookAlike is A29: only the rule tells denials apart.
func TestNotAllowedTargetsLookAlike(t *testing.T) {
	p := site(t)
	first := p.Decide(dial("evil.example", 1))
	for _, d := range []policy.Decision{p.Decide(dial("10.20.99.1", 3306)), p.Decide(dial("127.0.0.1", 7777)), p.Decide(dial("db1.corp", 5432)), p.Decide(dial("a.secret.corp", 443))} {
		if d.Code != first.Code || d.Reason != first.Reason {
			t.Errorf("%q and %q differ", d.Reason, first.Reason)
		}
	}
	// A scan must not find where the guarded databases are: what is not listed is the same in every word.
	if d := p.DecideAddr("web.corp", ap("10.20.5.5:3306")); d.Rule != first.Rule || d.Hint != first.Hint || d.Reason != first.Reason || d.Code != first.Code {
		t.Errorf("a guarded database that is not listed is told apart: %+v", d)
	}
}

func TestResolvedAddress(t *testing.T) {
	p := site(t)
	for _, c := range []struct {
		row, host, addr string
		allow           bool
		rule            string
	}{
		{"A13 rebinding to metadata", "web.corp", "169.254.169.254:443", false, "block.metadata"},
		{"A13 rebinding to loopback", "web.corp", "127.0.0.1:443", false, "block.loopback"},
		{"A13 rebinding to an address listed for another port", "web.corp", "127.0.0.1:5432", false, "block.loopback"},
		{"A15 denied address", "web.corp", "10.20.99.1:443", false, "deny[0]"},
		{"A15 other address", "web.corp", "10.20.1.1:443", true, "allow[0]"},
		{"A6 mapped answer of the resolver", "web.corp", "[::ffff:10.20.99.1]:443", false, "deny[0]"},
		{"A4 own address by a name", "web.corp", "10.20.0.7:443", false, "block.own"},
		{"A14 another address than asked for", "10.20.1.1", "10.20.1.2:3306", false, "allow"},
		{"localhost", "localhost", "127.0.0.1:8080", true, "allow[6]"},
		{"localhost that leads elsewhere", "localhost", "169.254.169.254:8080", false, "block.metadata"},
		{"exact name to loopback", "exact.example.com", "127.0.0.1:8443", false, "block.loopback"},
		{"A29 guarded address that is not listed", "web.corp", "10.20.5.5:3306", false, "allow"},
		{"tcp profile", "erp.corp", "10.40.0.1:3200", true, "tcp.erp"},
		{"tcp profile, other port", "erp.corp", "10.40.0.1:3201", false, "allow"},
		{"tcp profile to metadata", "erp.corp", "169.254.169.254:3200", false, "allow"},
		{"tcp profile to a denied address", "erp.corp", "10.30.0.1:3200", false, "deny[3]"},
		{"tcp profile on localhost", "localhost", "127.0.0.1:22", true, "tcp.me"},
	} {
		t.Run(c.row, func(t *testing.T) { want(t, p.DecideAddr(c.host, ap(c.addr)), c.allow, c.rule) })
	}
	for _, bad := range []policy.Decision{p.DecideAddr("web.corp", netip.AddrPort{}), p.DecideAddr("web.corp", ap("10.20.1.1:0")), p.DecideAddr("", ap("10.20.1.1:443")), p.DecideAddr("web.corp", ap("[fe80::1%eth0]:443"))} {
		want(t, bad, false, "allow")
	}
}

// TestGuardedDatabaseByAnotherName is the guard with what the caller resolved.
func TestGuardedDatabaseByAnotherName(t *testing.T) {
	p := site(t)
	if got := p.GuardedHosts(5432); len(got) != 1 || got[0] != "db1.corp" {
		t.Fatalf("guarded hosts are %v", got)
	}
	near := []netip.Addr{netip.MustParseAddr("::ffff:10.20.8.8")}
	want(t, p.DecideDial(policy.Dial{Host: "alias.corp", Addr: ap("10.20.8.8:5432"), Guarded: near}), false, "database.guarded.allow.dial")
	want(t, p.DecideDial(policy.Dial{Host: "alias.corp", Addr: ap("10.20.8.9:5432"), Guarded: near}), true, "allow[0]")
	want(t, p.DecideDial(policy.Dial{Host: "alias.corp", Addr: ap("10.20.8.8:443"), Guarded: near}), true, "allow[0]")
	if near[0].String() != "::ffff:10.20.8.8" {
		t.Error("the caller's list was changed")
	}
}

func TestProfileAddr(t *testing.T) {
	p := site(t)
	for _, c := range []struct {
		kind    protocol.Kind
		profile string
		addr    string
		allow   bool
		rule    string
	}{
		{"database", "guarded", "10.1.1.1:5432", true, "database.guarded"},
		{"database", "guarded", "10.1.1.1:5433", false, "database.guarded"},
		{"database", "guarded", "10.20.99.1:5432", false, "deny[0]"},
		{"database", "guarded", "169.254.169.254:5432", false, "block.metadata"},
		{"database", "guarded", "127.0.0.1:5432", false, "block.loopback"},
		{"database", "guarded", "10.20.0.7:5432", true, "database.guarded"},
		{"database", "literal", "10.20.5.5:3306", true, "database.literal"},
		{"database", "literal", "[::ffff:10.20.5.5]:3306", true, "database.literal"},
		{"database", "literal", "10.20.5.6:3306", false, "database.literal"},
		{"database", "local", "127.0.0.1:3307", true, "database.local"},
		{"database", "local", "[::1]:3307", true, "database.local"},
		{"database", "none", "10.1.1.1:5432", false, "database.none"},
		{"http", "crm", "10.1.1.1:443", true, "http.crm.base_url"},
		{"http", "crm", "100.100.100.200:443", false, "block.metadata"},
		{"tcp", "lo", "127.0.0.1:23", true, "tcp.lo"},
		{"tcp", "bad", "10.20.99.4:1", false, "deny[0]"},
		{"files", "guarded", "10.1.1.1:5432", false, "files.guarded"},
	} {
		t.Run(string(c.kind)+" "+c.profile+" "+c.addr, func(t *testing.T) { want(t, p.DecideProfileAddr(c.kind, c.profile, ap(c.addr)), c.allow, c.rule) })
	}
}

func TestDialOfProfiles(t *testing.T) {
	p := site(t)
	for _, c := range []struct {
		kind    protocol.Kind
		profile string
		allow   bool
		rule    string
	}{
		{"tcp", "erp", true, "tcp.erp"}, {"tcp", "none", false, "tcp.none"}, {"tcp", "bad", false, "deny[0]"},
		{"database", "open", true, "database.open.allow.dial"}, {"database", "guarded", false, "database.guarded.allow.dial"},
		{"database", "shut", false, "deny[1]"}, {"database", "none", false, "database.none.allow.dial"},
	} {
		t.Run(string(c.kind)+" "+c.profile, func(t *testing.T) {
			want(t, p.Decide(policy.Operation{Request: &protocol.Request{Kind: c.kind, Profile: c.profile, Operation: protocol.OpDial}}), c.allow, c.rule)
		})
	}
	want(t, p.Decide(sql("shut", "query", "select 1")), false, "deny[1]")
}
