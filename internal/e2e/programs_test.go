package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// built are the three programs, built once a process unless FAIRLEAD_BIN names the folder that holds them.
var built struct {
	once sync.Once
	dir  string
	temp bool
	err  error
}

func program(t testing.TB, name string) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir = os.Getenv("FAIRLEAD_BIN"); built.dir != "" {
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "flbin"); built.err != nil {
			return
		}
		built.temp = true
		cmd := exec.Command("go", "build", "-trimpath", "-o", built.dir+string(filepath.Separator), "./agent/cmd/fairlead-agent", "./relay/cmd/fairlead-relay", "./relay/cmd/fairlead")
		cmd.Dir = filepath.Join("..", "..")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the programs: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(built.dir, name)
}

// removePrograms ends what program began, after all tests.
func removePrograms() int {
	if built.temp {
		_ = os.RemoveAll(built.dir)
	}
	return 0
}

// need finds a program that is installed, such as psql. Without it the test is skipped, or fails when CI=true.
func need(t testing.TB, names ...string) string {
	t.Helper()
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed", names[0])
	}
	t.Skipf("SKIPPED, NOT TESTED: %s is not installed", names[0])
	return ""
}

// output is what a program said.
type output struct {
	Out, Err string
	Exit     int
}

func (o output) String() string { return fmt.Sprintf("exit %d\n%s%s", o.Exit, o.Out, o.Err) }

// runProgram runs a program to its end; env entries come first and win.
func runProgram(t testing.TB, env []string, stdin string, name string, args ...string) output {
	t.Helper()
	cctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(cctx, name, args...)
	cmd.Env = append(cleanEnv(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatalf("%s %s: %v", filepath.Base(name), strings.Join(args, " "), err)
	}
	return output{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// cleanEnv is the environment without anything that would change what the programs do.
func cleanEnv() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FAIRLEAD_") && !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "MYSQL_") {
			env = append(env, v)
		}
	}
	return env
}

// process is a program that runs.
type process struct {
	*exec.Cmd
	name string
	log  *os.File
	done chan struct{} // closed once it has ended
}

// start starts a program that goes on until it is stopped; at the latest the end of the test kills it. What it writes
// goes to the end of logFile.
func start(t testing.TB, env []string, logFile, name string, args ...string) *process {
	t.Helper()
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(name, args...), name: filepath.Base(name), log: log, done: make(chan struct{})}
	p.Env, p.Stdout, p.Stderr = append(cleanEnv(), env...), log, log
	if err := p.Start(); err != nil {
		log.Close()
		t.Fatal(err)
	}
	go func() { _ = p.Wait(); log.Close(); close(p.done) }()
	t.Cleanup(p.kill)
	return p
}

// kill is kill -9, and waits.
func (p *process) kill() {
	_ = p.Process.Kill()
	<-p.done
}

// ended waits for the end and gives the exit status.
func (p *process) ended(t testing.TB, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		t.Fatalf("%s did not end within %s", p.name, limit)
	}
	return p.ProcessState.ExitCode()
}
