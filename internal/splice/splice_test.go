package splice_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/splice"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair gives the two ends of a TCP conn.
func pair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func TestHalfCloseIsCarriedOver(t *testing.T) {
	caller, left := pair(t)
	right, target := pair(t)
	done := make(chan [2]int64, 1)
	go func() {
		ab, ba := splice.Both(context.Background(), left, right)
		done <- [2]int64{ab, ba}
	}()
	if _, err := io.WriteString(caller, "question"); err != nil {
		t.Fatal(err)
	}
	if err := caller.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// The target sees the end of the question while it can still answer.
	q, err := io.ReadAll(target)
	if err != nil || string(q) != "question" {
		t.Fatalf("target read %q, %v", q, err)
	}
	if _, err := io.WriteString(target, strings.Repeat("answer", 100)); err != nil {
		t.Fatal(err)
	}
	target.Close()
	a, err := io.ReadAll(caller)
	if err != nil || len(a) != 600 {
		t.Fatalf("caller read %d bytes, %v", len(a), err)
	}
	if n := <-done; n != [2]int64{8, 600} {
		t.Fatalf("counted %v", n)
	}
}

func TestContextCutsBoth(t *testing.T) {
	caller, left := pair(t)
	right, target := pair(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); splice.Both(ctx, left, right) }()
	cancel()
	<-done
	for _, c := range []net.Conn{caller, target} {
		if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatal(err)
		}
	}
}
