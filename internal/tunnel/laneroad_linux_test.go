package tunnel_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// swallow has the kernel drop, before TCP sees it, whatever comes to the lane's socket: a road that carries nothing in that
// direction. A proxy in the middle would not do, for its kernel acknowledges.
func swallow(t testing.TB, l *tunnel.Lane) {
	t.Helper()
	raw, err := tunnel.LaneSocket(l).SyscallConn()
	must(t, err)
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	var set error
	must(t, raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	}))
	must(t, set)
}

// fill writes until it fails, and gives why.
func fill(s tunnel.Stream) <-chan error {
	wrote := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = s.Write(make([]byte, 1<<20))
		}
		wrote <- err
	}()
	return wrote
}

func TestLaneWhoseRoadDiesUnderItsBytesEnds(t *testing.T) {
	const bound = 800 * time.Millisecond
	for _, writer := range []string{"agent", "relay"} {
		for _, how := range []string{"one byte", "as much as goes", "after the reader stalled"} {
			t.Run(writer+" "+how, func(t *testing.T) {
				t.Parallel()
				agent, relay := lanePairOf(t, tunnel.Config{LaneSilence: bound}, nil)
				a, r := laneStreams(t, agent, relay)
				from, to, s := agent, relay, a
				if writer == "relay" {
					from, to, s = relay, agent, r
				}
				read := make(chan error, 1)
				go func() { _, err := s.Read(make([]byte, 1)); read <- err }()
				var wrote <-chan error
				switch how {
				case "one byte":
					swallow(t, to)
					_, err := s.Write([]byte{'x'})
					must(t, err)
				case "as much as goes":
					swallow(t, to)
					wrote = fill(s)
				default:
					wrote = fill(s)
					stalled := time.NewTimer(500 * time.Millisecond)
					<-stalled.C
					swallow(t, to)
				}
				within(t, 20*time.Second, "the end of the lane", from.Done())
				if !errors.Is(from.Err(), tunnel.ErrLaneLost) {
					t.Errorf("the lane ended with %v", from.Err())
				}
				if err := <-read; !errors.Is(err, tunnel.ErrLaneLost) {
					t.Errorf("the reader of the stream sees %v", err)
				}
				if wrote != nil {
					if err := <-wrote; !errors.Is(err, tunnel.ErrLaneLost) {
						t.Errorf("its writer sees %v", err)
					}
				}
			})
		}
	}
}

// A lane is found dead within the bound, and not before most of it is over.
func TestDeadRoadIsFoundInTime(t *testing.T) {
	const bound = 2 * time.Second
	agent, relay := lanePairOf(t, tunnel.Config{LaneSilence: bound}, nil)
	_, r := laneStreams(t, agent, relay)
	swallow(t, agent)
	begin := time.Now()
	_, err := r.Write([]byte{'x'})
	must(t, err)
	within(t, 20*time.Second, "the end of the lane", relay.Done())
	if took := time.Since(begin); took < bound*3/4 || took > 2*bound { // twice: for a busy machine
		t.Errorf("found after %s, and the bound is %s", took, bound)
	} else {
		t.Logf("found after %s", took)
	}
}

// A reader that stalls for far longer than the bound loses nothing, and neither does its writer. Linux answers the first questions of
// the writer's kernel once in half a second: the bound is well above that, as the real one is.
func TestLaneOfAReaderThatStallsLives(t *testing.T) {
	const bound = 1600 * time.Millisecond
	for name, buffer := range map[string]int{"buffers as they are": 0, "small buffers": 4 << 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent, relay := lanePairOf(t, tunnel.Config{LaneSilence: bound}, nil)
			a, r := laneStreams(t, agent, relay)
			size := 24 << 20
			if buffer > 0 {
				must(t, tunnel.LaneSocket(agent).SetReadBuffer(buffer))
				must(t, tunnel.LaneSocket(relay).SetWriteBuffer(buffer))
				size = 128 << 10
			}
			wrote := make(chan error, 1)
			go func() {
				_, err := r.Write(make([]byte, size))
				if err == nil {
					err = r.CloseWrite()
				}
				wrote <- err
			}()
			stall := time.NewTimer(4 * bound)
			select {
			case <-relay.Done():
				t.Fatalf("a reader that stalls lost its lane: %v", relay.Err())
			case <-agent.Done():
				t.Fatalf("a reader that stalls lost its lane: %v", agent.Err())
			case err := <-wrote:
				t.Fatalf("the writer did not have to wait: %v", err)
			case <-stall.C:
			}
			if n, err := io.Copy(io.Discard, a); n != int64(size) || err != nil {
				t.Errorf("%d of %d bytes, %v", n, size, err)
			}
			must(t, <-wrote)
			must(t, r.Close())
			must(t, a.Close())
			eventually(t, "a lane that is given back", func() bool { return !relay.Busy() })
		})
	}
}

// What was sent last may be on its way when the lane was given back: the road is looked at until that has arrived.
func TestIdleLaneWithBytesOnTheirWayEnds(t *testing.T) {
	agent, relay := lanePairOf(t, tunnel.Config{LaneSilence: 800 * time.Millisecond}, nil)
	a, r := laneStreams(t, agent, relay)
	must(t, a.Close())
	if _, err := io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	swallow(t, agent)
	must(t, r.Close()) // its end is swallowed; the agent's own has come
	eventually(t, "a lane that is given back", func() bool { return !relay.Busy() })
	within(t, 20*time.Second, "the end of the lane", relay.Done())
	if !errors.Is(relay.Err(), tunnel.ErrLaneLost) {
		t.Error(relay.Err())
	}
}
