package sqldb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
)

var errFlood = errors.New("the server sent more than a row may hold")

// tap is the network connection under a driver that bounds nothing itself. It stops a server that sends a row without end,
// and lets a session be cut off whatever the driver waits for.
type tap struct {
	net.Conn
	head  []byte       // read already, before the driver
	left  atomic.Int64 // bytes that may still come before the next refill
	flood atomic.Bool  // more did
	write func(p []byte) error
}

func (t *tap) refill() { t.left.Store(MaxRowBytes + 1<<20) }

func (t *tap) Read(p []byte) (int, error) {
	if len(t.head) > 0 {
		n := copy(p, t.head)
		t.head = t.head[n:]
		return n, nil
	}
	left := t.left.Load()
	if left <= 0 {
		t.flood.Store(true)
		_ = t.Conn.Close()
		return 0, errFlood
	}
	n, err := t.Conn.Read(p[:min(int64(len(p)), left)])
	t.left.Add(-int64(n))
	return n, err
}

func (t *tap) Write(p []byte) (int, error) {
	if t.write != nil {
		if err := t.write(p); err != nil {
			_ = t.Conn.Close()
			return 0, err
		}
	}
	return t.Conn.Write(p)
}

// tapper dials the profile's own host and port, and nothing else: a server may tell a driver to go elsewhere.
type tapper struct {
	cfg   *Config
	write func(p []byte) error                // looks at what the driver writes
	greet func(conn net.Conn) ([]byte, error) // reads and checks what the server says first

	mu   sync.Mutex
	last *tap
}

func (t *tapper) HostName() string { return t.cfg.Host } // tells go-mssqldb to leave the name to DialContext

func (t *tapper) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	if own := net.JoinHostPort(t.cfg.Host, strconv.Itoa(t.cfg.Port)); addr != own {
		return nil, fmt.Errorf("the server redirects to another address, which the profile does not name")
	}
	conn, err := t.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &tap{Conn: conn, write: t.write}
	if t.greet != nil {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		c.head, err = t.greet(conn)
		stop()
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	c.refill()
	t.mu.Lock()
	t.last = c
	t.mu.Unlock()
	return c, nil
}

func (t *tapper) conn() *tap {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// cut closes the connection; drivers that wait for something then fail.
func (t *tapper) cut() {
	if c := t.conn(); c != nil {
		_ = c.Conn.Close()
	}
}
