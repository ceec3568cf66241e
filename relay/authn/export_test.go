package authn

import (
	"net/netip"
	"time"
)

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

// Hold takes all places at the slow hash of passwords until the function is called.
func (p *People) Hold() (release func()) {
	for range cap(p.slow) {
		p.slow <- struct{}{}
	}
	return func() {
		for range cap(p.slow) {
			<-p.slow
		}
	}
}

// Forget drops all failed attempts but those of codes.
func (p *People) Forget() {
	p.att.mu.Lock()
	defer p.att.mu.Unlock()
	for k := range p.att.of {
		if !k.code {
			delete(p.att.of, k)
		}
	}
}

// Try counts an attempt, and Tracked what is remembered.
func (p *People) Try(account string, from netip.Addr) (wait time.Duration) {
	_, wait, _ = p.att.begin(account, from, false, time.Now())
	return wait
}

// Tracked is how many accounts, networks and pairs are remembered.
func (p *People) Tracked() int {
	p.att.mu.Lock()
	defer p.att.mu.Unlock()
	return len(p.att.of)
}
