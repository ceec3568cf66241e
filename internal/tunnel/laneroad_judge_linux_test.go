package tunnel

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the kernel shows, in the order of looks five seconds apart, and whether the last of them ends the lane at 17.5 s.
func TestWhatTheKernelShowsOfARoad(t *testing.T) {
	const every, bound = 5 * time.Second, 17500 * time.Millisecond
	type look = unix.TCPInfo
	// open: bytes are flying to a peer whose window is open. shut: the same, and it has none.
	open := func(again uint8, acked uint64, lastAck uint32) look {
		return look{Unacked: 9, Snd_wnd: 1000, Retransmits: again, Bytes_acked: acked, Last_ack_recv: lastAck, Last_data_sent: 10}
	}
	shut := func(lastSent, lastAck uint32) look {
		return look{Unacked: 9, Last_data_sent: lastSent, Last_ack_recv: lastAck}
	}
	asks := func(probes uint8, lastAck uint32) look {
		return look{Probes: probes, Last_data_sent: 90_000, Last_ack_recv: lastAck}
	}
	for name, c := range map[string]struct {
		looks []look
		dead  bool
	}{
		"bytes in flight, and nothing comes": {[]look{open(1, 7, 5000), open(3, 7, 10_000), open(4, 7, 15_000), open(5, 7, 20_000), open(5, 7, 25_000)}, true},
		"not yet for long enough":            {[]look{open(0, 7, 5000), open(3, 7, 10_000), open(4, 7, 15_000), open(5, 7, 20_000), open(5, 7, 25_000)}, false},
		// What comes is the peer's own, sent again: it acknowledges no more than before.
		"bytes in flight, and old acknowledgements come": {[]look{open(1, 7, 9), open(3, 7, 9), open(4, 7, 9), open(5, 7, 9), open(5, 7, 9)}, true},
		"a busy lane":                        {[]look{open(0, 1, 1), open(0, 2, 2), open(0, 3, 1), open(0, 4, 1), open(0, 5, 1), open(0, 6, 1)}, false},
		"a lossy one":                        {[]look{open(1, 1, 1), open(1, 2, 2), open(2, 3, 1), open(1, 4, 1), open(3, 5, 1), open(1, 6, 1)}, false},
		"the first bytes after a long rest":  {[]look{{Last_data_sent: 400_000, Last_ack_recv: 400_000, Snd_wnd: 9}, open(0, 7, 405_000)}, false},
		"a reader that stalls and answers":   {[]look{asks(0, 4000), asks(1, 9000), asks(0, 3), asks(0, 5003), asks(1, 10_003), asks(0, 4)}, false},
		"one that is always asked just then": {[]look{asks(1, 4000), asks(1, 3000), asks(1, 3000), asks(1, 3000), asks(1, 3000), asks(1, 3000)}, false},
		"questions without an answer":        {[]look{asks(1, 9000), asks(1, 14_000), asks(2, 19_000), asks(2, 24_000), asks(2, 29_000)}, true},
		// It shut its window while bytes were flying: they are sent again and again, at growing intervals.
		"a reader that stalls and refuses": {[]look{shut(4000, 3990), shut(9000, 8990), shut(14_000, 13_990), shut(19_000, 18_990), shut(24_000, 23_990), shut(29_000, 29_000)}, false},
		"and refuses no more":              {[]look{shut(10, 40_000), shut(5010, 45_000), shut(10_010, 50_000), shut(15_010, 55_000), shut(20_010, 60_000)}, true},
		"an answer in between":             {[]look{shut(10, 40_000), shut(5010, 45_000), shut(10_010, 50_000), shut(10, 2000), shut(5010, 7000), shut(10_010, 12_000)}, false},
	} {
		var d doubt
		now, dead := time.Now(), false
		for i := range c.looks {
			if dead {
				t.Errorf("%s: dead at look %d", name, i)
			}
			dead = d.over(now, sightOf(&c.looks[i]), bound)
			now = now.Add(every)
		}
		if dead != c.dead {
			t.Errorf("%s: dead is %v", name, dead)
		}
	}
}
