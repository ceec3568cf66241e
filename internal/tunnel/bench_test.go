package tunnel_test

import (
	"crypto/tls"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

const chunk = 32 << 10

func bulk(b *testing.B, from io.Writer, to io.Reader) {
	b.SetBytes(chunk)
	b.ReportAllocs()
	go func() {
		buf := make([]byte, chunk)
		for range b.N {
			if _, err := from.Write(buf); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for left := b.N * chunk; left > 0; {
		n, err := to.Read(buf)
		if err != nil {
			b.Fatal(err)
		}
		left -= n
	}
}

func BenchmarkBulk(b *testing.B) {
	b.Run("tunnel", func(b *testing.B) {
		a, p := newWorld(b).connect(b, tunnel.DefaultConfig(), tunnel.DefaultConfig(), nil, nil)
		from, to := open(b, a, p)
		defer from.Close()
		defer to.Close()
		b.ResetTimer()
		bulk(b, from, to)
	})
	b.Run("TLS", func(b *testing.B) {
		from, to := bare(b)
		b.ResetTimer()
		bulk(b, from, to)
	})
}

// bare is the limit: one TLS connection with the same settings, and nothing of ours on it.
func bare(b *testing.B) (*tls.Conn, *tls.Conn) {
	w := newWorld(b)
	ln := listen(b)
	ch := make(chan *tls.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			ch <- nil
			return
		}
		s := tls.Server(c, w.serve)
		_ = s.Handshake()
		ch <- s
	}()
	c, err := tls.Dial("tcp", ln.Addr().String(), w.client)
	s := <-ch
	if err != nil || s == nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close(); _ = s.Close() })
	return c, s
}

func echoBench(b *testing.B, near, far net.Conn) {
	go func() { _, _ = io.Copy(far, far) }()
	buf := make([]byte, 64)
	b.ResetTimer()
	for b.Loop() {
		if _, err := near.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(near, buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = near.Close()
}

func BenchmarkRoundTrip(b *testing.B) {
	b.Run("tunnel", func(b *testing.B) {
		a, p := newWorld(b).connect(b, tunnel.DefaultConfig(), tunnel.DefaultConfig(), nil, nil)
		near, far := open(b, a, p)
		echoBench(b, near, far)
	})
	b.Run("TLS", func(b *testing.B) {
		near, far := bare(b)
		echoBench(b, near, far)
	})
	b.Run("ping", func(b *testing.B) {
		a, _ := newWorld(b).connect(b, tunnel.DefaultConfig(), tunnel.DefaultConfig(), nil, nil)
		var all []time.Duration
		for b.Loop() {
			if len(all) == 90 {
				continue // the peer would slow us down: pings are no traffic
			}
			d, err := a.Ping(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, d)
		}
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Nanoseconds()), "p50-ns")
	})
}

// BenchmarkStream opens a stream, sends 1 KiB, reads 1 KiB back and closes it.
func BenchmarkStream(b *testing.B) {
	cfg := tunnel.DefaultConfig()
	cfg.OpenRate, cfg.OpenBurst = 1e6, 1e6
	a, p := newWorld(b).connect(b, cfg, cfg, nil, nil)
	streams(b, a, p)
}

func streams(b *testing.B, a, p tunnel.Tunnel) {
	go func() {
		for {
			s, err := p.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(s, s); _ = s.Close() }()
		}
	}()
	buf := make([]byte, 1024)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s, err := a.Open(b.Context())
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = s.Write(buf)
			if _, err := io.ReadFull(s, make([]byte, 1024)); err != nil {
				b.Error(err)
			}
			_ = s.Close()
		}
	})
}

// BenchmarkQUIC is what QUIC costs, beside BenchmarkBulk, BenchmarkRoundTrip and BenchmarkStream.
func BenchmarkQUIC(b *testing.B) {
	b.Run("bulk", func(b *testing.B) {
		a, p := newWorld(b).connectQUIC(b, tunnel.DefaultConfig(), tunnel.DefaultConfig(), nil)
		from, to := open(b, a, p)
		defer from.Close()
		defer to.Close()
		b.ResetTimer()
		bulk(b, from, to)
	})
	b.Run("round trip", func(b *testing.B) {
		a, p := newWorld(b).connectQUIC(b, tunnel.DefaultConfig(), tunnel.DefaultConfig(), nil)
		near, far := open(b, a, p)
		echoBench(b, near, far)
	})
	b.Run("stream", func(b *testing.B) {
		cfg := tunnel.DefaultConfig()
		cfg.OpenRate, cfg.OpenBurst = 1e6, 1e6
		a, p := newWorld(b).connectQUIC(b, cfg, cfg, nil)
		streams(b, a, p)
	})
}
