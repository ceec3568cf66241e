package allowlist_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairleadhq/fairlead/internal/allowlist"
)

func TestCanonicalHost(t *testing.T) {
	for _, c := range []struct{ row, in, want string }{ // want "" means refused
		{"A6", "::ffff:10.0.0.5", "10.0.0.5"},
		{"A6", "::ffff:0a00:5", "10.0.0.5"},
		{"A8", "127.1", ""},
		{"A8", "0177.0.0.1", ""},
		{"A8", "2130706433", ""},
		{"A8", "0x7f000001", ""},
		{"A8", "017700000001", ""},
		{"A8", "0x7f.1", ""},
		{"A8", "127.0.0.0x1", ""},
		{"A8", "1.2.3.4.5", ""},
		{"A8", "db.0X7F", ""},
		{"A9", "10.0.0.5.", ""},
		{"A9", "db.corp.", "db.corp"},
		{"A9", "DB.CORP", "db.corp"},
		{"A9", "db.corp..", ""},
		{"A9", " db.corp", ""},
		{"A9", "db.corp ", ""},
		{"A9", "db.corp%00.evil", ""},
		{"A9", "db.corp\x00.evil", ""},
		{"A9", "db.corp\t", ""},
		{"A9", ".db.corp", ""},
		{"A9", "db..corp", ""},
		{"A10", "[db.corp]", ""},
		{"A10", "[10.0.0.5]", ""},
		{"A10", "[::1]x", ""},
		{"A10", "[::1]", ""},
		{"A10", "::1]", ""},
		{"", "fe80::1%eth0", ""},
		{"", "::1%25lo", ""},
		{"", "2001:DB8::1", "2001:db8::1"},
		{"", "2001:db8:0:0:0:0:0:1", "2001:db8::1"},
		{"", "db1", "db1"},
		{"", "my_db.corp", "my_db.corp"},
		{"", "bücher.example", ""},
		{"", "xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"", "db.ｃorp", ""},
		{"", "-db.corp", ""},
		{"", "db-.corp", ""},
		{"", "*.corp", ""},
		{"", "user@db.corp", ""},
		{"", "db.corp:5432", ""},
		{"", "db.corp/x", ""},
		{"", `db.corp\x`, ""},
		{"", "", ""},
		{"", ".", ""},
		{"", strings.Repeat("a", 64) + ".corp", ""},
		{"", strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 126) + "a"},
		{"", strings.Repeat("a.", 127) + "a", ""},
		{"", "1.corp", "1.corp"},
		{"", strings.Repeat("a", 63) + ".corp", strings.Repeat("a", 63) + ".corp"},
		{"", "az-09_.corp", "az-09_.corp"},
		{"", "a{.corp", ""}, {"", "a`.corp", ""}, {"", "a/.corp", ""}, {"", "a:.corp", ""},
	} {
		t.Run(c.row+" "+fmt.Sprintf("%.40q", c.in), func(t *testing.T) {
			got, addr, err := allowlist.CanonicalHost(c.in)
			if (err == nil) != (c.want != "") || got != c.want {
				t.Fatalf("got %q, %v; want %q", got, err, c.want)
			}
			if a, perr := netip.ParseAddr(c.want); addr.IsValid() != (perr == nil) || perr == nil && addr != a {
				t.Errorf("address is %v", addr)
			}
		})
	}
}

// A URL with a password, perhaps: it stands in no message. Nothing long does, whole.
func TestRefusalsOfHostsRepeatLittle(t *testing.T) {
	if _, _, err := allowlist.CanonicalHost("user:hunter2@db.corp"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
	for n, cut := range map[int]bool{80: false, 81: true} {
		_, err := allowlist.ParsePort(strings.Repeat("x", n))
		if got := strings.Contains(err.Error(), strings.Repeat("x", 80)+"..."); got != cut || strings.Contains(err.Error(), strings.Repeat("x", 81)) {
			t.Errorf("%d characters: %v", n, err)
		}
	}
}

func TestParseAddr(t *testing.T) {
	for in, want := range map[string]string{"10.0.0.5": "10.0.0.5", "::ffff:10.0.0.5": "10.0.0.5", "2001:DB8::1": "2001:db8::1", "fe80::1%eth0": "", "10.0.0.5/32": "", "db.corp": "", "": ""} {
		a, err := allowlist.ParseAddr(in)
		if (err == nil) != (want != "") || err == nil && a.String() != want || err != nil && a.IsValid() {
			t.Errorf("%q: %v, %v, want %q", in, a, err, want)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"10.0.0.5/8", ""}, {"::ffff:10.0.0.0/8", ""}, {"::ffff:10.0.0.0/104", ""}, {"::ffff:10.0.0.5", ""}, {"10.0.0.0/08", ""},
		{"10.0.0.0/33", ""}, {"0/0", ""}, {"10.0.0.0/255.0.0.0", ""}, {"10.0.0.0/", ""}, {"10.0.0.0/-1", ""}, {"10.0.0/8", ""},
		{"010.0.0.0/8", ""}, {"fe80::1%eth0", ""}, {"fe80::%eth0/64", ""}, {" 10.0.0.0/8", ""}, {"", ""}, {"db.corp", ""}, {"2001:db8::1/32", ""},
		{"10.0.0.0/8/8", ""}, {"10.0.0.0/+8", ""},
		{"10.0.0.0/8", "10.0.0.0/8"}, {"0.0.0.0/0", "0.0.0.0/0"}, {"10.0.0.5", "10.0.0.5/32"}, {"10.0.0.5/32", "10.0.0.5/32"},
		{"2001:db8::/32", "2001:db8::/32"}, {"::1", "::1/128"}, {"::/0", "::/0"},
	} {
		t.Run("A18 "+c.in, func(t *testing.T) {
			got, err := allowlist.ParsePrefix(c.in)
			if (err == nil) != (c.want != "") || err == nil && got.String() != c.want {
				t.Errorf("got %v, %v; want %q", got, err, c.want)
			}
		})
	}
	if _, err := allowlist.ParsePrefix("10.0.0.5/8"); !strings.Contains(err.Error(), "10.0.0.0/8") {
		t.Errorf("the right form is not named: %v", err)
	}
}

func TestPorts(t *testing.T) {
	for _, in := range []string{"", "0", "65536", "05432", "+5432", "5432\n", " 5432", "-1", "0x10", "5_432", "99999999999"} {
		t.Run("A2 "+fmt.Sprintf("%q", in), func(t *testing.T) {
			if p, err := allowlist.ParsePort(in); err == nil {
				t.Errorf("taken as %d", p)
			}
		})
	}
	for in, want := range map[string]string{"5432": "5432", "1": "1", "65535": "65535", "8000-8100": "8000-8100", "80-80": "80", "81-80": "", "80-": "", "-80": "", "1-2-3": "", "0-80": "", "80-65536": ""} {
		r, err := allowlist.ParsePortRange(in)
		if (err == nil) != (want != "") || err == nil && r.String() != want {
			t.Errorf("%q: got %v, %v", in, r, err)
		}
	}
	var r allowlist.PortRange
	if err := r.UnmarshalText([]byte("8000-8100")); err != nil || r != (allowlist.PortRange{First: 8000, Last: 8100}) {
		t.Errorf("%v, %v", r, err)
	}
	if err := r.UnmarshalText([]byte("x")); err == nil || r != (allowlist.PortRange{First: 8000, Last: 8100}) {
		t.Errorf("a fault leaves %v, %v", r, err)
	}
	ports := allowlist.Ports{{First: 80, Last: 80}, {First: 8000, Last: 8100}}
	for port, want := range map[uint16]bool{0: false, 79: false, 80: true, 81: false, 7999: false, 8000: true, 8100: true, 8101: false, 65535: false} {
		if ports.Contains(port) != want {
			t.Errorf("port %d: got %v", port, !want)
		}
	}
	if (allowlist.Ports{}).Contains(80) || (allowlist.Ports{{First: 0, Last: 10}}).Contains(0) {
		t.Error("an empty set, or port 0, is contained")
	}
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"*.corp", "db.corp", true}, {"*.corp", "corp", false}, {"*.corp", "evilcorp", false}, {"*.corp", "a.b.corp", false},
		{"*.corp", "corp.evil.com", false}, {"*.corp", "db.corp.evil.com", false}, {"*.corp", ".corp", false}, {"*.corp", "x.y", false},
		{"*.*.corp", "a.b.corp", true}, {"*.*.corp", "b.corp", false}, {"db.*.corp", "db.x.corp", true}, {"db.*.corp", "db.corp", false},
		{"DB.corp.", "db.corp", true}, {"db.corp", "db.corpx", false}, {"db.corp", "xdb.corp", false}, {"db.corp", "10.0.0.5", false},
		{"*.*.*.corp", "10.0.0.5", false},
	} {
		t.Run("A17 "+c.pattern+" "+c.host, func(t *testing.T) {
			p, err := allowlist.ParsePattern(c.pattern)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Match(c.host); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	for _, bad := range []string{"", "*", "corp.*", "*db.corp", "d*b.corp", "**.corp", "10.0.0.*", "10.0.0.5", "*.5", "[*.corp]", "a..b", "*.a b.corp", "*..corp"} {
		if p, err := allowlist.ParsePattern(bad); err == nil {
			t.Errorf("%q was taken as %s", bad, p)
		}
	}
	for in, want := range map[string]string{"DB.corp.": "db.corp", "*.corp": ""} {
		p, err := allowlist.ParsePattern(in)
		if err != nil || p.Literal() != want {
			t.Errorf("%s is literally %q, %v", in, p.Literal(), err)
		}
	}
	if (allowlist.Pattern{}).Match("") || (allowlist.Pattern{}).Match("db.corp") {
		t.Error("the zero Pattern matches")
	}
}

func TestListEmptyContainsNothing(t *testing.T) {
	var none *allowlist.List
	for _, l := range []*allowlist.List{none, {}, allowlist.NewList(nil), allowlist.NewList([]netip.Prefix{{}})} {
		for _, a := range []string{"10.0.0.1", "::1", "0.0.0.0", "::"} {
			if l.Contains(netip.MustParseAddr(a)) || l.Contains(netip.Addr{}) || !l.Empty() {
				t.Errorf("%s is contained in an empty list", a)
			}
		}
	}
}

func TestListUnmaps(t *testing.T) {
	l := allowlist.NewList([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::ffff:192.168.0.0/112")})
	for a, want := range map[string]bool{
		"10.0.0.5": true, "::ffff:10.0.0.5": true, "::ffff:0a00:5": true, "11.0.0.1": false, "::ffff:11.0.0.1": false, "fe80::1%eth0": true,
		"192.168.3.4": true, "::10.0.0.5": false, "192.169.0.0": false,
	} {
		t.Run("A6 "+a, func(t *testing.T) {
			if got := l.Contains(netip.MustParseAddr(a)); got != want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// What is left out, lies in another, or begins where another does hides nothing that comes after it.
func TestListHoldsEachOfItsNetworks(t *testing.T) {
	for _, list := range [][]string{
		{"", "10.0.0.0/8"}, {"10.0.0.0/16", "10.0.0.0/8"}, {"10.0.0.0/8", "10.0.0.0/16"}, {"9.0.0.0/8", "9.1.0.0/16", "10.0.0.0/8"}, {"::ffff:0:0/96"}, {"::fffe:0:0/95"}, {"::/0", "10.0.0.0/8"},
	} {
		var prefixes []netip.Prefix
		for _, s := range list {
			p, _ := netip.ParsePrefix(s)
			prefixes = append(prefixes, p)
		}
		l := allowlist.NewList(prefixes)
		in := list[0] != "::fffe:0:0/95" // wider than the mapped addresses: of IPv6, where no caller is
		if l.Contains(netip.MustParseAddr("10.200.0.1")) != in || l.Contains(netip.MustParseAddr("::ffff:10.200.0.1")) != in || l.Empty() {
			t.Errorf("%q", list)
		}
	}
}

// TestListAgreesWithModel holds the list against the plain loop over prefixes.
func TestListAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var prefixes []netip.Prefix
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			prefixes = append(prefixes, drawPrefix(t))
		}
		l := allowlist.NewList(append([]netip.Prefix(nil), prefixes...))
		for range 20 {
			a := drawAddr(t)
			if len(prefixes) > 0 && rapid.Bool().Draw(t, "near") { // at the edges is where it breaks
				p := prefixes[rapid.IntRange(0, len(prefixes)-1).Draw(t, "at")]
				a = p.Addr()
				if rapid.Bool().Draw(t, "before") {
					a = a.Prev()
				}
			}
			want := false
			for _, p := range prefixes {
				want = want || a.IsValid() && p.Contains(a)
			}
			if got := l.Contains(a); got != want {
				t.Fatalf("%v in %v: got %v", a, prefixes, got)
			}
		}
	})
}

func drawAddr(t *rapid.T) netip.Addr {
	if rapid.Bool().Draw(t, "v4") {
		return netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 3).Draw(t, "b")), byte(rapid.IntRange(0, 255).Draw(t, "c")), byte(rapid.IntRange(0, 255).Draw(t, "d"))})
	}
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	b[4], b[15] = byte(rapid.IntRange(0, 3).Draw(t, "e")), byte(rapid.IntRange(0, 255).Draw(t, "f"))
	return netip.AddrFrom16(b)
}

func drawPrefix(t *rapid.T) netip.Prefix {
	a := drawAddr(t)
	return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")).Masked()
}

func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"db.corp", "DB.CORP.", "127.1", "0x7f.1", "::ffff:10.0.0.5", "[::1]", "fe80::1%x", "xn--a.b", "a_b", "1.2.3.4."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, a, err := allowlist.CanonicalHost(s)
		if err != nil {
			if h != "" || a.IsValid() {
				t.Fatalf("%q: a result beside the error", s)
			}
			return
		}
		h2, a2, err := allowlist.CanonicalHost(h)
		if err != nil || h2 != h || a2 != a {
			t.Fatalf("%q gives %q, which gives %q, %v", s, h, h2, err)
		}
		if a.Is4In6() || a.Zone() != "" {
			t.Fatalf("%q gives the address %v", s, a)
		}
		for i := 0; i < len(h); i++ {
			if c := h[i]; c <= ' ' || c >= 0x7f || c >= 'A' && c <= 'Z' {
				t.Fatalf("%q gives %q", s, h)
			}
		}
		if p, err := allowlist.ParsePattern(s); err == nil && !p.Match(h) {
			t.Fatalf("%q as a pattern does not match itself", s)
		}
	})
}

func BenchmarkContains(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	prefixes := make([]netip.Prefix, 100_000)
	addrs := make([]netip.Addr, 1024)
	random := func() netip.Addr {
		if r.IntN(2) == 0 {
			v := r.Uint32()
			return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
		}
		var a [16]byte
		for i := range a {
			a[i] = byte(r.Uint32())
		}
		return netip.AddrFrom16(a)
	}
	for i := range prefixes {
		a := random()
		prefixes[i] = netip.PrefixFrom(a, a.BitLen()-r.IntN(12)).Masked()
	}
	for i := range addrs {
		addrs[i] = random()
	}
	l := allowlist.NewList(prefixes)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		l.Contains(addrs[i&1023])
		i++
	}
}
