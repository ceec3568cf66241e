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
	owner   string // whose room it takes …
	site    string // … and the wider measure of it
	session string // that alone may answer it
	data    webauthn.SessionData

	id                  string
	until               time.Time
	at, ofOwner, ofSite *list.Element
}

// pool holds open ceremonies, each for one answer, within bounds. Whatever it is asked costs the same however many are open: strangers
// decide how many there are.
type pool struct {
	max, perOwner, perSite int
	life                   time.Duration

	mu     sync.Mutex // guards the following
	byID   map[string]*ceremony
	order  *list.List            // of *ceremony, the oldest first
	owners map[string]*list.List // of *ceremony, the oldest first
	sites  sites
}

func newPool(most, perOwner, perSite int, life time.Duration) *pool {
	return &pool{max: most, perOwner: perOwner, perSite: perSite, life: life, byID: map[string]*ceremony{}, order: list.New(), owners: map[string]*list.List{}, sites: sites{of: map[string]*site{}}}
}

// put opens a ceremony and gives its id, of 128 random bits and more. What is too much is closed: the oldest of the same owner or site,
// else of the site that has the most.
func (p *pool) put(c *ceremony) string {
	c.id = rand.Text()
	now := time.Now()
	c.until = now.Add(p.life)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(now)
	if l := p.owners[c.owner]; l != nil && l.Len() >= p.perOwner {
		p.drop(l.Front().Value.(*ceremony))
	}
	if s := p.sites.of[c.site]; s != nil && s.open.Len() >= p.perSite {
		p.drop(s.open.Front().Value.(*ceremony))
	}
	if len(p.byID) >= p.max {
		p.drop(p.sites.biggest().open.Front().Value.(*ceremony))
	}
	if p.owners[c.owner] == nil {
		p.owners[c.owner] = list.New()
	}
	c.at, c.ofOwner = p.order.PushBack(c), p.owners[c.owner].PushBack(c)
	p.sites.add(c)
	p.byID[c.id] = c
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
	delete(p.byID, c.id)
	p.order.Remove(c.at)
	l := p.owners[c.owner]
	if l.Remove(c.ofOwner); l.Len() == 0 {
		delete(p.owners, c.owner)
	}
	p.sites.remove(c)
}

// sites keeps what is open by site, and the sites by how many they have, so that the biggest is found without a search.
type sites struct {
	of   map[string]*site
	with []*list.List // of *site, by how many ceremonies each has
	most int          // of the biggest
}

type site struct {
	open *list.List // of *ceremony, the oldest first
	at   *list.Element
}

// add and remove change a site's number by one, so that the highest of all changes by one at most.
func (s *sites) add(c *ceremony) {
	h := s.of[c.site]
	if h == nil {
		h = &site{open: list.New()}
		s.of[c.site] = h
	}
	n := h.open.Len()
	if n > 0 {
		s.with[n].Remove(h.at)
	}
	c.ofSite = h.open.PushBack(c)
	s.put(h, n+1)
}

func (s *sites) remove(c *ceremony) {
	h := s.of[c.site]
	n := h.open.Len()
	s.with[n].Remove(h.at)
	h.open.Remove(c.ofSite)
	if n == 1 {
		delete(s.of, c.site)
	} else {
		s.put(h, n-1)
	}
	if n == s.most && s.with[n].Len() == 0 {
		s.most--
	}
}

func (s *sites) put(h *site, n int) {
	for len(s.with) <= n {
		s.with = append(s.with, list.New())
	}
	h.at, s.most = s.with[n].PushBack(h), max(s.most, n)
}

// biggest is the site that has the most, of several the one that has had so many for the longest. There must be one.
func (s *sites) biggest() *site { return s.with[s.most].Front().Value.(*site) }
