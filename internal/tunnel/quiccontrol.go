package tunnel

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Messages of control have nine bytes: what it is, and a number, big-endian.
const (
	controlSize = 9

	controlNothing  = 0 // makes a ping so long that a process that knows nothing of the tunnel says so
	controlAccepted = 1 // the number of the peer's streams that were accepted, ever
	controlPing     = 2
	controlPong     = 3 // the number of the ping
)

// creditDue reports whether the peer shall be told of accepted streams: often enough that it never waits for want of it.
// t.mu is held.
func (t *quicTunnel) creditDue() bool {
	return t.credit-t.told >= uint64(max(1, t.cfg.Backlog/4))
}

func (t *quicTunnel) tell() {
	select {
	case t.say <- struct{}{}:
	default:
	}
}

// speak writes the control stream. Only the newest of each kind is of interest, so nothing piles up.
func (t *quicTunnel) speak() {
	var buf [3 * controlSize]byte
	for {
		select {
		case <-t.say:
		case <-t.done:
			return
		}
		b := buf[:0]
		add := func(kind byte, n uint64) { b = binary.BigEndian.AppendUint64(append(b, kind), n) }
		t.mu.Lock()
		if t.creditDue() {
			t.told = t.credit
			add(controlAccepted, t.credit)
		}
		if t.pongDue {
			t.pongDue = false
			add(controlPong, t.pongID)
		}
		if t.pingDue {
			t.pingDue = false
			t.pingSent = time.Now()
			add(controlPing, t.pingID)
			for len(b) < len(buf) {
				add(controlNothing, 0)
			}
		}
		t.mu.Unlock()
		if _, err := t.control.Write(b); err != nil { // it waits for the peer, until watch has enough of that
			_ = t.why(err)
			t.end(fmt.Errorf("%w: the control stream was stopped", ErrProtocol)) // nothing, if it has ended
			return
		}
	}
}

// hear reads the peer's control stream.
func (t *quicTunnel) hear() {
	in, err := t.conn.AcceptUniStream(context.Background()) // ends with the connection
	if err != nil {
		return
	}
	rate := newBucket(controlRate, controlBurst)
	pings := newBucket(pingRate, pingBurst)
	for {
		var m [controlSize]byte
		if _, err := io.ReadFull(in, m[:]); err != nil {
			_ = t.why(err)
			t.end(fmt.Errorf("%w: the control stream ended", ErrProtocol)) // nothing, if it has ended
			return
		}
		n := binary.BigEndian.Uint64(m[1:])
		bucket := &rate
		if m[0] == controlPing || m[0] == controlPong {
			bucket = &pings
		}
		if !t.slow(bucket) {
			return
		}
		if err := t.heard(m[0], n); err != nil {
			t.end(err)
			return
		}
	}
}

func (t *quicTunnel) heard(kind byte, n uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch kind {
	case controlNothing:
	case controlAccepted:
		if n < t.accepted || n > t.opened {
			return fmt.Errorf("%w: it accepted %d streams of %d", ErrProtocol, n, t.opened)
		}
		t.accepted = n
		close(t.room)
		t.room = make(chan struct{})
	case controlPing:
		t.pongID, t.pongDue = n, true
		t.tell()
	case controlPong:
		if p := t.pinging; p != nil && n == t.pingID && !t.pingDue {
			p.rtt = max(time.Since(t.pingSent), 1)
			t.pinging = nil
			close(p.done)
		}
	default:
		return fmt.Errorf("%w: control message %d", ErrProtocol, kind)
	}
	return nil
}

// ping starts a ping, or joins the one that is out. t.mu is held.
func (t *quicTunnel) ping() *pingCall {
	if t.pinging == nil {
		t.pinging = &pingCall{done: make(chan struct{})}
		t.pingID++
		t.pingDue, t.pingedAt = true, time.Now()
		t.tell()
	}
	return t.pinging
}

// unanswered tells for how long a ping has been out.
func (t *quicTunnel) unanswered(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pinging == nil {
		return 0
	}
	return now.Sub(t.pingedAt)
}

func (t *quicTunnel) Ping(ctx context.Context) (time.Duration, error) {
	t.mu.Lock()
	if t.err != nil {
		defer t.mu.Unlock()
		return 0, t.err
	}
	p := t.ping()
	t.mu.Unlock()
	select {
	case <-p.done:
		return p.rtt, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("ping: %w", ctx.Err())
	case <-t.done:
		return 0, t.Err()
	}
}

// settle waits until the peer has ended the streams that were closed here, and so has read them. Until then it is not told
// to stop writing, for that would end them without a reader.
func (t *quicTunnel) settle(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		t.mu.Lock()
		t.settling = true
		open := 0
		for s := range t.streams {
			if s.closed && !s.stopped {
				open++
			}
		}
		err := t.err
		t.mu.Unlock()
		if open == 0 || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("settle: %w", ctx.Err())
		}
	}
}

// Settle waits until the peer has what was written to the streams that are closed at this side: after it, Close loses
// nothing of them.
func Settle(ctx context.Context, t Tunnel) error {
	if q, ok := t.(*quicTunnel); ok {
		return q.settle(ctx)
	}
	_, err := t.Ping(ctx) // stands behind all that was written before
	return err
}
