package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/protocol"
)

// Dialer opens TCP connections to targets that the site's policy allows. Fields are set before the first use and not
// changed after; safe for concurrent use. A Dialer without Decide refuses everything.
type Dialer struct {
	// Name decides a host and port before anything is looked up, so that nobody can have the site ask DNS for a name that
	// no rule mentions. nil asks nothing: for hosts that stand in the site's own file.
	Name func(host string, port uint16) policy.Decision
	// Decide decides one address. Required.
	Decide func(policy.Dial) policy.Decision
	// Guarded names the hosts that must not be reached by another name (policy.GuardedHosts). nil names none.
	Guarded func(port uint16) []string

	Resolver      *net.Resolver // nil means net.DefaultResolver
	Timeout       time.Duration // for all of DialContext; 0 means 10 s
	LookupTimeout time.Duration // for all its questions to DNS; 0 means 2 s
	MaxAddrs      int           // addresses of a name that are looked at; 0 means 16
	Stagger       time.Duration // head start of an address before the next is tried beside it (RFC 8305); 0 means 250 ms

	connect func(context.Context, netip.AddrPort) (net.Conn, error) // tests record here what would be dialled
}

// ForProfile makes the Dialer for the target that a profile of the site's file names.
func ForProfile(p *policy.Policy, kind protocol.Kind, profile string) *Dialer {
	return &Dialer{Decide: func(d policy.Dial) policy.Decision { return p.DecideProfileAddr(kind, profile, d.Addr) }}
}

// ForAllowList makes the Dialer for hosts and ports that callers name and the site's allow list must admit.
func ForAllowList(p *policy.Policy) *Dialer {
	return &Dialer{
		Name: func(host string, port uint16) policy.Decision {
			return p.Decide(policy.Operation{Request: &protocol.Request{Kind: protocol.KindTCP, Profile: protocol.NoProfile, Operation: protocol.OpDial, Host: host, Port: port}})
		},
		Decide:  p.DecideDial,
		Guarded: p.GuardedHosts,
	}
}

// notAllowed is the one answer to everything that is not allowed, so that it maps nothing of the site's network: which
// rule decided, and whether a name exists, stands in the agent's log only (A29).
func notAllowed(why string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginAgent, Message: "the site does not allow this target", Rule: "allow",
		Hint: "the on-prem admin can see why with `fairlead-agent explain` and in the agent's log", Cause: errors.New(why)}
}

// DialContext dials addr, "host:port" with a name or a literal address. network is tcp, tcp4 or tcp6. The connection is
// a *net.TCPConn. Errors are protocol.Errors: denied, unavailable, timeout, or ctx's own.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, notAllowed("network " + network)
	}
	host, port, literal, err := splitAddr(addr)
	if err != nil {
		return nil, notAllowed(err.Error())
	}
	if d.Name != nil {
		if v := d.Name(host, port); !v.Allow {
			return nil, notAllowed(v.Rule + ": " + v.Reason)
		}
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, or(d.Timeout, 10*time.Second))
	defer cancel()
	addrs, err := d.resolve(ctx, network, host, port, literal)
	if err != nil {
		return nil, cause(outer, err)
	}
	conn, err := d.race(ctx, addrs)
	return conn, cause(outer, err)
}

// cause lets the end of the caller's own context show as what it is.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// splitAddr is strict where net.SplitHostPort is not: brackets hold an IPv6 address and nothing else, a port is plain
// digits.
func splitAddr(addr string) (host string, port uint16, literal netip.Addr, err error) {
	h, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, literal, err
	}
	if port, err = allowlist.ParsePort(p); err != nil {
		return "", 0, literal, err
	}
	host, literal, err = allowlist.CanonicalHost(h)
	if err == nil && addr[0] == '[' && !literal.Is6() && !bracketed4in6(h) {
		err = errors.New("brackets around what is no IPv6 address")
	}
	return host, port, literal, err
}

func bracketed4in6(h string) bool {
	a, err := netip.ParseAddr(h)
	return err == nil && a.Is4In6()
}

// resolve gives the addresses that the policy allows, in the order in which they are to be tried. It asks DNS once.
func (d *Dialer) resolve(ctx context.Context, network, host string, port uint16, literal netip.Addr) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, or(d.LookupTimeout, 2*time.Second))
	defer cancel()
	found, err := d.lookup(ctx, host, literal)
	if err != nil {
		return nil, &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginTarget, Message: "the target's name does not resolve at the site", Cause: err}
	}
	var guarded []netip.Addr
	if d.Guarded != nil {
		for _, g := range d.Guarded(port) {
			a, err := d.lookup(ctx, g, netip.Addr{})
			if err != nil {
				return nil, notAllowed("a guarded host does not resolve: " + err.Error())
			}
			guarded = append(guarded, a...)
		}
	}
	var allowed []netip.AddrPort
	why := "no address"
	for _, a := range found {
		ap := netip.AddrPortFrom(a, port)
		if a.Zone() != "" || network == "tcp4" && !a.Is4() || network == "tcp6" && !a.Is6() || d.Decide == nil {
			continue
		}
		if v := d.Decide(policy.Dial{Host: host, Addr: ap, Guarded: guarded}); v.Allow {
			allowed = append(allowed, ap)
		} else {
			why = fmt.Sprintf("%s: %s: %s", ap, v.Rule, v.Reason)
		}
	}
	if len(allowed) == 0 {
		return nil, notAllowed(why)
	}
	return interleave(allowed), nil
}

// lookup gives at most MaxAddrs addresses of a host, unmapped.
func (d *Dialer) lookup(ctx context.Context, host string, literal netip.Addr) ([]netip.Addr, error) {
	if !literal.IsValid() {
		var err error
		if host, literal, err = allowlist.CanonicalHost(host); err != nil {
			return nil, err
		}
	}
	if literal.IsValid() {
		return []netip.Addr{literal}, nil
	}
	r := d.Resolver
	if r == nil {
		r = net.DefaultResolver
	}
	found, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	found = found[:min(len(found), or(d.MaxAddrs, 16))]
	for i, a := range found {
		found[i] = a.Unmap() // the resolver gives IPv4 in IPv6 form, which no IPv4 rule would match
	}
	return found, nil
}

// interleave puts the address families in turn, keeping the resolver's order within each (RFC 8305, 4).
func interleave(in []netip.AddrPort) []netip.AddrPort {
	var a, b []netip.AddrPort // of the first one's family, of the other
	for _, ap := range in {
		if ap.Addr().Is4() == in[0].Addr().Is4() {
			a = append(a, ap)
		} else {
			b = append(b, ap)
		}
	}
	out := make([]netip.AddrPort, 0, len(in))
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			out = append(out, a[i])
		}
		if i < len(b) {
			out = append(out, b[i])
		}
	}
	return out
}

// race tries the addresses one after another, each with a head start on the next, and gives the first connection. The
// other attempts have ended when it returns.
func (d *Dialer) race(ctx context.Context, addrs []netip.AddrPort) (net.Conn, error) {
	connect := d.connect
	if connect == nil {
		connect = dialExactly
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	running, next := 0, 0
	start := func() {
		ap := addrs[next]
		next++
		running++
		go func() {
			c, err := connect(ctx, ap)
			results <- result{c, err}
		}()
	}
	start()
	timer := time.NewTimer(or(d.Stagger, 250*time.Millisecond))
	defer timer.Stop()
	var won net.Conn
	var first error
	for running > 0 {
		select {
		case r := <-results:
			running--
			switch {
			case r.err == nil && won == nil:
				won = r.conn
				cancel()
			case r.err == nil:
				_ = r.conn.Close()
			case first == nil:
				first = r.err
			}
			if won == nil && next < len(addrs) && ctx.Err() == nil {
				start()
				timer.Reset(or(d.Stagger, 250*time.Millisecond))
			}
		case <-timer.C:
			if won == nil && next < len(addrs) && ctx.Err() == nil {
				start()
				timer.Reset(or(d.Stagger, 250*time.Millisecond))
			}
		}
	}
	if won != nil {
		return won, nil
	}
	return nil, unreachable(first)
}

// unreachable tells of an allowed target that did not take the connection.
func unreachable(err error) *protocol.Error {
	e := &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginTarget, Message: "the target cannot be reached from the site", Cause: err}
	var own *protocol.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		e.Code, e.Message = protocol.CodeTimeout, "the target did not answer in time"
	case refused(err):
		e.Message = "the target refuses the connection"
	}
	return e
}

// assert refuses an address that is not the decided one.
func assert(address string, ap netip.AddrPort) error {
	if have, err := netip.ParseAddrPort(address); err != nil || netip.AddrPortFrom(have.Addr().Unmap(), have.Port()) != ap {
		return notAllowed("the socket is about to connect to " + address + ", decided was " + ap.String())
	}
	return nil
}

// dialExactly connects to one address. The control function sees the address that the socket is about to connect to.
func dialExactly(ctx context.Context, ap netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error { return assert(address, ap) }}
	// Not DialTCP: it binds the socket first, to a port that no other socket has, whatever that one is connected to. That costs
	// a search among all ports, and ends at some 28,000 connections of the whole host.
	return dialer.DialContext(ctx, "tcp", ap.String())
}

func or[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}
