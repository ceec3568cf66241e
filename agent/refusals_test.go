package agent

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A28: in a flood few refusals are recorded one by one, and none is lost from the count.
func TestFloodOfRefusalsIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards told: each summary comes from a timer's goroutine
		var told []int64
		r := newRefusals(func(n int64) { mu.Lock(); defer mu.Unlock(); told = append(told, n) })
		alone := 0
		for range 10 * 1000 { // ten seconds of a thousand a second
			if r.admit() {
				alone++
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		var counted int64
		for _, n := range told {
			counted += n
		}
		if int64(alone)+counted != 10_000 {
			t.Errorf("%d alone and %d counted of 10000", alone, counted)
		}
		if alone < refusalBurst || alone > refusalBurst+10*refusalRate+1 {
			t.Errorf("%d recorded one by one", alone)
		}
		if len(told) < 8 || len(told) > 11 {
			t.Errorf("%d summaries in ten seconds", len(told))
		}
		// After the flood each is recorded again, and nothing more is told.
		n := len(told)
		mu.Unlock()
		time.Sleep(time.Minute)
		admitted := r.admit()
		r.flush()
		mu.Lock()
		if !admitted || len(told) != n {
			t.Error("the flood is over and it still counts")
		}
	})
}
