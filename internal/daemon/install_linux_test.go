package daemon

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/cli"
)

var update = flag.Bool("update", false, "rewrite golden files")

// A fakeSystem records what would be done to the machine.
type fakeSystem struct {
	system
	calls   []string
	fail    string // a call that begins with this fails
	output  string
	account bool
	owned   []string
}

func newFake(t *testing.T) *fakeSystem {
	f := &fakeSystem{account: true}
	f.system = system{
		unitDir: t.TempDir(), booted: "/", euid: 0,
		run: func(name string, args ...string) (string, error) {
			call := name + " " + strings.Join(args, " ")
			f.calls = append(f.calls, call)
			if f.fail != "" && strings.HasPrefix(call, f.fail) {
				return "", errors.New("it failed")
			}
			if name == "useradd" {
				f.account = true
			}
			return f.output, nil
		},
		lookup: func(string) (int, int, error) {
			if !f.account {
				return 0, 0, errors.New("no such user")
			}
			return 990, 990, nil
		},
		chown: func(_ *os.Root, name string, uid, gid int) error {
			if uid != 990 || gid != 990 {
				return errors.New("wrong owner")
			}
			f.owned = append(f.owned, name)
			return nil
		},
	}
	return f
}

func TestUnit(t *testing.T) {
	agent := sample()
	agent.FolderAccess = true
	relay := sample()
	relay.Name, relay.Description, relay.LowPorts, relay.DataDir = "fairlead-relay", "Fairlead relay", true, "/data/relay 1"
	relay.Args = []string{"serve", "--data", relay.DataDir, `a"b\c$d%e;`, ""}
	for name, s := range map[string]Service{"agent": agent, "relay": relay} {
		t.Run(name, func(t *testing.T) {
			path, got := filepath.Join("testdata", name+".service"), s.unit()
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s", got)
			}
			if strings.Contains(got, "\nEnvironment") {
				t.Error("L8: a unit holds no environment")
			}
		})
	}
}

// What systemd itself says of the unit: no fault, and an exposure of at most 2.0 of 10 (row L10).
func TestSystemdAcceptsTheUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze on this machine; the text of the unit is tested by TestUnit")
	}
	for _, low := range []bool{false, true} {
		s := sample()
		s.FolderAccess, s.LowPorts, s.User = !low, low, "daemon"
		s.Executable = "/bin/true" // verify wants one that exists
		path := filepath.Join(t.TempDir(), s.Name+".service")
		if err := writeUnit(path, s.unit()); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, s.Name) || strings.Contains(line, path) {
				t.Errorf("verify: %s", line)
			}
		}
		if err != nil && len(out) == 0 {
			t.Errorf("verify: %v", err)
		}
		out, err = exec.Command(analyze, "security", "--offline=true", "--no-pager", path).CombinedOutput()
		if err != nil {
			if bytes.Contains(out, []byte("unrecognized option")) {
				t.Skip("this systemd-analyze is older than 250")
			}
			t.Fatalf("security: %v: %s", err, out)
		}
		m := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("no exposure level in %s", out)
		}
		level, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil || level > 2.0 {
			t.Errorf("L10: exposure %s, want at most 2.0:\n%s", m[1], out)
		}
		t.Logf("low ports %v: exposure %v", low, level)
	}
}

func TestInstall(t *testing.T) {
	f := newFake(t)
	f.account = false
	s := sample()
	s.DataDir = filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(s.DataDir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(s.DataDir, "link")); err != nil {
		t.Fatal(err)
	}
	notes, err := s.install(f.system)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "made the system account fairlead-agent") }) {
		t.Errorf("notes %q", notes)
	}
	want := []string{"useradd --system --user-group --no-create-home --home-dir " + s.DataDir + " --shell /usr/sbin/nologin fairlead-agent",
		"systemctl daemon-reload", "systemctl enable fairlead-agent.service"}
	if !slices.Equal(f.calls, want) {
		t.Errorf("calls %q", f.calls)
	}
	unit := filepath.Join(f.unitDir, "fairlead-agent.service")
	info, err := os.Stat(unit)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("unit: %v %v", info, err)
	}
	if os.Geteuid() == 0 && !slices.Equal(f.owned, []string{".", "link", "sub"}) {
		t.Errorf("given to the account: %q", f.owned)
	}
	// Again: an upgrade replaces our unit.
	if _, err := s.install(f.system); err != nil {
		t.Errorf("second install: %v", err)
	}
	// And out again; what stays is named.
	notes, err = s.uninstall(f.system)
	if err != nil || !strings.Contains(strings.Join(notes, " "), "left in place") {
		t.Errorf("%v %q", err, notes)
	}
	if _, err := os.Stat(unit); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unit is still there: %v", err)
	}
	if _, err := s.uninstall(f.system); cli.ExitStatus(err) != 66 {
		t.Errorf("second uninstall: %v", err)
	}
}

func TestInstallRefuses(t *testing.T) {
	s := sample()
	s.DataDir = filepath.Join(t.TempDir(), "data")
	t.Run("not root", func(t *testing.T) {
		f := newFake(t)
		f.euid = 1000
		for verb, do := range map[string]func() error{
			"install":   func() error { _, err := s.install(f.system); return err },
			"uninstall": func() error { _, err := s.uninstall(f.system); return err },
			"start":     func() error { return s.control(f.system, "start") },
		} {
			if err := do(); cli.ExitStatus(err) != 77 || !strings.Contains(err.Error(), "needs root") {
				t.Errorf("%s: %v", verb, err)
			}
		}
		if f.calls != nil {
			t.Errorf("called %q", f.calls)
		}
	})
	t.Run("no systemd", func(t *testing.T) {
		f := newFake(t)
		f.booted = "/nonexistent"
		if _, err := s.install(f.system); cli.ExitStatus(err) != 69 {
			t.Errorf("%v", err)
		}
	})
	t.Run("a foreign unit is left alone", func(t *testing.T) {
		f := newFake(t)
		unit := filepath.Join(f.unitDir, "fairlead-agent.service")
		if err := os.WriteFile(unit, []byte("[Unit]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.install(f.system); cli.ExitStatus(err) != 73 {
			t.Errorf("install: %v", err)
		}
		if _, err := s.uninstall(f.system); cli.ExitStatus(err) != 73 {
			t.Errorf("uninstall: %v", err)
		}
		if b, err := os.ReadFile(unit); err != nil || string(b) != "[Unit]\n" || f.calls != nil {
			t.Errorf("%q %v %q", b, err, f.calls)
		}
	})
	t.Run("unknown account", func(t *testing.T) {
		f := newFake(t)
		f.account = false
		s := s
		s.User = "somebody"
		if _, err := s.install(f.system); cli.ExitStatus(err) != 66 || f.calls != nil {
			t.Errorf("%v %q", err, f.calls)
		}
	})
	t.Run("L10 root as account", func(t *testing.T) {
		f := newFake(t)
		f.lookup = func(string) (int, int, error) { return 0, 0, nil }
		if _, err := s.install(f.system); cli.ExitStatus(err) != 64 {
			t.Errorf("%v", err)
		}
	})
	t.Run("a program in a home folder", func(t *testing.T) {
		f := newFake(t)
		f.hidden = []string{"/home"}
		s := s
		s.Executable = "/home/me/fairlead-agent"
		if _, err := s.install(f.system); cli.ExitStatus(err) != 64 || f.calls != nil {
			t.Errorf("%v %q", err, f.calls)
		}
	})
	t.Run("nothing is left of an install that failed", func(t *testing.T) {
		f := newFake(t)
		f.fail = "systemctl enable"
		if _, err := s.install(f.system); err == nil {
			t.Error("no error")
		}
		if files, _ := os.ReadDir(f.unitDir); len(files) != 0 {
			t.Errorf("left %v", files)
		}
	})
	t.Run("a failed upgrade keeps the old unit", func(t *testing.T) {
		f := newFake(t)
		unit, old := filepath.Join(f.unitDir, "fairlead-agent.service"), unitMark+"old\n"
		if err := os.WriteFile(unit, []byte(old), 0o644); err != nil {
			t.Fatal(err)
		}
		f.fail = "systemctl enable"
		if _, err := s.install(f.system); err == nil {
			t.Error("no error")
		}
		if b, err := os.ReadFile(unit); err != nil || string(b) != old {
			t.Errorf("%q %v", b, err)
		}
	})
}

func TestStatus(t *testing.T) {
	for out, want := range map[string]Status{
		"LoadState=not-found\nActiveState=inactive\n":                                      {State: NotInstalled},
		"LoadState=loaded\nActiveState=inactive\nMainPID=0\nResult=success\nNRestarts=0\n": {State: Stopped},
		"LoadState=loaded\nActiveState=active\nMainPID=42\nUser=fairlead-agent\nFragmentPath=/x\nActiveEnterTimestamp=Sat 2026-11-21\nNRestarts=2\nResult=success\n": {
			State: Running, PID: 42, User: "fairlead-agent", Unit: "/x", Since: "Sat 2026-11-21", Note: "started again 2 times"},
		"LoadState=loaded\nActiveState=failed\nResult=exit-code\n": {State: Failed, Note: "last end: exit-code"},
		"LoadState=loaded\nActiveState=activating\n":               {State: Starting},
		"LoadState=loaded\nActiveState=deactivating\n":             {State: Stopping},
	} {
		f := newFake(t)
		f.output = out
		f.euid = 1000 // needs no rights
		want.Name = "fairlead-agent"
		got, err := sample().status(f.system)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", out, got, err)
		}
	}
}

func TestStartOfAServiceThatIsNotThere(t *testing.T) {
	f := newFake(t)
	f.output = "LoadState=not-found\n"
	if err := sample().control(f.system, "start"); cli.ExitStatus(err) != 66 || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("%v", err)
	}
}

type serviceGrammar struct {
	Service Commands `cmd:"" help:"The service."`
}

func TestCommands(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	run := func(args ...string) (int, string) {
		var b bytes.Buffer
		s := sample()
		status := cli.Run(cli.Program{Name: s.Name, Grammar: &serviceGrammar{}, Bind: []any{s}}, args, nil, &b, &b)
		return status, b.String()
	}
	if status, out := run("service", "install", "--help"); status != 0 || !strings.Contains(out, "Examples:") {
		t.Errorf("%d %s", status, out)
	}
	if status, out := run("service", "install"); status != 64 || !strings.Contains(out, "--config FILE") {
		t.Errorf("%d %s", status, out)
	}
	if status, out := run("service", "install", "--config", filepath.Join(t.TempDir(), "none.yaml")); status != 66 {
		t.Errorf("%d %s", status, out)
	}
}
