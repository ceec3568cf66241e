package directory

// HoldProofs lets certificates that are to be proven wait until release.
func HoldProofs(d *Directory) (waiting func() int, release func()) {
	d.proofs.turn.Lock()
	return func() int {
		d.proofs.mu.Lock()
		defer d.proofs.mu.Unlock()
		return len(d.proofs.waiting)
	}, d.proofs.turn.Unlock
}
