package wan

import (
	"errors"
	"math/rand/v2"
	"time"
)

// Addresses of the two ends, from the range that RFC 2544 keeps for such tests.
const (
	Near = "198.18.0.1"
	Far  = "198.18.0.2"
)

// mtu is that of Ethernet, so that a loss costs what it costs elsewhere.
const mtu = 1500

// Config is what a line does, each way by itself. It may change while the line is in use.
type Config struct {
	Delay time.Duration `json:"delay"` // one way, beside what the queue takes
	Rate  float64       `json:"rate"`  // bytes a second; 0: without bound
	Queue int           `json:"queue"` // bytes that may wait for the line; beyond, packets are dropped as they come
	Loss  float64       `json:"loss"`  // part of the packets that is lost by chance, 0 to 1; at 1 the line is dead
	Seed  uint64        `json:"seed"`  // of that chance; the same packets meet the same losses
}

// WAN is a line of 40 ms and 400 Mbit/s, whose queue holds what the line carries in 40 ms.
func WAN() Config { return Config{Delay: 20 * time.Millisecond, Rate: 50e6, Queue: 2_000_000, Seed: 1} }

func (c Config) check() error {
	switch {
	case c.Delay < 0 || c.Delay > time.Minute:
		return errors.New("a delay goes from 0 to 1 minute")
	case c.Loss < 0 || c.Loss > 1:
		return errors.New("a loss goes from 0 to 1")
	case c.Rate < 0 || c.Rate > 0 && c.Queue < mtu:
		return errors.New("a line with a rate wants a queue of one packet at least")
	}
	return nil
}

// Count is what one direction of a line has done.
type Count struct {
	Packets int64 `json:"packets"` // that came, dropped and lost ones included
	Bytes   int64 `json:"bytes"`
	Dropped int64 `json:"dropped"` // by the full queue
	Lost    int64 `json:"lost"`    // by chance
	Late    int64 `json:"late"`    // delivered 2 ms or more after their time: the machine was busy
}

// Counts are those of both directions since the line was opened.
type Counts struct {
	Up   Count `json:"up"`   // near to far
	Down Count `json:"down"` // far to near
}

// pipe is one direction of a line.
type pipe struct {
	cfg    Config
	chance *rand.Rand
	free   time.Duration // when the line has sent what waits
	last   time.Duration // when the packet before arrives: packets do not overtake
}

func newPipe(cfg Config, direction uint64) *pipe {
	return &pipe{cfg: cfg, chance: rand.New(rand.NewPCG(cfg.Seed, direction))}
}

type fate int

const (
	carried fate = iota
	dropped
	lost
)

// admit says when a packet of so many bytes that comes now arrives, or what becomes of it. A lost packet has used the line.
func (p *pipe) admit(now time.Duration, size int) (time.Duration, fate) {
	at := now
	if p.cfg.Rate > 0 {
		begin := max(p.free, now)
		if waiting := (begin - now).Seconds() * p.cfg.Rate; waiting+float64(size) > float64(p.cfg.Queue) {
			return 0, dropped
		}
		p.free = begin + time.Duration(float64(size)/p.cfg.Rate*float64(time.Second))
		at = p.free
	}
	// The dice are thrown for each packet, so that a change of the loss does not shift the losses behind it.
	if p.chance.Float64() < p.cfg.Loss {
		return 0, lost
	}
	p.last = max(p.last, at+p.cfg.Delay)
	return p.last, carried
}
