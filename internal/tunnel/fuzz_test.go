package tunnel_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// FuzzFrames feeds a tunnel whatever a peer may send, and expects it to end or to live, never to panic, hang or grow.
func FuzzFrames(f *testing.F) {
	f.Add(frame(window, syn, 1, 0))
	f.Add(append(frame(data, syn, 1, 3, 1, 2, 3), frame(window, fin, 1, 0)...))
	f.Add(append(frame(window, syn, 1, 0), frame(window, rst, 1, 0)...))
	f.Add(frame(ping, syn, 0, 1))
	f.Add(frame(goAway, 0, 0, 0))
	f.Add(frame(data, 0, 1, 1<<32-1))
	f.Add(bytes.Join([][]byte{frame(window, syn, 1, 0), frame(window, syn, 3, 0), frame(data, fin, 1, 1, 0), frame(data, rst, 3, 1, 0)}, nil))
	w := newWorld(f)
	ln := listen(f)
	cfg := tunnel.DefaultConfig()
	cfg.MaxStreams, cfg.Backlog, cfg.MaxBuffered = 8, 4, 1<<20
	f.Fuzz(func(t *testing.T, b []byte) {
		ch := make(chan tunnel.Tunnel, 1)
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				ch <- nil
				return
			}
			s, _ := tunnel.Server(context.Background(), tls.Server(conn, w.serve), cfg)
			ch <- s
		}()
		conn, err := tls.Dial("tcp", ln.Addr().String(), w.client)
		tun := <-ch
		if err != nil || tun == nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var count atomic.Int64
		wait := serve(tun, &count)
		_, _ = conn.Write(b)
		_ = conn.CloseWrite()
		within(t, 20*time.Second, "the end of the tunnel", tun.Done())
		must(t, tun.Close())
		wait()
		if n := tun.Streams(); n > 2*cfg.MaxStreams {
			t.Fatalf("%d streams", n)
		}
	})
}
