package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// The target speaks a protocol of one letter, the first byte of each connection. 'G' is the beginning of an HTTP request.
const (
	modeDown = 'D' // it says that it is there with one byte, awaits one, and sends until the connection ends
	modeUp   = 'U' // it says that it is there, takes frames (length, bytes) up to an empty one, and answers with the number of bytes
	modeEcho = 'E' // it sends back what comes
	modeOnce = 'R' // it takes 1 KiB, the letter included, and gives 1 KiB
	modeHTTP = 'G'
)

// chunk is how much load is read and written at a time.
const chunk = 256 << 10

// onceSize is the size of the request and of the answer of modeOnce.
const onceSize = 1024

// targetOptions is the argument of the role "target".
type targetOptions struct{ Listen string }

// runTarget serves until ctx ends.
func runTarget(ctx context.Context, o targetOptions) error {
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return err
	}
	web := &handover{conns: make(chan net.Conn), addr: ln.Addr(), done: make(chan struct{})}
	body := []byte(strings.Repeat("0123456789abcdef", 8))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(web) })
	stop := context.AfterFunc(ctx, func() { ln.Close(); srv.Close() })
	defer stop()
	for {
		c, err := ln.Accept()
		if err != nil {
			wg.Wait()
			return ctx.Err()
		}
		wg.Go(func() {
			if err := serveTarget(c, web); !errors.Is(err, errHanded) {
				c.Close() // one left to the collector holds a lane until then
			}
		})
	}
}

var errHanded = errors.New("another serves it")

func serveTarget(c net.Conn, web *handover) error {
	var letter [1]byte
	if _, err := io.ReadFull(c, letter[:]); err != nil {
		return err
	}
	switch letter[0] {
	case modeDown:
		if err := present(c); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, letter[:]); err != nil {
			return err
		}
		b := make([]byte, chunk)
		for {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	case modeUp:
		if err := present(c); err != nil {
			return err
		}
		return swallow(c)
	case modeEcho:
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if err != nil {
				return err
			}
			if _, err := c.Write(b[:n]); err != nil {
				return err
			}
		}
	case modeOnce:
		var b [onceSize]byte
		if _, err := io.ReadFull(c, b[1:]); err != nil {
			return err
		}
		if _, err := c.Write(b[:]); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, c) // the client closes first
		return errors.Join(err, c.Close())
	case modeHTTP:
		select {
		case web.conns <- &begun{Conn: c, first: letter[:]}:
			return errHanded
		case <-web.done:
			return net.ErrClosed
		}
	}
	return fmt.Errorf("unknown letter %q", letter[0])
}

func present(c net.Conn) error { _, err := c.Write([]byte{'.'}); return err }

// swallow reads frames and answers with the number of bytes of all, their heads included.
func swallow(c net.Conn) error {
	r := bufio.NewReaderSize(c, chunk)
	var total uint64
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[:])
		total += 4 + uint64(n)
		if n == 0 {
			return binary.Write(c, binary.BigEndian, total)
		}
		if _, err := r.Discard(int(n)); err != nil {
			return err
		}
	}
}

// handover is a listener of connections that somebody else has accepted.
type handover struct {
	conns chan net.Conn
	addr  net.Addr
	done  chan struct{}
	once  sync.Once
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error   { h.once.Do(func() { close(h.done) }); return nil }
func (h *handover) Addr() net.Addr { return h.addr }

// begun is a connection whose first byte was read already.
type begun struct {
	net.Conn
	first []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}
