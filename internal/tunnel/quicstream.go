package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// look is how long a look at what has come may take: QUIC asks the clock before it gives bytes that it has.
const look = 50 * time.Microsecond

// quicStream is a stream of QUIC with the semantics of Stream.
type quicStream struct {
	t       *quicTunnel
	qs      *quic.Stream // nil while it is being opened; then written under t.mu
	inbound bool
	shut    atomic.Bool // Close was called
	ended   atomic.Bool // CloseWrite or Close was called

	rmu     sync.Mutex // one reads at a time; guards the next two
	opening bool       // quicOpening is still to be read
	eof     bool

	wmu sync.Mutex // one writes at a time, and the end comes behind it

	dmu    sync.Mutex // guards readBy, and the deadlines of qs
	readBy time.Time

	// guarded by t.mu
	localFIN bool // nothing more goes to the peer
	peerFIN  bool // nothing more comes, whether it was read or not
	closed   bool
	closedAt time.Time
	stopped  bool  // the peer was told to write no more
	err      error // why it was cut here
}

// begin listens for the end of the peer's side, which may have come already.
func (s *quicStream) begin() {
	s.qs.SetReceiveFinalSizeCallback(func(int64) { // called by QUIC's own goroutine: it must not wait
		s.t.mu.Lock()
		s.peerFIN = true
		closed := s.closed
		if closed {
			s.t.finished = append(s.t.finished, s)
		}
		s.t.check(s)
		s.t.mu.Unlock()
		if closed {
			s.t.wake()
		}
	})
}

func (s *quicStream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.opening {
		var first [1]byte
		n, err := s.get(first[:])
		if n == 0 && !errors.Is(err, io.EOF) {
			return 0, s.reason(err)
		}
		if n == 0 || first[0] != quicOpening {
			s.t.end(fmt.Errorf("%w: a stream began with %x", ErrProtocol, first[:n]))
			return 0, s.t.Err()
		}
		s.opening = false
	}
	n, err := s.get(p)
	if n > 0 {
		return n, nil // an error shows in the next call
	}
	return 0, s.reason(err)
}

// get reads, and passes over the deadline for bytes that have come. s.rmu is held.
func (s *quicStream) get(p []byte) (int, error) {
	switch {
	case s.shut.Load():
		return 0, net.ErrClosed
	case s.eof:
		return 0, io.EOF
	}
	n, err := s.qs.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		s.peek(func() { n, err = s.qs.Read(p) })
	}
	s.t.taken.Add(int64(n))
	s.eof = errors.Is(err, io.EOF)
	return n, err
}

// peek calls f with a deadline that is just about to pass. s.rmu is held.
func (s *quicStream) peek(f func()) {
	s.dmu.Lock()
	if s.shut.Load() {
		s.dmu.Unlock()
		return
	}
	_ = s.qs.SetReadDeadline(time.Now().Add(look))
	s.dmu.Unlock()
	f()
	s.dmu.Lock()
	defer s.dmu.Unlock()
	if !s.shut.Load() {
		_ = s.qs.SetReadDeadline(s.readBy)
	}
}

// measure tells how much the stream holds that nobody reads, to a part of the window in buf.
func (s *quicStream) measure(buf []byte) int64 {
	if !s.rmu.TryLock() {
		return 0 // is being read
	}
	defer s.rmu.Unlock()
	if s.eof {
		return 0
	}
	holds := func(n int) (m int) {
		s.peek(func() { m, _ = s.qs.Peek(buf[:n]) })
		return m
	}
	if m := holds(len(buf)); m > 0 {
		return int64(m)
	}
	if holds(1) == 0 {
		return 0
	}
	part := len(buf) / budgetParts
	low, high := 0, budgetParts // it holds more than low parts, and less than high
	for high-low > 1 {
		mid := (low + high) / 2
		if m := holds(mid * part); m == mid*part {
			low = mid
		} else if m > 0 {
			return int64(m) // all that comes
		} else {
			high = mid
		}
	}
	return int64(high * part)
}

func (s *quicStream) Write(p []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.ended.Load() {
		return 0, net.ErrClosed
	}
	n, err := s.qs.Write(p)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && s.ended.Load() {
		return n, net.ErrClosed
	}
	var reset *quic.StreamError
	if errors.As(err, &reset) {
		s.t.mu.Lock()
		s.localFIN = true
		s.t.check(s)
		s.t.mu.Unlock()
	}
	return n, s.reason(err)
}

// reason says what an error of QUIC means for the caller.
func (s *quicStream) reason(err error) error {
	if err == nil || s.shut.Load() {
		return net.ErrClosed
	}
	s.t.mu.Lock()
	cut := s.err
	s.t.mu.Unlock()
	if cut != nil {
		return cut
	}
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	_ = s.t.why(err)
	if e := s.t.Err(); e != nil {
		return e
	}
	var reset *quic.StreamError
	switch {
	case errors.As(err, &reset):
		return ErrReset
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, quic.ErrStreamClosed):
		return net.ErrClosed
	}
	return err
}

// cut resets both directions for a reason of our own.
func (s *quicStream) cut(why error, code quic.StreamErrorCode) {
	s.t.mu.Lock()
	if s.err == nil {
		s.err = why
	}
	s.t.forget(s)
	s.t.mu.Unlock()
	s.qs.CancelRead(code)
	s.qs.CancelWrite(code)
}

func (s *quicStream) CloseWrite() error {
	if s.shut.Load() {
		return net.ErrClosed
	}
	s.finish()
	s.t.mu.Lock()
	s.localFIN = true
	s.t.check(s)
	err := s.t.err
	s.t.mu.Unlock()
	return err
}

// finish sends the end behind what was written. A Write that waits for the peer gives up.
func (s *quicStream) finish() {
	if s.ended.Swap(true) {
		return
	}
	s.dmu.Lock()
	_ = s.qs.SetWriteDeadline(past)
	s.dmu.Unlock()
	s.wmu.Lock()
	defer s.wmu.Unlock()
	_ = s.qs.Close() // an error means that the peer reads no more
}

func (s *quicStream) Close() error {
	s.t.mu.Lock()
	if s.closed {
		s.t.mu.Unlock()
		return nil
	}
	s.closed, s.closedAt = true, time.Now()
	s.t.mu.Unlock()
	s.dmu.Lock()
	s.shut.Store(true)
	_ = s.qs.SetDeadline(past)
	s.dmu.Unlock()
	s.finish()
	s.t.mu.Lock()
	s.localFIN = true
	fin := s.peerFIN
	s.t.check(s)
	s.t.mu.Unlock()
	if fin {
		s.qs.CancelRead(streamDone) // nobody reads what came: QUIC lets go of the stream
	}
	return nil
}

// deadline sets the read deadline, the write deadline or both.
func (s *quicStream) deadline(d time.Time, read, write bool) error {
	s.dmu.Lock()
	defer s.dmu.Unlock()
	if s.shut.Load() {
		return net.ErrClosed
	}
	if read {
		s.readBy = d
		_ = s.qs.SetReadDeadline(d)
	}
	if write && !s.ended.Load() {
		_ = s.qs.SetWriteDeadline(d)
	}
	return s.t.Err()
}

func (s *quicStream) SetDeadline(d time.Time) error      { return s.deadline(d, true, true) }
func (s *quicStream) SetReadDeadline(d time.Time) error  { return s.deadline(d, true, false) }
func (s *quicStream) SetWriteDeadline(d time.Time) error { return s.deadline(d, false, true) }
func (s *quicStream) LocalAddr() net.Addr                { return s.t.LocalAddr() }
func (s *quicStream) RemoteAddr() net.Addr               { return s.t.RemoteAddr() }
