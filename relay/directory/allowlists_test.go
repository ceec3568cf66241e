package directory_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// What would be is what comes to be, and asking changes nothing.
func TestAllowlistsAsTheyWouldBe(t *testing.T) {
	d, _ := start(t)
	ctx := t.Context()
	nets := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("192.0.2.7/32")}
	must(t, d.SetAllowlist(ctx, "default", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, netip.Addr{}, true))
	addresses := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8"), netip.MustParseAddr("::ffff:198.51.100.7"), netip.MustParseAddr("203.0.113.7"), {}}
	admitted := func(w *directory.Workspace) (list []string) {
		for _, s := range directory.Sides {
			for _, a := range addresses {
				if w.Admits(s, a) {
					list = append(list, w.Rule(s)+" "+string(s)+" "+a.String())
				}
			}
		}
		return list
	}
	for range 2 { // from lists of their own to others, too
		for _, s := range directory.Sides {
			for _, unset := range []bool{false, true} {
				before := workspace(t, d, "default")
				was := admitted(before)
				if unset && s == directory.Callers {
					_, err := before.WithSources(s, nil, true)
					want(t, err, protocol.CodeInvalid)
					continue
				}
				list := nets
				if unset {
					list = nil
				}
				next, err := before.WithSources(s, list, unset)
				must(t, err)
				if now := workspace(t, d, "default"); now != before || !slices.Equal(admitted(now), was) {
					t.Errorf("%s: asking changed %v to %v", s, was, admitted(now))
				}
				if unset {
					must(t, d.UnsetSources(ctx, "default", s, s, netip.Addr{}, true))
				} else {
					must(t, d.SetSources(ctx, "default", s, nets, s, netip.Addr{}, true, nil))
				}
				if now := admitted(workspace(t, d, "default")); !slices.Equal(now, admitted(next)) {
					t.Errorf("%s, unset %v: %v, it should have become %v", s, unset, now, admitted(next))
				}
			}
			must(t, d.SetSources(ctx, "default", s, nets[1:], s, netip.Addr{}, true, nil))
		}
	}
	w := workspace(t, d, "default")
	_, err := w.WithSources("visitors", nets, false)
	want(t, err, protocol.CodeInvalid)
	_, err = w.WithSources(directory.People, make([]netip.Prefix, directory.MaxAllowlist+1), false)
	want(t, err, protocol.CodeTooLarge)
	_, err = w.WithSources(directory.People, []netip.Prefix{netip.MustParsePrefix("10.1.1.1/8")}, false)
	want(t, err, protocol.CodeInvalid)
	next, err := w.WithSources(directory.People, nil, false)
	must(t, err)
	if next.Admits(directory.People, addresses[0]) || !w.Admits(directory.People, addresses[0]) {
		t.Error("P7 an empty list is one that admits nobody")
	}
}
