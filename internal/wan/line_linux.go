package wan

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// inFlight is how many packets one direction can hold: a second at 500 Mbit/s, and more of small ones.
const inFlight = 1 << 16

// packet is one that is under way.
type packet struct {
	at   time.Duration // when it arrives
	data []byte
	buf  *[mtu + 64]byte
}

var buffers = sync.Pool{New: func() any { return new([mtu + 64]byte) }}

// way carries one direction.
type way struct {
	from, to *os.File
	queue    chan packet

	mu    sync.Mutex // guards the fields below
	pipe  *pipe
	count Count
}

// line carries both directions between two TUN devices.
type line struct {
	began time.Time
	ways  [2]*way
}

func newLine(near, far *os.File, cfg Config) *line {
	return &line{began: time.Now(), ways: [2]*way{
		{from: near, to: far, queue: make(chan packet, inFlight), pipe: newPipe(cfg, 0)},
		{from: far, to: near, queue: make(chan packet, inFlight), pipe: newPipe(cfg, 1)},
	}}
}

func (l *line) now() time.Duration { return time.Since(l.began) }

// set changes what the line does to packets that come from now on.
func (l *line) set(cfg Config) {
	for i, w := range l.ways {
		w.mu.Lock()
		if cfg.Seed != w.pipe.cfg.Seed {
			w.pipe.chance = newPipe(cfg, uint64(i)).chance
		}
		w.pipe.cfg = cfg
		w.mu.Unlock()
	}
}

func (l *line) counts() Counts {
	var c [2]Count
	for i, w := range l.ways {
		w.mu.Lock()
		c[i] = w.count
		w.mu.Unlock()
	}
	return Counts{Up: c[0], Down: c[1]}
}

// run carries until the devices are closed.
func (l *line) run() {
	var wg sync.WaitGroup
	for _, w := range l.ways {
		wg.Go(func() { defer close(w.queue); l.read(w) })
		wg.Go(func() { l.write(w) })
	}
	wg.Wait()
}

// read takes packets from a device and decides what becomes of each.
func (l *line) read(w *way) {
	buf := buffers.Get().(*[mtu + 64]byte)
	for {
		n, err := w.from.Read(buf[:])
		if err != nil {
			return
		}
		w.mu.Lock()
		at, f := w.pipe.admit(l.now(), n)
		w.count.Packets++
		w.count.Bytes += int64(n)
		switch f {
		case dropped:
			w.count.Dropped++
		case lost:
			w.count.Lost++
		}
		w.mu.Unlock()
		if f != carried {
			continue
		}
		w.queue <- packet{at, buf[:n], buf}
		buf = buffers.Get().(*[mtu + 64]byte)
	}
}

// write delivers packets when their time has come.
func (l *line) write(w *way) {
	broken := false
	for p := range w.queue {
		late := l.until(p.at)
		if !broken {
			_, err := w.to.Write(p.data)
			broken = err != nil
		}
		buffers.Put(p.buf)
		if late >= 2*time.Millisecond {
			w.mu.Lock()
			w.count.Late++
			w.mu.Unlock()
		}
	}
}

// until waits for a time of the line, and says by how much it was missed. It sleeps in the kernel: timers of Go are good for
// a millisecond where nothing else runs, and that would be a part of each delay here.
func (l *line) until(at time.Duration) time.Duration {
	for {
		left := at - l.now()
		if left <= 20*time.Microsecond {
			return -left
		}
		t := unix.NsecToTimespec(int64(left))
		_ = unix.Nanosleep(&t, nil) // a signal ends it early, so it is a loop
	}
}

// Files that the process of a line is given, beside the standard ones.
const (
	nearDevice = 3
	farDevice  = 4
)

// Serve is the process that carries the packets of a line, as Open starts it: the devices are open files, settings come on
// standard input, a line of JSON each, and each is answered with the counts on standard output. It ends with either.
func Serve(ctx context.Context) error {
	for _, fd := range []int{nearDevice, farDevice} {
		// The way here made them blocking, and then nothing would end a Read.
		if err := unix.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("the process of a line is started by the program that wants one, with its devices: %w", err)
		}
	}
	near, far := os.NewFile(nearDevice, "near"), os.NewFile(farDevice, "far")
	defer near.Close()
	defer far.Close()
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	return serve(near, far, os.Stdin, os.Stdout)
}

func serve(near, far *os.File, in io.Reader, out io.Writer) error {
	var l *line
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { near.Close(); far.Close() }()
	lines, answers := bufio.NewScanner(in), json.NewEncoder(out)
	for lines.Scan() {
		if l == nil || len(lines.Bytes()) > 0 {
			var cfg Config
			if err := json.Unmarshal(lines.Bytes(), &cfg); err != nil {
				return fmt.Errorf("settings of a line: %w", err)
			}
			if l == nil {
				l = newLine(near, far, cfg)
				wg.Go(l.run)
			} else {
				l.set(cfg)
			}
		}
		if err := answers.Encode(l.counts()); err != nil {
			return err
		}
	}
	return lines.Err()
}
