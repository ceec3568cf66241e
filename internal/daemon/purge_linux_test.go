package daemon

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/cli"
)

// purged runs the command on a fake machine and gives its status and what it printed.
func purged(f *fakeSystem, s Service, c uninstallCommand, answer string) (int, string) {
	var out bytes.Buffer
	m := parts{
		func(what string) error { return f.ready(what) },
		func() (remains, error) { return s.remainsOn(f.system) },
		func() ([]string, error) { return s.uninstall(f.system) },
		func(name string) error { _, err := f.run("userdel", name); return err },
	}
	err := c.purge(&cli.Term{In: strings.NewReader(answer), Out: &out, Err: &out}, s, m)
	if err != nil {
		out.WriteString(err.Error())
	}
	return cli.ExitStatus(err), out.String()
}

func TestPurge(t *testing.T) {
	setup := func(t *testing.T, dir string) (*fakeSystem, Service) {
		s := sample()
		s.DataDir, s.DataFiles = dir, []string{"identity.json"}
		f := newFake(t)
		f.home = func(string) (string, error) {
			if !f.account {
				return "", errors.New("no such user")
			}
			return s.DataDir, nil
		}
		if err := os.MkdirAll(filepath.Join(s.DataDir, "audit"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"identity.json", "audit/1.log"} {
			if err := os.WriteFile(filepath.Join(s.DataDir, name), []byte("1234"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.install(f.system); err != nil {
			t.Fatal(err)
		}
		f.calls = nil
		return f, s
	}
	there := func(path string) bool { _, err := os.Lstat(path); return !errors.Is(err, fs.ErrNotExist) }
	for name, c := range map[string]struct {
		yes    bool
		answer string
		goes   bool
	}{
		"L17 with --yes":            {true, "", true},
		"L17 with the name typed":   {false, "fairlead-agent\n", true},
		"L17 without an answer":     {false, "", false},
		"L17 with a hasty y":        {false, "y\n", false},
		"L17 with another's name":   {false, "fairlead-relay\n", false},
		"L17 with part of the name": {false, "fairlead\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := setup(t, filepath.Join(t.TempDir(), `da "ta" 100%`))
			status, out := purged(f, s, uninstallCommand{Purge: true, Yes: c.yes}, c.answer)
			for _, want := range []string{"the service fairlead-agent", s.DataDir + " with 2 files, 8 B", "identity.json", "audit/", "the account fairlead-agent", "the configuration"} {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not said: %s", want, out)
				}
			}
			if !c.goes {
				if status != 130 || !there(s.DataDir) || !there(s.unitPath(f.system)) || len(f.calls) != 0 {
					t.Errorf("status %d, calls %q: %s", status, f.calls, out)
				}
				return
			}
			if status != 0 || there(s.DataDir) || there(s.unitPath(f.system)) || !slices.Contains(f.calls, "userdel fairlead-agent") {
				t.Errorf("status %d, calls %q: %s", status, f.calls, out)
			}
		})
	}
	t.Run("what is not ours stays", func(t *testing.T) {
		for what, change := range map[string]func(f *fakeSystem, s *Service) int{
			"another folder is named": func(*fakeSystem, *Service) int { return 64 },
			"no known file": func(_ *fakeSystem, s *Service) int {
				if err := os.Remove(filepath.Join(s.DataDir, "identity.json")); err != nil {
					t.Fatal(err)
				}
				return 73
			},
			"a link": func(_ *fakeSystem, s *Service) int {
				if err := os.Rename(s.DataDir, s.DataDir+"2"); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(s.DataDir+"2", s.DataDir); err != nil {
					t.Fatal(err)
				}
				return 73
			},
			"a unit of somebody else": func(f *fakeSystem, s *Service) int {
				if err := os.WriteFile(s.unitPath(f.system), []byte("[Unit]\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return 73
			},
			"not root": func(f *fakeSystem, _ *Service) int { f.euid = 1000; return 77 },
		} {
			f, s := setup(t, filepath.Join(t.TempDir(), "data"))
			want := change(f, &s)
			c := uninstallCommand{Purge: true, Yes: true}
			if want == 64 {
				c.Data = "/srv"
			}
			if status, out := purged(f, s, c, ""); status != want || !there(s.DataDir) || !there(s.unitPath(f.system)) || len(f.calls) != 0 {
				t.Errorf("%s: status %d, calls %q: %s", what, status, f.calls, out)
			}
		}
	})
	t.Run("an account of the admin's stays", func(t *testing.T) {
		f, s := setup(t, filepath.Join(t.TempDir(), "data"))
		f.home = func(string) (string, error) { return "/home/somebody", nil }
		if status, out := purged(f, s, uninstallCommand{Purge: true, Yes: true}, ""); status != 0 || there(s.DataDir) || strings.Contains(out, "the account fairlead") || slices.Contains(f.calls, "userdel fairlead-agent") {
			t.Errorf("status %d, calls %q: %s", status, f.calls, out)
		}
	})
	t.Run("after an uninstall", func(t *testing.T) {
		f, s := setup(t, filepath.Join(t.TempDir(), "data"))
		if _, err := s.uninstall(f.system); err != nil {
			t.Fatal(err)
		}
		if status, out := purged(f, s, uninstallCommand{Purge: true, Yes: true, Data: s.DataDir}, ""); status != 0 || there(s.DataDir) {
			t.Errorf("status %d: %s", status, out)
		}
		f.home = func(string) (string, error) { return "/home/somebody", nil }
		if status, out := purged(f, s, uninstallCommand{Purge: true, Yes: true, Data: s.DataDir}, ""); status != 66 {
			t.Errorf("again: status %d: %s", status, out)
		}
	})
}

func TestUnquoteUndoesQuote(t *testing.T) {
	for _, path := range []string{"/data", "/da ta", `/a"b\c%d'e;`, `/trailing\`, "/dollar$HOME"} {
		if got := unquote(quote(path, false)); got != path {
			t.Errorf("%q became %q", path, got)
		}
	}
}
