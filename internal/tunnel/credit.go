package tunnel

import "encoding/binary"

// yamux grants each stream its whole window at once, and again whenever half of it was read. Many streams that are read
// slowly would so hold more than MaxBuffered, and lose one that did nothing wrong. Therefore the wire lets credit out by a
// budget: it makes yamux's window updates smaller, keeps the rest for the stream, and sends it when there is room.
//
// A stream holds what waits unread here and what its peer may still send: that is what it can come to. The first 256 KiB,
// its floor, are its own, for yamux gives them unasked. What goes beyond is lent out of a pool: half of MaxBuffered, less
// when the floors of very many streams leave less. So no set of streams whose floors fit into the other half (128 of them
// by default) comes to more than MaxBuffered, and none of them is cut. The cut stays for more.
//
// Three quarters of the pool are for whoever comes, so that a stream has its whole window from the start while there is
// room. The last quarter is for streams whose reader keeps up with what comes: a window helps these alone.
//
// Nobody waits for ever: a stream that was read empty and whose peer has no credit left is always owed its floor, and
// consumed, which comes after each Read, sends it. It needs no other stream for that.

// creditStep is the least credit worth a frame of its own. yamux waits for half a window, too.
const creditStep = minWindow / 2

// The following want w.mu held.

// free is what may still be lent.
func (w *wire) free() int64 {
	return min(w.cfg.MaxBuffered/2, w.cfg.MaxBuffered-w.floors) - w.lent
}

// charge counts anew what r holds of the budget.
func (w *wire) charge(r *rec) {
	var floor, lent int64
	switch {
	case r.gone:
	case r.peerFIN: // nothing more comes
		floor = min(r.buffered, minWindow)
		lent = r.buffered - floor
	default:
		floor = minWindow
		lent = max(0, r.buffered+r.credit-floor)
	}
	w.floors += floor - r.floor
	w.lent += lent - r.lent
	r.floor, r.lent = floor, lent
}

// settle is charge for a stream that takes no more credit. What it gives back may serve the others.
func (w *wire) settle(r *rec) {
	before := w.free()
	w.withheld -= r.withheld
	r.withheld = 0
	w.charge(r)
	if w.withheld > 0 && w.free()-before >= creditStep {
		w.wake()
	}
}

// allowed says how much of the withheld credit may go out. read: r's reader has just taken something.
func (w *wire) allowed(r *rec, read bool) int64 {
	holds := r.buffered + r.credit
	owed := min(r.withheld, max(0, minWindow-holds))
	more, free := r.withheld-owed, w.free()
	switch {
	case more <= free-w.cfg.MaxBuffered/8:
		return r.withheld
	case read && r.buffered <= holds/2:
		// Up to four times what stays free: those who share come to an even share, and a newcomer finds some.
		return owed + min(more, max(0, (4*free-r.lent)/5))
	}
	return owed
}

func (w *wire) grant(r *rec, n int64) {
	r.withheld -= n
	w.withheld -= n
	r.credit += n
	w.charge(r)
}

// release sends withheld credit in a frame of its own, if it is worth one.
func (w *wire) release(r *rec, read bool) {
	if r.withheld == 0 {
		return
	}
	n := w.allowed(r, read)
	if n < creditStep {
		return
	}
	w.grant(r, n)
	if r.due == 0 {
		w.credits = append(w.credits, r)
	}
	r.due += uint32(n)
	nudge(w.owing)
}

// update takes a window update of our own yamux, and gives how much of it goes out now.
func (w *wire) update(r *rec, n uint32) uint32 {
	if r.gone || r.peerFIN {
		r.credit += int64(n)
		return n // it lets nothing in
	}
	r.withheld += int64(n)
	w.withheld += int64(n)
	// The Read that this comes from is not in the books yet: consumed, right after it, looks again.
	now := w.allowed(r, false)
	w.grant(r, now)
	return uint32(now)
}

// appendCredits appends the window updates that wait. None comes before the frame that opens its stream: credit is released
// for streams alone that someone has, and these have been opened.
func (w *wire) appendCredits(b []byte) []byte {
	for _, r := range w.credits {
		if w.recs[r.id] == r {
			b = append(b, 0, typeWindow, 0, 0)
			b = binary.BigEndian.AppendUint32(b, r.id)
			b = binary.BigEndian.AppendUint32(b, r.due)
		}
		r.due = 0
	}
	clear(w.credits)
	w.credits = w.credits[:0]
	return b
}
