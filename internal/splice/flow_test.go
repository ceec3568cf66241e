package splice_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/splice"
)

// eventually polls with a ticker.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// goroutines counts those whose stack names a function of the package.
func goroutines(name string) int {
	b := make([]byte, 1<<20)
	b = b[:runtime.Stack(b, true)]
	n := 0
	for g := range strings.SplitSeq(string(b), "\n\n") {
		if strings.Contains(g, "internal/splice."+name) {
			n++
		}
	}
	return n
}

// asleep waits until both directions of one pair sleep: two goroutines that wait for a socket, and none that copies.
func asleep(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		return // sockets there have no readiness to wait for: the flows wait in Read
	}
	eventually(t, "both directions asleep", func() bool { return goroutines("awaitSocket") == 2 && goroutines("(*Flow)") == 0 })
}

// carried is a pair that copies between a caller and a target, asleep.
func carried(t *testing.T) (caller, target *net.TCPConn, cancel func(), done chan [2]int64) {
	t.Helper()
	caller, left := pair(t)
	right, target := pair(t)
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	done = make(chan [2]int64, 1)
	splice.StartBoth(ctx, left, right, func(ab, ba int64, _ error) { done <- [2]int64{ab, ba} })
	for _, c := range []net.Conn{caller, target} {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	exchange(t, caller, target)
	asleep(t)
	return caller, target, stop, done
}

func exchange(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, ends := range [][2]net.Conn{{a, b}, {b, a}} {
		if _, err := io.WriteString(ends[0], "ping"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(ends[1], got); err != nil || string(got) != "ping" {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func ended(t *testing.T, done <-chan [2]int64) [2]int64 {
	t.Helper()
	select {
	case n := <-done:
		return n
	case <-time.After(20 * time.Second):
		t.Fatal("the pair did not end")
		panic("not reached")
	}
}

func TestASleepingStreamWakes(t *testing.T) {
	t.Run("by bytes, and sleeps again", func(t *testing.T) {
		caller, target, cancel, done := carried(t)
		exchange(t, caller, target)
		exchange(t, target, caller)
		asleep(t)
		exchange(t, target, caller)
		cancel()
		if n := ended(t, done); n != [2]int64{16, 16} {
			t.Errorf("counted %v", n)
		}
	})
	t.Run("by a half-close", func(t *testing.T) {
		caller, target, _, done := carried(t)
		if err := caller.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(target); err != nil || len(b) != 0 {
			t.Fatalf("%q, %v", b, err)
		}
		if _, err := io.WriteString(target, "the answer comes later"); err != nil {
			t.Fatal(err)
		}
		target.Close()
		if b, err := io.ReadAll(caller); err != nil || string(b) != "the answer comes later" {
			t.Fatalf("%q, %v", b, err)
		}
		ended(t, done)
	})
	t.Run("by a reset", func(t *testing.T) {
		caller, target, _, done := carried(t)
		_ = caller.SetLinger(0)
		caller.Close()
		ended(t, done)
		if _, err := io.ReadAll(target); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
	})
	t.Run("by its context", func(t *testing.T) {
		_, target, cancel, done := carried(t)
		cancel()
		ended(t, done)
		if _, err := io.ReadAll(target); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
	})
}

// A receiver that stands still for longer than a direction takes to fall asleep loses nothing, and the writer waits for it.
func TestSlowReaderLosesNothing(t *testing.T) {
	caller, left := pair(t)
	right, target := pair(t)
	done := make(chan [2]int64, 1)
	splice.StartBoth(t.Context(), left, right, func(ab, ba int64, _ error) { done <- [2]int64{ab, ba} })
	want := make([]byte, 24<<20)
	_, _ = rand.Read(want)
	go func() { _, _ = caller.Write(want); _ = caller.CloseWrite() }()
	<-time.After(1500 * time.Millisecond)
	first := make([]byte, 8<<20)
	if _, err := io.ReadFull(target, first); err != nil {
		t.Fatal(err)
	}
	<-time.After(1200 * time.Millisecond)
	rest, err := io.ReadAll(target)
	if err != nil || !bytes.Equal(append(first, rest...), want) {
		t.Fatalf("%d bytes of %d, %v", len(first)+len(rest), len(want), err)
	}
	target.Close()
	if n := ended(t, done); n != [2]int64{int64(len(want)), 0} {
		t.Errorf("counted %v", n)
	}
}

func TestLimitEndsASleepingFlow(t *testing.T) {
	_, src := pair(t)
	done := make(chan error, 1)
	f := splice.Start(src, []byte("first"), func(p []byte) error { return nil }, func(err error) { done <- err })
	if runtime.GOOS != "windows" {
		eventually(t, "asleep", func() bool { return goroutines("awaitSocket") == 1 && goroutines("(*Flow)") == 0 })
	}
	f.Limit(time.Now().Add(50 * time.Millisecond))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// half cannot tell its peer that no more comes.
type half struct{ net.Conn }

func TestWhoCannotBeToldOfTheEndHasASecond(t *testing.T) {
	caller, left := pair(t)
	right, target := pair(t)
	done := make(chan struct{})
	go func() { defer close(done); splice.Both(t.Context(), left, half{right}) }()
	exchange(t, caller, target)
	begin := time.Now()
	_ = caller.CloseWrite()
	<-done
	if took := time.Since(begin); took < 900*time.Millisecond || took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestAPanicCostsItsStreamAlone(t *testing.T) {
	_, src := pair(t)
	done := make(chan error, 1)
	splice.Start(src, []byte("secret"), func(p []byte) error { panic(string(p)) }, func(err error) { done <- err })
	if err := <-done; !errors.Is(err, splice.ErrPanic) || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

// told is a conn that hands out what a test wants, and is a Waiter.
type told struct {
	net.Conn
	reads  chan any // []byte or error
	await  chan func()
	unable bool
}

func (c *told) SetReadDeadline(d time.Time) error { return nil }

func (c *told) Read(p []byte) (int, error) {
	switch v := (<-c.reads).(type) {
	case []byte:
		return copy(p, v), nil
	case error:
		return 0, v
	}
	return 0, nil
}

func (c *told) AwaitRead(f func()) bool {
	if f != nil && !c.unable {
		c.await <- f
	}
	return !c.unable
}

func TestAFlowOfAWaiterHasNoGoroutine(t *testing.T) {
	c := &told{reads: make(chan any, 8), await: make(chan func(), 1)}
	got := make(chan string, 8)
	done := make(chan error, 1)
	splice.Start(c, nil, func(p []byte) error { got <- string(p); return nil }, func(err error) { done <- err })
	c.reads <- []byte("a")
	c.reads <- os.ErrDeadlineExceeded // a moment ago something came: it stays
	c.reads <- []byte("b")
	c.reads <- os.ErrDeadlineExceeded
	c.reads <- os.ErrDeadlineExceeded // nothing since
	f := <-c.await
	eventually(t, "no goroutine", func() bool { return goroutines("(*Flow)") == 0 })
	c.reads <- []byte("c")
	go f()
	for _, want := range []string{"a", "b", "c"} {
		if s := <-got; s != want {
			t.Errorf("%q, want %q", s, want)
		}
	}
	c.reads <- io.EOF
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A deadline that somebody else has set on a conn that is no Waiter ends the flow, as each error does.
func TestADeadlineOfOthersIsAnError(t *testing.T) {
	c := &told{reads: make(chan any, 8), unable: true}
	done := make(chan error, 1)
	splice.Start(c, nil, func([]byte) error { return nil }, func(err error) { done <- err })
	c.reads <- os.ErrDeadlineExceeded
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}
