package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/relay/authz"
)

// What a request finds to be judged by in the rights cell.
const (
	manyGrants   = 10_000
	manyPrefixes = 100_000
)

// decisions measures what each request pays for being judged, in this process: a decision of one principal that holds many
// grants, each with a network and an end, and a look-up in a long allowlist. They ask in a random order, as requests come, so that
// the answers do not all stand in the processor's caches.
func decisions(ctx context.Context, b *bench, system string, _ *instance, s *Sample) error {
	if system != sysAPI {
		return errNotItsWork
	}
	decide, sources := decider()
	p50, err := timed(ctx, b.opt.Cell/2, len(sources), func(k int) bool { return decide(sources[k]) })
	if err != nil {
		return err
	}
	s.Values["decide_p50"] = p50
	list, asked := longAllowlist()
	if p50, err = timed(ctx, b.opt.Cell/2, len(asked), func(k int) bool { return list.Contains(asked[k]) }); err != nil {
		return err
	}
	s.Values["allowlist_p50"] = p50
	return nil
}

// decider gives a decision by one of many grants, and addresses of which half are those of a grant.
func decider() (func(netip.Addr) bool, []netip.Addr) {
	now := time.Now()
	grants := make([]authz.Grant, manyGrants)
	sources := make([]netip.Addr, 4096)
	for i := range grants {
		net := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24+i%9).Masked()
		grants[i] = authz.Grant{ID: fmt.Sprint("gra_", i), Role: authz.Analyst, Workspace: "w", From: []netip.Prefix{net}, Until: now.Add(time.Duration(i+60) * time.Minute)}
	}
	for i := range sources {
		k := rand.N(manyGrants)
		sources[i] = netip.AddrFrom4([4]byte{10, byte(k >> 8), byte(k), 0})
		if i%2 == 0 {
			sources[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(k)})
		}
	}
	p := authz.NewPrincipal("p", "w", "p", authz.User, grants)
	scope := authz.Scope{Workspace: "w", Environment: authz.Production, Connection: "c"}
	return func(source netip.Addr) bool {
		return authz.Decide(p, authz.Query, scope, authz.At{Time: now, Source: source}).Allow
	}, sources
}

// longAllowlist gives a list, half of it IPv6, and addresses of which half are on it.
func longAllowlist() (*allowlist.List, []netip.Addr) {
	address := func(i int) netip.Addr {
		var a [16]byte
		for j := range a {
			a[j] = byte(rand.Uint32())
		}
		if a[0], a[1] = 0x20, 0x01; i%2 == 0 {
			return netip.AddrFrom4([4]byte(a[12:]))
		}
		return netip.AddrFrom16(a)
	}
	prefixes := make([]netip.Prefix, manyPrefixes)
	for i := range prefixes {
		a := address(i)
		prefixes[i] = netip.PrefixFrom(a, a.BitLen()-4).Masked()
	}
	asked := make([]netip.Addr, 4096)
	for i := range asked {
		if asked[i] = address(i); i%4 < 2 {
			asked[i] = prefixes[rand.N(manyPrefixes)].Addr()
		}
	}
	return allowlist.NewList(prefixes), asked
}

// timed gives the time of one f in µs: the median of batches, each long enough for the clock. Some answers must be yes and some no.
func timed(ctx context.Context, most time.Duration, n int, f func(k int) bool) (float64, error) {
	var took []float64
	yes := 0
	for end := time.Now().Add(most); len(took) == 0 || time.Now().Before(end); {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		begun := time.Now()
		for k := range n {
			if f(k) {
				yes++
			}
		}
		took = append(took, time.Since(begun).Seconds()*1e6/float64(n))
	}
	if yes == 0 || yes == n*len(took) {
		return 0, errors.New("every answer is the same: nothing was decided")
	}
	return quantile(took, 0.5), nil
}
