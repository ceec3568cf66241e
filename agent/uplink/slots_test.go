package uplink

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// relays plays relays that welcome every tunnel over memory.
type relays struct {
	t  *testing.T
	wg sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	open  []tunnel.Tunnel
	deaf  bool // new tunnels answer no ping
	drain int
}

// silent is a tunnel whose peer answers no ping.
type silent struct{ tunnel.Tunnel }

func (s silent) Ping(ctx context.Context) (time.Duration, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func (r *relays) dial(context.Context, string) (tunnel.Tunnel, error) {
	site, relay := tunnel.Memory(mtls.Identity{Role: mtls.RoleAgent, ID: "agt_x"}, mtls.Identity{Role: mtls.RoleRelay, ID: "rel_x"}, tunnel.DefaultConfig())
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == protocol.PathDrain {
			r.mu.Lock()
			r.drain++
			r.mu.Unlock()
		}
		_ = json.NewEncoder(w).Encode(protocol.Welcome{Version: protocol.Version, Relay: "rel_x", ServerTimeMs: time.Now().UnixMilli()})
	})}
	r.wg.Go(func() { _ = srv.Serve(tunnel.NewListener(relay)) })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = append(r.open, relay)
	if r.deaf {
		return silent{site}, nil
	}
	return site, nil
}

func (r *relays) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

func run(t *testing.T, r *relays, tunnels int) (u *Uplink, stop func()) {
	u = New(Config{Addresses: []string{"a:1", "b:1"}, Tunnels: tunnels, Logger: slog.New(slog.DiscardHandler), Dial: r.dial,
		Hello: func() protocol.Hello { return protocol.Hello{Version: protocol.Version} }, Handler: http.NotFoundHandler()})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = u.Run(ctx) }()
	return u, func() { cancel(); <-done; r.wg.Wait() }
}

// As many tunnels are kept to each relay as the file says; one that is lost comes back while the others serve, and a renewal
// changes each of them.
func TestSeveralTunnelsAreKeptToEachRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &relays{t: t}
		u, stop := run(t, r, 3)
		defer stop()
		want := func(n int) {
			t.Helper()
			for _, s := range u.States() {
				if s.Tunnels != n || !s.Connected {
					t.Errorf("%+v, want %d", s, n)
				}
			}
		}
		time.Sleep(time.Second)
		want(3)
		r.mu.Lock()
		lost := r.open[0]
		r.mu.Unlock()
		lost.Close()
		synctest.Wait()
		if a, b := u.States()[0].Tunnels, u.States()[1].Tunnels; a+b != 5 {
			t.Errorf("%d and %d after one of six was lost", a, b)
		}
		time.Sleep(time.Minute)
		want(3)
		before := r.count()
		u.Cycle()
		time.Sleep(10 * time.Second)
		want(3)
		r.mu.Lock()
		defer r.mu.Unlock()
		if n := len(r.open) - before; n != 6 || r.drain != 6 {
			t.Errorf("a renewal opened %d tunnels and drained %d", n, r.drain)
		}
	})
}

// A relay that does not answer a round trip is given up within 20 seconds, and another tunnel is opened.
func TestARelayThatDoesNotAnswerIsFoundIn20Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &relays{t: t, deaf: true}
		u, stop := run(t, r, 1)
		defer stop()
		time.Sleep(time.Second)
		if !u.States()[0].Connected {
			t.Fatal("not connected")
		}
		r.mu.Lock()
		first := r.open[0]
		r.deaf = false
		r.mu.Unlock()
		from := time.Now()
		<-first.Done()
		if took := time.Since(from); took > 20*time.Second {
			t.Errorf("found after %s", took)
		}
		time.Sleep(2 * time.Second)
		if s := u.States()[0]; !s.Connected || r.count() < 3 {
			t.Errorf("%+v", s)
		}
	})
	// The tunnel's own watch, of both sides.
	if c := tunnel.DefaultConfig(); c.KeepAlive+c.PingTimeout > 20*time.Second {
		t.Errorf("a dead peer is found after %s", c.KeepAlive+c.PingTimeout)
	}
}
