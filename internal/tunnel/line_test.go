package tunnel

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// named is a connection for the line alone.
type named struct {
	net.Conn
	name string
}

func source(n byte) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 32) }

func anybody(netip.Prefix) bool { return true }

func (l *line) names(now time.Time, admits func(netip.Prefix) bool) (got []string) {
	for {
		w, _, ok := l.first(now, admits)
		if !ok {
			return got
		}
		got = append(got, w.conn.(named).name)
	}
}

func TestLineServesSourcesInTurn(t *testing.T) {
	l, now := line{of: map[netip.Prefix][]waiting{}}, time.Now()
	join := func(name string, from byte) {
		if r := l.join(named{name: name}, source(from), now, 100, time.Minute); r != nil {
			t.Errorf("%s was refused", r.(named).name)
		}
	}
	for _, name := range []string{"a1", "a2", "a3", "a4"} {
		join(name, 1)
	}
	join("b1", 2)
	join("c1", 3)
	join("c2", 3)
	full := func(s netip.Prefix) bool { return s != source(3) }
	if got := l.names(now, full); !slices.Equal(got, []string{"a1", "b1", "a2", "a3", "a4"}) {
		t.Errorf("got %v", got)
	}
	join("a5", 1)
	if got := l.names(now, anybody); !slices.Equal(got, []string{"c1", "a5", "c2"}) && !slices.Equal(got, []string{"c1", "c2", "a5"}) {
		t.Errorf("got %v", got)
	}
	if l.n != 0 || len(l.of) != 0 || len(l.order) != 0 {
		t.Errorf("left: %+v", l)
	}
}

// D7: a flood from one address fills the line, and whoever comes from elsewhere still finds a place.
func TestFullLineRefusesWhoHasMost(t *testing.T) {
	l, now := line{of: map[netip.Prefix][]waiting{}}, time.Now()
	for range 10 {
		l.join(named{name: "flood"}, source(1), now, 10, time.Minute)
	}
	if r := l.join(named{name: "more"}, source(1), now, 10, time.Minute); r == nil || r.(named).name != "more" {
		t.Errorf("refused: %v", r)
	}
	for range 4 {
		if r := l.join(named{name: "honest"}, source(2), now, 10, time.Minute); r == nil || r.(named).name != "flood" {
			t.Errorf("refused: %v", r)
		}
	}
	if l.n != 10 || len(l.of[source(1)]) != 6 || len(l.of[source(2)]) != 4 {
		t.Errorf("%d wait, %d and %d", l.n, len(l.of[source(1)]), len(l.of[source(2)]))
	}
	if got := l.names(now, anybody); got[1] != "honest" {
		t.Errorf("got %v", got)
	}
}

func TestLineRefusesEarlyWhoWouldWaitTooLong(t *testing.T) {
	l, now := line{of: map[netip.Prefix][]waiting{}}, time.Now()
	l.join(named{}, source(1), now, 1000, time.Second)
	for range 50 { // one in 100 ms
		l.join(named{}, source(1), now, 1000, time.Second)
		now = now.Add(100 * time.Millisecond)
		l.first(now, anybody)
	}
	waits := 0
	for range 100 {
		if l.join(named{}, source(1), now, 1000, time.Second) == nil {
			waits++
		}
	}
	if waits < 8 || waits > 12 {
		t.Errorf("%d wait where 10 can be served in time", waits)
	}
	// Somebody from elsewhere is next but one.
	if l.join(named{name: "other"}, source(2), now, 1000, time.Second) != nil {
		t.Error("another source was refused")
	}
	if got := l.sweep(now.Add(time.Second), time.Second); len(got) != waits+2 || l.n != 0 || len(l.order) != 0 {
		t.Errorf("%d were let go, %d are left", len(got), l.n)
	}
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := turns{free: 1}
		never := make(chan struct{})
		if !s.take(never, classTunnel) {
			t.Fatal("no turn")
		}
		var mu sync.Mutex
		var got []int
		wait := func(class int, n int) {
			for range n {
				go func() {
					if !s.take(never, class) {
						t.Error("no turn")
					}
					mu.Lock()
					got = append(got, class)
					mu.Unlock()
					s.give()
				}()
				synctest.Wait()
			}
		}
		wait(classTunnel, 3)
		wait(classBegun, 10)
		gone := make(chan struct{})
		go func() {
			if s.take(gone, classBegun) {
				t.Error("who left got a turn")
			}
		}()
		synctest.Wait()
		close(gone)
		synctest.Wait()
		s.give()
		synctest.Wait()
		// Those under way first, yet one of eight is a tunnel's.
		if want := []int{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if s.free != 1 {
			t.Errorf("%d turns are free", s.free)
		}
	})
}

// A turn that comes in the same moment as the end of who waits for it is not lost.
func TestTurnsAreNotLost(t *testing.T) {
	s := turns{free: 2}
	var wg sync.WaitGroup
	for n := range 2000 {
		wg.Go(func() {
			done := make(chan struct{})
			if n%3 == 0 {
				time.AfterFunc(time.Duration(n%50)*time.Microsecond, func() { close(done) })
			}
			if s.take(done, n%2) {
				s.give()
			}
		})
	}
	wg.Wait()
	if s.free != 2 || s.queues[0].Len()+s.queues[1].Len() != 0 {
		t.Errorf("%d turns are free", s.free)
	}
}
