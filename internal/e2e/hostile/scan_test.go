//go:build linux

package hostile_test

import (
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
)

// portScan opens as many denied dials as the tunnel takes for five seconds. The agent must slow it down, keep its memory
// and processor, write few events, and tell in them how many there were.
func (l *lan) portScan(t *testing.T) {
	tun := l.relay.tunnel(t, l.id)
	before := len(l.events(t))
	cpu, started := l.cpu(t), time.Now()
	var asked, answered atomic.Int64
	var wg sync.WaitGroup
	room := make(chan struct{}, 800)
	for until := started.Add(5 * time.Second); time.Now().Before(until); {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			st, err := tun.Open(t.Context())
			if err != nil {
				return
			}
			defer st.Close()
			n := asked.Add(1)
			_ = st.SetDeadline(time.Now().Add(30 * time.Second))
			_, _ = io.WriteString(st, "POST /v1/tcp/-/dial?host=127.0.0.1&port="+strconv.FormatInt(n%60000+1024, 10)+" HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: fairlead-dial\r\n\r\n")
			b := make([]byte, 12)
			if _, err := io.ReadFull(st, b); err == nil && string(b) == "HTTP/1.1 403" {
				answered.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(started)
	used := l.cpu(t) - cpu
	if answered.Load() == 0 {
		t.Fatal("nothing was answered")
	}
	// Events are few, and their counts add up.
	sum := func() (n, events int64) {
		for _, e := range l.events(t)[before:] {
			if e.Kind != "operation.denied" {
				continue
			}
			events++
			if more, err := strconv.ParseInt(e.Detail["count"], 10, 64); err == nil {
				n += more
			} else {
				n++
			}
		}
		return n, events
	}
	testenv.Eventually(t, "all refusals are accounted for", func() bool { n, _ := sum(); return n >= answered.Load() })
	n, events := sum()
	rate := float64(asked.Load()) / took.Seconds()
	t.Logf("%d dials asked, %d answered in %s (%.0f/s), %d events for %d refusals, %s of processor (%.0f %%)", asked.Load(), answered.Load(), took.Round(time.Millisecond), rate, events, n, used, 100*used.Seconds()/took.Seconds())
	if n > asked.Load() {
		t.Errorf("%d refusals recorded, %d asked", n, asked.Load())
	}
	if most := 1000 + int64(52*took.Seconds()) + 10; events > most {
		t.Errorf("%d events in %s, want at most %d", events, took, most)
	}
	if most := 1050 + int64(255*took.Seconds()); answered.Load() > most {
		t.Errorf("%d dials were answered in %s, want at most %d", answered.Load(), took, most)
	}
	// 200 answers a second at a millisecond each would be 20 % of a processor, which the catalog wants. 190 to 260 µs were seen
	// for a refusal that is counted, 600 in the mean with those that are recorded, beside other work on two cores.
	if each := used / time.Duration(answered.Load()); each > time.Millisecond {
		t.Errorf("a refusal took %s of processor", each)
	}
	l.canary.silent(t, 0)
}
