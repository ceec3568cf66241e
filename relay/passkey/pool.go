package passkey

import (
	"container/list"
	"crypto/rand"
	"sync"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
)

// ceremony is one that is open.
type ceremony struct {
	kind    Kind
	owner   string // whose room it takes
	session string // that alone may answer it
	data    webauthn.SessionData

	id    string
	until time.Time
	at    *list.Element
}

// pool holds open ceremonies, each for one answer, within bounds.
type pool struct {
	max, each int
	life      time.Duration

	mu    sync.Mutex // guards the following
	byID  map[string]*ceremony
	of    map[string]int // open ones of each owner
	order *list.List     // of *ceremony, the oldest first
}

func newPool(most, each int, life time.Duration) *pool {
	return &pool{max: most, each: each, life: life, byID: map[string]*ceremony{}, of: map[string]int{}, order: list.New()}
}

// put opens a ceremony and gives its id, of 128 random bits and more.
func (p *pool) put(c *ceremony) string {
	c.id = rand.Text()
	now := time.Now()
	c.until = now.Add(p.life)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(now)
	for e := p.order.Front(); e != nil && p.of[c.owner] >= p.each; {
		old := e.Value.(*ceremony)
		if e = e.Next(); old.owner == c.owner {
			p.drop(old)
		}
	}
	if len(p.byID) >= p.max {
		p.drop(p.order.Front().Value.(*ceremony))
	}
	c.at = p.order.PushBack(c)
	p.byID[c.id] = c
	p.of[c.owner]++
	return c.id
}

// take gives a ceremony once; nil when it is not open.
func (p *pool) take(id string) *ceremony {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(time.Now())
	c := p.byID[id]
	if c != nil {
		p.drop(c)
	}
	return c
}

// expire drops what has ended. p.mu is held.
func (p *pool) expire(now time.Time) {
	for e := p.order.Front(); e != nil && !now.Before(e.Value.(*ceremony).until); e = p.order.Front() {
		p.drop(e.Value.(*ceremony))
	}
}

// drop closes a ceremony. p.mu is held.
func (p *pool) drop(c *ceremony) {
	p.order.Remove(c.at)
	delete(p.byID, c.id)
	if p.of[c.owner]--; p.of[c.owner] == 0 {
		delete(p.of, c.owner)
	}
}
