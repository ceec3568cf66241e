//go:build linux

package tunnel_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// narrow forwards one conn to addr, with so many bytes a second towards it.
func narrow(t *testing.T, addr string, rate int) string {
	t.Helper()
	ln := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		in, err := ln.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		_ = in.(*net.TCPConn).SetReadBuffer(16 << 10)
		out, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		back := make(chan struct{})
		go func() { defer close(back); _, _ = io.Copy(in, out); _ = in.Close() }()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for buf := make([]byte, rate/100); err == nil; <-tick.C {
			var n int
			n, err = in.Read(buf)
			if _, e := out.Write(buf[:n]); e != nil {
				err = e
			}
		}
		_ = out.Close()
		<-back
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

// Z35: a ping that waits behind what was sent before is late and not lost, while that still arrives, up to a bound.
func TestSlowLineIsNotADeadOne(t *testing.T) {
	for name, bound := range map[string]time.Duration{"Z35 late": time.Minute, "Z35 too late": 1500 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ln := listen(t)
			accepted := make(chan tunnel.Tunnel, 1)
			go func() {
				defer close(accepted)
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				if s, err := tunnel.Server(t.Context(), tls.Server(conn, w.serve), tunnel.DefaultConfig()); err == nil {
					accepted <- s
				}
			}()
			cfg := tunnel.DefaultConfig()
			cfg.KeepAlive, cfg.PingTimeout, cfg.LatePing = 50*time.Millisecond, time.Second, bound
			a, err := tunnel.Dial(t.Context(), narrow(t, ln.Addr().String(), 64_000), w.client, nil, cfg)
			must(t, err)
			defer a.Close()
			b := <-accepted
			if b == nil {
				t.Fatal("not accepted")
			}
			defer b.Close()
			s, p := open(t, a, b)
			const size = 256 << 10 // one window: nothing comes back meanwhile
			wrote := make(chan error, 1)
			go func() { _, err := s.Write(make([]byte, size)); wrote <- err }()
			<-time.After(200 * time.Millisecond) // the line is full
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = a.Ping(ctx)
			if bound < time.Minute {
				within(t, 10*time.Second, "the end of the tunnel", a.Done())
				if !errors.Is(a.Err(), tunnel.ErrPeerLost) {
					t.Errorf("tunnel: %v", a.Err())
				}
				<-wrote
				return
			}
			if !errors.Is(err, tunnel.ErrLate) {
				t.Errorf("ping: %v", err)
			}
			if _, err := io.ReadFull(p, make([]byte, size)); err != nil {
				t.Errorf("read: %v; tunnel: %v", err, a.Err())
			}
			must(t, <-wrote)
		})
	}
}
