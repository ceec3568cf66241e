package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// A relay that was taken over must not be able to keep its agents away for ever by asking for patience.
func TestRelayCannotSendTheAgentAwayForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		dials := make(chan struct{}, 8)
		u := New(Config{Addresses: []string{"relay:1"}, Logger: slog.New(slog.DiscardHandler), Dial: func(context.Context, string) (tunnel.Tunnel, error) {
			dials <- struct{}{}
			return nil, &retryError{protocol.Errorf(protocol.CodeUnavailable, "go away"), 1000 * time.Hour}
		}})
		done := make(chan struct{})
		go func() { defer close(done); _ = u.Run(ctx) }()
		<-dials
		select {
		case <-dials:
		case <-time.After(maxRetry + 2*time.Minute):
			t.Error("the agent stays away")
		}
		cancel()
		<-done
	})
}

// Whatever the dice say, a cut costs no more than as much again: who was away for five seconds is back within ten.
func TestShortCutIsShort(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			start := time.Now()
			var last time.Duration
			u := New(Config{Addresses: []string{"relay:1"}, Logger: slog.New(slog.DiscardHandler), Dial: func(context.Context, string) (tunnel.Tunnel, error) {
				at := time.Since(start)
				if at-last > max(last, 500*time.Millisecond) || at-last > 62*time.Second {
					t.Errorf("tried at %s, and then at %s", last, at)
				}
				last = at
				return nil, errors.New("away")
			}})
			done := make(chan struct{})
			go func() { defer close(done); _ = u.Run(ctx) }()
			time.Sleep(10 * time.Minute)
			cancel()
			<-done
			if last < 8*time.Minute {
				t.Errorf("the last try was at %s", last)
			}
		})
	}
}

// Nobody proves that it was the relay who said that it is busy: whoever does delays the agent, and no more.
func TestBusyRelayIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		dials := 0
		u := New(Config{Addresses: []string{"relay:1"}, Logger: slog.New(slog.DiscardHandler), Dial: func(context.Context, string) (tunnel.Tunnel, error) {
			dials++
			return nil, errBusyRelay
		}})
		done := make(chan struct{})
		go func() { defer close(done); _ = u.Run(ctx) }()
		time.Sleep(20 * time.Minute)
		cancel()
		<-done
		if dials < 20 || dials > 200 {
			t.Errorf("%d tries in 20 minutes", dials)
		}
	})
}

// What a relay's port says when its line is full is what the agent takes for busy, and says nothing of it to the admin as if
// something on the way were at fault.
func TestFullPortIsReadAsBusy(t *testing.T) {
	root := mtlstest.New(t)
	serve := mtls.TunnelTLS(root.Leaf(t, mtlstest.Relay, nil).Reloader(t), root.Pool(), "in_test", nil)
	client := mtls.AgentTLS(root.Workspace(t, "in_test", "ws_test").Leaf(t, mtlstest.Agent, nil).Reloader(t), root.Pool(), "in_test")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := tunnel.DefaultConfig()
	cfg.MaxHandshakesPerSource, cfg.HandshakeGrace, cfg.HandshakeWait = 1, time.Hour, 100*time.Millisecond
	m := tunnel.Listen(ln, map[string]*tls.Config{protocol.ALPNTunnel: serve}, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx) }()
	defer func() { cancel(); <-done }()
	hung, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	for range 3 {
		tn, err := tunnel.Dial(ctx, m.Addr().String(), client, nil, cfg)
		if err == nil {
			tn.Close()
			t.Fatal("let in where there is no room")
		}
		if readSign(err) != signBusy || Blocked(err) {
			t.Errorf("got %v, sign %d", err, readSign(err))
		}
	}
	// Who hangs holds the room until its own time is over, and is told nothing.
	_ = hung.SetReadDeadline(time.Now())
	if n, err := hung.Read(make([]byte, 1)); n != 0 || err == io.EOF {
		t.Errorf("read %d, %v", n, err)
	}
}
