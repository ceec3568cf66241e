package tunnel_test

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

const floor = 256 << 10

// nothingHeld wants all books closed.
func nothingHeld(t *testing.T, tuns ...tunnel.Tunnel) {
	t.Helper()
	for _, tun := range tuns {
		eventually(t, "nothing is held", func() bool {
			floors, lent, withheld := tunnel.Held(tun)
			return floors == 0 && lent == 0 && withheld == 0
		})
	}
}

// D17: readers that are slow lose nothing, however many windows they would fill.
func TestSlowReadersAreNotCut(t *testing.T) {
	const streams, size = 40, 8 << 20
	cfg := tunnel.DefaultConfig()
	a, b := tlsPair(t, cfg)
	var (
		wg    sync.WaitGroup
		sent  atomic.Int64
		mine  [streams]atomic.Int64
		sums  [streams]uint32
		peers [streams]tunnel.Stream
	)
	defer wg.Wait()
	defer a.Close()
	for i := range streams {
		s, p := open(t, a, b)
		peers[i] = p
		wg.Go(func() {
			defer s.Close()
			block := random(64 << 10)
			for mine[i].Load() < size {
				if _, err := s.Write(block); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				sums[i] = crc32.Update(sums[i], crc32.IEEETable, block)
				mine[i].Add(int64(len(block)))
				sent.Add(int64(len(block)))
			}
		})
	}
	// Nothing is read until every writer has what is its own, and nothing has come for a while.
	last, calm := int64(0), time.Now()
	eventually(t, "writers wait", func() bool {
		if n := sent.Load(); n != last {
			last, calm = n, time.Now()
		}
		for i := range mine {
			if mine[i].Load() < floor {
				return false
			}
		}
		return time.Since(calm) > 200*time.Millisecond
	})
	if last > cfg.MaxBuffered {
		t.Errorf("%d bytes wait unread, %d may", last, cfg.MaxBuffered)
	}
	var readers sync.WaitGroup
	for i, p := range peers {
		readers.Go(func() {
			defer p.Close()
			sum := crc32.NewIEEE()
			if n, err := io.Copy(sum, p); n != size || err != nil {
				t.Errorf("stream %d: read %d bytes, %v", i, n, err)
				return
			}
			if sum.Sum32() != sums[i] {
				t.Errorf("stream %d: other bytes came", i)
			}
		})
	}
	readers.Wait()
	wg.Wait()
	nothingHeld(t, a, b)
}

// A budget that has room for floors alone still moves every stream, in both directions at once.
func TestFloorIsAlwaysOwed(t *testing.T) {
	const streams, size = 7, 4 << 20
	cfg := tunnel.DefaultConfig()
	cfg.MaxBuffered = (streams + 1) * floor
	a, b := tlsPair(t, cfg)
	var pairs [][2]tunnel.Stream
	for range streams { // before any of them is read and grows
		s, p := open(t, a, b)
		defer s.Close()
		defer p.Close()
		pairs = append(pairs, [2]tunnel.Stream{s, p})
	}
	var wg sync.WaitGroup
	for _, e := range pairs {
		s, p := e[0], e[1]
		for _, ends := range [][2]tunnel.Stream{{s, p}, {p, s}} {
			wg.Go(func() {
				if _, err := ends[0].Write(make([]byte, size)); err != nil {
					t.Errorf("write: %v", err)
				}
				_ = ends[0].CloseWrite()
			})
			wg.Go(func() {
				if n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{ends[1]}, make([]byte, 5000)); n != size || err != nil {
					t.Errorf("read %d bytes, %v", n, err)
				}
			})
		}
	}
	wg.Wait()
	nothingHeld(t, a, b)
}

func TestLoneStreamGetsTheWholeWindow(t *testing.T) {
	cfg := tunnel.DefaultConfig()
	a, b := tlsPair(t, cfg)
	s, p := open(t, a, b)
	must(t, s.SetWriteDeadline(time.Now().Add(20*time.Second)))
	for _, size := range []uint32{cfg.Window, cfg.Window / 2, cfg.Window / 2} { // yamux renews what is half used
		if _, err := s.Write(make([]byte, size)); err != nil {
			t.Fatalf("%d bytes that nobody reads: %v", size, err)
		}
		if _, err := io.ReadFull(p, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = s.Close(), p.Close()
	nothingHeld(t, a, b)
}

// crowd has a raw peer open streams until one gets no more than its floor, which is the last. Streams are numbered 1, 3, ...
func crowd(t *testing.T, cfg tunnel.Config) (*raw, tunnel.Tunnel, []tunnel.Stream) {
	peer, tun := rawPeer(t, cfg)
	var streams []tunnel.Stream
	for id := uint32(1); id < 100; id += 2 {
		peer.send(frame(window, syn, id, 0))
		s, err := tun.Accept()
		must(t, err)
		streams = append(streams, s)
		typ, flags, of, n, err := peer.next()
		if err != nil || typ != window || flags != ack || of != id {
			t.Fatalf("frame %d %d of stream %d, %v", typ, flags, of, err)
		}
		if n == 0 {
			return peer, tun, streams
		}
		if n != cfg.Window-floor {
			t.Fatalf("stream %d: %d bytes of credit", id, n)
		}
	}
	t.Fatal("each of 50 streams got its whole window")
	return nil, nil, nil
}

// granted waits for credit of the stream.
func (r *raw) granted(id uint32, want int64) {
	r.t.Helper()
	for sum := int64(0); sum < want; {
		typ, _, of, n, err := r.next()
		if err != nil {
			r.t.Fatalf("%v; %d bytes of credit came, want %d", err, sum, want)
		}
		if typ == window && of == id {
			sum += int64(n)
		}
	}
}

func TestWindowGrowsWithItsReader(t *testing.T) {
	cfg := tunnel.DefaultConfig()
	peer, _, streams := crowd(t, cfg)
	if len(streams) != 7 { // three quarters of 32 MiB
		t.Errorf("%d whole windows", len(streams)-1)
	}
	id := uint32(2*len(streams) - 1)
	peer.send(frame(data, 0, id, floor, make([]byte, floor)...))
	_, err := io.ReadFull(streams[len(streams)-1], make([]byte, floor))
	must(t, err)
	peer.granted(id, int64(cfg.Window)-floor)
}

func TestClosedStreamReturnsItsCredit(t *testing.T) {
	full := make([]byte, 4<<20-floor)
	for name, end := range map[string]func(peer *raw, s tunnel.Stream){
		"closed here":   func(_ *raw, s tunnel.Stream) { _ = s.Close() },
		"the peer ends": func(peer *raw, _ tunnel.Stream) { peer.send(frame(window, fin, 1, 0)) },
		"reset":         func(peer *raw, _ tunnel.Stream) { peer.send(frame(window, rst, 1, 0)) },
		"closed with bytes unread": func(peer *raw, s tunnel.Stream) {
			peer.send(frame(data, 0, 1, uint32(len(full)), full...))
			_, err := s.Read(make([]byte, 1))
			must(peer.t, err)
			_ = s.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := tunnel.DefaultConfig()
			peer, tun, streams := crowd(t, cfg)
			end(peer, streams[0])
			peer.granted(uint32(2*len(streams)-1), int64(cfg.Window)-floor)
			_, lent, withheld := tunnel.Held(tun)
			if want := int64(len(streams)-1) * (int64(cfg.Window) - floor); lent != want || withheld != 0 {
				t.Errorf("%d bytes lent, want %d; %d withheld", lent, want, withheld)
			}
		})
	}
}

// D17: what was not granted is not taken, although yamux would.
func TestCreditIsNotExceeded(t *testing.T) {
	peer, tun, streams := crowd(t, tunnel.DefaultConfig())
	id := uint32(2*len(streams) - 1)
	peer.send(frame(data, 0, id, floor, make([]byte, floor)...))
	if _, err := io.ReadFull(streams[len(streams)-1], make([]byte, 1)); err != nil {
		t.Fatalf("within the floor: %v", err)
	}
	peer.send(frame(data, 0, id, 1, 1))
	within(t, 10*time.Second, "the end of the tunnel", tun.Done())
	if err := tun.Err(); !errors.Is(err, tunnel.ErrProtocol) {
		t.Fatalf("got %v", err)
	}
}

// D17: streams whose floors alone are more than the budget. The greatest is cut; those that are read go on.
func TestMoreFloorsThanTheBudgetAreCut(t *testing.T) {
	cfg := tunnel.DefaultConfig()
	cfg.MaxBuffered = 4 * floor
	a, b := tlsPair(t, cfg)
	var unread []tunnel.Stream
	for range 4 {
		s, p := open(t, a, b)
		_, err := s.Write(make([]byte, floor))
		must(t, err)
		unread = append(unread, p)
	}
	s, p := open(t, a, b)
	want := random(2 << 20)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Write(want); err != nil {
			t.Errorf("write: %v", err)
		}
		_ = s.Close()
	})
	got, err := io.ReadAll(p)
	wg.Wait()
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	cut := 0
	for _, p := range unread {
		switch n, err := io.ReadFull(p, make([]byte, floor)); {
		case errors.Is(err, tunnel.ErrOverBudget):
			cut++
		case err != nil:
			t.Errorf("read %d bytes, %v", n, err)
		}
	}
	if cut != 1 {
		t.Errorf("%d streams were cut", cut)
	}
}
