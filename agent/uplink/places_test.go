package uplink

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"
)

// deaf is a resolver that reaches no server.
func deaf() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no resolver is there")
	}}
}

// Z38: a relay whose name cannot be resolved is reached where it was before, for 24 hours.
func TestRelayIsReachedWhereItWasBefore(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	b := newPlaces(slog.New(slog.DiscardHandler))
	now := time.Now()
	b.now = func() time.Time { return now }
	d := net.Dialer{Timeout: 5 * time.Second, Resolver: deaf()}
	dial := func() error {
		conn, err := b.dial(t.Context(), &d, "tcp", "relay.invalid:"+port)
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := dial(); !errors.As(err, new(*net.DNSError)) {
		t.Fatalf("nothing is known yet: %v", err)
	}
	b.note("relay.invalid", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	now = now.Add(placeLife - time.Second)
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(placeLife - time.Second) // it was seen again
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(placeLife)
	if err := dial(); !errors.As(err, new(*net.DNSError)) {
		t.Errorf("after a day: %v", err)
	}
	// Another name's address is not taken, nor is one where nobody answers, and what failed is told by the resolver's error.
	b.note("relay.invalid", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if _, err := b.dial(t.Context(), &d, "tcp", "other.invalid:"+port); !errors.As(err, new(*net.DNSError)) {
		t.Errorf("another name: %v", err)
	}
	ln.Close()
	if err := dial(); !errors.As(err, new(*net.DNSError)) {
		t.Errorf("nobody is there: %v", err)
	}
}

func TestPlacesAreFew(t *testing.T) {
	b := newPlaces(slog.New(slog.DiscardHandler))
	for _, n := range []byte{1, 2, 3, 4, 5, 6, 4} {
		b.note("relay.example.com", &net.TCPAddr{IP: net.IPv4(10, 0, 0, n), Port: 443})
	}
	b.note("relay.example.com", &net.UnixAddr{Name: "x"})
	if got := b.of("relay.example.com"); !slices.Equal(got, []string{"10.0.0.4", "10.0.0.6", "10.0.0.5", "10.0.0.3"}) {
		t.Errorf("%v", got)
	}
}
