package tunnel

import (
	"container/list"
	"net"
	"sync"
)

// turns bounds how many handshakes compute at a time, to what there are cores for. All of them at once would each take as long
// as all together: in a storm every peer would give up before its own is done. One that is under way goes before one that
// comes, so what was begun gets done; who waits for the network holds no turn.
type turns struct {
	mu     sync.Mutex // guards the fields below
	free   int
	queues [2]list.List // of chan struct{}; classBegun, classTunnel
	streak int          // turns of classBegun in a row
}

// Classes of turns. Tunnels come in storms; people, lanes and enrolments do not, and shall not wait behind them. They cannot
// keep tunnels out either: one turn in so many is a tunnel's.
const (
	classBegun  = 0 // under way, or no tunnel
	classTunnel = 1
	mostStreak  = 7
)

// take waits for a turn; false: done was closed.
func (t *turns) take(done <-chan struct{}, class int) bool {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return true
	}
	ch := make(chan struct{})
	e := t.queues[class].PushBack(ch)
	t.mu.Unlock()
	select {
	case <-ch:
		return true
	case <-done:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-ch:
		t.passOn() // it came at the same moment
	default:
		t.queues[class].Remove(e)
	}
	return false
}

func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.passOn()
}

// passOn gives a turn to the next. t.mu is held.
func (t *turns) passOn() {
	class := classBegun
	if t.queues[classBegun].Len() == 0 || t.streak >= mostStreak && t.queues[classTunnel].Len() > 0 {
		class = classTunnel
	}
	e := t.queues[class].Front()
	if e == nil {
		t.free++
		return
	}
	if t.streak++; class == classTunnel {
		t.streak = 0
	}
	close(t.queues[class].Remove(e).(chan struct{}))
}

// turnConn is a connection in its handshake: TLS holds a turn from the whole ClientHello on, except while it waits for the peer.
type turnConn struct {
	net.Conn
	m     *Mux
	p     *pending
	done  <-chan struct{}
	begun bool
	held  bool
}

func (c *turnConn) Read(b []byte) (int, error) {
	c.give()
	// The peer has only its own time, not what it waited for us.
	_ = c.Conn.SetReadDeadline(c.m.until(c.p))
	n, err := c.Conn.Read(b)
	if err == nil && c.begun && !c.take(classBegun) {
		err = net.ErrClosed
	}
	return n, err
}

func (c *turnConn) take(class int) bool {
	c.m.stop(c.p)
	c.held = c.m.turns.take(c.done, class)
	return c.held
}

func (c *turnConn) give() {
	if c.held {
		c.held = false
		c.m.turns.give()
	}
	c.m.resume(c.p)
}
