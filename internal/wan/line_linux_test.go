package wan

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// labEnv asks for the tests that want root and a line: make lab sets it.
const labEnv = "FAIRLEAD_TEST_LAB"

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "line" {
		if err := Serve(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == "hold" {
		l, err := Open(WAN(), "", []string{os.Args[0], "line"})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(l.cmd.Process.Pid)
		<-ctx.Done()
		os.Exit(0)
	}
	if os.Getenv(labEnv) != "" && !Isolated() {
		code, err := Isolate(ctx, os.Args)
		if err != nil {
			fmt.Fprintln(os.Stderr, "the laboratory:", err)
			code = 1
		}
		os.Exit(code)
	}
	stop()
	goleak.VerifyTestMain(m)
}

// devices are two pairs that keep packets apart, as TUN devices do: the first of each for the line.
func devices(t *testing.T) (near, far [2]*os.File) {
	t.Helper()
	pair := func() (p [2]*os.File) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, fd := range fds {
			p[i] = os.NewFile(uintptr(fd), "pair")
			t.Cleanup(func() { p[i].Close() })
		}
		return p
	}
	return pair(), pair()
}

// TestTheProcessOfALine speaks its protocol, in this process and without root.
func TestTheProcessOfALine(t *testing.T) {
	near, far := devices(t)
	settings, in := io.Pipe()
	answers, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serve(near[0], far[0], settings, out) }()
	read := bufio.NewReader(answers)
	tell := func(what any) (c Counts) {
		t.Helper()
		var b []byte
		if what != nil {
			b, _ = json.Marshal(what)
		}
		if _, err := in.Write(append(b, '\n')); err != nil {
			t.Fatal(err)
		}
		line, err := read.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &c)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const delay = 30 * time.Millisecond
	tell(Config{Delay: delay, Seed: 1})
	b := make([]byte, 100)
	for i := range 20 {
		binary.BigEndian.PutUint32(b, uint32(i))
		begin := time.Now()
		if _, err := near[1].Write(b); err != nil {
			t.Fatal(err)
		}
		if err := far[1].SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := far[1].Read(b)
		if err != nil || n != 100 || binary.BigEndian.Uint32(b) != uint32(i) {
			t.Fatalf("packet %d: %d bytes, %v", i, n, err)
		}
		if took := time.Since(begin); took < delay {
			t.Fatalf("packet %d took %s on a line of %s", i, took, delay)
		}
	}
	if c := tell(nil); c.Up.Packets != 20 || c.Up.Bytes != 2000 || c.Up.Lost+c.Up.Dropped != 0 || c.Down.Packets != 0 {
		t.Errorf("the line counts %+v", c)
	}
	// A dead line: what comes is counted and does not arrive; what comes after it has healed does.
	tell(Config{Delay: delay, Loss: 1, Seed: 1})
	if _, err := far[1].Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); tell(nil).Down.Lost != 1; {
		if time.Now().After(deadline) {
			t.Fatal("the dead line does not count a packet")
		}
	}
	tell(Config{Delay: delay, Seed: 1})
	if _, err := far[1].Write([]byte("carried")); err != nil {
		t.Fatal(err)
	}
	if err := near[1].SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := near[1].Read(b); err != nil || string(b[:n]) != "carried" {
		t.Errorf("after the line has healed: %q, %v", b[:n], err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestNoLineWithoutItsOwnNamespace(t *testing.T) {
	if Isolated() {
		t.Skip("make lab runs it in one")
	}
	if _, err := Open(WAN(), "", []string{os.Args[0], "line"}); err == nil || !strings.Contains(err.Error(), "Isolate") {
		t.Errorf("a line in the namespace of everybody: %v", err)
	}
}

// lab opens a real line, or skips.
func lab(t *testing.T, cfg Config, congestion string) *Line {
	t.Helper()
	if os.Getenv(labEnv) == "" {
		t.Skip("SKIPPED, NOT TESTED: make lab runs it, as root on Linux")
	}
	l, err := Open(cfg, congestion, []string{os.Args[0], "line"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// echo starts a UDP echo at the far end and gives a socket that is connected to it.
func echo(t *testing.T, l *Line) net.Conn {
	t.Helper()
	var far net.PacketConn
	if err := l.AtFar(func() (err error) { far, err = net.ListenPacket("udp4", Far+":7"); return err }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 2000)
		for {
			n, from, err := far.ReadFrom(b)
			if err != nil {
				return
			}
			if _, err := far.WriteTo(b[:n], from); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	})
	t.Cleanup(func() { far.Close(); wg.Wait() })
	c, err := (&net.Dialer{}).DialContext(t.Context(), "udp4", Far+":7")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestTheLineIsAsItWasSet sends a packet each 2 ms through a real line, and counts what comes back and when.
func TestTheLineIsAsItWasSet(t *testing.T) {
	const n, delay, loss = 2000, 50 * time.Millisecond, 0.05
	l := lab(t, Config{Delay: delay, Rate: 50e6, Queue: 2_000_000, Loss: loss, Seed: 3}, "")
	c := echo(t, l)
	var wg sync.WaitGroup
	begin := time.Now()
	wg.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for i := range n {
			<-tick.C
			b := make([]byte, 200)
			binary.BigEndian.PutUint64(b, uint64(time.Since(begin)))
			if _, err := c.Write(b); err != nil {
				t.Errorf("packet %d: %v", i, err)
				return
			}
		}
		// What is under way has this long to come back, however busy the machine is.
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	})
	var took []time.Duration
	b := make([]byte, 2000)
	for {
		k, err := c.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || k != 200 {
			t.Fatalf("%d bytes, %v", k, err)
		}
		took = append(took, time.Since(begin)-time.Duration(binary.BigEndian.Uint64(b)))
	}
	wg.Wait()
	back := (1 - loss) * (1 - loss)
	if d := math.Abs(float64(len(took)) - n*back); d > 5*math.Sqrt(n*back*(1-back)) {
		t.Errorf("%d of %d came back; with 5 %% lost each way %.0f were to be expected", len(took), n, n*back)
	}
	slices.Sort(took)
	if took[0] < 2*delay {
		t.Errorf("one came back after %s, on a line of %s each way", took[0], delay)
	}
	if mid := took[len(took)/2]; mid > 2*delay+delay/2 {
		t.Errorf("half of them took more than %s, on a line of %s each way", mid, delay)
	}
	counts, err := l.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts.Up.Packets != n || counts.Up.Lost+counts.Down.Lost != int64(n-len(took)) || counts.Down.Packets != n-counts.Up.Lost {
		t.Errorf("%d sent, %d came back, and the line counts %+v", n, len(took), counts)
	}
	t.Logf("round trips: least %s, median %s, p99 %s, most %s; %d of %d came back", took[0], took[len(took)/2], took[len(took)*99/100], took[len(took)-1], len(took), n)
}

// TestTheLineCarriesWhatItsRateSays moves bytes over TCP: the line neither lets more through than it was told, nor is it the
// emulation that holds them back.
func TestTheLineCarriesWhatItsRateSays(t *testing.T) {
	const rate, size = 10e6, 20 << 20
	l := lab(t, Config{Delay: 5 * time.Millisecond, Rate: rate, Queue: 200_000, Seed: 1}, "")
	rest := carry(t, l, size)
	if rest > rate {
		t.Errorf("%.1f MB/s went over a line of %.1f", rest/1e6, rate/1e6)
	}
	if rest < rate/2 {
		t.Errorf("%.1f MB/s went over a line of %.1f", rest/1e6, rate/1e6)
	}
	counts, err := l.Counts()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.2f MB/s; %+v", rest/1e6, counts)
}

// TestWhatTheEmulationReaches says it for this machine and this hour. It asserts nothing of it but that bytes pass.
func TestWhatTheEmulationReaches(t *testing.T) {
	l := lab(t, Config{Delay: 5 * time.Millisecond, Seed: 1}, "")
	rate := carry(t, l, 256<<20)
	counts, err := l.Counts()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("without a bound on the rate: %.0f Mbit/s; %+v", rate*8/1e6, counts)
}

// TestBothEndsTakeTheCongestionControlAskedFor, and the list of what the machine allows is as it was.
func TestBothEndsTakeTheCongestionControlAskedFor(t *testing.T) {
	before := fields(allowed)
	for _, name := range Congestions() {
		l := lab(t, WAN(), name)
		look := func(end string) {
			if got := fields(controls); len(got) != 1 || got[0] != name {
				t.Errorf("the %s end has %v, %s was asked for", end, got, name)
			}
		}
		look("near")
		if err := l.AtFar(func() error { look("far"); return nil }); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := fields(allowed); !slices.Equal(before, after) {
		t.Errorf("the machine allowed %v, and now %v", before, after)
	}
	if os.Getenv(labEnv) != "" {
		if _, err := Open(WAN(), "nosuch", []string{os.Args[0], "line"}); err == nil || !strings.Contains(err.Error(), "nosuch") {
			t.Errorf("a congestion control that is not there: %v", err)
		}
	}
}

// TestAProgramThatIsKilledLeavesNothing: neither the process of its line nor a device.
func TestAProgramThatIsKilledLeavesNothing(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Skip("SKIPPED, NOT TESTED: make lab runs it, as root on Linux")
	}
	cmd := exec.Command(os.Args[0], "hold")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(out, &pid)
	if err != nil || pid <= 0 {
		t.Errorf("no line was opened: %d, %v", pid, err)
	} else if _, err := net.InterfaceByName("wan0"); err != nil {
		t.Errorf("a line without a device: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		_, device := net.InterfaceByName("wan0")
		stat, process := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		gone := process != nil || strings.Contains(string(stat), ") Z ") // nobody may be there to reap it
		if device != nil && gone {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the program was killed, and of its line is left: device %v, process gone %v", device == nil, gone)
		}
	}
}

// carry moves size bytes from the far end to the near one and gives bytes a second.
func carry(t *testing.T, l *Line, size int64) float64 {
	t.Helper()
	var ln net.Listener
	if err := l.AtFar(func() (err error) { ln, err = net.Listen("tcp4", Far+":9"); return err }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer ln.Close()
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return // the dialer tells
		}
		defer c.Close()
		_, _ = io.CopyN(struct{ io.Writer }{c}, endless{}, size)
	})
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp4", Far+":9")
	if err != nil {
		counts, _ := l.Counts()
		t.Fatalf("%v; the line has %+v", err, counts)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	n, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	if err != nil || n != size {
		t.Fatalf("%d bytes of %d came: %v", n, size, err)
	}
	return float64(n) / time.Since(begin).Seconds()
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
