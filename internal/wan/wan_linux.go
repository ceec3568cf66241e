package wan

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// isolatedEnv marks the process that Isolate runs.
const isolatedEnv = "FAIRLEAD_LAB_ISOLATED"

// Available says why there can be no line here; nil if there can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("an emulated line wants root: it makes network namespaces and TUN devices")
	}
	f, err := openTun()
	if err != nil {
		return fmt.Errorf("an emulated line wants TUN devices: %w", err)
	}
	return unix.Close(f)
}

// Isolated reports whether this process is the near end: whether Isolate ran it.
func Isolated() bool { return os.Getenv(isolatedEnv) == "1" }

// Isolate runs a command line in a network namespace of its own, where Isolated is true, and gives its exit code. Where it
// runs, nothing is reachable but its own loopback, and Open.
func Isolate(ctx context.Context, argv []string) (int, error) {
	if err := Available(); err != nil {
		return 0, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	// Pdeathsig is about the thread that starts the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A terminal interrupts both; what is left to the near end is left to it.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("make a network namespace: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// Line joins the namespace of this process to one of its own, the far end. Whoever opened it closes it, after the processes
// at the far end have ended.
type Line struct {
	far *os.File // the namespace
	cmd *exec.Cmd
	in  io.WriteCloser

	closing sync.Once
	closed  error

	mu  sync.Mutex // guards the conversation with the process of the line
	out *bufio.Reader
}

// Open makes the far end and the line to it. self is a command line of this program that calls Serve. congestion is the TCP
// congestion control that both ends take when a program asks for none.
func Open(cfg Config, congestion string, self []string) (_ *Line, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if !Isolated() {
		return nil, errors.New("a line begins in a network namespace of its own: see Isolate")
	}
	l := &Line{}
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	near, err := endpoint(Near, congestion)
	if err != nil {
		return nil, fmt.Errorf("the near end: %w", err)
	}
	defer near.Close()
	var far *os.File
	err = within(unshare, func() (err error) {
		if l.far, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		far, err = endpoint(Far, congestion)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the far end: %w", err)
	}
	defer far.Close()
	l.cmd = exec.Command(self[0], self[1:]...)
	l.cmd.ExtraFiles = []*os.File{near, far}
	l.cmd.Stderr = os.Stderr
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	l.out = bufio.NewReader(out)
	if err := l.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the process of the line: %w", err)
	}
	// It shall not wait for a core behind the programs that are measured.
	_ = unix.Setpriority(unix.PRIO_PROCESS, l.cmd.Process.Pid, -15)
	return l, l.Set(cfg)
}

// within runs f on a thread that enter has put into another namespace, and brings the thread back. It must not end instead:
// programs that it has started want to end with it (Pdeathsig).
func within(enter, f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := enter(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	done := f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("come back from another namespace: %w", err) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return done
}

// into enters a namespace that is open.
func into(ns *os.File) func() error {
	return func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("go to another namespace: %w", err)
		}
		return nil
	}
}

func unshare() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	return nil
}

// AtFar runs f at the far end: sockets that it makes in its own goroutine are there.
func (l *Line) AtFar(f func() error) error { return within(into(l.far), f) }

// Start starts a program at the far end.
func (l *Line) Start(cmd *exec.Cmd) error { return l.AtFar(cmd.Start) }

// Set changes what the line does. It holds for packets that come after Set has returned.
func (l *Line) Set(cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	b, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	_, err = l.tell(b)
	return err
}

// Counts tells what the line has done.
func (l *Line) Counts() (Counts, error) { return l.tell(nil) }

func (l *Line) tell(b []byte) (c Counts, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.in.Write(append(b, '\n')); err != nil {
		return c, fmt.Errorf("the process of the line: %w", err)
	}
	answer, err := l.out.ReadBytes('\n')
	if err != nil {
		return c, fmt.Errorf("the process of the line: %w", err)
	}
	return c, json.Unmarshal(answer, &c)
}

// Congestions are the TCP congestion controls that this kernel has.
func Congestions() []string { return fields(available) }

// Close ends the line. The far end goes with the last process in it.
func (l *Line) Close() error {
	l.closing.Do(func() { l.closed = l.close() })
	return l.closed
}

func (l *Line) close() error {
	var err error
	if l.in != nil {
		err = l.in.Close()
	}
	if l.cmd != nil && l.cmd.Process != nil {
		kill := time.AfterFunc(5*time.Second, func() { _ = l.cmd.Process.Kill() })
		err = errors.Join(err, l.cmd.Wait())
		kill.Stop()
	}
	if l.far != nil {
		err = errors.Join(err, l.far.Close())
	}
	return err
}

// endpoint sets up the namespace of the calling thread: its device, its address, and how its TCP behaves.
func endpoint(address, congestion string) (*os.File, error) {
	settings := map[string]string{
		"net/ipv6/conf/all/disable_ipv6":     "1", // nothing but what is asked for goes over the line
		"net/ipv6/conf/default/disable_ipv6": "1",
		"net/ipv4/tcp_no_metrics_save":       "1", // a connection knows nothing of the ones before
	}
	for name, value := range settings {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil && !(errors.Is(err, os.ErrNotExist) && strings.Contains(name, "ipv6")) {
			return nil, fmt.Errorf("set %s to %s: %w", name, value, err)
		}
	}
	if congestion != "" {
		if err := setCongestion(congestion); err != nil {
			return nil, err
		}
	}
	fd, err := openTun()
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq("wan0")
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err == nil {
		err = configure(address)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make a TUN device: %w", err)
	}
	return os.NewFile(uintptr(fd), "wan0"), nil
}

const (
	controls  = "/proc/sys/net/ipv4/tcp_congestion_control"
	available = "/proc/sys/net/ipv4/tcp_available_congestion_control"
	allowed   = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
)

// setCongestion sets the congestion control of the calling thread's namespace. A namespace may only take one that the kernel
// allows to everybody, and that list is the whole machine's: where the name is missing it is there for the moment it takes.
func setCongestion(name string) error {
	if err := os.WriteFile(controls, []byte(name), 0); err == nil {
		return nil
	}
	if have := fields(available); !slices.Contains(have, name) {
		return fmt.Errorf("TCP congestion control %q: this kernel has %s", name, strings.Join(have, ", "))
	}
	outside, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	if err != nil {
		return fmt.Errorf("the namespace that this one was made from: %w", err)
	}
	defer outside.Close()
	was, err := os.ReadFile(allowed)
	if err != nil {
		return err
	}
	allow := func(list string) error {
		return within(into(outside), func() error {
			if err := os.WriteFile(allowed, []byte(list), 0); err != nil {
				return fmt.Errorf("allow TCP congestion control %q: %w", name, err)
			}
			return nil
		})
	}
	if err := allow(strings.TrimSpace(string(was)) + " " + name); err != nil {
		return err
	}
	err = os.WriteFile(controls, []byte(name), 0)
	if err != nil {
		err = fmt.Errorf("set TCP congestion control %q: %w", name, err)
	}
	return errors.Join(err, allow(string(was)))
}

func fields(file string) []string {
	b, _ := os.ReadFile(file)
	return strings.Fields(string(b))
}

const tunPath = "/dev/net/tun"

// openTun opens the device of TUN devices, and makes it where a container has none.
func openTun() (int, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll("/dev/net", 0o755); err != nil {
			return -1, err
		}
		if err := unix.Mknod(tunPath, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))); err != nil {
			return -1, fmt.Errorf("make %s: %w", tunPath, err)
		}
		fd, err = unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", tunPath, err)
	}
	return fd, nil
}

// configure gives loopback and the TUN device of the calling thread's namespace what they need.
func configure(address string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	at := netip.MustParseAddr(address).As4()
	up := func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING) }
	for _, step := range []struct {
		device, what string
		request      uint
		set          func(*unix.Ifreq)
	}{
		{"lo", "bring it up", unix.SIOCSIFFLAGS, up},
		{"wan0", "its address", unix.SIOCSIFADDR, func(r *unix.Ifreq) { _ = r.SetInet4Addr(at[:]) }},
		{"wan0", "its netmask", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) { _ = r.SetInet4Addr([]byte{255, 255, 255, 0}) }},
		{"wan0", "its MTU", unix.SIOCSIFMTU, func(r *unix.Ifreq) { r.SetUint32(mtu) }},
		// The queue of the line is the only one that may drop.
		{"wan0", "its queue", unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) { r.SetUint32(20000) }},
		{"wan0", "bring it up", unix.SIOCSIFFLAGS, up},
	} {
		r, err := unix.NewIfreq(step.device)
		if err != nil {
			return err
		}
		step.set(r)
		if err := unix.IoctlIfreq(s, step.request, r); err != nil {
			return fmt.Errorf("%s: %s: %w", step.device, step.what, err)
		}
	}
	return nil
}
