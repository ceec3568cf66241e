package gateway

import (
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// lossy is a tunnel whose streams give what a lane's gave once when the peer was gone, while losing.on is set.
type lossy struct{ tunnel.Tunnel }

func (l lossy) Open(ctx context.Context) (tunnel.Stream, error) {
	s, err := l.Tunnel.Open(ctx)
	if err != nil {
		return nil, err
	}
	return lossyStream{s}, nil
}

type lossyStream struct{ tunnel.Stream }

var losing struct {
	sync.Mutex
	on bool
}

func (s lossyStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	losing.Lock()
	defer losing.Unlock()
	if losing.on {
		return 0, os.ErrDeadlineExceeded
	}
	return n, err
}

// A client never takes the loss of its stream for the end of its data, whatever the stream calls it: what cannot sleep has no deadline
// of ours.
func TestLossOfTheStreamIsNoEndOfData(t *testing.T) {
	g := newRig(t, directory.GatewayPlain, nil)
	c := g.dial()
	must(t, echoes(c))
	set := func(on bool) {
		losing.Lock()
		losing.on = on
		losing.Unlock()
	}
	set(true)
	defer set(false)
	_, _ = io.WriteString(c, "ping")
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("%d bytes and a clean end", len(b))
	}
}

// A panic in the relay is a failure of the dial, and is recorded as one.
func TestPanicOfADialIsNoSuccess(t *testing.T) {
	ended := make(chan audit.Event, 9)
	g := newRig(t, directory.GatewayPlain, func(c *Config) {
		rec := c.Dispatch.Record
		c.Dispatch.Record = func(ev audit.Event) (*audit.Ticket, error) {
			t, err := rec(ev)
			switch ev.Kind {
			case audit.KindIntent:
				return nil, err // to wait for it panics
			case audit.KindOutcome:
				ended <- ev
			}
			return t, err
		}
	})
	c := g.dial()
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadAll(c); err == nil {
		t.Error("the client sees a clean end")
	}
	select {
	case ev := <-ended:
		if ev.Status != "failed" || ev.Code != "internal" {
			t.Errorf("recorded as %s, %q", ev.Status, ev.Code)
		}
	case <-time.After(20 * time.Second):
		t.Error("no outcome")
	}
}
