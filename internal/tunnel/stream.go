package tunnel

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// Frames hold at most 32 KiB, so that no stream keeps the connection from the others for long. Longer writes are cut so
// that header and body fill whole TLS records; one of exactly 32 KiB, which is what io.Copy writes, is left whole.
const (
	maxFrame = 32 << 10
	cutFrame = maxFrame - headerSize
)

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// stream is a yamux stream with the semantics of Stream.
type stream struct {
	t   *session
	ys  *yamux.Stream
	rec *rec

	rmu sync.Mutex // yamux does not stand two readers

	mu      sync.Mutex // guards the fields below
	closed  bool
	stopped bool // deadlines are in the past for good
}

func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := s.ys.Read(p)
	if n > 0 {
		s.t.wire.consumed(s.rec, n)
		return n, nil // an error of the window update that went with it shows in the next call
	}
	return 0, s.reason(err)
}

func (s *stream) Write(p []byte) (n int, err error) {
	if s.isClosed() {
		return 0, net.ErrClosed
	}
	for {
		c := p
		if len(c) > maxFrame {
			c = c[:cutFrame]
		}
		m, err := s.ys.Write(c)
		n += m
		if err != nil {
			return n, s.reason(err)
		}
		if p = p[len(c):]; len(p) == 0 {
			return n, nil
		}
	}
}

// reason says what an error of yamux means for the caller.
func (s *stream) reason(err error) error {
	switch {
	case err == nil:
		return nil
	case s.isClosed():
		return net.ErrClosed
	}
	fin, cut := s.t.wire.finished(s.rec)
	switch {
	case cut != nil:
		return cut
	case errors.Is(err, io.EOF) && fin:
		return io.EOF
	}
	_ = s.t.why(err)
	if e := s.t.Err(); e != nil {
		return e
	}
	switch {
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	case errors.Is(err, yamux.ErrStreamClosed):
		return net.ErrClosed // after CloseWrite
	default: // a reset, or an end that the peer did not send
		return ErrReset
	}
}

func (s *stream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// stop wakes blocked calls and lets no later deadline put them to sleep again.
func (s *stream) stop() {
	s.mu.Lock()
	if !s.stopped {
		s.stopped = true
		_ = s.ys.SetDeadline(past)
	}
	s.mu.Unlock()
	s.t.wire.rouse(s.rec)
}

// AwaitRead has f called, once and in a goroutine of its own, as soon as a Read may not wait: something came, or the end, or a read
// deadline was set. An idle stream that is waited for so costs no goroutine. At most one f waits at a time, and nobody reads
// meanwhile. With a nil f it says only that it could.
func (s *stream) AwaitRead(f func()) bool {
	if f != nil {
		s.ys.Shrink() // what it read from: some KiB at least
		s.t.wire.await(s, f)
	}
	return true
}

// over reports whether Read has nothing to wait for any more.
func (s *stream) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed || s.stopped
}

func (s *stream) CloseWrite() error {
	if s.isClosed() {
		return net.ErrClosed
	}
	if err := s.ys.Close(); err != nil {
		return s.reason(err)
	}
	return nil
}

func (s *stream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.stop()
	_ = s.ys.Close() // an error means that stream or tunnel ended before: closed all the same
	s.t.wire.closed(s.rec)
	return nil
}

func (s *stream) deadline(set func(time.Time) error, d time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case s.stopped:
		return s.t.Err()
	}
	return set(d)
}

// rousing is deadline for who may wait in AwaitRead.
func (s *stream) rousing(set func(time.Time) error, d time.Time) error {
	err := s.deadline(set, d)
	if !d.IsZero() {
		s.t.wire.rouse(s.rec)
	}
	return err
}

func (s *stream) SetDeadline(d time.Time) error      { return s.rousing(s.ys.SetDeadline, d) }
func (s *stream) SetReadDeadline(d time.Time) error  { return s.rousing(s.ys.SetReadDeadline, d) }
func (s *stream) SetWriteDeadline(d time.Time) error { return s.deadline(s.ys.SetWriteDeadline, d) }
func (s *stream) LocalAddr() net.Addr                { return s.t.LocalAddr() }
func (s *stream) RemoteAddr() net.Addr               { return s.t.RemoteAddr() }
