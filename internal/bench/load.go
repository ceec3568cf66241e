package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// open opens a connection to a system's entrance that ends with ctx.
func open(ctx context.Context, addr string) (net.Conn, func(), error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	return c, func() { stop(); c.Close() }, nil
}

// several runs f n times at once and gives the first error.
func several(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// streams opens n streams in a mode, sees that the target is there on each, and then runs f on all at once. It gives the
// bytes that f counted and the seconds since all were open: opening is no part of a bulk transfer.
func streams(ctx context.Context, addr string, n int, mode byte, f func(c net.Conn, begin time.Time) (int64, error)) (float64, float64, error) {
	conns := make([]net.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	if err := several(n, func(i int) error {
		c, err := dial(ctx, addr)
		if err != nil {
			return err
		}
		conns[i] = c
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		if _, err := c.Write([]byte{mode}); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		return err
	}); err != nil {
		return 0, 0, fmt.Errorf("open a stream: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		for _, c := range conns {
			c.Close()
		}
	})
	defer stop()
	var total atomic.Int64
	begin := time.Now()
	err := several(n, func(i int) error {
		k, err := f(conns[i], begin)
		total.Add(k)
		return err
	})
	return float64(total.Load()), time.Since(begin).Seconds(), err
}

// bulkDown takes what n streams send for d, or until something has come on each. It gives bytes and seconds.
func bulkDown(ctx context.Context, addr string, n int, d time.Duration) (float64, float64, error) {
	return streams(ctx, addr, n, modeDown, func(c net.Conn, begin time.Time) (total int64, err error) {
		if _, err := c.Write([]byte{'.'}); err != nil {
			return 0, err
		}
		if err := c.SetReadDeadline(begin.Add(d)); err != nil {
			return 0, err
		}
		b := make([]byte, chunk)
		late := false
		for total == 0 || time.Since(begin) < d {
			k, err := c.Read(b)
			total += int64(k)
			var timeout net.Error
			switch {
			case err == nil:
			case errors.As(err, &timeout) && timeout.Timeout() && ctx.Err() == nil && total > 0:
				return total, nil
			case errors.As(err, &timeout) && timeout.Timeout() && !late:
				late = true
				if err := c.SetReadDeadline(begin.Add(d + 30*time.Second)); err != nil {
					return 0, err
				}
			default:
				return total, fmt.Errorf("a stream ended: %w", err)
			}
		}
		return total, nil
	})
}

// bulkUp sends on n streams for d. What counts is what the target says that it got, at the time when it says so.
func bulkUp(ctx context.Context, addr string, n int, d time.Duration) (float64, float64, error) {
	return streams(ctx, addr, n, modeUp, func(c net.Conn, begin time.Time) (int64, error) {
		if err := c.SetDeadline(begin.Add(d + 30*time.Second)); err != nil {
			return 0, err
		}
		b := make([]byte, chunk)
		binary.BigEndian.PutUint32(b, chunk-4)
		sent := uint64(4)
		for time.Since(begin) < d {
			if _, err := c.Write(b); err != nil {
				return 0, fmt.Errorf("a stream ended: %w", err)
			}
			sent += chunk
		}
		if _, err := c.Write(make([]byte, 4)); err != nil {
			return 0, err
		}
		var got uint64
		if err := binary.Read(c, binary.BigEndian, &got); err != nil {
			return 0, fmt.Errorf("no receipt: %w", err)
		}
		if got != sent {
			return 0, fmt.Errorf("the target got %d bytes of %d", got, sent)
		}
		return int64(got), nil
	})
}

// ping measures round trips of size bytes on one open stream, for d, in seconds.
func ping(ctx context.Context, addr string, size int, d time.Duration) ([]float64, error) {
	c, closeConn, err := open(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer closeConn()
	if _, err := c.Write([]byte{modeEcho}); err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(d + 30*time.Second)); err != nil {
		return nil, err
	}
	b := make([]byte, size)
	trip := func() error {
		if _, err := c.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(c, b)
		return err
	}
	for range 10 { // the way is open and warm
		if err := trip(); err != nil {
			return nil, err
		}
	}
	var took []float64
	for begin := time.Now(); len(took) == 0 || time.Since(begin) < d; {
		t := time.Now()
		if err := trip(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(t).Seconds())
	}
	return took, nil
}

// once opens a connection, exchanges 1 KiB each way, and closes it.
func once(ctx context.Context, addr string) error {
	c, closeConn, err := open(ctx, addr)
	if err != nil {
		return err
	}
	defer closeConn()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	b := make([]byte, onceSize)
	b[0] = modeOnce
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err = io.ReadFull(c, b)
	return err
}

// rounds is what repeating an act came to: how long each took in seconds, how many failed, and the first failure.
type rounds struct {
	took    []float64
	failed  int
	err     error
	seconds float64
}

// repeat does act again and again for d, n at a time, and at least n times. An act that fails is counted; more than one in a hundred is an error.
func repeat(ctx context.Context, n int, d time.Duration, act func(worker int) error) (*rounds, error) {
	all := make([]rounds, n)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r := &all[i]
			for first := true; first || time.Since(begin) < d && ctx.Err() == nil; first = false {
				t := time.Now()
				if err := act(i); err != nil {
					r.failed++
					if r.err == nil {
						r.err = err
					}
					if r.failed > 10 && r.failed > len(r.took) {
						return
					}
					continue
				}
				r.took = append(r.took, time.Since(t).Seconds())
			}
		})
	}
	wg.Wait()
	sum := &rounds{seconds: time.Since(begin).Seconds()}
	for i := range all {
		sum.took = append(sum.took, all[i].took...)
		sum.failed += all[i].failed
		if sum.err == nil {
			sum.err = all[i].err
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if sum.failed*100 > len(sum.took) {
		return nil, fmt.Errorf("%d of %d failed, the first: %w", sum.failed, sum.failed+len(sum.took), sum.err)
	}
	return sum, nil
}

// keepAlive is one HTTP/1.1 connection that asks again and again.
type keepAlive struct {
	c     net.Conn
	r     *bufio.Reader
	close func()
}

var question = []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")

func (k *keepAlive) ask(ctx context.Context, addr string) error {
	if k.c == nil {
		c, closeConn, err := open(ctx, addr)
		if err != nil {
			return err
		}
		k.c, k.close, k.r = c, closeConn, bufio.NewReaderSize(c, 4<<10)
	}
	err := k.exchange()
	if err != nil {
		k.close()
		k.c = nil
	}
	return err
}

func (k *keepAlive) exchange() error {
	if _, err := k.c.Write(question); err != nil {
		return err
	}
	status, err := k.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("the service answered %q", status)
	}
	length := -1
	for {
		line, err := k.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(v)); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("the service's answer has no length")
	}
	_, err = k.r.Discard(length)
	return err
}

// httpKeepAlive asks a web service on n connections for d.
func httpKeepAlive(ctx context.Context, addr string, n int, d time.Duration) (*rounds, error) {
	conns := make([]keepAlive, n)
	defer func() {
		for i := range conns {
			if conns[i].c != nil {
				conns[i].close()
			}
		}
	}()
	return repeat(ctx, n, d, func(i int) error { return conns[i].ask(ctx, addr) })
}

// quantile sorts s and gives its q-th part; NaN-free, for s must not be empty.
func quantile(s []float64, q float64) float64 {
	slices.Sort(s)
	return s[min(len(s)-1, int(q*float64(len(s))))]
}
