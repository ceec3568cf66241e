package uplink

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// Of places.
const (
	placeLife = 24 * time.Hour // a name's address is good for so long after it was last reached there
	placeMost = 4              // addresses of one name
)

// places remembers where names of relays led, for times when they cannot be resolved: a site whose resolver is gone keeps its
// tunnels. Who answers there is told by its certificate, not by its address. nil remembers nothing. Safe for concurrent use.
type places struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex // guards byName
	byName map[string][]place
}

// place is an address that was reached; the last one stands last.
type place struct {
	ip   string
	seen time.Time
}

func newPlaces(log *slog.Logger) *places {
	return &places{log: log, now: time.Now, byName: map[string][]place{}}
}

// dial is d's, and goes where the name led before when it cannot be resolved.
func (b *places) dial(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, network, addr)
	host, port, serr := net.SplitHostPort(addr)
	if b == nil || serr != nil || net.ParseIP(host) != nil {
		return conn, err
	}
	if err == nil {
		b.note(host, conn.RemoteAddr())
		return conn, nil
	}
	if !errors.As(err, new(*net.DNSError)) {
		return nil, err
	}
	for _, ip := range b.of(host) {
		conn, perr := d.DialContext(ctx, network, net.JoinHostPort(ip, port))
		if perr == nil {
			b.log.Warn("the relay's name does not resolve; it was reached where it was before", "name", host, "address", ip, "reason", err)
			b.note(host, conn.RemoteAddr())
			return conn, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func (b *places) note(host string, at net.Addr) {
	tcp, ok := at.(*net.TCPAddr)
	if !ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ip := (&net.IPAddr{IP: tcp.IP, Zone: tcp.Zone}).String()
	all := slices.DeleteFunc(b.byName[host], func(p place) bool { return p.ip == ip })
	all = append(all, place{ip, b.now()})
	b.byName[host] = all[max(0, len(all)-placeMost):]
}

// of gives what is still good, the last one first.
func (b *places) of(host string) (ips []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range slices.Backward(b.byName[host]) {
		if b.now().Sub(p.seen) < placeLife {
			ips = append(ips, p.ip)
		}
	}
	return ips
}
