package websocket

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Opcodes of RFC 6455, 5.2.
const (
	opContinuation = 0x0
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa

	finBit  = 0x80
	maskBit = 0x80
)

// Status codes of RFC 6455, 7.4.1.
const (
	statusNormal      = 1000
	statusGoingAway   = 1001
	statusProtocol    = 1002
	statusUnsupported = 1003
	statusTooBig      = 1009
)

const (
	maxHeader  = 14       // of a frame
	maxControl = 125      // bytes of a control frame (RFC 6455, 5.5)
	maxPayload = 64 << 10 // of a frame that is sent
	// maxFrame bounds what is taken. A proxy may join frames; it need not join more.
	maxFrame = 16 << 20
	// maxIdleFrames may come in a row without a byte of the stream: pings of a load balancer, not a flood.
	maxIdleFrames = 256
)

// ErrProtocol means that the peer, or something on the way, does not keep to RFC 6455.
var ErrProtocol = errors.New("WebSocket protocol broken")

// ErrClosedByPeer is what Write gives after the peer's close frame.
var ErrClosedByPeer = errors.New("WebSocket closed by the peer")

var frames = sync.Pool{New: func() any { return new([maxHeader + maxPayload]byte) }}

// Conn is one end of a WebSocket connection as a byte stream. One goroutine reads and others write at a time; Close may come
// from anywhere. Make it with Client or Accept.
type Conn struct {
	conn   net.Conn
	client bool // masks what it sends, and takes nothing masked
	remote net.Addr
	early  []byte // what came behind the handshake

	// The reader's own.
	head    [maxHeader]byte // of the next frame, have bytes of it read
	have    int
	left    uint64 // of the present frame's payload
	mask    [4]byte
	at      int  // position in mask
	partial bool // a message's last frame is still to come
	control [maxControl]byte
	held    int // bytes of a control frame that are read
	idle    int
	readErr error // for good

	wmu   sync.Mutex // guards the fields below, and the order of frames
	ended error      // nothing more is sent

	pmu  sync.Mutex // guards the fields below
	pong [maxControl]byte
	owed int // length of a pong that waits to be sent; -1: none
}

func newConn(c net.Conn, client bool, early []byte) *Conn {
	return &Conn{conn: c, client: client, early: early, remote: c.RemoteAddr(), owed: -1}
}

// read takes bytes of the connection beneath.
func (c *Conn) read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	return c.conn.Read(p)
}

// Read reads the stream.
func (c *Conn) Read(p []byte) (int, error) {
	if c.readErr != nil {
		return 0, c.readErr
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if c.left == 0 {
			if err := c.next(); err != nil {
				return 0, c.fault(err)
			}
			continue
		}
		if uint64(len(p)) > c.left {
			p = p[:c.left]
		}
		n, err := c.read(p)
		if !c.client {
			c.at = xor(p[:n], c.mask, c.at)
		}
		c.left -= uint64(n)
		if n > 0 {
			c.idle = 0
			return n, nil // an error comes again
		}
		if err != nil {
			return 0, c.fault(err)
		}
	}
}

// fault keeps an error that is for good. A deadline is not.
func (c *Conn) fault(err error) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return err
	}
	if err == io.EOF && c.readErr == nil {
		err = io.ErrUnexpectedEOF // without a close frame it is a cut
	}
	if c.readErr == nil {
		c.readErr = err
	}
	return c.readErr
}

// next reads frames until one of the stream begins. It may be called again after a deadline.
func (c *Conn) next() error {
	need := 2
	for {
		if c.have >= 2 {
			need = c.headLen()
		}
		if c.have >= need {
			break
		}
		n, err := c.read(c.head[c.have:need])
		c.have += n
		if n == 0 && err != nil {
			return err
		}
	}
	op := c.head[0] & 0x0f
	length, err := c.check(op)
	if err != nil {
		return err
	}
	if op >= opClose {
		for c.held < int(length) {
			n, err := c.read(c.control[c.held:length])
			c.held += n
			if n == 0 && err != nil {
				return err
			}
		}
		body := c.control[:length]
		if !c.client {
			xor(body, [4]byte(c.head[need-4:need]), 0)
		}
		c.have, c.held = 0, 0
		if c.idle++; c.idle > maxIdleFrames {
			return c.refuse(statusProtocol, "nothing but control frames")
		}
		return c.take(op, body)
	}
	c.partial = c.head[0]&finBit == 0
	c.left, c.at = length, 0
	if !c.client {
		copy(c.mask[:], c.head[need-4:need])
	}
	c.have = 0
	if length == 0 {
		if c.idle++; c.idle > maxIdleFrames {
			return c.refuse(statusProtocol, "nothing but empty frames")
		}
	}
	return nil
}

// headLen is the length of the header whose first two bytes are read.
func (c *Conn) headLen() int {
	n := 2
	switch c.head[1] &^ maskBit {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if c.head[1]&maskBit != 0 {
		n += 4
	}
	return n
}

// check judges a frame's header and gives the length of its payload.
func (c *Conn) check(op byte) (uint64, error) {
	short := c.head[1] &^ maskBit
	length := uint64(short)
	switch short {
	case 126:
		length = uint64(binary.BigEndian.Uint16(c.head[2:]))
	case 127:
		length = binary.BigEndian.Uint64(c.head[2:])
	}
	masked, fin := c.head[1]&maskBit != 0, c.head[0]&finBit != 0
	switch {
	case c.head[0]&0x70 != 0:
		return 0, c.refuse(statusProtocol, "an extension that was not agreed on")
	case masked == c.client:
		return 0, c.refuse(statusProtocol, "masked by the wrong side, or not at all")
	case op == opClose, op == opPing, op == opPong:
		if !fin || short > maxControl {
			return 0, c.refuse(statusProtocol, "a control frame that is split or long")
		}
	case op == opBinary:
		if c.partial {
			return 0, c.refuse(statusProtocol, "a message within a message")
		}
	case op == opContinuation:
		if !c.partial {
			return 0, c.refuse(statusProtocol, "a continuation of nothing")
		}
	case op == 0x1:
		return 0, c.refuse(statusUnsupported, "text where bytes are spoken")
	default:
		return 0, c.refuse(statusProtocol, fmt.Sprintf("opcode %d", op))
	}
	if length > maxFrame {
		return 0, c.refuse(statusTooBig, fmt.Sprintf("a frame of %d bytes", length))
	}
	return length, nil
}

func (c *Conn) refuse(status uint16, why string) error {
	err := fmt.Errorf("%w: %s", ErrProtocol, why)
	c.goodbye(status, err)
	return err
}

// take handles a control frame.
func (c *Conn) take(op byte, body []byte) error {
	switch op {
	case opPing:
		c.answer(body)
	case opClose:
		status := uint16(statusNormal)
		if len(body) == 1 {
			return c.refuse(statusProtocol, "a close frame of one byte")
		}
		if len(body) >= 2 {
			status = binary.BigEndian.Uint16(body)
		}
		c.goodbye(statusNormal, ErrClosedByPeer)
		if status == statusNormal || status == statusGoingAway {
			c.readErr = io.EOF
			return io.EOF
		}
		return fmt.Errorf("%w: it says %d", ErrClosedByPeer, status)
	}
	return nil
}

// answer owes a pong. It is sent here, or by the writer at work: a reader must not wait for a peer that reads nothing. A
// later ping replaces one that was not answered yet (RFC 6455, 5.5.3).
func (c *Conn) answer(body []byte) {
	c.pmu.Lock()
	c.owed = copy(c.pong[:], body)
	c.pmu.Unlock()
	c.settle()
}

// settle sends a pong that is owed, unless a writer is at work: that one settles when it is done.
func (c *Conn) settle() {
	for {
		c.pmu.Lock()
		owed := c.owed >= 0
		c.pmu.Unlock()
		if !owed || !c.wmu.TryLock() {
			return
		}
		c.pmu.Lock()
		var body [maxControl]byte
		n := c.owed
		copy(body[:], c.pong[:])
		c.owed = -1
		c.pmu.Unlock()
		if n >= 0 && c.ended == nil {
			_ = c.frame(opPong, body[:n])
		}
		c.wmu.Unlock()
	}
}

// Write sends p as one binary message for each 64 KiB.
func (c *Conn) Write(p []byte) (n int, err error) {
	defer c.settle()
	c.wmu.Lock()
	defer c.wmu.Unlock()
	for n < len(p) {
		if c.ended != nil {
			return n, c.ended
		}
		part := p[n:min(n+maxPayload, len(p))]
		if err := c.frame(opBinary, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// frame sends one frame in one write. c.wmu is held. A frame that went out in part ends the stream: what follows would be
// read as its rest.
func (c *Conn) frame(op byte, payload []byte) error {
	buf := frames.Get().(*[maxHeader + maxPayload]byte)
	defer frames.Put(buf)
	buf[0] = finBit | op
	h := 2
	switch n := len(payload); {
	case n <= 125:
		buf[1] = byte(n)
	case n <= 0xffff:
		buf[1] = 126
		binary.BigEndian.PutUint16(buf[2:], uint16(n))
		h = 4
	default:
		buf[1] = 127
		binary.BigEndian.PutUint64(buf[2:], uint64(n))
		h = 10
	}
	end := h + len(payload)
	if c.client {
		var key [4]byte
		_, _ = rand.Read(key[:]) // never fails (crypto/rand)
		buf[1] |= maskBit
		copy(buf[h:], key[:])
		h, end = h+4, end+4
		copy(buf[h:], payload)
		xor(buf[h:end], key, 0)
	} else {
		copy(buf[h:], payload)
	}
	if _, err := c.conn.Write(buf[:end]); err != nil {
		if c.ended == nil {
			c.ended = err
		}
		return err
	}
	return nil
}

// goodbye sends a close frame if that costs nothing. Writes after it get why.
func (c *Conn) goodbye(status uint16, why error) {
	if !c.wmu.TryLock() {
		return // a writer is at work; closing the connection says the rest
	}
	defer c.wmu.Unlock()
	if c.ended != nil {
		return
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(goodbyeTime))
	_ = c.frame(opClose, binary.BigEndian.AppendUint16(nil, status))
	c.ended = why
}

// goodbyeTime bounds what a close frame may cost.
const goodbyeTime = 100 * time.Millisecond

// Close says goodbye if that costs nothing, and closes the connection beneath without waiting for the peer.
func (c *Conn) Close() error {
	c.goodbye(statusNormal, net.ErrClosed)
	return bottom(c.conn).Close()
}

// bottom is the connection below every TLS: closing that one never waits to say goodbye.
func bottom(c net.Conn) net.Conn {
	for {
		t, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = t.NetConn()
	}
}

// NetConn is the connection beneath.
func (c *Conn) NetConn() net.Conn { return c.conn }

// Carrier names the way that the stream goes, for who tells it apart from a plain connection.
func (c *Conn) Carrier() string { return "websocket" }

// SetRemoteAddr replaces what RemoteAddr gives: who stands behind a trusted proxy. Call it before the Conn is shared.
func (c *Conn) SetRemoteAddr(a net.Addr) { c.remote = a }

// LocalAddr is the address of the connection beneath.
func (c *Conn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr is the address of the connection beneath, or the one that was set.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is that of the connection beneath. A Write that is cut by it ends the stream for writing.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// SetReadDeadline is that of the connection beneath.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline is that of the connection beneath.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// xor masks or unmasks b, whose first byte is at place at of the key, and gives the place after it.
func xor(b []byte, key [4]byte, at int) int {
	for at&3 != 0 && len(b) > 0 {
		b[0] ^= key[at&3]
		b, at = b[1:], at+1
	}
	k := uint64(binary.LittleEndian.Uint32(key[:]))
	k |= k << 32
	for len(b) >= 32 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])^k)
		binary.LittleEndian.PutUint64(b[16:], binary.LittleEndian.Uint64(b[16:])^k)
		binary.LittleEndian.PutUint64(b[24:], binary.LittleEndian.Uint64(b[24:])^k)
		b = b[32:]
	}
	for i := range b {
		b[i] ^= key[i&3]
	}
	return at + len(b)&3 // whole words do not move it
}
