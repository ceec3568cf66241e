package authn

// Hold takes one place at the slow hash until the function is called.
func (a *Authenticator) Hold() (release func()) {
	a.slow <- struct{}{}
	return func() { <-a.slow }
}

// Known is how many tokens are remembered.
func (a *Authenticator) Known() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.known)
}
