package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// A load balancer that passes TCP on hides who connects to it. One that is on the list tells it in a header of the PROXY
// protocol, version 2 (haproxy.org, proxy-protocol.txt), before the first byte of TLS. The list is what makes the header
// worth something: of anybody else it would be a claim, so nobody else's is read. A balancer that leaves it out is refused, for
// its own address would stand for everybody's.

// proxySignature begins each header.
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// What a header says of itself, in its 13th and 14th byte.
const (
	proxyLocal = 0x20 // version 2: the balancer speaks for itself, mostly to see whether anybody is there
	proxyFor   = 0x21 // version 2: it speaks for somebody
	proxyTCP4  = 0x11
	proxyTCP6  = 0x21
)

// proxied is a connection whose peer, a load balancer, has said whom it speaks for.
type proxied struct {
	net.Conn
	source net.Addr
	spent  time.Duration // of the handshake's time, on the header
}

func (p *proxied) RemoteAddr() net.Addr { return p.source }

// NetConn is the socket, for who sets its options.
func (p *proxied) NetConn() net.Conn { return p.Conn }

func (p *proxied) CloseWrite() error {
	if c, ok := p.Conn.(halfCloser); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// spent is what of its handshake's time a connection has used up before it.
func spent(c net.Conn) time.Duration {
	if p, ok := c.(*proxied); ok {
		return p.spent
	}
	return 0
}

// isBalancer reports whether a connection must begin with a header.
func (m *Mux) isBalancer(conn net.Conn) bool {
	if len(m.cfg.ProxyProtocol) == 0 {
		return false
	}
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return false
	}
	peer := at.Addr().Unmap().WithZone("")
	for _, p := range m.cfg.ProxyProtocol {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}

// behind reads a balancer's header and puts the connection in line for its handshake, under the address that stands there.
func (m *Mux) behind(p *pending) {
	err := p.conn.SetReadDeadline(m.until(p))
	var source netip.AddrPort
	if err == nil {
		source, err = readProxyHeader(p.conn, m.cfg.MaxProxyHeader)
	}
	c := &proxied{Conn: p.conn, source: p.conn.RemoteAddr()}
	if source.IsValid() {
		c.source = net.TCPAddrFromAddrPort(source)
	}
	m.mu.Lock()
	cut := p.all == nil // it hung, or the end has come
	m.release(p)
	if err != nil || cut {
		var op *net.OpError
		health := errors.Is(err, io.EOF) || errors.As(err, &op) && !op.Timeout() // it looked whether anybody is there, and left
		warn := !cut && !health && time.Since(m.warned) >= warnHeaders
		if warn {
			m.warned = time.Now()
		}
		m.mu.Unlock()
		_ = p.conn.Close()
		if m.cfg.Logger.Debug("PROXY header", "from", c.RemoteAddr().String(), "err", err); warn {
			m.cfg.Logger.Warn("a load balancer's connection is refused: it must begin with a header of the PROXY protocol, version 2 (told once a minute)",
				"from", c.RemoteAddr().String(), "err", err)
		}
		return
	}
	c.spent = time.Since(p.since)
	// In one step: Serve's end finds the connection in one of the books.
	refused := m.join(&m.hands, c)
	m.mu.Unlock()
	m.joined(refused)
}

// warnHeaders is between two warnings of a balancer that is set up wrongly: each of its connections would give one.
const warnHeaders = time.Minute

// readProxyHeader reads a header and not a byte more. It gives whom the balancer speaks for; the zero value: for itself. io.EOF
// says that nothing came at all.
func readProxyHeader(r io.Reader, most int) (source netip.AddrPort, err error) {
	var h [len(proxySignature) + 4]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return source, fmt.Errorf("read the PROXY header: %w", err)
	}
	what, family := h[12], h[13]
	n := int(binary.BigEndian.Uint16(h[14:]))
	addr := 4
	switch {
	case string(h[:12]) != proxySignature:
		return source, errors.New("no PROXY header of version 2 where one must be: have the load balancer send it, or take its address off the list")
	case what != proxyLocal && what != proxyFor:
		return source, fmt.Errorf("PROXY header of version %d, command %d; version 2 with LOCAL or PROXY is read", what>>4, what&15)
	case n > most:
		return source, fmt.Errorf("PROXY header with %d bytes of addresses and extensions; at most %d are read", n, most)
	case what == proxyLocal: // whatever family and addresses say
	case family == proxyTCP6:
		addr = 16
	case family != proxyTCP4:
		return source, fmt.Errorf("PROXY header of family and transport %#x; TCP over IPv4 (0x11) and IPv6 (0x21) are read", family)
	}
	if what == proxyFor && n < 2*addr+4 {
		return source, fmt.Errorf("PROXY header with %d bytes of addresses; there must be %d", n, 2*addr+4)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return source, fmt.Errorf("read the addresses of the PROXY header: %w", noEnd(err))
	}
	if what == proxyLocal {
		return source, nil
	}
	a, _ := netip.AddrFromSlice(b[:addr]) // cannot fail: 4 or 16 bytes
	if a = a.Unmap(); a.IsUnspecified() || a.IsMulticast() {
		return source, fmt.Errorf("PROXY header with source %s, from where nobody connects", a)
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[2*addr:])), nil
}

// noEnd keeps an end within a header apart from one before it.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
