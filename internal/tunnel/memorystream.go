package tunnel

import (
	"io"
	"net"
	"os"
	"time"
)

// memoryStream is one side of a stream in memory. All fields but t and peer are guarded by link.mu.
type memoryStream struct {
	t    *memory
	peer *memoryStream

	in      []byte // bytes from the peer that were not read yet
	fin     bool   // no more is written by this side
	closed  bool
	cut     error // reset, or the tunnel's end
	changed chan struct{}
	linger  *time.Timer

	readBy, writeBy time.Time
}

func newMemoryStream(t *memory) *memoryStream {
	return &memoryStream{t: t, changed: make(chan struct{})}
}

// wake wakes those who wait for a change at this side.
func (s *memoryStream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait waits, without the lock, for a change or the deadline. false: the deadline has passed.
func (s *memoryStream) wait(deadline time.Time) bool {
	ch := s.changed
	s.t.link.mu.Unlock()
	defer s.t.link.mu.Lock()
	if deadline.IsZero() {
		<-ch
		return true
	}
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-ch:
		return true
	case <-t.C:
		return false
	}
}

func (s *memoryStream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.t.link.mu.Lock()
	defer s.t.link.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, net.ErrClosed
		case len(s.in) > 0:
			n := copy(p, s.in)
			s.in = s.in[n:]
			s.t.buffered -= int64(n)
			if len(s.in) == 0 {
				s.in = nil
			}
			s.peer.wake()
			return n, nil
		case s.cut != nil:
			return 0, s.cut
		case s.peer.fin:
			return 0, io.EOF
		}
		if !s.wait(s.readBy) {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (s *memoryStream) Write(p []byte) (n int, err error) {
	s.t.link.mu.Lock()
	defer s.t.link.mu.Unlock()
	for {
		o := s.peer
		switch {
		case s.closed || s.fin:
			return n, net.ErrClosed
		case s.cut != nil:
			return n, s.cut
		case o.closed:
			said := s.in // before it closed: that can still be read
			s.reset(ErrReset)
			s.in = said
			s.t.buffered += int64(len(said))
			return n, ErrReset
		case len(p) == 0:
			return n, nil
		}
		if m := min(len(p), int(s.t.cfg.Window)-len(o.in)); m > 0 {
			o.in = append(o.in, p[:m]...)
			o.t.buffered += int64(m)
			p, n = p[m:], n+m
			o.wake()
			o.t.keepBudget()
			continue
		}
		if !s.wait(s.writeBy) {
			return n, os.ErrDeadlineExceeded
		}
	}
}

// keepBudget cuts the stream that holds most when all together hold too much.
func (m *memory) keepBudget() {
	if m.buffered <= m.cfg.MaxBuffered {
		return
	}
	var g *memoryStream
	for s := range m.streams {
		if g == nil || len(s.in) > len(g.in) {
			g = s
		}
	}
	if g != nil {
		g.cut = ErrOverBudget
		g.peer.reset(ErrReset)
	}
}

// reset ends the stream on both sides: on this for the reason given.
func (s *memoryStream) reset(why error) {
	for _, e := range []*memoryStream{s, s.peer} {
		if e.cut == nil {
			e.cut = why
		}
		e.t.buffered -= int64(len(e.in))
		e.in = nil
		e.forget()
		e.wake()
	}
}

func (s *memoryStream) forget() {
	delete(s.t.streams, s)
	if s.linger != nil {
		s.linger.Stop()
	}
}

// finish notes that this side writes no more.
func (s *memoryStream) finish() {
	s.fin = true
	s.peer.wake()
	if s.peer.fin {
		s.forget()
		s.peer.forget()
	}
}

func (s *memoryStream) CloseWrite() error {
	s.t.link.mu.Lock()
	defer s.t.link.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case s.cut != nil:
		return s.cut
	}
	if !s.fin {
		s.finish()
		s.wake()
	}
	return nil
}

func (s *memoryStream) Close() error {
	s.t.link.mu.Lock()
	defer s.t.link.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.t.buffered -= int64(len(s.in))
	s.in = nil
	s.wake()
	if s.cut != nil {
		return nil
	}
	s.finish()
	if !s.peer.fin {
		s.linger = time.AfterFunc(s.t.cfg.CloseTimeout, func() {
			s.t.link.mu.Lock()
			defer s.t.link.mu.Unlock()
			if !s.peer.fin && s.cut == nil {
				s.reset(ErrReset)
			}
		})
	}
	return nil
}

func (s *memoryStream) deadline(d time.Time, by ...*time.Time) error {
	s.t.link.mu.Lock()
	defer s.t.link.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	for _, b := range by {
		*b = d
	}
	s.wake()
	return nil
}

func (s *memoryStream) SetDeadline(d time.Time) error      { return s.deadline(d, &s.readBy, &s.writeBy) }
func (s *memoryStream) SetReadDeadline(d time.Time) error  { return s.deadline(d, &s.readBy) }
func (s *memoryStream) SetWriteDeadline(d time.Time) error { return s.deadline(d, &s.writeBy) }
func (s *memoryStream) LocalAddr() net.Addr                { return s.t.LocalAddr() }
func (s *memoryStream) RemoteAddr() net.Addr               { return s.t.RemoteAddr() }
