//go:build linux

package hostile_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/internal/testenv/servers"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// maxRSS is what an agent may ever hold. DefaultConfig's MaxBuffered is 64 MiB, a statement 16 MiB; the rest is Go's.
const maxRSS = 400 << 20

var built = struct {
	once sync.Once
	path string
	dir  string
	err  error
}{}

func TestMain(m *testing.M) {
	// Rows that run side by side wait far more than they work, so the number of CPUs says nothing of how many may.
	_ = flag.Set("test.parallel", "16")
	status := servers.Main(m, func() int {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	})
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// program is one of the programs as users run them: of FAIRLEAD_BIN, or built once.
func program(t testing.TB, name string) string {
	t.Helper()
	built.once.Do(func() {
		if built.path = os.Getenv("FAIRLEAD_BIN"); built.path != "" {
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "fairlead-hostile"); built.err != nil {
			return
		}
		built.path = built.dir
		cmd := exec.Command("go", "build", "-trimpath", "-o", built.dir+"/", "./agent/cmd/fairlead-agent", "./relay/cmd/fairlead-relay")
		cmd.Dir, cmd.Env = "../../..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the programs: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.path, name)
}

func agentBinary(t testing.TB) string { t.Helper(); return program(t, "fairlead-agent") }

// site is one agent process and the folder that it lives in.
type site struct {
	relay *rogue
	id    string
	dir   string // agent.yaml, data/ and whatever the test puts there
	env   []string
	log   *testenv.Log

	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended

	audit auditIndex
}

// newSite enrols an agent and runs it. "DIR" in the YAML is the site's folder.
func newSite(t testing.TB, r *rogue, yaml string, env ...string) *site {
	t.Helper()
	s := &site{relay: r, dir: t.TempDir(), env: env, log: &testenv.Log{}}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.write(t, "agent.yaml", "version: 1\n"+strings.ReplaceAll(yaml, "DIR", s.dir))
	s.write(t, "join.token", r.token(t))
	if err := os.Mkdir(s.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(agentBinary(t), "enroll", "--data", s.data(), "--token-file", filepath.Join(s.dir, "join.token")).CombinedOutput()
	if err != nil {
		t.Fatalf("enroll: %v\n%s", err, out)
	}
	s.id = leafOf(t, s.data()).URIs[0].Path
	s.id = s.id[strings.LastIndex(s.id, "/")+1:]
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			text := s.log.String()
			t.Logf("log of the agent:\n%s", text[max(0, len(text)-4000):])
		}
	})
	s.start(t)
	return s
}

func (s *site) data() string { return filepath.Join(s.dir, "data") }

func (s *site) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs the agent and waits for its tunnel.
func (s *site) start(t testing.TB) {
	t.Helper()
	before := s.relay.helloCount(s.id)
	cmd := exec.Command(agentBinary(t), "run", "--config", filepath.Join(s.dir, "agent.yaml"), "--data", s.data())
	cmd.Stdout, cmd.Stderr, cmd.Env = s.log, s.log, append(os.Environ(), s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	s.cmd, s.gone = cmd, gone
	go func() { defer close(gone); _ = cmd.Wait() }()
	testenv.Eventually(t, "the agent says hello", func() bool {
		select {
		case <-gone:
			t.Fatalf("the agent ended:\n%s", s.log)
		default:
		}
		return s.relay.helloCount(s.id) > before
	})
	s.relay.tunnel(t, s.id)
}

// kill ends the agent as a power cut would.
func (s *site) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.gone
	}
}

// stop ends it as an admin would.
func (s *site) stop(t testing.TB) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.gone:
	case <-time.After(45 * time.Second):
		t.Fatal("the agent did not stop")
	}
}

// answer is what the agent answered to one request.
type answer struct {
	id      string
	status  int
	header  http.Header
	body    string
	trailer http.Header
	err     error // the stream was cut
	problem protocol.Error
}

var requests atomic.Int64

func nextID() string { return "req_hostile" + strconv.FormatInt(requests.Add(1), 10) }

// ask sends one well-formed request on a stream of its own.
func (s *site) ask(t testing.TB, r protocol.Request, body string) answer {
	t.Helper()
	a, st := s.open(t, r, body)
	st.Close()
	return a
}

// open is ask that leaves the stream open, for dials.
func (s *site) open(t testing.TB, r protocol.Request, body string) (answer, tunnel.Stream) {
	t.Helper()
	if r.ID == "" {
		r.ID = nextID()
	}
	req, err := r.HTTP(context.Background(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := req.Write(&b); err != nil {
		t.Fatal(err)
	}
	a, st := s.send(t, b.String())
	a.id = r.ID
	return a, st
}

// send writes bytes to a new stream and reads one answer.
func (s *site) send(t testing.TB, text string) (a answer, st tunnel.Stream) {
	t.Helper()
	st, err := s.relay.tunnel(t, s.id).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = st.SetDeadline(time.Now().Add(40 * time.Second))
	wrote := make(chan struct{})
	go func() { defer close(wrote); _, _ = io.WriteString(st, text) }()
	t.Cleanup(func() { st.Close(); <-wrote })
	br := bufio.NewReader(st)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		a.err = err
		return a, st
	}
	a.status, a.header = resp.StatusCode, resp.Header
	if a.status == http.StatusSwitchingProtocols {
		return a, st
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	a.body, a.err, a.trailer = string(raw), err, resp.Trailer
	_ = json.Unmarshal(raw, &a.problem)
	return a, st
}

// raw writes bytes to a new stream and reads all that comes until the agent ends the stream.
func (s *site) raw(t testing.TB, text string) string {
	t.Helper()
	st, err := s.relay.tunnel(t, s.id).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	_ = st.SetDeadline(time.Now().Add(40 * time.Second))
	wrote := make(chan struct{})
	go func() { defer close(wrote); _, _ = io.WriteString(st, text) }()
	b, err := io.ReadAll(st)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the agent did not end the stream; so far it answered %.300q", b)
	}
	st.Close()
	<-wrote
	return string(b)
}

// code is what the request ended with: of a problem, of a result's last line, or "cut".
func (a answer) code() protocol.Code {
	if a.problem.Code != "" {
		return a.problem.Code
	}
	if a.err != nil {
		return "cut"
	}
	lines := strings.Split(strings.TrimSpace(a.body), "\n")
	var end protocol.ResultEnd
	if json.Unmarshal([]byte(lines[len(lines)-1]), &end) == nil && end.Error != nil {
		return end.Error.Code
	}
	return ""
}

// refused asserts that the request was refused, typed, and that the agent's own log says so with the rule.
func (s *site) refused(t testing.TB, a answer) {
	t.Helper()
	switch a.code() {
	case protocol.CodeDenied, protocol.CodeInvalid, protocol.CodeUnsupported, protocol.CodeTooLarge, protocol.CodeNotFound:
	default:
		t.Errorf("not refused: status %d, code %q, %v: %.300s", a.status, a.code(), a.err, a.body)
		return
	}
	ev := s.event(t, a.id)
	// What only the target's address or the file itself could tell is refused after the intent, so it is an outcome.
	if ev.Kind != "operation.denied" && ev.Kind != "operation.outcome" || ev.Decision != "deny" || ev.Code != string(a.code()) || a.code() == protocol.CodeDenied && ev.Rule == "" {
		t.Errorf("the agent's log tells another story: %+v", ev)
	}
}

// failed asserts that the request ended in an error, be it by the guard or by the target, and is on record.
func (s *site) failed(t testing.TB, a answer) {
	t.Helper()
	if a.code() == "" {
		t.Errorf("it went well: status %d: %.300s", a.status, a.body)
		return
	}
	s.event(t, a.id)
}

// went asserts that the request went well: without it no refusal would mean anything.
func (s *site) went(t testing.TB, a answer) {
	t.Helper()
	if a.code() != "" || a.status >= 400 {
		t.Errorf("refused: status %d, %v: %.300s", a.status, a.err, a.body)
	}
}

// row runs a row of the catalog, then checks that the agent is as it was.
func (s *site) row(t *testing.T, name string, f func(t *testing.T)) {
	ran[strings.Fields(name)[0]] = true
	t.Run(name, func(t *testing.T) {
		before := s.relay.tunnel(t, s.id)
		f(t)
		s.healthy(t)
		if s.relay.tunnel(t, s.id) != before {
			t.Error("the tunnel was lost")
		}
	})
}

// ran are the ids of the rows that ran as subtests.
var ran = map[string]bool{}

// healthy asserts that the agent lives, answers, is lean and listens on nothing.
func (s *site) healthy(t testing.TB) {
	t.Helper()
	select {
	case <-s.gone:
		t.Fatalf("the agent has ended:\n%s", s.log)
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := s.relay.tunnel(t, s.id).Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
	if rss := s.rss(t); rss > maxRSS {
		t.Errorf("the agent holds %d MiB", rss>>20)
	}
	if l := s.listening(t); len(l) > 0 {
		t.Errorf("P17: the agent listens: %v", l)
	}
	if testenv.Panicked(s.log.String()) != "" {
		t.Errorf("the agent panicked:\n%s", s.log)
	}
}

func (s *site) rss(t testing.TB) int64 { t.Helper(); return rssOf(t, s.cmd.Process.Pid) }

func (s *site) cpu(t testing.TB) time.Duration { t.Helper(); return cpuOf(t, s.cmd.Process.Pid) }

// rssOf is the memory of a process in bytes.
func rssOf(t testing.TB, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// cpuOf is what a process has used so far.
func cpuOf(t testing.TB, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}

func (s *site) listening(t testing.TB) []string { t.Helper(); return listeningOf(t, s.cmd.Process.Pid) }

// listeningOf gives the sockets that a process accepts connections or datagrams on.
func listeningOf(t testing.TB, pid int) (found []string) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	own := map[string]bool{}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	for _, kind := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(proc + "net/" + kind)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6 here
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(b), "\n")[1:] {
			f := strings.Fields(line)
			// 0A is LISTEN; 07 is an unconnected UDP socket.
			if len(f) > 9 && own[f[9]] && (strings.HasPrefix(kind, "tcp") && f[3] == "0A" || strings.HasPrefix(kind, "udp") && f[3] == "07") {
				found = append(found, kind+" "+f[1])
			}
		}
	}
	return found
}
