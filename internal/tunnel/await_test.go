package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/splice"
	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// awaiting asks a stream to tell, and gives what is closed when it does. Twice would panic.
func awaiting(t *testing.T, s tunnel.Stream) <-chan struct{} {
	t.Helper()
	w, ok := s.(splice.Waiter)
	if !ok || !w.AwaitRead(nil) {
		t.Fatal("a stream of the mux does not tell when a Read may not wait")
	}
	told := make(chan struct{})
	if !w.AwaitRead(func() { close(told) }) {
		t.Fatal("refused")
	}
	return told
}

func quiet(t *testing.T, told <-chan struct{}) {
	t.Helper()
	select {
	case <-told:
		t.Fatal("told though there is nothing to read")
	case <-time.After(30 * time.Millisecond):
	}
}

// Each event that ends a wait in Read is told to who awaits it.
func TestAwaitRead(t *testing.T) {
	for name, c := range map[string]struct {
		event func(s, peer tunnel.Stream, a, b tunnel.Tunnel)
		want  error
	}{
		"bytes":            {func(_, p tunnel.Stream, _, _ tunnel.Tunnel) { _, _ = io.WriteString(p, "x") }, nil},
		"the peer's end":   {func(_, p tunnel.Stream, _, _ tunnel.Tunnel) { _ = p.CloseWrite() }, io.EOF},
		"own close":        {func(s, _ tunnel.Stream, _, _ tunnel.Tunnel) { _ = s.Close() }, net.ErrClosed},
		"a deadline":       {func(s, _ tunnel.Stream, _, _ tunnel.Tunnel) { _ = s.SetReadDeadline(time.Now()) }, context.DeadlineExceeded},
		"both deadlines":   {func(s, _ tunnel.Stream, _, _ tunnel.Tunnel) { _ = s.SetDeadline(time.Now()) }, context.DeadlineExceeded},
		"end of tunnel":    {func(_, _ tunnel.Stream, a, _ tunnel.Tunnel) { _ = a.Close() }, tunnel.ErrClosed},
		"end of the other": {func(_, _ tunnel.Stream, _, b tunnel.Tunnel) { _ = b.Close() }, tunnel.ErrPeerClosed},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tlsPair(t, tunnel.DefaultConfig())
			s, p := open(t, a, b)
			_, err := io.WriteString(s, "hello")
			must(t, err)
			_, err = io.ReadFull(p, make([]byte, 5))
			must(t, err)
			told := awaiting(t, s)
			quiet(t, told)
			c.event(s, p, a, b)
			within(t, 10*time.Second, "what was awaited", told)
			n, err := s.Read(make([]byte, 8))
			var timeout net.Error
			switch {
			case c.want == nil && (n != 1 || err != nil):
				t.Errorf("%d, %v", n, err)
			case c.want == context.DeadlineExceeded && (!errors.As(err, &timeout) || !timeout.Timeout()):
				t.Errorf("%v", err)
			case c.want != nil && c.want != context.DeadlineExceeded && !errors.Is(err, c.want):
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	t.Run("what is there already, and what comes after the end", func(t *testing.T) {
		a, b := tlsPair(t, tunnel.DefaultConfig())
		s, p := open(t, a, b)
		_, err := io.WriteString(p, "early")
		must(t, err)
		_, err = io.ReadFull(s, make([]byte, 1))
		must(t, err)
		within(t, 10*time.Second, "bytes that wait", awaiting(t, s))
		_, err = io.ReadFull(s, make([]byte, 4))
		must(t, err)
		must(t, p.Close())
		eventually(t, "the end", func() bool { n, err := s.Read(make([]byte, 1)); return n == 0 && err == io.EOF })
		within(t, 10*time.Second, "an end that was read", awaiting(t, s))
		must(t, s.Close())
		within(t, 10*time.Second, "a closed stream", awaiting(t, s))
	})
	t.Run("a reset", func(t *testing.T) {
		cfg := tunnel.DefaultConfig()
		cfg.CloseTimeout = 50 * time.Millisecond
		a, b := tlsPair(t, cfg)
		s, p := open(t, a, b)
		_, err := io.WriteString(s, "hello")
		must(t, err)
		must(t, p.Close()) // with bytes unread: reset soon after
		told := awaiting(t, s)
		within(t, 10*time.Second, "the reset", told)
	})
	t.Run("a race with bytes", func(t *testing.T) {
		a, b := tlsPair(t, tunnel.DefaultConfig())
		s, p := open(t, a, b)
		for range 2000 {
			go func() { _, _ = p.Write([]byte{1}) }()
			within(t, 10*time.Second, "the byte", awaiting(t, s))
			_, err := io.ReadFull(s, make([]byte, 1))
			must(t, err)
		}
	})
}

// Streams that sleep on a tunnel are woken by bytes in either direction, carry bulk to a slow reader whole, half-close, and end with
// the tunnel.
func TestSpliceOverSleepingStreams(t *testing.T) {
	a, b := tlsPair(t, tunnel.DefaultConfig())
	const streams = 40
	var ended atomic.Int64
	var clients, targets []*net.TCPConn
	for range streams {
		client, near := sockets(t)
		far, target := sockets(t)
		s, p := open(t, a, b)
		splice.StartBoth(t.Context(), near, s, func(int64, int64, error) { ended.Add(1) })
		splice.StartBoth(t.Context(), p, far, func(int64, int64, error) { ended.Add(1) })
		clients, targets = append(clients, client), append(targets, target)
		echoOnce(t, client, target)
	}
	for range 2 {
		<-time.After(1300 * time.Millisecond) // all fall asleep
		for i, c := range clients {
			echoOnce(t, c, targets[i])
			echoOnce(t, targets[i], c)
		}
	}
	<-time.After(1300 * time.Millisecond)
	want := random(6 << 20)
	go func() { _, _ = clients[0].Write(want); _ = clients[0].CloseWrite() }()
	<-time.After(1300 * time.Millisecond) // the target does not read yet
	got, err := io.ReadAll(targets[0])
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(want), err)
	}
	_, err = io.WriteString(targets[0], "answer")
	must(t, err)
	must(t, targets[0].Close())
	if got, err := io.ReadAll(clients[0]); err != nil || string(got) != "answer" {
		t.Fatalf("%q, %v", got, err)
	}
	must(t, a.Close())
	eventually(t, "the end of all", func() bool { return ended.Load() == 2*streams })
}

func echoOnce(t *testing.T, from, to net.Conn) {
	t.Helper()
	_, err := from.Write([]byte{7})
	must(t, err)
	_ = to.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err = io.ReadFull(to, make([]byte, 1))
	must(t, err)
	must(t, to.SetReadDeadline(time.Time{}))
}

// sockets gives the two ends of a TCP conn.
func sockets(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	ln := listen(t)
	c, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	s, err := ln.Accept()
	must(t, err)
	t.Cleanup(func() { _ = c.Close(); _ = s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}
