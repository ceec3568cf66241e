package budget

import (
	"sync"
	"time"
)

// Flood decides which of many like facts are told one by one: Burst at once and Rate a second for long, for each key. The
// others are counted, and Take gives the counts. It is safe for concurrent use; its fields are not changed after the first use.
type Flood struct {
	Rate, Burst float64

	mu sync.Mutex // guards of
	of map[string]*allowance
}

// allowance is what a key has left.
type allowance struct {
	tokens  float64
	last    time.Time
	skipped int64
}

// Admit reports whether a fact about key shall be told by itself. One that is not stands in the next Take.
func (f *Flood) Admit(key string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = map[string]*allowance{}
	}
	a := f.of[key]
	if a == nil {
		a = &allowance{tokens: f.Burst, last: now}
		f.of[key] = a
	}
	a.tokens = min(f.Burst, a.tokens+f.Rate*now.Sub(a.last).Seconds())
	a.last = now
	if a.tokens < 1 {
		a.skipped++
		return false
	}
	a.tokens--
	return true
}

// Take gives what was counted since the last time, and forgets keys that are at rest.
func (f *Flood) Take(now time.Time) map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out map[string]int64
	for key, a := range f.of {
		if a.skipped > 0 {
			if out == nil {
				out = map[string]int64{}
			}
			out[key] = a.skipped
			a.skipped = 0
		} else if now.Sub(a.last).Seconds()*f.Rate > f.Burst {
			delete(f.of, key)
		}
	}
	return out
}

// Return gives back a count of Take that could not be told: the next Take has it.
func (f *Flood) Return(key string, n int64, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = map[string]*allowance{}
	}
	if f.of[key] == nil {
		f.of[key] = &allowance{tokens: f.Burst, last: now}
	}
	f.of[key].skipped += n
}
