package tunnel

// SpeakOnIdleLane sends what an agent never sends.
func SpeakOnIdleLane(l *Lane) error { return l.send(laneData, []byte("x")) }
