package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A bare pair is the least that two hops can be: an agent side keeps a pool of connections dialled to a relay side, which
// joins one of them to each client that comes. A pooled connection is used once, so no frame stands between the bytes. The
// plain pair splices in the kernel. The TLS pair authenticates both ends with TLS 1.3, reads 128 KiB under TLS, sends the
// records of one write with one system call and copies 64 KiB at a time.

// relayOptions is the argument of the role "pair-relay".
type relayOptions struct {
	Agents  string   // where the agent side dials to
	Clients []string // one listener for each target, in the agent's order
	Certs   string   // folder; "" is the plain pair
}

// agentOptions is the argument of the role "pair-agent".
type agentOptions struct {
	Relay   string
	Targets []string
	Certs   string
	Pool    int
}

const (
	pairRead = 128 << 10
	pairCopy = 64 << 10
)

// runPairRelay serves until ctx ends.
func runPairRelay(ctx context.Context, o relayOptions) error {
	var conf *tls.Config
	if o.Certs != "" {
		var err error
		if conf, err = pairTLS(o.Certs, "relay"); err != nil {
			return err
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pool := make(chan net.Conn, 256)
	listen := func(addr string, handle func(net.Conn)) error {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { ln.Close() })
		wg.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { handle(c) })
			}
		})
		return nil
	}
	err := listen(o.Agents, func(c net.Conn) {
		if conf != nil {
			under := &batched{Conn: c, r: bufio.NewReaderSize(c, pairRead)}
			t := tls.Server(under, conf)
			hctx, end := context.WithTimeout(ctx, 10*time.Second)
			err := t.HandshakeContext(hctx)
			end()
			if err != nil {
				c.Close()
				return
			}
			c = &secured{Conn: t, under: under}
		}
		select {
		case pool <- c:
		case <-ctx.Done():
			c.Close()
		}
	})
	if err != nil {
		return err
	}
	for i, addr := range o.Clients {
		err := listen(addr, func(client net.Conn) {
			select {
			case agent := <-pool:
				if _, err := agent.Write([]byte{byte(i)}); err != nil {
					agent.Close()
					client.Close()
					return
				}
				join(ctx, client, agent)
			case <-time.After(10 * time.Second):
				client.Close()
			case <-ctx.Done():
				client.Close()
			}
		})
		if err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// runPairAgent keeps the pool until ctx ends.
func runPairAgent(ctx context.Context, o agentOptions) error {
	var conf *tls.Config
	if o.Certs != "" {
		var err error
		if conf, err = pairTLS(o.Certs, "agent"); err != nil {
			return err
		}
	}
	var wg sync.WaitGroup
	for range o.Pool {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, target, err := await(ctx, o, conf)
				if err != nil {
					_ = wait(ctx, 50*time.Millisecond)
					continue
				}
				wg.Go(func() {
					t, err := dial(ctx, target)
					if err != nil {
						c.Close()
						return
					}
					join(ctx, t, c)
				})
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// await dials the relay side and waits until the connection is wanted, and for which target.
func await(ctx context.Context, o agentOptions, conf *tls.Config) (c net.Conn, target string, err error) {
	if c, err = dial(ctx, o.Relay); err != nil {
		return nil, "", err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	out := c
	if conf != nil {
		under := &batched{Conn: c, r: bufio.NewReaderSize(c, pairRead)}
		t := tls.Client(under, conf)
		if err := t.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, "", err
		}
		out = &secured{Conn: t, under: under}
	}
	var which [1]byte
	if _, err := io.ReadFull(out, which[:]); err != nil {
		c.Close()
		return nil, "", err
	}
	if int(which[0]) >= len(o.Targets) {
		c.Close()
		return nil, "", errors.New("the relay side names a target that is not there")
	}
	return out, o.Targets[which[0]], nil
}

// join copies both ways until both directions have ended.
func join(ctx context.Context, a, b net.Conn) {
	var once sync.Once
	end := func() { once.Do(func() { a.Close(); b.Close() }) }
	stop := context.AfterFunc(ctx, end)
	defer stop()
	defer end()
	one := func(dst, src net.Conn) {
		if copyConn(dst, src) != nil {
			end()
			return
		}
		if w, ok := dst.(interface{ CloseWrite() error }); !ok || w.CloseWrite() != nil {
			end()
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { one(b, a) })
	one(a, b)
	wg.Wait()
}

// copyConn splices where both ends are plain TCP, and copies through a buffer where one is TLS.
func copyConn(dst, src net.Conn) error {
	if d, ok := dst.(*net.TCPConn); ok {
		if s, ok := src.(*net.TCPConn); ok {
			_, err := d.ReadFrom(s)
			return err
		}
	}
	buf := make([]byte, pairCopy)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// secured is TLS over batched: the records of one Write go out together.
type secured struct {
	*tls.Conn
	under *batched
}

func (s *secured) Write(p []byte) (int, error) {
	s.under.hold()
	n, err := s.Conn.Write(p)
	return n, errors.Join(err, s.under.flush())
}

// batched reads ahead under TLS and collects writes between hold and flush.
type batched struct {
	net.Conn
	r *bufio.Reader

	mu   sync.Mutex // guards the fields below: TLS answers key updates while it reads
	out  []byte
	held bool
}

func (b *batched) Read(p []byte) (int, error) { return b.r.Read(p) }

func (b *batched) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.held {
		return b.Conn.Write(p)
	}
	b.out = append(b.out, p...)
	return len(p), nil
}

func (b *batched) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = true
}

func (b *batched) flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = false
	if len(b.out) == 0 {
		return nil
	}
	_, err := b.Conn.Write(b.out)
	b.out = b.out[:0]
	return err
}
