package agent

import (
	"context"
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

// A28: in a flood answers wait, and leave no faster than answerRate; a caller who goes is not waited for.
func TestFloodOfRefusalsIsSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRefusals(func(int64) {})
		started := time.Now()
		var wg sync.WaitGroup
		for range 4 * answerRate {
			wg.Go(func() {
				if !r.wait(t.Context()) {
					t.Error("not answered")
				}
			})
		}
		wg.Wait()
		if took := time.Since(started); took < 4*time.Second-time.Millisecond || took > 4*time.Second+time.Millisecond {
			t.Errorf("%d answers in %s", 4*answerRate, took)
		}
		started = time.Now()
		for range 20 * answerRate { // more than answerLatest is good for
			wg.Go(func() { r.wait(t.Context()) })
		}
		wg.Wait()
		if took := time.Since(started); took > answerLatest {
			t.Errorf("an answer came after %s", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range answerRate {
			wg.Go(func() { r.wait(t.Context()) })
		}
		synctest.Wait()
		if r.wait(ctx) {
			t.Error("answered to nobody")
		}
		wg.Wait()
	})
}
