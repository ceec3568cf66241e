package gateway

import (
	"net/netip"
	"testing"
)

func TestRangesAreReadStrictly(t *testing.T) {
	for s, want := range map[string]Range{
		"10.0.0.5:15432":        {netip.MustParseAddr("10.0.0.5"), 15432, 15432},
		"0.0.0.0:15000-15999":   {netip.MustParseAddr("0.0.0.0"), 15000, 15999},
		"[2001:db8::5]:1-65535": {netip.MustParseAddr("2001:db8::5"), 1, 65535},
		"[::]:15432":            {netip.MustParseAddr("::"), 15432, 15432},
	} {
		if got, err := ParseRange(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "15432", ":15432", "*:15432", "10.0.0.5", "10.0.0.5:", "10.0.0.5:0", "10.0.0.5:0-5", "10.0.0.5:65536", "10.0.0.5:9-5", "10.0.0.5:5-", "10.0.0.5:-5", "10.0.0.5:5-6-7",
		"10.0.0.5:+5", "10.0.0.5:05", "10.0.0.5: 5", "[10.0.0.5]:5", "2001:db8::5:5", "[2001:db8::5]5", "[fe80::1%eth0]:5", "[::ffff:10.0.0.5]:5", "relay.example:5", "10.0.0.0/8:5"} {
		if got, err := ParseRange(s); err == nil {
			t.Errorf("%q was taken: %+v", s, got)
		}
	}
}

// An address that no entry names is refused; the unspecified one stands for its own family and no other.
func TestOnlyPermittedAddressesAreUsed(t *testing.T) {
	m := New(DefaultConfig())
	if err := m.Permit(netip.MustParseAddrPort("127.0.0.1:15432")); err == nil {
		t.Error("with nothing permitted an address is")
	}
	for _, s := range []string{"10.0.0.5:15000-15999", "0.0.0.0:6000", "[2001:db8::5]:7000"} {
		r, err := ParseRange(s)
		if err != nil {
			t.Fatal(err)
		}
		m.cfg.Addresses = append(m.cfg.Addresses, r)
	}
	for s, want := range map[string]bool{"10.0.0.5:15000": true, "10.0.0.5:15999": true, "10.0.0.5:16000": false, "10.0.0.5:14999": false, "10.0.0.6:15000": false, "0.0.0.0:15000": false,
		"0.0.0.0:6000": true, "10.9.9.9:6000": true, "[::]:6000": false, "[2001:db8::5]:6000": false, "[2001:db8::5]:7000": true, "[::]:7000": false, "10.0.0.5:7000": false} {
		if got := m.Permit(netip.MustParseAddrPort(s)) == nil; got != want {
			t.Errorf("%s: permitted %v", s, got)
		}
	}
}
