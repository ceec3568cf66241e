package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Frames of yamux: version, type, flags (2), stream (4), length (4), big-endian.
const (
	headerSize = 12

	typeData   = 0
	typeWindow = 1
	typePing   = 2
	typeGoAway = 3

	flagSYN = 1
	flagACK = 2
	flagFIN = 4
	flagRST = 8
)

// Rates of frames that carry nothing, which a well-behaved peer stays far below. A peer that exceeds them is slowed down.
const (
	pingRate, pingBurst       = 20, 100
	controlRate, controlBurst = 100_000, 100_000 // two to four a stream
	maxPendingResets          = 4096
	// backlogSlack: yamux acknowledges a stream a moment before Accept returns it and it counts as accepted here. An honest
	// peer that opens the next one on that acknowledgement must not be refused for it.
	backlogSlack = 16
	// lateGrace is how long a peer may take to notice that its stream was closed here before it is reset. A reset drops
	// what the peer has not read yet, so it must not come at once.
	lateGrace = 500 * time.Millisecond
)

// wire is the connection that a yamux session is given. It sees every frame whole in both directions, and so
//
//   - joins a frame's header and body in one TLS record and one system call;
//   - refuses streams beyond the limits and frames of unknown streams before yamux holds anything for them;
//   - knows which streams both sides have ended, which yamux does not tell;
//   - holds credit back while much waits unread (credit.go), and ends the tunnel of a peer that goes beyond it;
//   - can reset a stream, for which yamux has no call: a reset frame is sent to the peer, and one is slipped in before the
//     next frame that yamux reads, so that both sides forget the stream;
//   - tells the tunnel why the connection ended before yamux learns that it did.
type wire struct {
	conn    net.Conn // TLS
	batch   *batchConn
	cfg     Config
	client  bool
	end     func(error)
	ended   <-chan struct{}
	started time.Time
	lastRx  atomic.Int64  // time since started
	kick    chan struct{} // wakes the supervisor: resets wait
	owing   chan struct{} // and this: credit waits, which wants no sweep

	// used by yamux's receiving goroutine alone
	hdr                   [headerSize]byte
	ready                 []byte // frames for yamux
	body, skip            uint32 // bytes of the frame's body to pass on, or to drop
	opens, pings, control bucket

	wmu      sync.Mutex // held during a write
	whdr     [headerSize]byte
	joined   bool // whdr waits for its body
	deadline time.Time
	held     []byte      // frames that wait for one to go with
	soon     *time.Timer // sends them if none comes
	holding  atomic.Bool // held is not empty

	mu       sync.Mutex // guards the fields below
	recs     map[uint32]*rec
	inbound  int // streams in recs that the peer opened
	waiting  int // of these, not accepted yet
	buffered int64
	inject   []uint32 // streams to reset towards our own yamux
	resets   []uint32 // streams to reset towards the peer
	floors   int64    // what the streams hold of the budget, up to their floors
	lent     int64    // and beyond
	withheld int64    // credit of all streams
	credits  []*rec   // streams with credit to send
}

// rec is what the wire knows of a stream. Guarded by wire.mu.
type rec struct {
	id          uint32
	inbound     bool
	localFIN    bool
	peerFIN     bool
	closed      bool
	grown       bool // yamux may hold a large empty buffer
	resetAt     time.Time
	buffered    int64
	err         error // why we reset it
	s           *stream
	lateNoticed bool
	reader      func() // of AwaitRead

	credit      int64  // bytes that the peer may send
	withheld    int64  // credit that yamux gave and the peer has not got
	due         uint32 // of credit: to be sent
	floor, lent int64  // this stream's in wire's sums
	gone        bool   // closed or reset: what it holds counts no more
}

func newWire(conn net.Conn, batch *batchConn, client bool, cfg Config, end func(error), ended <-chan struct{}) *wire {
	return &wire{
		conn: conn, batch: batch, client: client, cfg: cfg, end: end, ended: ended,
		started: time.Now(), kick: make(chan struct{}, 1), owing: make(chan struct{}, 1), recs: make(map[uint32]*rec),
		opens:   newBucket(cfg.OpenRate, cfg.OpenBurst),
		pings:   newBucket(pingRate, pingBurst),
		control: newBucket(controlRate, controlBurst),
	}
}

// Read gives yamux the frames that it may see.
func (w *wire) Read(p []byte) (int, error) {
	for {
		switch {
		case len(w.ready) > 0:
			n := copy(p, w.ready)
			w.ready = w.ready[n:]
			return n, nil
		case w.body > 0:
			n, err := w.read(p[:min(uint32(len(p)), w.body)])
			w.body -= uint32(n)
			return n, w.fail(err)
		case w.skip > 0:
			n, err := w.read(p[:min(uint32(len(p)), w.skip)])
			w.skip -= uint32(n)
			if err != nil {
				return 0, w.fail(err)
			}
			continue
		}
		for n := 0; n < headerSize; {
			m, err := w.read(w.hdr[n:])
			n += m
			if err != nil && n < headerSize {
				if n > 0 && errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return 0, w.fail(err)
			}
		}
		pass, err := w.inspect()
		if err != nil {
			return 0, w.fail(err)
		}
		w.ready = w.injected(w.ready[:0])
		length := uint32(0)
		if w.hdr[1] == typeData {
			length = binary.BigEndian.Uint32(w.hdr[8:])
		}
		if pass {
			w.ready = append(w.ready, w.hdr[:]...)
			w.body = length
		} else {
			w.skip = length
		}
	}
}

func (w *wire) read(p []byte) (int, error) {
	n, err := w.conn.Read(p)
	if n > 0 {
		w.lastRx.Store(int64(time.Since(w.started)))
	}
	return n, err
}

// fail ends the tunnel for err before yamux sees it.
func (w *wire) fail(err error) error {
	if err == nil {
		return nil
	}
	var ne net.Error
	switch {
	case errors.Is(err, ErrProtocol), errors.Is(err, ErrWriteTimeout):
	case errors.As(err, &ne) && ne.Timeout():
		err = ErrWriteTimeout
	default:
		err = fmt.Errorf("%w: %w", ErrPeerClosed, err)
	}
	w.end(err)
	return err
}

// inspect looks at the header in w.hdr: may yamux see the frame?
func (w *wire) inspect() (pass bool, err error) {
	typ, flags := w.hdr[1], binary.BigEndian.Uint16(w.hdr[2:])
	id, length := binary.BigEndian.Uint32(w.hdr[4:]), binary.BigEndian.Uint32(w.hdr[8:])
	if w.hdr[0] != 0 || typ > typeGoAway {
		return false, fmt.Errorf("%w: frame of version %d, type %d", ErrProtocol, w.hdr[0], typ)
	}
	switch typ {
	case typePing:
		return true, w.slow(&w.pings)
	case typeGoAway:
		if length != 0 {
			return false, fmt.Errorf("%w: it says that we did (code %d)", ErrProtocol, length)
		}
		return true, w.slow(&w.pings)
	}
	if id == 0 {
		return false, fmt.Errorf("%w: frame of stream 0", ErrProtocol)
	}
	if typ == typeWindow || length == 0 {
		if err := w.slow(&w.control); err != nil {
			return false, err
		}
	}
	if flags&flagSYN != 0 {
		// Clients open odd streams. A stream of our own parity would shadow one that we open.
		if fromClient := id%2 == 1; fromClient == w.client {
			return false, fmt.Errorf("%w: stream %d is not the peer's to open", ErrProtocol, id)
		}
		if err := w.slow(&w.opens); err != nil {
			return false, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.recs[id]
	if flags&flagSYN != 0 {
		if r != nil {
			return false, fmt.Errorf("%w: stream %d opened twice", ErrProtocol, id)
		}
		if w.inbound >= w.cfg.MaxStreams || w.waiting >= w.cfg.Backlog+backlogSlack {
			return false, w.reply(id)
		}
		r = &rec{id: id, inbound: true, credit: minWindow}
		w.recs[id] = r
		w.charge(r)
		w.inbound++
		w.waiting++
	}
	if r == nil {
		return false, nil // of a stream that ended, or never was
	}
	if flags&flagRST != 0 {
		w.forget(r)
		return true, nil
	}
	if typ == typeData && length > 0 {
		if length > w.cfg.Window {
			return false, fmt.Errorf("%w: frame of %d bytes", ErrProtocol, length)
		}
		if r.closed {
			if flags&flagFIN == 0 {
				w.late(r)
				return false, nil
			}
			return false, w.reset(r, nil)
		}
		if int64(length) > r.credit {
			return false, fmt.Errorf("%w: stream %d got %d bytes where %d more were allowed", ErrProtocol, id, length, r.credit)
		}
		r.rouse()
		r.grown = true
		r.credit -= int64(length)
		r.buffered += int64(length)
		w.buffered += int64(length)
		w.charge(r)
		if w.buffered > w.cfg.MaxBuffered {
			g := w.greatest()
			if err := w.reset(g, ErrOverBudget); err != nil || g == r {
				return false, err
			}
		}
	}
	if flags&flagFIN != 0 {
		if r.peerFIN {
			return false, fmt.Errorf("%w: stream %d ended twice", ErrProtocol, id)
		}
		r.peerFIN = true
		r.rouse()
		w.settle(r)
		if r.localFIN {
			w.remove(r)
		}
	}
	return true, nil
}

// slow makes a peer that exceeds its rate wait, by not reading from it.
func (w *wire) slow(b *bucket) error {
	d := b.take()
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		// What stands in the connection meanwhile has come: the peer is not silent, we are.
		w.lastRx.Store(int64(time.Since(w.started)))
		return nil
	case <-w.ended:
		return net.ErrClosed
	}
}

// The following want w.mu held.

// reply has the supervisor send a reset.
func (w *wire) reply(id uint32) error {
	if len(w.resets) >= maxPendingResets {
		return fmt.Errorf("%w: too many refused streams", ErrProtocol)
	}
	w.resets = append(w.resets, id)
	w.wake()
	return nil
}

// reset makes both sides forget the stream.
func (w *wire) reset(r *rec, why error) error {
	r.err = why
	w.forget(r)
	w.inject = append(w.inject, r.id)
	return w.reply(r.id)
}

func (w *wire) late(r *rec) {
	if !r.lateNoticed {
		r.lateNoticed = true
		r.resetAt = time.Now().Add(min(lateGrace, w.cfg.CloseTimeout))
		w.wake()
	}
}

// remove takes the stream off the books; what it still buffers stays counted.
func (w *wire) remove(r *rec) {
	if w.recs[r.id] != r {
		return
	}
	delete(w.recs, r.id)
	if r.inbound {
		w.inbound--
	}
}

func (w *wire) forget(r *rec) {
	w.remove(r)
	w.drop(r)
}

// drop no longer counts what the stream holds.
func (w *wire) drop(r *rec) {
	w.buffered -= r.buffered
	r.buffered, r.gone = 0, true
	r.rouse()
	w.settle(r)
}

// rouse has who waits in AwaitRead read. It may come before yamux has what there is: that Read waits a moment then.
func (r *rec) rouse() {
	if f := r.reader; f != nil {
		r.reader = nil
		go f()
	}
}

func (w *wire) greatest() *rec {
	var g *rec
	for _, r := range w.recs {
		if g == nil || r.buffered > g.buffered {
			g = r
		}
	}
	return g
}

func (w *wire) wake() { nudge(w.kick) }

func nudge(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// The following lock for themselves.

// injected appends the waiting resets towards our own yamux.
func (w *wire) injected(b []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	b = appendResets(b, w.inject)
	w.inject = w.inject[:0]
	return b
}

func appendResets(b []byte, ids []uint32) []byte {
	for _, id := range ids {
		b = append(b, 0, typeWindow, 0, flagRST)
		b = binary.BigEndian.AppendUint32(b, id)
		b = binary.BigEndian.AppendUint32(b, 0)
	}
	return b
}

// attach binds an opened or accepted stream to its record. A stream that was reset meanwhile gets one of its own.
func (w *wire) attach(s *stream, accepted bool) (known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if accepted {
		w.waiting--
	}
	s.rec = w.recs[s.ys.StreamID()]
	if s.rec == nil {
		s.rec = &rec{id: s.ys.StreamID(), s: s, gone: true}
		return false
	}
	s.rec.s = s
	return true
}

func (w *wire) consumed(r *rec, n int) {
	w.mu.Lock()
	m := min(int64(n), r.buffered)
	r.buffered -= m
	w.buffered -= m
	w.charge(r)
	w.release(r, true)
	w.mu.Unlock()
}

// await has f called when a Read of the stream may not wait.
func (w *wire) await(s *stream, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := s.rec
	r.reader = f
	if r.buffered > 0 || r.peerFIN || r.gone || s.over() {
		r.rouse()
	}
}

func (w *wire) rouse(r *rec) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.rouse()
}

// closed notes that the stream is closed here for both directions.
func (w *wire) closed(r *rec) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.closed = true
	r.resetAt = time.Now().Add(w.cfg.CloseTimeout)
	if r.buffered > 0 && !r.peerFIN && w.recs[r.id] == r {
		w.late(r) // the peer may wait for room that never comes
	}
	w.drop(r)
}

// finished reports whether the peer ended its side, and our own reason for a reset.
func (w *wire) finished(r *rec) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return r.peerFIN, r.err
}

func (w *wire) counts() (inbound, outbound int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inbound, len(w.recs) - w.inbound
}

// streams gives those that live.
func (w *wire) streams() []*stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*stream
	for _, r := range w.recs {
		if r.s != nil {
			all = append(all, r.s)
		}
	}
	return all
}

// sweep resets closed streams whose peer did not close in time, and says when the next is due. Withheld credit is released
// where there is room again. With shrink, buffers that are empty and large are given back.
func (w *wire) sweep(now time.Time, shrink bool) (next time.Time) {
	var idle []*stream
	w.mu.Lock()
	for _, r := range w.recs {
		if r.s != nil {
			w.release(r, false)
		}
		switch {
		case r.closed && !now.Before(r.resetAt):
			if w.reset(r, nil) != nil {
				r.resetAt = now.Add(lateGrace)
			}
		case r.closed && (next.IsZero() || r.resetAt.Before(next)):
			next = r.resetAt
		case shrink && r.grown && r.buffered == 0 && r.s != nil:
			r.grown = false
			idle = append(idle, r.s)
		}
	}
	w.mu.Unlock()
	for _, s := range idle {
		s.ys.Shrink()
	}
	return next
}
