//go:build linux

package hostile_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// listener counts the connections that reach it: the oracle of "0 SYN".
type listener struct {
	net.Listener
	port  int
	count atomic.Int64
}

// listen accepts on host until the test ends; serve may be nil.
func listen(t testing.TB, host string, serve func(net.Conn)) *listener {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{Listener: ln, port: ln.Addr().(*net.TCPAddr).Port}
	var mu sync.Mutex // guards open and closed
	open, closed := map[net.Conn]bool{}, false
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.count.Add(1)
			mu.Lock()
			open[c] = true
			if closed {
				c.Close()
			}
			mu.Unlock()
			wg.Go(func() {
				defer func() {
					c.Close()
					mu.Lock()
					delete(open, c)
					mu.Unlock()
				}()
				if serve != nil {
					serve(c)
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		closed = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// settled counts the connections after the kernel has handed over those that were allowed before: on a busy machine
// Accept comes later than the answer of the dial.
func (l *listener) settled() int64 {
	for n := l.count.Load(); ; {
		<-time.After(250 * time.Millisecond)
		now := l.count.Load()
		if now == n {
			return n
		}
		n = now
	}
}

// silent asserts that nobody came, or no more than before. A connection would have been made before the refusal was
// answered; the kernel hands it over within the grace.
func (l *listener) silent(t testing.TB, before int64) {
	t.Helper()
	<-time.After(50 * time.Millisecond)
	if n := l.count.Load(); n != before {
		t.Errorf("%d connections reached a target that is not allowed", n-before)
	}
}

// webTarget records the requests that reach it.
type webTarget struct {
	*httptest.Server
	mu   sync.Mutex // guards seen
	seen []*http.Request
}

func newWeb(t testing.TB, start func(*httptest.Server), h http.HandlerFunc) *webTarget {
	t.Helper()
	w := &webTarget{}
	w.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.seen = append(w.seen, r)
		w.mu.Unlock()
		if h != nil {
			h(rw, r)
			return
		}
		_, _ = io.WriteString(rw, "hello from the target")
	}))
	w.Config.ErrorLog = testLog()
	start(w.Server)
	t.Cleanup(w.Close)
	return w
}

// take gives the requests that came since the last time.
func (w *webTarget) take() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.seen
	w.seen = nil
	return out
}

// ownAddress is an address of this machine that is not loopback; "" if there is none.
func ownAddress(t testing.TB) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}
