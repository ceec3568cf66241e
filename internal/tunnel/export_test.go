package tunnel

import "net"

// SpeakOnIdleLane sends what an agent never sends.
func SpeakOnIdleLane(l *Lane) error { return l.send(laneData, []byte("x")) }

// Held tells of a tunnel over yamux what its streams hold of the budget, and what credit is held back.
func Held(t Tunnel) (floors, lent, withheld int64) {
	w := t.(*session).wire
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.floors, w.lent, w.withheld
}

// LaneSocket is the connection that a lane stands on.
func LaneSocket(l *Lane) *net.TCPConn {
	c, _ := socket(l.raw)
	return c
}
