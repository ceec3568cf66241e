package tunnel

import (
	"context"
	"errors"
	"time"
)

// watch finds dead peers, expired certificates, streams to stop and streams to cut. It ends the connection and closes gone.
func (t *quicTunnel) watch() {
	defer close(t.gone)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var (
		now     = time.Now()
		checked = now
		heard   = now // when packets had come that had not at the look before
		packets uint64
		pinged  time.Time // zero: no ping is out that must be answered
		asked   = now     // when the last ping went, whatever for
	)
	for {
		select {
		case <-t.done:
			t.leave()
			return
		case <-t.conn.Context().Done():
			t.end(orLost(quicReason(context.Cause(t.conn.Context()))))
			continue
		case <-t.kick:
		case <-timer.C:
		}
		now = time.Now()
		if !now.Round(0).Before(t.cert.NotAfter) {
			t.end(ErrExpired)
			continue
		}
		streams := t.sweep(now)
		t.keepBudget()
		// A host that slept is told by its wall clock, which went on while the monotonic clock stood still.
		slept := now.Round(0).Sub(checked.Round(0))-now.Sub(checked) > 10*time.Second
		checked = now
		tick := t.cfg.KeepAlive / 4
		if streams > 0 {
			tick = min(tick, quicTick)
		}
		if n := t.conn.ConnectionStats().PacketsReceived; n != packets {
			packets, heard, pinged = n, now, time.Time{}
		}
		switch {
		case !pinged.IsZero() && now.Sub(pinged) >= t.cfg.PingTimeout:
			t.end(ErrPeerLost)
			continue
		case pinged.IsZero() && t.unanswered(now) >= t.cfg.WriteTimeout: // it talks, and takes nothing
			t.end(ErrWriteTimeout)
			continue
		case pinged.IsZero() && (now.Sub(heard) >= t.cfg.KeepAlive-tick || slept),
			// While streams are open the way to the peer is tried even if it talks: it may take no bytes of ours.
			streams > 0 && now.Sub(asked) >= t.cfg.KeepAlive:
			asked = now
			if pinged.IsZero() {
				pinged = now
			}
			t.mu.Lock()
			t.ping()
			t.mu.Unlock()
		}
		due := now.Add(max(tick, time.Millisecond))
		if !pinged.IsZero() {
			due = earlier(due, pinged.Add(t.cfg.PingTimeout))
		}
		timer.Reset(max(time.Until(earlier(due, t.cert.NotAfter)), time.Millisecond))
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func orLost(reason error) error {
	if reason == nil {
		return ErrPeerLost
	}
	return reason
}

// leave ends the connection, which ends the streams and the other goroutines.
func (t *quicTunnel) leave() {
	code := quicDone
	switch err := t.Err(); {
	case errors.Is(err, ErrExpired):
		code = quicExpired
	case errors.Is(err, ErrPeerLost):
		code = quicLost
	case errors.Is(err, ErrProtocol):
		code = quicProtocol
	case errors.Is(err, ErrWriteTimeout):
		code = quicTimeout
	}
	_ = t.conn.CloseWithError(code, "")
	t.tasks.Wait()
	if t.release != nil {
		t.release()
	}
}

// sweep stops what a peer still writes to closed streams, and forgets those that it does not end in time. It gives how many
// streams there are.
func (t *quicTunnel) sweep(now time.Time) int {
	var stop, cut []*quicStream
	t.mu.Lock()
	finished := t.finished
	t.finished = nil
	for s := range t.streams {
		if s.qs == nil {
			continue // is being opened
		}
		if !s.localFIN && s.qs.Context().Err() != nil { // the peer reads no more
			s.localFIN = true
			t.check(s)
		}
		switch {
		case !s.closed:
		case now.Sub(s.closedAt) >= t.cfg.CloseTimeout:
			t.forget(s)
			cut = append(cut, s)
		case !s.stopped && !t.settling && now.Sub(s.closedAt) >= min(lateGrace, t.cfg.CloseTimeout):
			s.stopped = true
			stop = append(stop, s)
		}
	}
	n := len(t.streams)
	t.mu.Unlock()
	for _, s := range append(finished, stop...) {
		s.qs.CancelRead(streamDone)
	}
	for _, s := range cut {
		s.qs.CancelRead(streamDone)
		s.qs.CancelWrite(streamDone)
	}
	return n
}

// check takes the stream off the books if both sides have ended it. t.mu is held.
func (t *quicTunnel) check(s *quicStream) {
	if s.localFIN && s.peerFIN {
		t.forget(s)
	}
}

// forget takes the stream off the books. t.mu is held.
func (t *quicTunnel) forget(s *quicStream) {
	if _, ok := t.streams[s]; !ok {
		return
	}
	delete(t.streams, s)
	if s.inbound {
		t.inbound--
	}
}

// quicBase is the point from which keepBudget counts.
type quicBase struct {
	bytes, packets uint64
	taken          int64
	held           int64 // bytes that nobody had read then
}

// leastOverhead is what a packet has beside the bytes of streams, at least: header, tag, and the head of a frame.
const leastOverhead = 20

// budgetParts is how fine keepBudget measures: a stream is taken to hold up to so many parts of a window.
const budgetParts = 64

// keepBudget cuts the streams that hold most when all together hold too much. QUIC tells nobody what it holds. That it is at
// most what came in packets less what was read costs nothing to know; only when that is too much the streams are measured.
// They hold MaxBuffered and a Window more at most, whatever the peer does: then nothing comes on any stream, so the cut must
// come before.
func (t *quicTunnel) keepBudget() {
	st, taken := t.conn.ConnectionStats(), t.taken.Load()
	atMost := t.base.held + int64(st.BytesReceived-t.base.bytes) - leastOverhead*int64(st.PacketsReceived-t.base.packets) -
		(taken - t.base.taken)
	if atMost <= t.cfg.MaxBuffered {
		return
	}
	t.base = quicBase{bytes: st.BytesReceived, packets: st.PacketsReceived, taken: taken}
	sizes := map[*quicStream]int64{}
	buf := make([]byte, t.cfg.Window)
	for _, s := range t.all() {
		if n := s.measure(buf); n > 0 {
			sizes[s] = n
			t.base.held += n
		}
	}
	for t.base.held > t.cfg.MaxBuffered {
		var g *quicStream
		for s, n := range sizes {
			if g == nil || n > sizes[g] {
				g = s
			}
		}
		if g == nil {
			return
		}
		t.base.held -= sizes[g]
		delete(sizes, g)
		g.cut(ErrOverBudget, streamOverBudget)
	}
}

// all gives the streams that live.
func (t *quicTunnel) all() []*quicStream {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*quicStream
	for s := range t.streams {
		if s.qs != nil {
			all = append(all, s)
		}
	}
	return all
}
