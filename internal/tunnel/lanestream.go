package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// laneStream is a stream that has a lane for itself.
type laneStream struct {
	l *Lane

	rmu     sync.Mutex // one reader of the connection
	ahead   *aheadRead // what watched over the idle lane, and still reads
	peerEnd bool

	wmu     sync.Mutex // one writer
	endSent bool

	mu     sync.Mutex // guards closed, and keeps deadlines of a closed stream from the next one
	closed bool
}

func (s *laneStream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.isClosed() {
		return 0, s.reason(net.ErrClosed)
	}
	n, err := s.read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = s.reason(err)
	}
	return n, err
}

// read wants rmu held.
func (s *laneStream) read(p []byte) (int, error) {
	l := s.l
	if s.peerEnd {
		return 0, io.EOF
	}
	if a := s.ahead; a != nil {
		<-a.done // ends at our deadline, too: it reads the same connection
		s.ahead = nil
		if a.err != nil {
			return 0, a.err
		}
	}
	if l.left == 0 && !l.ended {
		if err := l.header(); err != nil {
			return 0, err
		}
	}
	if l.ended {
		l.ended, s.peerEnd = false, true
		return 0, io.EOF
	}
	n, err := l.conn.Read(p[:min(len(p), l.left)])
	l.left -= n
	// TLS gives one record at a time. Those that are here already go along, so that they leave in one piece, too.
	for err == nil && n < len(p) && l.batch.ready() {
		if l.left == 0 && l.header() != nil || l.ended {
			break // the next Read tells
		}
		var m int
		m, err = l.conn.Read(p[n:min(len(p), n+l.left)])
		n += m
		l.left -= m
	}
	if n > 0 || err == nil {
		return n, nil
	}
	return 0, l.fail(err)
}

func (s *laneStream) reason(err error) error {
	switch e := s.l.Err(); {
	case errors.Is(e, ErrLaneLost): // also when who saw that has closed the stream meanwhile
		return e
	case s.isClosed():
		return net.ErrClosed
	case isTimeout(err):
		return os.ErrDeadlineExceeded
	}
	if e := s.l.Err(); e != nil {
		return e
	}
	return err
}

func (s *laneStream) Write(p []byte) (n int, err error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	for len(p) > 0 {
		if s.endSent || s.isClosed() {
			return n, s.reason(net.ErrClosed)
		}
		c := p[:min(len(p), maxLaneFrame)]
		if err := s.l.send(laneData, c); err != nil {
			if isTimeout(err) {
				s.l.end(ErrWriteTimeout) // TLS cannot go on after a record that was cut off
				return n, os.ErrDeadlineExceeded
			}
			if e := s.reason(err); e != err {
				return n, e
			}
			// The peer dropped the lane. What it said before, such as why, may still wait to be read: the reader finds the end.
			time.AfterFunc(laneDrainTime, func() { s.l.end(ErrWriteTimeout) })
			return n, fmt.Errorf("%w: %w", ErrPeerClosed, err)
		}
		n += len(c)
		p = p[len(c):]
	}
	return n, nil
}

func (s *laneStream) CloseWrite() error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.isClosed() {
		return net.ErrClosed
	}
	return s.sendEnd()
}

// sendEnd wants wmu held.
func (s *laneStream) sendEnd() error {
	if s.endSent {
		return nil
	}
	s.endSent = true
	if err := s.l.send(laneEnd, nil); err != nil {
		s.l.end(ErrWriteTimeout)
		return s.reason(err)
	}
	return nil
}

// Close ends both directions. The lane is given back when the peer has ended its own, too.
func (s *laneStream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	_ = s.l.conn.SetReadDeadline(past) // wakes our own reader
	s.mu.Unlock()
	if s.wmu.TryLock() {
		ended := s.endLocked(laneDrainTime)
		s.wmu.Unlock()
		if ended {
			s.l.task(s.finish)
		}
		return nil
	}
	// A Write is under way. It ends by itself in a moment, unless the peer does not read.
	_ = s.l.conn.SetWriteDeadline(time.Now().Add(laneWriteGrace))
	s.l.task(func() {
		s.wmu.Lock()
		ended := s.endLocked(laneDrainTime)
		s.wmu.Unlock()
		if ended {
			s.finish()
		}
	})
	return nil
}

// laneWriteGrace is how long a Write may go on after Close.
const laneWriteGrace = 250 * time.Millisecond

// endLocked tells the peer that no more comes; false: the lane is gone. It wants wmu held.
func (s *laneStream) endLocked(most time.Duration) bool {
	_ = s.l.conn.SetWriteDeadline(time.Now().Add(most))
	return s.sendEnd() == nil
}

// finish waits for the peer's end and gives the lane back, or drops it.
func (s *laneStream) finish() {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	l := s.l
	if a := s.ahead; a != nil {
		// It was woken by the deadline, or ends by what came.
		<-a.done
		s.ahead = nil
		if a.err != nil && !isTimeout(a.err) {
			return
		}
	}
	_ = l.conn.SetReadDeadline(time.Now().Add(laneDrainTime))
	b := laneDrains.Get().(*[4 << 10]byte)
	defer laneDrains.Put(b)
	for most := laneDrainBytes; ; {
		n, err := s.read(b[:])
		if errors.Is(err, io.EOF) {
			break
		}
		if most -= n; err != nil || most < 0 {
			l.end(ErrReset)
			return
		}
	}
	if l.conn.SetDeadline(time.Time{}) != nil {
		l.end(ErrReset)
		return
	}
	l.giveBack(s)
}

var laneDrains = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// task runs f in a goroutine that Close waits for, unless the lane has ended.
func (l *Lane) task(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.tasks.Go(f)
	}
}

func (l *Lane) giveBack(s *laneStream) {
	l.mu.Lock()
	if l.err != nil || l.cur != s {
		l.mu.Unlock()
		return
	}
	l.cur = nil
	close(l.free)
	l.watchLocked()
	freed := l.freed
	l.mu.Unlock()
	if freed != nil {
		freed()
	}
}

func (s *laneStream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *laneStream) deadline(set func(time.Time) error, d time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	return set(d)
}

func (s *laneStream) SetDeadline(d time.Time) error { return s.deadline(s.l.conn.SetDeadline, d) }
func (s *laneStream) SetReadDeadline(d time.Time) error {
	return s.deadline(s.l.conn.SetReadDeadline, d)
}
func (s *laneStream) SetWriteDeadline(d time.Time) error {
	return s.deadline(s.l.conn.SetWriteDeadline, d)
}
func (s *laneStream) LocalAddr() net.Addr  { return s.l.LocalAddr() }
func (s *laneStream) RemoteAddr() net.Addr { return s.l.RemoteAddr() }
