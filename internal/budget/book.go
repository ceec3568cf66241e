package budget

import "sync"

// Book holds budgets by a key. The zero value is ready; it is safe for concurrent use.
type Book struct {
	mu sync.RWMutex // guards of
	of map[string]*Budget
	// gone sums what was counted by budgets that were forgotten, so that counters never go back.
	gone map[string]Counts
}

// Get gives the budget of a key, without limits when it is new. what and rule are those of New.
func (k *Book) Get(key, what, rule string) *Budget {
	k.mu.RLock()
	b := k.of[key]
	k.mu.RUnlock()
	if b != nil {
		return b
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if b = k.of[key]; b == nil {
		if k.of == nil {
			k.of = map[string]*Budget{}
		}
		b = New(what, rule)
		k.of[key] = b
	}
	return b
}

// Keep forgets the budgets whose keys are not kept. What runs in one goes on, and is counted there.
func (k *Book) Keep(keep func(key string) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, b := range k.of {
		if keep(key) {
			continue
		}
		b.Set(Limits{}) // who waits need not any more
		c := b.Counts()
		c.Running, c.Today = 0, 0
		if k.gone == nil {
			k.gone = map[string]Counts{}
		}
		sum := k.gone[b.what]
		sum.Add(c)
		k.gone[b.what] = sum
		delete(k.of, key)
	}
}

// Sums adds up the counts of all budgets of one kind: those whose what is the one given.
func (k *Book) Sums(what string) Counts {
	k.mu.RLock()
	defer k.mu.RUnlock()
	sum := k.gone[what]
	for _, b := range k.of {
		if b.what == what {
			sum.Add(b.Counts())
		}
	}
	return sum
}

// Find gives the budget of a key, nil when there is none.
func (k *Book) Find(key string) *Budget {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.of[key]
}

// Each calls f with every budget.
func (k *Book) Each(f func(key string, b *Budget)) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for key, b := range k.of {
		f(key, b)
	}
}
