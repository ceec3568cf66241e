package splice

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// Sizes of the buffers of one direction: what it waits with, and what it moves bulk with. An idle stream costs the small one. The
// large one fills whole frames of a tunnel (two on the mux, one on a lane), and these whole TLS records: 24 bytes more would be
// a frame, a record and a system call of their own each time.
const (
	smallBuffer = 2 << 10
	largeBuffer = 64<<10 - 24
)

var buffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// Copy hands what it reads from src to write until src ends (nil), or until a Read or write fails (its error). The bytes are
// write's until it returns. While little comes it waits with 2 KiB; a read that fills them borrows 64 KiB, which go back when
// the stream runs thin again. splice(2) would not help: one side is always a stream of a tunnel or TLS, never a bare socket.
func Copy(src io.Reader, write func([]byte) error) error {
	small := make([]byte, smallBuffer)
	buf := small
	var large *[largeBuffer]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if werr := write(buf[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF { // itself alone: the error of a tunnel that was lost may hold one, and is no end
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case large == nil && n == len(small):
			large = buffers.Get().(*[largeBuffer]byte)
			buf = large[:]
		case large != nil && n < len(small):
			buffers.Put(large)
			large, buf = nil, small
		}
	}
}

// writeCloser is a conn that can end its writing side alone.
type writeCloser interface{ CloseWrite() error }

// Both copies a to b and b to a and returns the bytes of each direction when both have ended. The end of one direction is
// passed on as a half-close where the receiving conn can do that; where it cannot, the other direction has a second to
// end by itself. An error in one direction, or the end of ctx, ends both. Both conns are closed when it returns.
func Both(ctx context.Context, a, b net.Conn) (ab, ba int64) {
	var once sync.Once
	closeBoth := func() {
		once.Do(func() { a.Close(); b.Close() })
	}
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	defer closeBoth()
	one := func(dst, src net.Conn, n *int64) {
		err := Copy(src, func(p []byte) error {
			m, err := dst.Write(p)
			*n += int64(m)
			return err
		})
		if err != nil {
			closeBoth()
			return
		}
		if w, ok := dst.(writeCloser); ok && w.CloseWrite() == nil {
			return
		}
		// The receiver cannot be told that no more comes, so the other direction must not wait for its answer for long.
		_ = src.SetReadDeadline(time.Now().Add(time.Second))
		_ = dst.SetReadDeadline(time.Now().Add(time.Second))
	}
	var wg sync.WaitGroup
	wg.Go(func() { one(b, a, &ab) })
	one(a, b, &ba)
	wg.Wait()
	return ab, ba
}
