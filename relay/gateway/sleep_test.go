package gateway

import (
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// sleeping waits until so many conns wait for their client without a buffer.
func sleeping(t *testing.T, want int) {
	t.Helper()
	if runtime.GOOS == "windows" {
		return
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for b := make([]byte, 1<<20); strings.Count(string(b[:runtime.Stack(b, true)]), "splice.awaitSocket.func") < want; {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("the conns do not fall asleep")
		}
	}
}

// A conn that sleeps is open as any other: it carries what comes, is counted, and what would cut it does, with its outcome recorded.
func TestASleepingConnIsCut(t *testing.T) {
	g := newRig(t, directory.GatewayPlain, nil)
	var conns []net.Conn
	for range 3 {
		c := g.dial()
		must(t, echoes(c))
		conns = append(conns, c)
	}
	sleeping(t, len(conns))
	for _, c := range conns {
		must(t, echoes(c))
	}
	if n := g.m.Counts().Conns; n != len(conns) {
		t.Errorf("%d conns are counted", n)
	}
	sleeping(t, len(conns))
	g.stop() // cuts all, and waits for them
	for _, c := range conns {
		if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("a conn was cut by a clean end: %v", err)
		}
	}
	if n := g.outcomes(); n != len(conns) {
		t.Errorf("%d outcomes are recorded", n)
	}
}

// A conn whose client and target both stand still is cut as well: nobody reads, so nothing but the cut can end the writes.
func TestAStuckConnIsCut(t *testing.T) {
	g := newRig(t, directory.GatewayPlain, nil)
	c := g.dial()
	must(t, echoes(c))
	_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
	if n, err := io.Copy(c, zeros{}); err == nil {
		t.Fatalf("the echo of %d bytes that nobody reads was taken", n)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); g.stop() }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("a stuck conn keeps the relay from stopping")
	}
	if n := g.outcomes(); n != 1 {
		t.Errorf("%d outcomes are recorded", n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func (g *rig) outcomes() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ev := range g.events {
		if ev.Kind == audit.KindOutcome {
			n++
		}
	}
	return n
}
