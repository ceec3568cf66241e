//go:build linux

package e2e_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
)

// TestWindowsAgentUnderWine takes fairlead-agent.exe from its sample site to a service that answers through a relay on
// Linux, and away again. Wine takes a minute to set up, so it runs when FAIRLEAD_TEST_WINE is set; it wants the packages
// wine and gcc-mingw-w64-x86-64. Access lists, service accounts and recovery are not shown by it: Wine has none.
func TestWindowsAgentUnderWine(t *testing.T) {
	if os.Getenv("FAIRLEAD_TEST_WINE") == "" {
		t.Skip("set FAIRLEAD_TEST_WINE to run it")
	}
	i := install(t, "") // its Linux agent stays off: the agent of this test is a second one
	w := newWine(t, i.path("wine"))
	w.build("fair lead/fairlead-agent.exe", "./agent/cmd/fairlead-agent")
	const exe = `C:\fair lead\fairlead-agent.exe`
	step := func(status int, want string, args ...string) string {
		t.Helper()
		got, out := w.run(append([]string{exe}, args...)...)
		if got != status || !strings.Contains(out, want) {
			t.Fatalf("%v: status %d, want %d with %q: %s", args, got, status, want, out)
		}
		return out
	}

	step(0, "windows/amd64", "version")
	step(0, `wrote C:\site\agent.yaml`, "sample", "--dir", `C:\site`)
	step(0, "it offers:", "check", "--config", `C:\site\agent.yaml`)
	step(0, "allowed", "explain", "--config", `C:\site\agent.yaml`, "query", "shop", "select 1")
	step(77, `C:\site\agent.yaml:8`, "explain", "--config", `C:\site\agent.yaml`, "query", "shop", "delete from customers")

	join := i.run("join-token", "create", "--group", "default")
	if err := os.WriteFile(w.path("join.token"), []byte(join.Out), 0o600); err != nil {
		t.Fatal(err)
	}
	step(0, "enrolled as agent agt_", "enroll", "--data", `C:\data`, "--token-file", `C:\join.token`)
	step(0, "valid until", "status", "--data", `C:\data`)
	step(4, "not installed", "service", "status")
	step(0, "starts with the machine", "service", "install", "--config", `C:\site\agent.yaml`, "--data", `C:\data`)
	step(0, "is started", "service", "start")
	step(0, `NT SERVICE\fairlead-agent`, "service", "status")
	connected := func() {
		t.Helper()
		testenv.Eventually(t, "the agent is connected", func() bool {
			agents, err := i.client.Agents(ctx)
			for _, a := range agents {
				if err == nil && a.Tunnels > 0 {
					return true
				}
			}
			return false
		})
	}
	connected()

	i.connections("shop", "papers")
	if out := i.ok("query", "shop", "select name, email from customers order by id limit 1", "-o", "csv"); out != "name,email\r\nAda Lovelace,[masked]\r\n" {
		t.Errorf("query: %q", out)
	}
	if out := i.ok("files", "get", "papers:report.csv", "-"); !strings.HasPrefix(out, "month,total\n") {
		t.Errorf("file: %q", out)
	}
	i.write("note.txt", "from Linux\n", 0o600)
	i.ok("files", "put", i.path("note.txt"), "papers:note.txt")
	if b, err := os.ReadFile(w.path("site/papers/note.txt")); err != nil || string(b) != "from Linux\n" {
		t.Errorf("%q %v", b, err)
	}
	i.fails(77, []string{"the agent at the site", "database.shop.allow.mode"}, "query", "shop", "delete from customers")
	for _, name := range []string{`papers:..\agent.yaml`, "papers:C:/site/agent.yaml", "papers:NUL", "papers:report.csv:stream"} {
		if o := i.run("files", "get", name, "-"); o.Exit == 0 {
			t.Errorf("%s was read: %s", name, o)
		}
	}

	// A running service, looked at from outside; then a stop, a refused configuration, and the log of both.
	step(0, "last record", "status", "--data", `C:\data`)
	step(0, "is stopped", "service", "stop")
	step(3, "stopped", "service", "status")
	yaml := w.path("site/agent.yaml")
	good, err := os.ReadFile(yaml)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(yaml, []byte(strings.Replace(string(good), "mode: read_only", "mode: nonsense", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	step(69, "fairlead-agent.log", "service", "start")
	log, err := os.ReadFile(w.path("data/fairlead-agent.log"))
	for _, want := range []string{"connected to relay", "operation refused", "stopping", "nonsense"} {
		if err != nil || !strings.Contains(string(log), want) {
			t.Errorf("no %q in the service's log: %v %s", want, err, log)
		}
	}
	if err := os.WriteFile(yaml, good, 0o600); err != nil {
		t.Fatal(err)
	}
	step(0, "is started", "service", "start")
	connected()
	if out := i.ok("query", "shop", "select count(*) as n from customers", "-o", "csv"); out != "n\r\n4\r\n" {
		t.Errorf("after the restart: %q", out)
	}
	out := step(0, `removed C:\data`, "service", "uninstall", "--purge", "--yes")
	if _, err := os.Stat(w.path("data")); err == nil || !strings.Contains(out, "identity.pem") {
		t.Errorf("L17: the data folder is there still, or was not listed: %v %s", err, out)
	}
	step(4, "not installed", "service", "status")
	if b, err := os.ReadFile(yaml); err != nil || string(b) != string(good) {
		t.Errorf("the configuration went too: %v", err)
	}
}

// wine is a Windows of the test's own.
type wine struct {
	t   *testing.T
	dir string
	env []string
}

func newWine(t *testing.T, dir string) *wine {
	need(t, "wine")
	need(t, "wineserver")
	w := &wine{t: t, dir: dir, env: append(cleanEnv(), "WINEPREFIX="+dir, "WINEDEBUG=-all", "WINEARCH=win64", "DISPLAY=", "HOME="+filepath.Dir(dir))}
	server := func(arg string) { // its status says no more than that one was or was not running
		cmd := exec.Command("wineserver", arg)
		cmd.Env = w.env
		_ = cmd.Run()
	}
	t.Cleanup(func() { server("-k") })
	w.run("wineboot", "-i")
	server("-w") // until all of it has ended: a service manager that is going away takes no services
	// Wine 8 lacks a function that Go programs want.
	cmd := exec.Command(need(t, "x86_64-w64-mingw32-gcc"), "-shared", "-O2", "-s", "-o", w.path("windows/system32/bcryptprimitives.dll"),
		filepath.Join("..", "daemon", "testdata", "bcryptprimitives.c"), "-ladvapi32")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// Services end with the last program that is none, so one stays until its input ends.
	keep := exec.Command("wine", "cmd")
	keep.Env = w.env
	in, err := keep.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := keep.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := keep.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 10)); err != nil { // it greets: now it is there
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		timer := time.AfterFunc(10*time.Second, func() { _ = keep.Process.Kill() })
		_ = keep.Wait()
		timer.Stop()
	})
	return w
}

func (w *wine) path(name string) string {
	return filepath.Join(w.dir, "drive_c", filepath.FromSlash(name))
}

func (w *wine) build(to, pkg string) {
	w.t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-o", w.path(to), pkg)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("build %s: %v: %s", pkg, err, out)
	}
}

// run runs a Windows program to its end. Services inherit the output, so it goes to a file: a pipe would be waited on for
// as long as they live.
func (w *wine) run(args ...string) (int, string) {
	w.t.Helper()
	out, err := os.CreateTemp(w.t.TempDir(), "out")
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("wine", args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = w.env, out, out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	timer := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait() // the status is what counts
	timer.Stop()
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(out)
	if err != nil {
		w.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), strings.ReplaceAll(string(b), "\r\n", "\n")
}
