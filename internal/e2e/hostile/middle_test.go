//go:build linux

package hostile_test

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// middle is what stands between an agent and its relay: a NAT, a firewall, a load balancer, or somebody who listens. It
// forwards whole conns, and does to them what a row asks for.
type middle struct {
	addr string
	to   string

	up, down gate         // shut: what the agent sends, or the relay, is held back as on a dead line; opened, it comes late
	rate     atomic.Int64 // bytes a second in each direction, of all conns together; 0: as they come
	upTurn   sync.Mutex   // held by who is on a narrow line
	downTurn sync.Mutex
	conns    atomic.Int64 // that were made so far
	upGap    silence
	downGap  silence

	mu    sync.Mutex // guards the fields below
	links map[*link]bool
	take  func(net.Conn) // serves a new conn in place of the relay
}

// link is one conn on both sides, and the first bytes that the agent sent on it.
type link struct {
	agent, relay net.Conn
	done         chan struct{}
	once         sync.Once

	mu    sync.Mutex // guards heard
	heard bytes.Buffer
}

const maxHeard = 256 << 10

// gate is open unless it is shut.
type gate struct {
	mu   sync.Mutex // guards shut
	shut chan struct{}
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case shut && g.shut == nil:
		g.shut = make(chan struct{})
	case !shut && g.shut != nil:
		close(g.shut)
		g.shut = nil
	}
}

func (g *gate) wait(done <-chan struct{}) {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut == nil {
		return
	}
	select {
	case <-shut:
	case <-done:
	}
}

// silence measures how long nothing came.
type silence struct {
	mu      sync.Mutex // guards the fields below
	last    time.Time
	longest time.Duration
}

func (s *silence) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.last.IsZero() {
		s.longest = max(s.longest, now.Sub(s.last))
	}
	s.last = now
}

// most is the longest silence, with the one that lasts.
func (s *silence) most() time.Duration {
	s.note()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.longest
}

// newMiddle forwards to an address until the test ends.
func newMiddle(t testing.TB, to string) *middle {
	t.Helper()
	m := &middle{to: to, links: map[*link]bool{}}
	m.addr = m.listen(t, "127.0.0.1:0")
	return m
}

// listen takes conns at one more address.
func (m *middle) listen(t testing.TB, addr string) string {
	t.Helper()
	// What is on the way is a few packets, not the megabytes that a kernel would take.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10) })
	}}
	ln, err := lc.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			m.conns.Add(1)
			wg.Go(func() { m.serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		m.replace(func(c net.Conn) { c.Close() })
		m.up.set(false)
		m.down.set(false)
		m.cut()
		wg.Wait()
	})
	return ln.Addr().String()
}

// replace lets f serve new conns; nil forwards them again.
func (m *middle) replace(f func(net.Conn)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.take = f
}

func (m *middle) serve(c net.Conn) {
	m.mu.Lock()
	take := m.take
	m.mu.Unlock()
	if take != nil {
		defer c.Close()
		take(c)
		return
	}
	out, err := net.Dial("tcp", m.to)
	if err != nil {
		reset(c)
		return
	}
	l := &link{agent: c, relay: out, done: make(chan struct{})}
	m.mu.Lock()
	m.links[l] = true
	m.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { m.pump(l, out, c, &m.up, &m.upGap, true) })
	wg.Go(func() { m.pump(l, c, out, &m.down, &m.downGap, false) })
	wg.Wait()
	l.end()
	m.mu.Lock()
	delete(m.links, l)
	m.mu.Unlock()
}

func (m *middle) pump(l *link, to, from net.Conn, g *gate, gap *silence, listen bool) {
	buf := make([]byte, 32<<10)
	for {
		part := buf
		if m.rate.Load() > 0 {
			part = buf[:512]
		}
		n, err := from.Read(part)
		g.wait(l.done)
		if n > 0 {
			gap.note()
			if listen {
				l.listen(buf[:n])
			}
			if rate := m.rate.Load(); rate > 0 {
				turn := &m.downTurn
				if listen {
					turn = &m.upTurn
				}
				turn.Lock()
				select {
				case <-time.After(time.Duration(n) * time.Second / time.Duration(rate)):
				case <-l.done:
				}
				turn.Unlock()
			}
			if _, werr := to.Write(buf[:n]); werr != nil {
				l.end()
				return
			}
		}
		if err != nil {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

func (l *link) listen(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxHeard - l.heard.Len(); room > 0 {
		l.heard.Write(b[:min(len(b), room)])
	}
}

func (l *link) end() {
	l.once.Do(func() {
		close(l.done)
		reset(l.agent)
		reset(l.relay)
	})
}

// cut resets every conn in both directions.
func (m *middle) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for l := range m.links {
		l.end()
	}
}

// hold shuts both directions, or opens them.
func (m *middle) hold(shut bool) {
	m.up.set(shut)
	m.down.set(shut)
}

// heard gives what the agent sent first on each conn that stands.
func (m *middle) heard() (all [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for l := range m.links {
		l.mu.Lock()
		all = append(all, bytes.Clone(l.heard.Bytes()))
		l.mu.Unlock()
	}
	return all
}

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}
