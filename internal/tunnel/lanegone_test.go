package tunnel_test

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// gone is a socket whose peer answers no probe of keepalive any more.
type gone struct {
	net.Conn
	on atomic.Bool
}

func (g *gone) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if g.on.Load() {
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", timedOut)}
	}
	return n, err
}

// What the kernel calls a timeout is the loss of the lane, and no deadline that somebody set: who reads must not take it for one.
func TestLaneWhosePeerIsGoneIsLost(t *testing.T) {
	var g *gone
	agent, relay := lanePair(t, func(c net.Conn) net.Conn { g = &gone{Conn: c}; return g })
	a, r := laneStreams(t, agent, relay)
	g.on.Store(true)
	_, _ = r.Write([]byte("x"))
	if _, err := a.Read(make([]byte, 8)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || agent.Err() == nil {
		t.Errorf("the stream gives %v, the lane %v", err, agent.Err())
	}
}
