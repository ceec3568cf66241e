package splice

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

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
		var err error
		*n, err = io.Copy(dst, src)
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
