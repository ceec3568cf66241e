package tunnel_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// veiled hides the socket: what the kernel knows of it cannot be seen, as on systems without TCP_INFO.
type veiled struct{ net.Conn }

// Where nothing is seen a lane ends when a frame is not taken for the time it may; a write that ends in time costs nothing.
func TestLaneWhoseRoadIsNotSeenEndsByItsWrite(t *testing.T) {
	const bound = 400 * time.Millisecond
	agent, relay := lanePairOf(t, tunnel.Config{LaneSilence: 80 * time.Millisecond, LaneWrite: bound}, func(c net.Conn) net.Conn { return veiled{c} })
	a, r := laneStreams(t, agent, relay)
	rest := time.NewTimer(3 * bound / 2)
	select { // nothing is written: an open stream may be silent for as long as it wants
	case <-agent.Done():
		t.Fatalf("the lane ended while nothing was written: %v", agent.Err())
	case <-rest.C:
	}
	must(t, r.SetReadDeadline(time.Now().Add(time.Millisecond)))
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		var err error
		for err == nil { // the relay does not read
			_, err = a.Write(make([]byte, 1<<20))
		}
		wrote <- err
	}()
	within(t, 20*time.Second, "the end of the lane", agent.Done())
	if err := <-wrote; !errors.Is(err, tunnel.ErrLaneLost) || !errors.Is(agent.Err(), tunnel.ErrLaneLost) {
		t.Errorf("the writer sees %v, the lane %v", err, agent.Err())
	}
}
