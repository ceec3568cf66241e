//go:build linux

package daemon

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestServiceUnderWine takes a service through its life under Wine's service control manager: with a space in its path
// (row L7), a drain, and an end by error. Wine takes a minute to set up, so it runs when FAIRLEAD_TEST_WINE is set; it
// wants the packages wine and gcc-mingw-w64-x86-64. What Wine does not have (recovery flags, service SIDs, access lists)
// is not shown by it.
func TestServiceUnderWine(t *testing.T) {
	if os.Getenv("FAIRLEAD_TEST_WINE") == "" {
		t.Skip("set FAIRLEAD_TEST_WINE to run it")
	}
	dir := t.TempDir()
	prefix := filepath.Join(dir, "wine")
	drive := filepath.Join(prefix, "drive_c")
	env := append(os.Environ(), "WINEPREFIX="+prefix, "WINEDEBUG=-all", "WINEARCH=win64", "DISPLAY=", "HOME="+dir)
	tool := func(env []string, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	// Services inherit the output, so it goes to files: a pipe would be waited on for as long as they live.
	run := func(args ...string) (int, string) {
		t.Helper()
		out, err := os.CreateTemp(dir, "out")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd := exec.Command("wine", args...)
		cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
		err = cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), strings.ReplaceAll(string(b), "\r\n", "\n")
	}
	server := func(arg string) { // its status says no more than that one was or was not running
		cmd := exec.Command("wineserver", arg)
		cmd.Env = env
		_ = cmd.Run()
	}
	defer server("-k")
	run("wineboot", "-i")
	server("-w") // until all of it has ended: a service manager that is going away takes no services
	// It goes away with the last program that is no service, so one stays until its input ends.
	keep := exec.Command("wine", "cmd")
	keep.Env = env
	in, err := keep.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	greeting, err := keep.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := keep.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(greeting, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = keep.Wait()
	}()
	tool(os.Environ(), "x86_64-w64-mingw32-gcc", "-shared", "-O2", "-s", "-o", filepath.Join(drive, "windows/system32/bcryptprimitives.dll"),
		"testdata/bcryptprimitives.c", "-ladvapi32")
	tool(append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0"), "go", "build", "-o", filepath.Join(drive, "fair lead", "fairlead-demo.exe"), "./testdata/demo")

	const demo = `C:\fair lead\fairlead-demo.exe`
	step := func(status int, want string, args ...string) {
		t.Helper()
		got, out := run(append([]string{demo, "service"}, args...)...)
		if got != status || !strings.Contains(out, want) {
			t.Errorf("%v: status %d, want %d with %q: %s", args, got, status, want, out)
		}
	}
	step(4, "not installed", "status")
	step(66, "is not installed", "start")
	step(0, "starts with the machine", "install", "--data", `C:\data`)
	step(73, "is installed already", "install", "--data", `C:\data`)
	_, reg := run("reg", "query", `HKLM\System\CurrentControlSet\Services\fairlead-demo`)
	for _, want := range []string{`"C:\fair lead\fairlead-demo.exe" run --data C:\data --service`, `NT SERVICE\fairlead-demo`} {
		if !strings.Contains(reg, want) {
			t.Errorf("L7, L10: no %s in %s", want, reg)
		}
	}
	if strings.Contains(reg, "Environment") {
		t.Errorf("L8: %s", reg)
	}
	step(0, "is started", "start")
	step(0, "running", "status")
	step(0, "is stopped", "stop")
	step(3, "stopped", "status")
	log := func(want string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(drive, "data", "demo.log"))
		if err != nil || !strings.HasSuffix(string(b), want) {
			t.Errorf("%v: log %q, want %q at its end", err, b, want)
		}
	}
	log("start\ndrain\nend\nreturned <nil>\n")
	if err := os.WriteFile(filepath.Join(drive, "data", "fail"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	step(69, "did not start: it is failed", "start")
	step(3, "last end: error 1066 (1)", "status")
	log("returned told to fail\n")
	step(0, "left in place", "uninstall")
	step(4, "not installed", "status")
}
