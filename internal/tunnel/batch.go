package tunnel

import (
	"net"
	"sync"
	"time"
)

const (
	batchSize  = 64<<10 + 256        // holds the longest frame, four full TLS records, as it goes out
	aheadSize  = 128 << 10           // is read at most at a time
	recordMost = 5 + maxRecord + 256 // a TLS 1.3 record is no longer (RFC 8446, 5.2)
)

var (
	batches = sync.Pool{New: func() any { return new([batchSize]byte) }}
	aheads  = sync.Pool{New: func() any { return new([aheadSize]byte) }}
)

// batchConn stands between TLS and the network. TLS reads a record in two system calls and writes each record with one;
// batchConn reads ahead while more waits, and joins the records of one Write. It holds a buffer only while bytes are in
// it, so an idle connection costs none.
//
// One reader at a time, as TLS sees to. The write side has a lock: TLS writes answers to key updates while it reads.
type batchConn struct {
	net.Conn

	in     *[aheadSize]byte // unread bytes are in[r:w]
	r, w   int
	hungry bool // the last read filled its buffer: more is likely to wait

	mu   sync.Mutex       // guards the fields below
	out  *[batchSize]byte // set between hold and flush
	n    int
	held bool
	// patience is how long a write may go without a byte being taken; 0: the deadline alone counts. A line that is so narrow, or
	// shared by so many, that it takes longer for a whole frame is slow, not dead.
	patience time.Duration
}

func (b *batchConn) Read(p []byte) (int, error) {
	if b.in == nil {
		if !b.hungry || len(p) >= aheadSize {
			n, err := b.Conn.Read(p)
			b.hungry = n == len(p)
			return n, err
		}
		b.in = aheads.Get().(*[aheadSize]byte)
		n, err := b.Conn.Read(b.in[:])
		b.r, b.w = 0, n
		b.hungry = n > len(p)
		if n == 0 {
			b.dropIn()
			return 0, err
		}
	}
	n := copy(p, b.in[b.r:b.w])
	b.r += n
	if b.r == b.w {
		b.dropIn()
	}
	return n, nil
}

func (b *batchConn) dropIn() {
	aheads.Put(b.in)
	b.in = nil
}

// ready reports whether a whole record is there, so that a Read of TLS does not wait. It may say no although there is one. It is
// the reader's to call.
func (b *batchConn) ready() bool { return b != nil && b.in != nil && b.w-b.r >= recordMost }

// hold collects writes until flush.
func (b *batchConn) hold() {
	b.mu.Lock()
	b.held = true
	b.mu.Unlock()
}

func (b *batchConn) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.held {
		return b.write(p)
	}
	if b.n+len(p) > batchSize {
		if err := b.send(); err != nil {
			return 0, err
		}
		if len(p) > batchSize {
			return b.write(p)
		}
	}
	if b.out == nil {
		b.out = batches.Get().(*[batchSize]byte)
	}
	b.n += copy(b.out[b.n:], p)
	return len(p), nil
}

// flush sends what was held.
func (b *batchConn) flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = false
	return b.send()
}

func (b *batchConn) send() error {
	if b.out == nil {
		return nil
	}
	_, err := b.write(b.out[:b.n])
	batches.Put(b.out)
	b.out, b.n = nil, 0
	return err
}

// write goes on past a deadline as long as bytes are taken. Beneath TLS that is possible: no record is cut off.
func (b *batchConn) write(p []byte) (n int, err error) {
	for {
		m, err := b.Conn.Write(p[n:])
		n += m
		if err == nil || m == 0 || b.patience == 0 || !isTimeout(err) {
			return n, err
		}
		if err := b.Conn.SetWriteDeadline(time.Now().Add(b.patience)); err != nil {
			return n, err
		}
	}
}

// waits sets patience.
func (b *batchConn) waits(patience time.Duration) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.patience = patience
}
