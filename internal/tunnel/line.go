package tunnel

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// line holds connections that were accepted while there is no room for their handshake: a descriptor each, and no goroutine.
// Sources take turns, each in the order of arrival, so that a storm from one address does not keep out the others. Whoever
// would wait longer than peers do is refused at once instead, and knows it: see refuse.
type line struct {
	of    map[netip.Prefix][]waiting
	order []netip.Prefix // of whom comes next; each source that waits stands in it once
	n     int

	pace  time.Duration // between two that leave the line, smoothed
	moved time.Time     // when the last one left it, or it began
	swept time.Time     // when those who wait for too long were last looked for
}

type waiting struct {
	conn  net.Conn
	since time.Time
}

// join puts conn at the end of its source's queue. It gives the connection to refuse instead: conn itself if it would wait
// too long, or, in a full line, the newest of the source that waits with most.
func (l *line) join(conn net.Conn, source netip.Prefix, now time.Time, most int, patience time.Duration) (refused net.Conn) {
	own := l.of[source]
	sources := len(l.order)
	if own == nil {
		sources++
	}
	if l.n > 0 && time.Duration(min(l.n, len(own)*sources))*l.pace > patience {
		return conn
	}
	if l.n >= most {
		greatest := source
		for _, s := range l.order {
			if len(l.of[s]) > len(l.of[greatest]) {
				greatest = s
			}
		}
		if len(l.of[greatest]) <= len(own)+1 {
			return conn
		}
		q := l.of[greatest]
		refused = q[len(q)-1].conn
		l.of[greatest] = q[:len(q)-1]
		l.n--
	}
	if own == nil {
		l.order = append(l.order, source)
	}
	if l.n == 0 {
		l.moved = now
	}
	l.of[source] = append(own, waiting{conn, now})
	l.n++
	return refused
}

// first is whose turn it is, among the sources for which admits is true.
func (l *line) first(now time.Time, admits func(netip.Prefix) bool) (w waiting, source netip.Prefix, ok bool) {
	for i, s := range l.order {
		if !admits(s) {
			continue
		}
		q := l.of[s]
		w = q[0]
		copy(l.order[i:], l.order[i+1:])
		l.order = l.order[:len(l.order)-1]
		if len(q) > 1 {
			l.of[s] = q[1:]
			l.order = append(l.order, s)
		} else {
			delete(l.of, s)
		}
		l.n--
		l.pace += (now.Sub(l.moved) - l.pace) / 8
		l.moved = now
		return w, s, true
	}
	return w, source, false
}

// sweep takes out those who have waited too long, whether there will be room or not. It looks ten times a second at most.
func (l *line) sweep(now time.Time, patience time.Duration) (late []net.Conn) {
	if now.Sub(l.swept) < sweepLine {
		return nil
	}
	l.swept = now
	order := l.order[:0]
	for _, s := range l.order {
		q := l.of[s]
		for len(q) > 0 && now.Sub(q[0].since) >= patience {
			late = append(late, q[0].conn)
			q = q[1:]
			l.n--
		}
		if l.of[s] = q; len(q) == 0 {
			delete(l.of, s)
			continue
		}
		order = append(order, s)
	}
	l.order = order
	return late
}

const sweepLine = 100 * time.Millisecond

// all takes everybody out.
func (l *line) all() (conns []net.Conn) {
	for _, q := range l.of {
		for _, w := range q {
			conns = append(conns, w.conn)
		}
	}
	clear(l.of)
	l.order, l.n = nil, 0
	return conns
}

// busy is a TLS alert, internal_error, as a server sends it that cannot go on.
var busy = []byte{21, 3, 3, 0, 2, 2, 80}

// refuse ends a connection whose handshake has not begun, so that the peer sees that the relay is there and has no time: it
// need not look for another way, and can come again later.
func refuse(conn net.Conn) {
	_ = conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)) // 7 bytes into an empty buffer
	_, _ = conn.Write(busy)
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	_ = conn.Close()
}

// arrive puts a connection in line: that of load balancers' headers, or that of handshakes.
func (m *Mux) arrive(conn net.Conn) {
	g := &m.hands
	if m.isBalancer(conn) {
		g = &m.heads
	}
	m.mu.Lock()
	refused := m.join(g, conn)
	m.mu.Unlock()
	m.joined(refused)
}

// join puts a connection in line and gives the one to refuse for it, if any; joined must follow. m.mu is held.
func (m *Mux) join(g *gate, conn net.Conn) (refused net.Conn) {
	return g.line.join(conn, sourceOf(conn), time.Now(), m.cfg.MaxWaiting, m.cfg.HandshakeWait)
}

func (m *Mux) joined(refused net.Conn) {
	if refused != nil {
		m.cfg.Logger.Debug("too many handshakes wait; refused", "from", refused.RemoteAddr().String())
		refuse(refused)
	}
	nudge(m.arrived)
}

// usher begins the handshakes of those who wait, as there is room, until ctx ends.
func (m *Mux) usher(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		m.mu.Lock()
		freed := m.freed
		heads, late, next := m.callIn(&m.heads, time.Now())
		hands, more, soon := m.callIn(&m.hands, time.Now())
		m.mu.Unlock()
		for _, p := range heads {
			m.tasks.Go(func() { m.behind(p) })
		}
		for _, p := range hands {
			m.tasks.Go(func() { m.handshake(ctx, p) })
		}
		for _, conn := range append(late, more...) {
			refuse(conn)
		}
		timer.Reset(min(next, soon))
		select {
		case <-ctx.Done():
			return
		case <-m.arrived:
		case <-freed:
		case <-timer.C:
		}
	}
}

// callIn takes from the line those for whom there is room, and those who have waited too long. next is when to look again
// even if nothing happens: a handshake may have hung for so long by then that it makes way. m.mu is held.
func (m *Mux) callIn(g *gate, now time.Time) (began []*pending, late []net.Conn, next time.Duration) {
	late = g.line.sweep(now, m.cfg.HandshakeWait)
	if g.line.n == 0 {
		return nil, late, time.Hour
	}
	next = sweepLine
	for g.line.n > 0 {
		if ok, in := m.makeRoom(g.pending, m.cfg.MaxHandshakes, now); !ok {
			return began, late, min(next, in)
		}
		w, source, ok := g.line.first(now, func(s netip.Prefix) bool {
			of := g.sources[s]
			if of == nil {
				return true
			}
			// A site whose agents all begin at once would have them wait for each other, and look as if they hung.
			ok, in := m.makeRoom(of, min(m.cfg.MaxHandshakesPerSource, m.cfg.HandshakesAtOnce), now)
			if !ok {
				next = min(next, in)
			}
			return ok
		})
		if !ok {
			return began, late, next
		}
		p := &pending{conn: w.conn, gate: g, source: source}
		p.enter(now)
		began = append(began, p)
	}
	return began, late, next
}
