package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// attempts records what a Dialer would connect to, and connects to nothing.
type attempts struct {
	mu   sync.Mutex
	list []string
}

func (a *attempts) connect(_ context.Context, ap netip.AddrPort) (net.Conn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, ap.String())
	c, s := net.Pipe()
	s.Close()
	return c, nil
}

func (a *attempts) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.list
	a.list = nil
	return out
}

func compile(t *testing.T, c policy.Config) *policy.Policy {
	t.Helper()
	p, faults := policy.New(c)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

func ports(list ...uint16) (out allowlist.Ports) {
	for _, p := range list {
		out = append(out, allowlist.PortRange{First: p, Last: p})
	}
	return out
}

// bench is a Dialer for an allow list, with its name server and the record of what it would dial.
type bench struct {
	t *testing.T
	*Dialer
	attempts
	*dns
}

func newBench(t *testing.T, c policy.Config, answer func(name string, typ uint16, asked int) []record) *bench {
	t.Helper()
	if answer == nil {
		answer = func(string, uint16, int) []record { return nil }
	}
	b := &bench{t: t, Dialer: ForAllowList(compile(t, c)), dns: newDNS(t, answer)}
	b.Dialer.Resolver, b.Dialer.connect = b.dns.resolver, b.attempts.connect
	return b
}

// dial tries addr and gives the connection attempts that were made.
func (b *bench) dial(addr string) ([]string, error) {
	c, err := b.DialContext(context.Background(), "tcp", addr)
	if err == nil {
		c.Close()
	}
	return b.take(), err
}

// refused wants the uniform refusal and no attempt.
func (b *bench) refused(t *testing.T, addr string) {
	t.Helper()
	made, err := b.dial(addr)
	var e *protocol.Error
	if !errors.As(err, &e) || e.Code != protocol.CodeDenied || len(made) != 0 {
		t.Errorf("%q: got %v and attempts at %v, want denied and none", addr, err, made)
	}
}

func (b *bench) allowed(t *testing.T, addr string, want ...string) {
	t.Helper()
	made, err := b.dial(addr)
	if err != nil || !slices.Equal(made, want) {
		t.Errorf("%q: got %v and attempts at %v, want %v", addr, err, made, want)
	}
}

// byName answers A and AAAA questions from a table.
func byName(table map[string][]record) func(string, uint16, int) []record {
	return func(name string, typ uint16, _ int) []record {
		all, ok := table[name]
		if !ok {
			return nil
		}
		out := []record{}
		for _, r := range all {
			if r.typ == typ || r.typ == typeCNAME {
				out = append(out, r)
			}
		}
		return out
	}
}

var site = policy.Config{
	Allow: []policy.Target{
		{Host: "*.corp", Ports: ports(5432, 443)},
		{Host: "db.corp", Ports: ports(5432)},
		{CIDR: "10.0.0.0/8", Ports: ports(5432)},
	},
	Deny: []policy.Target{{CIDR: "10.99.0.0/16"}},
}

func TestCatalogA(t *testing.T) {
	t.Run("A1 host not in the file", func(t *testing.T) {
		b := newBench(t, site, nil)
		for _, addr := range []string{"evil.com:5432", "192.0.2.1:5432", "[2001:db8::1]:5432", "a.b.corp:443", "corp:443"} {
			b.refused(t, addr)
		}
		if n := b.questions(); n != 0 {
			t.Errorf("%d questions to DNS for names that no rule mentions", n)
		}
	})
	t.Run("A1 a dialer that decides nothing refuses everything", func(t *testing.T) {
		b := &bench{t: t, Dialer: &Dialer{}}
		b.Dialer.connect = b.attempts.connect
		b.refused(t, "10.0.0.5:5432")
	})
	t.Run("A2 ports", func(t *testing.T) {
		b := newBench(t, site, nil)
		b.allowed(t, "10.0.0.5:5432", "10.0.0.5:5432")
		for _, p := range []string{"5433", "0", "65536", "05432", "+5432", "5432\n", " 5432", "", "-1", "postgres", "0x1538", "70968"} {
			b.refused(t, "10.0.0.5:"+p)
		}
		b.refused(t, "10.0.0.5")
	})
	t.Run("A4 this host", func(t *testing.T) {
		b := newBench(t, policy.Config{
			Allow: []policy.Target{{CIDR: "0.0.0.0/0", Ports: ports(80)}, {CIDR: "::/0", Ports: ports(80)}, {Host: "*.corp", Ports: ports(80)}},
			Own:   func(a netip.Addr) bool { return a == netip.MustParseAddr("10.7.7.7") },
		}, byName(map[string][]record{"self.corp": addrs("127.0.0.1"), "zero.corp": addrs("0.0.0.0"), "own.corp": addrs("10.7.7.7"), "six.corp": addrs("::1")}))
		for _, h := range []string{"127.0.0.1", "127.9.9.9", "localhost", "[::1]", "0.0.0.0", "[::]", "self.corp", "zero.corp", "own.corp", "six.corp", "10.7.7.7", "[::ffff:127.0.0.1]"} {
			b.refused(t, h+":80")
		}
		b.allowed(t, "10.7.7.8:80", "10.7.7.8:80")
		listed := newBench(t, policy.Config{Allow: []policy.Target{{CIDR: "127.0.0.1", Ports: ports(80)}}}, nil)
		listed.allowed(t, "127.0.0.1:80", "127.0.0.1:80")
		listed.refused(t, "127.0.0.2:80")
	})
	t.Run("A5 metadata and link-local, though everything is allowed", func(t *testing.T) {
		b := newBench(t, policy.Config{Allow: []policy.Target{{CIDR: "0.0.0.0/0", Ports: ports(80)}, {CIDR: "::/0", Ports: ports(80)}}}, nil)
		for _, h := range []string{"169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "[fe80::1]", "169.254.0.1", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "224.0.0.1", "255.255.255.255", "[fe80::1%lo]"} {
			b.refused(t, h+":80")
		}
	})
	t.Run("A6 IPv4 in IPv6 form", func(t *testing.T) {
		b := newBench(t, site, byName(map[string][]record{"m.corp": {{typeAAAA, netip.MustParseAddr("::ffff:10.0.0.5").AsSlice()}}, "d.corp": {{typeAAAA, netip.MustParseAddr("::ffff:10.99.0.5").AsSlice()}}}))
		b.allowed(t, "[::ffff:10.0.0.5]:5432", "10.0.0.5:5432")
		b.allowed(t, "[::ffff:0a00:5]:5432", "10.0.0.5:5432")
		b.refused(t, "[::ffff:10.99.0.5]:5432")
		b.refused(t, "[::ffff:11.0.0.5]:5432")
		b.allowed(t, "m.corp:5432", "10.0.0.5:5432")
		b.refused(t, "d.corp:5432")
	})
	t.Run("A8 numbers as hosts", func(t *testing.T) {
		b := newBench(t, policy.Config{Allow: []policy.Target{{CIDR: "127.0.0.1", Ports: ports(80)}, {Host: "*.corp", Ports: ports(80)}}}, func(string, uint16, int) []record { return addrs("127.0.0.1") })
		for _, h := range []string{"127.1", "0177.0.0.1", "2130706433", "0x7f000001", "017700000001", "127.0.0.01", "x.127", "0x7f.corp.0x1"} {
			b.refused(t, h+":80")
		}
		if n := b.questions(); n != 0 {
			t.Errorf("%d questions to DNS for numbers", n)
		}
	})
	t.Run("A9 one form of a name", func(t *testing.T) {
		b := newBench(t, site, byName(map[string][]record{"db.corp": addrs("10.0.0.5")}))
		for _, h := range []string{"db.corp", "DB.CORP", "db.corp.", "Db.Corp."} {
			b.allowed(t, h+":5432", "10.0.0.5:5432")
		}
		for _, h := range []string{"10.0.0.5.", "db.corp..", " db.corp", "db.corp ", "db.corp%00.evil", "db.corp\t", "db.corp\x00", "db..corp", ".db.corp", "db.cörp", "db.corp/x", "user@db.corp"} {
			b.refused(t, h+":5432")
		}
	})
	t.Run("A10 brackets", func(t *testing.T) {
		b := newBench(t, site, byName(map[string][]record{"db.corp": addrs("10.0.0.5")}))
		for _, a := range []string{"[db.corp]:5432", "[10.0.0.5]:5432", "[::1]x:5432", "[[::1]]:5432", "[]:5432", "[:5432", "10.0.0.5]:5432"} {
			b.refused(t, a)
		}
	})
	t.Run("A13 rebinding", func(t *testing.T) {
		b := newBench(t, site, func(name string, typ uint16, asked int) []record {
			if name != "db.corp" || typ != typeA {
				return []record{}
			}
			if asked == 0 {
				return addrs("10.0.0.5")
			}
			return addrs("169.254.169.254")
		})
		b.allowed(t, "db.corp:5432", "10.0.0.5:5432") // one look: the second answer plays no part
		b.dns.mu.Lock()
		n := b.asked["db.corp/"+string(rune(typeA))]
		b.dns.mu.Unlock()
		if n != 1 {
			t.Errorf("the name was asked for %d times", n)
		}
		b.refused(t, "db.corp:5432")
	})
	t.Run("A13 the socket asserts the decided address", func(t *testing.T) {
		ap := netip.MustParseAddrPort("10.0.0.5:5432")
		for address, ok := range map[string]bool{"10.0.0.5:5432": true, "[::ffff:10.0.0.5]:5432": true, "10.0.0.6:5432": false, "10.0.0.5:5433": false, "db.corp:5432": false} {
			if err := assert(address, ap); (err == nil) != ok {
				t.Errorf("%s: %v", address, err)
			}
		}
	})
	t.Run("A15 allowed and denied addresses mixed", func(t *testing.T) {
		b := newBench(t, site, byName(map[string][]record{"db.corp": addrs("169.254.169.254", "10.99.0.1", "10.0.0.5", "::1", "127.0.0.1")}))
		var asked []string
		b.Dialer.connect = func(_ context.Context, ap netip.AddrPort) (net.Conn, error) {
			asked = append(asked, ap.String())
			return nil, errors.New("down")
		}
		_, err := b.dial("db.corp:5432")
		if protocol.AsError(err).Code != protocol.CodeUnavailable || !slices.Equal(asked, []string{"10.0.0.5:5432"}) {
			t.Fatalf("got %v after attempts at %v: a denied address must not be the fallback", err, asked)
		}
	})
	t.Run("A16 rogue DNS", func(t *testing.T) { catalogA16(t) })
	t.Run("A17 host patterns", func(t *testing.T) {
		b := newBench(t, site, func(_ string, typ uint16, _ int) []record {
			if typ == typeA {
				return addrs("10.0.0.5")
			}
			return []record{}
		})
		b.allowed(t, "x.corp:443", "10.0.0.5:443")
		for _, h := range []string{"corp", "evilcorp", "x.evilcorp", "a.b.corp", "corp.evil.com", "x.corp.evil.com", "*.corp"} {
			b.refused(t, h+":443")
		}
	})
	t.Run("A18 slips in the file", func(t *testing.T) {
		for _, c := range []string{"10.0.0.5/8", "::ffff:10.0.0.0/8", "10.0.0.0/08", "10.0.0.0/33", "0/0", "10.0.0.0/255.0.0.0", "::ffff:10.0.0.5", "10.0.0.0/-1"} {
			if _, faults := policy.New(policy.Config{Allow: []policy.Target{{CIDR: c, Ports: ports(80)}}}); len(faults) == 0 {
				t.Errorf("%s was accepted", c)
			}
		}
	})
	t.Run("A23 proxies of the environment", func(t *testing.T) {
		for _, k := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"} {
			t.Setenv(k, "http://192.0.2.1:3128")
		}
		b := newBench(t, site, nil)
		b.allowed(t, "10.0.0.5:5432", "10.0.0.5:5432")
	})
	t.Run("A29 one answer to all that is not allowed", func(t *testing.T) {
		b := newBench(t, policy.Config{Allow: []policy.Target{{Host: "*.corp", Ports: ports(5432)}, {CIDR: "0.0.0.0/0", Ports: ports(5432)}}, Deny: []policy.Target{{CIDR: "10.99.0.0/16"}}},
			byName(map[string][]record{"in.corp": addrs("10.99.0.1"), "meta.corp": addrs("169.254.169.254")}))
		var first string
		var least, most time.Duration
		for i, addr := range []string{"10.99.0.1:5432", "169.254.169.254:5432", "10.0.0.1:80", "evil.com:5432", "127.0.0.1:5432", "bad host:1", "in.corp:5432", "meta.corp:5432"} {
			began := time.Now()
			_, err := b.dial(addr)
			took := time.Since(began)
			var e *protocol.Error
			if !errors.As(err, &e) {
				t.Fatal(err)
			}
			seen := fmt.Sprint(e.Code, e.Message, e.Rule, e.Hint, e.Detail, e.Origin)
			if i == 0 {
				first, least, most = seen, took, took
			}
			least, most = min(least, took), max(most, took)
			if seen != first {
				t.Errorf("%s answers %q, others %q", addr, seen, first)
			}
		}
		if most-least > 20*time.Millisecond {
			t.Errorf("answers differ by %v", most-least)
		}
	})
	for id, why := range map[string]string{
		"A20-A22, A25": "in package httpapi", "A26, A27": "in package sqldb: they are of database drivers", "A28": "the rate of refusals is for package agent to limit, before a connector is asked",
		"A30, A31": "in the end-to-end suite: they want a group, or a relay", "A14": "by TestA14NothingElseDials", "A3": "by TestCatalogRaw",
	} {
		t.Logf("not run here: %s: %s", id, why)
	}
}

func catalogA16(t *testing.T) {
	many := func(n int) []record {
		var out []record
		for i := range n {
			out = append(out, addrs(fmt.Sprintf("10.%d.%d.1", 1+i/250, i%250))...)
		}
		return out
	}
	for _, n := range []int{1000, 4095} { // the second one is an answer of 64 KiB
		t.Run(strconv.Itoa(n)+" addresses", func(t *testing.T) {
			b := newBench(t, site, func(_ string, typ uint16, _ int) []record {
				if typ == typeA {
					return many(n)
				}
				return []record{}
			})
			var mu sync.Mutex
			tried := 0
			b.Dialer.connect = func(context.Context, netip.AddrPort) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				tried++
				return nil, errors.New("down")
			}
			_, err := b.dial("db.corp:5432")
			if protocol.AsError(err).Code != protocol.CodeUnavailable || tried > 16 {
				t.Fatalf("got %v after %d attempts, want at most 16", err, tried)
			}
		})
	}
	t.Run("CNAME loop", func(t *testing.T) {
		b := newBench(t, site, func(name string, _ uint16, _ int) []record {
			if name == "db.corp" {
				return []record{cname("a.corp")}
			}
			return []record{cname("db.corp")}
		})
		began := time.Now()
		_, err := b.dial("db.corp:5432")
		if code := protocol.AsError(err).Code; code != protocol.CodeUnavailable || time.Since(began) > 3*time.Second {
			t.Fatalf("got %v after %v", err, time.Since(began))
		}
	})
	t.Run("CNAME to the metadata service", func(t *testing.T) {
		b := newBench(t, site, func(_ string, typ uint16, _ int) []record {
			if typ == typeA {
				return append([]record{cname("metadata.google.internal")}, addrs("169.254.169.254")...)
			}
			return []record{}
		})
		b.refused(t, "db.corp:5432")
	})
	t.Run("records of other types and broken ones", func(t *testing.T) {
		for name, rec := range map[string]record{"svcb": {typeHTTPS, []byte{0, 1, 0, 0, 1, 0, 255}}, "short A": {typeA, []byte{10, 0}}, "long A": {typeA, []byte{169, 254, 169, 254, 6}}, "empty": {typeA, nil}} {
			b := newBench(t, site, func(string, uint16, int) []record { return []record{rec} })
			if made, err := b.dial("db.corp:5432"); err == nil || len(made) != 0 {
				t.Errorf("%s: got %v and attempts at %v", name, err, made)
			}
		}
	})
	t.Run("a server that never answers", func(t *testing.T) {
		b := newBench(t, site, nil)
		b.Dialer.LookupTimeout = 50 * time.Millisecond
		b.Dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		began := time.Now()
		_, err := b.dial("db.corp:5432")
		if protocol.AsError(err).Code != protocol.CodeUnavailable || time.Since(began) > 2*time.Second {
			t.Fatalf("got %v after %v", err, time.Since(began))
		}
	})
}

func TestGuardedDatabaseIsNotReachedByAnotherName(t *testing.T) {
	c := site
	c.Database = map[string]policy.Database{"sales": {Adapter: "postgresql", Host: "sales.intern", Port: 5432, Mode: policy.ModeReadOnly}}
	table := map[string][]record{"sales.intern": addrs("10.0.0.5"), "alias.corp": addrs("10.0.0.5"), "other.corp": addrs("10.0.0.6")}
	b := newBench(t, c, byName(table))
	b.refused(t, "alias.corp:5432")
	b.refused(t, "10.0.0.5:5432")
	b.allowed(t, "other.corp:5432", "10.0.0.6:5432")
	b = newBench(t, c, byName(map[string][]record{"other.corp": addrs("10.0.0.6")}))
	b.refused(t, "other.corp:5432") // nobody can tell whether it is the guarded one
}

func TestProfileTargetIsHeldToDenyAndBlocks(t *testing.T) {
	p := compile(t, policy.Config{TCP: map[string]policy.TCP{"erp": {Host: "erp.corp", Port: 3200}}, Deny: []policy.Target{{CIDR: "10.99.0.0/16"}}})
	b := &bench{t: t, Dialer: ForProfile(p, protocol.KindTCP, "erp"), dns: newDNS(t, byName(map[string][]record{"erp.corp": addrs("10.99.0.1", "10.0.0.7", "169.254.169.254")}))}
	b.Dialer.Resolver, b.Dialer.connect = b.dns.resolver, b.attempts.connect
	b.allowed(t, "erp.corp:3200", "10.0.0.7:3200")
}

func TestRaceTriesTheNextAndClosesTheLoser(t *testing.T) {
	d := &Dialer{Decide: func(policy.Dial) policy.Decision { return policy.Decision{Allow: true} }, Stagger: time.Millisecond}
	closed := make(chan struct{})
	slow := make(chan struct{})
	d.connect = func(ctx context.Context, ap netip.AddrPort) (net.Conn, error) {
		if ap.Addr() == netip.MustParseAddr("10.0.0.1") {
			<-slow // comes too late
			c, s := net.Pipe()
			s.Close()
			return &closeNoted{c, closed}, nil
		}
		close(slow)
		c, s := net.Pipe()
		s.Close()
		return c, nil
	}
	c, err := d.race(t.Context(), []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:1")})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case <-closed: // the late one, unless it was the one that won
	default:
		if _, won := c.(*closeNoted); !won {
			t.Fatal("the connection that lost is still open")
		}
	}
}

type closeNoted struct {
	net.Conn
	closed chan struct{}
}

func (c *closeNoted) Close() error {
	close(c.closed)
	return c.Conn.Close()
}

func TestDialErrorsTellWhatHappened(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := ln.Addr().String()
	ln.Close()
	d := &Dialer{Decide: func(policy.Dial) policy.Decision { return policy.Decision{Allow: true} }}
	_, err = d.DialContext(t.Context(), "tcp", gone)
	if e := protocol.AsError(err); e.Code != protocol.CodeUnavailable || !strings.Contains(e.Message, "refuses") || e.Origin != protocol.OriginTarget {
		t.Errorf("closed port: %v", err)
	}
	if strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("the text names the address: %v", err)
	}
	d.Timeout = 20 * time.Millisecond
	d.connect = func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	if _, err = d.DialContext(t.Context(), "tcp", gone); protocol.AsError(err).Code != protocol.CodeTimeout {
		t.Errorf("silent port: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = d.DialContext(ctx, "tcp", gone); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err = d.DialContext(t.Context(), "udp", gone); protocol.AsError(err).Code != protocol.CodeDenied {
		t.Errorf("udp: %v", err)
	}
}
