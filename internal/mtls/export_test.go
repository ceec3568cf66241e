package mtls

// MaxLeaves is how many leaves a generation of a Verifier's memory holds.
const MaxLeaves = maxLeaves

// Held tells how much v remembers.
func (v *Verifier) Held() (issuers, leaves int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.issuers), len(v.leaves) + len(v.before)
}
