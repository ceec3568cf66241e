package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// script writes the completion script of a shell and a program to complete: this binary under the program's name.
func script(t *testing.T, shell string) (shellPath, file, dir string) {
	t.Helper()
	shellPath, err := exec.LookPath(shell)
	if err != nil {
		t.Skipf("no %s on this machine", shell)
	}
	dir = t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "demo")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	var b bytes.Buffer
	if status := Run(testProgram(), []string{"completion", shell}, nil, &b, &b); status != 0 {
		t.Fatal(b.String())
	}
	file = filepath.Join(dir, "completion")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", dir)
	return shellPath, file, dir
}

func shellOut(t *testing.T, dir, shell string, args ...string) string {
	t.Helper()
	cmd := exec.Command(shell, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", shell, err, out)
	}
	return string(out)
}

func TestFishCompletion(t *testing.T) {
	fish, file, dir := script(t, "fish")
	for line, want := range map[string]string{
		"demo nested ":         "deep\tThe deep one.\nother\tAnother.\n",
		"demo li":              "list\tList things.\n",
		"demo list --output=j": "--output=json\t",
		"demo list -o ":        "json\t",
		"demo list --file com": "completion",
	} {
		out := shellOut(t, dir, fish, "--no-config", "-c", fmt.Sprintf("source %s; complete -C '%s'", file, line))
		if !strings.Contains(out, want) {
			t.Errorf("%q: got %q, want %q", line, out, want)
		}
	}
}

// zsh's completion system wants a terminal; its helpers are replaced by ones that print what they are given.
func TestZshCompletion(t *testing.T) {
	zsh, file, dir := script(t, "zsh")
	for line, want := range map[string]string{
		`demo nested ""`:            "deep:The deep one.\nother:Another.\n",
		`demo li`:                   "list:List things.\n",
		`demo list --output=j`:      "--output=json:",
		`demo --relay x:1 nested d`: "deep:",
		`demo list --file ""`:       "FILES\n",
	} {
		test := fmt.Sprintf("compdef() { }\n_describe() { print -l -- ${(P)2} }\n_files() { print FILES }\nsource %s\nwords=(%s)\nCURRENT=$#words\n_demo\n", file, line)
		out := shellOut(t, dir, zsh, "-f", "-c", test)
		if !strings.Contains(out, want) {
			t.Errorf("%q: got %q, want %q", line, out, want)
		}
	}
}
