package tunnel

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"
)

// Write takes a frame's header or body from yamux.
func (w *wire) Write(p []byte) (int, error) {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	if w.joined {
		w.joined = false
		return len(p), w.send(w.whdr[:], p)
	}
	if len(p) != headerSize {
		return 0, w.fail(fmt.Errorf("%w: no header where one should be", ErrProtocol))
	}
	copy(w.whdr[:], p) // yamux's is not ours to change
	if !w.note(w.whdr[:]) {
		return len(p), nil
	}
	if p[1] == typeData && binary.BigEndian.Uint32(p[8:]) > 0 {
		w.joined = true
		return len(p), nil
	}
	if w.hold() {
		return len(p), nil
	}
	return len(p), w.send(w.whdr[:], nil)
}

const (
	// holdTime is how long a frame that says nothing but "opened" or "accepted" waits for one that it can go with: the first
	// bytes of the request, or of the answer. Alone it would be a record, a system call and a wake-up of the peer for nothing.
	holdTime = 3 * time.Millisecond
	holdMost = 85 * headerSize // more of them go at once
)

// hold keeps the frame in w.whdr back if it can wait. w.wmu is held.
func (w *wire) hold() bool {
	flags := binary.BigEndian.Uint16(w.whdr[2:])
	if w.whdr[1] != typeWindow || flags&(flagSYN|flagACK) == 0 || flags&^(flagSYN|flagACK) != 0 || len(w.held) >= holdMost {
		return false
	}
	if len(w.held) == 0 {
		w.holding.Store(true)
		if w.soon == nil {
			w.soon = time.AfterFunc(holdTime, func() {
				if w.holding.Load() {
					nudge(w.owing)
				}
			})
		} else {
			w.soon.Reset(holdTime)
		}
	}
	w.held = append(w.held, w.whdr[:]...)
	return true
}

// note keeps the books for a frame that leaves, and makes a window update as small as the budget wants it. false: nothing is
// left to send.
func (w *wire) note(h []byte) bool {
	flags, id, length := binary.BigEndian.Uint16(h[2:]), binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	credit := h[1] == typeWindow && length > 0
	if h[1] > typeWindow || flags&(flagSYN|flagFIN) == 0 && !credit {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if flags&flagSYN != 0 {
		w.recs[id] = &rec{id: id, credit: minWindow}
		w.charge(w.recs[id])
	}
	r := w.recs[id]
	if r == nil {
		return true
	}
	if credit {
		length = w.update(r, length)
		binary.BigEndian.PutUint32(h[8:], length)
	}
	if flags&flagFIN != 0 {
		r.localFIN = true
		if r.peerFIN {
			w.remove(r)
		}
	}
	return !credit || length > 0 || flags != 0
}

// flush sends the frames, resets and credit that wait.
func (w *wire) flush() error {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	if w.joined {
		return nil // the body that follows takes them along
	}
	return w.send(nil, nil)
}

const maxRecord = 16 << 10 // of TLS 1.3

var records = sync.Pool{New: func() any { b := make([]byte, 0, maxRecord); return &b }}

// send writes what waits (frames held back before the resets, which may be of the same streams), then one frame, in as few
// records as can be and one system call. w.wmu is held.
func (w *wire) send(hdr, body []byte) error {
	pooled := records.Get().(*[]byte)
	defer records.Put(pooled)
	first := (*pooled)[:0]
	if len(w.held) > 0 {
		first = append(first, w.held...)
		w.held = w.held[:0]
		w.holding.Store(false)
	}
	w.mu.Lock()
	first = appendResets(first, w.resets)
	w.resets = w.resets[:0]
	first = w.appendCredits(first)
	w.mu.Unlock()
	first = append(first, hdr...)
	n := min(len(body), max(0, maxRecord-len(first)))
	first = append(first, body[:n]...)
	if len(first) == 0 {
		return nil
	}
	// Setting a deadline for each frame would cost a timer each.
	if now := time.Now(); now.Add(w.cfg.WriteTimeout).Sub(w.deadline) > w.cfg.WriteTimeout/8 {
		w.deadline = now.Add(w.cfg.WriteTimeout)
		if err := w.conn.SetWriteDeadline(w.deadline); err != nil {
			return w.fail(err)
		}
	}
	if w.batch != nil {
		w.batch.hold()
	}
	_, err := w.conn.Write(first)
	if err == nil && n < len(body) {
		_, err = w.conn.Write(body[n:])
	}
	if w.batch != nil {
		if e := w.batch.flush(); err == nil {
			err = e
		}
	}
	return w.fail(err)
}

// Close is called by yamux when it ends the session by itself, which it does only for faults of the peer: all others are
// found here first.
func (w *wire) Close() error {
	w.end(fmt.Errorf("%w: yamux ended the session", ErrProtocol))
	return nil
}

// RemoteAddr and LocalAddr are for yamux's log lines.
func (w *wire) RemoteAddr() net.Addr { return w.conn.RemoteAddr() }
func (w *wire) LocalAddr() net.Addr  { return w.conn.LocalAddr() }
