package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is a program that runs beside the harness.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // file of what it printed
	done chan struct{} // closed once it has ended
}

// bareEnv is the environment without anything that would change what the programs do, plus what is named.
func bareEnv(more ...string) (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FAIRLEAD_") && !strings.HasPrefix(v, "PG") {
			env = append(env, v)
		}
	}
	return append(env, more...)
}

// start starts a program; what it prints goes to a file in dir. It ends with stop, or with the harness.
func start(dir, name string, env []string, argv ...string) (*process, error) {
	return startBy((*exec.Cmd).Start, dir, name, env, argv...)
}

func startBy(begin func(*exec.Cmd) error, dir, name string, env []string, argv ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = bareEnv(env...), log, log
	endWithParent(p.cmd)
	if err := begin(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p, nil
}

// stop asks the process to end, and kills it after five seconds. A nil process is none.
func (p *process) stop() {
	if p == nil {
		return
	}
	if askToEnd(p.cmd.Process) == nil {
		select {
		case <-p.done:
			return
		case <-time.After(5 * time.Second):
		}
	}
	p.kill()
}

func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// tail is the end of what the process printed.
func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	return strings.TrimSpace(string(b[max(0, len(b)-600):]))
}

// run runs a program to its end and gives what it printed on standard output.
func run(ctx context.Context, env []string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = bareEnv(env...)
	out, err := cmd.Output()
	if err != nil {
		said := ""
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			said = strings.TrimSpace(string(exit.Stderr[max(0, len(exit.Stderr)-600):]))
		}
		return string(out), fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, said)
	}
	return string(out), nil
}

// every calls ready until it gives nil, the time is up or a process that it depends on has ended.
func every(ctx context.Context, limit time.Duration, ready func(context.Context) error, needs ...*process) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		try, end := context.WithTimeout(ctx, 2*time.Second)
		err := ready(try)
		end()
		if err == nil {
			return nil
		}
		for _, p := range needs {
			select {
			case <-p.done:
				return fmt.Errorf("%s has ended: %s", p.name, p.tail())
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready within %s: %w", limit, err)
		case <-tick.C:
		}
	}
}

// wait waits, or says why not.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ports gives loopback ports below the range of outgoing connections, each once, so that they are still free after a
// restart. Not for concurrent use.
type ports struct{ next int }

func (p *ports) take() (int, error) {
	if p.next == 0 {
		p.next = 12000 + os.Getpid()*7%6000
	}
	for range 2000 {
		p.next++
		ln, err := net.Listen("tcp", loopback(p.next))
		if err == nil {
			return p.next, ln.Close()
		}
	}
	return 0, errors.New("no free port was found")
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// dial opens a TCP connection on this machine.
func dial(ctx context.Context, addr string) (net.Conn, error) {
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
}
