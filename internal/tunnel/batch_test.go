package tunnel

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// narrow is a connection that takes so many bytes before each deadline.
type narrow struct {
	net.Conn
	takes     []int
	taken     int
	deadlines int
}

func (c *narrow) Write(p []byte) (int, error) {
	n := len(p)
	if len(c.takes) > 0 {
		n, c.takes = min(n, c.takes[0]), c.takes[1:]
	}
	c.taken += n
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

func (c *narrow) SetWriteDeadline(time.Time) error { c.deadlines++; return nil }

func TestNarrowLineTakesItsTime(t *testing.T) {
	for _, held := range []bool{false, true} {
		c := &narrow{takes: []int{10, 1, 30}}
		b := &batchConn{Conn: c}
		b.waits(time.Second)
		var err error
		if held {
			b.hold()
			_, err = b.Write(make([]byte, 100))
			err = errors.Join(err, b.flush())
		} else {
			_, err = b.Write(make([]byte, 100))
		}
		if err != nil || c.taken != 100 || c.deadlines != 3 {
			t.Errorf("held %v: %v, %d bytes taken, the deadline moved %d times", held, err, c.taken, c.deadlines)
		}
	}
}

func TestLineThatTakesNothingEnds(t *testing.T) {
	c := &narrow{takes: []int{10, 0}}
	b := &batchConn{Conn: c}
	b.waits(time.Second)
	if n, err := b.Write(make([]byte, 100)); n != 10 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d, %v", n, err)
	}
	// Where nobody said how long to wait, the deadline counts.
	c = &narrow{takes: []int{10}}
	b = &batchConn{Conn: c}
	if n, err := b.Write(make([]byte, 100)); n != 10 || !errors.Is(err, os.ErrDeadlineExceeded) || c.deadlines != 0 {
		t.Errorf("%d, %v", n, err)
	}
}
