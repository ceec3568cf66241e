package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Server is a running database server. Its superuser signs in by password from the loopback interface.
type Server struct {
	Host     string // 127.0.0.1
	Port     int
	User     string // a superuser
	Password string
	Database string // one that exists and is empty at start
	Socket   string // PostgreSQL: the folder; MariaDB: the file
	CAFile   string // of the server's certificate, which is for 127.0.0.1 and localhost
	AdminDSN string // PostgreSQL: a postgres:// URL; MariaDB: user:password@tcp(host:port)/database

	stop func() error
}

// Addr is host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// one is a server that is started once in a process.
type one struct {
	once sync.Once
	s    *Server
	err  error
}

var postgres, maria one // shared by the tests of a process

var errMissing = errors.New("is not installed; internal/testenv/servers/install.sh installs it on Debian")

// PostgreSQL gives the process's PostgreSQL server and starts it if need be. Without the programs the test is skipped, or
// fails when CI=true. The package's TestMain must call Main.
func PostgreSQL(tb testing.TB) *Server {
	tb.Helper()
	return postgres.get(tb, "PostgreSQL", startPostgreSQL)
}

// MariaDB gives the process's MariaDB server, like PostgreSQL.
func MariaDB(tb testing.TB) *Server { tb.Helper(); return maria.get(tb, "MariaDB", startMariaDB) }

func (o *one) get(tb testing.TB, name string, start func() (*Server, error)) *Server {
	tb.Helper()
	o.once.Do(func() { o.s, o.err = start() })
	switch {
	case o.err == nil:
		return o.s
	case errors.Is(o.err, errMissing) && os.Getenv("CI") != "true":
		tb.Skipf("SKIPPED, NOT TESTED: %s %v", name, o.err)
	default:
		tb.Fatalf("start %s: %v", name, o.err)
	}
	return nil
}

// Main runs the tests and stops the servers that they started: os.Exit(servers.Main(m)). Checks such as goleak's go into
// after, which runs once the servers are down and gives an exit status.
func Main(m *testing.M, after ...func() int) int {
	code := m.Run()
	for _, o := range []*one{&postgres, &maria} {
		if o.s != nil {
			if err := o.s.stop(); err != nil {
				fmt.Fprintln(os.Stderr, "stop server:", err)
				code = max(code, 1)
			}
		}
	}
	for _, f := range after {
		code = max(code, f())
	}
	return code
}

// find looks for a program on PATH and in the places where distributions put servers. The last match is the newest version.
func find(name string, patterns ...string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, pattern := range patterns {
		found, _ := filepath.Glob(filepath.Join(pattern, name))
		if len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, errMissing)
}

// freePort finds a port below the range of outgoing connections, which could take it before the server does, and above those that
// tests keep for programs that start again (testenv.LowPort).
func freePort() (int, error) {
	for try := range 200 {
		port := 28000 + (os.Getpid()*31+try*37)%4000
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, ln.Close()
		}
	}
	return 0, errors.New("no free port found in 28000 to 31999")
}

// folder makes a temporary folder whose path is short enough for a Unix socket, owned by the server's user.
func folder(prefix string, owner *account) (string, error) {
	base := os.TempDir()
	if len(base) > 40 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, prefix)
	if err != nil {
		return "", err
	}
	return dir, owner.own(dir)
}

// run runs a program to its end as the account.
func run(owner *account, dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	owner.use(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, out)
	}
	return nil
}

// launch starts a server and waits until ready says so. Its output goes to a file in dir. The server ends when stop is
// called, and also when this process dies.
func launch(owner *account, dir string, ready func() error, name string, args ...string) (stop func() error, err error) {
	log, err := os.Create(filepath.Join(dir, "server.out"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd, end, err := owner.server(dir, name, args...)
	if err != nil {
		return nil, err
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if err := cmd.Start(); err != nil {
		end()
		return nil, err
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	stop = func() error {
		end()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
		return os.RemoveAll(dir)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(90 * time.Second)
	for {
		if err = ready(); err == nil {
			return stop, nil
		}
		select {
		case <-tick.C:
		case <-done:
			out, _ := os.ReadFile(log.Name()) // gone if the watcher was faster
			_ = stop()
			return nil, fmt.Errorf("%s ended at start\n%s", filepath.Base(name), out)
		case <-limit:
			_ = stop()
			return nil, fmt.Errorf("%s does not accept connections: %w", filepath.Base(name), err)
		}
	}
}
