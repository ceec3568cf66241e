package tunnel

// A ping stands behind what was sent before it. On a narrow line that can take longer than a ping may, and nobody is dead:
// the peer's kernel goes on taking bytes, and has some to take yet. One whose process hangs, or whom no byte reaches, is told
// from that: its kernel takes no more, or has taken all and nothing came back.

// mark is how far a connection was at some moment.
type mark struct {
	rx    int64
	acked uint64
}

func (t *session) mark() mark {
	acked, _, _ := sent(t.raw)
	return mark{t.wire.lastRx.Load(), acked}
}

// moves reports whether something came since m, or what was sent before still arrives.
func (t *session) moves(m mark) bool {
	if t.wire.lastRx.Load() > m.rx {
		return true
	}
	acked, more, ok := sent(t.raw)
	return ok && more && acked > m.acked
}
